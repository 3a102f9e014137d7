//! What was found of a subject: what each of its figures did, interval by interval.
//!
//! A question about a day reads some hundred thousand samples. So figures and intervals are found
//! by their places, and no point is kept on its own.

use super::answer::{FigureHistory, Measured};
use super::sample::{Seen, merge};
use super::{FigureOf, MILLION};
use crate::metric::{Kind, Unit};
use crate::worker::quantiles;

/// What was found of a subject.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// For how many seconds there is something of it, by interval; empty: there is nothing.
    present: Vec<u64>,
    /// By the place of the figure among those of its kind of subjects.
    figures: Vec<Option<Series>>,
}

/// What a figure did in each interval. Where a gauge or times have a count of 0 there is nothing.
#[derive(Debug)]
enum Series {
    Counter(Vec<u64>),
    Gauge(Vec<Reads>),
    /// How many values fell into each step, in the order of steps.
    Times(Vec<Vec<(u16, u64)>>),
}

/// What was read of a gauge.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    count: u64,
    sum: u64,
    max: u64,
}

impl Gathered {
    /// There is nothing of it yet.
    pub(super) fn is_new(&self) -> bool {
        self.present.is_empty()
    }

    /// There is a figure of it.
    pub(super) fn has_figures(&self) -> bool {
        self.figures.iter().any(Option::is_some)
    }

    /// Whether there is something of a figure.
    pub(super) fn has(&self, place: usize) -> bool {
        matches!(self.figures.get(place), Some(Some(_)))
    }

    /// Makes room for something.
    pub(super) fn begin(&mut self, intervals: usize) {
        self.present.resize(intervals, 0);
    }

    /// Makes room for a figure.
    pub(super) fn begin_figure(&mut self, place: usize, kind: Kind) {
        let intervals = self.present.len();
        let places = self.figures.len().max(place + 1);
        self.figures.resize_with(places, || None);
        self.figures[place] = Some(match kind {
            Kind::Counter => Series::Counter(vec![0; intervals]),
            Kind::Gauge => Series::Gauge(vec![Reads::default(); intervals]),
            Kind::Histogram => Series::Times(vec![Vec::new(); intervals]),
        });
    }

    /// It was recorded for some seconds of an interval.
    pub(super) fn add_seconds(&mut self, interval: usize, seconds: u64) {
        if let Some(present) = self.present.get_mut(interval) {
            *present = present.saturating_add(seconds);
        }
    }

    /// Adds what a figure did in an interval or a part of it.
    pub(super) fn add(&mut self, place: usize, interval: usize, seen: &Seen, steps: &[(u16, u64)]) {
        let Some(Some(series)) = self.figures.get_mut(place) else {
            return;
        };
        match (series, seen) {
            (Series::Counter(sums), Seen::Counter(more)) => {
                if let Some(sum) = sums.get_mut(interval) {
                    *sum = sum.saturating_add(*more);
                }
            }
            (Series::Gauge(reads), Seen::Gauge { count, sum, max }) => {
                if let Some(own) = reads.get_mut(interval) {
                    own.add(Reads {
                        count: *count,
                        sum: *sum,
                        max: *max,
                    });
                }
            }
            (Series::Times(all), Seen::Times(which)) => {
                if let (Some(own), Some(steps)) = (all.get_mut(interval), steps.get(which.clone()))
                {
                    merge(own, steps);
                }
            }
            // A figure has one kind, which is a part of what its number stands for.
            _ => {}
        }
    }

    /// Makes each interval so many times as long.
    pub(super) fn coarsen(&mut self, factor: usize) {
        let sum = |fine: &[u64]| {
            fine.iter()
                .fold(0, |sum: u64, its| sum.saturating_add(*its))
        };
        let sums = |fine: &[u64]| fine.chunks(factor).map(sum).collect();
        self.present = sums(&self.present);
        for series in self.figures.iter_mut().flatten() {
            match series {
                Series::Counter(fine) => *fine = sums(fine),
                Series::Gauge(fine) => {
                    let parts = fine.chunks(factor).map(|part| {
                        let mut sum = Reads::default();
                        part.iter().for_each(|its| sum.add(*its));
                        sum
                    });
                    *fine = parts.collect();
                }
                Series::Times(fine) => {
                    let parts = fine.chunks(factor).map(|part| {
                        let mut sum = Vec::new();
                        part.iter().for_each(|its| merge(&mut sum, its));
                        sum
                    });
                    *fine = parts.collect();
                }
            }
        }
    }

    /// For how many seconds of each interval there is something.
    pub(super) fn recorded(&self, step: u64) -> Vec<u64> {
        self.present
            .iter()
            .map(|seconds| (*seconds).min(step))
            .collect()
    }

    /// What each figure was. `known` has them by place.
    pub(super) fn shown<'a>(
        &'a self,
        known: &'a [FigureOf],
    ) -> impl Iterator<Item = (String, FigureHistory)> + 'a {
        let both = known.iter().zip(&self.figures);
        both.filter_map(|(figure, series)| {
            let shown = shown(figure, series.as_ref()?, &self.present);
            Some((figure.name.clone(), shown))
        })
    }
}

impl Reads {
    fn add(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        self.sum = self.sum.saturating_add(more.sum);
        self.max = self.max.max(more.max);
    }
}

/// The values that a figure has in each interval.
pub(super) fn columns(kind: Kind) -> u64 {
    match kind {
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 4,
    }
}

/// The values of a figure in each interval.
fn shown(figure: &FigureOf, series: &Series, present: &[u64]) -> FigureHistory {
    let unit = figure.unit.map(|unit| {
        let word = match unit {
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
        };
        word.to_owned()
    });
    let measured = |value: u64| Measured::of(value, figure.is_part);
    // While a subject was there, what has no point did not happen.
    let was_there = |seconds: &u64| *seconds > 0;
    match series {
        Series::Counter(sums) => {
            let both = sums.iter().zip(present);
            let sum = both.map(|(sum, there)| was_there(there).then(|| measured(*sum)));
            FigureHistory::Counter {
                unit,
                sum: sum.collect(),
            }
        }
        Series::Gauge(reads) => {
            let scale = if figure.is_part { MILLION } else { 1 };
            let there = |its: &Reads| (its.count > 0).then_some(*its);
            let mean = |its: Reads| ratio(its.sum, its.count) / ratio(scale, 1);
            let max = |its: Reads| measured(its.max);
            FigureHistory::Gauge {
                unit,
                mean: reads.iter().map(|its| there(its).map(mean)).collect(),
                max: reads.iter().map(|its| there(its).map(max)).collect(),
            }
        }
        Series::Times(all) => {
            let [mut p50, mut p99, mut p999] = [const { Vec::new() }; 3];
            for steps in all {
                let found = (!steps.is_empty()).then(|| quantiles(steps, [500, 990, 999]));
                for (to, nth) in [&mut p50, &mut p99, &mut p999].into_iter().zip(0..) {
                    to.push(found.map(|us: [u64; 3]| ratio(us[nth], MILLION)));
                }
            }
            let total = |steps: &[(u16, u64)]| {
                let counts = steps.iter().map(|(_, count)| *count);
                counts.fold(0, u64::saturating_add)
            };
            let both = all.iter().zip(present);
            let count = both.map(|(steps, there)| was_there(there).then(|| total(steps)));
            FigureHistory::Histogram {
                unit,
                count: count.collect(),
                p50,
                p99,
                p999,
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are enough to show it")]
pub(super) fn ratio(value: u64, of: u64) -> f64 {
    value as f64 / of as f64
}
