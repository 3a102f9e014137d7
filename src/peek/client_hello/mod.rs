//! The first message of a TLS client, read but not answered (RFC 8446, section 4.1.2; RFC 5246,
//! section 7.4.1.2).
//!
//! The hello is parsed once it is complete: backends can't answer sooner anyway, and a later
//! extension can't change the answer. Bytes after it are ignored, even a second hello after a
//! HelloRetryRequest. Of a hello that breaks the rules nothing is known.
//!
//! | hello | answer |
//! |---|---|
//! | in several segments and records, as with a key share of ML-KEM | as if in one |
//! | with GREASE (RFC 8701) | its unknown extensions and ALPN names are passed over |
//! | without a name, or without extensions | no name |
//! | a name with a dot at its end, or in upper case | as without it, in lower case |
//! | an international name | as A-labels (RFC 5890); in other bytes than ASCII: broken |
//! | an address as a name, or one with an empty label | taken as it is written |
//! | an empty name, one of more than 255 bytes, with spaces or controls | broken |
//! | several host names, or the extension twice; ALPN twice | broken: two readers might differ |
//! | an empty list or an empty name in ALPN | broken |
//! | with Encrypted ClientHello (RFC 9849), or GREASE of it | the outer name |
//! | of more than 16 KiB with its headers | broken, from its length on |
//! | malformed in what is read here | broken, once all of it has come |
//! | malformed in other extensions | their bodies are not read |

mod ja4;

pub use ja4::ja4;

use super::records::{Place, RECORD_HEADER};
use super::{BYTES_MAX, Miss, Name, Short};

/// The fields of a ClientHello that select a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// What the client offers to resume (RFC 5246, section 7.4.1.2), or 32 random bytes with
    /// TLS 1.3 (RFC 8446, appendix D.4); empty when it sent none.
    pub session_id: Short<SESSION_ID_MAX>,
    /// The host that the client asks for (RFC 6066, section 3).
    pub server_name: Option<Name>,
}

impl ClientHello {
    /// Reads the hello that all these bytes of a client begin with. The message may be in any
    /// number of records.
    pub fn parse(first: &[u8]) -> Result<Self, Miss> {
        Self::read(body(first)?)
    }

    fn read(mut body: Place<'_>) -> Result<Self, Miss> {
        body.skip(VERSION + RANDOM)?;
        let session_id = Short::read(body.vector8()?.bytes()).ok_or(Miss::Absent)?;
        let cipher_suites = body.vector16()?.left();
        let compression_methods = body.vector8()?.left();
        if cipher_suites == 0 || cipher_suites % 2 != 0 || compression_methods == 0 {
            return Err(Miss::Absent);
        }
        let mut hello = Self {
            session_id,
            server_name: None,
        };
        // Before TLS 1.3 there may be none: "detected by determining whether there are bytes
        // following the compression_methods field".
        if !body.is_at_end() {
            let extensions = whole(body)?;
            hello.read_extensions(extensions)?;
        }
        Ok(hello)
    }

    fn read_extensions(&mut self, mut extensions: Place<'_>) -> Result<(), Miss> {
        let mut has_alpn = false;
        while !extensions.is_at_end() {
            let kind = extensions.two()?;
            let data = extensions.vector16()?;
            // "There MUST NOT be more than one extension of the same type": balancer and backend
            // might choose different ones.
            let is_second = match kind {
                SERVER_NAME => self.server_name.replace(server_name(data)?).is_some(),
                ALPN => {
                    check_alpn(data)?;
                    std::mem::replace(&mut has_alpn, true)
                }
                _ => false,
            };
            if is_second {
                return Err(Miss::Absent);
            }
        }
        Ok(())
    }
}

/// The body of the hello.
fn body(first: &[u8]) -> Result<Place<'_>, Miss> {
    let mut place = Place::first(first);
    if place.byte()? != CLIENT_HELLO {
        return Err(Miss::Absent);
    }
    let length = place.three()?;
    if RECORD_HEADER + MESSAGE_HEADER + length > BYTES_MAX {
        return Err(Miss::Absent);
    }
    place.part(length)
}

/// Each application protocol that the hello offers (RFC 7301, section 3.1), in order. The hello
/// must be one that [`ClientHello::parse`] takes.
pub fn each_offer(first: &[u8], mut found: impl FnMut(&[u8])) -> Result<(), Miss> {
    let mut body = body(first)?;
    body.skip(VERSION + RANDOM)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    if body.is_at_end() {
        return Ok(());
    }
    let mut extensions = whole(body)?;
    while !extensions.is_at_end() {
        let kind = extensions.two()?;
        let data = extensions.vector16()?;
        if kind == ALPN {
            let mut names = whole(data)?;
            while !names.is_at_end() {
                // A name may be cut by records.
                let mut name = [0; u8::MAX as usize];
                let mut length = 0;
                for (byte, place) in names.vector8()?.bytes().zip(&mut name) {
                    *place = byte;
                    length += 1;
                }
                found(&name[..length]);
            }
        }
    }
    Ok(())
}

/// Neither the list nor a name of it is empty (RFC 7301, section 3.1).
fn check_alpn(data: Place<'_>) -> Result<(), Miss> {
    let mut names = whole(data)?;
    loop {
        if names.vector8()?.is_at_end() {
            return Err(Miss::Absent);
        }
        if names.is_at_end() {
            return Ok(());
        }
    }
}

/// The one host name of a server_name extension. An address there, although "not permitted", is
/// taken as it is written: it selects as well as any name.
fn server_name(data: Place<'_>) -> Result<Name, Miss> {
    let mut names = whole(data)?;
    let mut found = None;
    while !names.is_at_end() {
        let kind = names.byte()?;
        // Also of types to come: they "MUST begin with a 16-bit length field".
        let name = names.vector16()?;
        if kind == HOST_NAME {
            let name = Name::read(name.bytes()).ok_or(Miss::Absent)?;
            // "MUST NOT contain more than one name of the same name_type."
            if found.replace(name).is_some() {
                return Err(Miss::Absent);
            }
        }
    }
    found.ok_or(Miss::Absent)
}

/// The vector that fills a part to its end.
fn whole(mut part: Place<'_>) -> Result<Place<'_>, Miss> {
    let vector = part.vector16()?;
    if part.is_at_end() {
        Ok(vector)
    } else {
        Err(Miss::Absent)
    }
}

/// The most bytes of a session ID (RFC 8446, section 4.1.2).
pub const SESSION_ID_MAX: usize = 32;
const CLIENT_HELLO: u8 = 1;
/// The message's type and length.
const MESSAGE_HEADER: usize = 4;
const VERSION: usize = 2;
const RANDOM: usize = 32;
/// An extension's type (RFC 6066, section 1.1).
const SERVER_NAME: usize = 0;
const HOST_NAME: u8 = 0;
/// An extension's type (RFC 7301, section 6).
const ALPN: usize = 16;

#[cfg(test)]
mod tests;
