//! Who answers much slower than the others of its pool: by what real sessions met.

use std::collections::HashMap;

use crate::pool::Totals;

/// Watches one pool's answer times, window by window.
///
/// Judged are backends with enough answers in a window, if there are enough of those. Who stands
/// out in several windows in a row is slow by itself; one window may be anybody's.
#[derive(Debug, Default)]
pub struct Outliers {
    /// When the window began, in ns of the workers' clock.
    since: Option<u64>,
    seen: HashMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    answer: u64,
    /// Windows in a row in which it stood out.
    strikes: u32,
}

impl Outliers {
    /// Ends the window if its time is over, and says which of the backends (by index) to eject.
    /// To be called more often than a window is long, each second for instance.
    ///
    /// `backends`: names, and totals as [`Tally::totals`](crate::pool::Tally::totals) has them.
    /// `latency`: how slow is too slow, in percent of the median of the backends' mean answer
    /// times. `now`: ns of the workers' clock.
    pub fn tick(&mut self, backends: &[(&str, Totals)], latency: u16, now: u64) -> Vec<usize> {
        let since = *self.since.get_or_insert(now);
        if self.seen.is_empty() {
            self.end_window(backends);
        }
        if now.saturating_sub(since) < WINDOW {
            return Vec::new();
        }
        self.since = Some(now);
        let means = self.end_window(backends);
        let Some(median) = median(&means) else {
            self.seen.values_mut().for_each(|seen| seen.strikes = 0);
            return Vec::new();
        };
        let limit = (median * f64::from(latency) / 100.0).max(median + MARGIN_NS);
        let mut out = Vec::new();
        for (index, ((name, _), mean)) in backends.iter().zip(&means).enumerate() {
            let Some(seen) = self.seen.get_mut(*name) else {
                continue;
            };
            let stands_out = mean.is_some_and(|mean| mean > limit);
            seen.strikes = if stands_out { seen.strikes + 1 } else { 0 };
            if seen.strikes == STRIKES {
                seen.strikes = 0;
                out.push(index);
            }
        }
        out
    }

    /// The mean answer time in ns of each backend since the last window, of those that are judged.
    /// Backends that are gone are forgotten.
    fn end_window(&mut self, backends: &[(&str, Totals)]) -> Vec<Option<f64>> {
        let mut old = std::mem::take(&mut self.seen);
        let mean = |(name, totals): &(&str, Totals)| {
            let before = old.remove(*name);
            let now = Seen {
                answered: totals.answered,
                answer: totals.answer,
                strikes: before.as_ref().map_or(0, |before| before.strikes),
            };
            self.seen.insert((*name).to_owned(), now);
            let before = before?;
            // Who was removed and added again begins anew.
            let answered = totals.answered.checked_sub(before.answered)?;
            let answer = totals.answer.checked_sub(before.answer)?;
            (answered >= ANSWERS_MIN).then(|| to_f64(answer) / to_f64(answered))
        };
        backends.iter().map(mean).collect()
    }
}

/// Of those that are judged, if they are enough.
fn median(means: &[Option<f64>]) -> Option<f64> {
    let mut means: Vec<f64> = means.iter().copied().flatten().collect();
    if means.len() < BACKENDS_MIN {
        return None;
    }
    means.sort_by(f64::total_cmp);
    let middle = means.len() / 2;
    let upper = means.get(middle)?;
    let lower = means.get((means.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times and counts of ten seconds"
)]
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Length of a window, in ns.
const WINDOW: u64 = 10_000_000_000;
/// Windows in a row that make an outlier.
const STRIKES: u32 = 3;
/// Answers within a window that say something.
const ANSWERS_MIN: u64 = 20;
/// Backends that a median is worth something of.
const BACKENDS_MIN: usize = 3;
/// Above the median by this at least: among the fast, several times as slow is fast still.
const MARGIN_NS: f64 = 10_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    const MS: u64 = 1_000_000;
    const NOBODY: [usize; 0] = [];

    /// A pool whose backends answer so often per window, in so many ms.
    struct Pool {
        outliers: Outliers,
        totals: [Totals; 4],
        now: u64,
    }

    impl Pool {
        fn new() -> Self {
            let mut pool = Self {
                outliers: Outliers::default(),
                totals: [Totals::default(); 4],
                now: 5,
            };
            assert_eq!(pool.tick(), NOBODY);
            pool
        }

        fn tick(&mut self) -> Vec<usize> {
            let backends: Vec<_> = NAMES.into_iter().zip(self.totals).collect();
            self.outliers.tick(&backends, 500, self.now)
        }

        fn window(&mut self, answers: [(u64, u64); 4]) -> Vec<usize> {
            let mut out = Vec::new();
            for second in 0..10 {
                if second == 3 {
                    for (totals, (count, ms)) in self.totals.iter_mut().zip(answers) {
                        totals.answered += count;
                        totals.answer += count * ms * MS;
                    }
                }
                self.now += WINDOW / 10;
                out.extend(self.tick());
            }
            out
        }
    }

    #[test]
    fn a_slow_backend_is_found_in_the_third_window() {
        let mut pool = Pool::new();
        let slow = [(100, 5), (100, 6), (100, 60), (100, 5)];
        assert_eq!(pool.window(slow), NOBODY);
        assert_eq!(pool.window(slow), NOBODY);
        assert_eq!(pool.window(slow), [2]);
        assert_eq!(pool.window(slow), NOBODY, "it begins anew");
    }

    #[test]
    fn windows_in_between_break_the_row() {
        let mut pool = Pool::new();
        let slow = [(100, 5), (100, 6), (100, 60), (100, 5)];
        let even = [(100, 5); 4];
        let idle = [(100, 5), (100, 6), (0, 0), (100, 5)];
        for between in [even, idle, [(0, 0); 4]] {
            for _ in 0..3 {
                assert_eq!(pool.window(slow), NOBODY);
                assert_eq!(pool.window(slow), NOBODY);
                assert_eq!(pool.window(between), NOBODY);
            }
        }
    }

    #[test]
    fn an_evenly_slow_pool_has_no_outlier() {
        let mut pool = Pool::new();
        for ms in [1, 10, 1_000, 5_000] {
            for _ in 0..4 {
                assert_eq!(pool.window([(50, ms); 4]), NOBODY);
            }
        }
    }

    #[test]
    fn few_answers_are_not_judged() {
        let mut pool = Pool::new();
        for _ in 0..5 {
            let few = [(100, 5), (100, 5), (19, 900), (100, 5)];
            assert_eq!(pool.window(few), NOBODY, "of the slow one");
            let alone = [(100, 5), (19, 5), (100, 900), (19, 5)];
            assert_eq!(pool.window(alone), NOBODY, "of too many others");
        }
    }

    #[test]
    fn among_the_fast_several_times_as_slow_is_fast() {
        let mut pool = Pool::new();
        for _ in 0..5 {
            assert_eq!(
                pool.window([(100, 1), (100, 1), (100, 11), (100, 1)]),
                NOBODY
            );
        }
        let slow = [(100, 1), (100, 1), (100, 12), (100, 1)];
        let found: Vec<_> = (0..3).flat_map(|_| pool.window(slow)).collect();
        assert_eq!(found, [2]);
    }

    #[test]
    fn a_backend_that_came_again_is_not_judged_by_what_it_was() {
        let mut pool = Pool::new();
        pool.window([(100, 5); 4]);
        pool.totals[2] = Totals::default();
        for _ in 0..2 {
            assert_eq!(pool.window([(50, 5), (50, 5), (50, 900), (50, 5)]), NOBODY);
        }
        assert_eq!(pool.window([(50, 5), (50, 5), (50, 5), (50, 5)]), NOBODY);
    }
}
