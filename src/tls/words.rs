//! Why TLS with a server failed, in words for its operators.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]

use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why a handshake with a server failed, or what followed it; `None`: it takes none of the
/// protocols that it was offered.
pub(crate) fn server_fault(error: &Error) -> Option<String> {
    Some(match error {
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => return None,
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "the server has no certificate".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::InvalidEmptyPayload
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::UnknownProtocolVersion,
        ) => "the server does not speak TLS: is the port right?".to_owned(),
        Error::InvalidMessage(_)
        | Error::PeerSentOversizedRecord
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::DecryptError => "the server breaks the rules of TLS".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "protocol refused: the server offers neither TLS 1.2 nor TLS 1.3".to_owned(),
        Error::PeerIncompatible(_) => {
            "handshake refused: the server offers no cipher or key exchange that Mahoraga knows"
                .to_owned()
        }
        Error::AlertReceived(alert) => refused(*alert),
        error => error.to_string(),
    })
}

/// The server ended the handshake by an alert (RFC 8446, section 6.2).
fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::ProtocolVersion => {
            "protocol refused: the server takes neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "handshake refused: the server takes no cipher or key exchange that Mahoraga offers"
                .to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "handshake refused: the server does not know the name in `sni`".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "handshake refused: the server requires a client certificate".to_owned()
        }
        alert => match alert.as_str() {
            Some(name) => format!("handshake refused: the server sent the alert `{name}`"),
            None => format!(
                "handshake refused: the server sent alert {}",
                u8::from(alert)
            ),
        },
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate has expired, at {}", at(*not_after))
        }
        CertificateError::NotValidYet => {
            "the certificate is not yet valid: check the clocks".to_owned()
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the certificate is not yet valid, only from {}: check the clocks",
            at(*not_before)
        ),
        CertificateError::NotValidForName => {
            "wrong name: set `sni` to one of the certificate's".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "wrong name: the certificate is for {}, not for {}",
            names(presented),
            expected.to_str()
        ),
        CertificateError::UnknownIssuer => {
            "unknown issuer: none that `verify` trusts has signed the certificate".to_owned()
        }
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        CertificateError::BadSignature => {
            "wrong signature: another issuer of the same name may have signed the certificate"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not one for servers".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed by an algorithm that Mahoraga does not know".to_owned()
        }
        // webpki has a word of its own for it; `openssl req -x509` makes such certificates.
        CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
            "the certificate is one of an issuer (CA:TRUE), not of a server".to_owned()
        }
        CertificateError::BadEncoding | CertificateError::UnhandledCriticalExtension => {
            "the certificate can't be read".to_owned()
        }
        _ => "the certificate is not accepted".to_owned(),
    }
}

/// The first names of a certificate, which come as `DnsName("a.test")` or `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name".to_owned();
    }
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(&**name, |(_, inner)| inner);
        let inner = inner.trim_matches(['"', ')']);
        inner.escape_debug().take(NAME_CHARS).collect::<String>()
    };
    let mut shown: Vec<String> = presented.iter().take(NAMES).map(bare).collect();
    if presented.len() > NAMES {
        shown.push(format!("{} more", presented.len() - NAMES));
    }
    shown.join(", ")
}

fn at(time: UnixTime) -> String {
    let seconds = time.as_secs().min(LAST_SECOND);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Names of a certificate that are shown, and characters of each.
const NAMES: usize = 3;
const NAME_CHARS: usize = 64;
/// The end of the year 9999, beyond which there is no RFC 3339.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(error: Error) -> String {
        server_fault(&error).expect("it is not about protocols")
    }

    #[test]
    fn a_refusal_names_what_the_server_refuses() {
        let alert = |alert| sentence(Error::AlertReceived(alert));
        assert_eq!(
            alert(AlertDescription::ProtocolVersion),
            "protocol refused: the server takes neither TLS 1.2 nor TLS 1.3"
        );
        assert_eq!(
            alert(AlertDescription::HandshakeFailure),
            "handshake refused: the server takes no cipher or key exchange that Mahoraga offers"
        );
        assert_eq!(
            alert(AlertDescription::CertificateRequired),
            "handshake refused: the server requires a client certificate"
        );
        assert_eq!(
            alert(AlertDescription::InternalError),
            "handshake refused: the server sent the alert `InternalError`"
        );
        assert_eq!(
            alert(AlertDescription::Unknown(200)),
            "handshake refused: the server sent alert 200"
        );
    }

    #[test]
    fn some_names_of_a_certificate_stand_for_all() {
        let name = |number| format!("DnsName(\"{number}.test\")");
        let presented: Vec<String> = (0..5).map(name).collect();
        assert_eq!(names(&presented), "0.test, 1.test, 2.test, 2 more");
        assert_eq!(names(&["IpAddress(::1)".to_owned()]), "::1");
        assert_eq!(names(&[]), "no name");
    }

    #[test]
    fn no_time_of_a_certificate_is_too_late() {
        let last = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
        assert_eq!(at(last), "9999-12-31T23:59:59Z");
    }
}
