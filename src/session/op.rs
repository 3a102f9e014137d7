//! The events of a session, and the operations that it asks for.

use crate::fault::Fault;
use crate::kernel::{Buffer, BufferId, Errno, Pumped};
use crate::token::{Purpose, Side};

use super::tls::{Sealed, Unsealed};

/// What a session asks for: first of the kernel, then of routing, then to be counted.
///
/// Operations that complete later are named by their [`Purpose`]; a session has at most one of each
/// in flight. One flat enum: an arm of its own for each of the three costs instructions per
/// operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Receive from this side until cancelled.
    Recv(Side),
    /// Pass on from this side what the other takes, as no buffer is left; answered at once by
    /// `PassedOn`.
    PassOn(Side),
    /// Send a buffer to this side; `true`: another send or the end of the stream follows, and
    /// should ride in the same packet.
    Send(Side, Buffer, bool),
    /// Copy the second buffer's bytes behind those of the first, where there is room for them.
    Append(Buffer, Buffer),
    /// Give this buffer back: the session does not need it any more.
    Release(BufferId),
    /// Poll this side for bytes; `true`: report each arrival until cancelled.
    PollSource(Side, bool),
    /// Poll this side for room; `true`: report each change until cancelled.
    PollSink(Side, bool),
    /// Poll this side for faults.
    Watch(Side),
    /// Come back for this purpose, a visit's, after so many nanoseconds.
    Visit(Purpose, u64),
    /// Ask this operation to end early.
    Cancel(Purpose),
    /// Splice from this side to the other; answered at once by `Pumped` or `Pipeless`.
    Pump(Side),
    /// Take bytes out of the pipe of this source, into a buffer; answered at once by `Unpiped`.
    Unpipe(Side),
    /// Ask how many bytes the peers have not acknowledged; answered at once by `Unsent`.
    Unsent,
    /// Acknowledge to the backend at once: the session is about to send nothing that would.
    Acknowledge,
    /// Let the kernel probe silent peers: the session is a long one.
    KeepAlive,
    /// Relay the end of the stream to this side.
    Shutdown(Side),
    /// Close both sockets and free the slot: nothing is in flight.
    Finish,

    /// Look at the client's first bytes; answered at once by `Peeked`. `true`: no more of them
    /// will come. Without a buffer and with `false`: whether a route takes silent clients.
    Peek(Option<Buffer>, bool),
    /// The same with the bytes behind them that wait at the socket.
    PeekAhead(Option<Buffer>, bool),
    /// Select a backend and connect to it; answered by `Connected`, `ConnectFailed`, `Lacking`,
    /// `Paused`, `Queued`, `Requeued`, `Full`, `Unselected` or `Spent`.
    Connect,
    /// Close the backend's socket: the attempt failed by this.
    Abandon(Fault),

    /// Take what the records of this side hold out of this buffer, or, without one, what was left
    /// of the last; answered at once by `Decrypted`.
    Decrypt(Side, Option<Buffer>),
    /// Make records for this side of this buffer's bytes, or, without one, of what was held back;
    /// answered at once by `Encrypted`.
    Encrypt(Side, Option<Buffer>),
    /// Make the record that tells this side that no more comes; answered at once by `Encrypted`.
    Notify(Side),

    /// Look at these bytes of the backend, which are among its first.
    Overhear(Buffer),
    /// The backend's first byte came, in this buffer unless it was passed on without one.
    Answered(Option<Buffer>),
    /// The client sent more after the backend's first byte.
    Asked,
    /// The backend answered that.
    Replied,
    /// The backend was streaming for so many nanoseconds since the last report.
    Used(u64),
    /// A wait ended, and nothing could be moved.
    InVain,
}

/// Operations that were asked for and are not done yet, in their order.
///
/// They are done one after the other until none is left: a list and a place in it cost less than
/// a ring.
#[derive(Debug, Default)]
pub struct Ops {
    asked: Vec<Op>,
    done: usize,
}

impl Ops {
    /// Asks for an operation, after all others.
    pub fn push_back(&mut self, op: Op) {
        self.asked.push(op);
    }

    /// Asks for an operation, before all others.
    pub fn push_front(&mut self, op: Op) {
        self.asked.insert(self.done, op);
    }

    /// Takes the first one.
    pub fn pop_front(&mut self) -> Option<Op> {
        let Some(op) = self.asked.get(self.done) else {
            self.asked.clear();
            self.done = 0;
            return None;
        };
        self.done += 1;
        Some(*op)
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.done == self.asked.len()
    }
}

/// What a look at the client's first bytes has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A backend can be selected.
    Enough,
    /// They begin something, and more of them are needed.
    HalfSent,
    /// There is none.
    Nothing,
    /// The client is refused.
    Refused,
    /// The client is refused and was told so: it is to hear that.
    Told,
    /// They asked for this, and were answered: the client's first bytes come next.
    Answered(Preamble),
}

/// What a client asks for before its first bytes, and is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preamble {
    /// Nothing.
    #[default]
    None,
    /// Encryption by GSSAPI, which was refused.
    Gss,
    /// TLS, which its backend is still to be asked for.
    Tls,
}

impl Look {
    /// Whether no more of the first bytes are asked for.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::Enough | Self::Refused | Self::Told)
    }
}

/// How a connection to a backend begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// With the client's bytes, or the backend's.
    Bare,
    /// With bytes that we made, which go to the backend before those of the client.
    Header(Buffer),
    /// Its handshake of TLS is done: what goes both ways from now on are records.
    Sealed,
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Routing looked at the client's first bytes.
    Peeked(Look),
    /// The backend accepted the connection.
    Connected(Opening),
    /// The connect attempt failed.
    ConnectFailed(Errno),
    /// No attempt can be made now: this machine lacks something, or the backend's backlog is full.
    Lacking(Fault),
    /// Only backends that were tried are left: an attempt now would fail as the last one did.
    Paused,
    /// Every backend has all the connections that it may have, or others wait already: the client
    /// waits in the queue of its pool, until this time at most.
    Queued(u64),
    /// The client was called, but the place is taken: it waits on, first in the queue.
    Requeued,
    /// The client is the first of the queue, and a backend has a place.
    Called,
    /// The client was the first of the queue and had waited too long.
    Refused,
    /// The queue of the pool is full.
    Full,
    /// The pool has no backend to select.
    Unselected,
    /// A route refuses the client.
    Unrouted,
    /// Connections of the pool begin at their client's address, and none to a backend of it can
    /// begin at that of this client.
    Misfit,
    /// The same, as the client had gone at its accept, and its address with it.
    Gone,
    /// The session's attempts are used up, and it has tried every backend.
    Spent,
    /// The backend has no TLS for the client, which was told that it may begin with it; `true`: and
    /// now that it may not.
    TlsRefused(bool),
    /// Bytes from this side; `true`: the end of the stream is the next event.
    Received(Side, Buffer, bool),
    /// No more bytes from this receive: end of stream (`Ok`) or why not.
    RecvEnded(Side, Result<(), Errno>),
    /// What was passed on without a buffer.
    PassedOn(Side, Pumped),
    /// So many bytes were sent to this side.
    Sent(Side, Result<u32, Errno>),
    /// The polled source of this side has bytes, or something to say about it.
    SourceReady(Side, Arrival),
    /// The poll for room at this side has ended or reports a change; `false`: there is no room,
    /// its peer has just ended its own direction.
    SinkReady(Side, bool),
    /// What a side that was not read from shows.
    Watched(Side, PeerState),
    /// The time has come to connect again.
    Retry,
    /// The time has come to look again for room, bytes or memory.
    Starvation(Side),
    /// The time has come to splice on.
    Pace(Side),
    /// A pump's result.
    Pumped(Side, Pumped),
    /// The first bytes of a pipe are in a buffer; `None`: it can't be read.
    Unpiped(Side, Option<Buffer>),
    /// What was given to the client, to the backend, and is not acknowledged.
    Unsent([Unsent; 2]),
    /// No pipe was free for a pump.
    Pipeless(Side),
    /// What the records of this side have brought; `true`: there is more.
    Decrypted(Side, Unsealed, bool),
    /// Records for this side.
    Encrypted(Side, Sealed),
}

/// What a poll of a source shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// There may be bytes.
    Bytes,
    /// The stream has ended, perhaps behind bytes.
    End,
    /// The connection broke.
    Fault,
}

/// Bytes that were given to a peer and that it has not acknowledged; on a Unix socket, not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// How many.
    pub bytes: u32,
    /// They are with the peer, as on a Unix socket: a close of this end destroys none of them.
    pub at_peer: bool,
}

/// What a watch shows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Nothing of interest.
    Unclear,
    /// Nothing goes in or out any more. A Unix socket shows this once its peer has closed it; a
    /// TCP peer that has closed looks the same as one that has only ended its stream.
    HungUp,
    /// The connection broke.
    Broken,
}

/// The operations in flight of one session: one bit for each purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InFlight(u32);

impl InFlight {
    pub(super) fn has(self, purpose: Purpose) -> bool {
        self.0 & bit(purpose) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the direction from this side is visited by itself.
    pub(super) fn is_visited(self, from: Side) -> bool {
        self.has(Purpose::Starvation(from)) || self.has(Purpose::Pace(from))
    }

    pub(super) fn insert(&mut self, purpose: Purpose) {
        assert!(!self.has(purpose), "{purpose:?} is in flight already");
        self.0 |= bit(purpose);
    }

    pub(super) fn remove(&mut self, purpose: Purpose) {
        assert!(
            self.has(purpose),
            "{purpose:?} completed without having been asked"
        );
        self.0 &= !bit(purpose);
    }
}

/// The purposes that the kernel can be asked to end early. A visit is no kernel operation and
/// comes due by itself.
pub(super) const CANCELLABLE: [Purpose; 11] = [
    Purpose::Connect,
    Purpose::Recv(Side::Client),
    Purpose::Recv(Side::Backend),
    Purpose::Send(Side::Client),
    Purpose::Send(Side::Backend),
    Purpose::PollSource(Side::Client),
    Purpose::PollSource(Side::Backend),
    Purpose::PollSink(Side::Client),
    Purpose::PollSink(Side::Backend),
    Purpose::Watch(Side::Client),
    Purpose::Watch(Side::Backend),
];

/// The operation in flight that an event is about; `None` for answers that come at once.
pub(super) fn purpose_of(event: &Event) -> Option<Purpose> {
    match *event {
        Event::Connected(_)
        | Event::ConnectFailed(_)
        | Event::Lacking(_)
        | Event::Paused
        | Event::Queued(_)
        | Event::Requeued
        | Event::Full
        | Event::Unselected
        | Event::Unrouted
        | Event::Misfit
        | Event::Gone
        | Event::Spent
        | Event::TlsRefused(_) => Some(Purpose::Connect),
        Event::Received(from, _, _) | Event::RecvEnded(from, _) => Some(Purpose::Recv(from)),
        Event::Sent(to, _) => Some(Purpose::Send(to)),
        Event::SourceReady(from, _) => Some(Purpose::PollSource(from)),
        Event::SinkReady(to, _) => Some(Purpose::PollSink(to)),
        Event::Watched(side, _) => Some(Purpose::Watch(side)),
        Event::Retry => Some(Purpose::Retry),
        Event::Starvation(from) => Some(Purpose::Starvation(from)),
        Event::Pace(from) => Some(Purpose::Pace(from)),
        Event::Peeked(_)
        | Event::Called
        | Event::Refused
        | Event::PassedOn(..)
        | Event::Pumped(..)
        | Event::Unpiped(..)
        | Event::Unsent(_)
        | Event::Pipeless(_)
        | Event::Decrypted(..)
        | Event::Encrypted(..) => None,
    }
}

fn bit(purpose: Purpose) -> u32 {
    1 << purpose.code()
}
