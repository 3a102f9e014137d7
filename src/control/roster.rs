//! What the control thread knows of each pool and each backend, in one place.
//!
//! Pools and members stand in the order of the configuration in force, which is also the order of
//! the snapshot that was composed from it. So a composition needs no look-up by name, and what
//! belongs to a backend leaves with it.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::address::Address;
use crate::config::{self, AdminState, Config};
use crate::pool::{Health, Pool, Service, SlowStart, Standing, Tally};
use crate::select::{Forecaster, Scaler};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::nanos;

use super::health::{EjectionTimer, Outliers, TargetId, Turned, Window};
use super::shortages::PortShortage;

/// What is known of all pools of the configuration in force.
#[derive(Debug, Default)]
pub struct Roster {
    pub(super) pools: Vec<PoolRecord>,
    /// Where each member is: the index of its pool, and its index there.
    places: HashMap<MemberId, (usize, usize)>,
    /// Probed members that have left since [`Self::take_left`].
    left: Vec<(MemberId, TargetId)>,
    /// How many members there have been.
    made: u64,
    /// When the next ejection may end by time, in ns of the workers' clock.
    next_end: Option<u64>,
    /// An ejection has begun or ended since that was found.
    ends_changed: bool,
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
    /// Where its new sessions go, as it was reported last.
    pub(super) service: Option<Service>,
    /// The index at which the places of its members are noted.
    noted_at: Option<usize>,
    /// Its configuration, or something about a member, has changed since the last publication.
    has_changed: bool,
    /// A member may be in slow start.
    is_rising: bool,
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
    state: MemberState,
    /// The target that is probed for it.
    pub(super) target: Option<TargetId>,
    /// It went down, and its sessions may have to be closed.
    pub(super) went_down: bool,
    pub(super) ejection: EjectionTimer,
    /// Ejections reported so far; `None` before its first publication.
    ejections: Option<u32>,
    /// Its answers in the present window.
    pub(super) window: Window,
    /// Connects to it for which no local port was free.
    pub(super) ports: PortShortage,
}

/// What the next snapshot shows of a member. Only [`PoolRecord::change`] changes it, which has the
/// pool composed again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemberState {
    /// Its health by its probes; up where it is not probed.
    pub(super) health: Health,
    /// Its slow start, until that is over.
    pub(super) slow_start: Option<SlowStart>,
    /// It is of the reserve, and is in rotation.
    pub(super) is_active: bool,
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
        let (old, left) = in_order(old, |record| &record.config.name, names);
        self.forget(left.into_iter().flat_map(|record| record.members));
        for (place, (pool, record)) in config.pools.iter().zip(old).enumerate() {
            let mut record = self.follow_pool(pool, record);
            if record.noted_at.replace(place) != Some(place) {
                self.places.extend(record.places(place));
            }
            self.pools.push(record);
        }
    }

    /// Forgets members that have left.
    fn forget(&mut self, members: impl IntoIterator<Item = Member>) {
        for member in members {
            self.places.remove(&member.id);
            self.left
                .extend(member.target.map(|target| (member.id, target)));
        }
    }

    /// The probed members that have left since the last call.
    pub(super) fn take_left(&mut self) -> Vec<(MemberId, TargetId)> {
        std::mem::take(&mut self.left)
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
                noted_at: None,
                has_changed: true,
                ..record
            },
            None => PoolRecord::new(pool),
        };
        record.follow_scaling(pool);
        // The first backends of a pool have no others to take the clients meanwhile.
        let slow_start = if record.members.is_empty() {
            None
        } else {
            slow_start_of(pool)
        };
        let names = pool.backends.iter().map(|backend| &*backend.name);
        let old = std::mem::take(&mut record.members);
        let (old, left) = in_order(old, |member| &member.name, names);
        self.forget(left);
        for (backend, old) in pool.backends.iter().zip(old) {
            let mut member = match old {
                Some(member) if member.is(backend) => member,
                other => {
                    self.made += 1;
                    let mut member = Member::new(MemberId(self.made), backend);
                    member.state.is_active = other.as_ref().is_some_and(|it| it.state.is_active);
                    self.forget(other);
                    member
                }
            };
            member.follow(backend, pool, slow_start);
            record.is_rising |= member.state.slow_start.is_some();
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
            let Some((pool, index)) = self.place(*id) else {
                continue;
            };
            let record = &mut self.pools[pool];
            record.change(index).health = turned.turn.to;
            record.members[index].went_down |= turned.turn.to == Health::Down;
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
            health: member.state.health,
            slow_start: member.state.slow_start,
            standby: backend.reserve && !member.state.is_active,
        })
    }

    /// Whether the pool at an index, or what is known of its members, has changed since
    /// [`Self::on_published`].
    pub(super) fn has_changed(&self, place: usize) -> bool {
        self.pools
            .get(place)
            .is_none_or(|record| record.has_changed)
    }

    /// Takes note that a snapshot replaces another one. Answers with the indices of the pools that
    /// may differ from those before.
    pub(super) fn on_published(&mut self, before: &Snapshot, next: &Snapshot) -> Vec<usize> {
        let mut changed = Vec::new();
        for (place, (plan, record)) in next.pools.iter().zip(&mut self.pools).enumerate() {
            let old = before.pools.get(place);
            let is_same = old.is_some_and(|old| Arc::ptr_eq(old, plan));
            if std::mem::take(&mut record.has_changed) || !is_same {
                record.begin_to_count(plan.pool());
                changed.push(place);
            }
        }
        changed
    }

    /// Compares a backend's counts with what was reported, and answers with what happened since, in
    /// order. A backend that is readmitted begins slowly, if its pool has a slow start.
    pub(super) fn notice(
        &mut self,
        (pool, index): (usize, usize),
        tally: &Tally,
        now: u64,
    ) -> Vec<EjectionChange> {
        let Some(record) = self.pools.get_mut(pool) else {
            return Vec::new();
        };
        let Some(member) = record.members.get_mut(index) else {
            return Vec::new();
        };
        let changes = member.notice(tally, record.config.ejection.as_ref(), now);
        if changes.contains(&EjectionChange::Readmitted) {
            record.start_slowly(index);
        }
        // Its condition and the panic of its pool depend on it.
        record.has_changed |= !changes.is_empty();
        self.ends_changed |= !changes.is_empty();
        changes
    }

    /// When the next ejection may end by time, in ns of the workers' clock.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.next_end
    }

    /// Finds when the next ejection may end by time, if one has begun or ended, or should have
    /// ended by now: its backend may have left. `true`: one has begun or ended.
    pub(super) fn find_next_end(&mut self, now: u64) -> bool {
        let changed = std::mem::take(&mut self.ends_changed);
        if changed || self.next_end.is_some_and(|end| end <= now) {
            let members = self.pools.iter().flat_map(|record| &record.members);
            self.next_end = members.filter_map(|member| member.ejection.until()).min();
        }
        changed
    }

    /// Ends slow starts that are over, so that selections need not compute them. That of a backend
    /// that is down goes on: it begins when the backend answers. `true`: one has ended.
    pub(super) fn end_slow_starts(&mut self, now: u64) -> bool {
        let rising = self.pools.iter_mut().filter(|record| record.is_rising);
        rising.fold(false, |ended, record| record.end_slow_starts(now) | ended)
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
            service: None,
            noted_at: None,
            has_changed: true,
            is_rising: false,
        }
    }

    /// Changes the state of the member at an index.
    pub(super) fn change(&mut self, index: usize) -> &mut MemberState {
        self.has_changed = true;
        &mut self.members[index].state
    }

    /// Begins the slow start of the member at an index, if the pool has one.
    pub(super) fn start_slowly(&mut self, index: usize) {
        if let Some(slow_start) = slow_start_of(&self.config) {
            self.change(index).slow_start = Some(slow_start);
            self.is_rising = true;
        }
    }

    fn end_slow_starts(&mut self, now: u64) -> bool {
        let mut ended = false;
        self.is_rising = false;
        for index in 0..self.members.len() {
            let MemberState {
                health, slow_start, ..
            } = self.members[index].state;
            let Some(slow_start) = slow_start else {
                continue;
            };
            if health == Health::Up && now.saturating_sub(slow_start.since) >= slow_start.over {
                self.change(index).slow_start = None;
                ended = true;
            } else {
                self.is_rising = true;
            }
        }
        ended
    }

    /// Begins to compare the counts of backends that joined with this pool. Their tallies may be
    /// older: a backend that is added again while it has sessions keeps its counts.
    fn begin_to_count(&mut self, pool: &Pool) {
        for (member, backend) in self.members.iter_mut().zip(&pool.backends) {
            if member.ejections.is_none() {
                let tally = &backend.tally;
                let present = u32::from(tally.is_ejected());
                member.ejections = Some(tally.times_ejected().saturating_sub(present));
                member.ports = PortShortage::since(tally.portless());
            }
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
            state: MemberState::default(),
            target: None,
            went_down: false,
            ejection: EjectionTimer::default(),
            ejections: None,
            window: Window::default(),
            ports: PortShortage::default(),
        }
    }

    /// Whether it is this backend: the same name and target.
    pub(super) fn is(&self, backend: &config::Backend) -> bool {
        let target = config::Target::new(self.host.as_deref(), &self.address);
        self.name == backend.name && target == backend.target()
    }

    /// Follows its configuration. `slow_start` is that of a backend that joins its pool now.
    fn follow(
        &mut self,
        backend: &config::Backend,
        pool: &config::Pool,
        slow_start: Option<SlowStart>,
    ) {
        self.state.is_active &= backend.reserve && pool.scaling.is_some();
        let is_away = backend.state == AdminState::Maint || !backend.is_resolved();
        if self.is_away && !is_away && backend.state == AdminState::Ready && slow_start.is_some() {
            self.state.slow_start = slow_start;
        }
        self.is_away = is_away;
        if self.address != backend.address {
            self.address.clone_from(&backend.address);
        }
    }

    /// Its health by its probes; up where it is not probed.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.health
    }

    /// What the next snapshot shows of it.
    pub(super) fn state(&self) -> MemberState {
        self.state
    }

    /// Whether its ejections up to now have been noticed.
    pub(super) fn is_noticed(&self, tally: &Tally) -> bool {
        self.ejections == Some(tally.times_ejected())
            && self.ejection.until().is_some() == tally.is_ejected()
    }

    /// Compares the workers' counts with what was reported, and answers with what happened since,
    /// in order. A backend may have been readmitted and ejected more than once.
    fn notice(
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
fn slow_start_of(pool: &config::Pool) -> Option<SlowStart> {
    let over = nanos(pool.slow_start?);
    let since = sys::monotonic();
    (over > 0).then_some(SlowStart { since, over })
}

/// Puts named things in the order of these names; `None`: there was none of this name. The others
/// are returned, too.
fn in_order<'a, T>(
    old: Vec<T>,
    name: impl Fn(&T) -> &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> (Vec<Option<T>>, Vec<T>) {
    let names: Vec<_> = names.collect();
    let mut ordered: Vec<Option<T>> = Vec::new();
    ordered.resize_with(names.len(), || None);
    let mut left = Vec::new();
    // Made only where the order differs.
    let places = LazyCell::new(|| {
        let places = names.iter().enumerate();
        places
            .map(|(place, name)| (*name, place))
            .collect::<HashMap<_, _>>()
    });
    for (place, one) in old.into_iter().enumerate() {
        let stays = names.get(place).is_some_and(|its| *its == name(&one));
        let place = if stays {
            Some(place)
        } else {
            places.get(name(&one)).copied()
        };
        match place.and_then(|place| ordered.get_mut(place)) {
            Some(slot) => left.extend(slot.replace(one)),
            None => left.push(one),
        }
    }
    (ordered, left)
}

#[cfg(test)]
mod tests;
