//! A backend on a Unix socket whose listen backlog is full.
//!
//! The kernel does not report when there is room again, so one client tries again after a wait, on
//! behalf of all. The wait doubles while the backlog stays full.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::MS;

/// The state of one backend's backlog, over all workers.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// When the next client may try, in ns of the workers' clock.
    retry_at: AtomicU64,
    /// The current wait, in ns; 0 if the backend accepted the last connection.
    wait: AtomicU64,
}

impl Backlog {
    /// The backlog was full at `now`.
    pub(super) fn on_full(&self, now: u64) {
        let wait = (self.wait.load(Ordering::Relaxed) * 2).clamp(WAIT_MIN, WAIT_MAX);
        self.wait.store(wait, Ordering::Relaxed);
        self.retry_at.store(now + wait, Ordering::Relaxed);
    }

    /// The backend accepted a connection.
    pub(super) fn on_taken(&self) {
        if self.wait.load(Ordering::Relaxed) > 0 {
            self.wait.store(0, Ordering::Relaxed);
            self.retry_at.store(0, Ordering::Relaxed);
        }
    }

    /// How many clients may connect: while the backlog is full none, then one that tries; otherwise
    /// any number.
    pub(super) fn places(&self, now: u64) -> u32 {
        if now < self.retry_at.load(Ordering::Relaxed) {
            0
        } else if self.wait.load(Ordering::Relaxed) > 0 {
            1
        } else {
            u32::MAX
        }
    }

    /// When the next client may try, in ns; `None`: now.
    pub(super) fn retry_at(&self, now: u64) -> Option<u64> {
        let at = self.retry_at.load(Ordering::Relaxed);
        (now < at).then_some(at)
    }
}

/// The first wait: 1 ms.
const WAIT_MIN: u64 = MS;
/// The longest wait: 50 ms.
const WAIT_MAX: u64 = 50 * MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_while_the_backlog_is_full_and_ends_when_it_is_not() {
        let backlog = Backlog::default();
        assert_eq!((backlog.places(0), backlog.retry_at(0)), (u32::MAX, None));
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..10 {
            backlog.on_full(now);
            assert_eq!(backlog.places(now), 0);
            let at = backlog.retry_at(now).unwrap();
            waits.push(at - now);
            assert_eq!((backlog.places(at), backlog.retry_at(at)), (1, None));
            now = at;
        }
        assert!(waits.is_sorted() && waits[0] == WAIT_MIN && waits[9] == WAIT_MAX);
        backlog.on_taken();
        assert_eq!(backlog.places(now), u32::MAX);
        backlog.on_full(now);
        assert_eq!(backlog.retry_at(now), Some(now + WAIT_MIN));
    }
}
