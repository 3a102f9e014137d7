//! The bytes of paused readers stay at their source, not in the balancer's memory.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, heavy};

/// The reader is `far`, and pauses.
struct Stalled {
    near: TcpStream,
    far: TcpStream,
    sent: Bytes,
    heard: Bytes,
}

/// Sends on every session until nothing moves any more.
fn stall(pairs: Vec<(TcpStream, TcpStream)>) -> Vec<Stalled> {
    let stuck = |(seed, (mut near, far)): (usize, (TcpStream, TcpStream))| {
        thread::spawn(move || {
            near.set_nonblocking(true).unwrap();
            let (mut sent, heard) = (Bytes::new(seed), Bytes::new(seed));
            sent.send_until_stuck(&mut near);
            near.set_nonblocking(false).unwrap();
            Stalled {
                near,
                far,
                sent,
                heard,
            }
        })
    };
    let threads: Vec<_> = pairs.into_iter().enumerate().map(stuck).collect();
    let joined = threads.into_iter().map(|thread| thread.join().unwrap());
    joined.collect()
}

/// The readers go on: all bytes arrive, and the end after them.
fn resume(sessions: Vec<Stalled>) {
    thread::scope(|scope| {
        for mut session in sessions {
            scope.spawn(move || {
                let sent = session.sent.count;
                drop(session.near);
                session.heard.expect_to_end(&mut session.far);
                assert_eq!(session.heard.count, sent);
            });
        }
    });
}

/// Four buffers, the contents of a pipe that was given up (a busy machine had 12 buffers), and one
/// buffer of the other direction per stalled session. Twice as many may be in memory, with the free
/// ones that the pool keeps. Before Linux 6.17 a receive goes on until the socket is empty, and a
/// faster sender has filled it with up to 6 MiB (tcp(7), `tcp_rmem`): 162 buffers were seen.
fn assert_bounded(balancer: &Balancer, before: u64, sessions: u64) {
    let unbounded = balancer.log().count("a receive has no bound") > 0;
    let each = if unbounded { 400 } else { 24 };
    let grown = balancer.process.resident_bytes().saturating_sub(before);
    let bound = sessions * (2 * each * 16 * 1024) + (4 << 20);
    let buffers = balancer.number("buffers");
    assert!(buffers <= sessions * each, "{buffers} buffers hold bytes");
    assert!(grown <= bound, "{grown} bytes for {sessions} sessions");
    balancer.process.expect_cpu_below(0.10);
}

fn pauses(swap: fn((TcpStream, TcpStream)) -> (TcpStream, TcpStream)) {
    heavy(move || {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let before = balancer.process.resident_bytes();
        let pairs = (0..SESSIONS).map(|_| swap(peers::session(&balancer, &backend)));
        let stalled = stall(pairs.collect());
        assert_bounded(&balancer, before, SESSIONS);
        // Pipes go to streams that move; bytes of a stalled stream move from its pipe to buffers,
        // and arrive.
        eventually("pipes are given up", || balancer.number("pipes") == 0);
        assert_bounded(&balancer, before, SESSIONS);
        resume(stalled);
        balancer.finish();
    });
}

#[test]
fn clients_pause_while_the_backend_sends() {
    pauses(|(client, backend)| (backend, client));
}

#[test]
fn backends_pause_while_the_client_sends() {
    pauses(|pair| pair);
}

/// 192 buffers, and twice as many readers that stop: most sessions hold bytes that no reader takes,
/// and other clients are still served.
#[test]
fn beyond_its_memory_a_balancer_pauses_reading_and_serves_sessions_that_move() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let config = format!(
            "(workers: 1, memory: \"4MiB\",\n\
             listeners: [(bind: \"127.0.0.1:0\", pool: \"p\")],\n\
             pools: [(name: \"p\", backends: [\"{to}\"])])"
        );
        let balancer = Launch::with_config(&config, 1).start();
        let pairs = (0..BEYOND).map(|_| peers::session(&balancer, &backend));
        let stalled = stall(pairs.collect());
        // The number depends on how soon sessions pass on bytes without a buffer: 84 were seen.
        eventually("buffers hold bytes", || balancer.number("buffers") > 0);
        let buffers = balancer.number("buffers");
        assert!(buffers <= 192, "{buffers} buffers hold bytes");
        let (mut client, accepted) = peers::session(&balancer, &backend);
        let answers = thread::spawn(move || peers::echo(accepted));
        for round in 0..20 {
            ping(&mut client, &[round]);
            ping(&mut client, &vec![round; 300_000]);
        }
        drop(client);
        answers.join().unwrap();
        // Sessions that wait cost nothing.
        let in_vain = balancer.number("turns_in_vain");
        assert!(in_vain <= 40 * BEYOND, "{in_vain} turns in vain");
        balancer.process.expect_cpu_below(0.05);
        resume(stalled);
        balancer.finish();
    });
}

/// 384 buffers, most of which the first readers that stop use up. The next ones leave bytes in
/// pipes.
#[test]
fn readers_that_stop_hold_no_pipe_where_buffers_are_short() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let config = format!(
            "(workers: 1, memory: \"8MiB\",\n\
             listeners: [(bind: \"127.0.0.1:0\", pool: \"p\")],\n\
             pools: [(name: \"p\", backends: [\"{to}\"])])"
        );
        let balancer = Launch::with_config(&config, 1).start();
        let mut stalled = Vec::new();
        for readers in [80, 10, 10] {
            let pairs = (0..readers).map(|_| peers::session(&balancer, &backend));
            stalled.extend(stall(pairs.collect()));
            eventually("pipes are given up", || balancer.number("pipes") == 0);
            let buffers = balancer.number("buffers");
            assert!(buffers <= 384, "{buffers} buffers hold bytes");
        }
        resume(stalled);
        balancer.finish();
    });
}

/// More stalled streams than there are pipes: a stream that still moves is copied.
#[test]
fn two_hundred_stalled_readers_delay_no_other_client() {
    heavy(|| {
        let backend = Backend::tcp("127.0.0.1:0", |mut stream| {
            let mut kind = [0];
            std::io::Read::read_exact(&mut stream, &mut kind).unwrap();
            if kind == [b'e'] {
                return peers::echo(stream);
            }
            // Sends until the client closes.
            let chunk = vec![7; 64 * 1024];
            while std::io::Write::write_all(&mut stream, &chunk).is_ok() {}
        });
        let balancer = Launch::to(std::slice::from_ref(&backend.address)).start();
        let before = balancer.process.resident_bytes();
        let stalled: Vec<_> = (0..200)
            .map(|_| {
                let mut client = balancer.connect();
                // A small window stalls sooner.
                let socket = socket2::SockRef::from(&client);
                socket.set_recv_buffer_size(64 * 1024).unwrap();
                std::io::Write::write_all(&mut client, b"s").unwrap();
                client
            })
            .collect();
        for round in 0..20 {
            let mut client = balancer.connect();
            std::io::Write::write_all(&mut client, b"e").unwrap();
            ping(&mut client, &[round; 16]);
            ping(&mut client, &vec![round; 300_000]);
        }
        thread::sleep(Duration::from_millis(500));
        assert_bounded(&balancer, before, 200);
        drop(stalled);
        balancer.finish();
    });
}

/// A balancer that takes 80 MB of TCP for too much.
#[test]
fn readers_that_stop_are_closed_while_the_kernel_is_short_of_memory() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let launch = Launch::to(&[to]).variable("MAHORAGA_TEST_TCP_MEM", "20000 0 0 20000");
        let balancer = launch.start();
        let stalled = stall(
            (0..3)
                .map(|_| peers::session(&balancer, &backend))
                .collect(),
        );
        // It waits for nothing that its peers could take.
        let (mut client, accepted) = peers::session(&balancer, &backend);
        let answers = thread::spawn(move || peers::echo(accepted));
        eventually("the others are closed", || {
            ping(&mut client, &[1; 16]);
            balancer.number("closed.stalled") == 3
        });
        ping(&mut client, &vec![2; 300_000]);
        drop(client);
        answers.join().unwrap();
        assert_eq!(balancer.number("closed.client_closed"), 1);
        balancer.until_logged("sessions were closed in the last second whose peers take little");
        drop(stalled);
        balancer.finish();
    });
}

const SESSIONS: u64 = 64;
const BEYOND: u64 = 400;
