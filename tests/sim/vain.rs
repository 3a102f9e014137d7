//! The oracle of waits: while nothing moves in a direction, tries in vain come ever more rarely.
//!
//! The kernel may end each wait at once and for nothing. So of two waits in a row the session makes
//! one itself, and each of those is twice as long as the one before. The two waits of a direction,
//! for room and for a buffer, may share such a pause: then one try comes at its end, right after
//! the one before. So this looks at three waits in a row.

use mahoraga::kernel::{Pumped, SinkState, SourceState};
use mahoraga::time::{MS, US};

use crate::kernel::FakeKernel;

/// What is tried again while nothing moves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Try {
    Receive,
    Send,
    PassOn,
    Pump,
    PollForRoom,
}

/// Tries of one kind in vain since a byte last moved in their direction, and the times of the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vain {
    count: u32,
    last: [u64; 3],
}

impl FakeKernel {
    /// A try to move bytes that come from this connection was in vain.
    pub(crate) fn on_vain(&mut self, from: i32, what: Try) {
        let now = self.now;
        let vain = &mut self.conn(from).vain[what as usize];
        let place = vain.count as usize % vain.last.len();
        let before = std::mem::replace(&mut vain.last[place], now);
        vain.count += 1;
        let count = vain.count;
        // The first of the three waits came after so many tries, and one more.
        let Some(earlier) = count.checked_sub(4) else {
            return;
        };
        let least = (PAUSE_MIN << (earlier / 2).min(20)).min(PAUSE_MAX);
        let waited = now - before;
        assert!(
            waited >= least,
            "{what:?} from {from} is in vain for the {count}th time, and the last three waits took \
             {waited} ns, less than {least}: {}",
            self.dump()
        );
        self.trace
            .most("tries in vain without progress", count.into());
        if least == PAUSE_MAX {
            self.trace.see("the longest pause after tries in vain");
        }
    }

    /// The same, of the connection that the bytes go to.
    pub(crate) fn on_vain_to(&mut self, to: i32, what: Try) {
        let from = self.conn(to).partner.expect("bytes come from a partner");
        self.on_vain(from, what);
    }

    /// A try to move bytes at once.
    pub(crate) fn on_tried(&mut self, from: i32, what: Try, moved: Pumped) {
        let over = matches!(moved.source, SourceState::Stopped | SourceState::Broken(_))
            || matches!(moved.sink, SinkState::Broken(_));
        if moved.pulled == 0 && moved.pushed == 0 && !over {
            self.on_vain(from, what);
        }
    }
}

/// The kinds of tries.
pub(crate) const TRIES: usize = 5;
/// The first pause, at least.
const PAUSE_MIN: u64 = 200 * US;
/// The longest pause, at least.
const PAUSE_MAX: u64 = 50 * MS;
