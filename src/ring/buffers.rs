//! A worker's buffers: an arena, and the ring through which the kernel is given buffers
//! of it (io_uring_provided_buffers(7)).
//!
//! Memory is reserved once, for the most that all sessions could hold, and becomes real as it is
//! used. The kernel is given only as many buffers as recent batches needed, most recently used
//! first, so that a small load runs in a few warm pages.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::kernel::{BUFFER_BYTES, Buffer, BufferId};

use super::memory::Mapping;

/// The buffers of one worker.
///
/// Invariant: each buffer is in one of three hands: the kernel's (`stocked` of them), a session's
/// (from its receive's completion, or [`Self::take`], to [`Self::give_back`]), or `free` (with all
/// from `fresh` on). What the kernel was given can't be taken back from it.
pub(super) struct Buffers {
    arena: Mapping,
    ring: Mapping,
    /// Places in the ring: a power of two.
    entries: u16,
    /// Buffers in the arena.
    max: u16,
    /// Given back, the last one on top.
    free: Vec<BufferId>,
    /// The first buffer that was never used.
    fresh: BufferId,
    /// Buffers in the kernel's hands.
    stocked: u16,
    /// Buffers that the kernel should have at the start of a wait, at most half of all: none comes
    /// back before it is filled.
    target: u16,
    /// The ring's tail, as published.
    tail: u16,
    /// The kernel ran out of buffers, or nearly, since the last wait began.
    short: bool,
    /// Waits since `target` was last too small.
    calm: u16,
    /// By buffer: held by a session.
    held: Vec<bool>,
    /// More memory may be in use than the recent load needs.
    bloated: bool,
    /// That has lasted for long enough to give the memory back.
    trim_due: bool,
}

impl Buffers {
    /// Reserves memory for `max` buffers, at most 32,768, and registers the ring as group
    /// [`GROUP`].
    ///
    /// # Errors
    /// Those of mmap(2) and io_uring_register(2).
    pub(super) fn register(submitter: &Submitter<'_>, max: u16) -> io::Result<Self> {
        let entries = max.next_power_of_two();
        let arena = Mapping::new(usize::from(max) * STRIDE)?;
        let ring = Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let address = ring.start().as_ptr() as u64;
        // SAFETY: `ring` is page-aligned memory for `entries` entries, owned by the `Buffers` that
        // is returned; `Ring` drops its io_uring, which ends the kernel's use of it, before that.
        unsafe { submitter.register_buf_ring_with_flags(address, entries, GROUP, 0)? };
        Ok(Self {
            arena,
            ring,
            entries,
            max,
            free: Vec::new(),
            fresh: 0,
            stocked: 0,
            target: TARGET_MIN.min(half_of(max)),
            tail: 0,
            short: false,
            calm: 0,
            held: Vec::new(),
            bloated: false,
            trim_due: false,
        })
    }

    /// Gives the kernel buffers up to the target, but not the last `reserve` ones. To be called
    /// before each wait.
    pub(super) fn restock(&mut self, reserve: u32) {
        // Once per wait: a whole batch comes out of one stock.
        if std::mem::take(&mut self.short) {
            self.target = self.target.saturating_mul(2).min(half_of(self.max));
            self.calm = 0;
        }
        let before = self.tail;
        let spare = u16::try_from(self.free().saturating_sub(reserve)).unwrap_or(u16::MAX);
        let goal = self.target.min(self.stocked.saturating_add(spare));
        while self.stocked < goal {
            let Some(id) = self.take_free() else { break };
            self.put(id);
        }
        if self.tail != before {
            self.publish();
        }
        self.calm = self.calm.saturating_add(1);
        if self.calm >= CALM_WAITS {
            self.calm = 0;
            if self.target > TARGET_MIN {
                self.target = (self.target / 2).max(TARGET_MIN);
            } else {
                self.trim_due = self.bloated;
            }
        }
    }

    /// Whether [`Self::trim`] is worth its calls.
    pub(super) fn is_bloated(&self) -> bool {
        self.bloated
    }

    /// Whether calm has lasted for long enough to call [`Self::trim`] at the next occasion.
    pub(super) fn is_trim_due(&self) -> bool {
        self.trim_due
    }

    /// Gives the memory of buffers that hold nothing back to the system, those in the kernel's
    /// hands included: they are empty, and become real again when they are filled.
    ///
    /// To be called only when every completion was taken: a buffer that the kernel has filled
    /// counts as held from then on.
    pub(super) fn trim(&mut self) {
        self.target = TARGET_MIN.min(half_of(self.max));
        let mut begin = 0;
        for held in (0..usize::from(self.fresh)).filter(|&id| self.held[id]) {
            self.arena.discard(begin * STRIDE, (held - begin) * STRIDE);
            begin = held + 1;
        }
        self.arena
            .discard(begin * STRIDE, (usize::from(self.fresh) - begin) * STRIDE);
        self.bloated = false;
        self.trim_due = false;
    }

    /// The kernel ran out of buffers: it gets more from the next wait on.
    pub(super) fn on_exhausted(&mut self) {
        self.short = true;
        self.bloated = true;
    }

    /// The kernel handed a buffer over, filled with `len` bytes.
    pub(super) fn on_received(&mut self, id: BufferId, len: u32) -> Buffer {
        self.stocked -= 1;
        if self.stocked < self.target / 4 {
            self.on_exhausted();
        }
        debug_assert!(id < self.max && len <= BUFFER_BYTES);
        self.held[usize::from(id)] = true;
        // What is stocked beyond the target is filled in turn before it comes back for good.
        self.bloated |= self.stocked > self.target;
        Buffer { id, start: 0, len }
    }

    /// A session is done with a buffer.
    pub(super) fn give_back(&mut self, id: BufferId) {
        self.held[usize::from(id)] = false;
        self.free.push(id);
    }

    /// Buffers in the hands of sessions.
    pub(super) fn in_use(&self) -> u32 {
        u32::from(self.max - self.stocked) - self.free()
    }

    /// Buffers in any hand, or in none.
    pub(super) fn in_all(&self) -> u32 {
        self.max.into()
    }

    /// Buffers in no hand.
    pub(super) fn free(&self) -> u32 {
        u32::from(self.max - self.fresh) + u32::try_from(self.free.len()).unwrap_or(0)
    }

    /// Whether sessions hold more than half of what there can be.
    pub(super) fn is_short(&self) -> bool {
        self.in_use() > u32::from(self.max / 2)
    }

    /// Where a buffer's bytes begin. Valid until the arena is dropped; meaningful until the buffer
    /// is given back.
    pub(super) fn address(&self, buffer: Buffer) -> *const u8 {
        assert!(buffer.id < self.max && buffer.start + buffer.len <= BUFFER_BYTES);
        let offset = usize::from(buffer.id) * STRIDE + buffer.start as usize;
        self.arena.start().as_ptr().wrapping_add(offset)
    }

    /// The bytes of a buffer that a session holds.
    pub(super) fn bytes(&self, buffer: Buffer) -> &[u8] {
        assert!(self.held[usize::from(buffer.id)], "no session holds it");
        let address = self.address(buffer);
        // SAFETY: `address` checked that the bytes lie within the buffer, in the arena that `self`
        // owns. A held buffer is out of the kernel's hands: it was taken off the ring when its
        // receive completed, or never put there since it was free, and a send only reads it.
        unsafe { std::slice::from_raw_parts(address, buffer.len as usize) }
    }

    /// The same, to be written. Nothing is to be in flight on it: a send would send what is written
    /// meanwhile.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "what it returns is the arena, which must not be borrowed meanwhile"
    )]
    pub(super) fn bytes_mut(&mut self, buffer: Buffer) -> &mut [u8] {
        assert!(self.held[usize::from(buffer.id)], "no session holds it");
        let address = self.address(buffer).cast_mut();
        // SAFETY: as for `bytes`, and `self`, which owns the arena, is borrowed exclusively. The
        // kernel writes only to buffers in its own hands.
        unsafe { std::slice::from_raw_parts_mut(address, buffer.len as usize) }
    }

    /// Copies the bytes of one held buffer behind those of another.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "it writes into the arena, which must not be borrowed meanwhile"
    )]
    pub(super) fn append(&mut self, to: Buffer, from: Buffer) {
        assert!(to.id != from.id && to.start + to.len + from.len <= BUFFER_BYTES);
        assert!(self.held[usize::from(to.id)] && self.held[usize::from(from.id)]);
        let source = self.address(from);
        let free = Buffer {
            start: to.start + to.len,
            len: from.len,
            ..to
        };
        let target = self.address(free).cast_mut();
        // SAFETY: both ranges were checked to lie within two different buffers of the arena that
        // `self` owns, exclusively borrowed here. Both are held by a session, so out of the
        // kernel's hands since their receives completed, and nothing is sent from them yet.
        unsafe { std::ptr::copy_nonoverlapping(source, target, from.len as usize) };
    }

    /// Takes a free buffer, all of it.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        let id = self.take_free()?;
        self.held[usize::from(id)] = true;
        self.bloated = true;
        Some(Buffer {
            id,
            start: 0,
            len: BUFFER_BYTES,
        })
    }

    /// As if the kernel filled all that it has; how many. None may have been given back before.
    #[cfg(test)]
    pub(super) fn fill_all(&mut self) -> u32 {
        let stocked = self.stocked;
        for id in self.fresh - stocked..self.fresh {
            self.on_received(id, 1);
        }
        stocked.into()
    }

    fn take_free(&mut self) -> Option<BufferId> {
        self.free.pop().or_else(|| {
            let id = (self.fresh < self.max).then_some(self.fresh)?;
            self.fresh += 1;
            self.held.push(false);
            Some(id)
        })
    }

    fn put(&mut self, id: BufferId) {
        let address = self.arena.start().as_ptr() as u64 + u64::from(id) * STRIDE as u64;
        let index = usize::from(self.tail & (self.entries - 1));
        let first: NonNull<BufRingEntry> = self.ring.start().cast();
        // SAFETY: `index` is below `entries`, for which `ring` was mapped, zeroed, and aligned. The
        // kernel reads an entry only below the published tail, and this one is at it.
        let mut entry = unsafe { first.add(index) };
        // SAFETY: as above; no other reference to an entry exists.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.stocked += 1;
    }

    fn publish(&self) {
        let first: *const BufRingEntry = self.ring.start().as_ptr().cast();
        // SAFETY: `first` is the base of the mapped, zeroed ring that `self` owns.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the tail lies in the same mapping, is 2-aligned, and only this thread and the
        // kernel, which only loads it, ever touch it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("entries", &self.entries)
            .field("stocked", &self.stocked)
            .field("target", &self.target)
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

/// What the kernel may have of so many buffers.
fn half_of(max: u16) -> u16 {
    max.div_ceil(2)
}

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;
/// From one buffer to the next: a cache line more than a buffer, as buffers that all began at the
/// same offset of a page would share a few sets of the cache.
const STRIDE: usize = BUFFER_BYTES as usize + 64;
const TARGET_MIN: u16 = 64;
/// Waits without need after which the kernel gets fewer buffers.
const CALM_WAITS: u16 = 4_096;
