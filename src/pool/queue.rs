//! Clients that wait while every backend of a pool is full: first come, first served, over all
//! workers.
//!
//! Nobody waits in here. A place that comes free calls the first, whose worker is told so and
//! selects anew; whoever finds no place then goes back to where it stood. Who was called counts as
//! one of the queue until it is served or gone: nobody overtakes it meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::config;
use crate::time::nanos;

/// The clients that wait for a place in one pool. It outlives snapshots.
#[derive(Debug)]
pub struct Queue {
    /// How many wait or are called, to be looked at whenever a connection ends.
    len: CachePadded<AtomicU32>,
    line: Mutex<Line>,
}

/// A client that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The worker that has its session,
    pub worker: u32,
    /// the session's slot there,
    pub slot: u32,
    /// and the slot's generation.
    pub generation: u32,
    /// Since when it waits, in ns of the workers' clock.
    pub since: u64,
}

/// What becomes of a client that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Whose turn it is.
    pub ticket: Ticket,
    /// The number that it joined by.
    pub number: u64,
    /// `true`: there is a place, and it has to say what became of it by [`Queue::step_back`] or
    /// [`Queue::leave`]. `false`: it waited too long and is out of the queue.
    pub comes: bool,
}

#[derive(Debug)]
struct Line {
    settings: config::Queue,
    /// By number, hence in order.
    waiting: BTreeMap<u64, Ticket>,
    /// Who was called and has not answered.
    called: BTreeMap<u64, Ticket>,
    next: u64,
    /// When it was last found empty, in ns.
    busy_since: u64,
    /// Somebody could have been called, but that as many are called as there are places, or
    /// all who wait.
    missed: bool,
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(settings: config::Queue) -> Self {
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

    /// Other settings, for those who join from now on and for when they are called.
    pub fn set(&self, settings: config::Queue) {
        self.line.lock().settings = settings;
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len.load(Ordering::SeqCst)
    }

    /// Whether nobody waits, as it is nearly always.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A client joins the end: the number that it has from then on, and until when it may wait, in
    /// ns. `None`: there is no room. Who has joined must look once more whether there is a place,
    /// and if so [call](Self::call): it may have come free just before.
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

    /// There are so many places: calls the first who waits, unless as many are called already.
    /// (More would overtake each other.) Those before it who waited too long are out of the queue,
    /// each told by a call of this function: it is to be called again until it answers with
    /// somebody who comes, or with `None` as there is nobody to call.
    pub fn call(&self, now: u64, places: u32) -> Option<Call> {
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
        Some(Call {
            ticket,
            number,
            comes,
        })
    }

    /// Who was called found no place: it waits again, where it stood. `true`: one may have come
    /// free meanwhile, and nobody was called for it.
    pub fn step_back(&self, number: u64) -> bool {
        let mut line = self.line.lock();
        if let Some(ticket) = line.called.remove(&number) {
            line.waiting.insert(number, ticket);
        }
        std::mem::take(&mut line.missed)
    }

    /// A client is served, or gone. `true`: it had been called, and if there is a place now the
    /// next one is to be called.
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

    /// How long a client may wait, in ns: a queue that does not become empty is no burst that
    /// passes, and long waits would only be added to everybody's time (CoDel's idea, RFC 8289, as
    /// simplified for servers in "Fail at Scale", ACM Queue 13(8), 2015).
    fn patience(&self, now: u64) -> u64 {
        let timeout = nanos(self.settings.timeout);
        if now.saturating_sub(self.busy_since) < timeout {
            timeout
        } else {
            timeout / OVERLOAD_PART
        }
    }

    /// Whether one that was taken from the front waited too long. The last one is never refused a
    /// place that nobody else wants, within the whole time (as RFC 8289 never drops the last
    /// packet).
    fn is_late(&self, ticket: &Ticket, now: u64) -> bool {
        let most = if self.waiting.is_empty() {
            nanos(self.settings.timeout)
        } else {
            self.patience(now)
        };
        now.saturating_sub(ticket.since) > most
    }
}

/// What a queue that stays gives each of the timeout.
const OVERLOAD_PART: u64 = 20;

#[cfg(test)]
mod tests;
