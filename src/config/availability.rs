//! What a pool does when backends fail, return, or are full.

use std::time::Duration;

use serde_json::json;

use super::codec::{Codec, duration, named, number, ratio, spelled};
use super::table::{self, Settings, Shape, settings};
use super::text::Text;
use super::tree::Kind;
use super::{Check, Pool, values};

settings! {
    /// Passive ejection: what real sessions meet takes a backend out for a while.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ejection {
        /// Failures in a row that eject a backend: connects that fail, resets and hang-ups before
        /// the first byte.
        pub failures: u32 = 5 => number(values::FAILURES);
        /// How long the first ejection lasts; the n-th in a row lasts n times as long.
        pub base: Duration = Duration::from_secs(30) => duration(values::EJECTION);
        /// The longest ejection. At least `base`.
        pub max: Duration = EJECTED_MAX => duration(values::EJECTION);
        /// How much of a pool may be ejected at a time, in percent. One backend of several always
        /// may.
        pub share: u8 = 50 => number(values::PERCENT);
        /// A backend that answers so many times slower than the median of its pool is ejected too.
        /// Off: none is. (Kept in percent.)
        pub latency: Option<u16> = Some(500) => ratio(&values::LATENCY).or("off");
    }
}

impl Shape for Ejection {
    fn implied(&self, default: &Self) -> Self {
        Self {
            // A base beyond the default is its own limit.
            max: default.max.max(self.base),
            ..*default
        }
    }
}

/// The longest ejection when nothing else is said.
const EJECTED_MAX: Duration = Duration::from_secs(300);

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

settings! {
    #[derive(Clone, PartialEq)]
    struct OnDownFile {
        /// Sessions are closed, spread over this time.
        close_over: Option<Duration> = None => duration(values::GRACE).given();
    }
}

impl Shape for OnDownFile {}

/// What becomes of the sessions of a backend that goes down.
pub(super) fn on_down() -> Codec<OnDown> {
    Codec::new(
        ON_DOWN,
        json!({ "anyOf": [{ "enum": ["keep", "close"] }, table::schema::<OnDownFile>()] }),
        |at, reader, _| match (at.text(), &at.value.kind) {
            (_, Kind::Group(_)) => {
                let file = reader.group(at, &OnDownFile::base())?;
                Some(file.close_over.map_or(OnDown::Keep, OnDown::Close))
            }
            (Some("keep"), _) => Some(OnDown::Keep),
            (Some("close"), _) => Some(OnDown::Close(Duration::ZERO)),
            _ => reader.take(at, Err(at.not(ON_DOWN))),
        },
        |value, _, around| match value {
            OnDown::Keep => Text::quoted("keep"),
            OnDown::Close(over) if over.is_zero() => Text::quoted("close"),
            OnDown::Close(over) => {
                let close_over = Some(*over);
                table::text(&OnDownFile { close_over }, &OnDownFile::base(), around)
            }
        },
    )
    .of::<OnDownFile>()
}

const ON_DOWN: &str = "\"keep\", \"close\" or (close_over: \"30s\")";

settings! {
    /// Where clients wait while every backend of a pool is full.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Queue {
        /// How many clients wait at most, over all workers; the next one is refused. Off (0): none
        /// waits.
        pub max: u32 = 1_024;
            @max => number::<u32>(values::QUEUE).or("off"),
                |queue: &Self| (queue.max > 0).then_some(queue.max),
                |queue: &mut Self, max: Option<u32>| queue.max = max.unwrap_or(0);
        /// How long one waits at most, 20 ms to 1 h. A queue that has not been empty for as long
        /// gives each a twentieth of it only, so that overload costs the excess and not everybody's
        /// time (CoDel's idea, as in "Fail at Scale", ACM Queue 13(8), 2015).
        pub timeout: Duration = Duration::from_secs(5) => duration(values::QUEUE_WAIT);
    }
}

impl Shape for Queue {
    const SHORT: Option<&'static str> = Some("max");
}

settings! {
    /// A pool that grows and shrinks by traffic, by the backends of its reserve.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Scaling {
        /// What is measured for each backend in rotation: open connections, or the greater of them
        /// and their forecast.
        pub by: ScaleBy = ScaleBy::Connections => named("measure", &ScaleBy::ALL);
        /// Above it for as long as `window` a backend of the reserve is brought in.
        pub high: u32 = 100 => number(values::CONNECTIONS);
        /// Below it for as long as `window` one is drained. At most half of `high`; three tenths of
        /// it where it is not given.
        pub low: u32 = 30 => number(0..=*values::CONNECTIONS.end());
        /// How long the load must stay above or below a mark.
        pub window: Duration = Duration::from_secs(30) => duration(values::SCALING_WINDOW);
        /// The least time from one decision to the next.
        pub cool_down: Duration = Duration::from_secs(120) => duration(values::COOL_DOWN);
        /// The least number of backends in rotation.
        pub min: u32 = 1 => number(values::SCALING_MIN);
        /// An `http://` or `https://` address that gets JSON about each decision.
        pub webhook: Option<String> = None
            => spelled("an address such as https://host/up", values::webhook, String::clone)
                .given();
    }
}

impl Shape for Scaling {
    fn implied(&self, default: &Self) -> Self {
        Self {
            low: Self::low_default(self.high),
            ..default.clone()
        }
    }
}

super::table::defaults!(Ejection, Queue, Scaling);

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
