//! Least time: the backend that would answer soonest. The score is the "Peak EWMA" of Twitter's
//! Finagle: the moving average of the time to an answer (connect and first byte), times the
//! connections in flight, divided by the weight.
//!
//! An average that differs from the fastest backend's by no more than noise counts as the fastest
//! one. Then connections in flight and open decide, and equal backends get equal parts of
//! connections that stay.
//!
//! A backend that never had a connection gets the next one, because otherwise nothing would ever
//! be known of it on a quiet service. Until it answers it counts as the fastest. While a backend
//! gets no connections its average fades, so that one which was slow once is tried again. Only one
//! connection tries it: the old average counts in full while that waits.

use std::sync::Arc;

use fastrand::Rng;

use crate::config;
use crate::pool::{Backend, Tally, surely_times};
use crate::time::nanos;

use super::Scene;
use super::least::Score;

/// Looks at every member, and once per millisecond for the fastest. O(n).
#[derive(Clone, Debug)]
pub(super) struct LeastTime {
    members: Arc<[u16]>,
    decay: u64,
    /// The fastest member. It may be a millisecond old.
    fastest: Fastest,
    /// When the fastest was looked for, in units of 2^20 ns.
    looked_at: u64,
}

impl LeastTime {
    pub(super) fn new(settings: config::LeastTime, members: Arc<[u16]>) -> Self {
        Self {
            members,
            decay: decay_ns(settings),
            fastest: Fastest::UNKNOWN,
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
            self.fastest = Fastest::of(&self.members, scene);
        }
        let (fastest, decay) = (self.fastest, self.decay);
        scene.least(&self.members, rng, &AnswerTime { fastest, decay })
    }

    /// How it scored at the last selection.
    pub(super) fn scorer(&self) -> AnswerTime {
        let (fastest, decay) = (self.fastest, self.decay);
        AnswerTime { fastest, decay }
    }

    /// How it scores among these members at this moment, without keeping the fastest.
    pub(super) fn scorer_among(&self, members: &[u16], scene: &Scene<'_>) -> AnswerTime {
        let (fastest, decay) = (Fastest::of(members, scene), self.decay);
        AnswerTime { fastest, decay }
    }

    /// Picks without keeping the fastest, for a strategy that is shared.
    pub(super) fn pick_shared(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        pick(&self.members, self.decay, scene, rng)
    }
}

/// The time constant of the average, in ns.
pub(super) fn decay_ns(settings: config::LeastTime) -> u64 {
    nanos(settings.decay)
}

/// The backend of `members` that would answer soonest; `decay` is in ns.
pub(super) fn pick(members: &[u16], decay: u64, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
    let fastest = Fastest::of(members, scene);
    scene.least(members, rng, &AnswerTime { fastest, decay })
}

/// The answer times of the backend whose range ends lowest.
#[derive(Clone, Copy, Debug)]
struct Fastest {
    /// The upper end of the range of its usual answer time, in µs.
    high: f32,
    /// Its average, in µs.
    average: f32,
}

impl Fastest {
    const UNKNOWN: Self = Self {
        high: f32::INFINITY,
        average: 1.0,
    };

    fn of(members: &[u16], scene: &Scene<'_>) -> Self {
        let known = |&index: &u16| scene.backend(index).tally.latency().known();
        let known = members.iter().filter_map(known);
        known.fold(Self::UNKNOWN, |fastest, known| {
            if known.high < fastest.high {
                let (high, average) = (known.high, known.average);
                Self { high, average }
            } else {
                fastest
            }
        })
    }
}

/// The score: the expected time to an answer, in µs, divided by the weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerTime {
    fastest: Fastest,
    decay: u64,
}

impl Score for AnswerTime {
    #[inline(always)]
    fn score(&self, scene: &Scene<'_>, backend: &Backend) -> f64 {
        let tally = &*backend.tally;
        let low = tally.latency().low();
        let time = if low > self.fastest.high {
            self.longer(low, tally, scene.request.now)
        } else if low > 0.0 || tally.opened() > 0 {
            self.fastest.average
        } else {
            return 0.0;
        };
        f64::from(time) * (scene.in_flight(backend) + 1.0) / f64::from(backend.weight.max(1))
    }
}

impl AnswerTime {
    /// The time, in µs, of a backend that is slower than the fastest by more than noise.
    fn longer(&self, low: f32, tally: &Tally, now: u64) -> f32 {
        let Self { fastest, decay } = *self;
        let Some(known) = tally.latency().known() else {
            return fastest.average;
        };
        let average = if tally.waiting() == 0 {
            known.faded(now, decay)
        } else {
            known.average
        };
        let times = average / fastest.average;
        fastest.average * surely_times(times, low, fastest.high)
    }
}

/// From ns to about a millisecond, for which the fastest backend is kept.
const LOOK_SHIFT: u32 = 20;
