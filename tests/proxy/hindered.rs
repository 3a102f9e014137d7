//! Whatever hangs, floods or is large does not hinder the control thread: meanwhile `/healthz`
//! answers each time, afterwards a good file is read, and SIGTERM ends the process.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::access_lists::{MANY, many};
use crate::api::{ask, look};
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, ping};
use crate::watchdog::{heavy, patient, watched};

/// A FIFO with a reader that never reads.
fn unread(path: &Path) -> File {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.unwrap()
}

/// Asks `/healthz` again and again while something hinders the balancer.
fn expect_unhindered(mut balancer: Balancer, hinder: impl FnOnce(&Balancer) + Send) {
    thread::scope(|scope| {
        let hindrance = scope.spawn(|| hinder(&balancer));
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        while asked < 20 || !hindrance.is_finished() {
            let began = Instant::now();
            let stage = &look(&balancer, "/healthz")["stage"];
            slowest = slowest.max(began.elapsed());
            asked += 1;
            assert!(stage == "ready" || stage == "starting", "{stage}");
            thread::sleep(Duration::from_millis(5));
        }
        println!("the slowest of {asked} answers took {slowest:?}");
        assert!(slowest < patient(SLOWEST), "an answer took {slowest:?}");
    });
    let backend = Backend::echo();
    let config = balancer.dir().join("config.ron");
    // It may be a FIFO.
    fs::remove_file(&config).unwrap();
    let good = format!(
        "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"default\")], \
         pools: [(name: \"default\", backends: [\"{}\"])])",
        backend.address
    );
    fs::write(&config, good).unwrap();
    assert!(balancer.words(&["reload"]).contains("is in force"));
    ping(&mut balancer.connect(), b"hello");
    balancer.process.signal(libc::SIGTERM);
    assert_eq!(balancer.wait().code(), Some(0));
}

#[test]
fn by_an_access_log_that_nothing_reads() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let launch = Launch::with_pool(&pool).settings("access_log: (to: \"log\")");
        let unread = unread(&launch.dir().join("log"));
        expect_unhindered(launch.start(), |balancer| {
            // More lines than fit into the FIFO.
            for _ in 0..600 {
                ping(&mut balancer.connect(), b"hello");
            }
        });
        drop(unread);
    });
}

#[test]
fn by_a_log_that_nothing_reads() {
    watched(|| {
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]");
        expect_unhindered(launch.start(), |balancer| {
            let _unread = balancer.log().unread();
            // More lines than fit into the pipe.
            for n in 0..500 {
                let body = format!("{{\"weight\": {}}}", 2 + n % 2);
                let path = "/v1/pools/default/backends/127.0.0.1:1";
                let (code, answer) = ask(balancer, "PATCH", path, &body);
                assert_eq!(code, 200, "{answer}");
            }
        });
    });
}

#[test]
fn by_an_access_list_of_many_prefixes() {
    watched(|| {
        let settings = "access_lists: [(name: \"a\", file: \"prefixes\", others: \"allow\")]";
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]").settings(settings);
        let path = launch.dir().join("prefixes");
        fs::write(&path, "").unwrap();
        expect_unhindered(launch.start(), |balancer| {
            fs::write(&path, many()).unwrap();
            balancer.until_logged(&format!("access list file prefixes: {MANY} prefixes"));
            for last in 1..30 {
                balancer.words(&["deny", &format!("192.0.2.{last}")]);
            }
        });
    });
}

#[test]
fn by_a_configuration_that_is_a_fifo() {
    watched(|| {
        let launch = Launch::with_pool("backends: [\"127.0.0.1:1\"]");
        let balancer = launch.start();
        let config = balancer.dir().join("config.ron");
        fs::remove_file(&config).unwrap();
        let unread = unread(&config);
        expect_unhindered(balancer, |balancer| {
            balancer.process.signal(libc::SIGHUP);
            balancer.until_logged("this is a FIFO: expected a regular file");
        });
        drop(unread);
    });
}

/// A list of backends on one port.
fn list(count: usize) -> String {
    let lines = (0..count).map(|n| format!("127.0.{}.{}:9\n", n / 250, n % 250 + 1));
    lines.collect()
}

#[test]
fn by_60_000_lines_of_backends() {
    heavy(|| {
        let launch = Launch::with_pool("discover: (file: \"list\"), backends: []");
        fs::write(launch.dir().join("list"), list(1)).unwrap();
        expect_unhindered(launch.start(), |balancer| {
            fs::write(balancer.dir().join("list"), list(60_000)).unwrap();
            balancer.until_logged("59000 backends left out");
        });
    });
}

#[test]
fn by_1_000_changes_of_discovered_backends() {
    heavy(|| {
        let launch = Launch::with_pool("discover: (file: \"list\"), backends: []");
        fs::write(launch.dir().join("list"), list(600)).unwrap();
        let balancer = launch.start();
        balancer.until_logged("600 backends: each joins its pool");
        expect_unhindered(balancer, |balancer| {
            for n in 0..1_000 {
                let path = format!(
                    "/v1/pools/default/backends/127.0.{}.{}:9",
                    n % 600 / 250,
                    n % 600 % 250 + 1
                );
                let body = format!("{{\"weight\": {}}}", 2 + n / 600);
                let (code, answer) = ask(balancer, "PATCH", &path, &body);
                assert_eq!(code, 200, "{answer}");
            }
        });
    });
}

/// The start goes on without the names, and serves clients by the backend that has an address.
#[test]
fn by_a_name_server_that_never_answers() {
    watched(|| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let backend = Backend::echo();
        let pool = format!("backends: [\"db-1.test:5432\", \"{}\"]", backend.address);
        let settings = format!("resolvers: [\"{}\"]", server.local_addr().unwrap());
        let more = "(name: \"other\", discover: (dns: \"web.test\", port: 80), backends: [])";
        let launch = Launch::with_pool(&pool).settings(&settings);
        expect_unhindered(launch.more_pools(more).start(), |balancer| {
            for _ in 0..3 {
                ping(&mut balancer.connect(), b"hello");
            }
            let backend = balancer.backend("db-1.test:5432");
            assert_eq!(backend["health"], "unresolved");
        });
    });
}

/// Each piece of a body wakes the control thread.
#[test]
fn by_bodies_in_pieces_of_one_byte() {
    for request in ["PATCH /v1/pools/default", "GET /healthz"] {
        watched(move || {
            let balancer = Launch::with_pool("backends: [\"127.0.0.1:1\"]").start();
            expect_unhindered(balancer, |balancer| {
                let answered = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| send_pieces(balancer, request, &answered));
                    for _ in 0..20 {
                        look(balancer, "/healthz");
                    }
                    answered.store(true, Ordering::Relaxed);
                });
            });
        });
    }
}

/// Sends bodies on 20 connections until others were answered, or were not for too long. Connects
/// again when one ends.
fn send_pieces(balancer: &Balancer, request: &str, answered: &AtomicBool) {
    let socket = balancer.dir().join("mahoraga.sock");
    let head = format!("{request} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let begin = || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, 0)
    };
    let mut clients: Vec<_> = (0..20).map(|_| begin()).collect();
    let pieces = "1\r\n \r\n".repeat(500);
    let end = Instant::now() + 2 * patient(SLOWEST);
    while !answered.load(Ordering::Relaxed) && Instant::now() < end {
        for client in &mut clients {
            let (stream, sent) = client;
            match stream.write(&pieces.as_bytes()[*sent..]) {
                Ok(count) => *sent = (*sent + count) % pieces.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *client = begin(),
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Far above what an answer takes on a busy machine, and far below a control thread that stands
/// still.
const SLOWEST: Duration = Duration::from_secs(5);
