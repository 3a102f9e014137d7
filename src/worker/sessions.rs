//! Lists sessions, and closes sessions by order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::Kernel;
use crate::pool::{Backend, Pool, Tally};
use crate::session::{CloseReason, SessionState, View};
use crate::snapshot::{LiveListener, Snapshot};
use crate::time::{NEVER, nanos};
use crate::tls::ClientIdentity;

use super::Worker;
use super::filter::{SessionFilter, SessionId};
use super::headers::ProxyPeer;
use super::log_feed::LogFeed;
use super::log_lines::LogLines;
use super::slot::Slot;

/// A session in a list.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Identifies it.
    pub id: SessionId,
    /// The listener that accepted its client.
    pub listener: Arc<LiveListener>,
    /// The pool that it goes to.
    pub pool: Arc<Pool>,
    /// The backend that it is connected, or connects, to.
    pub backend: Option<Arc<Backend>>,
    /// The client's address; `None` on a Unix socket, or when the client has gone.
    pub client: Option<SocketAddr>,
    /// The proxy that named its client by a header.
    pub proxy: Option<ProxyPeer>,
    /// Who its client is by a certificate, which was verified.
    pub identity: Option<Arc<ClientIdentity>>,
    /// Its progress.
    pub view: View,
}

/// An order to close sessions, each at a moment of its own.
#[derive(Debug)]
pub(super) struct Closing {
    target: Target,
    reason: CloseReason,
    /// The time, the slot and its generation of each session, in the order of time.
    due: VecDeque<(u64, usize, u32)>,
}

/// The sessions that an order is about.
#[derive(Debug)]
enum Target {
    Matching(SessionFilter),
    /// Those of a backend that is down. The order ends early when a snapshot has it up again.
    Downed(Arc<Tally>),
}

impl SessionFilter {
    /// Whether a session of a worker matches, apart from its client's address.
    fn matches(&self, worker: u32, slot: &Slot) -> bool {
        let listener = &slot.listener;
        let backend = slot.backend();
        let is = |wanted: &Option<String>, name: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == name)
        };
        let id = SessionId {
            worker,
            number: slot.number,
        };
        self.id.is_none_or(|wanted| wanted == id)
            && is(&self.listener, Some(&listener.name))
            && is(&self.pool, Some(&slot.plan().pool().name))
            && is(&self.backend, backend.map(|backend| &backend.name))
    }
}

impl Closing {
    /// Whether it is the same order once more.
    fn is_same(&self, other: &Self) -> bool {
        let same_target = match (&self.target, &other.target) {
            (Target::Matching(its), Target::Matching(others)) => its == others,
            (Target::Downed(its), Target::Downed(others)) => Arc::ptr_eq(its, others),
            (Target::Matching(_), Target::Downed(_)) | (Target::Downed(_), Target::Matching(_)) => {
                false
            }
        };
        same_target && self.reason == other.reason
    }
}

impl<K: Kernel> Worker<K> {
    /// Lists the sessions that match, as many as the filter's limit allows.
    pub(super) fn list(&mut self, filter: &SessionFilter) -> Vec<SessionInfo> {
        let mut listed = Vec::new();
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        for key in self.matching(filter, limit) {
            self.learn_peer(key);
            let slot = &self.slots[key];
            listed.push(SessionInfo {
                id: SessionId {
                    worker: self.id,
                    number: slot.number,
                },
                listener: Arc::clone(&slot.listener),
                pool: Arc::clone(slot.plan().pool()),
                backend: slot.backend().cloned(),
                client: slot.peer,
                proxy: slot.proxy(),
                identity: slot.identity().cloned(),
                view: slot.session.view(),
            });
        }
        listed
    }

    /// Closes the sessions that match, each at a moment of its own during `spread`. Returns how
    /// many there are; `None`: this order is refused, as the worker carries out too many others.
    pub(super) fn close_matching(
        &mut self,
        filter: SessionFilter,
        reason: CloseReason,
        spread: Duration,
    ) -> Option<u64> {
        let closing = Closing {
            target: Target::Matching(filter.clone()),
            reason,
            due: VecDeque::new(),
        };
        // Orders about backends that are down don't count: there is at most one per backend.
        let counts = |one: &&Closing| matches!(one.target, Target::Matching(_));
        let mut others = self.closings.iter().filter(counts);
        if others.clone().count() >= ORDERS_MAX && !others.any(|old| old.is_same(&closing)) {
            return None;
        }
        let mut keys = self.matching(&filter, usize::MAX);
        keys.retain(|key| self.slots[*key].session.view().state != SessionState::Closing);
        let count = keys.len() as u64;
        self.order(closing, keys, spread);
        self.close_due();
        Some(count)
    }

    /// Closes the sessions of backends that went down.
    pub(super) fn close_downed(&mut self, backends: Vec<(Arc<Tally>, Duration)>) {
        let mut sessions: HashMap<_, Vec<usize>> = HashMap::new();
        for (tally, _) in &backends {
            sessions.insert(Arc::as_ptr(tally), Vec::new());
        }
        for (key, slot) in &self.slots {
            let backend = slot.backend().map(|backend| Arc::as_ptr(&backend.tally));
            if let Some(its) = backend.and_then(|backend| sessions.get_mut(&backend)) {
                its.push(key);
            }
        }
        for (tally, spread) in backends {
            let keys = sessions.remove(&Arc::as_ptr(&tally)).unwrap_or_default();
            let closing = Closing {
                target: Target::Downed(tally),
                reason: CloseReason::BackendDown,
                due: VecDeque::new(),
            };
            self.order(closing, keys, spread);
        }
        self.close_due();
    }

    /// Ends the orders about backends whose sessions are not to be closed by this snapshot: they
    /// are up again, or their pool panics or keeps sessions. A backend that has left the snapshot
    /// was down last.
    pub(super) fn spare_returned(&mut self, snapshot: &Snapshot) {
        if self.closings.is_empty() {
            return;
        }
        let pools = snapshot.pools.iter().map(|plan| plan.pool());
        let backends = pools.flat_map(|pool| pool.backends.iter().map(move |its| (pool, its)));
        let spared = backends.filter(|(pool, its)| pool.closes_over(its).is_none());
        let spared: HashSet<_> = spared.map(|(_, its)| Arc::as_ptr(&its.tally)).collect();
        self.closings.retain(|closing| match &closing.target {
            Target::Downed(tally) => !spared.contains(&Arc::as_ptr(tally)),
            Target::Matching(_) => true,
        });
    }

    /// Takes an order on, about the sessions of these slots. The same order again continues the
    /// first: its sessions keep their moments, unless the new one ends sooner.
    fn order(&mut self, mut closing: Closing, keys: Vec<usize>, spread: Duration) {
        let spread = nanos(spread);
        let end = self.now.saturating_add(spread);
        let before = self.closings.iter().position(|old| old.is_same(&closing));
        if let Some(before) = before {
            closing.due = self.closings.remove(before).due;
        }
        closing.due.retain_mut(|(at, key, generation)| {
            *at = end.min(*at);
            let slot = self.slots.get(*key);
            slot.is_some_and(|slot| slot.generation == *generation)
        });
        let known: HashSet<usize> = closing.due.iter().map(|(_, key, _)| *key).collect();
        let new: Vec<_> = keys.iter().filter(|key| !known.contains(key)).collect();
        let step = spread / (new.len() as u64).max(1);
        closing.due.extend((0..).zip(new).map(|(index, key)| {
            let at = self.now.saturating_add(step.saturating_mul(index));
            (at, *key, self.slots[*key].generation)
        }));
        closing.due.make_contiguous().sort_by_key(|(at, ..)| *at);
        self.closings.push(closing);
    }

    /// Closes sessions whose moment has come, if they still match: one that was to lose its backend
    /// may have another by now.
    pub(super) fn close_due(&mut self) {
        let mut closings = std::mem::take(&mut self.closings);
        self.close_at = NEVER;
        for closing in &mut closings {
            // The others are still there in the next turn, at once.
            for _ in 0..CLOSES_MAX {
                let next = closing.due.pop_front_if(|(at, ..)| *at <= self.now);
                let Some((_, key, generation)) = next else {
                    break;
                };
                self.close_one(closing, key, generation);
            }
            let next = closing.due.front().map_or(NEVER, |(at, ..)| *at);
            self.close_at = self.close_at.min(next);
        }
        closings.retain(|closing| !closing.due.is_empty());
        self.closings = closings;
    }

    fn close_one(&mut self, closing: &Closing, key: usize, generation: u32) {
        let slot = self.slots.get(key);
        let same = slot.is_some_and(|slot| slot.generation == generation);
        if same && self.is_target(key, &closing.target) {
            let reason = closing.reason;
            self.with_session(key, |session, cx| session.close(reason, cx));
        }
    }

    /// Switches the access log on or off. It needs the clients' addresses, which are looked up now:
    /// at the end of its session a client may have gone.
    pub(super) fn set_log(&mut self, log: Option<LogFeed>) {
        if log.is_some() && self.log.is_none() {
            let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.learn_peer(key));
        }
        self.log_lines = LogLines::of(log.as_ref());
        self.log = log;
    }

    /// The slots of the sessions that match, `limit` at most.
    fn matching(&mut self, filter: &SessionFilter, limit: usize) -> Vec<usize> {
        let found = self.slots.iter();
        let found = found.filter(|(_, slot)| filter.matches(self.id, slot));
        let mut keys: Vec<usize> = found.map(|(key, _)| key).collect();
        if filter.client.is_some() {
            keys.retain(|key| self.is_match(*key, filter));
        }
        keys.truncate(limit);
        keys
    }

    fn is_target(&mut self, key: usize, target: &Target) -> bool {
        match target {
            Target::Matching(filter) => self.is_match(key, filter),
            Target::Downed(tally) => {
                let backend = self.slots[key].backend();
                backend.is_some_and(|backend| Arc::ptr_eq(&backend.tally, tally))
            }
        }
    }

    fn is_match(&mut self, key: usize, filter: &SessionFilter) -> bool {
        if !filter.matches(self.id, &self.slots[key]) {
            return false;
        }
        let Some(wanted) = filter.client else {
            return true;
        };
        self.learn_peer(key);
        let peer = self.slots[key].peer;
        peer.is_some_and(|peer| peer.ip().to_canonical() == wanted.to_canonical())
    }

    pub(super) fn learn_peer(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        if slot.peer.is_none() {
            slot.peer = self.kernel.peer(&slot.client);
        }
    }
}

/// Sessions of one order that are closed in a turn: others are not to wait for all of them.
const CLOSES_MAX: usize = 256;
/// Orders to close sessions that stand at a time, beside those about backends that went down.
const ORDERS_MAX: usize = 64;
