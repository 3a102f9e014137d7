//! TLS that ends here: what comes from such an end is taken out of its records before it enters its
//! flow, and what goes to it leaves as records. The worker has the keys; the session asks for each
//! step and is answered at once.
//!
//! What the handshake says to the peer goes into the flow that leads to it, as records do, so that
//! room, order and ends are those of all bytes.

use crate::kernel::Buffer;
use crate::time::MS;
use crate::token::{Purpose, Side};

use super::end::EndTls;
use super::flow::Mode;
use super::{CloseReason, Context, Event, Op, Session, SessionState};

/// What a look at the records of an end has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// Bytes of the peer, out of its records.
    Plain(Buffer),
    /// Bytes for the peer, which its handshake waits for.
    Reply(Buffer),
    /// The handshake is done.
    Established,
    /// The peer has said that no more comes (`close_notify`; RFC 8446, section 6.1).
    Ended,
    /// The records break the protocol, or can't be authenticated; `true`: the peer was told so.
    Failed(bool),
    /// There is more, and no buffer for it, or no time for a handshake in this turn.
    NoBuffer,
    /// Nothing, until more records come.
    Nothing,
}

/// Records that were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Where they are; `None`: there was nothing, or no buffer for it.
    pub buffer: Option<Buffer>,
    /// So many bytes of the session are delivered once this buffer is sent.
    pub plain: u16,
    /// The end of a record waits for the next one, or for a buffer.
    pub held: bool,
    /// So much waits that it fills a buffer of its own.
    pub full: bool,
    /// Nothing can be sent any more.
    pub failed: bool,
}

impl Session {
    /// Whether an end of the session speaks TLS.
    pub(super) fn is_sealed(&self, from: Side) -> bool {
        self.flows[from as usize].mode.is_tls()
    }

    /// Whether this side can't be told anything now: something else is on its way to it, or it was
    /// told that no more comes.
    #[must_use]
    pub fn is_past_telling(&self, to: Side) -> bool {
        let (end, flow) = (&self.ends[to as usize], &self.flows[to.other() as usize]);
        let is_over = end.tls.is_notified() || end.shut;
        is_over || flow.is_loaded() || self.in_flight.has(Purpose::Send(to))
    }

    /// Bytes came from one end of a session with TLS.
    #[inline(never)]
    pub(super) fn enter_through_tls(&mut self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        let source = self.end(from);
        if source.tls.is_there() {
            // The end of the stream is another than that of the connection.
            source.ending = false;
            self.ask_tls(Op::Decrypt(from, Some(buffer)), cx);
        } else {
            self.overhear(from, buffer, cx);
            self.enter_decrypted(from, buffer, cx);
        }
    }

    /// The backend's handshake is done. What waits for it leaves as records, and what it may have
    /// said behind its handshake is taken out.
    pub(super) fn seal_backend(&mut self, cx: &mut Context<'_>) {
        self.end(Side::Backend).tls = EndTls::RECORDS;
        for flow in &mut self.flows {
            flow.mode = Mode::tls(flow.mode == Mode::TlsHeld);
        }
        while let Some(waits) = self.flow(Side::Client).backlog.take_front(cx.links) {
            self.ask_tls(Op::Encrypt(Side::Backend, Some(waits)), cx);
        }
        self.drain_tls(Side::Backend, cx);
    }

    /// Bytes of the peer itself enter the flow that leads away from its end.
    fn enter_decrypted(&mut self, from: Side, buffer: Buffer, cx: &mut Context<'_>) {
        if self.state == SessionState::Peeking {
            self.on_first_bytes(buffer, cx);
        } else if self.end(from.other()).tls.is_there() && self.state == SessionState::Open {
            self.ask_tls(Op::Encrypt(from.other(), Some(buffer)), cx);
        } else {
            self.flow(from).backlog.push(buffer, cx.links);
        }
    }

    /// Asks for a step that is answered at once. A session that closes meanwhile waits for it.
    fn ask_tls(&mut self, op: Op, cx: &mut Context<'_>) {
        self.tls_steps += 1;
        cx.ops.push_back(op);
    }

    /// Takes out what waited for a buffer.
    pub(super) fn drain_tls(&mut self, from: Side, cx: &mut Context<'_>) {
        self.ask_tls(Op::Decrypt(from, None), cx);
    }

    pub(super) fn on_decrypted(
        &mut self,
        from: Side,
        opened: Unsealed,
        more: bool,
        cx: &mut Context<'_>,
    ) {
        self.tls_steps -= 1;
        let source = self.end(from);
        let undrained = opened == Unsealed::NoBuffer;
        source.tls.set_undrained(undrained);
        if let Unsealed::Plain(buffer) = opened {
            source.tls.on_bytes();
            // Other records, as those with tickets, are no answer and no work.
            self.touch(from, Some(buffer), cx);
        }
        match opened {
            Unsealed::Plain(buffer) if self.is_over(from) => {
                cx.ops.push_back(Op::Release(buffer.id))
            }
            Unsealed::Plain(buffer) => {
                self.overhear(from, buffer, cx);
                self.enter_decrypted(from, buffer, cx);
            }
            Unsealed::Reply(reply) => {
                self.flow(from.other()).backlog.push(reply, cx.links);
                self.send_alone(from.other(), cx);
            }
            Unsealed::Established => self.on_established(cx),
            Unsealed::Ended => self.on_tls_ended(from, cx),
            Unsealed::Failed(told) => {
                self.told |= told && from == Side::Client;
                return self.close(CloseReason::tls_failed_by(from), cx);
            }
            Unsealed::NoBuffer => self.wait_for_memory(from, cx),
            Unsealed::Nothing => {}
        }
        if more && opened != Unsealed::NoBuffer {
            self.drain_tls(from, cx);
        } else if self.state != SessionState::Closing {
            self.advance_after_step(from, cx);
        }
    }

    /// Goes on after a step. An end that was cut waits for all of them.
    fn advance_after_step(&mut self, from: Side, cx: &mut Context<'_>) {
        self.advance(from, cx);
        let is_open = self.state == SessionState::Open;
        if is_open && self.tls_steps == 0 && self.cut_reason().is_some() {
            self.advance(from.other(), cx);
        }
    }

    fn on_tls_ended(&mut self, from: Side, cx: &mut Context<'_>) {
        self.end(from).ended = true;
        self.stop_receiving(from, cx);
        if self.state == SessionState::Peeking {
            self.peek(true, cx);
        }
        if self.state != SessionState::Open {
            self.watch_soon(cx.now);
        }
    }

    fn on_established(&mut self, cx: &mut Context<'_>) {
        if self.state != SessionState::Handshaking {
            return;
        }
        let took = cx.now.saturating_sub(self.opened_at) / MS;
        self.handshake_ms = u16::try_from(took).unwrap_or(u16::MAX);
        self.active_at = cx.now;
        if cx.limits.peek.is_some() {
            self.state = SessionState::Peeking;
            // The hello may tell enough.
            cx.ops.push_back(Op::Peek(None, false));
        } else {
            self.state = SessionState::Connecting;
            self.connect(cx);
        }
    }

    /// The connection of a TLS end has ended. Unless its peer has said before that no more comes,
    /// what came may be less than it sent: that never passes for an end (RFC 8446, section 6.1).
    /// Many peers leave it out once they were told the end of the other side, and have nothing more
    /// to say: no fault of theirs ends the session then.
    pub(super) fn on_tls_recv_ended(&mut self, from: Side, cx: &mut Context<'_>) {
        // What its records hold that wait for a buffer may say so: the end is received again.
        if self.end(from).ended || self.end(from).tls.is_undrained() {
            return;
        }
        if self.state == SessionState::Handshaking {
            return self.close(CloseReason::TlsFailed, cx);
        }
        self.hung_up |= from == Side::Backend && self.is_hang_up(cx.now);
        let source = self.end(from);
        source.tls.set_cut(source.shut);
        source.ended = true;
        if self.state == SessionState::Open {
            self.active_at = cx.now;
        } else if !self.flow(from).is_loaded() {
            self.close(CloseReason::tls_truncated_by(from), cx);
        } else if self.state == SessionState::Peeking {
            self.peek(true, cx);
        }
    }

    /// The reason of a session that ends as the connection of one of its TLS ends was cut.
    pub(super) fn cut_reason(&self) -> Option<CloseReason> {
        let mut both = Side::BOTH.into_iter();
        let cut = both.find(|side| self.ends[*side as usize].tls.is_cut())?;
        Some(match self.ends[cut as usize].tls.only_answered() {
            true => CloseReason::closed_by(cut.other()),
            false => CloseReason::tls_truncated_by(cut),
        })
    }

    /// The stream of an end has ended, and all of it was sent: whether the other end is told so as
    /// others are. Else it hears of the end by a record first, or, of a cut, by a reset. That waits
    /// until what came before it is acknowledged, as it would destroy that.
    #[inline(never)]
    pub(super) fn relays_end_of_tls(&mut self, from: Side, cx: &mut Context<'_>) -> bool {
        let (source, to) = (self.ends[from as usize].tls, from.other());
        if source.is_cut() || self.ends[to as usize].tls.is_cut() {
            if self.tls_steps > 0 {
                return false;
            }
            self.end(to).shut = true;
            self.watch_soon(cx.now);
            cx.ops.push_back(Op::Unsent);
            return false;
        }
        self.broken.is_some() || self.is_notified(to, cx)
    }

    pub(super) fn on_encrypted(&mut self, to: Side, sealed: Sealed, cx: &mut Context<'_>) {
        self.tls_steps -= 1;
        if sealed.failed {
            return self.close(CloseReason::tls_failed_by(to), cx);
        }
        let from = to.other();
        let flow = self.flow(from);
        flow.mode = Mode::tls(sealed.held);
        if let Some(buffer) = sealed.buffer {
            flow.backlog.push_sealed(buffer, sealed.plain, cx.links);
        } else if sealed.held {
            self.wait_for_memory(from, cx);
        }
        if sealed.full && sealed.buffer.is_some() {
            self.ask_tls(Op::Encrypt(to, None), cx);
        }
        self.advance_after_step(from, cx);
    }

    /// Nothing is left to be sent but the end of a record that waited for more.
    #[inline(never)]
    pub(super) fn flush_tls(&mut self, to: Side, cx: &mut Context<'_>) {
        let waits = self.in_flight.has(Purpose::Starvation(to.other()));
        let sends = self.in_flight.has(Purpose::Send(to));
        if !waits && !sends && self.state != SessionState::Closing {
            self.ask_tls(Op::Encrypt(to, None), cx);
        }
    }

    /// Whether something is sent to this side before the session is open: its handshake.
    pub(super) fn may_speak_early(&self, to: Side) -> bool {
        self.ends[to as usize].tls.is_there() && self.state != SessionState::Closing
    }

    /// Has the peer of a TLS end told that no more comes, before its connection ends. `true`: it
    /// was, or is no such end.
    fn is_notified(&mut self, to: Side, cx: &mut Context<'_>) -> bool {
        let sink = self.end(to);
        if !sink.tls.is_there() || sink.tls.is_notified() {
            return true;
        }
        sink.tls.set_notified();
        self.ask_tls(Op::Notify(to), cx);
        false
    }

    /// What a closing session asked for has come: it goes nowhere, and counts as undelivered.
    pub(super) fn join_tls(&mut self, event: Event, cx: &mut Context<'_>) {
        let (from, buffer) = if let Event::Decrypted(from, opened, _) = event {
            match opened {
                Unsealed::Plain(buffer) => (from, Some(buffer)),
                Unsealed::Reply(buffer) => (from.other(), Some(buffer)),
                Unsealed::Established
                | Unsealed::Ended
                | Unsealed::Failed(_)
                | Unsealed::NoBuffer
                | Unsealed::Nothing => (from, None),
            }
        } else if let Event::Encrypted(to, sealed) = event {
            (to.other(), sealed.buffer)
        } else {
            return;
        };
        self.tls_steps -= 1;
        if let Some(buffer) = buffer {
            self.flow(from).backlog.push(buffer, cx.links);
        }
    }
}
