//! TLS of PostgreSQL: of clients, which ends at a listener, and with backends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, connect, expect_end, expect_reset, ping};
use crate::postgres::{GSS_REQUEST, Postgres, SSL_REQUEST, cancel, expect, startup};
use crate::tls::{Secured, launch_in, secured};
use crate::tls_backends::{echo_to_close, line, prepared, server, start};
use crate::watchdog::{eventually, watched};

/// A session, which begins with these requests in the clear, and the process that serves it.
fn session(
    balancer: &Balancer,
    authority: &Authority,
    name: &str,
    requests: &[(&[u8], u8)],
) -> (Secured, u32) {
    let mut stream = secured(balancer, &authority.client(|_| {}), name);
    for (request, answer) in requests {
        stream.sock.write_all(request).unwrap();
        expect(&mut stream.sock, &[*answer]);
    }
    stream.write_all(&startup()).unwrap();
    let mut answers = [0; 9 + 9 + 9 + 32 + 6];
    stream.read_exact(&mut answers).unwrap();
    let process = u32::from_be_bytes(answers[23..27].try_into().unwrap());
    ping(&mut stream, b"select");
    (stream, process)
}

#[test]
fn a_request_for_tls_is_answered_and_what_is_inside_routes() {
    watched(|| {
        let authority = Authority::new();
        let servers = [1, 2].map(|number| Postgres::new(number, b"N"));
        let backends = servers.each_ref().map(|its| its.backend.address.clone());
        let fields = "postgres_tls: \"answer\", postgres_cancel: true, timeouts: (peek: \"1m\"), \
                      routes: [(sni: [\"a.wild.test\"], protocol: [\"postgres\"], pool: \"p1\"), \
                      (protocol: [\"postgres\"], pool: \"p0\"), (pool: \"refuse\")],";
        let launch = Launch::with_config("", 1);
        let balancer = launch_in(launch, &authority, &backends, ("", fields));
        let asks = (&SSL_REQUEST[..], b'S');
        let refused = (&GSS_REQUEST[..], b'N');
        for (name, requests, number) in [
            ("web.test", &[asks][..], 0),
            ("a.wild.test", &[refused, asks], 1),
            // Direct TLS.
            ("a.wild.test", &[], 1),
        ] {
            let (_open, process) = session(&balancer, &authority, name, requests);
            let server: &Postgres = &servers[number];
            assert_eq!(process as usize / 1_000, number + 1, "{name}");
            let before = server.cancelled();
            // By libpq's `PQcancel` before PostgreSQL 17, in the clear.
            let mut stream = balancer.connect();
            stream.write_all(&cancel(process)).unwrap();
            expect_end(&mut stream);
            // And by `PQcancelStart`.
            let mut stream = secured(&balancer, &authority.client(|_| {}), "web.test");
            stream.sock.write_all(&SSL_REQUEST).unwrap();
            expect(&mut stream.sock, b"S");
            stream.write_all(&cancel(process)).unwrap();
            expect_end(&mut stream);
            eventually("both came", || server.cancelled() == before + 2);
        }
        assert_eq!(servers.each_ref().map(Postgres::cancelled), [2, 4]);
        balancer.finish();
    });
}

#[test]
fn a_request_to_cancel_is_looked_for_inside_of_any_tls() {
    watched(|| {
        let authority = Authority::new();
        let servers = [1, 2].map(|number| Postgres::new(number, b"N"));
        let [a, b] = servers.each_ref().map(|its| its.backend.address.clone());
        let fields = "postgres_tls: \"answer\", postgres_cancel: true,";
        let launch = Launch::with_config("", 1);
        let backends = [format!("{a}\", \"{b}")];
        let balancer = launch_in(launch, &authority, &backends, ("", fields));
        let asks = [(&SSL_REQUEST[..], b'S')];
        let sessions = [(); 2].map(|()| session(&balancer, &authority, "web.test", &asks));
        for (_, process) in sessions.iter().rev() {
            let server: &Postgres = &servers[*process as usize / 1_000 - 1];
            let before = server.cancelled();
            let mut stream = balancer.connect();
            stream.write_all(&cancel(*process)).unwrap();
            expect_end(&mut stream);
            eventually("it came", || server.cancelled() == before + 1);
        }
        drop(sessions);
        balancer.finish();
    });
}

#[test]
fn nothing_in_the_clear_is_taken_for_decrypted() {
    watched(|| {
        let authority = Authority::new();
        let server = Postgres::new(1, b"N");
        let backends = [server.backend.address.clone()];
        let fields = "postgres_tls: \"answer\",";
        let launch = Launch::with_config("", 1);
        let balancer = launch_in(launch, &authority, &backends, ("", fields));
        let mut injected = balancer.connect();
        let bytes = [&SSL_REQUEST[..], &startup()].concat();
        injected.write_all(&bytes).unwrap();
        expect_reset(&mut injected);
        let mut plain = balancer.connect();
        plain.write_all(&startup()).unwrap();
        let mut told = Vec::new();
        plain.read_to_end(&mut told).unwrap();
        assert!(
            told.starts_with(b"E") && told.ends_with(b"MTLS is required here: set sslmode\0\0")
        );
        eventually("both are refused", || {
            balancer.output().count("reason=tls_failed ") == 2
        });
        let status = &balancer.ask(&["listeners"])[0]["tls"]["failures"];
        assert_eq!(*status, json!({"early_bytes": 1, "not_tls": 1}));
        assert_eq!(server.backend.accepted(), 0);
        balancer.finish();
    });
}

/// A backend that is asked for TLS, answers so, and then echoes in TLS.
fn asked(config: &Arc<ServerConfig>, answer: &'static [u8]) -> Backend {
    let config = Arc::clone(config);
    Backend::tcp("127.0.0.1:0", move |mut stream: TcpStream| {
        let mut request = [0; 8];
        if stream.read_exact(&mut request).is_err() {
            return;
        }
        assert_eq!(request, SSL_REQUEST);
        let _ = stream.write_all(answer);
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        echo_to_close(StreamOwned::new(connection, stream));
    })
}

#[test]
fn backends_are_asked_for_tls_by_connections_and_by_probes() {
    watched(|| {
        let answers: [(&'static [u8], &str); 3] = [
            (b"S", ""),
            (
                b"N",
                "the server has no TLS: it answered `N` to PostgreSQL's request for it",
            ),
            (
                b"S\x16",
                "bytes came in the clear behind the server's answer to the request for TLS",
            ),
        ];
        let (launch, authority) = prepared(answers.len());
        authority.sign(launch.dir(), "db", &["db.test"]);
        let config = server(&launch.dir().join("db"), &[&TLS13], None);
        let backends = answers.map(|(answer, _)| asked(&config, answer));
        let tls = "tls: (verify: \"ca.pem\", sni: \"db.test\", starttls: \"postgres\"), \
                   check: (interval: \"1s\", fall: 1, rise: 1, type: \"tcp\")";
        let addresses = backends.each_ref().map(|its| [its.address.as_str()]);
        let pools = addresses.each_ref().map(|its| (tls, &its[..]));
        let balancer = start(launch, &pools);
        for (listener, (_, why)) in answers.iter().enumerate() {
            let mut client = connect(balancer.address_of(listener));
            if why.is_empty() {
                ping(&mut client, b"inside");
                continue;
            }
            expect_reset(&mut client);
            let line = line(&balancer, &format!("pool=p{listener} "));
            assert!(line.contains(" reason=connect_failed "), "{line}");
            assert!(
                line.ends_with(&format!("backend_tls_error=\"{why}\"")),
                "{line}"
            );
            let address = &backends[listener].address;
            let down = format!("backend `{address}` of pool `p{listener}` is down: TLS: {why}");
            eventually("a probe finds it too", || balancer.log().count(&down) > 0);
        }
        let up = format!("backend `{}` of pool `p0` is down", backends[0].address);
        assert_eq!(balancer.log().count(&up), 0);
        balancer.finish();
    });
}
