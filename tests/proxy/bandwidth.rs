//! Limits of bandwidth: never more than the limit, and all bytes arrive.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::peers::{self, expect_end, ping};
use crate::watchdog::{self, eventually, heavy, watched};

const MB: u64 = 1_000_000;

/// A listener and a backend with these settings.
fn file(listener: &str, to: &str, backend: &str) -> String {
    format!(
        "(workers: 2,
        listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\", {listener})],
        pools: [(name: \"p\", backends: [(address: \"{to}\", name: \"b\", {backend})])])"
    )
}

fn start(listener: &str, backend: &str) -> (TcpListener, Balancer) {
    let (sink, to) = peers::listen();
    let text = file(listener, &to, backend);
    let balancer = Launch::with_config(&text, 1).workers(2).start();
    (sink, balancer)
}

/// What a limit lets pass in a time: two bursts, what streams take at once, and the rate.
fn bound(rate: u64, streams: u64, time: Duration) -> u64 {
    let time = u64::try_from(time.as_micros()).unwrap();
    rate / 4 + streams * 64 * 1024 + rate * time / 1_000_000
}

/// Sends bytes from one end of each pair to the other, and compares them. However fast they come,
/// the limit of all pairs together holds at each moment.
fn stream(pairs: &[[&TcpStream; 2]], bytes: u64, rate: u64) {
    let began = Instant::now();
    let streams = pairs.len() as u64;
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        for [from, to] in pairs {
            scope.spawn(move || Bytes::new(1).send(&mut &**from, bytes));
            let taken = &taken;
            scope.spawn(move || {
                let mut expected = Bytes::new(1);
                let mut left = bytes;
                while left > 0 {
                    let piece = left.min(20_000);
                    expected.expect(&mut &**to, piece);
                    left -= piece;
                    let all = taken.fetch_add(piece, Ordering::Relaxed) + piece;
                    let most = bound(rate, streams, began.elapsed());
                    assert!(
                        all <= most,
                        "{all} of {most} bytes after {:?}",
                        began.elapsed()
                    );
                }
            });
        }
    });
}

/// Both ways at once, each with its own limit.
fn both_ways(sessions: &[(TcpStream, TcpStream)], bytes: [u64; 2], rates: [u64; 2]) {
    let up: Vec<_> = sessions
        .iter()
        .map(|(client, backend)| [client, backend])
        .collect();
    let down: Vec<_> = sessions
        .iter()
        .map(|(client, backend)| [backend, client])
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| stream(&up, bytes[0], rates[0]));
        stream(&down, bytes[1], rates[1]);
    });
}

#[test]
fn each_session_keeps_to_its_rate_when_copied() {
    watched(|| {
        let limit = "bandwidth: (session: (up: \"100kB/s\", down: \"200kB/s\"))";
        let (backend, balancer) = start(limit, "");
        let sessions = [peers::session(&balancer, &backend)];
        both_ways(&sessions, [150_000, 300_000], [100_000, 200_000]);
        assert_eq!(balancer.pipes_made(), 0, "as it is slow");
        assert!(balancer.number("bandwidth_rests") > 0);
        let paced = &balancer.ask(&["listeners"])[0]["paced"]["session"];
        for name in ["rests_up", "rests_down", "bytes_up", "bytes_down"] {
            assert!(paced[name].as_u64().unwrap() > 0, "{paced}");
        }
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn each_session_keeps_to_its_rate_when_spliced() {
    heavy(|| {
        let limit = "bandwidth: (session: (up: \"40MB/s\", down: \"30MB/s\"))";
        let (backend, balancer) = start(limit, "");
        let sessions = [peers::session(&balancer, &backend)];
        both_ways(&sessions, [30 * MB, 20 * MB], [40 * MB, 30 * MB]);
        assert!(balancer.pipes_made() > 0, "a stream is spliced");
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn sessions_of_a_listener_share_its_rate_over_workers() {
    heavy(|| {
        let limit = "bandwidth: (all: (up: \"2MB/s\", down: \"4MB/s\"))";
        let (backend, balancer) = start(limit, "");
        let sessions = [(); 4].map(|()| peers::session(&balancer, &backend));
        both_ways(&sessions, [MB / 2, MB], [2 * MB, 4 * MB]);
        let listener = &balancer.ask(&["listeners"])[0];
        assert!(listener["paced"]["all"]["rests_down"].as_u64().unwrap() > 0);
        assert!(listener["paced"].get("session").is_none());
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn sessions_of_all_listeners_share_the_rate_of_all() {
    heavy(|| {
        let (backend, to) = peers::listen();
        let text = format!(
            "(workers: 2, bandwidth: (up: \"4MB/s\", down: \"8MB/s\"),
            listeners: [(name: \"one\", bind: \"127.0.0.1:0\", pool: \"p\"),
            (name: \"other\", bind: \"127.0.0.1:0\", pool: \"p\")],
            pools: [(name: \"p\", backends: [\"{to}\"])])"
        );
        let balancer = Launch::with_config(&text, 2).workers(2).start();
        let sessions = [0, 1, 0, 1].map(|listener| {
            let client = peers::connect(balancer.address_of(listener));
            (client, backend.accept().unwrap().0)
        });
        both_ways(&sessions, [MB / 2, MB], [4 * MB, 8 * MB]);
        let paced = &balancer.ask(&["status"])["paced"];
        assert!(paced["rests_down"].as_u64().unwrap() > 0, "{paced}");
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn sessions_of_a_backend_share_its_rate() {
    heavy(|| {
        let limit = "bandwidth: (up: \"2MB/s\", down: \"4MB/s\")";
        let (backend, balancer) = start("", limit);
        let sessions = [(); 2].map(|()| peers::session(&balancer, &backend));
        both_ways(&sessions, [MB, 2 * MB], [2 * MB, 4 * MB]);
        let paced = &balancer.ask(&["backends"])[0]["paced"];
        assert!(paced["rests_down"].as_u64().unwrap() > 0, "{paced}");
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn a_reload_changes_the_rate_of_open_sessions() {
    watched(|| {
        let (backend, to) = peers::listen();
        let text = |limit: &str| file(limit, &to, "");
        let balancer = Launch::with_config(&text(""), 1).workers(2).start();
        let reload = |limit: &str| {
            fs::write(balancer.dir().join("config.ron"), text(limit)).unwrap();
            assert!(balancer.words(&["reload"]).contains("is in force"));
            balancer.until_adopted();
        };
        let (mut client, mut backend) = peers::session(&balancer, &backend);
        // It was opened without a limit.
        reload("bandwidth: (session: (up: \"20kB/s\"))");
        thread::scope(|scope| {
            scope.spawn(|| Bytes::new(1).send(&mut client, 10 * MB));
            eventually("it rests", || balancer.number("bandwidth_rests") > 0);
            // This would take minutes.
            reload("");
            Bytes::new(1).expect(&mut backend, 10 * MB);
        });
        drop(client);
        expect_end(&mut backend);
        drop(backend);
        balancer.finish();
    });
}

/// It rests for longer than its deadline.
#[test]
fn a_session_that_waits_for_its_rate_is_not_idle() {
    watched(|| {
        let idle = watchdog::time(200);
        let settings =
            format!("bandwidth: (session: (up: \"1KiB/s\")), timeouts: (idle: \"{idle}\")");
        let (backend, balancer) = start(&settings, "");
        let (client, mut backend) = peers::session(&balancer, &backend);
        Bytes::new(1).send(&mut &client, 3_000);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        Bytes::new(1).expect(&mut backend, 3_000);
        expect_end(&mut backend);
        drop((client, backend));
        balancer.finish();
    });
}

/// A session that sends little is served while another has used up what they share.
#[test]
fn small_messages_are_served_beside_a_stream() {
    watched(|| {
        let limit = "bandwidth: (all: (up: \"500kB/s\"))";
        let (backend, balancer) = start(limit, "");
        let (bulk, mut sink) = peers::session(&balancer, &backend);
        let (mut client, echo) = peers::session(&balancer, &backend);
        thread::scope(|scope| {
            scope.spawn(|| Bytes::new(1).send(&mut &bulk, 2 * MB));
            scope.spawn(|| Bytes::new(1).expect(&mut sink, 2 * MB));
            scope.spawn(move || peers::echo(echo));
            for _ in 0..50 {
                ping(&mut client, b"a small message");
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        });
        drop((bulk, sink, client));
        balancer.finish();
    });
}

/// Two sources have their limit each, over both workers and all their sessions.
#[test]
fn sessions_of_a_source_share_its_rate() {
    heavy(|| {
        let limit = "bandwidth: (source: (up: \"1MB/s\", down: \"2MB/s\"))";
        let (backend, balancer) = start(limit, "");
        let of = |source: u8| {
            let client = peers::connect_from(Ipv4Addr::new(127, 8, 0, source), balancer.address());
            let (backend, _) = backend.accept().unwrap();
            peers::limit_waits(&backend);
            (client, backend)
        };
        let [one, other] = [1, 2].map(|source| [(); 3].map(|()| of(source)));
        thread::scope(|scope| {
            for sessions in [&one, &other] {
                let each = [300_000, 600_000];
                scope.spawn(move || both_ways(sessions, each, [MB, 2 * MB]));
            }
        });
        let listener = &balancer.ask(&["listeners"])[0];
        let paced = &listener["paced"]["source"];
        assert!(paced["rests_down"].as_u64().unwrap() > 0, "{listener}");
        assert_eq!(balancer.ask(&["status"])["sources"]["known"], 2);
        drop((one, other));
        balancer.finish();
    });
}

/// With streams of two sources, and many sessions of one of them.
#[test]
fn a_session_gets_its_part_of_a_listener_beside_many() {
    heavy(|| {
        let limit = "bandwidth: (all: (down: \"1MB/s\"))";
        let (backend, balancer) = start(limit, "");
        let sessions = [(); 5].map(|()| peers::session(&balancer, &backend));
        let taken: Vec<_> = sessions.iter().map(|_| AtomicU64::new(0)).collect();
        thread::scope(|scope| {
            for ((client, backend), taken) in sessions.iter().zip(&taken) {
                scope.spawn(|| Bytes::new(1).send(&mut &*backend, 600_000));
                scope.spawn(|| {
                    let mut expected = Bytes::new(1);
                    for _ in 0..60 {
                        expected.expect(&mut &*client, 10_000);
                        taken.fetch_add(10_000, Ordering::Relaxed);
                    }
                });
            }
            let least = || {
                taken
                    .iter()
                    .map(|it| it.load(Ordering::Relaxed))
                    .min()
                    .unwrap()
            };
            let most = || {
                taken
                    .iter()
                    .map(|it| it.load(Ordering::Relaxed))
                    .max()
                    .unwrap()
            };
            // When the first has all of its bytes, the last has half of that at least.
            eventually("one is done", || most() == 600_000);
            assert!(least() >= 300_000, "{taken:?}");
        });
        drop(sessions);
        balancer.finish();
    });
}
