//! Waiting for room and for bytes.
//!
//! The kernel may end a wait at once and in vain: a poll reports that the peer has ended its
//! direction, asked or not, and a socket may poll as ready and take nothing while memory is short.
//! So a wait without result is followed by another kind of wait: a multishot poll where
//! one that ends by itself is useless, and a pause before the next poll, which grows until
//! something moves.
//!
//! When no buffer is left, bytes of a client without a backend stay at its socket, where they are
//! looked at as they arrive. Later a direction whose own bytes are all sent passes on what its sink
//! takes at once. So sessions that move go on, however many hold buffers that their sinks don't
//! take.

use crate::kernel::{Pumped, SinkState, SourceState};
use crate::time::{MS, US};
use crate::token::Purpose;

use super::flow::Mode;
use super::{Arrival, CloseReason, Context, Op, Session, SessionState, Side};

impl Session {
    /// The sink has no room for all that is there.
    pub(super) fn wait_for_room(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.begin_wait(from, cx) {
            self.ask(Purpose::PollSink(from.other()), cx);
        }
        self.watch_soon(cx.now);
    }

    /// The spliced source has no bytes.
    pub(super) fn wait_for_bytes(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.begin_wait(from, cx) {
            self.ask(Purpose::PollSource(from), cx);
        }
    }

    /// There is no buffer, or the kernel has no memory: no poll reports when that changes.
    pub(super) fn wait_for_memory(&mut self, from: Side, cx: &mut Context<'_>) {
        let pause = pause_after(self.flow(from).waits);
        if self.begin_wait(from, cx) && !self.in_flight.is_visited(from) {
            self.visit(Purpose::Starvation(from), pause, cx);
        }
    }

    /// There is no buffer for bytes of a client that has no backend yet. They stay at the socket,
    /// until there is a backend: a poll that goes on reports more of them, and a break.
    pub(super) fn wait_for_arrivals(&mut self, from: Side, cx: &mut Context<'_>) {
        if !self.in_flight.has(Purpose::PollSource(from)) {
            self.ask(Purpose::PollSource(from), cx);
        }
    }

    /// The source has bytes, or has ended or broken, while the session has no backend.
    pub(super) fn on_arrival(
        &mut self,
        from: Side,
        arrival: Arrival,
        more: bool,
        cx: &mut Context<'_>,
    ) {
        if arrival == Arrival::Fault {
            return self.close(CloseReason::reset_by(from), cx);
        }
        if self.state == SessionState::Peeking {
            self.peek_ahead(arrival == Arrival::End, cx);
        }
        if !more {
            // The kernel ended it: it had no room for its answers.
            self.wait_for_memory(from, cx);
        }
    }

    /// Whether a direction that found no buffer may pass on what its sink takes.
    pub(super) fn may_pass_on(&self, from: Side) -> bool {
        let flow = &self.flows[from as usize];
        let copies = self.state == SessionState::Open && flow.mode == Mode::Copy;
        let receives = self.in_flight.has(Purpose::Recv(from));
        let ended = self.ends[from as usize].ended || self.is_over(from);
        copies && !receives && !ended && !flow.is_loaded()
    }

    pub(super) fn on_passed_on(&mut self, from: Side, moved: Pumped, cx: &mut Context<'_>) {
        self.on_moved(from, moved, cx);
        if from == Side::Backend && moved.pulled > 0 {
            self.acknowledge(cx);
        }
        match (moved.sink, moved.source) {
            (SinkState::Broken(_), _) => self.on_sink_broken(from.other(), cx),
            (_, SourceState::Broken(errno)) => self.on_recv_ended(from, Err(errno), cx),
            (SinkState::Full, _) => self.wait_for_room(from, cx),
            (SinkState::Ready, SourceState::Stopped) => self.on_recv_ended(from, Ok(()), cx),
            (SinkState::Ready, SourceState::Empty) => {
                self.end(from).starved = false;
                self.wait_for_bytes(from, cx);
            }
            // By now there may be a buffer for more.
            (SinkState::Ready, SourceState::Ready) => self.advance(from, cx),
        }
    }

    /// Takes note of another wait. `true`: the kernel is asked; `false`: a pause stands before
    /// that, as it does every second time while nothing moves.
    pub(super) fn begin_wait(&mut self, from: Side, cx: &mut Context<'_>) -> bool {
        let flow = self.flow(from);
        let waits = flow.waits;
        flow.waits = if waits < WAITS_MAX {
            waits + 1
        } else {
            waits - 1
        };
        if waits > 0 {
            cx.ops.push_back(Op::InVain);
        }
        let pauses = waits % 2 == 1;
        if pauses && !self.in_flight.has(Purpose::Starvation(from)) {
            self.visit(Purpose::Starvation(from), pause_after(waits), cx);
        }
        !pauses
    }

    /// The poll of a sink has ended, or (`more`) is a multishot one and reports a change.
    pub(super) fn on_sink_ready(&mut self, to: Side, room: bool, more: bool, cx: &mut Context<'_>) {
        if !room {
            cx.ops.push_back(Op::InVain);
        }
        let sink = self.end(to);
        match (more, room) {
            // The direction continues when the poll has ended.
            (true, true) => cx.ops.push_back(Op::Cancel(Purpose::PollSink(to))),
            (true, false) => {}
            (false, false) if !sink.ends_polls => {
                sink.ends_polls = true;
                self.ask(Purpose::PollSink(to), cx);
            }
            (false, _) => self.go_on(to.other(), cx),
        }
    }

    /// Moves what can be moved, after a wait.
    pub(super) fn go_on(&mut self, from: Side, cx: &mut Context<'_>) {
        if self.is_over(from) {
            // The sink broke during the wait.
        } else if self.flow(from).mode == Mode::Splice {
            self.pump(from, cx);
        } else if self.end(from).tls.is_undrained() {
            // What it holds may be all that others wait for.
            self.send_alone(from, cx);
            self.drain_tls(from, cx);
        } else if self.end(from).starved && self.may_pass_on(from) {
            self.pass_on(from, cx);
        } else {
            self.advance(from, cx);
        }
    }

    /// Whether a peer has bytes to take before more can be sent to it.
    #[must_use]
    pub fn is_waiting_for_room(&self) -> bool {
        let mut both = Side::BOTH.into_iter();
        self.state == SessionState::Open && both.any(|from| self.waits_for_room(from))
    }

    /// Whether bytes wait until there is room, or until it is time to look again.
    pub(super) fn waits_for_room(&self, from: Side) -> bool {
        let flow = &self.flows[from as usize];
        let pauses = flow.waits > 1 && flow.is_loaded();
        self.in_flight.has(Purpose::PollSink(from.other()))
            || pauses && self.in_flight.has(Purpose::Starvation(from))
    }
}

fn pause_after(waits: u8) -> u64 {
    (PAUSE_MIN << (waits / 2)).min(PAUSE_MAX)
}

/// The first pause: 200 µs.
const PAUSE_MIN: u64 = 200 * US;
/// The longest: 50 ms.
const PAUSE_MAX: u64 = 50 * MS;
/// Even, and enough for the pause to have grown.
const WAITS_MAX: u8 = 20;
