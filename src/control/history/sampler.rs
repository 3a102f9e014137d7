//! Samples from two looks at all figures: by how much counters went up between them.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use crate::admin::exposition::readings::{Now, Read};
use crate::history::{Batch, FigureOf, Point, Subject};

/// The last look at each subject.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    last: HashMap<Subject, Read>,
    clock: Option<Clock>,
}

/// The second of the last sample, and when in a second samples are taken, in ms.
#[derive(Clone, Copy, Debug)]
struct Clock {
    second: u64,
    phase: u64,
}

impl Sampler {
    /// The second of a sample: one after the other, while samples come each second, so that a tick
    /// at the edge of a second makes no gap.
    pub(super) fn second(&mut self, at: SystemTime) -> u64 {
        let ms = super::ms(at);
        let due = self.clock.map(|clock| (clock.second + 1, clock.phase));
        let due = due.filter(|(second, phase)| ms.abs_diff(second * 1_000 + phase) < LATE_MS);
        let (second, phase) = due.unwrap_or((ms / 1_000, ms % 1_000));
        self.clock = Some(Clock { second, phase });
        second
    }

    /// What each subject did since the last look. Its counters began at 0 when it was added.
    pub(super) fn batch(&mut self, now: Vec<(Subject, Read)>) -> Batch {
        let mut looked = HashMap::with_capacity(now.len());
        let batch = now.into_iter().map(|(subject, read)| {
            let before = self.last.remove(&subject).unwrap_or_default();
            let points = read.iter().map(|(figure, now)| {
                let point = since(now, before.get(figure));
                (figure.clone(), point)
            });
            let points: Vec<(FigureOf, Point)> = points.collect();
            looked.insert(subject.clone(), read);
            (subject, points)
        });
        let batch = batch.collect();
        // Subjects that are gone are forgotten.
        self.last = looked;
        batch
    }
}

fn since(now: &Now, before: Option<&Now>) -> Point {
    match (now, before) {
        (Now::Gauge(value), _) => Point::gauge(*value),
        (Now::Counter(now), Some(Now::Counter(before))) => Point::Counter(more(*now, *before)),
        (Now::Counter(now), _) => Point::Counter(*now),
        (Now::Times(now), before) => {
            let before = match before {
                Some(Now::Times(before)) => before.steps(),
                _ => BTreeMap::new(),
            };
            let steps = now.steps().into_iter();
            let steps = steps.map(|(step, count)| {
                let before = before.get(&step).copied().unwrap_or(0);
                (step, more(count, before))
            });
            Point::Times(steps.filter(|(_, count)| *count > 0).collect())
        }
    }
}

/// One that is less began again: it was removed and added between two looks.
fn more(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// A sample that is this late is one of another second.
const LATE_MS: u64 = 700;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::Of;
    use crate::metric::Kind;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    #[test]
    fn samples_at_the_edge_of_a_second_make_no_gap() {
        let mut sampler = Sampler::default();
        let ticks = [999, 2_001, 2_998, 4_003, 4_999, 8_100, 9_000, 2_000];
        let seconds = ticks.map(|ms| sampler.second(at(ms)) - 1_000);
        assert_eq!(seconds, [0, 1, 2, 3, 4, 8, 9, 2]);
    }

    #[test]
    fn counters_are_what_came_since_the_last_look() {
        let figure = |kind| FigureOf {
            of: Of::Pool,
            name: "x".to_owned(),
            kind,
            unit: None,
            is_part: false,
        };
        let subject = Subject {
            of: Of::Pool,
            pool: "web".to_owned(),
            name: String::new(),
        };
        let mut sampler = Sampler::default();
        let mut batch = |now: Option<Now>| {
            let read = now.map(|now| (figure(Kind::Counter), now));
            let all = sampler.batch(vec![(subject.clone(), read.into_iter().collect())]);
            all[0].1.first().map(|(_, point)| point.clone())
        };
        let counted = [3, 10, 10, 4].map(|now| batch(Some(Now::Counter(now))));
        let want = [3, 7, 0, 4].map(|count| Some(Point::Counter(count)));
        assert_eq!(counted, want);
        assert_eq!(batch(Some(Now::Gauge(5))), Some(Point::gauge(5)));
        assert_eq!(batch(None), None);
        sampler.batch(Vec::new());
        assert!(sampler.last.is_empty());
    }
}
