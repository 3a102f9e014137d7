//! The limit of client connections: exact over all workers; a client without a place waits for one.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, expect_end, ping};
use crate::watchdog::{eventually, watched};

/// A backend that greets each client once it is served.
fn greeter() -> Backend {
    Backend::tcp("127.0.0.1:0", |mut stream| {
        std::io::Write::write_all(&mut stream, b"!").unwrap();
        peers::echo(stream);
    })
}

fn is_served(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let served = client.peek(&mut [0]).is_ok_and(|read| read == 1);
    client.set_nonblocking(false).unwrap();
    served
}

fn served(clients: &[TcpStream]) -> usize {
    clients.iter().filter(|client| is_served(client)).count()
}

/// Exactly this many are served and, for a while, no more.
#[track_caller]
fn expect_served(clients: &[TcpStream], backend: &Backend, wanted: usize, so_far: usize) {
    eventually("this many are served", || served(clients) >= wanted);
    thread::sleep(Duration::from_millis(100));
    assert_eq!(served(clients), wanted);
    assert_eq!(backend.accepted(), so_far);
}

fn limited(workers: usize, limit: usize, backend: &Backend) -> Balancer {
    Launch::to(std::slice::from_ref(&backend.address))
        .workers(workers)
        .flag("--max-connections", &limit.to_string())
        .start()
}

fn holds(workers: usize) {
    watched(move || {
        let backend = greeter();
        let balancer = limited(workers, 4, &backend);
        let mut clients: Vec<_> = (0..12).map(|_| balancer.connect()).collect();
        expect_served(&clients, &backend, 4, 4);
        // Each client that leaves makes place for one; in the end all have been served.
        for so_far in 5..=12 {
            let first = clients.iter().position(is_served).unwrap();
            drop(clients.swap_remove(first));
            expect_served(&clients, &backend, 4, so_far);
        }
        drop(clients);
        balancer.finish();
    });
}

#[test]
fn one_worker_serves_no_more_than_the_limit() {
    holds(1);
}

#[test]
fn two_workers_serve_no_more_than_the_limit_together() {
    holds(2);
}

#[test]
fn a_crowd_at_the_limit_is_served_to_the_last() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = limited(2, 3, &backend);
        let address = balancer.address();
        let served = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..100)
            .map(|client| {
                let served = Arc::clone(&served);
                thread::spawn(move || {
                    let mut stream = peers::connect(address);
                    ping(&mut stream, &[client; 100]);
                    stream.shutdown(Shutdown::Write).unwrap();
                    expect_end(&mut stream);
                    served.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        assert_eq!(served.load(Ordering::Relaxed), 100);
        balancer.finish();
    });
}

/// Accepted in one batch beyond the limit, they wait inside: a stop serves them too.
#[test]
fn a_stop_serves_those_that_wait_for_a_place() {
    watched(|| {
        let backend = Backend::echo();
        let mut balancer = limited(2, 1, &backend);
        // While the process sleeps clients gather, and are then accepted all at once.
        balancer.process.freeze();
        let clients: Vec<_> = (0..16).map(|_| balancer.connect()).collect();
        balancer.process.signal(libc::SIGCONT);
        eventually("one served, others parked", || {
            let parked = balancer.number("parked");
            backend.accepted() == 1 && parked > 0
        });
        let parked = usize::try_from(balancer.number("parked")).unwrap();
        balancer.process.signal(libc::SIGTERM);
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                thread::spawn(move || {
                    // Those in the kernel's backlog are reset.
                    let sent = std::io::Write::write_all(&mut client, b"?");
                    let mut answer = [0];
                    let received = std::io::Read::read_exact(&mut client, &mut answer);
                    sent.is_ok() && received.is_ok() && answer == *b"?"
                })
            })
            .collect();
        let answered = threads.into_iter().map(|thread| thread.join().unwrap());
        let answered = answered.filter(|answered| *answered).count();
        assert!(answered > parked, "{answered} of 1 + {parked}");
        assert_eq!(balancer.wait().code(), Some(0));
    });
}
