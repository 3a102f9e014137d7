//! An exact count over all workers, with a ceiling.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use super::share::LeasedShare;
use crate::fleet_shares::ShareBound;

/// How many of something are in use, and how many may be.
///
/// Written when a connection is accepted, connected or closed, never per byte. Count and ceiling
/// are read together and share one cache line, with nothing else in it: every worker writes it.
#[derive(Debug)]
pub struct Limit(CachePadded<Count>);

#[derive(Debug)]
struct Count {
    used: AtomicU32,
    /// What may be taken without a lease: the ceiling, and no more than the base of the share.
    max: AtomicU32,
    ceiling: AtomicU32,
    /// What this balancer has of a limit of the fleet. Only who would be refused looks at it.
    share: LeasedShare,
    /// Whether the fleet limits it. Who changes a ceiling holds this.
    is_shared: Mutex<bool>,
}

impl Limit {
    /// A limit with nothing in use and the ceiling `max`.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self(CachePadded::new(Count {
            used: AtomicU32::new(0),
            max: AtomicU32::new(max),
            ceiling: AtomicU32::new(max),
            share: LeasedShare::default(),
            is_shared: Mutex::new(false),
        }))
    }

    /// A count without a ceiling.
    #[must_use]
    pub fn unbounded() -> Self {
        Self::new(u32::MAX)
    }

    /// Takes a place if there is one.
    pub fn try_acquire(&self) -> bool {
        self.try_acquire_within(u32::MAX)
    }

    /// Takes a place if fewer than `max` and fewer than the ceiling are taken.
    pub fn try_acquire_within(&self, max: u32) -> bool {
        // Add first and take back an overshoot: no loop, and never more than `max` held. In one
        // order with a share that is given back: who gives it back sees this place, or this sees
        // the smaller share. (That costs nothing on x86.)
        if self.0.used.fetch_add(1, Ordering::SeqCst) < self.0.max.load(Ordering::SeqCst).min(max) {
            return true;
        }
        self.release();
        self.0.share.is_leased() && self.try_acquire_leased(max)
    }

    /// Takes a place by the share of the fleet's limit, while its lease lasts.
    #[cold]
    fn try_acquire_leased(&self, max: u32) -> bool {
        let before = self.0.used.fetch_add(1, Ordering::SeqCst);
        let is_taken = before < self.max().min(max).min(self.0.share.now());
        if !is_taken {
            self.release();
        }
        is_taken
    }

    /// Takes a place, also beyond the ceiling while fewer than `extra` more are taken.
    pub fn try_acquire_beyond(&self, extra: u32) -> bool {
        let before = self.0.used.fetch_add(1, Ordering::SeqCst);
        let is_taken = before < self.max().saturating_add(extra);
        if !is_taken {
            self.release();
        }
        is_taken
    }

    /// Releases a place. Sequentially consistent, so that no wake-up is lost: a thread that looks
    /// at a [queue](crate::pool::Queue) after this either finds the client that has joined, or that
    /// client finds the place when it looks once more. (This costs nothing on x86.)
    pub fn release(&self) {
        let before = self.0.used.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "more given back than taken");
    }

    /// How many are taken.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.0.used.load(Ordering::SeqCst)
    }

    /// The ceiling, whatever the fleet allows.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.0.ceiling.load(Ordering::Relaxed)
    }

    /// Changes the ceiling. Places taken beyond it stay taken until they are released.
    pub fn set_max(&self, max: u32) {
        let is_shared = self.0.is_shared.lock();
        self.0.ceiling.store(max, Ordering::Relaxed);
        self.set_least(*is_shared);
    }

    /// Whether a limit of the fleet holds too. From then on there is no place before
    /// [`set_share`](Self::set_share).
    pub fn set_shared(&self, shared: bool) {
        let mut is_shared = self.0.is_shared.lock();
        if *is_shared != shared {
            *is_shared = shared;
            self.0.share.set(ShareBound::default());
            self.set_least(shared);
        }
    }

    /// Changes what this balancer may take of the fleet's limit, where that holds.
    pub fn set_share(&self, bound: ShareBound) {
        let is_shared = self.0.is_shared.lock();
        if *is_shared {
            self.0.share.set(bound);
            self.set_least(true);
        }
    }

    fn set_least(&self, is_shared: bool) {
        let base = if is_shared {
            self.0.share.base()
        } else {
            u32::MAX
        };
        self.0.max.store(base.min(self.max()), Ordering::SeqCst);
    }

    /// How many places are free.
    #[must_use]
    pub fn places(&self) -> u32 {
        let places = self
            .0
            .max
            .load(Ordering::Relaxed)
            .saturating_sub(self.used());
        if places == 0 && self.0.share.is_leased() {
            return self
                .max()
                .min(self.0.share.now())
                .saturating_sub(self.used());
        }
        places
    }

    /// Whether the next [`Self::try_acquire`] would fail.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.places() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn is_exact_over_threads() {
        let limit = Limit::new(100);
        let taken: usize = thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter(|_| limit.try_acquire()).count()))
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        // A taker can be refused while another's overshoot is being taken back, so fewer than the
        // ceiling may be held for a moment, but never more.
        assert!(taken <= 100 && limit.used() as usize == taken);
        while limit.try_acquire() {}
        assert_eq!(limit.used(), 100);
        (0..100).for_each(|_| limit.release());
        assert_eq!(limit.used(), 0);
    }

    #[test]
    fn a_share_of_the_fleet_holds_until_its_lease_ends() {
        let limit = Limit::new(100);
        let take_all = || (0..200).filter(|_| limit.try_acquire()).count();
        let bound = |base, share, until| ShareBound { share, base, until };
        limit.set_share(bound(1, 1, u64::MAX));
        assert!(limit.places() == 100, "the fleet does not limit it");
        limit.set_shared(true);
        assert!(limit.is_full() && take_all() == 0);
        limit.set_share(bound(3, 10, u64::MAX));
        assert_eq!((limit.places(), take_all(), limit.is_full()), (3, 10, true));
        limit.set_max(12);
        limit.set_share(bound(3, 50, u64::MAX));
        assert_eq!(
            (take_all(), limit.max()),
            (2, 12),
            "its own ceiling holds too"
        );
        // The lease has ended: no message is needed.
        limit.set_share(bound(3, 50, 1));
        (0..9).for_each(|_| limit.release());
        assert!(limit.is_full() && take_all() == 0);
        limit.release();
        assert_eq!((limit.places(), take_all()), (1, 1));
        limit.set_shared(false);
        assert_eq!(take_all(), 9);
    }

    #[test]
    fn a_few_may_be_beyond_the_ceiling() {
        let limit = Limit::new(1);
        assert!(limit.try_acquire() && limit.try_acquire_beyond(1));
        assert!(!limit.try_acquire_beyond(1) && !limit.try_acquire());
        assert_eq!(limit.used(), 2);
        limit.release();
        assert!(limit.try_acquire_beyond(1));
    }

    #[test]
    fn a_narrower_ceiling_holds_as_well() {
        let limit = Limit::new(3);
        assert!(limit.try_acquire_within(1) && !limit.try_acquire_within(1));
        assert!(limit.try_acquire_within(5) && limit.try_acquire_within(5));
        assert!(!limit.try_acquire_within(5));
        assert_eq!(limit.used(), 3);
    }
}
