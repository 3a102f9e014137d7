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
use crate::time::nanos;

use super::Scene;

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
        self.best.pick(&self.members, self.decay, scene, rng)
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
    Best::of(members, scene).pick(members, decay, scene, rng)
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

    fn pick(self, members: &[u16], decay: u64, scene: &Scene<'_>, rng: &mut Rng) -> Option<u16> {
        scene.least(members, rng, |scene, index| {
            let tally = &scene.backend(index).tally;
            let low = tally.latency().low();
            let time = if low > self.high {
                self.longer(low, tally, scene.request.now, decay)
            } else if low > 0.0 || tally.opened() > 0 {
                self.average
            } else {
                return 0.0;
            };
            let weight = f64::from(scene.weight(index).max(1));
            f64::from(time) * (scene.in_flight(index) + 1.0) / weight
        })
    }

    /// The time that one counts with which surely takes longer, in µs.
    fn longer(self, low: f32, tally: &Tally, now: u64, decay: u64) -> f32 {
        let latency = tally.latency();
        let Some(known) = latency.known() else {
            return self.average;
        };
        let average = if tally.waiting() == 0 {
            known.faded(now, decay)
        } else {
            known.average
        };
        // Those that differ by little are hardly told apart by chance.
        let surely = (SURELY * (low / self.high - 1.0)).min(1.0);
        self.average + surely * (average - self.average).max(0.0)
    }
}

/// The inverse of the part by which a range must lie above the best one for its average to count in
/// full.
const SURELY: f32 = 2.0;
/// Of a time in ns, to about a millisecond: as long the best one stays the same.
const LOOK_SHIFT: u32 = 20;
