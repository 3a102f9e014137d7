//! Handshakes of TLS have turns: each takes as long as hundreds of events of open sessions, which
//! would wait behind all that have come. So a turn of the worker takes a few steps of them, after
//! those events. The others wait in queues, where they cost nothing, first come, first served.
//! Handshakes that were answered go first, and those with backends: what they took is not to be in
//! vain, however many hellos wait.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::kernel::{Done, Kernel};
use crate::session::Event;
use crate::time::US;
use crate::token::{Purpose, Token};

use super::Worker;
use super::slot::number;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How long handshakes took in this turn of the worker, in ns.
    taken: u64,
    /// Visits and connects of sessions whose handshakes wait and that were begun. Each counts as
    /// under way.
    begun: VecDeque<Token>,
    /// Visits of clients that were not answered yet.
    hellos: VecDeque<Token>,
    /// Those that wait go on now.
    goes_on: bool,
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandshakeStep {
    /// A client's hello was not answered yet.
    Hello,
    /// Any later one, or one with a backend.
    Later,
}

impl Turns {
    /// A turn of the worker begins.
    pub(super) fn begin(&mut self) {
        self.taken = 0;
    }

    /// Whether a handshake that something came for waits: others took this turn, or came before.
    pub(super) fn is_taken(&self, step: HandshakeStep) -> bool {
        let others =
            !self.begun.is_empty() || step == HandshakeStep::Hello && !self.hellos.is_empty();
        self.taken >= TURN_MAX || !self.goes_on && others
    }

    /// A step of a handshake took so long, in ns.
    pub(super) fn took(&mut self, time: u64) {
        self.taken += time;
    }

    /// Whether some wait.
    pub(super) fn has_waiting(&self) -> bool {
        !(self.begun.is_empty() && self.hellos.is_empty())
    }

    /// What this token stands for, a visit or a connect, happens once it is its turn.
    pub(super) fn wait(&mut self, token: Token, step: HandshakeStep) {
        match step {
            HandshakeStep::Hello => self.hellos.push_back(token),
            HandshakeStep::Later => self.begun.push_back(token),
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.begun.pop_front().or_else(|| self.hellos.pop_front())
    }
}

impl<K: Kernel> Worker<K> {
    /// Goes on with handshakes that wait, as far as this turn lasts.
    pub(super) fn take_turns(&mut self) {
        if !self.turns.has_waiting() {
            return;
        }
        self.turns.goes_on = true;
        // To end sessions that have closed meanwhile takes time too.
        let until = self.kernel.now().saturating_add(TURN_MAX);
        while self.turns.taken < TURN_MAX
            && self.kernel.now() < until
            && let Some(token) = self.turns.next()
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
        if let Purpose::Starvation(from) = visit
            && let Some(tls) = slot.tls(from)
            && tls.is_held_up()
        {
            self.turns.wait(token, tls.step());
        } else {
            let at = self.now.saturating_add(after);
            self.visits.push(Reverse((at, token.raw())));
        }
    }
}

/// Handshakes take so long in a turn, and the last of them longer: 100 µs. A signature by an ECDSA
/// key takes about as much.
const TURN_MAX: u64 = 100 * US;
