//! Version 1: one line of text (section 2.1 of the protocol).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use super::{CheckedTlvs, Endpoints, Header, HeaderError, HeaderVersion};

/// Reads a header that begins with [`START`].
pub(super) fn parse(first: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    let Some(line) = line(first)? else {
        return Ok(None);
    };
    Ok(Some(Header {
        version: HeaderVersion::V1,
        endpoints: endpoints(line)?,
        tlvs: CheckedTlvs::NONE,
        length: line.len() + END.len(),
    }))
}

/// The line without its end, once that has come.
fn line(first: &[u8]) -> Result<Option<&[u8]>, HeaderError> {
    let start = first.get(..LINE_MAX).unwrap_or(first);
    let is_end = |byte: &u8| END.contains(byte);
    let Some(length) = start.iter().position(is_end) else {
        let is_whole = start.len() == LINE_MAX;
        return if is_whole {
            Err(HeaderError::LineTooLong)
        } else {
            Ok(None)
        };
    };
    let (line, end) = start.split_at(length);
    match end {
        [b'\r', b'\n', ..] => Ok(Some(line)),
        [b'\r'] if length + END.len() > LINE_MAX => Err(HeaderError::LineTooLong),
        [b'\r'] => Ok(None),
        _ => Err(HeaderError::LineEnd),
    }
}

fn endpoints(line: &[u8]) -> Result<Endpoints<'_>, HeaderError> {
    let after = line.get(START.len()..).ok_or(HeaderError::Family)?;
    let mut words = after.split(|byte| *byte == b' ');
    match words.next() {
        // "The receiver must ignore anything presented before the CRLF is found."
        Some(b"UNKNOWN") => Ok(Endpoints::Unknown),
        Some(b"TCP4") => tcp::<Ipv4Addr>(words),
        Some(b"TCP6") => tcp::<Ipv6Addr>(words),
        _ => Err(HeaderError::Family),
    }
}

fn tcp<'a, Ip: FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<Endpoints<'static>, HeaderError> {
    let [source, destination] = [(); 2].map(|()| words.next().and_then(ip::<Ip>));
    let (source, destination) = source.zip(destination).ok_or(HeaderError::Address)?;
    let [from, to] = [(); 2].map(|()| words.next().and_then(port));
    let (from, to) = from.zip(to).ok_or(HeaderError::Port)?;
    if words.next().is_some() {
        return Err(HeaderError::Port);
    }
    Ok(Endpoints::Tcp {
        source: SocketAddr::new(source.into(), from),
        destination: SocketAddr::new(destination.into(), to),
    })
}

fn ip<Ip: FromStr>(word: &[u8]) -> Option<Ip> {
    str::from_utf8(word).ok()?.parse().ok()
}

fn port(word: &[u8]) -> Option<u16> {
    let is_number = word.iter().all(u8::is_ascii_digit);
    let is_short = word == b"0" || !word.starts_with(b"0");
    let text = str::from_utf8(word).ok()?;
    text.parse().ok().filter(|_| is_number && is_short)
}

/// What it begins with.
pub(super) const START: &[u8] = b"PROXY ";
/// What it ends with.
pub(super) const END: &[u8] = b"\r\n";
/// The most bytes of the line with its end.
pub(super) const LINE_MAX: usize = 107;
