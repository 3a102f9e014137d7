//! What a header of version 2 says beside addresses: parts of a type, a length and a value.

use crc::{CRC_32_ISCSI, Crc};

use super::{HeaderError, TLVS_MAX, UNIQUE_ID_MAX};

/// One part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// One of [`kind`], or another: 0xE0 to 0xEF are an application's own.
    pub kind: u8,
    /// What a client or a proxy before this one wrote there: any bytes.
    pub value: &'a [u8],
}

impl Tlv<'_> {
    /// How many it is, with those within it.
    pub(super) fn count(self) -> usize {
        let ssl = Some(self.value).filter(|_| self.kind == kind::SSL);
        1 + ssl.and_then(Ssl::read).map_or(0, |ssl| ssl.parts.count())
    }
}

/// The registered kinds (section 2.2 of the protocol).
pub mod kind {
    /// The protocol inside TLS (RFC 7301), such as `h2`.
    pub const ALPN: u8 = 0x01;
    /// The host that the client asks for, as in SNI, in UTF-8.
    pub const AUTHORITY: u8 = 0x02;
    /// The CRC32C of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// What identifies the connection, up to [`super::UNIQUE_ID_MAX`] bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The TLS that the proxy has ended: [`super::Ssl`].
    pub const SSL: u8 = 0x20;
    /// Within SSL: the version, such as `TLSv1.3`.
    pub const SSL_VERSION: u8 = 0x21;
    /// Within SSL: the common name of the client's certificate, in UTF-8.
    pub const SSL_CN: u8 = 0x22;
    /// Within SSL: the cipher suite.
    pub const SSL_CIPHER: u8 = 0x23;
    /// Within SSL: what signed the proxy's certificate.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// Within SSL: the key of the proxy's certificate.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// The name of the network namespace, in ASCII.
    pub const NETNS: u8 = 0x30;
}

/// The TLVs of a header, in their order. They have been checked: none overruns, those that may
/// come once do, they are [`TLVS_MAX`] at most, the checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedTlvs<'a> {
    bytes: &'a [u8],
}

impl<'a> CheckedTlvs<'a> {
    /// None at all.
    pub const NONE: Self = Self { bytes: &[] };

    /// Those of a whole header, which ends with them.
    pub(super) fn check(header: &[u8], tlvs: &'a [u8]) -> Result<Self, HeaderError> {
        let (mut rest, mut seen, mut count) = (tlvs, 0_u64, 0);
        let mut checksum = None;
        while !rest.is_empty() {
            let (tlv, after) = split(rest).ok_or(HeaderError::Overrun)?;
            if let Some(bit) = bit_of_single(tlv.kind) {
                if seen & bit != 0 {
                    return Err(HeaderError::Repeated);
                }
                seen |= bit;
            }
            match tlv.kind {
                kind::UNIQUE_ID if tlv.value.len() > UNIQUE_ID_MAX => {
                    return Err(HeaderError::UniqueId);
                }
                kind::SSL => drop(Ssl::read(tlv.value).ok_or(HeaderError::Ssl)?),
                kind::CRC32C => {
                    let at = header.len() - after.len() - tlv.value.len();
                    let sum = tlv.value.try_into().ok().map(u32::from_be_bytes);
                    checksum = Some((at, sum.ok_or(HeaderError::Checksum)?));
                }
                _ => {}
            }
            count += tlv.count();
            if count > TLVS_MAX {
                return Err(HeaderError::TooMany);
            }
            rest = after;
        }
        if checksum.is_some_and(|(at, sum)| crc32c(header, at) != sum) {
            return Err(HeaderError::Checksum);
        }
        Ok(Self { bytes: tlvs })
    }

    /// The same of bytes that [`Self::as_bytes`] gave.
    #[must_use]
    pub fn of_checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// All of them as they came.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The first one's value.
    #[must_use]
    pub fn value(mut self, kind: u8) -> Option<&'a [u8]> {
        self.find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The TLS that the proxy has ended.
    #[must_use]
    pub fn ssl(self) -> Option<Ssl<'a>> {
        self.value(kind::SSL).and_then(Ssl::read)
    }
}

impl<'a> Iterator for CheckedTlvs<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (tlv, after) = split(self.bytes)?;
        self.bytes = after;
        Some(tlv)
    }
}

/// The TLS of a client that its proxy has ended (section 2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Bits of [`Ssl::OVER_TLS`] and so on.
    pub client: u8,
    /// 0: the client showed a certificate, and it was verified.
    pub verify: u32,
    /// Its version, common name and so on.
    pub parts: CheckedTlvs<'a>,
}

impl<'a> Ssl<'a> {
    /// The client came over TLS.
    pub const OVER_TLS: u8 = 1;
    /// It showed a certificate in this connection.
    pub const CERTIFICATE_IN_CONNECTION: u8 = 2;
    /// It showed one at least once in this TLS session.
    pub const CERTIFICATE_IN_SESSION: u8 = 4;

    fn read(value: &'a [u8]) -> Option<Self> {
        let (&client, rest) = value.split_first()?;
        let (verify, parts) = rest.split_first_chunk()?;
        let mut rest = parts;
        while !rest.is_empty() {
            rest = split(rest)?.1;
        }
        Some(Self {
            client,
            verify: u32::from_be_bytes(*verify),
            parts: CheckedTlvs { bytes: parts },
        })
    }
}

/// The first TLV, and the bytes after it; `None` where it does not end before they do.
fn split(bytes: &[u8]) -> Option<(Tlv<'_>, &[u8])> {
    let ([kind, high, low], rest) = bytes.split_first_chunk()?;
    let length = u16::from_be_bytes([*high, *low]).into();
    let (value, after) = rest.split_at_checked(length)?;
    Some((Tlv { kind: *kind, value }, after))
}

/// A bit for each kind that says one thing about a connection.
pub(super) fn bit_of_single(kind: u8) -> Option<u64> {
    let is_single = matches!(
        kind,
        kind::ALPN | kind::AUTHORITY | kind::CRC32C | kind::UNIQUE_ID | kind::SSL | kind::NETNS
    );
    is_single.then(|| 1 << kind)
}

/// The checksum of a header, in which it stands at this place itself.
pub(super) fn crc32c(header: &[u8], at: usize) -> u32 {
    let (before, rest) = header.split_at_checked(at).unwrap_or((header, &[]));
    let mut digest = CRC32C.digest();
    digest.update(before);
    digest.update(&[0; 4]);
    digest.update(rest.get(4..).unwrap_or_default());
    digest.finalize()
}

/// RFC 4960, appendix B.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
