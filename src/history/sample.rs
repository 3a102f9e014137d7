//! What a subject did within an interval, and its bytes in a store.

use std::collections::BTreeMap;
use std::ops::Range;

/// What a subject did within an interval, by the number of the figure in its store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectSample(BTreeMap<u32, Point>);

/// What a figure did within an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// By how much it went up.
    Counter(u64),
    /// How often it was read, the sum of what was read, and the greatest value.
    Gauge {
        /// How often it was read.
        count: u64,
        /// The sum of the values.
        sum: u64,
        /// The greatest value.
        max: u64,
    },
    /// How many values fell into each step of [`Counts`](crate::worker::Counts).
    Times(BTreeMap<u16, u64>),
}

impl Point {
    /// A gauge that was read once.
    #[must_use]
    pub fn gauge(value: u64) -> Self {
        Self::Gauge {
            count: 1,
            sum: value,
            max: value,
        }
    }

    /// Adds what the same figure did in another interval.
    pub fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(sum), Self::Counter(more)) => *sum = sum.saturating_add(*more),
            (
                Self::Gauge { count, sum, max },
                Self::Gauge {
                    count: more,
                    sum: of_more,
                    max: other,
                },
            ) => {
                *count = count.saturating_add(*more);
                *sum = sum.saturating_add(*of_more);
                *max = (*max).max(*other);
            }
            (Self::Times(steps), Self::Times(more)) => {
                for (step, count) in more {
                    let sum = steps.entry(*step).or_default();
                    *sum = sum.saturating_add(*count);
                }
            }
            // A figure has one kind, which is a part of what its number stands for.
            (own, other) => *own = other.clone(),
        }
    }

    /// Nothing has happened: what is not there says the same.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Counter(count) => *count == 0,
            Self::Gauge { count, .. } => *count == 0,
            Self::Times(steps) => steps.is_empty(),
        }
    }
}

impl SubjectSample {
    /// Adds what a figure did.
    pub fn put(&mut self, figure: u32, point: Point) {
        if !point.is_nothing() {
            self.0
                .entry(figure)
                .and_modify(|own| own.add(&point))
                .or_insert(point);
        }
    }

    /// Adds what the same subject did in another interval.
    pub fn add(&mut self, other: &Self) {
        for (figure, point) in &other.0 {
            self.0
                .entry(*figure)
                .and_modify(|own| own.add(point))
                .or_insert_with(|| point.clone());
        }
    }

    /// What each figure did, by number.
    pub fn points(&self) -> impl Iterator<Item = (u32, &Point)> {
        self.0.iter().map(|(figure, point)| (*figure, point))
    }

    /// The sample with other numbers of figures. One without another number is left out.
    #[must_use]
    pub fn renumbered(self, number: impl Fn(u32) -> Option<u32>) -> Self {
        let points = self.0.into_iter();
        let points = points.filter_map(|(figure, point)| Some((number(figure)?, point)));
        Self(points.collect())
    }

    /// Its bytes: for each figure its number with the form of its point in the last two bits, and
    /// the numbers of the point, each in groups of seven bits.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 * self.0.len());
        for (figure, point) in &self.0 {
            let mut begin = |form: u64| push(&mut bytes, u64::from(*figure) << 2 | form);
            match point {
                Point::Counter(count) => {
                    begin(COUNTER);
                    push(&mut bytes, *count);
                }
                Point::Gauge { count, sum, max } if max.checked_mul(*count) == Some(*sum) => {
                    begin(STEADY);
                    push(&mut bytes, *count);
                    push(&mut bytes, *max);
                }
                Point::Gauge { count, sum, max } => {
                    begin(GAUGE);
                    for number in [count, sum, max] {
                        push(&mut bytes, *number);
                    }
                }
                Point::Times(steps) => {
                    begin(TIMES);
                    push(&mut bytes, steps.len() as u64);
                    let mut before = 0;
                    for (step, count) in steps {
                        push(&mut bytes, u64::from(step - before));
                        push(&mut bytes, *count);
                        before = *step;
                    }
                }
            }
        }
        bytes
    }

    /// `None`: the bytes are not those of a sample.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reading::default();
        if !read.take(bytes) {
            return None;
        }
        let points = read.points.iter().map(|(figure, seen)| {
            let point = match seen {
                Seen::Counter(count) => Point::Counter(*count),
                &Seen::Gauge { count, sum, max } => Point::Gauge { count, sum, max },
                Seen::Times(which) => {
                    let steps = read.steps.get(which.clone()).unwrap_or_default();
                    Point::Times(steps.iter().copied().collect())
                }
            };
            (*figure, point)
        });
        Some(Self(points.collect()))
    }
}

/// Reads one sample after the other, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What each figure did, by number.
    pub(super) points: Vec<(u32, Seen)>,
    /// The steps of all times: how many values fell into each.
    pub(super) steps: Vec<(u16, u64)>,
}

/// What a figure did, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// By how much it went up.
    Counter(u64),
    /// As in [`Point::Gauge`].
    Gauge { count: u64, sum: u64, max: u64 },
    /// Which steps of [`Reading::steps`] are its own.
    Times(Range<usize>),
}

impl Reading {
    /// Reads a sample, and forgets the one before; `false`: the bytes are not those of a sample.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        self.points.clear();
        self.steps.clear();
        self.pull_all(bytes).is_some()
    }

    fn pull_all(&mut self, mut bytes: &[u8]) -> Option<()> {
        let bytes = &mut bytes;
        while !bytes.is_empty() {
            let head = pull(bytes)?;
            let figure = u32::try_from(head >> 2).ok()?;
            let seen = match head & 3 {
                COUNTER => Seen::Counter(pull(bytes)?),
                STEADY => {
                    let (count, max) = (pull(bytes)?, pull(bytes)?);
                    let sum = count.checked_mul(max)?;
                    Seen::Gauge { count, sum, max }
                }
                GAUGE => Seen::Gauge {
                    count: pull(bytes)?,
                    sum: pull(bytes)?,
                    max: pull(bytes)?,
                },
                _ => Seen::Times(self.pull_steps(bytes)?),
            };
            self.points.push((figure, seen));
        }
        Some(())
    }

    fn pull_steps(&mut self, bytes: &mut &[u8]) -> Option<Range<usize>> {
        let begin = self.steps.len();
        let mut step = 0_u16;
        for _ in 0..pull(bytes)? {
            step = step.checked_add(u16::try_from(pull(bytes)?).ok()?)?;
            self.steps.push((step, pull(bytes)?));
        }
        Some(begin..self.steps.len())
    }
}

/// Adds how many values fell into some steps. Both are in the order of steps.
pub(super) fn merge(into: &mut Vec<(u16, u64)>, steps: &[(u16, u64)]) {
    let mut place = 0;
    for (step, count) in steps {
        while into.get(place).is_some_and(|(own, _)| own < step) {
            place += 1;
        }
        match into.get_mut(place) {
            Some((own, sum)) if own == step => *sum = sum.saturating_add(*count),
            _ => into.insert(place, (*step, *count)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "seven bits of the number are taken at a time"
)]
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= MORE.into() {
        bytes.push(number as u8 | MORE);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pull(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..10 {
        let byte = *bytes.split_off_first()?;
        let bits = u64::from(byte & !MORE);
        // The tenth group has one bit.
        if place == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * place);
        if byte & MORE == 0 {
            return Some(number);
        }
    }
    None
}

/// Another group follows.
const MORE: u8 = 0x80;
/// Forms of points.
const COUNTER: u64 = 0;
/// A gauge that had one value.
const STEADY: u64 = 1;
const GAUGE: u64 = 2;
const TIMES: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn any(seed: u64) -> SubjectSample {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut sample = SubjectSample::default();
        for _ in 0..chance.usize(..20) {
            let number = |chance: &mut fastrand::Rng| chance.u64(..) >> chance.u32(..64);
            let point = match chance.u32(..4) {
                0 => Point::Counter(number(&mut chance)),
                1 => Point::gauge(number(&mut chance)),
                2 => Point::Gauge {
                    count: 1 + (number(&mut chance) >> 8),
                    sum: number(&mut chance),
                    max: number(&mut chance),
                },
                _ => Point::Times(
                    (0..chance.u16(..9))
                        .map(|of| (of * 51, 1 + u64::from(of)))
                        .collect(),
                ),
            };
            // A number stands for one kind.
            let kind = match point {
                Point::Counter(_) => 0,
                Point::Gauge { .. } => 1,
                Point::Times(_) => 2,
            };
            sample.put(chance.u32(..60) * 3 + kind, point);
        }
        sample
    }

    #[test]
    fn a_sample_is_read_as_it_was_written() {
        for seed in 0..2_000 {
            let sample = any(seed);
            let bytes = sample.to_bytes();
            assert_eq!(SubjectSample::of_bytes(&bytes), Some(sample), "seed {seed}");
        }
        for number in [0, 127, 128, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            push(&mut bytes, number);
            assert_eq!(pull(&mut &*bytes), Some(number));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut chance = fastrand::Rng::with_seed(7);
        for seed in 0..2_000 {
            let mut bytes = any(seed).to_bytes();
            bytes.truncate(chance.usize(..=bytes.len()));
            if let Some(byte) = chance.choice(&mut bytes) {
                *byte = 0xff;
            }
            let _ = SubjectSample::of_bytes(&bytes);
        }
        assert_eq!(SubjectSample::of_bytes(&[0xff; 11]), None);
    }

    #[test]
    fn samples_add_up_in_any_order() {
        for seed in 0..500 {
            let parts = [any(seed), any(seed + 1), any(seed + 2)];
            let sum = |order: [usize; 3]| {
                let mut sum = SubjectSample::default();
                order.iter().for_each(|part| sum.add(&parts[*part]));
                sum
            };
            assert_eq!(sum([0, 1, 2]), sum([2, 0, 1]), "seed {seed}");
        }
    }

    #[test]
    fn what_did_not_happen_takes_no_bytes() {
        let mut sample = SubjectSample::default();
        sample.put(1, Point::Counter(0));
        sample.put(2, Point::Times(BTreeMap::new()));
        assert!(sample.to_bytes().is_empty());
        sample.put(3, Point::gauge(0));
        assert_eq!(sample.to_bytes().len(), 3);
    }
}
