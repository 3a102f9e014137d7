//! A rate that holds over several balancers, of which this one has a share.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use super::rate::{Rate, SharedBucket};
use super::share::LeasedShare;
use crate::fleet_shares::ShareBound;

/// A rate of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetRule {
    /// New connections in a second, of all balancers together.
    pub rate: NonZeroU32,
    /// How many may come at once, of all together. Each has the part of its share, and one at
    /// least.
    pub burst: NonZeroU32,
}

/// What all workers take of such a rate. It outlives snapshots.
#[derive(Debug, Default)]
pub struct FleetRate {
    bucket: SharedBucket,
    /// Connections that asked for it.
    asked: CachePadded<AtomicU64>,
    share: LeasedShare,
    is_shared: Mutex<bool>,
}

impl FleetRate {
    /// Takes a token if this balancer's share has one, at `now` in ns of the workers' clock.
    pub(super) fn try_take(&self, whole: FleetRule, now: u64) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let rate = part(whole, self.share.now());
        rate.is_some_and(|rate| self.bucket.try_take(rate, now))
    }

    /// Puts a token back.
    pub(super) fn put_back(&self, whole: FleetRule) {
        if let Some(rate) = part(whole, self.share.now()) {
            self.bucket.put_back(rate);
        }
    }

    /// Connections that have asked for it.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the fleet limits it. Until [`set_share`](Self::set_share) there is no token.
    pub fn set_shared(&self, shared: bool) {
        let mut is_shared = self.is_shared.lock();
        if *is_shared != shared {
            *is_shared = shared;
            self.share.set(ShareBound::default());
        }
    }

    /// Changes what this balancer may take of it in a second, where the fleet limits it.
    pub fn set_share(&self, bound: ShareBound) {
        let is_shared = self.is_shared.lock();
        if *is_shared {
            self.share.set(bound);
        }
    }
}

/// The part of a rate, with its part of the burst.
fn part(whole: FleetRule, share: u32) -> Option<Rate> {
    let share = NonZeroU32::new(share)?;
    let burst = u64::from(whole.burst.get()) * u64::from(share.get()) / u64::from(whole.rate.get());
    let burst = u32::try_from(burst).ok().and_then(NonZeroU32::new);
    Some(Rate::new(share, burst.unwrap_or(NonZeroU32::MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    #[test]
    fn a_share_of_a_rate_has_its_part_of_the_burst() {
        let (rate, number) = (FleetRate::default(), |it| NonZeroU32::new(it).unwrap());
        let whole = FleetRule {
            rate: number(100),
            burst: number(20),
        };
        let taken = |now| (0..500).filter(|_| rate.try_take(whole, now)).count();
        rate.set_share(ShareBound {
            share: 50,
            base: 50,
            until: u64::MAX,
        });
        assert_eq!(taken(0), 0, "the fleet does not limit it");
        rate.set_shared(true);
        assert_eq!((taken(0), rate.asked()), (0, 1_000));
        let (share, base, until) = (50, 5, u64::MAX);
        rate.set_share(ShareBound { share, base, until });
        assert_eq!(taken(SECOND), 10);
        assert_eq!(taken(SECOND + SECOND / 10), 5);
        rate.put_back(whole);
        assert_eq!(taken(SECOND + SECOND / 10), 1);
        // Its lease has ended.
        let until = 1;
        rate.set_share(ShareBound { share, base, until });
        assert_eq!(taken(3 * SECOND), 1);
        assert_eq!(taken(4 * SECOND), 1, "a burst of one, 5 in a second");
    }
}
