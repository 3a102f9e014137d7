//! The pools that a worker selects from: one selector for each, however many of its ports lead
//! there. Two listeners of a pool share its round.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slab::Slab;

use crate::kernel::Kernel;
use crate::pool::Pool;
use crate::select::{Plan, Seat, Selector};
use crate::snapshot::{LiveListener, Snapshot};

use super::Worker;

/// Selectors by their keys, which ports know. A key stays while a port leads to its pool.
#[derive(Debug, Default)]
pub(super) struct Pools {
    selectors: Slab<Selector>,
    /// Those keys, by the numbers of the pools.
    keys: HashMap<u32, usize>,
}

impl Pools {
    /// Selects by this plan from now on. Returns the key of its pool.
    pub(super) fn follow(&mut self, plan: &Arc<Plan>, seat: Seat) -> usize {
        let number = plan.pool().number;
        let known = self.keys.get(&number).copied();
        let key = known.unwrap_or_else(|| self.selectors.vacant_key());
        let seat = seat.at(key as u64);
        if known.is_some() {
            self.selectors[key].follow(Arc::clone(plan), seat);
        } else {
            let selector = Selector::new(Arc::clone(plan), seat);
            self.keys.insert(number, self.selectors.insert(selector));
        }
        key
    }

    /// The same for each pool of a listener, by the indices of its routes.
    pub(super) fn follow_all(&mut self, listener: &LiveListener, seat: Seat) -> Vec<usize> {
        let plans = listener.plans();
        plans.map(|plan| self.follow(plan, seat)).collect()
    }

    /// The selector of the pool with this key.
    pub(super) fn selector(&self, key: usize) -> &Selector {
        &self.selectors[key]
    }

    pub(super) fn selector_mut(&mut self, key: usize) -> &mut Selector {
        &mut self.selectors[key]
    }

    /// A pool as it is now; `None`: no port leads there any more.
    pub(super) fn present(&self, of: &Pool) -> Option<&Arc<Pool>> {
        let key = self.keys.get(&of.number)?;
        Some(self.selectors[*key].plan().pool())
    }

    /// All pools as they are now.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let selectors = self.selectors.iter();
        selectors.map(|(_, selector)| selector.plan().pool())
    }

    /// Forgets pools whose key is none of these.
    fn retain(&mut self, used: &HashSet<usize>) {
        self.selectors.retain(|key, _| used.contains(&key));
        self.keys.retain(|_, key| used.contains(key));
    }
}

impl<K: Kernel> Worker<K> {
    /// Sessions of removed listeners connect to the pools as they are in the next snapshot, or
    /// were in the last one that had them.
    pub(super) fn follow_pools_of_removed(&mut self, snapshot: &Snapshot) {
        let mut removed = self.ports.iter_mut().filter(|(_, port)| port.is_removed());
        let Some(first) = removed.next() else { return };
        let plans = snapshot.pools.iter();
        let plans: HashMap<_, _> = plans.map(|plan| (plan.pool().number, plan)).collect();
        for (_, port) in std::iter::once(first).chain(removed) {
            let newer = |old: &Arc<Plan>| {
                let new = plans.get(&old.pool().number);
                new.is_some_and(|new| !Arc::ptr_eq(old, new))
            };
            if port.listener.plans().any(newer) {
                port.listener = Arc::new(port.listener.with_plans(&plans));
            }
            port.pools = self.pools.follow_all(&port.listener, self.seat);
        }
    }

    /// Forgets pools that no port leads to.
    pub(super) fn forget_pools(&mut self) {
        let ports = self.ports.iter();
        let used = ports
            .flat_map(|(_, port)| port.pools.iter().copied())
            .collect();
        self.pools.retain(&used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::config;
    use crate::select::{Choice, Request};

    const SEAT: Seat = Seat {
        worker: 0,
        of: 1,
        pool: 0,
        seed: 0,
    };

    fn plan(name: &str, before: Option<&Pool>) -> Arc<Plan> {
        let backend = |port| config::Backend::at(Address::Tcp(([127, 0, 0, 1], port).into()));
        let config = config::Pool {
            strategy: config::Strategy::RoundRobin,
            ..config::Pool::of(name, [1, 2, 3].map(backend).to_vec())
        };
        let pool = Pool::build(&config, before, |_| crate::pool::Standing::default());
        pool.take_effect(before);
        Arc::new(Plan::new(Arc::new(pool)))
    }

    #[test]
    fn listeners_of_a_pool_share_its_round_over_snapshots() {
        let mut pools = Pools::default();
        let (web, api) = (plan("web", None), plan("api", None));
        let key = pools.follow(&web, SEAT);
        assert_ne!(pools.follow(&api, SEAT), key);
        let mut turns = Vec::new();
        let mut plan = web;
        for _ in 0..6 {
            assert_eq!(pools.follow(&plan, SEAT), key);
            turns.push(pools.selector_mut(key).select(&Request::default()));
            plan = self::plan("web", Some(plan.pool()));
        }
        let round = [0, 1, 2, 0, 1, 2].map(Choice::Backend);
        assert_eq!(turns, round);
    }

    #[test]
    fn a_pool_is_forgotten_when_no_port_leads_there() {
        let mut pools = Pools::default();
        let (web, api) = (plan("web", None), plan("api", None));
        let keys = [&web, &api].map(|plan| pools.follow(plan, SEAT));
        pools.retain(&HashSet::from([keys[1]]));
        assert!(pools.present(web.pool()).is_none());
        assert!(pools.present(api.pool()).is_some());
        // Its round begins again if it comes back.
        assert_eq!(pools.follow(&web, SEAT), keys[0]);
        assert_eq!(pools.all().count(), 2);
    }
}
