//! Listeners as tables: what each takes and refuses, and where its routes lead.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::table::{Align, Cell, Paint, Table, Tone};
use super::super::units::{bytes, count, plain};
use super::{fleet_share, limit, per_s};
use crate::admin::model::ListenerStatus;
use crate::config::{REFUSE, UNROUTED};
use crate::session::CloseReason;

pub(in crate::cli::admin) fn listeners_text(listeners: &[ListenerStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("listener", Align::Left),
        ("bind", Align::Left),
        ("pool", Align::Left),
        ("connections", Align::Right),
        ("limit", Align::Right),
        ("access list", Align::Left),
        ("refused", Align::Right),
        ("bytes", Align::Right),
        ("B/s", Align::Right),
    ]);
    for one in listeners {
        table.row([
            one.name.as_str().into(),
            one.bind.as_str().into(),
            one.pool.as_str().into(),
            count(one.connections).into(),
            limit(one.max_connections),
            one.access_list.as_deref().unwrap_or("-").into(),
            count(one.refused).into(),
            bytes(one.traffic.bytes() as f64).into(),
            per_s(&one.traffic),
        ]);
    }
    let refusals = listeners.iter().map(refusals);
    table.text(paint)
        + &refusals.collect::<String>()
        + &tls_text(listeners, paint)
        + &routes_text(listeners, paint)
}

/// A table of the listeners that end TLS, where there are some.
fn tls_text(listeners: &[ListenerStatus], paint: Paint) -> String {
    if listeners.iter().all(|one| one.tls.is_none()) {
        return String::new();
    }
    let mut table = Table::new(&[
        ("TLS ends at", Align::Left),
        ("certificates", Align::Right),
        ("first expires", Align::Left),
        ("clients show", Align::Left),
        ("handshakes", Align::Right),
        ("failed", Align::Right),
    ]);
    for one in listeners {
        let Some(tls) = &one.tls else {
            continue;
        };
        table.row([
            one.name.as_str().into(),
            count(tls.certificates.len() as u64).into(),
            tls.expires().map_or_else(Cell::default, expiry),
            tls.clients.as_deref().unwrap_or("-").into(),
            count(tls.handshakes.values().sum()).into(),
            count(tls.failures.values().sum()).into(),
        ]);
    }
    format!("\n{}", table.text(paint))
}

/// When a certificate expires, as `2027-01-01T00:00:00Z`.
fn expiry(expires: i64) -> Cell {
    let since = Duration::from_secs(u64::try_from(expires).unwrap_or(0));
    let at = SystemTime::UNIX_EPOCH.checked_add(since);
    let tone = match at.is_none_or(|at| at > SystemTime::now()) {
        true => Tone::Plain,
        false => Tone::Bad,
    };
    // Beyond the year 9999 there is no such text.
    let text = at
        .filter(|_| expires < YEAR_10000)
        .map(|at| humantime::format_rfc3339_seconds(at).to_string());
    Cell::toned(text.unwrap_or_else(|| "never".to_owned()), tone)
}

/// In seconds since 1970.
const YEAR_10000: i64 = 253_402_300_800;

/// A table of the routes, where there are some.
fn routes_text(listeners: &[ListenerStatus], paint: Paint) -> String {
    if listeners.iter().all(|one| one.routes.is_empty()) {
        return String::new();
    }
    let mut table = Table::new(&[
        ("listener", Align::Left),
        ("route", Align::Left),
        ("pool", Align::Left),
        ("share", Align::Right),
        ("sessions", Align::Right),
        ("takes", Align::Left),
    ]);
    for listener in listeners {
        for route in &listener.routes {
            let share = route.share.map(|share| format!("{share} %"));
            table.row([
                listener.name.as_str().into(),
                route.called().into(),
                route.pool.as_deref().unwrap_or(REFUSE).into(),
                share.unwrap_or_default().into(),
                count(route.sessions).into(),
                route.takes().into(),
            ]);
        }
        if let Some(sessions) = listener.unrouted {
            table.row([
                listener.name.as_str().into(),
                UNROUTED.into(),
                listener.pool.as_str().into(),
                Cell::default(),
                count(sessions).into(),
                "all others".into(),
            ]);
        }
    }
    format!("\n{}", table.text(paint))
}

/// Lines about the clients that the rules of a listener refused, or would have refused.
fn refusals(listener: &ListenerStatus) -> String {
    let both = [
        ("refused", &listener.refused_by),
        ("would have been refused (dry run)", &listener.dry_run),
    ];
    let said = both.into_iter().filter(|(_, all)| !all.is_empty());
    let name = plain(&listener.name);
    let shares = listener.fleet.iter().map(|limit| {
        let what = limit.limit.rsplit('/').next().unwrap_or_default();
        format!(
            "the fleet's limit of `{name}`, {what}: {}\n",
            fleet_share(limit)
        )
    });
    let lines = said.map(|(what, all)| format!("clients of `{name}` {what}: {}\n", counts(all)));
    shares.chain(lines).collect()
}

/// How many clients the access list of a listener refused, or would have refused in a dry run.
pub(in crate::cli::admin) fn denied(listener: &ListenerStatus, dry_run: bool) -> u64 {
    let counts = match dry_run {
        true => &listener.dry_run,
        false => &listener.refused_by,
    };
    let denied = counts.get(CloseReason::AccessDenied.as_str());
    denied.copied().unwrap_or(0)
}

/// Such as `source_connections 3, source_rate 12`.
fn counts(all: &BTreeMap<String, u64>) -> String {
    let all = all
        .iter()
        .map(|(name, number)| format!("{name} {}", count(*number)));
    all.collect::<Vec<_>>().join(", ")
}
