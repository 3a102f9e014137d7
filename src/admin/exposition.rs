//! `/metrics`: all figures as text, for Prometheus and what understands its formats.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>,
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt;

use axum::http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as Suffix};
use tokio::sync::OwnedSemaphorePermit;

use super::model::{ListenerStatus, PoolStatus, Status};
use crate::buckets::BucketCounts;
use crate::metric::{BucketBounds, Kind, Unit};
use crate::worker::{Counts, LatencyCounts};

mod figure;
mod figures;
mod peers;
pub(crate) mod readings;
mod registries;
mod tls;

use figure::{Figure, Group, Reading, Value};

/// What is shown: the state of everything at about one time.
#[derive(Debug)]
pub(super) struct Scrape {
    /// Held until it is written.
    pub(super) _permit: Option<OwnedSemaphorePermit>,
    pub(super) format: Format,
    pub(super) status: Status,
    pub(super) listeners: Vec<ListenerStatus>,
    pub(super) pools: Vec<PoolStatus>,
    /// By worker, of each kind.
    pub(super) latencies: Vec<LatencyCounts>,
}

/// The formats that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// What Prometheus asks for.
    OpenMetrics,
    /// The older one, which all others read.
    Prometheus,
}

impl Format {
    /// The one that a client takes (`Accept`).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut accepted = headers.get_all(header::ACCEPT).iter();
        let named = |value: &header::HeaderValue| {
            value
                .to_str()
                .is_ok_and(|types| types.contains("application/openmetrics-text"))
        };
        if accepted.any(named) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// What tells the subjects of a group apart, such as the names of a pool and a backend.
type Labels = Vec<(&'static str, String)>;

impl Scrape {
    /// All of it as text. Many backends take long: it is not for the control thread.
    pub(super) fn text(self) -> String {
        let (mut registry, format) = (Registry::with_prefix(PREFIX), self.format);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        let written = match format {
            Format::OpenMetrics => text::encode(&mut text, &registry),
            Format::Prometheus => prometheus_text::encode(&mut text, &registry),
        };
        written.expect("a String takes all");
        text
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, status) = (&mut encoder, &self.status);
        let named = |its: &str| vec![its.to_owned()];
        let backends = self.pools.iter().flat_map(|pool| &pool.backends);
        figures::PROCESS.write(encoder, [(Vec::new(), status)])?;
        let lists = status.access_lists.iter();
        figures::ACCESS_LIST.write(encoder, lists.map(|its| (named(&its.name), its)))?;
        let others = status.peers.members.iter();
        peers::PEER.write(encoder, others.map(|its| (named(&its.name), its)))?;
        let listeners = self.listeners.iter();
        figures::LISTENER.write(encoder, listeners.map(|its| (named(&its.name), its)))?;
        let pools = self.pools.iter();
        figures::POOL.write(encoder, pools.map(|its| (named(&its.name), its)))?;
        let name = |its: &super::model::BackendStatus| vec![its.pool.clone(), its.name.clone()];
        figures::BACKEND.write(encoder, backends.map(|its| (name(its), its)))?;
        let workers = status.workers.iter();
        figures::WORKER.write(
            encoder,
            workers.map(|its| (vec![its.worker.to_string()], its)),
        )?;
        let workers = self.latencies.iter().enumerate();
        figures::TIMES.write(
            encoder,
            workers.map(|(number, its)| (vec![number.to_string()], its)),
        )
    }
}

impl<S> Group<S> {
    /// Writes all figures of these subjects, with the values of the group's labels.
    fn write<'a>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        subjects: impl IntoIterator<Item = (Vec<String>, &'a S)>,
    ) -> fmt::Result
    where
        S: 'a,
    {
        let label = |(values, its)| (self.labels.iter().copied().zip(values).collect(), its);
        let subjects: Vec<(Labels, &S)> = subjects.into_iter().map(label).collect();
        self.figures.iter().try_for_each(|figure| {
            let name = self.name_of(&figure.metric);
            let unit = figure.metric.unit.map(suffix);
            let kind = type_of(figure.metric.kind);
            let help = figure.metric.help;
            let mut metric = encoder.encode_descriptor(&name, help, unit.as_ref(), kind)?;
            let mut subjects = subjects.iter();
            subjects.try_for_each(|(labels, its)| figure.write(&mut metric, labels, its))
        })
    }
}

impl<S> Figure<S> {
    fn write(&self, metric: &mut MetricEncoder<'_>, labels: &Labels, its: &S) -> fmt::Result {
        let kind = self.metric.kind;
        match &self.reading {
            Reading::One(read) => read(its).map_or(Ok(()), |value| {
                write_value(metric.encode_family(labels)?, kind, value)
            }),
            Reading::Each(label, read) => read(its).into_iter().try_for_each(|(name, value)| {
                let mut labels = labels.clone();
                labels.push((*label, name));
                write_value(metric.encode_family(&labels)?, kind, value)
            }),
            Reading::Times(bounds, read) => {
                write_times(metric.encode_family(labels)?, *bounds, read(its))
            }
            Reading::Buckets(read) => write_buckets(metric.encode_family(labels)?, read(its)),
        }
    }
}

fn write_value(mut metric: MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(whole)) => {
            metric.encode_counter::<NoLabelSet, _, f64>(&whole, None)
        }
        (Kind::Counter, Value::Part(part)) => {
            metric.encode_counter::<NoLabelSet, _, f64>(&part, None)
        }
        (_, Value::Whole(whole)) => metric.encode_gauge(&whole),
        (_, Value::Part(part)) => metric.encode_gauge(&part),
    }
}

fn write_times(mut metric: MetricEncoder<'_>, bounds: BucketBounds, times: &Counts) -> fmt::Result {
    // The encoder sums them up.
    let mut below = 0;
    let mut buckets: Vec<_> = bounds
        .micros()
        .map(|bound| {
            let before = std::mem::replace(&mut below, times.below(bound));
            (seconds(bound), below - before)
        })
        .collect();
    buckets.push((f64::INFINITY, times.count() - below));
    metric.encode_histogram::<NoLabelSet>(seconds(times.sum()), times.count(), &buckets, None)
}

fn write_buckets(mut metric: MetricEncoder<'_>, times: &BucketCounts) -> fmt::Result {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, seconds);
    let buckets = times.each().map(|(its, count)| (bound(its), count));
    let buckets: Vec<_> = buckets.collect();
    metric.encode_histogram::<NoLabelSet>(seconds(times.sum()), times.count(), &buckets, None)
}

/// Of µs.
fn seconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}

fn suffix(unit: Unit) -> Suffix {
    match unit {
        Unit::Bytes => Suffix::Bytes,
        Unit::Seconds => Suffix::Seconds,
    }
}

fn type_of(kind: Kind) -> MetricType {
    match kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
    }
}

/// All names begin with it.
const PREFIX: &str = "mahoraga";

#[cfg(test)]
mod tests;
