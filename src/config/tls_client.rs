//! What a route asks of the certificate that a client shows, such as "cn=robot" or
//! "dns=*.example".

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::codec::{Leaf, parsed};
use super::values::ValueError;
use crate::peek::{Name, NamePattern};
use crate::tls::ClientIdentity;

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsClientName {
    /// By its common name.
    CommonName(String),
    /// By an alternative name that is a host.
    Dns(NamePattern),
    /// By an alternative name that is an e-mail address.
    Email(String),
    /// By the SHA-256 of all of it.
    Fingerprint(String),
    /// By an alternative name that is an address.
    Ip(IpAddr),
    /// By an alternative name that is a URI.
    Uri(String),
}

impl TlsClientName {
    /// Whether a certificate names it.
    #[must_use]
    pub fn is_of(&self, client: &ClientIdentity) -> bool {
        let mut names = client.names.iter();
        let has = |kind: &str, value: &str| {
            let mut values = client
                .names
                .iter()
                .filter_map(|name| name.strip_prefix(kind));
            values.any(|its| its == value)
        };
        match self {
            Self::CommonName(name) => client.common_name.as_deref() == Some(name),
            Self::Dns(pattern) => names.any(|name| {
                let name = name.strip_prefix("DNS:");
                let name = name.and_then(|name| Name::read(name.bytes()));
                name.is_some_and(|name| pattern.fits(name.as_bytes()))
            }),
            Self::Email(address) => has("email:", address),
            Self::Fingerprint(digits) => *client.fingerprint == **digits,
            Self::Ip(ip) => has("IP:", &ip.to_string()),
            Self::Uri(uri) => has("URI:", uri),
        }
    }
}

/// Whom a certificate names that has these names, and no other.
///
/// # Errors
/// One is none that a certificate has, in a sentence.
pub fn identity_of(names: &[TlsClientName]) -> Result<ClientIdentity, String> {
    let mut identity = ClientIdentity::default();
    let mut alternative: Vec<Box<str>> = Vec::new();
    for name in names {
        match name {
            TlsClientName::CommonName(name) => identity.common_name = Some(name.as_str().into()),
            TlsClientName::Dns(NamePattern::Exact(name)) => {
                alternative.push(format!("DNS:{name}").into());
            }
            TlsClientName::Dns(NamePattern::Below(_) | NamePattern::Matching(_)) => {
                return Err(format!("`{name}`: expected one host name"));
            }
            TlsClientName::Email(address) => alternative.push(format!("email:{address}").into()),
            TlsClientName::Fingerprint(digits) => identity.fingerprint = digits.as_str().into(),
            TlsClientName::Ip(ip) => alternative.push(format!("IP:{ip}").into()),
            TlsClientName::Uri(uri) => alternative.push(format!("URI:{uri}").into()),
        }
    }
    identity.names = alternative.into();
    Ok(identity)
}

impl FromStr for TlsClientName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let unexpected = || ValueError::Unexpected(EXPECTED.to_owned());
        let refused = |why: &dyn fmt::Display| ValueError::Refused(format!("`{text}`: {why}"));
        let (kind, value) = text.split_once('=').ok_or_else(unexpected)?;
        let plain = || {
            let is_plain = value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b',');
            let fits = (1..=VALUE_MAX).contains(&value.len()) && is_plain;
            let why = "expected 1 to 255 letters, digits and signs of ASCII, without commas";
            fits.then(|| value.to_owned()).ok_or_else(|| refused(&why))
        };
        match kind {
            "cn" => {
                let fits = (1..=VALUE_MAX).contains(&value.len());
                let fits = fits && !value.chars().any(char::is_control);
                let name = fits.then(|| Self::CommonName(value.to_owned()));
                name.ok_or_else(|| refused(&"expected 1 to 255 bytes without control characters"))
            }
            "dns" => match value.parse() {
                Ok(NamePattern::Matching(_)) => Err(refused(
                    &"expected a host name, or \"*.example\" for all names below it",
                )),
                Ok(pattern) => Ok(Self::Dns(pattern)),
                Err(error) => Err(refused(&error)),
            },
            "email" => plain().map(Self::Email),
            "fingerprint" => {
                let digits = value.replace(':', "").to_ascii_lowercase();
                let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                let fits = is_hex && digits.len() == FINGERPRINT;
                let digits = fits.then_some(Self::Fingerprint(digits));
                digits.ok_or_else(|| refused(&"expected 64 hexadecimal digits (SHA-256)"))
            }
            "ip" => match value.parse() {
                Ok(ip) => Ok(Self::Ip(ip)),
                Err(_) => Err(refused(&"expected an IPv4 or IPv6 address")),
            },
            "uri" => plain().map(Self::Uri),
            _ => Err(unexpected()),
        }
    }
}

impl fmt::Display for TlsClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommonName(name) => write!(f, "cn={name}"),
            Self::Dns(pattern) => write!(f, "dns={pattern}"),
            Self::Email(address) => write!(f, "email={address}"),
            Self::Fingerprint(digits) => write!(f, "fingerprint={digits}"),
            Self::Ip(ip) => write!(f, "ip={ip}"),
            Self::Uri(uri) => write!(f, "uri={uri}"),
        }
    }
}

/// One of them, in a file.
pub(super) fn tls_client() -> Leaf<TlsClientName> {
    parsed(EXPECTED, str::parse, ToString::to_string)
}

const EXPECTED: &str = "whom a certificate names, such as \"cn=robot\", \"dns=*.example\", \
                        \"email=a@b.example\", \"ip=10.0.0.1\", \"uri=spiffe://a/b\" or \
                        \"fingerprint=HEX\"";
/// The most bytes of a value.
const VALUE_MAX: usize = 255;
/// The digits of a SHA-256.
const FINGERPRINT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_asked_for_each_kind_of_name() {
        let digits = "ab".repeat(32);
        let names = [
            "DNS:A.b.example",
            "IP:10.0.0.1",
            "email:x@y",
            "URI:spiffe://a/b",
        ];
        let client = ClientIdentity {
            common_name: Some("robot=7".into()),
            names: names.map(Box::from).into(),
            fingerprint: digits.clone().into(),
            ..ClientIdentity::default()
        };
        let is_of = |text: &str, client: &ClientIdentity| {
            let name: TlsClientName = text.parse().unwrap();
            assert_eq!(name.to_string().parse(), Ok(name.clone()), "{text}");
            name.is_of(client)
        };
        let colons = digits.to_uppercase().replace("AB", "AB:");
        for text in [
            "cn=robot=7",
            "dns=a.B.example",
            "dns=*.example",
            "ip=10.0.0.1",
            "email=x@y",
            "uri=spiffe://a/b",
            &format!("fingerprint={digits}"),
            &format!("fingerprint={colons}"),
        ] {
            assert!(is_of(text, &client), "{text}");
            assert!(!is_of(text, &ClientIdentity::default()), "{text}");
        }
        for text in [
            "cn=robot",
            "dns=b.example",
            "ip=10.0.0.2",
            "email=spiffe://a/b",
        ] {
            assert!(!is_of(text, &client), "{text}");
        }
    }

    #[test]
    fn what_no_certificate_names_is_refused() {
        let error = |text: &str| text.parse::<TlsClientName>().unwrap_err().to_string();
        for text in ["", "robot", "CN=robot"] {
            assert!(
                error(text).contains("\"cn=robot\""),
                "{text}: {}",
                error(text)
            );
        }
        for text in [
            "cn=",
            "cn=a\nb",
            "dns=~a",
            "dns=a b",
            "ip=a",
            "uri=a,b",
            "email=",
            "fingerprint=ab",
            &format!("fingerprint={}", "xy".repeat(32)),
        ] {
            assert!(error(text).contains("expected"), "{text}: {}", error(text));
        }
    }
}
