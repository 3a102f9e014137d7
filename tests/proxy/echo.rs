//! Bytes come back as they were sent, over every kind of address and in every order of sending.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::balancer::Launch;
use crate::bytes::Bytes;
use crate::peers::{self, Backend, expect_end, ping};
use crate::watchdog::watched;

fn echoes(workers: usize) {
    watched(move || {
        let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
        let addresses = backends.each_ref().map(|backend| backend.address.clone());
        let balancer = Launch::to(&addresses).workers(workers).start();
        let address = balancer.address();
        let clients: Vec<_> = (0..30)
            .map(|client| {
                thread::spawn(move || {
                    let mut stream = peers::connect(address);
                    for size in [1, 100, 16_384, 16_385, 200_000] {
                        ping(&mut stream, &vec![client; size]);
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        let accepted = backends.each_ref().map(Backend::accepted);
        assert_eq!(accepted.iter().sum::<usize>(), 30);
        if workers == 1 {
            assert_eq!(accepted, [10; 3], "in turn");
        }
        balancer.finish();
    });
}

#[test]
fn one_worker_echoes() {
    echoes(1);
}

#[test]
fn two_workers_echo() {
    echoes(2);
}

#[test]
fn single_bytes_arrive_one_by_one_in_both_directions() {
    watched(|| {
        let (backend, to) = peers::listen();
        let balancer = Launch::to(&[to]).start();
        let (client, backend) = peers::session(&balancer, &backend);
        thread::scope(|scope| {
            for (from, to, seed) in [(&client, &backend, 1), (&backend, &client, 2)] {
                let (mut from, mut to) = (from, to);
                scope.spawn(move || {
                    let mut bytes = Bytes::new(seed);
                    (0..5_000).for_each(|_| bytes.send(&mut from, 1));
                });
                scope.spawn(move || Bytes::new(seed).expect(&mut to, 5_000));
            }
        });
        // Each message is sent at once, though nothing follows it.
        let mut byte = [0];
        for value in 0..100 {
            (&client).write_all(&[value]).unwrap();
            (&backend).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [value]);
        }
        drop((client, backend));
        balancer.finish();
    });
}

#[test]
fn a_backend_may_speak_first() {
    watched(|| {
        let backend = Backend::tcp("127.0.0.1:0", |mut stream| {
            stream.write_all(b"220 hello\r\n").unwrap();
            peers::echo(stream);
        });
        let balancer = Launch::to(std::slice::from_ref(&backend.address)).start();
        let mut client = balancer.connect();
        let mut greeting = [0; 11];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"220 hello\r\n");
        ping(&mut client, b"EHLO\r\n");
        drop(client);
        balancer.finish();
    });
}

/// A refusal before the upload is over, as an HTTP server sends it: the server never reads the rest
/// of the request, so its close resets the connection.
#[test]
fn an_early_answer_reaches_the_client() {
    watched(|| {
        let backend = Backend::tcp("127.0.0.1:0", |mut stream| {
            stream.read_exact(&mut [0; 1_000]).unwrap();
            Bytes::new(7).send(&mut stream, ANSWER);
        });
        let balancer = Launch::to(std::slice::from_ref(&backend.address)).start();
        for _ in 0..50 {
            let client = balancer.connect();
            let mut uploads = client.try_clone().unwrap();
            let upload = thread::spawn(move || {
                // The client's writing ends by the reset, or when everything fits in the buffers on
                // the way.
                let chunk = [0; 64 * 1024];
                while uploads.write_all(&chunk).is_ok() {}
            });
            Bytes::new(7).expect(&mut &client, ANSWER);
            peers::reset(client);
            upload.join().unwrap();
        }
        balancer.finish();
    });
}

#[test]
fn ipv6_at_both_ends() {
    watched(|| {
        let backend = Backend::tcp("[::1]:0", peers::echo);
        let balancer = Launch::between("[::1]:0", std::slice::from_ref(&backend.address)).start();
        let mut client = balancer.connect();
        assert!(client.peer_addr().unwrap().is_ipv6());
        ping(&mut client, &[6; 100_000]);
        drop(client);
        balancer.finish();
    });
}

#[test]
fn unix_sockets_at_both_ends() {
    watched(|| {
        let launch = Launch::between("unix:front.sock", &["unix:back.sock".to_owned()]);
        let backend = Backend::unix_echo(&launch.dir().join("back.sock"));
        let balancer = launch.workers(2).start();
        let front = balancer.dir().join("front.sock");
        let clients: Vec<_> = (0..20)
            .map(|client| {
                let front = front.clone();
                thread::spawn(move || {
                    let mut stream = UnixStream::connect(front).unwrap();
                    ping(&mut stream, &[client; 16]);
                    ping(&mut stream, &vec![client; 100_000]);
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    expect_end(&mut stream);
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        assert_eq!(backend.accepted(), 20);
        balancer.assert_rest();
        assert!(front.exists());
        balancer.finish();
        assert!(
            !front.exists(),
            "the socket file is removed with the listener"
        );
    });
}

const ANSWER: u64 = 50_000;
