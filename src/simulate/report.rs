//! Outcomes as an aligned table and as JSON.

use std::fmt::Write;

use super::{Outcome, Scaled, Scenario};
use crate::wording::plural;

/// A table for each scenario, with its strategies in the order of the outcomes. `own` is the name
/// of the configured strategy, which is marked.
#[must_use]
pub fn table(outcomes: &[Outcome], own: Option<&str>) -> String {
    let mut text = String::new();
    for of_one in outcomes.chunk_by(|one, next| one.scenario == next.scenario) {
        if !text.is_empty() {
            text.push('\n');
        }
        write_scenario(&mut text, of_one, own);
    }
    text.push_str(FOOT);
    text
}

/// An array of all outcomes.
#[must_use]
pub fn json(outcomes: &[Outcome]) -> String {
    let mut text = serde_json::to_string_pretty(outcomes).unwrap_or_default();
    text.push('\n');
    text
}

fn write_scenario(text: &mut String, outcomes: &[Outcome], own: Option<&str>) {
    let Some(first) = outcomes.first() else {
        return;
    };
    let about = Scenario::named(first.scenario);
    let about = about.map_or("the sessions of an access log", |scenario| scenario.about);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{}: {about}\n{}, {}, {} in {:.0} s, seed {}",
        first.scenario,
        plural(first.backends.len() as u64, "backend"),
        plural(first.workers.into(), "worker"),
        plural(first.connections, "connection"),
        first.seconds,
        first.seed,
    );
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|(name, cell)| {
            let cells: Vec<_> = outcomes.iter().map(cell).collect();
            (*name, cells)
        })
        .filter(|(_, cells)| cells.iter().any(|cell| cell != NONE))
        .collect();
    let names = outcomes.iter().map(|outcome| outcome.strategy.len());
    let first = names.chain([HEAD.len()]).max().unwrap_or(0);
    let mut lines = vec![format!("  {HEAD:first$}")];
    let is_own = |outcome: &Outcome| own == Some(outcome.strategy);
    lines.extend(outcomes.iter().map(|outcome| {
        let mark = if is_own(outcome) { '*' } else { ' ' };
        format!("{mark} {:first$}", outcome.strategy)
    }));
    for (name, cells) in &columns {
        let width = cells.iter().map(String::len).chain([name.len()]).max();
        let width = width.unwrap_or(0);
        let cells = std::iter::once(*name).chain(cells.iter().map(String::as_str));
        for (line, cell) in lines.iter_mut().zip(cells) {
            let _ = write!(line, "  {cell:>width$}");
        }
    }
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    if outcomes.iter().any(is_own) {
        text.push_str("* with the settings of the pool; the others have their default settings\n");
    }
    for outcome in outcomes {
        if let Some(ceiling) = outcome.ceiling {
            let _ = writeln!(
                text,
                "{} fills each backend to {ceiling} connections, a limit of this scenario",
                outcome.strategy
            );
        }
    }
}

type Cell = fn(&Outcome) -> String;

/// The columns of a table; empty ones are left out.
const COLUMNS: [(&str, Cell); 14] = [
    ("p50 ms", |o| ms(o.wait_p50_ms)),
    ("p99 ms", |o| ms(o.wait_p99_ms)),
    // A trace of a moment has no load worth a number.
    ("load", |o| match o.load {
        beyond if beyond > LOAD_MAX => none(),
        load => percent(load),
    }),
    // A backend that is in for an hour gets less than one that is in all day.
    ("imbalance", |o| match o.scaled {
        Some(_) => none(),
        None => format!("{:.2}", o.imbalance),
    }),
    ("all in, p99", |o| {
        of_scaled(o, |s| ms(s.all_in_wait_p99_ms))
    }),
    ("in use", |o| {
        of_scaled(o, |s| {
            format!("{:.1} ({}-{})", s.in_use_mean, s.in_use_min, s.in_use_max)
        })
    }),
    ("decisions", |o| of_scaled(o, |s| s.decisions.to_string())),
    ("failures", |o| o.failures.to_string()),
    ("broken", |o| {
        if o.broken == 0 {
            NONE.to_owned()
        } else {
            o.broken.to_string()
        }
    }),
    ("not as before", |o| percent(o.not_as_before)),
    ("kept", |o| o.kept.map_or_else(none, percent)),
    ("black hole", |o| {
        o.black_hole.map_or_else(none, |fed| format!("{fed:.2}x"))
    }),
    ("not as logged", |o| {
        o.not_as_logged.map_or_else(none, percent)
    }),
    ("requests", |o| o.requests.to_string()),
];

fn ms(ms: f64) -> String {
    if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// The highest load that is shown.
const LOAD_MAX: f64 = 100.0;

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn of_scaled(outcome: &Outcome, cell: impl Fn(&Scaled) -> String) -> String {
    outcome.scaled.as_ref().map_or_else(none, cell)
}

fn none() -> String {
    NONE.to_owned()
}

/// The line below all tables.
const FOOT: &str = "\np50, p99: waiting from the accept, or a later request, to its answer; --help \
                    explains the columns\n";
const HEAD: &str = "strategy";
const NONE: &str = "-";
