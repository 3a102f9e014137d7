//! Connections as the kernel sees them: what has arrived, what was received, how it ended.

use mahoraga::config::SendProxy;
use mahoraga::kernel::{Errno, Interest, Manner};
use mahoraga::token::{Side, Token};

use crate::headers::Header;
use crate::peer::Peer;
use crate::stream::StreamId;
use crate::vain::{TRIES, Vain};

/// One connection between the balancer and a peer.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) side: Side,
    pub(crate) peer: Peer,
    /// A Unix socket: bytes that were given to it are with the peer, and it shows that its peer has
    /// closed it.
    pub(crate) local: bool,
    pub(crate) hold: Hold,
    /// An accepted client is connected from the start, a backend once its connect succeeded.
    pub(crate) connected: bool,
    /// It is connected to itself.
    pub(crate) own: bool,
    /// It was refused, and is held unread.
    pub(crate) held: bool,
    /// The listener that a client came in by.
    pub(crate) listener: usize,
    /// The descriptor of the other end of its session.
    pub(crate) partner: Option<i32>,
    /// When it got a partner.
    pub(crate) paired_at: u64,
    /// When a byte, or the end, last passed between the balancer and this socket.
    pub(crate) moved_at: u64,
    /// Since when something waits to be received.
    pub(crate) unread_since: u64,
    /// What a proxy sends first, until the balancer has taken it.
    pub(crate) header: Option<Header>,
    /// In how many pieces it has come so far.
    pub(crate) header_pieces: u64,
    /// The session that a backend was asked for TLS by.
    pub(crate) asked_for: Option<Token>,
    /// Its stream once what is asked before that is answered.
    pub(crate) after_preamble: Option<StreamId>,
    /// From the peer.
    pub(crate) inbound: Inbound,
    /// To the peer.
    pub(crate) outbound: Outbound,
    /// The header that a backend waits for, and what has come of it.
    pub(crate) introduction: Option<(SendProxy, Vec<u8>)>,
    /// When the peer's RST arrived.
    pub(crate) reset_at: Option<u64>,
    /// No operation has reported the RST yet (`sk_err`).
    pub(crate) error_pending: bool,
    /// A watch has reported the RST. Earlier bytes may still be delivered while they move.
    pub(crate) fault_seen: bool,
    /// A backend has seen the last packet of the handshake: before, it does nothing.
    pub(crate) established: bool,
    /// Since when a backend has no acknowledgement of the handshake, or of its last bytes.
    pub(crate) owed_since: Option<u64>,
    /// Bytes are acknowledged as they arrive.
    pub(crate) quick: bool,
    /// A send or a splice into it failed.
    pub(crate) known_broken: bool,
    /// Buffers filled from it and not given back.
    pub(crate) buffers: u32,
    /// It was read by splice lately.
    pub(crate) spliced: bool,
    /// Tries in vain to move bytes that come from here, by kind.
    pub(crate) vain: [Vain; TRIES],
}

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Waits to be accepted.
    Backlog,
    /// Has a descriptor.
    Open,
    /// Closed at a time, with `unread` bytes left in it.
    Closed {
        manner: Manner,
        unread: u64,
        at: u64,
    },
}

/// Bytes from the peer: `written` have arrived, `taken` of them were received.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) stream: StreamId,
    pub(crate) written: u64,
    pub(crate) taken: u64,
    pub(crate) room: u64,
    pub(crate) fin: bool,
}

/// Bytes to the peer: `given` were sent, all but `held` of them arrived, `read` were read there,
/// the last at `read_at`.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) given: u64,
    /// The last of them wait in the socket for further bytes (`MSG_MORE`), since this time.
    pub(crate) held: u64,
    pub(crate) held_since: u64,
    /// Bytes held back when a close by RST dropped them.
    pub(crate) dropped: u64,
    pub(crate) read: u64,
    pub(crate) read_at: u64,
    pub(crate) room: u64,
    /// By shutdown: FIN went out while the socket was open.
    pub(crate) fin: bool,
    /// `given` at the last tick that looked, and since when it stands still although it could grow.
    pub(crate) marked: u64,
    pub(crate) stalled_since: Option<u64>,
}

impl Conn {
    pub(crate) fn new(side: Side, stream: StreamId, peer: Peer, rooms: [u64; 2]) -> Self {
        Self {
            side,
            peer,
            local: false,
            hold: Hold::Backlog,
            connected: side == Side::Client,
            own: false,
            held: false,
            listener: 0,
            partner: None,
            paired_at: 0,
            moved_at: 0,
            unread_since: 0,
            header: None,
            header_pieces: 0,
            asked_for: None,
            after_preamble: None,
            inbound: Inbound {
                stream,
                written: 0,
                taken: 0,
                room: rooms[0],
                fin: false,
            },
            outbound: Outbound {
                given: 0,
                held: 0,
                held_since: 0,
                dropped: 0,
                read: 0,
                read_at: 0,
                room: rooms[1],
                fin: false,
                marked: 0,
                stalled_since: None,
            },
            introduction: None,
            reset_at: None,
            error_pending: false,
            fault_seen: false,
            established: side == Side::Client,
            owed_since: None,
            quick: side == Side::Client,
            known_broken: false,
            buffers: 0,
            spliced: false,
            vain: [Vain::default(); TRIES],
        }
    }

    /// When something last moved here, or at the peer.
    pub(crate) fn moved_at(&self) -> u64 {
        self.moved_at.max(self.outbound.read_at)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.hold == Hold::Open
    }

    /// Bytes that can be received.
    pub(crate) fn unread(&self) -> u64 {
        self.inbound.written - self.inbound.taken
    }

    /// Counts up with all that arrives.
    pub(crate) fn arrived(&self) -> u64 {
        self.inbound.written + self.header_pieces
    }

    /// Bytes that the peer can still send.
    pub(crate) fn inbound_room(&self) -> u64 {
        self.inbound.room - self.unread()
    }

    /// Bytes that can be sent.
    pub(crate) fn outbound_room(&self) -> u64 {
        self.outbound.room - (self.outbound.given - self.outbound.read)
    }

    /// Bytes that arrived at the peer and were not read there.
    pub(crate) fn waiting(&self) -> u64 {
        self.outbound.given - self.outbound.held - self.outbound.read
    }

    /// The peer does nothing before its last packet is acknowledged.
    pub(crate) fn awaits_acknowledgement(&self) -> bool {
        let small_steps = self.peer.patient && self.peer.is_sending();
        self.owed_since.is_some() && (!self.established || small_steps)
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.reset_at.is_some()
    }

    /// Whether it shows that its peer has closed it.
    pub(crate) fn is_gone(&self) -> bool {
        self.local && self.peer.closed_at.is_some()
    }

    /// Whether what is sent to it fails.
    pub(crate) fn refuses_bytes(&self) -> bool {
        self.is_reset() || self.is_gone()
    }

    /// Whether a receive can complete.
    pub(crate) fn is_readable(&self) -> bool {
        let begun = self.header.as_ref().is_some_and(|its| its.come > 0);
        begun || self.unread() > 0 || self.inbound.fin || self.is_reset()
    }

    /// The events that a poll reports: those that it asks for, and ends and errors always
    /// (`tcp_poll`, and `IO_POLL_UNMASK` in io_uring).
    pub(crate) fn events(&self, interest: Interest) -> u32 {
        let asked = match interest {
            Interest::Read | Interest::Bytes => IN,
            Interest::Write | Interest::Room => OUT,
            Interest::Fault => 0,
        };
        let reset = self.is_reset();
        let over = reset || self.is_gone() || self.inbound.fin && self.outbound.fin;
        [
            (IN & asked, self.is_readable()),
            (
                OUT & asked,
                self.outbound_room() > 0 || self.refuses_bytes(),
            ),
            (RDHUP, self.inbound.fin || reset),
            (HUP, over),
            (ERR, self.error_pending),
        ]
        .into_iter()
        .filter_map(|(event, is_there)| is_there.then_some(event))
        .fold(0, |all, event| all | event)
    }

    /// The error of a send to a connection that was reset: the first operation gets the RST, which
    /// is EPIPE after a FIN; later ones get EPIPE (`tcp_reset`, `sk_stream_error`).
    pub(crate) fn send_error(&mut self) -> Errno {
        let first = std::mem::take(&mut self.error_pending);
        self.known_broken = true;
        if first && !self.inbound.fin {
            Errno::CONNRESET
        } else {
            Errno(libc::EPIPE)
        }
    }

    /// The result of a receive when no bytes are left: after a FIN it is the end, whatever arrived
    /// later. After an RST the first operation gets the error, and later ones get what looks like
    /// an end of stream (`tcp_recvmsg`).
    pub(crate) fn recv_end(&mut self) -> Option<Result<(), Errno>> {
        if self.inbound.fin {
            return Some(Ok(()));
        }
        self.reset_at?;
        if std::mem::take(&mut self.error_pending) {
            Some(Err(Errno::CONNRESET))
        } else {
            Some(Ok(()))
        }
    }

    /// Whether the peer saw an orderly end of the balancer's bytes. A close with bytes unread sends
    /// RST (`tcp_close`).
    pub(crate) fn saw_end(&self) -> bool {
        let by_close = matches!(
            self.hold,
            Hold::Closed {
                manner: Manner::Graceful,
                unread: 0,
                ..
            }
        );
        self.outbound.fin || by_close && !self.is_reset()
    }
}

/// The events of poll(2).
const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;
const ERR: u32 = libc::POLLERR as u32;
const HUP: u32 = libc::POLLHUP as u32;
pub(crate) const RDHUP: u32 = libc::POLLRDHUP as u32;
