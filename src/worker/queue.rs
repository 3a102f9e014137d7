//! Clients that wait while their pool is full: how they join its queue, how workers call each
//! other's.

use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::kernel::{Kernel, Sleeper};
use crate::pool::{Called, Pool, Queue, Ticket};
use crate::session::Event;
use crate::time::{MS, NEVER, US};

use super::slot::number;
use super::{Worker, slot::Slot};

/// The calls for a worker's clients, which any worker puts there. It holds no more than one
/// call per session of that worker.
#[derive(Debug, Default)]
pub struct Inbox {
    calls: SegQueue<Called>,
}

impl Inbox {
    /// Adds a call for a client of its worker, which reads it when it wakes.
    pub fn put(&self, call: Called) {
        self.calls.push(call);
    }

    /// The next call.
    #[must_use]
    pub fn take(&self) -> Option<Called> {
        self.calls.pop()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

/// A session's entry in the queue of a pool. It lasts until the session has a backend or ends.
#[derive(Debug)]
pub(super) struct QueueEntry {
    /// The pool as it was when the session joined. Its queue outlives it.
    pool: Arc<Pool>,
    number: u64,
}

impl<K: Kernel> Worker<K> {
    /// Whether the session may select now: no client waits before it, or it was called.
    pub(super) fn is_its_turn(&mut self, key: usize) -> bool {
        let slot = &self.slots[key];
        let queue = &slot.plan().pool().queue;
        let elsewhere = |entry: &QueueEntry| !Arc::ptr_eq(&entry.pool.queue, queue);
        if slot.queue_entry.as_ref().is_some_and(elsewhere) {
            // Its listener has another pool now.
            self.leave_queue(key);
        }
        let slot = &self.slots[key];
        slot.only().is_some() || slot.queue_entry.is_some() || slot.plan().pool().queue.is_empty()
    }

    /// The session joins the queue: no backend has a place, or others wait for one. A session that
    /// was called keeps its position.
    pub(super) fn wait_for_place(&mut self, key: usize) -> Event {
        let slot = &mut self.slots[key];
        let pool = Arc::clone(slot.plan().pool());
        let look_at = next_look(&pool, self.now);
        self.look_at = self.look_at.min(look_at);
        if let Some(entry) = &slot.queue_entry {
            if pool.queue.step_back(entry.number) {
                self.call_next(&pool);
            }
            return Event::Requeued;
        }
        let ticket = Ticket {
            worker: self.id,
            slot: number(key),
            generation: slot.generation,
            // What it waited before counts.
            since: self.now.saturating_sub(slot.session.queued()),
        };
        let Some((number, until)) = pool.queue.join(ticket, self.now) else {
            return Event::Full;
        };
        self.call_next(&pool);
        self.slots[key].queue_entry = Some(QueueEntry { pool, number });
        Event::Queued(until)
    }

    /// Takes the session out of the queue: it has a backend, or it ended. If it was called, the
    /// call goes to the next one.
    pub(super) fn leave_queue(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Some(entry) = slot.queue_entry.take() else {
            return;
        };
        let waited = slot.session.queue_took(self.now);
        self.stats.latencies.queue.record(waited);
        slot.listener.gate.waits.record(waited);
        entry.pool.queue.waits.record(waited);
        self.recorded.queue.record(waited / US);
        if entry.pool.queue.leave(entry.number) {
            self.call_next(&entry.pool);
        }
    }

    /// Calls the first client that waits for a place in this pool, if there is one. The session's
    /// own pool may be outdated, so the present one counts the free places if a port leads there.
    pub(super) fn call_next(&self, pool: &Pool) {
        if pool.queue.is_empty() {
            return;
        }
        let present = self.pools.present(pool).map_or(pool, |present| present);
        self.call_from(&pool.queue, present.places(self.now));
    }

    /// Calls the first client; `false`: the queue is empty, or no place is free.
    fn call_from(&self, queue: &Queue, places: u32) -> bool {
        while let Some(call) = queue.call(self.now, places) {
            self.inboxes[call.ticket.worker as usize].put(call);
            // A worker reads its own inbox before it waits.
            if call.ticket.worker != self.id {
                self.kernel.wake(Sleeper::Worker(call.ticket.worker));
            }
            if call.comes {
                return true;
            }
        }
        false
    }

    /// Calls every client of a queue: their listener has another pool now, and they go on there.
    pub(super) fn call_all(&self, queue: &Queue) {
        while self.call_from(queue, u32::MAX) {}
    }

    /// Whether calls for this worker's clients wait.
    pub(super) fn is_called(&self) -> bool {
        !self.inboxes[self.id as usize].is_empty()
    }

    /// Delivers the calls in this worker's inbox to their sessions.
    pub(super) fn answer_calls(&mut self) {
        let inboxes = Arc::clone(&self.inboxes);
        while let Some(call) = inboxes[self.id as usize].take() {
            let key = call.ticket.slot as usize;
            let is_it = |slot: &&Slot| {
                let entry = slot.queue_entry.as_ref();
                slot.generation == call.ticket.generation
                    && entry.is_some_and(|entry| entry.number == call.number)
            };
            // A session that left the queue has passed its call on.
            let Some(slot) = self.slots.get(key).filter(is_it) else {
                continue;
            };
            if !slot.session.is_queued() || !call.comes {
                self.leave_queue(key);
            }
            let slot = &self.slots[key];
            if slot.session.is_queued() {
                let event = if call.comes {
                    Event::Called
                } else {
                    Event::Refused
                };
                self.with_session(key, |session, cx| session.on_event(event, false, cx));
            }
        }
    }

    /// Looks for places that came free by time, while a client waits.
    pub(super) fn look_for_places(&mut self) {
        let mut look_at = NEVER;
        for pool in self.pools.all() {
            if !pool.queue.is_empty() {
                self.call_from(&pool.queue, pool.places(self.now));
                look_at = look_at.min(next_look(pool, self.now));
            }
        }
        self.look_at = look_at;
    }
}

/// When to look for places of this pool that come free without a call.
fn next_look(pool: &Pool, now: u64) -> u64 {
    let look_at = now + LOOK_EVERY;
    pool.retry_at(now).map_or(look_at, |at| at.min(look_at))
}

/// Between two looks for such places: 250 ms.
const LOOK_EVERY: u64 = 250 * MS;
