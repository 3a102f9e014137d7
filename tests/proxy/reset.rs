//! The balancer relays a reset as a reset: a truncated stream must not look whole. Every test plays
//! both roles: the client is `near` once, who resets, and the backend is once.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::peers::{self, expect_broken, expect_end, expect_reset, ping};
use crate::watchdog::watched;

fn both_ways(test: impl Fn(TcpStream, TcpStream) + Send + 'static) {
    watched(move || {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (client, accepted) = peers::session(&balancer, &backend);
        test(client, accepted);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.client_reset"), 1);
        let (client, accepted) = peers::session(&balancer, &backend);
        test(accepted, client);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.backend_reset"), 1);
        balancer.finish();
    });
}

fn say(mut near: &TcpStream, mut far: &TcpStream) {
    Bytes::new(1).send(&mut near, 100);
    Bytes::new(1).expect(&mut far, 100);
}

#[test]
fn after_some_bytes() {
    both_ways(|near, mut far| {
        say(&near, &far);
        say(&far, &near);
        peers::reset(near);
        expect_reset(&mut far);
    });
}

#[test]
fn before_any_byte() {
    both_ways(|near, mut far| {
        peers::reset(near);
        expect_reset(&mut far);
    });
}

#[test]
fn after_its_own_half_close() {
    both_ways(|near, mut far| {
        say(&near, &far);
        near.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
        // Long enough that the balancer may take the session for idle.
        thread::sleep(Duration::from_millis(100));
        peers::reset(near);
        // The end of the stream was read already; the connection still breaks.
        expect_broken(&far);
    });
}

#[test]
fn right_after_its_own_half_close() {
    both_ways(|near, mut far| {
        say(&near, &far);
        near.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
        peers::reset(near);
        expect_broken(&far);
    });
}

#[test]
fn after_the_other_sides_half_close() {
    both_ways(|mut near, mut far| {
        say(&near, &far);
        far.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut near);
        say(&near, &far);
        peers::reset(near);
        expect_reset(&mut far);
    });
}

#[test]
fn while_what_it_sent_is_stalled() {
    both_ways(|mut near, mut far| {
        near.set_nonblocking(true).unwrap();
        let mut sent = Bytes::new(2);
        sent.send_until_stuck(&mut near);
        peers::reset(near);
        expect_broken(&far);
        // Bytes that had arrived may be read, but the stream must not seem whole.
        let mut received = Bytes::new(2);
        let end = thread::spawn(move || {
            let mut chunk = Vec::new();
            let read = std::io::Read::read_to_end(&mut far, &mut chunk);
            (read, chunk)
        });
        let (read, chunk) = end.join().unwrap();
        received.expect(&mut chunk.as_slice(), chunk.len() as u64);
        // `expect_broken` may have read the error; the stream is short in any case.
        assert!(read.is_err() || received.count < sent.count);
    });
}

#[test]
fn while_what_it_should_read_is_stalled() {
    both_ways(|near, mut far| {
        far.set_nonblocking(true).unwrap();
        Bytes::new(3).send_until_stuck(&mut far);
        thread::sleep(Duration::from_millis(100));
        peers::reset(near);
        expect_broken(&far);
    });
}

#[test]
fn while_both_directions_are_stalled() {
    both_ways(|mut near, mut far| {
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        Bytes::new(4).send_until_stuck(&mut near);
        Bytes::new(5).send_until_stuck(&mut far);
        peers::reset(near);
        expect_broken(&far);
    });
}

#[test]
fn in_the_middle_of_a_stream() {
    both_ways(|mut near, mut far| {
        let sender = thread::spawn(move || {
            Bytes::new(6).send(&mut near, 10 << 20);
            near
        });
        let mut received = Bytes::new(6);
        received.expect(&mut far, 10 << 20);
        peers::reset(sender.join().unwrap());
        received.expect_to_reset(&mut far);
        assert_eq!(received.count, 10 << 20);
    });
}

/// The reset of one session does not affect its neighbours.
#[test]
fn others_go_on() {
    watched(|| {
        let backend = peers::Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address)).start();
        let mut clients: Vec<_> = (0..20).map(|_| balancer.connect()).collect();
        for client in &mut clients {
            ping(client, b"here");
        }
        let rest = clients.split_off(10);
        clients.into_iter().for_each(peers::reset);
        for mut client in rest {
            ping(&mut client, b"still here");
        }
        balancer.finish();
    });
}
