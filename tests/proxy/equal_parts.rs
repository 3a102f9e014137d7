//! Equal backends get equal parts of the connections that stay, such as those of a connection pool
//! to a database.
//!
//! Without measurements random numbers and noise decide in a process, so each run is a fresh
//! process. `EQUAL_PARTS_RUNS` is the number of runs of each kind (default: 1;
//! `scripts/long-checks.sh`: 25).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use std::{env, thread};

use mahoraga::config::{SelectsBy, Strategy};

use crate::balancer::{Balancer, Launch};
use crate::peers::Backend;
use crate::watchdog::{eventually, within};

/// (backends, connections for each of them).
const SIZES: [(usize, usize); 3] = [(2, 10), (3, 7), (10, 4)];

#[derive(Clone, Copy, Debug)]
struct Kind {
    workers: usize,
    /// Each client requests one answer; otherwise clients send nothing.
    asks: bool,
    /// How many connections come at the same time.
    at_once: usize,
    /// The time before each of them, where they come one by one.
    pause: Duration,
}

const KINDS: [Kind; 4] = [
    Kind {
        workers: 1,
        asks: true,
        at_once: 1,
        pause: Duration::ZERO,
    },
    Kind {
        workers: 2,
        asks: true,
        at_once: 1,
        pause: Duration::ZERO,
    },
    Kind {
        workers: 2,
        asks: true,
        at_once: 8,
        pause: Duration::ZERO,
    },
    Kind {
        workers: 2,
        asks: false,
        at_once: 1,
        pause: Duration::ZERO,
    },
];

fn connect(balancer: &Balancer, asks: bool) -> TcpStream {
    let mut client = balancer.connect();
    if asks {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    client
}

/// The connections of each backend at the end.
fn held(strategy: &str, kind: Kind, backends: usize, each: usize) -> Vec<usize> {
    let fleet: Vec<_> = (0..backends).map(|_| Backend::echo()).collect();
    let to: Vec<_> = fleet.iter().map(|one| one.address.clone()).collect();
    let launch = Launch::to(&to).flag("--strategy", strategy);
    let balancer = launch.workers(kind.workers).start();
    let mut clients = Vec::new();
    let all = backends * each;
    while clients.len() < all {
        let burst = kind.at_once.min(all - clients.len());
        if burst == 1 {
            thread::sleep(kind.pause);
            clients.push(connect(&balancer, kind.asks));
            continue;
        }
        let came = thread::scope(|scope| {
            let connect = |_| scope.spawn(|| connect(&balancer, kind.asks));
            let threads: Vec<_> = (0..burst).map(connect).collect();
            let came = threads.into_iter().map(|thread| thread.join().unwrap());
            came.collect::<Vec<_>>()
        });
        clients.extend(came);
    }
    let counts = || -> Vec<_> { fleet.iter().map(Backend::accepted).collect() };
    eventually("all are connected", || {
        counts().iter().sum::<usize>() == all
    });
    drop(clients);
    balancer.finish();
    counts()
}

/// All strategies that share evenly and ignore the client: none with a key.
fn even() -> impl Iterator<Item = (&'static str, Strategy)> {
    let all = Strategy::all().into_iter();
    let even = [SelectsBy::Turn, SelectsBy::Load];
    all.filter(move |(_, one)| {
        even.contains(&one.by()) && !matches!(one, Strategy::StickyRoundRobin(_))
    })
}

#[test]
fn equal_backends_get_equal_parts() {
    even().for_each(|(strategy, _)| parts_are_equal(strategy));
}

/// Within a few seconds costs and loads are learned, here from noise alone.
#[test]
fn equal_backends_get_equal_parts_over_seconds() {
    let slowly = Kind {
        workers: 1,
        asks: true,
        at_once: 1,
        pause: Duration::from_millis(100),
    };
    let runs = runs();
    let learns = move |one: &(_, Strategy)| runs > 1 || one.1.looks_ahead().is_some();
    within(Duration::from_secs(60 * 10 * runs), move || {
        for run in 0..runs {
            for (strategy, _) in even().filter(learns) {
                let held = held(strategy, slowly, 2, 20);
                let max = *held.iter().max().unwrap();
                assert!(max <= 32, "{strategy}, {run}: {held:?}");
            }
        }
    });
}

fn runs() -> u64 {
    let runs = env::var("EQUAL_PARTS_RUNS").ok();
    runs.and_then(|runs| runs.parse().ok()).unwrap_or(1)
}

fn parts_are_equal(strategy: &'static str) {
    let runs = runs();
    within(Duration::from_secs(60 + 60 * runs), move || {
        for run in 0..runs {
            for (number, kind) in (0..).zip(KINDS) {
                let sizes = (0..).zip(SIZES);
                let chosen = |size: &(u64, _)| runs > 1 || size.0 == (number + run) % 3;
                for (_, (backends, each)) in sizes.filter(chosen) {
                    let held = held(strategy, kind, backends, each);
                    let most = each + each / 2 + 2;
                    let max = *held.iter().max().unwrap();
                    assert!(max <= most, "{strategy}, {kind:?}: {held:?}");
                }
            }
        }
    });
}
