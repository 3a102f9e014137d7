//! A session with a slow reader goes on, however short the deadline; one whose reader stops is
//! closed.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use mahoraga::kernel::Socket;
use mahoraga::sys;

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers;
use crate::watchdog::{heavy, patient, time};

/// More than all buffers between the ends hold.
const BYTES: u64 = 12 << 20;
const RATE: u64 = 100_000;

fn launch(to: String) -> Balancer {
    Launch::to(&[to])
        .flag("--idle-timeout", &time(500))
        .flag("--half-closed-timeout", &time(500))
        .start()
}

/// Reads at [`RATE`] for 6 s, then all the rest. On loopback the reader acknowledges 64 KiB at a
/// time: once a second. A poll for room waits for a third of the send buffer, which takes 14 s.
fn trickle(near: TcpStream, mut far: TcpStream, half_closed: bool) {
    let sender = thread::spawn(move || {
        let mut near = near;
        Bytes::new(1).send(&mut near, BYTES);
        if half_closed {
            near.shutdown(Shutdown::Write).unwrap();
        }
        near
    });
    let mut received = Bytes::new(1);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        received.expect(&mut far, RATE / 20);
        thread::sleep(Duration::from_millis(50));
    }
    received.expect(&mut far, BYTES - received.count);
    drop(sender.join().unwrap());
}

#[test]
fn a_slow_reader_that_never_stops_gets_everything() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = launch(to);
        let sessions: Vec<_> = (0..4)
            .map(|_| peers::session(&balancer, &backend))
            .collect();
        thread::scope(|scope| {
            for (number, (client, backend)) in sessions.into_iter().enumerate() {
                scope.spawn(move || match number % 2 {
                    0 => trickle(client, backend, number < 2),
                    _ => trickle(backend, client, number < 2),
                });
            }
        });
        balancer.finish();
    });
}

/// The other direction has ended already.
#[test]
fn a_slow_reader_of_a_half_closed_session_gets_everything() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = launch(to);
        let (client, accepted) = peers::session(&balancer, &backend);
        client.shutdown(Shutdown::Write).unwrap();
        peers::expect_end(&mut &accepted);
        trickle(accepted, client, true);
        balancer.finish();
    });
}

#[test]
fn a_reader_that_stopped_is_cut() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = launch(to);
        for number in 0..2 {
            let (client, backend) = peers::session(&balancer, &backend);
            let [mut near, mut far] = match number {
                0 => [client, backend],
                _ => [backend, client],
            };
            near.set_nonblocking(true).unwrap();
            let mut sent = Bytes::new(2);
            sent.send_until_stuck(&mut near);
            let began = Instant::now();
            // Half a second, four times as long for a peer that has bytes to read.
            peers::expect_broken(&near);
            assert!(began.elapsed() < patient(Duration::from_secs(6)));
            Bytes::new(2).expect_to_reset(&mut far);
        }
        assert_eq!(balancer.number("closed.idle_timeout"), 2);
        balancer.finish();
    });
}

#[test]
fn a_peer_that_reads_acknowledges() {
    let pairs: [[std::os::fd::OwnedFd; 2]; 2] = [
        {
            let (listener, to) = peers::listen();
            let near = TcpStream::connect(to).unwrap();
            [near.into(), listener.accept().unwrap().0.into()]
        },
        {
            let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            [near.into(), far.into()]
        },
    ];
    for [near, far] in pairs {
        let mut near = TcpStream::from(near);
        let mut far = TcpStream::from(far);
        near.set_nonblocking(true).unwrap();
        Bytes::new(3).send_until_stuck(&mut near);
        let socket = Socket::from_raw(near.as_fd().as_raw_fd());
        let stuck = sys::unsent(&socket);
        assert!(stuck > 0);
        far.set_nonblocking(true).unwrap();
        let mut chunk = vec![0; 64 * 1024];
        while far.read(&mut chunk).is_ok_and(|read| read > 0) {}
        assert!(sys::unsent(&socket) < stuck);
    }
}
