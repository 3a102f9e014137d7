//! Simulates several balancers before one pool, with the production code of [`crate::select`].
//!
//! A router spreads clients over the balancers by a hash of their address and port, as Linux does.
//! Each balancer counts its own connections and knows of no other one. One of them leaves and
//! returns; what is counted says whether a client still gets its backend (`clients`). Apart from
//! that backends leave and return, and each balancer learns it by etcd or by its own probes
//! (`membership`). A limit over the fleet is divided by leases (`leases`).
//!
//! Left out: the time of connecting, what requests cost, and balancers that crash: their sessions
//! break, and their clients come again at once.

mod clients;
mod leases;
mod membership;
mod report;

use std::num::NonZeroU16;

use serde::Serialize;

use crate::address::Address;
use crate::config::{self, FirstTier, Key, Strategy, TwoTier};

pub use leases::{LimitOutcome, LimitStage};
pub use membership::{ChangeKind, ChangeOutcome};
pub use report::{json, table};

/// What is simulated.
#[derive(Clone, Debug)]
pub struct FleetScenario {
    /// How many balancers there are, 2 at least.
    pub balancers: u32,
    /// Their pool.
    pub pool: config::Pool,
    /// The strategies to try, by the name that a table shows.
    pub strategies: Vec<(String, Strategy)>,
    /// Clients that are connected most of the time.
    pub clients: u32,
    /// The seed of all random numbers.
    pub seed: u64,
}

/// The results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetOutcome {
    /// Always [`NAME`].
    pub scenario: &'static str,
    /// The seed of all random numbers.
    pub seed: u64,
    /// How many balancers there are.
    pub balancers: u32,
    /// How many backends there are.
    pub backends: u32,
    /// How many clients there are.
    pub clients: u32,
    /// The results of each strategy; empty where the fleet is too large for it.
    pub strategies: Vec<AgreementOutcome>,
    /// The results of changes of the pool.
    pub changes: Vec<ChangeOutcome>,
    /// The results of a limit over the fleet; empty where there are more than 16 balancers.
    pub limits: Vec<LimitOutcome>,
}

/// What clients of a strategy met. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AgreementOutcome {
    /// The strategy.
    pub strategy: String,
    /// Connections in all.
    pub connections: u64,
    /// The share of clients that every balancer would send to the same backend at one moment.
    pub agree: f64,
    /// The share of new connections that went to the backend of the client's last one: while all
    /// balancers are there, while one is away, and once it is back.
    pub same: [f64; 3],
    /// The share of clients that reached another balancer as one left.
    pub rerouted: f64,
    /// The smallest and the largest share of a balancer, while all are there.
    pub shares: [f64; 2],
    /// The most connections of a backend, over all balancers, divided by the mean.
    pub peak: f64,
}

/// The name of the scenario.
pub const NAME: &str = "fleet";
/// What the scenario is, in one sentence.
pub const ABOUT: &str = "several balancers before one pool: do they agree, and what moves when \
                         one leaves?";
/// Backends of all balancers together up to which clients are simulated: each balancer has counts
/// of its own for each.
pub const COUNTS_MAX: u64 = 20_000;

/// Runs the scenario. The same settings have the same outcome.
#[must_use]
pub fn run(settings: &FleetScenario) -> FleetOutcome {
    let backends = u32::try_from(settings.pool.backends.len()).unwrap_or(u32::MAX);
    let counts = u64::from(settings.balancers) * u64::from(backends);
    let strategies = settings.strategies.iter();
    let strategies = strategies.filter(|_| counts <= COUNTS_MAX);
    let strategies = strategies.map(|(name, strategy)| AgreementOutcome {
        strategy: name.clone(),
        ..clients::run(settings, strategy)
    });
    FleetOutcome {
        scenario: NAME,
        seed: settings.seed,
        balancers: settings.balancers,
        backends,
        clients: settings.clients,
        strategies: strategies.collect(),
        changes: membership::run(settings),
        limits: leases::run(settings),
    }
}

/// A pool of this many backends of the same weight.
#[must_use]
pub fn pool_of(backends: u16) -> config::Pool {
    let backend = |number: u16| config::Backend {
        name: format!("b{number}"),
        ..config::Backend::at(Address::Tcp(([127, 0, 0, 1], number).into()))
    };
    config::Pool::of("fleet", (1..=backends).map(backend).collect())
}

/// The strategies that are compared where none is named: those that look at a client's key, and one
/// that looks at load alone.
#[must_use]
pub fn strategies() -> Vec<(String, Strategy)> {
    let hash = |max_load| {
        Strategy::Hash(config::Hash {
            max_load,
            ..config::Hash::default()
        })
    };
    let subset = Strategy::TwoTier(TwoTier {
        first: FirstTier::Hash {
            key: Key::default(),
            subset: NonZeroU16::new(2).expect("above 0"),
        },
        ..TwoTier::default()
    });
    [
        ("hash", hash(None)),
        ("hash, max_load 2", hash(Some(200))),
        ("hash, max_load 1.25", hash(Some(125))),
        ("two_tier, subset 2", subset),
        ("least_connections", Strategy::LeastConnections),
    ]
    .map(|(name, strategy)| (name.to_owned(), strategy))
    .into()
}

/// The pool with this strategy. Nothing connects, so host names need no addresses.
fn with_strategy(pool: &config::Pool, strategy: &Strategy) -> config::Pool {
    let mut pool = pool.clone();
    for backend in &mut pool.backends {
        backend.host = None;
    }
    pool.ejection = None;
    if pool.strategy != *strategy {
        pool.select_by(strategy.clone());
    }
    pool
}

#[cfg(test)]
mod tests;
