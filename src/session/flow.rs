//! One direction of bytes: what came from one end and goes to the other.

use crate::kernel::{BUFFER_BYTES, Pumped};
use crate::time::US;

use super::buffer_queue::{BufferQueue, Links};

/// The state of one direction. What is true of the sockets at its two ends stands in their
/// [`End`](super::End)s.
#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that came from the source and that the sink's socket took.
    pub(super) delivered: u64,
    /// In buffers and not yet sent.
    pub(super) backlog: BufferQueue,
    /// Spliced in and not yet out.
    pub(super) in_pipe: u32,
    /// Bytes that we made, at the front of the backlog: the source did not send them.
    pub(super) made: u16,
    /// Received bytes follow those in one buffer. Means something only while there are some.
    pub(super) joined: bool,
    /// How bytes move now.
    pub(super) mode: Mode,
    /// Copying: full buffers in a row. Splicing: small visits in a row.
    streak: u8,
    /// Full buffers in a row that make a stream.
    promote_after: u8,
    /// Waits since anything moved.
    pub(super) waits: u8,
    /// So many times 4 KiB were pushed since the pipe was last looked at, 255 at most.
    pub(super) pushed: u8,
    /// Microseconds to the next visit.
    pace_us: u16,
    /// Bytes that the spliced stretch must still deliver to pay for its changes of mode.
    unpaid: u32,
}

/// How a [`Flow`] moves its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Received into buffers and sent from them.
    Copy,
    /// A stream was recognised: receiving stops, the buffers are sent.
    Switching,
    /// Spliced through a pipe, visit by visit.
    Splice,
    /// Copied through TLS, always: what is spliced, or passed on without a buffer, goes past it.
    Tls,
    /// The same, and the end of what was encrypted waits for what follows it, or for a buffer.
    TlsHeld,
}

impl Mode {
    /// Whether an end of the session speaks TLS.
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsHeld)
    }

    /// Through TLS; `held`: the end of what was encrypted waits.
    pub(super) fn tls(held: bool) -> Self {
        if held { Self::TlsHeld } else { Self::Tls }
    }
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            delivered: 0,
            backlog: BufferQueue::default(),
            in_pipe: 0,
            made: 0,
            joined: false,
            mode: Mode::Copy,
            streak: 0,
            promote_after: PROMOTE_AFTER,
            waits: 0,
            pushed: u8::MAX,
            pace_us: PACE_US_START,
            unpaid: 0,
        }
    }

    /// Bytes are held for the sink.
    pub(super) fn is_loaded(&self) -> bool {
        !self.backlog.is_empty() || self.in_pipe > 0 || self.mode == Mode::TlsHeld
    }

    /// Whether bytes that came from the source are held.
    pub(super) fn has_received(&self) -> bool {
        let made_alone = self.made > 0 && !self.joined;
        self.backlog.len() > u16::from(made_alone) || self.in_pipe > 0
    }

    /// Whether the first buffer has but bytes that we made, and others wait to follow them.
    pub(super) fn is_followed(&self) -> bool {
        self.made > 0 && !self.joined && self.backlog.len() > 1
    }

    /// The sink took so many bytes of the first buffer. Returns how many of them came from the
    /// source.
    pub(super) fn on_sent(&mut self, bytes: u32) -> u32 {
        let made = u32::from(self.made).min(bytes);
        self.made -= u16::try_from(made).unwrap_or(self.made);
        self.delivered += u64::from(bytes - made);
        bytes - made
    }

    /// The same of records, whose bytes are delivered with the last one of their buffer.
    #[inline(never)]
    pub(super) fn on_records_sent(&mut self, bytes: u32, links: &Links) -> u32 {
        let whole = self
            .backlog
            .front(links)
            .is_some_and(|its| its.len == bytes);
        let plain = u32::from(self.backlog.front_plain(links)) * u32::from(whole);
        self.delivered += u64::from(plain);
        plain
    }

    /// Takes note of a received buffer; a row of full ones makes a stream.
    pub(super) fn on_filled(&mut self, bytes: u32) {
        if bytes < BUFFER_BYTES {
            self.streak = 0;
            return;
        }
        self.streak = self.streak.saturating_add(1);
        if self.mode == Mode::Copy && self.streak >= self.promote_after {
            self.mode = Mode::Switching;
        }
    }

    /// Takes note of bytes that moved through the pipe, or past all buffers.
    pub(super) fn on_moved(&mut self, moved: Pumped) {
        self.in_pipe = self.in_pipe + moved.pulled - moved.pushed;
        self.delivered += u64::from(moved.pushed);
        self.unpaid = self.unpaid.saturating_sub(moved.pushed);
        if moved.pulled > 0 || moved.pushed > 0 {
            self.waits = 0;
        }
    }

    /// Receiving has stopped and everything is sent: splice from now on.
    pub(super) fn promote(&mut self) {
        self.mode = Mode::Splice;
        self.streak = 0;
        self.pace_us = PACE_US_START;
        self.pushed = u8::MAX;
        self.unpaid = PAYING_BYTES;
    }

    /// Back to copying. A stream that was too short to pay for its change makes the next change
    /// rarer, up to once in 2 MiB of full buffers.
    pub(super) fn demote(&mut self) {
        self.promote_after = if self.unpaid == 0 {
            PROMOTE_AFTER
        } else {
            self.promote_after.saturating_mul(2).min(128)
        };
        self.mode = Mode::Copy;
        self.streak = 0;
        self.pace_us = PACE_US_START;
    }

    /// Adapts the pace to what a visit moved, which was to take `most` bytes; returns whether this
    /// is still a stream.
    ///
    /// A visit should find a chunk that is worth its fixed cost and yet leaves room in the pipe
    /// and in the socket buffers, so that neither peer ever waits for the next one.
    pub(super) fn on_visited(&mut self, pumped: Pumped, most: u32) -> bool {
        let pushed = u8::try_from(pumped.pushed >> 12).unwrap_or(u8::MAX);
        self.pushed = self.pushed.saturating_add(pushed);
        if most == 0 {
            return true;
        }
        if pumped.pulled >= CHUNK_BYTES_MAX {
            self.pace_us = (self.pace_us / 2).max(PACE_US_MIN);
        } else if pumped.pulled < CHUNK_BYTES_MIN {
            self.pace_us = (self.pace_us.saturating_add(self.pace_us / 4)).min(PACE_US_MAX);
        }
        if pumped.pulled >= BUFFER_BYTES {
            self.streak = 0;
        } else {
            self.streak = self.streak.saturating_add(1);
        }
        self.streak < DEMOTE_AFTER
    }

    /// Nanoseconds to the next visit.
    pub(super) fn pace(&self) -> u64 {
        u64::from(self.pace_us) * US
    }
}

/// Full buffers in a row that make a stream (HAProxy: 3 full reads).
const PROMOTE_AFTER: u8 = 3;
/// Small visits in a row that end a stream.
const DEMOTE_AFTER: u8 = 3;
/// A spliced stretch that pays for two changes of mode.
const PAYING_BYTES: u32 = 1 << 20;
const PACE_US_START: u16 = 100;
const PACE_US_MIN: u16 = 25;
const PACE_US_MAX: u16 = 1_000;
const CHUNK_BYTES_MIN: u32 = 64 * 1024;
const CHUNK_BYTES_MAX: u32 = 512 * 1024;
