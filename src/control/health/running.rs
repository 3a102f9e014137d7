//! A timeout that counts only while this process runs. A process that was stopped for a second
//! (SIGSTOP, a migrated virtual machine, an overloaded machine) must not conclude that backends
//! were late.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::sys;
use crate::time::between;

/// Waits for a future in pieces of the timeout. A piece that took much longer than it should does
/// not count: this process did not run. `None`: the timeout expired. Also answers whether there was
/// such a piece.
pub(super) async fn within<T>(
    after: Duration,
    future: impl Future<Output = T>,
) -> (Option<T>, bool) {
    let mut future = pin!(future);
    let piece = (after / PIECES).max(PIECE_MIN);
    let (mut left, mut lost) = (after, 0);
    loop {
        let wait = piece.min(left);
        let began = sys::monotonic();
        let done = timeout(wait, &mut future).await;
        let took = between(began, sys::monotonic());
        let stalled = took > wait + STALL;
        lost += u32::from(stalled);
        if let Ok(done) = done {
            return (Some(done), lost > 0);
        }
        // A machine that is always overloaded delays the end, but does not prevent it.
        if !stalled || lost > PIECES {
            left = left.saturating_sub(wait);
        }
        if left.is_zero() {
            return (None, lost > 0);
        }
    }
}

const PIECES: u32 = 8;
const PIECE_MIN: Duration = Duration::from_millis(5);
/// A timer is never later than this while the process runs.
const STALL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    async fn pause(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Holds the thread, and with it every timer.
    fn stall(ms: u64) {
        let until = sys::monotonic() + ms * MS;
        while sys::monotonic() < until {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn what_comes_in_time_is_taken_and_what_does_not_is_late() {
        let time = Duration::from_millis(200);
        assert_eq!(within(time, async { 7 }).await.0, Some(7));
        let began = sys::monotonic();
        assert_eq!(within(time, std::future::pending::<()>()).await.0, None);
        let took = between(began, sys::monotonic());
        assert!(took >= time, "{took:?}");
    }

    #[tokio::test]
    async fn a_stall_is_no_time_of_the_others() {
        let time = Duration::from_millis(100);
        // It needs 60 ms of 100 before and after the thread stood still for 300.
        let slow = async {
            pause(30).await;
            stall(300);
            pause(30).await;
        };
        assert_eq!(within(time, slow).await, (Some(()), true));
    }
}
