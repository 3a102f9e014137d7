//! Why TLS failed, in words for operators: plain sentences, never those of a library.

mod clients;
mod servers;

use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertRevocationListError, CertificateError, Error, InvalidMessage};

pub(super) use clients::client_fault;
pub(super) use servers::fault as fault_of_server;
pub(crate) use servers::server_fault;

/// How far a connection came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing of the peer could be read as TLS.
    Nothing,
    /// The peer's hello came.
    Hello,
    /// The handshake was done.
    Done,
}

/// Whether what came is no TLS at all: its first bytes are not the head of a record. Later ones
/// break the rules of TLS.
pub(super) fn is_no_tls(error: &Error, progress: Progress) -> bool {
    let is_no_record = matches!(
        error,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::UnknownProtocolVersion
        )
    );
    is_no_record && progress == Progress::Nothing
}

/// Whose certificate it is.
#[derive(Clone, Copy)]
struct Whose {
    /// `the certificate`, or whose it is.
    certificate: &'static str,
    /// Where its authorities are.
    trusted_by: &'static str,
    /// Where their revocation lists are.
    revoked_by: &'static str,
    /// What it is to be good for.
    peer: &'static str,
}

/// What is wrong with a certificate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls may add errors, for which there are general words"
)]
fn certificate(error: &CertificateError, whose: Whose) -> String {
    let Whose {
        certificate: its,
        trusted_by,
        revoked_by,
        peer,
    } = whose;
    match error {
        CertificateError::Expired => format!("{its} has expired"),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("{its} has expired, at {}", at(*not_after))
        }
        CertificateError::NotValidYet => format!("{its} is not yet valid: check the clocks"),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "{its} is not yet valid, only from {}: check the clocks",
            at(*not_before)
        ),
        CertificateError::NotValidForName => {
            "wrong name: set `sni` to one of the certificate's".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "wrong name: {its} is for {}, not for {}",
            names(presented),
            expected.to_str()
        ),
        CertificateError::UnknownIssuer => {
            format!("unknown issuer: none that {trusted_by} trusts has signed {its}")
        }
        CertificateError::Revoked => format!("{its} is revoked, or that of an issuer of it"),
        CertificateError::UnknownRevocationStatus => format!(
            "unknown whether {its} is revoked: {revoked_by} has no list of its issuer, or of an \
             issuer's issuer"
        ),
        CertificateError::ExpiredRevocationListContext { next_update, .. } => format!(
            "unknown whether {its} is revoked: the list in {revoked_by} has expired, at {}",
            at(*next_update)
        ),
        CertificateError::BadSignature => {
            format!("wrong signature: another issuer of the same name may have signed {its}")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{its} is not one for {peer}s")
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            format!("{its} is signed by an algorithm that Mahoraga does not know")
        }
        // webpki has a word of its own for it; `openssl req -x509` makes such certificates.
        CertificateError::Other(error) if error.to_string() == "CaUsedAsEndEntity" => {
            format!("{its} is one of an issuer (CA:TRUE), not of a {peer}")
        }
        CertificateError::BadEncoding | CertificateError::UnhandledCriticalExtension => {
            format!("{its} can't be read")
        }
        // Likewise; `openssl x509 -req` makes such ones, unless it is given extensions.
        CertificateError::Other(error) if error.to_string() == "UnsupportedCertVersion" => {
            format!("{its} is of X.509 version 1, which has no names: make one with subjectAltName")
        }
        _ => format!("{its} is not accepted"),
    }
}

/// No certificate of an issuer can be verified by its revocation list.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what else lists lack was found when they were read"
)]
fn revocation_list(error: &CertRevocationListError, whose: Whose) -> String {
    let Whose {
        certificate: its,
        revoked_by,
        ..
    } = whose;
    let list = format!("unknown whether {its} is revoked: the list in {revoked_by}");
    match error {
        CertRevocationListError::BadSignature => {
            format!("{list} is not signed by its issuer, or another one of the same name")
        }
        CertRevocationListError::IssuerInvalidForCrl => {
            format!("{list} is of an issuer that must not sign lists (keyUsage without cRLSign)")
        }
        _ => format!("{list} can't be used"),
    }
}

/// An alert by its name in RFC 8446, section 6; rustls has those of its variants.
fn alert_name(alert: AlertDescription) -> String {
    if alert == AlertDescription::UnrecognisedName {
        return "the alert `unrecognized_name`".to_owned();
    }
    let Some(name) = alert.as_str() else {
        return format!("alert {}", u8::from(alert));
    };
    let letters: Vec<char> = name.chars().collect();
    let is_upper = |at: usize| letters.get(at).is_some_and(char::is_ascii_uppercase);
    let is_lower = |at: usize| letters.get(at).is_some_and(char::is_ascii_lowercase);
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let begins = at > 0 && is_upper(at) && (is_lower(at - 1) || is_lower(at + 1));
        if begins {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    format!("the alert `{snake}`")
}

/// What is not the peer's fault.
fn own_fault(error: &Error) -> String {
    format!("TLS failed in Mahoraga itself: {error}")
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
mod tests;
