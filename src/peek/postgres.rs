//! The first message of a PostgreSQL client, read but not answered (PostgreSQL 18, "Message
//! Formats", and `ProcessStartupPacket`).

use super::Miss;
use crate::hash;

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostgresStart<'a> {
    /// It asks for TLS. It waits for `S` or `N` before its ClientHello or its start.
    SslRequest,
    /// It asks for encryption by GSSAPI, and waits for `G` or `N`.
    GssRequest,
    /// It asks to cancel the query of another session, gets no answer, and is closed.
    Cancel {
        /// The process that serves the session.
        process: u32,
        /// What that session's client was given: 4 bytes, and up to 256 from version 3.2 on.
        key: &'a [u8],
    },
    /// It starts a session in plain text.
    Startup(PostgresStartup<'a>),
}

/// The parameters of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresStartup<'a> {
    /// The role, as it is written; empty when there is none, which servers refuse.
    pub user: &'a [u8],
    /// The database; the user's name where the client names none, as servers take it.
    pub database: &'a [u8],
}

/// The key by which a client may have the queries of a session cancelled, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CancelKey(u64);

impl CancelKey {
    /// The key of this process with this secret.
    #[must_use]
    pub fn new(process: u32, secret: &[u8]) -> Self {
        Self(hash::seeded(secret, hash::mix(process.into())))
    }
}

impl<'a> PostgresStart<'a> {
    /// Reads the message that all these bytes of a client begin with.
    pub fn parse(first: &'a [u8]) -> Result<Self, Miss> {
        let (code, length) = head(first)?;
        let body = first.get(HEAD..length).ok_or(Miss::Incomplete)?;
        match code {
            SSL_CODE => Ok(Self::SslRequest),
            GSS_CODE => Ok(Self::GssRequest),
            CANCEL_CODE => {
                let (process, key) = body.split_first_chunk().ok_or(Miss::Absent)?;
                Ok(Self::Cancel {
                    process: u32::from_be_bytes(*process),
                    key,
                })
            }
            _ => PostgresStartup::parse(body)
                .map(Self::Startup)
                .ok_or(Miss::Absent),
        }
    }
}

impl<'a> PostgresStartup<'a> {
    /// Names and values, each ended by a zero, and a zero after the last. A user or a database that
    /// comes twice is refused: servers and balancers might take different ones.
    fn parse(body: &'a [u8]) -> Option<Self> {
        let (mut user, mut database) = (None, None);
        let mut rest = body;
        loop {
            let (name, after) = split(rest)?;
            if name.is_empty() {
                rest = after;
                break;
            }
            let (value, after) = split(after)?;
            let before = match name {
                b"user" => user.replace(value),
                b"database" => database.replace(value),
                _ => None,
            };
            if before.is_some() {
                return None;
            }
            rest = after;
        }
        let user = user.unwrap_or_default();
        let database = database.filter(|name| !name.is_empty());
        rest.is_empty().then_some(Self {
            user,
            database: database.unwrap_or(user),
        })
    }
}

/// The request that these bytes begin with; [`Miss::Absent`]: it is none, but perhaps a session
/// that starts, of which no more than the head is awaited.
pub fn request(first: &[u8]) -> Result<PostgresStart<'_>, Miss> {
    match head(first)? {
        (SSL_CODE | GSS_CODE | CANCEL_CODE, _) => PostgresStart::parse(first),
        _ => Err(Miss::Absent),
    }
}

/// Whether it is such a message, by its length and code.
pub fn is_start(first: &[u8]) -> Result<(), Miss> {
    head(first).map(|_| ())
}

/// The message's code, and its length, of which all bytes have come. Each is checked as soon as it
/// has come: a length that is wrong for its kind does not wait for the rest.
fn head(first: &[u8]) -> Result<(u32, usize), Miss> {
    let (length, rest) = match *first {
        // It is below 65,536.
        [high, ..] if high != 0 => return Err(Miss::Absent),
        [_, high, ..] if high != 0 => return Err(Miss::Absent),
        [_, _, high, low, ref rest @ ..] => (u16::from_be_bytes([high, low]), rest),
        _ => return Err(Miss::Incomplete),
    };
    let length = usize::from(length);
    if !(HEAD..=LENGTH_MAX).contains(&length) {
        return Err(Miss::Absent);
    }
    let (code, _) = rest.split_first_chunk().ok_or(Miss::Incomplete)?;
    let code = u32::from_be_bytes(*code);
    let is_right = match code {
        SSL_CODE | GSS_CODE => length == HEAD,
        CANCEL_CODE => (HEAD + 8..=HEAD + 4 + KEY_MAX).contains(&length),
        _ => code >> 16 == MAJOR && length > HEAD,
    };
    if is_right {
        Ok((code, length))
    } else {
        Err(Miss::Absent)
    }
}

/// What stands before the next zero, and after it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, after) = bytes.split_at_checked(end)?;
    Some((text, after.get(1..)?))
}

/// The length and the code.
const HEAD: usize = 8;
/// The bytes of a request for encryption.
pub const REQUEST_BYTES: usize = HEAD;
/// A request for TLS.
pub const SSL_REQUEST: [u8; REQUEST_BYTES] = [0, 0, 0, 8, 4, 210, 22, 47];
/// `MAX_STARTUP_PACKET_LENGTH`, and the length's own bytes.
const LENGTH_MAX: usize = 10_004;
/// Of the key of a cancel request.
pub(super) const KEY_MAX: usize = 256;
const MAJOR: u32 = 3;
const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSS_CODE: u32 = 80_877_104;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEAD + body.len()).expect("a short message");
        [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    /// Every prefix shorter than `end` is incomplete; all others give the answer.
    #[track_caller]
    fn assert_from(end: usize, answer: Result<PostgresStart<'_>, Miss>, first: &[u8]) {
        for length in 0..=first.len() {
            let parsed = PostgresStart::parse(&first[..length]);
            let expected = if length < end {
                Err(Miss::Incomplete)
            } else {
                answer
            };
            assert_eq!(
                parsed,
                expected,
                "{length} bytes of {}",
                first.escape_ascii()
            );
        }
    }

    #[test]
    fn a_session_that_starts() {
        type Case<'a> = (&'a [u8], Option<(&'a str, &'a str)>);
        let cases: [Case<'_>; 11] = [
            (b"user\0ann\0database\0shop\0\0", Some(("ann", "shop"))),
            (
                b"database\0shop\0options\0-c a=b\0user\0ann\0\0",
                Some(("ann", "shop")),
            ),
            (b"user\0ann\0\0", Some(("ann", "ann"))),
            (b"user\0ann\0database\0\0\0", Some(("ann", "ann"))),
            (b"database\0shop\0\0", Some(("", "shop"))),
            (b"\0", Some(("", ""))),
            (b"user\0ann\0user\0bob\0\0", None),
            (b"user\0ann\0", None),
            (b"user\0ann\0\0x", None),
            (b"user\0ann", None),
            (b"user\0\0\0\0", None),
        ];
        for (body, expected) in cases {
            for minor in [0, 2, 9999] {
                let first = message(MAJOR << 16 | minor, body);
                let answer = expected.map(|(user, database)| {
                    PostgresStart::Startup(PostgresStartup {
                        user: user.as_bytes(),
                        database: database.as_bytes(),
                    })
                });
                let more = [&first, &b"p\0\0\0\x05\0"[..]].concat();
                assert_from(first.len(), answer.ok_or(Miss::Absent), &more);
            }
        }
    }

    #[test]
    fn requests_before_a_session() {
        let cancel = message(CANCEL_CODE, b"\0\0\x30\x39\x01\x02\x03\x04");
        let long = message(CANCEL_CODE, &[&[0, 0, 1, 0], &[7; KEY_MAX][..]].concat());
        for (first, answer) in [
            (message(SSL_CODE, b""), PostgresStart::SslRequest),
            (message(GSS_CODE, b""), PostgresStart::GssRequest),
            (
                cancel,
                PostgresStart::Cancel {
                    process: 12_345,
                    key: &[1, 2, 3, 4],
                },
            ),
            (
                long,
                PostgresStart::Cancel {
                    process: 256,
                    key: &[7; KEY_MAX],
                },
            ),
        ] {
            assert_from(first.len(), Ok(answer), &first);
        }
    }

    #[test]
    fn a_broken_head_does_not_wait() {
        let startup = message(MAJOR << 16, b"user\0ann\0\0");
        let with = |at: usize, byte| {
            let mut first = startup.clone();
            first[at] = byte;
            first
        };
        for (first, end) in [
            (with(0, 1), 1),
            (with(1, 1), 2),
            (with(2, 0xff), 4),
            (with(3, 7), 4),
            // Version 2, and one to come.
            (with(5, 2), 8),
            (with(5, 4), 8),
            (message(SSL_CODE, b"\0"), 8),
            (message(GSS_CODE, b"\0"), 8),
            (message(CANCEL_CODE, &[0; 7]), 8),
            (message(CANCEL_CODE, &[0; 5 + KEY_MAX]), 8),
            (message(MAJOR << 16, &[0; LENGTH_MAX - HEAD + 1]), 4),
            (message(MAJOR << 16, b""), 8),
        ] {
            assert_from(end, Err(Miss::Absent), &first);
        }
    }

    #[test]
    fn a_request_waits_for_no_session() {
        assert_eq!(message(SSL_CODE, b""), SSL_REQUEST);
        let startup = message(MAJOR << 16, b"user\0ann\0\0");
        for length in 0..startup.len() {
            let answer = match length {
                0..HEAD => Err(Miss::Incomplete),
                _ => Err(Miss::Absent),
            };
            assert_eq!(request(&startup[..length]), answer, "{length} bytes");
        }
        let cancel = message(CANCEL_CODE, b"\0\0\0\x07\x01\x02\x03\x04");
        for first in [&cancel[..], &SSL_REQUEST, &message(GSS_CODE, b"")] {
            for length in 0..first.len() {
                assert_eq!(request(&first[..length]), Err(Miss::Incomplete));
            }
            assert_eq!(request(first), PostgresStart::parse(first));
        }
        let key = |process, secret| CancelKey::new(process, secret);
        assert_eq!(key(7, b"abcd"), key(7, b"abcd"));
        assert!(key(7, b"abcd") != key(8, b"abcd") && key(7, b"abcd") != key(7, b"abce"));
    }

    #[test]
    fn messages_of_psql() {
        let plain = include_bytes!("../../tests/captures/psql.bin");
        let startup = PostgresStart::Startup(PostgresStartup {
            user: b"shop_user",
            database: b"shop",
        });
        assert_eq!(PostgresStart::parse(plain), Ok(startup));
        let request = include_bytes!("../../tests/captures/psql_require.bin");
        assert_eq!(PostgresStart::parse(request), Ok(PostgresStart::SslRequest));
    }
}
