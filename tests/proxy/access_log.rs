//! Each session writes one line, and never waits for the log.

use std::collections::HashMap;
use std::fs;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::api::look;
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, expect_end, expect_reset, expect_turned_away, ping};
use crate::watchdog::{eventually, heavy, watched};

const FIELDS: [&str; 16] = [
    "time",
    "session",
    "listener",
    "client",
    "backend",
    "pool",
    "strategy",
    "attempts",
    "queued_us",
    "connect_us",
    "first_byte_us",
    "total_us",
    "bytes_up",
    "bytes_down",
    "worker",
    "reason",
];

/// The values of a line of `key=value` pairs, whose keys are in the order of [`FIELDS`].
pub(crate) fn key_values(line: &str) -> HashMap<String, String> {
    let pairs = line.split(' ').map(|pair| pair.split_once('=').unwrap());
    let pairs: Vec<_> = pairs.collect();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, FIELDS, "{line}");
    let owned = pairs.into_iter();
    owned.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn logged(launch: Launch) -> Balancer {
    launch.flag("--access-log", "-").start()
}

#[test]
fn key_values_tell_of_a_whole_session() {
    watched(|| {
        let backend = Backend::tcp("127.0.0.1:0", |mut stream| {
            ping_back(&mut stream);
            std::io::Write::write_all(&mut stream, &[0; 500]).unwrap();
            // The client ends first.
            assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
        });
        let balancer = logged(Launch::to(std::slice::from_ref(&backend.address)));
        let mut client = balancer.connect();
        let address = client.local_addr().unwrap().to_string();
        std::io::Write::write_all(&mut client, &[1; 100]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut client, &mut answer).unwrap();
        assert_eq!(answer.len(), 600);
        let lines = balancer.output().lines(1);
        let line = key_values(&lines[0]);
        let number = |key: &str| line[key].parse::<u64>().unwrap();
        humantime::parse_rfc3339(&line["time"]).unwrap();
        assert_eq!(line["session"], "0-1");
        assert_eq!(line["client"], address);
        assert_eq!(line["backend"], backend.address);
        assert_eq!(line["strategy"], "round_robin");
        assert_eq!(line["reason"], "client_closed");
        assert_eq!(["attempts", "worker"].map(number), [1, 0]);
        assert_eq!(["bytes_up", "bytes_down"].map(number), [100, 600]);
        assert!(number("connect_us") <= number("first_byte_us"));
        assert!(number("first_byte_us") <= number("total_us"));
        balancer.finish();
    });
}

/// Sends the first 100 bytes back.
fn ping_back(stream: &mut TcpStream) {
    let mut question = [0; 100];
    std::io::Read::read_exact(stream, &mut question).unwrap();
    std::io::Write::write_all(stream, &question).unwrap();
}

#[test]
fn json_lines_say_the_same_in_their_way() {
    watched(|| {
        let backend = Backend::echo();
        let to = [backend.address.clone(), peers::refusing_address()];
        let launch = Launch::to(&to).flag("--log-format", "json").workers(2);
        let balancer = logged(launch);
        for size in 1..=10 {
            ping(&mut balancer.connect(), &vec![0; size]);
        }
        let lines = balancer.output().lines(10);
        assert_eq!(lines.len(), 10);
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for line in &lines {
            let fields = line.as_object().unwrap();
            assert_eq!(fields.len(), FIELDS.len());
            assert!(FIELDS.iter().all(|field| fields.contains_key(*field)));
            assert_eq!(line["backend"], backend.address.as_str());
            assert_eq!(line["reason"], "client_closed");
            assert!((1..=2).contains(&line["attempts"].as_u64().unwrap()));
            assert!(line["connect_us"].is_u64());
        }
        for field in ["bytes_up", "bytes_down"] {
            let bytes = lines.iter().map(|line| line[field].as_u64().unwrap());
            assert_eq!(bytes.sum::<u64>(), 55, "{field}");
        }
        balancer.finish();
    });
}

#[test]
fn each_end_has_its_reason() {
    watched(|| {
        let (backend, to) = peers::listen();
        let balancer = logged(Launch::to(&[to]));
        let reason = |nth: usize| {
            let lines = balancer.output().lines(nth);
            key_values(&lines[nth - 1])["reason"].clone()
        };
        let (client, mut accepted) = peers::session(&balancer, &backend);
        peers::reset(client);
        expect_reset(&mut accepted);
        assert_eq!(reason(1), "client_reset");

        let (mut client, accepted) = peers::session(&balancer, &backend);
        peers::reset(accepted);
        expect_reset(&mut client);
        assert_eq!(reason(2), "backend_reset");

        for (nth, want) in [(3, "client_closed"), (4, "backend_closed")] {
            let (client, accepted) = peers::session(&balancer, &backend);
            let (first, mut second) = match want {
                "client_closed" => (client, accepted),
                _ => (accepted, client),
            };
            first.shutdown(Shutdown::Write).unwrap();
            expect_end(&mut second);
            second.shutdown(Shutdown::Write).unwrap();
            assert_eq!(reason(nth), want);
        }

        drop(backend);
        expect_turned_away(balancer.address());
        assert_eq!(reason(5), "connect_failed");
        let lines = balancer.output().lines(5);
        let failed = key_values(&lines[4]);
        assert_eq!(failed["attempts"], "3");
        assert_eq!(
            ["connect_us", "first_byte_us"].map(|k| &*failed[k]),
            ["-"; 2]
        );
        balancer.finish();
    });
}

#[test]
fn a_client_of_ipv4_has_its_ipv4_address_on_a_listener_of_both() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::between("[::]:0", std::slice::from_ref(&backend.address));
        let balancer = logged(launch.flag("--admin", "mahoraga.sock"));
        let port = balancer.address().port();
        for loopback in ["127.0.0.1", "[::1]"] {
            let mut client = TcpStream::connect(format!("{loopback}:{port}")).unwrap();
            ping(&mut client, b"hello");
            let address = client.local_addr().unwrap().to_string();
            let sessions = look(&balancer, "/v1/sessions");
            assert_eq!(sessions[0]["client"], address.as_str());
            client.shutdown(Shutdown::Write).unwrap();
            expect_end(&mut client);
            let logged = |line: &String| key_values(line)["client"] == address;
            eventually("its line", || {
                balancer.output().lines_with("").iter().any(logged)
            });
        }
        balancer.finish();
    });
}

#[test]
fn a_file_is_appended_to_and_no_line_is_written_unasked() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let path = launch.dir().join("access.log");
        fs::write(&path, "a line of before\n").unwrap();
        let balancer = launch.flag("--access-log", "access.log").start();
        for _ in 0..50 {
            ping(&mut balancer.connect(), b"hello");
        }
        eventually("50 lines more", || {
            fs::read_to_string(&path).unwrap().lines().count() == 51
        });
        let log = fs::read_to_string(&path).unwrap();
        assert!(log.starts_with("a line of before\n"));
        log.lines().skip(1).map(key_values).for_each(drop);
        assert_eq!(balancer.output().all(), "");
        balancer.finish();
    });
}

/// The log has no reader: first the pipe fills, then the queue. Over Unix sockets, as that many
/// sessions would use up the ports.
#[test]
fn a_full_log_delays_no_session() {
    heavy(|| {
        let launch = Launch::between("unix:front.sock", &["unix:back.sock".to_owned()]);
        let backend = Backend::unix_echo(&launch.dir().join("back.sock"));
        let balancer = logged(launch.with_unread_output());
        let front = balancer.dir().join("front.sock");
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let front = front.clone();
                thread::spawn(move || {
                    for _ in 0..SESSIONS / CLIENTS {
                        let mut stream = UnixStream::connect(&front).unwrap();
                        ping(&mut stream, b"hello");
                        stream.shutdown(Shutdown::Write).unwrap();
                        expect_end(&mut stream);
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        assert_eq!(backend.accepted(), SESSIONS);
        assert!(balancer.number("log_dropped") > 0, "it is counted");
        balancer.finish();
    });
}

/// More lines than the queue's 16,384, the writer and the pipe hold together.
const SESSIONS: usize = 18_000;
const CLIENTS: usize = 8;
