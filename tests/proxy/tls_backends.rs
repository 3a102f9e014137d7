//! TLS with backends, with rustls as the backends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, connect, echo, expect_end, expect_reset, ping};
use crate::watchdog::{eventually, watched};

pub(crate) type Secured = StreamOwned<ServerConnection, TcpStream>;

/// What a backend serves with: a certificate in a directory, which it may ask clients for too.
pub(crate) fn server(
    at: &Path,
    versions: &[&'static SupportedProtocolVersion],
    asks: Option<&Authority>,
) -> Arc<ServerConfig> {
    let chain = CertificateDer::from_pem_file(at.with_extension("pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(at.with_extension("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match asks {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![chain], key).unwrap();
    config.alpn_protocols = vec![b"echo".to_vec()];
    Arc::new(config)
}

/// The same, with one certificate for clients that ask for a name and another for those that don't.
fn server_by_name(named: &Path, other: &Path) -> Arc<ServerConfig> {
    #[derive(Debug)]
    struct ByName([Arc<CertifiedKey>; 2]);

    impl ResolvesServerCert for ByName {
        fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(
                &self.0[usize::from(hello.server_name().is_none())],
            ))
        }
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let keys = [named, other].map(|at| {
        let chain = CertificateDer::from_pem_file(at.with_extension("pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(at.with_extension("key")).unwrap();
        Arc::new(CertifiedKey::from_der(vec![chain], key, &provider).unwrap())
    });
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap();
    let builder = builder.with_no_client_auth();
    Arc::new(builder.with_cert_resolver(Arc::new(ByName(keys))))
}

/// A backend that speaks TLS, and does this with each client whose handshake is done.
pub(crate) fn secured(
    config: Arc<ServerConfig>,
    serve: impl Fn(Secured) + Send + Sync + 'static,
) -> Backend {
    Backend::tcp("127.0.0.1:0", move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        serve(stream);
    })
}

/// Echoes to the end that its client has told, and tells its own.
pub(crate) fn echo_to_close(mut stream: Secured) {
    let mut part = [0; 16_384];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        stream.write_all(&part[..count]).unwrap();
    }
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// A balancer whose pools each have some backends and these settings of `tls`; each has a listener.
pub(crate) fn start(launch: Launch, pools: &[(&str, &[&str])]) -> Balancer {
    let numbered = || pools.iter().enumerate();
    let listeners = numbered()
        .map(|(i, _)| format!("(name: \"l{i}\", bind: \"127.0.0.1:0\", pool: \"p{i}\"),"));
    let written = numbered().map(|(i, (settings, backends))| {
        format!("(name: \"p{i}\", {settings}, backends: {backends:?}),")
    });
    let fields = [
        "standard",
        "backend_tls_version",
        "backend_tls_cipher",
        "backend_tls_alpn",
        "backend_tls_resumed",
        "backend_tls_us",
        "backend_tls_error",
    ];
    let config = format!(
        "(workers: 1, access_log: (to: \"-\", fields: {fields:?}), listeners: [{}], pools: [{}])",
        listeners.collect::<String>(),
        written.collect::<String>(),
    );
    launch.file(&config).start()
}

/// A balancer that is yet to start, with an authority that it knows as `ca.pem`.
pub(crate) fn prepared(listeners: usize) -> (Launch, Authority) {
    let launch = Launch::with_config("", listeners);
    let authority = Authority::new();
    authority.write(launch.dir(), "ca");
    (launch, authority)
}

pub(crate) fn line(balancer: &Balancer, with: &str) -> String {
    eventually("a line", || balancer.output().count(with) > 0);
    balancer.output().lines_with(with)[0].clone()
}

#[test]
fn bytes_come_through_both_ways_in_each_version() {
    watched(|| {
        let (launch, authority) = prepared(2);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let at = launch.dir().join("srv");
        let backends = [&TLS12, &TLS13].map(|version| {
            let config = server(&at, &[version], None);
            secured(config, echo_to_close)
        });
        let tls = "tls: (verify: \"ca.pem\", alpn: [\"echo\"])";
        let [old, new] = &backends;
        let balancer = start(launch, &[(tls, &[&old.address]), (tls, &[&new.address])]);
        let much: Vec<u8> = (0..2_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
        for (listener, version) in ["1.2", "1.3"].into_iter().enumerate() {
            for resumed in [false, true] {
                let mut client = connect(balancer.address_of(listener));
                ping(&mut client, b"small");
                let mut writer = client.try_clone().unwrap();
                let all = much.clone();
                let sent = std::thread::spawn(move || {
                    writer.write_all(&all).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut echoed = Vec::new();
                client.read_to_end(&mut echoed).unwrap();
                sent.join().unwrap();
                assert!(echoed == much, "the same bytes");
                let with = format!(" backend_tls_version={version} ");
                let with = || balancer.output().lines_with(&with);
                eventually("its line", || with().len() == 1 + usize::from(resumed));
                let line = &with()[usize::from(resumed)];
                let bytes = " bytes_up=2000005 bytes_down=2000005 ";
                let agreed = format!(" backend_tls_alpn=echo backend_tls_resumed={resumed} ");
                assert!(line.contains(bytes) && line.contains(&agreed), "{line}");
                assert!(line.contains(" reason=client_closed "), "{line}");
                assert!(line.ends_with(" backend_tls_error=-"), "{line}");
            }
        }
        balancer.finish();
    });
}

#[test]
fn a_backend_that_is_not_the_one_that_was_meant_gets_no_byte() {
    watched(|| {
        let (launch, authority) = prepared(1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "good", &["web.internal"]);
        authority.sign(&directory, "wrong", &["other.internal"]);
        authority.sign_until(&directory, "old", &["web.internal"], Some(2020));
        Authority::new().sign(&directory, "foreign", &["web.internal"]);
        let both = [&TLS13, &TLS12];
        let serve = |name: &str| {
            let config = server(&directory.join(name), &both, None);
            secured(config, |_| panic!("it takes a client"))
        };
        let refused = ["wrong", "old", "foreign"].map(serve);
        let plain = Backend::tcp("127.0.0.1:0", |mut stream| {
            let _ = stream.write_all(b"220 mail.test ESMTP\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let gone = Backend::tcp("127.0.0.1:0", |mut stream| {
            let _ = stream.read(&mut [0; 9_000]);
        });
        let good = secured(server(&directory.join("good"), &both, None), echo_to_close);
        let [wrong, old, foreign] = &refused;
        let all = [wrong, old, foreign, &plain, &gone, &good].map(|its| &*its.address);
        let settings = "tls: (verify: \"ca.pem\", sni: \"web.internal\"), strategy: \"first\", \
                        ejection: \"off\"";
        let balancer = start(launch, &[(settings, &all)]);
        // Each is tried in turn, and the last one takes the client.
        ping(&mut balancer.connect(), b"to the right one");
        let line = line(&balancer, "reason=client_");
        assert_eq!(line.matches("|tls_failed|").count(), 4, "{line}");
        let told = "pool `p0`: 5 connections to backends failed: 1 by not_tls, 3 by \
                    bad_backend_certificate, 1 by left, 5 in all";
        eventually("it is told", || balancer.log().count(told) > 0);
        balancer.finish();
    });
}

#[test]
fn a_backend_gets_the_certificate_that_it_asks_for() {
    watched(|| {
        let (launch, authority) = prepared(2);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        authority.sign(&directory, "own", &["balancer"]);
        let config = server(&directory.join("srv"), &[&TLS12], Some(&authority));
        let backend = secured(config, echo_to_close);
        let own = "tls: (verify: \"ca.pem\", certificate: (certificate: \"own.pem\", key: \
                   \"own.key\"))";
        let to: &[&str] = &[&backend.address];
        let balancer = start(launch, &[(own, to), ("tls: (verify: \"ca.pem\")", to)]);
        ping(&mut balancer.connect(), b"let in");
        expect_reset(&mut connect(balancer.address_of(1)));
        let line = line(&balancer, "reason=connect_failed");
        assert!(line.contains("a client certificate"), "{line}");
        balancer.finish();
    });
}

#[test]
fn only_an_end_that_was_told_is_an_end() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let config = server(&launch.dir().join("srv"), &[&TLS13], None);
        let backend = secured(config, |mut stream| {
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"half").unwrap();
            if &asked == b"told" {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
            if &asked == b"junk" {
                stream.sock.write_all(&[0xEE; 300]).unwrap();
            }
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let _ = stream.sock.read_to_end(&mut Vec::new());
        });
        let balancer = start(
            launch,
            &[("tls: (verify: \"ca.pem\")", &[&backend.address])],
        );
        let ask = |what: &[u8; 4]| {
            let mut client = balancer.connect();
            client.write_all(what).unwrap();
            client
        };
        let after_half = |what: &[u8; 4]| {
            let mut client = ask(what);
            let mut half = [0; 4];
            client.read_exact(&mut half).unwrap();
            assert_eq!(&half, b"half");
            client
        };
        expect_end(&mut after_half(b"told"));
        expect_reset(&mut after_half(b"cut."));
        // What came before it may be lost with it.
        let error = ask(b"junk").read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        for reason in [
            "backend_closed",
            "backend_tls_truncated",
            "backend_tls_failed",
        ] {
            line(&balancer, &format!("reason={reason} "));
        }
        // A server that spoke TLS does not stand at a wrong port.
        let junk = line(&balancer, "reason=backend_tls_failed ");
        let why = "backend_tls_error=\"the server breaks the rules of TLS, after the handshake\"";
        assert!(junk.ends_with(why), "{junk}");
        let told = "1 connection to backends failed by protocol, 1 in all (such as backend";
        eventually("it is told", || balancer.log().count(told) > 0);
        balancer.finish();
    });
}

#[test]
fn what_came_before_a_cut_reaches_a_client_that_is_slow() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let config = server(&launch.dir().join("srv"), &[&TLS13], None);
        let much: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
        let answer = much.clone();
        let backend = secured(config, move |mut stream| {
            stream.read_exact(&mut [0; 3]).unwrap();
            let _ = stream.write_all(&answer);
            // As many do: it ends without a word.
        });
        let settings = "tls: (verify: \"ca.pem\")";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        let mut client = balancer.connect();
        client.write_all(b"ask").unwrap();
        let mut answered = vec![0; much.len()];
        client.read_exact(&mut answered[..100_000]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        client.read_exact(&mut answered[100_000..]).unwrap();
        assert!(answered == much, "the same bytes");
        expect_reset(&mut client);
        line(&balancer, "reason=backend_tls_truncated ");
        balancer.finish();
    });
}

#[test]
fn a_backend_that_leaves_after_its_client_is_at_no_fault() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let config = server(&launch.dir().join("srv"), &[&TLS13], None);
        let backend = secured(config, |mut stream| {
            let mut part = [0; 100];
            while let Ok(count @ 1..) = stream.read(&mut part) {
                stream.write_all(&part[..count]).unwrap();
            }
        });
        let settings = "tls: (verify: \"ca.pem\")";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        let mut client = balancer.connect();
        ping(&mut client, b"x");
        drop(client);
        line(&balancer, "reason=client_closed ");
        balancer.finish();
    });
}

#[test]
fn a_backend_that_hangs_up_behind_its_handshake_is_ejected() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let at = launch.dir().join("srv");
        let config = || server(&at, &[&TLS13], None);
        let hangs_up = secured(config(), drop);
        let good = secured(config(), echo_to_close);
        let settings = "tls: (verify: \"ca.pem\")";
        let balancer = start(launch, &[(settings, &[&hangs_up.address, &good.address])]);
        // The tickets that it sends are no answer.
        eventually("it is ejected", || {
            let mut client = balancer.connect();
            client
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let _ = client.read(&mut [0; 9]);
            !balancer.events("backend_ejected").is_empty()
        });
        ping(&mut balancer.connect(), b"to the other one");
        let line = line(&balancer, "reason=backend_tls_truncated ");
        assert!(line.contains(" first_byte_us=- "), "{line}");
        balancer.finish();
    });
}

#[test]
fn tls_may_be_at_both_ends_and_a_server_may_speak_first() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        authority.sign(launch.dir(), "web", &["web.test"]);
        let config = server(&launch.dir().join("srv"), &[&TLS13], None);
        let backend = secured(config, |mut stream| {
            stream.write_all(b"220 ready\r\n").unwrap();
            echo_to_close(stream);
        });
        let config = format!(
            "(workers: 1, access_log: \"off\", listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", \
             tls: (certificates: [(certificate: \"web.pem\", key: \"web.key\")]))], pools: \
             [(name: \"p\", tls: (verify: \"ca.pem\"), send_proxy: \"off\", backends: \
             [\"{}\"])])",
            backend.address
        );
        let balancer = launch.file(&config).start();
        let name = ServerName::try_from("web.test").unwrap();
        let connection = ClientConnection::new(authority.client(|_| {}), name).unwrap();
        let mut client = StreamOwned::new(connection, balancer.connect());
        let mut greeting = [0; 11];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        ping(&mut client, b"x");
        client.conn.send_close_notify();
        client.flush().unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
        balancer.finish();
    });
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    watched(|| {
        let (launch, authority) = prepared(1);
        authority.sign(launch.dir(), "srv", &["127.0.0.1"]);
        let config = server(&launch.dir().join("srv"), &[&TLS13], None);
        let backend = Backend::tcp("127.0.0.1:0", move |mut stream| {
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            assert_eq!(&header, b"PROXY TC");
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte).unwrap();
            }
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            echo(StreamOwned::new(connection, stream));
        });
        let settings = "tls: (verify: \"ca.pem\"), send_proxy: \"v1\"";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        ping(&mut balancer.connect(), b"behind it");
        balancer.finish();
    });
}

/// A check with these settings, whose first probe decides.
fn check(more: &str) -> String {
    format!("check: (interval: \"1s\", rise: 1, initial: \"down\", {more})")
}

/// What is logged of a backend.
fn state(pool: usize, backend: &str, word: &str) -> String {
    format!("backend `{backend}` of pool `p{pool}` is {word}")
}

#[test]
fn a_check_speaks_tls_as_clients_do() {
    watched(|| {
        let types = [
            "type: \"tcp\"",
            "type: \"tls\"",
            "type: \"send_expect\", send: \"x\", expect: \"x\", tls: true",
            "type: \"tls\", tls: (policy: \"modern\")",
        ];
        let (launch, authority) = prepared(types.len() + 1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "good", &["127.0.0.1"]);
        authority.sign_until(&directory, "old", &["127.0.0.1"], Some(2020));
        let [good, old] = ["good", "old"].map(|name| {
            let config = server(&directory.join(name), &[&TLS13], None);
            secured(config, echo_to_close)
        });
        let tls = "tls: (verify: \"ca.pem\")";
        let pools = types.map(|more| format!("{tls}, {}", check(more)));
        let plain = format!("{tls}, {}", check("type: \"tcp\", tls: false"));
        let pools = pools.iter().chain([&plain]);
        let alone: [&str; 1] = [&old.address];
        let mut pools: Vec<_> = pools.map(|settings| (&**settings, &alone[..])).collect();
        let both: [&str; 2] = [&good.address, &old.address];
        pools[0].1 = &both;
        let balancer = start(launch, &pools);
        for pool in 0..types.len() {
            let down = state(pool, &old.address, "down: TLS: the certificate has expired");
            eventually("it is down", || balancer.log().count(&down) > 0);
        }
        let good = state(0, &good.address, "up");
        eventually("it is up", || balancer.log().count(&good) > 0);
        let plain = state(types.len(), &old.address, "up");
        eventually("no handshake is made", || balancer.log().count(&plain) > 0);
        for _ in 0..4 {
            ping(&mut balancer.connect(), b"x");
        }
        eventually("four lines", || balancer.output().count("attempts=1 ") == 4);
        balancer.finish();
    });
}

/// Their hellos are the same, and what they take of the answer.
#[test]
fn a_backend_that_serves_clients_passes_its_check() {
    watched(|| {
        let (launch, authority) = prepared(2);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "named", &["localhost"]);
        authority.sign(&directory, "other", &["other.internal"]);
        let by_name = server_by_name(&directory.join("named"), &directory.join("other"));
        let by_name = secured(by_name, echo_to_close);
        authority.sign(&directory, "silent", &["127.0.0.1"]);
        let mut silent = server(&directory.join("silent"), &[&TLS13], None);
        Arc::get_mut(&mut silent).unwrap().alpn_protocols.clear();
        let no_protocol = secured(silent, echo_to_close);
        let host = by_name.address.replace("127.0.0.1", "localhost");
        let settings = [
            "tls: (verify: \"ca.pem\")",
            "tls: (verify: \"ca.pem\", alpn: [\"echo\"])",
        ];
        let settings = settings.map(|tls| format!("{tls}, {}", check("type: \"tcp\"")));
        let [first, second] = settings.each_ref().map(|settings| &**settings);
        let balancer = start(
            launch,
            &[(first, &[&host]), (second, &[&no_protocol.address])],
        );
        for (pool, backend) in [&host, &no_protocol.address].into_iter().enumerate() {
            let up = state(pool, backend, "up");
            eventually("it is up", || balancer.log().count(&up) > 0);
            ping(&mut connect(balancer.address_of(pool)), b"x");
        }
        balancer.finish();
    });
}

/// With TLS 1.3 it does so after the handshake.
#[test]
fn a_check_finds_that_a_backend_refuses_our_certificate() {
    watched(|| {
        let (launch, authority) = prepared(2);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        authority.sign(&directory, "own", &["balancer"]);
        let config = server(&directory.join("srv"), &[&TLS13], Some(&authority));
        let backend = secured(config, echo_to_close);
        let check = check("type: \"tcp\"");
        let bare = format!("tls: (verify: \"ca.pem\"), {check}");
        let own = format!(
            "tls: (verify: \"ca.pem\", certificate: (certificate: \"own.pem\", key: \
             \"own.key\")), {check}"
        );
        let to: &[&str] = &[&backend.address];
        let balancer = start(launch, &[(&bare, to), (&own, to)]);
        let refused = "down: TLS: handshake refused: the server requires a client certificate";
        for expected in [
            state(0, &backend.address, refused),
            state(1, &backend.address, "up"),
        ] {
            eventually("it is found", || balancer.log().count(&expected) > 0);
        }
        balancer.finish();
    });
}

#[test]
fn other_authorities_take_the_place_of_those_before() {
    watched(|| {
        let (launch, first) = prepared(1);
        let next = Authority::new();
        let directory = launch.dir().to_owned();
        next.sign(&directory, "srv", &["127.0.0.1"]);
        let config = server(&directory.join("srv"), &[&TLS13], None);
        let backend = secured(config, echo_to_close);
        let settings = "tls: (verify: \"ca.pem\"), ejection: \"off\"";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        expect_reset(&mut balancer.connect());
        std::fs::write(directory.join("ca.pem"), "nothing").unwrap();
        eventually("it is said", || {
            balancer.log().count("what they held before stays in force") > 0
        });
        next.write(&directory, "ca");
        eventually("they are in force", || {
            balancer
                .log()
                .count("pool `p0`: what its files hold now is in force")
                > 0
        });
        ping(&mut balancer.connect(), b"known now");
        drop(first);
        balancer.finish();
    });
}

#[test]
fn flags_say_which_backends_speak_tls() {
    watched(|| {
        let (launch, authority) = prepared(1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["web.internal"]);
        let config = server(&directory.join("srv"), &[&TLS13], None);
        let backend = secured(config, echo_to_close);
        let ca = directory.join("ca.pem");
        let to = format!("tls:{}", backend.address);
        let balancer = Launch::to(&[to])
            .flag("--backend-ca", ca.to_str().unwrap())
            .flag("--backend-name", "web.internal")
            .start();
        ping(&mut balancer.connect(), b"x");
        balancer.finish();
        let plain = Launch::to(std::slice::from_ref(&backend.address));
        let (status, log) = plain.flag("--backend-name", "web.internal").run();
        assert_eq!(status.code(), Some(2));
        let sentence = "--backend-name has no effect without a backend that speaks TLS";
        assert!(log.contains(sentence), "{log}");
    });
}

#[test]
fn a_handshake_that_is_not_answered_has_the_time_of_a_connect() {
    watched(|| {
        let (launch, _) = prepared(1);
        let silent = Backend::tcp("127.0.0.1:0", |mut stream| {
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let config = format!(
            "(workers: 1, access_log: (to: \"-\"), listeners: [(bind: \"127.0.0.1:0\", pool: \
             \"p\", attempts: 1, timeouts: (connect: \"300ms\"))], pools: [(name: \"p\", tls: \
             (verify: \"ca.pem\"), backends: [\"{}\"])])",
            silent.address
        );
        let balancer = launch.file(&config).start();
        expect_reset(&mut balancer.connect());
        line(&balancer, "reason=connect_timeout ");
        // One that leaves before is not held.
        let gone = balancer.connect();
        eventually("it is connected", || silent.accepted() == 2);
        crate::peers::reset(gone);
        line(&balancer, "reason=client_reset ");
        balancer.finish();
    });
}

#[test]
fn a_check_shows_the_certificate_that_the_pool_has_now() {
    watched(|| {
        let (launch, authority) = prepared(1);
        let directory = launch.dir().to_owned();
        authority.sign(&directory, "srv", &["127.0.0.1"]);
        Authority::new().sign(&directory, "own", &["balancer"]);
        let config = server(&directory.join("srv"), &[&TLS12], Some(&authority));
        let backend = secured(config, echo_to_close);
        let settings = "tls: (verify: \"ca.pem\", certificate: (certificate: \"own.pem\", key: \
                        \"own.key\")), check: (type: \"tcp\", interval: \"100ms\", timeout: \
                        \"100ms\", rise: 1, fall: 1)";
        let balancer = start(launch, &[(settings, &[&backend.address])]);
        let state = |word: &str| format!("backend `{}` of pool `p0` is {word}", backend.address);
        eventually("it is down", || balancer.log().count(&state("down")) > 0);
        authority.sign(&directory, "own", &["balancer"]);
        eventually("it is up", || balancer.log().count(&state("up")) > 0);
        ping(&mut balancer.connect(), b"let in");
        balancer.finish();
    });
}
