//! A session as the list of sessions shows it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Session;

/// The progress of a session at one moment; times in nanoseconds of the workers' clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The state of the session.
    pub state: SessionState,
    /// When the client was accepted.
    pub opened_at: u64,
    /// When the last byte moved, or, before the session is open, the last attempt began.
    pub active_at: u64,
    /// Bytes delivered from the client, from the backend.
    pub delivered: [u64; 2],
}

/// The state of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It waits for the client's part of the TLS handshake.
    Handshaking,
    /// It waits for the client's first bytes, by which its backend is selected.
    #[default]
    Peeking,
    /// It connects to a backend, or tries again soon.
    Connecting,
    /// It waits for a place at a backend.
    Queued,
    /// Both ends are connected.
    Open,
    /// It has ended, and waits for its operations in flight.
    Closing,
}

impl SessionState {
    /// The name in JSON and in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshaking => "handshaking",
            Self::Peeking => "peeking",
            Self::Connecting => "connecting",
            Self::Queued => "queued",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

impl Session {
    /// The progress of the session now.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            state: self.state,
            opened_at: self.opened_at,
            active_at: self.active_at,
            delivered: self.delivered(),
        }
    }
}
