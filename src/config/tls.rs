//! TLS that ends at a listener, and TLS that begins at a pool.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use super::check::verify;
use super::codec::{
    Codec, Leaf, duration, group_if_given, groups, list, named, path, required, spelled,
};
use super::reader::{At, Reader};
use super::table::{Shape, settings, words};
use super::values::{self, MINUTE, between};
use super::{Check, CheckTls, Pool, Verify};
use crate::tls::Policy;

settings! {
    /// TLS that ends here: backends get what its clients send inside of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Tls: Shape {
        /// The certificates, by the names that they are for. A name may have several, one for each
        /// kind of key.
        pub certificates: Vec<CertificateFiles> = Vec::new() => required(certificates());
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
    /// A certificate and its key, in PEM.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct CertificateFiles {
        /// The file of the certificate, followed by those between it and its authority.
        pub certificate: PathBuf = PathBuf::new() => required(path());
        /// The file of its private key, which nobody but its owner and its group may read.
        pub key: PathBuf = PathBuf::new() => required(path());
    }
}

settings! {
    /// Certificates of clients.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TlsClients {
        /// The file of the authorities, in PEM, that their certificates are verified by.
        pub ca: PathBuf = PathBuf::new() => required(path());
        /// Whether a client without a certificate is let in: "required" refuses it, "optional" lets
        /// it in.
        pub certificate: ClientCertificate = ClientCertificate::Required
            => named("setting for client certificates", &ClientCertificate::ALL);
    }
}

settings! {
    /// TLS with the backends of a pool.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BackendTls {
        /// The name that backends are asked for (SNI), and that their certificates must have. Not
        /// given: the host name of each, or its address.
        pub sni: Option<String> = None => server_name();
        /// The protocols that backends are offered (ALPN; RFC 7301), the preferred one first.
        pub alpn: Vec<String> = Vec::new() => list(protocol());
        /// How their certificates are verified: by the authorities that the machine trusts
        /// ("system"), by those in a file, or not at all ("off").
        pub verify: Verify = Verify::System => verify();
        /// The certificate that is shown to a backend that asks for one. Without it none is.
        pub certificate: Option<CertificateFiles> = None => group_if_given();
        /// Which versions and ciphers are spoken: "intermediate" TLS 1.2 and 1.3, "modern" TLS 1.3
        /// alone.
        pub policy: TlsPolicy = TlsPolicy::Intermediate => named("TLS policy", &TlsPolicy::ALL);
    }
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

impl CheckTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        files(&self.verify, self.certificate.as_ref())
    }
}

/// The files of TLS with servers.
fn files<'a>(
    verify: &'a Verify,
    certificate: Option<&'a CertificateFiles>,
) -> impl Iterator<Item = &'a PathBuf> {
    let authorities = match verify {
        Verify::File(path) => Some(path),
        Verify::Off | Verify::System => None,
    };
    let own = certificate.into_iter();
    let own = own.flat_map(|its| [&its.certificate, &its.key]);
    authorities.into_iter().chain(own)
}

impl BackendTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        files(&self.verify, self.certificate.as_ref())
    }

    /// The same for probes.
    fn of_probes(&self) -> CheckTls {
        CheckTls {
            sni: self.sni.clone(),
            alpn: self.alpn.clone(),
            verify: self.verify.clone(),
            certificate: self.certificate.clone(),
            policy: self.policy,
        }
    }
}

impl Pool {
    /// The check of its backends. One of the port that clients' connections go to speaks TLS as
    /// those do, unless it has TLS of its own.
    #[must_use]
    pub fn check_in_force(&self) -> Option<Cow<'_, Check>> {
        let check = self.check.as_ref()?;
        let inherits = check.tls.is_none() && check.port.is_none();
        let Some(tls) = self.tls.as_ref().filter(|_| inherits) else {
            return Some(Cow::Borrowed(check));
        };
        Some(Cow::Owned(Check {
            tls: Some(tls.of_probes()),
            ..check.clone()
        }))
    }
}

impl Tls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let certificates = self.certificates.iter();
        let files = certificates.flat_map(|its| [&its.certificate, &its.key]);
        files.chain(self.clients.iter().map(|clients| &clients.ca))
    }
}

fn certificates() -> Codec<Vec<CertificateFiles>> {
    let mut codec = groups();
    codec.facts.expected = "a list of groups such as [(certificate: \"/etc/mahoraga/web.pem\", \
                            key: \"/etc/mahoraga/web.key\")]"
        .to_owned();
    codec
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
