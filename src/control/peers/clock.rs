//! Stamps that order the writes of all balancers: a hybrid logical clock (Kulkarni, Demirbas,
//! Madappa, Avva and Leone, "Logical Physical Clocks", OPODIS 2014).
//!
//! A stamp is later than that of each write which its writer knew, whatever the clocks of the
//! machines say, and is never far from their time. As in section 6 of the paper it has 64 bits:
//! the time in the upper 48, in units of 2^16 ns, and a counter in the lower 16. So a stamp is
//! about the time in ns since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{SECOND, nanos};

/// When a write was made, as all balancers order writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    /// Of a time, in ns since 1970.
    pub(super) fn at(wall: u64) -> Self {
        Self(wall & !COUNTER)
    }
}

/// The clock of this balancer.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Stamp,
}

impl Clock {
    /// The stamp of a write, or of a message, at this time. It is later than each before, and than
    /// each that was taken in.
    pub(super) fn stamp(&mut self, wall: u64) -> Stamp {
        self.last = Stamp::at(wall).max(Stamp(self.last.0.saturating_add(1)));
        self.last
    }

    /// Takes in the stamp of a message. `false`: the sender's clock differs by more than is
    /// tolerated, and none of its stamps may count. Otherwise one balancer would win for ever.
    pub(super) fn observe(&mut self, sent: Stamp, wall: u64) -> bool {
        let is_near = sent.0.abs_diff(wall) <= SKEW_MAX;
        if is_near {
            self.last = self.last.max(sent);
        }
        is_near
    }
}

/// Whether a write may have been made by now.
pub(super) fn is_past(stamp: Stamp, wall: u64) -> bool {
    stamp.0 <= wall.saturating_add(SKEW_MAX)
}

/// The time of this machine, in ns since 1970.
pub(super) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    nanos(since.unwrap_or_default())
}

/// How much the clocks of two balancers may differ: 10 s, with the time that a message takes.
pub(super) const SKEW_MAX: u64 = 10 * SECOND;
/// The bits of the counter.
const COUNTER: u64 = 0xFFFF;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_only_grow_and_stay_near_the_time() {
        let mut clock = Clock::default();
        let wall = 1_000 * SECOND;
        let first = clock.stamp(wall);
        assert!(wall - first.0 <= COUNTER);
        let more: Vec<_> = (0..100).map(|_| clock.stamp(wall)).collect();
        assert!(more.is_sorted() && first < more[0] && more[99].0 <= wall + COUNTER);
        // The machine's clock goes back.
        assert!(clock.stamp(wall - 5 * SECOND) > more[99]);
    }

    #[test]
    fn a_write_is_later_than_what_its_writer_knew() {
        let mut clock = Clock::default();
        let wall = 1_000 * SECOND;
        let ahead = Stamp::at(wall + 9 * SECOND);
        assert!(clock.observe(ahead, wall));
        assert!(clock.stamp(wall) > ahead);
    }

    #[test]
    fn a_clock_that_is_far_off_is_refused() {
        let mut clock = Clock::default();
        let wall = 1_000 * SECOND;
        for far in [Stamp::at(wall + 11 * SECOND), Stamp::at(wall - 11 * SECOND)] {
            assert!(!clock.observe(far, wall));
        }
        assert!(clock.stamp(wall).0 <= wall);
        assert!(!is_past(Stamp::at(wall + 11 * SECOND), wall));
    }
}
