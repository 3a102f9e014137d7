//! An exact count over all workers, with a ceiling.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

/// How many of something are in use, and how many may be.
///
/// Written when a connection is accepted, connected or closed, never per byte. Count and ceiling
/// are read together and share one cache line, with nothing else in it: every worker writes it.
#[derive(Debug)]
pub struct Limit(CachePadded<Count>);

#[derive(Debug)]
struct Count {
    used: AtomicU32,
    max: AtomicU32,
}

impl Limit {
    /// A limit with nothing in use and the ceiling `max`.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self(CachePadded::new(Count {
            used: AtomicU32::new(0),
            max: AtomicU32::new(max),
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
        // Add first and take back an overshoot: no loop, and never more than `max` held.
        if self.0.used.fetch_add(1, Ordering::Relaxed) < self.max().min(max) {
            return true;
        }
        self.release();
        false
    }

    /// Takes a place, whatever the ceiling is.
    pub fn acquire_beyond(&self) {
        self.0.used.fetch_add(1, Ordering::Relaxed);
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
        self.0.used.load(Ordering::Relaxed)
    }

    /// The ceiling.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.0.max.load(Ordering::Relaxed)
    }

    /// Changes the ceiling. Places taken beyond it stay taken until they are released.
    pub fn set_max(&self, max: u32) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// How many places are free.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.max().saturating_sub(self.used())
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
    fn a_narrower_ceiling_holds_as_well() {
        let limit = Limit::new(3);
        assert!(limit.try_acquire_within(1) && !limit.try_acquire_within(1));
        assert!(limit.try_acquire_within(5) && limit.try_acquire_within(5));
        assert!(!limit.try_acquire_within(5));
        assert_eq!(limit.used(), 3);
    }
}
