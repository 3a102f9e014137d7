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
    /// The stamp of a write at this time. It is later than each before, and than each that was
    /// taken in.
    pub(super) fn stamp(&mut self, wall: u64) -> Stamp {
        self.last = Stamp::at(wall).max(Stamp(self.last.0.saturating_add(1)));
        self.last
    }

    /// Takes in the stamp of a write that counts here.
    pub(super) fn observe(&mut self, stamp: Stamp) {
        self.last = self.last.max(stamp);
    }

    /// Falls back to the time of this machine, if that was set back by more than is tolerated.
    /// Otherwise the others would refuse each write until the time has come to where it was.
    /// `true`: it has fallen back, and stamps of before may be ahead of the time.
    pub(super) fn fall_back(&mut self, wall: u64) -> bool {
        let is_ahead = !is_past(self.last, wall);
        if is_ahead {
            self.last = Stamp::at(wall);
        }
        is_ahead
    }
}

/// Compares the clock of one who says this time now. The error says by how many seconds it differs,
/// where that is more than is tolerated: none of its stamps may count, or it would win for ever.
pub(super) fn compare(sent: u64, wall: u64) -> Result<(), u64> {
    let off = sent.abs_diff(wall);
    (off <= SKEW_MAX).then_some(()).ok_or(off / SECOND)
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
        assert!(!clock.fall_back(wall - 5 * SECOND));
        assert!(clock.stamp(wall - 5 * SECOND) > more[99]);
    }

    #[test]
    fn stamps_follow_a_clock_that_was_far_ahead() {
        let mut clock = Clock::default();
        let wall = 10_000 * SECOND;
        clock.stamp(wall + 3_600 * SECOND);
        assert!(clock.fall_back(wall) && !clock.fall_back(wall));
        let stamp = clock.stamp(wall);
        assert!(stamp.0.abs_diff(wall) <= COUNTER && stamp < clock.stamp(wall));
    }

    #[test]
    fn a_write_is_later_than_what_its_writer_knew() {
        let mut clock = Clock::default();
        let wall = 1_000 * SECOND;
        let ahead = Stamp::at(wall + 9 * SECOND);
        clock.observe(ahead);
        assert!(!clock.fall_back(wall));
        assert!(clock.stamp(wall) > ahead);
    }

    #[test]
    fn a_clock_that_is_far_off_is_refused() {
        let wall = 1_000 * SECOND;
        for far in [wall + 11 * SECOND, wall - 11 * SECOND] {
            assert_eq!(compare(far, wall), Err(11));
        }
        for near in [wall + 9 * SECOND, wall - 9 * SECOND] {
            assert_eq!(compare(near, wall), Ok(()));
        }
        assert!(!is_past(Stamp::at(wall + 11 * SECOND), wall));
    }
}
