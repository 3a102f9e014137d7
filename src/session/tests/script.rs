//! The helpers of the scripts.

use std::collections::VecDeque;

use super::*;
use crate::guard::{Lane, Meters, SHARED};
use crate::time::MS;

/// A session with a clock of its own.
pub(super) struct Script {
    pub(super) session: Session,
    limits: SessionLimits,
    pub(super) links: Links,
    pub(super) ops: VecDeque<Op>,
    pub(super) now: u64,
    next_buffer: u16,
    /// The bytes that the peers have not acknowledged.
    pub(super) unsent: [Unsent; 2],
    /// The number of `Answered` among the operations.
    pub(super) answers: usize,
    /// The number of `InVain` among them.
    pub(super) in_vain: usize,
    /// The limits of its bandwidth.
    pub(super) rates: Meters,
    lanes: [Lane; 2],
    rests: u64,
}

impl Script {
    /// A client was accepted.
    pub(super) fn begin() -> Self {
        Self::begin_with(LIMITS)
    }

    pub(super) fn begin_with(limits: SessionLimits) -> Self {
        let (mut links, mut ops) = (Links::default(), Ops::default());
        let now = 1_000 * MS;
        let session = Session::open(&mut Context {
            now,
            limits: &limits,
            links: &mut links,
            ops: &mut ops,
            pacing: None,
        });
        let mut script = Self {
            session,
            limits,
            links,
            ops: std::iter::from_fn(|| ops.pop_front()).collect(),
            now,
            next_buffer: 0,
            unsent: [Unsent::default(); 2],
            answers: 0,
            in_vain: 0,
            rates: Meters::default(),
            lanes: Default::default(),
            rests: 0,
        };
        let connects = limits.peek.is_none() && limits.handshake.is_none();
        let connect = connects.then_some(Op::Connect);
        let first: Vec<_> = [Op::Recv(Client)].into_iter().chain(connect).collect();
        script.asks(&first);
        script
    }

    /// A client whose TLS ends here was accepted.
    pub(super) fn handshaking(limits: SessionLimits) -> Self {
        assert!(limits.handshake.is_some(), "its TLS ends here");
        Self::begin_with(limits)
    }

    /// A client was accepted and a backend connected before the client sent anything.
    pub(super) fn connected() -> Self {
        Self::connected_with(LIMITS)
    }

    pub(super) fn connected_with(limits: SessionLimits) -> Self {
        let mut script = Self::begin_with(limits);
        script.on_event(Event::Connected(Opening::Bare));
        script.asks(&[Op::Acknowledge, Op::Recv(Backend)]);
        script
    }

    pub(super) fn cx<T>(&mut self, call: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> T {
        let mut ops = Ops::default();
        self.ops.drain(..).for_each(|op| ops.push_back(op));
        let mut cx = Context {
            now: self.now,
            limits: &self.limits,
            links: &mut self.links,
            ops: &mut ops,
            pacing: self.rates.is_limited().then_some(Pacing {
                lanes: &mut self.lanes,
                session: &self.rates,
                shared: [None; SHARED],
                is_connected: true,
                rests: &mut self.rests,
            }),
        };
        let before = self.session.is_steady();
        let deadline = self.session.deadline(self.now, &self.limits);
        let answer = call(&mut self.session, &mut cx);
        self.ops.extend(std::iter::from_fn(|| ops.pop_front()));
        if before && self.session.is_steady() {
            let now = self.session.deadline(self.now, &self.limits);
            assert!(
                now >= deadline,
                "the deadline of a steady session came nearer"
            );
        }
        answer
    }

    /// The last completion of an operation, or the answer to one that has none.
    pub(super) fn on_event(&mut self, event: Event) {
        self.cx(|session, cx| session.on_event(event, false, cx));
    }

    /// A step of an operation that stays in flight.
    pub(super) fn told_more(&mut self, event: Event) {
        self.cx(|session, cx| session.on_event(event, true, cx));
    }

    /// A multishot receive brings this many bytes and goes on; returns the buffer.
    pub(super) fn receives(&mut self, from: Side, bytes: u32) -> Buffer {
        let buffer = self.buffer(bytes);
        self.cx(|session, cx| session.on_event(Event::Received(from, buffer, false), true, cx));
        buffer
    }

    /// A receive brings the last bytes of a stream, and its end in the same batch.
    pub(super) fn receives_last(&mut self, from: Side, bytes: u32) -> Buffer {
        let buffer = self.buffer(bytes);
        self.cx(|session, cx| session.on_event(Event::Received(from, buffer, true), true, cx));
        self.on_event(Event::RecvEnded(from, Ok(())));
        buffer
    }

    pub(super) fn buffer(&mut self, len: u32) -> Buffer {
        self.next_buffer += 1;
        Buffer {
            id: self.next_buffer,
            start: 0,
            len,
        }
    }

    pub(super) fn sent(&mut self, to: Side, bytes: u32) {
        self.on_event(Event::Sent(to, Ok(bytes)));
    }

    pub(super) fn pumped(
        &mut self,
        from: Side,
        moved: [u32; 2],
        source: SourceState,
        sink: SinkState,
    ) {
        let [pulled, pushed] = moved;
        self.on_event(Event::Pumped(
            from,
            Pumped {
                pulled,
                pushed,
                source,
                sink,
            },
        ));
    }

    /// Exactly these operations were submitted since the last check. `Answered` and `InVain` are
    /// counted, and reports of the backend's work are left out.
    pub(super) fn asks(&mut self, expected: &[Op]) {
        let asked: Vec<Op> = self.ops.drain(..).collect();
        let is_answer = |op: &Op| matches!(op, Op::Answered(_));
        self.answers += asked.iter().filter(|op| is_answer(op)).count();
        self.in_vain += asked.iter().filter(|op| **op == Op::InVain).count();
        let outcomes = [Op::InVain, Op::Asked, Op::Replied];
        let others = asked.into_iter();
        let others = others.filter(|op| !is_answer(op) && !outcomes.contains(op));
        assert_eq!(others.collect::<Vec<_>>(), expected);
    }

    /// Time passes; the deadline fires if it is reached, and the kernel reports the unacknowledged
    /// bytes.
    pub(super) fn passes(&mut self, time: u64) {
        let deadline = self.session.deadline(self.now, &self.limits);
        self.now += time;
        if self.now >= deadline {
            self.cx(|session, cx| session.on_deadline(cx));
        }
        if let Some(at) = self.ops.iter().position(|op| *op == Op::Unsent) {
            self.ops.remove(at);
            self.on_event(Event::Unsent(self.unsent));
        }
        self.ops.retain(|op| *op != Op::KeepAlive);
    }

    pub(super) fn summary(&self) -> Summary {
        self.session.summary(self.now)
    }

    pub(super) fn deadline_in(&self) -> u64 {
        self.session.deadline(self.now, &self.limits) - self.now
    }

    pub(super) fn ends(&mut self, reason: CloseReason, manner: Manner) {
        self.asks(&[Op::Finish]);
        assert_eq!(self.session.reason(), Some(reason));
        assert_eq!(self.session.manner(), manner);
    }

    /// Three full buffers from this side are received and sent: it is spliced now.
    pub(super) fn promoted(from: Side) -> Self {
        Self::promoted_with(LIMITS, from)
    }

    pub(super) fn promoted_with(limits: SessionLimits, from: Side) -> Self {
        let to = from.other();
        let mut script = Self::connected_with(limits);
        for _ in 0..3 {
            let buffer = script.receives(from, BUFFER_BYTES);
            script
                .ops
                .retain(|op| !matches!(op, Op::Answered(_) | Op::Asked));
            assert_eq!(script.ops.pop_front(), Some(Op::Send(to, buffer, false)));
            if script.ops.is_empty() {
                script.sent(to, BUFFER_BYTES);
                script.asks(&[Op::Release(buffer.id)]);
            }
        }
        script.asks(&[Op::Cancel(Purpose::Recv(from))]);
        script.sent(to, BUFFER_BYTES);
        script.asks(&[Op::Release(3)]);
        script.on_event(Event::RecvEnded(from, Err(Errno::CANCELED)));
        script.asks(&[Op::Pump(from)]);
        script
    }
}

pub(super) const LIMITS: SessionLimits = SessionLimits {
    connect: 5_000 * MS,
    idle: 600_000 * MS,
    half_closed: 30_000 * MS,
    session: NEVER,
    attempts: 3,
    peek: None,
    server_first: NEVER,
    ends_half_sent: false,
    ends_together: false,
    watches_work: true,
    overhears: false,
    handshake: None,
};
