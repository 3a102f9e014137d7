//! The instant kernel: every operation has completed by the next wait. It plays the clients and the
//! backends too, who answer at once.
//!
//! It stores and copies no byte, and allocates nothing in a steady state: only the balancer above
//! it is measured.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use mahoraga::address::Address;
use mahoraga::kernel::{
    Buffer, BufferId, Completion, Done, Errno, Interest, Kernel, Manner, Pipe, Pumped,
    RECV_BYTES_MAX, Sleeper, Socket, UNBOUNDED,
};
use mahoraga::origin::Origin;
use mahoraga::time::SECOND;
use mahoraga::token::{Purpose, Side, Token};

/// What clients do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// They send the next request.
    KeepAlive,
    /// The backend ends the connection after it, the client closes its own, and another client
    /// comes.
    Short,
}

/// A kernel, a number of clients and their backends.
#[derive(Debug)]
pub(crate) struct InstantKernel {
    clients: Clients,
    /// Clients at a time.
    crowd: usize,
    now: u64,
    /// Nanoseconds that each wait takes.
    step: u64,
    /// Completed, but not yet reported.
    ready: VecDeque<Completion>,
    accept: Option<Token>,
    /// By descriptor.
    conns: Vec<Conn>,
    free_conns: Vec<i32>,
    free_buffers: Vec<BufferId>,
    /// Completions reported so far.
    pub(super) events: u64,
    /// Connections of clients that were closed.
    pub(super) served: u64,
}

/// A connection, seen from the kernel.
#[derive(Debug, Default)]
struct Conn {
    /// The other end is a client, not a backend.
    client: bool,
    /// The receive in flight, and what it has brought.
    recv: Option<Token>,
    received: u32,
    /// What the peer sent while no receive was in flight.
    message: bool,
    end: bool,
}

impl InstantKernel {
    pub(super) fn new(clients: Clients, crowd: usize, step: u64) -> Self {
        Self {
            clients,
            crowd,
            now: SECOND,
            step,
            ready: VecDeque::new(),
            accept: None,
            conns: Vec::new(),
            free_conns: Vec::new(),
            free_buffers: (0..BUFFERS).collect(),
            events: 0,
            served: 0,
        }
    }

    fn complete(&mut self, token: Token, outcome: Done, more: bool) {
        self.ready.push_back(Completion {
            token,
            outcome: Ok(outcome),
            more,
        });
    }

    fn conn(&mut self, fd: i32) -> &mut Conn {
        &mut self.conns[index(fd)]
    }

    fn connection(&mut self) -> Socket {
        let fd = self.free_conns.pop().unwrap_or_else(|| {
            self.conns.push(Conn::default());
            i32::try_from(self.conns.len() - 1).expect("few connections")
        });
        Socket::from_raw(fd)
    }

    /// Another client comes, with its request right behind it.
    fn arrive(&mut self) {
        let socket = self.connection();
        *self.conn(socket.raw()) = Conn {
            client: true,
            message: true,
            ..Conn::default()
        };
        let token = self
            .accept
            .expect("clients come to a listener that accepts");
        self.complete(token, Done::Accepted(socket), true);
    }

    /// Hands to the receive in flight what the peer has sent.
    fn deliver(&mut self, fd: i32) {
        let conn = &mut self.conns[index(fd)];
        let Some(token) = conn.recv else { return };
        if std::mem::take(&mut conn.message) {
            let id = self.free_buffers.pop().expect("enough buffers");
            conn.received += MESSAGE_BYTES;
            let more = conn.received < RECV_BYTES_MAX;
            if !more {
                conn.recv = None;
            }
            let buffer = Buffer {
                id,
                start: 0,
                len: MESSAGE_BYTES,
            };
            self.complete(token, Done::Received(buffer), more);
        }
        let conn = self.conn(fd);
        if conn.recv.is_some() && std::mem::take(&mut conn.end) {
            conn.recv = None;
            self.complete(token, Done::Count(0), false);
        }
    }
}

impl Kernel for InstantKernel {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, _timeout: Option<Duration>, completions: &mut Vec<Completion>) {
        self.now += self.step;
        self.events += self.ready.len() as u64;
        completions.extend(self.ready.drain(..));
    }

    fn wake(&self, thread: Sleeper) {
        let other = matches!(thread, Sleeper::Worker(_));
        assert!(!other, "there is one worker");
    }

    fn accept(&mut self, token: Token, _listener: &Socket, many: bool) {
        assert!(many, "the limits are far away");
        assert!(
            self.accept.replace(token).is_none(),
            "nothing ends an accept here"
        );
        (0..self.crowd).for_each(|_| self.arrive());
    }

    fn accept_now(&mut self, _listener: &Socket) -> Option<Socket> {
        unreachable!("nothing stops the worker")
    }

    fn adopt(&mut self, _listener: u64) -> Option<Socket> {
        unreachable!("listeners stay")
    }

    fn connect(
        &mut self,
        token: Token,
        _socket: &Socket,
        _to: &Address,
    ) -> Option<Result<(), Errno>> {
        self.complete(token, Done::Count(0), false);
        None
    }

    fn recv(&mut self, token: Token, socket: &Socket, most: u32) {
        let conn = self.conn(socket.raw());
        assert!(
            conn.recv.replace(token).is_none(),
            "a receive is in flight already"
        );
        assert_eq!(most, UNBOUNDED, "no bandwidth is limited");
        conn.received = 0;
        self.deliver(socket.raw());
    }

    fn send(&mut self, token: Token, socket: &Socket, buffer: Buffer, _more: bool) {
        self.complete(token, Done::Count(buffer.len), false);
        let conn = &mut self.conns[index(socket.raw())];
        match (token.purpose(), self.clients) {
            (Purpose::Send(Side::Backend), Clients::Short) => {
                conn.message = true;
                conn.end = true;
            }
            (Purpose::Send(_), Clients::KeepAlive) => conn.message = true,
            _ => {}
        }
        self.deliver(socket.raw());
    }

    fn say(&mut self, _socket: &Socket, _bytes: &[u8]) -> bool {
        unreachable!("no client is told anything")
    }

    fn shutdown(&mut self, socket: &Socket) {
        assert_eq!(
            self.clients,
            Clients::Short,
            "no keep-alive connection ends"
        );
        self.conn(socket.raw()).end = true;
        self.deliver(socket.raw());
    }

    fn close(&mut self, socket: Socket, manner: Manner) {
        assert_eq!(manner, Manner::Graceful, "no session is cut off");
        let conn = std::mem::take(self.conn(socket.raw()));
        assert!(conn.recv.is_none(), "closed under a receive");
        self.free_conns.push(socket.raw());
        if conn.client {
            self.served += 1;
            self.arrive();
        }
    }

    fn hold(&mut self, _socket: &Socket, _silent: bool) {}

    fn open(&mut self, _to: &Address, _from: Origin) -> Result<Socket, Errno> {
        Ok(self.connection())
    }

    fn is_connected_to_itself(&self, _socket: &Socket, _to: &Address) -> bool {
        false
    }

    fn peer(&self, _socket: &Socket) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, 1], 50_000)))
    }

    fn own_end(&self, _socket: &Socket) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, 2], 80)))
    }

    fn acknowledge(&mut self, _socket: &Socket) {}

    fn keep_alive(&mut self, _socket: &Socket) {}

    fn unsent(&self, _socket: &Socket) -> u32 {
        0
    }

    fn memory(&self, _socket: &Socket) -> u32 {
        0
    }

    fn take_buffer(&mut self) -> Option<Buffer> {
        unreachable!("no bytes are made")
    }

    fn bytes_mut(&mut self, _: Buffer) -> &mut [u8] {
        unreachable!("no bytes are made")
    }

    fn bytes(&self, _: Buffer) -> &[u8] {
        &[]
    }

    fn bytes_ahead(&mut self, _: Option<Buffer>, _: &Socket) -> &[u8] {
        &[]
    }

    fn append(&mut self, _: Buffer, _: Buffer) {}

    fn give_back(&mut self, id: BufferId) {
        self.free_buffers.push(id);
    }

    fn buffers_in_use(&self) -> u32 {
        u32::from(BUFFERS) - u32::try_from(self.free_buffers.len()).expect("few buffers")
    }

    fn is_short_of_buffers(&self) -> bool {
        false
    }

    fn pipes_in_use(&self) -> u32 {
        0
    }

    fn cancel(&mut self, target: Token) {
        unreachable!("{target:?} is cancelled, though everything ends by itself")
    }

    fn hear(&mut self, _: &Socket, _: &mut [u8]) -> Result<usize, Errno> {
        unreachable!("no listener answers requests")
    }

    fn poll(&mut self, token: Token, _socket: &Socket, _interest: Interest) {
        unreachable!("{token:?} polls, though every socket is ready at once")
    }

    fn pump(&mut self, _from: &Socket, _pipe: &mut Pipe, _to: &Socket, _most: u32) -> Pumped {
        unreachable!("messages are too small to be spliced")
    }

    fn pass_on(&mut self, _from: &Socket, _to: &Socket, _most: u32) -> Pumped {
        unreachable!("no receive lacks a buffer")
    }

    fn lease_pipe(&mut self) -> Option<Pipe> {
        unreachable!("messages are too small to be spliced")
    }

    fn unpipe(&mut self, _from: &Socket, _pipe: &mut Pipe) -> Option<Buffer> {
        unreachable!("messages are too small to be spliced")
    }

    fn return_pipe(&mut self, _pipe: Pipe) {
        unreachable!("messages are too small to be spliced")
    }
}

fn index(fd: i32) -> usize {
    usize::try_from(fd).expect("descriptors are not negative")
}

/// Of a request and of an answer: 64 of them make one multishot receive.
const MESSAGE_BYTES: u32 = 1_024;
const BUFFERS: u16 = 1_024;
