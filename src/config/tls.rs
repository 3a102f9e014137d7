//! TLS that ends at a listener.

use std::path::PathBuf;
use std::time::Duration;

use super::codec::{
    Codec, Leaf, duration, group_if_given, groups, list, named, path, required, spelled,
};
use super::reader::{At, Reader};
use super::table::{Shape, settings, words};
use super::values::{MINUTE, between};
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
    #[derive(Clone, Debug, PartialEq, Eq)]
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
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

fn protocol() -> Leaf<String> {
    spelled(
        "a protocol of at most 255 bytes such as \"h2\" or \"http/1.1\"",
        |text| (1..=255).contains(&text.len()).then(|| text.to_owned()),
        String::clone,
    )
}

/// Certificates of a listener.
const CERTIFICATES_MAX: usize = 1_000;
/// Application protocols of a listener.
const PROTOCOLS_MAX: usize = 16;
