//! `/metrics`: figures of a load, as other programs read them.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use socket2::SockAddr;

use crate::api::look;
use crate::balancer::{Balancer, Launch};
use crate::moved::note_figures;
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, patience, watched};

/// What a scraper gets that takes this format.
pub(crate) fn scrape(balancer: &Balancer, accept: &str) -> String {
    let mut stream = UnixStream::connect(balancer.dir().join("mahoraga.sock")).unwrap();
    stream.set_read_timeout(Some(patience())).unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    note_figures(body);
    body.to_owned()
}

/// The sum of all values of a name.
pub(crate) fn sum(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with(['{', ' ']);
        is_it.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    });
    format!("{:.0}", values.sum::<f64>()).parse().unwrap()
}

#[test]
fn figures_are_those_of_the_load() {
    watched(|| {
        let backend = Backend::echo();
        let file = format!(
            "(workers: 1, admin: (socket: \"mahoraga.sock\"),\n\
             listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\",\n\
             access_list: \"no\", max_connections: 100)],\n\
             access_lists: [(name: \"no\", deny: [\"127.0.0.9\"])],\n\
             pools: [(name: \"p\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&file, 1).start();
        let mut open: Vec<_> = (0..5).map(|_| balancer.connect()).collect();
        open.iter_mut().for_each(|client| ping(client, b"figures"));
        open.drain(..2).for_each(drop);
        let refused = peers::visit([127, 0, 0, 9].into(), balancer.address());
        assert!(refused.is_none());
        eventually("sessions end", || balancer.number("sessions") == 3);
        eventually("bytes are counted", || {
            let text = scrape(&balancer, "application/openmetrics-text");
            sum(&text, "mahoraga_listener_traffic_bytes_total") == 5 * 2 * 7
        });
        let text = scrape(&balancer, "application/openmetrics-text");
        for (name, right) in [
            ("mahoraga_connections", 3),
            ("mahoraga_listener_connections", 3),
            ("mahoraga_listener_connections_max", 100),
            ("mahoraga_listener_refused_total", 1),
            ("mahoraga_backend_connections", 3),
            ("mahoraga_backend_answered_total", 5),
            ("mahoraga_worker_sessions", 3),
            ("mahoraga_worker_accepted_total", 6),
            ("mahoraga_worker_closed_total", 3),
            ("mahoraga_worker_connect_seconds_count", 5),
            ("mahoraga_pool_traffic_bytes_total", 70),
            ("mahoraga_listener_sessions_total", 5),
            ("mahoraga_worker_queue_seconds_count", 0),
            ("mahoraga_worker_retries_total", 0),
        ] {
            assert_eq!(sum(&text, name), right, "{name}\n{text}");
        }
        expect_times(&text, [5, 5, 2, 0]);
        // An accept, a receive and a send of each side, and a connect.
        for (name, least) in [
            ("mahoraga_worker_enters_total", 5),
            ("mahoraga_worker_submissions_total", 5 * 5),
            ("mahoraga_worker_completions_total", 5 * 6),
            ("mahoraga_worker_other_calls_total", 5 * 3),
            ("mahoraga_worker_turn_seconds_count", 5),
            ("mahoraga_tcp_segments_total", 5 * 2 * 5),
        ] {
            assert!(sum(&text, name) >= least, "{name}\n{text}");
        }
        let state = "mahoraga_backend_state_seconds_total{pool=\"p\"";
        let of_state = text.lines().filter(|line| line.starts_with(state));
        let of_state: Vec<_> = of_state.collect();
        assert!(
            of_state.len() == 1 && of_state[0].contains("state=\"up\""),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
        let p99 = &look(&balancer, "/v1/pools")[0]["backends"][0]["first_byte_p99_ms"];
        assert!(p99.as_f64().is_some_and(|ms| ms > 0.0), "{p99}");
        let accepted = look(&balancer, "/v1/status")["accepted"].clone();
        assert_eq!(accepted, 6);
        check_by_promtool(&scrape(&balancer, "*/*"));
        drop(open);
        balancer.finish();
    });
}

/// So many clients were connected, got a first byte, ended, and waited in a queue.
#[track_caller]
fn expect_times(text: &str, counts: [u64; 4]) {
    let kinds = ["connect", "first_byte", "session", "queue"];
    for (kind, right) in kinds.into_iter().zip(counts) {
        let all = ["listener", "pool", "backend"];
        // No client queues for one backend.
        for of in all
            .into_iter()
            .filter(|of| (*of, kind) != ("backend", "queue"))
        {
            let name = format!("mahoraga_{of}_{kind}_seconds_count");
            assert_eq!(sum(text, &name), right, "{name}\n{text}");
        }
    }
    assert_eq!(sum(text, "mahoraga_listener_closed_total"), counts[2]);
}

#[test]
fn a_listener_of_its_own_has_the_figures_and_follows_its_token() {
    watched(|| {
        let backend = Backend::echo();
        let pool = format!("backends: [\"{}\"]", backend.address);
        let metrics = "metrics: (bind: \"0.0.0.0:0\", allow: [\"127.0.0.1\"], \
                       read_token: \"./token\")";
        let launch = Launch::with_pool(&pool).settings(metrics);
        let path = launch.dir().join("token");
        let write = |token: &str| {
            fs::write(&path, token).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        write("a-token-of-this-test");
        let balancer = launch.start();
        let lines = balancer.log().lines_with("metrics on http://");
        let (_, address) = lines[0].split_once("http://").unwrap();
        let port = address.trim_end_matches("/metrics").rsplit(':').next();
        let port: u16 = port.unwrap().parse().unwrap();
        ping(&mut balancer.connect(), b"figures");
        let ask = |from: [u8; 4], path: &str, token: &str| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            let of = |ip: [u8; 4], port| SockAddr::from(SocketAddr::from((ip, port)));
            socket.bind(&of(from, 0)).unwrap();
            socket.connect(&of([127, 0, 0, 1], port)).unwrap();
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: lb-1\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            );
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience())).unwrap();
            let mut answer = String::new();
            let sent = stream.write_all(request.as_bytes());
            let read = sent.and_then(|()| stream.read_to_string(&mut answer));
            read.map(|_| answer)
        };
        let here = [127, 0, 0, 1];
        let text = ask(here, "/metrics", "a-token-of-this-test").unwrap();
        assert_eq!(sum(&text, "mahoraga_worker_accepted_total"), 1, "{text}");
        let other = ask([127, 0, 0, 9], "/healthz", "").unwrap_err();
        assert_ne!(other.kind(), ErrorKind::WouldBlock);
        assert!(
            ask(here, "/readyz", "")
                .unwrap()
                .starts_with("HTTP/1.1 200")
        );
        let status = ask(here, "/v1/status", "a-token-of-this-test").unwrap();
        assert!(status.starts_with("HTTP/1.1 404"), "{status}");
        write("another-token-of-this-test");
        balancer.words(&["reload"]);
        let old = ask(here, "/metrics", "a-token-of-this-test").unwrap();
        assert!(old.starts_with("HTTP/1.1 401"), "{old}");
        let text = ask(here, "/metrics", "another-token-of-this-test").unwrap();
        assert_eq!(sum(&text, "mahoraga_scrapers_refused_total"), 1, "{text}");
        let silent = balancer.connect();
        eventually("a client waits for an answer", || {
            sum(&scrape(&balancer, "*/*"), "mahoraga_backend_waiting") == 1
        });
        drop(silent);
        balancer.finish();
    });
}

/// Prometheus' own tool finds nothing wrong. It comes with Debian's package `prometheus`.
fn check_by_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut promtool) = command.stdout(Stdio::piped()).spawn() else {
        println!("NOT CHECKED: /metrics by promtool (Debian: apt-get install prometheus)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}
