//! What the workers route by: immutable, numbered, published whole.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

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
    /// What can be selected from, whether a listener uses it or not.
    pub pools: Vec<Arc<Plan>>,
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
        let pools: Vec<_> = config.pools.iter().map(plan).collect();
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|listener| {
            let plan = Arc::clone(&pools[listener.pool]);
            Arc::new(Listener::new(listener, plan, None))
        });
        Self {
            version: 1,
            listeners: listeners.collect(),
            pools,
            connections: Arc::new(Limit::new(max_connections)),
        }
    }

    /// The snapshot of a changed configuration. What is counted and remembered goes on: of pools by
    /// their names, of backends by name and address, of listeners by address.
    ///
    /// # Errors
    /// The configuration listens elsewhere than this one.
    pub fn succeed(&self, config: &Config, max_connections: u32) -> Result<Self, ListenersDiffer> {
        let listeners = self.listeners.iter().map(|old| {
            let mut listeners = config.listeners.iter();
            let new = listeners.find(|new| new.bind == old.bind && new.name == old.name);
            new.map(|new| (new, old)).ok_or(ListenersDiffer)
        });
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        if config.listeners.len() != listeners.len() {
            return Err(ListenersDiffer);
        }
        // Nothing fails from here on: limits are shared with what is in force.
        let plan = |pool: &config::Pool| {
            let same = |old: &&Arc<Plan>| old.pool().name == pool.name;
            let old = self.pools.iter().find(same);
            let pool = old.map_or_else(|| Pool::new(pool), |old| old.pool().succeed(pool));
            Arc::new(Plan::new(Arc::new(pool)))
        };
        let pools: Vec<_> = config.pools.iter().map(plan).collect();
        let listeners = listeners.into_iter().map(|(new, old)| {
            let plan = Arc::clone(&pools[new.pool]);
            Arc::new(Listener::new(new, plan, Some(old)))
        });
        let listeners = listeners.collect();
        self.connections.set_max(max_connections);
        Ok(Self {
            version: self.version + 1,
            listeners,
            pools,
            connections: Arc::clone(&self.connections),
        })
    }
}

/// A configuration has other listeners than those that are running.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("its listeners are others, and only a restart changes those")]
pub struct ListenersDiffer;

impl Listener {
    fn new(config: &config::Listener, plan: Arc<Plan>, old: Option<&Self>) -> Self {
        let max = config.max_connections.map_or(u32::MAX, NonZeroU32::get);
        let connections = match old {
            Some(old) => Arc::clone(&old.connections),
            None => Arc::new(Limit::unbounded()),
        };
        connections.set_max(max);
        Self {
            name: config.name.clone(),
            bind: config.bind.clone(),
            connections,
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
        watches_work: plan.pool().strategy.looks_ahead().is_some(),
        attempts: listener.attempts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        let (config, _) = parse("f".to_owned(), text.into()).unwrap();
        config
    }

    const FIRST: &str = "(listeners: [(bind: \"127.0.0.1:1\", pool: \"a\")], pools: [
        (name: \"a\", persist: \"source_ip\", backends: [\"127.0.0.1:2\", \"127.0.0.1:3\"])])";

    #[test]
    fn what_is_counted_goes_on() {
        let first = Snapshot::new(&config(FIRST), 100);
        let pool = first.pools[0].pool();
        assert!(pool.backends[1].try_acquire());
        let second = "(listeners: [(bind: \"127.0.0.1:1\", pool: \"a\", max_connections: 7)],
            pools: [(name: \"b\", backends: [\"127.0.0.1:9\"]), (name: \"a\", strategy: \"random\",
            persist: \"source_ip\", backends: [(address: \"127.0.0.1:3\", max_connections: 5),
            \"127.0.0.1:4\"])])";
        let second = first.succeed(&config(second), 50).unwrap();
        assert_eq!(second.version, 2);
        assert_eq!(second.connections.max(), 50);
        assert_eq!(second.listeners[0].connections.max(), 7);
        let listener = &first.listeners[0].connections;
        assert!(Arc::ptr_eq(listener, &second.listeners[0].connections));
        let next = second.listeners[0].plan.pool();
        assert_eq!(next.strategy.name(), "random");
        let counts = |index: usize| next.backends[index].tally.connections.used();
        assert_eq!([counts(0), counts(1)], [1, 0]);
        assert_eq!(next.backends[0].tally.connections.max(), 5);
        let table = |pool: &Pool| pool.sticky.clone().unwrap();
        assert!(Arc::ptr_eq(&table(pool), &table(next)));
    }

    #[test]
    fn other_listeners_are_refused() {
        let first = Snapshot::new(&config(FIRST), 100);
        for bind in ["127.0.0.1:5", "[::1]:1"] {
            let other = FIRST.replace("127.0.0.1:1", bind);
            assert_eq!(
                first.succeed(&config(&other), 9).unwrap_err(),
                ListenersDiffer
            );
        }
        let more = FIRST.replace("[(bind", "[(bind: \"127.0.0.1:6\", pool: \"a\"), (bind");
        assert_eq!(
            first.succeed(&config(&more), 9).unwrap_err(),
            ListenersDiffer
        );
        let tighter = FIRST
            .replace("127.0.0.1:1", "127.0.0.1:5")
            .replace(
                "\"127.0.0.1:2\"",
                "(address: \"127.0.0.1:2\", max_connections: 1)",
            )
            .replace("pool: \"a\"", "pool: \"a\", max_connections: 1");
        assert!(first.succeed(&config(&tighter), 9).is_err());
        assert_eq!(first.connections.max(), 100);
        assert_eq!(first.listeners[0].connections.max(), u32::MAX);
        let backend = &first.pools[0].pool().backends[0];
        assert_eq!(backend.tally.connections.max(), u32::MAX);
    }
}
