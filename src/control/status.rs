//! The state as the API shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::model::{
    BackendStatus, HealthStatus, LastChange, ListenerStatus, PacedStatus, PoolStatus, ProbeStatus,
    RouteStatus, SourcesStatus, TlsStatus, TrafficStatus, WorkerStatus,
};
use crate::buckets::BucketCounts;
use crate::guard::{DeniedBy, Limit, Meters, PeerDenied, Refusal, Sources};
use crate::peek::FirstBytes;
use crate::pool::{self, Backend, Condition, HistorySummary, Missed, Pool, Tally, Traffic};
use crate::session::CloseReason;
use crate::snapshot::{LiveListener, Snapshot};
use crate::sys;
use crate::time::{US, seconds};
use crate::worker::{Counts, LatencyCounts, NUMBERS, Numbers, Stats, Times};

use super::explain;
use super::health::ProbeOutcome;
use super::workers::Workers;

/// What the roster knows of a backend and its pool does not: its checks, its name, its ejection.
#[derive(Clone, Debug, Default)]
pub(super) struct MemberStatus {
    /// It is probed.
    pub(super) is_checked: bool,
    /// Its host name has no address.
    pub(super) is_unresolved: bool,
    /// Why its last probe failed, or why its name has no address.
    pub(super) check: Option<String>,
    /// How many of its probes failed.
    pub(super) checks_failed: u64,
    /// When its ejection ends, in ns of the workers' clock.
    pub(super) ejected_until: Option<u64>,
    /// Ejections that ended while no probe had failed.
    pub(super) ejection_regrets: u64,
    /// Its last probes, where they are shown.
    pub(super) probes: Vec<ProbeStatus>,
}

pub(super) fn listeners(snapshot: &Snapshot, workers: &Workers) -> Vec<ListenerStatus> {
    let listeners = snapshot.listeners.iter();
    let listeners = listeners.map(|listener| ListenerStatus {
        name: listener.name.clone(),
        // The port that the kernel chose, where 0 was asked for.
        bind: workers
            .address(listener.id)
            .map_or_else(|| listener.bind.to_string(), |there| there.to_string()),
        pool: listener.plan.pool().name.clone(),
        connections: u64::from(listener.connections.used()),
        max_connections: ceiling(&listener.connections),
        access_list: snapshot
            .access
            .get(&listener.id)
            .map(|list| list.name.clone()),
        refused: refused_by(listener).values().sum(),
        refused_by: refused_by(listener),
        dry_run: dry_run(listener),
        fleet: Vec::new(),
        idle_regrets: listener.gate.idle_regrets(),
        paced: paced_by(listener),
        routes: routes(listener),
        unrouted: (!listener.routes.is_empty()).then(|| listener.routes.unrouted()),
        sessions: listener.gate.sessions(),
        closed: ended_by(listener),
        traffic: traffic([&*listener.traffic]),
        tls: None,
        handshakes: tls_times(listener),
        times: listener.gate.times.counts(),
        waits: listener.gate.waits.counts(),
    });
    listeners.collect()
}

fn routes(listener: &LiveListener) -> Vec<RouteStatus> {
    let all = &listener.routes;
    let name = |place: usize| all.written().get(place)?.name.clone();
    let any = FirstBytes::none();
    let mut conditions = Vec::new();
    let counts = all.numbers().skip(1).zip(all.counts());
    let counts = counts.map(|(number, (place, to, sessions))| RouteStatus {
        route: place as u64 + 1,
        name: name(place),
        conditions: {
            // They are the same for all pools of a route.
            if all.is_first_of_route(number) {
                conditions = explain::met(all, number, (None, &any));
            }
            conditions.clone()
        },
        weight: all.share(number, &any).map(|share| share.weight),
        share: all
            .share(number, &any)
            .map(|share| explain::tenths(share.percent)),
        pool: to.map(|to| to.plan.pool().name.clone()),
        sessions,
    });
    counts.collect()
}

/// How long handshakes of a listener took.
fn tls_times(listener: &LiveListener) -> BucketCounts {
    let counts = listener.tls.as_ref().map(|tls| tls.counts.took.counts());
    counts.unwrap_or_default()
}

/// Sessions of a listener that ended for each reason that occurred.
fn ended_by(listener: &LiveListener) -> BTreeMap<String, u64> {
    let ended = CloseReason::ALL.map(|reason| (reason, listener.gate.closed(reason as u8)));
    let ended = ended.into_iter().filter(|(_, count)| *count > 0);
    ended
        .map(|(reason, count)| (reason.as_str().to_owned(), count))
        .collect()
}

/// Clients that each rule of a listener refused.
fn refused_by(listener: &LiveListener) -> BTreeMap<String, u64> {
    let gate = &listener.gate;
    let mut counts = by_rule(|rule| match rule {
        DeniedBy::Ban => gate.banned(),
        DeniedBy::AccessList => gate.access_denied(),
        DeniedBy::Limit(limit) => gate.refused(limit),
    });
    if let Some(proxies) = &listener.proxies {
        let peers = PeerDenied::ALL.map(|denied| (denied, proxies.stage.refused(denied)));
        let peers = peers.into_iter().filter(|(_, count)| *count > 0);
        counts.extend(peers.map(|(denied, count)| (denied.as_str().to_owned(), count)));
    }
    counts
}

/// Clients that each rule of a listener would have refused. A ban in a dry run is none.
fn dry_run(listener: &LiveListener) -> BTreeMap<String, u64> {
    let gate = &listener.gate;
    by_rule(|rule| match rule {
        DeniedBy::Ban => 0,
        DeniedBy::AccessList => gate.access_dry_run(),
        DeniedBy::Limit(limit) => gate.dry_run(limit),
    })
}

/// The counts of rules that are above 0.
fn by_rule(count: impl Fn(DeniedBy) -> u64) -> BTreeMap<String, u64> {
    let limits = Refusal::ALL.into_iter().map(DeniedBy::Limit);
    let rules = [DeniedBy::Ban, DeniedBy::AccessList].into_iter();
    let counts = rules.chain(limits).map(|rule| {
        let name = CloseReason::from(rule).as_str().to_owned();
        (name, count(rule))
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

/// What waited for the limits of bandwidth that had any wait.
fn paced_by(listener: &LiveListener) -> BTreeMap<String, PacedStatus> {
    let limits = &listener.bandwidth;
    let all = [
        ("session", &limits.session),
        ("source", &limits.source),
        ("all", &limits.all),
    ];
    let all = all.map(|(name, meters)| (name.to_owned(), paced(meters)));
    let waited = all.into_iter();
    waited
        .filter(|(_, paced)| *paced != PacedStatus::default())
        .collect()
}

/// What waited for a limit of bandwidth.
pub(super) fn paced(meters: &Meters) -> PacedStatus {
    let [up, down] = [0, 1].map(|way| meters.way(way));
    PacedStatus {
        rests_up: up.rests(),
        rests_down: down.rests(),
        bytes_up: up.rested(),
        bytes_down: down.rested(),
    }
}

/// The table of sources.
pub(super) fn sources(sources: &Sources) -> SourcesStatus {
    SourcesStatus {
        known: sources.len() as u64,
        capacity: sources.capacity(),
        overflowed: sources.overflowed(),
    }
}

/// All pools. `known` is what is known of their backends, in their order; `None`: the pool is shown
/// without its backends. Many take long: it is not for the control thread.
pub(super) fn pools(
    snapshot: &Snapshot,
    known: &[Option<Vec<MemberStatus>>],
    mut tls: BTreeMap<String, TlsStatus>,
) -> Vec<PoolStatus> {
    let pools = snapshot.pools.iter().zip(known);
    let pools = pools.map(|(plan, known)| {
        let pool = plan.pool();
        let backends = known.as_ref().map(|known| backends(pool, known));
        PoolStatus {
            tls: tls.remove(&pool.name),
            ..pool_status(pool, backends.unwrap_or_default())
        }
    });
    pools.collect()
}

fn backends(pool: &Pool, known: &[MemberStatus]) -> Vec<BackendStatus> {
    let leaving = pool.leaving.iter();
    let leaving = leaving.filter(|backend| backend.tally.connections.used() > 0);
    let present = pool.backends.iter().zip(known.iter().map(Some));
    let all = present.chain(leaving.map(|backend| (backend, None)));
    let all = all.map(|(backend, known)| backend_status(pool, backend, known));
    let has_members = pool.config.sni_member.is_some();
    let members = pool
        .config
        .numbers()
        .map(|number| Some(number).filter(|_| has_members));
    // Those that are leaving have none.
    let members = members
        .take(pool.backends.len())
        .chain(std::iter::repeat(None));
    let all = all.zip(members);
    all.map(|(backend, member)| BackendStatus { member, ..backend })
        .collect()
}

fn pool_status(pool: &Pool, backends: Vec<BackendStatus>) -> PoolStatus {
    PoolStatus {
        name: pool.name.clone(),
        strategy: pool.config.selects_by(),
        connections: u64::from(pool.connections.used()),
        max_connections: ceiling(&pool.connections),
        traffic: traffic([&*pool.traffic]),
        queued: u64::from(pool.queue.len()),
        queue_max: pool.config.queue_in_force().max,
        queue_timeout_s: pool.config.queue.timeout.as_secs_f64(),
        full_regrets: pool.queue.regrets(Missed::Full),
        queue_regrets: pool.queue.regrets(Missed::Late),
        panic: pool.panic,
        clients: pool.sticky.as_ref().map(|table| table.clients() as u64),
        tls: None,
        handshakes: pool
            .tls
            .as_ref()
            .map_or_else(BucketCounts::default, |tls| tls.counts.took.counts()),
        times: pool.times.counts(),
        waits: pool.queue.waits.counts(),
        backends,
    }
}

/// The last probes of a backend.
pub(super) fn probes<'a>(recent: impl Iterator<Item = &'a ProbeOutcome>) -> Vec<ProbeStatus> {
    let now = sys::monotonic();
    let shown = recent.map(|probe| ProbeStatus {
        ago_s: seconds(now.saturating_sub(probe.at)),
        took_us: probe.took / US,
        error: probe.failure.as_ref().map(ToString::to_string),
    });
    shown.collect()
}

fn header(backend: &Backend) -> Option<&'static str> {
    let header = backend.send_proxy.as_ref();
    header.map(|header| header.version.as_str())
}

/// `known: None`: the backend was removed and still has sessions.
fn backend_status(pool: &Pool, backend: &Backend, known: Option<&MemberStatus>) -> BackendStatus {
    let now = sys::monotonic();
    let leaving = known.is_none();
    let known = known.cloned().unwrap_or_default();
    let tally = &backend.tally;
    let totals = tally.totals();
    let traffic = traffic([&tally.traffic]);
    let past = tally.history.summary(now);
    let left = |until: u64| seconds(until.saturating_sub(now));
    let recent = tally.last_minute.counts(&tally.times.first_byte);
    let ejected = tally.is_ejected();
    BackendStatus {
        pool: pool.name.clone(),
        name: backend.name.clone(),
        address: backend.target().to_string(),
        resolved: backend.resolved().map(ToString::to_string),
        weight: backend.weight,
        max_connections: ceiling(&tally.connections),
        backup: backend.backup,
        send_proxy: header(backend).map(str::to_owned),
        group: backend.group.clone(),
        member: None,
        state: backend.admin,
        health: health(backend, &known),
        check: known.check,
        leaving,
        in_rotation: !leaving && backend.is_in_rotation() && !backend.is_shut_out(),
        ejected_s: ejected.then(|| known.ejected_until.map_or(0.0, left)),
        rising: Some(backend.percent(now)).filter(|percent| *percent < 100),
        standby: backend.standby,
        paced: paced(&tally.bandwidth),
        connections: u64::from(tally.connections.used()),
        waiting: u64::from(tally.waiting()),
        failures: u64::from(tally.failures()),
        answer_ms: tally.latency().last().map(|us| f64::from(us) / 1_000.0),
        first_byte_p99_ms: recent.quantile(990).map(|us| us / 1_000.0),
        opened: tally.opened(),
        no_local_port: tally.portless(),
        answered: totals.answered,
        streamed_s: seconds(totals.in_use),
        bytes: traffic.bytes(),
        traffic,
        connect_failures: connect_failures(tally),
        checks_failed: known.checks_failed,
        probes: known.probes,
        times_down: past.times_down,
        down_s: seconds(past.down),
        state_s: state_s(&past),
        times_ejected: u64::from(tally.times_ejected()),
        ejection_regrets: known.ejection_regrets,
        last_change: past.last_change.map(|(condition, at)| LastChange {
            to: condition.as_str().to_owned(),
            at: humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at))
                .to_string(),
        }),
        times: tally.times.counts(),
    }
}

/// The traffic of all of these together.
pub(super) fn traffic<'a>(all: impl IntoIterator<Item = &'a Traffic>) -> TrafficStatus {
    let mut sum = TrafficStatus::default();
    for its in all {
        let ([up, down], [up_per_s, down_per_s]) = (its.bytes(), its.per_s());
        sum.bytes_up += up;
        sum.bytes_down += down;
        sum.bytes_up_per_s += up_per_s;
        sum.bytes_down_per_s += down_per_s;
    }
    sum
}

/// Updates the byte rates, and what is recent. The last call was `ns` ago.
pub(super) fn tick(snapshot: &Snapshot, stats: &[Arc<Stats>], ns: u64) {
    stats.iter().for_each(|its| its.traffic.tick(ns));
    for listener in &snapshot.listeners {
        listener.traffic.tick(ns);
    }
    for pool in snapshot.pools.iter().map(|plan| plan.pool()) {
        pool.traffic.tick(ns);
        let backends = pool.backends.iter().chain(&pool.leaving);
        for tally in backends.map(|backend| &backend.tally) {
            tally.traffic.tick(ns);
            tally.last_minute.tick(&tally.times.first_byte);
        }
    }
}

/// How long each condition lasted; without those that a backend never had.
fn state_s(past: &HistorySummary) -> BTreeMap<String, f64> {
    let times = Condition::ALL.into_iter().zip(past.times);
    let times = times.filter(|(_, time)| *time > 0);
    let times = times.map(|(condition, time)| (condition.as_str().to_owned(), seconds(time)));
    times.collect()
}

fn connect_failures(tally: &Tally) -> BTreeMap<String, u64> {
    let failed = tally.history.connects_failed();
    let failed = failed.map(|(fault, count)| (fault.as_str().to_owned(), count));
    failed.collect()
}

/// Notes the condition of each backend of the pools at these indices, for its history.
pub(super) fn note_conditions(snapshot: &Snapshot, changed: &[usize]) {
    let now = sys::monotonic();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = u64::try_from(wall.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let pools = changed.iter().map(|place| snapshot.pools[*place].pool());
    for backend in pools.flat_map(|pool| &pool.backends) {
        // A backend without an address is not probed.
        let is_down = backend.is_resolved() && backend.health == pool::Health::Down;
        let history = &backend.tally.history;
        history.note(backend.condition(), is_down, now, wall);
    }
}

fn health(backend: &Backend, known: &MemberStatus) -> HealthStatus {
    match backend.health {
        _ if known.is_unresolved => HealthStatus::Unresolved,
        _ if !known.is_checked => HealthStatus::Unchecked,
        pool::Health::Up => HealthStatus::Up,
        pool::Health::Down => HealthStatus::Down,
    }
}

fn ceiling(limit: &Limit) -> Option<u32> {
    Some(limit.max()).filter(|max| *max < u32::MAX)
}

/// A worker's gauges and counters by name, with the close reasons that occurred.
pub(super) fn numbers(stats: &Numbers) -> Vec<(String, u64)> {
    let numbers = NUMBERS.iter().zip(stats.values());
    let numbers = numbers.map(|(metric, number)| (metric.name.to_owned(), number));
    let closed = closed(stats).into_iter();
    let closed = closed.map(|(reason, number)| (format!("closed.{reason}"), number));
    numbers.chain(closed).collect()
}

/// Ended sessions by reason, without reasons that did not occur.
pub(super) fn closed(stats: &Numbers) -> Vec<(String, u64)> {
    let closed = CloseReason::ALL.into_iter().zip(stats.closed.iter());
    let closed = closed.map(|(reason, number)| (reason.to_string(), number.get()));
    closed.filter(|(_, number)| *number > 0).collect()
}

pub(super) fn worker(worker: u32, stats: &Stats) -> WorkerStatus {
    WorkerStatus {
        worker,
        snapshot: stats.progress.snapshot(),
        traffic: traffic([&stats.traffic]),
        numbers: BTreeMap::from_iter(numbers(stats)),
    }
}

/// How long clients waited and turns took since the start: of each worker.
pub(super) fn latencies(stats: &[Arc<Stats>]) -> Vec<LatencyCounts> {
    let counts = |times: &Times| {
        let mut counts = Counts::default();
        counts.add(times);
        counts
    };
    stats
        .iter()
        .map(|its| its.latencies.all().map(counts))
        .collect()
}
