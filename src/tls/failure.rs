//! Why TLS failed, in words and as a name that is counted.

use std::fmt;

use rustls::{AlertDescription, Error};

/// Why a connection's TLS failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// Its name in logs and metrics.
    pub kind: FailureKind,
    /// What exactly happened, for a person.
    pub why: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal),+ $(,)?) => {
        /// A kind of failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FailureKind {
            $($(#[$doc])* $kind),+
        }

        impl FailureKind {
            /// Every kind, in the order of their counters.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$kind),+];

            /// Its name in logs and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),+
                }
            }
        }
    };
}

kinds! {
    /// What came is no TLS.
    NotTls = "not_tls",
    /// The client and the listener have no version, cipher, curve or signature in common.
    Incompatible = "incompatible",
    /// The client knows no application protocol of the listener.
    NoProtocol = "no_protocol",
    /// No certificate is for the name that the client asks for.
    UnknownName = "unknown_name",
    /// The client does not trust the certificate, or has another objection to it.
    CertificateRejected = "certificate_rejected",
    /// The client has no certificate, and the listener asks for one.
    NoClientCertificate = "no_client_certificate",
    /// The client's certificate is of no use.
    BadClientCertificate = "bad_client_certificate",
    /// The client ended the handshake by an alert of another kind.
    Alert = "alert",
    /// A record could not be authenticated.
    BadRecord = "bad_record",
    /// The client broke the protocol.
    Protocol = "protocol",
    /// The client left before its handshake was done.
    Left = "left",
    /// Its handshake was not done in time.
    Late = "late",
    /// The keys of the connection are used up.
    KeysUsedUp = "keys_used_up",
}

impl TlsFailure {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self {
            kind,
            why: why.into(),
        }
    }
}

impl From<&Error> for TlsFailure {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others are breaches of the protocol, and rustls will know more of them"
    )]
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::InvalidMessage(_) => FailureKind::NotTls,
            Error::PeerIncompatible(_) => FailureKind::Incompatible,
            Error::NoApplicationProtocol => FailureKind::NoProtocol,
            Error::NoCertificatesPresented => FailureKind::NoClientCertificate,
            Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
                FailureKind::BadClientCertificate
            }
            Error::AlertReceived(alert) => match alert {
                AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown => FailureKind::CertificateRejected,
                _ => FailureKind::Alert,
            },
            Error::DecryptError => FailureKind::BadRecord,
            Error::General(why) if why == NO_CERTIFICATE => FailureKind::UnknownName,
            _ => FailureKind::Protocol,
        };
        Self::new(kind, error.to_string())
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What rustls says when no certificate is found for a client.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";
