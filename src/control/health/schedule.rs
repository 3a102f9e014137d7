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

/// The golden ratio's fraction.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
const JITTER: f64 = 0.05;
/// The first probe comes within this time, however long the interval is.
const SPREAD_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

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
