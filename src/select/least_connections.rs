//! Least connections: the backend with the fewest connections per unit of weight. The counts are
//! exact over all workers.
//!
//! Idle backends are equal whatever their weights. They are drawn by weight, because a fixed order
//! would send all clients of a quiet service to one backend.

use std::sync::Arc;

use fastrand::Rng;

use crate::pool::Backend;

use super::Scene;
use super::least::Score;

/// Looks at every member. O(n).
#[derive(Clone, Debug)]
pub(super) struct LeastConnections {
    members: Arc<[u16]>,
}

impl LeastConnections {
    pub(super) fn new(members: Arc<[u16]>) -> Self {
        Self { members }
    }

    pub(super) fn members(&self) -> &[u16] {
        &self.members
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        pick(&self.members, scene, rng)
    }
}

/// The least loaded of some backends.
pub(super) fn pick(members: &[u16], scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
    scene.least(members, rng, &Load)
}

/// The score: connections per unit of weight.
#[derive(Debug)]
pub(super) struct Load;

impl Score for Load {
    #[inline(always)]
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64 {
        let connections = f64::from(backend.tally.connections.used());
        scene.strain(backend, connections) / f64::from(backend.weight.max(1))
    }
}
