//! A session as whoever lists sessions sees it.

use super::{Session, State};

/// How a session is going at one moment; times in nanoseconds of the workers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// How far it has come.
    pub phase: Phase,
    /// When the client was accepted.
    pub opened_at: u64,
    /// When the last byte moved, or, before the session is open, the last attempt began.
    pub active_at: u64,
    /// Bytes delivered from the client, from the backend.
    pub delivered: [u64; 2],
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The client's first bytes are awaited.
    Peeking,
    /// A backend is being connected to, or will be tried again soon.
    Connecting,
    /// It waits for a place at a backend.
    Queued,
    /// Both ends are connected.
    Open,
    /// It was told to end.
    Closing,
}

impl Session {
    /// How it is going.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            phase: self.phase(),
            opened_at: self.opened_at,
            active_at: self.active_at,
            delivered: self.delivered(),
        }
    }

    fn phase(&self) -> Phase {
        match self.state {
            State::Peeking => Phase::Peeking,
            State::Connecting => Phase::Connecting,
            State::Queued => Phase::Queued,
            State::Open => Phase::Open,
            State::Closing => Phase::Closing,
        }
    }
}
