//! What the control thread knows of each pool and each backend, in one place.
//!
//! Pools and members stand in the order of the configuration in force, which is also the order of
//! the snapshot that was composed from it. So a composition needs no look-up by name, and what
//! belongs to a backend leaves with it.

mod member;
mod record;

use std::cell::LazyCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::pool::{Health, Standing, Tally};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

use super::health::{TargetId, Turned};
pub(super) use member::{EjectionChange, MemberState};
pub use member::{Member, MemberId};
pub(super) use record::PoolRecord;
use record::slow_start_of;

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
