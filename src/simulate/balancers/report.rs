//! The results of a fleet as tables and as JSON.

use std::fmt::Write;

use super::super::chance::float;
use super::{
    ABOUT, AgreementOutcome, COUNTS_MAX, ChangeOutcome, FleetOutcome, LimitOutcome, NAME,
    membership,
};
use crate::wording::plural;

/// A table of strategies, and one of changes.
#[must_use]
pub fn table(outcome: &FleetOutcome) -> String {
    let (balancers, backends) = (outcome.balancers, outcome.backends);
    let mut text = format!(
        "{NAME}: {ABOUT}\n{}, {}, {}, seed {}\n\n",
        plural(balancers.into(), "balancer"),
        plural(backends.into(), "backend"),
        plural(outcome.clients.into(), "client"),
        outcome.seed,
    );
    // Writing to a string does not fail.
    if outcome.strategies.is_empty() {
        let _ = writeln!(
            text,
            "Without clients: {balancers} × {backends} counts are more than {COUNTS_MAX}."
        );
    } else {
        write_rows(
            &mut text,
            "strategy",
            &STRATEGY_COLUMNS,
            &outcome.strategies,
        );
    }
    text.push('\n');
    write_rows(
        &mut text,
        "change of the pool",
        &CHANGE_COLUMNS,
        &outcome.changes,
    );
    if !outcome.limits.is_empty() {
        text.push('\n');
        write_rows(
            &mut text,
            "limit of the fleet",
            &LIMIT_COLUMNS,
            &outcome.limits,
        );
    }
    let per_s = membership::probes_per_s();
    let _ = writeln!(
        text,
        "\nprobes every {:.0} s: {:.0}/s at each backend, {:.0}/s of each balancer",
        1.0 / per_s,
        per_s * float(balancers.into()),
        per_s * float(backends.into()),
    );
    text.push_str(FOOT);
    text
}

/// The results for programs.
#[must_use]
pub fn json(outcome: &FleetOutcome) -> String {
    let mut text = serde_json::to_string_pretty(outcome).unwrap_or_default();
    text.push('\n');
    text
}

type Column<T> = (&'static str, fn(&T) -> String);

fn write_rows<T>(text: &mut String, head: &str, columns: &[Column<T>], rows: &[T]) {
    let mut lines = vec![Vec::new(); rows.len() + 1];
    lines[0] = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (line, row) in lines.iter_mut().skip(1).zip(rows) {
        *line = columns.iter().map(|(_, cell)| cell(row)).collect();
    }
    lines[0][0] = head.to_owned();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let _ = write!(text, "{:1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
}

const STRATEGY_COLUMNS: [Column<AgreementOutcome>; 8] = [
    ("", |its| its.strategy.clone()),
    ("agree", |its| percent(its.agree)),
    ("same", |its| percent(its.same[0])),
    ("one away", |its| percent(its.same[1])),
    ("it is back", |its| percent(its.same[2])),
    ("rerouted", |its| percent(its.rerouted)),
    ("of each", |its| {
        let [least, most] = its.shares.map(|share| share * 100.0);
        format!("{least:.1}-{most:.1}%")
    }),
    ("peak", |its| format!("{:.2}", its.peak)),
];

const CHANGE_COLUMNS: [Column<ChangeOutcome>; 8] = [
    ("", |its| its.change.about().to_owned()),
    ("messages", |its| its.messages.to_string()),
    ("sets", |its| its.sets.to_string()),
    ("first", |its| ms(its.first_ms)),
    ("all", |its| ms(its.all_ms)),
    ("apart", |its| ms(its.apart_ms)),
    ("remapped", |its| percent_fine(its.remapped)),
    ("of others", |its| percent_fine(its.remapped_of_others)),
];

const LIMIT_COLUMNS: [Column<LimitOutcome>; 6] = [
    ("", |its| its.stage.about().to_owned()),
    ("wanted", |its| percent(its.wanted)),
    ("taken", |its| percent(its.taken)),
    ("most", |its| percent(its.most)),
    ("settled", |its| format!("{:.1} s", its.settled_s)),
    ("requests", |its| format!("{:.1}/s", its.requests_per_s)),
];

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn percent_fine(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

fn ms(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

const FOOT: &str = "\nsame to it is back: new connections to their client's last backend; --help \
                    explains the columns\n";
