//! Peers that do not read. Where they have ended their own direction, the kernel ends every wait
//! for room at once, so the balancer waits in another way. This costs no CPU and no kernel thread,
//! loses no byte, and disturbs no client of another listener.

use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers::{self, Backend, exchange_all};
use crate::watchdog::{eventually, heavy, patient};

/// `far` does not read.
struct Stuck {
    far: Socket,
    sent: Bytes,
    seed: usize,
}

#[derive(Clone, Copy)]
enum Pace {
    /// As fast as possible: the balancer splices.
    Stream,
    /// In small pieces: the balancer copies.
    Pieces,
}

/// What the peers do that do not read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Far {
    /// They have ended their own direction.
    Ends,
    /// Nothing.
    Stalls,
}

/// A listener for the sessions that get stuck, and one for clients of an echo backend.
fn launch(from: &str, to: &str, echo: &Backend) -> Launch {
    let config = format!(
        "(workers: 1, listeners: [(bind: \"{from}\", pool: \"stuck\"),\n\
         (name: \"b\", bind: \"127.0.0.1:0\", pool: \"echo\")],\n\
         pools: [(name: \"stuck\", backends: [\"{to}\"]),\n\
         (name: \"echo\", backends: [\"{}\"])])",
        echo.address
    );
    Launch::with_config(&config, 2)
}

/// Sends until nothing moves any more, and ends.
fn stick(near: Socket, far: Socket, kind: (Far, Pace), seed: usize) -> Stuck {
    let (mut near, (does, pace)) = (near, kind);
    if does == Far::Ends {
        far.shutdown(Shutdown::Write).unwrap();
    }
    near.set_nonblocking(true).unwrap();
    let mut sent = Bytes::new(seed);
    match pace {
        Pace::Stream => sent.send_until_stuck(&mut near),
        Pace::Pieces => {
            sent.send_pieces_until_stuck(&mut near, 3_000, Duration::from_micros(200));
        }
    }
    Stuck { far, sent, seed }
}

/// A session of each of these pairs gets stuck; then all readers go on.
fn check(balancer: Balancer, pairs: Vec<(OwnedFd, OwnedFd)>, kind: (Far, Pace)) {
    let sessions = pairs.len() as u64;
    let stick = |(seed, (near, far)): (usize, (OwnedFd, OwnedFd))| {
        thread::spawn(move || stick(near.into(), far.into(), kind, seed))
    };
    let threads: Vec<_> = pairs.into_iter().enumerate().map(stick).collect();
    let stuck: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();

    // A busy machine may still work on what was sent; a spin would never end.
    exchange_all(balancer.address_of(1));
    let mut in_vain = balancer.number("turns_in_vain");
    eventually("all wait", || {
        thread::sleep(patient(Duration::from_millis(200)));
        let before = std::mem::replace(&mut in_vain, balancer.number("turns_in_vain"));
        in_vain - before <= sessions / 10
    });
    assert!(in_vain <= sessions * 20, "{in_vain} turns in vain");
    balancer.process.expect_cpu_below(0.02);
    exchange_all(balancer.address_of(1));
    assert_eq!(balancer.process.kernel_threads(), 0);

    thread::scope(|scope| {
        for mut one in stuck {
            scope.spawn(move || {
                let mut received = Bytes::new(one.seed);
                received.expect_to_end(&mut one.far);
                assert_eq!(received.count, one.sent.count);
            });
        }
    });
    balancer.finish();
}

/// Both ends of TCP sessions, client first.
fn tcp(test: fn((TcpStream, TcpStream)) -> (TcpStream, TcpStream), kind: (Far, Pace)) {
    heavy(move || {
        let echo = Backend::echo();
        let (backend, to) = peers::listen();
        let balancer = launch("127.0.0.1:0", &to, &echo).start();
        let pairs = (0..SESSIONS).map(|_| test(peers::session(&balancer, &backend)));
        let pairs = pairs.map(|(near, far)| (near.into(), far.into()));
        let pairs = pairs.collect();
        check(balancer, pairs, kind);
    });
}

#[test]
fn half_closed_clients_that_do_not_read_cost_nothing() {
    tcp(
        |(client, backend)| (backend, client),
        (Far::Ends, Pace::Stream),
    );
}

#[test]
fn half_closed_clients_that_do_not_read_small_pieces_cost_nothing() {
    tcp(
        |(client, backend)| (backend, client),
        (Far::Ends, Pace::Pieces),
    );
}

#[test]
fn backends_that_have_ended_and_do_not_read_cost_nothing() {
    tcp(|pair| pair, (Far::Ends, Pace::Stream));
}

#[test]
fn backends_that_have_ended_and_do_not_read_small_pieces_cost_nothing() {
    tcp(|pair| pair, (Far::Ends, Pace::Pieces));
}

#[test]
fn clients_and_backends_that_stop_reading_cost_nothing() {
    tcp(
        |(client, backend)| (backend, client),
        (Far::Stalls, Pace::Stream),
    );
    tcp(
        |(client, backend)| (backend, client),
        (Far::Stalls, Pace::Pieces),
    );
    tcp(|pair| pair, (Far::Stalls, Pace::Stream));
    unix(true, (Far::Stalls, Pace::Stream));
}

fn unix(swap: bool, kind: (Far, Pace)) {
    heavy(move || {
        let echo = Backend::echo();
        let launch = launch("unix:front", "unix:back", &echo);
        let (front, back) = (launch.dir().join("front"), launch.dir().join("back"));
        let backend = UnixListener::bind(back).unwrap();
        let balancer = launch.start();
        let pairs = (0..SESSIONS).map(|_| {
            let client = std::os::unix::net::UnixStream::connect(&front).unwrap();
            let (accepted, _) = backend.accept().unwrap();
            if swap {
                (accepted.into(), client.into())
            } else {
                (client.into(), accepted.into())
            }
        });
        let pairs = pairs.collect();
        check(balancer, pairs, kind);
    });
}

#[test]
fn half_closed_unix_clients_that_do_not_read_cost_nothing() {
    for pace in [Pace::Stream, Pace::Pieces] {
        unix(true, (Far::Ends, pace));
    }
}

#[test]
fn unix_backends_that_have_ended_and_do_not_read_cost_nothing() {
    for pace in [Pace::Stream, Pace::Pieces] {
        unix(false, (Far::Ends, pace));
    }
}

const SESSIONS: usize = 100;
