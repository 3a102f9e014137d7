//! How often servers are asked, and how long an answer is waited for.

use std::time::Duration;

/// How often and how long a watch waits.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct WatchPace {
    /// For a connection, with its TLS and files.
    pub(in crate::control) open: Duration,
    /// For an answer.
    pub(in crate::control) answer: Duration,
    /// From one look whether the endpoint still answers to the next.
    pub(in crate::control) look: Duration,
    /// After the first failure of all endpoints; it doubles with each further one.
    pub(in crate::control) retry_min: Duration,
    /// The longest such pause.
    pub(in crate::control) retry_max: Duration,
}

impl Default for WatchPace {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(3),
            answer: Duration::from_secs(5),
            look: Duration::from_secs(5),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
        }
    }
}

impl WatchPace {
    /// How long to wait after so many failures of all endpoints, of which there is one at least.
    pub(super) fn backed_off(&self, rounds: usize) -> Duration {
        let doublings = u32::try_from(rounds - 1).unwrap_or(u32::MAX);
        let doubled = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.retry_min.saturating_mul(doubled).min(self.retry_max)
    }
}

/// Up to half longer: balancers do not come together.
pub(in crate::control) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64() / 2.0)
}
