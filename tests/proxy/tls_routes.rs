//! What `route` and `explain` say of clients of a listener that ends TLS, and what becomes of them.

use std::io::{Read, Write};
use std::path::Path;

use crate::authority::Authority;
use crate::balancer::{Balancer, Launch};
use crate::peers::Backend;
use crate::tls::secured;
use crate::watchdog::watched;

/// A client, as it is asked about and as it connects.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    sni: &'static str,
    alpn: &'static [&'static str],
    shows_certificate: bool,
    host: &'static str,
    path: &'static str,
    speaks_ssh: bool,
}

impl Client {
    fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec!["--client", "127.0.0.1"];
        let texts = [
            ("--sni", self.sni),
            ("--http-host", self.host),
            ("--http-path", self.path),
        ];
        for (flag, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
            flags.extend([flag, value]);
        }
        let alpn = self.alpn.iter();
        flags.extend(alpn.flat_map(|name| ["--alpn", name]));
        if self.shows_certificate {
            flags.extend(["--tls-client", "cn=robot", "--tls-client", "dns=own.test"]);
        }
        if self.speaks_ssh {
            flags.extend(["--protocol", "ssh"]);
        }
        flags
    }

    /// Connects, says all of it, and leaves.
    fn visit(&self, balancer: &Balancer, authority: &Authority, own: &Path) {
        let own = self.shows_certificate.then_some(own);
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let config = authority.client_of(&versions, own, |config| {
            config.enable_sni = !self.sni.is_empty();
            let offers = self.alpn.iter().map(|name| name.as_bytes().to_vec());
            config.alpn_protocols = offers.collect();
        });
        let name = if self.sni.is_empty() {
            "web.test"
        } else {
            self.sni
        };
        let mut client = secured(balancer, &config, name);
        let is_done = client.conn.complete_io(&mut client.sock).is_ok();
        let agrees_on_http2 = is_done && client.conn.alpn_protocol() == Some(b"h2");
        let request = match self.path {
            _ if self.speaks_ssh => "SSH-2.0-client\r\n".to_owned(),
            _ if agrees_on_http2 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
            path => {
                let path = if path.is_empty() { "/" } else { path };
                format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)
            }
        };
        // One that is refused is reset.
        let _ = client.write_all(request.as_bytes());
        let _ = client.flush();
        let _ = client.read(&mut [0]);
    }
}

fn clients() -> Vec<Client> {
    let base = Client {
        sni: "b.wild.test",
        host: "d.test",
        ..Client::default()
    };
    vec![
        base,
        Client {
            sni: "a.wild.test",
            host: "c.test",
            ..base
        },
        Client {
            host: "c.test",
            ..base
        },
        Client {
            path: "/api/x",
            ..base
        },
        Client {
            path: "/own",
            ..base
        },
        // A name that no certificate is for, and none.
        Client {
            sni: "other.test",
            ..base
        },
        Client {
            sni: "",
            host: "c.test",
            ..base
        },
        // The listener prefers `y`.
        Client {
            alpn: &["x"],
            host: "c.test",
            ..base
        },
        Client {
            alpn: &["x", "y"],
            host: "c.test",
            ..base
        },
        Client {
            alpn: &["z"],
            host: "c.test",
            ..base
        },
        // Requests of HTTP/2 are not read.
        Client {
            alpn: &["h2"],
            host: "c.test",
            ..base
        },
        Client {
            shows_certificate: true,
            host: "c.test",
            ..base
        },
        Client {
            speaks_ssh: true,
            host: "",
            ..base
        },
    ]
}

const ROUTES: &str = "(sni: [\"a.wild.test\"], pool: \"name\"), \
                      (tls_client: [\"cn=robot\"], pool: \"robot\"), \
                      (alpn: [\"x\"], pool: \"x\"), (http_host: [\"c.test\"], pool: \"host\"), \
                      (http_path: [\"/api/\"], pool: \"path\"), \
                      (protocol: [\"ssh\"], pool: \"ssh\"), \
                      (client: [\"127.0.0.0/8\"], http_path: [\"/own\"], pool: \"refuse\")";
const POOLS: [&str; 7] = ["rest", "name", "robot", "x", "host", "path", "ssh"];

/// A listener that ends TLS and asks for certificates of clients, and one where TLS passes through.
fn launch(authority: &Authority, clients: &Authority, required: &str) -> (Balancer, Backend) {
    let backend = Backend::echo();
    let launch = Launch::with_config("", 2);
    authority.sign(launch.dir(), "wild", &["*.wild.test"]);
    clients.write(launch.dir(), "clients");
    clients.sign_client(launch.dir(), "own", "robot");
    let pools =
        POOLS.map(|name| format!("(name: \"{name}\", backends: [\"{}\"]),", backend.address));
    let config = format!(
        "(workers: 1, access_log: (to: \"-\", fields: [\"listener\", \"pool\", \"reason\"]), \
         listeners: [(name: \"edge\", bind: \"127.0.0.1:0\", pool: \"rest\", routes: [{ROUTES}], \
         tls: (certificates: [(certificate: \"wild.pem\", key: \"wild.key\")], \
         alpn: [\"y\", \"x\", \"h2\"], unknown_name: \"refuse\", \
         clients: (ca: \"clients.pem\", certificate: \"{required}\"))), \
         (name: \"through\", bind: \"127.0.0.1:0\", pool: \"rest\")], pools: [{}])",
        pools.concat()
    );
    (launch.file(&config).start(), backend)
}

#[test]
fn a_client_goes_where_it_was_said_to_go() {
    watched(|| {
        let (authority, others) = (Authority::new(), Authority::new());
        for required in ["optional", "required"] {
            let (balancer, _backend) = launch(&authority, &others, required);
            let own = balancer.dir().join("own");
            for (nth, client) in clients().into_iter().enumerate() {
                let flags = client.flags();
                let said = balancer.ask(&[&["route", "edge"], &*flags].concat());
                let explained = [&["explain", "--listener", "edge"], &*flags].concat();
                let explained = balancer.ask(&explained);
                client.visit(&balancer, &authority, &own);
                let line = balancer.output().lines(nth + 1).pop().unwrap();
                let expected = match said["refused"].as_str() {
                    Some(reason) => {
                        assert_eq!(explained["refused"], true, "{client:?}: {explained}");
                        assert_eq!(explained["decision"]["why"], reason);
                        format!("reason={reason}")
                    }
                    None => {
                        assert_eq!(explained["pool"], said["pool"], "{client:?}: {explained}");
                        format!("pool={} ", said["pool"].as_str().unwrap())
                    }
                };
                assert!(line.contains(&expected), "{client:?}: {line}, but {said}");
            }
            balancer.finish();
        }
    });
}

#[test]
fn answers_say_what_was_not_given() {
    watched(|| {
        let (authority, others) = (Authority::new(), Authority::new());
        let (balancer, _backend) = launch(&authority, &others, "required");
        let says = |arguments: &[&str]| {
            let said = balancer.ask(&[&["route", "edge"], arguments].concat());
            said["says"].as_str().unwrap().to_owned()
        };
        let own = ["--tls-client", "cn=robot"];
        assert!(says(&own).ends_with("(`--sni` gives one)"));
        let sni = ["--sni", "b.wild.test"];
        assert!(says(&sni).ends_with("has shown no certificate (`--tls-client` gives one)"));
        let both = [&sni[..], &["--tls-client", "cn=x"]].concat();
        // Its address is asked for by a route of another path.
        assert!(!says(&both).contains("--client"), "{}", says(&both));
        let path = [&both[..], &["--http-path", "/own"]].concat();
        assert!(says(&path).contains("(`--client`)"), "{}", says(&path));
        // Where TLS passes through, nothing inside of it is known.
        let arguments = [
            "route",
            "through",
            "--sni",
            "a.test",
            "--http-host",
            "b.test",
        ];
        let (_, why) = balancer.refusal(&arguments);
        assert!(
            why.contains("listener `through`, where TLS does not end"),
            "{why}"
        );
        // Of several listeners each is said.
        let arguments = [
            "explain",
            "--client",
            "127.0.0.1",
            "--sni",
            "b.wild.test",
            "rest",
        ];
        let words = balancer.words(&arguments);
        assert!(
            words.contains("But listener `edge` refuses it: its TLS fails"),
            "{words}"
        );
        assert!(
            words.contains("listener `through` has no routes"),
            "{words}"
        );
        balancer.finish();
    });
}
