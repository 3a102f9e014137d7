//! Closes sessions that hold much of the kernel's memory for TCP and move little, while that memory
//! is short: beyond `net.ipv4.tcp_mem` the kernel drops what arrives for any socket of the machine.
//!
//! Each command of the control thread, one a second, looks at the sessions that waited for room at
//! the last one, and notes those that do so now. A session asks and counts nothing for this. A few
//! are closed in a turn: the kernel frees megabytes of each, and others wait for the turn.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::address::Address;
use crate::kernel::Kernel;
use crate::session::CloseReason;
use crate::token::Side;

use super::Worker;
use super::slot::Slot;

/// The sessions that waited for room at the last command, and those to be closed.
#[derive(Debug, Default)]
pub(super) struct Hoarders {
    waiting: Vec<Waiting>,
    /// Slot and generation of each session to be closed, those that hold the most first.
    leaving: VecDeque<(usize, u32)>,
    /// The slot that the next look begins at.
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: usize,
    generation: u32,
    /// Bytes that it had delivered by then.
    delivered: u64,
}

impl Hoarders {
    /// Whether sessions are to be closed.
    pub(super) fn leave(&self) -> bool {
        !self.leaving.is_empty()
    }
}

impl<K: Kernel> Worker<K> {
    /// Has the kernel get so many bytes back from sessions that waited at the last command and have
    /// moved little since.
    pub(super) fn free_memory(&mut self, bytes: u64) {
        let waited = std::mem::take(&mut self.hoarders.waiting);
        let hoards = waited.into_iter().filter_map(|one| {
            let held = self.hoarded(one)?;
            Some((held, (one.key, one.generation)))
        });
        // What an earlier command left is among them, if it still waits.
        self.hoarders.leaving = chosen(hoards.collect(), bytes).into();
        self.note_waiting();
    }

    /// Closes some of those that are to be closed and still wait for room.
    pub(super) fn close_hoarders(&mut self) {
        for _ in 0..CLOSES_MAX {
            let Some((key, generation)) = self.hoarders.leaving.pop_front() else {
                return;
            };
            let slot = self.slots.get(key);
            let waits =
                |slot: &Slot| slot.generation == generation && slot.session.is_waiting_for_room();
            if slot.is_some_and(waits) {
                self.with_session(key, |session, cx| session.close(CloseReason::Stalled, cx));
            }
        }
    }

    /// What the session holds of the kernel's memory, if its peers need long to take it.
    fn hoarded(&self, one: Waiting) -> Option<u64> {
        let slot = self.slots.get(one.key)?;
        if slot.generation != one.generation || !slot.session.is_waiting_for_room() {
            return None;
        }
        let sides = Side::BOTH.into_iter();
        let tcp = sides.filter(|side| matches!(slot.address(*side), Some(Address::Tcp(_))));
        let held = tcp.map(|side| u64::from(self.kernel.memory(slot.socket(side))));
        let held: u64 = held.sum();
        let moved = delivered(slot) - one.delivered;
        (held >= HOARD_MIN && moved.saturating_mul(LOOKS_TO_DRAIN) < held).then_some(held)
    }

    /// Notes some of the sessions that wait for room now, and goes on from there at the next
    /// command.
    fn note_waiting(&mut self) {
        let slots = self.slots.capacity();
        for _ in 0..slots.min(SLOTS_AT_ONCE) {
            let key = if self.hoarders.next < slots {
                self.hoarders.next
            } else {
                0
            };
            self.hoarders.next = key + 1;
            let slot = self.slots.get(key);
            let Some(slot) = slot.filter(|slot| slot.session.is_waiting_for_room()) else {
                continue;
            };
            self.hoarders.waiting.push(Waiting {
                key,
                generation: slot.generation,
                delivered: delivered(slot),
            });
            if self.hoarders.waiting.len() == WAITING_MAX {
                break;
            }
        }
    }
}

/// The sessions to close to get so many bytes back, of what each holds: those that hold the most.
/// Where all of them together hold next to nothing of that, others than this worker do, and none is
/// closed.
fn chosen<S>(mut hoards: Vec<(u64, S)>, mut bytes: u64) -> Vec<S> {
    if hoards.iter().map(|(held, _)| held).sum::<u64>() < bytes / SHARE_MIN {
        return Vec::new();
    }
    hoards.sort_unstable_by_key(|(held, _)| Reverse(*held));
    let mut sessions = Vec::new();
    for (held, session) in hoards {
        if bytes == 0 {
            break;
        }
        bytes = bytes.saturating_sub(held);
        sessions.push(session);
    }
    sessions
}

fn delivered(slot: &Slot) -> u64 {
    let [up, down] = slot.session.delivered();
    up + down
}

/// Less than this, 64 KiB, is not worth a session.
const HOARD_MIN: u64 = 64 << 10;
/// A sixteenth of what is to be freed is worth closing sessions for.
const SHARE_MIN: u64 = 16;
/// A session that would take more than so many commands, seconds, to pass on what it holds moves
/// little.
const LOOKS_TO_DRAIN: u64 = 16;
/// Sessions that are closed in a turn.
const CLOSES_MAX: usize = 8;
/// Slots that one command looks at, and sessions that it notes. Each costs two system calls at the
/// next.
const SLOTS_AT_ONCE: usize = 16_384;
const WAITING_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_hoards_go_first_until_enough_is_free() {
        let hoards = vec![(100, 0), (400, 1), (200, 2), (300, 3)];
        assert_eq!(chosen(hoards.clone(), 500), [1, 3]);
        assert_eq!(chosen(hoards.clone(), 400), [1]);
        assert_eq!(chosen(hoards, 5_000), [1, 3, 2, 0]);
    }

    /// What others hold is not got back by closing sessions that hold a little.
    #[test]
    fn none_is_closed_for_less_than_a_sixteenth_of_what_is_to_be_freed() {
        let hoards = vec![(60, 0), (40, 1)];
        assert_eq!(chosen(hoards.clone(), 1_600), [0, 1]);
        assert_eq!(chosen(hoards, 1_616), [0; 0]);
        assert!(chosen(Vec::<(u64, usize)>::new(), 1_600).is_empty());
    }
}
