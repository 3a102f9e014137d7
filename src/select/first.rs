//! First: the first backend in the order of the configuration that is not full, so that the last
//! ones stay idle and can be switched off (HAProxy's `first`).

use std::sync::Arc;

use fastrand::Rng;

use super::Scene;

/// In the order of the configuration.
#[derive(Clone, Debug)]
pub(super) struct First {
    members: Arc<[u16]>,
}

impl First {
    pub(super) fn new(members: Arc<[u16]>) -> Self {
        Self { members }
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let place = |index: u16| f64::from(index);
        scene.least(&self.members, rng, place)
    }
}
