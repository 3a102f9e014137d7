//! TLS that ends at a listener, and TLS that begins at a pool.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::codec::{
    Codec, Leaf, duration, group_if_given, groups, list, named, path, required, spelled,
};
use super::reader::{At, Reader};
use super::table::{Shape, schema, settings, text, words};
use super::text::Text;
use super::tree::Kind;
use super::values::{self, MINUTE, between};
use super::{Check, Pool};
use crate::tls::Policy;

settings! {
    /// TLS that ends here: backends get what its clients send inside of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Tls: Shape {
        /// The certificates, by the names that they are for. A name may have several, one for each
        /// kind of key.
        pub certificates: Vec<ServedFiles> = Vec::new() => required(certificates());
        /// Which certificate clients get that ask for no name, or for one that none is for:
        /// "first" the first one, "refuse" none (the alert unrecognized_name).
        pub unknown_name: UnknownName = UnknownName::First
            => named("setting for unknown names", &UnknownName::ALL);
        /// Which versions and ciphers are spoken: "intermediate" TLS 1.2 and 1.3, "modern" TLS 1.3
        /// alone.
        pub policy: TlsPolicy = TlsPolicy::Intermediate => named("TLS policy", &TlsPolicy::ALL);
        /// The application protocols (ALPN), the preferred one first, such as ["h2", "http/1.1"]. A
        /// client that names protocols and none of these is refused. Empty: none is agreed on.
        pub alpn: Vec<String> = Vec::new() => list(protocol());
        /// Whose certificates clients show. Without it they are asked for none.
        pub clients: Option<TlsClients> = None => group_if_given();
        /// How long a handshake may take since the accept.
        pub handshake: Duration = Duration::from_secs(10) => duration(between(1, MINUTE));
    }
}

settings! {
    /// A certificate that clients get, and its key, in PEM.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ServedFiles {
        /// The file of the certificate, followed by those between it and its authority.
        pub certificate: PathBuf = PathBuf::new() => required(path());
        /// The file of its private key, which only its owner and its group may read.
        pub key: PathBuf = PathBuf::new() => required(path());
        /// The file of its authority's answer that it is not revoked (OCSP), in DER. Handshakes
        /// carry it to clients that ask, until it expires. Without it they get none.
        pub ocsp: Option<PathBuf> = None => path().given();
    }
}

settings! {
    /// A certificate and its key, in PEM.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct CertificateFiles {
        /// The file of the certificate, followed by those between it and its authority.
        pub certificate: PathBuf = PathBuf::new() => required(path());
        /// The file of its private key, which only its owner and its group may read.
        pub key: PathBuf = PathBuf::new() => required(path());
    }
}

settings! {
    /// Certificates of clients.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TlsClients {
        /// The file of the authorities, in PEM, that their certificates are verified by.
        pub ca: PathBuf = PathBuf::new() => required(path());
        /// A file of revocation lists, in PEM or DER: a client whose certificate is in one is
        /// refused. It must have a list of each authority in `ca`, and of each one between an
        /// authority and a client. Without it revocation is not checked.
        pub crl: Option<PathBuf> = None => path().given();
        /// Whether a client without a certificate is let in: "required" refuses it, "optional" lets
        /// it in.
        pub certificate: ClientCertificate = ClientCertificate::Required
            => named("setting for client certificates", &ClientCertificate::ALL);
    }
}

settings! {
    /// TLS with the backends of a pool, of connections or of probes.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct BackendTls {
        /// The name that backends are asked for (SNI; RFC 6066), and that their certificates must
        /// have. Not given: the host name of each, or its address.
        pub sni: Option<String> = None => server_name();
        /// The protocols that backends are offered (ALPN; RFC 7301), the preferred one first. Where
        /// a check has its own, the backend must take one of them.
        pub alpn: Vec<String> = Vec::new() => list(protocol());
        /// How their certificates are verified: by the authorities that the machine trusts
        /// ("system"), by those in a file, or not at all ("off"). Auto: "system"; for a check's own
        /// TLS as its pool verifies, and "off" where the pool has no TLS.
        pub verify: Verify = Verify::Auto => verify();
        /// A file of revocation lists, in PEM or DER: a backend whose certificate is in one is
        /// refused. Each issuer of a backend's certificate needs a list. Without it revocation is
        /// not checked. A check's own TLS that verifies as its pool does has that of the pool.
        pub crl: Option<PathBuf> = None => path().given();
        /// The certificate that is shown to a backend that asks for one. Without it none is.
        pub certificate: Option<CertificateFiles> = None => group_if_given();
        /// Which versions and ciphers are spoken: "intermediate" TLS 1.2 and 1.3, "modern" TLS 1.3
        /// alone.
        pub policy: TlsPolicy = TlsPolicy::Intermediate => named("TLS policy", &TlsPolicy::ALL);
        /// How a backend is asked for TLS before the handshake: "off" not at all, "postgres" by
        /// PostgreSQL's request, which it must answer by `S`.
        pub starttls: StartTls = StartTls::Off => named("STARTTLS setting", &StartTls::ALL);
    }
}

super::table::defaults!(BackendTls);

/// How certificates of servers are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// By the certificates that the machine trusts. A check's own TLS: as its pool does, or not at
    /// all.
    #[default]
    Auto,
    /// Not verified: a handshake is enough.
    Off,
    /// By the certificates that the machine trusts.
    System,
    /// By the certificates of this PEM file.
    File(PathBuf),
}

/// Whether the probes of a check speak TLS, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckTls {
    /// As connections to the backends do, unless the check has a port of its own.
    #[default]
    Auto,
    /// Never.
    Plain,
    /// By the settings of the pool, or without verification where it has none.
    On,
    /// By these settings.
    Own(BackendTls),
}

/// The TLS of a check's probes, as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeTls {
    /// None.
    Plain,
    /// That of the pool's connections, which has these settings.
    OfPool(BackendTls),
    /// The check's own.
    Own(BackendTls),
}

/// A check, as it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckInForce {
    /// Its settings.
    pub check: Check,
    /// The TLS of its probes.
    pub tls: ProbeTls,
}

words! {
    /// What clients get that ask for a name that no certificate is for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum UnknownName {
        /// The first certificate.
        #[default]
        First = "first",
        /// None: they are refused.
        Refuse = "refuse",
    }
}

words! {
    /// Which versions and ciphers of TLS are spoken.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum TlsPolicy {
        /// TLS 1.2 and 1.3.
        #[default]
        Intermediate = "intermediate",
        /// TLS 1.3 alone.
        Modern = "modern",
    }
}

words! {
    /// How a server is asked for TLS before the handshake.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum StartTls {
        /// Not at all: the connection begins with it.
        #[default]
        Off = "off",
        /// By PostgreSQL's request.
        Postgres = "postgres",
    }
}

words! {
    /// Whether clients need a certificate.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum ClientCertificate {
        /// Each one does.
        #[default]
        Required = "required",
        /// One that is shown is verified.
        Optional = "optional",
    }
}

impl TlsPolicy {
    /// The policy of this name.
    #[must_use]
    pub fn policy(self) -> Policy {
        match self {
            Self::Intermediate => Policy::Intermediate,
            Self::Modern => Policy::Modern,
        }
    }
}

impl Shape for Tls {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let is_given = at.value.field("certificates").is_some();
        if is_given && !(1..=CERTIFICATES_MAX).contains(&self.certificates.len()) {
            let sentence = format!("expected 1 to {CERTIFICATES_MAX} certificates");
            reader.wrong(at, "certificates", sentence);
        }
        if self.alpn.len() > PROTOCOLS_MAX {
            reader.wrong(
                at,
                "alpn",
                format!("expected at most {PROTOCOLS_MAX} protocols"),
            );
        }
    }
}

impl BackendTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let authorities = match &self.verify {
            Verify::File(path) => Some(path),
            Verify::Auto | Verify::Off | Verify::System => None,
        };
        let own = self.certificate.iter();
        let own = own.flat_map(|its| [&its.certificate, &its.key]);
        authorities.into_iter().chain(&self.crl).chain(own)
    }
}

impl Verify {
    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::System => "system".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl CheckTls {
    /// Whether it is TLS whatever the pool has.
    pub(super) fn is_asked_for(&self) -> bool {
        matches!(self, Self::On | Self::Own(_))
    }
}

impl Pool {
    /// The check of its backends, with the TLS that its probes speak.
    #[must_use]
    pub fn check_in_force(&self) -> Option<CheckInForce> {
        let check = self.check.clone()?;
        let tls = self.probe_tls(&check);
        Some(CheckInForce { check, tls })
    }

    fn probe_tls(&self, check: &Check) -> ProbeTls {
        let of_pool = self.tls.as_ref();
        let verify = || of_pool.map_or(Verify::Off, |tls| tls.verify.clone());
        match (&check.tls, of_pool) {
            (CheckTls::Plain, _) | (CheckTls::Auto, None) => ProbeTls::Plain,
            (CheckTls::Auto, Some(_)) if check.port.is_some() => ProbeTls::Plain,
            (CheckTls::Auto | CheckTls::On, Some(tls)) => ProbeTls::OfPool(tls.clone()),
            (CheckTls::On, None) => ProbeTls::Own(BackendTls {
                verify: verify(),
                ..BackendTls::default()
            }),
            (CheckTls::Own(own), _) if own.verify == Verify::Auto => ProbeTls::Own(BackendTls {
                verify: verify(),
                crl: own.crl.clone().or_else(|| of_pool?.crl.clone()),
                ..own.clone()
            }),
            (CheckTls::Own(own), _) => ProbeTls::Own(own.clone()),
        }
    }
}

impl Tls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let certificates = self.certificates.iter();
        let files =
            certificates.flat_map(|its| [&its.certificate, &its.key].into_iter().chain(&its.ocsp));
        let clients = self.clients.iter();
        files.chain(clients.flat_map(|its| std::iter::once(&its.ca).chain(&its.crl)))
    }
}

fn certificates() -> Codec<Vec<ServedFiles>> {
    let mut codec = groups();
    codec.facts.expected = "a list of groups such as [(certificate: \"/etc/mahoraga/web.pem\", \
                            key: \"/etc/mahoraga/web.key\")]"
        .to_owned();
    codec
}

/// What TLS with a server is written as.
pub(super) const TLS: &str = "true, false or a group such as (verify: \"system\")";

/// The TLS of a check.
pub(super) fn check_tls() -> Codec<CheckTls> {
    let expected = format!("\"auto\", {TLS}");
    let words = expected.clone();
    Codec::new(
        expected,
        json!({ "anyOf": [{ "const": "auto" }, { "type": "boolean" }, schema::<BackendTls>()] }),
        move |at, reader, _| {
            if let Kind::Bool(is_on) = at.value.kind {
                Some(if is_on { CheckTls::On } else { CheckTls::Plain })
            } else if at.text() == Some("auto") {
                Some(CheckTls::Auto)
            } else if at.is_group() {
                let own = reader.group(at, &BackendTls::default());
                own.map(CheckTls::Own)
            } else {
                reader.unexpected(at, &words)
            }
        },
        |value, _, around| match value {
            CheckTls::Auto => Text::quoted("auto"),
            CheckTls::Plain => Text::Leaf("false".to_owned()),
            CheckTls::On => Text::Leaf("true".to_owned()),
            CheckTls::Own(own) => text(own, &BackendTls::default(), around),
        },
    )
    .of::<BackendTls>()
}

/// How certificates of servers are verified.
fn verify() -> Leaf<Verify> {
    spelled(
        "\"auto\", \"off\", \"system\" or the path of a file",
        values::verify,
        Verify::text,
    )
}

/// A protocol of ALPN.
pub(super) fn protocol() -> Leaf<String> {
    spelled(
        "a protocol such as \"h2\", of 1 to 255 bytes",
        values::alpn,
        String::clone,
    )
}

/// A name that servers are asked for.
pub(super) fn server_name() -> Leaf<Option<String>> {
    let name = spelled(
        "the name of a host such as \"example.org\"",
        values::server_name,
        String::clone,
    );
    name.given()
}

/// Certificates of a listener.
const CERTIFICATES_MAX: usize = 1_000;
/// Application protocols of a listener.
const PROTOCOLS_MAX: usize = 16;
