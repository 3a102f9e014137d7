//! Handshakes of TLS have turns: each takes as long as hundreds of events of open sessions, which
//! would wait behind all that have come. So a turn of the worker begins one or a few, after those
//! events. The others wait in a queue, where they cost nothing, and the first that has come is the
//! first that goes on.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::kernel::{Done, Kernel};
use crate::session::Event;
use crate::time::US;
use crate::token::{Purpose, Side, Token};

use super::Worker;
use super::slot::number;
use super::tls::TlsEnd;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How long handshakes took in this turn of the worker, in ns.
    taken: u64,
    /// Operations and visits of sessions whose handshakes wait. Each counts as under way.
    waiting: VecDeque<Token>,
    /// Those that wait go on now.
    goes_on: bool,
}

impl Turns {
    /// A turn of the worker begins.
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    /// Whether a handshake that something came for waits: others took this turn, or came before.
    pub(super) fn is_taken(&self) -> bool {
        self.taken >= TURN_MAX || !self.goes_on && !self.waiting.is_empty()
    }

    /// A step of a handshake took so long, in ns.
    pub(super) fn took(&mut self, time: u64) {
        self.taken += time;
    }

    /// Whether some wait.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What this token stands for, a visit or a connect, happens once it is its turn.
    pub(super) fn wait(&mut self, token: Token) {
        self.waiting.push_back(token);
    }
}

impl<K: Kernel> Worker<K> {
    /// Goes on with handshakes that wait, as far as this turn lasts.
    pub(super) fn take_turns(&mut self) {
        self.turns.goes_on = true;
        while self.turns.taken < TURN_MAX
            && let Some(token) = self.turns.waiting.pop_front()
        {
            if let Purpose::Starvation(from) = token.purpose() {
                self.deliver(token, Event::Starvation(from), false);
            } else {
                self.on_connect_completed(token, Ok(Done::Count(0)));
            }
        }
        self.turns.goes_on = false;
    }

    /// Visits a session after a time in ns, or once it is the turn of its handshake.
    pub(super) fn visit(&mut self, key: usize, visit: Purpose, after: u64) {
        let slot = &self.slots[key];
        let token = Token::new(visit, slot.generation, number(key));
        let held_up = |from: Side| slot.tls(from).is_some_and(TlsEnd::is_held_up);
        if matches!(visit, Purpose::Starvation(from) if held_up(from)) {
            self.turns.wait(token);
        } else {
            let at = self.now.saturating_add(after);
            self.visits.push(Reverse((at, token.raw())));
        }
    }
}

/// Handshakes take so long in a turn, and the last of them longer: 100 µs. A signature by an ECDSA
/// key takes about as much.
const TURN_MAX: u64 = 100 * US;
