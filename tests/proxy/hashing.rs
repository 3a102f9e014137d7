//! Hash by the client's address: every worker of every balancer sends a client to the same backend.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::balancer::Launch;
use crate::fleet::Fleet;
use crate::peers;
use crate::stage::{Guest, Line, Stage, leave_all, proxy, source, tally, with_one_and_two_workers};
use crate::watchdog::watched;

/// Clients of this many addresses: by chance a backend of four has none of them in one run of
/// 10^10.
const SOURCES: u32 = 90;

#[test]
fn a_source_has_one_backend_and_each_backend_its_sources() {
    with_one_and_two_workers(|workers| {
        let stage = Stage::plain("hash", workers, Fleet::of(4));
        let all = || (0..SOURCES).map(|n| stage.visit_from(source(n))).collect();
        let first: Vec<_> = all();
        let again: Vec<_> = all();
        assert_eq!(first, again);
        assert!(!tally(4, first).contains(&0));
        stage.finish();
    });
}

/// The balancers share no state.
#[test]
fn two_balancers_agree_whatever_the_order_of_their_backends() {
    watched(|| {
        let stage = Stage::plain("hash", 2, Fleet::of(5));
        let mut shuffled = stage.fleet.addresses();
        shuffled.rotate_left(2);
        shuffled.swap(0, 1);
        let other = Launch::to(&shuffled).flag("--strategy", "hash").start();
        for n in 0..SOURCES {
            let backend = stage.visit_from(source(n));
            let client = peers::connect_from(source(n), other.address());
            assert_eq!(Guest::welcome(client).leave(), backend);
        }
        other.finish();
        stage.balancer.finish();
    });
}

#[test]
fn a_network_is_one_client() {
    watched(|| {
        let fleet = Fleet::of(4);
        let launch = proxy("hash", &fleet, &[]).flag("--key", "source_ip(24, 56)");
        let stage = Stage::start(launch.workers(2), "hash", fleet);
        let mut backends = Vec::new();
        for network in 0..90 {
            let of_host = |host| stage.visit_from(Ipv4Addr::new(127, 0, network, host));
            let backend = of_host(1);
            assert_eq!([of_host(2), of_host(254)], [backend; 2]);
            backends.push(backend);
        }
        assert!(!tally(4, backends).contains(&0));
        stage.finish();
    });
}

/// Another connection of the same client is another key; the same port is the same key again.
#[test]
fn a_source_and_port_have_one_backend() {
    watched(|| {
        let fleet = Fleet::of(3);
        let keyed = |fleet| {
            let launch = proxy("hash", fleet, &[]);
            launch.flag("--key", "source_ip_port").workers(2)
        };
        let launches = [(); 2].map(|()| keyed(&fleet));
        let [one, two] = launches.map(Launch::start);
        let mut backends = Vec::new();
        for n in 0..90 {
            let clients = two_of_one_port(n, [one.address(), two.address()]);
            let [backend, other] = clients.map(|client| Guest::welcome(client).leave());
            assert_eq!(backend, other, "client {n}");
            backends.push(backend);
        }
        assert!(!tally(3, backends).contains(&0));
        one.finish();
        two.finish();
    });
}

/// Clients of the same address and port, one of each balancer. No other test uses the address, and
/// the kernel does not give out the port.
fn two_of_one_port(n: u16, balancers: [SocketAddr; 2]) -> [TcpStream; 2] {
    let [.., high, low] = std::process::id().to_be_bytes();
    let source = SocketAddr::from(([127, 200, high, low], 20_000 + n));
    balancers.map(|balancer| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&balancer.into()).unwrap();
        TcpStream::from(socket)
    })
}

/// The clients of a backend that refuses spread over the others, and return to it later.
#[test]
fn a_backend_that_is_gone_moves_its_own_clients_only() {
    watched(|| {
        let stage = Stage::plain("hash", 2, Fleet::of(4));
        // Too few clients of the refusing backend for failures to eject it.
        let (own, others): (Vec<_>, Vec<_>) =
            (0..SOURCES).partition(|&n| stage.visit_from(source(n)) == 2);
        let sources: Vec<_> = own.into_iter().take(4).chain(others).collect();
        let visit = |&n: &u32| stage.visit_from(source(n));
        let all = || sources.iter().map(visit).collect();
        let before: Vec<_> = all();
        stage.fleet.stop(2);
        let without: Vec<_> = all();
        let moved: Vec<_> = before
            .iter()
            .zip(&without)
            .filter(|(b, w)| b != w)
            .collect();
        assert!(moved.iter().all(|(before, _)| **before == 2), "{moved:?}");
        stage.fleet.start(2);
        let after: Vec<_> = all();
        assert_eq!(before, after);
        let tries = |line: &&Line| line.attempts > 1;
        assert_eq!(stage.lines().iter().filter(tries).count(), moved.len());
        stage.finish();
    });
}

/// All clients have one address: without a bound they are all at one backend.
#[test]
fn a_load_bound_holds_for_the_clients_that_stay() {
    with_one_and_two_workers(|workers| {
        let fleet = Fleet::of(4);
        let launch = proxy("hash", &fleet, &[]).flag("--max-load", "1.25");
        let stage = Stage::start(launch.workers(workers), "hash", fleet);
        let mut guests = Vec::new();
        for held in 1..=48_usize {
            guests.push(stage.hold());
            let most = (held * 5).div_ceil(4 * 4);
            let loads = stage.fleet.held();
            assert!(loads.iter().all(|load| *load <= most), "{loads:?} > {most}");
        }
        let own = guests[0].backend;
        assert_eq!(stage.fleet.held()[own], 15, "its own, up to the bound");
        leave_all(guests);
        // No other client fills it any more.
        assert_eq!(stage.visits(5), [own; 5]);
        stage.finish();
    });
}
