//! What a pool does when backends fail, return, or are full.

use std::time::Duration;

use serde_json::json;

use super::codec::{Codec, duration, named, number, ratio, spelled};
use super::table::{self, Settings, Shape, settings, words};
use super::text::Text;
use super::tree::Kind;
use super::values::{self, DAY, HOUR, SECOND, between};
use super::{Check, Pool};

settings! {
    /// Passive ejection: failures of real sessions take a backend out for a while.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Ejection: Shape {
        /// Failures in a row that eject a backend: connects that fail, and connections that it
        /// resets or closes at once, before the client has sent anything.
        pub failures: u32 = 5 => number(1..=1000);
        /// How long the first ejection lasts; the n-th in a row lasts n times as long.
        pub base: Duration = Duration::from_secs(30) => duration(values::EJECTION);
        /// The longest ejection. At least `base`.
        pub max: Duration = EJECTED_MAX => duration(values::EJECTION);
        /// How much of a pool may be ejected at a time, in percent. One backend of several may
        /// always be ejected.
        pub share: u8 = 50 => number(values::PERCENT);
        /// A backend that answers this many times slower than the median of its pool is ejected
        /// too. Off: slow backends are not ejected.
        pub latency: Option<u16> = Some(500) => ratio(150..=10_000).or("off");
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

/// The default of the longest ejection.
const EJECTED_MAX: Duration = Duration::from_secs(300);

words! {
    /// What a pool does when none of its backends is usable.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum AllDown {
        /// All ready backends get connections: the probes may be wrong.
        Open = "open",
        /// No backend gets connections.
        Closed = "closed",
    }
}

/// When a pool ignores its probes because few backends are left. A check that judges an answer can
/// detect a role, such as the primary of three databases: the two that fail are no sign of a
/// faulty check, and must get no clients. A check that only connects fails for every backend when
/// the balancer's own network is at fault.
impl Pool {
    /// Health and ejection are ignored below this share of usable backends, in percent.
    #[must_use]
    pub fn panics_below(&self) -> u8 {
        let of_check = if self.has_checked_answers() {
            0
        } else {
            PANIC_BELOW
        };
        self.panic_below.unwrap_or(of_check)
    }

    /// Whether health and ejection are ignored when no backend is usable.
    #[must_use]
    pub fn fails_open(&self) -> bool {
        match self.all_down {
            Some(AllDown::Open) => true,
            Some(AllDown::Closed) => false,
            None => !self.has_checked_answers(),
        }
    }

    /// Whether ejected backends are used when every backend that is up is ejected: a passed check
    /// outweighs the failures of a few sessions. False where the pool is to close.
    #[must_use]
    pub fn takes_ejected(&self) -> bool {
        self.all_down != Some(AllDown::Closed)
    }

    fn has_checked_answers(&self) -> bool {
        self.check.as_ref().is_some_and(Check::checks_answers)
    }
}

/// The default of the least share of usable backends, where probes only connect.
const PANIC_BELOW: u8 = 50;

/// What happens to the sessions of a backend that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// Its sessions go on.
    #[default]
    Keep,
    /// Its sessions are closed, spread over this time.
    Close(Duration),
}

settings! {
    #[derive(Clone, PartialEq)]
    struct OnDownFile {
        /// Sessions are closed, spread over this time.
        close_over: Option<Duration> = None => duration(values::GRACE).given();
    }
}

/// What happens to the sessions of a backend that goes down.
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
            _ => reader.unexpected(at, ON_DOWN),
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
    pub struct QueueLimits: Shape {
        /// The most clients that wait, over all workers; the next one is refused. Off (0): no
        /// client waits.
        pub max: u32 = 1_024;
            @max => number(values::QUEUE).or("off"), Self::max_or_off, Self::put_max;
        /// The longest wait of a client, 20 ms to 1 h. A queue that has not been empty for that
        /// long gives each client a twentieth of it, so that overload costs the excess clients
        /// and not every client's time (CoDel's idea, as in "Fail at Scale", ACM Queue 13(8),
        /// 2015).
        pub timeout: Duration = Duration::from_secs(5) => duration(values::QUEUE_WAIT);
    }
}

impl Shape for QueueLimits {
    const SHORT: Option<&'static str> = Some("max");
}

impl QueueLimits {
    pub(super) fn max_or_off(&self) -> Option<u32> {
        (self.max > 0).then_some(self.max)
    }

    pub(super) fn put_max(&mut self, max: Option<u32>) {
        self.max = max.unwrap_or(0);
    }
}

settings! {
    /// Scaling: the pool brings in and drains backends of its reserve, by traffic.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Scaling: Shape {
        /// What is measured per backend in rotation: open connections, or the greater of open
        /// connections and their forecast.
        pub by: ScaleBy = ScaleBy::Connections => named("measure", &ScaleBy::ALL);
        /// The load above which, for a whole `window`, a backend of the reserve is brought in.
        pub high: u32 = 100 => number(values::CONNECTIONS);
        /// The load below which, for a whole `window`, a backend of the reserve is drained. At most
        /// half of `high`; by default three tenths of `high`.
        pub low: u32 = 30 => number(0..=*values::CONNECTIONS.end());
        /// How long the load must stay above or below a mark.
        pub window: Duration = Duration::from_secs(30) => duration(between(SECOND, HOUR));
        /// The least time from one decision to the next.
        pub cool_down: Duration = Duration::from_secs(120) => duration(between(SECOND, DAY));
        /// The least number of backends in rotation.
        pub min: u32 = 1 => number(1..=1 << 16);
        /// An `http://` or `https://` address that gets JSON about each decision.
        pub webhook: Option<String> = None
            => spelled("an address such as \"https://host/path\"", values::webhook, String::clone)
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

super::table::defaults!(Ejection, QueueLimits, Scaling);

impl Scaling {
    /// The default of the low mark: three tenths of the high mark.
    pub(super) fn low_default(high: u32) -> u32 {
        high / 10 * 3 + high % 10 * 3 / 10
    }
}

words! {
    /// What a pool scales by.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum ScaleBy {
        /// Open connections.
        #[default]
        Connections = "connections",
        /// The greater of open connections and their forecast.
        Forecast = "forecast",
    }
}
