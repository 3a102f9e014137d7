//! `mahoraga simulate`: runs strategies on a simulated fleet, or limits under abuse, and shows the
//! results.

mod abuse;
mod fleet;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::config::{self, Strategy, values};
use crate::shared::Shared;
use crate::simulate::abuse::{ABOUT, Crowd, NAME};
use crate::simulate::{self, LINES_MAX, Outcome, Scenario, Trace, balancers};
use crate::wording::plural;

use super::args::{SimulateArgs, Simulated};

/// Runs each strategy over each scenario that the arguments name, or limits under abuse.
#[must_use]
pub(super) fn simulate(args: &SimulateArgs) -> ExitCode {
    let mut scenarios = Vec::new();
    for named in &args.scenario {
        match named {
            Simulated::Strategies(scenario) => scenarios.push((**scenario).clone()),
            Simulated::Abuse => return abuse::simulate(args),
            Simulated::Fleet => return fleet::simulate(args),
        }
    }
    let configured = match args.config.as_deref() {
        Some(path) => match load(path, args.pool.as_deref()) {
            Ok(pool) => Some(pool),
            Err(code) => return code,
        },
        None => None,
    };
    let own = configured.as_ref().map(|pool| pool.strategy.name());
    let mut scenarios = match &args.trace {
        Some(path) => match read(path) {
            Ok(trace) => vec![Scenario::replay(Arc::new(trace))],
            Err(code) => return code,
        },
        None if scenarios.is_empty() => Scenario::all().to_vec(),
        None => scenarios,
    };
    for scenario in &mut scenarios {
        scenario.workers = args.workers;
        if configured.is_some() {
            scenario.places = None;
        }
    }
    let pool = configured.unwrap_or_else(simulate::equal_pool);
    let strategies = if args.strategy.is_empty() {
        Strategy::all().map(|(_, strategy)| strategy).to_vec()
    } else {
        args.strategy.clone()
    };
    let outcomes = run(&scenarios, &pool, &strategies, args.seed);
    let text = if args.json {
        simulate::json(&outcomes)
    } else {
        simulate::table(&outcomes, own)
    };
    // A reader that closed standard output does not need the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    match &args.svg {
        Some(path) => draw(&outcomes, path),
        None => ExitCode::SUCCESS,
    }
}

/// Reads the name of a scenario.
pub(super) fn scenario(name: &str) -> Result<Simulated, String> {
    if name == NAME {
        return Ok(Simulated::Abuse);
    }
    if name == balancers::NAME {
        return Ok(Simulated::Fleet);
    }
    let found = Scenario::named(name).map(|scenario| Simulated::Strategies(Box::new(scenario)));
    found.ok_or_else(|| {
        let names = Scenario::all().map(|scenario| format!("`{}`", scenario.name));
        let names = names.join(", ");
        format!(
            "invalid scenario `{name}`: expected {names}, `{NAME}` or `{}`",
            balancers::NAME
        )
    })
}

/// One pool of a configuration.
fn load(path: &Path, name: Option<&str>) -> Result<config::Pool, ExitCode> {
    let (config, _) = super::load(path)?;
    let pools = config.pools;
    let names = || pools.iter().map(|pool| &*pool.name);
    let why = match name {
        Some(name) => format!(
            "there is no pool called `{name}`{}",
            values::known(name, names())
        ),
        None => format!(
            "the configuration has several pools{}",
            values::known("", names())
        ),
    };
    let is_it = |pool: &&Shared<config::Pool>| name.is_none_or(|name| pool.name == name);
    let found = pools.iter().find(is_it);
    let found = found.filter(|_| name.is_some() || pools.len() == 1);
    let found = found.ok_or_else(|| super::refuse(&format_args!("error: --pool: {why}")))?;
    Ok((**found).clone())
}

fn read(path: &Path) -> Result<Trace, ExitCode> {
    let opened: io::Result<Box<dyn BufRead>> = if path == Path::new("-") {
        Ok(Box::new(io::stdin().lock()))
    } else {
        File::open(path).map(|file| Box::new(BufReader::new(file)) as Box<dyn BufRead>)
    };
    let path = path.display();
    let trace = opened.and_then(Trace::read).map_err(|error| {
        super::refuse(&format_args!(
            "error: cannot read the trace {path}: {error}"
        ))
    })?;
    if let Some(skipped) = skipped(&trace) {
        super::say(&format_args!("warning: {path}: {skipped}"));
    }
    if trace.is_empty() {
        return Err(super::refuse(&format_args!(
            "error: the trace {path} has no session"
        )));
    }
    Ok(trace)
}

/// The lines of a trace that were left out.
fn skipped(trace: &Trace) -> Option<String> {
    let skipped = &trace.skipped;
    if skipped.lines == 0 && !skipped.rest {
        return None;
    }
    let mut text = format!("{} left out", plural(skipped.lines, "line"));
    for (i, (line, why)) in skipped.first.iter().enumerate() {
        let before = match i {
            0 if skipped.lines > skipped.first.len() as u64 => ", the first are",
            0 => ":",
            _ => ";",
        };
        let _ = write!(text, "{before} line {line}: {why}");
    }
    if skipped.rest {
        let _ = write!(text, "; nothing after line {LINES_MAX} was read");
    }
    Some(text)
}

/// Runs each strategy over each scenario.
fn run(
    scenarios: &[Scenario],
    pool: &config::Pool,
    strategies: &[Strategy],
    seed: u64,
) -> Vec<Outcome> {
    let runs: Vec<_> = scenarios
        .iter()
        .flat_map(|scenario| strategies.iter().map(move |strategy| (scenario, strategy)))
        .collect();
    in_parallel(&runs, |(scenario, strategy)| {
        simulate::run(scenario, pool, strategy, seed)
    })
}

/// The outcome of each run, on one thread per processor: the runs are independent.
fn in_parallel<T: Sync, R: Send>(runs: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(runs.len()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads.min(runs.len()) {
            scope.spawn(|| {
                while let Some((nth, its)) = {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    runs.get(nth).map(|run| (nth, run))
                } {
                    let outcome = run(its);
                    done.lock().push((nth, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner();
    done.sort_by_key(|(nth, _)| *nth);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn draw(outcomes: &[Outcome], path: &Path) -> ExitCode {
    let drawn = simulate::chart(outcomes).map_err(|error| error.to_string());
    let written = drawn.and_then(|svg| {
        let write = fs::write(path, svg);
        write.map_err(|error| format!("cannot write {}: {error}", path.display()))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            super::say(&format_args!("error: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Lists the scenarios.
pub(super) fn long_help() -> String {
    let mut text = AFTER_HELP.to_owned();
    text.push_str("\n\nScenarios:\n");
    for scenario in Scenario::all() {
        let _ = writeln!(text, "  {}\n      {}", scenario.name, scenario.about);
    }
    let _ = writeln!(text, "  {NAME}\n      {ABOUT}");
    let _ = writeln!(text, "  {}\n      {}", balancers::NAME, balancers::ABOUT);
    text.push_str(MODEL);
    for crowd in Crowd::all() {
        let _ = writeln!(text, "  {}\n      {}", crowd.name, crowd.about);
    }
    text.push_str(ABUSE_MODEL);
    text.push_str(FLEET_MODEL);
    text
}

/// Explains the columns and the model.
const MODEL: &str = "
Columns:
  p50, p99     Waiting, from the accept or a later request to its answer
  load         Work that came, as a part of what the fleet can do
  imbalance    The highest load of a backend over the mean load, each as a
               part of what the backend can do; 1 is even
  all in, p99  p99 with the whole reserve in rotation all the time
  in use       Backends in rotation: the mean (the fewest-the most)
  decisions    How often backends of the reserve were brought in or drained
  failures     Clients that got no answer
  broken       Sessions that broke when their backend left
  not as before
               Connections of returning clients that went to another backend
               than their last one: most of them, without persistence
  kept         Connections to a backend of the client's own group or subset
  black hole   Its share of the connections, over the share of its weight
  not as logged
               Connections to another backend than the trace says

The model: the code that selects is the real one. A backend of mean weight
has 4 cores, which requests share; weights stand for capacities. Connecting
takes 0.5 ms. In long sessions most of the work comes with the first request.
Left out: ejection, the rest of the network, the cost of the balancer itself,
clients that give up or try again. The times in a trace include the waiting
of the recorded day: use its results to compare strategies.

Columns of abuse, each for a crowd of clients:
";

/// Explains the rest of `abuse`.
const ABUSE_MODEL: &str = "
Of the first four, which are good, the table shows which part of those that
came within two minutes was refused at least once. They come once a minute on
average, open six connections, and keep them for 20 s on average. Of the others
it shows what got through: connections per second, or the most that were open.
The code that admits and bans is the real one. A ban closes the connections of
its source. --config adds the limits and ban rules of its listeners, as if no
dry_run were set. Left out: backends, and refused clients that try again.

Which limits, when: docs/protection.md";

/// Explains `fleet`.
const FLEET_MODEL: &str = "

Balancers here share no sticky clients, as peers do (docs/peers.md).

Columns of fleet:
  agree        Clients that all balancers would send to the same backend
  same, one away, it is back
               New connections that went to their client's last backend, while
               all balancers are there, one is away, and it is back
  rerouted     Clients of other balancers whose open connections the router
               sends to another one as one leaves
  of each      The smallest and the largest share of a balancer
  peak         The most connections of a backend over the mean
  messages     Events of etcd, or probes, to all balancers
  sets         Sets of backends that all balancers built
  first, all   When the first balancer knew of the change, and the last one
  apart        The longest time for which balancers had different sets
  remapped     Clients that get another backend; of others: whose own stayed
  wanted, taken, most
               Of the limit: what balancers would take, have at the end of the
               stage, and may take at most at a time, those that live
  settled      When they had nearly as much as at the end
  requests     To etcd, of all balancers

A router spreads connections over 2 balancers or more by a hash of address and
port. Each has counts of its own. Clients are connected for 20 s on average and
come again a second later. --config takes the pool from a file. Each balancer
hears of an event of etcd within 20 ms. With more than 20,000 counts (balancers
times backends) no clients are simulated, and with more than 16 balancers no
limit. A stage of a limit lasts 60 s.

What one machine and several carry: docs/scaling.md";

/// Shown by `-h` and `--help`.
pub(super) const AFTER_HELP: &str = "Examples:
  mahoraga simulate
  mahoraga simulate --scenario slow_backend --strategy round_robin --strategy least_time
  mahoraga simulate --config config.ron --pool web --json --svg web.svg
  mahoraga simulate --config config.ron --trace /var/log/mahoraga/access.log
  mahoraga simulate --scenario abuse --config config.ron
  mahoraga simulate --scenario fleet --balancers 100 --backends 10000

Which strategy, when: docs/strategies.md";
