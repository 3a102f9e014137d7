//! `mahoraga simulate --scenario fleet`: several balancers before one pool.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::simulate::balancers::{self, FleetScenario};

use crate::cli::args::{SimulateArgs, Simulated};

/// Simulates the fleet that the arguments describe.
#[must_use]
pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    if let Some(misused) = misused(args) {
        return crate::cli::refuse(&format_args!("error: --scenario fleet: {misused}"));
    }
    let configured = match args.config.as_deref() {
        Some(path) => match super::load(path, args.pool.as_deref()) {
            Ok(pool) => Some(pool),
            Err(code) => return code,
        },
        None => None,
    };
    let named = |strategy: &crate::config::Strategy| (strategy.name().to_owned(), strategy.clone());
    let strategies = match (&configured, &args.strategy[..]) {
        (None, []) => balancers::strategies(),
        (Some(pool), []) => {
            let own = ("of the pool".to_owned(), pool.strategy.clone());
            [vec![own], balancers::strategies()].concat()
        }
        (_, strategies) => strategies.iter().map(named).collect(),
    };
    let fleet = args.fleet;
    let pool = configured.unwrap_or_else(|| balancers::pool_of(fleet.backends));
    if pool.backends.is_empty() {
        let pool = &pool.name;
        return crate::cli::refuse(&format_args!(
            "error: --scenario fleet: the pool `{pool}` names no backend: expected one at least, \
             or --backends instead of --config"
        ));
    }
    let backends = u32::try_from(pool.backends.len()).unwrap_or(u32::MAX);
    let scenario = FleetScenario {
        balancers: fleet.balancers,
        clients: fleet.clients.unwrap_or_else(|| {
            let clients = fleet.balancers.saturating_mul(backends);
            clients.saturating_mul(CLIENTS_EACH).min(CLIENTS_MAX)
        }),
        pool,
        strategies,
        seed: args.seed,
    };
    let outcome = balancers::run(&scenario);
    let text = match args.json {
        true => balancers::json(&outcome),
        false => balancers::table(&outcome),
    };
    // A reader that closed standard output does not need the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// What has no meaning here.
fn misused(args: &SimulateArgs) -> Option<&'static str> {
    let is_fleet = |named: &Simulated| matches!(named, Simulated::Fleet);
    let others = [
        (
            !args.scenario.iter().all(is_fleet),
            "it has balancers, the others backends or limits: run it alone",
        ),
        (args.svg.is_some(), "it has no chart: leave --svg out"),
    ];
    let mut others = others.into_iter();
    others.find_map(|(is_there, what)| is_there.then_some(what))
}

/// Clients for each backend of each balancer, where their number is not given.
const CLIENTS_EACH: u32 = 200;
/// The most clients where their number is not given.
const CLIENTS_MAX: u32 = 200_000;
