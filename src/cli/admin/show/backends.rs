//! Backends as a table, with the state of each in a few words.

use super::super::table::{Align, Cell, Paint, Table, Tone};
use super::super::units::{bytes, count, micros, span};
use super::{limit, per_s, some};
use crate::admin::model::{BackendStatus, HealthStatus};
use crate::config::AdminState;

pub(super) fn backends_text(backends: &[&BackendStatus], paint: Paint) -> String {
    if backends.is_empty() {
        return "no backend\n".to_owned();
    }
    let mut table = Table::new(&[
        ("pool", Align::Left),
        ("backend", Align::Left),
        ("address", Align::Left),
        ("member", Align::Right),
        ("weight", Align::Right),
        ("conns", Align::Right),
        ("limit", Align::Right),
        ("wait", Align::Right),
        ("opened", Align::Right),
        ("answer", Align::Right),
        ("bytes", Align::Right),
        ("B/s", Align::Right),
        ("fails", Align::Right),
        ("state", Align::Left),
    ]);
    for one in backends {
        let written = Some(&*one.address).filter(|address| *address != one.name);
        let address = one.resolved.as_deref().or(written).unwrap_or_default();
        table.row([
            one.pool.as_str().into(),
            one.name.as_str().into(),
            address.into(),
            one.member
                .map(|number| number.to_string())
                .unwrap_or_default()
                .into(),
            one.weight.to_string().into(),
            count(one.connections).into(),
            limit(one.max_connections),
            some(one.waiting),
            count(one.opened).into(),
            one.answer_ms
                .map(|ms| micros(ms * 1e3))
                .unwrap_or_default()
                .into(),
            bytes(one.bytes as f64).into(),
            per_s(&one.traffic),
            some(one.failures),
            state_cell(one),
        ]);
    }
    table.text(paint)
}

/// Failures and changes of backends since they joined.
pub(super) fn history_text(backends: &[&BackendStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("pool", Align::Left),
        ("backend", Align::Left),
        ("failed checks", Align::Right),
        ("downs", Align::Right),
        ("downtime", Align::Right),
        ("ejections", Align::Right),
        ("last change", Align::Left),
        ("failed connects", Align::Left),
    ]);
    for one in backends {
        let failed = one.connect_failures.iter();
        let failed: Vec<_> = failed.map(|(kind, n)| format!("{kind} {n}")).collect();
        let change = one.last_change.as_ref();
        table.row([
            one.pool.as_str().into(),
            one.name.as_str().into(),
            count(one.checks_failed).into(),
            count(one.times_down).into(),
            span(one.down_s).into(),
            count(one.times_ejected).into(),
            change
                .map(|to| format!("{} at {}", to.to, to.at))
                .unwrap_or_default()
                .into(),
            failed.join(", ").into(),
        ]);
    }
    table.text(paint)
}

/// The state of a backend: first what the operator set, then what the balancer knows.
pub(in crate::cli::admin) fn state_cell(one: &BackendStatus) -> Cell {
    let mut words = Vec::new();
    let mut tone = Tone::Good;
    if one.leaving {
        words.push("removed".to_owned());
        tone = Tone::Faint;
    } else if one.state != AdminState::Ready {
        words.push(one.state.as_str().to_owned());
        tone = Tone::Faint;
    }
    if one.standby {
        words.push("standby".to_owned());
        tone = Tone::Faint;
    }
    if let Some(seconds) = one.ejected_s {
        words.push(format!("ejected {}", span(seconds)));
        tone = Tone::Warning;
    }
    // The slow start goes on, but without new sessions it has no effect.
    let takes_sessions = !one.leaving && one.state == AdminState::Ready;
    if let Some(percent) = one.rising.filter(|_| takes_sessions) {
        words.push(format!("rising {percent}%"));
        tone = Tone::Warning;
    }
    let down = matches!(one.health, HealthStatus::Down | HealthStatus::Unresolved);
    if down {
        tone = Tone::Bad;
    }
    // `up` is left out where another word is there: it adds nothing.
    if down || words.is_empty() || one.check.is_some() {
        let health = health(one.health);
        words.push(match &one.check {
            None => health.to_owned(),
            Some(why) if down => format!("{health}: {why}"),
            Some(why) => format!("{health} (last probe: {why})"),
        });
    }
    if one.backup {
        words.push("backup".to_owned());
    }
    if let Some(version) = &one.send_proxy {
        words.push(format!("PROXY {version}"));
    }
    Cell::toned(words.join(", "), tone)
}

fn health(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Unchecked => "unchecked",
        HealthStatus::Up => "up",
        HealthStatus::Down => "down",
        HealthStatus::Unresolved => "unresolved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_that_the_operator_set_comes_first() {
        let up = BackendStatus {
            state: AdminState::Ready,
            health: HealthStatus::Up,
            ..BackendStatus::default()
        };
        let down = BackendStatus {
            health: HealthStatus::Down,
            check: Some("timed out".to_owned()),
            ..up.clone()
        };
        let drain = |one: &BackendStatus| BackendStatus {
            state: AdminState::Drain,
            ..one.clone()
        };
        let unchecked = BackendStatus {
            health: HealthStatus::Unchecked,
            backup: true,
            ..up.clone()
        };
        let rising = BackendStatus {
            rising: Some(5),
            ..up.clone()
        };
        let leaving = BackendStatus {
            leaving: true,
            ..rising.clone()
        };
        let odd = BackendStatus {
            ejected_s: Some(61.0),
            rising: Some(5),
            standby: true,
            ..up.clone()
        };
        for (one, text, tone) in [
            (&up, "up", Tone::Good),
            (&down, "down: timed out", Tone::Bad),
            (&drain(&up), "drain", Tone::Faint),
            (&drain(&down), "drain, down: timed out", Tone::Bad),
            (&unchecked, "unchecked, backup", Tone::Good),
            (&leaving, "removed", Tone::Faint),
            (&rising, "rising 5%", Tone::Warning),
            (&drain(&rising), "drain", Tone::Faint),
            (&odd, "standby, ejected 1m 1s, rising 5%", Tone::Warning),
        ] {
            assert_eq!(state_cell(one), Cell::toned(text, tone));
        }
    }
}
