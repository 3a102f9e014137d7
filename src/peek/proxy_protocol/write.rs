//! Headers that we write, into memory that is there: before a client's first bytes, or a probe's.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::tlv::{bit_of_single, crc32c};
use super::{CheckedTlvs, Endpoints, LENGTH_MAX, TLVS_MAX, Tlv, UNIQUE_ID_MAX, kind, v2};

/// Why a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The memory is too short, or the header would be longer than [`LENGTH_MAX`].
    #[error("cannot write a PROXY header: it is too long")]
    NoRoom,
    /// Of more than 108 bytes.
    #[error("cannot write a PROXY header: a socket's path is longer than 108 bytes")]
    Path,
    /// Of more than [`UNIQUE_ID_MAX`] bytes.
    #[error("cannot write a PROXY header: a unique id is longer than 128 bytes")]
    UniqueId,
    /// A kind that may come once was added twice.
    #[error("cannot write a PROXY header: a TLV that may come once comes twice")]
    Repeated,
}

/// Writes a header of version 1, and returns its length. The version has no form for a proxy's own
/// connection and for Unix sockets: `UNKNOWN` stands for both, and says as much.
pub fn write_v1(into: &mut [u8], endpoints: &Endpoints<'_>) -> Result<usize, Unwritable> {
    let room = into.len();
    let mut rest = into;
    let is_written = match of_one_family(endpoints) {
        Endpoints::Tcp {
            source,
            destination,
        } => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let [from, to] = [source, destination].map(|address| address.ip());
            let [from_port, to_port] = [source, destination].map(|address| address.port());
            write!(rest, "PROXY {family} {from} {to} {from_port} {to_port}\r\n")
        }
        Endpoints::Local | Endpoints::Unknown | Endpoints::Unix { .. } => {
            rest.write_all(super::LOCAL_V1)
        }
    };
    match is_written {
        Ok(()) => Ok(room - rest.len()),
        Err(_) => Err(Unwritable::NoRoom),
    }
}

/// A header of version 2 that is being written.
#[derive(Debug)]
pub struct HeaderWriter<'m> {
    into: &'m mut [u8],
    /// What has been written. Invariant: at most as long as the memory.
    length: usize,
    /// The kinds that stand in it, 64 in each word.
    written: [u64; 4],
}

impl<'m> HeaderWriter<'m> {
    /// Begins a header. Addresses of two families are written as IPv6 ones.
    ///
    /// Real receivers take less than the protocol has: HAProxy 2.6 refuses all but TCP addresses
    /// and [`Endpoints::Local`], and nginx 1.22 the Unix family. For a client of a Unix socket
    /// HAProxy sends LOCAL; so should we, unless the receiver is known to take more.
    pub fn new(into: &'m mut [u8], endpoints: &Endpoints<'_>) -> Result<Self, Unwritable> {
        let mut writer = Self {
            into,
            length: 0,
            written: [0; 4],
        };
        let endpoints = of_one_family(endpoints);
        let (command, transport) = match endpoints {
            Endpoints::Local => (v2::LOCAL, v2::UNSPECIFIED),
            Endpoints::Unknown => (v2::PROXY, v2::UNSPECIFIED),
            Endpoints::Tcp { source, .. } if source.is_ipv4() => (v2::PROXY, v2::TCP4),
            Endpoints::Tcp { .. } => (v2::PROXY, v2::TCP6),
            Endpoints::Unix { .. } => (v2::PROXY, v2::UNIX_STREAM),
        };
        writer.put(v2::SIGNATURE)?;
        writer.put(&[v2::VERSION << 4 | command, transport, 0, 0])?;
        match endpoints {
            Endpoints::Local | Endpoints::Unknown => {}
            Endpoints::Tcp {
                source,
                destination,
            } => {
                for address in [source, destination] {
                    match address.ip() {
                        IpAddr::V4(ip) => writer.put(&ip.octets())?,
                        IpAddr::V6(ip) => writer.put(&ip.octets())?,
                    }
                }
                for address in [source, destination] {
                    writer.put(&address.port().to_be_bytes())?;
                }
            }
            Endpoints::Unix {
                source,
                destination,
            } => {
                for path in [source, destination] {
                    let padding = v2::PATH.checked_sub(path.len());
                    let padding = padding.ok_or(Unwritable::Path)?;
                    writer.put(path)?;
                    writer.put([0; v2::PATH].get(..padding).unwrap_or_default())?;
                }
            }
        }
        Ok(writer)
    }

    /// Adds a part. [`HeaderWriter::ssl`] builds the one for TLS, and
    /// [`HeaderWriter::finish_with_checksum`] the checksum.
    pub fn tlv(&mut self, tlv: Tlv<'_>) -> Result<(), Unwritable> {
        if tlv.kind == kind::UNIQUE_ID && tlv.value.len() > UNIQUE_ID_MAX {
            return Err(Unwritable::UniqueId);
        }
        self.part(tlv.kind, |writer| writer.put(tlv.value))
    }

    /// Adds what is known of the TLS that we have ended: bits of [`super::Ssl`], whether the
    /// client's certificate was verified (0), and the parts.
    pub fn ssl(&mut self, client: u8, verify: u32, parts: &[Tlv<'_>]) -> Result<(), Unwritable> {
        self.part(kind::SSL, |writer| {
            writer.put(&[client])?;
            writer.put(&verify.to_be_bytes())?;
            for part in parts {
                writer.put_part(part.kind, |writer| writer.put(part.value))?;
            }
            Ok(())
        })
    }

    /// Adds the parts of a header that came, as they are: all but padding, its checksum, and kinds
    /// that stand in this header already, so that what we say ourselves comes first and counts.
    pub fn relay(&mut self, received: CheckedTlvs<'_>) -> Result<(), Unwritable> {
        let ours = self.written;
        for tlv in received {
            let is_ours = has(&ours, tlv.kind);
            if !is_ours && tlv.kind != kind::NOOP && tlv.kind != kind::CRC32C {
                self.tlv(tlv)?;
            }
        }
        Ok(())
    }

    /// The same for those with which the header has so many bytes at most, and no more TLVs than
    /// [`TLVS_MAX`]; returns how many others there are.
    pub fn relay_within(&mut self, received: CheckedTlvs<'_>, most: usize) -> u64 {
        let ours = self.written;
        let mut left_out = 0;
        let mut places = TLVS_MAX - OWN_MAX;
        for tlv in received {
            if has(&ours, tlv.kind) || tlv.kind == kind::NOOP || tlv.kind == kind::CRC32C {
                continue;
            }
            let fits = self.length + TLV_START + tlv.value.len() <= most;
            let left = places.checked_sub(tlv.count());
            match left.filter(|_| fits && self.tlv(tlv).is_ok()) {
                Some(left) => places = left,
                None => left_out += 1,
            }
        }
        left_out
    }

    /// Ends the header, and returns its length.
    #[must_use]
    pub fn finish(mut self) -> usize {
        self.put_length();
        self.length
    }

    /// The same, with a checksum as its last part.
    pub fn finish_with_checksum(mut self) -> Result<usize, Unwritable> {
        self.tlv(Tlv {
            kind: kind::CRC32C,
            value: &[0; SUM],
        })?;
        self.put_length();
        let header = self.into.get_mut(..self.length);
        let header = header.ok_or(Unwritable::NoRoom)?;
        let sum = crc32c(header, self.length - SUM);
        if let Some(field) = header.last_chunk_mut() {
            *field = sum.to_be_bytes();
        }
        Ok(self.length)
    }

    /// Adds a part of the header itself. One that does not fit leaves nothing behind.
    fn part(
        &mut self,
        kind: u8,
        value: impl FnOnce(&mut Self) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        if bit_of_single(kind).is_some() && has(&self.written, kind) {
            return Err(Unwritable::Repeated);
        }
        let before = self.length;
        let added = self.put_part(kind, value);
        if added.is_err() {
            self.length = before;
        } else if let Some(word) = self.written.get_mut(usize::from(kind >> 6)) {
            *word |= 1 << (kind & 63);
        }
        added
    }

    fn put_part(
        &mut self,
        kind: u8,
        value: impl FnOnce(&mut Self) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        self.put(&[kind, 0, 0])?;
        let start = self.length;
        value(self)?;
        let length = u16::try_from(self.length - start).map_err(|_| Unwritable::NoRoom)?;
        let field = self.into.get_mut(start - 2..start);
        let field = field.ok_or(Unwritable::NoRoom)?;
        field.copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Writes the length of all that follows the fixed part.
    fn put_length(&mut self) {
        let after = self.length - v2::FIXED;
        let length = u16::try_from(after).expect("LENGTH_MAX is below it");
        if let Some(field) = self.into.get_mut(v2::FIXED - 2..v2::FIXED) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Unwritable> {
        let end = self.length + bytes.len();
        let room = self.into.get_mut(self.length..end);
        let room = room.filter(|_| end <= LENGTH_MAX);
        room.ok_or(Unwritable::NoRoom)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

fn has(written: &[u64; 4], kind: u8) -> bool {
    let word = written.get(usize::from(kind >> 6));
    word.is_some_and(|word| word & 1 << (kind & 63) != 0)
}

/// Both addresses as IPv4 ones where they are, mapped or not, and else both as IPv6 ones: a socket
/// for both families sees an IPv4 client by a mapped address.
fn of_one_family<'a>(endpoints: &Endpoints<'a>) -> Endpoints<'a> {
    let Endpoints::Tcp {
        source,
        destination,
    } = *endpoints
    else {
        return *endpoints;
    };
    let [from, to] = [source, destination].map(|address| address.ip().to_canonical());
    let is_v4 = from.is_ipv4() && to.is_ipv4();
    let written = |ip: IpAddr, address: SocketAddr| {
        let ip = if is_v4 { ip } else { mapped(ip).into() };
        SocketAddr::new(ip, address.port())
    };
    Endpoints::Tcp {
        source: written(from, source),
        destination: written(to, destination),
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The most TLVs that we write ourselves: one of each kind.
const OWN_MAX: usize = 8;
/// The bytes before a TLV's value.
const TLV_START: usize = 3;
/// The bytes of a checksum.
const SUM: usize = 4;
