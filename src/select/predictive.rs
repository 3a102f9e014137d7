//! Predictive: the backend with the most headroom in the near future, not the one with the fewest
//! connections now.
//!
//! What a backend will be at work for is known better than by counting connections: those that it
//! has not answered yet, exactly and at this moment, and what sessions that go on will ask for,
//! which [`super::Forecaster`] foresees each second over the horizon. Its capacity is its weight
//! over what a connection has been seen to cost it.

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

/// How much of its capacity a backend will use with this connection: least where the headroom is
/// largest.
#[derive(Debug)]
struct CapacityUse;

impl Score for CapacityUse {
    #[inline(always)]
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64 {
        let cost = f64::from(backend.tally.outlook().cost);
        (scene.in_flight(backend) + 1.0) * cost / f64::from(backend.weight.max(1))
    }
}
