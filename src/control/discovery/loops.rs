//! Addresses that lead back to their own pool: those that were discovered, and declared ones that
//! this machine has got since. They are left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use crate::address::Address;
use crate::admin::model::EventKind;
use crate::config::{Backend, Config, Machine, found_loops, leads_back};
use crate::control::events::{Severity, Subject};
use crate::sys;

use super::Discoveries;

/// Addresses that are not used, by pool.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    by_pool: BTreeMap<String, BTreeMap<Address, Reason>>,
}

#[derive(Debug)]
struct Reason {
    backend: String,
    sentence: String,
}

impl LeftOut {
    /// Takes backends with these addresses out of a configuration. Those with host names have no
    /// address meanwhile.
    fn remove_from(&self, config: &mut Config) {
        for (pool, out) in &self.by_pool {
            let is_out = |its: &Backend| its.host.is_none() && out.contains_key(&its.address);
            let mut pools = config.pools.iter_mut();
            // Only a pool that changes is borrowed mutably: the others stay shared.
            if let Some(pool) = pools.find(|its| its.name == *pool)
                && pool.backends.iter().any(is_out)
            {
                pool.backends.retain(|backend| !is_out(backend));
            }
        }
    }

    fn has(&self, pool: &str, address: &Address) -> bool {
        let of_pool = self.by_pool.get(pool);
        of_pool.is_some_and(|of_pool| of_pool.contains_key(address))
    }

    /// Each address, and why it is left out.
    pub(super) fn messages(&self) -> impl Iterator<Item = String> {
        let all = self.by_pool.iter();
        all.flat_map(|(pool, out)| out.iter().map(|its| message(pool, its)))
    }

    /// Why an address of a backend is left out, if so.
    pub(super) fn sentence(&self, pool: &str, backend: &str) -> Option<String> {
        let mut out = self.by_pool.get(pool)?.iter();
        let (address, reason) = out.find(|(_, reason)| reason.backend == backend)?;
        Some(format!("{}; {address} is left out", reason.sentence))
    }

    /// The others of these backends.
    pub(super) fn rest(&self, pool: &str, mut found: Vec<Backend>) -> Vec<Backend> {
        if let Some(out) = self.by_pool.get(pool) {
            found.retain(|backend| !out.contains_key(&backend.address));
        }
        found
    }

    /// This address of a backend's host name, or the one that it had before.
    pub(super) fn usable(
        &self,
        pool: &str,
        backend: &Backend,
        ip: IpAddr,
        before: Option<&Config>,
    ) -> Option<IpAddr> {
        let Address::Tcp(place) = &backend.address else {
            return Some(ip);
        };
        let is_used = |ip: &IpAddr| {
            let address = Address::Tcp(SocketAddr::new(*ip, place.port()));
            !self.has(pool, &address)
        };
        if is_used(&ip) {
            return Some(ip);
        }
        let before = before?.pool(pool)?.backend(&backend.name)?;
        match &before.address {
            Address::Tcp(last) if before.is_resolved() && before.target() == backend.target() => {
                Some(last.ip()).filter(is_used)
            }
            Address::Tcp(_) | Address::Unix(_) => None,
        }
    }
}

impl Discoveries {
    /// The configuration that `combine` makes of what is found, without addresses that lead back to
    /// their own pool. Each is left out of what this finds, and the last good ones stay where none
    /// is left. A declared backend is left out as well, until its address is no longer this
    /// machine's, or its path leads elsewhere. `is_news`: what is found may differ from the last
    /// time.
    pub(in crate::control) fn without_loops(
        &mut self,
        is_news: bool,
        combine: impl Fn(&Self) -> Config,
    ) -> Config {
        // Other listeners may have made them usable.
        let before = std::mem::take(&mut self.left_out.by_pool);
        let own = Rc::clone(&self.own_addresses);
        let sockets = Rc::clone(&self.socket_paths);
        let machine = Machine {
            is_own: &|to| own.has(to),
            target: &|path| sockets.target(path),
        };
        let config = loop {
            let mut config = combine(self);
            self.left_out.remove_from(&mut config);
            let loops: Vec<_> = found_loops(&config, machine)
                .into_iter()
                .map(|(pool, backend, sentence)| {
                    let reason = Reason {
                        backend: backend.name.clone(),
                        sentence,
                    };
                    (pool.to_owned(), backend.address.clone(), reason)
                })
                .collect();
            // What was found may have closed the loop, and costs no declared backend then.
            let is_found = |(pool, address, _): &(String, Address, Reason)| {
                let found = self.found(pool).unwrap_or_default();
                found.iter().any(|backend| backend.address == *address)
            };
            let (found, declared): (Vec<_>, Vec<_>) = loops.into_iter().partition(is_found);
            let mut is_new = false;
            for (pool, address, reason) in if found.is_empty() { declared } else { found } {
                let of_pool = self.left_out.by_pool.entry(pool).or_default();
                is_new |= of_pool.insert(address, reason).is_none();
            }
            if !is_new {
                break config;
            }
        };
        own.end_round();
        sockets.end_round();
        for (pool, out) in &self.left_out.by_pool {
            let known = before.get(pool);
            let is_new = |address| !known.is_some_and(|known| known.contains_key(address));
            for (address, reason) in out.iter().filter(|(address, _)| is_new(*address)) {
                let about = Subject::backend(pool, &reason.backend);
                let message = message(pool, (address, reason));
                let kind = EventKind::BackendRefused;
                let warn = Severity::Warn;
                self.events.tell_one_of_many(warn, kind, about, message);
            }
        }
        if is_news {
            let names: Vec<_> = self.pools.keys().cloned().collect();
            for name in names {
                let found = self.found(&name).unwrap_or_default();
                if let Some(asking) = self.pools.get_mut(&name) {
                    asking.good = found;
                }
            }
        }
        config
    }

    /// Why a backend would lead back to its pool, by what is known.
    pub(in crate::control) fn leads_back(
        &self,
        config: &Config,
        pool: &str,
        backend: &Backend,
    ) -> Option<String> {
        let machine = Machine {
            is_own: &sys::is_own_address,
            target: &|path: &Path| self.socket_paths.target(path),
        };
        leads_back(config, pool, backend, machine)
    }

    /// Looks again which addresses this machine has, and where paths of Unix sockets lead to; what
    /// comes of the latter is news of [`Self::changed`]. `true`: some addresses have come or gone,
    /// so that backends may lead back to their own pool since then, or no longer. To be called each
    /// second.
    pub(in crate::control) fn look_at_own_addresses(&self) -> bool {
        self.socket_paths.look_again();
        self.own_addresses.look_again()
    }

    /// Whether an address is left out.
    pub(in crate::control) fn leaves_out(&self) -> bool {
        !self.left_out.by_pool.is_empty()
    }

    /// Whether this address of this pool is left out.
    pub(in crate::control) fn leaves_out_address(&self, pool: &str, address: &Address) -> bool {
        self.left_out.has(pool, address)
    }

    /// Whether an address of this pool is left out.
    pub(in crate::control) fn leaves_out_of(&self, pool: &str) -> bool {
        self.left_out.by_pool.contains_key(pool)
    }
}

fn message(pool: &str, (address, reason): (&Address, &Reason)) -> String {
    format!("pool `{pool}`: {}; {address} is left out", reason.sentence)
}
