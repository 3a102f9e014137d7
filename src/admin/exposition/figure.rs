//! What a figure of `/metrics` is, and how it is declared.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::model::{PacedStatus, TrafficStatus};
use crate::buckets::BucketCounts;
use crate::metric::{BucketBounds, Kind, Metric, Unit};
use crate::worker::Counts;

/// The figures of subjects of a kind.
pub(super) struct Group<S> {
    /// What the subjects are, such as `backend`; empty: the process.
    pub(super) subject: &'static str,
    /// What tells them apart.
    pub(super) labels: &'static [&'static str],
    pub(super) figures: Vec<Figure<S>>,
}

/// A figure of a subject, and where it is read.
pub(super) struct Figure<S> {
    pub(super) metric: Metric,
    pub(super) reading: Reading<S>,
}

/// Reads something of a subject.
type Read<S, T> = Box<dyn Fn(&S) -> T + Send + Sync>;

/// How a figure is read.
pub(super) enum Reading<S> {
    /// `None`: the subject has none.
    One(Read<S, Option<Value>>),
    /// One for each value of a further label.
    Each(&'static str, Read<S, Vec<(String, Value)>>),
    /// Exact counts, shown with these bounds.
    Times(BucketBounds, Box<dyn Fn(&S) -> &Counts + Send + Sync>),
    /// Counts that have their bounds.
    Buckets(Box<dyn Fn(&S) -> &BucketCounts + Send + Sync>),
}

/// A value of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Part(f64),
}

impl<S> Group<S> {
    pub(super) fn new(
        subject: &'static str,
        labels: &'static [&'static str],
        figures: Vec<Figure<S>>,
    ) -> Self {
        Self {
            subject,
            labels,
            figures,
        }
    }

    /// The name of a figure without the prefix of all, and without its unit.
    pub(super) fn name_of(&self, metric: &Metric) -> String {
        match self.subject {
            "" => metric.name.to_owned(),
            subject => format!("{subject}_{}", metric.name),
        }
    }
}

impl<S> Figure<S> {
    pub(super) fn in_unit(mut self, unit: Unit) -> Self {
        self.metric.unit = Some(unit);
        self
    }
}

pub(super) fn metric(kind: Kind, name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind,
        unit: None,
        help,
    }
}

pub(super) fn optional<S: 'static>(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    read: fn(&S) -> Option<Value>,
) -> Figure<S> {
    Figure {
        metric: metric(kind, name, help),
        reading: Reading::One(Box::new(read)),
    }
}

pub(super) fn gauge<S, V: Into<Value>>(
    name: &'static str,
    help: &'static str,
    read: impl Fn(&S) -> V + Send + Sync + 'static,
) -> Figure<S> {
    Figure {
        metric: metric(Kind::Gauge, name, help),
        reading: Reading::One(Box::new(move |its| Some(read(its).into()))),
    }
}

pub(super) fn counter<S, V: Into<Value>>(
    name: &'static str,
    help: &'static str,
    read: impl Fn(&S) -> V + Send + Sync + 'static,
) -> Figure<S> {
    Figure {
        metric: metric(Kind::Counter, name, help),
        ..gauge(name, help, read)
    }
}

/// A counter for each value of a label.
pub(super) fn each<S: 'static>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    read: fn(&S) -> Vec<(String, Value)>,
) -> Figure<S> {
    Figure {
        metric: metric(Kind::Counter, name, help),
        reading: Reading::Each(label, Box::new(read)),
    }
}

/// A gauge for each value of a label.
pub(super) fn each_now<S: 'static>(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    read: fn(&S) -> Vec<(String, Value)>,
) -> Figure<S> {
    Figure {
        metric: metric(Kind::Gauge, name, help),
        ..each(name, help, label, read)
    }
}

/// A histogram of times.
pub(super) fn times<S: 'static>(
    name: &'static str,
    help: &'static str,
    read: fn(&S) -> &BucketCounts,
) -> Figure<S> {
    let figure = Figure {
        metric: metric(Kind::Histogram, name, help),
        reading: Reading::Buckets(Box::new(read)),
    };
    figure.in_unit(Unit::Seconds)
}

pub(super) fn traffic<S>(read: impl Fn(&S) -> &TrafficStatus + Send + Sync + 'static) -> Figure<S> {
    let help = "Bytes delivered: up is from clients, down to them.";
    let figure = Figure {
        metric: metric(Kind::Counter, "traffic", help),
        reading: Reading::Each(
            "direction",
            Box::new(move |its| {
                let its = read(its);
                both(its.bytes_up, its.bytes_down)
            }),
        ),
    };
    figure.in_unit(Unit::Bytes)
}

pub(super) fn rests(paced: &PacedStatus) -> Vec<(String, Value)> {
    both(paced.rests_up, paced.rests_down)
}

pub(super) fn both(up: u64, down: u64) -> Vec<(String, Value)> {
    let of = |name: &str, count| (name.to_owned(), Value::Whole(count));
    vec![of("up", up), of("down", down)]
}

pub(super) fn counts(by: &BTreeMap<String, u64>) -> Vec<(String, Value)> {
    let by = by.iter();
    by.map(|(name, count)| (name.clone(), Value::Whole(*count)))
        .collect()
}

pub(super) fn micros(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

impl From<u64> for Value {
    fn from(whole: u64) -> Self {
        Self::Whole(whole)
    }
}

impl From<usize> for Value {
    fn from(whole: usize) -> Self {
        Self::Whole(whole as u64)
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Self {
        Self::Whole(holds.into())
    }
}

impl From<f64> for Value {
    fn from(part: f64) -> Self {
        Self::Part(part)
    }
}
