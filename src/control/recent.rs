//! Recent latencies: samples of the workers' counts over the last minute.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admin::model::{LatencyStatus, LatencyWindow};
use crate::worker::{Counts, LATENCIES, LatencyCounts, Stats};

/// The counts of all workers together.
type Sample = LatencyCounts;

/// The last samples, the newest last; one every [`EVERY`] ticks, which come each second.
#[derive(Debug, Default)]
pub(super) struct Recent {
    samples: VecDeque<Sample>,
    ticks: usize,
}

impl Recent {
    /// To be called each second.
    pub(super) fn tick(&mut self, stats: &[Arc<Stats>]) {
        if self.ticks.is_multiple_of(EVERY) {
            if self.samples.len() > MINUTE {
                self.samples.pop_front();
            }
            self.samples.push_back(sample(stats));
        }
        self.ticks += 1;
    }

    /// Of the last 10 s, of the last minute and since the start.
    pub(super) fn status(&self, stats: &[Arc<Stats>]) -> Vec<LatencyStatus> {
        let now = sample(stats);
        let before = |samples: usize| {
            let first = self.samples.len().checked_sub(samples);
            first.and_then(|first| self.samples.get(first))
        };
        let [ten, minute] = [TEN, MINUTE].map(|samples| before(samples + 1));
        let kinds = LATENCIES.iter().zip(&now).enumerate();
        let kinds = kinds.map(|(kind, (metric, counts))| {
            // Younger than the window: everything since the start.
            let since = |sample: Option<&Sample>| match sample {
                Some(sample) => window(&counts.since(&sample[kind])),
                None => window(counts),
            };
            LatencyStatus {
                name: metric.name.to_owned(),
                last_10s: since(ten),
                last_1m: since(minute),
                since_start: window(counts),
            }
        });
        kinds.collect()
    }
}

fn sample(stats: &[Arc<Stats>]) -> Sample {
    let mut sample = Sample::default();
    for its in stats {
        for (counts, times) in sample.iter_mut().zip(its.latencies.all()) {
            counts.add(times);
        }
    }
    sample
}

fn window(counts: &Counts) -> LatencyWindow {
    LatencyWindow {
        count: counts.count(),
        p50_us: counts.quantile(500),
        p99_us: counts.quantile(990),
        p999_us: counts.quantile(999),
    }
}

/// One sample every two seconds: a window may be that much longer.
const EVERY: usize = 2;
const TEN: usize = 10 / EVERY;
const MINUTE: usize = 60 / EVERY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_what_happened_within_it() {
        let stats = [Arc::new(Stats::default())];
        let mut recent = Recent::default();
        let count = |recent: &Recent| {
            let all = recent.status(&stats);
            let first = &all[1];
            assert_eq!(first.name, "first_byte");
            [&first.last_10s, &first.last_1m, &first.since_start].map(|one| one.count)
        };
        assert_eq!(count(&recent), [0; 3]);
        recent.tick(&stats);
        stats[0].latencies.first_byte.record(1_000);
        assert_eq!(count(&recent), [1; 3]);
        (0..9).for_each(|_| recent.tick(&stats));
        assert_eq!(count(&recent), [1; 3]);
        (0..4).for_each(|_| recent.tick(&stats));
        assert_eq!(count(&recent), [0, 1, 1]);
        (0..100).for_each(|_| recent.tick(&stats));
        assert_eq!(count(&recent), [0, 0, 1]);
        assert_eq!(recent.samples.len(), MINUTE + 1);
    }
}
