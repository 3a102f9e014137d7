//! How long a session may take, and how often it tries.

/// The deadlines and tries of a session, all times in nanoseconds, `NEVER` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// The time of one connect attempt.
    pub connect: u64,
    /// The time for which nothing may move in either direction.
    pub idle: u64,
    /// The time for which nothing may move after one direction ended.
    pub half_closed: u64,
    /// The time of the whole session.
    pub session: u64,
    /// Connect attempts. Beyond them a backend that refuses at once is still followed by one that
    /// was not tried, unless this is 1.
    pub attempts: u8,
    /// The time for the client's first bytes; `None` where no backend is selected by them.
    pub peek: Option<u64>,
    /// The time after which a client that has sent nothing is looked at for its silence; `NEVER`
    /// where no route asks for it.
    pub server_first: u64,
    /// Whether a client is closed that has sent only their beginning by then; else its backend is
    /// selected without them.
    pub ends_half_sent: bool,
    /// Whether a session ends soon after one of its directions has.
    pub ends_together: bool,
    /// Whether the session reports when its backend works: the strategy forecasts load by that.
    pub watches_work: bool,
    /// Whether the first bytes of a backend are shown ([`Op::Overhear`](super::Op::Overhear)).
    pub overhears: bool,
    /// The time for the client's handshake of TLS, which ends here; `None`: its bytes go on as they
    /// come.
    pub handshake: Option<u64>,
}
