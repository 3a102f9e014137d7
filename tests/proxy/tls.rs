//! TLS that ends at a listener, with rustls as the clients.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use serde_json::json;

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, expect_end, expect_reset, ping};
use crate::watchdog::{eventually, watched};

pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn secured(balancer: &Balancer, config: &Arc<ClientConfig>, name: &str) -> Secured {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, balancer.connect())
}

/// What a client reads up to the end that its server has told.
fn read_to_close(stream: &mut Secured) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// A balancer whose listener ends TLS with a certificate for `web.test`; `more` are fields of
/// `tls`, and `routes` of the listener.
fn launch(authority: &Authority, backends: &[String], more: &str, routes: &str) -> Balancer {
    launch_in(
        Launch::with_config("", 1),
        authority,
        backends,
        (more, routes),
    )
}

/// The same of a balancer that is prepared.
pub(crate) fn launch_in(
    launch: Launch,
    authority: &Authority,
    backends: &[String],
    (more, routes): (&str, &str),
) -> Balancer {
    authority.sign(launch.dir(), "web", &["web.test"]);
    authority.sign(launch.dir(), "wild", &["*.wild.test"]);
    let file = |name: &str| format!("(certificate: \"{name}.pem\", key: \"{name}.key\")");
    let pools = backends.iter().enumerate();
    let pools = pools.map(|(i, to)| format!("(name: \"p{i}\", backends: [\"{to}\"]),"));
    let config = format!(
        "(workers: 1, access_log: (to: \"-\", fields: [\"standard\", \"sni\", \
         \"tls_version\", \"tls_cipher\", \"tls_alpn\", \"tls_resumed\", \"tls_us\", \
         \"tls_error\"]), \
         listeners: [(bind: \"127.0.0.1:0\", pool: \"p0\", {routes} \
         tls: (certificates: [{}, {}], {more}))], pools: [{}])",
        file("web"),
        file("wild"),
        pools.collect::<String>()
    );
    launch.file(&config).start()
}

fn reasons(balancer: &Balancer, reason: &str) -> usize {
    balancer.output().count(&format!("reason={reason} "))
}

#[test]
fn bytes_come_through_both_ways_in_each_version() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let balancer = launch(
            &authority,
            std::slice::from_ref(&backend.address),
            "alpn: [\"a\", \"b\"]",
            "",
        );
        for version in [&TLS12, &TLS13] {
            let offers = |config: &mut ClientConfig| {
                config.alpn_protocols = vec![b"b".to_vec(), b"c".to_vec()];
            };
            let config = authority.client_of(&[version], None, offers);
            let mut client = secured(&balancer, &config, "web.test");
            ping(&mut client, b"small");
            assert_eq!(client.conn.alpn_protocol(), Some(&b"b"[..]));
            assert_eq!(client.conn.protocol_version(), Some(version.version));
            let much: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
            let (mut taken, mut echoed) = (0, Vec::new());
            // More than sockets hold at a time would fill both ways.
            while echoed.len() < much.len() {
                let part = &much[taken..(taken + 50_000).min(much.len())];
                client.write_all(part).unwrap();
                taken += part.len();
                let mut back = vec![0; part.len()];
                client.read_exact(&mut back).unwrap();
                echoed.extend(back);
            }
            assert!(echoed == much, "the same bytes");
            client.conn.send_close_notify();
            client.flush().unwrap();
            assert_eq!(read_to_close(&mut client), b"");
        }
        eventually("two lines", || balancer.output().count("reason=") == 2);
        let line = format!("bytes_up={0} bytes_down={0} ", 3_000_005);
        assert_eq!(
            balancer.output().count(&line),
            2,
            "{}",
            balancer.output().all()
        );
        assert_eq!(reasons(&balancer, "client_closed"), 2);
        for version in ["1.2", "1.3"] {
            let line = &balancer
                .output()
                .lines_with(&format!("tls_version={version} "))[0];
            assert!(line.contains(" sni=web.test "), "{line}");
            assert!(
                line.contains(" tls_alpn=b tls_resumed=false tls_us="),
                "{line}"
            );
            assert!(
                line.contains(" tls_cipher=TLS") && line.ends_with("tls_error=-"),
                "{line}"
            );
        }
        balancer.finish();
    });
}

#[test]
fn a_client_resumes_and_gets_the_certificate_of_its_name() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let backends = [backend.address.clone()];
        let balancer = launch(&authority, &backends, "unknown_name: \"refuse\"", "");
        for version in [&TLS12, &TLS13] {
            let config = authority.client_of(&[version], None, |_| {});
            for (visit, kind) in [HandshakeKind::Full, HandshakeKind::Resumed]
                .iter()
                .enumerate()
            {
                let mut client = secured(&balancer, &config, "A.wild.test");
                ping(&mut client, b"x");
                assert_eq!(client.conn.handshake_kind(), Some(*kind), "visit {visit}");
            }
        }
        // It is refused by the alert of RFC 6066.
        for name in ["other.test", "a.b.wild.test", "127.0.0.1"] {
            let mut client = secured(&balancer, &authority.client(|_| {}), name);
            let error = client
                .write_all(b"x")
                .and_then(|()| client.flush())
                .unwrap_err();
            assert!(error.to_string().contains("UnrecognisedName"), "{error}");
        }
        eventually("they are counted", || reasons(&balancer, "tls_failed") == 3);
        balancer.finish();
    });
}

#[test]
fn only_an_end_that_was_told_is_an_end() {
    watched(|| {
        let authority = Authority::new();
        let (listener, address) = peers::listen();
        let balancer = launch(&authority, &[address], "", "");
        let config = authority.client(|_| {});
        let accept = || listener.accept().unwrap().0;

        // A half-close: the backend's answer comes after it, and then its end.
        let mut client = secured(&balancer, &config, "web.test");
        client.write_all(b"ask").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut backend = accept();
        let mut asked = Vec::new();
        backend.read_to_end(&mut asked).unwrap();
        assert_eq!(asked, b"ask");
        backend.write_all(b"answer").unwrap();
        drop(backend);
        assert_eq!(read_to_close(&mut client), b"answer");

        // The backend ends first.
        let mut client = secured(&balancer, &config, "web.test");
        client.write_all(b"ask").unwrap();
        let mut backend = accept();
        backend.write_all(b"bye").unwrap();
        backend.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_close(&mut client), b"bye");
        client.conn.send_close_notify();
        client.flush().unwrap();
        drop(client);
        let mut rest = Vec::new();
        backend.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"ask");

        // A connection that ends without a word was cut.
        let mut client = secured(&balancer, &config, "web.test");
        client.write_all(b"half").unwrap();
        let mut backend = accept();
        let mut half = [0; 4];
        backend.read_exact(&mut half).unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        expect_reset(&mut backend);
        let error = client.read(&mut [0; 9]).unwrap_err();
        let cut = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
        assert!(cut.contains(&error.kind()), "{error}");
        eventually("it has its reason", || {
            reasons(&balancer, "tls_truncated") == 1
        });

        // So was that of a backend which resets.
        let mut client = secured(&balancer, &config, "web.test");
        client.write_all(b"half").unwrap();
        let mut backend = accept();
        backend.read_exact(&mut half).unwrap();
        peers::reset(backend);
        let error = client.read(&mut [0; 9]).unwrap_err();
        assert!(cut.contains(&error.kind()), "{error}");
        balancer.finish();
    });
}

#[test]
fn a_client_needs_the_certificate_that_is_asked_for() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let clients = Authority::new();
        let directory = std::env::temp_dir().join(format!("mahoraga-tls-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let ca = directory.join("clients.pem");
        fs::write(&ca, clients.0.pem()).unwrap();
        let asked = format!("clients: (ca: \"{}\")", ca.display());
        let balancer = launch(
            &authority,
            std::slice::from_ref(&backend.address),
            &asked,
            "",
        );
        clients.sign(&directory, "good", &["somebody"]);
        authority.sign(&directory, "foreign", &["somebody"]);
        let with = |name: Option<&str>| {
            let own = name.map(|name| directory.join(name));
            let config = authority.client_of(&[&TLS13, &TLS12], own.as_deref(), |_| {});
            secured(&balancer, &config, "web.test")
        };
        ping(&mut with(Some("good")), b"let in");
        for name in [None, Some("foreign")] {
            let mut client = with(name);
            let _ = client.write_all(b"x");
            client.read(&mut [0; 9]).unwrap_err();
        }
        eventually("two are refused", || reasons(&balancer, "tls_failed") == 2);
        for why in [
            "the client has shown no certificate",
            "wrong signature: another issuer of the same name may have signed the client's \
             certificate",
        ] {
            let why = format!("tls_error=\"{why}\"");
            assert_eq!(balancer.output().count(&why), 1, "{why}");
        }
        let _ = fs::remove_dir_all(directory);
        balancer.finish();
    });
}

#[test]
fn what_is_no_tls_is_refused_and_what_stops_is_timed_out() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let backends = [backend.address.clone()];
        let balancer = launch(&authority, &backends, "handshake: \"300ms\"", "");
        let mut plain = balancer.connect();
        plain
            .write_all(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
            .unwrap();
        let mut told = Vec::new();
        plain.read_to_end(&mut told).unwrap();
        assert!(told.starts_with(&[21, 3]), "an alert: {told:?}");
        // Half of a record.
        let mut slow = balancer.connect();
        slow.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        expect_reset(&mut slow);
        // One that leaves.
        let mut gone = balancer.connect();
        gone.write_all(&[22, 3, 1]).unwrap();
        drop(gone);
        eventually("each has its reason", || {
            let counts = ["tls_failed", "tls_timeout"].map(|its| reasons(&balancer, its));
            counts == [2, 1]
        });
        assert_eq!(backend.accepted(), 0);
        let plain = balancer.output().lines_with("tls_error=\"");
        assert!(plain[0].contains("tls_version=- "), "{plain:?}");
        for why in [
            "the client does not speak TLS",
            "the client closed the connection in the handshake",
            "the client's handshake was not done within 300ms",
        ] {
            let why = format!("tls_error=\"{why}\"");
            assert!(plain.iter().any(|line| line.ends_with(&why)), "{why}");
        }
        let status = &balancer.ask(&["listeners"])[0]["tls"]["failures"];
        assert_eq!(*status, json!({"late": 1, "left": 1, "not_tls": 1}));
        balancer.finish();
    });
}

#[test]
fn routes_ask_for_the_hello_and_for_what_is_inside() {
    watched(|| {
        let (listeners, addresses): (Vec<_>, Vec<_>) = (0..4).map(|_| peers::listen()).unzip();
        let authority = Authority::new();
        let routes = "routes: [(sni: [\"a.wild.test\"], pool: \"p1\"), \
                      (alpn: [\"x\"], pool: \"p2\"), (http_host: [\"c.test\"], pool: \"p3\")],";
        let balancer = launch(&authority, &addresses, "alpn: [\"x\", \"y\"]", routes);
        let offers = |offered: &[&str]| {
            let offered = offered.iter().map(|its| its.as_bytes().to_vec()).collect();
            authority.client(|config| config.alpn_protocols = offered)
        };
        let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for (to, name, offered, host) in [
            (1, "a.wild.test", &["y"][..], "c.test"),
            (2, "b.wild.test", &["y", "x"], "c.test"),
            (3, "b.wild.test", &["y"], "c.test"),
            (0, "b.wild.test", &["y"], "d.test"),
            (0, "b.wild.test", &[], "d.test"),
        ] {
            let mut client = secured(&balancer, &offers(offered), name);
            client.write_all(request(host).as_bytes()).unwrap();
            client.flush().unwrap();
            let mut backend = listeners[to].accept().unwrap().0;
            let mut first = vec![0; request(host).len()];
            backend.read_exact(&mut first).unwrap();
            assert_eq!(first, request(host).as_bytes());
            backend.write_all(b"ok").unwrap();
            drop(backend);
            assert_eq!(read_to_close(&mut client), b"ok");
        }
        balancer.finish();
    });
}

#[test]
fn a_new_certificate_takes_its_place_and_a_broken_one_does_not() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let balancer = launch(&authority, std::slice::from_ref(&backend.address), "", "");
        let config = authority.client_of(&[&TLS13], None, |config| {
            config.resumption = rustls::client::Resumption::disabled();
        });
        let shown = |client: &mut Secured| {
            ping(client, b"x");
            client.conn.peer_certificates().unwrap()[0].to_vec()
        };
        let mut old = secured(&balancer, &config, "web.test");
        let first = shown(&mut old);
        authority.sign(balancer.dir(), "web", &["web.test"]);
        balancer.ask(&["reload"]);
        let second = shown(&mut secured(&balancer, &config, "web.test"));
        assert_ne!(first, second);
        ping(&mut old, b"goes on");
        fs::write(balancer.dir().join("web.key"), "nothing").unwrap();
        let refused = balancer.refusal(&["reload"]);
        assert!(refused.1.contains("web.key"), "{refused:?}");
        assert_eq!(shown(&mut secured(&balancer, &config, "web.test")), second);
        // Files are looked at, too.
        let alerts = || balancer.ask(&["status"])["alerts"].to_string();
        eventually("an alert names it", || alerts().contains("web.key"));
        authority.sign(balancer.dir(), "web", &["web.test"]);
        let third = || shown(&mut secured(&balancer, &config, "web.test")) != second;
        eventually("the newest one is shown", third);
        eventually("no alert is left", || !alerts().contains("web.key"));
        let status = &balancer.ask(&["listeners"])[0]["tls"];
        assert_eq!(status["certificates"][0]["names"], json!(["web.test"]));
        assert!(
            status["handshakes"]["1.3/full"].as_u64() >= Some(4),
            "{status}"
        );
        drop(old);
        balancer.finish();
    });
}

#[test]
fn a_key_that_anybody_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let launch = Launch::to(&["127.0.0.1:1".to_owned()]);
    let authority = Authority::new();
    authority.sign(launch.dir(), "web", &["web.test"]);
    let key = launch.dir().join("web.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (status, log) = launch
        .flag("--tls-cert", "web.pem")
        .flag("--tls-key", "web.key")
        .run();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("anybody may read it"), "{log}");
}

#[test]
fn flags_end_tls_too() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        authority.sign(launch.dir(), "web", &["web.test"]);
        let launch = launch.flag("--tls-cert", "web.pem");
        let balancer = launch.flag("--tls-key", "web.key").start();
        let config = authority.client(|_| {});
        ping(&mut secured(&balancer, &config, "web.test"), b"x");
        let mut plain = balancer.connect();
        plain.write_all(b"no TLS").unwrap();
        expect_end(&mut Read::take(&mut plain, 0));
        balancer.finish();
    });
}

#[test]
fn bytes_of_a_client_that_leaves_at_once_reach_its_backend() {
    watched(|| {
        let authority = Authority::new();
        let (listener, address) = peers::listen();
        let balancer = launch(&authority, &[address], "", "");
        let config = authority.client(|_| {});
        for _ in 0..10 {
            let mut client = secured(&balancer, &config, "web.test");
            client.write_all(b"all of it").unwrap();
            client.flush().unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            let mut backend = listener.accept().unwrap().0;
            let mut all = [0; 9];
            backend.read_exact(&mut all).unwrap();
            assert_eq!(&all, b"all of it");
            // It never said that this was all.
            expect_reset(&mut backend);
        }
        balancer.finish();
    });
}

#[test]
fn half_handshakes_take_no_place_from_whole_ones() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let backends = [backend.address.clone()];
        let balancer = launch(&authority, &backends, "", "max_connections: 8,");
        // They may take a quarter of the places.
        let mut half = [(); 7].map(|()| balancer.connect());
        let mut client = secured(&balancer, &authority.client(|_| {}), "web.test");
        ping(&mut client, b"x");
        for first in &mut half[..5] {
            expect_reset(first);
        }
        let all = || reasons(&balancer, "tls_handshakes_full") >= 5;
        eventually("they are told", all);
        drop((half, client));
        balancer.finish();
    });
}

#[test]
fn a_time_that_is_over_ends_with_a_word() {
    watched(|| {
        let (backend, authority) = (Backend::echo(), Authority::new());
        let backends = [backend.address.clone()];
        let routes = "timeouts: (idle: \"300ms\"),";
        let balancer = launch(&authority, &backends, "", routes);
        let mut client = secured(&balancer, &authority.client(|_| {}), "web.test");
        ping(&mut client, b"x");
        assert_eq!(read_to_close(&mut client), b"");
        eventually("its line", || reasons(&balancer, "idle_timeout") == 1);
        balancer.finish();
    });
}
