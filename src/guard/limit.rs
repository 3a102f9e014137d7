//! An exact count over all workers, with a ceiling.

use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::utils::CachePadded;

/// How many of something are in use, and how many may be.
///
/// Touched when a connection is accepted, connected or closed, never per byte. It has a cache line
/// of its own, as every worker writes the count; the ceiling is there too, as the one is never
/// read without the other.
#[derive(Debug)]
pub struct Limit(CachePadded<Count>);

#[derive(Debug)]
struct Count {
    used: AtomicU32,
    max: AtomicU32,
}

impl Limit {
    /// Nothing in use, at most `max`.
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

    /// Takes one, if there is one.
    pub fn try_acquire(&self) -> bool {
        self.try_acquire_within(u32::MAX)
    }

    /// Takes one, unless so many are taken already, or all.
    pub fn try_acquire_within(&self, max: u32) -> bool {
        // An addition that overshoots is taken back: never a loop, and never more than `max` held.
        if self.0.used.fetch_add(1, Ordering::Relaxed) < self.max().min(max) {
            return true;
        }
        self.release();
        false
    }

    /// Gives one back. Whoever then looks at a [queue](crate::pool::Queue) for who waits for it
    /// either finds whoever has joined, or is seen by them when they look for a place after that:
    /// the order of the one and the other is the same for all threads. (It costs nothing on x86,
    /// where every such subtraction has it.)
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

    /// Another ceiling. What is taken beyond it stays until it is given back.
    pub fn set_max(&self, max: u32) {
        self.0.max.store(max, Ordering::Relaxed);
    }

    /// How many more there may be.
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
