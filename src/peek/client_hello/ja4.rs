//! The fingerprint of a TLS hello by what its client can do, JA4
//! (<https://github.com/FoxIO-LLC/ja4/blob/main/technical_details/JA4.md>).
//!
//! Values of GREASE (RFC 8701) are passed over, and the order of cipher suites and extensions does
//! not count, which clients shuffle.

use std::fmt::Write as _;

use super::{ALPN, RANDOM, SERVER_NAME, body, whole};
use crate::peek::Miss;
use crate::peek::records::Place;
use crate::tls::sha256;

/// What of a hello counts.
#[derive(Debug, Default)]
struct Seen {
    version: usize,
    has_name: bool,
    ciphers: Vec<usize>,
    /// All but the server name and the application protocols.
    extensions: Vec<usize>,
    /// How many there are with those.
    extension_count: usize,
    /// In their order.
    signatures: Vec<usize>,
    /// The first and the last byte of the first protocol.
    protocol: Option<(u8, u8)>,
}

/// The fingerprint of the hello that a client's first bytes begin with.
pub fn ja4(first: &[u8]) -> Result<String, Miss> {
    let seen = Seen::read(body(first)?)?;
    let Seen {
        mut ciphers,
        mut extensions,
        ..
    } = seen;
    let version = match seen.version {
        0x304 => "13",
        0x303 => "12",
        0x302 => "11",
        0x301 => "10",
        0x300 => "s3",
        _ => "00",
    };
    let name = if seen.has_name { 'd' } else { 'i' };
    let (count, extension_count) = (ciphers.len().min(99), seen.extension_count.min(99));
    let mut text = format!("t{version}{name}{count:02}{extension_count:02}");
    match seen.protocol {
        None => text.push_str("00"),
        Some((first, last)) if [first, last].iter().all(u8::is_ascii_alphanumeric) => {
            text.extend([char::from(first), char::from(last)]);
        }
        // The first and the last digit of all of them.
        Some((first, last)) => {
            let _ = write!(text, "{:x}{:x}", first >> 4, last & 15);
        }
    }
    ciphers.sort_unstable();
    extensions.sort_unstable();
    let mut offered = listed(&extensions);
    if !seen.signatures.is_empty() {
        offered.push('_');
        offered.push_str(&listed(&seen.signatures));
    }
    let _ = write!(text, "_{}_{}", short(&listed(&ciphers)), short(&offered));
    Ok(text)
}

impl Seen {
    fn read(mut body: Place<'_>) -> Result<Self, Miss> {
        let mut seen = Self {
            version: body.two()?,
            ..Self::default()
        };
        body.skip(RANDOM)?;
        body.vector8()?;
        seen.ciphers = values(body.vector16()?)?;
        body.vector8()?;
        if body.is_at_end() {
            return Ok(seen);
        }
        let mut extensions = whole(body)?;
        while !extensions.is_at_end() {
            let kind = extensions.two()?;
            let data = extensions.vector16()?;
            if is_grease(kind) {
                continue;
            }
            seen.extension_count += 1;
            match kind {
                SERVER_NAME => seen.has_name = true,
                ALPN => seen.protocol = first_protocol(data)?,
                _ => seen.extensions.push(kind),
            }
            if kind == SIGNATURE_ALGORITHMS {
                seen.signatures = values(whole(data)?)?;
            } else if kind == SUPPORTED_VERSIONS {
                let mut data = data;
                let offered = values(data.vector8()?)?;
                seen.version = offered.into_iter().max().unwrap_or(seen.version);
            }
        }
        Ok(seen)
    }
}

/// The first and the last byte of the first name of a list.
fn first_protocol(data: Place<'_>) -> Result<Option<(u8, u8)>, Miss> {
    let mut bytes = whole(data)?.vector8()?.bytes();
    let first = bytes.next();
    Ok(first.map(|first| (first, bytes.last().unwrap_or(first))))
}

/// Values of two bytes each, without those of GREASE.
fn values(mut list: Place<'_>) -> Result<Vec<usize>, Miss> {
    let mut all = Vec::with_capacity(list.left() / 2);
    while !list.is_at_end() {
        let value = list.two()?;
        if !is_grease(value) {
            all.push(value);
        }
    }
    Ok(all)
}

fn is_grease(value: usize) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn listed(values: &[usize]) -> String {
    let each: Vec<_> = values.iter().map(|value| format!("{value:04x}")).collect();
    each.join(",")
}

/// The first 12 digits of the SHA-256 of a list, or as many zeros for an empty one.
fn short(list: &str) -> String {
    if list.is_empty() {
        return "0".repeat(DIGITS);
    }
    let mut digits = sha256(list.as_bytes());
    digits.truncate(DIGITS);
    digits
}

const DIGITS: usize = 12;
/// An extension's type (RFC 8446, section 4.2.3).
const SIGNATURE_ALGORITHMS: usize = 13;
/// An extension's type (RFC 8446, section 4.2.1).
const SUPPORTED_VERSIONS: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_of_known_clients_have_their_fingerprints() {
        for (hello, expected) in [
            (
                &include_bytes!("../../../tests/captures/curl.bin")[..],
                "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6",
            ),
            (
                include_bytes!("../../../tests/captures/chromium.bin"),
                "t13d1517h2_8daaf6152771_cb7bf5808d99",
            ),
            (
                include_bytes!("../../../tests/captures/openssl_tls12_no_name.bin"),
                "t12i280600_d943125447b4_e7e480e5a997",
            ),
            (
                include_bytes!("../../../tests/captures/rustls_records.bin"),
                "t13d101000_61a7ad8aa9b6_0d308c48d2a3",
            ),
        ] {
            assert_eq!(ja4(hello), Ok(expected.to_owned()));
            for length in 0..hello.len() {
                assert_eq!(ja4(&hello[..length]), Err(Miss::Incomplete), "{length}");
            }
        }
        assert_eq!(ja4(b"GET / HTTP/1.1\r\n\r\n"), Err(Miss::Absent));
    }

    #[test]
    fn lists_are_hashed_as_the_description_has_them() {
        let ciphers = [
            0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
            0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let mut sorted = ciphers;
        sorted.sort_unstable();
        assert_eq!(short(&listed(&sorted)), "8daaf6152771");
        let extensions = "0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
                          0403,0804,0401,0503,0805,0501,0806,0601";
        assert_eq!(short(extensions), "e5627efa2ab1");
        assert_eq!(short(""), "000000000000");
        for (value, is) in [
            (0x0a0a, true),
            (0xfafa, true),
            (0x0a1a, false),
            (0x1301, false),
        ] {
            assert_eq!(is_grease(value), is, "{value:x}");
        }
    }
}
