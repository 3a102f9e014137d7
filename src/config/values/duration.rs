//! Durations: a whole number with a unit.

use std::time::Duration;

use super::units::Units;

/// The durations that make sense for a setting, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    min: u64,
    max: u64,
    /// What a duration is a multiple of.
    step: u64,
}

/// Deadlines.
pub const DEADLINE: Bounds = between(1, 30 * DAY);
/// Graces; none is a grace too.
pub const GRACE: Bounds = between(0, DAY);
/// How long clients persist.
pub const TTL: Bounds = between(SECOND, 30 * DAY);
/// Time constants of averages.
pub const DECAY: Bounds = between(100, HOUR);
/// How far predictions look ahead, in the seconds that forecasts count in.
pub const HORIZON: Bounds = Bounds {
    step: SECOND,
    ..between(SECOND, 10 * MINUTE)
};
/// How long a port stays in use after its connection.
pub const TIME_WAIT: Bounds = Bounds {
    step: SECOND,
    ..between(0, 10 * MINUTE)
};
/// Waits in a pool's queue, of which a twentieth is still a time.
pub const QUEUE_WAIT: Bounds = between(20, HOUR);
/// Times from one line of a session in the access log to the next.
pub const PROGRESS: Bounds = between(SECOND, DAY);
/// Times from probe to probe.
pub const CHECK_INTERVAL: Bounds = DECAY;
/// Times from one screen of `mahoraga top` to the next.
pub const REFRESH: Bounds = DECAY;
/// Ejections.
pub const EJECTION: Bounds = between(100, DAY);
/// Bans.
pub const BAN: Bounds = between(SECOND, 3_650 * DAY);

/// How long the history keeps seconds: memory keeps the same.
pub const SECONDS_KEPT: Bounds = between(MINUTE, DAY);
/// How long the history keeps minutes and hours.
pub const HISTORY_KEPT: Bounds = between(HOUR, 3_650 * DAY);

/// From one number of milliseconds to another one.
pub(in crate::config) const fn between(min: u64, max: u64) -> Bounds {
    Bounds { min, max, step: 1 }
}

impl Bounds {
    pub(in crate::config) fn fit(&self, duration: Duration) -> bool {
        let ms = duration.as_millis();
        (self.min.into()..=self.max.into()).contains(&ms) && ms.is_multiple_of(self.step.into())
    }

    /// The range in words.
    pub(in crate::config) fn words(&self) -> String {
        let [min, max] = [self.min, self.max].map(|ms| written(Duration::from_millis(ms)));
        let steps = match self.step {
            SECOND => ", in whole seconds",
            _ => "",
        };
        format!("{min} to {max}{steps}")
    }
}

/// Reads a whole number with a unit, such as `250ms`; one that is too large is the longest.
pub(in crate::config) fn duration_of(text: &str) -> Option<Duration> {
    UNITS.read(text).map(Duration::from_millis)
}

/// A duration as it may be written, in the largest unit that leaves no fraction.
pub(crate) fn written(duration: Duration) -> String {
    match u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) {
        0 => "0s".to_owned(),
        ms => UNITS.write(ms),
    }
}

pub(in crate::config) const SECOND: u64 = 1000;
pub(in crate::config) const MINUTE: u64 = 60 * SECOND;
pub(in crate::config) const HOUR: u64 = 60 * MINUTE;
pub(in crate::config) const DAY: u64 = 24 * HOUR;

/// In milliseconds.
const UNITS: Units = Units(&[
    ("ms", 1),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
    ("d", DAY),
]);
