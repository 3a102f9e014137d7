//! A session: one client connection and one backend connection, as a pure state machine.
//!
//! It is told events and asks for operations; it holds no descriptor, no buffer memory and no
//! clock. Every handler begins alike: retire what has completed; when closing, join.
//!
//! | state | in flight | left by |
//! |---|---|---|
//! | Connecting | connect, or a visit while sockets are scarce; the client's receive | `Connected`; the last failure |
//! | Open | per direction: a receive, a send, a poll or a visit | both directions shut; a fault; a deadline |
//! | Closing | what was asked to end | nothing in flight: `Finish` |

#![forbid(unsafe_code)]

mod backlog;
mod close;
mod half;
mod op;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use backlog::Links;
pub use close::CloseReason;
use half::{Half, Mode};
use op::{CANCELLABLE, InFlight};
pub use op::{Event, Op, Side};

use crate::kernel::{Buffer, Errno, Manner, Pumped, Sink, Source};
use crate::token::Purpose;

/// The deadlines and tries of a session, all times in nanoseconds, [`NEVER`] for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One connect attempt.
    pub connect: u64,
    /// No byte in either direction.
    pub idle: u64,
    /// No byte since one direction ended.
    pub half_closed: u64,
    /// The whole session.
    pub session: u64,
    /// Connect attempts in all.
    pub attempts: u8,
}

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// What a session needs while it handles one event.
#[derive(Debug)]
pub struct Context<'a> {
    /// Nanoseconds, monotonic, read once per batch.
    pub now: u64,
    /// The deadlines and tries of the session's listener.
    pub limits: &'a Limits,
    /// The worker's buffer links.
    pub links: &'a mut Links,
    /// Where operations are asked for.
    pub ops: &'a mut VecDeque<Op>,
}

/// One client connection and one backend connection.
#[derive(Debug)]
pub struct Session {
    state: State,
    halves: [Half; 2],
    in_flight: InFlight,
    attempts: u8,
    /// The attempt ran out of time; its connect was asked to end.
    overdue: bool,
    kept_alive: bool,
    /// The backend is still acknowledged late.
    late: bool,
    /// A watch was set on this side, once.
    watched: [bool; 2],
    /// A connection broke while bytes that it had sent still wait for delivery: until they are
    /// delivered, or [`LINGER`] passes in which none is.
    broken: Option<CloseReason>,
    reason: Option<CloseReason>,
    opened_at: u64,
    /// Start of the attempt while connecting, then of the last byte.
    active_at: u64,
    connected_at: u64,
    first_byte_at: u64,
    /// When a side that is not read from is to be watched; [`NEVER`] when none is.
    watch_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Closing,
}

impl Session {
    /// A session for a client that was just accepted: receives from it and connects.
    pub fn open(cx: &mut Context<'_>) -> Self {
        let mut session = Self {
            state: State::Connecting,
            halves: [Half::new(), Half::new()],
            in_flight: InFlight::default(),
            attempts: 0,
            overdue: false,
            kept_alive: false,
            late: true,
            watched: [false; 2],
            broken: None,
            reason: None,
            opened_at: cx.now,
            active_at: cx.now,
            connected_at: 0,
            first_byte_at: 0,
            watch_at: NEVER,
        };
        session.advance(Side::Client, cx);
        session.connect(cx);
        session
    }

    /// Handles the completion of one operation, or one step of it when `more` follow.
    pub fn on_event(&mut self, event: Event, more: bool, cx: &mut Context<'_>) {
        if let Some(purpose) = purpose_of(&event).filter(|_| !more) {
            self.in_flight.remove(purpose);
            if let Purpose::Recv(from) = purpose {
                self.half(from).stopping = false;
            }
        }
        if self.state == State::Closing {
            return self.join(event, cx);
        }
        match event {
            Event::Connected => self.on_connected(cx),
            Event::ConnectFailed(errno) => self.on_connect_failed(errno, cx),
            Event::Exhausted => self.on_exhausted(cx),
            Event::Unselected => {
                self.in_flight.remove(Purpose::Connect);
                self.close(CloseReason::NoBackend, cx);
            }
            Event::Received(from, buffer, last) => {
                self.half(from).ending = last;
                self.on_received(from, buffer, cx);
            }
            Event::RecvEnded(from, end) => self.on_recv_ended(from, end, cx),
            Event::Sent(from, outcome) => self.on_sent(from, outcome, cx),
            Event::SourceReady(from) | Event::SinkReady(from) => cx.ops.push_back(Op::Pump(from)),
            Event::Watched(side, broke) => {
                if broke {
                    self.close(CloseReason::reset_by(side), cx);
                }
            }
            Event::Visit(from) => self.on_visit(from, cx),
            Event::Pumped(from, pumped) => self.on_pumped(from, pumped, cx),
            Event::Pipeless(from) => {
                self.half(from).demote();
                self.advance(from, cx);
            }
        }
        debug_assert!(self.invariants_hold(), "{self:?}");
    }

    /// Handles the time that [`Self::deadline`] named, or any later one.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>) {
        if cx.now < self.deadline(cx.limits) {
            return self.keep_alive(cx);
        }
        match self.state {
            State::Connecting if self.in_flight.has(Purpose::Connect) => {
                self.overdue = true;
                cx.ops.push_back(Op::Cancel(Purpose::Connect));
            }
            State::Connecting => self.close(CloseReason::NoResources, cx),
            State::Open if cx.now >= self.watch_at => self.watch(cx),
            State::Open => {
                let reason = if cx.now >= self.opened_at.saturating_add(cx.limits.session) {
                    CloseReason::SessionTimeout
                } else if self.halves.iter().any(|half| half.shut) {
                    CloseReason::HalfClosedTimeout
                } else {
                    CloseReason::IdleTimeout
                };
                self.close(self.broken.unwrap_or(reason), cx);
            }
            State::Closing => {}
        }
    }

    /// When [`Self::on_deadline`] is due at the latest, in nanoseconds; [`NEVER`] for never.
    #[must_use]
    pub fn deadline(&self, limits: &Limits) -> u64 {
        match self.state {
            State::Connecting if self.overdue => NEVER,
            State::Connecting => self.active_at.saturating_add(limits.connect),
            State::Open => {
                let half_closed = self.halves.iter().any(|half| half.shut);
                let quiet = if self.broken.is_some() {
                    LINGER
                } else if half_closed {
                    limits.half_closed
                } else {
                    limits.idle
                };
                let quiet_at = self.active_at.saturating_add(quiet);
                quiet_at
                    .min(self.opened_at.saturating_add(limits.session))
                    .min(self.watch_at)
            }
            State::Closing => NEVER,
        }
    }

    /// Ends the session: what is in flight is asked to end, then it finishes.
    pub fn close(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        if self.state == State::Closing {
            return;
        }
        self.state = State::Closing;
        self.reason = Some(reason);
        for purpose in CANCELLABLE {
            if self.in_flight.has(purpose) {
                cx.ops.push_back(Op::Cancel(purpose));
            }
        }
        self.finish_when_joined(cx);
    }

    /// Why it ended; `None` while it has not.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// How its sockets are to be closed.
    #[must_use]
    pub fn manner(&self) -> Manner {
        let waits = |half: &Half| half.is_loaded() || half.is_starved();
        let undelivered = self.halves.iter().any(waits);
        self.reason
            .map_or(Manner::Reset, |reason| reason.manner(undelivered))
    }

    /// Times and amounts for the log line.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let since_open = |at: u64| (at > 0).then(|| at.saturating_sub(self.opened_at));
        Summary {
            opened_at: self.opened_at,
            attempts: self.attempts,
            connect: since_open(self.connected_at),
            first_byte: since_open(self.first_byte_at),
            delivered: [self.halves[0].delivered, self.halves[1].delivered],
        }
    }

    fn half(&mut self, from: Side) -> &mut Half {
        &mut self.halves[from as usize]
    }
}

/// What is left of a session for its log line; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// When the client was accepted.
    pub opened_at: u64,
    /// Connect attempts made.
    pub attempts: u8,
    /// From accept to the backend's answer.
    pub connect: Option<u64>,
    /// From accept to the backend's first byte.
    pub first_byte: Option<u64>,
    /// Bytes delivered from the client, from the backend.
    pub delivered: [u64; 2],
}

/// Connecting.
impl Session {
    fn connect(&mut self, cx: &mut Context<'_>) {
        self.in_flight.insert(Purpose::Connect);
        self.attempts += 1;
        cx.ops.push_back(Op::Connect);
    }

    fn on_connected(&mut self, cx: &mut Context<'_>) {
        let armed = self.deadline(cx.limits);
        self.state = State::Open;
        self.active_at = cx.now;
        self.connected_at = cx.now;
        // A later deadline leaves the timer where it is: it comes too early once, is then set anew.
        if self.deadline(cx.limits) < armed {
            cx.ops.push_back(Op::Rearm);
        }
        // What the client has sent meanwhile completes the handshake; without it, nothing would.
        if !self.half(Side::Client).is_loaded() {
            self.acknowledge(cx);
        }
        for from in Side::BOTH {
            self.advance(from, cx);
        }
    }

    fn on_connect_failed(&mut self, errno: Errno, cx: &mut Context<'_>) {
        cx.ops.push_back(Op::Abandon);
        let overdue = std::mem::take(&mut self.overdue);
        if self.attempts < cx.limits.attempts {
            self.active_at = cx.now;
            self.connect(cx);
            cx.ops.push_back(Op::Rearm);
        } else if overdue || errno == Errno::TIMEDOUT {
            self.close(CloseReason::ConnectTimeout, cx);
        } else {
            self.close(CloseReason::ConnectFailed, cx);
        }
    }

    /// The client waits, as it would in the kernel's backlog, until a descriptor is free.
    fn on_exhausted(&mut self, cx: &mut Context<'_>) {
        self.in_flight.remove(Purpose::Connect);
        self.attempts -= 1;
        self.visit(Side::Backend, EXHAUSTED_RETRY, cx);
    }
}

/// Moving bytes. `from` names the direction by its source.
impl Session {
    fn on_received(&mut self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        self.touch(from, cx.now);
        let half = self.half(from);
        if half.shut {
            cx.ops.push_back(Op::Release(buffer.id));
            return;
        }
        half.is_fed();
        half.backlog.push(buffer, cx.links);
        half.on_filled(buffer.len);
        // A backend that sends in small steps may wait for each to be acknowledged.
        if from == Side::Backend && !half.ending {
            self.acknowledge(cx);
        }
        self.advance(from, cx);
    }

    fn on_recv_ended(&mut self, from: Side, end: Result<(), Errno>, cx: &mut Context<'_>) {
        match end {
            Ok(()) => self.half(from).ended = true,
            Err(Errno::CANCELED) => {}
            Err(Errno::NOBUFS) => {
                if !self.in_flight.has(Purpose::Visit(from)) {
                    let pace = self.half(from).slow_down();
                    self.visit(from, pace, cx);
                }
            }
            Err(errno) if errno.is_transient() => {}
            Err(_) if self.state == State::Open && self.half(from).is_loaded() => {
                self.on_source_broken(from, cx);
            }
            Err(_) => return self.close(CloseReason::reset_by(from), cx),
        }
        self.advance(from, cx);
    }

    /// The source's connection broke. What was received before is still delivered if the sink
    /// takes it without delay: it may be an early answer, whose sender did not read to the end.
    fn on_source_broken(&mut self, from: Side, cx: &mut Context<'_>) {
        self.broken = Some(CloseReason::reset_by(from));
        self.half(from).ended = true;
        self.active_at = cx.now;
        cx.ops.push_back(Op::Rearm);
    }

    fn on_sent(&mut self, from: Side, outcome: Result<u32, Errno>, cx: &mut Context<'_>) {
        match outcome {
            Ok(bytes) => {
                self.active_at = cx.now;
                let half = self.half(from);
                half.delivered += u64::from(bytes);
                if let Some(id) = half.backlog.consume(bytes, cx.links) {
                    cx.ops.push_back(Op::Release(id));
                }
                self.advance(from, cx);
            }
            Err(errno) if errno.is_transient() => self.advance(from, cx),
            Err(_) => self.on_sink_broken(from, cx),
        }
    }

    /// The sink's connection broke. What it had sent before may still wait to be received: an
    /// early answer to a request that it did not read to the end. So that direction goes on
    /// until it ends by itself or stalls.
    fn on_sink_broken(&mut self, from: Side, cx: &mut Context<'_>) {
        let reason = CloseReason::reset_by(from.other());
        if self.half(from.other()).shut {
            return self.close(reason, cx);
        }
        self.broken = Some(reason);
        self.active_at = cx.now;
        let half = self.half(from);
        half.ended = true;
        half.shut = true;
        half.in_pipe = 0;
        while let Some(id) = half.backlog.pop(cx.links) {
            cx.ops.push_back(Op::Release(id));
        }
        self.stop_receiving(from, cx);
        self.watch_soon(cx);
        cx.ops.push_back(Op::Rearm);
    }

    fn on_visit(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.state == State::Connecting && from == Side::Backend {
            self.connect(cx);
        } else if self.half(from).shut {
            // The sink broke since the visit was asked for.
        } else if self.half(from).mode == Mode::Splice {
            cx.ops.push_back(Op::Pump(from));
        } else {
            self.advance(from, cx);
        }
    }

    fn on_pumped(&mut self, from: Side, pumped: Pumped, cx: &mut Context<'_>) {
        if pumped.pulled > 0 {
            self.touch(from, cx.now);
        }
        if pumped.pushed > 0 {
            self.active_at = cx.now;
        }
        let half = self.half(from);
        half.in_pipe = half.in_pipe + pumped.pulled - pumped.pushed;
        half.delivered += u64::from(pumped.pushed);
        half.ended |= pumped.source == Source::Ended;
        let streams = half.on_visited(pumped);
        match (pumped.sink, pumped.source) {
            (Sink::Broken(_), _) => self.on_sink_broken(from, cx),
            (_, Source::Broken(_)) => self.close(CloseReason::reset_by(from), cx),
            (Sink::Full, _) => {
                self.ask(Purpose::PollSink(from), cx);
                self.watch_soon(cx);
            }
            (Sink::Ready, Source::Ended) => self.advance(from, cx),
            (Sink::Ready, _) if !streams => {
                self.half(from).demote();
                self.advance(from, cx);
            }
            (Sink::Ready, Source::Empty) if pumped.pulled == 0 => {
                self.ask(Purpose::PollSource(from), cx);
            }
            (Sink::Ready, Source::Empty | Source::Ready) => {
                let pace = self.half(from).pace();
                self.visit(from, pace, cx);
            }
        }
    }

    /// Does for one direction whatever its state asks for: send, receive, change mode, relay the
    /// end.
    fn advance(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.half(from).shut {
            return;
        }
        self.send_next(from, cx);
        self.receive_or_stop(from, cx);
        self.relay_end(from, cx);
    }

    /// One send in flight per direction: two could overtake each other.
    fn send_next(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.in_flight.has(Purpose::Send(from)) || self.state == State::Connecting {
            return;
        }
        let whole = self.broken.is_none();
        let half = self.half(from);
        if let Some(buffer) = half.backlog.front(cx.links) {
            // What is held back for an end that never comes would be lost.
            let last = whole && (half.ended || half.ending) && half.backlog.len() == 1;
            half.held_back = last;
            self.in_flight.insert(Purpose::Send(from));
            cx.ops.push_back(Op::Send(from, buffer, last));
        }
    }

    fn receive_or_stop(&mut self, from: Side, cx: &mut Context<'_>) {
        let receiving = self.in_flight.has(Purpose::Recv(from));
        let sending = self.in_flight.has(Purpose::Send(from));
        let waiting = self.in_flight.has(Purpose::Visit(from));
        let half = self.half(from);
        match half.mode {
            Mode::Copy if receiving => {
                if half.backlog.len() >= BACKLOG_HIGH {
                    self.stop_receiving(from, cx);
                }
            }
            Mode::Switching if receiving => self.stop_receiving(from, cx),
            Mode::Copy | Mode::Switching if waiting => {}
            Mode::Copy if !half.ended && half.backlog.len() <= BACKLOG_LOW => {
                self.ask(Purpose::Recv(from), cx);
            }
            Mode::Switching if !half.ended && !sending && half.backlog.is_empty() => {
                half.promote();
                cx.ops.push_back(Op::Pump(from));
            }
            Mode::Copy | Mode::Switching => {
                if half.is_loaded() {
                    self.watch_soon(cx);
                }
            }
            Mode::Splice => {}
        }
    }

    fn stop_receiving(&mut self, from: Side, cx: &mut Context<'_>) {
        let receiving = self.in_flight.has(Purpose::Recv(from));
        let half = self.half(from);
        if receiving && !half.stopping {
            half.stopping = true;
            cx.ops.push_back(Op::Cancel(Purpose::Recv(from)));
            self.watch_soon(cx);
        }
    }

    /// Relays the end of the stream after its last byte. The second end of a session is left to
    /// the close of its sockets, which says the same with two calls less.
    fn relay_end(&mut self, from: Side, cx: &mut Context<'_>) {
        let connecting = self.state == State::Connecting;
        let half = self.half(from);
        if connecting || !half.ended || half.is_loaded() {
            return;
        }
        half.shut = true;
        let held_back = half.held_back;
        let broke = self.broken == Some(CloseReason::reset_by(from));
        if broke && held_back {
            // The end came before the break, and a reset would drop what waits for it.
            cx.ops.push_back(Op::Shutdown(from.other()));
        }
        if broke || self.half(from.other()).shut {
            return self.close(self.broken.unwrap_or(CloseReason::Finished), cx);
        }
        self.active_at = cx.now;
        cx.ops.push_back(Op::Shutdown(from.other()));
        self.watch_soon(cx);
        cx.ops.push_back(Op::Rearm);
    }
}

/// Small things.
impl Session {
    fn ask(&mut self, purpose: Purpose, cx: &mut Context<'_>) {
        self.in_flight.insert(purpose);
        cx.ops.push_back(match purpose {
            Purpose::Recv(side) => Op::Recv(side),
            Purpose::PollSource(side) => Op::PollSource(side),
            Purpose::PollSink(side) => Op::PollSink(side),
            Purpose::Watch(side) => Op::Watch(side),
            Purpose::Accept
            | Purpose::Wake
            | Purpose::Detached
            | Purpose::Connect
            | Purpose::Send(_)
            | Purpose::Visit(_) => unreachable!("{purpose:?} is asked for elsewhere"),
        });
    }

    fn visit(&mut self, from: Side, after: u64, cx: &mut Context<'_>) {
        self.in_flight.insert(Purpose::Visit(from));
        cx.ops.push_back(Op::Visit(from, after));
    }

    fn touch(&mut self, from: Side, now: u64) {
        // While connecting, the attempt's start stands there.
        if self.state == State::Open {
            self.active_at = now;
        }
        if from == Side::Backend && self.first_byte_at == 0 {
            self.first_byte_at = now;
        }
    }

    fn acknowledge(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.late) {
            cx.ops.push_back(Op::Acknowledge);
        }
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Open && !self.kept_alive {
            self.kept_alive = true;
            cx.ops.push_back(Op::KeepAlive);
        }
    }

    /// A side from which nothing is read tells nothing of its reset. Watching costs an operation,
    /// so it begins only when that lasts: most half-closed sessions end sooner.
    fn watch_soon(&mut self, cx: &mut Context<'_>) {
        if self.watch_at == NEVER && self.watched.contains(&false) {
            self.watch_at = cx.now + WATCH_AFTER;
            cx.ops.push_back(Op::Rearm);
        }
    }

    fn watch(&mut self, cx: &mut Context<'_>) {
        self.watch_at = NEVER;
        for side in Side::BOTH {
            let read = self.in_flight.has(Purpose::Recv(side))
                || self.in_flight.has(Purpose::PollSource(side))
                || self.in_flight.has(Purpose::Visit(side));
            if !read && !self.watched[side as usize] {
                self.watched[side as usize] = true;
                self.ask(Purpose::Watch(side), cx);
            }
        }
    }

    fn join(&mut self, event: Event, cx: &mut Context<'_>) {
        if let Event::Received(from, buffer, _) = event {
            // It came too late to be sent, and counts as undelivered.
            self.half(from).backlog.push(buffer, cx.links);
        }
        if matches!(event, Event::Exhausted | Event::Unselected) {
            self.in_flight.remove(Purpose::Connect);
        }
        self.finish_when_joined(cx);
    }

    fn finish_when_joined(&self, cx: &mut Context<'_>) {
        if !self.in_flight.is_empty() {
            return;
        }
        // The manner of closing depends on what is undelivered, so only the memory goes here.
        for half in &self.halves {
            let mut backlog = half.backlog;
            while let Some(id) = backlog.pop(cx.links) {
                cx.ops.push_back(Op::Release(id));
            }
        }
        cx.ops.push_back(Op::Finish);
    }

    fn invariants_hold(&self) -> bool {
        Side::BOTH.into_iter().all(|from| {
            let half = &self.halves[from as usize];
            let sending = self.in_flight.has(Purpose::Send(from));
            let receiving = self.in_flight.has(Purpose::Recv(from));
            self.state == State::Closing
                || (half.mode != Mode::Splice || !sending && !receiving)
                    && (!half.stopping || receiving)
                    && (half.in_pipe == 0 || half.mode == Mode::Splice)
                    && (!half.shut || half.ended && !half.is_loaded())
        })
    }
}

/// The operation in flight that an event is about; `None` for answers that come at once.
fn purpose_of(event: &Event) -> Option<Purpose> {
    match *event {
        Event::Connected | Event::ConnectFailed(_) => Some(Purpose::Connect),
        Event::Received(from, _, _) | Event::RecvEnded(from, _) => Some(Purpose::Recv(from)),
        Event::Sent(from, _) => Some(Purpose::Send(from)),
        Event::SourceReady(from) => Some(Purpose::PollSource(from)),
        Event::SinkReady(from) => Some(Purpose::PollSink(from)),
        Event::Watched(side, _) => Some(Purpose::Watch(side)),
        Event::Visit(from) => Some(Purpose::Visit(from)),
        Event::Exhausted | Event::Unselected | Event::Pumped(..) | Event::Pipeless(_) => None,
    }
}

/// A direction stops receiving at so many unsent buffers (64 KiB)
const BACKLOG_HIGH: u16 = 4;
/// and starts again at so many.
const BACKLOG_LOW: u16 = 1;
/// What a broken connection left behind waits so long for its sink: 100 ms.
const LINGER: u64 = 100_000_000;
/// Until a side that is not read from is watched for its reset: 50 ms.
const WATCH_AFTER: u64 = 50_000_000;
/// Until a backend socket is tried again when descriptors are exhausted: 50 ms.
const EXHAUSTED_RETRY: u64 = 50_000_000;
