//! Backends that fail again and again get nothing more, whichever worker met the failures.

use std::net::TcpStream;

use crate::balancer::Launch;
use crate::peers::{self, Backend, expect_reset};
use crate::stage::with_one_and_two_workers;
use crate::watchdog::watched;

/// It accepts and resets: the fastest of all, and always free.
fn black_hole() -> Backend {
    Backend::tcp("127.0.0.1:0", peers::reset)
}

/// Whether the client was served; the black hole resets it.
fn is_served(mut client: TcpStream) -> bool {
    use std::io::{Read, Write};
    let mut answer = [0; 4];
    client.write_all(b"here").is_ok() && client.read_exact(&mut answer).is_ok()
}

#[test]
fn a_black_hole_gets_nothing_after_five_failures_in_a_row() {
    with_one_and_two_workers(|workers| {
        for strategy in ["round_robin", "least_connections", "hash", "random"] {
            let (hole, sound) = (black_hole(), [Backend::echo(), Backend::echo()]);
            let addresses = [&hole, &sound[0], &sound[1]].map(|backend| backend.address.clone());
            let launch = Launch::to(&addresses).workers(workers);
            let balancer = launch.flag("--strategy", strategy).start();
            // One after the other, from many addresses.
            let sources = (0..120).map(crate::stage::source);
            let served =
                sources.map(|from| is_served(peers::connect_from(from, balancer.address())));
            let served: Vec<_> = served.collect();
            let lost = served.iter().filter(|served| !**served).count();
            assert_eq!(lost, hole.accepted(), "{strategy}");
            assert_eq!(hole.accepted(), 5, "{strategy}");
            balancer.finish();
        }
    });
}

#[test]
fn the_only_backend_is_never_ejected() {
    watched(|| {
        let hole = black_hole();
        let balancer = Launch::to(std::slice::from_ref(&hole.address)).start();
        for _ in 0..12 {
            expect_reset(&mut balancer.connect());
        }
        assert_eq!(hole.accepted(), 12);
        balancer.finish();
    });
}

#[test]
fn no_more_than_half_are_ejected() {
    watched(|| {
        let (holes, sound) = ([black_hole(), black_hole(), black_hole()], Backend::echo());
        let mut addresses: Vec<_> = holes.iter().map(|hole| hole.address.clone()).collect();
        addresses.push(sound.address.clone());
        let balancer = Launch::to(&addresses).start();
        for _ in 0..80 {
            is_served(balancer.connect());
        }
        let mut fed = holes.map(|hole| hole.accepted());
        fed.sort_unstable();
        assert_eq!(fed[..2], [5, 5]);
        assert!(fed[2] > 20 && sound.accepted() > 20, "{fed:?}");
        balancer.finish();
    });
}
