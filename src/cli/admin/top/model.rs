//! The data of `top`: the last sample, rates between two samples, and ten minutes of them.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::super::table::Paint;
use super::super::{bans, sessions, show};
use super::keys::View;
use crate::admin::model::{
    BackendStatus, BalancerEvent, BanStatus, HistogramStatus, ListenerStatus, PoolStatus,
    SessionStatus, Status,
};
use crate::session::CloseReason;
use crate::time::{per_second, seconds};

/// The balancer's answers at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    /// When, in ns of the monotonic clock.
    pub(super) at: u64,
    pub(super) status: Status,
    pub(super) pools: Vec<PoolStatus>,
    pub(super) histograms: Vec<HistogramStatus>,
    /// The figures of the view, where only that has them.
    pub(super) listed: Listed,
}

/// What is asked for a view alone.
#[derive(Clone, Debug, Default)]
pub(super) enum Listed {
    /// The view needs nothing besides.
    #[default]
    Nothing,
    Listeners(Vec<ListenerStatus>),
    Sessions(Vec<SessionStatus>),
    Bans(Vec<BanStatus>),
}

/// Rates between two samples, and the connections at the second one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Point {
    /// Client connections accepted a second.
    pub(super) new_per_s: u64,
    /// Bytes delivered a second, in both directions.
    pub(super) bytes_per_s: u64,
    /// Client connections.
    pub(super) connections: u64,
    /// Clients refused a second, by rules and in overload.
    pub(super) refused_per_s: u64,
}

/// All that is drawn.
#[derive(Debug, Default)]
pub(super) struct TopModel {
    last: Option<Answers>,
    /// The latest is last.
    history: VecDeque<Point>,
    /// Connections begun a second, by pool and backend.
    opened_per_s: BTreeMap<(String, String), f64>,
    /// The latest is last.
    events: VecDeque<BalancerEvent>,
    /// Why the balancer can't be reached, while it can't.
    unreachable: Option<String>,
}

impl TopModel {
    /// Takes a sample, and answers with the rates since the previous one.
    pub(super) fn take(&mut self, sample: Answers) -> Option<Point> {
        self.unreachable = None;
        let before = self.last.replace(sample);
        let after = self.last.as_ref()?;
        self.opened_per_s.clear();
        // The counters of a new process start at 0.
        let before = before.filter(|before| {
            let (one, other) = (&before.status, &after.status);
            (one.pid, &one.started_at) == (other.pid, &other.started_at) && before.at < after.at
        });
        let Some(before) = before else {
            self.history.clear();
            return None;
        };
        let ns = after.at - before.at;
        let known: BTreeMap<_, _> = each(&before.pools).collect();
        for (key, backend) in each(&after.pools) {
            // A new backend starts at 0.
            let opened = known.get(&key).map_or(0, |one| one.opened);
            let opened = backend.opened.saturating_sub(opened);
            let key = (key.0.to_owned(), key.1.to_owned());
            self.opened_per_s.insert(key, opened as f64 / seconds(ns));
        }
        let [old, new] = [&before, after].map(|sample| &sample.status);
        let accepted = new.accepted.saturating_sub(old.accepted);
        let refused = refused(new).saturating_sub(refused(old));
        let bytes = new.traffic.bytes().saturating_sub(old.traffic.bytes());
        let point = Point {
            new_per_s: per_second(accepted, ns),
            refused_per_s: per_second(refused, ns),
            bytes_per_s: per_second(bytes, ns),
            connections: after.status.connections,
        };
        if self.history.len() == POINTS_MAX {
            self.history.pop_front();
        }
        self.history.push_back(point);
        Some(point)
    }

    /// The balancer can't be reached: the last sample stays.
    pub(super) fn set_unreachable(&mut self, why: String) {
        self.unreachable = Some(why);
    }

    /// The balancer can be reached again.
    pub(super) fn set_reachable(&mut self) {
        self.unreachable = None;
    }

    /// Adds an event.
    pub(super) fn push_event(&mut self, event: BalancerEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Forgets the events: the stream sends them again.
    pub(super) fn clear_events(&mut self) {
        self.events.clear();
    }

    pub(super) fn last(&self) -> Option<&Answers> {
        self.last.as_ref()
    }

    pub(super) fn unreachable(&self) -> Option<&str> {
        self.unreachable.as_deref()
    }

    /// The latest rates; `None` before the second sample.
    pub(super) fn point(&self) -> Option<&Point> {
        self.history.back()
    }

    /// The last `n` values of something, the latest last.
    pub(super) fn history(&self, n: usize, what: impl Fn(&Point) -> u64) -> Vec<u64> {
        let skipped = self.history.len().saturating_sub(n);
        self.history.iter().skip(skipped).map(what).collect()
    }

    /// The last `n` events, the latest last.
    pub(super) fn events(&self, n: usize) -> impl Iterator<Item = &BalancerEvent> {
        let skipped = self.events.len().saturating_sub(n);
        self.events.iter().skip(skipped)
    }

    /// The table of a view other than that of backends, as its command prints it; `None`: it was
    /// not asked for yet.
    pub(super) fn table(&self, view: View) -> Option<String> {
        let last = self.last.as_ref()?;
        let plain = Paint(false);
        match (view, &last.listed) {
            (View::Pools, _) => Some(show::pools_text(&last.pools, plain)),
            (View::Listeners, Listed::Listeners(all)) => Some(show::listeners_text(all, plain)),
            (View::Sessions, Listed::Sessions(all)) => Some(sessions::table(all, plain)),
            (View::Bans, Listed::Bans(all)) => Some(bans::table(all, plain)),
            _ => None,
        }
    }

    /// The backends that match the filter, sorted. Equal ones keep the order of the configuration.
    pub(super) fn rows(&self, order: Order, filter: &str) -> Vec<BackendRow<'_>> {
        let pools = self.last.iter().flat_map(|sample| &sample.pools);
        let mut rows: Vec<_> = pools
            .flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
            .map(|(pool, backend)| {
                let key = (pool.name.clone(), backend.name.clone());
                BackendRow {
                    name: format!("{}/{}", pool.name, backend.name),
                    backend,
                    new_per_s: self.opened_per_s.get(&key).copied(),
                }
            })
            .filter(|row| row.name.contains(filter) || row.backend.address.contains(filter))
            .collect();
        let value = |row: &BackendRow<'_>| match order.by {
            Sort::Place => 0.0,
            Sort::Weight => f64::from(row.backend.weight),
            Sort::Connections => row.backend.connections as f64,
            Sort::Bytes => row.backend.traffic.per_s() as f64,
            Sort::New => row.new_per_s.unwrap_or(0.0),
            Sort::Answer => row.backend.answer_ms.unwrap_or(0.0),
            Sort::Failures => row.backend.failures as f64,
        };
        // The largest first: a user who sorts looks for outliers.
        rows.sort_by(|one, other| value(other).total_cmp(&value(one)));
        if order.reverse {
            rows.reverse();
        }
        rows
    }
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct BackendRow<'a> {
    /// `POOL/BACKEND`.
    pub(super) name: String,
    pub(super) backend: &'a BackendStatus,
    pub(super) new_per_s: Option<f64>,
}

/// What the table is sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// As the configuration has them.
    #[default]
    Place,
    Weight,
    Connections,
    Bytes,
    New,
    Answer,
    Failures,
}

/// How the table is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: Sort,
    pub(super) reverse: bool,
}

fn each(pools: &[PoolStatus]) -> impl Iterator<Item = ((&str, &str), &BackendStatus)> {
    pools.iter().flat_map(|pool| {
        let backends = pool.backends.iter();
        backends.map(|one| ((pool.name.as_str(), one.name.as_str()), one))
    })
}

/// Ten minutes at the default interval: wider than most terminals.
const POINTS_MAX: usize = 600;
/// More than a screen shows.
const EVENTS_MAX: usize = 100;

/// Clients that were refused.
fn refused(status: &Status) -> u64 {
    let reasons = CloseReason::ALL.into_iter();
    let refusals = reasons.filter(|reason| reason.is_refusal());
    let counts = refusals.filter_map(|reason| status.closed.get(reason.as_str()));
    counts.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::model::TrafficStatus;
    use crate::time::SECOND;

    /// A sample at some seconds with some backends: name, opened, connections.
    fn sample(at_s: u64, accepted: u64, backends: &[(&str, u64, u64)]) -> Answers {
        let backends = backends
            .iter()
            .map(|(name, opened, connections)| BackendStatus {
                name: (*name).to_owned(),
                opened: *opened,
                connections: *connections,
                ..BackendStatus::default()
            });
        Answers {
            at: at_s * SECOND,
            status: Status {
                pid: 7,
                accepted,
                closed: [("banned", accepted / 2), ("access_denied", accepted / 10)]
                    .into_iter()
                    .chain([("client_closed", accepted)])
                    .map(|(reason, count)| (reason.to_owned(), count))
                    .collect(),
                connections: accepted / 2,
                traffic: TrafficStatus {
                    bytes_down: accepted * 1_000,
                    ..TrafficStatus::default()
                },
                ..Status::default()
            },
            pools: vec![PoolStatus {
                name: "web".to_owned(),
                backends: backends.collect(),
                ..PoolStatus::default()
            }],
            ..Answers::default()
        }
    }

    fn names(model: &TopModel, by: Sort, reverse: bool, filter: &str) -> Vec<String> {
        let rows = model.rows(Order { by, reverse }, filter);
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn rates_are_between_two_samples() {
        let mut model = TopModel::default();
        assert_eq!(model.take(sample(10, 100, &[("a", 50, 1)])), None);
        assert_eq!(model.rows(Order::default(), "")[0].new_per_s, None);
        let point = model.take(sample(12, 150, &[("a", 70, 1), ("b", 4, 0)]));
        let want = Point {
            new_per_s: 25,
            refused_per_s: 15,
            bytes_per_s: 25_000,
            connections: 75,
        };
        assert_eq!(point, Some(want));
        let rates = model.rows(Order::default(), "").into_iter();
        let rates: Vec<_> = rates.map(|row| row.new_per_s).collect();
        assert_eq!(rates, [Some(10.0), Some(2.0)]);
        assert_eq!(model.history(9, |point| point.new_per_s), [25]);
        let point = model.take(sample(13, 150, &[("b", 4, 0)]));
        assert_eq!(point.map(|point| point.bytes_per_s), Some(0));
    }

    #[test]
    fn a_new_process_has_no_rates_yet() {
        let mut model = TopModel::default();
        model.take(sample(1, 100, &[]));
        model.take(sample(2, 110, &[]));
        model.set_unreachable("gone".to_owned());
        assert_eq!(
            (model.unreachable(), model.last().is_some()),
            (Some("gone"), true)
        );
        let mut other = sample(3, 5, &[]);
        other.status.pid = 8;
        assert_eq!(model.take(other), None);
        assert_eq!((model.unreachable(), model.point()), (None, None));
    }

    #[test]
    fn rows_are_sorted_and_filtered() {
        let mut model = TopModel::default();
        model.take(sample(1, 0, &[("a", 0, 1), ("b", 0, 3), ("c", 0, 3)]));
        let none = |by, reverse| names(&model, by, reverse, "");
        assert_eq!(none(Sort::Place, false), ["web/a", "web/b", "web/c"]);
        assert_eq!(none(Sort::Place, true), ["web/c", "web/b", "web/a"]);
        assert_eq!(none(Sort::Connections, false), ["web/b", "web/c", "web/a"]);
        assert_eq!(none(Sort::Connections, true), ["web/a", "web/c", "web/b"]);
        assert_eq!(names(&model, Sort::Place, false, "/b"), ["web/b"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut model = TopModel::default();
        for at in 0..2 * POINTS_MAX as u64 {
            model.take(sample(at, at, &[]));
            model.push_event(BalancerEvent {
                number: at,
                ..BalancerEvent::default()
            });
        }
        assert_eq!(model.history(usize::MAX, |_| 0).len(), POINTS_MAX);
        assert_eq!(model.events(usize::MAX).count(), EVENTS_MAX);
        assert_eq!(
            model.events(1).next().map(|event| event.number),
            Some(1_199)
        );
        model.clear_events();
        assert_eq!(model.events(1).count(), 0);
    }
}
