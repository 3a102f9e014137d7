//! A backend that fails again and again gets no more clients from any worker.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers::{self, Backend, expect_turned_away, greeting, ping};
use crate::stage::{Guest, with_one_and_two_workers};
use crate::watchdog::{eventually, slowness, watched, within};

/// The backend accepts and resets: it is the fastest of all, and always free.
fn black_hole() -> Backend {
    Backend::tcp("127.0.0.1:0", peers::reset)
}

/// Whether a backend served the client, who says nothing; the black hole resets it.
fn is_served(client: io::Result<TcpStream>) -> bool {
    let greeted = client.and_then(|mut client| client.read_exact(&mut [0; 2]));
    greeted.is_ok()
}

#[test]
fn a_black_hole_gets_nothing_after_five_failures_in_a_row() {
    with_one_and_two_workers(|workers| {
        for strategy in ["round_robin", "least_connections", "hash", "random"] {
            let (hole, sound) = (black_hole(), [greeting(), greeting()]);
            let addresses = [&hole, &sound[0], &sound[1]].map(|backend| backend.address.clone());
            let launch = Launch::to(&addresses).workers(workers);
            let balancer = launch.flag("--strategy", strategy).start();
            // One client after the other, from many addresses.
            let sources = (0..120).map(crate::stage::source);
            let served =
                sources.map(|from| is_served(peers::try_connect_from(from, balancer.address())));
            let served: Vec<_> = served.collect();
            let lost = served.iter().filter(|served| !**served).count();
            assert_eq!(lost, hole.accepted(), "{strategy}");
            assert_eq!(hole.accepted(), 5, "{strategy}");
            balancer.finish();
        }
    });
}

/// A cancel request of PostgreSQL, `quit` of memcached, garbage, an end: sound servers close or
/// reset without an answer.
#[test]
fn nothing_that_clients_do_ejects_a_backend() {
    watched(|| {
        let backends = [(); 2].map(|()| {
            Backend::tcp("127.0.0.1:0", |mut stream| {
                let mut first = [0];
                match (stream.read(&mut first).unwrap_or(0), &first) {
                    (1, b"e") => peers::echo(stream),
                    (1, b"q") => {}
                    // Bytes that it has not read, or the client's end: a reset.
                    _ => peers::reset(stream),
                }
            })
        });
        let addresses = backends.each_ref().map(|backend| backend.address.clone());
        let balancer = Launch::to(&addresses).start();
        for round in 0..48 {
            let mut client = balancer.connect();
            match round % 3 {
                0 => client.write_all(b"q").unwrap(),
                1 => client.write_all(b"garbage").unwrap(),
                _ => client.shutdown(Shutdown::Write).unwrap(),
            }
            assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
        eventually("they have ended", || balancer.number("sessions") == 0);
        assert!(balancer.events("backend_ejected").is_empty());
        // They count as failing, which attracts no clients and keeps none away.
        for _ in 0..8 {
            let mut client = balancer.connect();
            client.write_all(b"e").unwrap();
            ping(&mut client, b"and so on");
        }
        assert_eq!(
            backends
                .map(|backend| backend.accepted())
                .iter()
                .sum::<usize>(),
            56
        );
        balancer.finish();
    });
}

#[test]
fn the_only_backend_is_never_ejected() {
    watched(|| {
        let hole = black_hole();
        let balancer = Launch::to(std::slice::from_ref(&hole.address)).start();
        for _ in 0..12 {
            expect_turned_away(balancer.address());
        }
        assert_eq!(hole.accepted(), 12);
        balancer.finish();
    });
}

#[test]
fn no_more_than_half_are_ejected() {
    watched(|| {
        let (holes, sound) = ([black_hole(), black_hole(), black_hole()], greeting());
        let mut addresses: Vec<_> = holes.iter().map(|hole| hole.address.clone()).collect();
        addresses.push(sound.address.clone());
        let balancer = Launch::to(&addresses).start();
        for _ in 0..80 {
            is_served(peers::try_connect(balancer.address()));
        }
        let mut fed = holes.map(|hole| hole.accepted());
        fed.sort_unstable();
        assert_eq!(fed[..2], [5, 5]);
        assert!(fed[2] > 20 && sound.accepted() > 20, "{fed:?}");
        balancer.finish();
    });
}

#[test]
fn it_is_tried_again_and_then_stays_out_twice_as_long() {
    watched(|| {
        let (hole, sound) = (black_hole(), greeting());
        let base = 3 * slowness();
        let balancer = Launch::with_pool(&format!(
            // The backend must fail again within this time after it returns.
            "ejection: (base: \"{base}s\"), backends: [\"{}\", \"{}\"]",
            hole.address, sound.address
        ));
        let balancer = balancer.workers(2).start();
        let events = balancer.follow();
        for (round, length) in [(1, base), (2, 2 * base)] {
            eventually("it fails five times", || {
                is_served(peers::try_connect(balancer.address()));
                hole.accepted() == 5 * round
            });
            let ejected = events.next("backend_ejected");
            assert_eq!(ejected["backend"], *hole.address);
            let message = ejected["message"].as_str().unwrap();
            let length = match length % 60 {
                0 => format!("{}m", length / 60),
                _ => format!("{length}s"),
            };
            assert!(
                message.contains(&format!("ejected for {length}")),
                "{message}"
            );
            let backend = balancer.backend(&hole.address);
            assert!(backend["ejected_s"].is_number() && backend["in_rotation"] == false);
            for _ in 0..10 {
                assert!(is_served(peers::try_connect(balancer.address())));
            }
            assert_eq!(hole.accepted(), 5 * round);
            events.next("backend_readmitted");
            balancer.until(&hole.address, "in_rotation", true);
        }
        drop(events);
        balancer.finish();
    });
}

/// By the times that real sessions wait: three times ten seconds long.
#[test]
fn a_backend_much_slower_than_the_others_is_ejected() {
    within(Duration::from_secs(120), || {
        let fleet = Fleet::with_delays(&[0, 0, 150]);
        let pool = format!("backends: [{}]", fleet.ron(&[]));
        let balancer = Launch::with_pool(&pool).start();
        let slow = fleet.addresses().swap_remove(2);
        let address = balancer.address();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while balancer.log().count("answers much slower") == 0 {
                        Guest::welcome(peers::connect(address)).leave();
                        thread::sleep(Duration::from_millis(30));
                    }
                });
            }
        });
        assert_eq!(balancer.events("backend_ejected")[0]["backend"], *slow);
        let backend = balancer.backend(&slow);
        assert!(backend["ejected_s"].is_number() && backend["in_rotation"] == false);
        let before = fleet.accepted()[2];
        for _ in 0..12 {
            Guest::welcome(balancer.connect()).leave();
        }
        assert_eq!(fleet.accepted()[2], before);
        balancer.finish();
    });
}
