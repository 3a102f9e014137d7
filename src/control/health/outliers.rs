//! Finds backends whose real sessions are answered much slower than those of the rest of the pool.

use crate::pool::Totals;
use crate::time::SECOND;

/// Watches one pool's answer times, window by window.
///
/// It compares backends with enough answers in a window, if there are enough of them. A backend
/// that stands out in several windows in a row is slow; a single window may be chance.
#[derive(Debug, Default)]
pub(in crate::control) struct Outliers {
    /// When the window began, in ns of the workers' clock.
    since: Option<u64>,
}

/// What is known of one backend: default before its first window.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::control) struct Window {
    /// The totals when the window began: answers, and the time that they took together.
    began: Option<(u64, u64)>,
    /// Windows in a row in which it stood out.
    strikes: u32,
}

impl Outliers {
    /// Ends the window if it is over, and answers with the indices of the backends to eject. To be
    /// called more often than once in a window, such as each second.
    ///
    /// `backends`: the window of each, and its totals as
    /// [`Tally::totals`](crate::pool::Tally::totals) has them. `latency`: how slow is too slow, in
    /// percent of the median of the backends' mean answer times. `now`: ns of the workers' clock.
    pub(in crate::control) fn tick(
        &mut self,
        backends: &mut [(&mut Window, Totals)],
        latency: u16,
        now: u64,
    ) -> Vec<usize> {
        let Some(since) = self.since else {
            self.since = Some(now);
            for (window, totals) in backends {
                window.end(totals);
            }
            return Vec::new();
        };
        if now.saturating_sub(since) < WINDOW {
            return Vec::new();
        }
        self.since = Some(now);
        let means = backends
            .iter_mut()
            .map(|(window, totals)| window.end(totals));
        let means: Vec<_> = means.collect();
        let Some(median) = median(&means) else {
            backends
                .iter_mut()
                .for_each(|(window, _)| window.strikes = 0);
            return Vec::new();
        };
        let limit = (median * f64::from(latency) / 100.0).max(median + MARGIN_NS);
        let mut out = Vec::new();
        for (index, ((window, _), mean)) in backends.iter_mut().zip(&means).enumerate() {
            let stands_out = mean.is_some_and(|mean| mean > limit);
            window.strikes = if stands_out { window.strikes + 1 } else { 0 };
            if window.strikes == STRIKES {
                window.strikes = 0;
                out.push(index);
            }
        }
        out
    }
}

impl Window {
    /// The mean answer time in ns since the window began, if there were enough answers. Begins the
    /// next window.
    fn end(&mut self, totals: &Totals) -> Option<f64> {
        let began = self.began.replace((totals.answered, totals.answer));
        let (answered, answer) = began?;
        // A backend that was removed and added again begins from zero.
        let answered = totals.answered.checked_sub(answered)?;
        let answer = totals.answer.checked_sub(answer)?;
        (answered >= ANSWERS_MIN).then(|| to_f64(answer) / to_f64(answered))
    }
}

/// The median of the means, if there are enough.
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

/// Length of a window.
const WINDOW: u64 = 10 * SECOND;
/// A backend that stands out in so many windows in a row is an outlier.
const STRIKES: u32 = 3;
/// Answers in a window that make a mean significant.
const ANSWERS_MIN: u64 = 20;
/// Backends that make a median significant.
const BACKENDS_MIN: usize = 3;
/// An outlier is slower than the median by at least this: several times as slow as 1 ms is still
/// fast.
const MARGIN_NS: f64 = 10_000_000.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MS;

    const NONE: [usize; 0] = [];

    /// A pool whose backends answer so often per window, in so many ms.
    struct Pool {
        outliers: Outliers,
        windows: [Window; 4],
        totals: [Totals; 4],
        now: u64,
    }

    impl Pool {
        fn new() -> Self {
            let mut pool = Self {
                outliers: Outliers::default(),
                windows: [Window::default(); 4],
                totals: [Totals::default(); 4],
                now: 5,
            };
            assert_eq!(pool.tick(), NONE);
            pool
        }

        fn tick(&mut self) -> Vec<usize> {
            let backends = self.windows.iter_mut().zip(self.totals);
            let mut backends: Vec<_> = backends.collect();
            self.outliers.tick(&mut backends, 500, self.now)
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
        assert_eq!(pool.window(slow), NONE);
        assert_eq!(pool.window(slow), NONE);
        assert_eq!(pool.window(slow), [2]);
        assert_eq!(pool.window(slow), NONE, "the count starts again");
    }

    #[test]
    fn a_window_without_it_resets_the_count() {
        let mut pool = Pool::new();
        let slow = [(100, 5), (100, 6), (100, 60), (100, 5)];
        let even = [(100, 5); 4];
        let idle = [(100, 5), (100, 6), (0, 0), (100, 5)];
        for between in [even, idle, [(0, 0); 4]] {
            for _ in 0..3 {
                assert_eq!(pool.window(slow), NONE);
                assert_eq!(pool.window(slow), NONE);
                assert_eq!(pool.window(between), NONE);
            }
        }
    }

    #[test]
    fn an_evenly_slow_pool_has_no_outlier() {
        let mut pool = Pool::new();
        for ms in [1, 10, 1_000, 5_000] {
            for _ in 0..4 {
                assert_eq!(pool.window([(50, ms); 4]), NONE);
            }
        }
    }

    #[test]
    fn few_answers_do_not_count() {
        let mut pool = Pool::new();
        for _ in 0..5 {
            let few = [(100, 5), (100, 5), (19, 900), (100, 5)];
            assert_eq!(pool.window(few), NONE, "of the slow one");
            let alone = [(100, 5), (19, 5), (100, 900), (19, 5)];
            assert_eq!(pool.window(alone), NONE, "of too many others");
        }
    }

    #[test]
    fn among_the_fast_several_times_as_slow_is_fast() {
        let mut pool = Pool::new();
        for _ in 0..5 {
            assert_eq!(pool.window([(100, 1), (100, 1), (100, 11), (100, 1)]), NONE);
        }
        let slow = [(100, 1), (100, 1), (100, 12), (100, 1)];
        let found: Vec<_> = (0..3).flat_map(|_| pool.window(slow)).collect();
        assert_eq!(found, [2]);
    }

    #[test]
    fn a_backend_that_was_added_again_begins_from_zero() {
        let mut pool = Pool::new();
        pool.window([(100, 5); 4]);
        pool.totals[2] = Totals::default();
        for _ in 0..2 {
            assert_eq!(pool.window([(50, 5), (50, 5), (50, 900), (50, 5)]), NONE);
        }
        assert_eq!(pool.window([(50, 5), (50, 5), (50, 5), (50, 5)]), NONE);
    }
}
