//! Memory that the kernel is given an address of.

use std::io;
use std::ptr::{self, NonNull};

use crate::sys;

/// Anonymous private pages, zeroed, real only once touched (mmap(2), MAP_NORESERVE).
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, owned by the `Mapping` until its drop; the kernel's use
        // of it ends with the ring, which its owners drop first.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap answers with an address or MAP_FAILED");
        Ok(Self { start, bytes })
    }

    /// Gives the whole pages within `bytes` from `offset` on back to the system; they read as
    /// zeroes from then on (madvise(2), MADV_DONTNEED).
    pub(super) fn discard(&self, offset: usize, bytes: usize) {
        let first = offset.next_multiple_of(PAGE_BYTES);
        let end = (offset + bytes) / PAGE_BYTES * PAGE_BYTES;
        assert!(end <= self.bytes);
        if first < end {
            let start = self.start.as_ptr().wrapping_add(first);
            sys::count_calls(1);
            // SAFETY: the pages lie within this mapping; `Buffers::trim`, which owns it, asks this
            // only of buffers that hold no bytes, when no completion is left to be taken.
            unsafe { libc::madvise(start.cast(), end - first, libc::MADV_DONTNEED) };
        }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

/// The smallest page of any architecture that Linux runs on; of a larger one, fewer are given back.
const PAGE_BYTES: usize = 4_096;

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this address and size, and nothing refers to
        // it any more: its owner is being dropped, after the ring.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
