//! Limits of new connections: of each source, of a listener and of all.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, expect_end, listen, refusing_address, reset, try_connect_from, visit};
use crate::watchdog::{eventually, watched};

/// A client of this machine: there are millions.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7F08_0000 + number)
}

fn visits(from: Ipv4Addr, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| visit(from, to)).collect()
}

/// A listener on any port with these settings, and these of the whole file.
fn file(backend: &str, listener: &str, global: &str) -> String {
    format!(
        "(workers: 2, access_log: \"-\", {global}
        listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\", {listener})],
        pools: [(name: \"p\", backends: [\"{backend}\"])])"
    )
}

fn start(backend: &str, listener: &str, global: &str) -> Balancer {
    let text = file(backend, listener, global);
    Launch::with_config(&text, 1).workers(2).start()
}

/// Whole seconds since then, and the one that has begun.
fn seconds(began: Instant) -> usize {
    usize::try_from(began.elapsed().as_secs()).unwrap() + 1
}

/// All workers route by the new file when this returns.
fn reload(balancer: &Balancer, text: &str) {
    fs::write(balancer.dir().join("config.ron"), text).unwrap();
    assert!(balancer.words(&["reload"]).contains("is in force"));
    balancer.until_adopted();
}

#[test]
fn a_source_has_its_connections_over_all_workers_and_no_more() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let launch = launch.flag("--source-connections", "100").workers(2);
        let balancer = launch.flag("--access-log", "-").start();
        let to = balancer.address();
        let mut held = visits(client(1), to, 150);
        assert_eq!(held.len(), 100);
        assert!(visit(client(2), to).is_some(), "another source");
        assert_eq!(balancer.number("closed.source_connections"), 50);
        assert_eq!(backend.accepted(), 101);
        let line = "reason=source_connections";
        eventually("each has a line", || balancer.output().count(line) == 50);
        // Each place that comes free is one.
        held.truncate(97);
        eventually("three places are free", || {
            held.extend(visit(client(1), to));
            held.len() == 100
        });
        assert!(visit(client(1), to).is_none());
        drop(held);
        balancer.finish();
    });
}

#[test]
fn a_burst_is_exact_over_all_workers() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend.address, "source_limits: (rate: 1, burst: 50)", "");
        let began = Instant::now();
        let served = visits(client(1), balancer.address(), 200).len();
        let since = seconds(began);
        assert!((50..=50 + since).contains(&served), "{served}");
        assert_eq!(balancer.number("closed.source_rate"), 200 - served as u64);
        balancer.finish();
    });
}

#[test]
fn thousands_of_sources_have_their_limits_each() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend.address, "source_limits: (connections: 1)", "");
        let to = balancer.address();
        for number in 0..2_000 {
            let held = visit(client(number), to);
            assert!(held.is_some() && visit(client(number), to).is_none());
        }
        // Those that have left make room for others.
        let sources = &balancer.ask(&["status"])["sources"];
        assert!((1..=2_000).contains(&sources["known"].as_u64().unwrap()));
        assert_eq!(sources["overflowed"], 0);
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(listener["refused"], 2_000);
        assert_eq!(listener["refused_by"]["source_connections"], 2_000);
        assert!(balancer.words(&["status"]).contains("\nsources      "));
        balancer.finish();
    });
}

#[test]
fn a_network_is_a_source() {
    watched(|| {
        let backend = Backend::echo();
        let limits = "source_limits: (connections: 1, prefix_v4: 24)";
        let balancer = start(&backend.address, limits, "");
        let to = balancer.address();
        let held = visit(client(1), to);
        assert!(held.is_some() && visit(client(2), to).is_none());
        assert!(visit(client(0x100), to).is_some());
        drop(held);
        balancer.finish();
    });
}

#[test]
fn a_listener_and_all_have_rates() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend.address, "rate_limit: (rate: 1, burst: 5)", "");
        let served = || {
            let began = Instant::now();
            let served = (0..50).filter_map(|number| visit(client(number), balancer.address()));
            (served.count(), seconds(began))
        };
        let (count, since) = served();
        assert!((5..=5 + since).contains(&count), "{count}");
        let refused = balancer.number("closed.listener_rate");
        assert_eq!(refused, 50 - count as u64);
        let global = "rate_limit: (rate: 1, burst: 7),";
        reload(&balancer, &file(&backend.address, "", global));
        let (count, since) = served();
        assert!((7..=7 + since).contains(&count), "{count}");
        assert_eq!(balancer.number("closed.global_rate"), 50 - count as u64);
        reload(&balancer, &file(&backend.address, "", ""));
        assert_eq!(served().0, 50);
        balancer.finish();
    });
}

#[test]
fn a_reload_changes_limits_and_keeps_counts() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend.address, "source_limits: (connections: 2)", "");
        let to = balancer.address();
        let mut held = visits(client(1), to, 3);
        assert_eq!(held.len(), 2);
        let wider = "source_limits: (connections: 4)";
        reload(&balancer, &file(&backend.address, wider, ""));
        held.extend(visits(client(1), to, 5));
        assert_eq!(held.len(), 4);
        let narrower = "source_limits: (connections: 1)";
        reload(&balancer, &file(&backend.address, narrower, ""));
        assert!(visit(client(1), to).is_none());
        held.clear();
        eventually("all have left", || visit(client(1), to).is_some());
        reload(&balancer, &file(&backend.address, "", ""));
        assert_eq!(visits(client(1), to, 5).len(), 5);
        balancer.finish();
    });
}

#[test]
fn a_place_is_free_again_however_its_session_ends() {
    watched(|| {
        let (backend, address) = listen();
        let balancer = start(&address, "source_limits: (connections: 1)", "");
        let to = balancer.address();
        let connected = || {
            let mut both = None;
            eventually("the place is free again", || {
                let Ok(client) = try_connect_from(client(1), to) else {
                    return false;
                };
                client.set_nonblocking(true).unwrap();
                backend.set_nonblocking(true).unwrap();
                both = loop {
                    if let Ok((server, _)) = backend.accept() {
                        break Some((client, server));
                    }
                    let peeked = client.peek(&mut [0]);
                    if peeked.is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
                        break None;
                    }
                    std::thread::yield_now();
                };
                both.is_some()
            });
            both.unwrap()
        };
        let (client, _server) = connected();
        reset(client);
        let (_client, server) = connected();
        reset(server);
        let (client, server) = connected();
        drop((client, server));
        let (client, _server) = connected();
        balancer.words(&["sessions", "--kill", "--listener", "front"]);
        drop(client);
        let (mut client, server) = connected();
        client.set_nonblocking(false).unwrap();
        drop(server);
        expect_end(&mut client);
        drop(client);
        drop(connected());
        balancer.finish();
    });
}

#[test]
fn a_place_is_free_again_after_connects_that_are_refused() {
    watched(|| {
        let balancer = start(&refusing_address(), "source_limits: (connections: 1)", "");
        for number in 1..=5 {
            eventually("it is free", || {
                assert!(visit(client(1), balancer.address()).is_none());
                balancer.number("closed.connect_failed") >= number
            });
        }
        balancer.finish();
    });
}

#[test]
fn a_dry_run_lets_all_in_and_tells_whom_it_would_refuse() {
    watched(|| {
        let backend = Backend::echo();
        let limits = "source_limits: (connections: 2, dry_run: true)";
        let balancer = start(&backend.address, limits, "");
        let events = balancer.follow();
        let held = visits(client(1), balancer.address(), 5);
        assert_eq!(held.len(), 5);
        let event = events.next("limit_exceeded");
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with("listener `front`: "), "{message}");
        let words = "would be refused (dry_run) by source_connections";
        assert!(message.contains(words), "{message}");
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(listener["dry_run"]["source_connections"], 3);
        assert_eq!(listener["refused"], 0);
        drop(held);
        let line = "dry_run=source_connections";
        eventually("they have lines", || balancer.output().count(line) == 3);
        assert_eq!(balancer.output().count("client=127.8.0.1:"), 5);
        drop(events);
        balancer.finish();
    });
}

#[test]
fn limits_change_by_command_and_hold_over_a_reload() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend.address, "", "");
        let to = balancer.address();
        let held = visits(client(1), to, 5);
        let set = |flags: &[&str]| {
            let set = ["set", "listener", "front"];
            balancer.words(&[&set, flags].concat());
            balancer.until_adopted();
        };
        set(&[
            "--source-limits",
            "(connections: 3)",
            "--ban",
            "(after: 2, for: \"1h\")",
        ]);
        // Those from before are not counted.
        let more = visits(client(1), to, 4);
        assert_eq!((held.len(), more.len()), (5, 3));
        let text = file(&backend.address, "", "bans: (max: 9),");
        reload(&balancer, &text);
        assert!(visit(client(1), to).is_none());
        eventually("two offences ban", || {
            balancer.ask(&["bans", "--by", "rule"])[0]["prefix"] == "127.8.0.1"
        });
        let (code, why) = balancer.refusal(&["set", "listener", "front", "--source-limits", "()"]);
        assert!(
            code == Some(1) && why.contains("expected `connections`"),
            "{why}"
        );
        let config = balancer.words(&["config", "show"]);
        assert!(
            config.contains("source_limits: (connections: 3)"),
            "{config}"
        );
        set(&["--source-limits", "off", "--ban", "off"]);
        balancer.words(&["unban", "127.8.0.1"]);
        assert_eq!(visits(client(1), to, 9).len(), 9);
        drop((held, more));
        balancer.finish();
    });
}
