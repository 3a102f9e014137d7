//! Peeking: a backend is selected by the client's first bytes. They are kept together in
//! one buffer, however they come, and are sent on as they are.

use crate::kernel::{BUFFER_BYTES, Buffer};

use super::{CloseReason, Context, Look, Op, Session, SessionState, Side};

impl Session {
    /// More of the first bytes.
    pub(super) fn on_first_bytes(&mut self, buffer: Buffer, cx: &mut Context<'_>) {
        let flow = self.flow(Side::Client);
        let whole = flow.backlog.front(cx.links);
        let fits = |whole: &Buffer| whole.start + whole.len + buffer.len <= BUFFER_BYTES;
        if let Some(whole) = whole.filter(fits) {
            flow.backlog.grow_front(buffer.len, cx.links);
            cx.ops.push_back(Op::Append(whole, buffer));
            cx.ops.push_back(Op::Release(buffer.id));
        } else {
            flow.backlog.push(buffer, cx.links);
        }
        let full = self.flow(Side::Client).backlog.len() > 1;
        self.peek(full, cx);
    }

    /// Has the first bytes looked at; `last`: there will be no more of them.
    pub(super) fn peek(&mut self, last: bool, cx: &mut Context<'_>) {
        self.looks += 1;
        let whole = self.flow(Side::Client).backlog.front(cx.links);
        let full = whole.is_some_and(|whole| whole.start + whole.len >= BUFFER_BYTES);
        let last = last || full || self.looks >= LOOKS_MAX;
        cx.ops.push_back(Op::Peek(whole, last));
    }

    /// No buffer is left for more of them: has those that wait at the socket looked at, where they
    /// stay; `last`: there will be no more of them.
    pub(super) fn peek_ahead(&mut self, last: bool, cx: &mut Context<'_>) {
        self.looks += 1;
        let whole = self.flow(Side::Client).backlog.front(cx.links);
        let last = last || self.looks >= LOOKS_MAX;
        cx.ops.push_back(Op::PeekAhead(whole, last));
    }

    pub(super) fn on_peeked(&mut self, look: Look, cx: &mut Context<'_>) {
        if look == Look::Refused {
            return self.close(CloseReason::NoRoute, cx);
        }
        // Two looks can be under way, when a stream and its end came at once.
        if self.state != SessionState::Peeking {
            return;
        }
        self.half_sent_ahead = look == Look::HalfSent;
        if look == Look::Enough {
            self.state = SessionState::Connecting;
            self.active_at = cx.now;
            self.connect(cx);
        }
    }

    /// The time for the first bytes is over. A client that sends none may wait for the server to
    /// speak first; one that stopped in the middle would hold a backend until the idle timeout.
    pub(super) fn on_first_bytes_late(&mut self, cx: &mut Context<'_>) {
        let half_sent = self.flow(Side::Client).is_loaded() || self.half_sent_ahead;
        if half_sent && cx.limits.ends_half_sent {
            self.close(CloseReason::FirstBytesTimeout, cx);
        } else if self.end(Side::Client).starved {
            self.peek_ahead(true, cx);
        } else {
            self.peek(true, cx);
        }
    }
}

/// Looks at the first bytes of one client. Each may read all of them again, which a client that
/// sends byte by byte could have done 16,384 times.
pub(super) const LOOKS_MAX: u16 = 512;
