//! Reloads in quick succession, while clients come and streams go on: no client is disturbed.
//!
//! The test is small here; `loadtest/reload.sh` runs it at full size, by environment variables.

use std::env;
use std::fmt::Debug;
use std::fs;
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mahoraga::config::Strategy;

use crate::balancer::{Balancer, Launch};
use crate::crowd::{Hall, Outcome, crowd, streams};
use crate::watchdog::{eventually, heavy};

/// How large a storm is.
#[derive(Clone, Copy, Debug)]
struct Size {
    reloads: u32,
    over: Duration,
    streams: u32,
    /// Threads of clients.
    clients: u32,
    /// Connections per second; `None`: half of the highest rate, which is measured first.
    rate: Option<f64>,
    /// Between two exchanges of a stream, on average.
    pause: Duration,
}

impl Size {
    fn read() -> Self {
        Self {
            reloads: variable("STORM_RELOADS", 24),
            over: Duration::from_secs_f64(variable("STORM_SECONDS", 4.0)),
            streams: variable("STORM_STREAMS", 20),
            clients: variable("STORM_CLIENTS", 8),
            rate: Some(variable("STORM_RATE", 400.0)).filter(|rate| *rate > 0.0),
            pause: Duration::from_millis(variable("STORM_PAUSE_MS", 20)),
        }
    }
}

pub(crate) fn variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A file: a storm begins and ends with number 0, the seed makes the others. Each seventh is
/// broken.
pub(crate) fn file(halls: &[Hall], seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let plain = seed == 0;
    let mut one_of = |all: &[&'static str]| match plain {
        true => all[0],
        false => all[random.usize(..all.len())],
    };
    let backends = halls.iter().enumerate().map(|(number, hall)| {
        let extra = one_of(&[
            "",
            "",
            "weight: 3",
            "max_connections: 5000",
            "state: \"drain\"",
        ]);
        // The first backend always stays, so that one is usable.
        let extra = if number == 0 { "" } else { extra };
        match one_of(&["here", "here", "gone"]) {
            "gone" if number > 0 => String::new(),
            _ => format!("(address: \"{}\", {extra}), ", hall.address),
        }
    });
    let backends: String = backends.collect();
    let strategies = Strategy::all().map(|(name, _)| name);
    let strategy = written(one_of(&strategies));
    let persist = one_of(&["", "persist: \"source_ip\","]);
    // A strategy that sticks by itself, or takes backends in order, does not allow `persist`.
    let persist = match strategy.contains("sticky") {
        true => "",
        false => persist,
    };
    let pool = one_of(&[
        "",
        "max_connections: 9000,",
        "queue: (max: 500, timeout: \"20s\"),",
        "slow_start: \"1s\",",
        "check: \"tcp\",",
    ]);
    let limit = one_of(&["", "max_connections: 9500,"]);
    let listener = one_of(&["", "max_connections: 9000,"]);
    let [second, third] = [
        one_of(&[
            "",
            "(name: \"second\", bind: \"127.0.0.1:0\", pool: \"default\"),",
        ]),
        one_of(&[
            "",
            "(name: \"third\", bind: \"unix:third.sock\", pool: \"other\"),",
        ]),
    ];
    let address = &halls[0].address;
    let other = match third {
        "" => String::new(),
        _ => format!("(name: \"other\", backends: [\"{address}\"])"),
    };
    let text = format!(
        "(workers: 2, access_log: (to: \"off\"), {limit}\n\
         listeners: [(name: \"first\", bind: \"127.0.0.1:0\", pool: \"default\", {listener}), \
         {second} {third}],\n\
         pools: [(name: \"default\", strategy: {strategy}, {persist} {pool} \
         backends: [{backends}]), {other}])"
    );
    // Truncated, so that it is no configuration.
    match is_broken(seed) {
        true => text[..text.len() / 2].to_owned(),
        false => text,
    }
}

pub(crate) fn is_broken(seed: u64) -> bool {
    seed > 0 && seed.is_multiple_of(7)
}

/// A strategy as a file has it. All clients have one address: a hash of it would pick one backend.
fn written(strategy: &str) -> String {
    match strategy {
        "hash" => "(name: \"hash\", key: \"source_ip_port\")".to_owned(),
        plain => format!("\"{plain}\""),
    }
}

/// Reloads by a signal or by the command line: whether the file took effect.
pub(crate) fn reload(balancer: &Balancer, text: &str, by_signal: bool) -> bool {
    fs::write(balancer.dir().join("config.ron"), text).unwrap();
    let count = |what| balancer.log().count(what);
    let [good, bad] = ["is in force", "reload: the old configuration stays"];
    let before = [count(good), count(bad)];
    if by_signal {
        balancer.process.signal(libc::SIGHUP);
    } else {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mahoraga"));
        let output = command.arg("reload").current_dir(balancer.dir());
        let output = output.output().unwrap();
        eventually("the log has the reload", || {
            [count(good), count(bad)] != before
        });
        assert_eq!(
            output.status.success(),
            count(good) > before[0],
            "{output:?}"
        );
    }
    eventually("it is read", || [count(good), count(bad)] != before);
    count(good) > before[0]
}

/// Reloads until the time is over: how many took effect, and how many were refused.
fn blow(balancer: &Balancer, halls: &[Hall], size: Size) -> [u32; 2] {
    let began = Instant::now();
    let mut counts = [0, 0];
    for number in 1..=size.reloads {
        let due = size.over * number / size.reloads;
        thread::sleep(due.saturating_sub(began.elapsed()));
        let seed = u64::from(number);
        let taken = reload(balancer, &file(halls, seed), number % 2 == 0);
        assert_eq!(taken, !is_broken(seed), "file {seed}");
        counts[usize::from(!taken)] += 1;
    }
    counts
}

/// The most connections per second, for a while.
fn peak(balancer: &Balancer, clients: u32) -> f64 {
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let clients = scope.spawn(|| crowd(balancer.address(), clients, f64::INFINITY, &stop));
        thread::sleep(PEAK_TIME);
        stop.store(true, Ordering::Relaxed);
        clients.join().unwrap()
    });
    println!("peak: {:.0} connections/s", outcome.rate());
    assert!(outcome.errors.is_empty(), "{outcome:?}");
    outcome.rate()
}

fn tell(outcome: &Outcome, reloads: [u32; 2], streams: (usize, u64)) {
    println!(
        "{} reloads took effect, {} were refused, in {:.1} s",
        reloads[0],
        reloads[1],
        outcome.over.as_secs_f64()
    );
    println!(
        "{} connections, {:.0}/s, the slowest {:.1} ms; errors: {:?}",
        outcome.served,
        outcome.rate(),
        outcome.slowest.as_secs_f64() * 1e3,
        outcome.errors
    );
    println!("{} streams broken, {} bytes echoed", streams.0, streams.1);
}

#[test]
fn a_storm_of_reloads_breaks_no_connection() {
    heavy(|| {
        let size = Size::read();
        let halls: Vec<_> = (0..4).map(|_| Hall::open()).collect();
        let launch = Launch::with_config(&file(&halls, 0), 1).workers(2);
        let balancer = launch.start();
        let rate = size
            .rate
            .unwrap_or_else(|| peak(&balancer, size.clients) / 2.0);
        let stop = AtomicBool::new(false);
        let to = balancer.address();
        let (reloads, outcome, streams) = thread::scope(|scope| {
            let streams = scope.spawn(|| streams(to, size.streams, size.pause, &stop));
            let clients = scope.spawn(|| crowd(to, size.clients, rate, &stop));
            let reloads = blow(&balancer, &halls, size);
            stop.store(true, Ordering::Relaxed);
            (reloads, clients.join().unwrap(), streams.join().unwrap())
        });
        tell(&outcome, reloads, streams);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!(streams.0, 0);
        assert!(outcome.served > 0 && streams.1 > 0);
        assert!(reload(&balancer, &file(&halls, 0), true));
        assert_eq!(balancer.number("listeners_lost"), 0);
        assert_eq!(balancer.log().count("mailbox"), 0);
        balancer.finish();
    });
}

const PEAK_TIME: Duration = Duration::from_secs(8);
