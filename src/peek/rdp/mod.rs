//! The first message of an RDP client, read but not answered: the X.224 Connection Request PDU
//! (MS-RDPBCGR, section 2.2.1.1).

use super::Miss;

/// The value of the `Cookie: mstshash=` or `Cookie: msts=` line that the request may begin with.
/// The former is the user's name, of which many clients send the first 9 bytes; the latter is a
/// routing token, which names a server. A routing token of another form is [`Miss::Absent`].
pub fn cookie(first: &[u8]) -> Result<&[u8], Miss> {
    let user_data = connection_request(first)?;
    value(user_data).ok_or(Miss::Absent)
}

/// Whether it is a connection request, all of which has come.
pub fn is_request(first: &[u8]) -> Result<(), Miss> {
    connection_request(first).map(|_| ())
}

/// What follows the fixed part of the request, all of which has come. Each byte of the fixed part
/// is checked as soon as it has come.
fn connection_request(first: &[u8]) -> Result<&[u8], Miss> {
    let (length, tpdu) = match *first {
        [version, ..] if version != TPKT_VERSION => return Err(Miss::Absent),
        [_, reserved, ..] if reserved != 0 => return Err(Miss::Absent),
        [_, _, high, low, ref tpdu @ ..] => (u16::from_be_bytes([high, low]), tpdu),
        _ => return Err(Miss::Incomplete),
    };
    let length = usize::from(length);
    let user_data = length.checked_sub(FIXED).ok_or(Miss::Absent)?;
    if length > REQUEST_MAX {
        return Err(Miss::Absent);
    }
    match *tpdu {
        [indicator, ..] if usize::from(indicator) + INDICATED_AFTER != length => Err(Miss::Absent),
        [_, code, ..] if code != CONNECTION_REQUEST => Err(Miss::Absent),
        [_, _, _, _, _, _, _, ref after @ ..] => after.get(..user_data).ok_or(Miss::Incomplete),
        _ => Err(Miss::Incomplete),
    }
}

/// The value in the first line. The protocol's own words are in any case, as HAProxy takes them.
fn value(user_data: &[u8]) -> Option<&[u8]> {
    let end = user_data.windows(2).position(|pair| pair == b"\r\n")?;
    let cookie = strip(user_data.get(..end)?, b"Cookie:")?.trim_ascii_start();
    let value = strip(cookie, b"mstshash=").or_else(|| strip(cookie, b"msts="))?;
    let is_text = !value.iter().any(u8::is_ascii_control);
    (is_text && !value.is_empty()).then_some(value)
}

fn strip<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, after) = bytes.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(after)
}

/// RFC 1006, section 6.
const TPKT_VERSION: u8 = 3;
/// Without the initial credit, which is 0 in class 0 (X.224, section 13.3.3).
const CONNECTION_REQUEST: u8 = 0xe0;
/// The TPKT header and the request's fixed part: length indicator, code, two references, class.
const FIXED: usize = 11;
/// The bytes that the length indicator does not count: the TPKT header and itself.
const INDICATED_AFTER: usize = 5;
/// A length indicator of 255 is reserved (X.224, section 13.2.1).
const REQUEST_MAX: usize = INDICATED_AFTER + 254;

#[cfg(test)]
mod tests;
