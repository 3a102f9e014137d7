//! What goes over a connection between two balancers: frames, each with its length before it.
//!
//! A frame is its length in 4 bytes, the version, its kind, the sender's time in 8 bytes, and a
//! body. Numbers are big-endian. Nothing is kept of a frame before it is whole, a length beyond
//! [`FRAME_MAX`] ends the connection, and each count is compared with the bytes that are there.

use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::config::values::shown_reason;
use crate::prefix::Prefix;

use super::clock::{Stamp, wall};

/// A frame with the time that it was sent at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// By the clock of its sender's machine, in ns since 1970. No stamp: those may be ahead of it.
    pub(super) sent: u64,
    pub(super) body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Bans and lifted ones that the sender has made.
    Bans(Vec<BanEntry>),
    /// The same of another member, by its name: the sender passes them on.
    PassedOn(String, Vec<BanEntry>),
    /// The backends of clients of a pool.
    Clients(Clients),
    /// All that the sender knows has come.
    Synced,
    /// The sender is there. To be answered by an [`Body::Ack`] of this time.
    Beat,
    /// All before the beat of this time was taken in.
    Ack(u64),
}

/// The last write about the ban of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BanEntry {
    pub(super) prefix: Prefix,
    pub(super) stamp: Stamp,
    /// The balancer that made it: of equal stamps the higher number is the later one.
    pub(super) writer: u64,
    /// How long it counts from now on, in ms; `None`: until it is replaced.
    pub(super) left_ms: Option<u64>,
    /// Why it is banned; `None`: the ban was lifted.
    pub(super) reason: Option<Arc<str>>,
}

/// Sticky clients of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clients {
    pub(super) pool: String,
    /// What clients are known by, as a file has it: with another key entries mean nothing.
    pub(super) key: String,
    /// The names of their backends.
    pub(super) backends: Vec<String>,
    pub(super) entries: Vec<ClientEntry>,
}

/// A client, and the backend that it had last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientEntry {
    pub(super) client: u64,
    /// The place of its backend among the names.
    pub(super) backend: u16,
    /// When the backend was used last, which is when this was written.
    pub(super) used: Stamp,
}

/// Why a frame can't be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum FrameError {
    #[error("it sends a frame of {0} bytes, and up to {FRAME_MAX} are expected")]
    TooLong(usize),
    #[error("it speaks version {0}, and {VERSION} is expected: run the same release on both")]
    Version(u8),
    #[error("it sends a frame that can't be read")]
    Malformed,
}

impl Frame {
    /// A frame of this moment.
    pub(super) fn now(body: Body) -> Self {
        Self { sent: wall(), body }
    }

    /// The bytes of the frame, with its length before them.
    pub(super) fn bytes(&self) -> Arc<[u8]> {
        let mut to = Writer(vec![0; 4]);
        to.0.push(VERSION);
        match &self.body {
            Body::Bans(all) => {
                to.head(BANS, self.sent);
                to.bans(all);
            }
            Body::PassedOn(maker, all) => {
                to.head(PASSED_ON, self.sent);
                to.text(maker);
                to.bans(all);
            }
            Body::Clients(clients) => {
                to.head(CLIENTS, self.sent);
                to.clients(clients);
            }
            Body::Synced => to.head(SYNCED, self.sent),
            Body::Beat => to.head(BEAT, self.sent),
            Body::Ack(sent) => {
                to.head(ACK, self.sent);
                to.u64(*sent);
            }
        }
        let length = u32::try_from(to.0.len() - 4).unwrap_or(u32::MAX);
        to.0[..4].copy_from_slice(&length.to_be_bytes());
        to.0.into()
    }

    /// How many bytes the frame has behind its length, which are the first ones of these; `None`:
    /// more of them are needed.
    pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(length) = bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        match length <= FRAME_MAX {
            true => Ok(Some(length)),
            false => Err(FrameError::TooLong(length)),
        }
    }

    /// Reads the bytes behind the length of a frame: all of them.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let (&version, rest) = bytes.split_first().ok_or(FrameError::Malformed)?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        read(&mut Cursor(rest)).ok_or(FrameError::Malformed)
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> usize {
        match &self.body {
            Body::Bans(all) | Body::PassedOn(_, all) => all.len(),
            Body::Clients(clients) => clients.entries.len(),
            Body::Synced | Body::Beat | Body::Ack(_) => 0,
        }
    }
}

fn read(from: &mut Cursor<'_>) -> Option<Frame> {
    let kind = from.u8()?;
    let sent = from.u64()?;
    let body = match kind {
        BANS => Body::Bans(from.bans()?),
        PASSED_ON => Body::PassedOn(from.text(NAME_BYTES_MAX)?.to_owned(), from.bans()?),
        CLIENTS => Body::Clients(from.clients()?),
        SYNCED => Body::Synced,
        BEAT => Body::Beat,
        ACK => Body::Ack(from.u64()?),
        _ => return None,
    };
    from.0.is_empty().then_some(Frame { sent, body })
}

struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, kind: u8, sent: u64) {
        self.0.push(kind);
        self.u64(sent);
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// Callers send no more than fit a frame.
    fn count(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&count.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn bans(&mut self, all: &[BanEntry]) {
        self.count(all.len());
        all.iter().for_each(|entry| self.ban(entry));
    }

    fn ban(&mut self, entry: &BanEntry) {
        self.0.push(entry.prefix.length());
        match entry.prefix.ip() {
            IpAddr::V4(ip) => {
                self.0.push(4);
                self.0.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.0.push(6);
                self.0.extend_from_slice(&ip.octets());
            }
        }
        self.u64(entry.stamp.0);
        self.u64(entry.writer);
        self.u64(entry.left_ms.unwrap_or(u64::MAX));
        self.0.push(entry.reason.is_some().into());
        self.text(entry.reason.as_deref().unwrap_or_default());
    }

    fn clients(&mut self, clients: &Clients) {
        self.text(&clients.pool);
        self.text(&clients.key);
        self.count(clients.backends.len());
        clients.backends.iter().for_each(|name| self.text(name));
        self.count(clients.entries.len());
        for entry in &clients.entries {
            self.u64(entry.client);
            self.0.extend_from_slice(&entry.backend.to_be_bytes());
            self.u64(entry.used.0);
        }
    }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A count of items of at least so many bytes each: as many must be there.
    fn count(&mut self, bytes_min: usize) -> Option<usize> {
        let count = usize::from(self.u16()?);
        (count * bytes_min <= self.0.len()).then_some(count)
    }

    fn text(&mut self, bytes_max: usize) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        let bytes = self.take(length).filter(|_| length <= bytes_max)?;
        std::str::from_utf8(bytes).ok()
    }

    fn bans(&mut self) -> Option<Vec<BanEntry>> {
        let count = self.count(BAN_BYTES_MIN)?;
        (0..count).map(|_| self.ban()).collect()
    }

    fn ban(&mut self) -> Option<BanEntry> {
        let length = self.u8()?;
        let ip: IpAddr = match self.u8()? {
            4 => self.array::<4>()?.into(),
            6 => self.array::<16>()?.into(),
            _ => return None,
        };
        // Bits beyond the length would be another prefix.
        let prefix = Prefix::new(ip, length).filter(|its| its.ip() == ip)?;
        let (stamp, writer) = (Stamp(self.u64()?), self.u64()?);
        let left_ms = Some(self.u64()?).filter(|left| *left < u64::MAX);
        let is_banned = match self.u8()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let reason = self.text(REASON_BYTES_MAX)?;
        let reason = is_banned.then(|| shown_reason(reason).into());
        Some(BanEntry {
            prefix,
            stamp,
            writer,
            left_ms,
            reason,
        })
    }

    fn clients(&mut self) -> Option<Clients> {
        let pool = self.text(NAME_BYTES_MAX)?.to_owned();
        let key = self.text(NAME_BYTES_MAX)?.to_owned();
        let backends = self.count(2)?;
        let backends = (0..backends).map(|_| self.text(NAME_BYTES_MAX).map(str::to_owned));
        let backends: Vec<_> = backends.collect::<Option<_>>()?;
        let count = self.count(CLIENT_BYTES)?;
        let entries = (0..count).map(|_| self.client(backends.len()));
        let entries = entries.collect::<Option<_>>()?;
        Some(Clients {
            pool,
            key,
            backends,
            entries,
        })
    }

    fn client(&mut self, backends: usize) -> Option<ClientEntry> {
        let (client, backend) = (self.u64()?, self.u16()?);
        let used = Stamp(self.u64()?);
        let entry = ClientEntry {
            client,
            backend,
            used,
        };
        (usize::from(backend) < backends).then_some(entry)
    }
}

/// Bytes of a frame behind its length.
pub(super) const FRAME_MAX: usize = 64 << 10;
/// Bans that fit a frame.
pub(super) const BANS_MAX: usize = 60;
/// Clients that fit a frame, beside the names of their backends.
pub(super) const CLIENTS_MAX: usize = 2_000;
/// Backends whose names fit beside them.
pub(super) const BACKENDS_MAX: usize = 64;

const VERSION: u8 = 2;
const BANS: u8 = 1;
const CLIENTS: u8 = 2;
const SYNCED: u8 = 3;
const BEAT: u8 = 4;
const ACK: u8 = 5;
const PASSED_ON: u8 = 6;

/// A reason has 200 characters, of 4 bytes at most.
const REASON_BYTES_MAX: usize = 800;
/// A name has 64 characters, that of a backend is an address, and a key has the name of a cookie.
const NAME_BYTES_MAX: usize = 320;
/// A ban of an IPv4 network without a reason.
const BAN_BYTES_MIN: usize = 2 + 4 + 3 * 8 + 1 + 2;
const CLIENT_BYTES: usize = 8 + 2 + 8;

#[cfg(test)]
mod tests;
