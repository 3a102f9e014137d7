//! The queue of a full pool: clients wait for a place, first come, first served, over all workers.
//!
//! This module only keeps the order; sessions wait in their workers. When a place becomes free, a
//! worker calls the first client, whose own worker then selects again. If the place is gone by then
//! the client steps back to its old position. A called client counts as queued until it is served
//! or leaves, so that no other overtakes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::config;
use crate::time::nanos;

/// The clients that wait for a place in one pool. Outlives snapshots.
#[derive(Debug)]
pub struct Queue {
    /// How many clients wait or are called. Workers read it whenever a connection ends.
    len: CachePadded<AtomicU32>,
    line: Mutex<Line>,
}

/// A client that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The worker of its session.
    pub worker: u32,
    /// The session's slot there.
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
    /// Since when it waits, in ns of the workers' clock.
    pub since: u64,
}

/// The result of calling a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    /// The client.
    pub ticket: Ticket,
    /// The number that [`Queue::join`] gave it.
    pub number: u64,
    /// `true`: there is a place; the client must end the call by [`Queue::step_back`] or
    /// [`Queue::leave`]. `false`: it has waited too long and is no longer queued.
    pub comes: bool,
}

#[derive(Debug)]
struct Line {
    settings: config::QueueLimits,
    /// Clients that wait, by number and so in order.
    waiting: BTreeMap<u64, Ticket>,
    /// Clients that were called and have not ended the call.
    called: BTreeMap<u64, Ticket>,
    /// The number of the next client.
    next: u64,
    /// Since when it is not empty, in ns.
    busy_since: u64,
    /// A place was offered while no further client could be called: a called one that steps back
    /// must look again.
    missed: bool,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(settings: config::QueueLimits) -> Self {
        Self {
            len: CachePadded::default(),
            line: Mutex::new(Line {
                settings,
                waiting: BTreeMap::new(),
                called: BTreeMap::new(),
                next: 0,
                busy_since: 0,
                missed: false,
            }),
        }
    }

    /// Changes the settings, for clients that join from now on and for all calls.
    pub fn set(&self, settings: config::QueueLimits) {
        self.line.lock().settings = settings;
    }

    /// How many clients wait or are called.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len.load(Ordering::SeqCst)
    }

    /// Whether no client waits or is called, as is nearly always so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a client at the end. Returns its number, and until when it may wait, in ns; `None`: the
    /// queue is full. After this the caller must look once more for a place and, if there is one,
    /// [call](Self::call): it may have become free just before.
    pub fn join(&self, ticket: Ticket, now: u64) -> Option<(u64, u64)> {
        let mut line = self.line.lock();
        if line.len() >= line.settings.max {
            return None;
        }
        if line.len() == 0 {
            line.busy_since = now;
        }
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, ticket);
        self.publish(&line);
        // Pairs with the subtraction of `Limit::release`, after which `len` is looked at.
        fence(Ordering::SeqCst);
        Some((number, ticket.since.saturating_add(line.patience(now))))
    }

    /// Calls the first client that waits, because there are `places` free places. Never calls more
    /// clients than that at a time: they would overtake each other.
    ///
    /// A first client that has waited too long is removed and returned instead. Repeat the call
    /// until it returns a client that [`comes`](Called::comes), or `None`: no client can be called.
    pub fn call(&self, now: u64, places: u32) -> Option<Called> {
        let mut line = self.line.lock();
        let called = u32::try_from(line.called.len()).unwrap_or(u32::MAX);
        let first = (called < places).then(|| line.waiting.pop_first());
        let Some((number, ticket)) = first.flatten() else {
            line.missed |= called > 0;
            return None;
        };
        let comes = !line.is_late(&ticket, now);
        if comes {
            line.called.insert(number, ticket);
        } else {
            self.publish(&line);
        }
        Some(Called {
            ticket,
            number,
            comes,
        })
    }

    /// A called client found no place: it waits again at its old position. `true`: a place may have
    /// become free meanwhile for which no client was called, so call again.
    pub fn step_back(&self, number: u64) -> bool {
        let mut line = self.line.lock();
        if let Some(ticket) = line.called.remove(&number) {
            line.waiting.insert(number, ticket);
        }
        std::mem::take(&mut line.missed)
    }

    /// Removes a client that is served or gone. `true`: it was called, so call the next one if
    /// there is a place.
    pub fn leave(&self, number: u64) -> bool {
        let mut line = self.line.lock();
        let called = line.called.remove(&number).is_some();
        if !called {
            line.waiting.remove(&number);
        }
        self.publish(&line);
        called
    }

    fn publish(&self, line: &Line) {
        self.len.store(line.len(), Ordering::SeqCst);
    }
}

impl Line {
    fn len(&self) -> u32 {
        let len = self.waiting.len() + self.called.len();
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// How long a client may wait, in ns. A queue that stays non-empty for a whole timeout is no
    /// passing burst, and its length would only be added to every client's time. Then each may wait
    /// a twentieth. (CoDel, RFC 8289, as simplified for servers in Maurer, "Fail at Scale", ACM
    /// Queue 13(8), 2015.)
    fn patience(&self, now: u64) -> u64 {
        let timeout = nanos(self.settings.timeout);
        if now.saturating_sub(self.busy_since) < timeout {
            timeout
        } else {
            timeout / OVERLOAD_PART
        }
    }

    /// Whether the client just taken from the front has waited too long. If it was the last one it
    /// may wait the whole timeout, because no other client wants the place (RFC 8289 never drops
    /// the last packet either).
    fn is_late(&self, ticket: &Ticket, now: u64) -> bool {
        let most = if self.waiting.is_empty() {
            nanos(self.settings.timeout)
        } else {
            self.patience(now)
        };
        now.saturating_sub(ticket.since) > most
    }
}

/// A standing queue divides the timeout by this.
const OVERLOAD_PART: u64 = 20;

#[cfg(test)]
mod tests;
