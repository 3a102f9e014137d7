//! Each session writes one line, and never waits for the log.

use std::collections::HashMap;
use std::fs;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::thread;
use std::time::Duration;

use crate::api::look;
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, expect_end, expect_reset, expect_turned_away, ping};
use crate::watchdog::{eventually, heavy, watched};

const FIELDS: [&str; 17] = [
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
    "attempts_list",
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
        let stood = format!("{}|connected|", backend.address);
        assert!(line["attempts_list"].starts_with(&stood), "{line:?}");
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
            let made = line["attempts_list"].as_array().unwrap();
            assert_eq!(Some(made.len() as u64), line["attempts"].as_u64());
            let (stood, failed) = made.split_last().unwrap();
            assert_eq!(stood["address"], backend.address.as_str());
            assert_eq!(stood["outcome"], "connected");
            for one in failed {
                assert_eq!(one["backend"], to[1].as_str());
                assert_eq!(one["outcome"], "ECONNREFUSED");
            }
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
        let each = failed["attempts_list"].split(',');
        let outcomes: Vec<_> = each.map(|one| one.split('|').nth(1)).collect();
        assert_eq!(outcomes, [Some("ECONNREFUSED"); 3]);
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

#[test]
fn errors_are_logged_with_the_chosen_fields_and_ordinary_sessions_are_not() {
    watched(|| {
        let (backend, to) = peers::listen();
        let pool = format!("backends: [\"{to}\"]");
        let log = "access_log: (to: \"-\", only: \"errors\", fields: [\"reason\", \"bytes_up\"])";
        let balancer = Launch::with_pool(&pool).settings(log).start();
        for _ in 0..3 {
            let (client, mut accepted) = peers::session(&balancer, &backend);
            client.shutdown(Shutdown::Write).unwrap();
            expect_end(&mut accepted);
        }
        let (client, mut accepted) = peers::session(&balancer, &backend);
        peers::reset(client);
        expect_reset(&mut accepted);
        // Both sides have ended before: a line of an ordinary session would stand above.
        let (mut client, accepted) = peers::session(&balancer, &backend);
        peers::reset(accepted);
        expect_reset(&mut client);
        let lines = balancer.output().lines(2);
        let reasons: Vec<_> = lines.iter().map(|line| line.split(' ').next()).collect();
        let want = ["reason=client_reset", "reason=backend_reset"];
        assert_eq!(reasons, want.map(Some));
        assert!(lines[0].contains(" bytes_up="), "{lines:?}");
        balancer.finish();
    });
}

#[test]
fn a_sample_of_ordinary_sessions_stands_for_all_of_them() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let log = "access_log: (to: \"-\", format: \"json\", sample: 4, \
                   fields: [\"session\", \"sample\"])";
        let balancer = Launch::with_pool(&pool).settings(log).start();
        for _ in 0..200 {
            ping(&mut balancer.connect(), b"hello");
        }
        eventually("all sessions have ended", || {
            balancer.number("closed.client_closed") == 200
        });
        // Whether a session has a line follows from its id, so that this number never differs.
        let lines = balancer.output().lines(SAMPLED);
        assert_eq!(lines.len(), SAMPLED);
        assert!(
            lines.iter().all(|line| line.ends_with(",\"sample\":4}")),
            "{lines:?}"
        );
        balancer.finish();
    });
}

/// Of the sessions 1 to 200 of worker 0, those that a sample of 4 takes.
const SAMPLED: usize = 45;

/// A log server of our own, on a socket in the balancer's directory.
fn log_server(launch: &Launch) -> UnixDatagram {
    let server = UnixDatagram::bind(launch.dir().join("log.sock")).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    server
}

/// The next line that it gets.
fn next_line(server: &UnixDatagram) -> String {
    let mut datagram = vec![0; 8192];
    let length = server.recv(&mut datagram).unwrap();
    datagram.truncate(length);
    String::from_utf8(datagram).unwrap()
}

#[test]
fn a_syslog_server_gets_a_datagram_for_each_line_and_may_come_and_go() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let log = "access_log: (to: \"syslog:log.sock\", format: \"json\", fields: [\"session\"])";
        let launch = Launch::with_pool(&pool).settings(log);
        let path = launch.dir().join("log.sock");
        let first = log_server(&launch);
        let balancer = launch.start();
        for session in 1..=3 {
            ping(&mut balancer.connect(), b"hello");
            let line = next_line(&first);
            let (head, text) = line.split_once(" - ").unwrap();
            let head: Vec<_> = head.split(' ').collect();
            assert_eq!(head[0], "<134>1", "{line}");
            humantime::parse_rfc3339(head[1]).unwrap();
            assert_eq!((head[3], head[5]), ("mahoraga", "session"), "{line}");
            assert_eq!(head[4].parse(), Ok(balancer.process.0));
            assert_eq!(text, format!("{{\"session\":\"0-{session}\"}}"));
        }
        drop(first);
        fs::remove_file(&path).unwrap();
        ping(&mut balancer.connect(), b"hello");
        eventually("the line is lost", || balancer.number("log_unwritten") == 1);
        let again = UnixDatagram::bind(&path).unwrap();
        again.set_nonblocking(true).unwrap();
        eventually("lines come again", || {
            ping(&mut balancer.connect(), b"hello");
            again.recv(&mut [0; 8192]).is_ok()
        });
        balancer.finish();
    });
}

#[test]
fn journald_gets_the_fields_of_a_session_each_by_its_name() {
    watched(|| {
        let (backend, to) = peers::listen();
        let pool = format!("backends: [\"{to}\"]");
        let log = "access_log: \"journald:log.sock\"";
        let launch = Launch::with_pool(&pool).settings(log);
        let server = log_server(&launch);
        let balancer = launch.start();
        let (client, mut accepted) = peers::session(&balancer, &backend);
        peers::reset(client);
        expect_reset(&mut accepted);
        let datagram = next_line(&server);
        let fields = datagram.lines().map(|line| line.split_once('=').unwrap());
        let fields: HashMap<_, _> = fields.collect();
        assert_eq!(key_values(fields["MESSAGE"])["reason"], "client_reset");
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "mahoraga");
        assert_eq!(fields["PRIORITY"], "5");
        assert_eq!(fields["MAHORAGA_REASON"], "client_reset");
        assert_eq!(fields["MAHORAGA_BACKEND"], to);
        assert!(!fields.contains_key("MAHORAGA_QUEUED_US"), "{datagram}");
        balancer.finish();
    });
}

#[test]
fn a_log_server_that_takes_nothing_stops_no_client() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let log = "access_log: \"syslog:log.sock\"";
        let launch = Launch::with_pool(&pool).settings(log);
        let server = log_server(&launch);
        let balancer = launch.start();
        // More than the queue of a socket holds (net.unix.max_dgram_qlen).
        let sessions = 1_000;
        for _ in 0..sessions {
            ping(&mut balancer.connect(), b"hello");
        }
        for _ in 0..sessions {
            next_line(&server);
        }
        assert_eq!(balancer.number("log_unwritten"), 0);
        balancer.finish();
    });
}

#[test]
fn a_line_has_the_status_of_the_answer_and_what_tcp_knows_where_it_is_asked_for() {
    watched(|| {
        let answers = [
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "220 smtp ready\r\n",
        ];
        let lines = answers.map(|answer| {
            let backend = Backend::tcp("127.0.0.1:0", move |mut stream| {
                std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
            });
            let pool = format!("backends: [\"{}\"]", backend.address);
            let log = "access_log: (to: \"-\", format: \"json\", fields: [\"status\", \
                       \"client_rtt_us\", \"client_retransmits\", \"client_lost\", \
                       \"backend_rtt_us\", \"backend_retransmits\", \"backend_lost\"])";
            let balancer = Launch::with_pool(&pool).settings(log).start();
            let mut client = balancer.connect();
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut client, &mut all).unwrap();
            assert_eq!(all, answer.as_bytes());
            drop(client);
            let line = balancer.output().lines(1).remove(0);
            balancer.finish();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        });
        assert_eq!(lines[0]["status"], 503);
        assert!(lines[1]["status"].is_null());
        for line in &lines {
            for side in ["client", "backend"] {
                assert!(
                    line[format!("{side}_rtt_us")].as_u64().unwrap() > 0,
                    "{line}"
                );
                assert!(line[format!("{side}_retransmits")].is_u64(), "{line}");
                assert!(line[format!("{side}_lost")].is_u64(), "{line}");
            }
        }
    });
}

#[test]
fn a_session_has_lines_while_it_goes_on_where_that_is_asked_for() {
    watched(|| {
        let (backend, to) = peers::listen();
        let pool = format!("backends: [\"{to}\"]");
        let log = "access_log: (to: \"-\", start: true, progress: \"1s\")";
        let balancer = Launch::with_pool(&pool).settings(log).start();
        let (client, mut accepted) = peers::session(&balancer, &backend);
        let lines = balancer.output().lines(2);
        client.shutdown(Shutdown::Write).unwrap();
        expect_end(&mut accepted);
        accepted.shutdown(Shutdown::Write).unwrap();
        // There may be more lines of its progress.
        eventually("the last line says why it ended", || {
            let all = balancer.output().all();
            let last = all.lines().last().unwrap_or_default();
            last.contains(" reason=client_closed ") && last.ends_with(" event=end")
        });
        for (line, event) in lines.iter().zip(["start", "progress"]) {
            assert!(line.contains(" session=0-1 "), "{line}");
            assert!(line.contains(" reason=- "), "{line}");
            assert!(line.ends_with(&format!(" event={event}")), "{line}");
        }
        balancer.finish();
    });
}
