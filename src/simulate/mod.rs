//! Simulates a strategy on a fleet of backends, with the production code of [`crate::select`], and
//! limits of clients under [`abuse`], with that of [`crate::guard`], and several
//! [`balancers`] before one pool.
//!
//! Processes events in order of time, from a seed. Uses no clock and no I/O, so the same input has
//! the same outcome. A backend of mean weight is a processor-sharing server with 4 cores. A connect
//! takes 0.5 ms and is tried on up to 3 backends; a client that finds all full tries again every
//! 50 ms for 5 s. A client sends its first request with its connect, and later ones after times of
//! thinking. The wait is the time from the accept, or from a later request, to the answer.
//!
//! Left out: the rest of the network, the balancer's own time, ejection, clients that give up or
//! try again (except those whose session broke), backends that slow down under load by more than
//! processor sharing, and keys in first bytes (the client's address replaces them).

#![forbid(unsafe_code)]

pub mod abuse;
pub mod balancers;
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
use crate::config::{self, Strategy};
use crate::pool::{Pool, Standing};
use crate::select::{Forecaster, Plan};

pub use chance::TimeDistribution;
pub use chart::{ChartError, chart};
pub use report::{json, table};
pub use reserve::{Course, Scaled};
pub use scenario::{ClientTraffic, Fleet, OfferedLoad, Outage, Reserve, Scenario, Sessions};
pub use trace::{LINES_MAX, Skipped, Trace};

use engine::Engine;
use reserve::Scaling;

/// The results of one strategy in one scenario. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The strategy's name.
    pub strategy: &'static str,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Workers of the balancer.
    pub workers: u32,
    /// The length of the measurement, in simulated seconds.
    pub seconds: f64,
    /// Accepted clients.
    pub connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Clients without an answer: no backend accepted them, or it reset them.
    pub failures: u64,
    /// Sessions that broke because their backend went away.
    pub broken: u64,
    /// The offered work, relative to the capacity of the fleet.
    pub load: f64,
    /// The median wait, in ms.
    pub wait_p50_ms: f64,
    /// The 99th percentile of the wait, in ms.
    pub wait_p99_ms: f64,
    /// The highest load of a backend divided by the mean load, both relative to capacity.
    pub imbalance: f64,
    /// Connections of clients that had been connected before.
    pub returning: u64,
    /// The share of returning connections that went to another backend than the client's last one.
    pub not_as_before: f64,
    /// The share of connections that went to a backend of the client's own group or subset; `None`:
    /// clients have none.
    pub kept: Option<f64>,
    /// Connections that the black hole got, divided by the share of its weight; `None`: there is
    /// no black hole.
    pub black_hole: Option<f64>,
    /// The share of connections that went to another backend than in the trace, among those whose
    /// recorded backend is in the pool; `None`: there is no trace.
    pub not_as_logged: Option<f64>,
    /// The `max_connections` that the scenario gave each backend of mean weight; `None`: it gave
    /// none.
    pub ceiling: Option<u32>,
    /// The results of the reserve; `None`: there is no reserve.
    pub scaled: Option<Scaled>,
    /// In the order of the pool.
    pub backends: Vec<BackendOutcome>,
}

/// The results of one backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendOutcome {
    /// Its name.
    pub name: String,
    /// Established connections.
    pub connections: u64,
    /// Connects that it refused.
    pub refused: u64,
    /// The work that it got, relative to its capacity.
    pub load: f64,
}

/// Runs a strategy over a scenario.
///
/// The pool's own strategy has the pool's settings; other strategies have their defaults. For
/// strategies that look ahead, a [`Forecaster`] runs once per simulated second, as on the control
/// thread.
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

/// Runs once. Without `scaling`, all backends of the reserve are in.
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

/// The pool to simulate when none is configured: ten backends of the same weight.
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

/// The pool with another strategy, and with the settings that this strategy needs.
fn prepare(scenario: &Scenario, pool: &config::Pool, strategy: &Strategy) -> config::Pool {
    let mut pool = pool.clone();
    // Nothing connects, so host names need no addresses.
    for backend in &mut pool.backends {
        backend.host = None;
    }
    // The simulation shows how strategies treat a failing backend before it is ejected.
    pool.ejection = None;
    if pool.strategy.name() != strategy.name() {
        pool.select_by(strategy.clone());
    }
    if let Some(reserve) = &scenario.reserve {
        reserve.fit(&mut pool);
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

/// Sets `max_connections` of backends without one, by weight: `places` for the mean weight.
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
