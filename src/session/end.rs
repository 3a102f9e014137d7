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

/// The TLS of an end. The default: it has none, and bytes come and go as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndTls(u8);

impl EndTls {
    /// Its socket carries records, which end here.
    pub(super) const RECORDS: Self = Self(1);
    /// What was taken out of its records waits for a buffer.
    const UNDRAINED: u8 = 1 << 1;
    /// Its peer was told that no more bytes come (`close_notify`).
    const NOTIFIED: u8 = 1 << 2;
    /// Bytes came from its peer after that.
    const WENT_ON: u8 = 1 << 3;
    /// Its connection ended, although its peer had not said that no more would come.
    const CUT: u8 = 1 << 4;
    /// The same, and its peer was told before that no more comes, and sent nothing since.
    const ONLY_ANSWERED: u8 = 1 << 5;

    /// Whether its socket carries records.
    pub(super) fn is_there(self) -> bool {
        self != Self::default()
    }

    pub(super) fn is_undrained(self) -> bool {
        self.0 & Self::UNDRAINED != 0
    }

    pub(super) fn is_notified(self) -> bool {
        self.0 & Self::NOTIFIED != 0
    }

    pub(super) fn is_cut(self) -> bool {
        self.0 & Self::CUT != 0
    }

    /// Whether the cut was but the answer to the end of the other side.
    pub(super) fn only_answered(self) -> bool {
        self.0 & Self::ONLY_ANSWERED != 0
    }

    pub(super) fn set_undrained(&mut self, undrained: bool) {
        self.0 &= !Self::UNDRAINED;
        self.0 |= Self::UNDRAINED * u8::from(undrained);
    }

    pub(super) fn set_notified(&mut self) {
        self.0 |= Self::NOTIFIED;
    }

    /// Its connection ended; `was_told`: the end of the other side was sent to it before.
    pub(super) fn set_cut(&mut self, was_told: bool) {
        let answers = was_told && self.0 & (Self::NOTIFIED | Self::WENT_ON) == Self::NOTIFIED;
        self.0 |= Self::CUT;
        self.0 |= Self::ONLY_ANSWERED * u8::from(answers);
    }

    /// Bytes of its peer came.
    pub(super) fn on_bytes(&mut self) {
        if self.is_notified() {
            self.0 |= Self::WENT_ON;
        }
    }
}
