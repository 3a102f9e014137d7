//! Hash: a Maglev table sends the same key to the same backend, on every worker and on every
//! balancer.
//!
//! With `max_load` no backend takes more than that multiple of the average load. A client beyond it
//! goes to the next backend in its key's order (Mirrokni, Thorup and Zadimoghaddam, "Consistent
//! Hashing with Bounded Loads", SODA 2018).

use std::sync::Arc;

use crate::config;
use crate::pool::Pool;

use super::{Candidate, Maglev, Scene};

/// A table over the members.
#[derive(Clone, Debug)]
pub(super) struct Hash {
    members: Arc<[u16]>,
    /// All others of the pool: drained, down, or backups.
    others: Arc<[u16]>,
    table: Arc<Maglev>,
    /// In percent of the average load, 101 to 1000; `None`: no bound.
    max_load: Option<u16>,
    weights: u64,
}

impl Hash {
    pub(super) fn new(settings: &config::Hash, pool: &Pool, members: Arc<[u16]>) -> Self {
        let entry = |&backend: &u16| {
            let found = &pool.backends[usize::from(backend)];
            Candidate {
                backend,
                name: &found.name,
                weight: found.weight,
            }
        };
        let entries: Vec<_> = members.iter().map(entry).collect();
        Self {
            table: Arc::new(Maglev::new(&entries)),
            max_load: settings.max_load,
            others: (0u16..)
                .take(pool.backends.len())
                .filter(|index| members.binary_search(index).is_err())
                .collect(),
            weights: entries.iter().map(|entry| u64::from(entry.weight)).sum(),
            members,
        }
    }

    pub(super) fn pick(&self, scene: &Scene<'_>) -> Option<u16> {
        let key = scene.request.keys.select;
        let sums = self.max_load.map(|_| self.sums(scene));
        let fits = |index: &u16| {
            scene.is_open(*index) && sums.is_none_or(|sums| self.has_room(*index, sums, scene))
        };
        self.probe(key, fits)
            // No backend is below the bound: ignore it.
            .or_else(|| self.probe(key, |index| scene.is_open(*index)))
    }

    /// The key's own backend, if the load of backends is bounded.
    pub(super) fn bounded(&self, key: u64) -> Option<u16> {
        self.max_load.and_then(|_| self.table.get(key))
    }

    /// The key's backend, or the next in the key's order that fits. After 32 probes, when nearly no
    /// backend fits, the first member that does.
    fn probe(&self, key: u64, fits: impl Fn(&u16) -> bool) -> Option<u16> {
        let own = self.table.get(key)?;
        if fits(&own) {
            return Some(own);
        }
        let others = (1..=PROBES_MAX).filter_map(|nth| self.table.probe(key, nth));
        let mut others = others.chain(self.members.iter().copied());
        others.find(fits)
    }

    /// The connections and weights of the members that share the load. Nearly always these are all
    /// members, and no other backend has connections.
    fn sums(&self, scene: &Scene<'_>) -> (u32, u64) {
        let ejected = self.members.iter().copied();
        let ejected = ejected.filter(|index| scene.is_shut_out(*index));
        let weights = ejected.clone().map(|index| u64::from(scene.weight(index)));
        let others = self.others.iter().copied().chain(ejected);
        let others = others.map(|index| scene.connections(index));
        let leaving = scene.pool.leaving.iter();
        let leaving = leaving.map(|backend| backend.tally.connections.used());
        let elsewhere: u32 = others.chain(leaving).sum();
        let in_all = scene.pool.connections.used().saturating_sub(elsewhere);
        (in_all, self.weights.saturating_sub(weights.sum()))
    }

    /// Whether one more connection stays within the bound: the backend's share of all connections
    /// by weight, times `max_load`, rounded up.
    fn has_room(&self, index: u16, sums: (u32, u64), scene: &Scene<'_>) -> bool {
        let (in_all, weights) = sums;
        let max_load = self.max_load.unwrap_or(u16::MAX);
        let part = (u64::from(in_all) + 1) * u64::from(scene.weight(index)) * u64::from(max_load);
        let bound = part.div_ceil(weights.max(1) * 100);
        u64::from(scene.connections(index)) < bound
    }
}

const PROBES_MAX: u32 = 32;
