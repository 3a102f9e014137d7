//! PROXY headers to backends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use mahoraga::peek::proxy_protocol::{
    Endpoints, HeaderWriter, LOCAL_V1, LOCAL_V2, Tlv, kind, parse, write_v1,
};

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::peers;
use crate::watchdog::{eventually, watched};

/// A balancer with one pool of one backend, and that backend.
fn start(fields: &str) -> (Balancer, TcpListener) {
    let (backend, address) = peers::listen();
    let pool = format!("backends: [\"{address}\"], {fields}");
    (Launch::with_pool(&pool).start(), backend)
}

/// The header of a client.
fn header(version: &str, client: &TcpStream) -> Vec<u8> {
    let endpoints = Endpoints::Tcp {
        source: client.local_addr().unwrap(),
        destination: client.peer_addr().unwrap(),
    };
    let mut header = vec![0; 256];
    let length = match version {
        "v1" => write_v1(&mut header, &endpoints).unwrap(),
        _ => HeaderWriter::new(&mut header, &endpoints).unwrap().finish(),
    };
    header.truncate(length);
    header
}

/// What one read returns.
fn read_once(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    let length = stream.read(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn accept(backend: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = backend.accept().unwrap();
    peers::limit_waits(&stream);
    (stream, from)
}

#[test]
fn a_header_leaves_with_the_first_bytes_in_one_segment() {
    watched(|| {
        for version in ["v1", "v2"] {
            // The backend is connected to when the first bytes are there.
            let (balancer, backend) = start(&format!(
                "strategy: (name: \"hash\", key: \"http_host\"), send_proxy: \"{version}\""
            ));
            let mut client = balancer.connect();
            client.write_all(REQUEST).unwrap();
            let (mut served, _) = accept(&backend);
            let mut expected = header(version, &client);
            expected.extend(REQUEST);
            assert_eq!(
                read_once(&mut served).escape_ascii().to_string(),
                expected.escape_ascii().to_string()
            );
            served.write_all(b"answer").unwrap();
            drop(served);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"answer");
            drop(client);
            let line = &balancer.output().lines(1)[0];
            let fields = key_values(line);
            assert_eq!(fields["bytes_up"], REQUEST.len().to_string(), "{line}");
            assert_eq!(fields["bytes_down"], "6", "{line}");
            balancer.finish();
        }
    });
}

#[test]
fn a_server_that_speaks_first_gets_its_header_at_once() {
    watched(|| {
        let (balancer, backend) = start("send_proxy: \"v2\"");
        let mut client = balancer.connect();
        let (mut served, _) = accept(&backend);
        let expected = header("v2", &client);
        let mut got = vec![0; expected.len()];
        served.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        served.write_all(b"220 a.example\r\n").unwrap();
        assert_eq!(read_once(&mut client), b"220 a.example\r\n");
        // A stream follows, as it does without a header.
        let bytes: Vec<u8> = (0..STREAM).map(|n| (n / 7).to_le_bytes()[0]).collect();
        let sent = bytes.clone();
        let sender = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client
        });
        let mut got = vec![0; STREAM];
        served.read_exact(&mut got).unwrap();
        assert!(got == bytes, "the stream is another");
        drop((sender.join().unwrap(), served));
        let line = &balancer.output().lines(1)[0];
        assert_eq!(key_values(line)["bytes_up"], STREAM.to_string(), "{line}");
        balancer.finish();
    });
}

#[test]
fn a_header_says_what_the_hello_of_its_client_says() {
    watched(|| {
        let (balancer, backend) = start(
            "send_proxy: (version: \"v2\", \
             tlvs: [\"authority\", \"alpn\", \"unique_id\", \"crc32c\"])",
        );
        let two_offers = include_bytes!("../captures/curl.bin").to_vec();
        let mut one_offer = two_offers.clone();
        let at = one_offer
            .windows(12)
            .position(|some| some == b"\x02h2\x08http/1.1");
        one_offer[at.unwrap()..][..12].copy_from_slice(b"\x0bimap/1.1+x1");
        for (sent, name, alpn) in [
            (two_offers, Some("shop.example.com"), None),
            (one_offer, Some("shop.example.com"), Some("imap/1.1+x1")),
            (REQUEST.to_vec(), None, None),
        ] {
            let mut client = balancer.connect();
            client.write_all(&sent).unwrap();
            let (mut served, _) = accept(&backend);
            let bytes = read_once(&mut served);
            let header = parse(&bytes).unwrap().expect("a whole header");
            let value = |kind| {
                header
                    .tlvs
                    .value(kind)
                    .map(|value| str::from_utf8(value).unwrap())
            };
            assert_eq!((value(kind::AUTHORITY), value(kind::ALPN)), (name, alpn));
            assert!(header.tlvs.value(kind::CRC32C).is_some());
            let sessions = balancer.ask(&["sessions"]);
            assert_eq!(
                sessions[0]["id"].as_str(),
                value(kind::UNIQUE_ID),
                "{sessions}"
            );
            assert!(bytes[header.length..] == sent, "{}", bytes.escape_ascii());
            drop((client, served));
            eventually("the session is over", || balancer.number("sessions") == 0);
        }
        balancer.finish();
    });
}

#[test]
fn each_backend_that_is_tried_gets_its_own_header() {
    watched(|| {
        let (backend, address) = peers::listen();
        let refusing = peers::refusing_address();
        let pool = format!(
            "strategy: \"first\", send_proxy: \"v1\", backends: [\"{refusing}\", \
             (address: \"{address}\", name: \"own\", send_proxy: \"v2\")]"
        );
        let balancer = Launch::with_pool(&pool).start();
        let arrives = || {
            let mut client = balancer.connect();
            client.write_all(b"hello").unwrap();
            let (mut served, _) = accept(&backend);
            let headers = ["v1", "v2"].map(|version| header(version, &client));
            client.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            served.read_to_end(&mut got).unwrap();
            (headers, got)
        };
        for (version, change) in [("v2", ""), ("v1", "pool"), ("v1", "v1"), ("off", "off")] {
            if !change.is_empty() {
                balancer.words(&["set", "backend", "own", "--send-proxy", change]);
                balancer.until_adopted();
            }
            let told = balancer.ask(&["backends"])[1]["send_proxy"].clone();
            assert_eq!(told.as_str().unwrap_or("off"), version);
            let ([v1, v2], got) = arrives();
            let mut expected = match version {
                "v1" => v1,
                "v2" => v2,
                _ => Vec::new(),
            };
            expected.extend(b"hello");
            assert_eq!(got, expected, "{change}");
        }
        balancer.finish();
    });
}

#[test]
fn a_client_without_an_address_is_said_to_be_the_balancers_own() {
    watched(|| {
        for (version, expected) in [("v1", LOCAL_V1), ("v2", LOCAL_V2)] {
            let (backend, address) = peers::listen();
            let launch = Launch::between("unix:front.sock", &[address]);
            let balancer = launch.flag("--send-proxy", version).start();
            let front = balancer.dir().join("front.sock");
            let client = UnixStream::connect(front).unwrap();
            let (mut served, _) = accept(&backend);
            let mut got = vec![0; expected.len()];
            served.read_exact(&mut got).unwrap();
            assert_eq!(got, expected);
            drop((client, served));
            balancer.finish();
        }
    });
}

#[test]
fn a_probe_begins_with_the_header_of_its_backend() {
    watched(|| {
        let (backend, address) = peers::listen();
        let pool = format!(
            "send_proxy: \"v2\", check: \"tcp\", \
             backends: [(address: \"{address}\", send_proxy: \"v1\")]"
        );
        let balancer = Launch::with_pool(&pool).start();
        let (mut probed, _) = accept(&backend);
        let mut got = vec![0; LOCAL_V1.len()];
        probed.read_exact(&mut got).unwrap();
        assert_eq!(got, LOCAL_V1);
        drop((probed, backend));
        balancer.finish();
    });
}

#[test]
fn a_header_passes_on_what_the_one_before_it_says() {
    watched(|| {
        let (backend, address) = peers::listen();
        let balancer = Launch::with_config(
            &format!(
                "(workers: 1, listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", \
                 accept_proxy: [\"127.0.0.1\"])], pools: [(name: \"p\", backends: [\"{address}\"], \
                 send_proxy: (version: \"v2\", tlvs: [\"unique_id\", \"crc32c\"], relay: true))])"
            ),
            1,
        )
        .start();
        let pass_on = |header: &[u8]| {
            let mut proxy = balancer.connect();
            proxy.write_all(header).unwrap();
            let (mut served, _) = accept(&backend);
            let got = read_once(&mut served);
            proxy.shutdown(Shutdown::Write).unwrap();
            assert_eq!(served.read(&mut [0]).unwrap(), 0);
            got
        };
        let ends = Endpoints::Tcp {
            source: "192.0.2.1:56324".parse().unwrap(),
            destination: "198.51.100.7:443".parse().unwrap(),
        };
        let mut memory = vec![0; 4_096];
        let mut writer = HeaderWriter::new(&mut memory, &ends).unwrap();
        let long = [b'x'; 1_200];
        for (kind, value) in [
            (kind::ALPN, &b"h2"[..]),
            (kind::UNIQUE_ID, b"theirs"),
            (0xe1, &long),
            (0xe0, b"own"),
        ] {
            writer.tlv(Tlv { kind, value }).unwrap();
        }
        let length = writer.finish_with_checksum().unwrap();
        let got = pass_on(&memory[..length]);
        let header = parse(&got).unwrap().expect("a whole header");
        assert_eq!((header.endpoints, header.length), (ends, got.len()));
        let kinds: Vec<_> = header.tlvs.map(|tlv| tlv.kind).collect();
        assert_eq!(kinds, [kind::UNIQUE_ID, kind::ALPN, 0xe0, kind::CRC32C]);
        assert_eq!(header.tlvs.value(kind::UNIQUE_ID), Some(&b"0-1"[..]));
        assert_eq!(header.tlvs.value(0xe0), Some(&b"own"[..]));
        assert_eq!(balancer.number("proxy_tlvs_dropped"), 1);
        // A connection of the proxy's own stays one.
        let got = pass_on(LOCAL_V2);
        let header = parse(&got).unwrap().expect("a whole header");
        assert_eq!(header.endpoints, Endpoints::Local);
        balancer.finish();
    });
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
/// Enough to be spliced.
const STREAM: usize = 4 << 20;
