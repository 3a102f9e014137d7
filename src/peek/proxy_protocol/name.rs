//! TLVs by the names that a configuration has for them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{CheckedTlvs, Ssl, kind};

/// A kind of TLV whose value says one thing about a client: those within the SSL TLV are found
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlvName(u8);

/// A text is no name of a TLV.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "expected a TLV of the PROXY protocol: alpn, authority, unique_id, netns, ssl_version, ssl_cn, \
     ssl_cipher, ssl_sig_alg, ssl_key_alg, or a number such as 0xE0"
)]
pub struct TlvNameError;

const NAMES: [(&str, u8); 9] = [
    ("alpn", kind::ALPN),
    ("authority", kind::AUTHORITY),
    ("unique_id", kind::UNIQUE_ID),
    ("netns", kind::NETNS),
    ("ssl_version", kind::SSL_VERSION),
    ("ssl_cn", kind::SSL_CN),
    ("ssl_cipher", kind::SSL_CIPHER),
    ("ssl_sig_alg", kind::SSL_SIG_ALG),
    ("ssl_key_alg", kind::SSL_KEY_ALG),
];

impl TlvName {
    /// The host that the client asks for, as in SNI.
    pub const AUTHORITY: Self = Self(kind::AUTHORITY);

    /// Its value in a header.
    #[must_use]
    pub fn of<'a>(self, tlvs: CheckedTlvs<'a>) -> Option<&'a [u8]> {
        match self.0 {
            kind::SSL_VERSION..=kind::SSL_KEY_ALG => tlvs.ssl()?.parts.value(self.0),
            own => tlvs.value(own),
        }
    }

    /// TLVs with these values, as a header has them: those of TLS within the SSL TLV, which says
    /// that the client came over TLS. `None`: they are longer than a header.
    #[must_use]
    pub fn written(all: &[(Self, Vec<u8>)]) -> Option<Vec<u8>> {
        let is_of_ssl =
            |one: &&(Self, _)| (kind::SSL_VERSION..=kind::SSL_KEY_ALG).contains(&one.0.0);
        let (of_ssl, own): (Vec<_>, Vec<_>) = all.iter().partition(is_of_ssl);
        let joined = |all: &[&(Self, Vec<u8>)]| {
            let each = all.iter().map(|(name, value)| tlv(name.0, value));
            each.collect::<Option<Vec<_>>>().map(|all| all.concat())
        };
        let mut bytes = joined(&own)?;
        if !of_ssl.is_empty() {
            let verified = [Ssl::OVER_TLS, 0, 0, 0, 0];
            bytes.extend(tlv(
                kind::SSL,
                &[&verified[..], &joined(&of_ssl)?].concat(),
            )?);
        }
        Some(bytes)
    }
}

fn tlv(kind: u8, value: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(value.len()).ok()?;
    Some([&[kind][..], &length.to_be_bytes(), value].concat())
}

impl FromStr for TlvName {
    type Err = TlvNameError;

    fn from_str(text: &str) -> Result<Self, TlvNameError> {
        if let Some((_, kind)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Self(*kind));
        }
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let is_number = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digits = digits.filter(is_number).ok_or(TlvNameError)?;
        let kind = u8::from_str_radix(digits, 16).map_err(|_| TlvNameError)?;
        // Those say nothing about a client, or have parts.
        match kind {
            kind::CRC32C | kind::NOOP | kind::SSL => Err(TlvNameError),
            kind => Ok(Self(kind)),
        }
    }
}

impl fmt::Display for TlvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, kind)| *kind == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}
