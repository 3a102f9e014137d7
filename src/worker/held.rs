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
    /// this worker has held for longest is let go.
    pub(super) fn dismiss(&mut self, socket: Socket, action: Action) {
        let silent = match action {
            Action::Drop => true,
            Action::Tarpit => false,
            Action::Reset => return self.kernel.close(socket, Manner::Reset),
        };
        if self.stop != Stop::Running || !self.take_slot() {
            return self.kernel.close(socket, Manner::Reset);
        }
        self.kernel.hold(&socket, silent);
        if silent {
            self.stats.dropped.increment();
        } else {
            self.stats.tarpitted.increment();
        }
        let until = self.now.saturating_add(self.snapshot.pit.time);
        self.held.clients.push_back((socket, until));
    }

    /// Takes a slot and leaves a descriptor for it; `false`: others need them.
    fn take_slot(&mut self) -> bool {
        let has_descriptor = |worker: &Self| worker.held.len() < worker.descriptors_for_held();
        while !has_descriptor(self) || !self.snapshot.pit.slots.try_acquire() {
            if !self.let_one_go() {
                return false;
            }
            self.stats.held_early.increment();
        }
        true
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
        while self.let_one_go() {
            self.stats.held_early.increment();
        }
    }

    fn let_one_go(&mut self) -> bool {
        let first = self.held.clients.pop_front();
        first.is_some_and(|(socket, _)| {
            self.kernel.close(socket, Manner::Reset);
            self.snapshot.pit.slots.release();
            true
        })
    }

    /// Descriptors that sessions do not take, with those that wait for their turn.
    fn descriptors_for_held(&self) -> usize {
        let sessions = self.slots.len() + self.arrivals.len() + self.headers.len();
        2 * self.capacity.saturating_sub(sessions)
    }
}
