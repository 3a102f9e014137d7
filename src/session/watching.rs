//! Watches of sides that are not read from: their connections may break, or their peers be gone. A
//! side whose direction rests for a limit of bandwidth is not read from either.

use crate::kernel::UNBOUNDED;
use crate::time::{MS, NEVER};
use crate::token::{Purpose, Side};

use super::{CloseReason, Context, End, Op, PeerState, Session, SessionState};

/// The watch of a side that is not read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Watch {
    #[default]
    None,
    /// In flight.
    Set,
    /// It has reported a fault. While the side is read from, a receive shows it too, behind the
    /// bytes that came before it.
    Broken,
    /// It has reported that the peer takes no more bytes either.
    Gone,
}

impl Session {
    /// A side that is not read from does not show its reset. To watch it costs an operation, so the
    /// watch begins only when that lasts: most half-closed sessions end sooner.
    pub(super) fn watch_soon(&mut self, now: u64) {
        let is_open = |end: &End| matches!(end.watch, Watch::None | Watch::Broken);
        let wants = self.ends.iter().any(is_open) || self.has_pipe();
        if self.watch_at == NEVER && wants {
            self.watch_at = now + WATCH_AFTER;
        }
    }

    pub(super) fn watch(&mut self, cx: &mut Context<'_>) {
        self.watch_at = NEVER;
        for side in Side::BOTH {
            let there = side == Side::Client || self.state == SessionState::Open;
            let unread = !self.is_read(side) || self.is_resting(side, cx);
            match self.end(side).watch {
                // Between two rests a side is read, for moments.
                Watch::None if there && (unread || cx.granted(side) < UNBOUNDED) => {
                    self.end(side).watch = Watch::Set;
                    self.ask(Purpose::Watch(side), cx);
                }
                Watch::Broken if unread => self.on_broken_unread(side, cx),
                Watch::None | Watch::Broken | Watch::Set | Watch::Gone => {}
            }
            if self.state == SessionState::Closing {
                return;
            }
        }
        self.look_after_pipes(cx);
    }

    /// A side that is read from shows its reset itself, behind the bytes that came before it.
    pub(super) fn on_watched(
        &mut self,
        side: Side,
        peer: PeerState,
        more: bool,
        cx: &mut Context<'_>,
    ) {
        // After the end of what goes to the peer, a peer that only ended its own stream shows it
        // too.
        let gone = peer == PeerState::HungUp && !self.end(side).shut;
        let broke = peer == PeerState::Broken;
        self.end(side).watch = match () {
            () if gone => Watch::Gone,
            () if broke => Watch::Broken,
            () if more => Watch::Set,
            () => Watch::None,
        };
        let waits_for_nothing = match self.state {
            // It reads no answer, and its place in the queue and then at a backend is for a client
            // that does.
            SessionState::Queued => gone,
            // A backend is near: what the client has sent is still for it.
            SessionState::Connecting => gone && !self.flow(side).is_loaded(),
            SessionState::Handshaking
            | SessionState::Peeking
            | SessionState::Open
            | SessionState::Closing => false,
        };
        if waits_for_nothing {
            return self.close(CloseReason::reset_by(side), cx);
        }
        if gone && self.ends_together(cx.limits) {
            // All that it had sent may have been delivered long ago.
            cx.ops.push_back(Op::Unsent);
        }
        if more && !broke && !gone {
            cx.ops.push_back(Op::InVain);
        } else if !more && !broke && !gone {
            // The kernel ended it: it had no room for its answers.
            self.watch_soon(cx.now);
        }
        if broke && (!self.is_read(side) || self.is_resting(side, cx)) {
            self.on_broken_unread(side, cx);
        }
    }

    /// The connection of a side broke that is not read from now.
    fn on_broken_unread(&mut self, side: Side, cx: &mut Context<'_>) {
        if self.broken.is_some() {
            return;
        }
        if side == Side::Backend && self.is_resting(side, cx) {
            // The client may wait for what came before: it goes on, unless the limit stalls it.
            self.broken = Some(CloseReason::reset_by(side));
            self.active_at = cx.now;
        } else if self.flow(side).is_loaded() && self.state == SessionState::Open {
            self.on_source_broken(side, cx.now);
        } else {
            self.close(CloseReason::reset_by(side), cx);
        }
    }
}

/// Until a side that is not read from is watched for its reset: 50 ms.
pub(super) const WATCH_AFTER: u64 = 50 * MS;
