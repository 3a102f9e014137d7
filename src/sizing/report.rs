//! The size of a fleet as text and as JSON.

use std::fmt::Write;

use super::Sizing;

/// The answer, then the laws with their numbers.
#[must_use]
pub fn table(sizing: &Sizing) -> String {
    let mut text = String::new();
    let answers = [
        ("machines", machines(sizing)),
        (
            "cores",
            format!(
                "{} of each machine's {}",
                sizing.cores, sizing.machine.cores
            ),
        ),
        ("addresses", addresses(sizing)),
        (
            "descriptors",
            format!(
                "{} of each worker's {}, for {}",
                grouped(sizing.descriptors),
                grouped(sizing.machine.descriptors),
                counted(sizing.sessions, "session"),
            ),
        ),
        (
            "binds first",
            format!("{} as the load grows", sizing.binds_first),
        ),
    ];
    for (name, answer) in answers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<11}  {answer}");
    }
    text.push('\n');
    let takes = sizing.laws.iter();
    let takes: Vec<_> = takes
        .map(|law| counted(law.count, law.unit.word()))
        .collect();
    let width = |head: &str, cells: &mut dyn Iterator<Item = &String>| {
        let cells = cells.map(|cell| cell.chars().count());
        cells.chain([head.len()]).max().unwrap_or(0)
    };
    let formula_width = width("formula", &mut sizing.laws.iter().map(|law| &law.formula));
    let takes_width = width("takes", &mut takes.iter());
    let head = ("limit", "formula", "takes", "used".to_owned());
    let rows = sizing.laws.iter().zip(&takes).map(|(law, takes)| {
        let used = format!("{:.0}%", law.used * 100.0);
        (law.name, law.formula.as_str(), takes.as_str(), used)
    });
    for (limit, formula, takes, used) in std::iter::once(head).chain(rows) {
        let _ = writeln!(
            text,
            "{limit:<11}  {formula:<formula_width$}  {takes:>takes_width$}  {used:>4}"
        );
    }
    let costs = &sizing.costs;
    let _ = writeln!(
        text,
        "\nused: of {} at work, without the spare ones; ports: of the addresses above\n\
         costs: measured by loadtest/capacity.sh, {}, on\n  {}\n\
         what the limits are: docs/scaling.md",
        counted(sizing.working, "machine"),
        costs.date,
        costs.machine,
    );
    text
}

/// The same for programs.
#[must_use]
pub fn json(sizing: &Sizing) -> String {
    let mut text = serde_json::to_string_pretty(sizing).unwrap_or_default();
    text.push('\n');
    text
}

fn machines(sizing: &Sizing) -> String {
    let Sizing {
        machines, working, ..
    } = sizing;
    match sizing.machine.spare {
        0 => format!("{}, none of them spare", grouped(*machines)),
        spare => format!(
            "{}: {} at work, {} spare",
            grouped(*machines),
            grouped(*working),
            grouped(spare)
        ),
    }
}

/// An address of VRRP has one active machine; ECMP spreads one over all.
fn addresses(sizing: &Sizing) -> String {
    format!(
        "{} of each machine towards backends; towards clients 1 by ECMP, {} by VRRP",
        grouped(sizing.addresses),
        grouped(sizing.working),
    )
}

fn counted(number: u64, of: &str) -> String {
    crate::wording::counted(number, grouped(number), of)
}

/// `1,048,576`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A quotient with three digits at least, rounded to the nearest: `0.215`, `64`, `9.15`, `1234`.
pub(super) fn decimal(number: u128, by: u128) -> String {
    let by = by.max(1);
    let digits: usize = match number / by {
        0 => 3,
        1..10 => 2,
        10..100 => 1,
        _ => 0,
    };
    let scale = 10_u128.pow(u32::try_from(digits).unwrap_or(0));
    let whole = number.saturating_mul(scale).saturating_add(by / 2) / by;
    let text = format!("{}.{:0digits$}", whole / scale, whole % scale);
    let text = if digits == 0 {
        grouped(u64::try_from(whole).unwrap_or(u64::MAX))
    } else {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if text == "0" && number > 0 {
        "below 0.001".to_owned()
    } else {
        text
    }
}

/// Bits in a second: `20 Gbit/s`.
pub(super) fn bits(per_s: u64) -> String {
    let scales = [
        (4_u32, "Tbit/s"),
        (3, "Gbit/s"),
        (2, "Mbit/s"),
        (1, "kbit/s"),
    ];
    let scales = scales.map(|(power, name)| (1_000_u64.pow(power), name));
    let found = scales.iter().find(|(scale, _)| per_s >= *scale);
    match found {
        Some((scale, name)) => format!("{} {name}", decimal(per_s.into(), (*scale).into())),
        None => format!("{per_s} bit/s"),
    }
}
