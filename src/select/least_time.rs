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
use crate::pool::Tally;

use super::Scene;

/// Looks at every member twice. O(n).
#[derive(Clone, Debug)]
pub(super) struct LeastTime {
    members: Arc<[u16]>,
    decay: u64,
}

impl LeastTime {
    pub(super) fn new(settings: config::LeastTime, members: Arc<[u16]>) -> Self {
        Self {
            members,
            decay: decay_ns(settings),
        }
    }

    pub(super) fn members(&self) -> &[u16] {
        &self.members
    }

    pub(super) fn pick(&self, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        pick(&self.members, self.decay, scene, rng)
    }
}

/// The time constant of the average, in ns.
pub(super) fn decay_ns(settings: config::LeastTime) -> u64 {
    u64::try_from(settings.decay.as_nanos()).unwrap_or(u64::MAX)
}

/// The soonest of some backends.
pub(super) fn pick(members: &[u16], decay: u64, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
    let best = Best::of(members, scene);
    scene.least(members, rng, |scene, index| {
        let tally = &scene.backend(index).tally;
        if tally.opened() == 0 {
            return 0.0;
        }
        let weight = f64::from(scene.weight(index).max(1));
        best.time_of(tally, scene.request.now, decay) * (scene.in_flight(index) + 1.0) / weight
    })
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
    fn of(members: &[u16], scene: &Scene<'_>) -> Self {
        let unknown = Self {
            high: f32::INFINITY,
            average: 1.0,
        };
        members.iter().fold(unknown, |best, &index| {
            match scene.backend(index).tally.latency().known() {
                Some(known) if known.high < best.high => Self {
                    high: known.high,
                    average: known.average,
                },
                Some(_) | None => best,
            }
        })
    }

    /// The time that another one counts with, in µs: its own only if it surely is longer.
    #[inline(always)]
    fn time_of(&self, tally: &Tally, now: u64, decay: u64) -> f64 {
        let time = match tally.latency().known() {
            Some(known) if known.low > self.high => {
                let average = if tally.waiting() == 0 {
                    known.faded(now, decay)
                } else {
                    known.average
                };
                // Those that differ by little are hardly told apart by chance.
                let surely = (SURELY * (known.low / self.high - 1.0)).min(1.0);
                self.average + surely * (average - self.average).max(0.0)
            }
            Some(_) | None => self.average,
        };
        f64::from(time)
    }
}

/// The inverse of the part by which a range must lie above the best one for its average to count in
/// full.
const SURELY: f32 = 2.0;
