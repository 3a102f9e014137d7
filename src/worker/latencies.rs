//! How long clients wait and turns take, in counts that any thread may read at any time. Two
//! readings differ by what happened between them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::metric::{Kind, Metric, Unit};
use crate::time::US;

/// Times of one kind: counts by length.
///
/// Sixteen steps from each power of two to the next, so a value is off by 4% at most. Written by
/// one worker alone, as [`Number`](super::Number) is.
#[derive(Debug)]
pub struct Times([AtomicU64; STEPS]);

/// The counts of one [`Times`], or the sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(Box<[u64; STEPS]>);

/// Makes [`Latencies`] and [`LATENCIES`] from rows: what a time is, and its name.
macro_rules! latencies {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// The times that are measured.
        #[derive(Debug, Default)]
        pub struct Latencies {
            $($(#[doc = $help])+ pub $name: Times,)+
        }

        /// What those times are, in the order of [`Latencies::all`].
        pub static LATENCIES: [Metric; LATENCY_KINDS] = [$(Metric {
            name: stringify!($name),
            kind: Kind::Histogram,
            unit: Some(Unit::Seconds),
            help: concat!($($help),+).trim_ascii_start(),
        }),+];

        const LATENCY_KINDS: usize = [$(stringify!($name)),+].len();

        impl Latencies {
            /// Each kind.
            #[must_use]
            pub fn all(&self) -> [&Times; LATENCY_KINDS] {
                [$(&self.$name),+]
            }
        }
    };
}

latencies! {
    /// From a client's accept to its backend's connection.
    connect,
    /// From a client's accept to its backend's first byte.
    first_byte,
    /// From a client's accept to the end.
    session,
    /// In queues of pools: of the clients that waited for a place, however that ended.
    queue,
    /// One turn of the worker, without its wait for the kernel.
    turn,
}

/// The counts of [`Latencies`], of each kind.
pub type LatencyCounts = [Counts; LATENCY_KINDS];

impl Times {
    /// Counts a time of `ns` nanoseconds.
    pub(crate) fn record(&self, ns: u64) {
        let count = &self.0[step(ns / US)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; STEPS])
    }
}

impl Counts {
    /// Adds what was counted so far.
    pub fn add(&mut self, times: &Times) {
        for (sum, count) in self.0.iter_mut().zip(&times.0) {
            *sum += count.load(Ordering::Relaxed);
        }
    }

    /// Adds what others have.
    pub fn add_counts(&mut self, others: &Self) {
        for (sum, count) in self.0.iter_mut().zip(others.0.iter()) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.0.iter_mut().zip(before.0.iter()) {
            *count -= before;
        }
        since
    }

    /// The number of times that were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        total(&self.0[..])
    }

    /// The counts that are above 0, by step, as the history keeps them.
    #[must_use]
    pub fn steps(&self) -> BTreeMap<u16, u64> {
        let steps = (0_u16..).zip(self.0.iter().copied());
        steps.filter(|(_, count)| *count > 0).collect()
    }

    /// How many times were shorter than this many µs, a power of two from 16 on: exactly.
    #[must_use]
    pub fn below(&self, us: u64) -> u64 {
        total(&self.0[..step(us)])
    }

    /// All times together in µs, off by 4% at most.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let sums = self.0.iter().enumerate();
        sums.fold(0, |sum: u64, (step, count)| {
            sum.saturating_add(count.saturating_mul(middle(step)))
        })
    }

    /// The time in µs that `permille` of a thousand stay within; 0 where nothing was counted.
    #[must_use]
    pub fn quantile(&self, permille: u64) -> u64 {
        let all: u128 = self.0.iter().copied().map(u128::from).sum();
        let rank = (all * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        });
        reached.map_or(0, middle)
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self(Box::new([0; STEPS]))
    }
}

/// The times in µs that each `permille` of a thousand stay within, of counts by step, in the order
/// of steps; 0 where nothing was counted. They may be those of a damaged file.
#[must_use]
pub fn quantiles<const N: usize>(steps: &[(u16, u64)], permille: [u64; N]) -> [u64; N] {
    let known = steps.iter().filter(|(step, _)| usize::from(*step) < STEPS);
    let all: u128 = known.clone().map(|(_, count)| u128::from(*count)).sum();
    permille.map(|permille| {
        let rank = (all * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0;
        let reached = known.clone().find(|(_, count)| {
            seen += u128::from(*count);
            seen >= rank
        });
        reached.map_or(0, |(step, _)| middle(usize::from(*step)))
    })
}

/// The sum of counts, which may be those of a damaged file.
fn total(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

/// The step of a time in µs.
fn step(us: u64) -> usize {
    let us = us.min(LONGEST);
    let shift = us.max(SIXTEEN).ilog2() - 4;
    let step = (u64::from(shift) << 4) + (us >> shift);
    usize::try_from(step).unwrap_or(STEPS - 1).min(STEPS - 1)
}

/// The middle of a step in µs.
fn middle(step: usize) -> u64 {
    let step = step as u64;
    if step < 2 * SIXTEEN {
        return step;
    }
    let shift = (step >> 4) - 1;
    let low = ((step & 15) + SIXTEEN) << shift;
    low + ((1 << shift) - 1) / 2
}

const SIXTEEN: u64 = 16;
/// An hour and more counts as 71 minutes.
const LONGEST: u64 = u32::MAX as u64;
const STEPS: usize = 29 * 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_off_by_4_percent_at_most() {
        for power in 0..32 {
            for us in [
                1_u64 << power,
                (1 << power) + (1 << power) / 3,
                (2 << power) - 1,
            ] {
                let shown = middle(step(us));
                assert!(shown.abs_diff(us) * 100 <= us * 4, "{us} is {shown}");
            }
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
    }

    #[test]
    fn counts_that_no_clock_made_are_harmless() {
        let mut counts = Counts::default();
        let steps = [(3, 1 << 63), (4, u64::MAX), (5, 1), (u16::MAX, 1)];
        for (step, count) in &steps[..3] {
            counts.0[usize::from(*step)] = *count;
        }
        assert_eq!(
            (counts.count(), counts.below(1 << 20)),
            (u64::MAX, u64::MAX)
        );
        assert_eq!([100, 500, 1_000].map(|of| counts.quantile(of)), [3, 4, 5]);
        assert_eq!(quantiles(&steps, [100, 500, 1_000]), [3, 4, 5]);
        assert_eq!(quantiles(&[], [500]), [0]);
    }

    #[test]
    fn quantiles_are_of_what_came_since_a_look() {
        let times = Times::default();
        let look = || {
            let mut counts = Counts::default();
            counts.add(&times);
            counts
        };
        assert_eq!((look().count(), look().quantile(500)), (0, 0));
        (0..100).for_each(|_| times.record(5_000_000_000));
        let before = look();
        (0..98).for_each(|_| times.record(10_000));
        (0..2).for_each(|_| times.record(31_000));
        let since = look().since(&before);
        assert_eq!(since.count(), 100);
        assert_eq!([500, 980, 990].map(|of| since.quantile(of)), [10, 10, 31]);
        assert!(look().quantile(990) > 4_850_000);
    }
}
