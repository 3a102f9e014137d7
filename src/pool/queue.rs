//! The queue of a full pool: clients wait for a place, first come, first served, over all workers.
//!
//! This module only keeps the order; sessions wait in their workers. When a place becomes free, a
//! worker calls the first client, whose own worker then selects again. If the place is gone by then
//! the client steps back to its old position. A called client counts as queued until it is served
//! or leaves, so that no other overtakes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::buckets::TimeBuckets;
use crate::config;
use crate::metric::BucketBounds;
use crate::time::nanos;

/// The clients that wait for a place in one pool. Outlives snapshots.
#[derive(Debug)]
pub struct Queue {
    /// What workers read whenever a connection ends.
    counts: CachePadded<Counts>,
    /// Refused clients for whom a place came free too late, by [`Missed`].
    regrets: [AtomicU64; 2],
    /// How long clients waited, however that ended.
    pub waits: TimeBuckets,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Counts {
    /// How many clients wait or are called.
    len: AtomicU32,
    /// Clients that were refused in the last 100 ms, less those for whom a place came free since:
    /// 12 bits of those that found the queue full, 12 of those that waited for too long, and 40 of
    /// the time of the last one in ms of the workers' clock. 0: none.
    missed: AtomicU64,
}

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The queue was full.
    Full,
    /// It waited for too long.
    Late,
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
            counts: CachePadded::default(),
            regrets: Default::default(),
            waits: TimeBuckets::new(BucketBounds::WAITS),
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
        self.counts.len.load(Ordering::SeqCst)
    }

    /// Whether no client waits or is called, as is nearly always so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A client was refused, at this time in ms of the workers' clock.
    pub fn note_missed(&self, why: Missed, now: u64) {
        let one = match why {
            Missed::Full => 1 << FULL_SHIFT,
            Missed::Late => 1 << LATE_SHIFT,
        };
        let add = |missed: u64| {
            let counts = if is_past(missed, now) {
                0
            } else {
                missed & !TIME_MASK
            };
            // More than fit are as many as fit.
            let is_at_most = (counts / one) & COUNT_MAX == COUNT_MAX;
            let counts = if is_at_most { counts } else { counts + one };
            Some(counts | (now & TIME_MASK))
        };
        let _ = self
            .counts
            .missed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// A place has come free, at this time in ms: a client that was refused less than 100 ms ago
    /// would have had it. It is counted for one place only.
    pub fn take_missed(&self, now: u64) -> Option<Missed> {
        let missed = self.counts.missed.load(Ordering::Relaxed);
        if missed & !TIME_MASK == 0 || is_past(missed, now) {
            return None;
        }
        let (why, one) = match (missed >> FULL_SHIFT) & COUNT_MAX {
            0 => (Missed::Late, 1 << LATE_SHIFT),
            _ => (Missed::Full, 1 << FULL_SHIFT),
        };
        // Another worker that was quicker has taken it, or has refused another client.
        let taken = self.counts.missed.compare_exchange(
            missed,
            missed - one,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        taken.ok()?;
        self.regrets[why as usize].fetch_add(1, Ordering::Relaxed);
        Some(why)
    }

    /// Clients that were refused for this less than 100 ms before a place came free.
    #[must_use]
    pub fn regrets(&self, why: Missed) -> u64 {
        self.regrets[why as usize].load(Ordering::Relaxed)
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
        self.counts.len.store(line.len(), Ordering::SeqCst);
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

/// Whether the last refusal is too long ago to be regretted.
fn is_past(missed: u64, now: u64) -> bool {
    (now & TIME_MASK).wrapping_sub(missed) & TIME_MASK > REGRET
}

/// A refusal is regretted if a place comes free within so many ms.
const REGRET: u64 = 100;
const TIME_MASK: u64 = (1 << 40) - 1;
const LATE_SHIFT: u32 = 40;
const FULL_SHIFT: u32 = 52;
const COUNT_MAX: u64 = (1 << 12) - 1;

#[cfg(test)]
mod tests;
