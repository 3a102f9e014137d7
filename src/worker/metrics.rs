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

/// Makes [`Histograms`] from rows: what is measured, its name, its unit and its greatest value.
macro_rules! histograms {
    ($($(#[doc = $doc:literal])+ $name:ident in $unit:literal up to $high:expr,)+) => {
        /// Distributions since the last time that they were taken.
        #[derive(Clone, Debug)]
        pub struct Histograms {
            $($(#[doc = $doc])+ pub $name: Histogram<u64>,)+
        }

        impl Histograms {
            /// Nothing recorded.
            #[must_use]
            pub fn new() -> Self {
                Self {
                    $($name: histogram($high),)+
                }
            }

            /// Adds what another one has.
            pub fn add(&mut self, other: &Self) {
                let sames = "all of one kind have the same bounds";
                $(self.$name.add(&other.$name).expect(sames);)+
            }

            /// Each with its name and unit, in the order of a session.
            #[must_use]
            pub fn all(
                &self,
            ) -> [(&'static str, &'static str, &Histogram<u64>); [$($unit),+].len()] {
                [$((stringify!($name), $unit, &self.$name)),+]
            }
        }
    };
}

histograms! {
    /// From accept to the backend's answer, µs.
    connect in "us" up to DAY_US,
    /// From accept to the backend's first byte, µs.
    first_byte in "us" up to DAY_US,
    /// From accept to the end, µs.
    session in "us" up to DAY_US,
    /// In queues of pools, of the clients that waited there, µs.
    queue in "us" up to DAY_US,
    /// From the client, bytes per session.
    bytes_up in "B" up to BYTES_MAX,
    /// To the client, bytes per session.
    bytes_down in "B" up to BYTES_MAX,
    /// Handling one batch of completions, ns.
    turn in "ns" up to 10 * SECOND,
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
