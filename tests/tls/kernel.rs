//! A kernel of bytes: each connection is two queues. What completes, when and how much of it is
//! decided by a seed.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use mahoraga::address::Address;
use mahoraga::kernel::{
    BUFFER_BYTES, Buffer, BufferId, Completion, Done, Errno, Interest, Kernel, Manner, Pipe,
    Pumped, Sleeper, Socket,
};
use mahoraga::origin::Origin;
use mahoraga::time::{SECOND, US, nanos};
use mahoraga::token::{Purpose, Token};

use crate::peers::{End, Talker};
use crate::run::Kind;

/// A connection, seen from the kernel.
pub(crate) struct Conn {
    pub(crate) peer: Talker,
    /// What has come and was not received.
    inbound: VecDeque<u8>,
    /// How what comes ends; `true`: by a reset.
    ended: Option<bool>,
    /// How its peer wants to end, once all that it sends has come.
    ending: Option<End>,
    /// What was sent and has not come there.
    outbound: VecDeque<u8>,
    /// What is sent to it ends.
    shut: bool,
    /// How it was closed.
    pub(crate) closed: Option<Manner>,
    recv: Option<(Token, u32)>,
    send: Option<(Token, Buffer)>,
    polls: Vec<(Token, Interest)>,
    /// The end of what the balancer sends has come, in order or by a reset.
    pub(crate) heard: Option<Manner>,
    /// The peer was told in TLS that no more comes before it heard the end of its connection.
    pub(crate) was_told: bool,
}

pub(crate) struct ByteKernel {
    now: u64,
    random: Rng,
    /// By descriptor.
    pub(crate) conns: Vec<Conn>,
    /// Clients that come.
    arriving: Vec<Talker>,
    /// What backends speak.
    kind: Kind,
    accept: Option<Token>,
    connects: Vec<Token>,
    cancelled: HashSet<u64>,
    ready: VecDeque<Completion>,
    buffers: Vec<Box<[u8]>>,
    free: Vec<BufferId>,
    /// The connections of a session, by its slot and generation.
    pub(crate) pairs: BTreeMap<(u32, u32), [Option<usize>; 2]>,
}

impl ByteKernel {
    pub(crate) fn new(kind: Kind, mut random: Rng, arriving: Vec<Talker>) -> Self {
        let count: u16 = *random.choice(&[6, 12, 64]).expect("one of them");
        Self {
            now: SECOND,
            random,
            conns: Vec::new(),
            arriving,
            kind,
            accept: None,
            connects: Vec::new(),
            cancelled: HashSet::new(),
            ready: VecDeque::new(),
            buffers: (0..count)
                .map(|_| vec![0; BUFFER_BYTES as usize].into())
                .collect(),
            free: (0..count).collect(),
            pairs: BTreeMap::new(),
        }
    }

    fn add(&mut self, peer: Talker) -> Socket {
        self.conns.push(Conn {
            peer,
            inbound: VecDeque::new(),
            ended: None,
            ending: None,
            outbound: VecDeque::new(),
            shut: false,
            closed: None,
            recv: None,
            send: None,
            polls: Vec::new(),
            heard: None,
            was_told: false,
        });
        Socket::from_raw(i32::try_from(self.conns.len() - 1).expect("few connections"))
    }

    fn conn(&mut self, socket: &Socket) -> &mut Conn {
        let conn = &mut self.conns[index(socket)];
        assert!(conn.closed.is_none(), "an operation on a closed socket");
        conn
    }

    fn pair(&mut self, token: Token, fd: usize) {
        let is_backend = !self.conns[fd].peer.is_client;
        let pair = self
            .pairs
            .entry((token.slot(), token.generation()))
            .or_default();
        pair[usize::from(is_backend)] = Some(fd);
    }

    fn complete(&mut self, token: Token, outcome: Result<Done, Errno>, more: bool) {
        self.ready.push_back(Completion {
            token,
            outcome,
            more,
        });
    }

    /// Peers do something, and operations go on. Answers whether anything moved.
    fn step(&mut self) -> bool {
        let before = self.ready.len();
        let mut moved = false;
        if let Some(token) = self.accept
            && self.random.u8(..3) == 0
            && let Some(client) = self.arriving.pop()
        {
            let socket = self.add(client);
            self.complete(token, Ok(Done::Accepted(socket)), true);
        }
        for token in std::mem::take(&mut self.connects) {
            let cancelled = self.cancelled.remove(&token.raw());
            let outcome = match cancelled {
                true => Err(Errno::CANCELED),
                false => Ok(Done::Count(0)),
            };
            self.complete(token, outcome, false);
        }
        for fd in 0..self.conns.len() {
            moved |= self.conns[fd].peer_acts(&mut self.random);
            if self.conns[fd].closed.is_none() {
                self.receive(fd);
                self.send_on(fd);
                self.poll_on(fd);
            }
        }
        moved || self.ready.len() > before
    }

    fn receive(&mut self, fd: usize) {
        let conn = &mut self.conns[fd];
        let Some((token, most)) = conn.recv else {
            return;
        };
        let random = &mut self.random;
        if conn.inbound.is_empty() || conn.ended == Some(true) {
            let end = match conn.ended {
                _ if self.cancelled.remove(&token.raw()) => Err(Errno::CANCELED),
                Some(true) => Err(Errno::CONNRESET),
                Some(false) => Ok(Done::Count(0)),
                None => return,
            };
            conn.recv = None;
            return self.complete(token, end, false);
        }
        if random.u8(..4) == 0 {
            return;
        }
        let Some(id) = self.free.pop() else {
            self.cancelled.remove(&token.raw());
            conn.recv = None;
            return self.complete(token, Err(Errno::NOBUFS), false);
        };
        let all = conn
            .inbound
            .len()
            .min(BUFFER_BYTES as usize)
            .min(most as usize);
        let len = match random.u8(..4) {
            0 => random.usize(1..=all.min(40)),
            1 => random.usize(1..=all),
            _ => all,
        };
        let into = &mut self.buffers[usize::from(id)];
        for (to, from) in into.iter_mut().zip(conn.inbound.drain(..len)) {
            *to = from;
        }
        let more = random.u8(..8) > 0;
        if !more {
            self.cancelled.remove(&token.raw());
            conn.recv = None;
        }
        let len = u32::try_from(len).expect("a buffer is small");
        let received = Done::Received(Buffer { id, start: 0, len });
        self.complete(token, Ok(received), more);
    }

    fn send_on(&mut self, fd: usize) {
        let conn = &mut self.conns[fd];
        let Some((token, buffer)) = conn.send else {
            return;
        };
        if self.random.u8(..4) == 0 {
            return;
        }
        conn.send = None;
        self.cancelled.remove(&token.raw());
        if conn.ended == Some(true) {
            return self.complete(token, Err(Errno::CONNRESET), false);
        }
        let room = conn.room().min(buffer.len as usize);
        let sent = match self.random.u8(..5) {
            0 if room > 0 => self.random.usize(1..=room),
            _ => room,
        };
        if sent == 0 {
            return self.complete(token, Err(Errno::AGAIN), false);
        }
        let start = buffer.start as usize;
        let bytes = &self.buffers[usize::from(buffer.id)][start..start + sent];
        conn.outbound.extend(bytes);
        let sent = u32::try_from(sent).expect("a buffer is small");
        self.complete(token, Ok(Done::Count(sent)), false);
    }

    fn poll_on(&mut self, fd: usize) {
        let conn = &mut self.conns[fd];
        let mut done = Vec::new();
        let (cancelled, random) = (&mut self.cancelled, &mut self.random);
        let state = (
            conn.is_readable(),
            conn.room() > 0,
            conn.ended == Some(true),
        );
        conn.polls.retain(|(token, interest)| {
            let (readable, has_room, broken) = state;
            let is_ready = match interest {
                Interest::Read | Interest::Bytes => readable,
                Interest::Write | Interest::Room => has_room || broken,
                Interest::Fault => broken,
            };
            let events = match interest {
                _ if broken => libc::POLLERR,
                Interest::Read | Interest::Bytes => libc::POLLIN,
                Interest::Write | Interest::Room => libc::POLLOUT,
                Interest::Fault => 0,
            };
            let is_over = cancelled.remove(&token.raw());
            if is_over {
                done.push((*token, Err(Errno::CANCELED)));
            } else if is_ready && random.u8(..3) > 0 {
                let events = u32::try_from(events).expect("events are bits");
                done.push((*token, Ok(Done::Count(events))));
            } else {
                return true;
            }
            false
        });
        for (token, outcome) in done {
            self.complete(token, outcome, false);
        }
    }
}

impl Conn {
    fn room(&self) -> usize {
        ROOM.saturating_sub(self.outbound.len())
    }

    fn is_readable(&self) -> bool {
        !self.inbound.is_empty() || self.ended.is_some()
    }

    /// Answers whether anything moved.
    fn peer_acts(&mut self, random: &mut Rng) -> bool {
        if self.ended == Some(true) || random.u8(..3) == 0 {
            return false;
        }
        let before = (
            self.inbound.len(),
            self.outbound.len(),
            self.heard,
            self.ended,
        );
        self.hear(random);
        let heard_end = self.heard.is_some();
        let ends = self.peer.act(heard_end, random);
        let outgoing = &mut self.peer.outgoing;
        self.ending = self.ending.or(ends);
        if self.closed.is_some() || self.heard == Some(Manner::Reset) {
            outgoing.clear();
            self.inbound.clear();
        } else {
            let room = ROOM.saturating_sub(self.inbound.len()).min(outgoing.len());
            let part = if room == 0 { 0 } else { random.usize(1..=room) };
            self.inbound.extend(outgoing.drain(..part));
        }
        let is_flushed = outgoing.is_empty();
        match self.ending {
            Some(End::Reset) => {
                self.inbound.clear();
                self.outbound.clear();
                self.ended = Some(true);
            }
            Some(_) if is_flushed && self.ended.is_none() => self.ended = Some(false),
            _ => {}
        }
        before
            != (
                self.inbound.len(),
                self.outbound.len(),
                self.heard,
                self.ended,
            )
    }

    /// The peer takes some of what was sent to it, and hears the end behind it.
    fn hear(&mut self, random: &mut Rng) {
        if self.closed == Some(Manner::Reset) {
            self.outbound.clear();
            self.heard.get_or_insert(Manner::Reset);
            return;
        }
        let some = self.outbound.len();
        let part = if some == 0 { 0 } else { random.usize(1..=some) };
        let bytes: Vec<u8> = self.outbound.drain(..part).collect();
        self.peer.take(&bytes);
        if self.outbound.is_empty() && (self.shut || self.closed.is_some()) && self.heard.is_none()
        {
            self.heard = Some(Manner::Graceful);
            let tls = self.peer.tls.as_ref();
            self.was_told = tls.is_some_and(|tls| tls.was_closed());
        }
    }
}

impl Kernel for ByteKernel {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) {
        let until = timeout.map(|timeout| self.now + nanos(timeout));
        let mut quiet = 0;
        while self.ready.is_empty() && until.is_none_or(|until| self.now < until) {
            self.now += self.random.u64(US..50 * US);
            quiet = if self.step() { 0 } else { quiet + 1 };
            if quiet > 60 {
                // Nothing but time will change anything.
                self.now = until.unwrap_or(self.now).max(self.now);
                break;
            }
        }
        let count = self.random.usize(0..=self.ready.len());
        let count = if self.random.bool() {
            self.ready.len()
        } else {
            count
        };
        completions.extend(self.ready.drain(..count));
    }

    fn wake(&self, _: Sleeper) {}

    fn accept(&mut self, token: Token, _: &Socket, _: bool) {
        self.accept = Some(token);
    }

    fn accept_now(&mut self, _: &Socket) -> Option<Socket> {
        None
    }

    fn adopt(&mut self, _: u64) -> Option<Socket> {
        None
    }

    fn connect(&mut self, token: Token, socket: &Socket, _: &Address) -> Option<Result<(), Errno>> {
        self.pair(token, index(socket));
        self.connects.push(token);
        None
    }

    fn recv(&mut self, token: Token, socket: &Socket, most: u32) {
        self.pair(token, index(socket));
        let before = self.conn(socket).recv.replace((token, most));
        assert!(before.is_none(), "a receive is in flight");
    }

    fn send(&mut self, token: Token, socket: &Socket, buffer: Buffer, _: bool) {
        let conn = self.conn(socket);
        assert!(!conn.shut, "bytes behind the end");
        assert!(
            conn.send.replace((token, buffer)).is_none(),
            "a send is in flight"
        );
    }

    fn say(&mut self, socket: &Socket, bytes: &[u8]) -> bool {
        let may_fail = self.random.u8(..10) == 0;
        let conn = self.conn(socket);
        // A connection that nothing was sent to yet takes a handshake.
        let is_new = !conn.peer.is_client && !conn.peer.is_established();
        if conn.ended == Some(true) || may_fail && !is_new {
            return false;
        }
        conn.outbound.extend(bytes);
        true
    }

    fn hear(&mut self, socket: &Socket, into: &mut [u8]) -> Result<usize, Errno> {
        let some = self.random.usize(1..4_000);
        let conn = self.conn(socket);
        match (conn.ended, conn.inbound.len()) {
            (Some(true), _) => Err(Errno::CONNRESET),
            (Some(false), 0) => Ok(0),
            (None, 0) => Err(Errno::AGAIN),
            (_, all) => {
                let len = some.min(all).min(into.len());
                for (to, from) in into.iter_mut().zip(conn.inbound.drain(..len)) {
                    *to = from;
                }
                Ok(len)
            }
        }
    }

    fn poll(&mut self, token: Token, socket: &Socket, interest: Interest) {
        self.conn(socket).polls.push((token, interest));
    }

    fn cancel(&mut self, target: Token) {
        self.cancelled.insert(target.raw());
    }

    fn shutdown(&mut self, socket: &Socket) {
        self.conn(socket).shut = true;
    }

    fn close(&mut self, socket: Socket, manner: Manner) {
        let conn = self.conn(&socket);
        let is_idle = conn.recv.is_none() && conn.send.is_none() && conn.polls.is_empty();
        assert!(is_idle, "closed under an operation");
        // The kernel resets a connection that has bytes unread.
        let unread = !conn.inbound.is_empty();
        conn.closed = Some(if unread { Manner::Reset } else { manner });
    }

    fn hold(&mut self, socket: &Socket, _: bool) {
        self.conn(socket).inbound.clear();
    }

    fn open(&mut self, _: &Address, _: Origin) -> Result<Socket, Errno> {
        let tls = self.kind.backend();
        let backend = Talker::new(false, tls, &mut self.random);
        Ok(self.add(backend))
    }

    fn is_connected_to_itself(&self, _: &Socket, _: &Address) -> bool {
        false
    }

    fn peer(&self, socket: &Socket) -> Option<SocketAddr> {
        let port = 1_000 + u16::try_from(socket.raw()).expect("few connections");
        Some(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    fn own_end(&self, _: &Socket) -> Option<SocketAddr> {
        None
    }

    fn acknowledge(&mut self, _: &Socket) {}

    fn keep_alive(&mut self, _: &Socket) {}

    fn unsent(&self, socket: &Socket) -> u32 {
        u32::try_from(self.conns[index(socket)].outbound.len()).expect("few bytes")
    }

    fn memory(&self, _: &Socket) -> u32 {
        0
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        if self.random.u8(..12) == 0 {
            return None;
        }
        let id = self.free.pop()?;
        let len = BUFFER_BYTES;
        Some(Buffer { id, start: 0, len })
    }

    fn bytes_mut(&mut self, buffer: Buffer) -> &mut [u8] {
        assert!(!self.free.contains(&buffer.id), "nobody holds it");
        let start = buffer.start as usize;
        &mut self.buffers[usize::from(buffer.id)][start..start + buffer.len as usize]
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        assert!(!self.free.contains(&buffer.id), "nobody holds it");
        let start = buffer.start as usize;
        &self.buffers[usize::from(buffer.id)][start..start + buffer.len as usize]
    }

    fn bytes_ahead(&mut self, _: Option<Buffer>, _: &Socket) -> &[u8] {
        unreachable!("what waits at the socket is encrypted")
    }

    fn append(&mut self, _: Buffer, _: Buffer) {
        unreachable!("no first bytes are looked at")
    }

    fn give_back(&mut self, id: BufferId) {
        assert!(!self.free.contains(&id), "it was given back before");
        self.free.push(id);
    }

    fn buffers_in_use(&self) -> u32 {
        u32::try_from(self.buffers.len() - self.free.len()).expect("few buffers")
    }

    fn is_short_of_buffers(&self) -> bool {
        self.free.len() < self.buffers.len() / 4
    }

    fn pipes_in_use(&self) -> u32 {
        0
    }

    fn pump(&mut self, _: &Socket, _: &mut Pipe, _: &Socket, _: u32) -> Pumped {
        unreachable!("bytes of TLS are never spliced")
    }

    fn pass_on(&mut self, _: &Socket, _: &Socket, _: u32) -> Pumped {
        unreachable!("bytes of TLS are never passed on")
    }

    fn lease_pipe(&mut self) -> Option<Pipe> {
        unreachable!("bytes of TLS are never spliced")
    }

    fn unpipe(&mut self, _: &Socket, _: &mut Pipe) -> Option<Buffer> {
        unreachable!("bytes of TLS are never spliced")
    }

    fn return_pipe(&mut self, _: Pipe) {
        unreachable!("bytes of TLS are never spliced")
    }
}

impl std::fmt::Debug for ByteKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (fd, conn) in self.conns.iter().enumerate() {
            let its = &conn.peer;
            let peer = (its.end, its.has_ended, its.outgoing.len());
            let queues = (conn.inbound.len(), conn.outbound.len());
            let asked = (conn.recv.is_some(), conn.send.is_some(), conn.polls.len());
            let ends = (conn.ended, conn.ending, conn.shut, conn.closed, conn.heard);
            writeln!(f, "{fd}: {peer:?} {queues:?} {asked:?} {ends:?}")?;
        }
        write!(f, "{} buffers are free", self.free.len())
    }
}

fn index(socket: &Socket) -> usize {
    usize::try_from(socket.raw()).expect("descriptors are not negative")
}

/// A wake-up is no operation on a socket.
const _: fn(Token) -> Purpose = Token::purpose;
/// Bytes that a socket holds in each direction.
const ROOM: usize = 30_000;
