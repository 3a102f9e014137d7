//! Why TLS with a server failed.

use rustls::{AlertDescription, Error, PeerIncompatible};

use super::{Progress, Whose, alert_name, certificate, is_no_tls, own_fault, revocation_list};

/// Why a handshake with a server failed, whose hello may have come; `None`: it takes none of the
/// protocols that it was offered.
pub(crate) fn server_fault(error: &Error, has_hello: bool) -> Option<String> {
    let progress = match has_hello {
        true => Progress::Hello,
        false => Progress::Nothing,
    };
    fault(error, progress)
}

/// The same of a connection that came so far.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]
pub(in crate::tls) fn fault(error: &Error, progress: Progress) -> Option<String> {
    Some(match error {
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => return None,
        Error::InvalidCertificate(error) => certificate(error, SERVERS),
        Error::InvalidCertRevocationList(error) => revocation_list(error, SERVERS),
        Error::NoCertificatesPresented => "the server has no certificate".to_owned(),
        error if is_no_tls(error, progress) => {
            "the server does not speak TLS: is the port right?".to_owned()
        }
        Error::InvalidMessage(_)
        | Error::PeerSentOversizedRecord
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::DecryptError => match progress {
            Progress::Nothing | Progress::Hello => "the server breaks the rules of TLS".to_owned(),
            Progress::Done => "the server breaks the rules of TLS, after the handshake".to_owned(),
        },
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "protocol refused: the server offers neither TLS 1.2 nor TLS 1.3".to_owned(),
        Error::PeerIncompatible(_) => {
            "handshake refused: the server offers no cipher or key exchange that Mahoraga knows"
                .to_owned()
        }
        Error::AlertReceived(alert) => refused(*alert, progress),
        error => own_fault(error),
    })
}

/// The server ended the connection by an alert (RFC 8446, section 6.2).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most alerts have no words but their names"
)]
fn refused(alert: AlertDescription, progress: Progress) -> String {
    match alert {
        AlertDescription::ProtocolVersion => {
            "protocol refused: the server takes neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        // With TLS 1.2. It has chosen a cipher by then, in its hello.
        AlertDescription::HandshakeFailure if progress == Progress::Hello => {
            "handshake refused: the server probably requires a client certificate".to_owned()
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "handshake refused: the server takes no cipher, key exchange or kind of signature that \
             Mahoraga offers"
                .to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "handshake refused: the server does not know the name in `sni`".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "handshake refused: the server requires a client certificate".to_owned()
        }
        alert => {
            let alert = alert_name(alert);
            match progress {
                Progress::Nothing | Progress::Hello => {
                    format!("handshake refused: the server sent {alert}")
                }
                // With TLS 1.3 it may say only then that it refuses our certificate.
                Progress::Done => format!("the server sent {alert} after the handshake"),
            }
        }
    }
}

const SERVERS: Whose = Whose {
    certificate: "the certificate",
    trusted_by: "`verify`",
    revoked_by: "`crl`",
    peer: "server",
};
