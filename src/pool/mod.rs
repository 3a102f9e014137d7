//! The backends of a pool and what all workers count about them.
//!
//! A [`Pool`] is part of a snapshot and never changes; what is counted outlives snapshots and is
//! shared by those that follow each other.

#![forbid(unsafe_code)]

mod latency;
mod sticky;
mod tally;

use std::sync::Arc;

use crate::address::Address;
use crate::config::{self, Persist, Strategy};
use crate::guard::Limit;

pub use latency::Latency;
pub use sticky::StickyTable;
pub use tally::{Ended, Outlook, Tally, Totals};

/// A set of backends.
#[derive(Debug)]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// How a backend is selected.
    pub strategy: Strategy,
    /// Which clients come back to the backend that they had.
    pub persist: Option<Persist>,
    /// In the order of the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// Connections to all backends, being made or established: exact, but counted only where a
    /// bound of the strategy needs it, as all workers write it.
    pub connections: Option<Arc<Limit>>,
    /// Who comes back to whom, when it persists.
    pub sticky: Option<Arc<StickyTable>>,
}

/// One address of a pool.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Unique within its pool.
    pub name: String,
    /// Where it is connected to.
    pub address: Address,
    /// Its share, 0 to 256.
    pub weight: u16,
    /// It is selected only while no other backend can be.
    pub backup: bool,
    /// Its group, for two tiers.
    pub group: Option<String>,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// What is known of it.
    pub health: Health,
    /// What all workers count about it.
    pub tally: Arc<Tally>,
    /// The same count of its whole pool, where it is counted.
    in_pool: Option<Arc<Limit>>,
}

/// What the operator wants of a backend. The words are HAProxy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    /// It takes its share.
    #[default]
    Ready,
    /// It keeps its sessions and takes no more.
    Drain,
    /// It is away.
    Maint,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does, or nobody has looked.
    #[default]
    Up,
    /// It does not.
    Down,
}

impl Pool {
    /// A pool nobody is connected to.
    #[must_use]
    pub fn new(config: &config::Pool) -> Self {
        Self::build(config, None)
    }

    /// The pool that takes this one's place. Backends of the same name and address keep what was
    /// counted about them and the state that they are in.
    #[must_use]
    pub fn succeed(&self, config: &config::Pool) -> Self {
        Self::build(config, Some(self))
    }

    /// The same pool with some of its backends changed.
    #[must_use]
    pub fn with(&self, mut change: impl FnMut(&mut Backend)) -> Self {
        let backends = self.backends.iter().map(|backend| {
            let mut backend = Backend::clone(backend);
            change(&mut backend);
            Arc::new(backend)
        });
        Self {
            name: self.name.clone(),
            strategy: self.strategy.clone(),
            persist: self.persist.clone(),
            backends: backends.collect(),
            connections: self.connections.clone(),
            sticky: self.sticky.clone(),
        }
    }

    fn build(config: &config::Pool, before: Option<&Self>) -> Self {
        // A count that did not begin with its backends, or whose backends are not all here, would
        // be of others: then there is none.
        let stays = |old: &Arc<Backend>| {
            let mut backends = config.backends.iter();
            backends.any(|new| new.name == old.name && new.address == old.address)
        };
        let counted = config.strategy.bounds_load().then(|| match before {
            None => Some(Arc::new(Limit::unbounded())),
            Some(before) if before.backends.iter().all(stays) => before.connections.clone(),
            Some(_) => None,
        });
        let counted = counted.flatten();
        let backends = config.backends.iter().map(|backend| {
            let same =
                |old: &&Arc<Backend>| old.name == backend.name && old.address == backend.address;
            let old = before.and_then(|before| before.backends.iter().find(same));
            Arc::new(Backend::build(
                backend,
                old.map(Arc::as_ref),
                counted.as_ref(),
            ))
        });
        Self {
            name: config.name.clone(),
            strategy: config.strategy.clone(),
            persist: config.persist.clone(),
            backends: backends.collect(),
            connections: counted,
            sticky: sticky(config.persist.as_ref(), before),
        }
    }
}

/// The table of the pool before, unless it is of another key or size.
fn sticky(persist: Option<&Persist>, before: Option<&Pool>) -> Option<Arc<StickyTable>> {
    let persist = persist?;
    let ttl = u64::try_from(persist.ttl.as_nanos()).unwrap_or(u64::MAX);
    let same =
        |before: &Persist| before.key == persist.key && before.clients_max == persist.clients_max;
    let before = before.filter(|before| before.persist.as_ref().is_some_and(same));
    if let Some(table) = before.and_then(|before| before.sticky.clone()) {
        table.set_ttl(ttl);
        return Some(table);
    }
    Some(Arc::new(StickyTable::new(persist.clients_max, ttl)))
}

impl Backend {
    fn build(config: &config::Backend, old: Option<&Self>, in_pool: Option<&Arc<Limit>>) -> Self {
        let tally = old.map_or_else(Arc::default, |old| Arc::clone(&old.tally));
        let max = config.max_connections;
        tally
            .connections
            .set_max(max.map_or(u32::MAX, |max| max.get()));
        Self {
            name: config.name.clone(),
            address: config.address.clone(),
            weight: config.weight,
            backup: config.backup,
            group: config.group.clone(),
            admin: old.map_or_else(AdminState::default, |old| old.admin),
            health: old.map_or_else(Health::default, |old| old.health),
            tally,
            in_pool: in_pool.cloned(),
        }
    }

    /// Whether it takes connections: it has a weight, and nobody took it out.
    #[must_use]
    pub fn is_in_rotation(&self) -> bool {
        self.weight > 0 && self.admin == AdminState::Ready && self.health == Health::Up
    }

    /// Takes a place for a connection that is being made. `false`: there is none.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        let taken = self.tally.connections.try_acquire();
        if taken {
            // Without a ceiling it always succeeds.
            let _ = self.in_pool.as_ref().is_none_or(|all| all.try_acquire());
            self.tally.on_opened();
        }
        taken
    }

    /// Gives the place back: the connection is closed, or was never made.
    pub fn release(&self, ended: Ended) {
        self.tally.on_closed(ended);
        self.tally.connections.release();
        if let Some(all) = &self.in_pool {
            all.release();
        }
    }
}
