//! The backend with the lowest score: the loop that strategies share which look at every backend.

use fastrand::Rng;

use crate::pool::Backend;

use super::Scene;

/// What a strategy compares backends by.
///
/// A trait and not a closure, because the compiler makes a closure of this size a function that the
/// loop calls for each backend: that took half as long again. Implementations are
/// `#[inline(always)]`.
pub(super) trait Score {
    /// The score of one backend: 0 or more, the lower the better.
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64;
}

impl Scene<'_> {
    /// Selects the open member with the lowest score. Draws among equal ones by weight. O(n).
    ///
    /// A backend that fails is often free: one that accepts and resets looks like the fastest of
    /// all. So while a backend fails, a better score than that of the others gives it only the
    /// share of its weight, by chance. A worse score, as when clients hang there, counts like any
    /// other's.
    pub(super) fn least(&self, members: &[u16], rng: &mut Rng, score: &impl Score) -> Option<u16> {
        match self.fast_path() {
            Some(usual) => usual.least_of(members, rng, score),
            None => self.least_of(members, rng, score),
        }
    }

    #[inline(always)]
    fn least_of(&self, members: &[u16], rng: &mut Rng, score: &impl Score) -> Option<u16> {
        let mut sound = Lowest::new(f64::INFINITY);
        let mut failing = Lowest::new((f64::INFINITY, f64::INFINITY));
        let mut weights = 0;
        let mut drawn = None;
        let mut drawn_from = 0;
        for &index in members {
            if !self.is_open(index) {
                continue;
            }
            let backend = self.backend(index);
            let weight = u32::from(backend.weight);
            weights += weight;
            let score = score.score(self, backend);
            let failures = backend.tally.failures();
            if failures == 0 {
                sound.offer(index, weight, score, rng);
                continue;
            }
            // Failures first: among failing backends, too, the one that is always free scores best.
            failing.offer(index, weight, (f64::from(failures), score), rng);
            drawn_from += weight;
            if rng.u32(0..drawn_from) < weight {
                drawn = Some((index, score));
            }
        }
        match (sound.winner, drawn) {
            (Some(_), Some((index, score)))
                if score <= sound.score && rng.u32(0..weights) < drawn_from =>
            {
                Some(index)
            }
            (Some(winner), _) => Some(winner),
            (None, _) => failing.winner,
        }
    }
}

/// The lowest score so far. Among equal scores, each wins with the chance of its weight.
#[derive(Debug)]
struct Lowest<S> {
    winner: Option<u16>,
    score: S,
    /// The sum of the weights of all that have this score.
    weights: u32,
}

impl<S: PartialOrd> Lowest<S> {
    /// Nothing so far; no score is above `most`.
    fn new(most: S) -> Self {
        Self {
            winner: None,
            score: most,
            weights: 0,
        }
    }

    #[inline(always)]
    fn offer(&mut self, index: u16, weight: u32, score: S, rng: &mut Rng) {
        if score > self.score {
            return;
        }
        if score < self.score {
            self.score = score;
            self.weights = 0;
        }
        self.weights += weight;
        if self.weights == weight || rng.u32(0..self.weights) < weight {
            self.winner = Some(index);
        }
    }
}
