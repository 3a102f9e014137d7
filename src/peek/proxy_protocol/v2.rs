//! Version 2: binary (section 2.2 of the protocol).

use std::net::SocketAddr;

use super::{CheckedTlvs, Endpoints, Header, HeaderError, HeaderVersion, LENGTH_MAX};

/// Reads a header that begins with [`SIGNATURE`]. Each byte of its fixed part is checked as soon
/// as it has come; what follows once all of it has.
pub(super) fn parse(first: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    let is_local = match first.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(byte) if byte >> 4 != VERSION => return Err(HeaderError::Version),
        Some(byte) => match byte & 0xf {
            LOCAL => true,
            PROXY => false,
            _ => return Err(HeaderError::Command),
        },
    };
    let Some(transport) = first.get(SIGNATURE.len() + 1) else {
        return Ok(None);
    };
    // "The receiver must discard the protocol block including the family which is ignored."
    let addresses = if is_local {
        0
    } else {
        addresses_length(*transport).ok_or(HeaderError::Transport)?
    };
    let Some([high, low]) = first.get(SIGNATURE.len() + 2..FIXED) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LENGTH_MAX {
        return Err(HeaderError::TooLong);
    }
    if length < FIXED + addresses {
        return Err(HeaderError::TooShort);
    }
    let Some(whole) = first.get(..length) else {
        return Ok(None);
    };
    let mut header = Header {
        version: HeaderVersion::V2,
        endpoints: Endpoints::Local,
        tlvs: CheckedTlvs::NONE,
        length,
    };
    if !is_local {
        let (block, tlvs) = whole.split_at(FIXED).1.split_at(addresses);
        header.endpoints = endpoints(*transport, block);
        header.tlvs = CheckedTlvs::check(whole, tlvs)?;
    }
    Ok(Some(header))
}

/// How many bytes the addresses have; `None`: the protocol does not assign this byte.
fn addresses_length(transport: u8) -> Option<usize> {
    match transport {
        UNSPECIFIED => Some(0),
        TCP4 | UDP4 => Some(12),
        TCP6 | UDP6 => Some(36),
        UNIX_STREAM | UNIX_DATAGRAM => Some(2 * PATH),
        _ => None,
    }
}

fn endpoints(transport: u8, block: &[u8]) -> Endpoints<'_> {
    match transport {
        TCP4 => tcp::<4>(block),
        TCP6 => tcp::<16>(block),
        UNIX_STREAM => block
            .split_at_checked(PATH)
            .map(|(from, to)| Endpoints::Unix {
                source: path(from),
                destination: path(to),
            }),
        _ => None,
    }
    .unwrap_or(Endpoints::Unknown)
}

/// Both addresses, and both ports after them.
fn tcp<const IP: usize>(block: &[u8]) -> Option<Endpoints<'static>>
where
    std::net::IpAddr: From<[u8; IP]>,
{
    let (source, rest) = block.split_first_chunk::<IP>()?;
    let (destination, rest) = rest.split_first_chunk::<IP>()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (to, _) = rest.split_first_chunk()?;
    let address =
        |ip: &[u8; IP], port: &[u8; 2]| SocketAddr::new((*ip).into(), u16::from_be_bytes(*port));
    Some(Endpoints::Tcp {
        source: address(source, from),
        destination: address(destination, to),
    })
}

/// Without the zeros that fill it up.
fn path(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().rposition(|byte| *byte != 0);
    let length = length.map_or(0, |last| last + 1);
    bytes.get(..length).unwrap_or(bytes)
}

/// What it begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, transport, and length.
pub(super) const FIXED: usize = 16;
/// Of the byte after the signature: its upper half.
pub(super) const VERSION: u8 = 2;
/// Its lower half.
pub(super) const LOCAL: u8 = 0;
pub(super) const PROXY: u8 = 1;
/// The bytes of a Unix socket's path.
pub(super) const PATH: usize = 108;
/// Family and transport.
pub(super) const UNSPECIFIED: u8 = 0;
pub(super) const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
pub(super) const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
pub(super) const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;
