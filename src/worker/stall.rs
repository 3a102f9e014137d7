//! Finds out that this thread did not run for a while: the process was stopped, or the machine is
//! overloaded. An answer that came meanwhile was not late because of its backend.

use crate::time::{MS, NEVER, SECOND};

/// When this thread should have run, and when it did.
#[derive(Debug)]
pub(super) struct Stall {
    /// When the last wait should have ended at the latest.
    due: u64,
    /// When completions last came.
    active_at: u64,
    /// When the last stall ended.
    until: u64,
}

impl Stall {
    pub(super) fn new(now: u64) -> Self {
        Self {
            due: NEVER,
            active_at: now,
            until: 0,
        }
    }

    /// When a wait that is to begin now should end at the latest, so that a stall shows: after a
    /// time as long as the quiet one so far. What a stall adds to an answer without being found is
    /// less than the answer took until then, and a worker without work wakes a few times only.
    pub(super) fn look_at(&self, now: u64) -> u64 {
        let quiet = now.saturating_sub(self.active_at);
        if quiet > QUIET_MAX {
            return NEVER;
        }
        now.saturating_add(quiet.max(LATE))
    }

    /// A wait begins that ends at `due` at the latest.
    pub(super) fn on_wait(&mut self, due: u64) {
        self.due = due;
    }

    /// It has ended, with this many completions.
    pub(super) fn on_woken(&mut self, now: u64, completions: usize) {
        if completions > 0 {
            self.active_at = now;
        }
        if now.saturating_sub(self.due) >= LATE {
            self.until = now;
        }
    }

    /// A turn that began at `began` ends.
    pub(super) fn on_turned(&mut self, began: u64, now: u64) {
        if now.saturating_sub(began) >= LATE {
            self.until = now;
        }
    }

    /// When this thread last ran again after a stall, in ns; 0: there was none.
    pub(super) fn last(&self) -> u64 {
        self.until
    }

    /// Whether a time of this length that ends now has a stall in it.
    pub(super) fn is_within(&self, time: u64, now: u64) -> bool {
        now.saturating_sub(time) < self.until
    }
}

/// A thread that runs is never so late: 100 ms.
const LATE: u64 = 100 * MS;
/// After so long without a completion a stall is not looked for: 10 s.
const QUIET_MAX: u64 = 10 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait from `now` on that has nothing else to end for.
    fn wait(stall: &mut Stall, now: u64) -> u64 {
        let due = stall.look_at(now);
        stall.on_wait(due);
        due
    }

    #[test]
    fn a_wait_that_ends_in_time_is_no_stall() {
        let mut stall = Stall::new(0);
        let mut now = 0;
        let mut waits = 0;
        while wait(&mut stall, now) != NEVER {
            now = stall.due + 99 * MS;
            stall.on_woken(now, 0);
            assert!(!stall.is_within(now, now));
            waits += 1;
        }
        assert!(waits <= 8, "{waits} waits without work");
        stall.on_woken(now + 3_600_000 * MS, 1);
        assert!(!stall.is_within(now, now));
    }

    #[test]
    fn an_answer_that_came_during_a_stall_is_known() {
        let mut stall = Stall::new(0);
        stall.on_woken(5_000 * MS, 1);
        wait(&mut stall, 5_000 * MS);
        // Stopped 10 ms after that, for a second.
        let now = 6_010 * MS;
        stall.on_woken(now, 3);
        assert!(stall.is_within(1_010 * MS, now));
        assert!(stall.is_within(MS, now));
        // What is asked after it is measured as ever.
        wait(&mut stall, now);
        stall.on_woken(now + 20 * MS, 1);
        assert!(!stall.is_within(20 * MS, now + 20 * MS));
        assert!(stall.is_within(21 * MS, now + 20 * MS));
    }

    #[test]
    fn a_stall_in_a_turn_counts_too() {
        let mut stall = Stall::new(0);
        stall.on_turned(1_000 * MS, 1_099 * MS);
        assert!(!stall.is_within(2_000 * MS, 2_000 * MS));
        stall.on_turned(1_000 * MS, 1_100 * MS);
        assert!(stall.is_within(1_000 * MS, 2_000 * MS));
    }
}
