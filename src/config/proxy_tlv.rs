//! What a route asks of the TLVs in a proxy's header, such as "authority=*.example" or "0xE0=blue".

use std::fmt;
use std::str::FromStr;

use super::codec::{Leaf, parsed};
use super::values::ValueError;
use crate::peek::NamePattern;
use crate::peek::proxy_protocol::TlvName;

/// A TLV with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTlv {
    /// Which one.
    pub name: TlvName,
    /// What it says.
    pub value: TlvValue,
}

/// What a TLV says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlvValue {
    /// A host name of these, as in SNI: of `authority`.
    Host(NamePattern),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl ProxyTlv {
    /// Whether a text is of one whose value is a regular expression. It is not compiled.
    #[must_use]
    pub fn has_regex(text: &str) -> bool {
        let parts = text.split_once('=');
        parts.is_some_and(|(name, value)| {
            value.starts_with('~') && name.parse() == Ok(TlvName::AUTHORITY)
        })
    }
}

impl FromStr for ProxyTlv {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = |why: &dyn fmt::Display| ValueError::Refused(format!("`{text}`: {why}"));
        let Some((name, value)) = text.split_once('=') else {
            return Err(ValueError::Unexpected(EXPECTED.to_owned()));
        };
        let name: TlvName = name.parse().map_err(|error| refused(&error))?;
        let value = match name {
            TlvName::AUTHORITY => {
                let host = value.parse().map_err(|error| refused(&error))?;
                TlvValue::Host(host)
            }
            _ => {
                let bytes = unescaped(value).ok_or_else(|| {
                    refused(&"expected `\\\\` for a backslash, and `\\xE0` for any byte")
                })?;
                if bytes.len() > VALUE_MAX {
                    return Err(refused(&format_args!("expected at most {VALUE_MAX} bytes")));
                }
                TlvValue::Bytes(bytes)
            }
        };
        Ok(Self { name, value })
    }
}

impl fmt::Display for ProxyTlv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        match &self.value {
            TlvValue::Host(pattern) => pattern.fmt(f),
            TlvValue::Bytes(bytes) => bytes.iter().try_for_each(|byte| match byte {
                b'\\' => f.write_str("\\\\"),
                b' '..=b'~' => write!(f, "{}", char::from(*byte)),
                other => write!(f, "\\x{other:02X}"),
            }),
        }
    }
}

/// The bytes of a text in which `\xE0` is a byte and `\\` a backslash; others are UTF-8.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        match after {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let byte = digit(high)? << 4 | digit(low)?;
                bytes.push(u8::try_from(byte).ok()?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// One of them, in a file.
pub(super) fn proxy_tlv() -> Leaf<ProxyTlv> {
    parsed(EXPECTED, str::parse, ToString::to_string)
}

const EXPECTED: &str = "a TLV and its value, such as \"authority=a.example\", \"alpn=h2\" or \
                        \"0xE0=blue\"";
/// The most bytes of a value.
const VALUE_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (text, shown) in [
            ("authority=A.example.", "authority=a.example"),
            ("authority=*.a.example", "authority=*.a.example"),
            ("alpn=h2", "alpn=h2"),
            ("ssl_cn=bob=x", "ssl_cn=bob=x"),
            ("0x01=h2", "alpn=h2"),
            ("0xea=\\x01vpce-1", "0xEA=\\x01vpce-1"),
            ("0xE0=a\\\\\\xff\u{e9}", "0xE0=a\\\\\\xFF\\xC3\\xA9"),
            ("unique_id=", "unique_id="),
        ] {
            let read: ProxyTlv = text.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for (text, why) in [
            ("h2", "expected a TLV and its value"),
            ("host=a", "expected a TLV of the PROXY protocol: alpn"),
            ("0x03=1", "expected a TLV of the PROXY protocol"),
            ("0xE00=1", "expected a TLV of the PROXY protocol"),
            ("0x+1=1", "expected a TLV of the PROXY protocol"),
            ("authority=a:443", "leave the port out"),
            ("alpn=\\h2", "for a backslash"),
            ("alpn=\\xE", "for a backslash"),
        ] {
            let error = text.parse::<ProxyTlv>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("alpn={}", "h".repeat(VALUE_MAX + 1));
        assert!(long.parse::<ProxyTlv>().is_err());
    }
}
