//! The balancer relays the end of one direction after its last byte, and leaves the other direction
//! open. Every test plays both roles: the client is `near` once and the backend is once.

use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::peers::{self, expect_end};
use crate::watchdog::{eventually, heavy, watched};

fn both_ways(test: impl Fn(TcpStream, TcpStream) + Send + 'static) {
    heavy(move || {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (client, accepted) = peers::session(&balancer, &backend);
        test(client, accepted);
        let (client, accepted) = peers::session(&balancer, &backend);
        test(accepted, client);
        balancer.assert_rest();
        let reasons = ["closed.client_closed", "closed.backend_closed"];
        let counts = reasons.map(|reason| balancer.number(reason));
        assert_eq!(counts.into_iter().sum::<u64>(), 2);
        balancer.finish();
    });
}

#[test]
fn the_other_direction_goes_on_for_50_mib() {
    both_ways(|mut near, mut far| {
        let mut question = Bytes::new(1);
        question.send(&mut near, 1_000);
        near.shutdown(Shutdown::Write).unwrap();
        let mut received = Bytes::new(1);
        received.expect_to_end(&mut far);
        assert_eq!(received.count, 1_000);

        let answer = thread::spawn(move || Bytes::new(2).send(&mut far, 50 << 20));
        let mut received = Bytes::new(2);
        received.expect_to_end(&mut near);
        assert_eq!(received.count, 50 << 20);
        answer.join().unwrap();
    });
}

/// The end overtakes no byte that waits in the balancer, spliced or copied.
#[test]
fn the_end_comes_after_the_last_byte() {
    both_ways(|mut near, mut far| {
        let sender = thread::spawn(move || {
            Bytes::new(3).send(&mut near, 20 << 20);
            near.shutdown(Shutdown::Write).unwrap();
            near
        });
        // All buffers on the way are full before the first byte is read.
        thread::sleep(Duration::from_millis(100));
        let mut received = Bytes::new(3);
        received.expect_to_end(&mut far);
        assert_eq!(received.count, 20 << 20);
        let mut near = sender.join().unwrap();
        Bytes::new(4).send(&mut far, 10);
        drop(far);
        Bytes::new(4).expect(&mut near, 10);
        expect_end(&mut near);
    });
}

#[test]
fn an_end_without_a_byte_is_relayed() {
    both_ways(|near, mut far| {
        near.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
        far.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut &near);
    });
}

#[test]
fn both_ends_at_once() {
    both_ways(|mut near, mut far| {
        let sends = |stream: &mut TcpStream, seed| {
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || {
                Bytes::new(seed).send(&mut stream, 3 << 20);
                stream.shutdown(Shutdown::Write).unwrap();
            })
        };
        let senders = [sends(&mut near, 5), sends(&mut far, 6)];
        let hears = |mut stream: TcpStream, seed| {
            thread::spawn(move || {
                let mut received = Bytes::new(seed);
                received.expect_to_end(&mut stream);
                assert_eq!(received.count, 3 << 20);
            })
        };
        let receivers = [hears(near, 6), hears(far, 5)];
        for thread in senders.into_iter().chain(receivers) {
            thread.join().unwrap();
        }
    });
}

/// The kernel tells the close of a Unix socket from the end of a stream.
#[test]
fn a_unix_client_that_has_closed_leaves_its_place_once_its_bytes_are_delivered() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let launch = Launch::between("unix:front.sock", &[to]);
        let front = launch.dir().join("front.sock");
        let balancer = launch.flag("--half-closed-timeout", "10m").start();
        for bytes in [0, 1_000, 20 << 20] {
            let mut client = UnixStream::connect(&front).unwrap();
            let (mut far, _) = backend.accept().unwrap();
            let sender = thread::spawn(move || Bytes::new(7).send(&mut client, bytes));
            let mut received = Bytes::new(7);
            received.expect_to_end(&mut far);
            assert_eq!(received.count, bytes);
            sender.join().unwrap();
            // The backend holds its end open.
            eventually("the session ends", || balancer.number("sessions") == 0);
        }
        assert_eq!(balancer.number("closed.client_closed"), 3);

        let mut client = UnixStream::connect(&front).unwrap();
        let (mut far, _) = backend.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
        // Longer than it takes to see that a client is gone.
        thread::sleep(Duration::from_millis(300));
        Bytes::new(8).send(&mut far, 1_000);
        drop(far);
        let mut received = Bytes::new(8);
        received.expect_to_end(&mut client);
        assert_eq!(received.count, 1_000);
        balancer.finish();
    });
}

/// What was sent on a Unix socket is with its peer: a close destroys none of it.
#[test]
fn a_unix_client_that_has_closed_does_not_wait_for_a_unix_backend_to_read() {
    watched(|| {
        let launch = Launch::between("unix:front.sock", &["unix:back.sock".to_owned()]);
        let [front, back] = ["front.sock", "back.sock"].map(|name| launch.dir().join(name));
        let backend = UnixListener::bind(back).unwrap();
        let balancer = launch.flag("--half-closed-timeout", "10m").start();
        let mut client = UnixStream::connect(&front).unwrap();
        Bytes::new(9).send(&mut client, 50_000);
        drop(client);
        eventually("the session ends", || {
            balancer.number("closed.client_closed") == 1
        });
        let (mut far, _) = backend.accept().unwrap();
        let mut received = Bytes::new(9);
        received.expect_to_end(&mut far);
        assert_eq!(received.count, 50_000);
        balancer.finish();
    });
}
