//! The figures of `/metrics`, each declared once. Those of workers stand in `worker/numbers.rs`.

use std::sync::LazyLock;
use std::time::SystemTime;

use super::figure::{
    Figure, Group, Reading, Value, counter, counts, each, each_now, gauge, micros, optional, rests,
    times, traffic,
};
use super::registries;
use crate::admin::model::{
    AccessListStatus, BackendStatus, FleetLimitStatus, HealthStatus, ListenerStatus, PacedStatus,
    PoolStatus, Stage, Status, WorkerStatus,
};
use crate::config::UNROUTED;
use crate::metric::{BucketBounds, Kind, Metric, Unit};
use crate::worker::{LATENCIES, LatencyCounts, NUMBERS};

pub(super) static PROCESS: LazyLock<Group<Status>> = LazyLock::new(|| {
    let mut figures = vec![
        gauge(
            "uptime",
            "How long the process has been running.",
            |its: &Status| its.uptime_s,
        )
        .in_unit(Unit::Seconds),
        gauge(
            "ready",
            "Whether connections are taken: 1, else 0.",
            |its: &Status| its.stage == Stage::Ready && its.not_ready.is_none(),
        ),
        gauge(
            "snapshot",
            "The number of the snapshot in force.",
            |its: &Status| its.snapshot,
        ),
        gauge("connections", "Client connections now.", |its: &Status| {
            its.connections
        }),
        gauge(
            "connections_max",
            "Client connections at most.",
            |its: &Status| its.max_connections,
        ),
        gauge(
            "lacks",
            "What this machine lacked in the last second: sentences of `status`.",
            |its: &Status| its.lacks.len(),
        ),
        gauge(
            "alerts",
            "What needs the operator: sentences of `status`.",
            |its: &Status| its.alerts.len(),
        ),
        each(
            "reloads",
            "Readings of the configuration after the first.",
            "result",
            |its| {
                let of = |name: &str, count| (name.to_owned(), Value::Whole(count));
                vec![
                    of("succeeded", its.reloads.succeeded),
                    of("failed", its.reloads.failed),
                ]
            },
        ),
        gauge(
            "last_reload_failed",
            "Whether the last reload was refused: 1, else 0.",
            |its: &Status| its.reloads.last_error.is_some(),
        ),
        optional(
            Kind::Gauge,
            "last_reload_timestamp",
            "When the last reload was, since 1970.",
            |its: &Status| {
                let at = humantime::parse_rfc3339(its.reloads.last_at.as_ref()?).ok()?;
                let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
                Some(Value::Part(since.as_secs_f64()))
            },
        )
        .in_unit(Unit::Seconds),
        gauge(
            "sources",
            "Sources that the table of sources has.",
            |its: &Status| its.sources.known,
        ),
        gauge(
            "sources_max",
            "Sources that it has room for.",
            |its: &Status| u64::from(its.sources.capacity),
        ),
        counter(
            "sources_overflowed",
            "Clients that shared the limits of one source.",
            |its: &Status| its.sources.overflowed,
        ),
        gauge("bans", "Bans in force.", |its: &Status| {
            u64::from(its.bans.count)
        }),
        gauge("bans_max", "Bans at most.", |its: &Status| {
            u64::from(its.bans.max)
        }),
        counter(
            "ban_hits",
            "Clients that were refused as they are banned.",
            |its: &Status| its.bans.hits,
        ),
        gauge(
            "syn_filter_networks",
            "Banned networks whose clients are dropped.",
            |its: &Status| its.syn_filter.networks,
        ),
        optional(
            Kind::Counter,
            "syn_filter_dropped",
            "First segments that were dropped.",
            |its| its.syn_filter.dropped.map(Value::Whole),
        ),
        each("rests", RESTS, "direction", |its: &Status| {
            rests(&its.paced)
        }),
        gauge(
            "history",
            "Bytes of the history's file that are in use.",
            |its: &Status| its.history.bytes,
        )
        .in_unit(Unit::Bytes),
        gauge(
            "history_failed",
            "Whether the history's file can't be written: 1, else 0.",
            |its: &Status| its.history.error.is_some(),
        ),
        counter(
            "history_dropped",
            "Samples and events of the history that were dropped: the machine was too busy.",
            |its: &Status| its.history.dropped,
        ),
        counter(
            "webhook_failures",
            "Scaling decisions that could not be sent.",
            |its: &Status| its.webhook_failures,
        ),
        gauge(
            "etcd_prefixes",
            "Prefixes of etcd that are followed.",
            |its: &Status| its.etcd.prefixes,
        ),
        gauge(
            "etcd_watched",
            "Those of them whose changes arrive now.",
            |its: &Status| its.etcd.watched,
        ),
        counter("etcd_requests", "Requests to etcd.", |its: &Status| {
            its.etcd.requests
        }),
        counter(
            "etcd_failures",
            "Endpoints of etcd that failed, each time that one was left for another.",
            |its: &Status| its.etcd.failures,
        ),
        counter(
            "etcd_lists",
            "How often all keys of a prefix of etcd were listed.",
            |its: &Status| its.etcd.lists,
        ),
        counter(
            "etcd_changes",
            "Changes of keys of etcd that arrived.",
            |its: &Status| its.etcd.changes,
        ),
        gauge(
            "fleet_members",
            "Balancers that etcd has with shares of limits over the fleet, this one included.",
            |its: &Status| its.fleet.as_ref().map_or(0, |fleet| fleet.members),
        ),
        optional(
            Kind::Gauge,
            "fleet_leased",
            "Whether this balancer's lease lasts: 1, else 0; left out without such limits.",
            |its: &Status| its.fleet.as_ref().map(|fleet| fleet.has_lease.into()),
        ),
        counter(
            "fleet_conflicts",
            "Writes of shares that came too late: another balancer had written before.",
            |its: &Status| its.fleet.as_ref().map_or(0, |fleet| fleet.conflicts),
        ),
        each_now(
            "fleet_limit",
            "Limits over the fleet: connections, or new connections in a second.",
            "limit",
            |its: &Status| of_fleet(its, |limit| limit.whole),
        ),
        each_now(
            "fleet_share",
            "What this balancer may take of them now.",
            "limit",
            |its: &Status| of_fleet(its, |limit| limit.share),
        ),
        each_now(
            "fleet_used",
            "What it has in use, or takes in a second.",
            "limit",
            |its: &Status| of_fleet(its, |limit| limit.used),
        ),
        counter(
            "peer_strangers",
            "Connections for peers that were refused, as their certificates name no member.",
            |its: &Status| its.peers.strangers,
        ),
        counter(
            "log_lines_dropped",
            "Lines that the operational log did not take.",
            |its: &Status| its.log_lines_dropped,
        ),
        counter(
            "scrapers_refused",
            "Clients of the listener for metrics that its `allow` does not have.",
            |its: &Status| its.scrapers_refused,
        ),
        each(
            "tcp_segments",
            "Segments of TCP in the network namespace, those of other programs included.",
            "kind",
            |its: &Status| {
                let of = |name: &str, count| (name.to_owned(), Value::Whole(count));
                its.segments.map_or_else(Vec::new, |segments| {
                    vec![
                        of("received", segments.received),
                        of("sent", segments.sent),
                        of("sent_again", segments.sent_again),
                    ]
                })
            },
        ),
        counter(
            "control_turns",
            "Turns of the control thread.",
            |its: &Status| its.control.turns,
        ),
        gauge(
            "control_turn_max",
            "The longest turn of the control thread.",
            |its: &Status| micros(its.control.max_us),
        )
        .in_unit(Unit::Seconds),
    ];
    figures.extend(registries::figures());
    Group::new("", &[], figures)
});

/// A figure of each limit over the fleet.
fn of_fleet(status: &Status, figure: fn(&FleetLimitStatus) -> u32) -> Vec<(String, Value)> {
    let limits = status.fleet.iter().flat_map(|fleet| &fleet.limits);
    let figures = limits.map(|its| (its.limit.clone(), Value::Whole(figure(its).into())));
    figures.collect()
}

pub(super) static ACCESS_LIST: LazyLock<Group<AccessListStatus>> = LazyLock::new(|| {
    let figures = vec![
        gauge(
            "prefixes",
            "Prefixes, those of its file included.",
            |its: &AccessListStatus| its.prefixes,
        ),
        counter(
            "refused",
            "Clients that it refused, or would have in a dry run.",
            |its: &AccessListStatus| its.refused,
        ),
        gauge(
            "dry_run",
            "Whether it only counts: 1, else 0.",
            |its: &AccessListStatus| its.dry_run,
        ),
        gauge(
            "failed",
            "Whether its file can't be read or is wrong: 1, else 0.",
            |its: &AccessListStatus| its.error.is_some(),
        ),
    ];
    Group::new("access_list", &["list"], figures)
});

pub(super) static LISTENER: LazyLock<Group<ListenerStatus>> = LazyLock::new(|| {
    let figures = vec![
        gauge(
            "connections",
            "Client connections now.",
            |its: &ListenerStatus| its.connections,
        ),
        optional(
            Kind::Gauge,
            "connections_max",
            "Client connections at most.",
            |its| its.max_connections.map(|max| Value::Whole(max.into())),
        ),
        counter("sessions", "Sessions begun.", |its: &ListenerStatus| {
            its.sessions
        }),
        each(
            "closed",
            "Sessions ended, by reason. Of refused clients only those that a route refuses \
             (`no_route`) or that are banned later had one.",
            "reason",
            |its: &ListenerStatus| counts(&its.closed),
        ),
        each(
            "refused",
            "Clients refused, by rule.",
            "rule",
            |its: &ListenerStatus| counts(&its.refused_by),
        ),
        each(
            "dry_run",
            "Clients that a rule in dry run would have refused.",
            "rule",
            |its: &ListenerStatus| counts(&its.dry_run),
        ),
        each(
            "routed",
            "Sessions ended that a route took, by the route's name or place and its pool; \
             `default` are those that none took.",
            "route",
            |its: &ListenerStatus| {
                let routes = its.routes.iter();
                let routes = routes.map(|one| (one.label(), Value::Whole(one.sessions)));
                let unrouted = its.unrouted.map(|sessions| {
                    let label = format!("{UNROUTED}/{}", its.pool);
                    (label, Value::Whole(sessions))
                });
                routes.chain(unrouted).collect()
            },
        ),
        each("rests", RESTS, "limit", |its: &ListenerStatus| {
            let sum = |its: &PacedStatus| Value::Whole(its.rests_up + its.rests_down);
            its.paced
                .iter()
                .map(|(limit, paced)| (limit.clone(), sum(paced)))
                .collect()
        }),
        counter(
            "idle_regrets",
            "Clients that came back within a second after the idle timeout had cut them.",
            |its: &ListenerStatus| its.idle_regrets,
        ),
        traffic(|its: &ListenerStatus| &its.traffic),
        times(
            "connect",
            "From a client's accept to its backend's connection.",
            |its: &ListenerStatus| &its.times.connect,
        ),
        times(
            "first_byte",
            "From a client's accept to its backend's first byte.",
            |its| &its.times.first_byte,
        ),
        times("session", "From a client's accept to the end.", |its| {
            &its.times.session
        }),
        times(
            "queue",
            "In queues of pools: of the clients that waited for a place, however that ended.",
            |its| &its.waits,
        ),
    ];
    Group::new("listener", &["listener"], super::tls::beside(figures))
});

pub(super) static POOL: LazyLock<Group<PoolStatus>> = LazyLock::new(|| {
    let figures = vec![
        gauge(
            "connections",
            "Connections to its backends now.",
            |its: &PoolStatus| its.connections,
        ),
        optional(
            Kind::Gauge,
            "connections_max",
            "Connections at most.",
            |its: &PoolStatus| its.max_connections.map(|max| Value::Whole(max.into())),
        ),
        gauge(
            "queued",
            "Clients that wait for a place now.",
            |its: &PoolStatus| its.queued,
        ),
        gauge(
            "queue_max",
            "Clients that wait at most.",
            |its: &PoolStatus| u64::from(its.queue_max),
        ),
        gauge(
            "panic",
            "Whether too few backends are usable and health is ignored.",
            |its: &PoolStatus| its.panic,
        ),
        gauge(
            "backends_in_rotation",
            "Backends that can be selected.",
            |its: &PoolStatus| {
                its.backends
                    .iter()
                    .filter(|backend| backend.in_rotation)
                    .count()
            },
        ),
        optional(
            Kind::Gauge,
            "clients",
            "Clients that are remembered.",
            |its: &PoolStatus| its.clients.map(Value::Whole),
        ),
        counter(
            "full_regrets",
            "Clients refused as `pool_full` for whom a place came free within 100 ms.",
            |its: &PoolStatus| its.full_regrets,
        ),
        counter(
            "queue_regrets",
            "Clients refused as `queue_timeout` for whom a place came free within 100 ms.",
            |its: &PoolStatus| its.queue_regrets,
        ),
        traffic(|its: &PoolStatus| &its.traffic),
        times("connect", CONNECT, |its: &PoolStatus| &its.times.connect),
        times("first_byte", FIRST_BYTE, |its| &its.times.first_byte),
        times("session", SESSION, |its| &its.times.session),
        times(
            "queue",
            "How long clients waited for a place, however that ended.",
            |its| &its.waits,
        ),
    ];
    Group::new("pool", &["pool"], super::tls::beside_of_pool(figures))
});

pub(super) static BACKEND: LazyLock<Group<BackendStatus>> = LazyLock::new(|| {
    let figures = vec![
        optional(
            Kind::Gauge,
            "up",
            "Whether its probes say that it answers.",
            |its: &BackendStatus| {
                let is_up = match its.health {
                    HealthStatus::Unchecked => None,
                    HealthStatus::Up => Some(1),
                    HealthStatus::Down | HealthStatus::Unresolved => Some(0),
                };
                is_up.map(Value::Whole)
            },
        ),
        gauge(
            "in_rotation",
            "Whether it can be selected.",
            |its: &BackendStatus| its.in_rotation,
        ),
        gauge(
            "ejected",
            "Whether it is ejected now.",
            |its: &BackendStatus| its.ejected_s.is_some(),
        ),
        gauge("weight", "Its share, 0 to 256.", |its: &BackendStatus| {
            u64::from(its.weight)
        }),
        gauge(
            "connections",
            "Connections now, being made or established.",
            |its: &BackendStatus| its.connections,
        ),
        gauge(
            "waiting",
            "Connections that wait for an answer now.",
            |its: &BackendStatus| its.waiting,
        ),
        gauge(
            "failures",
            "Failures since its last answer.",
            |its: &BackendStatus| its.failures,
        ),
        optional(
            Kind::Gauge,
            "answer",
            "Average of its recent answer times.",
            |its: &BackendStatus| its.answer_ms.map(|ms| Value::Part(ms / 1_000.0)),
        )
        .in_unit(Unit::Seconds),
        counter("opened", "Connections begun.", |its: &BackendStatus| {
            its.opened
        }),
        counter(
            "answered",
            "Connections that it answered.",
            |its: &BackendStatus| its.answered,
        ),
        counter(
            "streamed",
            "Time that it streamed to sessions after their first answers, of all together.",
            |its: &BackendStatus| its.streamed_s,
        )
        .in_unit(Unit::Seconds),
        each(
            "connect_failures",
            "Connects of sessions that failed, by kind.",
            "kind",
            |its: &BackendStatus| counts(&its.connect_failures),
        ),
        counter(
            "checks_failed",
            "Probes of it that failed.",
            |its: &BackendStatus| its.checks_failed,
        ),
        counter(
            "times_down",
            "Times that its probes said that it does not answer.",
            |its: &BackendStatus| its.times_down,
        ),
        counter(
            "down",
            "How long it was down in all.",
            |its: &BackendStatus| its.down_s,
        )
        .in_unit(Unit::Seconds),
        each(
            "state",
            "How long it was in each state.",
            "state",
            |its: &BackendStatus| {
                let times = its.state_s.iter();
                let times = times.map(|(state, time)| (state.clone(), Value::Part(*time)));
                times.collect()
            },
        )
        .in_unit(Unit::Seconds),
        counter(
            "times_ejected",
            "Times that it was ejected.",
            |its: &BackendStatus| its.times_ejected,
        ),
        counter(
            "ejection_regrets",
            "Ejections that ended while none of the probes since their begin had failed.",
            |its: &BackendStatus| its.ejection_regrets,
        ),
        each("rests", RESTS, "direction", |its: &BackendStatus| {
            rests(&its.paced)
        }),
        traffic(|its: &BackendStatus| &its.traffic),
        times("connect", CONNECT, |its: &BackendStatus| &its.times.connect),
        times("first_byte", FIRST_BYTE, |its| &its.times.first_byte),
        times("session", SESSION, |its| &its.times.session),
    ];
    Group::new("backend", &["pool", "backend"], figures)
});

pub(super) static WORKER: LazyLock<Group<WorkerStatus>> = LazyLock::new(|| {
    let number = |metric: &Metric| Figure {
        metric: *metric,
        reading: Reading::One(Box::new(|its: &WorkerStatus| {
            its.numbers.get(metric.name).copied().map(Value::Whole)
        })),
    };
    let mut figures: Vec<_> = NUMBERS.iter().map(number).collect();
    figures.extend([
        gauge(
            "snapshot",
            "The number of the snapshot that it routes by.",
            |its: &WorkerStatus| its.snapshot,
        ),
        each("closed", "Sessions ended, by reason.", "reason", closed),
        traffic(|its: &WorkerStatus| &its.traffic),
    ]);
    Group::new("worker", &["worker"], figures)
});

fn closed(its: &WorkerStatus) -> Vec<(String, Value)> {
    let reasons = its.numbers.iter().filter_map(|(name, count)| {
        let reason = name.strip_prefix("closed.")?;
        Some((reason.to_owned(), Value::Whole(*count)))
    });
    reasons.collect()
}

pub(super) static TIMES: LazyLock<Group<LatencyCounts>> = LazyLock::new(|| {
    let figures = LATENCIES.iter().enumerate().map(|(kind, metric)| {
        let bounds = match metric.name {
            "turn" => BucketBounds::TURNS,
            _ => BucketBounds::OF_WORKERS,
        };
        Figure {
            metric: *metric,
            reading: Reading::Times(bounds, Box::new(move |its: &LatencyCounts| &its[kind])),
        }
    });
    Group::new("worker", &["worker"], figures.collect())
});

const CONNECT: &str = "How long the connects took that stood.";
const FIRST_BYTE: &str = "From the begin of the connect to the first byte.";
const SESSION: &str = "From a client's accept to the end, of connected sessions.";
const RESTS: &str = "Times that a direction of a session rested, as its bandwidth was used up.";
