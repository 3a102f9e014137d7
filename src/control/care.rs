//! What the control thread does about backends: probes and ejections take them out and bring them
//! back, load brings reserves in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::admin::model::EventKind;
use crate::admin::{Author, Entry};
use crate::config::values::written;
use crate::config::{self, Check};
use crate::pool::{Backend, Cause, Health, Pool, Totals};
use crate::select::Action;
use crate::sys;
use crate::worker::Command;

use super::balancer::{Balancer, Key};
use super::events::{Subject, Weight};
use super::health::Turned;
use super::webhook::Notice;

impl Balancer {
    /// Probes have found out that a backend answers, or that it does not.
    pub(super) fn on_turned(&mut self, turned: &Turned) {
        for key in &turned.backends {
            let (pool, backend) = key;
            let about = Subject::backend(pool, backend);
            let called = format!("backend `{backend}` of pool `{pool}`");
            match turned.turn.to {
                Health::Up => {
                    // At the start of the process everybody comes at once. Who joins later is
                    // waited for: its slow start begins now.
                    if !turned.turn.first || self.rises.contains_key(key) {
                        self.rise(key);
                    }
                    let message = format!("{called} is up");
                    self.events
                        .tell(Weight::Info, EventKind::BackendUp, about, message);
                    // What its sessions met was its end, and that is over. Who never was down has
                    // proven nothing by its probes, and stays out.
                    self.readmit(key);
                }
                Health::Down => {
                    let why = turned.failure.as_ref();
                    let why = why.map_or_else(String::new, |failure| format!(": {failure}"));
                    let message = format!("{called} is down{why}");
                    self.events
                        .tell(Weight::Warn, EventKind::BackendDown, about, message);
                }
            }
        }
        if turned.turn.to == Health::Down {
            self.downed.extend(turned.backends.iter().cloned());
        }
        self.publish_soon();
    }

    /// Closes the sessions of those that went down, where their pools say so, once no new session
    /// comes to them. While a pool panics they wait: it may be the check.
    pub(super) fn close_downed(&mut self) {
        let mut orders = Vec::new();
        self.downed.retain(|(pool, backend)| {
            let pool = self.snapshot.pool(pool);
            let backend = pool.and_then(|pool| pool.backend(backend));
            let Some((pool, backend)) = pool.zip(backend) else {
                return false;
            };
            if let Some(over) = pool.closes_over(backend) {
                orders.push((Arc::clone(&backend.tally), over));
                return false;
            }
            backend.health == Health::Down && pool.panic
        });
        if !orders.is_empty() {
            // One command for all: a network that is lost takes hundreds down at once.
            self.crew.tell_all(|| Command::CloseDowned(orders.clone()));
        }
    }

    /// Workers eject; time, probes and sessions readmit.
    pub(super) fn on_ejections(&mut self) {
        let now = sys::monotonic();
        let mut changed = false;
        let mut over = Vec::new();
        for plan in Vec::clone(&self.snapshot.pools) {
            let pool = plan.pool();
            // Nearly always: nobody need be looked up.
            if pool.ejections.used() == 0 && self.ejections.next().is_none() {
                continue;
            }
            for (backend, configured) in pool.backends.iter().zip(&pool.config.backends) {
                let key = || (pool.name.clone(), backend.name.clone());
                let known = self.ejections.until(&pool.name, &backend.name).is_some();
                let failures = backend.tally.failures();
                match (backend.tally.is_ejected(), known) {
                    (true, false) => {
                        let why = format!("{failures} failures in a row");
                        changed |= self.take_note(pool, backend, &why);
                    }
                    // It served a session, or too few others were left.
                    (false, true) => {
                        self.on_readmitted(&key());
                        changed = true;
                    }
                    (true, true) if self.is_back(pool, backend, configured) => over.push(key()),
                    (true, true) | (false, false) => {}
                }
            }
        }
        over.extend(self.ejections.due(now));
        for key in over {
            changed |= self.readmit(&key);
        }
        if changed {
            self.publish_soon();
        }
    }

    /// Whether a probe proves that an ejection is over: it succeeded, began after the ejection, and
    /// speaks of what the backend is ejected for.
    ///
    /// Who could not be connected to, by sessions or by a probe, is back when it can be. Who takes
    /// connections and fails their sessions passes a probe that only connects all the time; one
    /// that judges an answer is believed once in a row, and then time alone counts. No probe says
    /// how soon real sessions are answered.
    fn is_back(&self, pool: &Pool, backend: &Backend, configured: &config::Backend) -> bool {
        let report = self.checks.report(&pool.name, configured);
        let known = self.ejections.since(&pool.name, &backend.name);
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
        // Who is down is readmitted when it is up.
        report.health == Health::Up
            && match backend.tally.ejected_for() {
                Some(Cause::Unreached) => true,
                Some(Cause::Failed) => {
                    let check = pool.config.check.as_ref();
                    first && check.is_some_and(Check::judges)
                }
                Some(Cause::Slow) | None => false,
            }
    }

    /// A backend is ejected from now on: says for how long, and tells of it.
    fn take_note(&mut self, pool: &Pool, backend: &Backend, why: &str) -> bool {
        let Some(ejection) = &pool.config.ejection else {
            return false;
        };
        backend.tally.history.on_ejected();
        let now = sys::monotonic();
        let until = self
            .ejections
            .on_ejected(&pool.name, &backend.name, ejection, now);
        let time = written(Duration::from_nanos(until.saturating_sub(now)));
        let (name, of) = (&backend.name, &pool.name);
        let message = format!("backend `{name}` of pool `{of}` is ejected for {time}: {why}");
        let about = Subject::backend(of, name);
        self.events
            .tell(Weight::Warn, EventKind::BackendEjected, about, message);
        true
    }

    /// Ends a backend's ejection, if it is ejected.
    pub(super) fn readmit(&mut self, key: &Key) -> bool {
        let (pool, name) = key;
        let found = self.snapshot.pool(pool);
        let backend = found.and_then(|pool| pool.backend(name)).cloned();
        let readmitted = backend.is_some_and(|backend| backend.readmit());
        if readmitted {
            self.on_readmitted(key);
        }
        readmitted
    }

    /// A backend is ejected no longer.
    fn on_readmitted(&mut self, key: &Key) {
        let (pool, name) = key;
        self.ejections.end(pool, name, sys::monotonic());
        self.rise(key);
        let message = format!("backend `{name}` of pool `{pool}` is tried again");
        let about = Subject::backend(pool, name);
        self.events
            .tell(Weight::Info, EventKind::BackendReadmitted, about, message);
    }

    /// Ejects backends that answer much slower than the others.
    pub(super) fn eject_outliers(&mut self) {
        let now = sys::monotonic();
        let mut ejected = false;
        for plan in Vec::clone(&self.snapshot.pools) {
            let pool = plan.pool();
            let Some(latency) = pool.config.ejection.and_then(|ejection| ejection.latency) else {
                continue;
            };
            let totals: Vec<_> = pool.backends.iter().map(totals).collect();
            let outliers = self.outliers.entry(pool.name.clone()).or_default();
            for index in outliers.tick(&totals, latency, now) {
                let backend = &pool.backends[index];
                if backend.eject(Cause::Slow) {
                    let why = "it answers much slower than the others";
                    ejected |= self.take_note(pool, backend, why);
                }
            }
        }
        if ejected {
            self.publish_soon();
        }
    }

    /// Looks at the load of pools that scale.
    pub(super) fn scale(&mut self) {
        let decisions = self.scalings.tick(&self.snapshot);
        for (pool, decision) in &decisions {
            let kind = match decision.action {
                Action::In => EventKind::ScaledIn,
                Action::Out => EventKind::ScaledOut,
            };
            if decision.action == Action::In {
                for backend in &decision.backends {
                    self.rise(&(pool.clone(), backend.clone()));
                }
            }
            let message = format!(
                "pool `{pool}` takes {} {}: {}",
                decision.backends.join(", "),
                decision.action.as_str(),
                decision.reason
            );
            self.audit.borrow_mut().record(&Entry {
                author: Author::Balancer,
                action: match decision.action {
                    Action::In => "scale_in",
                    Action::Out => "scale_out",
                },
                target: pool,
                old: None,
                new: Some(json!({ "backends": decision.backends, "why": decision.reason })),
                outcome: Ok(self.snapshot.version),
            });
            self.events
                .tell(Weight::Info, kind, Subject::pool(pool), message);
            let scaling = self.config.pool(pool);
            let scaling = scaling.and_then(|pool| pool.scaling.as_ref());
            if let Some(url) = scaling.and_then(|scaling| scaling.webhook.as_ref()) {
                self.webhooks.post(url, Notice::of(pool, decision));
            }
        }
        if !decisions.is_empty() {
            self.publish();
        }
    }

    /// Whether removed backends have lost their last session: then nobody needs to know them.
    pub(super) fn forget_leaving(&mut self) {
        let gone = self.snapshot.pools.iter().any(|plan| {
            let mut leaving = plan.pool().leaving.iter();
            leaving.any(|backend| backend.tally.connections.used() == 0)
        });
        if gone {
            self.publish();
        }
    }
}

fn totals(backend: &Arc<Backend>) -> (&str, Totals) {
    (&backend.name, backend.tally.totals())
}
