//! The health of backends: probes and ejections take them out of rotation and bring them back.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::model::EventKind;
use crate::config::Check;
use crate::config::values::written;
use crate::pool::{Backend, Cause, Health, Pool, Tally};
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::between;

use super::events::{Events, Severity, Subject};
use super::health::{Checks, Turned};
use super::roster::{EjectionChange, Roster};

/// Applies the results of probes and the workers' ejections to the roster. It can neither publish
/// nor change the configuration. The roster follows the snapshot's configuration.
pub(super) struct HealthCycle<'a> {
    pub(super) roster: &'a mut Roster,
    pub(super) checks: &'a Checks,
    pub(super) snapshot: &'a Snapshot,
    pub(super) events: &'a Events,
}

impl HealthCycle<'_> {
    /// Notes and reports that probes found backends up or down.
    pub(super) fn on_turned(&mut self, turned: &Turned) {
        self.roster.on_turned(turned);
        for &id in &turned.members {
            if let Some(place) = self.roster.place(id) {
                self.report_turn(place, turned);
            }
        }
    }

    fn report_turn(&mut self, place: (usize, usize), turned: &Turned) {
        let Some((pool, backend)) = at(self.snapshot, place) else {
            return;
        };
        let record = &mut self.roster.pools[place.0];
        let about = Subject::backend(&pool.name, &backend.name);
        let called = format!("backend `{}` of pool `{}`", backend.name, pool.name);
        match turned.turn.to {
            Health::Up => {
                // At the start of the process all backends come up at once, without a slow start.
                // That of a backend which joined later begins now.
                let is_rising = record.members[place.1].state().slow_start.is_some();
                if !turned.turn.first || is_rising {
                    record.start_slowly(place.1);
                }
                let message = format!("{called} is up");
                let (severity, kind) = (Severity::Info, EventKind::BackendUp);
                self.events.tell_one_of_many(severity, kind, about, message);
                // Its sessions failed because it was going down, which is over. For a backend that
                // was never down the probes prove nothing, and it stays ejected.
                if backend.readmit() {
                    self.notice(place, sys::monotonic());
                }
            }
            Health::Down => {
                let why = turned.failure.as_ref();
                let why = why.map_or_else(String::new, |failure| format!(": {failure}"));
                let message = format!("{called} is down{why}");
                let (severity, kind) = (Severity::Warn, EventKind::BackendDown);
                self.events.tell_one_of_many(severity, kind, about, message);
            }
        }
    }

    /// The backends that went down and whose sessions are to be closed now, with the time to spread
    /// that over: where their pool says so, once they get no new sessions. While a pool panics its
    /// sessions stay, as the check may be what is wrong. `changed` are the indices of the pools to
    /// look at.
    pub(super) fn sessions_to_close(&mut self, changed: &[usize]) -> Vec<(Arc<Tally>, Duration)> {
        let mut downed = Vec::new();
        for &place in changed {
            let pool = self.snapshot.pools[place].pool();
            let record = &mut self.roster.pools[place];
            let both = record.members.iter_mut().zip(&pool.backends);
            for (member, backend) in both.filter(|(member, _)| member.went_down) {
                if let Some(over) = pool.closes_over(backend) {
                    downed.push((Arc::clone(&backend.tally), over));
                    member.went_down = false;
                } else {
                    member.went_down = backend.health == Health::Down && pool.panic;
                }
            }
        }
        downed
    }

    /// Looks at all ejections: workers eject; time, probes and sessions readmit. `true`: one has
    /// begun or ended.
    pub(super) fn look_at_ejections(&mut self) -> bool {
        let now = sys::monotonic();
        for (pool, plan) in self.snapshot.pools.iter().enumerate() {
            for (index, backend) in plan.pool().backends.iter().enumerate() {
                let place = (pool, index);
                let is_ejected = backend.tally.is_ejected();
                if is_ejected && self.is_over(place, now) {
                    backend.readmit();
                }
                let member = &self.roster.pools[pool].members[index];
                if !member.is_noticed(&backend.tally) {
                    self.notice(place, now);
                }
            }
        }
        self.roster.find_next_end(now)
    }

    /// Whether an ejection is over by time, or because a probe proves that the backend works again.
    fn is_over(&mut self, place: (usize, usize), now: u64) -> bool {
        let member = self.roster.at(place);
        let until = member.and_then(|member| member.ejection.until());
        until.is_some_and(|until| until <= now || self.is_back(place))
    }

    /// Whether a probe proves that the backend works again: it succeeded, began after the ejection,
    /// and checks what the backend was ejected for.
    ///
    /// A backend that refused connections is back when one succeeds. A backend that accepts
    /// connections and fails their sessions always passes a probe that only connects. A probe that
    /// checks an answer counts for the first of several ejections in a row; after that only time
    /// counts. No probe shows how soon real sessions are answered.
    fn is_back(&mut self, place: (usize, usize)) -> bool {
        let Some((member, (pool, backend))) = self.roster.at(place).zip(at(self.snapshot, place))
        else {
            return false;
        };
        let report = self.checks.report(member);
        let known = member.ejection.since();
        let (Some(report), Some((since, first))) = (report, known) else {
            return false;
        };
        let Some(last) = report.last.filter(|last| last.at >= since) else {
            return false;
        };
        if let Some(failure) = last.failure {
            if failure.is_telling() {
                backend.tally.on_unreached();
            }
            return false;
        }
        // A backend that is down is readmitted when it is up.
        report.health == Health::Up
            && match backend.tally.ejected_for() {
                Some(Cause::Unreached) => true,
                Some(Cause::Failed) => {
                    let check = pool.config.check.as_ref();
                    first && check.is_some_and(Check::checks_answers)
                }
                Some(Cause::Slow) | None => false,
            }
    }

    /// Reports how a backend's ejection has changed since the last look.
    fn notice(&mut self, place: (usize, usize), now: u64) {
        let Some((pool, backend)) = at(self.snapshot, place) else {
            return;
        };
        let changes = self.roster.notice(place, &backend.tally, now);
        let about = Subject::backend(&pool.name, &backend.name);
        let called = format_args!("backend `{}` of pool `{}`", backend.name, pool.name);
        for change in &changes {
            self.note_regret(place, change, backend);
            let (severity, kind, message) = match *change {
                EjectionChange::Ejected(until) => {
                    let time = written(between(now, until));
                    let why = why_ejected(backend);
                    let message = format!("{called} is ejected for {time}: {why}");
                    (Severity::Warn, EventKind::BackendEjected, message)
                }
                EjectionChange::Readmitted => {
                    let message = format!("{called} is tried again");
                    (Severity::Info, EventKind::BackendReadmitted, message)
                }
            };
            self.events.tell_one_of_many(severity, kind, about, message);
        }
    }

    /// Counts an ejection that ends while none of the probes made since its begin has failed.
    fn note_regret(&mut self, place: (usize, usize), change: &EjectionChange, backend: &Backend) {
        let Some(member) = self.roster.at(place) else {
            return;
        };
        let report = self.checks.report(member);
        let probes = report.map(|report| (report.probes, report.failures));
        let member = &mut self.roster.pools[place.0].members[place.1];
        match change {
            EjectionChange::Ejected(_) => {
                let is_slow = backend.tally.ejected_for() == Some(Cause::Slow);
                member.at_ejection = probes.filter(|_| !is_slow);
            }
            EjectionChange::Readmitted => {
                let before = member.at_ejection.take();
                let is_regretted = probes
                    .zip(before)
                    .is_some_and(|(now, before)| now.0 > before.0 && now.1 == before.1);
                member.ejection_regrets += u64::from(is_regretted);
            }
        }
    }

    /// Ends a backend's ejection. Answers whether it was ejected.
    pub(super) fn readmit(&mut self, pool: &str, backend: &str) -> bool {
        let place = self.roster.find(pool, backend);
        let found = place.and_then(|place| at(self.snapshot, place));
        if let Some((place, (_, backend))) = place.zip(found)
            && backend.readmit()
        {
            self.notice(place, sys::monotonic());
            return true;
        }
        false
    }

    /// Ejects backends that answer much slower than the others. The next look at ejections reports
    /// it.
    pub(super) fn eject_outliers(&mut self) {
        let now = sys::monotonic();
        for (plan, record) in self.snapshot.pools.iter().zip(&mut self.roster.pools) {
            let pool = plan.pool();
            let Some(latency) = pool.config.ejection.and_then(|ejection| ejection.latency) else {
                continue;
            };
            let windows = record.members.iter_mut().map(|member| &mut member.window);
            let totals = pool.backends.iter().map(|backend| backend.tally.totals());
            let mut backends: Vec<_> = windows.zip(totals).collect();
            for index in record.outliers.tick(&mut backends, latency, now) {
                pool.backends[index].eject(Cause::Slow);
            }
        }
    }
}

/// The pool and the backend at these indices.
fn at(snapshot: &Snapshot, (pool, index): (usize, usize)) -> Option<(&Pool, &Backend)> {
    let pool = snapshot.pools.get(pool)?.pool();
    Some((pool, pool.backends.get(index)?))
}

fn why_ejected(backend: &Backend) -> String {
    match (backend.tally.ejected_for(), backend.tally.failures()) {
        (Some(Cause::Slow), _) => "it answers much slower than the others".to_owned(),
        // It was readmitted meanwhile.
        (_, 0) => "failures in a row".to_owned(),
        (_, failures) => format!("{failures} failures in a row"),
    }
}
