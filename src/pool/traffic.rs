//! Bytes relayed, counted while sessions go on.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::time::per_second;

/// Bytes delivered from clients and to clients over all workers, and their rates.
///
/// Workers add their bytes a few times a second, never per event. Outlives snapshots.
#[derive(Debug, Default)]
pub struct Traffic(CachePadded<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    moved: [AtomicU64; 2],
    /// `moved` at the last [`Traffic::tick`]. Only the control thread reads and writes it.
    ticked: [AtomicU64; 2],
    per_s: [AtomicU64; 2],
}

impl Traffic {
    /// Adds bytes: [from clients, from backends].
    pub fn add(&self, moved: [u64; 2]) {
        for (number, moved) in self.0.moved.iter().zip(moved) {
            if moved > 0 {
                number.fetch_add(moved, Ordering::Relaxed);
            }
        }
    }

    /// Bytes delivered so far: [from clients, from backends].
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        [0, 1].map(|way| self.0.moved[way].load(Ordering::Relaxed))
    }

    /// Bytes per second between the last two calls of [`Self::tick`].
    #[must_use]
    pub fn per_s(&self) -> [u64; 2] {
        [0, 1].map(|way| self.0.per_s[way].load(Ordering::Relaxed))
    }

    /// Computes the rate since the last call, `ns` nanoseconds ago. For one thread only.
    pub fn tick(&self, ns: u64) {
        for (way, moved) in self.bytes().into_iter().enumerate() {
            let before = self.0.ticked[way].swap(moved, Ordering::Relaxed);
            let rate = per_second(moved - before, ns);
            self.0.per_s[way].store(rate, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    #[test]
    fn rates_are_between_two_ticks() {
        let traffic = Traffic::default();
        traffic.add([0, 3_000]);
        assert_eq!((traffic.bytes(), traffic.per_s()), ([0, 3_000], [0, 0]));
        traffic.tick(2 * SECOND);
        assert_eq!(traffic.per_s(), [0, 1_500]);
        traffic.add([70, 0]);
        traffic.tick(SECOND / 2);
        assert_eq!((traffic.bytes(), traffic.per_s()), ([70, 3_000], [140, 0]));
        traffic.tick(0);
        assert_eq!(traffic.per_s(), [0, 0]);
    }
}
