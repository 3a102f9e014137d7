//! What the workers route by: immutable, numbered, published whole.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::config::{self, Config};
use crate::guard::Limit;
use crate::pool::Pool;
use crate::select::Plan;
use crate::session::{Limits, NEVER};

/// Everything a worker needs to know, at one moment. A session keeps what it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub version: u64,
    /// What is listened on; the index is the listener's number.
    pub listeners: Vec<Arc<Listener>>,
    /// Client connections in all, over all workers.
    pub connections: Arc<Limit>,
}

/// A bound address with the pool behind it.
#[derive(Debug)]
pub struct Listener {
    /// Unique among listeners.
    pub name: String,
    /// Where it listens.
    pub bind: Address,
    /// Where its sessions go.
    pub plan: Arc<Plan>,
    /// Client connections of this listener over all workers.
    pub connections: Arc<Limit>,
    /// Deadlines and tries of its sessions.
    pub limits: Limits,
}

impl Snapshot {
    /// The first snapshot of a configuration. `max_connections` is what the configuration or the
    /// descriptor limit allows in all.
    #[must_use]
    pub fn new(config: &Config, max_connections: u32) -> Self {
        let plan = |pool| Arc::new(Plan::new(Arc::new(Pool::new(pool))));
        let plans: Vec<_> = config.pools.iter().map(plan).collect();
        let listeners = config.listeners.iter();
        let listeners = listeners
            .map(|listener| Arc::new(Listener::new(listener, Arc::clone(&plans[listener.pool]))));
        Self {
            version: 1,
            listeners: listeners.collect(),
            connections: Arc::new(Limit::new(max_connections)),
        }
    }
}

impl Listener {
    fn new(config: &config::Listener, plan: Arc<Plan>) -> Self {
        let max = config
            .max_connections
            .map_or_else(Limit::unbounded, |max| Limit::new(max.get()));
        Self {
            name: config.name.clone(),
            bind: config.bind.clone(),
            connections: Arc::new(max),
            limits: limits(config, &plan),
            plan,
        }
    }
}

fn limits(listener: &config::Listener, plan: &Plan) -> Limits {
    let timeouts = &listener.timeouts;
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(NEVER);
    Limits {
        connect: nanos(timeouts.connect),
        idle: timeouts.idle.map_or(NEVER, nanos),
        half_closed: nanos(timeouts.half_closed),
        session: timeouts.session.map_or(NEVER, nanos),
        peek: plan.peeks().then(|| nanos(timeouts.peek)),
        attempts: listener.attempts,
    }
}
