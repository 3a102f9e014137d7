//! Sessions that somebody asks for: which ones, how they are going, and to close them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::Kernel;
use crate::pool::{Backend, Tally};
use crate::session::{CloseReason, NEVER, Phase, View};
use crate::snapshot::Listener;

use super::slot::Slot;
use super::{LogQueue, Worker};

/// Which sessions: those of which all that is said is true.
#[derive(Clone, Debug, Default)]
pub struct Sought {
    /// The one of this worker and number.
    pub session: Option<(u32, u64)>,
    /// Those of a listener, by the name that they came in by.
    pub listener: Option<String>,
    /// Those of a pool, by name.
    pub pool: Option<String>,
    /// Those that are connected, or being connected, to a backend of this name.
    pub backend: Option<String>,
    /// The same of exactly this backend, whatever else has its name.
    pub tally: Option<Arc<Tally>>,
    /// Those of a client; an IPv4 address finds its IPv6-mapped form too.
    pub client: Option<IpAddr>,
}

/// A session in a list.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Whose session it is.
    pub worker: u32,
    /// Counts up within a worker.
    pub number: u64,
    /// What it came in by, with its pool.
    pub listener: Arc<Listener>,
    /// Who it is connected to, or being connected.
    pub backend: Option<Arc<Backend>>,
    /// The client; `None` on a Unix socket, or when it has gone.
    pub client: Option<SocketAddr>,
    /// How it is going.
    pub view: View,
}

/// Sessions that are to be closed, until the last one's moment has come.
#[derive(Debug)]
pub(super) struct Closing {
    sought: Sought,
    reason: CloseReason,
    /// When, and whom: the slot and its generation. In the order of time.
    due: VecDeque<(u64, usize, u32)>,
}

impl Sought {
    /// Whether a session of a worker is meant, as far as one can say without its client's address.
    fn finds(&self, worker: u32, slot: &Slot) -> bool {
        let listener = &slot.listener;
        let backend = slot.backend();
        let is = |wanted: &Option<String>, name: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| Some(wanted) == name)
        };
        let same =
            |tally: &Arc<Tally>| backend.is_some_and(|backend| Arc::ptr_eq(&backend.tally, tally));
        self.session.is_none_or(|id| id == (worker, slot.number))
            && is(&self.listener, Some(&listener.name))
            && is(&self.pool, Some(&listener.plan.pool().name))
            && is(&self.backend, backend.map(|backend| &backend.name))
            && self.tally.as_ref().is_none_or(same)
    }
}

impl<K: Kernel> Worker<K> {
    /// So many of the sessions that are meant.
    pub(super) fn list(&mut self, sought: &Sought, limit: usize) -> Vec<SessionInfo> {
        let mut listed = Vec::new();
        for key in self.sought(sought, limit) {
            self.learn_peer(key);
            let slot = &self.slots[key];
            listed.push(SessionInfo {
                worker: self.id,
                number: slot.number,
                listener: Arc::clone(&slot.listener),
                backend: slot.backend().cloned(),
                client: slot.peer,
                view: slot.session.view(),
            });
        }
        listed
    }

    /// Closes the sessions that are meant, each at a moment of its own during `spread`. How many
    /// there are.
    pub(super) fn close_sought(
        &mut self,
        sought: Sought,
        reason: CloseReason,
        spread: Duration,
    ) -> u64 {
        let mut keys = self.sought(&sought, usize::MAX);
        keys.retain(|key| self.slots[*key].session.view().phase != Phase::Closing);
        let count = keys.len() as u64;
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(NEVER) / count.max(1);
        let due = (0..).zip(keys).map(|(index, key)| {
            let at = self.now.saturating_add(spread.saturating_mul(index));
            (at, key, self.slots[key].generation)
        });
        let due = due.collect();
        self.closings.push(Closing {
            sought,
            reason,
            due,
        });
        self.close_due();
        count
    }

    /// Closes those whose moment has come, if they are still meant: one that was to lose its
    /// backend may have another by now.
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
                let slot = self.slots.get(key);
                let same = slot.is_some_and(|slot| slot.generation == generation);
                if same && self.is_sought(key, &closing.sought) {
                    let reason = closing.reason;
                    self.with_session(key, |session, cx| session.close(reason, cx));
                }
            }
            let next = closing.due.front().map_or(NEVER, |(at, ..)| *at);
            self.close_at = self.close_at.min(next);
        }
        closings.retain(|closing| !closing.due.is_empty());
        self.closings = closings;
    }

    /// Writes the access log there, or no more. Whose client nobody has asked for is asked for
    /// now: at its end it may have gone.
    pub(super) fn set_log(&mut self, log: Option<LogQueue>) {
        if log.is_some() && self.log.is_none() {
            let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.learn_peer(key));
        }
        self.log = log;
    }

    /// The slots of so many of the sessions that are meant.
    fn sought(&mut self, sought: &Sought, limit: usize) -> Vec<usize> {
        let found = self.slots.iter();
        let found = found.filter(|(_, slot)| sought.finds(self.id, slot));
        let mut keys: Vec<usize> = found.map(|(key, _)| key).collect();
        if sought.client.is_some() {
            keys.retain(|key| self.is_sought(*key, sought));
        }
        keys.truncate(limit);
        keys
    }

    fn is_sought(&mut self, key: usize, sought: &Sought) -> bool {
        if !sought.finds(self.id, &self.slots[key]) {
            return false;
        }
        let Some(wanted) = sought.client else {
            return true;
        };
        self.learn_peer(key);
        let peer = self.slots[key].peer;
        peer.is_some_and(|peer| peer.ip().to_canonical() == wanted.to_canonical())
    }

    fn learn_peer(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        if slot.peer.is_none() {
            slot.peer = self.kernel.peer(&slot.client);
        }
    }
}

/// Sessions of one order that are closed in a turn: others are not to wait for all of them.
const CLOSES_MAX: usize = 256;
