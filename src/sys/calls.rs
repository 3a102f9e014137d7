//! Counts a thread's system calls beside those of its ring: an addition each, as no other thread
//! sees the count. Without those that no source of ours makes: of the allocator, of locks that
//! others hold, and of the thread's begin and end.

use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The calling thread makes so many calls.
pub(crate) fn count_calls(more: u64) {
    CALLS.with(|calls| calls.set(calls.get().wrapping_add(more)));
}

/// The calls that the calling thread has made so far.
#[must_use]
pub fn calls_of_thread() -> u64 {
    CALLS.with(Cell::get)
}
