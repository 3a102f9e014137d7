//! The fake kernel: its implementation of the trait. Each request becomes an operation in flight;
//! `ops.rs` advances operations in an order that the seed decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use mahoraga::address::Address;
use mahoraga::kernel::{
    Buffer, BufferId, Completion, Errno, Interest, Kernel, Manner, Pipe, Pumped, Sleeper, Socket,
};
use mahoraga::origin::Origin;
use mahoraga::time::{MS, US, nanos};
use mahoraga::token::{Purpose, Side, Token};

use crate::buffers::{Held, Holder, Maker};
use crate::headers::named;
use crate::net::{Conn, Hold};
use crate::ops::{InFlight, Kind};
use crate::peer::Peer;
use crate::pipes::Pipes;
use crate::random::Random;
use crate::trace::Trace;
use crate::world::{Event, TICK, World};

/// A kernel, a network and the peers at its other end.
#[derive(Debug)]
pub(crate) struct FakeKernel {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    serial: u64,
    /// By descriptor, from [`FIRST_SOCKET`] on.
    pub(crate) conns: Vec<Conn>,
    pub(crate) listeners: Vec<Listening>,
    /// New listeners whose sockets the worker has not fetched yet.
    pub(crate) handed: VecDeque<usize>,
    pub(crate) ops: BTreeMap<u64, InFlight>,
    /// Completed, but not yet reported.
    pub(crate) completed: VecDeque<Completion>,
    pub(crate) buffers: Vec<Held>,
    pub(crate) free: Vec<BufferId>,
    pub(crate) maker: Maker,
    /// When a receive last found no buffer, or a sink with room no memory.
    pub(crate) starved_at: u64,
    /// Bytes that are looked at where they wait.
    pub(crate) scratch: Vec<u8>,
    pub(crate) pipes: Pipes,
    /// Sockets of a session by its slot and generation.
    pub(crate) pairs: BTreeMap<(u32, u32), Pair>,
    /// The worker reads its mailbox in this turn.
    pub(crate) woken: bool,
    pub(crate) world: World,
}

/// A listening socket.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    pub(crate) backlog: VecDeque<i32>,
    pub(crate) closed: bool,
    /// The accept in flight is a multishot one.
    pub(crate) many: bool,
    /// The token of its accepts.
    pub(crate) key: Option<u32>,
    /// Since when it listens although no snapshot that the worker may have contains it.
    pub(crate) gone_since: Option<u64>,
    /// Since when clients wait, here or parked, although there is room.
    pub(crate) unaccepted_since: Option<u64>,
}

/// The sockets of a session.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) client: Option<i32>,
    pub(crate) backend: Option<i32>,
    pub(crate) ports: Vec<u16>,
}

impl FakeKernel {
    pub(crate) fn new(mut random: Random, trace: Trace, world: World) -> Self {
        let buffers = random.pick(&[2u16, 6, 16, 64, 200]);
        let pipes = random.pick(&[0u32, 1, 2, 8]);
        let mut kernel = Self {
            now: START,
            random,
            trace,
            agenda: BinaryHeap::new(),
            serial: 0,
            conns: Vec::new(),
            listeners: (0..world.limits.len())
                .map(|number| Listening {
                    closed: !world.in_force[0].contains(&number),
                    ..Listening::default()
                })
                .collect(),
            handed: VecDeque::new(),
            ops: BTreeMap::new(),
            completed: VecDeque::new(),
            buffers: (0..buffers).map(|_| Held::default()).collect(),
            free: (0..buffers).collect(),
            maker: Maker::default(),
            starved_at: 0,
            scratch: Vec::new(),
            pipes: Pipes::new(pipes),
            pairs: BTreeMap::new(),
            woken: false,
            world,
        };
        kernel.after(TICK, Event::Tick);
        kernel
    }

    /// Schedules an event for later.
    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.serial += 1;
        self.agenda
            .push(Reverse((self.now + delay, self.serial, event)));
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// A connection by its descriptor.
    pub(crate) fn conn(&mut self, fd: i32) -> &mut Conn {
        &mut self.conns[index(fd)]
    }

    /// A socket that an operation names: it must be open.
    fn opened(&self, socket: &Socket, what: &str) -> i32 {
        let fd = socket.raw();
        let open = self.conns.get(index(fd)).is_some_and(Conn::is_open);
        assert!(open, "{what} on {fd}, which is no open socket");
        fd
    }

    /// A new connection; its descriptor.
    pub(crate) fn add(&mut self, side: Side, peer: Peer) -> i32 {
        let room = |random: &mut Random| {
            let rooms = [3_000, 20_000, 100_000, 400_000];
            random.pick(&rooms)
        };
        let rooms = [room(&mut self.random), room(&mut self.random)];
        let stream = 1 + self.conns.len() as u64;
        self.conns.push(Conn::new(side, stream, peer, rooms));
        let number = i32::try_from(self.conns.len() - 1).expect("few connections");
        FIRST_SOCKET + number
    }

    /// Descriptors of connections.
    pub(crate) fn open_sockets(&self, side: Side) -> usize {
        self.conns
            .iter()
            .filter(|conn| conn.side == side && conn.is_open())
            .count()
    }

    pub(crate) fn lacks_descriptors(&self) -> bool {
        let used = self.open_sockets(Side::Client) + self.open_sockets(Side::Backend);
        self.world.famine || used >= self.world.descriptors
    }

    fn run_until(&mut self, time: u64) {
        while let Some(&Reverse((at, _, event))) = self.agenda.peek() {
            if at > time {
                break;
            }
            self.agenda.pop();
            self.now = self.now.max(at);
            self.trace.clock = self.now;
            self.happen(event);
        }
        self.now = self.now.max(time);
        self.trace.clock = self.now;
    }

    /// Nothing but periodic checks can happen any more.
    fn is_dead(&self) -> bool {
        let idle = |Reverse((_, _, event)): &Reverse<(u64, u64, Event)>| {
            matches!(event, Event::Tick | Event::NeighbourLooks)
        };
        self.agenda.iter().all(idle)
    }

    /// Puts an operation in flight and lets it look at its socket.
    pub(crate) fn start(&mut self, token: Token, fd: i32, kind: Kind) {
        self.trace
            .op(kind.name(), token, u64::from(fd.unsigned_abs()));
        let fault = self.draw_fault(&kind);
        let before = self
            .ops
            .insert(token.raw(), InFlight::new(token, fd, kind, fault));
        let over = before.is_none_or(|before| before.reported);
        assert!(over, "{token:?} is in flight already");
        if fault.is_some() {
            self.schedule(token.raw());
        }
        self.wake_op(token.raw());
    }

    /// One operation of a kind on a socket at a time: two could overtake each other.
    pub(crate) fn assert_alone(&self, fd: i32, what: &str, clashes: impl Fn(&Kind) -> bool) {
        let clash = |op: &&InFlight| op.fd == fd && !op.reported && clashes(&op.kind);
        let other = self.ops.values().find(clash);
        assert!(other.is_none(), "{what} on {fd} while {other:?}");
    }

    /// Records which sockets make a session, by the token that names it.
    pub(crate) fn pair(&mut self, token: Token, fd: i32) {
        let key = (token.slot(), token.generation());
        let pair = self.pairs.entry(key).or_default();
        let conn = &self.conns[index(fd)];
        let place = match conn.side {
            Side::Client => &mut pair.client,
            Side::Backend => &mut pair.backend,
        };
        assert!(
            place.is_none_or(|known| known == fd),
            "{token:?} names {fd} and {place:?}"
        );
        *place = Some(fd);
        if let (Some(client), Some(backend)) = (pair.client, pair.backend) {
            for (one, other) in [(client, backend), (backend, client)] {
                let conn = &mut self.conns[index(one)];
                let partner = conn.partner.replace(other);
                assert!(
                    partner.is_none_or(|known| known == other),
                    "{one} is paired with {partner:?} and {other}"
                );
                if partner.is_none() {
                    conn.paired_at = self.now;
                    conn.moved_at = self.now;
                    conn.vain = Default::default();
                }
            }
        }
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        let all = self.completed.len() as u64;
        let some = if self.random.permille(700) {
            all
        } else {
            self.random.between(all.min(1), all)
        };
        for _ in 0..some {
            let Some(completion) = self.completed.pop_front() else {
                break;
            };
            self.trace.completion(&completion);
            self.on_reaped(&completion);
            let before = into.last().filter(|last| last.token == completion.token);
            if before.is_some() && completion.is_end() {
                self.trace.see("bytes and their end in one batch");
            }
            into.push(completion);
        }
    }
}

impl Kernel for FakeKernel {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) {
        let until = timeout.map(|timeout| self.now + nanos(timeout));
        self.ops.retain(|_, op| !op.reported);
        self.pipes.assert_none_is_lost();
        if std::mem::take(&mut self.woken) {
            let newest = *self.world.known.end();
            self.world.known = newest..=newest;
        }
        // The worker's own work took time too.
        let soon = self.now + self.random.between(US, 20 * US);
        self.run_until(soon);
        while self.completed.is_empty() && until.is_none_or(|until| self.now < until) {
            let next = self.agenda.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            assert!(
                until.is_some() || !self.is_dead(),
                "the worker waits for ever, and nothing will come: {}",
                self.dump()
            );
            self.run_until(next.min(until.unwrap_or(u64::MAX)));
            if self.random.permille(2) {
                self.trace.see("a wait without a completion");
                break;
            }
        }
        self.reap(completions);
    }

    fn wake(&self, thread: Sleeper) {
        match thread {
            Sleeper::Worker(number) => {
                assert_eq!(number, 1, "there are two workers");
                self.world.neighbour.rung.set(true);
            }
            Sleeper::Control => self.world.control_woken.set(true),
            // The test reads the records after each turn.
            Sleeper::LogWriter => {}
        }
    }

    fn accept(&mut self, token: Token, listener: &Socket, many: bool) {
        let number = listening(listener.raw());
        let others = self.listeners.iter().enumerate();
        let others = others.filter(|(other, listening)| *other != number && !listening.closed);
        let mut keys = others.filter_map(|(_, listening)| listening.key);
        assert!(keys.all(|key| key != token.slot()), "another's {token:?}");
        let known = self.listeners[number].key.replace(token.slot());
        assert!(known.is_none_or(|known| known == token.slot()));
        assert!(
            !self.listeners[number].closed,
            "accept on a closed listener"
        );
        self.listeners[number].many = many;
        if !many {
            self.trace.see("single accept near a limit");
        }
        self.start(token, listener.raw(), Kind::Accept);
    }

    fn accept_now(&mut self, listener: &Socket) -> Option<Socket> {
        let number = listening(listener.raw());
        assert!(!self.listeners[number].closed);
        let fd = self.listeners[number].backlog.pop_front()?;
        self.trace.see(if self.world.over_at.is_some() {
            "a stop that empties the backlog"
        } else {
            "a listener that is gone empties its backlog"
        });
        self.conn(fd).hold = Hold::Open;
        Some(Socket::from_raw(fd))
    }

    fn adopt(&mut self, listener: u64) -> Option<Socket> {
        self.hand_over(usize::try_from(listener).expect("few"))
    }

    fn connect(
        &mut self,
        token: Token,
        socket: &Socket,
        to: &Address,
    ) -> Option<Result<(), Errno>> {
        let fd = self.opened(socket, "connect");
        self.begin_connect(token, fd, to)
    }

    fn recv(&mut self, token: Token, socket: &Socket, most: u32) {
        let fd = self.opened(socket, "recv");
        assert_eq!(token.purpose(), Purpose::Recv(self.conn(fd).side));
        assert!(
            self.conn(fd).connected,
            "recv on {fd}, which is not connected"
        );
        self.assert_alone(fd, "recv", Kind::reads);
        assert!(
            self.conn(fd).header.is_none(),
            "recv on {fd} before its header"
        );
        self.pair(token, fd);
        if std::mem::take(&mut self.conn(fd).spliced) {
            self.trace.see("demotion to copy");
        }
        self.start(token, fd, Kind::Recv { most });
    }

    fn pass_on(&mut self, from: &Socket, to: &Socket, most: u32) -> Pumped {
        let from = self.opened(from, "bytes passed on from");
        let to = self.opened(to, "bytes passed on to");
        self.assert_alone(from, "bytes passed on from", Kind::reads);
        self.assert_alone(to, "bytes passed on to", Kind::writes);
        assert_eq!(self.conn(from).buffers, 0, "bytes overtake others");
        self.pass_between(from, to, most)
    }

    fn send(&mut self, token: Token, socket: &Socket, buffer: Buffer, more: bool) {
        let fd = self.opened(socket, "send");
        assert_eq!(token.purpose(), Purpose::Send(self.conn(fd).side));
        assert!(!self.conn(fd).outbound.fin, "send on {fd} after its FIN");
        self.assert_alone(fd, "send", Kind::writes);
        self.pair(token, fd);
        let partner = self.conns[index(fd)].partner.expect("it has one");
        let end = (buffer.start + buffer.len) as usize;
        self.give_made_to(partner, buffer.id, end);
        let held = &self.buffers[usize::from(buffer.id)];
        assert_eq!(held.by, Holder::Session(partner), "{buffer:?} is another's");
        assert!(
            buffer.len > 0 && end == held.bytes.len(),
            "{buffer:?} is cut wrongly"
        );
        if more {
            self.assert_end_follows(fd, buffer.len);
        }
        self.start(token, fd, Kind::Send { buffer, more });
    }

    fn say(&mut self, socket: &Socket, bytes: &[u8]) -> bool {
        let fd = self.opened(socket, "bytes said to");
        self.assert_alone(fd, "bytes said to", Kind::writes);
        let side = self.conn(fd).side;
        match side {
            Side::Backend if !self.world.asks => {
                let conn = self.conn(fd);
                assert!(conn.connected && conn.outbound.given == 0 && !conn.outbound.fin);
                self.introduce_at_once(fd, bytes)
            }
            Side::Client | Side::Backend => self.on_said(fd, bytes),
        }
    }

    fn hear(&mut self, socket: &Socket, into: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.opened(socket, "bytes heard from");
        let receives = |kind: &Kind| matches!(kind, Kind::Recv { .. });
        self.assert_alone(fd, "bytes heard from", receives);
        self.hear_bytes(fd, into)
    }

    fn poll(&mut self, token: Token, socket: &Socket, interest: Interest) {
        let fd = self.opened(socket, "poll");
        assert!(
            self.conn(fd).connected,
            "poll on {fd}, which is not connected"
        );
        // A backend that is asked for TLS may still be left for another one.
        if token.purpose() == Purpose::Connect {
            self.conn(fd).asked_for = Some(token);
        } else if token.purpose() != Purpose::Header {
            self.pair(token, fd);
        }
        self.start(
            token,
            fd,
            Kind::Poll {
                interest,
                reported: 0,
                seen: 0,
            },
        );
    }

    fn cancel(&mut self, target: Token) {
        self.trace.op("cancel", target, 0);
        self.cancel_op(target);
    }

    fn shutdown(&mut self, socket: &Socket) {
        let fd = self.opened(socket, "shutdown");
        self.trace.fact("shutdown", fd, 0);
        self.assert_alone(fd, "shutdown", Kind::writes);
        self.assert_end_is_due(fd);
        self.let_go(fd, 0);
        self.on_acknowledged(fd);
        let now = self.now;
        let conn = self.conn(fd);
        assert!(!conn.outbound.fin, "{fd} is shut down twice");
        conn.outbound.fin = true;
        conn.moved_at = now;
        let what = match conn.side {
            Side::Backend => "half-close of the client relayed",
            Side::Client => "half-close of the backend relayed",
        };
        self.trace.see(what);
        self.wake_peer(fd);
        self.wake_ops(fd);
    }

    fn close(&mut self, socket: Socket, manner: Manner) {
        let fd = socket.raw();
        if fd < FIRST_SOCKET {
            self.on_listener_closed(listening(fd));
        } else {
            self.opened(&socket, "close");
            match manner {
                Manner::Graceful => self.let_go(fd, 0),
                Manner::Reset => {
                    let outbound = &mut self.conn(fd).outbound;
                    outbound.dropped = std::mem::take(&mut outbound.held);
                }
            }
            let at = self.now;
            let conn = self.conn(fd);
            let unread = conn.unread();
            conn.hold = Hold::Closed { manner, unread, at };
        }
        self.assert_alone(fd, "close", |_| true);
        self.trace.fact("close", fd, manner as u64);
    }

    fn hold(&mut self, socket: &Socket, _silent: bool) {
        let fd = self.opened(socket, "hold");
        self.hold_unread(fd);
    }

    fn open(&mut self, to: &Address, _from: Origin) -> Result<Socket, Errno> {
        if self.world.sourceless && matches!(to, Address::Tcp(_)) {
            self.trace.see("no source address");
            return Err(Errno::NO_SOURCE);
        }
        if self.lacks_descriptors() || self.random.permille(10) {
            self.trace.see("no descriptor for a backend socket");
            return Err(Errno(self.random.pick(&[
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOBUFS,
            ])));
        }
        if self.random.permille(5) {
            self.trace.see("a backend socket that can't be made");
            return Err(Errno(libc::EACCES));
        }
        let peer = Peer::backend(&mut self.random);
        let fd = self.add(Side::Backend, peer);
        self.conn(fd).hold = Hold::Open;
        Ok(Socket::from_raw(fd))
    }

    fn is_connected_to_itself(&self, socket: &Socket, _to: &Address) -> bool {
        self.conns[index(socket.raw())].own
    }

    fn peer(&self, socket: &Socket) -> Option<SocketAddr> {
        Some(named(socket.raw()))
    }

    fn own_end(&self, _socket: &Socket) -> Option<SocketAddr> {
        Some(SocketAddr::from(OWN_END))
    }

    fn acknowledge(&mut self, socket: &Socket) {
        let fd = self.opened(socket, "acknowledge");
        self.trace.fact("acknowledge", fd, 0);
        let conn = self.conn(fd);
        assert!(
            conn.side == Side::Backend && conn.connected,
            "{fd} is no connected backend to acknowledge to"
        );
        assert!(!conn.quick, "{fd} is acknowledged at once already");
        conn.quick = true;
        self.on_acknowledged(fd);
    }

    fn keep_alive(&mut self, socket: &Socket) {
        self.opened(socket, "keepalive");
        self.trace.see("keepalive");
    }

    fn unsent(&self, socket: &Socket) -> u32 {
        let conn = &self.conns[index(socket.raw())];
        assert!(conn.is_open() && conn.connected);
        if conn.is_gone() {
            return 0;
        }
        u32::try_from(conn.outbound.given - conn.outbound.read).expect("a socket's room")
    }

    fn memory(&self, socket: &Socket) -> u32 {
        let conn = &self.conns[index(socket.raw())];
        assert!(conn.is_open() && conn.connected && !conn.local);
        let held = conn.unread() + conn.outbound.given - conn.outbound.read;
        u32::try_from(held).expect("a socket's room")
    }

    fn pump(&mut self, from: &Socket, pipe: &mut Pipe, to: &Socket, most: u32) -> Pumped {
        let from = self.opened(from, "splice from");
        let to = self.opened(to, "splice to");
        self.assert_alone(from, "splice from", Kind::reads);
        self.assert_alone(to, "splice to", Kind::writes);
        assert_eq!(self.conn(from).partner, Some(to), "splice between sessions");
        assert!(!self.conn(to).outbound.fin, "splice to {to} after its FIN");
        self.pump_through(from, pipe, to, most)
    }

    fn unpipe(&mut self, from: &Socket, pipe: &mut Pipe) -> Option<Buffer> {
        let fd = self.opened(from, "a pipe given up of");
        self.empty_pipe(fd, pipe)
    }

    fn lease_pipe(&mut self) -> Option<Pipe> {
        let refused = self.random.permille(20);
        let pipe = if refused { None } else { self.pipes.lease() };
        if pipe.is_none() {
            self.trace.see("no pipe");
        }
        pipe
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        if pipe.held > 0 {
            self.trace.see("a pipe closed with bytes in it");
        }
        self.pipes.give_back(&pipe);
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        let lacks = self.random.permille(50);
        let buffer = match lacks {
            true => None,
            false => self.take_for(Holder::Worker),
        };
        if buffer.is_none() {
            self.trace.see("no buffer for a header");
        }
        buffer
    }

    fn bytes_mut(&mut self, buffer: Buffer) -> &mut [u8] {
        self.write_buffer(buffer)
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        let held = &self.buffers[usize::from(buffer.id)];
        assert_ne!(held.by, Holder::Nothing, "{buffer:?} is read after its end");
        &held.bytes[buffer.start as usize..(buffer.start + buffer.len) as usize]
    }

    fn bytes_ahead(&mut self, buffer: Option<Buffer>, socket: &Socket) -> &[u8] {
        let fd = self.opened(socket, "bytes looked at");
        self.look_ahead(buffer, fd)
    }

    fn append(&mut self, to: Buffer, from: Buffer) {
        self.append_bytes(to, from);
    }

    fn give_back(&mut self, id: BufferId) {
        self.take_back(id);
    }

    fn buffers_in_use(&self) -> u32 {
        u32::try_from(self.buffers.len() - self.free.len()).expect("few buffers")
    }

    fn buffers_in_all(&self) -> u32 {
        u32::try_from(self.buffers.len()).expect("few buffers")
    }

    fn is_short_of_buffers(&self) -> bool {
        self.free.len() < self.buffers.len() / 2
    }

    fn pipes_in_use(&self) -> u32 {
        self.pipes.leased()
    }
}

/// A connection's index by its descriptor.
pub(crate) fn index(fd: i32) -> usize {
    usize::try_from(fd - FIRST_SOCKET).unwrap_or(usize::MAX)
}

/// A listener's number by its descriptor.
pub(crate) fn listening(fd: i32) -> usize {
    usize::try_from(fd - FIRST_LISTENER).expect("a listener's descriptor")
}

/// When runs begin.
/// What clients connect to.
pub(crate) const OWN_END: ([u8; 4], u16) = ([10, 255, 0, 1], 443);
pub(crate) const START: u64 = 1_000_000 * MS;
pub(crate) const FIRST_LISTENER: i32 = 3;
pub(crate) const FIRST_SOCKET: i32 = 100;
pub(crate) const FIRST_PORT: u16 = 9_000;
