//! Recent latencies: looks at what the workers count, of the last minute.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admin::model::{LatencyStatus, LatencyWindow};
use crate::worker::{Counts, Latencies, Stats};

/// The counts of all workers together, of each kind.
type Look = [Counts; 3];

/// The last looks, the latest last. One every [`EVERY`] ticks, of a second each.
#[derive(Debug, Default)]
pub(super) struct Recent {
    looks: VecDeque<Look>,
    ticks: usize,
}

impl Recent {
    /// A second has passed.
    pub(super) fn tick(&mut self, stats: &[Arc<Stats>]) {
        if self.ticks.is_multiple_of(EVERY) {
            if self.looks.len() > MINUTE {
                self.looks.pop_front();
            }
            self.looks.push_back(look(stats));
        }
        self.ticks += 1;
    }

    /// Of the last 10 s, of the last minute and since the start.
    pub(super) fn status(&self, stats: &[Arc<Stats>]) -> Vec<LatencyStatus> {
        let now = look(stats);
        let before = |looks: usize| {
            let first = self.looks.len().checked_sub(looks);
            first.and_then(|first| self.looks.get(first))
        };
        let [ten, minute] = [TEN, MINUTE].map(|looks| before(looks + 1));
        let kinds = Latencies::NAMES.iter().zip(&now).enumerate();
        let kinds = kinds.map(|(kind, (name, counts))| {
            // Younger than the window: all that there is.
            let since = |look: Option<&Look>| match look {
                Some(look) => window(&counts.since(&look[kind])),
                None => window(counts),
            };
            LatencyStatus {
                name: (*name).to_owned(),
                last_10s: since(ten),
                last_1m: since(minute),
                since_start: window(counts),
            }
        });
        kinds.collect()
    }
}

fn look(stats: &[Arc<Stats>]) -> Look {
    let mut look = Look::default();
    for its in stats {
        for (counts, times) in look.iter_mut().zip(its.latencies.all()) {
            counts.add(times);
        }
    }
    look
}

fn window(counts: &Counts) -> LatencyWindow {
    LatencyWindow {
        count: counts.count(),
        p50_us: counts.quantile(500),
        p99_us: counts.quantile(990),
    }
}

/// A look every two seconds: a window is that much longer at most.
const EVERY: usize = 2;
const TEN: usize = 10 / EVERY;
const MINUTE: usize = 60 / EVERY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_older() {
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
        assert_eq!(recent.looks.len(), MINUTE + 1);
    }
}
