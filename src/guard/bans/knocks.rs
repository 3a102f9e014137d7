//! Which banned networks keep knocking, so that the kernel is to drop their clients.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::prefix::Prefix;
use crate::time::SECOND;

/// Clients of a ban in a second: the number of the second, and the count in the last 16 bits.
#[derive(Debug, Default)]
pub(super) struct Knocks(AtomicU64);

impl Knocks {
    /// Counts a client. Answers whether it is the first beyond the limit in its second.
    pub(super) fn count(&self, now: u64) -> bool {
        let second = (now / SECOND) << COUNT_BITS;
        let next = |known: u64| {
            let (of, count) = (known & !COUNT, known & COUNT);
            let count = if of == second {
                (count + 1).min(COUNT)
            } else {
                1
            };
            Some(second | count)
        };
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before == Ok(second | MOST)
    }
}

/// Networks that were found to knock, until the control thread takes them.
#[derive(Debug)]
pub(super) struct Knocking(ArrayQueue<Prefix>);

impl Default for Knocking {
    fn default() -> Self {
        Self(ArrayQueue::new(NETWORKS))
    }
}

impl Knocking {
    /// One for which there is no room knocks again.
    pub(super) fn add(&self, prefix: Prefix) {
        let _ = self.0.push(prefix);
    }

    pub(super) fn take(&self) -> Vec<Prefix> {
        let waiting = self.0.len();
        (0..waiting).map_while(|_| self.0.pop()).collect()
    }
}

/// Clients of a network in a second that are only refused.
const MOST: u64 = 10;
const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Networks that wait for the control thread, which looks each second.
const NETWORKS: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_ten_clients_in_a_second_are_reported_once_in_it() {
        let knocks = Knocks::default();
        let reports = |at: u64, count: u32| (0..count).filter(|_| knocks.count(at)).count();
        assert_eq!(reports(5 * SECOND, 10), 0);
        assert_eq!(reports(6 * SECOND - 1, 0), 0);
        assert_eq!(reports(6 * SECOND, 10), 0);
        assert_eq!(reports(7 * SECOND - 1, 100_000), 1);
        assert_eq!(reports(7 * SECOND, 11), 1);
        assert_eq!(reports(9 * SECOND, 10), 0);
    }

    #[test]
    fn networks_beyond_the_limit_are_dropped() {
        let knocking = Knocking::default();
        let prefix = |n: u32| Prefix::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap();
        (0..2_000).for_each(|n| knocking.add(prefix(n)));
        let taken = knocking.take();
        assert_eq!((taken.len(), taken[0]), (NETWORKS, prefix(0)));
        assert!(knocking.take().is_empty());
    }
}
