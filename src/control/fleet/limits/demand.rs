//! What this balancer needs of a limit of the fleet.

use crate::fleet_shares::Demand;
use crate::sys;
use crate::time::{MS, SECOND};

use super::{FleetLimit, Of};

/// Looks at what is used of a limit, and how fast new connections come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// How many had asked at the last look, and when that was.
    looked: Option<(u64, u64)>,
    /// New connections in a second: the highest of late.
    rate: u32,
}

impl Meter {
    /// What is needed now.
    pub(super) fn look(&mut self, limit: &FleetLimit) -> Demand {
        let asked = match &limit.of {
            Of::Connections(connections) => {
                let is_full = connections.is_full();
                return of_connections(limit.whole, connections.used(), is_full);
            }
            Of::ListenerRate(gate) => gate.fleet_rate.asked(),
            Of::GlobalRate(sources) => sources.fleet_rate.asked(),
        };
        self.count(asked, sys::monotonic());
        of_rate(limit.whole, self.rate)
    }

    /// What is in use, or comes in a second.
    pub(super) fn used(&self, limit: &FleetLimit) -> u32 {
        match &limit.of {
            Of::Connections(connections) => connections.used(),
            Of::ListenerRate(_) | Of::GlobalRate(_) => self.rate,
        }
    }

    fn count(&mut self, asked: u64, now: u64) {
        let Some((before, at)) = self.looked else {
            self.looked = Some((asked, now));
            return;
        };
        let passed = now.saturating_sub(at);
        if passed < LOOK {
            return;
        }
        let came = u128::from(asked.saturating_sub(before));
        let rate = came * u128::from(SECOND) / u128::from(passed);
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        // A burst is remembered for some seconds.
        self.rate = rate.max(self.rate - self.rate.div_ceil(8));
        self.looked = Some((asked, now));
    }
}

/// Room for a quarter more; where there is none at all, for half more.
fn of_connections(limit: u32, used: u32, is_full: bool) -> Demand {
    let more = match is_full {
        true => (used / 2).max(limit / 8),
        false => (used / 4).max(limit / 64),
    };
    Demand {
        limit,
        used,
        want: used.saturating_add(more.max(1)),
    }
}

/// Room for a quarter more. Nothing of a rate is in use for longer than a moment.
fn of_rate(limit: u32, rate: u32) -> Demand {
    let more = (rate / 4).max(limit / 64).max(1);
    Demand {
        limit,
        used: 0,
        want: rate.saturating_add(more),
    }
}

/// New connections are counted over as long at least.
const LOOK: u64 = 200 * MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_full_asks_for_more_room() {
        let want = |used, is_full| of_connections(1_000, used, is_full).want;
        assert_eq!(
            [want(0, false), want(400, false), want(400, true)],
            [15, 500, 600]
        );
        assert_eq!(of_connections(4, 0, false).want, 1);
        assert_eq!(want(u32::MAX, true), u32::MAX);
    }

    #[test]
    fn a_burst_of_new_connections_is_remembered_for_a_while() {
        let mut meter = Meter::default();
        meter.count(1_000, 0);
        meter.count(1_100, SECOND / 2);
        assert_eq!(meter.rate, 200);
        meter.count(1_100, SECOND / 2 + MS);
        meter.count(1_100, SECOND);
        assert_eq!(meter.rate, 175);
        (0..60).for_each(|second| meter.count(1_100, (second + 2) * SECOND));
        assert_eq!(meter.rate, 0);
    }
}
