//! The counters and measurements of a worker.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hdrhistogram::Histogram;

use crate::pool::Traffic;
use crate::session::CloseReason;
use crate::time::{SECOND, US};

use super::latencies::Latencies;

/// Gauges and counters of one worker: written by it alone, read by any thread at any time.
#[derive(Debug, Default)]
pub struct Stats(CachePadded<Numbers>);

/// The numbers of [`Stats`].
#[derive(Debug, Default)]
pub struct Numbers {
    /// Sessions that are open now.
    pub sessions: Number,
    /// Receive buffers that hold bytes now.
    pub buffers: Number,
    /// Pipes that hold bytes now.
    pub pipes: Number,
    /// Accepted connections that wait for a place now.
    pub parked: Number,
    /// Accepted connections that wait for their turn now.
    pub arriving: Number,
    /// Refused clients that are held now.
    pub held: Number,
    /// Connections accepted.
    pub accepted: Number,
    /// Sessions whose first bytes lacked what a backend is selected by: their client's
    /// address was taken instead.
    pub peek_misses: Number,
    /// Connect attempts that failed.
    pub connect_failures: Number,
    /// Connects that found no free local port.
    pub ports_exhausted: Number,
    /// Connects from a `source` address that this machine does not have.
    pub sources_missing: Number,
    /// Times that a listener stopped accepting: a limit was reached, or descriptors ran out.
    pub accept_pauses: Number,
    /// Times that accepting failed because descriptors or memory were lacking.
    pub accept_exhausted: Number,
    /// New listeners whose listening socket did not arrive: this worker does not listen there.
    pub listeners_lost: Number,
    /// Waits that ended or reported a change, and nothing could be moved: a few for each
    /// session that is half-closed or slow, never many.
    pub turns_in_vain: Number,
    /// Clients that would have been refused as `overloaded` if that were not in dry run.
    pub overloaded_dry_run: Number,
    /// Clients that the kernel dropped before they were connected, while this worker was
    /// overloaded.
    pub backlog_drops: Number,
    /// Refused clients that hear nothing more.
    pub dropped: Number,
    /// Refused clients that stay connected for a while.
    pub tarpitted: Number,
    /// Refused clients that were let go before their time, as others needed their slots.
    pub held_early: Number,
    /// Times that a direction of a session rested, as it had used up its bandwidth.
    pub bandwidth_rests: Number,
    /// Access log lines that were dropped because the queue was full.
    pub log_dropped: Number,
    /// Refused clients without a line of their own in the access log, as there were many.
    pub refusals_unlogged: Number,
    /// Access log lines that the log did not take. The control thread counts them, alone.
    pub log_unwritten: Number,
    /// Bytes that were delivered.
    pub traffic: Traffic,
    /// How long clients waited.
    pub latencies: Latencies,
    /// Sessions ended, by reason.
    pub closed: [Number; CloseReason::ALL.len()],
    /// How far the worker has come.
    pub progress: Progress,
}

/// Shows the control thread how far a worker has come.
#[derive(Debug, Default)]
pub struct Progress {
    snapshot: AtomicU64,
    adopted_at: AtomicU64,
    beat: AtomicU64,
}

/// One gauge or counter. Only its worker changes it, so that no locked instruction is needed.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl std::ops::Deref for Stats {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.0
    }
}

impl Number {
    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// For the one thread that counts this.
    pub fn increment(&self) {
        self.set(self.get().wrapping_add(1));
    }
}

impl Progress {
    /// The version of the snapshot that the worker routes by.
    #[must_use]
    pub fn snapshot(&self) -> u64 {
        self.snapshot.load(Ordering::Acquire)
    }

    /// When the worker adopted that snapshot or a later one, in ns of the workers' clock.
    #[must_use]
    pub fn adopted_at(&self) -> u64 {
        self.adopted_at.load(Ordering::Relaxed)
    }

    /// The number of the last [`Command::Beat`](super::Command::Beat) that it has read.
    #[must_use]
    pub fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    pub(super) fn adopt(&self, snapshot: u64, now: u64) {
        self.adopted_at.store(now, Ordering::Relaxed);
        self.snapshot.store(snapshot, Ordering::Release);
    }

    pub(super) fn on_beat(&self, beat: u64) {
        self.beat.store(beat, Ordering::Relaxed);
    }
}

/// Distributions since the last time that they were taken.
#[derive(Clone, Debug)]
pub struct Histograms {
    /// From accept to the backend's answer, µs.
    pub connect: Histogram<u64>,
    /// From accept to the backend's first byte, µs.
    pub first_byte: Histogram<u64>,
    /// From accept to the end, µs.
    pub session: Histogram<u64>,
    /// From the client, bytes per session.
    pub bytes_up: Histogram<u64>,
    /// To the client, bytes per session.
    pub bytes_down: Histogram<u64>,
    /// Handling one batch of completions, ns.
    pub turn: Histogram<u64>,
}

impl Histograms {
    /// Nothing recorded.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connect: histogram(DAY_US),
            first_byte: histogram(DAY_US),
            session: histogram(DAY_US),
            bytes_up: histogram(BYTES_MAX),
            bytes_down: histogram(BYTES_MAX),
            turn: histogram(10 * SECOND),
        }
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Self) {
        let Self {
            connect,
            first_byte,
            session,
            bytes_up,
            bytes_down,
            turn,
        } = self;
        let pairs = [
            (connect, &other.connect),
            (first_byte, &other.first_byte),
            (session, &other.session),
            (bytes_up, &other.bytes_up),
            (bytes_down, &other.bytes_down),
            (turn, &other.turn),
        ];
        for (own, other) in pairs {
            own.add(other)
                .expect("all of one kind have the same bounds");
        }
    }

    /// Each with its name and unit, in the order of a session.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &'static str, &Histogram<u64>); 6] {
        [
            ("connect", "us", &self.connect),
            ("first_byte", "us", &self.first_byte),
            ("session", "us", &self.session),
            ("bytes_up", "B", &self.bytes_up),
            ("bytes_down", "B", &self.bytes_down),
            ("turn", "ns", &self.turn),
        ]
    }
}

impl Default for Histograms {
    fn default() -> Self {
        Self::new()
    }
}

/// Two significant digits: 1% of error, a few pages of memory. Larger values count as the highest.
fn histogram(high: u64) -> Histogram<u64> {
    Histogram::new_with_bounds(1, high, 2).expect("constant bounds that the crate accepts")
}

const DAY_US: u64 = 24 * 3600 * SECOND / US;
const BYTES_MAX: u64 = 1 << 44;
