//! Times in nanoseconds, as the workers' clock ([`crate::sys::monotonic`]) counts them.

#![forbid(unsafe_code)]

use std::time::Duration;

/// A time that never comes: no deadline.
pub const NEVER: u64 = u64::MAX;

/// A duration in nanoseconds; [`NEVER`] where it has more than a `u64` can hold (584 years).
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_too_long_for_nanoseconds_never_comes() {
        assert_eq!(nanos(Duration::from_millis(3)), 3_000_000);
        assert_eq!(nanos(Duration::MAX), NEVER);
    }
}
