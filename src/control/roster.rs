//! What the control thread knows of each pool and each backend, in one place.
//!
//! Pools and members stand in the order of the configuration in force, which is also the order of
//! the snapshot that was composed from it. So a composition needs no look-up by name, and what
//! belongs to a backend leaves with it.

use std::cell::LazyCell;
use std::collections::HashMap;

use crate::address::Address;
use crate::config::{self, AdminState, Config};
use crate::pool::{Health, Rise, Standing, Tally};
use crate::select::{Forecaster, Scaler};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::nanos;

use super::health::{EjectionTimer, Outliers, TargetId, Turned, Window};
use super::shortages::Ports;

/// What is known of all pools of the configuration in force.
#[derive(Debug, Default)]
pub struct Roster {
    pub(super) pools: Vec<PoolRecord>,
    /// Where each member is: the index of its pool, and its index there.
    places: HashMap<MemberId, (usize, usize)>,
    /// How many members there have been.
    made: u64,
    /// When the next ejection may end by time, in ns of the workers' clock.
    next_end: Option<u64>,
}

/// What is known of a pool, beside its configuration.
#[derive(Debug)]
pub(super) struct PoolRecord {
    /// What the record follows.
    pub(super) config: Shared<config::Pool>,
    /// What the checks of its members follow.
    pub(super) checked: Option<Shared<config::Pool>>,
    pub(super) members: Vec<Member>,
    /// Finds slow backends.
    pub(super) outliers: Outliers,
    /// Present if the pool scales.
    pub(super) scaler: Option<Scaler>,
    /// Present if the strategy forecasts load.
    pub(super) forecaster: Option<Forecaster>,
    /// It was reported that the pool panics.
    pub(super) panics: bool,
}

/// Identifies a backend from when it joins until it leaves; no other backend ever gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

/// What is known of a backend, beside its configuration. The workers' counts are in its [`Tally`],
/// which lives on while sessions hold it.
#[derive(Debug)]
pub struct Member {
    pub(super) id: MemberId,
    pub(super) name: String,
    address: Address,
    host: Option<String>,
    /// It was in maintenance, or had no address.
    is_away: bool,
    /// Its health by its probes; up where it is not probed.
    pub(super) health: Health,
    /// The target that is probed for it.
    pub(super) target: Option<TargetId>,
    /// It went down, and its sessions may have to be closed.
    pub(super) went_down: bool,
    /// Its slow start, until that is over.
    pub(super) rise: Option<Rise>,
    pub(super) ejection: EjectionTimer,
    /// Ejections reported so far; `None` before its first publication.
    ejections: Option<u32>,
    /// Its answers in the present window.
    pub(super) window: Window,
    /// It is of the reserve, and is in rotation.
    pub(super) is_active: bool,
    /// Connects to it for which no local port was free.
    pub(super) ports: Ports,
}

/// What happened to a backend's ejection since the last look at its tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EjectionChange {
    /// It is ejected until this time, in ns of the workers' clock.
    Ejected(u64),
    /// Its ejection ended.
    Readmitted,
}

impl Roster {
    /// Follows another configuration. Pools are the same by name, backends by name and target; one
    /// that was removed and is added again is new. A backend that joins a pool which had others, or
    /// that was away, gets a slow start where the pool has one.
    pub fn follow(&mut self, config: &Config) {
        let names = config.pools.iter().map(|pool| &*pool.name);
        let old = std::mem::take(&mut self.pools);
        let old = in_order(old, |record| &record.config.name, names);
        for (pool, record) in config.pools.iter().zip(old) {
            let next = self.follow_pool(pool, record);
            self.pools.push(next);
        }
        self.find_places();
    }

    /// Notes where each member is. Most pools are where they were, with the same members.
    fn find_places(&mut self) {
        for (place, record) in self.pools.iter().enumerate() {
            let is_noted = |(index, member): (usize, &Member)| {
                self.places.get(&member.id) == Some(&(place, index))
            };
            if !record.members.iter().enumerate().all(is_noted) {
                self.places.extend(record.places(place));
            }
        }
        let count: usize = self.pools.iter().map(|record| record.members.len()).sum();
        if self.places.len() > count {
            // Some have left.
            self.places.clear();
            for (place, record) in self.pools.iter().enumerate() {
                self.places.extend(record.places(place));
            }
        }
    }

    fn follow_pool(
        &mut self,
        pool: &Shared<config::Pool>,
        record: Option<PoolRecord>,
    ) -> PoolRecord {
        let mut record = match record {
            Some(record) if Shared::is_same(&record.config, pool) => return record,
            Some(record) => PoolRecord {
                config: pool.clone(),
                ..record
            },
            None => PoolRecord::new(pool),
        };
        record.follow_scaling(pool);
        // The first backends of a pool have no others to take the clients meanwhile.
        let rise = if record.members.is_empty() {
            None
        } else {
            rise_of(pool)
        };
        let names = pool.backends.iter().map(|backend| &*backend.name);
        let old = std::mem::take(&mut record.members);
        let old = in_order(old, |member| &member.name, names);
        for (backend, old) in pool.backends.iter().zip(old) {
            let mut member = match old {
                Some(member) if member.is(backend) => member,
                other => {
                    self.made += 1;
                    let mut member = Member::new(MemberId(self.made), backend);
                    member.is_active = other.is_some_and(|other| other.is_active);
                    member
                }
            };
            member.is_active &= backend.reserve && pool.scaling.is_some();
            let is_away = backend.state == AdminState::Maint || !backend.is_resolved();
            if member.is_away && !is_away && backend.state == AdminState::Ready && rise.is_some() {
                member.rise = rise;
            }
            member.is_away = is_away;
            if member.address != backend.address {
                member.address.clone_from(&backend.address);
            }
            record.members.push(member);
        }
        record
    }

    /// Where a member is: the index of its pool, and its index there. `None`: it has left.
    pub(super) fn place(&self, id: MemberId) -> Option<(usize, usize)> {
        self.places.get(&id).copied()
    }

    /// The member at these indices.
    pub(super) fn at(&mut self, (pool, index): (usize, usize)) -> Option<&mut Member> {
        self.pools.get_mut(pool)?.members.get_mut(index)
    }

    /// Where the backend of this name is.
    pub(super) fn find(&self, pool: &str, backend: &str) -> Option<(usize, usize)> {
        let place = self
            .pools
            .iter()
            .position(|record| record.config.name == pool)?;
        let mut members = self.pools[place].members.iter();
        let index = members.position(|member| member.name == backend)?;
        Some((place, index))
    }

    /// The backend of this name.
    #[must_use]
    pub fn member(&self, pool: &str, backend: &str) -> Option<&Member> {
        let (place, index) = self.find(pool, backend)?;
        self.pools[place].members.get(index)
    }

    /// Notes the results of probes.
    pub fn on_turned(&mut self, turned: &Turned) {
        for id in &turned.members {
            let place = self.places.get(id).copied();
            if let Some(member) = place.and_then(|place| self.at(place)) {
                member.health = turned.turn.to;
                member.went_down |= turned.turn.to == Health::Down;
            }
        }
    }

    /// What is known of the backends of a pool, for its composition.
    pub(super) fn standings(
        &self,
        config: &config::Pool,
        place: usize,
    ) -> impl Iterator<Item = Standing> {
        let members = self.pools.get(place).map_or(&[][..], |pool| &pool.members);
        let both = members.iter().zip(&config.backends);
        both.map(|(member, backend)| Standing {
            health: member.health,
            rise: member.rise,
            standby: backend.reserve && !member.is_active,
        })
    }

    /// Begins to compare the counts of backends that joined with this snapshot. Their tallies may
    /// be older: a backend that is added again while it has sessions keeps its counts.
    pub(super) fn begin_to_count(&mut self, snapshot: &Snapshot) {
        for (record, plan) in self.pools.iter_mut().zip(&snapshot.pools) {
            for (member, backend) in record.members.iter_mut().zip(&plan.pool().backends) {
                if member.ejections.is_none() {
                    let tally = &backend.tally;
                    let present = u32::from(tally.is_ejected());
                    member.ejections = Some(tally.times_ejected().saturating_sub(present));
                    member.ports = Ports::since(tally.portless());
                }
            }
        }
    }

    /// When the next ejection may end by time, in ns of the workers' clock.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.next_end
    }

    /// To be called after ejections have begun or ended.
    pub(super) fn find_next_end(&mut self) {
        let members = self.pools.iter().flat_map(|record| &record.members);
        self.next_end = members.filter_map(|member| member.ejection.until()).min();
    }

    /// Ends slow starts that are over, so that selections need not compute them. That of a backend
    /// that is down goes on: it begins when the backend answers. `true`: one has ended.
    pub(super) fn end_rises(&mut self, now: u64) -> bool {
        let mut ended = false;
        for member in self.pools.iter_mut().flat_map(|record| &mut record.members) {
            let is_over = |rise: Rise| now.saturating_sub(rise.since) >= rise.over;
            if member.health == Health::Up && member.rise.is_some_and(is_over) {
                member.rise = None;
                ended = true;
            }
        }
        ended
    }
}

impl PoolRecord {
    fn new(config: &Shared<config::Pool>) -> Self {
        Self {
            config: config.clone(),
            checked: None,
            members: Vec::new(),
            outliers: Outliers::default(),
            scaler: None,
            forecaster: None,
            panics: false,
        }
    }

    /// Where its members are, if this is its index.
    fn places(&self, place: usize) -> impl Iterator<Item = (MemberId, (usize, usize))> {
        let members = self.members.iter().enumerate();
        members.map(move |(index, member)| (member.id, (place, index)))
    }

    fn follow_scaling(&mut self, pool: &config::Pool) {
        match (&pool.scaling, &mut self.scaler) {
            (None, scaler) => *scaler = None,
            (Some(settings), Some(scaler)) => scaler.follow(settings, &pool.strategy),
            (Some(settings), scaler) => {
                *scaler = Some(Scaler::new(settings.clone(), &pool.strategy));
            }
        }
    }
}

impl Member {
    fn new(id: MemberId, backend: &config::Backend) -> Self {
        Self {
            id,
            name: backend.name.clone(),
            address: backend.address.clone(),
            host: backend.host.clone(),
            is_away: true,
            health: Health::Up,
            target: None,
            went_down: false,
            rise: None,
            ejection: EjectionTimer::default(),
            ejections: None,
            window: Window::default(),
            is_active: false,
            ports: Ports::default(),
        }
    }

    /// Whether it is this backend: the same name and target.
    pub(super) fn is(&self, backend: &config::Backend) -> bool {
        let target = config::Target::new(self.host.as_deref(), &self.address);
        self.name == backend.name && target == backend.target()
    }

    /// Its health by its probes; up where it is not probed.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Begins its slow start, if its pool has one.
    pub(super) fn start_slowly(&mut self, pool: &config::Pool) {
        self.rise = rise_of(pool).or(self.rise);
    }

    /// Compares the workers' counts with what was reported, and answers with what happened since,
    /// in order. A backend may have been readmitted and ejected more than once.
    pub(super) fn notice(
        &mut self,
        tally: &Tally,
        settings: Option<&config::Ejection>,
        now: u64,
    ) -> Vec<EjectionChange> {
        let mut changes = Vec::new();
        // The count is read first. It changes after the state, and a worker that ejects rings after
        // both: what is missed here is noticed after the ring.
        let count = tally.times_ejected();
        let is_ejected = tally.is_ejected();
        let reported = self.ejections.replace(count).unwrap_or(count);
        for _ in 0..count.saturating_sub(reported) {
            if self.ejection.stop(now) {
                changes.push(EjectionChange::Readmitted);
            }
            let settings = settings.copied().unwrap_or_default();
            changes.push(EjectionChange::Ejected(self.ejection.start(&settings, now)));
        }
        if !is_ejected && self.ejection.stop(now) {
            changes.push(EjectionChange::Readmitted);
        }
        changes
    }
}

/// The slow start of a backend that joins a pool now.
fn rise_of(pool: &config::Pool) -> Option<Rise> {
    let over = nanos(pool.slow_start?);
    let since = sys::monotonic();
    (over > 0).then_some(Rise { since, over })
}

/// Puts named things in the order of these names; `None`: there was none of this name.
fn in_order<'a, T>(
    old: Vec<T>,
    name: impl Fn(&T) -> &str,
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
) -> Vec<Option<T>> {
    let mut ordered: Vec<Option<T>> = Vec::new();
    ordered.resize_with(names.len(), || None);
    let names: Vec<_> = names.collect();
    // Made only where the order differs.
    let places = LazyCell::new(|| -> HashMap<_, _> {
        names
            .iter()
            .enumerate()
            .map(|(place, name)| (*name, place))
            .collect()
    });
    for (place, one) in old.into_iter().enumerate() {
        let stays = names.get(place).is_some_and(|its| *its == name(&one));
        let place = if stays {
            Some(place)
        } else {
            places.get(name(&one)).copied()
        };
        if let Some(slot) = place.and_then(|place| ordered.get_mut(place)) {
            *slot = Some(one);
        }
    }
    ordered
}

#[cfg(test)]
mod tests;
