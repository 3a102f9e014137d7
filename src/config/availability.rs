//! What a pool does when backends fail, return, or are full.

use std::time::Duration;

use super::{Check, Pool};

/// Passive ejection: what real sessions meet takes a backend out for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row (connects that failed, resets and hang-ups before the first byte) that
    /// eject a backend, 1 to 1000.
    pub failures: u32,
    /// The first ejection's length; the n-th in a row takes n times as long, 100 ms to 1 d,
    pub base: Duration,
    /// but no longer than this. At least `base`.
    pub max: Duration,
    /// How much of a pool may be ejected at a time, in percent, 0 to 100. One backend of a pool of
    /// several always may.
    pub share: u8,
    /// A backend that answers so many times slower than the median of its pool is ejected too, in
    /// percent, 150 to 10,000; `None`: none is.
    pub latency: Option<u16>,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            share: 50,
            latency: Some(500),
        }
    }
}

/// What becomes of a pool of which no backend can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllDown {
    /// All that are ready get connections: the probes may be what is wrong.
    Open,
    /// None does.
    Closed,
}

impl AllDown {
    /// Every answer with its name.
    pub const ALL: [(&'static str, Self); 2] = [("open", Self::Open), ("closed", Self::Closed)];
}

/// How far probes are believed when few backends are left. A check that judges an answer can tell
/// a role, such as which of three databases is the primary: two that fail it are no sign of a
/// faulty check, and clients must not come to them. One that only looks whether a backend can be
/// reached fails everywhere when the network of the balancer is at fault.
impl Pool {
    /// Below which share of usable backends, in percent, health and ejection are ignored.
    #[must_use]
    pub fn panics_below(&self) -> u8 {
        let of_check = if self.is_judged() { 0 } else { PANIC_BELOW };
        self.panic_below.unwrap_or(of_check)
    }

    /// Whether health and ejection are ignored when no backend is usable.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        match self.all_down {
            Some(AllDown::Open) => true,
            Some(AllDown::Closed) => false,
            None => !self.is_judged(),
        }
    }

    /// Whether ejected backends are taken when no other is left of those that are up: what a few
    /// sessions met says less than a check. Not where all is to be closed.
    #[must_use]
    pub fn takes_ejected(&self) -> bool {
        self.all_down != Some(AllDown::Closed)
    }

    fn is_judged(&self) -> bool {
        self.check.as_ref().is_some_and(Check::judges)
    }
}

/// The least share of usable backends where probes only look whether backends can be reached.
const PANIC_BELOW: u8 = 50;

/// What becomes of the sessions of a backend that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They go on.
    #[default]
    Keep,
    /// They are closed, spread over this time.
    Close(Duration),
}

/// Where clients wait while every backend of a pool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at most, over all workers, up to 16,777,216; the next one is refused. 0:
    /// nobody waits.
    pub max: u32,
    /// How long one waits at most, 20 ms to 1 h. A queue that has not been empty for as long gives
    /// each a twentieth of it only, so that overload costs the excess and not everybody's time
    /// (CoDel's idea, as in "Fail at Scale", ACM Queue 13(8), 2015).
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max: 1_024,
            timeout: Duration::from_secs(5),
        }
    }
}

/// A pool that grows and shrinks by traffic, by the backends of its reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    /// What is measured, per backend in rotation.
    pub by: ScaleBy,
    /// Above it for [`Self::window`] a backend of the reserve is brought in.
    pub high: u32,
    /// Below it for as long one is drained. At most half of `high`.
    pub low: u32,
    /// How long the load must stay beyond a mark, 1 s to 1 h.
    pub window: Duration,
    /// From one decision to the next at least, 1 s to 1 d.
    pub cool_down: Duration,
    /// Backends in rotation that are never gone below.
    pub min: u32,
    /// Told of each decision: an `http://` or `https://` address that JSON is posted to.
    pub webhook: Option<String>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            by: ScaleBy::Connections,
            high: 100,
            low: 30,
            window: Duration::from_secs(30),
            cool_down: Duration::from_secs(120),
            min: 1,
            webhook: None,
        }
    }
}

impl Scaling {
    /// The low mark when nothing is said of it: three tenths of the high one.
    pub(super) fn low_default(high: u32) -> u32 {
        high / 10 * 3 + high % 10 * 3 / 10
    }
}

/// What a pool scales by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleBy {
    /// Open connections.
    #[default]
    Connections,
    /// What the forecast of `predictive` says that they will be: the greater of the two.
    Forecast,
}

impl ScaleBy {
    /// Every measure with its name.
    pub const ALL: [(&'static str, Self); 2] = [
        ("connections", Self::Connections),
        ("forecast", Self::Forecast),
    ];
}

/// Where a pool's backends are found, beside those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Every address of a name (A and AAAA), with this port.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// What the service records of a name say (SRV, RFC 2782): those of the best priority are
    /// backends, the others backups.
    Srv(String),
    /// The lines of a file, read again when it changes: an address each, and behind commas what
    /// `--to` takes too. `#` begins a comment.
    File(std::path::PathBuf),
}
