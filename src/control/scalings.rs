//! Pools that scale: which backends of their reserves are in.

use std::collections::{HashMap, HashSet};

use crate::config::{self, Config};
use crate::select::{Action, Decision, Scaler};
use crate::snapshot::Snapshot;
use crate::sys;

use super::balancer::Key;

/// The scalers of all pools that scale.
#[derive(Debug, Default)]
pub(super) struct Scalings {
    scalers: HashMap<String, Scaler>,
    /// Backends of a reserve that are in.
    active: HashSet<Key>,
}

impl Scalings {
    /// Goes over to another configuration. Who is in stays in.
    pub(super) fn follow(&mut self, config: &Config) {
        let scaling = |name: &str| {
            let pool = config.pool(name)?;
            Some((pool, pool.scaling.as_ref()?))
        };
        self.scalers.retain(|name, _| scaling(name).is_some());
        for pool in &config.pools {
            let Some(settings) = &pool.scaling else {
                continue;
            };
            let scaler = self.scalers.entry(pool.name.clone());
            scaler
                .and_modify(|scaler| scaler.follow(settings, &pool.strategy))
                .or_insert_with(|| Scaler::new(settings.clone(), &pool.strategy));
        }
        self.active.retain(|(pool, backend)| {
            let backend = scaling(pool).and_then(|(pool, _)| pool.backend(backend));
            backend.is_some_and(|backend| backend.reserve)
        });
    }

    /// Whether a backend waits in the reserve.
    pub(super) fn is_standby(&self, pool: &str, backend: &config::Backend) -> bool {
        let key = || (pool.to_owned(), backend.name.clone());
        backend.reserve && !self.active.contains(&key())
    }

    /// Looks at each pool, once per second. What is decided holds from the next snapshot on.
    pub(super) fn tick(&mut self, snapshot: &Snapshot) -> Vec<(String, Decision)> {
        let now = sys::monotonic();
        let mut decisions = Vec::new();
        for plan in &snapshot.pools {
            let pool = plan.pool();
            let scaler = self.scalers.get_mut(&pool.name);
            let Some(decision) = scaler.and_then(|scaler| scaler.tick(pool, now)) else {
                continue;
            };
            for backend in &decision.backends {
                let key = (pool.name.clone(), backend.clone());
                match decision.action {
                    Action::In => self.active.insert(key),
                    Action::Out => self.active.remove(&key),
                };
            }
            decisions.push((pool.name.clone(), decision));
        }
        decisions
    }
}
