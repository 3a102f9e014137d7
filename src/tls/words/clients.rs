//! Why the TLS of a client failed.

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use super::{Progress, Whose, alert_name, certificate, is_no_tls, own_fault, revocation_list};
use crate::tls::failure::NO_CERTIFICATE;

/// Why the TLS of a client failed, which came so far.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]
pub(in crate::tls) fn client_fault(error: &Error, progress: Progress) -> String {
    let words = match error {
        Error::InvalidCertificate(error) => return certificate(error, CLIENTS),
        Error::InvalidCertRevocationList(error) => return revocation_list(error, CLIENTS),
        Error::PeerIncompatible(what) => incompatible(what),
        Error::AlertReceived(alert) => return gave_up(*alert, progress),
        Error::NoCertificatesPresented => "the client has shown no certificate",
        Error::NoApplicationProtocol => "the client takes none of the protocols in `alpn`",
        Error::General(why) if why == NO_CERTIFICATE => {
            "no certificate is for the name that the client asks for"
        }
        error if is_no_tls(error, progress) => "the client does not speak TLS",
        Error::DecryptError => {
            "a record can't be authenticated: it was changed on its way, or the client's keys are \
             others"
        }
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)
        | Error::PeerSentOversizedRecord => "the client sent a message that is too long",
        Error::InvalidMessage(_) if progress == Progress::Nothing => {
            "the client's hello can't be read"
        }
        Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => "the client breaks the rules of TLS",
        error => return own_fault(error),
    };
    words.to_owned()
}

/// What the client offers does not fit what the listener takes.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]
fn incompatible(what: &PeerIncompatible) -> &'static str {
    match what {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => {
            "the client offers no version of TLS that `policy` allows"
        }
        PeerIncompatible::NoCipherSuitesInCommon => {
            "the client offers no cipher that `policy` allows and the certificate's key fits"
        }
        PeerIncompatible::KeyShareExtensionRequired
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::NoKxGroupsInCommon => {
            "the client offers none of the curves X25519, P-256 and P-384"
        }
        PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon => {
            "the client offers no kind of signature that a certificate's key can make"
        }
        // rustls looks for it before the version, and TLS 1.1 does not know it.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "the client names no kinds of signatures: it is probably older than TLS 1.2"
        }
        _ => "the client lacks a part of TLS 1.2 or 1.3 that the listener needs",
    }
}

/// The client ended the connection by an alert (RFC 8446, section 6.2).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most alerts have no words but their names"
)]
fn gave_up(alert: AlertDescription, progress: Progress) -> String {
    let why = match alert {
        AlertDescription::UnknownCA => "it does not trust the certificate's issuer",
        AlertDescription::CertificateExpired => {
            "it holds the certificate for expired: check the clocks"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => "it does not accept the certificate",
        AlertDescription::UserCanceled => "its user gave up",
        _ => match progress {
            Progress::Nothing | Progress::Hello => "it gave up the handshake",
            Progress::Done => "it ended the connection",
        },
    };
    format!("the client sent {}: {why}", alert_name(alert))
}

const CLIENTS: Whose = Whose {
    certificate: "the client's certificate",
    trusted_by: "`clients`",
    revoked_by: "`crl`",
    peer: "client",
};
