//! `mahoraga simulate` as a user meets it: tables, JSON, charts, mistakes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mahoraga::simulate::Scenario;
use mahoraga::simulate::abuse::Crowd;
use serde_json::Value;

/// One client that comes twice, and another; a line in each format, and an unreadable one.
const LOG: &str = "\
time=2026-03-01T10:00:00.100Z client=192.0.2.1:4000 backend=a connect_us=500 \
first_byte_us=20500 total_us=100000 bytes_up=100 bytes_down=2000
{\"time\":\"2026-03-01T10:00:02.100Z\",\"client\":\"192.0.2.1:4001\",\"backend\":\"a\",\
\"connect_us\":500,\"first_byte_us\":20500,\"total_us\":100000}
time=2026-03-01T10:00:03.100Z client=192.0.2.2:4002 backend=gone connect_us=500 \
first_byte_us=20500 total_us=100000 bytes_up=100 bytes_down=2000
broken
";

const CONFIG: &str = "\
(
    listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")],
    pools: [
        (name: \"web\", backends: [
            (name: \"a\", address: \"127.0.0.1:9001\"),
            (name: \"b\", address: \"127.0.0.1:9002\"),
        ]),
    ],
)
";

/// A pool whose backends etcd has.
const CONFIG_WITHOUT_BACKENDS: &str = "\
(
    listeners: [(bind: \"127.0.0.1:8080\", pool: \"found\")],
    pools: [(
        name: \"found\",
        discover: (etcd: (endpoints: [\"http://127.0.0.1:1\"], prefix: \"/p/\")),
        backends: [],
    )],
)
";

/// An empty directory for one test.
fn directory(test: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn run(directory: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mahoraga"))
        .arg("simulate")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_trace_is_replayed() {
    let directory = directory("simulate_trace");
    fs::write(directory.join("access.log"), LOG).unwrap();
    fs::write(directory.join("config.ron"), CONFIG).unwrap();
    let replay = "--config config.ron --trace access.log --workers 1 \
                  --strategy round_robin --strategy sticky_round_robin";
    let output = run(&directory, replay);
    let want = "\
trace: the sessions of an access log
2 backends, 1 worker, 3 connections in 3 s, seed 1
  strategy            p50 ms  p99 ms  load  imbalance  failures  not as before  not as logged  \
requests
* round_robin           20.5    20.5  0.2%       1.33         0         100.0%          \
50.0%         3
  sticky_round_robin    20.5    20.5  0.2%       1.33         0           0.0%           \
0.0%         3
* with the settings of the pool; the others have their default settings

p50, p99: waiting from the accept, or a later request, to its answer; --help explains the columns
";
    assert_eq!(stdout(&output), want);
    let want = "warning: access.log: 1 line left out: \
                line 4: it is neither JSON nor key=value pairs\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), want));
}

/// Only the built-in pool gets a ceiling: a user's pool is simulated as it runs.
#[test]
fn ceilings_are_made_up_for_the_built_in_pool_alone() {
    let directory = directory("simulate_ceiling");
    fs::write(directory.join("config.ron"), CONFIG).unwrap();
    let first = "--scenario slow_backend --strategy first";
    let reported = "first fills each backend to 128 connections, a limit of this scenario\n";
    let output = run(&directory, first);
    assert!(stdout(&output).contains(reported), "{}", stdout(&output));
    let output = run(&directory, &format!("{first} --config config.ron --json"));
    let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcome = &outcomes[0];
    assert_eq!(outcome["ceiling"], Value::Null);
    assert_eq!(
        outcome["backends"][0]["connections"],
        outcome["connections"]
    );
}

#[test]
fn json_and_a_chart() {
    let directory = directory("simulate_json");
    fs::write(directory.join("access.log"), LOG).unwrap();
    fs::write(directory.join("config.ron"), CONFIG).unwrap();
    let arguments = "--trace access.log --config config.ron --pool web --json --svg out.svg";
    let output = run(&directory, arguments);
    let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcomes = outcomes.as_array().unwrap();
    assert_eq!(outcomes.len(), 10);
    for outcome in outcomes {
        assert_eq!(outcome["scenario"], "trace");
        assert_eq!(outcome["connections"], 3);
        let backends = outcome["backends"].as_array().unwrap();
        let connections = backends.iter().map(|b| b["connections"].as_u64().unwrap());
        assert_eq!(connections.sum::<u64>(), 3);
    }
    assert_eq!(stdout(&run(&directory, arguments)), stdout(&output));
    let svg = fs::read_to_string(directory.join("out.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("least_connections"));

    let output = run(&directory, "--trace access.log --svg no/where.svg");
    let want = "error: cannot write no/where.svg: No such file or directory (os error 2)\n";
    assert!(stderr(&output).ends_with(want), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

/// The command line is refused, with this as its first line.
#[track_caller]
fn misused(directory: &Path, arguments: &str, want: &str) {
    let output = run(directory, arguments);
    assert_eq!(stderr(&output).lines().next(), Some(want));
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
}

#[test]
fn mistakes_are_reported_in_one_sentence() {
    let directory = directory("simulate_mistakes");
    fs::write(directory.join("empty.log"), "\n").unwrap();
    let second = CONFIG.replace(
        "    pools: [\n",
        "    pools: [\n        (name: \"db\", backends: [\"127.0.0.1:9003\"]),\n",
    );
    fs::write(directory.join("two.ron"), second).unwrap();
    fs::write(directory.join("one.ron"), CONFIG).unwrap();
    for (arguments, want) in [
        (
            "--scenario slow",
            "error: invalid value 'slow' for '--scenario <NAME>': invalid scenario `slow`: \
             expected `equal`, `slow_backend`, `black_hole`, `heavy_tail`, `busy_sessions`, \
             `burst`, `daily_wave`, `leave_and_return`, `day_with_reserve`, `abuse` or `fleet`",
        ),
        (
            "--strategy roundrobin",
            "error: invalid value 'roundrobin' for '--strategy <NAME>': invalid strategy \
             `roundrobin`, did you mean `round_robin`?",
        ),
        (
            "--scenario abuse --scenario equal",
            "error: --scenario abuse: it compares limits, the others strategies: run it alone",
        ),
        (
            "--scenario abuse --strategy random",
            "error: --scenario abuse: it compares limits, not strategies: leave --strategy out",
        ),
        (
            "--scenario abuse --svg abuse.svg",
            "error: --scenario abuse: it has no chart: leave --svg out",
        ),
        (
            "--scenario abuse --config one.ron --pool web",
            "error: --scenario abuse: it has no pool: leave --pool out",
        ),
        (
            "--scenario abuse --config one.ron",
            "error: one.ron: expected source_limits or rate_limit, of a listener or of all: there \
             are no limits to simulate",
        ),
        (
            "--workers 0",
            "error: invalid value '0' for '--workers <N>': \
             expected a whole number, 1 to 1024",
        ),
        (
            "--trace absent.log",
            "error: cannot read the trace absent.log: No such file or directory (os error 2)",
        ),
        (
            "--trace empty.log",
            "error: the trace empty.log has no session",
        ),
        (
            "--config absent.ron",
            "absent.ron: there is no such file: create it, or name another one",
        ),
        (
            "--config two.ron",
            "error: --pool: the configuration has several pools: expected `db` or `web`",
        ),
        (
            "--config two.ron --pool weeb",
            "error: --pool: there is no pool called `weeb`, did you mean `web`?",
        ),
    ] {
        misused(&directory, arguments, want);
    }
}

#[test]
fn help_lists_the_scenarios() {
    let directory = directory("simulate_help");
    let output = run(&directory, "--help");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    for scenario in Scenario::all() {
        assert!(stdout(&output).contains(&format!("\n  {}\n", scenario.name)));
    }
    for name in ["abuse", "fleet"]
        .into_iter()
        .chain(Crowd::all().map(|crowd| crowd.name))
    {
        assert!(stdout(&output).contains(&format!("\n  {name}\n")), "{name}");
    }
    assert!(stdout(&output).contains("\n  mahoraga simulate --scenario slow_backend"));
    assert!(stdout(&output).contains("\nWhich strategy, when: docs/strategies.md"));
}

/// The limits of a configuration come first, and are marked.
#[test]
fn limits_are_compared_under_abuse() {
    let directory = directory("simulate_abuse");
    let limited = CONFIG.replace("pool: \"web\")", "pool: \"web\", source_limits: (rate: 5))");
    fs::write(directory.join("config.ron"), limited).unwrap();
    let output = run(&directory, "--scenario abuse --config config.ron");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert!(lines[3].starts_with("* listener "), "{lines:#?}");
    assert!(lines[4].starts_with("  no limits "), "{lines:#?}");
    let crowds = Crowd::all().map(|crowd| crowd.name);
    let columns: Vec<_> = lines[2].split_whitespace().skip(1).collect();
    assert_eq!(columns, crowds);
}

/// A pool of a configuration has its own strategy, which comes first.
#[test]
fn a_fleet_takes_the_pool_of_a_configuration() {
    let directory = directory("simulate_fleet");
    fs::write(directory.join("config.ron"), CONFIG).unwrap();
    let fleet = "--scenario fleet --balancers 2 --clients 50 --config config.ron";
    let output = run(&directory, fleet);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines[1], "2 balancers, 2 backends, 50 clients, seed 1");
    assert!(lines[4].starts_with("of the pool "), "{lines:#?}");
    let output = run(&directory, &format!("{fleet} --json --strategy random"));
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["strategies"][0]["strategy"], "random");
    assert_eq!(outcome["changes"].as_array().unwrap().len(), 4);
}

#[test]
fn a_fleet_refuses_what_has_no_meaning_there() {
    let directory = directory("simulate_fleet_misused");
    fs::write(directory.join("found.ron"), CONFIG_WITHOUT_BACKENDS).unwrap();
    for (arguments, want) in [
        (
            "--scenario fleet --scenario equal",
            "error: --scenario fleet: it has balancers, the others backends or limits: run it \
             alone",
        ),
        (
            "--scenario fleet --svg fleet.svg",
            "error: --scenario fleet: it has no chart: leave --svg out",
        ),
        (
            "--scenario fleet --config found.ron",
            "error: --scenario fleet: the pool `found` names no backend: expected one at least, or \
             --backends instead of --config",
        ),
        (
            "--scenario fleet --balancers 1",
            "error: invalid value '1' for '--balancers <N>': expected a whole number, 2 to 1000",
        ),
    ] {
        misused(&directory, arguments, want);
    }
}
