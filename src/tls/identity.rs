//! Who a client is, by the certificate that it has shown and that was verified.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::der_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// What a verified certificate says of its client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject as text (RFC 4514), its most specific part first; cut at 256 bytes.
    pub subject: Box<str>,
    /// The first common name of the subject. None where it is empty, longer than 255
    /// bytes, or has control characters.
    pub common_name: Option<Box<str>>,
    /// The alternative names (RFC 5280, section 4.2.1.6), each behind its kind: `DNS:`, `IP:`,
    /// `email:` or `URI:`; the first 32, and 1 KiB, of them.
    pub names: Box<[Box<str>]>,
    /// The SHA-256 of the certificate, in lower-case hexadecimal digits.
    pub fingerprint: Box<str>,
    /// The serial number, in upper-case hexadecimal digits.
    pub serial: Box<str>,
}

impl ClientIdentity {
    /// That of a certificate in DER. One that cannot be read has a fingerprint alone.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let fingerprint = sha256(certificate).into();
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Self {
                fingerprint,
                ..Self::default()
            };
        };
        let subject = parsed.subject();
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let alternative = alternative.map(|its| &its.value.general_names[..]);
        Self {
            subject: subject_text(subject),
            common_name: common_name(subject),
            names: names(alternative.unwrap_or_default()),
            fingerprint,
            serial: serial(parsed.raw_serial()),
        }
    }

    /// All alternative names as one text.
    #[must_use]
    pub fn names_text(&self) -> String {
        self.names.join(",")
    }
}

/// The SHA-256 of some bytes, in lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let suite = TLS13_AES_128_GCM_SHA256;
    let common = match suite {
        SupportedCipherSuite::Tls12(suite) => &suite.common,
        SupportedCipherSuite::Tls13(suite) => &suite.common,
    };
    hex(common.hash_provider.hash(bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A serial number without the byte that tells it is not negative, as `openssl x509 -serial` has
/// it.
fn serial(bytes: &[u8]) -> Box<str> {
    let bytes = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let bytes = bytes.get(..SERIAL_MAX).unwrap_or(bytes);
    hex(bytes).to_ascii_uppercase().into()
}

fn common_name(subject: &X509Name<'_>) -> Option<Box<str>> {
    let name = subject.iter_common_name().next()?;
    let name = string(name.attr_value())?;
    let fits = (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    fits.then(|| name.into())
}

/// The text of a string; `None`: it is not one, or malformed.
fn string(value: &Any<'_>) -> Option<String> {
    if value.tag() == Tag::BmpString {
        let units = value.data.chunks_exact(2);
        let is_whole = units.remainder().is_empty();
        let units = units.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        return text.ok().filter(|_| is_whole);
    }
    is_text(value.tag()).then(|| str::from_utf8(value.data).ok().map(str::to_owned))?
}

fn is_text(tag: Tag) -> bool {
    [
        Tag::Utf8String,
        Tag::PrintableString,
        Tag::Ia5String,
        Tag::NumericString,
        Tag::VisibleString,
    ]
    .contains(&tag)
}

/// A subject as text, cut where it is long.
pub(crate) fn subject_text(subject: &X509Name<'_>) -> Box<str> {
    let mut text = String::new();
    // The last part is the most specific one, and stands first (RFC 4514, section 2.1).
    let parts: Vec<_> = subject.iter().collect();
    for part in parts.into_iter().rev() {
        for (place, attribute) in part.iter().enumerate() {
            if text.len() > SUBJECT_MAX {
                break;
            }
            let between = if place > 0 { "+" } else { "," };
            text.push_str(if text.is_empty() { "" } else { between });
            write_attribute(&mut text, attribute);
        }
    }
    if text.len() > SUBJECT_MAX {
        text.truncate(text.floor_char_boundary(SUBJECT_MAX - CUT.len()));
        text.push_str(CUT);
    }
    text.into()
}

/// Writes a part of a subject as `CN=name`. One of an unknown type, or whose value is no string,
/// has the DER of its value (RFC 4514, section 2.4).
fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|known| known.0 == id);
    let value = string(attribute.attr_value());
    text.push_str(known.map_or(&*id, |known| known.1));
    text.push('=');
    match value.filter(|_| known.is_some()) {
        Some(value) => escape(text, &value, "\"+,;<>\\"),
        None => {
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            let der = der.get(..SUBJECT_MAX).unwrap_or(&der);
            let _ = write!(text, "#{}", hex(der));
        }
    }
}

/// Writes a value with these characters, and those at its ends that would mean something else,
/// behind a backslash; control characters as two digits (RFC 4514, section 2.4).
fn escape(text: &mut String, value: &str, special: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (place, char) in value.chars().enumerate() {
        let at_ends = char == ' ' && (place == 0 || place == last) || char == '#' && place == 0;
        if char.is_control() {
            char.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| {
                let _ = write!(text, "\\{byte:02X}");
            });
            continue;
        }
        if at_ends || special.contains(char) {
            text.push('\\');
        }
        text.push(char);
        if text.len() > SUBJECT_MAX {
            return;
        }
    }
}

fn names(all: &[GeneralName<'_>]) -> Box<[Box<str>]> {
    let mut names: Vec<Box<str>> = Vec::new();
    let mut bytes = 0;
    for name in all.iter().filter_map(name_text) {
        bytes += name.len();
        if names.len() >= NAMES_MAX || bytes > NAMES_BYTES_MAX {
            break;
        }
        names.push(name.into());
    }
    names.into()
}

/// A name behind its kind; `None`: it is of another kind, too long, or malformed. All are ASCII
/// (IA5String), and names with spaces, commas or control characters could pass for several.
fn name_text(name: &GeneralName<'_>) -> Option<String> {
    let of = |kind: &str, value: &str| {
        let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=NAME_MAX).contains(&value.len()) && is_plain && !value.contains(',');
        fits.then(|| format!("{kind}:{value}"))
    };
    if let GeneralName::DNSName(value) = name {
        of("DNS", value)
    } else if let GeneralName::RFC822Name(value) = name {
        of("email", value)
    } else if let GeneralName::URI(value) = name {
        of("URI", value)
    } else if let GeneralName::IPAddress(bytes) = name {
        let v4 = <[u8; 4]>::try_from(*bytes).map(|its| Ipv4Addr::from(its).to_string());
        let v6 = || <[u8; 16]>::try_from(*bytes).map(|its| Ipv6Addr::from(its).to_string());
        of("IP", &v4.or_else(|_| v6()).ok()?)
    } else {
        None
    }
}

/// The types of a subject's parts that have names: those of RFC 4514, section 3, and those that
/// OpenSSL writes so.
const TYPES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.12", "title"),
];
/// What stands for the rest of a subject that was cut.
const CUT: &str = "...";
/// The most bytes of a subject's text.
const SUBJECT_MAX: usize = 256;
/// The most bytes of a name. Common names have 64 characters at most (RFC 5280, appendix A.1).
const NAME_MAX: usize = 255;
/// The most alternative names.
const NAMES_MAX: usize = 32;
/// The most bytes of all of them together.
const NAMES_BYTES_MAX: usize = 1_024;
/// The most bytes of a serial number (RFC 5280, section 4.1.2.2).
const SERIAL_MAX: usize = 20;

#[cfg(test)]
mod tests;
