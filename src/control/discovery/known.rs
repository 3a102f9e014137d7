//! What is known of a pool whose new names have no address yet: a reload may come while the DNS is
//! silent, and the backends in force are well.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use crate::address::Address;
use crate::config::{Backend, Config, Pool};
use crate::shared::Shared;
use crate::wording::plural;

use super::Discoveries;

/// Backends that a reload has taken out of the file, by pool. They stay until one of the names that
/// came with it has an address.
#[derive(Debug, Default)]
pub(in crate::control) struct Staying(BTreeMap<String, Vec<Backend>>);

impl Staying {
    /// A sentence for each pool.
    pub(super) fn messages(&self) -> impl Iterator<Item = String> {
        let pools = self.0.iter();
        pools.map(|(pool, kept)| {
            let backends = plural(kept.len() as u64, "known backend");
            format!("pool `{pool}`: no name has an address yet; keeping the last {backends}")
        })
    }
}

/// The address that a backend of this name has in force, whatever host name or address led to it.
pub(super) fn address(before: &Config, pool: &str, backend: &Backend) -> Option<IpAddr> {
    let before = before.pool(pool)?.backend(&backend.name)?;
    match &before.address {
        Address::Tcp(address) if before.is_resolved() => Some(address.ip()),
        Address::Tcp(_) | Address::Unix(_) => None,
    }
}

impl Discoveries {
    /// A reload is to change the declared configuration `old` to `new`, while `in_force` is in
    /// force. Answers with what was kept before, for a reload that fails.
    pub(in crate::control) fn keep_known(
        &mut self,
        old: &Config,
        new: &Config,
        in_force: &Config,
    ) -> Staying {
        let before = std::mem::take(&mut self.staying);
        for pool in &new.pools {
            let old = old.pool(&pool.name);
            let kept = match old.zip(in_force.pool(&pool.name)) {
                Some((old, in_force)) if asks_again(pool, old) => others(&in_force.backends, pool),
                // It may wait since an earlier reload.
                _ => before.0.get(&pool.name).cloned().unwrap_or_default(),
            };
            if !kept.is_empty() {
                self.staying.0.insert(pool.name.clone(), kept);
            }
        }
        before
    }

    /// The reload has failed.
    pub(in crate::control) fn restore_known(&mut self, before: Staying) {
        self.staying = before;
    }

    /// Adds the backends that stay to a pool, if it has no address of its own.
    pub(in crate::control) fn add_known(&self, pool: &mut Shared<Pool>) {
        let Some(kept) = self.staying.0.get(&pool.name) else {
            return;
        };
        if in_rotation(pool).any(Backend::is_resolved) {
            return;
        }
        let kept = others(kept, pool);
        // Reserves stay last.
        let at = in_rotation(pool).count();
        pool.backends.splice(at..at, kept);
    }

    /// A sentence for each pool that keeps backends.
    pub(in crate::control) fn known(&self) -> impl Iterator<Item = String> {
        self.staying.messages()
    }

    /// Ends what a configuration that takes effect no longer needs.
    pub(in crate::control) fn end_known(&mut self, config: &Config) {
        self.staying.0.retain(|pool, kept| {
            let is_kept = |its: &Backend| kept.iter().any(|kept| kept.name == its.name);
            let Some(pool) = config.pool(pool) else {
                return false;
            };
            let mut resolved = in_rotation(pool).filter(|its| its.is_resolved());
            resolved.all(is_kept)
        });
    }
}

/// Whether a pool asks for names that it did not ask for before.
fn asks_again(pool: &Pool, old: &Pool) -> bool {
    let hosts = |pool: &Pool| -> HashSet<String> {
        let hosts = pool.backends.iter().filter_map(|its| its.host.as_ref());
        hosts.map(|host| host.to_ascii_lowercase()).collect()
    };
    let is_new = pool.discovery.is_some() && pool.discovery != old.discovery;
    is_new || !hosts(pool).is_subset(&hosts(old))
}

/// Those of these backends in rotation that have an address, and that a pool does not have.
fn others(all: &[Backend], pool: &Pool) -> Vec<Backend> {
    let names: HashSet<_> = pool.backends.iter().map(|its| &*its.name).collect();
    let others = all.iter().filter(|its| !names.contains(&*its.name));
    let others = others.filter(|its| its.is_resolved() && !its.reserve);
    others.cloned().collect()
}

/// The backends of a pool that are not in reserve.
fn in_rotation(pool: &Pool) -> impl Iterator<Item = &Backend> {
    pool.backends.iter().filter(|its| !its.reserve)
}
