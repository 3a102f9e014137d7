//! The backend of the least score: what strategies that look at every backend share.

use fastrand::Rng;

use super::Scene;

impl Scene<'_> {
    /// The open member of the least score; of equal ones each by the chance of its weight.
    ///
    /// A backend that fails may be always free, and would attract everybody: one that accepts and
    /// resets is the fastest of all. So a score that is better than that of others gives it no more
    /// than the share of its weight, by chance, until it answers again. One that is worse, as
    /// clients hang there, counts as any other's.
    pub(super) fn least(
        &self,
        members: &[u16],
        rng: &mut Rng,
        score: impl Fn(&Self, u16) -> f64,
    ) -> Option<u16> {
        match self.usual() {
            Some(usual) => usual.least_of(members, rng, score),
            None => self.least_of(members, rng, score),
        }
    }

    #[inline(always)]
    fn least_of(
        &self,
        members: &[u16],
        rng: &mut Rng,
        score: impl Fn(&Self, u16) -> f64,
    ) -> Option<u16> {
        let mut sound = Lot::of(f64::INFINITY);
        let mut failing = Lot::of((f64::INFINITY, f64::INFINITY));
        let mut weights = 0;
        let mut drawn = None;
        let mut drawn_from = 0;
        for &index in members {
            if !self.is_open(index) {
                continue;
            }
            let weight = u32::from(self.weight(index));
            weights += weight;
            let score = score(self, index);
            if !self.is_failing(index) {
                sound.enter(index, weight, score, rng);
                continue;
            }
            // Among those that fail, whoever failed least: one that is always free would attract.
            let failures = f64::from(self.backend(index).tally.failures());
            failing.enter(index, weight, (failures, score), rng);
            drawn_from += weight;
            if rng.u32(0..drawn_from) < weight {
                drawn = Some((index, score));
            }
        }
        match (sound.winner, drawn) {
            (Some(_), Some((index, score)))
                if score <= sound.least && rng.u32(0..weights) < drawn_from =>
            {
                Some(index)
            }
            (Some(winner), _) => Some(winner),
            (None, _) => failing.winner,
        }
    }
}

/// Draws one of those with the least score, each with the chance of its weight.
#[derive(Debug)]
struct Lot<Score> {
    winner: Option<u16>,
    least: Score,
    weights: u32,
}

impl<Score: PartialOrd> Lot<Score> {
    /// Without anybody: no score is more than `most`.
    fn of(most: Score) -> Self {
        Self {
            winner: None,
            least: most,
            weights: 0,
        }
    }

    fn enter(&mut self, index: u16, weight: u32, score: Score, rng: &mut Rng) {
        if score > self.least {
            return;
        }
        if score < self.least {
            self.least = score;
            self.weights = 0;
        }
        self.weights += weight;
        if self.weights == weight || rng.u32(0..self.weights) < weight {
            self.winner = Some(index);
        }
    }
}
