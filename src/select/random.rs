//! Random: each backend with the chance of its weight, in constant time.

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

    /// An open member other than `not`. Drawn again while it is closed, so that the others keep
    /// their proportions; when nearly all are closed, the next open one from a place by chance on.
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
