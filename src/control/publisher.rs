//! Publishes snapshots to the workers. Nothing else composes a snapshot or puts one in force.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::Config;
use crate::guard::AccessFilters;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound};
use crate::time::{MS, SECOND};
use crate::tls::TlsByOwner;

use super::capacity;
use super::names::PastNames;
use super::roster::Roster;
use super::workers::Workers;

/// The snapshot in force, and when the next one is due. Times are ns of the workers' clock.
pub(super) struct Publisher {
    workers: Rc<Workers>,
    snapshot: Arc<Snapshot>,
    /// When the last publication was requested: what the snapshot says was known then.
    known_at: u64,
    /// When it was published.
    published_at: u64,
    /// How long that took.
    took: u64,
    /// When the next publication was requested.
    requested_at: Option<u64>,
    /// The names of what has left the snapshots.
    past: Arc<PastNames>,
}

impl Publisher {
    /// Begins with the first snapshot of the workers.
    pub(super) fn new(workers: &Rc<Workers>) -> Self {
        let now = sys::monotonic();
        Self {
            workers: Rc::clone(workers),
            snapshot: Arc::clone(&workers.snapshot),
            known_at: now,
            published_at: now,
            took: 0,
            requested_at: None,
            past: Arc::default(),
        }
    }

    /// The snapshot in force.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The names of what has left the snapshots.
    pub(super) fn past(&self) -> &Arc<PastNames> {
        &self.past
    }

    /// The number of the snapshot in force.
    pub(super) fn version(&self) -> u64 {
        self.snapshot.version
    }

    /// Has the next publication bring new sockets for these listeners, in the snapshot's order.
    pub(super) fn replace_sockets(&mut self, ids: &[u64]) {
        let next = Arc::new(self.snapshot.with_new_sockets(ids));
        Arc::make_mut(&mut self.past).follow(&self.snapshot, &next);
        self.snapshot = next;
    }

    /// Requests a publication. It comes in a moment, for all requests until then: when a network
    /// fails, hundreds of backends go down one after the other.
    pub(super) fn request(&mut self) {
        self.requested_at.get_or_insert_with(sys::monotonic);
    }

    /// When the requested publication is due. Publishing takes at most a fifth of this thread's
    /// time.
    pub(super) fn due(&self) -> Option<u64> {
        let pause = (4 * self.took).max(PAUSE);
        self.requested_at.map(|_| self.published_at + pause)
    }

    /// Has all workers route by a configuration, its access lists, and what is known of its
    /// backends. `new` are the sockets of its new listeners, in its order. Answers with the indices
    /// of the pools that may differ from those of the last publication.
    pub(super) fn publish(
        &mut self,
        by: (&Config, &AccessFilters, &TlsByOwner),
        roster: &mut Roster,
        new: Vec<Bound>,
    ) -> Vec<usize> {
        let began = sys::monotonic();
        self.known_at = self.requested_at.take().unwrap_or(began);
        let (config, ..) = by;
        let max = capacity::within(config.max_connections, self.workers.connections_possible);
        let standings = |place: usize| roster.standings(&config.pools[place], place);
        let has_changed = |place| roster.has_changed(place);
        let draft = Snapshot::compose(Some(&self.snapshot), by, max, standings, has_changed);
        let next = Arc::new(draft.take_effect());
        let changed = roster.on_published(&self.snapshot, &next);
        self.workers.publish(&next, new);
        Arc::make_mut(&mut self.past).follow(&self.snapshot, &next);
        self.snapshot = next;
        self.took_since(began);
        changed
    }

    /// Counts the time from `began` as a part of the last publication.
    pub(super) fn took_since(&mut self, began: u64) {
        self.published_at = sys::monotonic();
        self.took = self.published_at - began;
    }

    /// Publishes again where a worker has missed a snapshot because its mailbox was full.
    pub(super) fn repeat(&self) {
        let late = sys::monotonic().saturating_sub(self.known_at) > ADOPTED_WITHIN;
        if late && self.workers.adopted_at(self.version()).is_none() {
            self.workers.publish(&self.snapshot, Vec::new());
        }
    }

    /// How long it took from the request until the last worker routed by the snapshot, in ns;
    /// `None`: not all workers do yet.
    pub(super) fn latency(&self) -> Option<u64> {
        let adopted_at = self.workers.adopted_at(self.version())?;
        Some(adopted_at.saturating_sub(self.known_at))
    }
}

/// The shortest time between two publications that were requested: 2 ms.
const PAUSE: u64 = 2 * MS;
/// Workers that have not adopted a snapshot after this time get it again: 1 s.
const ADOPTED_WITHIN: u64 = SECOND;
