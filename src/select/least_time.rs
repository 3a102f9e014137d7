//! Least time: the backend that would answer soonest. The score is Finagle's "Peak EWMA": the
//! average time to an answer (connect and first byte), times what is in flight, by weight.
//!
//! A backend that never had a connection gets the next one: on a quiet service nobody would ever
//! find out about it. Until it answers it counts as an average one, so that it is not flooded. One
//! that answers nobody is forgotten little by little, so that a backend which was slow once is
//! tried again; only one connection finds out, as the old average counts in full while it waits.

use std::cell::OnceCell;
use std::sync::Arc;

use fastrand::Rng;

use crate::config;

use super::{Scene, least_connections};

/// Looks at every member, twice while there are backends of which nothing is known. O(n).
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
    let time = |index: u16| {
        let tally = &scene.backend(index).tally;
        if tally.waiting() == 0 {
            tally.latency().faded(scene.request.now, decay)
        } else {
            tally.latency().last()
        }
    };
    let average = OnceCell::new();
    let usual = || *average.get_or_init(|| self::average(members, time));
    scene.least(members, rng, |scene, index| {
        let known = time(index);
        if known.is_none() && scene.backend(index).tally.opened() == 0 {
            return 0.0;
        }
        match known.or_else(usual) {
            Some(time) => {
                let weight = f64::from(scene.weight(index).max(1));
                f64::from(time) * (scene.in_flight(index) + 1.0) / weight
            }
            None => least_connections::load(scene, index),
        }
    })
}

/// The mean of what is known.
fn average(members: &[u16], time: impl Fn(u16) -> Option<f32>) -> Option<f32> {
    let known = members.iter().filter_map(|&index| time(index));
    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), time| (sum + time, count + 1.0));
    (count > 0.0).then_some(sum / count)
}
