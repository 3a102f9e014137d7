//! What is known of one backend.

use crate::address::Address;
use crate::config::{self, AdminState};
use crate::pool::{Health, SlowStart, Tally};

use super::super::health::{EjectionTimer, TargetId, Window};
use super::super::shortages::PortShortage;

/// Identifies a backend from when it joins until it leaves; no other backend ever gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub(super) u64);

/// What is known of a backend, beside its configuration. The workers' counts are in its [`Tally`],
/// which lives on while sessions hold it.
#[derive(Debug)]
pub struct Member {
    pub(in crate::control) id: MemberId,
    pub(in crate::control) name: String,
    address: Address,
    host: Option<String>,
    /// It was in maintenance, or had no address.
    is_away: bool,
    pub(super) state: MemberState,
    /// The target that is probed for it.
    pub(in crate::control) target: Option<TargetId>,
    /// It went down, and its sessions may have to be closed.
    pub(in crate::control) went_down: bool,
    pub(in crate::control) ejection: EjectionTimer,
    /// The probes that were made, and that failed, when its ejection began. None of an ejection for
    /// slow answers: no probe shows them.
    pub(in crate::control) at_ejection: Option<(u64, u64)>,
    /// Ejections that ended while no probe had failed.
    pub(in crate::control) ejection_regrets: u64,
    /// Ejections reported so far; `None` before its first publication.
    ejections: Option<u32>,
    /// Its answers in the present window.
    pub(in crate::control) window: Window,
    /// Connects to it for which no local port was free.
    pub(in crate::control) ports: PortShortage,
}

/// What the next snapshot shows of a member. Only the roster changes it, which has the pool
/// composed again.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct MemberState {
    /// Its health by its probes; up where it is not probed.
    pub(in crate::control) health: Health,
    /// Its slow start, until that is over.
    pub(in crate::control) slow_start: Option<SlowStart>,
    /// It is of the reserve, and is in rotation.
    pub(in crate::control) is_active: bool,
}

/// What happened to a backend's ejection since the last look at its tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum EjectionChange {
    /// It is ejected until this time, in ns of the workers' clock.
    Ejected(u64),
    /// Its ejection ended.
    Readmitted,
}

impl Member {
    pub(super) fn new(id: MemberId, backend: &config::Backend) -> Self {
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
            at_ejection: None,
            ejection_regrets: 0,
            ejections: None,
            window: Window::default(),
            ports: PortShortage::default(),
        }
    }

    /// Whether it is this backend: the same name and target.
    pub(in crate::control) fn is(&self, backend: &config::Backend) -> bool {
        let target = config::Target::new(self.host.as_deref(), &self.address);
        self.name == backend.name && target == backend.target()
    }

    /// Follows its configuration. `slow_start` is that of a backend that joins its pool now.
    pub(super) fn follow(
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
    pub(in crate::control) fn state(&self) -> MemberState {
        self.state
    }

    /// Begins to compare the workers' counts, if it has just joined. They may be older: a backend
    /// that is added again while it has sessions keeps its counts.
    pub(super) fn begin_to_count(&mut self, tally: &Tally) {
        if self.ejections.is_none() {
            let present = u32::from(tally.is_ejected());
            self.ejections = Some(tally.times_ejected().saturating_sub(present));
            self.ports = PortShortage::since(tally.portless());
        }
    }

    /// Whether its ejections up to now have been noticed.
    pub(in crate::control) fn is_noticed(&self, tally: &Tally) -> bool {
        self.ejections == Some(tally.times_ejected())
            && self.ejection.until().is_some() == tally.is_ejected()
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
