//! A session with its sockets, pipes and timer, and the operations that it asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::Address;
use crate::guard::{DeniedBy, Gate, Held};
use crate::kernel::{Buffer, Interest, Kernel, Pipe, SinkState, Sleeper, Socket};
use crate::peek::EndedTls;
use crate::pool::{Backend, Tally};
use crate::route::RouteNumber;
use crate::select::{Keys, Plan};
use crate::session::{CloseReason, Context, Event, Op, Session, SessionLimits, Unsent};
use crate::snapshot::{LiveListener, Snapshot};
use crate::time::US;
use crate::token::{GENERATION_MASK, Purpose, Side, Token};

use super::accept::Admitted;
use super::ended::release_backend;
use super::headers::{NamedClient, ProxyPeer, is_own, tlvs_of};
use super::lanes::Party;
use super::queue::QueueEntry;
use super::routing::route_without_bytes;
use super::tls::{SlotTls, TlsEnd};
use super::{LogEvent, Record, Tries, Worker};

/// A session's place in the slab.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) session: Session,
    pub(super) generation: u32,
    /// The listener as it was when the session began, or tried to connect last. Its limits hold to
    /// the end.
    pub(super) listener: Arc<LiveListener>,
    pub(super) port: usize,
    pub(super) number: u64,
    pub(super) client: Socket,
    /// The client's address; `None` on a Unix socket, or where the client had gone at its accept.
    /// Where a proxy has named the client it is that address.
    pub(super) peer: Option<SocketAddr>,
    /// What the header of a proxy says.
    pub(super) named: Option<Box<NamedClient>>,
    /// Its place at its source, if that is counted.
    held: Option<Held>,
    /// The rule that would have refused the client if it were not in dry run.
    pub(super) dry_run: Option<DeniedBy>,
    /// The keys that a backend is selected by.
    pub(super) keys: Keys,
    pub(super) backend: Option<Socket>,
    /// The backend that was selected last; it counts this session while `backend` is some.
    pub(super) target: Option<Arc<Backend>>,
    /// What attempts that failed have left.
    pub(super) tries: Option<Box<Tries>>,
    /// It has waited before it tries the same backend again.
    pub(super) paused: bool,
    /// The backend was ejected when it was selected.
    pub(super) on_trial: bool,
    /// What the backend that it is connected to is asked for before it gets its bytes.
    pub(super) asks: Asks,
    pub(super) target_index: u16,
    /// Which of the backend's origins the connection begins at.
    pub(super) origin: u16,
    /// The listener's route that its client took.
    pub(super) route: RouteNumber,
    /// The session may have moved bytes since it was last counted.
    pub(super) moved: bool,
    /// Bytes delivered in each direction when it was last counted: the low halves of the counts.
    pub(super) counted: [u32; 2],
    /// How long the connect took that stood, in µs.
    pub(super) connect_us: u32,
    /// Its record among the worker's decisions; 0: it has none yet.
    pub(super) decision: u32,
    /// Its place in its pool's queue.
    pub(super) queue_entry: Option<QueueEntry>,
    /// By source side: leased pipes that hold bytes.
    pipes: [Option<Pipe>; 2],
    /// The TLS of its ends, where they have some.
    pub(super) tls: Option<Box<SlotTls>>,
}

/// What a backend is asked for before it gets bytes of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    /// Whether it has TLS, as PostgreSQL's clients ask.
    ForTls,
    /// Nothing yet: other handshakes took this turn.
    Turn,
    /// A handshake of TLS.
    Handshake,
}

impl Slot {
    /// The proxy that has named its client.
    pub(super) fn proxy(&self) -> Option<ProxyPeer> {
        self.named.as_ref().map(|named| named.proxy)
    }

    /// Whether it is of a connection of a proxy's own.
    pub(super) fn is_own(&self) -> bool {
        is_own(self.named.as_deref())
    }

    /// The pool that it goes to.
    pub(super) fn plan(&self) -> &Arc<Plan> {
        self.listener.plan_of(self.route)
    }

    /// Whether this look is at the hello of TLS that ends here, before its client's first byte.
    pub(super) fn takes_hello(&mut self) -> bool {
        let tls = self.tls_mut(Side::Client);
        tls.is_some_and(TlsEnd::takes_hello)
    }

    /// The TLS that its client's bytes come in, where that ends here.
    pub(super) fn around(&self) -> Option<EndedTls<'_>> {
        self.tls(Side::Client).map(TlsEnd::around)
    }

    /// Its deadlines and tries.
    pub(super) fn limits(&self) -> &SessionLimits {
        self.listener.limits_of(self.route)
    }

    fn with_tally(&self, tell: impl FnOnce(&Tally)) {
        if let Some(backend) = &self.target {
            tell(&backend.tally);
        }
    }

    /// The backend answered; `true`: it was ejected when it was selected, and is readmitted now.
    fn passes_trial(&mut self) -> bool {
        let on_trial = std::mem::take(&mut self.on_trial);
        let backend = self.target.as_ref().filter(|_| on_trial);
        backend.is_some_and(|backend| backend.on_trial_passed())
    }

    /// The backend that it is connected, or connects, to.
    pub(super) fn backend(&self) -> Option<&Arc<Backend>> {
        self.target.as_ref().filter(|_| self.backend.is_some())
    }

    /// Whom it has limits of bandwidth from.
    pub(super) fn party<'a>(&'a self, snapshot: &'a Snapshot) -> Party<'a> {
        Party {
            listener: &self.listener,
            backend: self.backend().map(|backend| &**backend),
            held: self.held.as_ref(),
            snapshot,
        }
    }

    /// When its timer is to fire at the latest; [`NEVER`](crate::time::NEVER) for never.
    pub(super) fn deadline(&self, now: u64) -> u64 {
        self.session.deadline(now, self.limits())
    }

    /// The address that the connection of this side was made to.
    pub(super) fn address(&self, side: Side) -> Option<&Address> {
        match side {
            Side::Client => Some(&self.listener.bind),
            Side::Backend => self.target.as_ref().map(|backend| &backend.address),
        }
    }

    pub(super) fn socket(&self, side: Side) -> &Socket {
        match side {
            Side::Client => &self.client,
            Side::Backend => self
                .backend
                .as_ref()
                .expect("a session asks this of a backend only when connected"),
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// Begins a session for an admitted client.
    pub(super) fn open(&mut self, port: usize, client: Admitted) {
        self.make_room_for_sessions();
        if self.ports[port].listener.tls.is_some() {
            self.make_room_for_handshake(port);
        }
        self.generation = (self.generation + 1) & GENERATION_MASK;
        self.sessions_opened += 1;
        let listener = Arc::clone(&self.ports[port].listener);
        listener.gate.count_session();
        let party = Party {
            listener: &listener,
            backend: None,
            held: client.pass.held.as_ref(),
            snapshot: &self.snapshot,
        };
        let mut cx = Context {
            now: self.now,
            limits: &listener.limits,
            links: &mut self.links,
            ops: &mut self.ops,
            pacing: self.lanes.pacing(self.slots.vacant_key(), party),
        };
        let session = Session::open(&mut cx);
        // Its decision is found by it, when the client may have gone.
        let peer = client.peer.or_else(|| self.kernel.peer(&client.socket));
        self.note_return(peer, &listener);
        let tlvs = tlvs_of(client.named.as_deref());
        let decided = route_without_bytes(&listener, peer, tlvs);
        let (route, look) = decided.unwrap_or_default();
        let keys = listener.plan_of(route).keys_without_bytes(peer, tlvs);
        let tls = self.tls_of_client(port);
        let shakes = tls.is_some();
        let key = self.slots.insert(Slot {
            session,
            generation: self.generation,
            port,
            number: self.sessions_opened,
            peer,
            named: client.named,
            keys,
            listener,
            client: client.socket,
            held: client.pass.held,
            dry_run: client.pass.dry_run,
            backend: None,
            target: None,
            tries: None,
            paused: false,
            on_trial: false,
            asks: Asks::Nothing,
            target_index: 0,
            origin: 0,
            route,
            moved: false,
            counted: [0; 2],
            connect_us: 0,
            decision: 0,
            queue_entry: None,
            pipes: [None, None],
            tls,
        });
        self.ports[port].sessions += 1;
        if shakes {
            self.begin_handshake(key);
        }
        if let Some(look) = look {
            self.call_session(key, |session, cx| {
                session.on_event(Event::Peeked(look), false, cx);
            });
        }
        self.perform(key);
        self.set_timer(key);
    }

    /// Lets a session handle an event or a deadline, and does what it then asks for.
    pub(super) fn with_session(
        &mut self,
        key: usize,
        call: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        self.call_session(key, call);
        self.perform(key);
    }

    /// Lets a session handle an event or a deadline, and sets its timer unless it is steady. This
    /// comes before what it asks for, which may free the slot.
    fn call_session(&mut self, key: usize, call: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let slot = &mut self.slots[key];
        let party = Party {
            listener: &slot.listener,
            backend: slot.target.as_deref().filter(|_| slot.backend.is_some()),
            held: slot.held.as_ref(),
            snapshot: &self.snapshot,
        };
        let mut cx = Context {
            now: self.now,
            limits: slot.listener.limits_of(slot.route),
            links: &mut self.links,
            ops: &mut self.ops,
            pacing: self.lanes.pacing(key, party),
        };
        call(&mut slot.session, &mut cx);
        if !slot.session.is_steady() {
            self.timers.set(number(key), slot.deadline(self.now));
        }
    }

    /// Does what the session asks for, and what it asks for upon answers that come at once.
    fn perform(&mut self, key: usize) {
        while let Some(op) = self.ops.pop_front() {
            let Some(answer) = self.perform_one(key, op) else {
                continue;
            };
            self.note_failure(key, answer);
            self.call_session(key, |session, cx| session.on_event(answer, false, cx));
            if matches!(answer, Event::Connected(_)) {
                self.on_connected(key);
            }
        }
    }

    /// Does one thing, and returns the answer if it comes at once. What is large and rare is not
    /// inlined: each event would save registers and make room on the stack for it.
    fn perform_one(&mut self, key: usize, op: Op) -> Option<Event> {
        let slot = &mut self.slots[key];
        let token = |purpose| Token::new(purpose, slot.generation, number(key));
        match op {
            Op::Recv(side) => {
                let most = self.lanes.granted(key, side);
                let token = token(Purpose::Recv(side));
                self.kernel.recv(token, slot.socket(side), most);
            }
            Op::PassOn(from) => return Some(self.pass_on(key, from)),
            Op::Send(to, buffer, last) => {
                let token = token(Purpose::Send(to));
                self.kernel.send(token, slot.socket(to), buffer, last);
            }
            Op::Release(id) => self.kernel.give_back(id),
            Op::Pump(from) => return Some(self.pump(key, from)),
            Op::Visit(visit, after) => self.visit(key, visit, after),
            Op::PollSource(from, goes_on) => {
                let token = token(Purpose::PollSource(from));
                let interest = if goes_on {
                    Interest::Bytes
                } else {
                    Interest::Read
                };
                self.kernel.poll(token, slot.socket(from), interest);
            }
            Op::PollSink(to, goes_on) => {
                let token = token(Purpose::PollSink(to));
                let interest = if goes_on {
                    Interest::Room
                } else {
                    Interest::Write
                };
                self.kernel.poll(token, slot.socket(to), interest);
            }
            Op::Watch(side) => {
                self.kernel.poll(
                    token(Purpose::Watch(side)),
                    slot.socket(side),
                    Interest::Fault,
                );
            }
            Op::Unpipe(from) => return Some(self.unpipe(key, from)),
            Op::Unsent => return Some(Event::Unsent(self.unsent(key))),
            Op::Overhear(bytes) => self.overhear(key, bytes),
            Op::Cancel(purpose) => self.kernel.cancel(token(purpose)),
            Op::Shutdown(side) => self.kernel.shutdown(slot.socket(side)),
            Op::Acknowledge => self.kernel.acknowledge(slot.socket(Side::Backend)),
            Op::KeepAlive => self.kernel.keep_alive(slot.socket(Side::Backend)),
            Op::InVain => self.stats.turns_in_vain.increment(),
            Op::Asked => slot.with_tally(Tally::on_asked),
            Op::Replied => slot.with_tally(Tally::on_replied),
            Op::Used(time) => slot.with_tally(|tally| tally.on_used(time)),
            Op::Peek(first, last) => return Some(self.peek(key, first, last)),
            Op::PeekAhead(first, last) => return Some(self.peek_ahead(key, first, last)),
            Op::Append(to, from) => self.kernel.append(to, from),
            Op::Connect => return self.connect(key),
            Op::Abandon(fault) => self.abandon(key, fault),
            Op::Decrypt(from, buffer) => return Some(self.decrypt(key, from, buffer)),
            Op::Encrypt(to, buffer) => return Some(self.encrypt(key, to, buffer)),
            Op::Notify(to) => return Some(self.notify(key, to)),
            Op::Answered(first) => self.on_answered(key, first),
            Op::Finish => self.finish(key),
        }
        None
    }

    /// The backend's first byte came, in this buffer unless it was passed on without one.
    #[inline(never)]
    fn on_answered(&mut self, key: usize, first: Option<Buffer>) {
        let slot = &mut self.slots[key];
        let answer = slot.session.answer();
        if let Some(first) = first {
            self.log_lines.note_answer(key, self.kernel.bytes(first));
        }
        let first_byte = self.now.saturating_sub(slot.session.opened_at());
        self.stats.latencies.first_byte.record(first_byte);
        slot.listener.gate.times.first_byte.record(first_byte);
        self.recorded.first_byte.record(first_byte / US);
        let decay = slot.plan().decay();
        let delayed = self.stall.is_within(answer, self.now);
        if let Some(backend) = &slot.target {
            if delayed {
                backend.tally.on_answered_during_stall();
            } else {
                backend.tally.on_answered(answer, self.now, decay);
                backend.record(|times| &times.first_byte, answer);
            }
        }
        if slot.passes_trial() {
            self.kernel.wake(Sleeper::Control);
        }
    }

    /// Splices through the session's own pipe when bytes are in it, else through any. A pipe
    /// stays with the session only while it holds bytes.
    #[inline(never)]
    fn pump(&mut self, key: usize, from: Side) -> Event {
        let most = self.lanes.granted(key, from);
        let slot = &mut self.slots[key];
        let leased = slot.pipes[from as usize]
            .take()
            .or_else(|| self.kernel.lease_pipe());
        let Some(mut pipe) = leased else {
            return Event::Pipeless(from);
        };
        let (source, sink) = (slot.socket(from), slot.socket(from.other()));
        let pumped = self.kernel.pump(source, &mut pipe, sink, most);
        // What a broken sink has left goes nowhere, while the other direction may go on.
        if pipe.held == 0 || matches!(pumped.sink, SinkState::Broken(_)) {
            self.kernel.return_pipe(pipe);
        } else {
            slot.pipes[from as usize] = Some(pipe);
        }
        if pumped.pushed > 0 {
            self.uncounted.note(key, &mut self.slots[key]);
        }
        Event::Pumped(from, pumped)
    }

    #[inline(never)]
    fn unpipe(&mut self, key: usize, from: Side) -> Event {
        let slot = &mut self.slots[key];
        let Some(mut pipe) = slot.pipes[from as usize].take() else {
            return Event::Unpiped(from, None);
        };
        let buffer = self.kernel.unpipe(slot.socket(from), &mut pipe);
        if pipe.held == 0 {
            self.kernel.return_pipe(pipe);
        } else {
            slot.pipes[from as usize] = Some(pipe);
        }
        Event::Unpiped(from, buffer)
    }

    #[inline(never)]
    fn pass_on(&mut self, key: usize, from: Side) -> Event {
        let slot = &self.slots[key];
        let (source, sink) = (slot.socket(from), slot.socket(from.other()));
        let most = self.lanes.granted(key, from);
        let moved = self.kernel.pass_on(source, sink, most);
        if moved.pushed > 0 {
            self.uncounted.note(key, &mut self.slots[key]);
        }
        Event::PassedOn(from, moved)
    }

    #[inline(never)]
    fn unsent(&self, key: usize) -> [Unsent; 2] {
        let slot = &self.slots[key];
        Side::BOTH.map(|side| Unsent {
            bytes: self.kernel.unsent(slot.socket(side)),
            at_peer: matches!(slot.address(side), Some(Address::Unix(_))),
        })
    }

    /// Ends a session with nothing in flight: closes its sockets, and gives back its slot, its
    /// pipes and its places in limits.
    #[inline(never)]
    fn finish(&mut self, key: usize) {
        self.leave_queue(key);
        self.count(key);
        self.settle_bandwidth(key);
        let mut slot = self.slots.remove(key);
        debug_assert!(self.ops.is_empty(), "it asks for nothing any more");
        self.timers.clear(number(key));
        self.forget_cancelable(key, &slot);
        if slot.tls.is_some() {
            self.end_tls(&mut slot);
        }
        let manner = slot.session.manner();
        let reason = slot.session.reason().unwrap_or(CloseReason::Shutdown);
        let summary = slot.session.summary(self.now);
        if let Some(decision) = self.decisions.of(&mut slot) {
            decision.on_end(reason, &summary, self.now);
        }
        if let Some(cause) = self.cause_of(&slot, reason) {
            self.decisions.note_cause(slot.decision, &cause);
        }
        let has_line = self.has_end_line(&slot, reason);
        // Its sockets are open still.
        let extras = has_line.then(|| self.extras(key, &slot)).flatten();
        self.log_lines.forget(key);
        self.note_end(&slot, reason);
        self.measure(&slot, &summary);
        self.count_missed(&slot);
        if slot.offends_by(reason) {
            let peer = slot.peer.or_else(|| self.kernel.peer(&slot.client));
            self.note_offence(&slot.listener, peer, reason);
        }
        let pipes = slot.pipes.into_iter().flatten();
        pipes.for_each(|pipe| self.kernel.return_pipe(pipe));
        self.close_client(slot.client, manner, reason);
        if let Some(socket) = slot.backend {
            self.kernel.close(socket, slot.session.backend_manner());
            if let Some(backend) = &slot.target {
                if release_backend(backend, reason, &summary, slot.on_trial) {
                    self.kernel.wake(Sleeper::Control);
                }
                let plan = slot.listener.plan_of(slot.route);
                plan.on_left(backend, &slot.keys, self.now);
                self.call_next(plan.pool());
            }
        }
        if let Some(held) = slot.held {
            slot.listener.gate.release(&self.snapshot.sources, held);
        }
        slot.listener.connections.release();
        self.snapshot.connections.release();
        self.leave_port(slot.port);
        self.stats.closed[reason as usize].increment();
        slot.listener.gate.count_closed(reason as u8);
        slot.listener.routes.count(slot.route);
        if has_line {
            self.write_record(Record {
                proxy: slot.named.map(|named| named.proxy),
                number: slot.number,
                worker: self.id,
                listener: slot.listener,
                route: slot.route,
                backend: slot.target,
                client: slot.peer,
                summary,
                at: self.now,
                event: LogEvent::End(reason),
                dry_run: slot.dry_run,
                tries: slot.tries,
                connect_us: slot.connect_us,
                extras,
            });
        }
    }

    /// A session is connected: sets its timer for the next deadline, and measures how long the
    /// client waited.
    #[inline(never)]
    pub(super) fn on_connected(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        let took = slot.session.answer();
        slot.connect_us = u32::try_from(took / US).unwrap_or(u32::MAX);
        if let Some(backend) = &slot.target {
            backend.record(|times| &times.connect, took);
        }
        if let Some(decision) = self.decisions.find(slot.decision) {
            decision.connected = Some(slot.connect_us);
        }
        self.timers.set(number(key), slot.deadline(self.now));
        self.forget_hello(key);
        self.log_start(key);
        self.note_cancelable(key);
        let slot = &self.slots[key];
        if let Some(connect) = slot.session.connect_took() {
            self.stats.latencies.connect.record(connect);
            slot.listener.gate.times.connect.record(connect);
            self.recorded.connect.record(connect / US);
        }
    }
}

/// A slot's number in a token.
pub(super) fn number(key: usize) -> u32 {
    u32::try_from(key).expect("slots are counted in a u32")
}

const _: () = assert!(CloseReason::ALL.len() <= Gate::REASONS_MAX);
/// What an idle connection takes in this process.
const _: () = assert!(size_of::<Slot>() <= 416);
