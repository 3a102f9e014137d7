//! Slow start: a backend that returns gets its share and its `max_connections` little by little.

/// A slow start: the share grows linearly from 1% to 100%.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// When it began, in ns of the workers' clock.
    pub since: u64,
    /// How long it takes, in ns, above 0.
    pub over: u64,
}

impl SlowStart {
    /// The part of its share that a backend gets at `now`, in percent: 1 to 100. Never 0, so that
    /// it gets a chance to answer.
    #[must_use]
    pub fn percent(&self, now: u64) -> u8 {
        let elapsed = u128::from(now.saturating_sub(self.since));
        let percent = elapsed * 100 / u128::from(self.over.max(1));
        u8::try_from(percent).unwrap_or(u8::MAX).clamp(1, 100)
    }

    /// How many of `max` connections it may have at `now`, rounded up.
    #[must_use]
    pub fn places(&self, max: u32, now: u64) -> u32 {
        let part = u64::from(max) * u64::from(self.percent(now));
        u32::try_from(part.div_ceil(100)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_evenly_from_one_percent_to_all() {
        let slow_start = SlowStart {
            since: 1_000,
            over: 200,
        };
        let percents = [0, 1_000, 1_001, 1_050, 1_100, 1_199, 1_200, u64::MAX];
        let percents = percents.map(|now| slow_start.percent(now));
        assert_eq!(percents, [1, 1, 1, 25, 50, 99, 100, 100]);
        let long = SlowStart {
            since: 0,
            over: u64::MAX,
        };
        assert_eq!(long.percent(u64::MAX / 2), 49);
    }

    #[test]
    fn there_is_a_place_from_the_start() {
        let slow_start = SlowStart {
            since: 0,
            over: 100,
        };
        let places = |now| [1, 10, 1_000].map(|max| slow_start.places(max, now));
        assert_eq!(places(0), [1, 1, 10]);
        assert_eq!(places(51), [1, 6, 510]);
        assert_eq!(places(100), [1, 10, 1_000]);
    }
}
