//! The shares of backends under strategies that ignore the client, counted at the backends.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mahoraga::config::{SelectsBy, Strategy};

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers;
use crate::stage::{
    Guest, Stage, assert_shares, leave_all, proxy, source, spread, tally, with_one_and_two_workers,
};
use crate::watchdog::{eventually, watched};

#[test]
fn round_robin_takes_each_in_turn() {
    watched(|| {
        let stage = Stage::plain("round_robin", 1, Fleet::of(3));
        assert_eq!(stage.visits(7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(stage.fleet.accepted(), [3, 2, 2]);
        // Open connections do not change the round.
        let guests = stage.hold_all(5);
        assert_eq!(stage.fleet.accepted(), [4, 4, 4]);
        leave_all(guests);
        stage.finish();
    });
}

#[test]
fn round_robin_on_each_worker_is_a_round_of_its_own() {
    watched(|| {
        let stage = Stage::plain("round_robin", 2, Fleet::of(3));
        stage.visits(80);
        let lines = stage.lines();
        for worker in 0..2 {
            let own = lines.iter().filter(|line| line.worker == worker);
            let counts = stage.counts(own);
            assert!(spread(&counts) <= 1, "{counts:?}");
        }
        stage.finish();
    });
}

#[test]
fn round_robin_is_weighted_and_smooth() {
    watched(|| {
        let fleet = Fleet::of(4);
        let weights = [",weight=3", ",weight=2", "", ",weight=0"];
        let launch = proxy("round_robin", &fleet, &weights);
        let stage = Stage::start(launch, "round_robin", fleet);
        let visits = stage.visits(24);
        for round in visits.chunks(6) {
            assert_eq!(tally(4, round.iter().copied()), [3, 2, 1, 0]);
            assert!(!round.windows(3).any(|some| some == [0; 3]), "{round:?}");
        }
        stage.finish();
    });
}

#[test]
fn least_connections_keeps_backends_even() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("least_connections", workers, Fleet::of(3));
        let mut guests = Vec::new();
        for _ in 0..30 {
            guests.push(stage.hold());
            assert!(spread(&stage.fleet.held()) <= 1, "{:?}", stage.fleet.held());
        }
        // The backend without connections gets the next ones.
        let (leaving, mut staying): (Vec<_>, Vec<_>) =
            guests.into_iter().partition(|guest| guest.backend == 1);
        leave_all(leaving);
        assert_eq!(stage.fleet.held(), [10, 0, 10]);
        let next = stage.hold_all(10);
        assert!(next.iter().all(|guest| guest.backend == 1));
        staying.extend(next);
        // Each worker may see the other's last choice too late.
        let crowd = hold_at_once(&stage, 24);
        assert!(spread(&stage.fleet.held()) <= 2, "{:?}", stage.fleet.held());
        leave_all(staying.into_iter().chain(crowd));
        stage.finish();
    });
}

/// Opens this many connections at the same moment.
fn hold_at_once(stage: &Stage, guests: usize) -> Vec<Guest> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..guests).map(|_| scope.spawn(|| stage.hold())).collect();
        let guests = threads.into_iter().map(|thread| thread.join().unwrap());
        guests.collect()
    })
}

#[test]
fn least_connections_shares_by_weight_and_ties_by_chance() {
    watched(|| {
        let fleet = Fleet::of(3);
        let weights = [",weight=2", "", ",weight=3"];
        let launch = proxy("least_connections", &fleet, &weights).workers(2);
        let stage = Stage::start(launch, "least_connections", fleet);
        let guests = stage.hold_all(30);
        assert_eq!(stage.fleet.held(), [10, 5, 15]);
        leave_all(guests);
        // Without connections all are equal.
        let visits = stage.visits(240);
        assert_shares(&tally(3, visits), &[2, 1, 3]);
        stage.finish();
    });
}

#[test]
fn random_draws_by_weight() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(3);
        let weights = ["", ",weight=2", ""];
        let launch = proxy("random", &fleet, &weights).workers(workers);
        let stage = Stage::start(launch, "random", fleet);
        let visits = stage.visits(300);
        assert!(visits.windows(2).any(|two| two[0] == two[1]));
        assert_shares(&stage.fleet.accepted(), &[1, 2, 1]);
        stage.finish();
    });
}

#[test]
fn power_of_two_is_nearly_even() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("power_of_two", workers, Fleet::of(4));
        let mut apart = 0;
        let guest = |_| {
            let guest = stage.hold();
            apart += spread(&stage.fleet.held());
            guest
        };
        let guests: Vec<_> = (0..200).map(guest).collect();
        // 1.3 apart on average, where chance alone gives 9.4.
        assert!(apart <= 200 * 7 / 2, "{apart} in 200 steps");
        leave_all(guests);
        // Without a load chance alone decides.
        let visits = stage.visits(120);
        assert_shares(&tally(4, visits), &[1; 4]);
        stage.finish();
    });
}

#[test]
fn least_time_avoids_the_slow_one() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("least_time", workers, Fleet::with_delays(&[200, 0, 0]));
        let guests = stage.hold_all(40);
        let [slow, ..] = stage.fleet.held()[..] else {
            unreachable!("there are three backends");
        };
        assert!(!stage.fleet.held().contains(&0), "every backend is tried");
        assert!(slow <= 4, "{:?}", stage.fleet.held());
        leave_all(guests);
        stage.finish();
    });
}

/// Also with one client at a time, as on a quiet service.
#[test]
fn least_time_finds_the_fast_one_by_one_client_at_a_time() {
    watched(|| {
        for slow in 0..3 {
            let mut delays = [0; 3];
            delays[slow] = 100;
            let stage = Stage::plain("least_time", 1, Fleet::with_delays(&delays));
            let next = |_| {
                thread::sleep(QUIET);
                stage.visit()
            };
            let visits: Vec<_> = (0..20).map(next).collect();
            let to_slow = visits.iter().filter(|backend| **backend == slow).count();
            assert!(to_slow <= 5, "{slow}: {visits:?}");
            stage.finish();
        }
    });
}

#[test]
fn predictive_gives_a_slow_one_fewer_and_each_some() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("predictive", workers, Fleet::with_delays(&[60, 0, 0]));
        busy_clients(&stage, 9, 300);
        let counts = stage.fleet.accepted();
        assert!(!counts.contains(&0), "{counts:?}");
        assert!(counts[0] * 2 < counts[1].min(counts[2]), "{counts:?}");
        stage.finish();
    });
}

/// Runs this many clients, each of which returns as soon as it is served, for this many visits.
fn busy_clients(stage: &Stage, clients: usize, visits: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < visits {
                    stage.visit();
                }
            });
        }
    });
}

/// Longer than the unit of the age of an average.
const QUIET: Duration = Duration::from_millis(5);

/// The backend accepts connections and closes them, as a crashed server behind inetd or a sidecar.
#[test]
fn no_strategy_by_load_feeds_a_backend_that_hangs_up() {
    watched(|| {
        let all = Strategy::all().into_iter();
        let by_load = all.filter(|(_, strategy)| strategy.by() == SelectsBy::Load);
        for (strategy, _) in by_load {
            let hole = TcpListener::bind("127.0.0.1:0").unwrap();
            let fleet = Fleet::of(3);
            let mut to = fleet.addresses();
            to.push(hole.local_addr().unwrap().to_string());
            let balancer = Launch::to(&to).flag("--strategy", strategy).start();
            let fed = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&fed);
            thread::spawn(move || {
                while hole.accept().is_ok() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
            for _ in 0..200 {
                // One byte, or the end.
                let _ = peers::try_connect(balancer.address()).map(|mut its| its.read(&mut [0]));
            }
            let fed = fed.load(Ordering::SeqCst);
            assert!(fed <= 200 / 4 * 3 / 2, "{strategy}: {fed} of 200");
            balancer.finish();
        }
    });
}

/// Processes with the same seed draw the same sequence; without one, each draws another.
#[test]
fn replicas_do_not_draw_the_same_sequence() {
    watched(|| {
        let draws = |seed: Option<&str>| {
            let fleet = Fleet::of(4);
            let mut launch = proxy("random", &fleet, &[]);
            if let Some(seed) = seed {
                launch = launch.variable("MAHORAGA_SEED", seed);
            }
            let stage = Stage::start(launch, "random", fleet);
            let visits = stage.visits(40);
            stage.finish();
            visits
        };
        assert_ne!(draws(None), draws(None));
        assert_eq!(draws(Some("7")), draws(Some("7")));
        assert_ne!(draws(Some("7")), draws(Some("8")));
    });
}

/// SIGUSR1 logs the counts and forecasts that a strategy uses.
#[test]
fn sigusr1_logs_counts_and_forecasts() {
    watched(|| {
        let fleet = Fleet::with_delays(&[0, 30]);
        let launch = proxy("predictive", &fleet, &[]).flag("--persist", "source_ip");
        let stage = Stage::start(launch, "predictive", fleet);
        let guests: Vec<_> = (0..20).map(|n| stage.call(source(n), b"")).collect();
        stage.balancer.process.signal(libc::SIGUSR1);
        let log = stage.balancer.log();
        eventually("the pool is shown", || {
            log.count("histograms appended") == 1
        });
        assert_eq!(
            log.count("pool default: predictive, 20 of 100000 clients known"),
            1
        );
        let row_of = |what: &str| {
            let lines = log.lines_with(what);
            let rows = lines.iter().filter_map(|line| line.split_once("] "));
            let mut rows = rows.map(|(_, row)| row.trim_start().to_owned());
            rows.find(|row| row.starts_with(what))
                .unwrap_or_else(|| panic!("no row {what}"))
        };
        let header = row_of("weight");
        let columns: Vec<_> = header.split_whitespace().collect();
        for name in [
            "bytes_up",
            "bytes_down",
            "load",
            "model",
            "cost",
            "effective",
        ] {
            assert!(columns.contains(&name), "{name}: {header}");
        }
        for (address, held) in stage.fleet.addresses().iter().zip(stage.fleet.held()) {
            let row = row_of(address);
            let values: Vec<_> = row.split_whitespace().skip(1).collect();
            assert_eq!(values.len(), columns.len(), "{header}\n{row}");
            let value = |name: &str| {
                let (_, value) = columns
                    .iter()
                    .zip(&values)
                    .find(|(column, _)| **column == name)?;
                Some(*value)
            };
            for (name, want) in [("weight", "1"), ("waiting", "0"), ("failures", "0")] {
                assert_eq!(value(name), Some(want), "{name}: {row}");
            }
            assert_eq!(value("connections"), Some(&*held.to_string()));
            let answer_ms = value("answer_ms").and_then(|ms| ms.parse::<f64>().ok());
            assert!(answer_ms.is_some_and(|ms| ms > 0.0), "{row}");
        }
        leave_all(guests);
        stage.finish();
    });
}
