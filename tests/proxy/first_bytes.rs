//! Backends that are selected by a client's first bytes, which arrive as they were sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::bytes::Bytes;
use crate::fleet::Fleet;
use crate::peers::{self, Backend, expect_end};
use crate::stage::{Guest, Stage, proxy, source, tally};
use crate::watchdog::{eventually, heavy, watched};

/// A client's first message with the n-th value of a key. The variants of one value differ in
/// everything else.
type Message = fn(n: u32, variant: u32) -> Vec<u8>;

fn path(n: u32, variant: u32) -> Vec<u8> {
    format!("GET /item/{n}?v={variant} HTTP/1.1\r\nHost: h{variant}\r\n\r\n").into()
}

fn host(n: u32, variant: u32) -> Vec<u8> {
    let name = ["Shop", "shop"][variant as usize % 2];
    format!("GET /{variant} HTTP/1.1\r\nhost: {name}{n}.example:80{variant}\r\n\r\n").into()
}

fn cookie(n: u32, variant: u32) -> Vec<u8> {
    let lines = format!("Host: h{variant}\r\nCookie: a=b{variant}; SESSION=value{n}; c=d");
    format!("POST /{variant} HTTP/1.1\r\n{lines}\r\n\r\n").into()
}

fn name(n: u32, variant: u32) -> Vec<u8> {
    let mut hello = HELLO.to_vec();
    let name = format!(
        "{n:03}.{}.com",
        ["Example", "example"][variant as usize % 2]
    );
    replace(&mut hello, b"WWW.Example.com", name.as_bytes());
    // The session ID, which TLS 1.3 does not use.
    hello[SESSION_ID] = variant.to_be_bytes()[3];
    hello
}

fn session_id(n: u32, variant: u32) -> Vec<u8> {
    let mut hello = HELLO.to_vec();
    hello[SESSION_ID..SESSION_ID + 4].copy_from_slice(&n.to_be_bytes());
    replace(&mut hello, b"WWW", format!("{variant:03}").as_bytes());
    hello
}

fn user(n: u32, variant: u32) -> Vec<u8> {
    let negotiation = [1, 0, 8, 0, u8::try_from(variant).unwrap(), 0, 0, 0];
    let line = format!("Cookie: mstshash=user{n}\r\n");
    let rest = [line.as_bytes(), &negotiation].concat();
    let length = u8::try_from(11 + rest.len()).unwrap();
    let fixed = [3, 0, 0, length, length - 5, 0xe0, 0, 0, 0, 0, 0];
    [&fixed, &rest[..]].concat()
}

fn client_id(n: u32, variant: u32) -> Vec<u8> {
    let [id, user] = [format!("sensor-{n}"), format!("user{variant}")];
    let string = |text: &str| [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let head = b"\0\x04MQTT\x04\x82\0\x3c";
    let rest = [&head[..], &string(&id), &string(&user)].concat();
    [&[0x10, u8::try_from(rest.len()).unwrap()], &rest[..]].concat()
}

fn start(parameters: &str) -> Vec<u8> {
    let length = u32::try_from(8 + parameters.len()).unwrap();
    [&length.to_be_bytes(), b"\0\x03\0\0", parameters.as_bytes()].concat()
}

fn role(n: u32, variant: u32) -> Vec<u8> {
    start(&format!("database\0shop{variant}\0user\0ann{n}\0\0"))
}

fn database(n: u32, variant: u32) -> Vec<u8> {
    start(&format!("user\0ann{variant}\0database\0shop{n}\0\0"))
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).position(|some| some == old);
    bytes[at.unwrap()..][..new.len()].copy_from_slice(new);
}

const KEYS: [(&str, Message); 9] = [
    ("http_path", path),
    ("http_host", host),
    ("http_cookie(SESSION)", cookie),
    ("sni", name),
    ("tls_session_id", session_id),
    ("rdp_cookie", user),
    ("mqtt_client_id", client_id),
    ("postgres_user", role),
    ("postgres_database", database),
];

/// The limit of the wait for first bytes: longer than any machine takes over them.
pub(crate) fn hashed(fleet: &Fleet, key: &str) -> Launch {
    by_key(proxy("hash", fleet, &[]), key)
}

pub(crate) fn by_key(launch: Launch, key: &str) -> Launch {
    launch.flag("--key", key).flag("--peek-timeout", "1m")
}

/// Clients with one key get one backend, whatever else they send, from any address, and at another
/// balancer too.
#[test]
fn each_value_of_a_key_has_one_backend() {
    watched(|| {
        thread::scope(|scope| {
            for (key, message) in KEYS {
                scope.spawn(move || has_one_backend(key, message));
            }
        });
    });
}

fn has_one_backend(key: &str, message: Message) {
    let fleet = Fleet::of(3);
    let stage = Stage::start(hashed(&fleet, key).workers(2), "hash", fleet);
    let mut shuffled = stage.fleet.addresses();
    shuffled.rotate_left(1);
    let other = Launch::to(&shuffled).flag("--strategy", "hash");
    let other = by_key(other, key).start();
    // By chance a backend of three has none of them in one run of 10^10.
    let backends = (0..60).map(|n| {
        let backend = stage.call(source(n), &message(n, 0)).leave();
        let again = stage.call(source(100 + n), &message(n, 1)).leave();
        let mut client = peers::connect(other.address());
        client.write_all(&message(n, 2)).unwrap();
        let elsewhere = Guest::welcome(client).leave();
        assert_eq!([again, elsewhere], [backend; 2], "{key} {n}");
        backend
    });
    let counts = tally(3, backends);
    assert!(!counts.contains(&0), "{key}: {counts:?}");
    assert_eq!(stage.balancer.number("peek_misses"), 0, "{key}");
    other.finish();
    stage.balancer.finish();
}

/// Sends all of it, receives the number and then the same bytes again, to the end.
#[track_caller]
fn echoed(stage: &Stage, pieces: &[&[u8]]) -> usize {
    let mut client = peers::connect_from(source(1), stage.balancer.address());
    for piece in pieces {
        client.write_all(piece).unwrap();
        // A client that came later was served: so the worker has received the piece.
        stage.call(source(2), b"-\r\n").leave();
    }
    answered(client, &pieces.concat())
}

fn answered(client: TcpStream, all: &[u8]) -> usize {
    let Guest {
        mut stream,
        backend,
    } = Guest::welcome(client);
    let mut answer = vec![0; all.len()];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == all, "altered");
    stream.shutdown(Shutdown::Write).unwrap();
    expect_end(&mut stream);
    backend
}

#[test]
fn first_bytes_may_come_one_by_one() {
    watched(|| {
        thread::scope(|scope| {
            for (key, message) in KEYS {
                scope.spawn(move || {
                    let fleet = Fleet::of(5);
                    let stage = Stage::start(hashed(&fleet, key), "hash", fleet);
                    let backend = stage.call(source(3), &message(7, 0)).leave();
                    let first = message(7, 1);
                    // Sends its end, so that there is nothing more to wait for.
                    let cut = first.len().saturating_sub(90);
                    let (start, rest) = first.split_at(cut);
                    let pieces: Vec<_> = [start].into_iter().chain(rest.chunks(1)).collect();
                    assert_eq!(echoed(&stage, &pieces), backend, "{key}");
                    stage.finish();
                });
            }
        });
    });
}

/// Of eight records, and cut in the middle of each.
#[test]
fn a_hello_may_come_in_segments() {
    watched(|| {
        let fleet = Fleet::of(5);
        let stage = Stage::start(hashed(&fleet, "sni"), "hash", fleet);
        for n in 0..8 {
            let mut hello = RECORDS.to_vec();
            replace(&mut hello, b"records", format!("r{n:06}").as_bytes());
            let backend = stage.call(source(3), &hello).leave();
            let (one, two) = hello.split_at(100 + 150 * n);
            assert_eq!(echoed(&stage, &[one, two]), backend);
            let pieces: Vec<_> = hello.chunks(97).collect();
            assert_eq!(echoed(&stage, &pieces), backend);
        }
        stage.finish();
    });
}

/// A client may send any amount after its first bytes.
#[test]
fn a_megabyte_may_follow_at_once() {
    watched(|| {
        let fleet = Fleet::of(3);
        let stage = Stage::start(hashed(&fleet, "http_path"), "hash", fleet);
        for n in 0..3 {
            let backend = stage.call(source(3), &path(n, 0)).leave();
            let client = peers::connect(stage.balancer.address());
            let first = path(n, 1);
            let mut sender = client.try_clone().unwrap();
            let mut guest = thread::scope(|scope| {
                scope.spawn(|| {
                    sender.write_all(&first).unwrap();
                    Bytes::new(5).send(&mut sender, MB);
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                let mut guest = Guest::welcome(client);
                let mut received = vec![0; first.len()];
                guest.stream.read_exact(&mut received).unwrap();
                assert_eq!(received, first);
                Bytes::new(5).expect(&mut guest.stream, MB);
                guest
            });
            expect_end(&mut guest.stream);
            assert_eq!(guest.backend, backend);
        }
        stage.finish();
    });
}

/// The key lies beyond what the balancer reads: the client is served by its address, and counted.
#[test]
fn first_bytes_that_are_too_long_are_sent_on_as_they_are() {
    watched(|| {
        let fleet = Fleet::of(4);
        let launch = hashed(&fleet, "http_cookie(SESSION)");
        let stage = Stage::start(launch, "hash", fleet);
        let by_address = stage.call(source(1), b"-\r\n").leave();
        let misses = stage.balancer.number("peek_misses");
        let mut first = b"GET / HTTP/1.1\r\nX: ".to_vec();
        first.resize(20_000, b'x');
        first.extend_from_slice(b"\r\nCookie: SESSION=1\r\n\r\n");
        for pieces in [vec![&first[..]], first.chunks(1_000).collect()] {
            let mut client = peers::connect_from(source(1), stage.balancer.address());
            pieces
                .iter()
                .for_each(|piece| client.write_all(piece).unwrap());
            assert_eq!(answered(client, &first), by_address);
        }
        assert_eq!(stage.balancer.number("peek_misses"), misses + 2);
        stage.finish();
    });
}

/// The balancer recognises another protocol at once, and also the end of what a client sends.
#[test]
fn a_client_without_a_key_is_served_by_address_at_once() {
    watched(|| {
        let fleet = Fleet::of(4);
        let launch = hashed(&fleet, "http_host");
        let stage = Stage::start(launch.workers(2), "hash", fleet);
        let backends = (0..90).map(|n| {
            let others = stage.call(source(n), b"\x00\x01").leave();
            let mut client = peers::connect_from(source(n), stage.balancer.address());
            client.write_all(b"GET / HTTP").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut cut_short = Guest::welcome(client);
            let mut answer = Vec::new();
            cut_short.stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"GET / HTTP");
            assert_eq!(cut_short.backend, others);
            others
        });
        let counts = tally(4, backends);
        assert!(!counts.contains(&0), "{counts:?}");
        assert_eq!(stage.balancer.number("peek_misses"), 2 * 90);
        stage.finish();
    });
}

/// In the client's protocol the server may speak first.
#[test]
fn a_silent_client_is_served_by_address_after_the_peek_timeout() {
    watched(|| {
        let fleet = Fleet::of(4);
        let launch = proxy("hash", &fleet, &[]).flag("--key", "sni");
        let launch = launch.flag("--peek-timeout", "100ms");
        let stage = Stage::start(launch.workers(2), "hash", fleet);
        for n in 0..5 {
            let backend = stage.call(source(n), b"SSH-2.0-client\r\n").leave();
            assert_eq!(stage.call(source(n), b"").leave(), backend);
        }
        assert_eq!(stage.balancer.number("peek_misses"), 2 * 5);
        stage.finish();
    });
}

/// A balancer by the server name whose clients have this long for their first bytes.
fn by_name(fleet: &Fleet, listener: &str) -> Launch {
    let config = format!(
        "(workers: 2, access_log: \"-\", listeners: [\n\
         (bind: \"127.0.0.1:0\", pool: \"p\", {listener})],\n\
         pools: [(name: \"p\", strategy: (name: \"hash\", key: \"sni\"), backends: [{}])])",
        fleet.ron(&[])
    );
    Launch::with_config(&config, 1).workers(2)
}

#[test]
fn half_of_a_hello_is_passed_on_if_the_listener_says_so() {
    watched(|| {
        let fleet = Fleet::of(4);
        let launch = by_name(&fleet, "half_sent: \"pass\", timeouts: (peek: \"100ms\")");
        let stage = Stage::start(launch, "hash", fleet);
        for n in 0..5 {
            let backend = stage.call(source(n), b"SSH-2.0-client\r\n").leave();
            assert_eq!(stage.call(source(n), &HELLO[..9]).leave(), backend);
        }
        assert_eq!(stage.balancer.number("peek_misses"), 2 * 5);
        stage.balancer.finish();
    });
}

/// The deadline is of all first bytes: a client that drips gains nothing.
#[test]
fn a_hello_that_drips_or_stops_is_reset_at_the_deadline() {
    watched(|| {
        let fleet = Fleet::of(2);
        let launch = by_name(&fleet, "timeouts: (peek: \"2s\")");
        let balancer = launch.start();
        let events = balancer.follow();
        let mut dripping = peers::connect_from(source(1), balancer.address());
        let mut stopped = peers::connect_from(source(2), balancer.address());
        stopped.write_all(&HELLO[..200]).unwrap();
        let ends = HELLO.iter().any(|byte| {
            thread::sleep(Duration::from_millis(20));
            dripping.write_all(&[*byte]).is_err()
        });
        assert!(ends, "it dripped a whole hello");
        peers::expect_broken(&stopped);
        eventually("both are counted", || {
            balancer.number("closed.first_bytes_timeout") == 2
        });
        let lines = || balancer.output().lines_with("reason=first_bytes_timeout");
        eventually("both have a line", || lines().len() == 2);
        let event = events.next("first_bytes_timeout");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("first bytes"), "{message}");
        drop(events);
        assert!(lines().iter().all(|line| line.contains("backend=- ")));
        assert_eq!(fleet.accepted(), [0, 0]);
        balancer.finish();
    });
}

/// From three thousand sources. A hello is smaller than a page, and so is what it holds.
#[test]
fn thousands_of_half_sent_hellos_hold_little_and_are_gone_at_the_deadline() {
    heavy(|| {
        let fleet = Fleet::of(2);
        let balancer = by_name(&fleet, "timeouts: (peek: \"15s\")").start();
        let before = balancer.process.resident_bytes();
        let mut clients = Vec::new();
        for n in 0..HALF_SENT {
            let mut client = peers::connect_from(source(n), balancer.address());
            client.write_all(&HELLO[..200]).unwrap();
            clients.push(client);
        }
        eventually("a thousand of them hold a buffer at a time", || {
            balancer.number("buffers") > 1_000
        });
        let grown = balancer.process.resident_bytes().saturating_sub(before);
        // A buffer of 16 KiB begins anywhere in a page: its first bytes take two at most. Twice
        // that is for slots, timers and what the process does besides.
        let most = 4 * 4_096 * u64::from(HALF_SENT) + (8 << 20);
        assert!(grown <= most, "{grown} bytes");
        eventually("all are gone", || {
            balancer.number("closed.first_bytes_timeout") == u64::from(HALF_SENT)
        });
        assert_eq!(fleet.accepted(), [0, 0]);
        clients.iter().for_each(peers::expect_broken);
        balancer.finish();
    });
}

const HALF_SENT: u32 = 3_000;

/// More clients stop in their first bytes than there are buffers. Those without one are looked at
/// when more of them comes, and cost nothing until then.
#[test]
fn half_sent_hellos_beyond_the_memory_wait_without_a_try() {
    heavy(|| {
        let fleet = Fleet::of(2);
        let config = format!(
            "(workers: 1, memory: \"4MiB\", overload: \"off\",\n\
             listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", timeouts: (peek: \"2s\"))],\n\
             pools: [(name: \"p\", strategy: (name: \"hash\", key: \"sni\"), backends: [{}])])",
            fleet.ron(&[])
        );
        let balancer = Launch::with_config(&config, 1).start();
        let half = |_| {
            let mut client = balancer.connect();
            client.write_all(&HELLO[..200]).unwrap();
            client
        };
        let mut stopped: Vec<_> = (0..STOPPED).map(half).collect();
        eventually("buffers hold bytes", || balancer.number("buffers") > 100);
        let mut last = stopped.pop().unwrap();
        last.write_all(&HELLO[200..]).unwrap();
        Guest::welcome(last).leave();
        eventually("the others are gone at the deadline", || {
            balancer.number("closed.first_bytes_timeout") == STOPPED - 1
        });
        let in_vain = balancer.number("turns_in_vain");
        assert!(in_vain < STOPPED, "{in_vain} turns in vain");
        balancer.finish();
    });
}

/// Readers that stop have filled the memory. Clients come byte by byte and all at once.
#[test]
fn without_a_buffer_clients_are_looked_at_where_their_bytes_wait() {
    heavy(|| {
        let flood = Backend::tcp("127.0.0.1:0", |mut stream| {
            let chunk = vec![7; 64 * 1024];
            while stream.write_all(&chunk).is_ok() {}
        });
        let fleet = Fleet::of(3);
        let config = format!(
            "(workers: 1, memory: \"4MiB\", overload: \"off\", listeners: [\n\
             (bind: \"127.0.0.1:0\", pool: \"flood\"),\n\
             (name: \"keys\", bind: \"127.0.0.1:0\", pool: \"keys\", timeouts: (peek: \"1m\"))],\n\
             pools: [(name: \"flood\", backends: [\"{}\"]),\n\
             (name: \"keys\", strategy: (name: \"hash\", key: \"http_path\"), backends: [{}])])",
            flood.address,
            fleet.ron(&[])
        );
        let balancer = Launch::with_config(&config, 2).start();
        let expected = (0..5).map(|n| keyed(&balancer, n, false));
        let expected: Vec<_> = expected.collect();
        let stalled: Vec<_> = (0..400).map(|_| balancer.connect()).collect();
        eventually("buffers hold bytes", || balancer.number("buffers") > 100);
        thread::sleep(Duration::from_millis(500));
        for slowly in [false, true] {
            let found = (0..5).map(|n| keyed(&balancer, n, slowly));
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
        assert_eq!(balancer.number("peek_misses"), 0);
        stalled.into_iter().for_each(peers::reset);
        balancer.finish();
    });
}

/// The backend of a client with the n-th path.
fn keyed(balancer: &Balancer, n: u32, slowly: bool) -> usize {
    let mut client = peers::connect(balancer.address_of(1));
    for piece in path(n, 0).chunks(if slowly { 9 } else { 1_000 }) {
        client.write_all(piece).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    Guest::welcome(client).leave()
}

#[test]
fn clients_that_leave_while_they_are_looked_at_leave_nothing() {
    watched(|| {
        let fleet = Fleet::of(2);
        let launch = hashed(&fleet, "http_host");
        let stage = Stage::start(launch, "hash", fleet);
        let clients: Vec<_> = (0..6).map(|_| stage.balancer.connect()).collect();
        for mut client in &clients[..3] {
            client.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
        }
        eventually("all are sessions", || {
            stage.balancer.number("sessions") == 6
        });
        clients.into_iter().for_each(peers::reset);
        stage.balancer.assert_rest();
        assert_eq!(stage.balancer.number("closed.client_reset"), 6);
        assert_eq!(stage.fleet.accepted(), [0, 0]);
        stage.finish();
    });
}

/// Bytes kept for the backend go to the one that replaces it.
#[test]
fn first_bytes_outlast_a_backend_that_refuses() {
    watched(|| {
        let fleet = Fleet::of(3);
        let stage = Stage::start(hashed(&fleet, "http_path"), "hash", fleet);
        let own = stage.call(source(1), &path(1, 0)).leave();
        stage.fleet.stop(own);
        let next = echoed(&stage, &[b"GET /item/1?", b"x HTTP/1.1\r\n\r\nand more"]);
        assert_ne!(next, own);
        stage.fleet.start(own);
        assert_eq!(stage.call(source(1), &path(1, 0)).leave(), own);
        stage.finish();
    });
}

const HELLO: &[u8] = include_bytes!("../captures/openssl.bin");
const RECORDS: &[u8] = include_bytes!("../captures/rustls_records.bin");
/// The offset of a hello's session ID.
const SESSION_ID: usize = 44;
const MB: u64 = 1_000_000;
/// Twice as many as there are buffers.
const STOPPED: u64 = 400;
