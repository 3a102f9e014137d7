//! Finds the key of a client in its first bytes: a server name, a path, a cookie.
//!
//! A look is a pure function of all bytes that have come so far: nothing is kept between two
//! looks, allocated or altered, and the work is linear in the bytes. TCP may cut them anywhere.
//! Invariant: short prefixes give [`Peeked::Incomplete`]. Once a prefix gives another answer, all
//! longer prefixes give the same answer.

#![forbid(unsafe_code)]

pub mod client_hello;
mod first_bytes;
pub mod http;
mod member;
pub mod mqtt;
mod name_regex;
mod pattern;
pub mod postgres;
mod postgres_key;
mod protocol;
pub mod proxy_protocol;
pub mod rdp;
mod records;
mod short;
mod spoken;

pub use client_hello::ClientHello;
pub use first_bytes::{EndedTls, FirstBytes};
pub use member::{MEMBER_MAX, MemberPattern};
pub use name_regex::NameRegex;
pub use pattern::{NamePattern, PatternError, above};
pub use postgres::CancelKey;
pub use postgres_key::{KeySearch, Searched};
pub use protocol::Protocol;
use proxy_protocol::TlvName;
pub use short::{NAME_MAX, Name, Short};
pub use spoken::{Heard, Spoken, SpokenBytes, Unheard};

/// The field to find in a client's first bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The server name of a TLS ClientHello (RFC 6066, section 3), as [`Name`] writes it. With
    /// Encrypted ClientHello it is the outer one (RFC 9849).
    Sni,
    /// The session ID of a TLS ClientHello (RFC 5246, section 7.4.1.2). A client of TLS 1.3 sends
    /// another one with each connection (RFC 8446, appendix D.4).
    TlsSessionId,
    /// The path of an HTTP/1 request's target without its query (RFC 9112, section 3.2).
    HttpPath,
    /// The host that an HTTP/1 request is for (RFC 9110, section 7.2), as [`Name`] writes it: a
    /// server name and this host are one key.
    HttpHost,
    /// The value of the cookie of this name in an HTTP/1 request (RFC 6265, section 5.4).
    HttpCookie(String),
    /// The cookie or routing token of an RDP connection request (MS-RDPBCGR, section 2.2.1.1).
    RdpCookie,
    /// The client id of an MQTT CONNECT (MQTT 5.0, section 3.1.3.1).
    MqttClientId,
    /// The role that a PostgreSQL client starts a session as, in plain text.
    PostgresUser,
    /// The database that it starts a session in; its role's name where it names none.
    PostgresDatabase,
    /// A TLV of the header that its proxy has sent before them. A host is as in [`Field::Sni`].
    ProxyTlv(TlvName),
    /// The common name in the client's certificate, where its TLS ends here.
    TlsClientCn,
    /// The SHA-256 of that certificate.
    TlsClientFingerprint,
}

impl Field {
    /// Whether it stands in the client's own bytes, or in those of its handshake.
    #[must_use]
    pub fn is_in_bytes(&self) -> bool {
        !matches!(self, Self::ProxyTlv(_))
    }
}

/// The result of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// The value's [`hash::of`](crate::hash::of).
    Found(u64),
    /// Another protocol, malformed, without such a field, or too long: more bytes won't help.
    Absent,
    /// More bytes may bring it.
    Incomplete,
}

/// Why a parser gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// As [`Peeked::Absent`].
    Absent,
    /// As [`Peeked::Incomplete`].
    Incomplete,
}

/// Looks for a field in all bytes that a client has sent so far. It ignores bytes past
/// [`BYTES_MAX`]; with that many bytes the answer is never [`Peeked::Incomplete`].
#[must_use]
pub fn peek(field: &Field, first: &[u8]) -> Peeked {
    FirstBytes::new(first, false).key(field)
}

/// How far into a connection a look goes: a TLS record's length (RFC 8446, section 5.1), and more
/// than web servers take for the head of a request.
pub const BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
