//! What the control thread does about backends: probes and ejections take them out and bring them
//! back, load brings reserves in.

use std::time::Duration;

use crate::config::OnDown;
use crate::pool::Health;
use crate::session::CloseReason;
use crate::sys;
use crate::worker::Sought;

use super::balancer::{Balancer, Key, key};
use super::events::{Subject, Weight};
use super::health::Transition;

impl Balancer<'_> {
    /// Probes have found out that a backend is up or down.
    pub(super) fn on_transitions(&mut self, transitions: Vec<Transition>) {
        for transition in &transitions {
            let Transition {
                pool,
                backend,
                health,
                why,
            } = transition;
            let about = Subject::backend(pool, backend);
            match health {
                Health::Up => {
                    self.rise(&(pool.clone(), backend.clone()));
                    let message = format!("backend `{backend}` of pool `{pool}` is up");
                    self.events.tell(Weight::Info, "backend_up", about, message);
                }
                Health::Down => {
                    let message = format!("backend `{backend}` of pool `{pool}` is down: {why}");
                    self.events.tell(Weight::Warn, "backend_down", about, message);
                }
            }
        }
        self.publish();
        for transition in transitions {
            if transition.health == Health::Down {
                self.close_sessions(&(transition.pool, transition.backend));
            }
        }
    }

    /// Closes the sessions of a backend that went down, where its pool says so.
    fn close_sessions(&self, key: &Key) {
        let mut pools = self.snapshot.pools.iter().map(|plan| plan.pool());
        let Some(pool) = pools.find(|pool| pool.name == key.0) else {
            return;
        };
        let OnDown::Close(spread) = pool.config.on_down else {
            return;
        };
        let sought = Sought {
            pool: Some(key.0.clone()),
            backend: Some(key.1.clone()),
            ..Sought::default()
        };
        self.crew.close(&sought, CloseReason::BackendDown, spread);
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
                if !backend.tally.is_ejected() || self.ejections.until(&key).is_some() {
                    continue;
                }
                let failures = backend.tally.failures();
                let until = self.ejections.on_ejected(key, ejection, now);
                let time = Duration::from_nanos(until.saturating_sub(now)).as_secs_f64();
                let message = format!(
                    "backend `{}` of pool `{}` is ejected for {time:.0} s: {failures} failures in \
                     a row",
                    backend.name, pool.name
                );
                let about = Subject::backend(&pool.name, &backend.name);
                self.events.tell(Weight::Warn, "backend_ejected", about, message);
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
        self.events.tell(Weight::Info, "backend_readmitted", about, message);
        true
    }

    /// Ejects backends that answer much slower than the others.
    pub(super) fn eject_outliers(&mut self) {
        let now = sys::monotonic();
        for plan in &self.snapshot.pools {
            let pool = plan.pool();
            for outlier in self.outliers.tick(pool, now) {
                let backend = &pool.backends[outlier.index];
                if !backend.eject() {
                    continue;
                }
                let message = format!(
                    "backend `{}` of pool `{}` answers in {:.1} ms, the others in {:.1} ms",
                    backend.name, pool.name, outlier.mean_ms, outlier.median_ms
                );
                let about = Subject::backend(&pool.name, &backend.name);
                self.events.tell(Weight::Warn, "backend_slow", about, message);
            }
        }
        self.on_ejections();
    }

    /// Looks at the load of pools that scale.
    pub(super) fn scale(&mut self) {
        let decisions = self.scalings.tick(&self.snapshot);
        for decision in &decisions {
            for backend in &decision.backends {
                let key = (decision.pool.clone(), backend.clone());
                if decision.is_in {
                    self.rise(&key);
                }
            }
            let kind = if decision.is_in { "scaled_in" } else { "scaled_out" };
            let about = Subject::pool(&decision.pool);
            self.events.tell(Weight::Info, kind, about, decision.message.clone());
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

