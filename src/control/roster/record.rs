//! What is known of one pool.

use crate::config;
use crate::pool::{Health, Pool, Service, SlowStart};
use crate::select::{Forecaster, Scaler};
use crate::shared::Shared;
use crate::sys;
use crate::time::nanos;

use super::super::health::Outliers;
use super::{Member, MemberId, MemberState};

/// What is known of a pool, beside its configuration.
#[derive(Debug)]
pub(in crate::control) struct PoolRecord {
    /// What the record follows.
    pub(in crate::control) config: Shared<config::Pool>,
    /// What the checks of its members follow.
    pub(in crate::control) checked: Option<Shared<config::Pool>>,
    pub(in crate::control) members: Vec<Member>,
    /// Finds slow backends.
    pub(in crate::control) outliers: Outliers,
    /// Present if the pool scales.
    pub(in crate::control) scaler: Option<Scaler>,
    /// Present if the strategy forecasts load.
    pub(in crate::control) forecaster: Option<Forecaster>,
    /// Where its new sessions go, as it was reported last.
    pub(in crate::control) service: Option<Service>,
    /// The index at which the places of its members are noted.
    pub(super) noted_at: Option<usize>,
    /// Its configuration, or something about a member, has changed since the last publication.
    pub(super) has_changed: bool,
    /// A member may be in slow start.
    pub(super) is_rising: bool,
}

impl PoolRecord {
    pub(super) fn new(config: &Shared<config::Pool>) -> Self {
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
    pub(in crate::control) fn change(&mut self, index: usize) -> &mut MemberState {
        self.has_changed = true;
        &mut self.members[index].state
    }

    /// Begins the slow start of the member at an index, if the pool has one.
    pub(in crate::control) fn start_slowly(&mut self, index: usize) {
        if let Some(slow_start) = slow_start_of(&self.config) {
            self.change(index).slow_start = Some(slow_start);
            self.is_rising = true;
        }
    }

    pub(super) fn end_slow_starts(&mut self, now: u64) -> bool {
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

    /// Begins to compare the counts of backends that joined with this pool.
    pub(super) fn begin_to_count(&mut self, pool: &Pool) {
        for (member, backend) in self.members.iter_mut().zip(&pool.backends) {
            member.begin_to_count(&backend.tally);
        }
    }

    /// Where its members are, if this is its index.
    pub(super) fn places(&self, place: usize) -> impl Iterator<Item = (MemberId, (usize, usize))> {
        let members = self.members.iter().enumerate();
        members.map(move |(index, member)| (member.id, (place, index)))
    }

    pub(super) fn follow_scaling(&mut self, pool: &config::Pool) {
        match (&pool.scaling, &mut self.scaler) {
            (None, scaler) => *scaler = None,
            (Some(settings), Some(scaler)) => scaler.follow(settings, &pool.strategy),
            (Some(settings), scaler) => {
                *scaler = Some(Scaler::new(settings.clone(), &pool.strategy));
            }
        }
    }
}

/// The slow start of a backend that joins a pool now.
pub(super) fn slow_start_of(pool: &config::Pool) -> Option<SlowStart> {
    let over = nanos(pool.slow_start?);
    let since = sys::monotonic();
    (over > 0).then_some(SlowStart { since, over })
}
