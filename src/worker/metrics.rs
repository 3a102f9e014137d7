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

/// Makes [`Recorded`] and [`Histograms`] from rows: what is measured, its name, its unit and its
/// greatest value.
macro_rules! histograms {
    ($($(#[doc = $doc:literal])+ $name:ident in $unit:literal up to $high:expr,)+) => {
        /// What a worker has recorded since it was last asked for it.
        #[derive(Debug)]
        pub struct Recorded {
            $(pub(super) $name: Steps,)+
        }

        impl Default for Recorded {
            fn default() -> Self {
                Self {
                    $($name: Steps::up_to($high),)+
                }
            }
        }

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

            /// Adds what a worker has recorded.
            pub fn record(&mut self, recorded: &Recorded) {
                $(recorded.$name.record_in(&mut self.$name);)+
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

/// Counts by value in the steps of a [`Histogram`] of two digits: 128 from each power of two to the
/// next. To count here takes a tenth of the instructions of a histogram, which a worker would spend
/// several times for each connection.
#[derive(Debug)]
pub(super) struct Steps(Box<[u64]>);

impl Steps {
    fn up_to(high: u64) -> Self {
        Self(vec![0; step(high) + 1].into())
    }

    /// Counts a value. Larger ones than the highest count as that.
    #[inline]
    pub(super) fn record(&mut self, value: u64) {
        let last = self.0.len() - 1;
        self.0[step(value).min(last)] += 1;
    }

    fn record_in(&self, histogram: &mut Histogram<u64>) {
        for (step, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            histogram.saturating_record_n(lowest(step), *count);
        }
    }
}

fn step(value: u64) -> usize {
    let shift = (value | EXACT).ilog2() - OCTAVE.ilog2();
    let step = u64::from(shift) * OCTAVE + (value >> shift);
    usize::try_from(step).expect("some thousands")
}

/// The lowest value of a step.
fn lowest(step: usize) -> u64 {
    let step = step as u64;
    let shift = (step / OCTAVE).saturating_sub(1);
    (step - shift * OCTAVE) << shift
}

/// Steps from a power of two to the next.
const OCTAVE: u64 = 128;
/// Values up to this one are their own steps.
const EXACT: u64 = 2 * OCTAVE - 1;
const DAY_US: u64 = 24 * 3600 * SECOND / US;
const BYTES_MAX: u64 = 1 << 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_a_histogram() {
        let powers = (0..36).map(|power| 1_u64 << power);
        let values = powers.flat_map(|low| [low - 1, low, low + low / 3, low + low / 2 + 1]);
        let values: Vec<u64> = values.collect();
        let (mut steps, mut direct) = (Steps::up_to(DAY_US), histogram(DAY_US));
        for value in &values {
            steps.record(*value);
            direct.saturating_record(*value);
        }
        let mut from_steps = histogram(DAY_US);
        steps.record_in(&mut from_steps);
        assert!(
            from_steps == direct,
            "each value is in the step of a histogram"
        );
        assert_eq!(direct.len(), values.len() as u64);
    }

    #[test]
    fn the_largest_value_counts_as_the_highest() {
        let mut steps = Steps::up_to(1_000);
        for value in [u64::MAX, 1_000, 0] {
            steps.record(value);
        }
        let mut histogram = histogram(1_000);
        steps.record_in(&mut histogram);
        assert_eq!((histogram.len(), histogram.min()), (3, 0));
        assert!(histogram.equivalent(histogram.max(), 1_000));
    }
}
