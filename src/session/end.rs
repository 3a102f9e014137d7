//! One end of a session: what belongs to a socket, whichever way bytes go.

use super::watching::Watch;

/// The state of one end. What is in flight on its socket stands in the session's `InFlight`, and
/// what waits to be sent to it in the [`Flow`](super::Flow) that leads to it.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The receive in flight was asked to end; cleared when it has.
    pub(super) stopping: bool,
    /// The last receive found no buffer: bytes may wait for one.
    pub(super) starved: bool,
    /// The end of its stream is the next event.
    pub(super) ending: bool,
    /// Nothing more comes from it: its stream has ended, or the other end takes no more.
    pub(super) ended: bool,
    /// The last send left its bytes to wait for what follows: another send, or the end.
    pub(super) held_back: bool,
    /// Nothing more goes to it: the end of the stream was relayed, or it broke.
    pub(super) shut: bool,
    /// Its peer has ended its stream: a poll for room that ends by itself ends at once.
    pub(super) ends_polls: bool,
    /// Its watch, while it is not read from.
    pub(super) watch: Watch,
    /// Its TLS.
    pub(super) tls: EndTls,
}

/// The TLS of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EndTls {
    /// It has none: bytes come and go as they are.
    #[default]
    None,
    /// Its socket carries records, which end here.
    Records,
    /// What was taken out of its records waits for a buffer.
    Undrained,
    /// Its peer was told that no more bytes come (`close_notify`).
    Notified,
    /// Both.
    UndrainedNotified,
}

impl EndTls {
    /// Whether its socket carries records.
    pub(super) fn is_there(self) -> bool {
        self != Self::None
    }

    pub(super) fn is_undrained(self) -> bool {
        matches!(self, Self::Undrained | Self::UndrainedNotified)
    }

    pub(super) fn is_notified(self) -> bool {
        matches!(self, Self::Notified | Self::UndrainedNotified)
    }

    /// The same with these two.
    pub(super) fn with(undrained: bool, notified: bool) -> Self {
        match (undrained, notified) {
            (false, false) => Self::Records,
            (true, false) => Self::Undrained,
            (false, true) => Self::Notified,
            (true, true) => Self::UndrainedNotified,
        }
    }
}
