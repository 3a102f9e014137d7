//! Whether a balancer takes part, as the API tells it.

use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Stage;

/// Whether the balancer takes connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// `ready` while it does.
    pub stage: Stage,
    /// Addresses of `freebind` listeners that were still on this machine when it left: clients come
    /// to them, and are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_here: Vec<IpAddr>,
}

/// How a balancer leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaveQuery {
    /// After so many seconds new clients are refused, although an address of a listener is still
    /// on this machine: 0 to 86400, 30 by default.
    pub wait_s: Option<f64>,
}

impl LeaveQuery {
    /// The time to wait.
    ///
    /// # Errors
    /// It is out of range.
    pub fn wait(&self) -> Result<Duration, &'static str> {
        let Some(seconds) = self.wait_s else {
            return Ok(LEAVE_WAIT);
        };
        let wait = Duration::try_from_secs_f64(seconds).ok();
        wait.filter(|wait| *wait <= LEAVE_WAIT_MAX)
            .ok_or("wait_s: expected 0 to 86400")
    }
}

/// How long a balancer that leaves waits for its addresses to move, unless the caller says it.
pub const LEAVE_WAIT: Duration = Duration::from_secs(30);
/// The same at most: a day.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_has_bounds() {
        let wait = |wait_s| LeaveQuery { wait_s }.wait();
        assert_eq!(wait(None), Ok(LEAVE_WAIT));
        assert_eq!(wait(Some(0.25)), Ok(Duration::from_millis(250)));
        assert_eq!(wait(Some(86_400.0)), Ok(LEAVE_WAIT_MAX));
        for wrong in [-1.0, 86_400.1, f64::NAN, f64::INFINITY] {
            assert!(wait(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
