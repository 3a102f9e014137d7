//! The event queue, in order of time. Events of the same time keep the order in which they were
//! pushed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An event of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The next client arrives.
    Arrive,
    /// A client whose session broke returns.
    Return(u32),
    /// A session's wait ends: its key and serial number.
    Wake(usize, u64),
    /// The next request at a server is done: the backend, and the number of the expectation.
    Done(u16, u64),
    /// The backend of the outage goes away.
    Leave,
    /// The backend of the outage returns.
    Rejoin,
    /// Workers learn whether the backend of the outage is up.
    Publish(bool),
    /// A second has passed.
    Second,
}

/// The queue and its clock.
#[derive(Debug)]
pub(super) struct EventQueue<E> {
    events: BinaryHeap<Reverse<(u64, u64, E)>>,
    pushed: u64,
}

impl<E: Ord> EventQueue<E> {
    /// A queue without an event.
    pub(super) fn new() -> Self {
        Self {
            events: BinaryHeap::new(),
            pushed: 0,
        }
    }

    /// Adds an event at a time, in ns.
    pub(super) fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        self.events.push(Reverse((at, self.pushed, event)));
    }

    /// The next event and its time.
    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, event)) = self.events.pop()?;
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_order_of_time_then_as_they_were_set() {
        let mut queue = EventQueue::new();
        queue.push(5, Event::Second);
        queue.push(3, Event::Wake(1, 1));
        queue.push(3, Event::Arrive);
        let mut next = || queue.pop();
        assert_eq!(next(), Some((3, Event::Wake(1, 1))));
        assert_eq!(next(), Some((3, Event::Arrive)));
        assert_eq!(next(), Some((5, Event::Second)));
        assert_eq!(next(), None);
    }
}
