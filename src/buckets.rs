//! Times that all workers count together, in few buckets. What a listener, a pool and a backend
//! take for them does not grow with their clients, and a time costs two additions.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::metric::BucketBounds;
use crate::time::US;

/// Counts of times by length, and their sum. Written by all workers, read by any thread.
#[derive(Debug)]
pub struct TimeBuckets(CachePadded<Shared>);

/// The sum and the counts of short times come first: where sessions are many they are short, and
/// then one cache line changes its owner for each.
#[derive(Debug)]
#[repr(C)]
struct Shared {
    bounds: BucketBounds,
    /// In µs.
    sum: AtomicU64,
    /// The last one has all that are longer than the greatest bound.
    counts: [AtomicU64; BucketBounds::MAX + 1],
}

/// What [`TimeBuckets`] had at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketCounts {
    bounds: BucketBounds,
    sum: u64,
    counts: [u64; BucketBounds::MAX + 1],
}

/// How long sessions took to get to their stages.
#[derive(Debug)]
pub struct SessionTimes {
    /// To the backend's connection.
    pub connect: TimeBuckets,
    /// To the backend's first byte.
    pub first_byte: TimeBuckets,
    /// To the end.
    pub session: TimeBuckets,
}

/// What [`SessionTimes`] had at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCounts {
    /// To the backend's connection.
    pub connect: BucketCounts,
    /// To the backend's first byte.
    pub first_byte: BucketCounts,
    /// To the end.
    pub session: BucketCounts,
}

/// Tells what [`TimeBuckets`] counted in the last minute. One thread ticks, any reads.
#[derive(Debug, Default)]
pub struct LastMinute {
    ticks: AtomicU32,
    /// The counts up to half a minute ago, and those half a minute before that.
    marks: [[AtomicU64; BucketBounds::MAX + 1]; 2],
}

impl TimeBuckets {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(bounds: BucketBounds) -> Self {
        Self(CachePadded::new(Shared {
            bounds,
            sum: AtomicU64::new(0),
            counts: Default::default(),
        }))
    }

    /// Counts a time of `ns` nanoseconds.
    pub fn record(&self, ns: u64) {
        let us = ns / US;
        let Shared {
            bounds,
            sum,
            counts,
        } = &*self.0;
        counts[bounds.bucket(us)].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(us, Ordering::Relaxed);
    }

    /// The present counts.
    #[must_use]
    pub fn counts(&self) -> BucketCounts {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        BucketCounts {
            bounds: self.0.bounds,
            sum: read(&self.0.sum),
            counts: self.0.counts.each_ref().map(read),
        }
    }
}

impl BucketCounts {
    /// The number of times that were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in µs.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound in µs with the number of times that are below it, and not below the one before;
    /// `None`: those beyond the last bound.
    pub fn each(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.micros().map(Some).chain([None]);
        bounds.zip(self.counts)
    }

    /// The time in µs that `permille` of a thousand stay within, as Prometheus estimates it: as if
    /// those of a bucket were spread evenly. `None`: nothing was counted.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate within a bucket is further off"
    )]
    pub fn quantile(&self, permille: u32) -> Option<f64> {
        let all = self.count();
        let rank = all as f64 * f64::from(permille) / 1_000.0;
        let (mut below, mut low) = (0, 0);
        for (bound, count) in self.each().filter(|_| all > 0) {
            let Some(high) = bound else { break };
            if count > 0 && (below + count) as f64 >= rank {
                let part = (rank - below as f64) / count as f64;
                return Some(low as f64 + (high - low) as f64 * part);
            }
            below += count;
            low = high;
        }
        (all > 0).then_some(low as f64)
    }
}

impl Default for BucketCounts {
    fn default() -> Self {
        TimeBuckets::new(BucketBounds::WAITS).counts()
    }
}

impl SessionTimes {
    /// The present counts.
    #[must_use]
    pub fn counts(&self) -> SessionCounts {
        SessionCounts {
            connect: self.connect.counts(),
            first_byte: self.first_byte.counts(),
            session: self.session.counts(),
        }
    }
}

impl Default for SessionTimes {
    fn default() -> Self {
        Self {
            connect: TimeBuckets::new(BucketBounds::WAITS),
            first_byte: TimeBuckets::new(BucketBounds::WAITS),
            session: TimeBuckets::new(BucketBounds::SESSIONS),
        }
    }
}

impl Default for SessionCounts {
    fn default() -> Self {
        SessionTimes::default().counts()
    }
}

impl LastMinute {
    /// To be called each second, with the same buckets.
    pub fn tick(&self, buckets: &TimeBuckets) {
        let ticks = self.ticks.load(Ordering::Relaxed).wrapping_add(1);
        self.ticks.store(ticks, Ordering::Relaxed);
        if !ticks.is_multiple_of(HALF) {
            return;
        }
        let [late, early] = &self.marks;
        for ((late, early), now) in late.iter().zip(early).zip(&buckets.0.counts) {
            let before = late.swap(now.load(Ordering::Relaxed), Ordering::Relaxed);
            early.store(before, Ordering::Relaxed);
        }
    }

    /// What was counted in the last 30 to 60 s. The sum is that of all since the start.
    #[must_use]
    pub fn counts(&self, buckets: &TimeBuckets) -> BucketCounts {
        let mut counts = buckets.counts();
        for (count, before) in counts.counts.iter_mut().zip(&self.marks[1]) {
            *count = count.saturating_sub(before.load(Ordering::Relaxed));
        }
        counts
    }
}

/// Ticks from one mark to the next.
const HALF: u32 = 30;
/// Two cache lines, which processors fetch together.
const _: () = assert!(size_of::<TimeBuckets>() == 128);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    #[test]
    fn quantiles_are_within_the_bucket() {
        let buckets = TimeBuckets::new(BucketBounds::WAITS);
        assert_eq!(buckets.counts().quantile(990), None);
        (0..98).for_each(|_| buckets.record(3 * MS));
        (0..2).for_each(|_| buckets.record(20 * MS));
        let counts = buckets.counts();
        assert_eq!((counts.count(), counts.sum()), (100, 98 * 3_000 + 40_000));
        // Of 1 to 4 ms and of 16 to 33 ms.
        for (permille, right) in [(490, 2_560.0), (980, 4_096.0), (990, 24_576.0)] {
            assert_eq!(counts.quantile(permille), Some(right), "{permille}");
        }
        (0..1_000).for_each(|_| buckets.record(u64::MAX));
        assert_eq!(buckets.counts().quantile(990), Some(4_194_304.0));
    }

    #[test]
    fn a_minute_later_times_are_not_recent() {
        let (buckets, recent) = (TimeBuckets::new(BucketBounds::WAITS), LastMinute::default());
        let count = || recent.counts(&buckets).count();
        buckets.record(MS);
        for second in 1..60 {
            recent.tick(&buckets);
            assert_eq!(count(), 1, "after {second} s");
        }
        buckets.record(MS);
        recent.tick(&buckets);
        assert_eq!(count(), 1);
        (0..60).for_each(|_| recent.tick(&buckets));
        assert_eq!((count(), buckets.counts().count()), (0, 2));
    }
}
