//! Accepted clients that wait for their turn.
//!
//! The kernel hands over all that have connected at once. To begin a session takes about as long as
//! a dozen events of open ones, so a turn begins a few, after those events. The first that has
//! come is the first that is taken in. While the worker is overloaded, clients that have waited for
//! too long are refused, a few in each turn too: to refuse takes time that others are served in.
//! What comes beyond that waits in the kernel's backlog, which refuses at the least cost.

use std::collections::VecDeque;

use crate::guard::{Action, OverloadDetector};
use crate::kernel::{Kernel, Manner, Socket};
use crate::session::CloseReason;

use super::Worker;

/// Clients of all ports, the first that has come first.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    waiting: VecDeque<Arrival>,
    overload: OverloadDetector,
}

#[derive(Debug)]
struct Arrival {
    port: usize,
    socket: Socket,
    /// When the kernel handed it over, in ns.
    at: u64,
}

impl Arrivals {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more are accepted: they are better off in the kernel's backlog, where one that gives
    /// up costs nothing.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
}

impl<K: Kernel> Worker<K> {
    /// The kernel has handed a client over.
    pub(super) fn arrive(&mut self, port: usize, socket: Socket) {
        let at = self.now;
        self.ports[port].arriving += 1;
        self.arrivals
            .waiting
            .push_back(Arrival { port, socket, at });
        // Ports stop accepting.
        self.ports_changed |= !self.arrivals.has_room();
    }

    /// Takes in some of the clients that wait, and refuses some of those that wait for too long
    /// while the worker is overloaded.
    pub(super) fn take_arrivals(&mut self) {
        if self.arrivals.is_empty() {
            return;
        }
        let admission = self.snapshot.admission;
        let (mut takes, mut sheds) = (admission.per_turn, admission.sheds());
        let overloaded = self.is_overloaded();
        while takes > 0
            && let Some(client) = self.arrivals.waiting.pop_front()
        {
            self.ports[client.port].arriving -= 1;
            let waited = self.now.saturating_sub(client.at);
            let late = admission.shed.filter(|shed| waited > shed.wait);
            match late.filter(|_| overloaded) {
                Some(shed) if !shed.dry_run && sheds > 0 => {
                    sheds -= 1;
                    let denial = (CloseReason::Overloaded, Action::Reset);
                    self.refuse(client.port, client.socket, None, denial);
                }
                shed => {
                    if shed.is_some_and(|shed| shed.dry_run) {
                        self.stats.overloaded_dry_run.increment();
                    }
                    takes -= 1;
                    self.admit(client.port, client.socket);
                }
            }
        }
        if self.arrivals.is_empty() {
            self.arrivals.overload.on_empty();
            // Ports may have stopped accepting because of them.
            self.ports_changed |= self.ports_due != u64::MAX;
        }
    }

    fn is_overloaded(&mut self) -> bool {
        let first = self.arrivals.waiting.front();
        let rules = first.zip(self.snapshot.admission.shed);
        rules.is_some_and(|(first, rules)| {
            let waited = self.now.saturating_sub(first.at);
            let stalled = self.stall.last();
            self.arrivals
                .overload
                .look(waited, &rules, stalled, self.now)
        })
    }

    /// Closes what waits for its turn: the stop's grace is over.
    pub(super) fn drop_arrivals(&mut self) {
        for client in self.arrivals.waiting.drain(..) {
            self.ports[client.port].arriving -= 1;
            self.kernel.close(client.socket, Manner::Reset);
        }
    }
}

/// Clients that wait here; further ones wait in the kernel's backlog.
const WAITING_MAX: usize = 1_024;
