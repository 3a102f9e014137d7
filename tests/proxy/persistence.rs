//! Clients that come back get the backend that they had.

use std::thread;
use std::time::Duration;

use crate::balancer::Launch;
use crate::first_bytes::by_key;
use crate::fleet::Fleet;
use crate::stage::{Stage, proxy, source, spread, tally, with_one_and_two_workers};
use crate::watchdog::{patient, time, watched};

const SOURCES: u32 = 80;

/// The backend of a client from each of the sources.
fn each(stage: &Stage) -> Vec<usize> {
    (0..SOURCES).map(|n| stage.visit_from(source(n))).collect()
}

#[test]
fn sticky_round_robin_spreads_clients_and_knows_them_again() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("sticky_round_robin", workers, Fleet::of(3));
        let first = each(&stage);
        // The shares of a round differ by one, and each worker has its own round.
        assert!(spread(&tally(3, first.iter().copied())) <= workers);
        for _ in 0..2 {
            assert_eq!(each(&stage), first);
        }
        stage.finish();
    });
}

#[test]
fn clients_of_a_backend_that_is_gone_move_once_and_stay() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("sticky_round_robin", workers, Fleet::of(3));
        // Too few clients of the stopped backend for failures to eject it.
        let each =
            |stage: &Stage| -> Vec<_> { (0..9).map(|n| stage.visit_from(source(n))).collect() };
        let before = each(&stage);
        stage.fleet.stop(1);
        let without = each(&stage);
        assert!(!without.contains(&1));
        for (before, without) in before.iter().zip(&without) {
            assert!(before == without || *before == 1, "others stay");
        }
        // Only moved clients may have met a refusal, each once at most.
        let lines = || stage.lines().into_iter();
        let refusals = || lines().filter(|line| line.attempts > 1).count();
        let refused = refusals();
        let moved = before.iter().filter(|backend| **backend == 1).count();
        assert!((1..=moved).contains(&refused), "{refused} of {moved}");
        assert_eq!(each(&stage), without);
        stage.fleet.start(1);
        assert_eq!(each(&stage), without, "no client moves back");
        assert_eq!(refusals(), refused);
        // New clients go round robin again.
        let new: Vec<_> = (0..12).map(|n| stage.visit_from(source(100 + n))).collect();
        assert!(spread(&tally(3, new)) <= workers);
        stage.finish();
    });
}

#[test]
fn any_strategy_persists_by_address() {
    watched(|| {
        thread::scope(|scope| {
            for strategy in ["random", "least_connections", "hash"] {
                scope.spawn(move || {
                    let fleet = Fleet::of(4);
                    let launch = proxy(strategy, &fleet, &[]).workers(2);
                    let launch = launch.flag("--persist", "source_ip");
                    let stage = Stage::start(launch, strategy, fleet);
                    let first = each(&stage);
                    assert!(!tally(4, first.iter().copied()).contains(&0));
                    // Other clients are there too.
                    let others: Vec<_> = (0..7).map(|n| stage.call(source(n), b"")).collect();
                    assert_eq!(each(&stage), first);
                    crate::stage::leave_all(others);
                    stage.finish();
                });
            }
        });
    });
}

fn request(cookie: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: a=b; {cookie}\r\n\r\n").into()
}

fn by_cookie(workers: usize, backends: usize) -> Stage {
    let fleet = Fleet::of(backends);
    let launch = proxy("round_robin", &fleet, &[]).workers(workers);
    let launch = launch.flag("--persist", "http_cookie(SESSION)");
    Stage::start(launch, "round_robin", fleet)
}

#[test]
fn a_cookie_is_known_again_from_any_address() {
    with_one_and_two_workers(|workers| {
        let stage = by_cookie(workers, 3);
        // Every source address is used once.
        let mut sources = (0..).map(source);
        let mut each = || -> Vec<_> {
            let cookies = (0..SOURCES).map(|n| request(&format!("SESSION=s{n}")));
            let sources = sources.by_ref();
            let visits = cookies.zip(sources);
            visits
                .map(|(cookie, source)| stage.call(source, &cookie).leave())
                .collect()
        };
        let first = each();
        assert!(spread(&tally(3, first.iter().copied())) <= workers);
        for _ in 0..2 {
            assert_eq!(each(), first);
        }
        assert_eq!(stage.balancer.number("peek_misses"), 0);
        stage.finish();
    });
}

/// Its answer may have carried the cookie.
#[test]
fn the_request_after_the_first_one_follows_it() {
    with_one_and_two_workers(|workers| {
        let stage = by_cookie(workers, 3);
        for n in 0..SOURCES {
            let (home, away) = (source(2 * n), source(2 * n + 1));
            let cookie = request(&format!("SESSION=s{n}"));
            let first = stage.call(home, &request("none=1")).leave();
            assert_eq!(stage.call(home, &cookie).leave(), first);
            assert_eq!(stage.call(away, &cookie).leave(), first);
        }
        assert_eq!(stage.balancer.number("peek_misses"), u64::from(SOURCES));
        stage.finish();
    });
}

#[test]
fn a_cookie_says_more_than_an_address() {
    watched(|| {
        let stage = by_cookie(1, 2);
        let [one, two] = ["SESSION=one", "SESSION=two"].map(request);
        let of_one = stage.call(source(1), &one).leave();
        let of_two = stage.call(source(2), &two).leave();
        assert_ne!(of_one, of_two, "in turn");
        // Each backend moves to the other's address.
        assert_eq!(stage.call(source(2), &one).leave(), of_one);
        assert_eq!(stage.call(source(1), &two).leave(), of_two);
        stage.finish();
    });
}

#[test]
fn clients_are_forgotten_some_time_after_they_left() {
    watched(|| {
        let fleet = Fleet::of(3);
        let launch = proxy("round_robin", &fleet, &[]);
        let launch = launch.flag("--persist", "source_ip");
        let stage = Stage::start(
            launch.flag("--persist-ttl", &time(1_000)),
            "round_robin",
            fleet,
        );
        let staying = stage.call(source(1), b"");
        assert_eq!([staying.backend, stage.visit_from(source(2))], [0, 1]);
        thread::sleep(patient(Duration::from_millis(1_200)));
        let visits = [2, 3].map(|n| stage.visit_from(source(n)));
        assert_eq!(visits, [2, 0], "in turn again");
        staying.leave();
        assert_eq!(stage.visit_from(source(1)), 0, "it was here until now");
        stage.finish();
    });
}

#[test]
fn the_client_that_was_away_longest_is_forgotten_first() {
    watched(|| {
        let fleet = Fleet::of(3);
        let launch = Launch::with_pool(&format!(
            "persist: (key: \"source_ip\", clients_max: 2), backends: [{}]",
            fleet.ron(&[])
        ));
        let stage = Stage::start(launch, "round_robin", fleet);
        let visit = |n| stage.visit_from(source(n));
        assert_eq!([visit(1), visit(2)], [0, 1]);
        assert_eq!([visit(1), visit(2), visit(1)], [0, 1, 0]);
        // The third takes the second's place.
        assert_eq!([visit(3), visit(1), visit(2)], [2, 0, 0]);
        stage.finish();
    });
}

/// The key of sticky round robin may be in the first bytes too.
#[test]
fn sticky_round_robin_knows_hosts_again() {
    watched(|| {
        let fleet = Fleet::of(3);
        let launch = proxy("sticky_round_robin", &fleet, &[]).workers(2);
        let stage = Stage::start(by_key(launch, "http_host"), "sticky_round_robin", fleet);
        let mut sources = (0..).map(source);
        let mut each = || -> Vec<_> {
            let visit = |n| {
                let request = format!("GET / HTTP/1.1\r\nHost: shop-{n}\r\n\r\n");
                let source = sources.next().unwrap();
                stage.call(source, request.as_bytes()).leave()
            };
            (0..SOURCES).map(visit).collect()
        };
        let first = each();
        assert!(spread(&tally(3, first.iter().copied())) <= 2);
        assert_eq!(each(), first);
        stage.finish();
    });
}
