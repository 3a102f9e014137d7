//! A pool with a reserve: the scaler of [`crate::select`] decides each second which backends are
//! in.

use serde::Serialize;

use crate::config;
use crate::pool::Pool;
use crate::select::{Scaler, ScalingAction};
use crate::time::SECOND;

use super::chance;
use super::scenario::Reserve;

/// The results of a reserve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaled {
    /// The 99th percentile of the wait in a run with all backends in, in ms.
    pub all_in_wait_p99_ms: f64,
    /// The mean number of backends in rotation.
    pub in_use_mean: f64,
    /// The smallest number of backends in rotation.
    pub in_use_min: u32,
    /// The largest number of backends in rotation.
    pub in_use_max: u32,
    /// How many times backends came in or one went out.
    pub decisions: u32,
    /// How many decisions went the other way than the one before.
    pub turns: u32,
    /// The pool at every fifth second.
    pub course: Vec<Course>,
}

/// The pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Course {
    /// Simulated seconds since the start.
    pub second: u64,
    /// Open connections.
    pub connections: u32,
    /// Backends in rotation.
    pub in_use: u32,
}

/// The scaler, and what it decided so far.
#[derive(Debug)]
pub(super) struct Scaling {
    scaler: Scaler,
    looks: u64,
    in_use_sum: u64,
    in_use_min: u32,
    in_use_max: u32,
    decisions: u32,
    turns: u32,
    last: Option<ScalingAction>,
    course: Vec<Course>,
}

impl Reserve {
    /// Gives the pool this reserve, unless it has scaling of its own.
    pub(super) fn fit(&self, pool: &mut config::Pool) {
        if pool.scaling.is_some() {
            return;
        }
        let always = (pool.backends.len() * usize::from(self.always)).div_ceil(10);
        for backend in pool.backends.iter_mut().skip(always) {
            backend.reserve = true;
        }
        pool.scaling = Some(self.scaling.clone());
    }
}

impl Scaling {
    /// For a pool with scaling; `None` for other pools.
    pub(super) fn of(pool: &config::Pool) -> Option<Self> {
        let settings = pool.scaling.clone()?;
        Some(Self {
            scaler: Scaler::new(settings, &pool.strategy),
            looks: 0,
            in_use_sum: 0,
            in_use_min: u32::MAX,
            in_use_max: 0,
            decisions: 0,
            turns: 0,
            last: None,
            course: Vec::new(),
        })
    }

    /// Runs the scaler; call it once per second. Returns the new pool when backends come in or one
    /// goes out.
    pub(super) fn tick(&mut self, pool: &Pool, now: u64) -> Option<Pool> {
        self.note(pool, now);
        let decision = self.scaler.tick(pool, now)?;
        self.decisions += 1;
        let before = self.last.replace(decision.action);
        self.turns += u32::from(before.is_some_and(|before| before != decision.action));
        Some(pool.with(|backend| {
            if decision.backends.contains(&backend.name) {
                backend.standby = decision.action == ScalingAction::Out;
            }
        }))
    }

    fn note(&mut self, pool: &Pool, now: u64) {
        let in_use = pool.backends.iter().filter(|b| b.is_in_rotation()).count();
        let in_use = u32::try_from(in_use).unwrap_or(u32::MAX);
        self.looks += 1;
        self.in_use_sum += u64::from(in_use);
        self.in_use_min = self.in_use_min.min(in_use);
        self.in_use_max = self.in_use_max.max(in_use);
        let second = now / SECOND;
        if second.is_multiple_of(COURSE_SECONDS) {
            self.course.push(Course {
                second,
                connections: pool.connections.used(),
                in_use,
            });
        }
    }

    pub(super) fn outcome(self, all_in_wait_p99_ms: f64) -> Scaled {
        Scaled {
            all_in_wait_p99_ms,
            in_use_mean: chance::share(self.in_use_sum, self.looks),
            in_use_min: self.in_use_min,
            in_use_max: self.in_use_max,
            decisions: self.decisions,
            turns: self.turns,
            course: self.course,
        }
    }
}

const COURSE_SECONDS: u64 = 5;
