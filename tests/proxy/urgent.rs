//! Urgent data: like nginx and HAProxy the balancer drops the urgent byte itself, and relays all
//! others.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::first_bytes::hashed;
use crate::fleet::Fleet;
use crate::peers::{self, expect_end};
use crate::watchdog::heavy;

fn urgent(stream: &TcpStream) {
    assert_eq!(SockRef::from(stream).send_out_of_band(b"!").unwrap(), 1);
}

/// Each role sends once.
fn both_ways(test: fn(TcpStream, TcpStream)) {
    heavy(move || {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (client, accepted) = peers::session(&balancer, &backend);
        test(client, accepted);
        let (client, accepted) = peers::session(&balancer, &backend);
        test(accepted, client);
        balancer.process.expect_cpu_below(0.10);
        balancer.finish();
    });
}

/// splice(2) stops at the mark, and returns 0 there once the end has come too.
#[test]
fn a_spliced_stream_goes_on_behind_urgent_data_and_its_end() {
    both_ways(|mut near, mut far| {
        SockRef::from(&near).set_send_buffer_size(4 << 20).unwrap();
        let sender = thread::spawn(move || {
            let mut sent = Bytes::new(1);
            sent.send(&mut near, 6 << 20);
            urgent(&near);
            sent.send(&mut near, 200_000);
            near.shutdown(Shutdown::Write).unwrap();
            near
        });
        let mut received = Bytes::new(1);
        received.expect(&mut far, 1 << 20);
        thread::sleep(Duration::from_millis(300));
        received.expect_to_end(&mut far);
        assert_eq!(received.count, (6 << 20) + 200_000);
        drop(far);
        expect_end(&mut sender.join().unwrap());
    });
}

#[test]
fn a_spliced_stream_with_many_marks_stays_whole() {
    both_ways(|mut near, mut far| {
        let (mut sent, mut received) = (Bytes::new(2), Bytes::new(2));
        for round in 0..40 {
            // The kernel keeps one mark: after a second one the first one's byte is an ordinary
            // byte.
            sent.send(&mut near, 300_000);
            urgent(&near);
            sent.send(&mut near, round * 1_000);
            received.expect(&mut far, sent.count - received.count);
        }
        drop(near);
        expect_end(&mut far);
    });
}

#[test]
fn copied_bytes_around_urgent_data_arrive() {
    both_ways(|mut near, mut far| {
        for (step, message) in [&b"first"[..], b"second", b"third"].into_iter().enumerate() {
            urgent(&near);
            if step > 0 {
                thread::sleep(Duration::from_millis(50));
            }
            near.write_all(message).unwrap();
            let mut received = vec![0; message.len()];
            far.read_exact(&mut received).unwrap();
            assert_eq!(received, message);
        }
        urgent(&near);
        near.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut far);
    });
}

#[test]
fn first_bytes_with_urgent_data_among_them_select_a_backend() {
    heavy(|| {
        let fleet = Fleet::of(2);
        let balancer = hashed(&fleet, "http_path").start();
        for at in [0, 9, 20] {
            let request = b"GET /item HTTP/1.1\r\nHost: h\r\n\r\n";
            let mut client = balancer.connect();
            client.write_all(&request[..at]).unwrap();
            urgent(&client);
            client.write_all(&request[at..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer.ends_with(request), "{answer:?}");
        }
        assert_eq!(balancer.number("peek_misses"), 0);
        balancer.finish();
    });
}
