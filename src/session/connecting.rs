//! Connecting: attempts, one backend after the other, while the client's first bytes wait.

use crate::kernel::Errno;
use crate::token::Purpose;

use super::{CloseReason, Context, Op, Session, Side, State};

impl Session {
    pub(super) fn connect(&mut self, cx: &mut Context<'_>) {
        self.in_flight.insert(Purpose::Connect);
        self.attempts += 1;
        cx.ops.push_back(Op::Connect);
    }

    pub(super) fn on_connected(&mut self, cx: &mut Context<'_>) {
        let armed = self.deadline(cx.limits);
        self.state = State::Open;
        self.answer = cx.now.saturating_sub(self.active_at);
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

    pub(super) fn on_connect_failed(&mut self, errno: Errno, cx: &mut Context<'_>) {
        let overdue = std::mem::take(&mut self.overdue);
        // Not the backend's doing: memory is short, or a Unix socket's backlog is full.
        let starved = !overdue && (errno.is_exhaustion() || errno.is_transient());
        cx.ops.push_back(Op::Abandon(!starved));
        if starved {
            return self.on_exhausted(cx);
        }
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

    /// The client waits, as it would in the kernel's backlog: for a descriptor, for memory, or
    /// before the only backend is tried again.
    pub(super) fn on_exhausted(&mut self, cx: &mut Context<'_>) {
        self.attempts -= 1;
        self.held_by = if self.attempts > 0 {
            CloseReason::ConnectFailed
        } else {
            CloseReason::NoResources
        };
        self.visit(Side::Backend, RETRY_AFTER, cx);
    }

    /// The client waits for a place at one of the backends. That is no attempt, and the time of
    /// the attempt stands still.
    pub(super) fn on_queued(&mut self, until: u64, cx: &mut Context<'_>) {
        self.attempts -= 1;
        self.state = State::Queued;
        self.queued_at = cx.now;
        self.queued_until = until;
        cx.ops.push_back(Op::Rearm);
    }

    pub(super) fn on_called(&mut self, cx: &mut Context<'_>) {
        let waited = self.leave_queue(cx.now);
        self.active_at += waited;
        self.state = State::Connecting;
        self.connect(cx);
        cx.ops.push_back(Op::Rearm);
    }

    /// The wait is over, one way or the other; how long it took, in ns.
    pub(super) fn leave_queue(&mut self, now: u64) -> u64 {
        let waited = now.saturating_sub(self.queued_at);
        self.queued += waited;
        waited
    }
}

/// Until a connect that could not be begun is tried again: 50 ms, in ns.
pub const RETRY_AFTER: u64 = 50_000_000;
