//! Scaling: brings backends of a pool's reserve into rotation by load, and takes them out again.

use serde_json::json;

use crate::admin::Author;
use crate::admin::model::EventKind;
use crate::config;
use crate::select::{Decision, ScalingAction};
use crate::snapshot::Snapshot;
use crate::sys;

use super::audit::{Audit, Entry};
use super::events::{Events, Severity, Subject};
use super::roster::Roster;
use super::webhook::{Notice, Webhooks};

/// Scales pools. It changes the roster, and can neither publish nor change the configuration. The
/// roster follows the snapshot's configuration.
pub(super) struct Scaling<'a> {
    pub(super) roster: &'a mut Roster,
    pub(super) snapshot: &'a Snapshot,
    pub(super) events: &'a Events,
    pub(super) audit: &'a Audit,
    pub(super) webhooks: &'a Webhooks,
}

impl Scaling<'_> {
    /// Decides for all pools that scale, once per second, and reports it. `true`: the roster has
    /// decisions, which take effect with the next snapshot.
    pub(super) fn tick(&mut self) -> bool {
        let now = sys::monotonic();
        let snapshot = self.snapshot;
        let mut decided = false;
        for (place, plan) in snapshot.pools.iter().enumerate() {
            let (pool, record) = (plan.pool(), &mut self.roster.pools[place]);
            let scaler = record.scaler.as_mut();
            let Some(decision) = scaler.and_then(|scaler| scaler.tick(pool, now)) else {
                continue;
            };
            let is_active = decision.action == ScalingAction::In;
            for index in 0..record.members.len() {
                if decision.backends.contains(&record.members[index].name) {
                    record.change(index).is_active = is_active;
                    if is_active {
                        record.start_slowly(index);
                    }
                }
            }
            self.report(&pool.config, &decision);
            decided = true;
        }
        decided
    }

    fn report(&self, pool: &config::Pool, decision: &Decision) {
        let (kind, action) = match decision.action {
            ScalingAction::In => (EventKind::ScaledIn, "scale_in"),
            ScalingAction::Out => (EventKind::ScaledOut, "scale_out"),
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
            outcome: Ok(self.snapshot.version),
        });
        let about = Subject::pool(&pool.name);
        self.events
            .tell_one_of_many(Severity::Info, kind, about, message);
        let scaling = pool.scaling.as_ref();
        if let Some(url) = scaling.and_then(|scaling| scaling.webhook.as_ref()) {
            self.webhooks.post(url, Notice::of(&pool.name, decision));
        }
    }
}
