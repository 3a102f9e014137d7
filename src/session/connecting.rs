//! Connecting: attempts, one backend after the other, while the client's first bytes wait.

use crate::fault::Fault;
use crate::kernel::{BUFFER_BYTES, Buffer, Errno};
use crate::time::MS;
use crate::token::Purpose;

use super::{CloseReason, Context, Links, Op, Opening, Session, SessionLimits, SessionState, Side};

impl Session {
    pub(super) fn connect(&mut self, cx: &mut Context<'_>) {
        self.in_flight.insert(Purpose::Connect);
        self.attempts += 1;
        cx.ops.push_back(Op::Connect);
    }

    /// What has been received of the client's first bytes, while there is no backend.
    #[must_use]
    pub fn first_bytes(&self, links: &Links) -> Option<Buffer> {
        self.flows[Side::Client as usize].backlog.front(links)
    }

    pub(super) fn on_connected(&mut self, opening: Opening, cx: &mut Context<'_>) {
        self.state = SessionState::Open;
        self.answer = cx.now.saturating_sub(self.active_at);
        self.active_at = cx.now;
        self.connected_at = cx.now;
        // The client's bytes have waited for buffers, and not for room at the backend.
        self.flow(Side::Client).waits = 0;
        match opening {
            Opening::Bare => {}
            Opening::Header(made) => self.precede(made, cx),
            Opening::Sealed => self.seal_backend(cx),
        }
        // The first bytes complete the handshake of TCP, as one of TLS has; without any, nothing
        // would.
        if opening != Opening::Sealed && !self.flow(Side::Client).is_loaded() {
            self.acknowledge(cx);
        }
        // Bytes that found no buffer go on when the poll has ended.
        if self.in_flight.has(Purpose::PollSource(Side::Client)) {
            cx.ops
                .push_back(Op::Cancel(Purpose::PollSource(Side::Client)));
        }
        for from in Side::BOTH {
            self.advance(from, cx);
        }
    }

    /// Has made bytes go to the backend before the client's. Where its first buffer fits behind
    /// them, both leave in one send, and in one segment.
    fn precede(&mut self, mut made: Buffer, cx: &mut Context<'_>) {
        let flow = self.flow(Side::Client);
        flow.made = u16::try_from(made.len).expect("a header is shorter than a buffer");
        let first = flow.backlog.front(cx.links);
        let first = first.filter(|first| made.start + made.len + first.len <= BUFFER_BYTES);
        if let Some(first) = first {
            cx.ops.push_back(Op::Append(made, first));
            cx.ops.push_back(Op::Release(first.id));
            flow.backlog.pop(cx.links);
            made.len += first.len;
        }
        flow.joined = first.is_some();
        flow.backlog.push_front(made, cx.links);
    }

    pub(super) fn on_connect_failed(&mut self, errno: Errno, cx: &mut Context<'_>) {
        // A cancelled connect timed out; any other error is the real cause.
        let overdue = std::mem::take(&mut self.overdue) && errno == Errno::CANCELED;
        let fault = if overdue {
            Fault::Unanswered
        } else {
            Fault::of_connect(errno)
        };
        cx.ops.push_back(Op::Abandon(fault));
        match fault {
            Fault::Resources | Fault::Busy => self.on_lacking(fault, cx),
            // From another address, or towards another backend, there may be a port.
            Fault::Ports | Fault::Source => {
                self.attempts -= 1;
                self.held_by = Some(held_by(fault));
                self.connect(cx);
            }
            Fault::Backend | Fault::Unanswered | Fault::Network | Fault::Client | Fault::Local => {
                self.held_by = None;
                self.extended = false;
                self.try_again(fault, cx);
            }
        }
    }

    fn try_again(&mut self, fault: Fault, cx: &mut Context<'_>) {
        let left = self.attempts < cx.limits.attempts;
        if left || fault != Fault::Unanswered && self.may_go_on(cx.limits) {
            self.active_at = cx.now;
            self.connect(cx);
        } else if fault == Fault::Unanswered {
            self.close(CloseReason::ConnectTimeout, cx);
        } else {
            self.close(CloseReason::ConnectFailed, cx);
        }
    }

    /// Whether attempts that are used up may be followed by one on a backend that was not tried. To
    /// be refused costs no time, and one backend that answers is enough.
    fn may_go_on(&self, limits: &SessionLimits) -> bool {
        limits.attempts > 1 && self.attempts < ATTEMPTS_MAX
    }

    /// Whether it may only connect to a backend that it has not tried.
    #[must_use]
    pub fn is_out_of_attempts(&self, limits: &SessionLimits) -> bool {
        self.attempts > limits.attempts
    }

    /// Whether the present attempt is to end: its time is over, or the session has ended.
    #[must_use]
    pub fn is_attempt_over(&self) -> bool {
        self.overdue || self.state == SessionState::Closing
    }

    /// There is no backend for the attempt, so that it is not made.
    pub(super) fn on_refused(&mut self, why: CloseReason, cx: &mut Context<'_>) {
        self.attempts -= 1;
        self.close(why, cx);
    }

    /// The client waits, as it would in the kernel's backlog. That is no attempt, and the time of
    /// the attempt runs on.
    pub(super) fn on_lacking(&mut self, fault: Fault, cx: &mut Context<'_>) {
        self.attempts -= 1;
        self.held_by = Some(held_by(fault));
        // Once at least before its time is over.
        let after = RETRY_AFTER.min(cx.limits.connect / 2);
        self.visit(Purpose::Retry, after, cx);
    }

    /// The client waits before a backend that was tried is tried again. Unless the last attempt was
    /// none, as something lacked, the time of the next one begins with it.
    pub(super) fn on_paused(&mut self, cx: &mut Context<'_>) {
        self.attempts -= 1;
        if self.held_by.is_none() {
            self.active_at = cx.now + RETRY_AFTER;
        }
        self.visit(Purpose::Retry, RETRY_AFTER, cx);
    }

    /// The wait is over.
    pub(super) fn on_retry(&mut self, cx: &mut Context<'_>) {
        if self.held_by.is_none() {
            self.active_at = cx.now;
        }
        self.connect(cx);
    }

    /// The time of an attempt is over.
    pub(super) fn on_late(&mut self, cx: &mut Context<'_>) {
        let connects = self.in_flight.has(Purpose::Connect);
        match self.held_by {
            // A lack shows at once: this connect waits for its backend, and has not waited long.
            Some(_) if connects && !self.extended => {
                self.extended = true;
                self.held_by = None;
                self.active_at = cx.now;
            }
            None if connects => {
                self.overdue = true;
                cx.ops.push_back(Op::Cancel(Purpose::Connect));
            }
            held_by => self.close(held_by.unwrap_or(CloseReason::ConnectFailed), cx),
        }
    }

    /// The client waits for a place at one of the backends. That is no attempt, and the time of
    /// the attempt stands still.
    pub(super) fn on_queued(&mut self, now: u64) {
        self.attempts -= 1;
        self.state = SessionState::Queued;
        self.queued_at = now;
        if self.ends[Side::Client as usize].ended {
            self.watch_soon(now);
        }
    }

    pub(super) fn on_called(&mut self, cx: &mut Context<'_>) {
        let waited = self.leave_queue(cx.now);
        self.active_at += waited;
        self.state = SessionState::Connecting;
        self.connect(cx);
    }

    /// The wait is over, one way or the other; how long it took, in ns.
    pub(super) fn leave_queue(&mut self, now: u64) -> u64 {
        let waited = now.saturating_sub(self.queued_at);
        self.queued += waited;
        waited
    }
}

/// Why a session is closed whose attempt could not be made in time.
fn held_by(fault: Fault) -> CloseReason {
    match fault {
        Fault::Ports => CloseReason::NoLocalPort,
        Fault::Source => CloseReason::NoSourceAddress,
        Fault::Resources => CloseReason::NoResources,
        Fault::Unanswered => CloseReason::ConnectTimeout,
        Fault::Busy | Fault::Backend | Fault::Network | Fault::Client | Fault::Local => {
            CloseReason::ConnectFailed
        }
    }
}

/// Until a connect that could not be begun is tried again: 50 ms.
pub const RETRY_AFTER: u64 = 50 * MS;
/// Connect attempts of one session, however soon each is refused.
const ATTEMPTS_MAX: u8 = 16;
