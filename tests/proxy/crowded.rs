//! A backend on a Unix socket whose backlog is full: its clients wait as for a place, in order, and
//! one of them retries for all. Clients of another listener are not disturbed.

use std::io::{Read, Write};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::balancer::Launch;
use crate::peers::{self, Backend, exchange_all, ping};
use crate::watchdog::heavy;

/// Listens with a backlog of 3 connections.
fn listen(path: &Path) -> Socket {
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(path).unwrap()).unwrap();
    listener.listen(2).unwrap();
    listener
}

fn waits(workers: usize) {
    heavy(move || {
        let echo = Backend::echo();
        let config = format!(
            "(workers: {workers}, listeners: [(bind: \"127.0.0.1:0\", pool: \"full\"),\n\
             (name: \"b\", bind: \"127.0.0.1:0\", pool: \"echo\")],\n\
             pools: [(name: \"full\", queue: (max: 1000, timeout: \"10m\"),\n\
             backends: [\"unix:full\"]), (name: \"echo\", backends: [\"{}\"])])",
            echo.address
        );
        let launch = Launch::with_config(&config, 2).workers(workers);
        let backend = listen(&launch.dir().join("full"));
        let balancer = launch.start();
        let clients = (0..CLIENTS).map(|number| {
            let mut client = balancer.connect();
            client.write_all(&number.to_be_bytes()).unwrap();
            client
        });
        let mut clients: Vec<_> = clients.collect();
        exchange_all(balancer.address_of(1));
        balancer.process.expect_cpu_below(0.04);
        exchange_all(balancer.address_of(1));
        assert_eq!(balancer.process.kernel_threads(), 0);
        // No backend is blamed, and no client gave up.
        assert_eq!(balancer.number("connect_failures"), 0);
        assert_eq!(balancer.number("sessions"), u64::from(CLIENTS));
        assert!(balancer.number("turns_in_vain") < 1_000);

        let mut served = Vec::new();
        let mut held = Vec::new();
        for _ in 0..CLIENTS {
            let (mut stream, _) = backend.accept().unwrap();
            let mut number = [0; 2];
            stream.read_exact(&mut number).unwrap();
            stream.write_all(&number).unwrap();
            served.push(u16::from_be_bytes(number));
            held.push(stream);
        }
        // One worker serves its clients in order; two mix theirs.
        assert!(workers > 1 || served.is_sorted(), "{served:?}");
        for (number, client) in (0u16..).zip(&mut clients) {
            let mut received = [0; 2];
            client.read_exact(&mut received).unwrap();
            assert_eq!(u16::from_be_bytes(received), number);
        }
        drop((clients, held));
        balancer.finish();
    });
}

#[test]
fn clients_of_a_full_backlog_wait_in_order_and_cost_nothing() {
    waits(1);
}

#[test]
fn clients_of_two_workers_wait_for_a_full_backlog_together() {
    waits(2);
}

#[test]
fn clients_of_a_full_backlog_go_to_other_backends() {
    heavy(|| {
        let other = Backend::echo();
        let to = ["unix:full".to_owned(), other.address.clone()];
        let launch = Launch::to(&to);
        let backend = listen(&launch.dir().join("full"));
        let balancer = launch.start();
        // Three fit in the backlog and get no answer; every other client is served.
        let mut clients: Vec<_> = (0..40).map(|_| balancer.connect()).collect();
        let mut answered = 0;
        for client in &mut clients {
            client.write_all(b"?").unwrap();
        }
        crate::watchdog::eventually("all others are served", || {
            answered = other.accepted();
            answered == 37
        });
        assert_eq!(balancer.number("connect_failures"), 0);
        drop(clients);
        // With room in its backlog the backend gets its share again.
        for _ in 0..3 {
            drop(backend.accept().unwrap());
        }
        std::thread::spawn(move || {
            while let Ok((stream, _)) = backend.accept() {
                std::thread::spawn(|| peers::echo(stream));
            }
        });
        for _ in 0..20 {
            ping(&mut balancer.connect(), b"hello");
        }
        balancer.finish();
    });
}

const CLIENTS: u16 = 300;
