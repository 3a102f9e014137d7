//! Publishes what the workers route by. Nothing else composes a snapshot or puts one in force.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::Config;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound};

use super::capacity;
use super::roster::Roster;
use super::workers::Workers;

/// The snapshot in force, and when the next one is due. Times are ns of the workers' clock.
pub(super) struct Publisher {
    workers: Rc<Workers>,
    snapshot: Arc<Snapshot>,
    /// When what the snapshot says became known: before it was composed.
    known_at: u64,
    /// When it was published,
    published_at: u64,
    /// and how long that took.
    took: u64,
    /// Since when more is known.
    requested_at: Option<u64>,
}

impl Publisher {
    /// Workers route by the snapshot that they began with.
    pub(super) fn new(workers: &Rc<Workers>) -> Self {
        let now = sys::monotonic();
        Self {
            workers: Rc::clone(workers),
            snapshot: Arc::clone(&workers.snapshot),
            known_at: now,
            published_at: now,
            took: 0,
            requested_at: None,
        }
    }

    /// What is in force.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The number of what is in force.
    pub(super) fn version(&self) -> u64 {
        self.snapshot.version
    }

    /// More is known: it is to be published in a moment, together with what comes until then. A
    /// network that is lost takes hundreds of backends down one after the other.
    pub(super) fn request(&mut self) {
        self.requested_at.get_or_insert_with(sys::monotonic);
    }

    /// When what was requested is to be published. Publishing takes a fifth of this thread's time
    /// at most.
    pub(super) fn due(&self) -> Option<u64> {
        let pause = (4 * self.took).max(PAUSE);
        self.requested_at.map(|_| self.published_at + pause)
    }

    /// Has all workers route by a configuration and what is known of its backends. `new` are the
    /// sockets of its new listeners, in its order.
    pub(super) fn publish(&mut self, config: &Config, roster: &mut Roster, new: Vec<Bound>) {
        let began = sys::monotonic();
        self.known_at = self.requested_at.take().unwrap_or(began);
        let max = capacity::within(config.max_connections, self.workers.connections_possible);
        let standings = |place: usize| roster.standings(&config.pools[place], place);
        let draft = Snapshot::compose(Some(&self.snapshot), config, max, standings);
        let next = Arc::new(draft.take_effect());
        roster.begin_to_count(&next);
        self.workers.publish(&next, new);
        self.snapshot = next;
        self.took_since(began);
    }

    /// The last publication took from this time until now, with what came before it.
    pub(super) fn took_since(&mut self, began: u64) {
        self.published_at = sys::monotonic();
        self.took = self.published_at - began;
    }

    /// Publishes again what a worker has missed because its mailbox was full.
    pub(super) fn repeat(&self) {
        let late = sys::monotonic().saturating_sub(self.known_at) > ADOPTED_WITHIN;
        if late && self.workers.adopted_at(self.version()).is_none() {
            self.workers.publish(&self.snapshot, Vec::new());
        }
    }

    /// How long it took from what the snapshot says being known to the last worker routing by it,
    /// in ns; `None`: not all do yet.
    pub(super) fn latency(&self) -> Option<u64> {
        let adopted_at = self.workers.adopted_at(self.version())?;
        Some(adopted_at.saturating_sub(self.known_at))
    }
}

/// From one publication to the next that was requested at least: 2 ms, in ns.
const PAUSE: u64 = 2_000_000;
/// Workers that have not adopted a snapshot by then get it again: 1 s, in ns.
const ADOPTED_WITHIN: u64 = 1_000_000_000;
