//! The power of two choices: draws two backends at random, by weight, and selects the one with
//! fewer connections per unit of weight. Nearly as even as `least_connections`, in constant time.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE Transactions on
//! Parallel and Distributed Systems 12(10), 2001.

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
    /// The two that were drawn last.
    drawn: [u16; 2],
}

impl PowerOfTwo {
    pub(super) fn new(pool: &Pool, members: Arc<[u16]>) -> Self {
        Self {
            random: Random::new(pool, members),
            drawn: [0; 2],
        }
    }

    pub(super) fn members(&self) -> &[u16] {
        self.random.members()
    }

    /// Whether it was one of the two that were drawn last.
    pub(super) fn has_drawn(&self, index: u16) -> bool {
        self.drawn.contains(&index)
    }

    pub(super) fn pick(&mut self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        self.drawn = self.draw(scene, rng)?;
        Some(less_loaded(self.drawn, scene, rng))
    }

    /// Picks without keeping what was drawn, for a strategy that is shared.
    pub(super) fn pick_shared(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        Some(less_loaded(self.draw(scene, rng)?, scene, rng))
    }

    /// Draws two; where no other is open, the same one twice.
    fn draw(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<[u16; 2]> {
        let one = self.random.pick(scene, rng)?;
        let two = self.random.pick_but(Some(one), scene, rng);
        Some([one, two.unwrap_or(one)])
    }
}

/// The less loaded of two backends; the first if they are equal.
fn less_loaded([one, two]: [u16; 2], scene: &Scene<'_>, rng: &mut Rng) -> u16 {
    if one == two {
        return one;
    }
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
    // A failing backend is often free, and is one of the two twice as often as its weight says.
    // Selecting it every second time leaves it the share of its weight.
    let attracts = scene.is_failing(less) && !scene.is_failing(more);
    if attracts && rng.bool() { more } else { less }
}
