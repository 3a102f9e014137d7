//! Connecting a session to a backend: selecting one, a place at it, and what failed attempts leave.

use std::sync::Arc;

use crate::address::Address;
use crate::fault::Fault;
use crate::kernel::{Done, Errno, Kernel, Manner, Sleeper};
use crate::origin::{Client, Origin, User};
use crate::pool::{Backend, Ended, Pool};
use crate::select::{Choice, Request, Seat, Selector};
use crate::session::{Event, Opening, Preamble};
use crate::time::US;
use crate::token::{Purpose, Token};

use super::backoff::Begin;
use super::headers::tlvs_of;
use super::slot::{Asks, Slot, number};
use super::{FailedConnect, FailedTry, Worker};

impl<K: Kernel> Worker<K> {
    #[inline(never)]
    pub(super) fn connect(&mut self, key: usize) -> Option<Event> {
        if !self.adopt_listener(key) {
            self.leave_queue(key);
            return Some(Event::Unrouted);
        }
        loop {
            let reserved = if self.is_its_turn(key) {
                self.reserve(key)
            } else {
                Err(Event::Full)
            };
            let answer = match &reserved {
                Ok(backend) => self.connect_to(key, backend),
                Err(why_not) => Some(*why_not),
            };
            if answer != Some(Event::Full) {
                self.leave_queue(key);
                return answer;
            }
            // While a backlog is full other backends are tried, and then the client waits.
            if reserved.is_err() {
                return Some(self.wait_for_place(key));
            }
        }
    }

    /// Connects to a backend that it has a place at; `Full`: the place is given back, as its
    /// backlog is full.
    fn connect_to(&mut self, key: usize, backend: &Arc<Backend>) -> Option<Event> {
        let from = self.origin(key, backend);
        let slot = &mut self.slots[key];
        slot.target = Some(Arc::clone(backend));
        let socket = match self.kernel.open(&backend.address, from) {
            Ok(socket) => socket,
            Err(errno) => {
                self.release(key, backend, Ended::unanswered());
                if Fault::of_connect(errno) == Fault::Resources {
                    backend.tally.on_unsent();
                    self.pause_accepting();
                    return Some(Event::Lacking(Fault::Resources));
                }
                return Some(Event::ConnectFailed(Fault::binding(errno)));
            }
        };
        if slot.session.is_retrying() {
            self.stats.retries.increment();
        }
        let token = Token::new(Purpose::Connect, slot.generation, number(key));
        let answer = self.kernel.connect(token, &socket, &backend.address);
        if answer == Some(Err(Errno::AGAIN)) {
            backend.on_backlog_full(self.now);
            self.stats.turns_in_vain.increment();
            self.kernel.close(socket, Manner::Graceful);
            self.release(key, backend, Ended::unanswered());
            return Some(Event::Full);
        }
        slot.backend = Some(socket);
        let answer = answer?;
        match answer {
            Ok(()) => {
                backend.on_taken();
                self.prepare(key)
            }
            Err(errno) => Some(Event::ConnectFailed(errno)),
        }
    }

    /// A connect stands: what is the backend to hear before its client's bytes? `None`: its answer
    /// to that is awaited.
    fn prepare(&mut self, key: usize) -> Option<Event> {
        let has_tls = self.slots[key].plan().pool().tls.is_some();
        if has_tls && self.puts_off_handshake(key) {
            return None;
        }
        let event = self.introduce(key);
        let Event::Connected(opening) = event else {
            return Some(event);
        };
        let header = match opening {
            Opening::Header(header) => Some(header),
            Opening::Bare | Opening::Sealed => None,
        };
        if has_tls {
            self.begin_tls(key, header)
        } else if self.slots[key].session.preamble() == Preamble::Tls {
            self.ask_for_tls(key, header)
        } else {
            Some(event)
        }
    }

    /// What the next connection to a backend begins at: each of its origins in turn.
    fn origin(&mut self, key: usize, backend: &Backend) -> Origin {
        if backend.origins.is_empty() {
            // A lack of ports is held by this number: not by that of the attempt before.
            self.slots[key].origin = 0;
            return Origin::default();
        }
        let Seat { worker, of, .. } = self.seat;
        let user = User::Worker(worker, of);
        if backend.origins.at_client {
            self.slots[key].origin = 0;
            return backend
                .origins
                .of_client(self.slots[key].origin_client(), user);
        }
        self.origin_turn = self.origin_turn.wrapping_add(1);
        let origin = self.backoff.origin(backend, self.origin_turn, self.now);
        self.slots[key].origin = u16::try_from(origin).unwrap_or(0);
        backend.origins.nth(origin, user)
    }

    /// Takes note of what a connect failed by, before its session hears of it and abandons it.
    pub(super) fn note_failure(&mut self, key: usize, event: Event) {
        if let Event::ConnectFailed(errno) = event {
            let began = self.slots[key].session.view().active_at;
            self.failed = (errno, self.now.saturating_sub(began));
        }
    }

    /// The kernel has connected a session, or could not.
    pub(super) fn on_connect_completed(&mut self, token: Token, outcome: Result<Done, Errno>) {
        let key = token.slot() as usize;
        let event = match std::mem::replace(&mut self.slots[key].asks, Asks::Nothing) {
            Asks::ForTls => self.hear_tls(key, outcome),
            Asks::Handshake => self.hear_handshake(key, outcome),
            Asks::Turn | Asks::Nothing => {
                let event = self.connected(token, outcome);
                match matches!(event, Event::Connected(_)) {
                    true => self.prepare(key),
                    false => Some(event),
                }
            }
        };
        let Some(event) = event else { return };
        self.note_failure(key, event);
        self.deliver(token, event, false);
        if matches!(event, Event::Connected(_)) {
            if let Some(slot) = self.slots.get(key)
                && let Some(backend) = &slot.target
            {
                self.backoff.on_connected(backend, slot.begins(backend));
            }
            self.on_connected(key);
        }
    }

    /// What came of a connect. A socket that is connected to itself was refused: there is no
    /// listener.
    fn connected(&self, token: Token, outcome: Result<Done, Errno>) -> Event {
        let key = token.slot() as usize;
        let slot = &self.slots[key];
        if let Err(errno) = outcome {
            let portless = Fault::of_connect(errno) == Fault::Ports;
            let mut to = slot.target.iter().map(|backend| &backend.address);
            let unreachable = portless && to.any(|to| !self.kernel.has_address_towards(to));
            return Event::ConnectFailed(if unreachable {
                Errno::NETUNREACH
            } else {
                errno
            });
        }
        let mut ends = slot.backend.iter().zip(&slot.target);
        if ends.any(|(own, backend)| self.kernel.is_connected_to_itself(own, &backend.address)) {
            return Event::ConnectFailed(Errno::CONNREFUSED);
        }
        Event::Connected(Opening::Bare)
    }

    /// Adopts the present settings of the session's listener, before a look or an attempt. The pool
    /// may be another, to whose indices `tried` is translated, and so may the client's key.
    /// `false`: a route refuses the client now.
    pub(super) fn adopt_listener(&mut self, key: usize) -> bool {
        let slot = &mut self.slots[key];
        let listener = &self.ports[slot.port].listener;
        if Arc::ptr_eq(&slot.listener, listener) {
            return !listener.routes.refuses(slot.route);
        }
        let tlvs = tlvs_of(slot.named.as_deref());
        let client = (slot.peer.map(|peer| peer.ip()), tlvs);
        let route = listener.route_after(&slot.listener, slot.route, client);
        let (old, new) = (slot.listener.plan_of(slot.route), listener.plan_of(route));
        if let Some(tries) = &mut slot.tries {
            tries.tried = translated(&tries.tried, old.pool(), new.pool());
        }
        if new.needs_source() && slot.peer.is_none() {
            slot.peer = self.kernel.peer(&slot.client);
        }
        slot.keys = new.take_over(slot.keys, old, (slot.peer, tlvs));
        slot.route = route;
        slot.listener = Arc::clone(listener);
        let is_refused = listener.routes.refuses(route);
        self.set_timer(key);
        !is_refused
    }

    /// Selects a backend and takes a place at it. Another worker may take the last place first:
    /// then the next one is selected.
    fn reserve(&mut self, key: usize) -> Result<Arc<Backend>, Event> {
        let slot = &mut self.slots[key];
        let port = &mut self.ports[slot.port];
        let selector = self.pools.selector_mut(port.pools[slot.route.index()]);
        debug_assert!(
            Arc::ptr_eq(selector.plan(), slot.plan()),
            "indices of backends are those of the session's pool"
        );
        let mut lacking = None;
        let mut races = 0;
        // Once all others were tried: those that its client can't be connected to.
        let mut misfits = None;
        while races < RACES_MAX {
            let choice = choose(selector, slot, misfits.as_deref(), self.now);
            let Choice::Backend(index) = choice else {
                let noted = (self.now, choice);
                self.decisions.on_selected(slot, selector, noted);
                return Err(match choice {
                    Choice::Unavailable => Event::Unselected,
                    Choice::Full | Choice::Backend(_) => Event::Full,
                });
            };
            let pool = slot.listener.plan_of(slot.route).pool();
            let backend = &pool.backends[usize::from(index)];
            let client = slot.origin_client();
            let held = self.backoff.holds(backend, client.address, self.now);
            let misfit = is_misfit(backend, client, &self.kernel);
            if misfit && slot.has_gone() {
                return Err(Event::Gone);
            }
            let tried = slot.tried().contains(&index);
            if (held.is_some() || misfit) && !tried {
                // Another one may be connected to.
                lacking = held.or(lacking);
                slot.tries.get_or_insert_default().tried.push(index);
                continue;
            }
            if misfit {
                if misfits.is_some() {
                    return Err(slot.tries.as_ref().map_or(Event::Misfit, |its| its.spent()));
                }
                misfits = Some(all_misfits(pool, client, &self.kernel));
                continue;
            }
            let spent = tried && slot.session.is_out_of_attempts(slot.limits());
            if spent && lacking.is_none() && held.is_none() {
                return Err(Event::Spent);
            }
            // No other is left: an attempt at once would fail as the last one did.
            let waits = tried && !std::mem::replace(&mut slot.paused, true);
            if let Some(fault) = held.or_else(|| lacking.filter(|_| waits)) {
                // Where connections begin at their client's address, only that client lacks it.
                if !backend.origins.at_client {
                    port.pause(self.now);
                    self.ports_changed = true;
                }
                return Err(Event::Lacking(fault));
            }
            if waits {
                return Err(Event::Paused);
            }
            slot.paused = false;
            let backend = Arc::clone(backend);
            let noted = (self.now, choice);
            self.decisions.on_selected(slot, selector, noted);
            if take_place(slot, &backend, self.now) {
                slot.target_index = index;
                slot.on_trial = backend.tally.is_ejected();
                return Ok(backend);
            }
            races += 1;
        }
        Err(Event::Full)
    }

    /// An attempt failed: its socket goes, its backend is not tried again soon.
    #[inline(never)]
    pub(super) fn abandon(&mut self, key: usize, fault: Fault) {
        let slot = &mut self.slots[key];
        let Some(backend) = slot.target.clone() else {
            return;
        };
        backend.tally.history.on_connect_failed(fault);
        if fault.is_unsent() {
            backend.tally.on_unsent();
        }
        match fault {
            Fault::Ports => {
                self.stats.ports_exhausted.increment();
                backend.tally.on_portless();
            }
            Fault::Source => self.stats.sources_missing.increment(),
            Fault::Backend
            | Fault::Busy
            | Fault::Unanswered
            | Fault::Network
            | Fault::Client
            | Fault::Resources
            | Fault::Local => self.stats.connect_failures.increment(),
        }
        // From another origin there may be a port towards it.
        let of_origin = fault.is_of_origin();
        if of_origin {
            let origin = slot.begins(&backend);
            self.stats.turns_in_vain.increment();
            self.backoff.hold(&backend, origin, fault, self.now);
        }
        let client = slot.origin_client().address;
        let over = !of_origin || self.backoff.holds(&backend, client, self.now).is_some();
        let (errno, took) = self.failed;
        let failed = FailedTry {
            backend: Arc::clone(&backend),
            fault,
            errno,
            took,
        };
        self.note_try(key, failed);
        let slot = &mut self.slots[key];
        let tries = slot.tries.get_or_insert_default();
        if over && !tries.tried.contains(&slot.target_index) {
            tries.tried.push(slot.target_index);
        }
        if fault.blames_backend() {
            let moved = match slot.begins(&backend) {
                Begin::Machine(_) => backend.on_unreached(),
                Begin::Client(client) => backend.on_unreached_by(client),
            };
            if moved {
                self.kernel.wake(Sleeper::Control);
            }
        }
        if let Some(socket) = slot.backend.take() {
            // One that is connected to itself would else keep the backend's port in TIME-WAIT.
            self.kernel.close(socket, Manner::Reset);
            self.release(key, &backend, Ended::unanswered());
        }
    }

    /// Takes note of an attempt that failed, for the access log and for who asks why.
    pub(super) fn note_try(&mut self, key: usize, failed: FailedTry) {
        let slot = &mut self.slots[key];
        if let Some(decision) = self.decisions.find(slot.decision) {
            decision.on_failed(FailedConnect {
                backend: failed.backend.number,
                took: u32::try_from(failed.took / US).unwrap_or(u32::MAX),
                errno: failed.errno,
                fault: failed.fault,
            });
        }
        slot.tries.get_or_insert_default().on_failed(failed);
    }

    /// Gives the place at a backend back, and calls the next client that waits for one.
    fn release(&self, key: usize, backend: &Backend, ended: Ended) {
        backend.release(ended);
        self.call_next(self.slots[key].plan().pool());
    }
}

impl Slot {
    /// The client, as far as connections may begin at its address. Where a header does not say it,
    /// `peer` is the proxy's, which stands for connections of its own only.
    pub(super) fn origin_client(&self) -> Client {
        let named = self.named.as_ref().filter(|_| !self.is_own());
        let is_known = named.is_none_or(|named| named.destination.is_some());
        let peer = self.peer.filter(|_| is_known);
        Client {
            address: peer.map(|peer| peer.ip().to_canonical()),
            is_named: named.is_some(),
        }
    }

    /// Whether its client had gone at its accept: then the kernel does not know its address.
    fn has_gone(&self) -> bool {
        let is_tcp = matches!(self.listener.bind, Address::Tcp(_));
        is_tcp && self.peer.is_none() && self.named.is_none()
    }

    /// Where its connection to a backend begins.
    pub(super) fn begins(&self, backend: &Backend) -> Begin {
        let client = backend
            .origins
            .at_client
            .then(|| self.origin_client().address);
        match client.flatten() {
            Some(client) => Begin::Client(client),
            None => Begin::Machine(self.origin.into()),
        }
    }
}

/// Whether connections to a backend have to begin at their client's address, and one of this client
/// can't. A header may name an address of this machine, which a backend may trust.
fn is_misfit(backend: &Backend, client: Client, kernel: &impl Kernel) -> bool {
    let is_own = |ip| client.is_named && kernel.has_address(ip);
    backend.origins.at_client
        && (!backend.origins.fit(client, &backend.address) || client.address.is_some_and(is_own))
}

/// The backends that a client can't be connected to, as indices into their pool.
fn all_misfits(pool: &Pool, client: Client, kernel: &impl Kernel) -> Vec<u16> {
    let all = (0u16..).zip(&pool.backends);
    let misfits = all.filter(|(_, backend)| is_misfit(backend, client, kernel));
    misfits.map(|(index, _)| index).collect()
}

/// Selects a backend, if it can be one that is not among those to pass over: by default those that
/// were tried. For a request to cancel it is that of the session.
fn choose(selector: &mut Selector, slot: &Slot, pass_over: Option<&[u16]>, now: u64) -> Choice {
    if let Some(number) = slot.only() {
        return of_number(slot.plan().pool(), number);
    }
    selector.select(&Request {
        now,
        keys: slot.keys,
        tried: pass_over.unwrap_or_else(|| slot.tried()),
    })
}

/// Takes a place at a backend, if there is one.
fn take_place(slot: &Slot, backend: &Backend, now: u64) -> bool {
    match slot.goes_beyond_limits() {
        true => backend.try_acquire_for_cancel(),
        false => backend.try_acquire(now),
    }
}

/// The backend of this number, drained, down or full as it may be.
fn of_number(pool: &Pool, number: u32) -> Choice {
    let mut all = (0u16..).zip(&pool.backends);
    let found = all.find(|(_, backend)| backend.number == number);
    found.map_or(Choice::Unavailable, |(index, _)| Choice::Backend(index))
}

/// What was tried, as indices into the pool that takes the place of another.
fn translated(tried: &[u16], old: &Pool, new: &Pool) -> Vec<u16> {
    let place = |&index: &u16| {
        let old = old.backends.get(usize::from(index))?;
        let mut all = (0u16..).zip(&new.backends);
        let found = all.find(|(_, new)| Arc::ptr_eq(&new.tally, &old.tally))?;
        Some(found.0)
    };
    tried.iter().filter_map(place).collect()
}

/// Places that are lost to other workers before a client waits.
const RACES_MAX: u32 = 8;
