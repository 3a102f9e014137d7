//! Changes of the settings of a backend or a pool. A setting that is `None` stays.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{AdminState, Backend, Group, Pool, Strategy, values};

/// New settings of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendPatch {
    /// Its share.
    pub weight: Option<u16>,
    /// Its limit; `Some(None)`: none.
    pub max_connections: Option<Option<NonZeroU32>>,
    /// Its administrative state.
    pub state: Option<AdminState>,
}

/// New settings of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolPatch {
    /// How a backend is selected.
    pub strategy: Option<Strategy>,
    /// Connections to all its backends; `Some(None)`: no limit.
    pub max_connections: Option<Option<NonZeroU32>>,
    /// The most clients that wait.
    pub queue_max: Option<u32>,
    /// The longest wait.
    pub queue_timeout: Option<Duration>,
}

impl BackendPatch {
    /// Changes a backend.
    pub(super) fn apply(&self, backend: &mut Backend) {
        backend.weight = self.weight.unwrap_or(backend.weight);
        backend.max_connections = self.max_connections.unwrap_or(backend.max_connections);
        backend.state = self.state.unwrap_or(backend.state);
    }

    /// This one after an earlier one, as one.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        Self {
            weight: self.weight.or(earlier.weight),
            max_connections: self.max_connections.or(earlier.max_connections),
            state: self.state.or(earlier.state),
        }
    }

    /// What it changes, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let state = self.state.map(|state| state.as_str().to_owned());
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let limit = self.max_connections.map(limit_words);
        [state, weight, limit].into_iter().flatten().collect()
    }
}

impl PoolPatch {
    /// Changes a pool.
    pub(super) fn apply(&self, pool: &mut Pool) {
        if let Some(strategy) = self.strategy.as_ref().filter(|its| **its != pool.strategy) {
            // The persistence of `sticky_round_robin` is part of it and is removed with it.
            if pool.strategy == Strategy::StickyRoundRobin {
                pool.persist = None;
            }
            pool.strategy = strategy.clone();
        }
        pool.max_connections = self.max_connections.unwrap_or(pool.max_connections);
        pool.queue.max = self.queue_max.unwrap_or(pool.queue.max);
        pool.queue.timeout = self.queue_timeout.unwrap_or(pool.queue.timeout);
    }

    /// This one after an earlier one, as one.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        Self {
            strategy: self.strategy.clone().or_else(|| earlier.strategy.clone()),
            max_connections: self.max_connections.or(earlier.max_connections),
            queue_max: self.queue_max.or(earlier.queue_max),
            queue_timeout: self.queue_timeout.or(earlier.queue_timeout),
        }
    }

    /// Whether two pools differ in a setting that it changes.
    pub(crate) fn tells_apart(&self, one: &Pool, other: &Pool) -> bool {
        self.strategy.is_some() && selects_by(one) != selects_by(other)
            || self.max_connections.is_some() && one.max_connections != other.max_connections
            || self.queue_max.is_some() && one.queue.max != other.queue.max
            || self.queue_timeout.is_some() && one.queue.timeout != other.queue.timeout
    }

    /// What it changes, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let strategy = self.strategy.as_ref().map(|its| format!("strategy {its}"));
        let limit = self.max_connections.map(limit_words);
        let max = self.queue_max.map(|max| format!("queue {max}"));
        let timeout = self.queue_timeout.map(values::written);
        let timeout = timeout.map(|timeout| format!("queue timeout {timeout}"));
        [strategy, limit, max, timeout]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// A limit of connections, in words.
pub(crate) fn limit_words(max: Option<NonZeroU32>) -> String {
    match max {
        Some(max) => format!("max_connections {max}"),
        None => "max_connections off".to_owned(),
    }
}

/// A pool's strategy, without groups that were derived from its backends.
fn selects_by(pool: &Pool) -> Strategy {
    let mut strategy = pool.strategy.clone();
    if let Strategy::TwoTier(tiers) = &mut strategy
        && tiers.groups == Group::of(&pool.backends)
    {
        tiers.groups.clear();
    }
    strategy
}
