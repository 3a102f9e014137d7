//! The header by which a proxy says who its client is: the PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! A listener requires it or refuses it; it is never guessed. [`parse`] reads it, [`version_of`]
//! says whether bytes begin with one (a listener that refuses it, or a second header after the
//! first), and [`HeaderWriter`] and [`write_v1`] write it. All of it borrows and copies nothing.
//!
//! Invariant, as in the room: once a prefix gives a header or an error, all longer prefixes give
//! the same. A header has [`LENGTH_MAX`] bytes at most, although its length could say 65,535.

mod name;
mod tlv;
mod v1;
mod v2;
mod write;

use std::net::SocketAddr;

use super::{BYTES_MAX, Miss};

pub use name::{TlvName, TlvNameError};
pub use tlv::{CheckedTlvs, Ssl, Tlv, kind};
pub use write::{HeaderWriter, Unwritable, write_v1};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// How it is written.
    pub version: HeaderVersion,
    /// Whose connection it stands before.
    pub endpoints: Endpoints<'a>,
    /// What else it says, all of it well-formed; empty in version 1, and before a connection of
    /// the proxy's own, where the protocol says to ignore all of it.
    pub tlvs: CheckedTlvs<'a>,
    /// Its bytes: what the client itself sent begins after them.
    pub length: usize,
}

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderVersion {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

impl HeaderVersion {
    /// Its name in files, in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// The ends of the connection that a proxy passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints<'a> {
    /// The proxy's own connection, as for its health check (LOCAL): its real addresses count.
    Local,
    /// A client's, of which the proxy does not say the addresses (UNKNOWN, UNSPEC): the real ones
    /// count. Those of datagrams are ignored too, as none of them can come over this connection.
    Unknown,
    /// A client's over TCP. In a header both addresses are of one family.
    Tcp {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A client's over a Unix stream socket: paths without the zeros after them. A name in the
    /// abstract namespace begins with a zero; an unnamed socket's path is empty.
    Unix {
        /// The client's path.
        source: &'a [u8],
        /// The path that the client connected to.
        destination: &'a [u8],
    },
}

/// What is wrong with a header: the connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeaderError {
    /// Neither the signature of version 2 nor `PROXY `.
    #[error("the first bytes are no PROXY header")]
    Missing,
    /// Version 1: `TCP4`, `TCP6` or `UNKNOWN` must follow.
    #[error("invalid PROXY header: expected TCP4, TCP6 or UNKNOWN")]
    Family,
    /// Version 1: no addresses of the family, or not two.
    #[error("invalid PROXY header: expected two addresses of its family")]
    Address,
    /// Version 1: 0 to 65535 without leading zeros, and nothing after the second one.
    #[error("invalid PROXY header: expected two ports, 0 to 65535, and the end of the line")]
    Port,
    /// Version 1: a carriage return or a line feed that is no end of the line.
    #[error("invalid PROXY header: expected a line that ends with CR LF")]
    LineEnd,
    /// Version 1: "the receiver must abort if no CRLF is found in the first 107 characters".
    #[error("invalid PROXY header: expected a line of at most 107 bytes")]
    LineTooLong,
    /// Version 2: the signature stands before another version.
    #[error("invalid PROXY header: expected version 2 after the signature")]
    Version,
    /// Version 2: neither LOCAL nor PROXY.
    #[error("invalid PROXY header: expected the command LOCAL or PROXY")]
    Command,
    /// Version 2: a combination that the protocol does not assign.
    #[error("invalid PROXY header: expected a known address family and transport")]
    Transport,
    /// Version 2: longer than [`LENGTH_MAX`].
    #[error("invalid PROXY header: expected at most 16384 bytes")]
    TooLong,
    /// Version 2: shorter than the addresses of its family.
    #[error("invalid PROXY header: its length has no room for its addresses")]
    TooShort,
    /// Version 2: a TLV that goes on after the header's end, or of fewer than three bytes.
    #[error("invalid PROXY header: a TLV goes beyond its end")]
    Overrun,
    /// Version 2: more than [`TLVS_MAX`].
    #[error("invalid PROXY header: expected at most 256 TLVs")]
    TooMany,
    /// Version 2: ALPN, authority, checksum, unique id, SSL or namespace twice: two readers might
    /// take different ones.
    #[error("invalid PROXY header: a TLV that may come once comes twice")]
    Repeated,
    /// Version 2: of more than [`UNIQUE_ID_MAX`] bytes.
    #[error("invalid PROXY header: expected a unique id of at most 128 bytes")]
    UniqueId,
    /// Version 2: an SSL TLV without its fixed part, or with sub-TLVs that overrun it.
    #[error("invalid PROXY header: its SSL TLV is malformed")]
    Ssl,
    /// Version 2: a CRC32C that is wrong, or that does not have four bytes.
    #[error("invalid PROXY header: its checksum is wrong")]
    Checksum,
}

/// Reads the header that all these bytes of a connection begin with; `None`: more bytes are
/// needed, [`LENGTH_MAX`] in all at most.
pub fn parse(first: &[u8]) -> Result<Option<Header<'_>>, HeaderError> {
    match version_of(first) {
        Ok(HeaderVersion::V1) => v1::parse(first),
        Ok(HeaderVersion::V2) => v2::parse(first),
        Err(Miss::Incomplete) => Ok(None),
        Err(Miss::Absent) => Err(HeaderError::Missing),
    }
}

/// Whether bytes begin with a header, which need not be a valid one. No other protocol that we
/// know begins so.
pub fn version_of(first: &[u8]) -> Result<HeaderVersion, Miss> {
    for (version, start) in [
        (HeaderVersion::V1, v1::START),
        (HeaderVersion::V2, v2::SIGNATURE),
    ] {
        if first.starts_with(start) {
            return Ok(version);
        }
        if start.starts_with(first) {
            return Err(Miss::Incomplete);
        }
    }
    Err(Miss::Absent)
}

/// A probe's header of version 1, which has no form for a proxy's own connections: it says that it
/// knows no addresses.
pub const LOCAL_V1: &[u8] = b"PROXY UNKNOWN\r\n";
/// A probe's header of version 2: the connection is the proxy's own.
pub const LOCAL_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
/// The most bytes of a header: as far as a look goes into a connection. The protocol's own limit
/// is 65,551; senders keep it below one segment.
pub const LENGTH_MAX: usize = BYTES_MAX;
/// The most TLVs of a header, those within SSL included: each condition and each key of a route
/// looks through them. Senders write a dozen.
pub const TLVS_MAX: usize = 256;
/// The most bytes of a unique id.
pub const UNIQUE_ID_MAX: usize = 128;

#[cfg(test)]
mod tests;
