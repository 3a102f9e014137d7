//! The backends of a pool and what all workers count about them.
//!
//! A [`Pool`] is part of a snapshot and never changes. Its counts outlive it: the pools of later
//! snapshots share them.

#![forbid(unsafe_code)]

mod backlog;
mod cancels;
mod ejection;
mod history;
mod latency;
mod panic;
mod queue;
mod slow_start;
mod sticky;
mod tally;
mod times;
mod traffic;

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::address::Address;
use crate::buckets::SessionTimes;
pub use crate::config::AdminState;
use crate::config::{self, OnDown, Persist, SendProxy, Strategy, Target};
use crate::guard::Limit;
use crate::origin::Origins;
use crate::shared::Shared;
use crate::tls::Originator;

pub use cancels::{CancelPlace, CanceledBy, Cancels};
pub use ejection::Cause;
pub use history::{Condition, History, HistorySummary};
pub use latency::{Latency, surely_times};
pub use panic::Service;
pub use queue::{Called, Missed, Queue, Ticket};
pub use slow_start::SlowStart;
pub use sticky::{Learned, StickyEntry, StickyPage, StickyTable, StickyWatch};
pub use tally::{Ended, Outlook, Tally, Totals};
pub use traffic::Traffic;

/// A set of backends.
#[derive(Debug)]
pub struct Pool {
    /// What records that outlive it name it by: no other pool of this process has it, and it stays
    /// over all snapshots.
    pub number: u32,
    /// Unique among pools.
    pub name: String,
    /// How a backend is selected.
    pub strategy: Strategy,
    /// Which clients return to the backend that they had; `None`: none.
    pub persist: Option<Persist>,
    /// In the order of the configuration.
    pub backends: Vec<Arc<Backend>>,
    /// Connections to all backends, being made or established: exact over all workers.
    pub connections: Arc<Limit>,
    /// Ejected backends, and how many may be ejected: exact over all workers.
    pub ejections: Arc<Limit>,
    /// Bytes to and from all backends, including those that have left.
    pub traffic: Arc<Traffic>,
    /// How long sessions of all backends took, including those that have left.
    pub times: Arc<SessionTimes>,
    /// Clients that wait for a place.
    pub queue: Arc<Queue>,
    /// The backends of persistent clients, where the pool persists.
    pub sticky: Option<Arc<StickyTable>>,
    /// Backends of earlier pools that are not in this one, kept while sessions use them: one that
    /// returns finds its counts again.
    pub leaving: Vec<Arc<Backend>>,
    /// Too few backends are usable: the pool ignores health and ejection.
    pub panic: bool,
    /// A backend is in slow start.
    pub rising: bool,
    /// A backend listens on a Unix socket, whose backlog may be full.
    pub has_backlogs: bool,
    /// The TLS of its backends, where they speak it.
    pub tls: Option<Arc<Originator>>,
    /// The configuration that it was built from.
    pub config: Shared<config::Pool>,
}

/// One address of a pool. What a selection reads of each comes first, in one cache line.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Backend {
    /// What all workers count about it.
    pub tally: Arc<Tally>,
    /// Its share of the connections, 0 to 256; with 0 it gets none.
    pub weight: u16,
    /// What records that outlive it name it by: no other backend of this process has it. It stays
    /// over all snapshots in which the backend has this name and this address.
    pub number: u32,
    /// Unique within its pool.
    pub name: String,
    /// The address to connect to. For a host name, the address that it has in this snapshot.
    pub address: Address,
    /// The local addresses that connections to it come from.
    pub origins: Arc<Origins>,
    /// The PROXY header that connections to it begin with.
    pub send_proxy: Option<SendProxy>,
    /// Its host name, if the configuration has one in place of an address.
    pub host: Option<String>,
    /// It is selected only while no other backend is usable.
    pub backup: bool,
    /// Its group, for `two_tier`.
    pub group: Option<String>,
    /// The state that the operator set.
    pub admin: AdminState,
    /// The result of its probes.
    pub health: Health,
    /// Its slow start, while that lasts.
    pub slow_start: Option<SlowStart>,
    /// It waits in the reserve.
    pub standby: bool,
    /// Its pool panics: it is used whatever its health.
    pub forced: bool,
    /// The connections of its whole pool.
    in_pool: Arc<Limit>,
    /// The times of its whole pool.
    times_in_pool: Arc<SessionTimes>,
    /// The ejected backends of its whole pool.
    ejections: Arc<Limit>,
    /// This many failures in a row eject it.
    failures_max: u32,
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It answers, or is not probed.
    #[default]
    Up,
    /// It does not answer.
    Down,
}

/// What the control thread knows of a backend beside its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The result of its probes.
    pub health: Health,
    /// Its slow start, while that lasts.
    pub slow_start: Option<SlowStart>,
    /// It waits in the reserve.
    pub standby: bool,
}

impl Pool {
    /// A pool without connections, whose backends are up. Its limits are in force.
    #[must_use]
    pub fn new(config: &config::Pool) -> Self {
        let pool = Self::build(config, None, |_| Standing::default());
        pool.take_effect(None);
        pool
    }

    /// The pool that replaces `before`. Backends of the same name and address keep their counts.
    ///
    /// Changes nothing that workers see: [`Self::take_effect`] changes what the two pools share.
    #[must_use]
    pub fn build(
        config: &config::Pool,
        before: Option<&Self>,
        standing: impl Fn(&config::Backend) -> Standing,
    ) -> Self {
        let shared = Shared::from(config.clone());
        Self::compose(&shared, before, config.backends.iter().map(standing))
    }

    /// Builds with the standing of each backend, in the order of the configuration.
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
            number: before.map_or_else(next_number, |before| before.number),
            name: config.name.clone(),
            strategy: config.strategy_in_force(),
            persist: config.persists().cloned(),
            backends: Vec::new(),
            connections: shared(|before| &before.connections),
            ejections: shared(|before| &before.ejections),
            traffic: before.map_or_else(Arc::default, |before| Arc::clone(&before.traffic)),
            times: before.map_or_else(Arc::default, |before| Arc::clone(&before.times)),
            queue: before.map_or_else(
                || Arc::new(Queue::new(config.queue_in_force())),
                |before| Arc::clone(&before.queue),
            ),
            sticky: sticky::table(config.persists(), before),
            leaving: before.map_or_else(Vec::new, |before| before.left_by(config)),
            panic: false,
            rising: false,
            has_backlogs: false,
            tls: None,
            config: config.clone(),
        };
        // Built only if the order of the backends has changed.
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
                    let old = old.map(|old| &**old);
                    Arc::new(Backend::new(config, standing, old, &pool))
                }
            };
            pool.backends.push(backend);
        }
        pool.derive_state();
        pool
    }

    /// The backend of this name.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// This pool with some of its backends changed.
    #[must_use]
    pub fn with(&self, mut change: impl FnMut(&mut Backend)) -> Self {
        let backends = self.backends.iter().map(|backend| {
            let mut backend = Backend::clone(backend);
            change(&mut backend);
            Arc::new(backend)
        });
        let mut pool = Self {
            number: self.number,
            name: self.name.clone(),
            strategy: self.strategy.clone(),
            persist: self.persist.clone(),
            backends: backends.collect(),
            connections: Arc::clone(&self.connections),
            ejections: Arc::clone(&self.ejections),
            traffic: Arc::clone(&self.traffic),
            times: Arc::clone(&self.times),
            queue: Arc::clone(&self.queue),
            sticky: self.sticky.clone(),
            leaving: self.leaving.clone(),
            panic: false,
            rising: false,
            has_backlogs: false,
            tls: self.tls.clone(),
            config: self.config.clone(),
        };
        pool.derive_state();
        pool
    }

    /// Whether it has reached its `max_connections`, over all backends.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.config.max_connections.is_some() && self.connections.is_full()
    }

    /// The backends that take connections as long as they have places.
    pub fn reachable(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let ejected_too = self.falls_back_to_ejected();
        let rotating = self.backends.iter().filter(|one| one.is_in_rotation());
        rotating.filter(move |one| ejected_too || !one.is_shut_out())
    }

    /// How many more connections it may have at `now`, in ns of the workers' clock.
    #[must_use]
    pub fn places(&self, now: u64) -> u32 {
        let places = self.reachable().map(|backend| backend.places(now));
        let places = places.fold(0, u32::saturating_add);
        places.min(self.connections.places())
    }

    /// The earliest time, in ns, at which a backend with a full backlog may be tried again.
    #[must_use]
    pub fn retry_at(&self, now: u64) -> Option<u64> {
        let backends = self.backends.iter().filter(|_| self.has_backlogs);
        let times = backends.filter_map(|backend| backend.tally.backlog.retry_at(now));
        times.min()
    }

    /// Whether it uses ejected backends because no other is up. A pool that fails open panics as
    /// soon as the control thread notices.
    #[must_use]
    pub fn falls_back_to_ejected(&self) -> bool {
        let mut rotating = self.backends.iter().filter(|one| one.is_in_rotation());
        self.config.takes_ejected()
            && self.ejections.used() > 0
            && rotating.all(|backend| backend.is_shut_out())
    }

    /// The time over which the sessions of a backend are closed because it is down; `None`: they
    /// stay. They stay while the pool panics, because then the check itself may be wrong.
    #[must_use]
    pub fn closes_over(&self, backend: &Backend) -> Option<Duration> {
        match self.config.on_down {
            OnDown::Close(over) if backend.health == Health::Down && !self.panic => Some(over),
            OnDown::Close(_) | OnDown::Keep => None,
        }
    }

    /// Whether a pool composed from these would be the same as this one.
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
            && !self.has_left()
            && self.panic == self.should_panic()
    }

    /// Whether a removed backend has lost its last session since, so that it can be dropped.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let mut leaving = self.leaving.iter();
        leaving.any(|backend| backend.tally.connections.used() == 0)
    }

    /// Backends that have connections and are not in the new configuration.
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

    /// All backends that have counts, by name and target. Not by address: that of a host name may
    /// change.
    fn known(&self) -> impl Iterator<Item = ((&str, Target<'_>), &Arc<Backend>)> {
        let known = self.backends.iter().chain(&self.leaving);
        known.map(|backend| ((&*backend.name, backend.target()), backend))
    }
}

/// A number that no other pool or backend of this process has, above 0.
fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Backend {
    /// `old`: as it was in the pool before.
    fn new(config: &config::Backend, standing: Standing, old: Option<&Self>, pool: &Pool) -> Self {
        let ejection = pool.config.ejection;
        let same_address = old.filter(|old| old.address == config.address);
        Self {
            number: same_address.map_or_else(next_number, |old| old.number),
            name: config.name.clone(),
            address: config.address.clone(),
            origins: Arc::new(pool.config.origins.towards(&config.address)),
            send_proxy: pool.config.header_to(config).cloned(),
            host: config.host.clone(),
            weight: config.weight,
            backup: config.backup,
            group: config.group.clone(),
            admin: config.state,
            health: standing.health,
            slow_start: standing.slow_start,
            standby: standing.standby,
            forced: false,
            tally: old.map_or_else(Arc::default, |old| Arc::clone(&old.tally)),
            in_pool: Arc::clone(&pool.connections),
            times_in_pool: Arc::clone(&pool.times),
            ejections: Arc::clone(&pool.ejections),
            failures_max: ejection.map_or(u32::MAX, |ejection| ejection.failures),
        }
    }

    /// Whether this configuration means this backend: the same name and the same target.
    #[must_use]
    pub fn is(&self, config: &config::Backend) -> bool {
        self.name == config.name && self.target() == config.target()
    }

    /// Its host name or address, as the configuration has it.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target::new(self.host.as_deref(), &self.address)
    }

    /// The address of its host name, if it has a host name that is resolved.
    #[must_use]
    pub fn resolved(&self) -> Option<&Address> {
        (self.host.is_some() && self.is_resolved()).then_some(&self.address)
    }

    /// Whether it takes connections while it is up: it has a weight and an address, the operator
    /// did not take it out, and it does not wait in the reserve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.weight > 0 && self.admin == AdminState::Ready && !self.standby && self.is_resolved()
    }

    /// Whether its address is known: always, unless it has a host name.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        config::is_resolved(self.host.as_deref(), &self.address)
    }

    /// Whether it is ready and up, or its pool panics. It may be ejected: that changes without a
    /// snapshot.
    #[must_use]
    pub fn is_in_rotation(&self) -> bool {
        self.is_ready() && (self.forced || self.health == Health::Up)
    }

    /// Its condition in one word. The operator's state comes first.
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

    /// Whether it is up and not ejected.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.health == Health::Up && !self.tally.is_ejected()
    }

    /// Whether it gets no connections: it is ejected and its pool does not panic.
    #[must_use]
    pub fn is_shut_out(&self) -> bool {
        !self.forced && self.tally.is_ejected()
    }

    /// The part of its share that it gets at `now`, in percent: 1 to 99 in slow start, else 100.
    #[must_use]
    pub fn percent(&self, now: u64) -> u8 {
        self.slow_start
            .map_or(100, |slow_start| slow_start.percent(now))
    }

    /// Whether it has all the connections that it may have at `now`.
    #[must_use]
    pub fn is_full(&self, now: u64) -> bool {
        self.tally.connections.used() >= self.max(now)
    }

    /// How many more connections it may have at `now`.
    #[must_use]
    pub fn places(&self, now: u64) -> u32 {
        let places = self.max(now).saturating_sub(self.tally.connections.used());
        places.min(self.tally.backlog.places(now))
    }

    /// Whether its backlog is full at `now`, so that it may have no connection.
    #[must_use]
    pub fn is_backlog_full(&self, now: u64) -> bool {
        self.tally.backlog.places(now) == 0
    }

    /// Its backlog is full. It gets no connections until the next try; this is not a failure.
    pub fn on_backlog_full(&self, now: u64) {
        self.tally.backlog.on_full(now);
        self.tally.on_unsent();
    }

    /// It accepted a connection at once: its backlog is not full.
    pub fn on_taken(&self) {
        self.tally.backlog.on_taken();
    }

    /// Its `max_connections`: less in slow start, 0 while its backlog is full.
    fn max(&self, now: u64) -> u32 {
        if self.is_backlog_full(now) {
            return 0;
        }
        let max = self.tally.connections.max();
        match self.slow_start {
            Some(slow_start) if max < u32::MAX => slow_start.places(max, now),
            Some(_) | None => max,
        }
    }

    /// Takes a place for a connection, at the backend and in its pool. `false`: one of them is
    /// full. `now` is in ns of the workers' clock.
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

    /// What the control thread knows of it beside its configuration.
    fn standing(&self) -> Standing {
        Standing {
            health: self.health,
            slow_start: self.slow_start,
            standby: self.standby,
        }
    }

    /// Whether a backend built for the next pool would be the same.
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
            && self.send_proxy.as_ref() == pool.config.header_to(config)
    }

    /// Releases the place of a connection that is closed or was never made.
    pub fn release(&self, ended: Ended) {
        self.tally.on_closed(ended);
        self.tally.connections.release();
        self.in_pool.release();
    }
}
