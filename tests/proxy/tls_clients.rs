//! What the certificates of clients say, with rustls as the clients.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use proxy_header::{ParseConfig, ProxyHeader};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, watched};

/// A listener that asks for certificates of `clients`, in the directory of a balancer.
struct World {
    authority: Authority,
    clients: Authority,
    launch: Launch,
}

impl World {
    fn new() -> Self {
        let launch = Launch::with_config("", 1);
        let (authority, clients) = (Authority::new(), Authority::new());
        authority.sign(launch.dir(), "web", &["web.test"]);
        clients.write(launch.dir(), "clients");
        Self {
            authority,
            clients,
            launch,
        }
    }

    fn dir(&self) -> &Path {
        self.launch.dir()
    }

    /// Starts it with these fields of its listener, and these pools.
    fn start(self, listener: &str, pools: &str) -> (Balancer, Authority) {
        let config = format!(
            "(workers: 1, access_log: (to: \"-\", fields: [\"tls_ja4\", \"tls_resumed\", \
             \"tls_client_subject\", \"tls_client_cn\", \"tls_client_san\", \"tls_client_serial\", \
             \"tls_client_fingerprint\", \"pool\", \"reason\"]), \
             listeners: [(bind: \"127.0.0.1:0\", {listener} tls: (certificates: \
             [(certificate: \"web.pem\", key: \"web.key\")], \
             clients: (ca: \"clients.pem\", certificate: \"optional\")))], pools: [{pools}])"
        );
        (self.launch.file(&config).start(), self.authority)
    }
}

fn secured(
    balancer: &Balancer,
    config: &Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, std::net::TcpStream> {
    let name = ServerName::try_from("web.test").unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(connection, balancer.connect())
}

#[test]
fn lines_and_lists_say_whom_a_certificate_names() {
    watched(|| {
        let (backend, world) = (Backend::echo(), World::new());
        world.clients.sign_client(world.dir(), "a", "robot 7\nx=y");
        let own = world.dir().join("a");
        let pool = format!("(name: \"p\", backends: [\"{}\"])", backend.address);
        let (balancer, authority) = world.start("pool: \"p\",", &pool);
        let ends = |client: &mut StreamOwned<ClientConnection, _>, lines| {
            client.conn.send_close_notify();
            client.conn.complete_io(&mut client.sock).unwrap();
            balancer.output().lines(lines).pop().unwrap()
        };
        let mut lines = 0;
        for (version, name) in [(&TLS12, "12"), (&TLS13, "13")] {
            let config = authority.client_of(&[version], Some(&own), |_| {});
            for resumed in ["false", "true"] {
                let mut client = secured(&balancer, &config);
                ping(&mut client, b"x");
                let listed = &balancer.ask(&["sessions"])[0]["tls_client"];
                assert_eq!(listed["subject"], "CN=robot 7\\0Ax=y");
                assert_eq!(listed["names"][0], "DNS:a.test");
                lines += 1;
                let line = ends(&mut client, lines);
                let text = |name: &str| listed[name].as_str().unwrap().to_owned();
                let (serial, fingerprint) = (text("serial"), text("fingerprint"));
                assert_eq!(fingerprint.len(), 64);
                // Its common name has a control character, and so is none.
                let want = format!(
                    "tls_resumed={resumed} tls_client_subject=\"CN=robot 7\\\\0Ax=y\" \
                     tls_client_cn=- tls_client_san=DNS:a.test tls_client_serial={serial} \
                     tls_client_fingerprint={fingerprint} "
                );
                let (ja4, rest) = line.split_once(' ').unwrap();
                assert!(rest.starts_with(&want), "{line}");
                let begin = format!("tls_ja4=t{name}d");
                assert!(ja4.starts_with(&begin) && ja4.len() == 44, "{line}");
            }
        }
        // One without a certificate is let in, without a name.
        let mut client = secured(&balancer, &authority.client(|_| {}));
        ping(&mut client, b"x");
        assert_eq!(balancer.ask(&["sessions"])[0]["tls_client"], Value::Null);
        let line = ends(&mut client, lines + 1);
        let nameless = "tls_client_subject=- tls_client_cn=- tls_client_san=- \
                      tls_client_serial=- tls_client_fingerprint=- ";
        assert!(line.contains(nameless), "{line}");
        balancer.finish();
    });
}

#[test]
fn a_header_to_backends_says_whom_a_certificate_names() {
    watched(|| {
        let ((listener, address), world) = (peers::listen(), World::new());
        world.clients.sign_client(world.dir(), "a", "robot 7");
        let own = world.dir().join("a");
        let pool = format!(
            "(name: \"p\", backends: [\"{address}\"], \
             send_proxy: (version: \"v2\", tlvs: [\"ssl\", \"crc32c\"]))"
        );
        let (balancer, authority) = world.start("pool: \"p\",", &pool);
        let said = |config: &Arc<ClientConfig>| {
            let mut client = secured(&balancer, config);
            client.write_all(b"x").unwrap();
            client.flush().unwrap();
            let mut backend = listener.accept().unwrap().0;
            peers::limit_waits(&backend);
            let mut first = Vec::new();
            while first.last() != Some(&b'x') {
                let mut more = [0; 512];
                let length = backend.read(&mut more).unwrap();
                first.extend_from_slice(&more[..length]);
            }
            backend.write_all(b"y").unwrap();
            // The tickets have come by then.
            client.read_exact(&mut [0]).unwrap();
            let (header, _) = ProxyHeader::parse(&first, ParseConfig::default()).unwrap();
            let ssl = header.ssl().unwrap();
            assert!(ssl.client_ssl());
            (
                (ssl.client_cert_conn(), ssl.client_cert_sess()),
                ssl.verify(),
                ssl.cn().map(str::to_owned),
                ssl.version().unwrap().to_owned(),
                ssl.cipher().unwrap().to_owned(),
            )
        };
        for (version, name, cipher) in [
            (&TLS12, "TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            (&TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ] {
            let config = authority.client_of(&[version], Some(&own), |_| {});
            for shown in [true, false] {
                let expected = (
                    (shown, true),
                    0,
                    Some("robot 7".to_owned()),
                    name.to_owned(),
                    cipher.to_owned(),
                );
                assert_eq!(said(&config), expected);
            }
            let (shown, verify, name, ..) = said(&authority.client_of(&[version], None, |_| {}));
            assert_eq!((shown, verify, name), ((false, false), 1, None));
        }
        balancer.finish();
    });
}

#[test]
fn routes_let_in_whom_they_name_alone() {
    watched(|| {
        let (greeting, world) = (peers::greeting(), World::new());
        world.clients.sign_client(world.dir(), "a", "robot");
        world.clients.sign_client(world.dir(), "b", "x");
        world.clients.sign_client(world.dir(), "c", "robot 2");
        let own = |name: &str| world.dir().join(name);
        let own = [Some(own("a")), Some(own("b")), Some(own("c")), None];
        let routes = "pool: \"p\", routes: [(tls_client: [\"cn=robot\", \"dns=b.test\"], \
                      pool: \"q\"), (pool: \"refuse\")],";
        let pools = format!(
            "(name: \"p\", backends: [\"{}\"]), (name: \"q\", backends: [\"{}\"], \
             strategy: (name: \"hash\", key: \"tls_client_cn\"))",
            peers::refusing_address(),
            greeting.address
        );
        let (balancer, authority) = world.start(routes, &pools);
        let [a, b, c, none] = own.map(|own| {
            let config = authority.client_of(&[&TLS13, &TLS12], own.as_deref(), |_| {});
            secured(&balancer, &config)
        });
        // They say nothing: the certificate tells all.
        for mut client in [a, b] {
            client.read_exact(&mut [0]).unwrap();
        }
        for mut client in [c, none] {
            client.read_exact(&mut [0]).unwrap_err();
        }
        let refused = || balancer.output().count("reason=no_route");
        eventually("two have no route", || refused() == 2);
        balancer.finish();
    });
}
