//! The backends of a pool and what all workers count about them.
//!
//! A [`Pool`] is part of a snapshot and never changes; what is counted outlives snapshots and is
//! shared by those that follow each other.

#![forbid(unsafe_code)]

mod crowd;
mod ejection;
mod history;
mod latency;
mod queue;
mod rise;
mod settle;
mod sticky;
mod tally;
mod traffic;

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
pub use crate::config::AdminState;
use crate::config::{self, OnDown, Persist, Strategy, Target};
use crate::guard::Limit;
use crate::origin::Origins;
use crate::shared::Shared;
use crate::time::nanos;

pub use ejection::Cause;
pub use history::{Condition, History, Past};
pub use latency::Latency;
pub use queue::{Call, Queue, Ticket};
pub use rise::Rise;
pub use sticky::StickyTable;
pub use tally::{Ended, Outlook, Tally, Totals};
pub use traffic::Traffic;

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
    /// Backends that are ejected at this moment, and how many may be: exact over all workers.
    pub ejections: Arc<Limit>,
    /// Bytes to and from all backends, those that have left included.
    pub traffic: Arc<Traffic>,
    /// Clients that wait for a place.
    pub queue: Arc<Queue>,
    /// Which client comes back to which backend, when it persists.
    pub sticky: Option<Arc<StickyTable>>,
    /// Backends of the pools before that are not of this one, while sessions hold them: one that
    /// comes back finds its counts again.
    pub leaving: Vec<Arc<Backend>>,
    /// Too few backends are usable: health and ejection are ignored.
    pub panic: bool,
    /// A backend's slow start lasts.
    pub rising: bool,
    /// A backend listens on a Unix socket, whose backlog may be full.
    pub crowds: bool,
    /// As it was configured.
    pub config: Shared<config::Pool>,
}

/// One address of a pool. What a selection reads of each comes first, in one cache line.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Backend {
    /// What all workers count about it.
    pub tally: Arc<Tally>,
    /// Its share, 0 to 256.
    pub weight: u16,
    /// Unique within its pool.
    pub name: String,
    /// Where it is connected to; of a host, what its name means by this snapshot.
    pub address: Address,
    /// What connections to it begin at.
    pub origins: Arc<Origins>,
    /// Its host name, where one was written in place of an address.
    pub host: Option<String>,
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
    /// The same count of its whole pool.
    in_pool: Arc<Limit>,
    /// Of its whole pool.
    ejections: Arc<Limit>,
    /// Failures in a row that eject it.
    failures_max: u32,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does, or is not probed.
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

impl Pool {
    /// A pool without connections, of backends that are up; its limits hold.
    #[must_use]
    pub fn new(config: &config::Pool) -> Self {
        let pool = Self::build(config, None, |_| Standing::default());
        pool.take_effect(None);
        pool
    }

    /// The pool that replaces `before`. Backends of the same name and address keep their counts.
    ///
    /// Changes nothing that workers see: what the two pools share changes with
    /// [`Self::take_effect`].
    #[must_use]
    pub fn build(
        config: &config::Pool,
        before: Option<&Self>,
        standing: impl Fn(&config::Backend) -> Standing,
    ) -> Self {
        let shared = Shared::from(config.clone());
        Self::compose(&shared, before, config.backends.iter().map(standing))
    }

    /// The same with what is known of each backend, in the order of the configuration.
    #[must_use]
    pub fn compose(
        config: &Shared<config::Pool>,
        before: Option<&Self>,
        standings: impl Iterator<Item = Standing>,
    ) -> Self {
        let shared = |limit: fn(&Self) -> &Arc<Limit>| {
            let fresh = || Arc::new(Limit::unbounded());
            before.map_or_else(fresh, |before| Arc::clone(limit(before)))
        };
        let mut pool = Self {
            name: config.name.clone(),
            strategy: config.strategy.clone(),
            persist: config.persist.clone(),
            backends: Vec::new(),
            connections: shared(|before| &before.connections),
            ejections: shared(|before| &before.ejections),
            traffic: before.map_or_else(Arc::default, |before| Arc::clone(&before.traffic)),
            queue: before.map_or_else(
                || Arc::new(Queue::new(config.queue)),
                |before| Arc::clone(&before.queue),
            ),
            sticky: sticky(config.persist.as_ref(), before),
            leaving: before.map_or_else(Vec::new, |before| before.left_by(config)),
            panic: false,
            rising: false,
            crowds: false,
            config: config.clone(),
        };
        // Made only where backends stand in another order than before.
        let known = LazyCell::new(|| -> HashMap<_, _> {
            before.into_iter().flat_map(Self::known).collect()
        });
        for (index, (config, standing)) in config.backends.iter().zip(standings).enumerate() {
            let same = before.and_then(|before| before.backends.get(index));
            let same = same.filter(|old| old.is(config));
            let old = same.or_else(|| known.get(&(&*config.name, config.target())).copied());
            let backend = match old {
                Some(old) if old.is_unchanged(config, standing, &pool) => Arc::clone(old),
                old => {
                    let tally = old.map_or_else(Arc::default, |old| Arc::clone(&old.tally));
                    Arc::new(Backend::new(config, standing, tally, &pool))
                }
            };
            pool.backends.push(backend);
        }
        pool.settle();
        pool
    }

    /// The backend of this name.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.name == name)
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
            ejections: Arc::clone(&self.ejections),
            traffic: Arc::clone(&self.traffic),
            queue: Arc::clone(&self.queue),
            sticky: self.sticky.clone(),
            leaving: self.leaving.clone(),
            panic: false,
            rising: false,
            crowds: false,
            config: self.config.clone(),
        };
        pool.settle();
        pool
    }

    /// Whether it has all the connections that it may have, over all backends.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.config.max_connections.is_some() && self.connections.is_full()
    }

    /// Those of its backends that take connections while they have places.
    pub fn reachable(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let desperate = self.is_desperate();
        let rotating = self.backends.iter().filter(|one| one.is_in_rotation());
        rotating.filter(move |one| desperate || !one.is_shut_out())
    }

    /// How many clients could be connected now, in nanoseconds of the workers' clock.
    #[must_use]
    pub fn places(&self, now: u64) -> u32 {
        let places = self.reachable().map(|backend| backend.places(now));
        let places = places.fold(0, u32::saturating_add);
        places.min(self.connections.places())
    }

    /// When the first of the backends whose backlog is full is asked again.
    #[must_use]
    pub fn ask_at(&self, now: u64) -> Option<u64> {
        let crowds = self.backends.iter().filter(|_| self.crowds);
        let times = crowds.filter_map(|backend| backend.tally.crowd.ask_at(now));
        times.min()
    }

    /// Whether those that are ejected are taken all the same: no other is up. Where the pool is
    /// to fail open it panics once the control thread knows.
    #[must_use]
    pub fn is_desperate(&self) -> bool {
        let mut rotating = self.backends.iter().filter(|one| one.is_in_rotation());
        self.config.takes_ejected()
            && self.ejections.used() > 0
            && rotating.all(|backend| backend.is_shut_out())
    }

    /// Over which time the sessions of a backend are closed because it is down; `None`: they stay.
    /// While the pool panics the check may be what is wrong, and no session is cut for it.
    #[must_use]
    pub fn closes_over(&self, backend: &Backend) -> Option<Duration> {
        match self.config.on_down {
            OnDown::Close(over) if backend.health == Health::Down && !self.panic => Some(over),
            OnDown::Close(_) | OnDown::Keep => None,
        }
    }

    /// Whether a composition would differ in nothing that is selected by, counted or remembered.
    #[must_use]
    pub fn is_unchanged(
        &self,
        config: &Shared<config::Pool>,
        mut standings: impl Iterator<Item = Standing>,
    ) -> bool {
        self.config == *config
            && self
                .backends
                .iter()
                .all(|one| standings.next() == Some(one.standing()))
            && self
                .leaving
                .iter()
                .all(|one| one.tally.connections.used() > 0)
            && self.panic == self.is_to_panic()
    }

    /// Backends that have connections and are not in the configuration that follows.
    fn left_by(&self, config: &config::Pool) -> Vec<Arc<Backend>> {
        let stays = |(old, new): (&Arc<Backend>, _)| old.is(new);
        let all_stay = self.backends.len() == config.backends.len()
            && self.backends.iter().zip(&config.backends).all(stays);
        if all_stay && self.leaving.is_empty() {
            return Vec::new();
        }
        let named = config.backends.iter();
        let named: HashSet<_> = named.map(|one| (&*one.name, one.target())).collect();
        let left = self.known().filter(|(who, _)| !named.contains(who));
        let left = left.map(|(_, old)| old);
        let used = left.filter(|old| old.tally.connections.used() > 0);
        used.cloned().collect()
    }

    /// All that something is counted of, by name and target: what a host name means may change.
    fn known(&self) -> impl Iterator<Item = ((&str, Target<'_>), &Arc<Backend>)> {
        let known = self.backends.iter().chain(&self.leaving);
        known.map(|backend| ((&*backend.name, backend.target()), backend))
    }
}

/// The table of the pool before, unless it is of another key or size.
fn sticky(persist: Option<&Persist>, before: Option<&Pool>) -> Option<Arc<StickyTable>> {
    let persist = persist?;
    let ttl = nanos(persist.ttl);
    let same =
        |before: &Persist| before.key == persist.key && before.clients_max == persist.clients_max;
    let before = before.filter(|before| before.persist.as_ref().is_some_and(same));
    let table = before.and_then(|before| before.sticky.clone());
    table.or_else(|| Some(Arc::new(StickyTable::new(persist.clients_max, ttl))))
}

impl Backend {
    fn new(config: &config::Backend, standing: Standing, tally: Arc<Tally>, pool: &Pool) -> Self {
        let ejection = pool.config.ejection;
        Self {
            name: config.name.clone(),
            address: config.address.clone(),
            origins: Arc::new(pool.config.origins.towards(&config.address)),
            host: config.host.clone(),
            weight: config.weight,
            backup: config.backup,
            group: config.group.clone(),
            admin: config.state,
            health: standing.health,
            rise: standing.rise,
            standby: standing.standby,
            forced: false,
            tally,
            in_pool: Arc::clone(&pool.connections),
            ejections: Arc::clone(&pool.ejections),
            failures_max: ejection.map_or(u32::MAX, |ejection| ejection.failures),
        }
    }

    /// Whether it is this one: the same name at the same target.
    #[must_use]
    pub fn is(&self, config: &config::Backend) -> bool {
        self.name == config.name && self.target() == config.target()
    }

    /// Where it is, as it was written.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target::new(self.host.as_deref(), &self.address)
    }

    /// What its host name means, if it has one and that is known.
    #[must_use]
    pub fn resolved(&self) -> Option<&Address> {
        (self.host.is_some() && self.is_resolved()).then_some(&self.address)
    }

    /// Whether it is to take connections if it can: it has a weight and an address, nobody took it
    /// out, and it is not in reserve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.weight > 0 && self.admin == AdminState::Ready && !self.standby && self.is_resolved()
    }

    /// Whether it has an address: one that is written as one has.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        config::is_resolved(self.host.as_deref(), &self.address)
    }

    /// Whether it is ready and answers. It may be ejected, which changes from moment to moment.
    #[must_use]
    pub fn is_in_rotation(&self) -> bool {
        self.is_ready() && (self.forced || self.health == Health::Up)
    }

    /// How it stands, in a word: what the operator wants comes first.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (self.admin, self.health) {
            (AdminState::Maint, _) => Condition::Maint,
            (AdminState::Drain, _) => Condition::Drain,
            (AdminState::Ready, _) if self.standby => Condition::Standby,
            (AdminState::Ready, _) if !self.is_resolved() => Condition::Unresolved,
            (AdminState::Ready, _) if self.tally.is_ejected() => Condition::Ejected,
            (AdminState::Ready, Health::Down) => Condition::Down,
            (AdminState::Ready, Health::Up) => Condition::Up,
        }
    }

    /// Whether it answers and is not ejected.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.health == Health::Up && !self.tally.is_ejected()
    }

    /// Whether it gets nothing, as it is ejected and its pool does not panic.
    #[must_use]
    pub fn is_shut_out(&self) -> bool {
        !self.forced && self.tally.is_ejected()
    }

    /// How much of its share it has at a time, in percent, 1 to 100: less than all in slow start.
    #[must_use]
    pub fn percent(&self, now: u64) -> u8 {
        self.rise.map_or(100, |rise| rise.percent(now))
    }

    /// Whether it has all the connections that it may have at a time.
    #[must_use]
    pub fn is_full(&self, now: u64) -> bool {
        self.tally.connections.used() >= self.max(now)
    }

    /// How many more connections it may have at a time.
    #[must_use]
    pub fn places(&self, now: u64) -> u32 {
        let places = self.max(now).saturating_sub(self.tally.connections.used());
        places.min(self.tally.crowd.places(now))
    }

    /// Its backlog is full: it gets nothing more until it is asked again, and is not to blame.
    pub fn on_crowded(&self, now: u64) {
        self.tally.crowd.on_full(now);
        self.tally.on_unsent();
    }

    /// It took a connection at once.
    pub fn on_taken(&self) {
        self.tally.crowd.on_taken();
    }

    /// Connections at most: fewer in slow start, none while its backlog is full.
    fn max(&self, now: u64) -> u32 {
        if self.tally.crowd.places(now) == 0 {
            return 0;
        }
        let max = self.tally.connections.max();
        match self.rise {
            Some(rise) if max < u32::MAX => rise.places(max, now),
            Some(_) | None => max,
        }
    }

    /// Takes a place for a connection that is being made, of its own and of its pool. `false`:
    /// there is none. `now` is nanoseconds of the workers' clock.
    #[must_use]
    pub fn try_acquire(&self, now: u64) -> bool {
        if !self.tally.connections.try_acquire_within(self.max(now)) {
            return false;
        }
        if !self.in_pool.try_acquire() {
            self.tally.connections.release();
            return false;
        }
        self.tally.on_opened();
        true
    }

    /// It reset or hung up on a session that it had not answered. One failure in a row too many
    /// ejects it, on all workers at once; `true`: this one did.
    pub fn on_failed(&self) -> bool {
        self.fail(Cause::Failed)
    }

    /// The same for a connect that failed.
    pub fn on_unreached(&self) -> bool {
        self.tally.on_unreached();
        self.fail(Cause::Unreached)
    }

    fn fail(&self, cause: Cause) -> bool {
        self.tally.on_failed() >= self.failures_max && self.eject(cause)
    }

    /// Ejects it. `false`: it is ejected already, as many as may be are, or its pool ejects none.
    pub fn eject(&self, cause: Cause) -> bool {
        self.tally.ejection.eject(cause, &self.ejections)
    }

    /// It served a session that began while it was ejected. That ends the ejection, unless it is
    /// for being slow. `true`: this one did.
    pub fn on_trial_passed(&self) -> bool {
        let slow = self.tally.ejected_for() == Some(Cause::Slow);
        !slow && self.readmit()
    }

    /// Ends its ejection, with no failure held against it. `false`: it is not ejected.
    pub fn readmit(&self) -> bool {
        if !self.tally.is_ejected() {
            return false;
        }
        // First: a session that fails meanwhile must not eject it for what it is forgiven.
        self.tally.on_sound();
        self.tally.ejection.readmit(&self.ejections)
    }

    /// What is known of it beside its configuration.
    fn standing(&self) -> Standing {
        Standing {
            health: self.health,
            rise: self.rise,
            standby: self.standby,
        }
    }

    /// Whether one that is made for a pool that follows would be the same.
    fn is_unchanged(&self, config: &config::Backend, standing: Standing, pool: &Pool) -> bool {
        let ejection = pool.config.ejection;
        self.standing() == standing
            && self.address == config.address
            && self.weight == config.weight
            && self.backup == config.backup
            && self.group == config.group
            && self.admin == config.state
            && self.failures_max == ejection.map_or(u32::MAX, |ejection| ejection.failures)
            && *self.origins == pool.config.origins.towards(&config.address)
    }

    /// Gives the place back: the connection is closed, or was never made.
    pub fn release(&self, ended: Ended) {
        self.tally.on_closed(ended);
        self.tally.connections.release();
        self.in_pool.release();
    }
}
