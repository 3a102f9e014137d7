//! Names of listeners, pools and backends by the numbers that records of workers have, also of
//! those that are gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::pool::{Backend, Pool};
use crate::select::Plan;
use crate::snapshot::Snapshot;

/// The names of what has left the snapshot: the last [`PAST_MAX`] of each kind.
#[derive(Clone, Debug, Default)]
pub(super) struct PastNames {
    listeners: VecDeque<(u64, String)>,
    pools: VecDeque<(u32, String)>,
    backends: VecDeque<(u32, BackendLabel)>,
}

/// What a backend is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendLabel {
    pub(super) name: String,
    pub(super) address: String,
}

/// The names of what some records are about.
#[derive(Debug, Default)]
pub(super) struct Names {
    listeners: HashMap<u64, String>,
    pools: HashMap<u32, String>,
    backends: HashMap<u32, BackendLabel>,
}

impl PastNames {
    /// Keeps the names of what the next snapshot has no longer. Pools that stay as they are cost a
    /// comparison each.
    pub(super) fn follow(&mut self, before: &Snapshot, next: &Snapshot) {
        let stays = |(old, new): (u64, u64)| old == new;
        let ids = |of: &Snapshot| of.listeners.iter().map(|its| its.id).collect::<Vec<_>>();
        let (old, new) = (ids(before), ids(next));
        if old.len() > new.len() || !old.iter().copied().zip(new.iter().copied()).all(stays) {
            let new: HashSet<_> = new.into_iter().collect();
            let gone = before.listeners.iter().filter(|its| !new.contains(&its.id));
            for listener in gone {
                push(&mut self.listeners, (listener.id, listener.name.clone()));
            }
        }
        let is_same = |(old, new): (&Arc<Plan>, &Arc<Plan>)| old.pool().number == new.pool().number;
        let in_place = before.pools.len() <= next.pools.len()
            && before.pools.iter().zip(&next.pools).all(is_same);
        if in_place {
            for (old, new) in before.pools.iter().zip(&next.pools) {
                self.follow_pool(old, Some(new));
            }
        } else {
            let new: HashMap<_, _> = next
                .pools
                .iter()
                .map(|new| (new.pool().number, new))
                .collect();
            for old in &before.pools {
                self.follow_pool(old, new.get(&old.pool().number).copied());
            }
        }
    }

    fn follow_pool(&mut self, old: &Arc<Plan>, new: Option<&Arc<Plan>>) {
        let pool = old.pool();
        match new {
            Some(new) if Arc::ptr_eq(old, new) => {}
            Some(new) => self.leave(pool, &new.pool().backends),
            None => {
                push(&mut self.pools, (pool.number, pool.name.clone()));
                self.leave(pool, &[]);
            }
        }
    }

    /// Keeps the names of the backends of a pool that are not among these.
    fn leave(&mut self, pool: &Pool, new: &[Arc<Backend>]) {
        let mut pairs = pool.backends.iter().zip(new);
        if pool.backends.len() <= new.len() && pairs.all(|(old, new)| old.number == new.number) {
            return;
        }
        let stay: HashSet<u32> = new.iter().map(|one| one.number).collect();
        let gone = pool.backends.iter();
        for backend in gone.filter(|backend| !stay.contains(&backend.number)) {
            push(
                &mut self.backends,
                (backend.number, BackendLabel::of(backend)),
            );
        }
    }

    /// The names of these numbers, as they are now or were last.
    pub(super) fn resolve(&self, snapshot: &Snapshot, backends: &HashSet<u32>) -> Names {
        let mut names = Names {
            listeners: self.listeners.iter().cloned().collect(),
            pools: self.pools.iter().cloned().collect(),
            backends: HashMap::new(),
        };
        let past = self
            .backends
            .iter()
            .filter(|(number, _)| backends.contains(number));
        names.backends.extend(past.cloned());
        let present = snapshot
            .listeners
            .iter()
            .map(|its| (its.id, its.name.clone()));
        names.listeners.extend(present);
        for pool in snapshot.pools.iter().map(|plan| plan.pool()) {
            names.pools.insert(pool.number, pool.name.clone());
            let present = pool
                .backends
                .iter()
                .filter(|one| backends.contains(&one.number));
            let present = present.map(|one| (one.number, BackendLabel::of(one)));
            names.backends.extend(present);
        }
        names
    }
}

impl BackendLabel {
    fn of(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address.to_string(),
        }
    }
}

impl Names {
    /// The name of a listener, or a word for one that left so long ago that it is not known.
    pub(super) fn listener(&self, id: u64) -> String {
        self.listeners.get(&id).cloned().unwrap_or_else(forgotten)
    }

    /// The name of a pool.
    pub(super) fn pool(&self, number: u32) -> String {
        self.pools.get(&number).cloned().unwrap_or_else(forgotten)
    }

    /// The name and the address of a backend.
    pub(super) fn backend(&self, number: u32) -> BackendLabel {
        let known = self.backends.get(&number).cloned();
        known.unwrap_or_else(|| BackendLabel {
            name: forgotten(),
            address: String::new(),
        })
    }
}

fn forgotten() -> String {
    "(removed)".to_owned()
}

fn push<T>(past: &mut VecDeque<T>, one: T) {
    if past.len() >= PAST_MAX {
        past.pop_front();
    }
    past.push_back(one);
}

/// Names of each kind that are kept after what they name has left.
const PAST_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config, Listener};
    use crate::guard::AccessFilters;
    use crate::pool::Standing;
    use crate::tls::TlsByOwner;

    fn snapshot(before: Option<&Snapshot>, pools: &[(&str, &[&str])]) -> Snapshot {
        let pools = pools.iter().map(|(name, addresses)| {
            let backends = addresses
                .iter()
                .map(|address| config::Backend::at(address.parse().unwrap()));
            config::Pool::of(*name, backends.collect())
        });
        let config = Config::of(Vec::<Listener>::new(), pools.collect::<Vec<_>>());
        let standings = |place: usize| {
            let backends = config.pools[place].backends.iter();
            backends
                .map(|_| Standing::default())
                .collect::<Vec<_>>()
                .into_iter()
        };
        let lists = AccessFilters::default();
        let none = TlsByOwner::default();
        let by = (&config, &lists, &none);
        Snapshot::compose(before, by, u32::MAX, standings, |_| true).take_effect()
    }

    #[test]
    fn what_has_left_keeps_its_name() {
        let first = snapshot(
            None,
            &[("a", &["10.0.0.1:1", "10.0.0.2:1"]), ("b", &["10.0.0.3:1"])],
        );
        let numbers = |of: &Snapshot| {
            let pools = of.pools.iter().map(|plan| plan.pool());
            let all = pools.flat_map(|pool| pool.backends.iter().map(|one| one.number));
            all.collect::<Vec<_>>()
        };
        let before = numbers(&first);
        let next = snapshot(Some(&first), &[("a", &["10.0.0.2:1", "10.0.0.4:1"])]);
        assert_eq!(numbers(&next)[0], before[1], "it stays, at another place");
        assert!(!before.contains(&numbers(&next)[1]));
        let mut past = PastNames::default();
        past.follow(&first, &next);
        let all = before.iter().chain(&numbers(&next)).copied().collect();
        let names = past.resolve(&next, &all);
        let called = |number: u32| names.backend(number).name;
        let called: Vec<_> = before.iter().map(|number| called(*number)).collect();
        assert_eq!(called, ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(names.pool(first.pools[1].pool().number), "b");
        assert_eq!(names.pool(0), "(removed)");
        // The next change has nothing new to say of them.
        past.follow(&next, &next);
        assert_eq!(past.backends.len(), 2);
    }
}
