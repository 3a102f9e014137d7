//! Which listeners of a pool would refuse a client, by a ban or by their access list, and whether
//! their routes lead it to the pool.
//!
//! The control thread knows both. Limits and rates depend on the clients of the moment, and are
//! left out: to ask them is to take a place.

use std::collections::{BTreeSet, HashSet};

use crate::admin::model::{ListenerChoice, RefusalStatus, RouteChoice};
use crate::control::bans;
use crate::guard::{AccessFilter, Ban, Barred, ClientStage};
use crate::peek::Unheard;
use crate::session::CloseReason;
use crate::snapshot::{LiveListener, Snapshot};
use crate::worker::PreviewQuestion;

use super::route::{choose, handshake_fails, heard};

/// What each listener of a pool says of a client.
pub(super) struct Verdicts {
    listeners: Vec<ListenerChoice>,
    /// The ids of those that refuse it.
    refusing: HashSet<u64>,
    /// Access lists that would refuse it if they were not in a dry run.
    in_dry_run: BTreeSet<String>,
    /// The ids of those whose routes lead it elsewhere.
    elsewhere: HashSet<u64>,
}

impl Verdicts {
    /// What the listeners say at `now`, in ns of the workers' clock.
    pub(super) fn new(snapshot: &Snapshot, question: &PreviewQuestion, now: u64) -> Self {
        let mut all = Self {
            listeners: Vec::new(),
            refusing: HashSet::new(),
            in_dry_run: BTreeSet::new(),
            elsewhere: HashSet::new(),
        };
        let listeners = snapshot.listeners.iter();
        let listeners = listeners.filter(|its| question.is_about(its));
        let client = question.client.ip();
        for listener in listeners.filter(|its| its.leads_to(&question.pool)) {
            let heard = heard(listener, &question.spoken);
            let refused = all.ask(snapshot, listener, question, now);
            let refused = refused.or_else(|| match &heard {
                Err(Unheard::Tls(failure)) => Some(RefusalStatus {
                    reason: CloseReason::TlsFailed.as_str().to_owned(),
                    says: handshake_fails(listener, failure),
                }),
                Ok(_) | Err(Unheard::Unsaid) => None,
            });
            if refused.is_some() {
                all.refusing.insert(listener.id);
            }
            // A client that gets no handshake comes to no route.
            let is_routed = match &heard {
                Ok(_) => !listener.routes.is_empty(),
                Err(why) => *why == Unheard::Unsaid,
            };
            let route = is_routed.then(|| choose(listener, Some(client), &heard));
            let leads = |route: &RouteChoice| route.pool.as_ref() == Some(&question.pool);
            if !route.as_ref().is_none_or(leads) {
                all.elsewhere.insert(listener.id);
            }
            all.listeners.push(ListenerChoice {
                listener: listener.name.clone(),
                refused,
                route,
            });
        }
        all.listeners.sort_by_key(|one| one.refused.is_none());
        all
    }

    /// Why a listener refuses the client, if it does.
    fn ask(
        &mut self,
        snapshot: &Snapshot,
        listener: &LiveListener,
        question: &PreviewQuestion,
        now: u64,
    ) -> Option<RefusalStatus> {
        let client = question.client.ip().to_canonical();
        let client = listener.has_addresses().then_some(client);
        let access = snapshot.access.get(&listener.id);
        let stage = ClientStage {
            bans: &snapshot.bans,
            ban_action: snapshot.ban_action,
            trusted: &snapshot.trusted,
            access: access.map(|list| &**list),
            rules: &listener.rules,
            gate: &listener.gate,
            sources: &snapshot.sources,
        };
        let (reason, why) = match stage.barred(client, now)? {
            Barred::Ban(ban) => (CloseReason::Banned, banned(&ban)),
            Barred::AccessList(list) if list.dry_run => {
                self.in_dry_run.insert(list.name.clone());
                return None;
            }
            Barred::AccessList(list) => {
                let prefix = client.and_then(|ip| list.decide(ip).prefix);
                let prefix = prefix.map(|prefix| prefix.to_string());
                (CloseReason::AccessDenied, denied(list, prefix.as_deref()))
            }
        };
        Some(RefusalStatus {
            reason: reason.as_str().to_owned(),
            says: format!("listener `{}` refuses it: {why}", listener.name),
        })
    }

    /// Whether a listener refuses the client.
    pub(super) fn refuses(&self, listener: u64) -> bool {
        self.refusing.contains(&listener)
    }

    /// Whether the routes of a listener lead the client elsewhere.
    pub(super) fn leads_elsewhere(&self, listener: u64) -> bool {
        self.elsewhere.contains(&listener)
    }

    /// Whether no listener brings the client to the pool, and one of them would if its routes did.
    pub(super) fn all_lead_elsewhere(&self) -> bool {
        let away = self.refusing.union(&self.elsewhere).count();
        !self.all_refuse() && !self.listeners.is_empty() && away == self.listeners.len()
    }

    /// Whether routes look at what the client says.
    pub(super) fn have_routes(&self) -> bool {
        self.listeners.iter().any(|one| one.route.is_some())
    }

    /// Whether all do; not where there is none.
    pub(super) fn all_refuse(&self) -> bool {
        !self.listeners.is_empty() && self.refusing.len() == self.listeners.len()
    }

    /// What is worth knowing beside, a sentence each.
    pub(super) fn says(&self) -> Vec<String> {
        let lists = self.in_dry_run.iter().take(LISTED_MAX);
        let lists = lists.map(|list| {
            format!("the access list `{list}` would refuse it, if it were not in a dry run")
        });
        let mut all: Vec<_> = lists.collect();
        if self.listeners.len() > LISTED_MAX {
            let more = self.listeners.len() - LISTED_MAX;
            all.push(format!("{more} more listeners of the pool are not listed"));
        }
        if !self.listeners.is_empty() && !self.all_refuse() {
            let limits = "limits and rates of the moment are not looked at: they may refuse it";
            all.push(limits.to_owned());
        }
        all
    }

    /// The listeners as the API shows them.
    pub(super) fn shown(mut self) -> Vec<ListenerChoice> {
        self.listeners.truncate(LISTED_MAX);
        self.listeners
    }
}

/// A ban, until when, and why.
fn banned(ban: &Ban) -> String {
    let its = bans::shown(ban);
    let until = its.until.as_deref().unwrap_or("it is lifted");
    let reason = its.reason.map(|reason| format!(" ({reason})"));
    format!(
        "banned until {until}{}, as {}",
        reason.unwrap_or_default(),
        its.prefix
    )
}

/// An access list, and which of its prefixes counts.
fn denied(list: &AccessFilter, prefix: Option<&str>) -> String {
    let what = prefix.unwrap_or("all that it does not list");
    format!("access_denied by list `{}`, which denies {what}", list.name)
}

/// Listeners that an answer has at most.
const LISTED_MAX: usize = 100;
