//! An allocator that counts, per thread: tests beside this one do not disturb the count.

#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
#[derive(Debug)]
pub(crate) struct Counting;

/// What one thread requested of the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) allocations: u64,
    pub(crate) deallocations: u64,
}

impl Count {
    pub(crate) const NONE: Self = Self {
        allocations: 0,
        deallocations: 0,
    };
}

/// Counts what `call` requests of the allocator on this thread.
pub(crate) fn count(call: impl FnOnce()) -> Count {
    let before = COUNT.get();
    call();
    let after = COUNT.get();
    Count {
        allocations: after.allocations - before.allocations,
        deallocations: after.deallocations - before.deallocations,
    }
}

fn note(allocations: u64, deallocations: u64) {
    let before = COUNT.get();
    COUNT.set(Count {
        allocations: before.allocations + allocations,
        deallocations: before.deallocations + deallocations,
    });
}

// SAFETY: every call is handed on unchanged to the system's allocator, which owns the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, 0);
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, 0);
        // SAFETY: the caller keeps the promises of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(1, 1);
        // SAFETY: the caller's memory came from `System`, by one of these functions.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note(0, 1);
        // SAFETY: the caller's memory came from `System`, by one of these functions.
        unsafe { System.dealloc(memory, layout) }
    }
}

thread_local! {
    /// Needs neither memory nor a destructor of its own, so that the allocator can always use it.
    static COUNT: Cell<Count> = const { Cell::new(Count::NONE) };
}
