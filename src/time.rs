//! Times in nanoseconds, as the workers' clock ([`crate::sys::monotonic`]) counts them, and what
//! they are in other units. Nothing else converts.

#![forbid(unsafe_code)]

use std::time::Duration;

/// A time that never comes: no deadline.
pub const NEVER: u64 = u64::MAX;

/// A microsecond in nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000 * US;
/// A second in nanoseconds.
pub const SECOND: u64 = 1_000 * MS;

/// A duration in nanoseconds; [`NEVER`] where it has more than a `u64` can hold (584 years).
#[must_use]
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}

/// The duration from one time to a later one; 0 if that one is not later.
#[must_use]
pub const fn between(from: u64, to: u64) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}

/// Nanoseconds in seconds.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of a time are enough for a figure"
)]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}

/// How many a second, if `count` came in `nanos`. No time counts as a nanosecond.
#[must_use]
pub fn per_second(count: u64, nanos: u64) -> u64 {
    let rate = u128::from(count) * u128::from(SECOND) / u128::from(nanos.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_too_long_for_nanoseconds_never_comes() {
        assert_eq!(nanos(Duration::from_millis(3)), 3 * MS);
        assert_eq!(nanos(Duration::MAX), NEVER);
    }

    #[test]
    fn the_time_until_a_past_moment_is_none() {
        assert_eq!(between(SECOND, 3 * SECOND), Duration::from_secs(2));
        assert_eq!(between(3, 2), Duration::ZERO);
    }

    #[test]
    fn rates_are_bounded_by_the_integer() {
        assert_eq!(seconds(1_500 * MS).to_string(), "1.5");
        assert_eq!(per_second(3_000, 2 * SECOND), 1_500);
        assert_eq!(per_second(0, 0), 0);
        assert_eq!(per_second(u64::MAX, 0), u64::MAX);
    }
}
