//! Random: draws a backend by weight, in constant time.

use std::sync::Arc;

use fastrand::Rng;

use crate::pool::Pool;

use super::Scene;
use super::alias::Alias;

/// Draws by weight.
#[derive(Clone, Debug)]
pub(super) struct Random {
    members: Arc<[u16]>,
    alias: Alias,
}

impl Random {
    pub(super) fn new(pool: &Pool, members: Arc<[u16]>) -> Self {
        let weight = |&index: &u16| (index, pool.backends[usize::from(index)].weight);
        let weights: Vec<_> = members.iter().map(weight).collect();
        Self {
            members,
            alias: Alias::new(&weights),
        }
    }

    pub(super) fn members(&self) -> &[u16] {
        &self.members
    }

    /// Draws an open member other than `not`. Draws again if the member is closed, so that the
    /// others keep their proportions. After 16 draws, when nearly all members are closed, takes the
    /// next open one from a random place on.
    pub(super) fn pick_but(
        &self,
        not: Option<u16>,
        scene: &Scene<'_>,
        rng: &mut Rng,
    ) -> Option<u16> {
        let fits = |index: &u16| Some(*index) != not && scene.is_open(*index);
        for _ in 0..DRAWS_MAX {
            let drawn = self.alias.draw(rng)?;
            if fits(&drawn) {
                return Some(drawn);
            }
        }
        let start = rng.usize(0..self.members.len());
        let (before, after) = self.members.split_at(start);
        after.iter().chain(before).copied().find(fits)
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        self.pick_but(None, scene, rng)
    }
}

const DRAWS_MAX: u32 = 16;
