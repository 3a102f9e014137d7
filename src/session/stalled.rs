//! A pipe is lent to streams that move. Where the sink has taken next to nothing for about a
//! second, what is in the pipe goes into buffers and the stream is copied until it moves again: a
//! few readers that stop, or drip, would otherwise hold all pipes until their deadlines.

use crate::kernel::Buffer;
use crate::time::SECOND;

use super::{CloseReason, Context, Op, Session, Side};

impl Session {
    pub(super) fn has_pipe(&self) -> bool {
        self.flows[0].in_pipe | self.flows[1].in_pipe > 0
    }

    /// Gives up what has stalled since the last look, and looks again after a while.
    pub(super) fn look_after_pipes(&mut self, cx: &mut Context<'_>) {
        for from in Side::BOTH {
            let flow = self.flow(from);
            if flow.in_pipe == 0 {
                flow.pushed = u8::MAX;
                continue;
            }
            if std::mem::take(&mut flow.pushed) < WORTH_A_PIPE {
                cx.ops.push_back(Op::Unpipe(from));
            }
            self.watch_at = cx.now + STALL;
        }
    }

    pub(super) fn on_unpiped(&mut self, from: Side, buffer: Option<Buffer>, cx: &mut Context<'_>) {
        let flow = self.flow(from);
        let Some(buffer) = buffer else {
            // It keeps the pipe, unless its bytes are in two places now.
            if !flow.backlog.is_empty() {
                self.close(CloseReason::NoResources, cx);
            }
            return;
        };
        flow.in_pipe -= buffer.len;
        let left = flow.in_pipe > 0;
        self.enter(from, buffer, cx);
        if left {
            // Nothing may come between.
            cx.ops.push_front(Op::Unpipe(from));
        } else {
            self.demote(from, cx);
        }
    }
}

/// 64 KiB from one look to the next, what copying holds at once: it does that in four sends, and
/// splicing gains nothing.
const WORTH_A_PIPE: u8 = 16;
/// From one look at a pipe that holds bytes to the next: 1 s.
pub(super) const STALL: u64 = SECOND;
