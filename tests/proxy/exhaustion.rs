//! Descriptors run out: who is there is served, who comes waits, nothing spins and nobody is
//! forgotten.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, ping};
use crate::watchdog::watched;

fn launch(backend: &Backend) -> Balancer {
    let launch = Launch::to(std::slice::from_ref(&backend.address));
    // A backend's descriptor may be long in coming.
    launch.flag("--connect-timeout", "60s").start()
}

fn ask(to: std::net::SocketAddr, count: u8) -> Vec<thread::JoinHandle<TcpStream>> {
    let ask = move |number| {
        let mut client = peers::connect(to);
        ping(&mut client, &[number; 16]);
        client
    };
    (0..count)
        .map(|number| thread::spawn(move || ask(number)))
        .collect()
}

#[test]
fn at_the_limit_all_wait_without_a_spin_and_are_served_after_it() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend);
        let mut early: Vec<_> = (0..5).map(|_| balancer.connect()).collect();
        for client in &mut early {
            ping(client, b"before");
        }
        let limit = balancer.process.limit_with_room(0, 3);
        balancer.process.limit_descriptors(limit);
        let late = ask(balancer.address(), 40);

        thread::sleep(Duration::from_millis(300));
        let share = balancer.process.cpu_share(Duration::from_secs(1));
        assert!(share < 0.10, "{share} of a CPU to wait for descriptors");
        for client in &mut early {
            ping(client, b"meanwhile");
        }
        let complaints = balancer.log().count("pausing");
        assert!((1..=4).contains(&complaints), "{complaints} lines");
        assert!(late.iter().any(|client| !client.is_finished()));

        balancer.process.limit_descriptors(20_000);
        let late: Vec<_> = late
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        assert!(balancer.number("accept_exhausted") > 0);
        drop((early, late));
        balancer.finish();
    });
}

/// The limit stays; descriptors come back one by one as sessions end.
#[test]
fn a_crowd_is_served_with_few_descriptors() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend);
        let limit = balancer.process.limit_with_room(0, 9);
        balancer.process.limit_descriptors(limit);
        let to = balancer.address();
        let visit = move |number| {
            let mut client = peers::connect(to);
            ping(&mut client, &[number; 16]);
        };
        let crowd = (0..100).map(|number| thread::spawn(move || visit(number)));
        for visitor in crowd.collect::<Vec<_>>() {
            visitor.join().unwrap();
        }
        balancer.process.limit_descriptors(20_000);
        balancer.finish();
    });
}
