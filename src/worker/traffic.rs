//! Counts the bytes of sessions for other threads, while the sessions move them.
//!
//! A session counts its own bytes. When it moves some, the worker notes it, once; several times a
//! second, at the end of a turn, it counts the bytes of all noted sessions. So an event costs a
//! test of a flag, and an idle session nothing.

use std::collections::VecDeque;

use crate::kernel::Kernel;
use crate::time::{MS, NEVER};

use super::accept::Port;
use super::slot::Slot;
use super::{Stats, Stop, Worker};

/// Sessions that have moved bytes which are not counted yet.
#[derive(Debug)]
pub(super) struct Uncounted {
    /// Slots with their generations. Those that have ended since were counted at their end.
    sessions: VecDeque<(usize, u32)>,
    /// When to count them, at the end of a turn; [`NEVER`] while there are none.
    due: u64,
    /// When some were counted last.
    counted_at: u64,
}

impl Uncounted {
    pub(super) fn new(now: u64) -> Self {
        Self {
            sessions: VecDeque::new(),
            due: NEVER,
            counted_at: now,
        }
    }

    /// A session may have delivered bytes.
    #[cold]
    pub(super) fn note(&mut self, key: usize, slot: &mut Slot) {
        if slot.moved {
            return;
        }
        slot.moved = true;
        if self.sessions.is_empty() {
            self.due = self.counted_at.saturating_add(PERIOD);
        }
        self.sessions.push_back((key, slot.generation));
    }

    /// When a turn is due for it if none comes by itself: what is left of a burst is seen soon,
    /// and a quiet connection costs no turn for each of its messages.
    pub(super) fn turn_due(&self) -> u64 {
        self.due.saturating_add(SLACK)
    }
}

impl<K: Kernel> Worker<K> {
    /// Counts what is due.
    pub(super) fn count_due(&mut self) {
        // After a stop the next turn may be the last.
        if self.now < self.uncounted.due && self.stop == Stop::Running {
            return;
        }
        // The others are still there in the next turn.
        for _ in 0..COUNTS_MAX {
            let Some((key, generation)) = self.uncounted.sessions.pop_front() else {
                break;
            };
            let slot = self.slots.get(key);
            if slot.is_some_and(|slot| slot.generation == generation) {
                self.count(key);
            }
        }
        for (_, port) in &mut self.ports {
            port.publish_traffic(&self.stats);
        }
        self.uncounted.counted_at = self.now;
        if self.uncounted.sessions.is_empty() {
            self.uncounted.due = NEVER;
        }
    }

    /// Counts what a session moved since it was last counted.
    pub(super) fn count(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        if !std::mem::take(&mut slot.moved) {
            return;
        }
        let mut moved = [0; 2];
        for (way, delivered) in slot.session.delivered().into_iter().enumerate() {
            let delivered = low(delivered);
            let counted = std::mem::replace(&mut slot.counted[way], delivered);
            moved[way] = u64::from(delivered.wrapping_sub(counted));
        }
        self.ports[slot.port].add_traffic(moved);
        slot.plan().pool().traffic.add(moved);
        if let Some(backend) = slot.backend() {
            backend.tally.traffic.add(moved);
        }
    }
}

impl Port {
    /// Bytes of its sessions, for worker and listener: at the end of each connection nothing but
    /// its backend and pool are shared.
    fn add_traffic(&mut self, moved: [u64; 2]) {
        self.moved[0] += moved[0];
        self.moved[1] += moved[1];
    }

    /// Counts them where others see them.
    pub(super) fn publish_traffic(&mut self, stats: &Stats) {
        let moved = std::mem::take(&mut self.moved);
        stats.traffic.add(moved);
        self.listener.traffic.add(moved);
    }
}

/// The low half of a count: what is added between two looks is far less than 4 GiB.
fn low(bytes: u64) -> u32 {
    u32::try_from(bytes & u64::from(u32::MAX)).unwrap_or(0)
}

/// From one count to the next: 50 ms.
const PERIOD: u64 = 50 * MS;
/// How much later, where no turn comes by itself: 450 ms.
const SLACK: u64 = 450 * MS;
/// Sessions that are counted in a turn: others are not to wait for all of them.
const COUNTS_MAX: usize = 4_096;
