//! Large streams: promoted to splice, demoted to copying, promoted again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::peers::{self, expect_end};
use crate::watchdog::heavy;

const MB: u64 = 1_000_000;

/// This much each way at once, with each byte compared.
fn stream(client: &TcpStream, backend: &TcpStream, bytes: u64, streams: &mut [Bytes; 4]) {
    let [up_out, up_in, down_out, down_in] = streams;
    thread::scope(|scope| {
        scope.spawn(|| up_out.send(&mut &*client, bytes));
        scope.spawn(|| down_out.send(&mut &*backend, bytes));
        scope.spawn(|| down_in.expect(&mut &*client, bytes));
        up_in.expect(&mut &*backend, bytes);
    });
}

fn ping_pong(client: &TcpStream, backend: &TcpStream, streams: &mut [Bytes; 4]) {
    let [up_out, up_in, down_out, down_in] = streams;
    let (mut client, mut backend) = (client, backend);
    for _ in 0..200 {
        up_out.send(&mut client, 40);
        up_in.expect(&mut backend, 40);
        down_out.send(&mut backend, 400);
        down_in.expect(&mut client, 400);
    }
}

fn bytes() -> [Bytes; 4] {
    [1, 1, 2, 2].map(Bytes::new)
}

#[test]
fn there_and_back_200_mb_each_way_at_once() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (client, backend) = peers::session(&balancer, &backend);
        let mut streams = bytes();
        ping_pong(&client, &backend, &mut streams);
        assert_eq!(balancer.pipes_made(), 0, "small messages are copied");
        stream(&client, &backend, 200 * MB, &mut streams);
        assert!(balancer.pipes_made() > 0, "a stream is spliced");
        ping_pong(&client, &backend, &mut streams);
        stream(&client, &backend, 40 * MB, &mut streams);
        ping_pong(&client, &backend, &mut streams);
        drop(client);
        expect_end(&mut &backend);
        drop(backend);
        balancer.finish();
    });
}

/// Each stream gets pipes that others had before, on two workers.
#[test]
fn twenty_streams_at_once_share_the_pipes() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).workers(2).start();
        for _ in 0..2 {
            let pairs: Vec<_> = (0..20)
                .map(|_| peers::session(&balancer, &backend))
                .collect();
            thread::scope(|scope| {
                for (client, backend) in &pairs {
                    scope.spawn(|| stream(client, backend, 4 * MB, &mut bytes()));
                }
            });
        }
        balancer.finish();
    });
}

/// Chunks of every size, so that the mode changes at every kind of moment.
#[test]
fn uneven_chunks_with_pauses() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (mut client, mut backend) = peers::session(&balancer, &backend);
        let chunks: Vec<u64> = (0..400u64)
            .map(|n| match n % 8 {
                0 => 1,
                1 => 16_384,
                2 => 16_383,
                3 => 65_536 * (n % 5 + 1),
                4 => 7,
                5 => 1_000_000,
                6 => 16_385 * (n % 7 + 1),
                _ => 300 + n,
            })
            .collect();
        let total: u64 = chunks.iter().sum();
        let sender = thread::spawn(move || {
            let mut sent = Bytes::new(9);
            for (n, chunk) in chunks.into_iter().enumerate() {
                sent.send(&mut client, chunk);
                client.flush().unwrap();
                if n % 16 == 0 {
                    thread::sleep(std::time::Duration::from_millis(3));
                }
            }
            client
        });
        Bytes::new(9).expect(&mut backend, total);
        let client = sender.join().unwrap();
        drop(client);
        assert_eq!(backend.read(&mut [0; 1]).unwrap(), 0);
        drop(backend);
        balancer.finish();
    });
}
