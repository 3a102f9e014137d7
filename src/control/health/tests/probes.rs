//! Single probes, without TLS.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use crate::config::{Expect, HttpProbe, ProxyHeader};
use crate::time::SECOND;

use super::servers::{drain, full};
use super::*;
use crate::origin::Origins;

pub(super) fn probe(to: SocketAddr, check: &Check) -> ProbeOutcome {
    probe_at(&Address::Tcp(to), check)
}

fn probe_at(to: &Address, check: &Check) -> ProbeOutcome {
    let backend = Backend::at(to.clone());
    let header = Pool::of("p", Vec::new()).probe_header(&backend, check);
    let prober = Prober::new(
        to,
        Origins::default(),
        &Rc::new(Spec::new(&in_force(check))),
    );
    let prober = prober.with_header(header);
    tokio_uring::start(async move { prober.probe().await })
}

/// The check of a pool that speaks no TLS.
pub(super) fn in_force(check: &Check) -> CheckInForce {
    let pool = pool("p", check, Vec::new());
    pool.check_in_force().expect("it has a check")
}

/// The error of a probe; empty when it passed.
pub(super) fn failure_text(to: SocketAddr, check: &Check) -> String {
    let failure = probe(to, check).failure;
    failure.map_or_else(String::new, |failure| failure.to_string())
}

fn expecting(send: &[u8], expect: Expect) -> Check {
    let send = send.to_vec();
    Check {
        probe: Probe::SendExpect { send, expect },
        ..quick()
    }
}

fn bytes(expected: &[u8]) -> Check {
    expecting(b"PING\r\n", Expect::Bytes(expected.to_vec()))
}

pub(super) fn http() -> Check {
    Check {
        probe: Probe::Http(HttpProbe {
            path: "/healthz".to_owned(),
            status: 200..=299,
            ..HttpProbe::default()
        }),
        ..quick()
    }
}

#[test]
fn tcp_needs_a_connection() {
    let server = Server::silent();
    assert_eq!(failure_text(server.address, &quick()), "");
    assert_eq!(failure_text(refusing(), &quick()), "connection refused");
    let full = full();
    assert_eq!(
        failure_text(full.address, &quick()),
        "no connection within 1s"
    );
}

#[test]
fn a_probe_says_when_it_was_and_how_long_it_took() {
    let before = sys::monotonic();
    let outcome = probe(full().address, &quick());
    assert!(outcome.at >= before, "{outcome:?}");
    assert!(outcome.took >= SECOND, "{outcome:?}");
}

#[test]
fn a_tcp_probe_is_no_connection_to_the_program_behind() {
    let (tell, reported) = mpsc::channel();
    let server = Server::of(move |mut stream| {
        // If accept returns a probe's connection at all, it is reset already.
        let read = stream.read(&mut [0; 1]);
        tell.send(read.map_err(|error| error.kind()))
            .expect("the test waits");
    });
    for _ in 0..10 {
        assert_eq!(failure_text(server.address, &quick()), "");
    }
    drop(server);
    let seen: Vec<_> = reported.iter().collect();
    let reset = Err(std::io::ErrorKind::ConnectionReset);
    assert!(seen.iter().all(|read| *read == reset), "{seen:?}");
    // A few, if this thread was off its CPU for so long that the kernel acknowledged.
    assert!(seen.len() < 5, "{seen:?}");
}

#[test]
fn send_expect_finds_what_it_looks_for() {
    let redis = Server::answering(b"+PONG\r\n");
    assert_eq!(failure_text(redis.address, &bytes(b"PONG")), "");
    assert_eq!(failure_text(redis.address, &bytes(b"")), "");
    let pattern = |pattern: &str| expecting(b"x", Expect::Regex(pattern.to_owned()));
    assert_eq!(failure_text(redis.address, &pattern(r"^\+PONG\r\n$")), "");
    let late = failure_text(redis.address, &pattern("LOADING"));
    let unmet = r#"answered "+PONG\r\n", expected a match of `LOADING` within 1s"#;
    assert_eq!(late, unmet);
    let bad = failure_text(redis.address, &pattern("("));
    assert!(bad.starts_with("invalid regular expression `(`"), "{bad}");
}

#[test]
fn a_server_that_closes_is_distinguished_from_a_silent_one() {
    let silent = Server::silent();
    assert_eq!(
        failure_text(silent.address, &bytes(b"x")),
        "no answer within 1s"
    );
    let mute = Server::of(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
    });
    let closed = "it closed the connection without an answer";
    assert_eq!(failure_text(mute.address, &bytes(b"x")), closed);
    let other = Server::of(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"-LOADING\r\n");
    });
    let unexpected = r#"answered "-LOADING\r\n", expected "PONG""#;
    assert_eq!(failure_text(other.address, &bytes(b"PONG")), unexpected);
}

#[test]
fn a_server_that_resets_says_so() {
    let server = Server::of(|stream| {
        let socket = socket2::Socket::from(stream);
        socket.set_linger(Some(Duration::ZERO)).expect("it can");
    });
    let check = expecting(b"", Expect::Bytes(b"x".to_vec()));
    assert_eq!(
        failure_text(server.address, &check),
        "connection reset by peer"
    );
}

#[test]
fn a_long_answer_is_looked_at_to_its_sixteenth_kilobyte() {
    let server = Server::of(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(&vec![b'x'; (16 << 10) - 4]);
        let _ = stream.write_all(b"PONGPANG");
        drain(&mut stream);
    });
    assert_eq!(failure_text(server.address, &bytes(b"PONG")), "");
    let beyond = failure_text(server.address, &bytes(b"PANG"));
    assert!(beyond.starts_with("answered \"xxxx"), "{beyond}");
    assert!(beyond.ends_with("...\", expected \"PANG\""), "{beyond}");
    let endless = Server::of(|mut stream| while stream.write_all(&[b'y'; 65_536]).is_ok() {});
    let beyond = failure_text(endless.address, &bytes(b"PONG"));
    assert!(beyond.starts_with("answered \"yyyy"), "{beyond}");
}

#[test]
fn a_dripping_server_is_heard_to_its_end() {
    let server = Server::of(|mut stream| {
        let _ = stream.set_nodelay(true);
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
            let _ = stream.write_all(&[*byte]);
            thread_yield();
        }
        drain(&mut stream);
    });
    let patient = Check {
        timeout: Duration::from_secs(20),
        ..http()
    };
    assert_eq!(failure_text(server.address, &patient), "");
}

fn thread_yield() {
    std::thread::park_timeout(Duration::from_millis(2));
}

#[test]
fn http_asks_and_looks_at_the_status() {
    let (tell, reported) = mpsc::channel();
    let server = Server::of(move |mut stream| {
        let mut request = [0; 4_096];
        let length = stream.read(&mut request).expect("a request");
        tell.send(request[..length].to_vec())
            .expect("the test waits");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    assert_eq!(failure_text(server.address, &http()), "");
    let asked = String::from_utf8(reported.recv().expect("a request")).expect("ASCII");
    let wanted = format!(
        "GET /healthz HTTP/1.1\r\nHost: {}\r\nUser-Agent: mahoraga\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        server.address
    );
    assert_eq!(asked, wanted);
}

#[test]
fn http_says_what_is_wrong() {
    let said_of = |answer| failure_text(Server::answering(answer).address, &http());
    let wrong = "answered status 503, expected status 200-299";
    assert_eq!(said_of(b"HTTP/1.1 503 Busy\r\n\r\n"), wrong);
    let wrong = r#"answered "220 mail\r\n", expected status 200-299"#;
    assert_eq!(said_of(b"220 mail\r\n"), wrong);
    let endless = Server::of(|mut stream| {
        let _ = stream.read(&mut [0; 4_096]);
        let _ = stream.write_all(b"HTTP/1.1 103 Early Hints\r\n");
        while stream.write_all(b"Link: </style.css>\r\n").is_ok() {}
    });
    let said = failure_text(endless.address, &http());
    assert!(said.starts_with("answered \"HTTP/1.1 103"), "{said}");
}

#[test]
fn a_proxy_header_comes_first() {
    for (header, wanted) in [
        (ProxyHeader::V1, &b"PROXY UNKNOWN\r\nPING\r\n"[..]),
        (ProxyHeader::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING\r\n"),
    ] {
        let server = Server::of(|mut stream| {
            let mut seen = vec![0; 22];
            let _ = stream.read_exact(&mut seen[..21]);
            // The second is a byte longer.
            if seen[0] == b'\r' {
                let _ = stream.read_exact(&mut seen[21..]);
            }
            let _ = stream.write_all(&seen);
            drain(&mut stream);
        });
        let check = Check {
            proxy_header: header,
            ..bytes(wanted)
        };
        assert_eq!(failure_text(server.address, &check), "", "{header:?}");
    }
}

#[test]
fn unix_sockets_are_probed_too() {
    let name = format!("mahoraga-probe-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let to = Address::Unix(path.clone());
    let why = |check: &Check| {
        let failure = probe_at(&to, check).failure;
        failure.map_or_else(String::new, |failure| failure.to_string())
    };
    assert_eq!(why(&quick()), "there is no such socket");
    let listener = UnixListener::bind(&path).expect("it listens");
    assert_eq!(why(&quick()), "");
    assert_eq!(why(&http()), "no answer within 1s");
    let server = std::thread::spawn(move || {
        // The two before wait in the backlog, closed.
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().expect("a connection");
            let length = stream.read(&mut [0; 4_096]).unwrap_or(0);
            if length > 0 {
                let _ = stream.write_all(b"HTTP/1.1 204\r\n\r\n");
            }
        }
    });
    assert_eq!(why(&http()), "");
    server.join().expect("it served");
    assert_eq!(why(&quick()), "connection refused");
    std::fs::remove_file(&path).expect("it was there");
}

#[test]
fn a_host_is_named_as_configured_or_by_the_address() {
    let zone: SocketAddr = "[fe80::1%7]:80".parse().expect("an address");
    let cases = [
        (Address::Tcp(zone), None, "Host: [fe80::1]:80\r\n"),
        (Address::Unix("/run/x".into()), None, "Host: localhost\r\n"),
        (
            Address::Tcp(zone),
            Some("example.com"),
            "Host: example.com\r\n",
        ),
    ];
    for (to, wanted, field) in cases {
        let mut check = http();
        if let Probe::Http(request) = &mut check.probe {
            request.host = wanted.map(str::to_owned);
        }
        let request = request_of(&to, &check);
        assert!(request.contains(field), "{request}");
    }
    let to = "127.0.0.1:8008".parse().unwrap();
    let prober = Prober::new(
        &to,
        Origins::default(),
        &Rc::new(Spec::new(&in_force(&http()))),
    );
    let prober = prober.with_host(Some("db-1.test"));
    let request = String::from_utf8_lossy(prober.request());
    assert!(
        request.contains("\r\nHost: db-1.test:8008\r\n"),
        "{request}"
    );
}

fn request_of(to: &Address, check: &Check) -> String {
    let prober = Prober::new(
        to,
        Origins::default(),
        &Rc::new(Spec::new(&in_force(check))),
    );
    String::from_utf8(prober.request().to_vec()).expect("ASCII")
}
