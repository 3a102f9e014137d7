//! Limits of bandwidth. A direction asks before it takes bytes; while there are none for it, it
//! rests and is visited. Bytes that it has taken are delivered as ever.

use crate::kernel::UNBOUNDED;
use crate::time::MS;
use crate::token::Purpose;

use super::{Context, Op, Session, Side, Watch};

impl Context<'_> {
    /// Until when a direction is to rest; `None`: it may take bytes now.
    fn rest(&mut self, from: Side, streams: bool) -> Option<u64> {
        let pacing = self.pacing.as_mut()?;
        pacing.ask(from as usize, streams, self.now)
    }

    /// How many bytes the last operation of a direction was to take.
    pub(super) fn granted(&self, from: Side) -> u32 {
        let pacing = self.pacing.as_ref();
        pacing.map_or(UNBOUNDED, |pacing| pacing.lanes[from as usize].granted())
    }
}

impl Session {
    /// Takes note of bytes that a direction took.
    pub(super) fn charge(from: Side, bytes: u32, cx: &mut Context<'_>) {
        if let Some(pacing) = &mut cx.pacing {
            pacing.charge(from as usize, bytes, cx.now);
        }
    }

    /// The first bytes of a client are not waited for: they are few.
    pub(super) fn pass_first_bytes(cx: &mut Context<'_>) {
        if let Some(pacing) = &mut cx.pacing {
            pacing.pass(Side::Client as usize);
        }
    }

    /// Whether a direction that copies rests now, as its bytes are used up.
    pub(super) fn rests(&mut self, from: Side, cx: &mut Context<'_>) -> bool {
        let Some(until) = cx.rest(from, false) else {
            return false;
        };
        self.rest_until(from, until, cx);
        true
    }

    /// Splices on, unless the bytes of the direction are used up and its pipe is empty.
    pub(super) fn pump(&mut self, from: Side, cx: &mut Context<'_>) {
        match cx.rest(from, true) {
            Some(until) if self.flow(from).in_pipe == 0 => self.rest_until(from, until, cx),
            _ => cx.ops.push_back(Op::Pump(from)),
        }
    }

    /// Passes bytes on without a buffer, unless those of the direction are used up.
    pub(super) fn pass_on(&mut self, from: Side, cx: &mut Context<'_>) {
        if !self.rests(from, cx) {
            cx.ops.push_back(Op::PassOn(from));
        }
    }

    /// Visits a stream by its pace, or when it may take bytes again.
    pub(super) fn visit_stream(&mut self, from: Side, cx: &mut Context<'_>) {
        let pace = self.flow(from).pace();
        let rest = cx.rest(from, true).map_or(0, |until| until - cx.now);
        if rest > 0 {
            self.watch_rest(from, cx.now);
        }
        self.visit(Purpose::Pace(from), pace.max(rest.min(REST_MAX)), cx);
    }

    fn rest_until(&mut self, from: Side, until: u64, cx: &mut Context<'_>) {
        if !self.in_flight.has(Purpose::Pace(from)) {
            let rest = until.saturating_sub(cx.now).min(REST_MAX);
            self.visit(Purpose::Pace(from), rest, cx);
        }
        self.watch_rest(from, cx.now);
    }

    /// A direction that rests does not show that its source has broken.
    fn watch_rest(&mut self, from: Side, now: u64) {
        if matches!(self.end(from).watch, Watch::None | Watch::Broken) {
            self.watch_soon(now);
        }
    }

    /// Whether a direction waits for its limit: it takes nothing until then.
    pub(super) fn is_resting(&self, from: Side, cx: &Context<'_>) -> bool {
        self.in_flight.has(Purpose::Pace(from)) && cx.granted(from) == 0
    }

    /// Whether a direction is visited by pace. It is not idle, however long its limit has it rest.
    pub(super) fn is_paced(&self) -> bool {
        let mut sides = Side::BOTH.into_iter();
        sides.any(|from| self.in_flight.has(Purpose::Pace(from)))
    }
}

/// The longest time from one look at a direction that rests to the next: 50 ms. Meanwhile its limit
/// may have changed, and a session that is to be closed waits for the visit.
const REST_MAX: u64 = 50 * MS;
