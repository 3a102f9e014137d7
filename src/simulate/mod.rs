//! What a strategy does to a fleet: a simulation that drives the code of [`crate::select`].
//!
//! Events in order of time, from a seed: no clock, no I/O; the same input has the same outcome. A
//! backend is a processor-sharing server of 4 cores, for a mean weight. A connect takes 0.5 ms, and
//! is tried on 3 backends; a client that finds all full asks again each 50 ms for 5 s. A client's
//! first request is sent with its connect, others after times of thinking; waiting is from the
//! accept, or a later request, to the answer.
//!
//! Left out: the network beyond that, the balancer's own time, ejection, clients that give up or
//! try again (but those whose session broke), backends that slow down when they are crowded more
//! than sharing says, keys in first bytes (the address stands for them).

#![forbid(unsafe_code)]

mod chance;
mod chart;
mod engine;
mod fleet;
mod home;
mod measure;
mod queue;
mod report;
mod reserve;
mod scenario;
mod server;
mod session;
mod trace;
mod traffic;

use std::num::NonZeroU32;

use serde::Serialize;

use crate::address::Address;
use crate::config::{self, Group, Persist, Strategy};
use crate::pool::{Pool, Standing};
use crate::select::{Forecaster, Plan};

pub use chance::Spread;
pub use chart::{ChartError, chart};
pub use report::{json, table};
pub use reserve::{Course, Scaled};
pub use scenario::{Fleet, Load, Outage, Reserve, Scenario, Sessions, Traffic};
pub use trace::{LINES_MAX, Skipped, Trace};

use engine::Engine;
use reserve::Scaling;

/// What one strategy came to in one scenario. Shares are parts of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The strategy's name.
    pub strategy: &'static str,
    /// The seed of everything that chance decided.
    pub seed: u64,
    /// Workers of the balancer.
    pub workers: u32,
    /// How long was measured, in simulated seconds.
    pub seconds: f64,
    /// Clients that were accepted.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Clients that got no answer: no backend took them, or it reset them.
    pub failures: u64,
    /// Sessions that broke as their backend went away.
    pub broken: u64,
    /// Work that came, as a part of what the fleet can do.
    pub load: f64,
    /// The median of waiting, in ms.
    pub wait_p50_ms: f64,
    /// Its 99th percentile, in ms.
    pub wait_p99_ms: f64,
    /// The highest load of a backend over the mean load, both as parts of what each can do.
    pub imbalance: f64,
    /// Connections of clients that had been connected before.
    pub returning: u64,
    /// The share of those that went to another backend than the client's last one.
    pub not_as_before: f64,
    /// The share of connections that went to a backend of their client's own group or subset, where
    /// there are such.
    pub kept: Option<f64>,
    /// Connections that the black hole was fed, over the fair share of its weight.
    pub black_hole: Option<f64>,
    /// The share of connections that went to another backend than the trace says, of those whose
    /// backend is one of the pool.
    pub not_as_logged: Option<f64>,
    /// The ceiling of connections of a backend of mean weight that was made up for this run.
    pub ceiling: Option<u32>,
    /// What came of the reserve, where there is one.
    pub scaled: Option<Scaled>,
    /// In the order of the pool.
    pub backends: Vec<BackendOutcome>,
}

/// What one backend came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendOutcome {
    /// Its name.
    pub name: String,
    /// Connections that were established.
    pub connections: u64,
    /// Connects that it refused.
    pub refused: u64,
    /// Work that it was given, as a part of what it can do.
    pub load: f64,
}

/// Runs a strategy over a scenario.
///
/// The pool's own settings hold for its own strategy; others have their defaults. For strategies
/// that look ahead a [`Forecaster`] does so at each second, as on the control thread.
#[must_use]
pub fn run(scenario: &Scenario, pool: &config::Pool, strategy: &Strategy, seed: u64) -> Outcome {
    let pool = prepare(scenario, pool, strategy);
    let mut scaling = scenario.reserve.as_ref().and_then(|_| Scaling::of(&pool));
    let outcome = lead(scenario, &pool, seed, scaling.as_mut());
    let scaled = scaling.map(|scaling| {
        let all_in = lead(scenario, &pool, seed, None);
        scaling.outcome(all_in.wait_p99_ms)
    });
    Outcome {
        ceiling: scenario.places.filter(|_| *strategy == Strategy::First),
        scaled,
        ..outcome
    }
}

/// One run. Without somebody who scales, all of the reserve are in.
fn lead(
    scenario: &Scenario,
    pool: &config::Pool,
    seed: u64,
    mut scaling: Option<&mut Scaling>,
) -> Outcome {
    let waits = scaling.is_some();
    let standing = |backend: &config::Backend| Standing {
        standby: waits && backend.reserve,
        ..Standing::default()
    };
    let pool = Pool::build(pool, None, standing);
    pool.take_effect(None);
    let strategy = pool.strategy.name();
    let mut forecaster = pool.strategy.looks_ahead().map(Forecaster::new);
    let mut each_second = |plan: &Plan, now| {
        if let Some(forecaster) = &mut forecaster {
            forecaster.tick(plan.pool(), now);
        }
        scaling.as_mut()?.tick(plan.pool(), now)
    };
    let measure = Engine::new(scenario, pool, seed, &mut each_second).run();
    measure.outcome(scenario, strategy, seed)
}

/// The pool that stands in when none is configured: ten backends of the same weight.
#[must_use]
pub fn equal_pool() -> config::Pool {
    let backend = |number: u16| config::Backend {
        name: format!("b{number}"),
        ..config::Backend::at(Address::Tcp(([127, 0, 0, 1], 9_000 + number).into()))
    };
    config::Pool {
        strategy: Strategy::default(),
        persist: None,
        ..config::Pool::of("equal", (0..10).map(backend).collect())
    }
}

/// The pool with another strategy, and what that one can't do without.
fn prepare(scenario: &Scenario, pool: &config::Pool, strategy: &Strategy) -> config::Pool {
    let mut pool = pool.clone();
    // Nothing is connected to: where host names lead to does not matter.
    for backend in &mut pool.backends {
        backend.host = None;
    }
    // It shows strategies, which have to do with a backend that fails until it is ejected.
    pool.ejection = None;
    if pool.strategy.name() != strategy.name() {
        if pool.strategy == Strategy::StickyRoundRobin {
            pool.persist = None;
        }
        pool.strategy = strategy.clone();
    }
    if pool.strategy == Strategy::StickyRoundRobin && pool.persist.is_none() {
        pool.persist = Some(Persist::default());
    }
    if let Some(reserve) = &scenario.reserve {
        reserve.fit(&mut pool);
    }
    if let Strategy::TwoTier(tiers) = &mut pool.strategy
        && tiers.groups.is_empty()
    {
        tiers.groups = Group::of(&pool.backends);
    }
    if let Strategy::Predictive(settings) = &mut pool.strategy {
        settings.season = scenario.season.or(settings.season);
    }
    if pool.strategy == Strategy::First
        && let Some(places) = scenario.places
    {
        limit(&mut pool.backends, places);
    }
    pool
}

/// A ceiling of connections for those that have none: `places` for the mean weight.
fn limit(backends: &mut [config::Backend], places: u32) {
    let weights: u32 = backends.iter().map(|b| u32::from(b.weight)).sum();
    let count = u32::try_from(backends.len()).unwrap_or(u32::MAX);
    for backend in backends {
        let part = u64::from(places) * u64::from(backend.weight) * u64::from(count);
        let places = u32::try_from(part / u64::from(weights.max(1))).unwrap_or(u32::MAX);
        let places = NonZeroU32::new(places).unwrap_or(NonZeroU32::MIN);
        backend.max_connections.get_or_insert(places);
    }
}

#[cfg(test)]
mod tests;
