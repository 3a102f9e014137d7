//! A backend that can't take another connection just now, though it has fewer than it may have:
//! the backlog of its Unix socket is full. Nothing says when there is room, so it is asked again
//! after a wait, which grows while the answer is the same: by one client for all that wait.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is known of one backend's backlog, over all workers.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// When it is asked again, in ns of the workers' clock.
    ask_at: AtomicU64,
    /// How long it was waited for that; 0 when it took the last connection.
    wait: AtomicU64,
}

impl Crowd {
    /// Its backlog was full.
    pub(super) fn on_full(&self, now: u64) {
        let wait = (self.wait.load(Ordering::Relaxed) * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.wait.store(wait, Ordering::Relaxed);
        self.ask_at.store(now + wait, Ordering::Relaxed);
    }

    /// It took a connection.
    pub(super) fn on_taken(&self) {
        if self.wait.load(Ordering::Relaxed) > 0 {
            self.wait.store(0, Ordering::Relaxed);
            self.ask_at.store(0, Ordering::Relaxed);
        }
    }

    /// How many clients may connect now: none until it is asked again, then one.
    pub(super) fn places(&self, now: u64) -> u32 {
        if now < self.ask_at.load(Ordering::Relaxed) {
            0
        } else if self.wait.load(Ordering::Relaxed) > 0 {
            1
        } else {
            u32::MAX
        }
    }

    /// When it is asked again, if it is not to be asked now.
    pub(super) fn ask_at(&self, now: u64) -> Option<u64> {
        let at = self.ask_at.load(Ordering::Relaxed);
        (now < at).then_some(at)
    }
}

/// Until a full backlog is looked at again: 1 ms at first,
const WAIT_MIN: u64 = 1_000_000;
/// and 50 ms at most.
const WAIT_MAX: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_while_the_backlog_is_full_and_ends_when_it_is_not() {
        let crowd = Crowd::default();
        assert_eq!((crowd.places(0), crowd.ask_at(0)), (u32::MAX, None));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..10 {
            crowd.on_full(now);
            assert_eq!(crowd.places(now), 0);
            let at = crowd.ask_at(now).unwrap();
            waits.push(at - now);
            assert_eq!((crowd.places(at), crowd.ask_at(at)), (1, None));
            now = at;
        }
        assert!(waits.is_sorted() && waits[0] == WAIT_MIN && waits[9] == WAIT_MAX);
        crowd.on_taken();
        assert_eq!(crowd.places(now), u32::MAX);
        crowd.on_full(now);
        assert_eq!(crowd.ask_at(now), Some(now + WAIT_MIN));
    }
}
