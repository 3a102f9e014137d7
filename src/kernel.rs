//! The operations that a worker asks of the kernel, and their results.
//!
//! [`Kernel`] is a boundary: above it, sessions and workers know slots, buffers by number and
//! opaque sockets; below it, [`crate::ring`] alone knows io_uring. The simulation in
//! `tests/sim` stands in for the ring behind the same trait.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::address::Address;
use crate::origin::Origin;
use crate::token::Token;

/// The operations that a worker needs. Asynchronous ones answer by a [`Completion`] that carries
/// their token; the others answer at once.
///
/// The caller keeps a [`Socket`] open while an operation on it is in flight.
pub trait Kernel {
    /// Monotonic time, in nanoseconds.
    fn now(&self) -> u64;

    /// Hands over what was asked, waits for a completion for at most `timeout` (`None`: without
    /// end), and appends what has completed.
    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>);

    /// Ends the wait of another thread.
    fn wake(&self, thread: Sleeper);

    /// Accepts: each completion is a new [`Socket`]. `many`: until one without `more`; else just
    /// one.
    fn accept(&mut self, token: Token, listener: &Socket, many: bool);

    /// A connection that waits in the backlog, at once.
    fn accept_now(&mut self, listener: &Socket) -> Option<Socket>;

    /// How many clients that have connected the kernel keeps at most until they are accepted
    /// (listen(2)). Those that it keeps already stay. A socket that other processes listen on too
    /// is left as it is.
    fn set_backlog(&mut self, _listener: &Socket, _most: u32) {}

    /// How many clients the kernel has dropped at a listening socket before they were connected,
    /// for want of room or by a filter. It counts from the socket's beginning, and goes round.
    fn dropped_clients(&self, _listener: &Socket) -> u32 {
        0
    }

    /// The listening socket that the control thread handed over for the listener of this id.
    /// The caller asks in the order of ids, which count up: sockets of lower ids that were not
    /// asked for are closed. `None`: the socket did not arrive.
    fn adopt(&mut self, listener: u64) -> Option<Socket>;

    /// Connects a socket that [`Kernel::open`] made. `Some`: it is done, or refused, and nothing
    /// completes later, as always with a Unix socket: `EAGAIN` means that its backlog is full.
    fn connect(&mut self, token: Token, socket: &Socket, to: &Address)
    -> Option<Result<(), Errno>>;

    /// Multishot receive: each completion with bytes owns a [`Buffer`] until
    /// [`Kernel::give_back`]. It ends by itself after [`RECV_BYTES_MAX`] where the kernel can count
    /// them (6.17), so that one fast sender can't take dozens of buffers in a turn.
    ///
    /// It takes `most` bytes at most; where that is a buffer or more, a multishot one may take less
    /// than a buffer beyond it.
    fn recv(&mut self, token: Token, socket: &Socket, most: u32);

    /// Receives from one socket and sends to the other at once, as much as that takes, where
    /// [`Kernel::recv`] finds no buffer: what is not taken is not received. Here
    /// [`SourceState::Stopped`] is the end of the stream. It receives `most` bytes at most.
    fn pass_on(&mut self, from: &Socket, to: &Socket, most: u32) -> Pumped;

    /// Sends what there is room for, without waiting: it completes with the number of bytes sent,
    /// or with `EAGAIN` when there is no room. With `more` they may wait for what follows: another
    /// send, or the end of the stream.
    fn send(&mut self, token: Token, socket: &Socket, buffer: Buffer, more: bool);

    /// Sends a few bytes at once to a connection that nothing was sent to: an alert, or an answer
    /// of one byte. Its receive may go on. `false`: it did not take them all, so that it can only
    /// be closed.
    fn say(&mut self, socket: &Socket, bytes: &[u8]) -> bool;

    /// Takes the first bytes off a connection that no receive is in flight on, at once: as many as
    /// have come, up to all of `into`; 0 at the end of the stream.
    ///
    /// # Errors
    /// `EAGAIN` while none has come, and those of recv(2).
    fn hear(&mut self, socket: &Socket, into: &mut [u8]) -> Result<usize, Errno>;

    /// Waits until the socket is ready and completes with its events (poll(2)). It completes at
    /// once when the peer has ended its direction, ready or not. [`Interest::Bytes`],
    /// [`Interest::Room`] and [`Interest::Fault`] go on until they are cancelled: they complete at
    /// once like the others, and then at each change.
    fn poll(&mut self, token: Token, socket: &Socket, interest: Interest);

    /// Asks the operation of this token to end early; it completes all the same.
    fn cancel(&mut self, target: Token);

    /// Ends the sending direction (FIN after the last byte). Nothing is reported.
    fn shutdown(&mut self, socket: &Socket);

    /// Closes a socket with nothing in flight. Nothing is reported.
    fn close(&mut self, socket: Socket, manner: Manner);

    /// Makes a client's socket fit to be held unread until it is closed. What it has sent is
    /// dropped, and the kernel takes hardly more. `silent`: what goes out from now on ends at the
    /// first router, and where it may the kernel drops all that comes.
    fn hold(&mut self, socket: &Socket, silent: bool);

    /// Makes a socket fit to connect to `to`. It acknowledges late, with what is sent next, until
    /// [`Kernel::acknowledge`].
    ///
    /// The connection begins at the address and the ports of this origin, where it names some.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2), for [`Fault::of_connect`](crate::fault::Fault::of_connect).
    fn open(&mut self, to: &Address, from: Origin) -> Result<Socket, Errno>;

    /// Whether this machine has an address from which it can reach `to`; asked after a connect
    /// failed by EADDRNOTAVAIL.
    fn has_address_towards(&self, _to: &Address) -> bool {
        true
    }

    /// Whether this machine has an address; asked of one that a PROXY header names.
    fn has_address(&self, _ip: IpAddr) -> bool {
        false
    }

    /// Whether a socket that has connected to `to` is connected to itself: there is no listener,
    /// and the kernel took that very port as the socket's own.
    fn is_connected_to_itself(&self, socket: &Socket, to: &Address) -> bool;

    /// The other end of an accepted socket; `None` for a Unix socket or a vanished peer.
    fn peer(&self, socket: &Socket) -> Option<SocketAddr>;

    /// This end of an accepted socket: what its client connected to; `None` for a Unix socket.
    fn own_end(&self, socket: &Socket) -> Option<SocketAddr>;

    /// Acknowledges what has arrived on a socket of [`Kernel::open`], and from now on without
    /// delay.
    fn acknowledge(&mut self, socket: &Socket);

    /// Turns TCP keepalive on for a connection that turned out to be long.
    fn keep_alive(&mut self, socket: &Socket);

    /// Bytes that were given to a socket and that its peer has not acknowledged; on a Unix socket,
    /// that its peer has not read.
    fn unsent(&self, socket: &Socket) -> u32;

    /// What TCP knows of a connection; `None` for a Unix socket.
    fn tcp_info(&self, _socket: &Socket) -> Option<TcpInfo> {
        None
    }

    /// Bytes of the kernel's memory that the buffers of a TCP socket hold.
    fn memory(&self, socket: &Socket) -> u32;

    /// Moves bytes from one socket through a pipe to another, without waiting. It receives `most`
    /// bytes at most; with 0 it only moves what is in the pipe.
    fn pump(&mut self, from: &Socket, pipe: &mut Pipe, to: &Socket, most: u32) -> Pumped;

    /// Takes the first bytes out of a pipe, which came from `from`, into a buffer. Buffers for
    /// all that is in leased pipes are held back; `None`: the pipe can't be read.
    fn unpipe(&mut self, from: &Socket, pipe: &mut Pipe) -> Option<Buffer>;

    /// An empty pipe, while the pool has one, and buffers for all that could be left in it.
    fn lease_pipe(&mut self) -> Option<Pipe>;

    /// Ends a lease. A pipe that still holds bytes is closed, never lent again.
    fn return_pipe(&mut self, pipe: Pipe);

    /// A free buffer for bytes that this program makes: all of its [`BUFFER_BYTES`], with whatever
    /// they held before. Once it is cut to what was written by [`Kernel::bytes_mut`], it is sent
    /// and given back like a received one. `None` while no more of them are free than what is in
    /// pipes may need.
    fn take_buffer(&mut self) -> Option<Buffer>;

    /// The bytes of a buffer, to be written. Nothing is in flight on it.
    fn bytes_mut(&mut self, buffer: Buffer) -> &mut [u8];

    /// The bytes of a buffer.
    fn bytes(&self, buffer: Buffer) -> &[u8];

    /// The bytes of a received buffer, if there is one, and behind them those that wait at the
    /// socket that they came from, where these stay: [`BUFFER_BYTES`] in all at most.
    fn bytes_ahead(&mut self, buffer: Option<Buffer>, socket: &Socket) -> &[u8];

    /// Copies the bytes of `from` behind those of `to`, which has room for them. Both are received
    /// buffers that nothing is in flight on.
    fn append(&mut self, to: Buffer, from: Buffer);

    /// Ends the ownership of a buffer.
    fn give_back(&mut self, id: BufferId);

    /// The number of buffers that were received into, or taken, and not given back.
    fn buffers_in_use(&self) -> u32;

    /// The number of receive buffers in all.
    fn buffers_in_all(&self) -> u32 {
        u32::MAX
    }

    /// Whether buffers are short, so that each direction should hold one at most.
    fn is_short_of_buffers(&self) -> bool;

    /// Pipes on lease.
    fn pipes_in_use(&self) -> u32;

    /// How much was asked of it so far.
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// How much a worker has asked of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that hand over operations, or wait, or both.
    pub enters: u64,
    /// Operations that were handed over.
    pub submissions: u64,
    /// Completions that were taken.
    pub completions: u64,
    /// Other system calls.
    pub other_calls: u64,
}

/// A thread, or a task of it, that may wait for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleeper {
    /// Another worker, by its number: there is a call in its inbox.
    Worker(u32),
    /// The control thread: a backend was ejected or readmitted, and its tally has which.
    Control,
    /// The writer of the access log: there is a record in its queue.
    LogWriter,
}

/// One completed operation, or one step of a multishot one.
#[derive(Debug)]
pub struct Completion {
    /// The token of the operation.
    pub token: Token,
    /// The result.
    pub outcome: Result<Done, Errno>,
    /// The operation goes on: more completions of this token follow.
    pub more: bool,
}

impl Completion {
    /// Whether this is the end of a stream, when it answers a receive.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self.outcome, Ok(Done::Count(0))) && !self.more
    }
}

/// The result of a successful operation.
#[derive(Debug)]
pub enum Done {
    /// A client's connection.
    Accepted(Socket),
    /// Bytes received.
    Received(Buffer),
    /// A count: bytes sent, poll events, or nothing of interest. A receive's 0 is the end of the
    /// stream.
    Count(u32),
}

/// An open socket. Its holder owns it; only [`Kernel::close`] closes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Socket(i32);

impl Socket {
    /// Takes over a descriptor.
    #[must_use]
    pub fn from_raw(fd: i32) -> Self {
        Self(fd)
    }

    /// The descriptor's number, for the ring and the fake kernel.
    #[must_use]
    pub fn raw(&self) -> i32 {
        self.0
    }
}

/// What TCP knows of a connection (tcp(7), TCP_INFO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// The smoothed round-trip time, in microseconds.
    pub rtt_us: u32,
    /// Segments that were sent again, since the connection began.
    pub retransmits: u32,
    /// Segments that were sent, not acknowledged, and taken for lost when this was asked.
    pub lost: u32,
}

/// The number of a buffer in a worker's arena.
pub type BufferId = u16;

/// Bytes in a worker's arena: `len` bytes from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Which buffer.
    pub id: BufferId,
    /// First byte not yet sent.
    pub start: u32,
    /// Bytes not yet sent.
    pub len: u32,
}

/// A buffer's size in bytes. HAProxy and nginx chose the same.
pub const BUFFER_BYTES: u32 = 16 * 1024;

/// As many bytes as there are, where an operation may take so many at most.
pub const UNBOUNDED: u32 = u32::MAX;

/// Bytes of one multishot receive: four full buffers.
pub const RECV_BYTES_MAX: u32 = 4 * BUFFER_BYTES;

/// What a poll waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes or the end of the stream.
    Read,
    /// The same, reported at each arrival.
    Bytes,
    /// Room to send.
    Write,
    /// Room to send, reported at each change.
    Room,
    /// Only errors and hang-ups, which every poll reports (poll(2)).
    Fault,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// FIN after the last byte.
    Graceful,
    /// RST, unsent bytes dropped (SO_LINGER with 0, socket(7)).
    Reset,
}

/// A kernel pipe on lease, for splice only.
#[derive(Debug)]
pub struct Pipe {
    /// Descriptor of the end that is read.
    pub read: i32,
    /// Descriptor of the end that is written.
    pub write: i32,
    /// Bytes inside.
    pub held: u32,
    /// The most bytes that the next pull takes from the source.
    pub pull: u32,
}

/// The result of one [`Kernel::pump`] or [`Kernel::pass_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pumped {
    /// Bytes taken from the source.
    pub pulled: u32,
    /// Bytes given to the sink.
    pub pushed: u32,
    /// How the source stood at the end.
    pub source: SourceState,
    /// How the sink stood at the end.
    pub sink: SinkState,
}

/// How a pump left its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// More bytes may be waiting.
    Ready,
    /// Nothing to read now.
    Empty,
    /// Splice returned 0: the end of the stream, or urgent data, which splice does not pass even
    /// though bytes stand behind it. A receive shows which.
    Stopped,
    /// The connection broke.
    Broken(Errno),
}

/// How a pump left its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkState {
    /// It took all that it was given.
    Ready,
    /// It has no room for more; the pipe keeps the rest, if there is any.
    Full,
    /// The connection broke.
    Broken(Errno),
}

/// An error number of the kernel (errno(3)), positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// No provided buffer was left, or the kernel lacks memory for sockets.
    pub const NOBUFS: Self = Self(libc::ENOBUFS);
    /// Reset by the peer.
    pub const CONNRESET: Self = Self(libc::ECONNRESET);
    /// Not now; of a Unix socket's connect: its backlog is full.
    pub const AGAIN: Self = Self(libc::EAGAIN);
    /// There is no route, or no address to begin at.
    pub const NETUNREACH: Self = Self(libc::ENETUNREACH);
    /// This machine does not have the address to begin at. The kernel says so by the same number as
    /// of a lack of ports; no call for a connection reports this one.
    pub const NO_SOURCE: Self = Self(libc::ENXIO);
    /// A PostgreSQL server has no TLS for a client that was told that it may begin with it. No call
    /// for a connection reports this number.
    pub const NO_TLS: Self = Self(libc::ENOPKG);
    /// The handshake of TLS with a backend failed. No call for a connection reports this number.
    pub const TLS_FAILED: Self = Self(libc::EKEYREJECTED);
    /// There is no listener.
    pub const CONNREFUSED: Self = Self(libc::ECONNREFUSED);
    /// The peer did not answer in time.
    pub const TIMEDOUT: Self = Self(libc::ETIMEDOUT);

    /// Its name, as errno(3) has it; `None` of one that no connect is known to fail with.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let known = NAMES.iter().find(|(number, _)| *number == self.0);
        known.map(|(_, name)| *name)
    }

    /// Whether the same operation may simply be asked again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self.0, libc::EINTR | libc::EAGAIN)
    }
}

/// Makes [`NAMES`]: the constants of libc have the names that users know.
macro_rules! names {
    ($($name:ident)+) => {
        [$((libc::$name, stringify!($name))),+]
    };
}

/// The errors that a connect may fail with.
const NAMES: [(i32, &str); 28] = names!(
    ECONNREFUSED ECONNRESET ECONNABORTED ETIMEDOUT EHOSTUNREACH ENETUNREACH EHOSTDOWN ENETDOWN
    ENONET ENETRESET ENOENT ENOTDIR EACCES EPERM EADDRNOTAVAIL EADDRINUSE EMFILE ENFILE ENOBUFS
    ENOMEM EAGAIN EINTR EINVAL EAFNOSUPPORT EPROTOTYPE ECANCELED EPIPE EPROTO
);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errno_is_the_systems_own() {
        let kind = |errno: Errno| io::Error::from_raw_os_error(errno.0).kind();
        assert_eq!(kind(Errno::CONNRESET), io::ErrorKind::ConnectionReset);
        assert_eq!(kind(Errno::CONNREFUSED), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(Errno::TIMEDOUT), io::ErrorKind::TimedOut);
        assert!(Errno(4).is_transient() && !Errno(104).is_transient());
        assert_eq!(Errno(111).name(), Some("ECONNREFUSED"));
        assert_eq!(Errno(-1).name(), None);
    }
}
