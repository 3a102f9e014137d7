//! Accepts clients, up to the limits.
//!
//! A listener that may not accept leaves clients in the kernel's backlog; it is neither asked
//! again in a loop nor forgotten (multishot accept ends at every error).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::address::Address;
use crate::fault::Fault;
use crate::guard::{AccessFilter, Action, ClientPass};
use crate::kernel::{Completion, Done, Errno, Kernel, Manner, Socket};
use crate::session::CloseReason;
use crate::snapshot::LiveListener;
use crate::time::{MS, NEVER, SECOND};
use crate::token::{Purpose, Token};

use super::backlog::Backlog;
use super::handshakes::Handshakes;
use super::headers::{HeaderClient, NamedClient, is_own};
use super::refuse::Caller;
use super::{Stop, Worker, slot};

/// A worker's part of a listener: its own listening socket, and the listener's settings.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) listener: Arc<LiveListener>,
    /// The keys of its pools, by the indices of its routes.
    pub(super) pools: Vec<usize>,
    /// Which clients may connect; `None`: all.
    pub(super) access: Option<Arc<AccessFilter>>,
    /// The listening socket; `None` after it was closed for good.
    pub(super) socket: Option<Socket>,
    pub(super) backlog: Backlog,
    accepting: bool,
    /// The accept in flight is a multishot one.
    many: bool,
    /// The accept in flight was cancelled.
    stopping: bool,
    /// Set when the listener was removed: from this time on the port accepts no more, and it is
    /// removed after its last session.
    leaves_at: Option<u64>,
    /// The latest such time.
    leaves_by: u64,
    /// The number of sessions that were accepted by this port.
    pub(super) sessions: usize,
    /// Bytes that its sessions have moved and that are not counted yet.
    pub(super) moved: [u64; 2],
    /// Connections that were accepted beyond a limit: they wait as they would in the backlog.
    parked: VecDeque<Admitted>,
    /// Connections of the port that wait for their turn ([`Arrivals`](super::arrivals::Arrivals)).
    pub(super) arriving: usize,
    /// Connections of proxies whose header is not complete ([`Headers`](super::headers::Headers)).
    pub(super) unnamed: usize,
    /// Handshakes of TLS that are under way.
    pub(super) handshakes: Handshakes,
    /// The port does not accept before this time.
    resume_at: u64,
    /// Accepts in a row that failed by what counts as the client's fault, without a client between.
    failed: u32,
}

/// A client that the rules of its port have let in.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) socket: Socket,
    /// Its address, if a rule needed it.
    pub(super) peer: Option<SocketAddr>,
    /// What the header of a proxy says.
    pub(super) named: Option<Box<NamedClient>>,
    pub(super) pass: ClientPass,
}

impl Port {
    pub(super) fn new(
        (listener, access): (Arc<LiveListener>, Option<Arc<AccessFilter>>),
        pools: Vec<usize>,
        socket: Socket,
    ) -> Self {
        Self {
            access,
            listener,
            pools,
            socket: Some(socket),
            backlog: Backlog::default(),
            accepting: false,
            many: false,
            stopping: false,
            leaves_at: None,
            leaves_by: NEVER,
            sessions: 0,
            moved: [0; 2],
            parked: VecDeque::new(),
            arriving: 0,
            unnamed: 0,
            handshakes: Handshakes::default(),
            resume_at: 0,
            failed: 0,
        }
    }

    /// Whether clients have addresses.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.listener.bind, Address::Tcp(_))
    }

    /// Adopts the listener's part of the next snapshot.
    pub(super) fn follow(
        &mut self,
        (listener, access): (Arc<LiveListener>, Option<Arc<AccessFilter>>),
        pools: Vec<usize>,
    ) {
        self.access = access;
        self.pools = pools;
        self.listener = listener;
    }

    /// Stops accepting for a while: descriptors, memory or ports ran out.
    pub(super) fn pause(&mut self, now: u64) {
        self.resume_at = now + EXHAUSTED_PAUSE;
    }

    /// An accept failed as of one client. A security module may refuse each before it has left the
    /// backlog, so that the next accept fails at once: from the second in a row on the port pauses.
    fn on_client_lost(&mut self, now: u64) {
        self.failed = self.failed.saturating_add(1);
        self.resume_at = self.resume_at.max(now + refused_pause(self.failed));
    }

    /// The next snapshot does not have the listener. The port still waits for handshakes that are
    /// under way: such a client considers itself connected once it has the answer.
    pub(super) fn leave(&mut self, now: u64) {
        self.leaves_at = Some(now + HANDSHAKES);
        self.leaves_by = now + REMOVAL_MAX;
    }

    /// Whether the port accepts no more. While the file of a Unix socket is still being removed,
    /// clients find it, so that its time is put off.
    fn has_left(&mut self, now: u64) -> bool {
        let Some(_) = self.leaves_at.filter(|at| now >= *at) else {
            return false;
        };
        let gone_at = self.listener.file_gone_at.load(Ordering::Relaxed);
        let put_off = put_off(gone_at, self.leaves_by, now);
        self.leaves_at = put_off.or(self.leaves_at);
        put_off.is_none()
    }

    /// Whether the listener was removed.
    pub(super) fn is_removed(&self) -> bool {
        self.leaves_at.is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_none() && self.parked.is_empty() && self.arriving + self.unnamed == 0
    }

    /// Whether nothing refers to the port any more.
    pub(super) fn is_left(&self) -> bool {
        self.is_removed() && self.is_closed() && self.sessions == 0 && !self.accepting
    }
}

impl<K: Kernel> Worker<K> {
    pub(super) fn on_accept(&mut self, completion: Completion) {
        let number = completion.token.slot() as usize;
        let port = &mut self.ports[number];
        if !completion.more {
            port.accepting = false;
            port.stopping = false;
            self.ports_changed = true;
        }
        match completion.outcome {
            Ok(Done::Accepted(socket)) => {
                port.failed = 0;
                self.stats.accepted.increment();
                self.arrive(number, socket, None);
            }
            Err(Errno::CANCELED) => {}
            Err(errno) => match Fault::of_accept(errno) {
                Fault::Client | Fault::Busy => {
                    port.on_client_lost(self.now);
                    self.stats.turns_in_vain.increment();
                }
                Fault::Resources
                | Fault::Local
                | Fault::Ports
                | Fault::Source
                | Fault::Backend
                | Fault::Unanswered
                | Fault::Network => {
                    port.pause(self.now);
                    self.stats.accept_exhausted.increment();
                    self.stats.accept_pauses.increment();
                }
            },
            Ok(Done::Received(_) | Done::Count(_)) => {}
        }
    }

    /// No descriptor was left for a backend: those that come free go to accepted clients.
    pub(super) fn pause_accepting(&mut self) {
        self.stats.accept_exhausted.increment();
        self.let_all_go();
        for (_, port) in &mut self.ports {
            port.pause(self.now);
        }
        self.ports_changed = true;
    }

    /// Has each port accept, pause or close, by limits, snapshot and stop.
    pub(super) fn update_ports(&mut self) {
        self.ports_changed = false;
        self.arrivals.room = self.room_for_arrivals();
        let overloaded = self.arrivals.overload.until(self.now);
        self.ports_due = overloaded.unwrap_or(u64::MAX);
        // No port is added or removed in this loop.
        for number in 0..self.ports.capacity() {
            if self.ports.contains(number) {
                self.update_port(number);
            }
        }
        let stats = &self.stats;
        let before = self.ports.len();
        self.ports.retain(|_, port| {
            port.publish_traffic(stats);
            !port.is_left()
        });
        if self.ports.len() < before {
            self.forget_pools();
        }
    }

    fn update_port(&mut self, number: usize) {
        self.unpark(number);
        self.update_backlog(number);
        let places = self.places(number);
        let port = &mut self.ports[number];
        let leaves = port.has_left(self.now);
        let closing = leaves || self.stop != Stop::Running;
        let waiting = self.now < port.resume_at;
        let room = places > 0 && port.parked.is_empty() && self.arrivals.has_room();
        let wanted = room && !closing && !waiting;
        // One accept may bring a whole backlog: near a limit they are asked for singly.
        let many = places >= self.backlog;
        let token = Token::new(Purpose::Accept, 0, slot::number(number));
        match &port.socket {
            Some(socket) if wanted && !port.accepting => {
                self.kernel.accept(token, socket, many);
                port.accepting = true;
                port.many = many;
            }
            Some(_) if port.accepting && !port.stopping && (!wanted || port.many && !many) => {
                self.kernel.cancel(token);
                port.stopping = true;
                if !wanted && !closing {
                    self.stats.accept_pauses.increment();
                }
            }
            _ => {}
        }
        // Another worker may make room without a notice: look again soon.
        if !closing && !wanted || !port.parked.is_empty() {
            let again = if waiting {
                port.resume_at
            } else {
                self.now + FULL_PAUSE
            };
            self.ports_due = self.ports_due.min(again);
        }
        if closing && !self.ports[number].accepting {
            self.close_port(number);
        } else if let Some(at) = self.ports[number].leaves_at.filter(|at| self.now < *at) {
            self.ports_due = self.ports_due.min(at);
        }
    }

    /// Clients in the backlog consider themselves connected: they are served as well.
    fn close_port(&mut self, number: usize) {
        let Some(socket) = self.ports[number].socket.take() else {
            return;
        };
        while let Some(client) = self.kernel.accept_now(&socket) {
            self.stats.accepted.increment();
            self.admit(number, client, None);
        }
        self.kernel.close(socket, Manner::Graceful);
    }

    /// Takes a client in if its rules allow it. A proxy's connection has none before its header
    /// is complete.
    pub(super) fn admit(
        &mut self,
        number: usize,
        socket: Socket,
        client: Option<Box<HeaderClient>>,
    ) {
        if self.stop == Stop::Cut {
            // Its accept was under way when the grace of a stop was over.
            return self.kernel.close(socket, Manner::Reset);
        }
        if let Some(client) = client {
            return self.admit_named(number, socket, *client);
        }
        if self.ports[number].listener.proxies.is_some() {
            return self.read_header(number, socket);
        }
        // Peers are clients: they are known at once, and nothing is to be asked about proxies.
        let stage = self.ports[number].client_stage(&self.snapshot);
        let needs_peer = stage.needs_address();
        let peer = needs_peer.then(|| self.kernel.peer(&socket)).flatten();
        if needs_peer && peer.is_none() && self.ports[number].is_tcp() {
            // It has gone: no rule refuses it.
            return self.refuse(
                number,
                socket,
                None,
                (CloseReason::ClientReset, Action::Reset),
            );
        }
        let pass = match stage.admit(peer.map(|peer| peer.ip()), self.now) {
            Ok(pass) => pass,
            Err(denied) => {
                let reason = denied.by.into();
                self.note_offence(&self.ports[number].listener, peer, reason);
                return self.refuse(number, socket, peer, (reason, denied.action));
            }
        };
        let named = None;
        self.seat(
            number,
            Admitted {
                socket,
                peer,
                named,
                pass,
            },
        );
    }

    /// A session of a port has ended.
    pub(super) fn leave_port(&mut self, number: usize) {
        let port = &mut self.ports[number];
        port.sessions -= 1;
        // A port at its limit may go on; the last session of one that is leaving lets it go.
        self.ports_changed |= self.ports_due != u64::MAX || port.is_left();
    }

    /// Begins the session of an admitted client, or lets it wait for a place.
    pub(super) fn seat(&mut self, number: usize, client: Admitted) {
        if !self.ports[number].parked.is_empty() || !self.take_place(number) {
            self.ports[number].parked.push_back(client);
            self.ports_changed = true;
            return;
        }
        self.open(number, client);
        let places = self.places(number);
        self.ports_changed |= places == 0 || places < self.backlog && self.ports[number].many;
    }

    fn unpark(&mut self, number: usize) {
        while !self.ports[number].parked.is_empty() && self.take_place(number) {
            if let Some(client) = self.ports[number].parked.pop_front() {
                self.open(number, client);
            }
        }
    }

    /// Takes a place in every limit, or none.
    fn take_place(&self, number: usize) -> bool {
        let listener = &self.ports[number].listener.connections;
        if self.slots.len() >= self.capacity || !listener.try_acquire() {
            return false;
        }
        let in_all = self.snapshot.connections.try_acquire();
        if !in_all {
            listener.release();
        }
        in_all
    }

    /// How many more sessions the limits allow for the port.
    fn places(&self, number: usize) -> u32 {
        let taken = self.slots.len() + self.arrivals.len() + self.headers.len();
        let own = self.capacity.saturating_sub(taken);
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        let listener = self.ports[number].listener.connections.places();
        own.min(listener).min(self.snapshot.connections.places())
    }

    pub(super) fn parked(&self) -> u64 {
        self.ports
            .iter()
            .map(|(_, port)| port.parked.len() as u64)
            .sum()
    }

    /// Refuses clients that wait for a place and are banned by now.
    pub(super) fn refuse_banned_parked(&mut self) {
        let waiting = self
            .ports
            .iter()
            .filter(|(_, port)| !port.parked.is_empty());
        let numbers: Vec<_> = waiting.map(|(number, _)| number).collect();
        for number in numbers {
            for client in std::mem::take(&mut self.ports[number].parked) {
                let peer = client.peer.or_else(|| self.kernel.peer(&client.socket));
                let port = &mut self.ports[number];
                let stage = port.client_stage(&self.snapshot);
                let own = is_own(client.named.as_deref());
                let asked = peer.filter(|_| !own);
                if !asked.is_some_and(|peer| stage.is_banned(peer.ip(), self.now)) {
                    port.parked.push_back(client);
                    continue;
                }
                if let Some(held) = client.pass.held {
                    port.listener.gate.release(&self.snapshot.sources, held);
                }
                let proxy = client.named.map(|named| named.proxy);
                // To hold a proxy's connection would be the proxy's loss.
                let action = match proxy {
                    Some(_) => Action::Reset,
                    None => self.snapshot.ban_action,
                };
                let caller = Caller {
                    client: peer,
                    proxy,
                };
                self.refuse(number, client.socket, caller, (CloseReason::Banned, action));
            }
        }
        self.ports_changed = true;
    }

    /// Closes what waits for a place: the stop's grace is over.
    pub(super) fn drop_parked(&mut self) {
        self.ports_changed = true;
        for (_, port) in &mut self.ports {
            for client in port.parked.drain(..) {
                if let Some(held) = client.pass.held {
                    port.listener.gate.release(&self.snapshot.sources, held);
                }
                self.kernel.close(client.socket, Manner::Reset);
            }
        }
    }
}

/// When a removed listener whose time has come is looked at again; `None`: its time is over. The
/// file of its socket was gone at `gone_at`.
fn put_off(gone_at: u64, by: u64, now: u64) -> Option<u64> {
    let due = gone_at.saturating_add(HANDSHAKES).min(by);
    (now < due).then(|| due.min(now + HANDSHAKES))
}

/// How long a port pauses after so many accepts in a row that failed.
fn refused_pause(failed: u32) -> u64 {
    let again = failed.checked_sub(2);
    again.map_or(0, |again| {
        (REFUSED_PAUSE << again.min(16)).min(EXHAUSTED_PAUSE)
    })
}

/// How long the listener of a removed address goes on with clients whose handshake is under way:
/// 100 ms. Meanwhile no new handshake begins (`control::workers`).
const HANDSHAKES: u64 = 100 * MS;
/// How long the removal of a Unix socket's file is waited for: 1 s.
const REMOVAL_MAX: u64 = SECOND;
/// Until accepting is tried again after descriptors or memory were lacking: 100 ms.
const EXHAUSTED_PAUSE: u64 = 100 * MS;
/// The first pause of a port whose accepts fail one after the other: 1 ms.
const REFUSED_PAUSE: u64 = MS;
/// Until a full listener looks whether another worker made room: 20 ms.
const FULL_PAUSE: u64 = 20 * MS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_that_fail_in_a_row_come_ever_more_rarely() {
        let pauses = [0, 1, 2, 3, 4, 8, 9, u32::MAX].map(|failed| refused_pause(failed) / MS);
        assert_eq!(pauses, [0, 0, 1, 2, 4, 64, 100, 100]);
    }

    #[test]
    fn a_listener_accepts_until_its_file_has_been_gone_for_a_while() {
        let by = 9 * SECOND;
        // It is no Unix listener.
        assert_eq!(put_off(0, by, SECOND), None);
        assert_eq!(put_off(NEVER, by, SECOND), Some(SECOND + HANDSHAKES));
        let gone_at = SECOND - 30 * MS;
        assert_eq!(put_off(gone_at, by, SECOND), Some(gone_at + HANDSHAKES));
        assert_eq!(put_off(gone_at, by, gone_at + HANDSHAKES), None);
        // A file system that does not answer is not waited for.
        assert_eq!(put_off(NEVER, by, by - MS), Some(by));
        assert_eq!(put_off(NEVER, by, by), None);
    }
}
