//! The first request of an HTTP/1 client, read but not answered (RFC 9112).
//!
//! A line is parsed once it is complete. An invalid byte ends the look at once, so that another
//! protocol does not wait for a line end that never comes. Syntax that servers must refuse, or may
//! read in more than one way (a bare CR, folded lines, white space before a colon, control
//! characters), is not accepted as a request. Each look answers at the first line
//! that decides, and does not see the lines after it. HTTP/2 is [`Miss::Absent`]: its preface has
//! the shape of a request (RFC 9113, section 3.4), but not the version.

use std::num::NonZeroU16;

use super::{Miss, Name};

/// The path of the request's target, as it is written: neither its case nor its percent-encoding
/// is made the same. `/` for `http://host`; [`Miss::Absent`] for `*` and for what CONNECT asks.
pub fn path(first: &[u8]) -> Result<&[u8], Miss> {
    match (Lines { rest: first }).target()? {
        Target::Origin { path } | Target::Absolute { path, .. } => Ok(path),
        Target::Authority(_) | Target::Asterisk => Err(Miss::Absent),
    }
}

/// Whether it is a request of HTTP/1, by its first line.
pub fn is_request(first: &[u8]) -> Result<(), Miss> {
    (Lines { rest: first }).target().map(|_| ())
}

/// The host that the request is for, without its port: that of the target when it names one (RFC
/// 9112, section 3.2.2), and else the first Host header's. An IPv6 address keeps its brackets.
pub fn host(first: &[u8]) -> Result<Name, Miss> {
    let mut lines = Lines { rest: first };
    let authority = match lines.target()? {
        Target::Absolute { authority, .. } | Target::Authority(authority) => authority,
        Target::Origin { .. } | Target::Asterisk => lines.field(b"host")?.ok_or(Miss::Absent)?,
    };
    host_of(authority).ok_or(Miss::Absent)
}

/// The status of an answer of HTTP/1 that begins with these bytes (RFC 9112, section 4); `None`:
/// they are none, or too few.
#[must_use]
pub fn status(answer: &[u8]) -> Option<NonZeroU16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', code @ .., end] = rest.get(..6)? else {
        return None;
    };
    let is_number = minor.is_ascii_digit() && code.iter().all(u8::is_ascii_digit);
    if !is_number || !matches!(end, b' ' | b'\r') {
        return None;
    }
    let code = code
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    NonZeroU16::new(code).filter(|code| (100..600).contains(&code.get()))
}

/// The value of the first cookie of this name (RFC 6265, section 5.4), without the quotes that may
/// be around it. Not empty.
pub fn cookie<'a>(first: &'a [u8], name: &[u8]) -> Result<&'a [u8], Miss> {
    let mut lines = Lines { rest: first };
    lines.target()?;
    while let Some(cookies) = lines.field(b"cookie")? {
        if let Some(value) = cookie_of(cookies, name) {
            return if value.is_empty() {
                Err(Miss::Absent)
            } else {
                Ok(value)
            };
        }
    }
    Err(Miss::Absent)
}

/// The forms of RFC 9112, section 3.2.
enum Target<'a> {
    Origin { path: &'a [u8] },
    Absolute { authority: &'a [u8], path: &'a [u8] },
    Authority(&'a [u8]),
    Asterisk,
}

impl<'a> Target<'a> {
    fn of(method: &[u8], target: &'a [u8]) -> Option<Self> {
        if target.is_empty() || target.contains(&b'\t') {
            return None;
        }
        if method == b"CONNECT" {
            return Some(Self::Authority(target));
        }
        if target == b"*" {
            return Some(Self::Asterisk);
        }
        if target.starts_with(b"/") {
            let path = until(target, b"?#");
            return Some(Self::Origin { path });
        }
        let scheme = until(target, b":");
        let after = target.get(scheme.len()..)?.strip_prefix(b"://")?;
        let authority = until(after, b"/?#");
        let path = until(after.get(authority.len()..)?, b"?#");
        let path = if path.is_empty() { b"/" } else { path };
        (is_scheme(scheme) && !authority.is_empty()).then_some(Self::Absolute { authority, path })
    }
}

/// The lines of a request's head that have not been read yet.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// The target of the first line: `METHOD target HTTP/1.x` (RFC 9112, section 3).
    fn target(&mut self) -> Result<Target<'a>, Miss> {
        self.skip_empty()?;
        self.starts_with_method()?;
        let mut words = self.next()?.split(|byte| *byte == b' ');
        match [(); 4].map(|()| words.next()) {
            [Some(method), Some(target), Some(version), None] if is_version(version) => {
                Target::of(method, target).ok_or(Miss::Absent)
            }
            _ => Err(Miss::Absent),
        }
    }

    /// "A server that is expecting to receive and parse a request-line SHOULD ignore at least one
    /// empty line (CRLF) received prior to the request-line" (RFC 9112, section 2.2).
    fn skip_empty(&mut self) -> Result<(), Miss> {
        match *self.rest {
            [] | [b'\r'] => return Err(Miss::Incomplete),
            [b'\r', b'\n', ref after @ ..] | [b'\n', ref after @ ..] => self.rest = after,
            _ => {}
        }
        Ok(())
    }

    /// Whether what has come of the line can be a method and the space after it.
    fn starts_with_method(&self) -> Result<(), Miss> {
        let start = self.rest.get(..=METHOD_MAX).unwrap_or(self.rest);
        match start.iter().position(|byte| !is_token(*byte)) {
            Some(length) if length > 0 && start.get(length) == Some(&b' ') => Ok(()),
            None if start.len() <= METHOD_MAX => Err(Miss::Incomplete),
            Some(_) | None => Err(Miss::Absent),
        }
    }

    /// The next line without its end, which is CRLF or, as RFC 9112 allows in section 2.2, LF.
    fn next(&mut self) -> Result<&'a [u8], Miss> {
        let length = position_of_control(self.rest).ok_or(Miss::Incomplete)?;
        let (line, end) = self.rest.split_at_checked(length).ok_or(Miss::Incomplete)?;
        self.rest = match *end {
            [b'\r', b'\n', ref after @ ..] | [b'\n', ref after @ ..] => after,
            [b'\r'] => return Err(Miss::Incomplete),
            _ => return Err(Miss::Absent),
        };
        Ok(line)
    }

    /// The value of the next header with this name, in lower case; `None` at the head's end.
    fn field(&mut self, name: &[u8]) -> Result<Option<&'a [u8]>, Miss> {
        loop {
            let line = self.next()?;
            if line.is_empty() {
                return Ok(None);
            }
            // Of no bytes when the line goes on with the one before, and cut short when there is
            // white space before the colon: "MUST reject" (RFC 9112, sections 5.1 and 5.2).
            let length = line.iter().position(|byte| !is_token(*byte));
            let parts = length.and_then(|length| line.split_at_checked(length));
            match parts {
                Some((found, [b':', value @ ..])) if !found.is_empty() => {
                    if found.eq_ignore_ascii_case(name) {
                        return Ok(Some(value.trim_ascii()));
                    }
                }
                _ => return Err(Miss::Absent),
            }
        }
    }
}

/// The host of an authority without user information, which RFC 9110 forbids in section 4.2.4.
fn host_of(authority: &[u8]) -> Option<Name> {
    if authority.iter().any(|byte| b"@/\\?#".contains(byte)) {
        return None;
    }
    let host = if authority.starts_with(b"[") {
        let inside = until(authority, b"]");
        authority.get(..=inside.len())?
    } else {
        until(authority, b":")
    };
    match authority.get(host.len()..)? {
        [] => {}
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    Name::read(host.iter().copied())
}

/// The value of the first cookie of this name in a Cookie header.
fn cookie_of<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    cookies.split(|byte| *byte == b';').find_map(|cookie| {
        let found = until(cookie, b"=");
        let value = cookie.get(found.len() + 1..)?;
        (found.trim_ascii() == name).then(|| unquoted(value.trim_ascii()))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] => inside,
        _ => value,
    }
}

/// The part before the first of these bytes, or all if there is none.
fn until<'a>(bytes: &'a [u8], ends: &[u8]) -> &'a [u8] {
    let end = bytes.iter().position(|byte| ends.contains(byte));
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] if minor.is_ascii_digit())
}

/// RFC 3986, section 3.1.
fn is_scheme(word: &[u8]) -> bool {
    word.first().is_some_and(u8::is_ascii_alphabetic)
        && word
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Of methods and header names (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    TOKEN
        .get(usize::from(byte))
        .is_some_and(|is_token| *is_token)
}

/// Where the first byte is that no line holds. A tab may stand in a header's value.
fn position_of_control(bytes: &[u8]) -> Option<usize> {
    // Whole blocks first, without a branch for each byte: that takes vector instructions.
    let blocks = bytes.chunks_exact(BLOCK).take_while(|block| {
        let controls = block.iter().map(|byte| is_control(*byte));
        !controls.fold(false, |found, is_control| found | is_control)
    });
    let without = blocks.count() * BLOCK;
    let rest = bytes.get(without..)?;
    let position = rest.iter().position(|byte| is_control(*byte))?;
    Some(without + position)
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut rest: &[u8] = b"!#$%&'*+-.^_`|~\
        0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    while let [byte, after @ ..] = rest {
        token[*byte as usize] = true;
        rest = after;
    }
    token
};
const BLOCK: usize = 16;
/// The registered methods have up to 17 bytes (RFC 9110, section 16.1); no more than this is taken
/// for one.
const METHOD_MAX: usize = 32;

#[cfg(test)]
mod tests;
