//! The one clock of the workers, and one that goes on while the machine sleeps.

use std::sync::OnceLock;
use std::time::Instant;

use crate::time::{SECOND, nanos};

/// Nanoseconds of CLOCK_MONOTONIC since this process first asked.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn monotonic() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    nanos(EPOCH.get_or_init(Instant::now).elapsed())
}

/// Nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps. 0 where there is no such
/// clock.
#[must_use]
pub fn boot_time() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the time to `time`, which lives until the call returns.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let [seconds, nanos] = [time.tv_sec, time.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds.saturating_mul(SECOND).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on() {
        let before = [monotonic(), boot_time()];
        assert!(before[1] > 0);
        assert!(monotonic() >= before[0] && boot_time() >= before[1]);
    }
}
