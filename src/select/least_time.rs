//! Least time: the backend that would answer soonest. The score is Finagle's "Peak EWMA": the
//! average time to an answer (connect and first byte), times what is in flight, by weight.
//!
//! A time that may be longer than the best one's by noise alone counts as that one's: then what is
//! in flight and open decides, and equal backends get equal parts of connections that stay.
//!
//! A backend that never had a connection gets the next one: on a quiet service nobody would ever
//! find out about it. Until it answers it counts as the best one, and what it has counts. One
//! that answers nobody is forgotten little by little, so that a backend which was slow once is
//! tried again; only one connection finds out, as the old average counts in full while it waits.

use std::sync::Arc;

use fastrand::Rng;

use crate::config;
use crate::pool::{Backend, Tally};
use crate::time::nanos;

use super::Scene;
use super::least::Score;

/// Looks at every member, twice each millisecond. O(n).
#[derive(Clone, Debug)]
pub(super) struct LeastTime {
    members: Arc<[u16]>,
    decay: u64,
    /// The best one of them, as it was found last, and when: it may be a millisecond old.
    best: Best,
    looked_at: u64,
}

impl LeastTime {
    pub(super) fn new(settings: config::LeastTime, members: Arc<[u16]>) -> Self {
        Self {
            members,
            decay: decay_ns(settings),
            best: Best::UNKNOWN,
            looked_at: 0,
        }
    }

    pub(super) fn members(&self) -> &[u16] {
        &self.members
    }

    pub(super) fn pick(&mut self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        let now = scene.request.now >> LOOK_SHIFT;
        if now != self.looked_at {
            self.looked_at = now;
            self.best = Best::of(&self.members, scene);
        }
        let (best, decay) = (self.best, self.decay);
        scene.least(&self.members, rng, &AnswerTime { best, decay })
    }

    /// The same where several share it.
    pub(super) fn pick_shared(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        pick(&self.members, self.decay, scene, rng)
    }
}

/// The time constant of the average, in ns.
pub(super) fn decay_ns(settings: config::LeastTime) -> u64 {
    nanos(settings.decay)
}

/// The soonest of some backends.
pub(super) fn pick(members: &[u16], decay: u64, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
    let best = Best::of(members, scene);
    scene.least(members, rng, &AnswerTime { best, decay })
}

/// The backend that surely answers soonest.
#[derive(Clone, Copy, Debug)]
struct Best {
    /// Its usual time is hardly above this, in µs.
    high: f32,
    /// Its average.
    average: f32,
}

impl Best {
    const UNKNOWN: Self = Self {
        high: f32::INFINITY,
        average: 1.0,
    };

    fn of(members: &[u16], scene: &Scene<'_>) -> Self {
        let known = |&index: &u16| scene.backend(index).tally.latency().known();
        let known = members.iter().filter_map(known);
        known.fold(Self::UNKNOWN, |best, known| {
            if known.high < best.high {
                let (high, average) = (known.high, known.average);
                Self { high, average }
            } else {
                best
            }
        })
    }
}

/// The expected time to an answer, in µs, for each unit of weight.
#[derive(Clone, Copy, Debug)]
struct AnswerTime {
    best: Best,
    decay: u64,
}

impl Score for AnswerTime {
    #[inline(always)]
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64 {
        let tally = &*backend.tally;
        let low = tally.latency().low();
        let time = if low > self.best.high {
            self.longer(low, tally, scene.request.now)
        } else if low > 0.0 || tally.opened() > 0 {
            self.best.average
        } else {
            return 0.0;
        };
        f64::from(time) * (scene.in_flight(backend) + 1.0) / f64::from(backend.weight.max(1))
    }
}

impl AnswerTime {
    /// The time that one counts with which surely takes longer, in µs.
    fn longer(&self, low: f32, tally: &Tally, now: u64) -> f32 {
        let Self { best, decay } = *self;
        let Some(known) = tally.latency().known() else {
            return best.average;
        };
        let average = if tally.waiting() == 0 {
            known.faded(now, decay)
        } else {
            known.average
        };
        // Those that differ by little are hardly told apart by chance.
        let surely = (SURELY * (low / best.high - 1.0)).min(1.0);
        best.average + surely * (average - best.average).max(0.0)
    }
}

/// The inverse of the part by which a range must lie above the best one for its average to count in
/// full.
const SURELY: f32 = 2.0;
/// Of a time in ns, to about a millisecond: as long the best one stays the same.
const LOOK_SHIFT: u32 = 20;
