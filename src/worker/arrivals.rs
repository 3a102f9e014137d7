//! Accepted clients that wait for their turn.
//!
//! The kernel hands over all that have connected at once. To begin a session takes about as long as
//! a dozen events of open ones, so a turn begins a few, after those events. The first that has
//! come is the first that is taken in. While the worker is overloaded, clients that have waited for
//! too long are refused, a few in each turn too: to refuse takes time that others are served in.
//! What comes beyond that waits in the kernel's backlog, which is short then (`backlog`), and
//! refuses at the least cost.

use std::collections::VecDeque;

use crate::guard::{Action, OverloadDetector};
use crate::kernel::{Kernel, Manner, Socket};
use crate::session::CloseReason;

use super::Worker;
use super::headers::HeaderClient;
use super::refuse::Caller;

/// Clients of all ports, the first that has come first.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    waiting: VecDeque<Arrival>,
    pub(super) overload: OverloadDetector,
    /// How many may wait while the worker is overloaded; `None`: it is not.
    pub(super) room: Option<u32>,
}

#[derive(Debug)]
struct Arrival {
    port: usize,
    socket: Socket,
    /// Its client, if a proxy has named it: its header came in pieces.
    client: Option<Box<HeaderClient>>,
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
        self.waiting.len() < self.room.map_or(WAITING_MAX, |room| room as usize)
    }

    /// Whether far more wait than may.
    fn is_crowded(&self) -> bool {
        let room = self.room.map_or(usize::MAX, |room| room as usize);
        self.waiting.len() / 2 > room
    }
}

impl<K: Kernel> Worker<K> {
    /// The kernel has handed a client over, or the header is complete that names it.
    pub(super) fn arrive(
        &mut self,
        port: usize,
        socket: Socket,
        client: Option<Box<HeaderClient>>,
    ) {
        let at = self.now;
        self.ports[port].arriving += 1;
        self.arrivals.waiting.push_back(Arrival {
            port,
            socket,
            client,
            at,
        });
        // Ports stop accepting.
        self.ports_changed |= !self.arrivals.has_room();
    }

    /// Takes in some of the clients that wait, and refuses some of those that wait for too long
    /// while the worker is overloaded, or all while it has no memory for more.
    pub(super) fn take_arrivals(&mut self) {
        let is_full = self.is_out_of_memory();
        if self.arrivals.is_empty() {
            return;
        }
        let admission = self.snapshot.admission;
        let overloaded = self.is_overloaded();
        let (mut takes, mut begun) = (admission.per_turn, 0);
        let mut sheds = admission.sheds(self.arrivals.is_crowded());
        while takes > 0
            && let Some(client) = self.arrivals.waiting.pop_front()
        {
            self.ports[client.port].arriving -= 1;
            let waited = self.now.saturating_sub(client.at);
            let late = admission.shed.filter(|shed| waited > shed.wait);
            let dry_run = admission.shed.is_some_and(|shed| shed.dry_run);
            let reason = if is_full {
                Some(CloseReason::MemoryFull)
            } else {
                late.filter(|_| overloaded).map(|_| CloseReason::Overloaded)
            };
            match reason.filter(|_| !dry_run) {
                Some(CloseReason::Overloaded) if sheds > 0 => {
                    sheds -= 1;
                    self.shed(client, CloseReason::Overloaded);
                }
                Some(CloseReason::MemoryFull) => {
                    takes -= 1;
                    self.shed(client, CloseReason::MemoryFull);
                }
                _ => {
                    if reason.is_some() && dry_run {
                        self.stats.overloaded_dry_run.increment();
                    }
                    takes -= 1;
                    begun += 1;
                    self.admit(client.port, client.socket, client.client);
                }
            }
        }
        self.measure_arrivals(begun);
    }

    /// Refuses a client for this reason, or because it is banned, which comes first.
    fn shed(&mut self, arrival: Arrival, reason: CloseReason) {
        let Arrival {
            port,
            socket,
            client,
            ..
        } = arrival;
        if client.is_some() || self.ports[port].listener.proxies.is_some() {
            // Bans are about clients, not about proxies.
            let asked = client.as_ref().and_then(|client| client.asked());
            let stage = self.ports[port].client_stage(&self.snapshot);
            let is_banned = asked.is_some_and(|ip| stage.is_banned(ip, self.now));
            let reason = if is_banned {
                CloseReason::Banned
            } else {
                reason
            };
            let caller = client.map_or_else(Caller::default, |client| client.caller());
            return self.refuse(port, socket, caller, (reason, Action::Reset));
        }
        let asks = !self.snapshot.bans.is_empty();
        let peer = asks.then(|| self.kernel.peer(&socket)).flatten();
        let stage = self.ports[port].client_stage(&self.snapshot);
        let denial = match peer {
            Some(peer) if stage.is_banned(peer.ip(), self.now) => {
                (CloseReason::Banned, self.snapshot.ban_action)
            }
            _ => (reason, Action::Reset),
        };
        self.refuse(port, socket, peer, denial);
    }

    /// A turn has begun so many sessions. How fast it goes says how many clients may wait.
    fn measure_arrivals(&mut self, begun: u32) {
        if self.arrivals.is_empty() {
            self.arrivals.overload.on_empty();
            // Ports may have stopped accepting because of them.
            self.ports_changed |= self.ports_due != u64::MAX;
        } else {
            self.arrivals.overload.on_begun(begun, self.now);
        }
        let room = self.room_for_arrivals();
        // The backlogs of the ports follow.
        self.ports_changed |= room != std::mem::replace(&mut self.arrivals.room, room);
    }

    fn is_out_of_memory(&mut self) -> bool {
        let buffers = [self.kernel.buffers_in_use(), self.kernel.buffers_in_all()];
        let rules = self.snapshot.admission.shed;
        let overload = &mut self.arrivals.overload;
        rules.is_some_and(|rules| overload.is_out_of_memory(buffers, &rules, self.now))
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

/// Clients that wait here; further ones wait in the kernel's backlog. A fast worker begins them
/// within less than 100 ms.
const WAITING_MAX: usize = 4_096;
