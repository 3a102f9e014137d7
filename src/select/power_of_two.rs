//! The power of two choices: of two backends drawn by chance, the one with fewer connections for
//! its weight (Mitzenmacher, "The power of two choices in randomized load balancing", 2001). Nearly
//! as even as looking at all of them, in constant time.

use std::sync::Arc;

use fastrand::Rng;

use crate::pool::Pool;

use super::Scene;
use super::least::Score;
use super::least_connections::Load;
use super::random::Random;

/// Draws two by weight.
#[derive(Clone, Debug)]
pub(super) struct PowerOfTwo {
    random: Random,
}

impl PowerOfTwo {
    pub(super) fn new(pool: &Pool, members: Arc<[u16]>) -> Self {
        Self {
            random: Random::new(pool, members),
        }
    }

    pub(super) fn members(&self) -> &[u16] {
        self.random.members()
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let one = self.random.pick(scene, rng)?;
        let Some(two) = self.random.pick_but(Some(one), scene, rng) else {
            return Some(one);
        };
        Some(less_loaded(one, two, scene, rng))
    }
}

/// The less loaded of two that were drawn by chance, the first when they are equals.
fn less_loaded(one: u16, two: u16, scene: &Scene<'_>, rng: &mut Rng) -> u16 {
    let [one_load, two_load] = [one, two].map(|index| Load.score(scene, scene.backend(index)));
    let (less, more) = if two_load < one_load {
        (two, one)
    } else {
        (one, two)
    };
    let failures = |index: u16| scene.backend(index).tally.failures();
    if scene.is_failing(less) && scene.is_failing(more) {
        return if failures(more) < failures(less) {
            more
        } else {
            less
        };
    }
    // A failing backend may be always free. It is drawn twice as often as its weight says: half of
    // that is its share.
    let attracts = scene.is_failing(less) && !scene.is_failing(more);
    if attracts && rng.bool() { more } else { less }
}
