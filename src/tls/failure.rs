//! Why TLS failed, in words and as a name that is counted.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error};

use super::words::{Progress, client_fault, fault_of_server, is_no_tls};

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
    /// Bytes came in the clear behind a request for TLS, before it was answered.
    EarlyBytes = "early_bytes",
    /// Both ends have no version, cipher, curve or signature in common.
    Incompatible = "incompatible",
    /// Both ends have no application protocol in common.
    NoProtocol = "no_protocol",
    /// No certificate is for the name that the client asks for.
    UnknownName = "unknown_name",
    /// The peer does not trust our certificate, or has another objection to it.
    CertificateRejected = "certificate_rejected",
    /// The client has no certificate, and the listener asks for one.
    NoClientCertificate = "no_client_certificate",
    /// The client's certificate is of no use.
    BadClientCertificate = "bad_client_certificate",
    /// The peer's certificate is revoked, or one between it and its authority.
    RevokedCertificate = "revoked_certificate",
    /// The peer ended the handshake by an alert of another kind.
    Alert = "alert",
    /// The backend's certificate is of no use: it has expired, is for another name, or is signed by
    /// an authority that is not trusted.
    BadBackendCertificate = "bad_backend_certificate",
    /// A record could not be authenticated.
    BadRecord = "bad_record",
    /// The peer broke the protocol.
    Protocol = "protocol",
    /// The peer left before its handshake was done.
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

impl TlsFailure {
    /// Why the TLS of a client failed, which came so far.
    pub(super) fn of_client(error: &Error, progress: Progress) -> Self {
        let kind = match is_about_certificate(error) {
            true if is_revoked(error) => FailureKind::RevokedCertificate,
            true => FailureKind::BadClientCertificate,
            false => kind(error, progress),
        };
        Self::new(kind, client_fault(error, progress))
    }

    /// Why the TLS of a backend failed, which came so far.
    pub(super) fn of_server(error: &Error, progress: Progress) -> Self {
        let is_missing = *error == Error::NoCertificatesPresented;
        let kind = match is_about_certificate(error) || is_missing {
            true if is_revoked(error) => FailureKind::RevokedCertificate,
            true => FailureKind::BadBackendCertificate,
            false => kind(error, progress),
        };
        let why = fault_of_server(error, progress);
        let none = || "the server takes none of the protocols in `alpn`".to_owned();
        Self::new(kind, why.unwrap_or_else(none))
    }
}

/// Whether the peer's certificate is of no use.
fn is_about_certificate(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_)
    )
}

fn is_revoked(error: &Error) -> bool {
    *error == Error::InvalidCertificate(CertificateError::Revoked)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all others are breaches of the protocol, and rustls will know more of them"
)]
fn kind(error: &Error, progress: Progress) -> FailureKind {
    match error {
        error if is_no_tls(error, progress) => FailureKind::NotTls,
        Error::PeerIncompatible(_) => FailureKind::Incompatible,
        Error::NoApplicationProtocol => FailureKind::NoProtocol,
        Error::NoCertificatesPresented => FailureKind::NoClientCertificate,
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown => FailureKind::CertificateRejected,
            AlertDescription::NoApplicationProtocol => FailureKind::NoProtocol,
            _ => FailureKind::Alert,
        },
        Error::DecryptError => FailureKind::BadRecord,
        Error::General(why) if why == NO_CERTIFICATE => FailureKind::UnknownName,
        _ => FailureKind::Protocol,
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What rustls says when no certificate is found for a client.
pub(super) const NO_CERTIFICATE: &str = "no server certificate chain resolved";
