//! Moving bytes. Every function takes the direction by its source, `from`, or, where it is about
//! what is sent, by its sink, `to`, and is written once for both.

use crate::fault::Fault;
use crate::kernel::{Buffer, Errno, Pumped, SinkState, SourceState};
use crate::token::Purpose;

use super::flow::Mode;
use super::{CloseReason, Context, Op, Session, SessionState, Side};

impl Session {
    pub(super) fn on_received(&mut self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        if !self.ends[from as usize].tls.is_there() {
            self.touch(from, Some(buffer), cx);
        }
        Self::charge(from, buffer.len, cx);
        if self.is_over(from) {
            cx.ops.push_back(Op::Release(buffer.id));
            return;
        }
        self.end(from).starved = false;
        let flow = self.flow(from);
        // Bytes that join others behind a full sink are no progress for those.
        if !flow.is_loaded() {
            flow.waits = 0;
        }
        flow.on_filled(buffer.len);
        self.enter(from, buffer, cx);
        // A backend that sends in small steps may wait for each to be acknowledged.
        if from == Side::Backend && !self.end(from).ending {
            self.acknowledge(cx);
        }
        self.advance(from, cx);
    }

    pub(super) fn on_recv_ended(
        &mut self,
        from: Side,
        end: Result<(), Errno>,
        cx: &mut Context<'_>,
    ) {
        match end {
            Ok(()) if self.end(from).tls.is_there() => {
                self.on_tls_recv_ended(from, cx);
                if self.state == SessionState::Closing {
                    return;
                }
            }
            Ok(()) => {
                self.end(from).ended = true;
                self.hung_up |= from == Side::Backend && self.is_hang_up(cx.now);
                if self.state == SessionState::Peeking {
                    self.peek(true, cx);
                }
                if self.state != SessionState::Open {
                    // A client that waits for its backend may be gone.
                    self.watch_soon(cx.now);
                }
            }
            Err(Errno::CANCELED) => {}
            Err(errno) if is_short(errno) => {
                self.end(from).starved = true;
                if self.state != SessionState::Open && !self.is_sealed(from) {
                    return self.wait_for_arrivals(from, cx);
                }
                if self.may_pass_on(from) {
                    return self.pass_on(from, cx);
                }
                self.wait_for_memory(from, cx);
            }
            Err(errno) if errno.is_transient() => {
                self.begin_wait(from, cx);
            }
            Err(_) if self.state == SessionState::Open && self.flow(from).is_loaded() => {
                self.on_source_broken(from, cx.now);
            }
            Err(_) => return self.close(CloseReason::reset_by(from), cx),
        }
        self.advance(from, cx);
    }

    /// The source's connection broke. What was received before is still delivered if the sink
    /// takes it without delay: it may be an early answer, whose sender did not read to the end.
    pub(super) fn on_source_broken(&mut self, from: Side, now: u64) {
        self.broken = Some(CloseReason::reset_by(from));
        self.end(from).ended = true;
        self.active_at = now;
    }

    pub(super) fn on_sent(&mut self, to: Side, outcome: Result<u32, Errno>, cx: &mut Context<'_>) {
        let from = to.other();
        match outcome {
            Ok(bytes) => {
                self.active_at = cx.now;
                let carries_records = self.ends[to as usize].tls.is_there();
                let flow = self.flow(from);
                let received = match carries_records {
                    false => flow.on_sent(bytes),
                    true => flow.on_records_sent(bytes, cx.links),
                };
                if bytes > 0 {
                    flow.waits = 0;
                }
                match flow.backlog.consume(bytes, cx.links) {
                    Some(id) => cx.ops.push_back(Op::Release(id)),
                    // There was no room for the rest.
                    None => self.wait_for_room(from, cx),
                }
                if from == Side::Client && received > 0 {
                    self.on_asked(cx);
                }
                if !self.is_settled(from) {
                    self.advance(from, cx);
                }
            }
            // Without memory for it a socket polls as ready and takes nothing.
            Err(errno) if errno.is_transient() || is_short(errno) => {
                self.wait_for_room(from, cx);
                self.advance(from, cx);
            }
            Err(_) => self.on_sink_broken(to, cx),
        }
    }

    /// The sink's connection broke. What it had sent before may still wait to be received: an
    /// early answer to a request that it did not read to the end. So that direction goes on
    /// until it ends by itself or stalls.
    pub(super) fn on_sink_broken(&mut self, to: Side, cx: &mut Context<'_>) {
        let from = to.other();
        let reason = CloseReason::reset_by(to);
        if self.end(from).shut || self.state != SessionState::Open {
            return self.close(reason, cx);
        }
        self.broken = Some(reason);
        self.active_at = cx.now;
        self.end(to).shut = true;
        self.end(from).ended = true;
        let flow = self.flow(from);
        flow.in_pipe = 0;
        if flow.mode.is_tls() {
            flow.mode = Mode::Tls;
        }
        while let Some(id) = flow.backlog.pop(cx.links) {
            cx.ops.push_back(Op::Release(id));
        }
        self.stop_receiving(from, cx);
        self.watch_soon(cx.now);
    }

    /// Bytes moved from one side to the other.
    pub(super) fn on_moved(&mut self, from: Side, moved: Pumped, cx: &mut Context<'_>) {
        if moved.pulled > 0 {
            self.touch(from, None, cx);
            Self::charge(from, moved.pulled, cx);
        }
        if moved.pushed > 0 {
            self.active_at = cx.now;
            if from == Side::Client {
                self.on_asked(cx);
            }
        }
        self.flow(from).on_moved(moved);
    }

    pub(super) fn on_pumped(&mut self, from: Side, pumped: Pumped, cx: &mut Context<'_>) {
        let most = cx.granted(from);
        self.on_moved(from, pumped, cx);
        let streams = self.flow(from).on_visited(pumped, most);
        match (pumped.sink, pumped.source) {
            (SinkState::Broken(_), _) => self.on_sink_broken(from.other(), cx),
            (_, SourceState::Broken(_)) => self.close(CloseReason::reset_by(from), cx),
            (SinkState::Full, _) => self.wait_for_room(from, cx),
            // A receive passes over what splice stops at, and shows a real end.
            (SinkState::Ready, SourceState::Stopped) => self.demote(from, cx),
            (SinkState::Ready, _) if !streams => self.demote(from, cx),
            (SinkState::Ready, SourceState::Empty) if pumped.pulled == 0 => {
                self.wait_for_bytes(from, cx);
            }
            (SinkState::Ready, SourceState::Empty | SourceState::Ready) => {
                self.visit_stream(from, cx);
            }
        }
    }

    pub(super) fn demote(&mut self, from: Side, cx: &mut Context<'_>) {
        self.flow(from).demote();
        self.advance(from, cx);
    }

    /// Does for one direction whatever its state asks for: send, receive, change mode, relay the
    /// end.
    pub(super) fn advance(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.is_over(from) {
            return;
        }
        self.send_next(from, cx);
        self.receive_or_stop(from, cx);
        self.relay_end(from, cx);
    }

    /// Whether [`Self::advance`] would find nothing to do: all is sent, and the receive goes on. So
    /// it is after most sends.
    #[inline]
    fn is_settled(&self, from: Side) -> bool {
        let flow = &self.flows[from as usize];
        let receives = self.in_flight.has(Purpose::Recv(from));
        receives && flow.mode == Mode::Copy && flow.backlog.is_empty()
    }

    /// Sends what is next, and does nothing else for the direction.
    #[inline(never)]
    pub(super) fn send_alone(&mut self, from: Side, cx: &mut Context<'_>) {
        self.send_next(from, cx);
    }

    /// One send in flight per direction: two could overtake each other.
    #[inline(always)]
    fn send_next(&mut self, from: Side, cx: &mut Context<'_>) {
        let to = from.other();
        let (source, flow) = (&self.ends[from as usize], &self.flows[from as usize]);
        // After most sends nothing is left.
        let Some(buffer) = flow.backlog.front(cx.links) else {
            if flow.mode == Mode::TlsHeld {
                self.flush_tls(to, cx);
            }
            return;
        };
        let sending = self.in_flight.has(Purpose::Send(to));
        let may_send = self.state == SessionState::Open || self.may_speak_early(to);
        if sending || !may_send || self.waits_for_room(from) {
            return;
        }
        // What is held back for an end that never comes would be lost.
        let last = (source.ended || source.ending) && flow.backlog.len() == 1;
        let relays = last && self.broken.is_none() && !source.tls.is_cut();
        let more = relays || flow.is_followed();
        self.leave(to, buffer, more, cx);
    }

    /// Received bytes enter the flow that leads away from their end: through TLS, where one of the
    /// ends speaks it, else as they came.
    #[inline]
    pub(super) fn enter(&mut self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        if self.is_sealed(from) {
            return self.enter_through_tls(from, buffer, cx);
        }
        self.overhear(from, buffer, cx);
        if self.state == SessionState::Peeking {
            self.on_first_bytes(buffer, cx);
        } else {
            self.flow(from).backlog.push(buffer, cx.links);
        }
    }

    /// Shows the worker what a backend says first, where its pool asks for that.
    #[inline]
    pub(super) fn overhear(&self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        if from == Side::Backend
            && cx.limits.overhears
            && self.flows[from as usize].delivered < OVERHEARD_MAX
        {
            cx.ops.push_back(Op::Overhear(buffer));
        }
    }

    /// The first bytes of the flow that leads to an end leave it.
    fn leave(&mut self, to: Side, buffer: Buffer, more: bool, cx: &mut Context<'_>) {
        self.end(to).held_back = more;
        self.in_flight.insert(Purpose::Send(to));
        cx.ops.push_back(Op::Send(to, buffer, more));
    }

    pub(super) fn receive_or_stop(&mut self, from: Side, cx: &mut Context<'_>) {
        let in_flight = self.in_flight;
        let receiving = in_flight.has(Purpose::Recv(from));
        let is_awaited = || in_flight.is_visited(from) || in_flight.has(Purpose::PollSource(from));
        // The first bytes need only one buffer, and are received until they suffice.
        let (low, high) = if self.state == SessionState::Peeking {
            (1, 2)
        } else {
            (cx.links.low(), cx.links.high())
        };
        let source = &mut self.ends[from as usize];
        let flow = &mut self.flows[from as usize];
        match flow.mode {
            Mode::Copy if receiving => {
                if flow.backlog.len() >= high {
                    self.stop_receiving(from, cx);
                }
            }
            Mode::Switching if receiving => self.stop_receiving(from, cx),
            Mode::Copy | Mode::Switching if is_awaited() => {}
            Mode::Copy if !source.ended && flow.backlog.len() <= low => self.receive(from, cx),
            Mode::Switching
                if !source.ended
                    && flow.backlog.is_empty()
                    && !in_flight.has(Purpose::Send(from.other())) =>
            {
                source.starved = false;
                flow.promote();
                self.pump(from, cx);
            }
            Mode::Copy | Mode::Switching => {
                if flow.is_loaded() {
                    self.watch_soon(cx.now);
                }
            }
            Mode::Splice => {}
            Mode::Tls | Mode::TlsHeld => self.receive_through_tls(from, (low, high), cx),
        }
    }

    /// Receives from one end.
    #[inline]
    fn receive(&mut self, from: Side, cx: &mut Context<'_>) {
        // Without a buffer the receive ends at once, with an error.
        self.end(from).starved = false;
        let peeks = self.state == SessionState::Peeking;
        if peeks {
            Self::pass_first_bytes(cx);
        }
        if peeks || !self.rests(from, cx) {
            self.ask(Purpose::Recv(from), cx);
        }
    }

    /// What [`Self::receive_or_stop`] does in a session with TLS. It stands apart, so that others
    /// do not pay for it.
    #[inline(never)]
    fn receive_through_tls(&mut self, from: Side, (low, high): (u16, u16), cx: &mut Context<'_>) {
        let (backlog, ended) = (self.flow(from).backlog.len(), self.end(from).ended);
        let in_flight = self.in_flight;
        if from == Side::Backend && self.state != SessionState::Open {
            // There is no backend yet.
        } else if in_flight.has(Purpose::Recv(from)) {
            if backlog >= high {
                self.stop_receiving(from, cx);
            }
        } else if in_flight.is_visited(from) || in_flight.has(Purpose::PollSource(from)) {
            // It goes on after that.
        } else if !ended && backlog <= low {
            self.receive(from, cx);
        } else if self.flow(from).is_loaded() {
            self.watch_soon(cx.now);
        }
    }

    pub(super) fn stop_receiving(&mut self, from: Side, cx: &mut Context<'_>) {
        let receiving = self.in_flight.has(Purpose::Recv(from));
        let source = self.end(from);
        if receiving && !source.stopping {
            source.stopping = true;
            cx.ops.push_back(Op::Cancel(Purpose::Recv(from)));
            self.watch_soon(cx.now);
        }
    }

    /// Relays the end of the stream after its last byte. The second end of a session is left to
    /// the close of its sockets, which relays it too and saves two calls.
    pub(super) fn relay_end(&mut self, from: Side, cx: &mut Context<'_>) {
        if !self.end(from).ended || self.state != SessionState::Open {
            return;
        }
        // What a receive that was asked to end still brings comes before the end.
        if self.in_flight.has(Purpose::Recv(from)) || self.flow(from).is_loaded() {
            return;
        }
        let to = from.other();
        let ends = self.ends[0].tls.is_there() || self.ends[1].tls.is_there();
        if ends && !self.relays_end_of_tls(from, cx) {
            return;
        }
        let broke = self.broken == Some(CloseReason::reset_by(from));
        let sink = self.end(to);
        sink.shut = true;
        let held_back = sink.held_back;
        if broke && held_back {
            // The end came before the break, and a reset would drop what waits for it.
            cx.ops.push_back(Op::Shutdown(to));
        }
        if broke || self.end(from).shut {
            let first = CloseReason::closed_by(to);
            return self.close(self.broken.unwrap_or(first), cx);
        }
        self.active_at = cx.now;
        cx.ops.push_back(Op::Shutdown(to));
        self.watch_soon(cx.now);
    }
}

/// Whether the kernel lacked something, for any peer.
fn is_short(errno: Errno) -> bool {
    Fault::of_traffic(errno, Fault::Client) == Fault::Resources
}

/// Bytes of a backend that are its first: 16 KiB.
const OVERHEARD_MAX: u64 = 16 * 1024;
