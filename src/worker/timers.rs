//! Deadlines of sessions: a hierarchical wheel, one timer per slot, none in the kernel.
//!
//! Setting and clearing cost the same however many timers there are (Varghese and Lauck, "Hashed
//! and hierarchical timing wheels", 1987). A timer never fires early, and at most one tick late.

#![expect(
    clippy::cast_possible_truncation,
    reason = "ticks are cut down to the index of a list, below SLOTS"
)]

use crate::time::NEVER;

/// The wheel of one worker. Times are in nanoseconds of the worker's clock.
#[derive(Debug)]
pub struct Timers {
    /// Heads of the lists, `LEVELS` times `SLOTS`.
    heads: Vec<u32>,
    /// A bit for each list of a level that is not empty.
    occupied: [u64; LEVELS],
    /// By slot of the session.
    nodes: Vec<Node>,
    /// The last tick that was processed.
    tick: u64,
    armed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
    /// Index into `heads`; [`NONE`] when not armed.
    list: u32,
    /// The tick it fires at.
    due: u64,
}

impl Timers {
    /// An empty wheel that begins now.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            heads: vec![NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            nodes: Vec::new(),
            tick: now >> SHIFT,
            armed: 0,
        }
    }

    /// Arms the timer of a slot for a time, unless it fires sooner already; not for [`NEVER`].
    pub fn set(&mut self, slot: u32, at: u64) {
        if at == NEVER {
            return;
        }
        let index = slot as usize;
        if self.nodes.len() <= index {
            self.nodes.resize(
                index + 1,
                Node {
                    prev: NONE,
                    next: NONE,
                    list: NONE,
                    due: 0,
                },
            );
        }
        // A deadline within a tick fires when that tick is over; one in the past with the next.
        let due = ((at >> SHIFT) + 1).max(self.tick + 1);
        let node = &self.nodes[index];
        if node.list != NONE && node.due <= due {
            return;
        }
        self.clear(slot);
        self.nodes[index].due = due;
        self.link(slot);
        self.armed += 1;
    }

    /// Disarms the timer of a slot, armed or not.
    pub fn clear(&mut self, slot: u32) {
        let Some(node) = self.nodes.get(slot as usize).copied() else {
            return;
        };
        if node.list == NONE {
            return;
        }
        if node.prev == NONE {
            self.set_head(node.list as usize, node.next);
        } else {
            self.nodes[node.prev as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        self.nodes[slot as usize].list = NONE;
        self.armed -= 1;
    }

    /// Disarms what is due and appends the slots to `due`.
    pub fn expire(&mut self, now: u64, due: &mut Vec<u32>) {
        let now = now >> SHIFT;
        if self.armed == 0 {
            self.tick = self.tick.max(now);
        }
        while self.tick < now {
            self.tick += 1;
            self.cascade();
            let list = self.tick as usize % SLOTS;
            while self.heads[list] != NONE {
                let slot = self.heads[list];
                self.clear(slot);
                due.push(slot);
            }
        }
    }

    /// When [`Self::expire`] should be called next; `None` while nothing is armed. It may be
    /// earlier than any timer, when far ones have to be sorted again.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let next = (0..LEVELS).filter_map(|level| {
            let here = self.tick >> (level * SLOT_BITS);
            // The list after the present one comes first, the present one last.
            let ahead = self.occupied[level].rotate_right((here + 1) as u32 % 64);
            let steps = u64::from(ahead.trailing_zeros()) + 1;
            (ahead != 0).then_some((here + steps) << (level * SLOT_BITS))
        });
        next.min().map(|tick| tick << SHIFT)
    }

    /// Sorts the timers of a higher level's list into lower ones when its turn comes.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let here = self.tick >> (level * SLOT_BITS);
            if here << (level * SLOT_BITS) != self.tick {
                return;
            }
            let list = level * SLOTS + here as usize % SLOTS;
            let mut slot = self.heads[list];
            self.set_head(list, NONE);
            while slot != NONE {
                let next = self.nodes[slot as usize].next;
                self.link(slot);
                slot = next;
            }
        }
    }

    fn link(&mut self, slot: u32) {
        let due = self.nodes[slot as usize].due;
        let list = self.list(due);
        let head = self.heads[list];
        self.set_head(list, slot);
        if head != NONE {
            self.nodes[head as usize].prev = slot;
        }
        let node = &mut self.nodes[slot as usize];
        node.prev = NONE;
        node.next = head;
        node.list = u32::try_from(list).unwrap_or(NONE);
    }

    /// The list of a tick: on the lowest level that reaches as far, and on the highest one's last
    /// list, to be sorted again from there, when none does.
    fn list(&self, due: u64) -> usize {
        for level in 0..LEVELS {
            let (at, here) = (due >> (level * SLOT_BITS), self.tick >> (level * SLOT_BITS));
            if at - here < SLOTS as u64 {
                return level * SLOTS + at as usize % SLOTS;
            }
        }
        let here = self.tick >> ((LEVELS - 1) * SLOT_BITS);
        LEVELS * SLOTS - SLOTS + (here as usize + SLOTS - 1) % SLOTS
    }

    fn set_head(&mut self, list: usize, slot: u32) {
        self.heads[list] = slot;
        let bit = 1 << (list % SLOTS);
        let level = &mut self.occupied[list / SLOTS];
        *level = if slot == NONE {
            *level & !bit
        } else {
            *level | bit
        };
    }
}

/// A tick is 2^22 ns, about 4.2 ms.
const SHIFT: u32 = 22;
const SLOT_BITS: usize = 6;
/// As many as an integer has bits.
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^4 ticks are 19 hours; what is further is sorted again on the way.
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 1 << SHIFT;

    #[test]
    fn fires_in_order_never_early_and_at_most_a_tick_late() {
        let mut timers = Timers::new(0);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut deadlines = Vec::new();
        for slot in 0..2_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // From the next tick to some days.
            let at = random % (TICK << (slot % 27));
            timers.set(slot, at);
            deadlines.push(Some(at));
        }
        let mut due = Vec::new();
        while let Some(now) = timers.next() {
            timers.expire(now, &mut due);
            for slot in due.drain(..) {
                let at = deadlines[slot as usize].take().expect("fires once");
                assert!(at <= now && now - at <= TICK, "{at} fired at {now}");
            }
        }
        assert!(deadlines.iter().all(Option::is_none));
    }

    #[test]
    fn a_timer_is_brought_forward_and_never_put_off() {
        let mut timers = Timers::new(0);
        let mut due = Vec::new();
        for at in [9, 5, 7] {
            timers.set(0, at * TICK);
        }
        timers.expire(5 * TICK, &mut due);
        assert!(due.is_empty());
        timers.expire(6 * TICK, &mut due);
        assert_eq!(due, [0]);
    }

    #[test]
    fn a_cleared_timer_can_be_set_for_later() {
        let mut timers = Timers::new(0);
        let mut due = Vec::new();
        for slot in 0..10 {
            timers.set(slot, 5 * TICK);
        }
        (0..10).step_by(2).for_each(|slot| timers.clear(slot));
        timers.clear(3);
        timers.set(3, 500 * TICK);
        timers.clear(77);
        timers.expire(7 * TICK, &mut due);
        due.sort_unstable();
        assert_eq!(due, [1, 5, 7, 9]);
        due.clear();
        timers.expire(499 * TICK, &mut due);
        assert!(due.is_empty());
        timers.expire(502 * TICK, &mut due);
        assert_eq!(due, [3]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_idle_wheel_keeps_up_with_the_clock() {
        let mut timers = Timers::new(0);
        let mut due = Vec::new();
        timers.expire(1 << 60, &mut due);
        timers.set(0, (1 << 60) + TICK);
        timers.expire((1 << 60) + 3 * TICK, &mut due);
        assert_eq!(due, [0]);
    }
}
