//! `mahoraga simulate --scenario abuse`: limits, and whom they refuse.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::simulate::abuse::{self, Protection};

use super::in_parallel;
use crate::cli::args::{SimulateArgs, Simulated};

/// Compares limits under abuse: those of the configuration first.
#[must_use]
pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    if let Some(misused) = misused(args) {
        return crate::cli::refuse(&format_args!("error: --scenario abuse: {misused}"));
    }
    let own = match args.config.as_deref().map(configured) {
        Some(Ok(own)) => own,
        Some(Err(code)) => return code,
        None => Vec::new(),
    };
    let all: Vec<_> = own.iter().cloned().chain(Protection::all()).collect();
    let outcomes = in_parallel(&all, |limits| abuse::run(limits, args.seed));
    let text = match args.json {
        true => abuse::json(&outcomes),
        false => abuse::table(&outcomes, own.len()),
    };
    // A reader that closed standard output does not need the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// What has no meaning here. Workers share all counts, so their number changes nothing.
fn misused(args: &SimulateArgs) -> Option<&'static str> {
    let is_abuse = |named: &Simulated| matches!(named, Simulated::Abuse);
    let others = [
        (
            !args.scenario.iter().all(is_abuse),
            "it compares limits, the others strategies: run it alone",
        ),
        (
            !args.strategy.is_empty(),
            "it compares limits, not strategies: leave --strategy out",
        ),
        (args.pool.is_some(), "it has no pool: leave --pool out"),
        (args.svg.is_some(), "it has no chart: leave --svg out"),
    ];
    let mut others = others.into_iter();
    others.find_map(|(is_there, what)| is_there.then_some(what))
}

/// The limits of a configuration's listeners.
fn configured(path: &Path) -> Result<Vec<Protection>, ExitCode> {
    let (config, _) = crate::cli::load(path)?;
    let own = Protection::configured(&config);
    if own.is_empty() {
        return Err(crate::cli::refuse(&format_args!(
            "error: {}: expected source_limits or rate_limit, of a listener or of all: there are \
             no limits to simulate",
            path.display()
        )));
    }
    Ok(own)
}
