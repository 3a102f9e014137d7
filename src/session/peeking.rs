//! Peeking: a backend is selected by the client's first bytes. They are kept together in
//! one buffer, however they come, and are sent on as they are.

use crate::kernel::{BUFFER_BYTES, Buffer};

use super::{CloseReason, Context, Look, Op, Preamble, Session, SessionState, Side};

impl Session {
    /// What the client asked for before its first bytes, and was answered.
    #[must_use]
    pub fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// More of the first bytes. The first buffer is filled, so that a look sees the same bytes
    /// however they came. Not inlined: each event would make room for it.
    #[inline(never)]
    pub(super) fn on_first_bytes(&mut self, mut buffer: Buffer, cx: &mut Context<'_>) {
        let flow = self.flow(Side::Client);
        if let Some(whole) = flow.backlog.front(cx.links) {
            let room = BUFFER_BYTES - whole.start - whole.len;
            let part = Buffer {
                len: room.min(buffer.len),
                ..buffer
            };
            if part.len > 0 {
                flow.backlog.grow_front(part.len, cx.links);
                cx.ops.push_back(Op::Append(whole, part));
            }
            buffer.start += part.len;
            buffer.len -= part.len;
        }
        if buffer.len > 0 {
            flow.backlog.push(buffer, cx.links);
        } else {
            cx.ops.push_back(Op::Release(buffer.id));
        }
        let full = self.flow(Side::Client).backlog.len() > 1;
        self.peek(full, cx);
    }

    /// Has the first bytes looked at; `last`: there will be no more of them.
    pub(super) fn peek(&mut self, last: bool, cx: &mut Context<'_>) {
        let whole = self.flow(Side::Client).backlog.front(cx.links);
        self.on_look(whole);
        let full = whole.is_some_and(|whole| whole.start + whole.len >= BUFFER_BYTES);
        let last = last || full || self.looked >= LOOKED_MAX;
        cx.ops.push_back(Op::Peek(whole, last));
    }

    /// No buffer is left for more of them: has those that wait at the socket looked at, where they
    /// stay; `last`: there will be no more of them.
    pub(super) fn peek_ahead(&mut self, last: bool, cx: &mut Context<'_>) {
        let whole = self.flow(Side::Client).backlog.front(cx.links);
        self.on_look(whole);
        let last = last || self.looked >= LOOKED_MAX;
        cx.ops.push_back(Op::PeekAhead(whole, last));
    }

    /// Each look may read all bytes again.
    fn on_look(&mut self, whole: Option<Buffer>) {
        let kib = whole.map_or(0, |whole| whole.len / 1024);
        let work = u16::try_from(1 + kib).unwrap_or(u16::MAX);
        self.looked = self.looked.saturating_add(work);
    }

    pub(super) fn on_peeked(&mut self, look: Look, cx: &mut Context<'_>) {
        if matches!(look, Look::Refused | Look::Told) {
            self.told = look == Look::Told;
            return self.close(CloseReason::NoRoute, cx);
        }
        // Two looks can be under way, when a stream and its end came at once.
        if self.state != SessionState::Peeking {
            return;
        }
        if let Look::Answered(preamble) = look {
            return self.begin_again(preamble, cx);
        }
        self.half_sent_ahead = look == Look::HalfSent;
        if look == Look::Enough {
            self.state = SessionState::Connecting;
            self.active_at = cx.now;
            self.connect(cx);
        }
    }

    /// No byte has come in the time that a route gives clients whose server speaks first. Others
    /// wait on.
    pub(super) fn on_silence(&mut self, cx: &mut Context<'_>) {
        self.on_look(None);
        cx.ops.push_back(Op::Peek(None, false));
    }

    /// What came so far was answered, and is not sent on.
    fn begin_again(&mut self, preamble: Preamble, cx: &mut Context<'_>) {
        self.preamble = preamble;
        self.half_sent_ahead = false;
        let flow = self.flow(Side::Client);
        while let Some(id) = flow.backlog.pop(cx.links) {
            cx.ops.push_back(Op::Release(id));
        }
    }

    /// The time for the first bytes is over. A client that sends none may wait for the server to
    /// speak first; one that stopped in the middle would hold a backend until the idle timeout.
    pub(super) fn on_first_bytes_late(&mut self, cx: &mut Context<'_>) {
        let half_sent = self.flow(Side::Client).is_loaded()
            || self.half_sent_ahead
            || self.preamble == Preamble::Tls;
        if half_sent && cx.limits.ends_half_sent {
            self.close(CloseReason::FirstBytesTimeout, cx);
        } else if self.end(Side::Client).starved && !self.is_sealed(Side::Client) {
            self.peek_ahead(true, cx);
        } else {
            self.peek(true, cx);
        }
    }
}

/// The work of looking at the first bytes of one client: 1 for each look, and 1 for each KiB that
/// it reads. A client that sends byte by byte is looked at some 3,500 times, where it could have
/// done so 16,384 times.
pub(super) const LOOKED_MAX: u16 = 8_192;
