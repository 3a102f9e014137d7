//! What the control thread does about backends: probes and ejections take them out and bring them
//! back, load brings reserves in.

use std::sync::Arc;
use std::time::Duration;

use crate::config::OnDown;
use crate::pool::{Backend, Health, Totals};
use crate::select::Action;
use crate::session::CloseReason;
use crate::sys;
use crate::worker::Sought;

use super::balancer::{Balancer, Key, key};
use super::events::{Subject, Weight};
use super::health::Turned;
use super::webhook::Notice;

impl Balancer<'_> {
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
                    self.events.tell(Weight::Info, "backend_up", about, message);
                    // What its sessions met was its end, and that is over. Who never was down has
                    // proven nothing by its probes, and stays out.
                    self.ejections.forget(pool, backend);
                    self.readmit(key);
                }
                Health::Down => {
                    let why = turned.failure.as_ref();
                    let why = why.map_or_else(String::new, |failure| format!(": {failure}"));
                    let message = format!("{called} is down{why}");
                    self.events
                        .tell(Weight::Warn, "backend_down", about, message);
                }
            }
        }
        self.publish();
        if turned.turn.to == Health::Down {
            for key in &turned.backends {
                self.close_sessions(key);
            }
        }
    }

    /// Closes the sessions of a backend that went down, where its pool says so.
    fn close_sessions(&self, (pool, backend): &Key) {
        let mut pools = self.snapshot.pools.iter().map(|plan| plan.pool());
        let pool = pools.find(|its| its.name == *pool);
        let backend = pool.and_then(|pool| pool.backends.iter().find(|its| its.name == *backend));
        let Some((pool, backend)) = pool.zip(backend) else {
            return;
        };
        if let OnDown::Close(spread) = pool.config.on_down {
            let sought = Sought {
                tally: Some(Arc::clone(&backend.tally)),
                ..Sought::default()
            };
            self.crew.close(&sought, CloseReason::BackendDown, spread);
        }
    }

    /// Workers and outliers eject, time readmits.
    pub(super) fn on_ejections(&mut self) {
        let now = sys::monotonic();
        let mut changed = false;
        for plan in &self.snapshot.pools {
            let pool = plan.pool();
            let Some(ejection) = &pool.config.ejection else {
                continue;
            };
            for backend in &pool.backends {
                let key = key(pool, backend);
                if !backend.tally.is_ejected() || self.ejections.until(&key.0, &key.1).is_some() {
                    continue;
                }
                let failures = backend.tally.failures();
                let until = self.ejections.on_ejected(&key.0, &key.1, ejection, now);
                let time = Duration::from_nanos(until.saturating_sub(now)).as_secs_f64();
                let message = format!(
                    "backend `{}` of pool `{}` is ejected for {time:.0} s: {failures} failures in \
                     a row",
                    backend.name, pool.name
                );
                let about = Subject::backend(&pool.name, &backend.name);
                self.events
                    .tell(Weight::Warn, "backend_ejected", about, message);
                changed = true;
            }
        }
        for key in self.ejections.due(now) {
            changed |= self.readmit(&key);
        }
        if changed {
            self.publish();
        }
    }

    fn readmit(&mut self, key: &Key) -> bool {
        let pools = self.snapshot.pools.iter().map(|plan| plan.pool());
        let mut pools = pools.filter(|pool| pool.name == key.0);
        let backend = pools.find_map(|pool| pool.backends.iter().find(|its| its.name == key.1));
        let Some(backend) = backend.filter(|its| its.tally.is_ejected()).cloned() else {
            return false;
        };
        backend.readmit();
        self.rise(key);
        let message = format!("backend `{}` of pool `{}` is tried again", key.1, key.0);
        let about = Subject::backend(&key.0, &key.1);
        self.events
            .tell(Weight::Info, "backend_readmitted", about, message);
        true
    }

    /// Ejects backends that answer much slower than the others.
    pub(super) fn eject_outliers(&mut self) {
        let now = sys::monotonic();
        let mut ejected = false;
        for plan in &self.snapshot.pools {
            let pool = plan.pool();
            let Some(latency) = pool.config.ejection.and_then(|ejection| ejection.latency) else {
                continue;
            };
            let totals: Vec<_> = pool.backends.iter().map(totals).collect();
            let outliers = self.outliers.entry(pool.name.clone()).or_default();
            for index in outliers.tick(&totals, latency, now) {
                let backend = &pool.backends[index];
                if !backend.eject() {
                    continue;
                }
                let message = format!(
                    "backend `{}` of pool `{}` answers much slower than the others",
                    backend.name, pool.name
                );
                let about = Subject::backend(&pool.name, &backend.name);
                self.events
                    .tell(Weight::Warn, "backend_slow", about, message);
                ejected = true;
            }
        }
        if ejected {
            self.on_ejections();
        }
    }

    /// Looks at the load of pools that scale.
    pub(super) fn scale(&mut self) {
        let decisions = self.scalings.tick(&self.snapshot);
        for (pool, decision) in &decisions {
            let kind = match decision.action {
                Action::In => "scaled_in",
                Action::Out => "scaled_out",
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
            self.events
                .tell(Weight::Info, kind, Subject::pool(pool), message);
            let mut pools = self.config.pools.iter();
            let scaling = pools.find(|its| its.name == *pool);
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
