//! Refused clients that are held: they get no answer, and nothing is read from them.
//!
//! Each takes a descriptor and what the kernel has for a socket. Their number is bounded, and they
//! are worth less than any session: one that needs the descriptor gets it.

use std::collections::VecDeque;

use crate::guard::Action;
use crate::kernel::{Kernel, Manner, Socket};
use crate::time::NEVER;

use super::{Stop, Worker};

/// The held clients of a worker, the first that has come first.
#[derive(Debug, Default)]
pub(super) struct Held {
    clients: VecDeque<(Socket, u64)>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// When the first one is let go, in ns.
    pub(super) fn next(&self) -> u64 {
        self.clients.front().map_or(NEVER, |(_, until)| *until)
    }
}

impl<K: Kernel> Worker<K> {
    /// Does with a refused client what its rule says. Where all slots are taken, the client that
    /// was held for longest is let go.
    pub(super) fn dismiss(&mut self, socket: Socket, action: Action) {
        let silent = match action {
            Action::Drop => true,
            Action::Tarpit => false,
            Action::Reset => return self.kernel.close(socket, Manner::Reset),
        };
        let pit = self.snapshot.pit;
        let slots = (pit.slots / self.seat.of).max(1) as usize;
        if self.stop != Stop::Running {
            return self.kernel.close(socket, Manner::Reset);
        }
        while self.held.len() >= slots.min(self.descriptors_for_held()) {
            if !self.let_one_go() {
                return self.kernel.close(socket, Manner::Reset);
            }
            self.stats.held_early.increment();
        }
        self.kernel.hold(&socket, silent);
        if silent {
            self.stats.dropped.increment();
        } else {
            self.stats.tarpitted.increment();
        }
        let until = self.now.saturating_add(pit.time);
        self.held.clients.push_back((socket, until));
    }

    /// Lets those go whose time is over.
    pub(super) fn let_go_due(&mut self) {
        while self.held.next() <= self.now {
            self.let_one_go();
        }
    }

    /// Lets those go whose descriptors a session may need.
    pub(super) fn make_room_for_sessions(&mut self) {
        while self.held.len() > self.descriptors_for_held() && self.let_one_go() {
            self.stats.held_early.increment();
        }
    }

    /// Lets all go: descriptors are lacking, or the worker stops.
    pub(super) fn let_all_go(&mut self) {
        while self.let_one_go() {}
    }

    fn let_one_go(&mut self) -> bool {
        let first = self.held.clients.pop_front();
        first.is_some_and(|(socket, _)| {
            self.kernel.close(socket, Manner::Reset);
            true
        })
    }

    /// Descriptors that sessions do not take, with those that wait for their turn.
    fn descriptors_for_held(&self) -> usize {
        let sessions = self.slots.len() + self.arrivals.len();
        2 * self.capacity.saturating_sub(sessions)
    }
}
