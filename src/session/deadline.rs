//! Deadlines. A session is active while bytes go in or out, and while a peer acknowledges bytes: a
//! full send buffer hides that a slow reader still reads. So at every quarter of the deadline the
//! session asks the kernel how much is unacknowledged.

use crate::time::{MS, NEVER, SECOND};
use crate::token::Purpose;

use super::flow::Mode;
use super::{CloseReason, Context, Op, Session, SessionLimits, SessionState, Side, Unsent, Watch};

impl Session {
    /// Handles the time that [`Self::deadline`] named, or any later one.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>) {
        match self.state {
            SessionState::Handshaking if cx.now >= self.handshake_until(cx.limits) => {
                self.close(CloseReason::TlsTimeout, cx);
            }
            SessionState::Peeking if cx.now >= self.peek_until(cx.limits) => {
                let over = self
                    .peeks_from()
                    .saturating_add(cx.limits.peek.unwrap_or(0));
                match cx.now >= over {
                    true => self.on_first_bytes_late(cx),
                    false => self.on_silence(cx),
                }
            }
            SessionState::Queued if cx.now >= self.queued_until => {
                self.close(CloseReason::QueueTimeout, cx);
            }
            SessionState::Connecting | SessionState::Queued if cx.now >= self.watch_at => {
                self.watch(cx);
            }
            SessionState::Connecting if self.overdue || cx.now < self.attempt_until(cx.limits) => {}
            SessionState::Connecting => self.on_late(cx),
            SessionState::Open => self.look(cx),
            SessionState::Handshaking
            | SessionState::Peeking
            | SessionState::Queued
            | SessionState::Closing => {}
        }
    }

    /// When [`Self::on_deadline`] is due at the latest, in nanoseconds; [`NEVER`] for never. Each
    /// event may change it.
    #[must_use]
    pub fn deadline(&self, now: u64, limits: &SessionLimits) -> u64 {
        match self.state {
            SessionState::Handshaking => self.handshake_until(limits),
            SessionState::Peeking => self.peek_until(limits),
            SessionState::Connecting if self.overdue => self.watch_at,
            SessionState::Connecting => self.attempt_until(limits).min(self.watch_at),
            SessionState::Queued => self.queued_until.min(self.watch_at),
            SessionState::Open => self
                .next_look(now, limits)
                .min(self.session_until(limits))
                .min(self.watch_at),
            SessionState::Closing => NEVER,
        }
    }

    /// Whether events can only move [`Self::deadline`] away: bytes flow, and no end or fault has
    /// been seen; or the session has ended, and has no deadline. So the timer stays as it is.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        match self.state {
            SessionState::Open => {
                self.watch_at == NEVER && self.broken.is_none() && !self.is_ending()
            }
            SessionState::Closing => true,
            SessionState::Handshaking
            | SessionState::Peeking
            | SessionState::Connecting
            | SessionState::Queued => false,
        }
    }

    /// The kernel was asked how many bytes the peers have not acknowledged. Another number than
    /// last time: some were acknowledged, or given, meanwhile.
    pub(super) fn on_unsent(&mut self, to: [Unsent; 2], cx: &mut Context<'_>) {
        let bytes = to[0].bytes.saturating_add(to[1].bytes);
        let is_other = bytes != std::mem::replace(&mut self.unsent, bytes);
        if is_other || self.is_paced() && self.broken.is_none() {
            self.active_at = cx.now;
        }
        if self.ends_together(cx.limits) && self.has_heard_the_end(to) {
            match self.cut_reason() {
                Some(reason) => self.close(reason, cx),
                None => self.end_the_other(cx),
            }
        }
        if self.state == SessionState::Closing {
            return;
        }
        if cx.now < self.quiet_until(cx.limits) {
            return self.keep_alive(cx);
        }
        let reason = if self.is_ending() {
            CloseReason::HalfClosedTimeout
        } else {
            CloseReason::IdleTimeout
        };
        let known = self.broken.or_else(|| self.cut_reason());
        self.close(known.unwrap_or(reason), cx);
    }

    fn look(&mut self, cx: &mut Context<'_>) {
        if cx.now >= self.session_until(cx.limits) {
            let known = self.broken.or_else(|| self.cut_reason());
            return self.close(known.unwrap_or(CloseReason::SessionTimeout), cx);
        }
        if cx.now >= self.watch_at {
            self.watch(cx);
            if self.state == SessionState::Closing {
                return;
            }
        }
        // A timer that was set for an earlier deadline comes too early.
        let early = cx.now.saturating_sub(self.active_at) < self.quiet(cx.limits) / LOOKS;
        if early && !self.ends_together(cx.limits) {
            return self.keep_alive(cx);
        }
        cx.ops.push_back(Op::Unsent);
    }

    fn keep_alive(&mut self, cx: &mut Context<'_>) {
        if !self.kept_alive {
            self.kept_alive = true;
            cx.ops.push_back(Op::KeepAlive);
        }
    }

    /// The next quarter of the deadline since something moved, or its end.
    fn next_look(&self, now: u64, limits: &SessionLimits) -> u64 {
        let age = now.saturating_sub(self.active_at);
        if self.ends_together(limits) {
            // The longer it takes, the less often.
            let next = now.saturating_add(END_LOOK.max(age / 2));
            return next.min(self.quiet_until(limits));
        }
        let quiet = self.quiet(limits);
        if quiet == NEVER {
            return NEVER;
        }
        let step = (quiet / LOOKS).max(1);
        if age < step {
            // As after most events: the first quarter ends before the deadline does.
            return self.active_at.saturating_add(step);
        }
        let next = step.saturating_mul(age / step + 1);
        self.active_at
            .saturating_add(next)
            .min(self.quiet_until(limits))
    }

    /// How long nothing may move.
    fn quiet(&self, limits: &SessionLimits) -> u64 {
        if self.broken.is_some() {
            LINGER
        } else if self.is_ending() {
            limits.half_closed
        } else {
            limits.idle
        }
    }

    /// A peer that has bytes to take gets longer, however short the deadline is.
    fn quiet_until(&self, limits: &SessionLimits) -> u64 {
        let more = match (self.unsent, self.broken) {
            (0, _) => 0,
            (_, None) => SLOW_READER,
            (_, Some(_)) => 3 * LINGER,
        };
        let quiet = self.quiet(limits);
        self.active_at.saturating_add(quiet).saturating_add(more)
    }

    fn session_until(&self, limits: &SessionLimits) -> u64 {
        self.opened_at.saturating_add(limits.session)
    }

    /// When its first bytes were awaited from.
    fn peeks_from(&self) -> u64 {
        self.opened_at
            .saturating_add(u64::from(self.handshake_ms) * MS)
    }

    /// A reload may have made the listener one without TLS: its handshakes under way go on.
    fn handshake_until(&self, limits: &SessionLimits) -> u64 {
        let time = limits.handshake.unwrap_or(HANDSHAKE);
        self.opened_at.saturating_add(time)
    }

    fn attempt_until(&self, limits: &SessionLimits) -> u64 {
        self.active_at.saturating_add(limits.connect)
    }

    /// The end of the time for first bytes, or of that in which none has come.
    fn peek_until(&self, limits: &SessionLimits) -> u64 {
        let until = self.peeks_from().saturating_add(limits.peek.unwrap_or(0));
        if self.looked > 0 {
            return until;
        }
        until.min(self.peeks_from().saturating_add(limits.server_first))
    }

    /// One direction has ended and the other is to end with it: as configured, or since the peer
    /// that it leads to is gone, or has cut its TLS.
    pub(super) fn ends_together(&self, limits: &SessionLimits) -> bool {
        let is_in_vain = |gone: Side| {
            let (gone, other) = (&self.ends[gone as usize], &self.ends[gone.other() as usize]);
            (gone.watch == Watch::Gone || gone.tls.is_cut()) && other.shut
        };
        let ends = limits.ends_together && self.is_half_closed();
        (ends || Side::BOTH.into_iter().any(is_in_vain)) && self.broken.is_none()
    }

    /// The end that was relayed is acknowledged, and so is all before it, or it is with the peer: a
    /// close that finds bytes unread, and so resets, destroys none of it.
    fn has_heard_the_end(&self, unsent: [Unsent; 2]) -> bool {
        let ends = self.ends.iter().zip(unsent);
        let mut shut = ends.filter(|(end, _)| end.shut);
        shut.all(|(_, unsent)| unsent.at_peer || unsent.bytes == 0)
    }

    /// Ends the other direction, once the bytes that it has received are delivered.
    fn end_the_other(&mut self, cx: &mut Context<'_>) {
        let mut both = Side::BOTH.into_iter();
        let Some(from) = both.find(|from| !self.is_over(*from)) else {
            return;
        };
        let flow = self.flow(from);
        if flow.in_pipe > 0 {
            // The next look continues, when the bytes are in buffers.
            return cx.ops.push_back(Op::Unpipe(from));
        }
        if flow.mode == Mode::Splice {
            flow.demote();
        }
        self.end(from).ended = true;
        if self.in_flight.has(Purpose::PollSource(from)) {
            cx.ops.push_back(Op::Cancel(Purpose::PollSource(from)));
        }
        self.stop_receiving(from, cx);
        self.advance(from, cx);
    }

    fn is_half_closed(&self) -> bool {
        self.ends[0].shut | self.ends[1].shut
    }

    /// One direction has ended, or will: a peer is gone, and what it has sent is delivered yet.
    fn is_ending(&self) -> bool {
        let [client, backend] = &self.ends;
        let gone = (client.watch == Watch::Gone) | (backend.watch == Watch::Gone);
        self.is_half_closed() | gone
    }
}

/// The kernel is asked so often in a deadline in which nothing moves.
const LOOKS: u64 = 4;
/// TCP reports nothing of a slow reader until it has room for a segment and for a sixteenth of its
/// buffer. On loopback, where a segment has 64 KiB, one that takes 10 kB/s is heard of every 11 s.
/// No call tells sooner, so this is the longest such silence that is not taken for a stop: 30 s.
const SLOW_READER: u64 = 30 * SECOND;
/// With `half_close: "end"`: from the relayed end to the first look for its acknowledgement, 5 ms.
pub(super) const END_LOOK: u64 = 5 * MS;
/// The time for a handshake of TLS on a listener that has none any more: 10 s.
const HANDSHAKE: u64 = 10 * SECOND;
/// What a broken connection left behind waits so long for its sink: 100 ms.
pub(super) const LINGER: u64 = 100 * MS;
