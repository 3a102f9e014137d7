//! The recipes of docs/routing.md: each is run as it stands there, with other ports, and each
//! client of its table reaches the server that the table says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{connect, expect_reset};
use crate::stage::Guest;
use crate::watchdog::watched;

const DOC: &str = include_str!("../../docs/routing.md");

/// A recipe: its heading, its configuration, and the rows of its table.
struct Recipe {
    title: &'static str,
    config: &'static str,
    rows: Vec<Row>,
}

/// A client, and what becomes of it, in the words of the document.
#[derive(Debug)]
struct Row {
    client: &'static str,
    outcome: &'static str,
}

impl Recipe {
    fn all() -> Vec<Self> {
        let (_, all) = DOC.split_once("\n## Recipes\n").expect("it has recipes");
        let all = all.split("\n## ").next().unwrap();
        all.split("\n### ").skip(1).map(Self::read).collect()
    }

    fn read(text: &'static str) -> Self {
        let (title, rest) = text.split_once('\n').unwrap();
        let config = rest.split_once("```ron\n").expect(title).1;
        let (config, rest) = config.split_once("```").unwrap();
        let rows = rest.lines().filter(|line| line.starts_with("| "));
        let rows = rows.map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let mut next = || cells.next().expect("two cells");
            Row {
                client: next(),
                outcome: next(),
            }
        });
        Self {
            title,
            config,
            // Without the heading of the table.
            rows: rows.skip(1).collect(),
        }
    }

    /// The addresses of its servers: those with a host, but for the one that it listens on.
    fn servers(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = quoted(self.config).filter(|text| is_server(text)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Starts it in front of a fleet.
    fn start(&self, servers: &BTreeMap<&str, String>) -> Balancer {
        let mut text = self.config.replacen('(', "(workers: 2,", 1);
        for (written, own) in servers {
            text = text.replace(&format!("\"{written}\""), &format!("\"{own}\""));
        }
        let binds = quoted(self.config).filter(|text| text.starts_with("0.0.0.0:"));
        for bind in binds {
            text = text.replace(&format!("\"{bind}\""), "\"127.0.0.1:0\"");
        }
        Launch::with_config(&text, 1).workers(2).start()
    }

    fn serve(&self) {
        let written = self.servers();
        let fleet = Fleet::of(written.len());
        let servers = written.iter().copied().zip(fleet.addresses()).collect();
        let balancer = self.start(&servers);
        assert!(self.rows.len() > 1, "{}", self.title);
        for row in &self.rows {
            // Of a client that comes again, the next one.
            let reached = [(); 2].map(|()| row.visit(&balancer));
            let names = reached.map(|server| server.map(|number| written[number]));
            let wanted: Vec<_> = spans(row.outcome).collect();
            let told = format!("{}: {row:?} reached {names:?}", self.title);
            match names {
                [None, None] => assert_eq!(row.outcome, "refused", "{told}"),
                names => assert!(
                    names
                        .iter()
                        .all(|name| name.is_some_and(|name| wanted.contains(&name))),
                    "{told}"
                ),
            }
            if row.outcome.starts_with("always the same") {
                assert_eq!(names[0], names[1], "{told}");
            }
        }
        balancer.finish();
    }
}

impl Row {
    /// The number of the server that such a client reaches; `None`: it is refused.
    fn visit(&self, balancer: &Balancer) -> Option<usize> {
        let (header, first) = self.first_bytes();
        let mut stream = connect(balancer.address());
        stream
            .write_all(&[header.as_bytes(), &first].concat())
            .unwrap();
        if self.outcome == "refused" {
            expect_refusal(&mut stream, self.client.starts_with("a TLS"));
            return None;
        }
        let mut guest = Guest::welcome(stream);
        let own = guest.stream.local_addr().unwrap();
        let ports = [own.port(), balancer.address().port()];
        let header = match self.outcome.ends_with(", behind a header") {
            true => format!(
                "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
                ports[0], ports[1]
            ),
            false => String::new(),
        };
        let wanted = [header.as_bytes(), &first].concat();
        let mut echoed = vec![0; wanted.len()];
        guest.stream.read_exact(&mut echoed).unwrap();
        assert!(echoed == wanted, "{self:?}: all bytes as they came");
        Some(guest.leave())
    }

    /// What such a client sends before its server says anything, and what its proxy sends before.
    fn first_bytes(&self) -> (String, Vec<u8>) {
        let parts: Vec<_> = spans(self.client).collect();
        let kind = self.client.split(" `").next().unwrap();
        let mut header = String::new();
        let first = match (kind, &parts[..]) {
            ("a proxy's client at", [client]) => {
                header = format!("PROXY TCP4 {client} 192.0.2.1 7777 8080\r\n");
                b"GET / HTTP/1.1\r\n\r\n".to_vec()
            }
            ("a TLS client of", [name]) => hello(name, &[]),
            ("a TLS client of", [name, offer]) => hello(name, &[offer]),
            ("a request for", [target]) => {
                let (host, path) = target.split_at(target.find('/').unwrap());
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into()
            }
            ("a silent client", []) => Vec::new(),
            ("an SSH client", []) => b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
            ("an RDP client of", [user]) => connection_request(user),
            ("an MQTT client", [id]) => mqtt_connect(id),
            ("a PostgreSQL client of", [user, database]) => startup(user, database),
            _ => panic!("{self:?}: an unknown kind of client"),
        };
        (header, first)
    }
}

/// A refused client of TLS gets an alert, all others a reset.
fn expect_refusal(stream: &mut TcpStream, is_tls: bool) {
    if is_tls {
        let mut alert = [0; 7];
        stream.read_exact(&mut alert).unwrap();
        assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112], "unrecognized_name");
        return;
    }
    expect_reset(stream);
}

/// The hello of rustls for this name.
fn hello(name: &str, offers: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config
        .unwrap()
        .with_root_certificates(RootCertStore::empty());
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = offers
        .iter()
        .map(|offer| offer.as_bytes().to_vec())
        .collect();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The request of an RDP client ([MS-RDPBCGR], 2.2.1.1).
fn connection_request(user: &str) -> Vec<u8> {
    let cookie = format!("Cookie: mstshash={user}\r\n");
    let asks_for_tls = [1, 0, 8, 0, 1, 0, 0, 0];
    let header = [0xe0, 0, 0, 0, 0, 0];
    let length = header.len() + cookie.len() + asks_for_tls.len();
    let whole = u16::try_from(length + 5).unwrap().to_be_bytes();
    let length = u8::try_from(length).unwrap();
    let start = [&[3, 0], &whole[..], &[length], &header].concat();
    [&start, cookie.as_bytes(), &asks_for_tls].concat()
}

/// The first packet of an MQTT 3.1.1 client.
fn mqtt_connect(id: &str) -> Vec<u8> {
    let length = u8::try_from(12 + id.len()).unwrap();
    let id_length = u8::try_from(id.len()).unwrap();
    let fixed = [
        0x10, length, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, id_length,
    ];
    [&fixed, id.as_bytes()].concat()
}

/// The start of a PostgreSQL session without TLS.
fn startup(user: &str, database: &str) -> Vec<u8> {
    let parameters = format!("user\0{user}\0database\0{database}\0\0");
    let length = u32::try_from(8 + parameters.len()).unwrap();
    let version = 3_u32 << 16;
    let start = [length.to_be_bytes(), version.to_be_bytes()].concat();
    [&start, parameters.as_bytes()].concat()
}

/// Whether it is the address of a server.
fn is_server(text: &str) -> bool {
    let is_address = text.parse::<std::net::SocketAddr>().is_ok();
    is_address && !text.starts_with("0.0.0.0:")
}

/// What stands in double quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// What stands in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_client_of_a_recipe_reaches_its_server() {
    watched(|| {
        let all = Recipe::all();
        assert!(all.len() > 5, "{}", all.len());
        std::thread::scope(|scope| {
            for recipe in &all {
                scope.spawn(|| recipe.serve());
            }
        });
    });
}
