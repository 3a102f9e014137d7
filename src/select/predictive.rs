//! Predictive: the backend with the most headroom in the near future, not the one with the fewest
//! connections now.
//!
//! The load is the connections that wait for an answer, counted exactly, plus the work of open
//! sessions, which [`super::Forecaster`] forecasts over the horizon once per second. The capacity
//! is the weight divided by the cost of a connection, which the forecaster learns.

use std::sync::Arc;

use fastrand::Rng;

use crate::pool::Backend;

use super::Scene;
use super::least::Score;

/// Looks at every member. O(n).
#[derive(Clone, Debug)]
pub(super) struct Predictive {
    members: Arc<[u16]>,
}

impl Predictive {
    pub(super) fn new(members: Arc<[u16]>) -> Self {
        Self { members }
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        scene.least(&self.members, rng, &CapacityUse)
    }
}

/// The score: the part of its capacity that a backend would use with one more connection.
#[derive(Debug)]
pub(super) struct CapacityUse;

impl Score for CapacityUse {
    #[inline(always)]
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64 {
        let cost = f64::from(backend.tally.outlook().cost);
        (scene.in_flight(backend) + 1.0) * cost / f64::from(backend.weight.max(1))
    }
}
