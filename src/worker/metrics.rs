//! The counters and measurements of a worker.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use hdrhistogram::Histogram;

use crate::kernel::Usage;
use crate::time::{SECOND, US};

use super::numbers::Numbers;

/// Gauges and counters of one worker: written by it alone, read by any thread at any time.
#[derive(Debug, Default)]
pub struct Stats(CachePadded<Numbers>);

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

impl Stats {
    /// What the worker has asked of its kernel so far.
    pub(super) fn set_usage(&self, usage: Usage) {
        self.enters.set(usage.enters);
        self.submissions.set(usage.submissions);
        self.completions.set(usage.completions);
        self.other_calls.set(usage.other_calls);
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
    /// In queues of pools, of the clients that waited there, µs.
    pub queue: Histogram<u64>,
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
            queue: histogram(DAY_US),
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
            queue,
            bytes_up,
            bytes_down,
            turn,
        } = self;
        let pairs = [
            (connect, &other.connect),
            (first_byte, &other.first_byte),
            (session, &other.session),
            (queue, &other.queue),
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
    pub fn all(&self) -> [(&'static str, &'static str, &Histogram<u64>); 7] {
        [
            ("connect", "us", &self.connect),
            ("first_byte", "us", &self.first_byte),
            ("session", "us", &self.session),
            ("queue", "us", &self.queue),
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
