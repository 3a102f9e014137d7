//! Outcomes of limits as an aligned table and as JSON.

use std::fmt::Write;

use super::super::chance::{float, share};
use super::{ABOUT, Abuse, AbuseOutcome, CrowdOutcome, NAME};

/// One table: a line for each set of limits, a column for each crowd. The first `own` lines are
/// those of a configuration, and marked.
#[must_use]
pub fn table(outcomes: &[AbuseOutcome], own: usize) -> String {
    let Some(first) = outcomes.first() else {
        return String::new();
    };
    let head = std::iter::once("limits").chain(first.crowds.iter().map(|crowd| crowd.name));
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    rows.extend(outcomes.iter().map(|outcome| {
        let cells = outcome.crowds.iter();
        let cells = cells.map(|crowd| cell(crowd, outcome.seconds));
        std::iter::once(outcome.limits.clone())
            .chain(cells)
            .collect()
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let mut text = format!(
        "{NAME}: {ABOUT}\n{} s, seed {}\n",
        first.seconds, first.seed
    );
    for (nth, row) in rows.iter().enumerate() {
        let mark = if (1..=own).contains(&nth) { '*' } else { ' ' };
        // Writing to a string does not fail.
        let _ = write!(text, "{mark} {:1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    if own > 0 {
        text.push_str("* the limits of the configuration\n");
    }
    text.push_str(FOOT);
    text
}

/// An array of all outcomes.
#[must_use]
pub fn json(outcomes: &[AbuseOutcome]) -> String {
    let mut text = serde_json::to_string_pretty(outcomes).unwrap_or_default();
    text.push('\n');
    text
}

/// Of good clients those that were refused; of abuse what got through.
fn cell(crowd: &CrowdOutcome, seconds: u64) -> String {
    match crowd.abuse {
        Some(Abuse::Connections) => format!("{} open", crowd.open_max),
        Some(Abuse::Rate) => {
            let passed = float(crowd.connections - crowd.refused) / float(seconds);
            format!("{passed:.0}/s")
        }
        None if crowd.clients_refused == 0 => "0".to_owned(),
        None => {
            let refused = share(crowd.clients_refused.into(), crowd.clients_seen.into());
            format!("{:.1}%", refused * 100.0)
        }
    }
}

/// The lines below the table.
const FOOT: &str = "\nhomes to phones_v6: the part of these good clients that was refused at least \
                    once\nflood to rotates_48: the abuse that got through; --help explains the \
                    columns\n";
