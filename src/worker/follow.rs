//! Adopts the next snapshot: its listeners may be new, kept or gone.

use std::sync::Arc;

use crate::guard::AccessFilter;
use crate::kernel::Kernel;
use crate::pool::Queue;
use crate::select::Plan;
use crate::snapshot::{LiveListener, Snapshot};

use super::Worker;
use super::accept::Port;

impl<K: Kernel> Worker<K> {
    /// Routes by another snapshot. Sessions keep what they began with; those of a listener that
    /// is gone go on, and connect by its settings in the last snapshot that had it.
    pub(super) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let mut before = std::mem::take(&mut self.listening);
        let mut new = Vec::new();
        let mut left = Vec::new();
        for listener in &snapshot.listeners {
            if let Some(key) = before.remove(&listener.id) {
                left.extend(left_queues(&self.ports[key].listener, listener));
                let pools = self.pools.follow_all(listener, self.seat);
                let access = snapshot.access.get(&listener.id).cloned();
                self.ports[key].follow((Arc::clone(listener), access), pools);
                self.listening.insert(listener.id, key);
            } else if listener.id >= self.snapshot.listeners_made {
                new.push(listener);
            }
            // Otherwise its socket was lost before, and will not arrive.
        }
        let now = self.kernel.now();
        for key in before.into_values() {
            self.ports[key].leave(now);
        }
        // As they are handed over, whatever their order in the snapshot.
        new.sort_unstable_by_key(|listener| listener.id);
        for listener in new {
            let access = snapshot.access.get(&listener.id).cloned();
            self.listen(listener, access);
        }
        self.follow_pools_of_removed(&snapshot);
        self.forget_pools();
        self.stats.progress.adopt(snapshot.version, now);
        self.spare_returned(&snapshot);
        self.lanes.follow(&snapshot);
        self.snapshot = snapshot;
        self.ports_changed = true;
        left.iter().for_each(|queue| self.call_all(queue));
        self.look_for_places();
    }

    /// Begins to listen, if the socket for it has come.
    fn listen(&mut self, listener: &Arc<LiveListener>, access: Option<Arc<AccessFilter>>) {
        let Some(socket) = self.kernel.adopt(listener.id) else {
            return self.stats.listeners_lost.increment();
        };
        let pools = self.pools.follow_all(listener, self.seat);
        let port = Port::new((Arc::clone(listener), access), pools, socket);
        let key = self.ports.insert(port);
        self.listening.insert(listener.id, key);
    }

    /// The number of ports: those of the snapshot's listeners, and those of removed listeners that
    /// still have sessions. For the simulation.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.ports.len()
    }
}

/// The queues in which clients of a listener may wait that belong elsewhere now. A client that
/// still belongs there keeps its place when it is called.
fn left_queues(old: &LiveListener, new: &LiveListener) -> Vec<Arc<Queue>> {
    let is_same =
        |(old, new): (&Arc<Plan>, &Arc<Plan>)| Arc::ptr_eq(&old.pool().queue, &new.pool().queue);
    if new.routes.are_written_as(&old.routes) && old.plans().zip(new.plans()).all(is_same) {
        return Vec::new();
    }
    let mut left: Vec<Arc<Queue>> = Vec::new();
    for plan in old.plans() {
        let queue = &plan.pool().queue;
        if !left.iter().any(|known| Arc::ptr_eq(known, queue)) {
            left.push(Arc::clone(queue));
        }
    }
    left
}
