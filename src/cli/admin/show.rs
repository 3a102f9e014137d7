//! Commands that show: status, listeners, pools, backends, configuration and histograms.

use std::fmt::Write;
use std::time::Duration;

use super::args::{BackendsArgs, ClientOptions, HistogramsArgs, PoolsArgs};
use super::client::{Client, ClientError, path};
use super::show;
use super::table::{Align, Cell, Paint, Table, Tone};
use super::units::{bytes, count, micros, plain, span};
use crate::admin::model::{
    AccessListStatus, BanImportStatus, BansStatus, FleetLimitStatus, FleetStatus, HistogramStatus,
    LatencyStatus, LatencyWindow, ListenerStatus, PoolStatus, PrivilegesStatus, Reloads,
    SourcesStatus, Stage, Status, SynFilterMeans, SynFilterStatus, TrafficStatus, WorkerStatus,
};
use crate::config::values::written;
use crate::wording::{counted, plural};

mod backends;
mod listeners;
mod peers;

pub(super) use backends::state_cell;
use backends::{backends_text, history_text};
pub(super) use listeners::{denied, listeners_text};

pub(super) async fn status(options: &ClientOptions) -> Result<(), ClientError> {
    let status: Status = Client::new(options)?.get(&path(&["status"])).await?;
    show(options, &status, status_text);
    Ok(())
}

pub(super) async fn listeners(options: &ClientOptions) -> Result<(), ClientError> {
    let listeners: Vec<ListenerStatus> = Client::new(options)?.get(&path(&["listeners"])).await?;
    show(options, &listeners, |listeners, paint| {
        listeners_text(listeners, paint)
    });
    Ok(())
}

pub(super) async fn pools(args: &PoolsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    if let Some(name) = &args.pool {
        let pool: PoolStatus = client.get(&path(&["pools", name])).await?;
        show(&args.options, &pool, |pool, paint| {
            let backends: Vec<_> = pool.backends.iter().collect();
            let pool = pools_text(std::slice::from_ref(pool), paint);
            format!("{pool}\n{}", backends_text(&backends, paint))
        });
    } else {
        let pools: Vec<PoolStatus> = client.get(&path(&["pools"])).await?;
        show(&args.options, &pools, |pools, paint| {
            pools_text(pools, paint)
        });
    }
    Ok(())
}

pub(super) async fn backends(args: &BackendsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let pools: Vec<PoolStatus> = match args.of.as_ref().or(args.pool.as_ref()) {
        Some(name) => vec![client.get(&path(&["pools", name])).await?],
        None => client.get(&path(&["pools"])).await?,
    };
    let backends: Vec<_> = pools.iter().flat_map(|pool| &pool.backends).collect();
    show(&args.options, &backends, |backends, paint| {
        let text = backends_text(backends, paint);
        if args.wide {
            return format!("{text}\n{}", history_text(backends, paint));
        }
        text
    });
    Ok(())
}

pub(super) async fn histograms(args: &HistogramsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let mut all: Vec<HistogramStatus> = client.get(&path(&["histograms"])).await?;
    all.retain(|one| args.workers || one.worker.is_none());
    show(&args.options, &all, |all, paint| {
        histograms_text(all, paint)
    });
    Ok(())
}

fn status_text(status: &Status, paint: Paint) -> String {
    let (stage, tone) = stage(status.stage);
    let build = status.build.as_ref().map(|build| format!(" ({build})"));
    let version = status.version.clone() + &build.unwrap_or_default();
    let mut text = format!(
        "mahoraga {}, {}, up {}, process {}\n",
        plain(&version),
        paint.toned(stage, tone),
        span(status.uptime_s),
        status.pid,
    );
    let mut line = |name: &str, what: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {}", plain(what));
    };
    let taken = status.publish_us.map(|us| micros(us as f64));
    let taken = taken.map(|time| format!(", in force after {time}"));
    line(
        "snapshot",
        &format!("{}{}", status.snapshot, taken.unwrap_or_default()),
    );
    let of = format!(
        "{} of at most {}",
        status.connections, status.max_connections
    );
    line("connections", &of);
    line("accepted", &status.accepted.to_string());
    line("traffic", &traffic(&status.traffic));
    let closed = status.closed.iter();
    let closed: Vec<_> = closed.map(|(why, n)| format!("{why} {n}")).collect();
    if !closed.is_empty() {
        line("closed", &closed.join(", "));
    }
    text += &reloads_text(&status.reloads, paint);
    text += &(guards(status) + &peers::peers(&status.peers, paint) + &notices(status, paint));
    text += &latencies_text(&status.latencies, paint);
    text + "\n" + &workers_text(&status.workers, paint)
}

fn reloads_text(reloads: &Reloads, paint: Paint) -> String {
    let at = reloads.last_at.as_ref();
    let at = at
        .map(|at| format!(", the last at {at}"))
        .unwrap_or_default();
    let (done, refused) = (reloads.succeeded, reloads.failed);
    let mut text = format!(
        "{:<12} {done} done, {refused} refused{}\n",
        "reloads",
        plain(&at)
    );
    // A mistake in a file has several lines: it shows the place.
    let lines = reloads.last_error.iter().flat_map(|error| error.lines());
    for (nth, line) in lines.enumerate() {
        let name = if nth == 0 { "refused" } else { "" };
        let line = paint.toned(&plain(line), Tone::Bad);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {line}");
    }
    text
}

fn workers_text(workers: &[WorkerStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("snapshot", Align::Right),
        ("sessions", Align::Right),
        ("accepted", Align::Right),
        ("B/s", Align::Right),
        ("connect failures", Align::Right),
    ]);
    for worker in workers {
        let number = |name: &str| {
            let number = worker.numbers.get(name);
            number.map(u64::to_string).unwrap_or_default().into()
        };
        table.row([
            worker.worker.to_string().into(),
            worker.snapshot.to_string().into(),
            number("sessions"),
            number("accepted"),
            per_s(&worker.traffic),
            number("connect_failures"),
        ]);
    }
    table.text(paint)
}

/// How long clients waited: in the last 10 s and minute, and since the start.
fn latencies_text(latencies: &[LatencyStatus], paint: Paint) -> String {
    if latencies.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("p50, p99", Align::Left),
        ("last 10 s", Align::Left),
        ("last 1 min", Align::Left),
        ("since start", Align::Left),
    ]);
    for one in latencies {
        let windows = [one.last_10s, one.last_1m, one.since_start];
        let [ten, minute, all] = windows.map(|window| quantiles(&window, ", "));
        table.row([
            one.name.as_str().into(),
            ten.into(),
            minute.into(),
            all.into(),
        ]);
    }
    format!("\n{}", table.text(paint))
}

/// The median and the 99th percentile.
pub(super) fn quantiles(of: &LatencyWindow, between: &str) -> String {
    match of.count {
        0 => "-".to_owned(),
        _ => [of.p50_us, of.p99_us]
            .map(|us| micros(us as f64))
            .join(between),
    }
}

/// Changes that take effect at the next start, what the machine lacks, and pools without usable
/// backends: a line each.
fn notices(status: &Status, paint: Paint) -> String {
    let waiting = status.waiting.iter();
    let waiting = waiting.map(|waits| ("waiting", plain(waits)));
    let lacks = status.lacks.iter();
    let lacks = lacks.map(|lack| ("lacking", paint.toned(&plain(lack), Tone::Bad)));
    let alerts = status.alerts.iter();
    let alerts = alerts.map(|pool| ("alert", paint.toned(&plain(pool), Tone::Bad)));
    let regrets = status.regrets.iter();
    let regrets = regrets.map(|regret| ("regret", plain(regret)));
    let all = waiting.chain(lacks).chain(alerts).chain(regrets);
    all.map(|(name, what)| format!("{name:<12} {what}\n"))
        .collect()
}

/// The user, and what the process may do beyond that user's rights.
fn privileges(its: &PrivilegesStatus) -> String {
    // An older balancer does not tell.
    if its.user.is_empty() {
        return String::new();
    }
    let capabilities = match &its.capabilities[..] {
        [] => "no capabilities".to_owned(),
        few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
        many => format!("{} capabilities", many.len()),
    };
    let locked = if its.no_new_privs {
        "no_new_privs"
    } else {
        "may gain new ones"
    };
    let calls = if its.calls_filtered {
        "system calls filtered"
    } else {
        "any system call"
    };
    let user = plain(&its.user);
    let capabilities = plain(&capabilities);
    format!("privileges   user {user}, {capabilities}, {locked}, {calls}\n")
}

/// A stage as a word, and its tone.
pub(super) fn stage(stage: Stage) -> (&'static str, Tone) {
    match stage {
        Stage::Starting => ("starting", Tone::Warning),
        Stage::Ready => ("ready", Tone::Good),
        Stage::Leaving => ("leaving", Tone::Warning),
        Stage::Left => ("left", Tone::Warning),
        Stage::Stopping => ("stopping", Tone::Warning),
    }
}

/// Lines for privileges, access lists, the table of sources and the ban table.
fn guards(status: &Status) -> String {
    let lists = access_lists(&status.access_lists);
    privileges(&status.privileges)
        + &lists
        + &fleet(status.fleet.as_ref())
        + &sources(&status.sources)
        + &bans(&status.bans)
        + &held(&status.workers)
        + &syn_filter(&status.syn_filter)
}

/// Lines for limits over the fleet, where there are some.
fn fleet(fleet: Option<&FleetStatus>) -> String {
    let Some(fleet) = fleet else {
        return String::new();
    };
    let lease = if fleet.has_lease {
        ""
    } else {
        ", no lease here"
    };
    let members = counted(fleet.members, count(fleet.members), "balancer");
    let name = plain(&fleet.name);
    let leased = count(fleet.leased);
    let mut text = format!("fleet        {name}, one of {members}, {leased} with a lease{lease}\n");
    for limit in &fleet.limits {
        let (limit, what) = (plain(&limit.limit), fleet_share(limit));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<12} {limit}: {what}", "");
    }
    text
}

/// Such as `12 used, 40 of 100 here (33 without a lease)`.
fn fleet_share(limit: &FleetLimitStatus) -> String {
    let FleetLimitStatus {
        whole,
        share,
        base,
        used,
        ..
    } = limit;
    format!("{used} used, {share} of {whole} here ({base} without a lease)")
}

/// A line for what drops banned clients before they are accepted, while it does.
fn syn_filter(filter: &SynFilterStatus) -> String {
    if filter.networks == 0 {
        return String::new();
    }
    let means = match filter.means {
        SynFilterMeans::Ebpf => "eBPF",
        SynFilterMeans::Classic => "classic BPF",
        SynFilterMeans::None => "nothing",
    };
    let networks = counted(filter.networks, count(filter.networks), "network");
    let dropped = filter.dropped.map_or_else(
        || "hits are not counted".to_owned(),
        |dropped| counted(dropped, count(dropped), "SYN"),
    );
    format!("syn filter   {means} drops clients of {networks}, {dropped}\n")
}

/// A line for the ban table, once it is in use.
fn bans(bans: &BansStatus) -> String {
    if bans.count == 0 && bans.hits == 0 && bans.import.is_none() {
        return String::new();
    }
    let (banned, max) = (bans.count, bans.max);
    let hits = counted(bans.hits, count(bans.hits), "client");
    let import = bans.import.as_ref().map(imported).unwrap_or_default();
    format!("bans         {banned} of at most {max}, {hits} refused\n{import}")
}

/// A line for refused clients that were held, once there were any.
fn held(workers: &[WorkerStatus]) -> String {
    let sum = |name: &str| {
        let numbers = workers.iter().filter_map(|its| its.numbers.get(name));
        numbers.sum::<u64>()
    };
    let [tarpitted, dropped] = ["tarpitted", "dropped"].map(sum);
    if tarpitted == 0 && dropped == 0 {
        return String::new();
    }
    let early = match sum("held_early") {
        0 => String::new(),
        early => format!(", {} let go early", count(early)),
    };
    format!(
        "held         {} now, of {} tarpitted and {} dropped clients{early}\n",
        count(sum("held")),
        count(tarpitted),
        count(dropped)
    )
}

/// A line for the watched file of bans, with what of it is not banned.
fn imported(file: &BanImportStatus) -> String {
    let networks = plural(file.networks, "network");
    let others = [(file.trusted, "trusted"), (file.no_room, "without room")];
    let others = others.into_iter().filter(|(number, _)| *number > 0);
    let others = others.map(|(number, what)| format!(", {number} {what}"));
    let others: String = others.collect();
    format!("             {networks} in {}{others}\n", plain(&file.file))
}

/// A line for each access list, and for each file of one that is wrong.
fn access_lists(lists: &[AccessListStatus]) -> String {
    let mut text = String::new();
    for list in lists {
        let name = plain(&list.name);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "access list  {name}: {}, others {}, {} {}",
            plural(list.prefixes, "prefix"),
            list.others,
            list.refused,
            if list.dry_run {
                "would be refused (dry run)"
            } else {
                "refused"
            }
        );
        if let Some(error) = &list.error {
            let error = plain(error);
            let _ = writeln!(text, "             the last good file is in force: {error}");
        }
    }
    text
}

/// A line for the table of sources, once it is in use.
fn sources(sources: &SourcesStatus) -> String {
    if sources.known + sources.overflowed == 0 {
        return String::new();
    }
    let (known, room) = (count(sources.known), count(sources.capacity.into()));
    let beyond = match sources.overflowed {
        0 => String::new(),
        beyond => {
            let clients = counted(beyond, count(beyond), "client");
            format!(", no room for those of {clients}")
        }
    };
    format!("sources      {known} of {room}{beyond}\n")
}

pub(super) fn pools_text(pools: &[PoolStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("pool", Align::Left),
        ("strategy", Align::Left),
        ("in rotation", Align::Right),
        ("connections", Align::Right),
        ("limit", Align::Right),
        ("B/s", Align::Right),
        ("queue", Align::Left),
        ("clients", Align::Right),
    ]);
    let mut panics = String::new();
    for pool in pools {
        // Backends of the reserve, and those that are being removed, get no new sessions.
        let of = pool.backends.iter();
        let of: Vec<_> = of.filter(|one| !one.leaving && !one.standby).collect();
        let usable = of.iter().filter(|one| one.in_rotation).count();
        if pool.panic {
            let panic = format!("{}: {PANIC}", plain(&pool.name));
            let _ = writeln!(panics, "{}", paint.toned(&panic, Tone::Bad));
        }
        table.row([
            pool.name.as_str().into(),
            pool.strategy.as_str().into(),
            format!("{usable} of {}", of.len()).into(),
            count(pool.connections).into(),
            limit(pool.max_connections),
            per_s(&pool.traffic),
            queue(pool).into(),
            pool.clients.map(count).unwrap_or_default().into(),
        ]);
    }
    table.text(paint) + &panics
}

/// Clients that wait, the most that may, and the longest wait.
fn queue(pool: &PoolStatus) -> String {
    if pool.queue_max == 0 && pool.queued == 0 {
        return String::new();
    }
    let timeout = Duration::try_from_secs_f64(pool.queue_timeout_s).unwrap_or_default();
    format!(
        "{} of {}, {}",
        pool.queued,
        pool.queue_max,
        written(timeout)
    )
}

fn histograms_text(all: &[HistogramStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("worker", Align::Left),
        ("since the start", Align::Left),
        ("count", Align::Right),
        ("p50", Align::Right),
        ("p90", Align::Right),
        ("p99", Align::Right),
        ("p99.9", Align::Right),
        ("max", Align::Right),
    ]);
    let by_worker = all.iter().any(|one| one.worker.is_some());
    for one in all {
        let worker = one
            .worker
            .map_or_else(|| "all".to_owned(), |worker| worker.to_string());
        let value = |value: u64| Cell::from(measured(one, value));
        table.row([
            if by_worker { worker } else { String::new() }.into(),
            one.name.as_str().into(),
            count(one.count).into(),
            value(one.p50),
            value(one.p90),
            value(one.p99),
            value(one.p999),
            value(one.max),
        ]);
    }
    table.text(paint)
}

/// A value of a histogram with its unit; empty if the histogram is.
pub(super) fn measured(of: &HistogramStatus, value: u64) -> String {
    match of.unit.as_str() {
        _ if of.count == 0 => String::new(),
        "us" => micros(value as f64),
        "ns" => micros(value as f64 / 1e3),
        "B" => bytes(value as f64),
        other => format!("{value} {other}"),
    }
}

/// Bytes and rate of each direction.
fn traffic(its: &TrafficStatus) -> String {
    let bytes = |number: u64| bytes(number as f64);
    format!(
        "up {} ({}/s), down {} ({}/s)",
        bytes(its.bytes_up),
        bytes(its.bytes_up_per_s),
        bytes(its.bytes_down),
        bytes(its.bytes_down_per_s)
    )
}

/// The rate of both directions together; empty if it is 0.
fn per_s(its: &TrafficStatus) -> Cell {
    match its.per_s() {
        0 => "".into(),
        number => bytes(number as f64).into(),
    }
}

/// A limit, not rounded; empty without one.
fn limit(limit: Option<u32>) -> Cell {
    limit
        .map(|limit| limit.to_string())
        .unwrap_or_default()
        .into()
}

/// A number; empty if it is 0, so that a column of zeros is left out.
fn some(number: u64) -> Cell {
    match number {
        0 => "".into(),
        _ => count(number).into(),
    }
}

/// The notice of a pool that panics.
pub(super) const PANIC: &str = "panic: too few are up, health is ignored";
