//! Scaling: brings backends of a pool's reserve into rotation by load, and takes them out again.

use serde_json::json;

use crate::admin::Author;
use crate::admin::model::EventKind;
use crate::config;
use crate::select::{Action, Decision};
use crate::snapshot::Snapshot;
use crate::sys;

use super::audit::Entry;
use super::balancer::Balancer;
use super::events::{Subject, Weight};
use super::roster::Roster;
use super::webhook::Notice;

/// Decides for all pools that scale, once per second. The roster has the decisions, which take
/// effect with the next snapshot.
fn decide<'a>(roster: &mut Roster, snapshot: &'a Snapshot) -> Vec<(&'a config::Pool, Decision)> {
    let now = sys::monotonic();
    let mut decisions = Vec::new();
    for (plan, record) in snapshot.pools.iter().zip(&mut roster.pools) {
        let pool = plan.pool();
        let scaler = record.scaler.as_mut();
        let Some(decision) = scaler.and_then(|scaler| scaler.tick(pool, now)) else {
            continue;
        };
        let is_active = decision.action == Action::In;
        for index in 0..record.members.len() {
            if decision.backends.contains(&record.members[index].name) {
                record.change(index).is_active = is_active;
                if is_active {
                    record.start_slowly(index);
                }
            }
        }
        decisions.push((&*pool.config, decision));
    }
    decisions
}

impl Balancer {
    /// Scales all pools, and reports what was decided.
    pub(super) fn scale(&mut self) {
        let decisions = decide(&mut self.roster, self.publisher.snapshot());
        for (pool, decision) in &decisions {
            self.report_scaling(pool, decision);
        }
        if !decisions.is_empty() {
            self.publish();
        }
    }

    fn report_scaling(&self, pool: &config::Pool, decision: &Decision) {
        let (kind, action) = match decision.action {
            Action::In => (EventKind::ScaledIn, "scale_in"),
            Action::Out => (EventKind::ScaledOut, "scale_out"),
        };
        let message = format!(
            "pool `{}` takes {} {}: {}",
            pool.name,
            decision.backends.join(", "),
            decision.action.as_str(),
            decision.reason
        );
        self.audit.record(&Entry {
            author: Author::Balancer,
            action,
            target: &pool.name,
            old: None,
            new: Some(json!({ "backends": decision.backends, "why": decision.reason })),
            outcome: Ok(self.publisher.version()),
        });
        self.events
            .tell(Weight::Info, kind, Subject::pool(&pool.name), message);
        let scaling = pool.scaling.as_ref();
        if let Some(url) = scaling.and_then(|scaling| scaling.webhook.as_ref()) {
            self.webhooks.post(url, Notice::of(&pool.name, decision));
        }
    }
}
