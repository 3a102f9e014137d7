//! Tests of [`super`].

use rustls::PeerIncompatible;

use super::*;
use crate::tls::{FailureKind, TlsFailure};

fn sentence(error: Error) -> String {
    server_fault(&error, false).expect("it is not about protocols")
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
        "handshake refused: the server takes no cipher, key exchange or kind of signature that \
         Mahoraga offers"
    );
    assert_eq!(
        alert(AlertDescription::CertificateRequired),
        "handshake refused: the server requires a client certificate"
    );
    assert_eq!(
        alert(AlertDescription::InternalError),
        "handshake refused: the server sent the alert `internal_error`"
    );
    assert_eq!(
        alert(AlertDescription::Unknown(200)),
        "handshake refused: the server sent alert 200"
    );
}

#[test]
fn a_server_that_gives_up_behind_its_hello_wants_a_certificate() {
    let alert = Error::AlertReceived(AlertDescription::HandshakeFailure);
    assert_eq!(
        TlsFailure::of_server(&alert, Progress::Hello).why,
        "handshake refused: the server probably requires a client certificate"
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

#[test]
fn only_the_first_bytes_tell_that_a_peer_speaks_no_tls() {
    let garbage = Error::InvalidMessage(InvalidMessage::InvalidContentType);
    let malformed = Error::InvalidMessage(InvalidMessage::MissingData("Random"));
    let client = |error: &Error, progress| {
        let failure = TlsFailure::of_client(error, progress);
        (failure.kind, failure.why)
    };
    let server = |error: &Error, progress| {
        let failure = TlsFailure::of_server(error, progress);
        (failure.kind, failure.why)
    };
    let (not_tls, protocol) = (FailureKind::NotTls, FailureKind::Protocol);
    let told = [
        client(&garbage, Progress::Nothing),
        client(&garbage, Progress::Hello),
        client(&malformed, Progress::Nothing),
        server(&garbage, Progress::Nothing),
        server(&malformed, Progress::Nothing),
        server(&garbage, Progress::Done),
    ];
    let expected = [
        (not_tls, "the client does not speak TLS"),
        (protocol, "the client breaks the rules of TLS"),
        (protocol, "the client's hello can't be read"),
        (not_tls, "the server does not speak TLS: is the port right?"),
        (protocol, "the server breaks the rules of TLS"),
        (
            protocol,
            "the server breaks the rules of TLS, after the handshake",
        ),
    ];
    assert_eq!(told, expected.map(|(kind, why)| (kind, why.to_owned())));
}

#[test]
fn no_words_for_a_client_are_those_of_a_library() {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let expired = CertificateError::ExpiredContext {
        time: at(1_800_000_000),
        not_after: at(1_790_000_000),
    };
    for (error, words) in [
        (
            Error::InvalidCertificate(expired),
            "the client's certificate has expired, at 2026-09-21T14:13:20Z",
        ),
        (
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            "unknown issuer: none that `clients` trusts has signed the client's certificate",
        ),
        (
            Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired),
            "the client names no kinds of signatures: it is probably older than TLS 1.2",
        ),
        (
            Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon),
            "the client offers no kind of signature that a certificate's key can make",
        ),
        (
            Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
            "the client offers no version of TLS that `policy` allows",
        ),
        (
            Error::General("no server certificate chain resolved".to_owned()),
            "no certificate is for the name that the client asks for",
        ),
        (
            Error::AlertReceived(AlertDescription::UnknownCA),
            "the client sent the alert `unknown_ca`: it does not trust the certificate's issuer",
        ),
        (
            Error::AlertReceived(AlertDescription::UnknownPSKIdentity),
            "the client sent the alert `unknown_psk_identity`: it gave up the handshake",
        ),
    ] {
        assert_eq!(client_fault(&error, Progress::Hello), words);
    }
}
