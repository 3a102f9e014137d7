//! Limits of backends: which fill first, which clients wait for a place, and no backend exceeds its
//! limit.

use std::thread;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::stage::{Guest, Stage, leave_all, proxy, with_one_and_two_workers};
use crate::watchdog::{eventually, watched};

#[test]
fn first_fills_one_after_the_other() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(3);
        let limits = [",max_connections=2", ",max_connections=3"];
        let launch = proxy("first", &fleet, &limits).workers(workers);
        let stage = Stage::start(launch, "first", fleet);
        let mut guests = stage.hold_all(9);
        let backends: Vec<_> = guests.iter().map(|guest| guest.backend).collect();
        assert_eq!(backends, [0, 0, 1, 1, 1, 2, 2, 2, 2]);
        // Clients take a place in front before those behind it.
        for place in [3, 1] {
            let left = guests.remove(place).leave();
            let next = stage.hold();
            assert_eq!(next.backend, left);
            guests.insert(place, next);
        }
        leave_all(guests);
        assert_eq!(stage.visits(5), [0; 5]);
        stage.finish();
    });
}

#[test]
fn a_client_without_a_place_waits_for_one() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(2);
        let stage = patient("round_robin", fleet, &[1; 2], workers);
        let [one, two] = [stage.hold(), stage.hold()];
        let waiting: Vec<_> = (0..3).map(|_| stage.balancer.connect()).collect();
        eventually("all are sessions", || {
            stage.balancer.number("sessions") == 5
        });
        assert_eq!(stage.fleet.accepted(), [1, 1]);
        let freed = one.leave();
        // The first of them to be served takes it, and makes place for the next.
        let backends: Vec<_> = thread::scope(|scope| {
            let threads = waiting.into_iter();
            let leave = |client| scope.spawn(|| Guest::welcome(client).leave());
            let threads: Vec<_> = threads.map(leave).collect();
            let threads = threads.into_iter();
            threads.map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(backends, [freed; 3]);
        two.leave();
        assert_eq!(stage.fleet.held_max(), [1, 1]);
        stage.finish();
    });
}

/// Many more clients than places, on two workers that each count the other's choices too.
#[test]
fn no_backend_ever_has_more_than_its_limit() {
    watched(|| {
        thread::scope(|scope| {
            for strategy in ["round_robin", "power_of_two", "hash", "least_time"] {
                scope.spawn(|| crowd(strategy));
            }
        });
    });
}

/// A pool's limit is counted over its backends and over all workers, however fast places change
/// hands. The same holds for the limit of all client connections.
#[test]
fn neither_a_pool_nor_all_clients_ever_have_more_than_their_limit() {
    watched(|| {
        thread::scope(|scope| {
            for (limit, of_all) in [("max_connections: 4,", ""), ("", "max_connections: 4,")] {
                scope.spawn(|| rush(limit, of_all));
            }
        });
    });
}

fn rush(of_pool: &str, of_all: &str) {
    let fleet = Fleet::of(3);
    let config = format!(
        "(workers: 2, {of_all} listeners: [(bind: \"127.0.0.1:0\", pool: \"default\")],
         pools: [(name: \"default\", {of_pool} queue: (timeout: \"10m\"),
         backends: [{}])])",
        fleet.ron(&[])
    );
    let launch = Launch::with_config(&config, 1).workers(2);
    let stage = Stage::start(launch, "round_robin", fleet);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| stage.visits(10));
        }
    });
    assert_eq!(stage.fleet.accepted().iter().sum::<usize>(), 10 * CLIENTS);
    assert_eq!(stage.fleet.held_max_in_all(), 4);
    stage.finish();
}

/// These limits, and a queue whose timeout ends no wait.
fn patient(strategy: &str, fleet: Fleet, limits: &[u32], workers: usize) -> Stage {
    let limits = limits.iter().map(|max| format!("max_connections: {max}"));
    let limits: Vec<_> = limits.collect();
    let limits: Vec<_> = limits.iter().map(String::as_str).collect();
    let backends = fleet.ron(&limits);
    let queue = "queue: (timeout: \"10m\")";
    let pool = format!("strategy: \"{strategy}\", {queue}, backends: [{backends}]");
    Stage::start(Launch::with_pool(&pool).workers(workers), strategy, fleet)
}

fn crowd(strategy: &str) {
    let fleet = Fleet::of(3);
    let stage = patient(strategy, fleet, &[3, 1, 2], 2);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| stage.balancer.connect()).collect();
        eventually("all are sessions", || {
            stage.balancer.number("sessions") == CLIENTS as u64
        });
        eventually("all places are taken", || stage.fleet.held() == [3, 1, 2]);
        assert_eq!(stage.fleet.accepted(), [3, 1, 2], "{strategy}");
        for client in clients {
            scope.spawn(|| Guest::welcome(client).leave());
        }
    });
    assert_eq!(stage.fleet.accepted().iter().sum::<usize>(), CLIENTS);
    assert_eq!(stage.fleet.held_max(), [3, 1, 2], "{strategy}");
    stage.finish();
}

const CLIENTS: usize = 40;
