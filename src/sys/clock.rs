//! The one clock of the workers.

use std::sync::OnceLock;
use std::time::Instant;

use crate::time::nanos;

/// Nanoseconds of CLOCK_MONOTONIC since this process first asked.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn monotonic() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    nanos(EPOCH.get_or_init(Instant::now).elapsed())
}
