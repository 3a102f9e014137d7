//! How long a backend stays ejected.

use crate::config::Ejection;
use crate::time::nanos;

/// Times the ejections of one backend. The n-th ejection in a row lasts n times the base time, and
/// n falls by one for each base time that the backend stays in rotation. Times are ns of the
/// workers' clock.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct EjectionTimer {
    /// How many ejections in a row.
    count: u64,
    /// When the last one began.
    since: u64,
    /// When the last one ends, or ended.
    until: u64,
    /// The last one has not ended.
    runs: bool,
    /// The base time.
    base: u64,
}

impl EjectionTimer {
    /// The backend is ejected now; answers until when. An ejection under way goes on unchanged.
    pub(in crate::control) fn start(&mut self, settings: &Ejection, now: u64) -> u64 {
        if self.runs {
            return self.until;
        }
        let base = nanos(settings.base).max(1);
        let max = nanos(settings.max).max(base);
        // The count stops at the longest ejection. Otherwise it would take too long to fall again.
        let count = (self.count_at(now) + 1).min(max.div_ceil(base));
        let until = now.saturating_add(base.saturating_mul(count).min(max));
        *self = Self {
            count,
            since: now,
            until,
            runs: true,
            base,
        };
        until
    }

    /// Until when the backend is ejected.
    #[must_use]
    pub(in crate::control) fn until(&self) -> Option<u64> {
        self.runs.then_some(self.until)
    }

    /// Since when the backend is ejected, and whether this is the first ejection in a row.
    #[must_use]
    pub(in crate::control) fn since(&self) -> Option<(u64, bool)> {
        self.runs.then_some((self.since, self.count == 1))
    }

    /// The ejection has ended. `false`: none was under way.
    pub(in crate::control) fn stop(&mut self, now: u64) -> bool {
        self.until = if self.runs {
            now.min(self.until)
        } else {
            self.until
        };
        std::mem::take(&mut self.runs)
    }

    /// The count, less one for each base time since the end of the last ejection.
    fn count_at(&self, now: u64) -> u64 {
        let decay = now.saturating_sub(self.until) / self.base.max(1);
        self.count.saturating_sub(decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    /// Ejects, and returns how many seconds that lasts.
    fn eject(timer: &mut EjectionTimer, now: u64) -> u64 {
        timer.start(&Ejection::default(), now * SECOND) / SECOND - now
    }

    #[test]
    fn each_in_a_row_lasts_longer_up_to_the_longest() {
        let mut timer = EjectionTimer::default();
        let mut now = 0;
        for n in 1..=15 {
            let lasts = eject(&mut timer, now);
            assert_eq!(lasts, (30 * n).min(300));
            now += lasts;
            assert_eq!(timer.until(), Some(now * SECOND));
            assert!(timer.stop(now * SECOND) && !timer.stop(now * SECOND));
        }
    }

    #[test]
    fn the_count_falls_with_time_in_rotation() {
        let mut timer = EjectionTimer::default();
        // When, and for how long then.
        for (now, lasts) in [
            (0, 30),
            (30, 60),
            (90, 90),
            // The count fell by one since 180,
            (180 + 30, 90),
            // by two since 300,
            (300 + 89, 60),
            // and to zero since 449.
            (449 + 60, 30),
        ] {
            assert_eq!(eject(&mut timer, now), lasts, "at {now}");
            // Noticed late.
            assert!(timer.stop((now + lasts + 7) * SECOND));
        }
    }

    #[test]
    fn the_count_falls_to_zero_from_the_longest() {
        let mut timer = EjectionTimer::default();
        let mut now = 0;
        for _ in 0..100 {
            now += eject(&mut timer, now);
            timer.stop(now * SECOND);
        }
        assert_eq!(eject(&mut timer, now + 30 * 10), 30);
    }

    #[test]
    fn an_ejection_under_way_goes_on_unchanged() {
        let mut timer = EjectionTimer::default();
        assert_eq!((eject(&mut timer, 0), eject(&mut timer, 10)), (30, 20));
        assert_eq!(timer.since(), Some((0, true)));
        timer.stop(30 * SECOND);
        assert_eq!((timer.until(), timer.since()), (None, None));
    }

    #[test]
    fn an_ejection_that_ends_early_counts_too() {
        let mut timer = EjectionTimer::default();
        eject(&mut timer, 0);
        timer.stop(10 * SECOND);
        assert_eq!(eject(&mut timer, 20), 60);
        assert_eq!(timer.since(), Some((20 * SECOND, false)));
    }
}
