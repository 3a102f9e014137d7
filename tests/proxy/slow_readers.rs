//! A session with a slow reader goes on, however short the deadline; one whose reader stops is
//! closed.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use mahoraga::kernel::Socket;
use mahoraga::sys;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::peers;
use crate::watchdog::{patient, time, within};

/// More than all buffers between the ends hold.
const BYTES: u64 = 12 << 20;
const RATE: u64 = 10_000;

fn launch(from: &str, to: &str) -> Launch {
    Launch::between(from, &[to.to_owned()])
        .flag("--idle-timeout", &time(1_000))
        .flag("--half-closed-timeout", &time(1_000))
}

/// Reads at [`RATE`] for 25 s, then all the rest. On loopback the reader acknowledges 64 KiB at a
/// time and more: every 11 s. A poll for room waits for a third of the send buffer, which takes
/// minutes.
fn trickle(near: TcpStream, mut far: TcpStream, half_closed: bool) {
    let sender = thread::spawn(move || {
        let mut near = near;
        near.set_write_timeout(None).unwrap();
        Bytes::new(1).send(&mut near, BYTES);
        if half_closed {
            near.shutdown(Shutdown::Write).unwrap();
        }
        near
    });
    let mut received = Bytes::new(1);
    let until = Instant::now() + Duration::from_secs(25);
    while Instant::now() < until {
        received.expect(&mut far, RATE / 10);
        thread::sleep(Duration::from_millis(100));
    }
    received.expect(&mut far, BYTES - received.count);
    drop(sender.join().unwrap());
}

/// Either direction, with the other open, ended after the last byte, or ended before the first.
fn trickle_all(mut session: impl FnMut() -> [TcpStream; 2]) {
    thread::scope(|scope| {
        for number in 0..6 {
            let [client, backend] = session();
            let (near, far) = match number % 2 {
                0 => (client, backend),
                _ => (backend, client),
            };
            if number >= 4 {
                far.shutdown(Shutdown::Write).unwrap();
                peers::expect_end(&mut &near);
            }
            scope.spawn(move || trickle(near, far, number >= 2));
        }
    });
}

#[test]
fn a_slow_reader_that_never_stops_gets_everything() {
    within(Duration::from_secs(180), || {
        let (backend, to) = peers::listen();
        let balancer = launch("127.0.0.1:0", &to).start();
        trickle_all(|| peers::session(&balancer, &backend).into());
        balancer.finish();
    });
}

#[test]
fn a_slow_reader_of_a_unix_socket_gets_everything() {
    within(Duration::from_secs(180), || {
        let launch = launch("unix:front.sock", "unix:back.sock");
        let [front, back] = ["front.sock", "back.sock"].map(|name| launch.dir().join(name));
        let backend = UnixListener::bind(back).unwrap();
        let balancer = launch.start();
        trickle_all(|| {
            let client = UnixStream::connect(&front).unwrap();
            let accepted = backend.accept().unwrap().0;
            [client, accepted].map(|end| {
                let end = TcpStream::from(OwnedFd::from(end));
                peers::limit_waits(&end);
                end
            })
        });
        balancer.finish();
    });
}

#[test]
fn a_reader_that_stopped_is_cut() {
    within(Duration::from_secs(180), || {
        let (backend, to) = peers::listen();
        let balancer = launch("127.0.0.1:0", &to).start();
        let [up, down] = [0, 1].map(|number| {
            let (client, backend) = peers::session(&balancer, &backend);
            let [mut near, far] = match number {
                0 => [client, backend],
                _ => [backend, client],
            };
            near.set_nonblocking(true).unwrap();
            Bytes::new(2).send_until_stuck(&mut near);
            [near, far]
        });
        // A second, and half a minute more for a peer that has bytes to read.
        let deadline = Instant::now() + patient(Duration::from_secs(60));
        while balancer.number("closed.idle_timeout") < 2 {
            assert!(Instant::now() < deadline, "they are not cut");
            thread::sleep(Duration::from_millis(50));
        }
        for [near, mut far] in [up, down] {
            peers::expect_broken(&near);
            Bytes::new(2).expect_to_reset(&mut far);
        }
        balancer.finish();
    });
}

#[test]
fn a_peer_that_reads_acknowledges() {
    let pairs: [[OwnedFd; 2]; 2] = [
        {
            let (listener, to) = peers::listen();
            let near = TcpStream::connect(to).unwrap();
            [near.into(), listener.accept().unwrap().0.into()]
        },
        {
            let (near, far) = UnixStream::pair().unwrap();
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
