//! A session: one client connection and one backend connection, as a pure state machine.
//!
//! It handles events and asks for operations. It holds no descriptor, no buffer memory and no
//! clock. Each event first removes the operation that it completes from those in flight; a closing
//! session then only waits for the others.
//!
//! | state | in flight | left by |
//! |---|---|---|
//! | Handshaking | the client's receive; sends to it | TLS is established; a fault; a deadline |
//! | Peeking | the client's receive, or a poll | its first bytes suffice; a deadline |
//! | Connecting | connect or a visit; the client's receive or poll | `Connected`; a last failure |
//! | Queued | the client's receive or poll | `Called`; `Refused`; a deadline |
//! | Open | per direction: receive, send, poll or visit | both ways shut; a fault; a deadline |
//! | Closing | cancelled operations | nothing in flight: `Finish` |

#![forbid(unsafe_code)]

mod buffer_queue;
mod close;
mod connecting;
mod deadline;
mod end;
mod flow;
mod limits;
mod moving;
mod op;
mod paced;
mod peeking;
mod stalled;
mod tls;
mod view;
mod waiting;
mod watching;

#[cfg(test)]
mod tests;

pub use buffer_queue::Links;
pub use close::CloseReason;
pub use connecting::RETRY_AFTER;
use end::{End, EndTls};
use flow::{Flow, Mode};
pub use limits::SessionLimits;
pub use op::{Arrival, Event, Look, Op, Opening, Ops, PeerState, Preamble, Unsent};
use op::{CANCELLABLE, InFlight, purpose_of};
pub use tls::{Sealed, Unsealed};
pub use view::{SessionState, View};
use watching::Watch;

use crate::guard::Pacing;
use crate::kernel::{Buffer, Manner};
use crate::time::{MS, NEVER, SECOND};
use crate::token::{Purpose, Side};

/// What a session needs while it handles one event.
#[derive(Debug)]
pub struct Context<'a> {
    /// Nanoseconds, monotonic, read once per batch.
    pub now: u64,
    /// The limits of the session's listener.
    pub limits: &'a SessionLimits,
    /// The worker's buffer links.
    pub links: &'a mut Links,
    /// Operations that the session asks for.
    pub ops: &'a mut Ops,
    /// The limits of the session's bandwidth; `None`: there are none.
    pub pacing: Option<Pacing<'a>>,
}

/// One client connection and one backend connection.
#[derive(Debug)]
pub struct Session {
    state: SessionState,
    /// By side.
    ends: [End; 2],
    /// By the side that their bytes come from.
    flows: [Flow; 2],
    in_flight: InFlight,
    attempts: u8,
    /// The work of looking at the client's first bytes ([`peeking`]).
    looked: u16,
    /// Bytes wait at the client's socket for a buffer, and don't suffice.
    half_sent_ahead: bool,
    /// What the client asked for before its first bytes.
    preamble: Preamble,
    /// The client is refused and was told so.
    told: bool,
    /// The attempt ran out of time, and its connect was cancelled.
    overdue: bool,
    /// TCP keepalive is on.
    kept_alive: bool,
    /// The kernel still delays acknowledgements to the backend.
    ack_delayed: bool,
    /// Why the session will end: a connection broke while bytes that it had sent still wait for
    /// delivery. The session ends when they are delivered, or none is for [`deadline::LINGER`].
    broken: Option<CloseReason>,
    /// Why the session ended, once it has.
    reason: Option<CloseReason>,
    /// What this machine lacks for the present attempt, as the reason that ends the session if the
    /// lack lasts. An attempt that fails otherwise clears it.
    held_by: Option<CloseReason>,
    /// The present attempt began only at the end of its time, and got that time once more.
    extended: bool,
    /// The time spent in queues of pools, in all.
    queued: u64,
    /// When the session last joined such a queue; 0 when it never did.
    queued_at: u64,
    /// When its time in the queue is over.
    queued_until: u64,
    /// Bytes of the client went to the backend after its first answer, and none came back since.
    /// Noted only with [`SessionLimits::watches_work`].
    asked: bool,
    /// The backend ended its stream by its own act alone ([`Self::is_hang_up`]).
    hung_up: bool,
    /// Steps of TLS that were asked for, and are not answered yet.
    tls_steps: u8,
    /// How long the handshake of TLS took, in ms: its first bytes are awaited from then on.
    handshake_ms: u16,
    /// When the client was accepted.
    opened_at: u64,
    /// When the attempt began, while connecting; then when something last moved.
    active_at: u64,
    /// Bytes that the peers had not acknowledged when the kernel was last asked.
    unsent: u32,
    /// When the backend's connection stood; 0 before.
    connected_at: u64,
    /// When the backend's first byte came; 0 before.
    first_byte_at: u64,
    /// How long the backend took to connect and then, asked, to its first byte.
    answer: u64,
    /// How long the backend was streaming since the last [`Op::Used`].
    in_use: u64,
    /// When to watch a side that is not read from; [`NEVER`] for no side.
    watch_at: u64,
}

impl Session {
    /// A session for a client that was just accepted: receives from it, and connects at once
    /// unless its first bytes are needed for that.
    pub fn open(cx: &mut Context<'_>) -> Self {
        let peeks = cx.limits.peek.is_some();
        let mut session = Self {
            state: if peeks {
                SessionState::Peeking
            } else {
                SessionState::Connecting
            },
            ends: Default::default(),
            flows: [Flow::new(), Flow::new()],
            in_flight: InFlight::default(),
            attempts: 0,
            looked: 0,
            half_sent_ahead: false,
            preamble: Preamble::None,
            told: false,
            overdue: false,
            kept_alive: false,
            ack_delayed: true,
            broken: None,
            reason: None,
            held_by: None,
            extended: false,
            queued: 0,
            queued_at: 0,
            queued_until: NEVER,
            asked: false,
            hung_up: false,
            tls_steps: 0,
            handshake_ms: 0,
            opened_at: cx.now,
            active_at: cx.now,
            unsent: 0,
            connected_at: 0,
            first_byte_at: 0,
            answer: 0,
            in_use: 0,
            watch_at: NEVER,
        };
        if cx.limits.handshake.is_some() {
            session.state = SessionState::Handshaking;
            session.ends[Side::Client as usize].tls = EndTls::RECORDS;
            for flow in &mut session.flows {
                flow.mode = Mode::Tls;
            }
        }
        session.advance(Side::Client, cx);
        if session.state == SessionState::Connecting {
            session.connect(cx);
        }
        session
    }

    /// Handles the completion of one operation; with `more`, one step of an operation that goes on.
    pub fn on_event(&mut self, event: Event, more: bool, cx: &mut Context<'_>) {
        if !more && let Some(purpose) = purpose_of(&event) {
            self.in_flight.remove(purpose);
            if let Purpose::Recv(from) = purpose {
                self.end(from).stopping = false;
            }
        }
        if self.state == SessionState::Closing {
            return self.join(event, cx);
        }
        match event {
            Event::Decrypted(from, opened, more) => self.on_decrypted(from, opened, more, cx),
            Event::Encrypted(to, sealed) => self.on_encrypted(to, sealed, cx),
            Event::Peeked(look) => self.on_peeked(look, cx),
            Event::Connected(opening) => self.on_connected(opening, cx),
            Event::ConnectFailed(errno) => self.on_connect_failed(errno, cx),
            Event::Lacking(fault) => self.on_lacking(fault, cx),
            Event::Paused => self.on_paused(cx),
            Event::Queued(until) => {
                self.queued_until = until;
                self.on_queued(cx.now);
            }
            Event::Requeued => self.on_queued(cx.now),
            Event::Called => self.on_called(cx),
            Event::Refused => self.close(CloseReason::QueueTimeout, cx),
            Event::Full => self.on_refused(CloseReason::PoolFull, cx),
            Event::Unselected => self.on_refused(CloseReason::NoBackend, cx),
            Event::Unrouted => self.on_refused(CloseReason::NoRoute, cx),
            Event::Misfit => self.on_refused(CloseReason::NotTransparent, cx),
            Event::Gone => self.on_refused(CloseReason::ClientReset, cx),
            Event::Spent => self.on_refused(CloseReason::ConnectFailed, cx),
            Event::TlsRefused(told) => {
                self.told = told;
                self.close(CloseReason::TlsRefused, cx);
            }
            Event::Received(from, buffer, last) => {
                self.end(from).ending = last;
                self.on_received(from, buffer, cx);
            }
            Event::RecvEnded(from, end) => self.on_recv_ended(from, end, cx),
            Event::PassedOn(from, moved) => self.on_passed_on(from, moved, cx),
            Event::Sent(to, outcome) => self.on_sent(to, outcome, cx),
            Event::SourceReady(from, arrival) if self.state != SessionState::Open => {
                self.on_arrival(from, arrival, more, cx);
            }
            // It is being cancelled.
            Event::SourceReady(..) if more => {}
            Event::SourceReady(from, _) | Event::Starvation(from) | Event::Pace(from) => {
                self.go_on(from, cx);
            }
            Event::SinkReady(to, room) => self.on_sink_ready(to, room, more, cx),
            Event::Watched(side, peer) => self.on_watched(side, peer, more, cx),
            Event::Retry => self.on_retry(cx),
            Event::Pumped(from, pumped) => self.on_pumped(from, pumped, cx),
            Event::Unpiped(from, buffer) => self.on_unpiped(from, buffer, cx),
            Event::Unsent(to) => self.on_unsent(to, cx),
            Event::Pipeless(from) => self.demote(from, cx),
        }
        debug_assert!(self.invariants_hold(), "{self:?}");
    }

    /// Ends the session: cancels what is in flight, then finishes.
    pub fn close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if self.state == SessionState::Closing {
            return;
        }
        if self.state == SessionState::Queued {
            self.leave_queue(cx.now);
        }
        self.state = SessionState::Closing;
        self.reason = Some(reason);
        let in_flight = self.in_flight;
        // Fast path: after both directions have ended, nothing is.
        if !in_flight.is_empty() {
            for purpose in CANCELLABLE.into_iter().filter(|one| in_flight.has(*one)) {
                cx.ops.push_back(Op::Cancel(purpose));
            }
        }
        self.finish_when_joined(cx);
    }

    /// Why the session ended; `None` while it has not.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Whether the session waits in the queue of its pool.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.state == SessionState::Queued
    }

    /// Whether the present attempt to connect is not the first.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        self.attempts > 1
    }

    /// How long the session has waited in queues of pools, in ns.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// The same at `now`, with the wait that goes on.
    #[must_use]
    pub fn queue_took(&self, now: u64) -> u64 {
        let waits = self.is_queued();
        let present = waits.then(|| now.saturating_sub(self.queued_at));
        self.queued + present.unwrap_or(0)
    }

    /// From accept to the backend's connection, in ns; `None` before.
    #[must_use]
    pub fn connect_took(&self) -> Option<u64> {
        let connected = self.connected_at > 0;
        connected.then(|| self.connected_at.saturating_sub(self.opened_at))
    }

    /// When the client was accepted.
    #[must_use]
    pub fn opened_at(&self) -> u64 {
        self.opened_at
    }

    /// How long the backend took to connect and then, asked, to its first byte, in ns.
    #[must_use]
    pub fn answer(&self) -> u64 {
        self.answer
    }

    /// Bytes delivered from the client, from the backend.
    #[must_use]
    pub fn delivered(&self) -> [u64; 2] {
        [self.flows[0].delivered, self.flows[1].delivered]
    }

    /// How to close the client's socket. One that was told why it is refused is to hear that.
    #[must_use]
    pub fn manner(&self) -> Manner {
        match self.told {
            true => Manner::Graceful,
            false => self.backend_manner(),
        }
    }

    /// How to close the backend's socket.
    #[must_use]
    pub fn backend_manner(&self) -> Manner {
        let waits = |end: &End| end.starved && !end.ended;
        let loaded = self.flows.iter().any(Flow::is_loaded);
        let undelivered = self.unsent > 0 || loaded || self.ends.iter().any(waits);
        let cut = self.ends.iter().any(|end| end.tls.is_cut());
        self.reason
            .filter(|_| !cut)
            .map_or(Manner::Reset, |reason| reason.manner(undelivered))
    }

    /// Times and amounts for the log line, and what the end, just now, shows of the backend.
    #[must_use]
    pub fn summary(&self, now: u64) -> Summary {
        let since_open = |at: u64| (at > 0).then(|| at.saturating_sub(self.opened_at));
        Summary {
            opened_at: self.opened_at,
            attempts: self.attempts,
            connect: since_open(self.connected_at),
            first_byte: since_open(self.first_byte_at),
            queued: (self.queued_at > 0).then_some(self.queued),
            delivered: self.delivered(),
            fault: self.fault(now),
            awaits_answer: self.first_byte_at == 0 || self.asked,
            answer: self.answer,
            in_use: self.in_use,
        }
    }

    /// What an end without an answer shows of the backend that it was connected to.
    fn fault(&self, now: u64) -> Option<Unanswered> {
        if self.connected_at == 0 || self.first_byte_at > 0 {
            return None;
        }
        // As one that refuses our certificate, with TLS 1.3.
        let refused = self.reason == Some(CloseReason::BackendTlsFailed);
        let cut = [CloseReason::BackendReset, CloseReason::BackendTlsTruncated];
        let reset = self.reason.is_some_and(|reason| cut.contains(&reason));
        if self.hung_up || refused || reset && self.is_hang_up(now) {
            return Some(Unanswered::Failed);
        }
        let closed = self.reason == Some(CloseReason::BackendClosed) && self.has_asked();
        (reset || closed).then_some(Unanswered::Unclear)
    }

    /// Whether the backend hangs up by ending its stream or by a reset now: it has sent nothing,
    /// and neither anything that the client did nor a time limit of its own can be the cause.
    fn is_hang_up(&self, now: u64) -> bool {
        let ended = self.ends[Side::Client as usize].ended;
        let at_once = now.saturating_sub(self.connected_at) < AT_ONCE;
        self.first_byte_at == 0 && !ended && !self.has_asked() && at_once
    }

    fn has_asked(&self) -> bool {
        let client = &self.flows[Side::Client as usize];
        client.delivered > 0 || client.has_received()
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    fn flow(&mut self, from: Side) -> &mut Flow {
        &mut self.flows[from as usize]
    }

    /// Whether nothing moves in a direction any more: its end was relayed, or its sink broke.
    fn is_over(&self, from: Side) -> bool {
        self.ends[from.other() as usize].shut
    }
}

/// A session's times and amounts for its log line; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// When the client was accepted.
    pub opened_at: u64,
    /// Connect attempts made.
    pub attempts: u8,
    /// From accept to the backend's connection.
    pub connect: Option<u64>,
    /// From accept to the backend's first byte.
    pub first_byte: Option<u64>,
    /// The time in queues of pools, if the session waited in one.
    pub queued: Option<u64>,
    /// Bytes delivered from the client, from the backend.
    pub delivered: [u64; 2],
    /// How long the backend took to connect and then, asked, to its first byte.
    pub answer: u64,
    /// How long the backend was streaming since the last [`Op::Used`].
    pub in_use: u64,
    /// The connected backend ended or broke the session without an answer.
    pub fault: Option<Unanswered>,
    /// The client was waiting for an answer of the backend.
    pub awaits_answer: bool,
}

impl Summary {
    /// Of a client that was refused at this time, before it had a session.
    #[must_use]
    pub fn refused(opened_at: u64) -> Self {
        Self {
            opened_at,
            attempts: 0,
            connect: None,
            first_byte: None,
            queued: None,
            delivered: [0; 2],
            answer: 0,
            in_use: 0,
            fault: None,
            awaits_answer: false,
        }
    }
}

/// How a backend ended or broke a session without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// By its own act alone, before the client had sent or ended anything.
    Failed,
    /// After the client had, or after a while: the client may be the cause.
    Unclear,
}

/// Steps that several events share.
impl Session {
    fn ask(&mut self, purpose: Purpose, cx: &mut Context<'_>) {
        self.in_flight.insert(purpose);
        cx.ops.push_back(match purpose {
            Purpose::Recv(side) => Op::Recv(side),
            Purpose::PollSource(side) => Op::PollSource(side, self.state != SessionState::Open),
            Purpose::PollSink(to) => Op::PollSink(to, self.end(to).ends_polls),
            Purpose::Watch(side) => Op::Watch(side),
            Purpose::Accept
            | Purpose::Wake
            | Purpose::Detached
            | Purpose::Connect
            | Purpose::Send(_)
            | Purpose::Header
            | Purpose::Retry
            | Purpose::Starvation(_)
            | Purpose::Pace(_) => unreachable!("{purpose:?} is asked for elsewhere"),
        });
    }

    fn visit(&mut self, visit: Purpose, after: u64, cx: &mut Context<'_>) {
        self.in_flight.insert(visit);
        cx.ops.push_back(Op::Visit(visit, after));
    }

    /// Bytes came from a side, in this buffer unless they were passed on without one.
    fn touch(&mut self, from: Side, first: Option<Buffer>, cx: &mut Context<'_>) {
        if self.state != SessionState::Open {
            // While connecting, the attempt's start stands in `active_at`.
            return;
        }
        if from == Side::Backend {
            self.on_answer(first, cx);
        }
        self.active_at = cx.now;
    }

    /// Bytes of the client went to the backend.
    fn on_asked(&mut self, cx: &mut Context<'_>) {
        if cx.limits.watches_work && self.first_byte_at > 0 && !self.asked {
            self.asked = true;
            cx.ops.push_back(Op::Asked);
        }
    }

    /// Bytes of the backend: an answer, or, close behind others, a stream.
    fn on_answer(&mut self, first: Option<Buffer>, cx: &mut Context<'_>) {
        let gap = cx.now.saturating_sub(self.active_at);
        if self.first_byte_at == 0 {
            self.first_byte_at = cx.now;
            self.answer += gap;
            cx.ops.push_back(Op::Answered(first));
        } else if std::mem::take(&mut self.asked) {
            cx.ops.push_back(Op::Replied);
        } else if cx.limits.watches_work && gap <= STREAM_GAP {
            self.in_use += gap;
            if self.in_use >= USED_AT_ONCE {
                cx.ops.push_back(Op::Used(std::mem::take(&mut self.in_use)));
            }
        }
    }

    fn acknowledge(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.ack_delayed) {
            cx.ops.push_back(Op::Acknowledge);
        }
    }

    fn is_read(&self, side: Side) -> bool {
        self.in_flight.has(Purpose::Recv(side))
            || self.in_flight.has(Purpose::PollSource(side))
            || self.in_flight.is_visited(side) && !self.waits_for_room(side)
    }

    fn join(&mut self, event: Event, cx: &mut Context<'_>) {
        if let Event::Received(from, buffer, _) = event {
            // It came too late to be sent: it counts as undelivered.
            self.flow(from).backlog.push(buffer, cx.links);
        } else if let Event::Connected(Opening::Header(made)) = event {
            cx.ops.push_back(Op::Release(made.id));
        } else {
            self.join_tls(event, cx);
        }
        self.finish_when_joined(cx);
    }

    fn finish_when_joined(&self, cx: &mut Context<'_>) {
        if !self.in_flight.is_empty() || self.tls_steps > 0 {
            return;
        }
        // The manner of closing depends on what is undelivered, so only the memory goes here.
        for flow in &self.flows {
            let mut backlog = flow.backlog;
            while let Some(id) = backlog.pop(cx.links) {
                cx.ops.push_back(Op::Release(id));
            }
        }
        cx.ops.push_back(Op::Finish);
    }

    fn invariants_hold(&self) -> bool {
        Side::BOTH.into_iter().all(|from| {
            let (source, flow) = (&self.ends[from as usize], &self.flows[from as usize]);
            let sending = self.in_flight.has(Purpose::Send(from.other()));
            let receiving = self.in_flight.has(Purpose::Recv(from));
            self.state == SessionState::Closing
                || (flow.mode != Mode::Splice || !sending && !receiving)
                    && (!source.stopping || receiving)
                    && (flow.in_pipe == 0 || flow.mode == Mode::Splice)
                    && (!self.is_over(from) || source.ended && !flow.is_loaded())
        })
    }
}

/// A server that speaks first has begun by then: 1 s.
const AT_ONCE: u64 = SECOND;
/// Bytes of a backend that come further apart than this are no stream: 100 ms.
const STREAM_GAP: u64 = 100 * MS;
/// A stream is reported in such pieces: 1 s.
const USED_AT_ONCE: u64 = SECOND;
/// What an idle session takes is its price in memory.
const _: () = assert!(size_of::<Session>() <= 192);
