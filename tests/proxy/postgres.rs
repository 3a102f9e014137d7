//! PostgreSQL's requests before a session: for TLS, whose hello routes, and to cancel.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, echo, expect_end, expect_reset, ping};
use crate::routes::hello;
use crate::stage::source;
use crate::watchdog::{eventually, time, watched};

pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
pub(crate) const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// A server as PostgreSQL is one, up to the first query: then it echoes.
pub(crate) struct Postgres {
    pub(crate) backend: Backend,
    cancelled: Arc<Mutex<Vec<u32>>>,
}

impl Postgres {
    /// It answers requests for TLS so, and what follows `S` with its number.
    pub(crate) fn new(number: u8, answer: &'static [u8]) -> Self {
        let cancelled = Arc::<Mutex<Vec<_>>>::default();
        let (seen, sessions) = (Arc::clone(&cancelled), AtomicU32::new(0));
        let backend = Backend::tcp("127.0.0.1:0", move |mut stream| {
            loop {
                let mut head = [0; 8];
                if stream.read_exact(&mut head).is_err() {
                    return;
                }
                if head[0] == 22 {
                    // TLS without a request.
                    stream.write_all(&[number]).unwrap();
                    stream.write_all(&head).unwrap();
                    return echo(stream);
                }
                let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
                let (code, mut body) = (word(4), vec![0; word(0) as usize - 8]);
                stream.read_exact(&mut body).unwrap();
                match code & 0xffff {
                    5_679 => {
                        // Bytes that stand behind the request already are refused by servers.
                        stream.set_nonblocking(true).unwrap();
                        let early = stream.peek(&mut [0]).unwrap_err();
                        assert_eq!(early.kind(), ErrorKind::WouldBlock);
                        stream.set_nonblocking(false).unwrap();
                        if answer.is_empty() {
                            return;
                        }
                        stream.write_all(answer).unwrap();
                        if answer == b"S" {
                            let _ = stream.peek(&mut [0]);
                            let _ = stream.write_all(&[number]);
                            return echo(stream);
                        }
                    }
                    5_678 => {
                        let process = u32::from_be_bytes(body[..4].try_into().unwrap());
                        assert_eq!(body[4..], secret(process));
                        return seen.lock().push(process);
                    }
                    _ => {
                        let process =
                            1_000 * u32::from(number) + sessions.fetch_add(1, Ordering::SeqCst);
                        let rest = [&process.to_be_bytes()[..], &secret(process)].concat();
                        let length = u32::try_from(4 + rest.len()).unwrap().to_be_bytes();
                        let key = [b"K", &length[..], &rest].concat();
                        for piece in [b"R\0\0\0\x08\0\0", &b"\0\0S\0\0\0\x08a\0b\0"[..], &key[..3]]
                        {
                            // The client may have gone.
                            if stream.write_all(piece).is_err() {
                                return;
                            }
                        }
                        let rest = [&key[3..], b"Z\0\0\0\x05I"].concat();
                        if stream.write_all(&rest).is_ok() {
                            echo(stream);
                        }
                        return;
                    }
                }
            }
        });
        Self { backend, cancelled }
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.cancelled.lock().len()
    }
}

/// As long as those of protocol 3.2.
fn secret(process: u32) -> Vec<u8> {
    process.to_be_bytes().repeat(8)
}

pub(crate) fn cancel(process: u32) -> Vec<u8> {
    let rest = [&process.to_be_bytes()[..], &secret(process)].concat();
    let length = u32::try_from(8 + rest.len()).unwrap();
    [
        &length.to_be_bytes()[..],
        &80_877_102u32.to_be_bytes(),
        &rest,
    ]
    .concat()
}

fn config(listener: &str, pools: &[(&str, &str, &[&Postgres])]) -> String {
    let pools = pools.iter().map(|(name, fields, servers)| {
        let all = servers.iter().zip('a'..);
        let all = all.map(|(server, name)| {
            format!(
                "(address: \"{}\", name: \"{name}\"), ",
                server.backend.address
            )
        });
        let all: String = all.collect();
        format!("(name: \"{name}\", {fields} backends: [{all}]),\n")
    });
    let pools: String = pools.collect();
    format!("(workers: 2, listeners: [(bind: \"127.0.0.1:0\", {listener})],\npools: [{pools}])")
}

fn start(listener: &str, pools: &[(&str, &str, &[&Postgres])]) -> Balancer {
    Launch::with_config(&config(listener, pools), 1)
        .workers(2)
        .start()
}

/// Sends this in pieces, cut at each of these places.
fn send(stream: &mut TcpStream, bytes: &[u8], cuts: &[usize]) {
    stream.set_nodelay(true).unwrap();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        stream.write_all(&bytes[from..to]).unwrap();
        from = to;
        std::thread::yield_now();
    }
}

pub(crate) fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, bytes);
}

/// A client that asks for TLS, and then says this hello.
fn ask(balancer: &Balancer, request: &[u8], cuts: &[usize]) -> TcpStream {
    let mut stream = balancer.connect();
    send(&mut stream, request, cuts);
    stream
}

#[test]
fn a_request_for_tls_is_answered_and_the_hello_routes() {
    watched(|| {
        let servers = [1, 2, 3].map(|number| Postgres::new(number, b"S"));
        let [own, one, two] = servers.each_ref();
        let balancer = start(
            "pool: \"own\", postgres_tls: \"answer\", timeouts: (peek: \"1m\"), routes: [\
             (sni: [\"one.pg.example.\"], pool: \"one\"), \
             (sni: [\"refuse.pg.examp\"], pool: \"refuse\"), \
             (protocol: [\"postgres\"], pool: \"two\")]",
            &[
                ("own", "", &[own]),
                ("one", "", &[one]),
                ("two", "", &[two]),
            ],
        );
        let mut hellos = 0;
        for (name, number) in [("ONE.pg.example.", 1), ("xyz.pg.example.", 3)] {
            for (cuts, asks_gss) in [(&[][..], true), (&[1, 4, 7], false)] {
                let mut stream = match asks_gss {
                    true => {
                        let mut stream = ask(&balancer, &GSS_REQUEST, cuts);
                        expect(&mut stream, b"N");
                        send(&mut stream, &SSL_REQUEST, cuts);
                        stream
                    }
                    false => ask(&balancer, &SSL_REQUEST, cuts),
                };
                expect(&mut stream, b"S");
                let hello = hello(name);
                let [all, half] = [hello.len(), hello.len() / 2];
                send(&mut stream, &hello, &[3, half, all - 1][..cuts.len()]);
                let number: u8 = if number == 1 { 2 } else { 3 };
                expect(&mut stream, &[number]);
                expect(&mut stream, &hello);
                ping(&mut stream, b"and so on");
                hellos += hello.len() as u64 + 9;
                drop(stream);
                balancer.assert_rest();
            }
        }
        assert_eq!(balancer.number("bytes_up"), hellos, "ours are not counted");
        // One that begins with TLS, and one without it, need no answer.
        let first = hello("one.pg.example.");
        let mut direct = ask(&balancer, &first, &[]);
        expect(&mut direct, &[2]);
        expect(&mut direct, &first);
        drop(direct);
        let mut plain = ask(&balancer, &startup(), &[5]);
        expect(&mut plain, b"R");
        drop(plain);
        // What stands behind a request before its answer is refused; so is one after GSSAPI's.
        let early = [&SSL_REQUEST[..], b"\x16"].concat();
        expect_reset(&mut ask(&balancer, &early, &[]));
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.no_route"), 1);
        let mut refused = ask(&balancer, &SSL_REQUEST, &[]);
        expect(&mut refused, b"S");
        send(&mut refused, &hello("refuse.pg.examp"), &[]);
        let mut told = Vec::new();
        refused.read_to_end(&mut told).unwrap();
        assert_eq!(told, [21, 3, 3, 0, 2, 2, 112], "unrecognized_name");
        eventually("it is refused", || balancer.number("closed.no_route") == 2);
        balancer.finish();
    });
}

pub(crate) fn startup() -> Vec<u8> {
    b"\0\0\0\x16\0\x03\0\0user\0annabel\0\0".to_vec()
}

#[test]
fn a_client_that_was_answered_and_says_nothing_is_half_sent() {
    watched(|| {
        let server = Postgres::new(1, b"S");
        let peek = time(300);
        let balancer = start(
            &format!("pool: \"own\", postgres_tls: \"answer\", timeouts: (peek: \"{peek}\")"),
            &[("own", "", &[&server])],
        );
        let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
        expect(&mut stream, b"S");
        expect_reset(&mut stream);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.first_bytes_timeout"), 1);
        assert_eq!(server.backend.accepted(), 0);
        balancer.finish();
    });
}

/// A backend that closes, one that says nothing, and one that is all right.
#[test]
fn a_backend_without_an_answer_is_followed_by_another() {
    watched(|| {
        let servers =
            [(1, &b""[..]), (2, b"S")].map(|(number, answer)| Postgres::new(number, answer));
        let silent = peers::listen();
        let connect = time(300);
        let listener = format!(
            "pool: \"own\", postgres_tls: \"answer\", timeouts: (connect: \"{connect}\", \
             peek: \"1m\")"
        );
        let own = (
            "own",
            "strategy: \"first\", ejection: \"off\",",
            &servers.each_ref()[..],
        );
        let config = config(&listener, &[own]);
        let first = format!("backends: [\"{}\", ", silent.1);
        let config = config.replacen("backends: [", &first, 1);
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
        expect(&mut stream, b"S");
        let hello = hello("one.pg.example.");
        send(&mut stream, &hello, &[]);
        expect(&mut stream, &[2]);
        expect(&mut stream, &hello);
        drop(stream);
        balancer.assert_rest();
        assert_eq!(balancer.number("connect_failures"), 2);
        balancer.finish();
    });
}

#[test]
fn a_header_that_names_the_client_stands_before_the_request() {
    watched(|| {
        let server = Backend::tcp("127.0.0.1:0", |mut stream| {
            let mut first = Vec::new();
            while !first.ends_with(&SSL_REQUEST) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                first.push(byte[0]);
            }
            let header = first.strip_suffix(&SSL_REQUEST).unwrap();
            let is_one = header.starts_with(b"PROXY TCP4 127.") && header.ends_with(b"\r\n");
            assert!(is_one, "{}", header.escape_ascii());
            stream.write_all(b"S").unwrap();
            echo(stream);
        });
        let config = format!(
            "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"own\", \
             postgres_tls: \"answer\", timeouts: (peek: \"1m\"))],\n\
             pools: [(name: \"own\", send_proxy: \"v1\", backends: [\"{}\"])])",
            server.address
        );
        let balancer = Launch::with_config(&config, 1).start();
        let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
        expect(&mut stream, b"S");
        let hello = hello("one.pg.example.");
        send(&mut stream, &hello, &[]);
        expect(&mut stream, &hello);
        drop(stream);
        balancer.assert_rest();
        assert_eq!(balancer.number("bytes_up"), hello.len() as u64);
        balancer.finish();
    });
}

/// The backend of both never answers.
#[test]
fn a_session_may_end_while_its_backend_is_asked() {
    watched(|| {
        let (_silent, address) = peers::listen();
        let config = format!(
            "(workers: 2, listeners: [(bind: \"127.0.0.1:0\", pool: \"own\", \
             postgres_tls: \"answer\", timeouts: (connect: \"1m\", peek: \"1m\"))],\n\
             pools: [(name: \"own\", backends: [\"{address}\"])])"
        );
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        for ends in ["client_reset", "killed"] {
            let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
            expect(&mut stream, b"S");
            send(&mut stream, &hello("one.pg.example."), &[]);
            eventually("its backend is asked", || {
                balancer.ask(&["sessions"])[0]["state"] == "connecting"
            });
            if ends == "killed" {
                balancer.words(&["sessions", "--kill", "--all"]);
                expect_reset(&mut stream);
            } else {
                peers::reset(stream);
            }
            balancer.assert_rest();
            assert_eq!(balancer.number(&format!("closed.{ends}")), 1);
        }
        balancer.finish();
    });
}

#[test]
fn a_backend_that_refuses_tls_ends_the_session() {
    watched(|| {
        let answers: [&'static [u8]; 4] = [b"N", b"E", b"EFATAL\0", b"S\x16"];
        for (number, answer) in (1..).zip(answers) {
            let server = Postgres::new(number, answer);
            let balancer = start(
                "pool: \"own\", postgres_tls: \"answer\", timeouts: (peek: \"1m\")",
                &[("own", "", &[&server])],
            );
            let events = (number == 1).then(|| balancer.follow());
            let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
            let client = stream.local_addr().unwrap().to_string();
            expect(&mut stream, b"S");
            send(&mut stream, &hello("one.pg.example."), &[]);
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            assert_eq!(told, [21, 3, 3, 0, 2, 2, 40], "handshake_failure");
            eventually("it has ended", || {
                balancer.number("closed.tls_refused") == 1
            });
            if let Some(events) = events {
                let event = events.next("tls_refused");
                let message = event["message"].as_str().unwrap();
                let example = format!(
                    "1 client refused by tls_refused, 1 in all (such as backend `a` of pool \
                     `own` at {}: it answered `N`)",
                    server.backend.address
                );
                assert!(message.ends_with(&example), "{message}");
            }
            balancer.assert_rest();
            assert_eq!(
                server.backend.accepted(),
                1,
                "it is no failure of a connect"
            );
            let attempts = &balancer.ask(&["explain", &client])[0]["attempts"];
            let [attempt] = &attempts.as_array().unwrap()[..] else {
                panic!("{attempts}");
            };
            assert_eq!(attempt["outcome"], "tls_refused", "{attempt}");
            assert_eq!(attempt["address"], *server.backend.address);
            balancer.finish();
        }
    });
}

#[test]
fn without_the_setting_a_request_goes_on_as_it_came() {
    watched(|| {
        let server = Postgres::new(1, b"S");
        let balancer = start(
            "pool: \"own\", routes: [(sni: [\"one.pg.example\"], pool: \"refuse\")]",
            &[("own", "", &[&server])],
        );
        let mut stream = ask(&balancer, &SSL_REQUEST, &[]);
        expect(&mut stream, b"S");
        send(&mut stream, b"hello", &[]);
        expect(&mut stream, b"\x01hello");
        drop(stream);
        balancer.finish();
    });
}

/// A session, and the number of the process that serves it.
fn session(balancer: &Balancer, from: Ipv4Addr) -> (TcpStream, u32) {
    let mut stream = peers::connect_from(from, balancer.address());
    stream.write_all(&startup()).unwrap();
    let mut answers = [0; 9 + 9 + 9];
    stream.read_exact(&mut answers).unwrap();
    let process = u32::from_be_bytes(answers[23..27].try_into().unwrap());
    let mut rest = [0; 32 + 6];
    stream.read_exact(&mut rest).unwrap();
    ping(&mut stream, b"select");
    (stream, process)
}

/// A request from this address; whether this server has it then.
fn cancels(balancer: &Balancer, from: Ipv4Addr, process: u32, server: &Postgres) {
    let before = server.cancelled();
    let mut stream = peers::connect_from(from, balancer.address());
    send(&mut stream, &cancel(process), &[4, 11]);
    expect_end(&mut stream);
    eventually("it was asked to cancel", || {
        server.cancelled() == before + 1
    });
}

#[test]
fn a_request_to_cancel_goes_where_the_session_is() {
    watched(|| {
        let servers = [1, 2, 3].map(|number| Postgres::new(number, b"N"));
        let [a, b, c] = servers.each_ref();
        let balancer = start(
            // A route by address alone needs no byte, and a cancel does.
            "pool: \"own\", postgres_cancel: true, timeouts: (peek: \"1m\"),
             routes: [(client: [\"10.0.0.0/8\"], pool: \"refuse\")]",
            &[("own", "max_connections: 9,", &[a, b, c])],
        );
        let mut sessions: Vec<_> = (0..9).map(|n| session(&balancer, source(n))).collect();
        // The pool is full, and a query is to end.
        balancer.ask(&["drain", "own/a"]);
        for (n, (_, process)) in (0u32..).zip(&sessions) {
            let server = &servers[*process as usize / 1_000 - 1];
            cancels(&balancer, source(100 + n), *process, server);
        }
        let told = &balancer.ask(&["explain", &source(100).to_string(), "--last", "1"])[0];
        assert_eq!(told["decision"]["why"], "cancels");
        balancer.ask(&["ready", "own/a"]);
        // A key that was not seen, as in TLS, goes by the address, and needs a place.
        drop(sessions.pop());
        for (n, (_, process)) in (0..).zip(&sessions) {
            let server = &servers[*process as usize / 1_000 - 1];
            cancels(&balancer, source(n), 77, server);
        }
        drop(sessions);
        balancer.assert_rest();
        // One of no session, from an address of none, is a client like others.
        let before: usize = servers.iter().map(Postgres::cancelled).sum();
        for _ in 0..3 {
            let mut stream = peers::connect_from(source(200), balancer.address());
            send(&mut stream, &cancel(5), &[]);
            expect_end(&mut stream);
        }
        eventually("each has one", || {
            let now: usize = servers.iter().map(Postgres::cancelled).sum();
            now == before + 3
        });
        balancer.finish();
    });
}

/// Otherwise its cancel would go where its address was last, whatever it spoke there.
#[test]
fn only_sessions_of_postgresql_are_where_a_request_to_cancel_goes() {
    watched(|| {
        let [own, www] = [1, 2].map(|number| Postgres::new(number, b"N"));
        let balancer = start(
            "pool: \"own\", postgres_cancel: true, routes: [(protocol: [\"tls\"], pool: \"www\")]",
            &[("own", "", &[&own]), ("www", "", &[&www])],
        );
        let first = session(&balancer, source(1));
        let mut other = peers::connect_from(source(1), balancer.address());
        other.write_all(&hello("www.example.org")).unwrap();
        other.read_exact(&mut [0]).unwrap();
        cancels(&balancer, source(1), 77, &own);
        assert_eq!(www.cancelled(), 0);
        drop(first);
        drop(other);
        balancer.finish();
    });
}
