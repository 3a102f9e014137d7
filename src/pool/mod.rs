//! The backends of a pool and what all workers count about them.
//!
//! A [`Pool`] is part of a snapshot and never changes; what is counted outlives snapshots and is
//! shared by those that follow each other.

#![forbid(unsafe_code)]

mod latency;
mod queue;
mod sticky;
mod tally;

use std::sync::Arc;

use crate::address::Address;
pub use crate::config::AdminState;
use crate::config::{self, Persist, Strategy};
use crate::guard::Limit;

pub use latency::Latency;
pub use queue::{Call, Queue, Ticket};
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
    /// Connections to all backends, being made or established, over all workers: exact.
    pub connections: Arc<Limit>,
    /// Who waits for a place.
    pub queue: Arc<Queue>,
    /// Who comes back to whom, when it persists.
    pub sticky: Option<Arc<StickyTable>>,
    /// Backends of the pools before that are not of this one, while sessions hold them: one that
    /// comes back finds its counts again.
    pub leaving: Vec<Arc<Backend>>,
    /// Too few backends are usable: health and ejection are ignored.
    pub panic: bool,
    /// As it was configured.
    pub config: config::Pool,
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
    /// Its slow start, while it lasts.
    pub rise: Option<Rise>,
    /// It is of the reserve and waits there.
    pub standby: bool,
    /// Its pool panics: health and ejection are ignored.
    pub forced: bool,
    /// What all workers count about it.
    pub tally: Arc<Tally>,
    /// The same count of its whole pool.
    in_pool: Arc<Limit>,
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

/// What the control thread knows of a backend beside its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What its probes say.
    pub health: Health,
    /// Its slow start, while it lasts.
    pub rise: Option<Rise>,
    /// It is of the reserve and waits there.
    pub standby: bool,
}

/// A slow start: from nothing to the full share, linear over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rise {
    /// When it began, in ns of the workers' clock.
    pub since: u64,
    /// How long it takes, in ns, above 0.
    pub over: u64,
}

impl Pool {
    /// A pool nobody is connected to, of backends that are up.
    #[must_use]
    pub fn new(config: &config::Pool) -> Self {
        Self::build(config, None, |_| Standing::default())
    }

    /// The pool that takes the place of the one before, if there was one. Backends of the same name
    /// and address keep what was counted about them.
    #[must_use]
    pub fn build(
        config: &config::Pool,
        before: Option<&Self>,
        standing: impl Fn(&config::Backend) -> Standing,
    ) -> Self {
        let connections = before.map_or_else(
            || Arc::new(Limit::unbounded()),
            |before| Arc::clone(&before.connections),
        );
        let max = config.max_connections;
        connections.set_max(max.map_or(u32::MAX, |max| max.get()));
        let queue = before.map_or_else(
            || Arc::new(Queue::new(config.queue)),
            |before| Arc::clone(&before.queue),
        );
        queue.set(config.queue);
        let known = |backend: &config::Backend| {
            let before = before?;
            let mut known = before.backends.iter().chain(&before.leaving);
            known.find(|old| old.is(backend))
        };
        let backends = config.backends.iter().map(|backend| {
            let tally = known(backend).map_or_else(Arc::default, |old| Arc::clone(&old.tally));
            Arc::new(Backend::new(
                backend,
                standing(backend),
                tally,
                &connections,
            ))
        });
        let mut pool = Self {
            name: config.name.clone(),
            strategy: config.strategy.clone(),
            persist: config.persist.clone(),
            backends: backends.collect(),
            sticky: sticky(config.persist.as_ref(), before),
            leaving: before.map_or_else(Vec::new, |before| before.left_by(config)),
            connections,
            queue,
            panic: false,
            config: config.clone(),
        };
        pool.settle();
        pool
    }

    /// The same pool with some of its backends changed.
    #[must_use]
    pub fn with(&self, mut change: impl FnMut(&mut Backend)) -> Self {
        let backends = self.backends.iter().map(|backend| {
            let mut backend = Backend::clone(backend);
            change(&mut backend);
            Arc::new(backend)
        });
        let mut pool = Self {
            name: self.name.clone(),
            strategy: self.strategy.clone(),
            persist: self.persist.clone(),
            backends: backends.collect(),
            connections: Arc::clone(&self.connections),
            queue: Arc::clone(&self.queue),
            sticky: self.sticky.clone(),
            leaving: self.leaving.clone(),
            panic: false,
            config: self.config.clone(),
        };
        pool.settle();
        pool
    }

    /// How many more connections its backends in rotation may have now.
    #[must_use]
    pub fn places(&self) -> u32 {
        let backends = self
            .backends
            .iter()
            .filter(|backend| backend.is_in_rotation());
        let places = backends.map(|backend| backend.tally.connections.places());
        places
            .fold(0, u32::saturating_add)
            .min(self.connections.places())
    }

    /// Backends that are in use and not in the configuration that follows.
    fn left_by(&self, config: &config::Pool) -> Vec<Arc<Backend>> {
        let known = self.backends.iter().chain(&self.leaving);
        let left = known.filter(|old| {
            let stays = config.backends.iter().any(|backend| old.is(backend));
            !stays && old.tally.connections.used() > 0
        });
        left.cloned().collect()
    }

    /// Decides whether it panics.
    fn settle(&mut self) {}
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
    fn new(
        config: &config::Backend,
        standing: Standing,
        tally: Arc<Tally>,
        in_pool: &Arc<Limit>,
    ) -> Self {
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
            admin: config.state,
            health: standing.health,
            rise: standing.rise,
            standby: standing.standby,
            forced: false,
            tally,
            in_pool: Arc::clone(in_pool),
        }
    }

    /// Whether it is this one: the same name at the same address.
    #[must_use]
    pub fn is(&self, config: &config::Backend) -> bool {
        self.name == config.name && self.address == config.address
    }

    /// Whether it takes connections: it has a weight, and nobody took it out.
    #[must_use]
    pub fn is_in_rotation(&self) -> bool {
        let answers = self.forced || self.health == Health::Up;
        self.weight > 0 && self.admin == AdminState::Ready && !self.standby && answers
    }

    /// Takes a place for a connection that is being made. `false`: there is none.
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        let taken = self.tally.connections.try_acquire();
        if taken {
            // Without a ceiling it always succeeds.
            let _ = self.in_pool.try_acquire();
            self.tally.on_opened();
        }
        taken
    }

    /// Gives the place back: the connection is closed, or was never made.
    pub fn release(&self, ended: Ended) {
        self.tally.on_closed(ended);
        self.tally.connections.release();
        self.in_pool.release();
    }
}
