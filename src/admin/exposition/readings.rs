//! The figures of `/metrics` as the history keeps them: by process, listener, pool and backend. The
//! process has the sum of its workers.

use std::collections::{BTreeMap, HashSet};

use super::figure::{Figure, Group, Reading, Value};
use super::figures;
use crate::admin::model::{ListenerStatus, PoolStatus, Status};
use crate::history::{FigureOf, MILLION, Of, Subject};
use crate::metric::{Kind, Metric};
use crate::worker::{Counts, LatencyCounts};

/// The state of everything at about one time.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) pools: Vec<PoolStatus>,
    /// By worker, of each kind.
    pub(crate) latencies: Vec<LatencyCounts>,
}

/// What a figure is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Now {
    Gauge(u64),
    /// Since the start, or since its subject was added.
    Counter(u64),
    /// The same.
    Times(Counts),
}

/// The figures of a subject.
pub(crate) type Read = BTreeMap<FigureOf, Now>;

impl State {
    /// All figures, up to so many subjects.
    pub(crate) fn read(&self, subjects_max: usize) -> Vec<(Subject, Read)> {
        let mut process = Read::new();
        figures::PROCESS.read(Of::Process, "", &self.status, &mut process);
        for worker in &self.status.workers {
            figures::WORKER.read(Of::Process, WORKER, worker, &mut process);
        }
        for worker in &self.latencies {
            figures::TIMES.read(Of::Process, WORKER, worker, &mut process);
        }
        let mut all = vec![(subject(Of::Process, "", ""), process)];
        all.extend(self.listeners.iter().map(|its| {
            let figures = figures::LISTENER.all(Of::Listener, its);
            (subject(Of::Listener, "", &its.name), figures)
        }));
        all.extend(self.pools.iter().map(|its| {
            let figures = figures::POOL.all(Of::Pool, its);
            (subject(Of::Pool, &its.name, ""), figures)
        }));
        // One that is leaving may have a successor of its name, which comes first.
        let mut seen = HashSet::new();
        let backends = self.pools.iter().flat_map(|pool| &pool.backends);
        let backends = backends
            .filter(|its| seen.insert((&its.pool, &its.name)))
            .take(subjects_max.saturating_sub(all.len()))
            .map(|its| {
                let figures = figures::BACKEND.all(Of::Backend, its);
                (subject(Of::Backend, &its.pool, &its.name), figures)
            });
        let backends: Vec<_> = backends.collect();
        all.extend(backends);
        all
    }
}

impl<S> Group<S> {
    fn all(&self, of: Of, its: &S) -> Read {
        let mut into = Read::new();
        self.read(of, "", its, &mut into);
        into
    }

    /// Adds the figures of a subject.
    fn read(&self, of: Of, prefix: &str, its: &S, into: &mut Read) {
        for Figure { metric, reading } in &self.figures {
            // The snapshot of a worker is no part of a sum.
            if !prefix.is_empty() && metric.name == SNAPSHOT {
                continue;
            }
            let named = |label: &str, is_part| FigureOf {
                of,
                name: format!(
                    "{prefix}{}{}{label}",
                    metric.name,
                    if label.is_empty() { "" } else { "." }
                ),
                kind: metric.kind,
                unit: metric.unit,
                is_part,
            };
            match reading {
                Reading::One(read) => {
                    if let Some(value) = read(its) {
                        add(into, named("", value.is_part()), now(metric, value));
                    }
                }
                Reading::Each(_, read) => {
                    for (label, value) in read(its) {
                        add(into, named(&label, value.is_part()), now(metric, value));
                    }
                }
                Reading::Times(_, read) => {
                    add(into, named("", false), Now::Times(read(its).clone()))
                }
                // Those of each backend would be most of the history. The process has its own.
                Reading::Buckets(_) => {}
            }
        }
    }
}

impl Value {
    fn is_part(self) -> bool {
        match self {
            Self::Whole(_) => false,
            Self::Part(_) => true,
        }
    }
}

/// Workers count together.
fn add(into: &mut Read, figure: FigureOf, now: Now) {
    match (into.get_mut(&figure), now) {
        (Some(Now::Gauge(sum)), Now::Gauge(more))
        | (Some(Now::Counter(sum)), Now::Counter(more)) => {
            *sum = sum.saturating_add(more);
        }
        (Some(Now::Times(sum)), Now::Times(more)) => sum.add_counts(&more),
        (_, now) => drop(into.insert(figure, now)),
    }
}

fn now(metric: &Metric, value: Value) -> Now {
    let value = match value {
        Value::Whole(whole) => whole,
        Value::Part(part) => millionths(part),
    };
    match metric.kind {
        Kind::Counter => Now::Counter(value),
        Kind::Gauge | Kind::Histogram => Now::Gauge(value),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "no figure is below 0, and a cast takes the nearest number there is"
)]
fn millionths(part: f64) -> u64 {
    (part * MILLION as f64).round() as u64
}

fn subject(of: Of, pool: &str, name: &str) -> Subject {
    Subject {
        of,
        pool: pool.to_owned(),
        name: name.to_owned(),
    }
}

const WORKER: &str = "worker_";
const SNAPSHOT: &str = "snapshot";
