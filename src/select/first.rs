//! First: the first backend in the order of the configuration that is not full, as HAProxy's
//! `first`. The last backends stay idle and can be switched off.

use std::sync::Arc;

use fastrand::Rng;

use super::Scene;

/// Its members are in the order of the configuration.
#[derive(Clone, Debug)]
pub(super) struct First {
    members: Arc<[u16]>,
}

impl First {
    pub(super) fn new(members: Arc<[u16]>) -> Self {
        Self { members }
    }

    /// A failing backend is never full and would get every client. It gets one of `n` clients, `n`
    /// being the number of members; the next open member gets the rest.
    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let mut passed_over = None;
        for &index in self.members.iter().filter(|&&index| scene.is_open(index)) {
            if !scene.is_failing(index) || rng.usize(0..self.members.len()) == 0 {
                return Some(index);
            }
            passed_over = passed_over.or(Some(index));
        }
        passed_over
    }
}
