//! When probes start: the first ones spread over an interval, then each target at its own pace.

use std::time::Duration;

use fastrand::Rng;

/// Spreads the first probes of targets over their interval.
#[derive(Debug)]
pub(super) struct FirstProbes {
    /// The last position in the interval, 0 to 1.
    at: f64,
}

impl FirstProbes {
    pub(super) fn new(random: &mut Rng) -> Self {
        Self { at: random.f64() }
    }

    /// How long the next target waits for its first probe. Multiples of the golden ratio spread any
    /// number of targets about evenly: they leave gaps of three sizes only. (Random times would
    /// give each tenth of the interval some 10% more or less than its share.)
    pub(super) fn next(&mut self, interval: Duration) -> Duration {
        self.at = (self.at + GOLDEN).fract();
        interval.min(SPREAD_MAX).mul_f64(self.at)
    }
}

/// An interval with jitter, so that balancers and targets do not synchronise.
pub(super) fn jittered(interval: Duration, random: &mut Rng) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.f64())
}

/// How much later a target's next probe comes, as this one began so late: the thread has more to do
/// than it can.
pub(super) fn relief(late: Duration) -> Duration {
    if late < LATE {
        return Duration::ZERO;
    }
    late.min(LATE_MAX) * RELIEF
}

/// Less than this is usual: 20 ms.
const LATE: Duration = Duration::from_millis(20);
/// More than this is a stop of the process, not load: 250 ms.
const LATE_MAX: Duration = Duration::from_millis(250);
const RELIEF: u32 = 8;
/// The golden ratio's fraction.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
const JITTER: f64 = 0.05;
/// The first probe comes within this time, however long the interval is.
const SPREAD_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_probe_puts_off_the_next_one() {
        let relieved = [10, 19, 20, 250, 5_000].map(|ms| relief(Duration::from_millis(ms)));
        assert_eq!(
            relieved.map(|time| time.as_millis()),
            [0, 0, 160, 2_000, 2_000]
        );
    }

    #[test]
    fn a_thousand_targets_start_evenly_within_an_interval() {
        for seed in 0..100 {
            let mut spread = FirstProbes::new(&mut Rng::with_seed(seed));
            let mut tenths = [0_u32; 10];
            for _ in 0..1_000 {
                let start = spread.next(Duration::from_secs(2));
                let tenth = tenths.get_mut(start.as_millis() as usize / 200);
                *tenth.expect("within the interval") += 1;
            }
            assert!(
                tenths.iter().all(|count| (90..=110).contains(count)),
                "{seed}: {tenths:?}"
            );
        }
    }

    #[test]
    fn the_first_probe_comes_soon_whatever_the_interval() {
        let mut spread = FirstProbes::new(&mut Rng::with_seed(1));
        for _ in 0..100 {
            assert!(spread.next(Duration::from_secs(3_600)) <= SPREAD_MAX);
        }
    }

    #[test]
    fn jitter_is_five_percent_to_both_sides() {
        let mut random = Rng::with_seed(7);
        let all: Vec<_> = (0..1_000)
            .map(|_| jittered(Duration::from_secs(1), &mut random).as_millis())
            .collect();
        assert!(all.iter().all(|ms| (950..=1_050).contains(ms)));
        assert!(all.iter().any(|ms| *ms < 960) && all.iter().any(|ms| *ms > 1_040));
        assert_eq!(
            jittered(Duration::from_secs(1), &mut Rng::with_seed(7)).as_millis(),
            all[0]
        );
    }
}
