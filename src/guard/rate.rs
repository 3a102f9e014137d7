//! Rates: so many in a second, with a burst.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::time::SECOND;

/// So many in each second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time from one to the next, in ns.
    interval: u64,
    /// The time that a whole burst but its first takes at this rate, in ns.
    ahead: u64,
}

impl Rate {
    /// `per_second` in a second, `burst` of them at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = (SECOND / u64::from(per_second.get())).max(1);
        Self {
            interval,
            ahead: interval * u64::from(burst.get() - 1),
        }
    }
}

/// A token bucket that knows only when it is full again (the generic cell rate algorithm). That is
/// exact, and one number for count and time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// This bucket after a token was taken at `now`, in ns; `None`: it is empty.
    pub(super) fn take(self, rate: Rate, now: u64) -> Option<Self> {
        let full_at = self.full_at.max(now);
        let has_token = full_at - now <= rate.ahead;
        has_token.then_some(Self {
            full_at: full_at.saturating_add(rate.interval),
        })
    }

    /// This bucket under this rate: if it was emptied under a slower one, it is no more than empty.
    /// To be kept even if no token is taken, or it stays empty for long. Clocks that are less than
    /// a second apart make no such difference.
    pub(super) fn under(self, rate: Rate, now: u64) -> Self {
        let empty = now.saturating_add(rate.ahead + rate.interval);
        if self.full_at <= empty.saturating_add(SECOND) {
            return self;
        }
        Self { full_at: empty }
    }

    pub(super) fn is_full(self, now: u64) -> bool {
        self.full_at <= now
    }
}

/// A bucket of all workers.
#[derive(Debug, Default)]
pub(super) struct SharedBucket(CachePadded<AtomicU64>);

impl SharedBucket {
    /// Takes a token if there is one.
    pub(super) fn try_take(&self, rate: Rate, now: u64) -> bool {
        let mut is_taken = false;
        let take = |full_at| {
            let before = Bucket { full_at }.under(rate, now);
            let taken = before.take(rate, now);
            is_taken = taken.is_some();
            let after = taken.unwrap_or(before).full_at;
            (after != full_at).then_some(after)
        };
        // A refusal leaves it as it is.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        is_taken
    }

    /// Puts a token back that was taken at this rate.
    pub(super) fn put_back(&self, rate: Rate) {
        self.0.fetch_sub(rate.interval, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::time::MS;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).unwrap();
        Rate::new(number(per_second), number(burst))
    }

    /// How many of 1,000 attempts at one time pass.
    fn taken(bucket: &mut Bucket, rate: Rate, now: u64) -> usize {
        let mut take = || {
            *bucket = bucket.under(rate, now);
            let taken = bucket.take(rate, now);
            *bucket = taken.unwrap_or(*bucket);
            taken.is_some()
        };
        (0..1_000).filter(|_| take()).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_for_each_interval() {
        let (mut bucket, rate) = (Bucket::default(), rate(50, 100));
        let start = 5_000 * MS;
        assert_eq!(taken(&mut bucket, rate, start), 100);
        assert_eq!(taken(&mut bucket, rate, start), 0);
        assert_eq!(taken(&mut bucket, rate, start + 20 * MS - 1), 0);
        assert_eq!(taken(&mut bucket, rate, start + 20 * MS), 1);
        assert_eq!(taken(&mut bucket, rate, start + 20 * MS), 0);
        assert_eq!(taken(&mut bucket, rate, start + 1_020 * MS), 50);
        assert!(!bucket.is_full(start + 3_019 * MS));
        assert!(bucket.is_full(start + 3_020 * MS));
        assert_eq!(taken(&mut bucket, rate, start + 60_000 * MS), 100);
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        let (slow, fast) = (rate(1, 500), rate(100, 10));
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, slow, 0), 500);
        assert_eq!(taken(&mut bucket, fast, 0), 0);
        assert_eq!(taken(&mut bucket, fast, 10 * MS), 1, "not after 500 s");
        assert_eq!(taken(&mut bucket, slow, 10 * MS), 499);
    }

    /// Workers read their clocks a little apart.
    #[test]
    fn a_clock_that_is_behind_gets_no_token_more() {
        let (mut bucket, rate) = (Bucket::default(), rate(1_000, 5));
        assert_eq!(taken(&mut bucket, rate, 100 * MS), 5);
        assert_eq!(taken(&mut bucket, rate, 99 * MS), 0);
        assert_eq!(taken(&mut bucket, rate, 101 * MS), 1);
    }

    #[test]
    fn the_greatest_values_are_valid() {
        let slow = rate(1, u32::MAX);
        let mut bucket = Bucket::default();
        assert_eq!(taken(&mut bucket, slow, u64::MAX), 1_000);
        let fast = rate(u32::MAX, 1);
        assert_eq!(taken(&mut Bucket::default(), fast, 7), 1);
    }

    #[test]
    fn a_shared_bucket_is_exact_over_threads() {
        let (bucket, rate) = (SharedBucket::default(), rate(1, 100));
        let take = || (0..100).filter(|_| bucket.try_take(rate, 9)).count();
        let taken: usize = thread::scope(|scope| {
            let takers = [(); 4].map(|()| scope.spawn(take));
            takers.map(|taker| taker.join().unwrap()).iter().sum()
        });
        assert_eq!(taken, 100);
        bucket.put_back(rate);
        assert!(bucket.try_take(rate, 9) && !bucket.try_take(rate, 9));
    }
}
