//! Proxies that name their clients by a header: who counts as the client, and what headers are
//! refused.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fs, thread};

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{
    Backend, connect_from, expect_broken, expect_end, ping, reset, try_connect_from,
};
use crate::stage::Guest;
use crate::watchdog::{eventually, watched};

const PROXY: Ipv4Addr = Ipv4Addr::new(127, 7, 0, 1);
const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";

/// A header of version 2 of this command and family, with the right length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap();
    let fixed = [0x20 | command, family];
    [SIGNATURE, &fixed, &length.to_be_bytes(), rest].concat()
}

/// That of a client at this address, with these TLVs.
fn naming(client: [u8; 4], tlvs: &[u8]) -> Vec<u8> {
    let ports = [0xdc, 4, 1, 0xbb];
    v2(
        1,
        0x11,
        &[&client, &[198, 51, 100, 7], &ports, tlvs].concat(),
    )
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&[kind], &length.to_be_bytes()[..], value].concat()
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn file(backend: &Backend, settings: &str) -> String {
    format!(
        "(workers: 2, access_log: (to: \"-\", format: \"json\"),
        access_lists: [(name: \"clients\", deny: [\"10.6.0.0/16\", \"127.0.0.0/8\"])],
        listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\",
            accept_proxy: [\"127.7.0.0/24\"], access_list: \"clients\", {settings})],
        pools: [(name: \"p\", backends: [\"{}\"])])",
        backend.address
    )
}

/// A proxy's connection that has sent these bytes in one segment.
fn sends(balancer: &Balancer, bytes: &[u8]) -> TcpStream {
    let mut proxy = connect_from(PROXY, balancer.address());
    proxy.write_all(bytes).unwrap();
    proxy
}

/// A peer that sends these bytes is reset, maybe before it has sent all of them.
#[track_caller]
fn expect_refused(peer: Ipv4Addr, balancer: &Balancer, bytes: &[u8]) {
    let outcome = try_connect_from(peer, balancer.address()).and_then(|mut stream| {
        stream.write_all(bytes)?;
        stream.read(&mut [0; 16])
    });
    let kind = outcome.unwrap_err().kind();
    let broken = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(broken.contains(&kind), "{kind}");
}

/// It echoes what followed the header, and this.
fn expect_served(mut proxy: TcpStream, came: &[u8]) -> TcpStream {
    let mut echoed = vec![0; came.len()];
    proxy.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, came);
    ping(&mut proxy, b"more");
    proxy
}

#[test]
fn the_client_that_a_header_names_counts_in_all_rules_and_lists() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::with_config(&file(&backend, ""), 1)
            .workers(2)
            .start();
        let first = sends(&balancer, &[V1, b"hello"].concat());
        let first = expect_served(first, b"hello");
        let proxy = first.local_addr().unwrap().to_string();
        let mut second = expect_served(sends(&balancer, &naming([192, 0, 2, 2], b"")), b"");
        // Its access list denies one client, and the proxies' own addresses, which don't count.
        let denied = [&naming([10, 6, 0, 1], b""), &b"hello"[..]].concat();
        expect_refused(PROXY, &balancer, &denied);
        let listed = balancer.ask(&["sessions", "--client", "192.0.2.1"]);
        assert_eq!(listed[0]["client"], "192.0.2.1:56324");
        assert_eq!(listed[0]["proxy"], *proxy);
        let told = balancer.words(&["explain", "192.0.2.1"]);
        assert!(
            told.contains(&format!("from 192.0.2.1:56324 behind proxy {proxy} by")),
            "{told}"
        );
        let table = balancer.words(&["sessions"]);
        assert!(
            table.contains("192.0.2.2:56324") && table.contains(&proxy),
            "{table}"
        );
        // A ban of a client ends its session; one of the proxy's own address concerns no client.
        balancer.words(&["ban", "192.0.2.1"]);
        balancer.words(&["ban", "127.7.0.1"]);
        expect_broken(&first);
        expect_refused(PROXY, &balancer, V1);
        ping(&mut second, b"again");
        // A check of the proxy's own, with data: neither ban nor list are about it. Its TLVs are
        // ignored, and so are its addresses.
        let check = [&v2(0, 0x11, &[7; 30]), &b"check"[..]].concat();
        drop(expect_served(sends(&balancer, &check), b"check"));
        // Where the header names none, the proxy is the client: it is banned.
        expect_refused(PROXY, &balancer, b"PROXY UNKNOWN\r\n");
        balancer.words(&["unban", "127.7.0.1"]);
        expect_refused(PROXY, &balancer, b"PROXY UNKNOWN\r\n");
        drop(second);
        eventually("all have a line", || balancer.output().count("\n") == 7);
        let lines = balancer.output().lines_with("");
        let line = |client: &str, reason: &str| {
            let client = format!("\"client\":\"{client}");
            let reason = format!("\"reason\":\"{reason}\"");
            let its = |line: &&String| line.contains(&client) && line.contains(&reason);
            let found = lines.iter().filter(its).count();
            assert!(
                lines
                    .iter()
                    .all(|line| line.contains("\"proxy\":\"127.7.0.1:"))
            );
            found
        };
        assert_eq!(line("192.0.2.1:56324", "banned"), 2, "{lines:?}");
        assert_eq!(line("192.0.2.2:56324", "client_closed"), 1, "{lines:?}");
        assert_eq!(line("10.6.0.1:56324", "access_denied"), 1, "{lines:?}");
        assert_eq!(line("127.7.0.1", "client_closed"), 1, "{lines:?}");
        assert_eq!(line("127.7.0.1", "banned"), 1, "{lines:?}");
        assert_eq!(line("127.7.0.1", "access_denied"), 1, "{lines:?}");
        assert_eq!(backend.accepted(), 3);
        balancer.finish();
    });
}

#[test]
fn a_connection_on_which_a_proxy_sends_nothing_has_a_line_where_that_is_asked_for() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::with_config(&file(&backend, ""), 1)
            .workers(2)
            .start();
        let check = || {
            let check = sends(&balancer, &v2(0, 0, b""));
            eventually("it is served", || balancer.number("sessions") == 1);
            drop(check);
            balancer.assert_rest();
        };
        check();
        assert_eq!(balancer.number("proxy_checks_unlogged"), 1);
        balancer.edit(|text| text.replace("to: \"-\"", "to: \"-\", proxy_checks: true"));
        balancer.words(&["reload"]);
        balancer.until_adopted();
        check();
        eventually("it has a line", || balancer.output().count("\n") == 1);
        assert_eq!(balancer.number("proxy_checks_unlogged"), 1);
        balancer.finish();
    });
}

#[test]
fn what_is_no_header_of_a_trusted_peer_is_refused_and_counted() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::with_config(&file(&backend, ""), 1)
            .workers(2)
            .start();
        let events = balancer.follow();
        expect_refused(Ipv4Addr::new(127, 8, 0, 1), &balancer, V1);
        let event = events.next("proxy_refused");
        let message = event["message"].as_str().unwrap();
        let words = "listener `front`: 1 client refused by proxy_untrusted, 1 in all (such as \
                     127.8.0.1: it is not in `accept_proxy`)";
        assert_eq!(message, words);
        drop(events);
        let whole = naming([192, 0, 2, 1], b"");
        let [overrun, huge] = [tlv(2, b"a.example"), vec![0; 65_535]];
        let overrun = naming([192, 0, 2, 1], &overrun[..overrun.len() - 1]);
        // As many as 16 KiB have room for.
        let many = naming([192, 0, 2, 1], &tlv(0xe0, b"").repeat(5_000));
        for wrong in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n".to_vec(),
            [V1, V1].concat(),
            [V1, &whole].concat(),
            [&whole, V1, b"hello"].concat(),
            overrun,
            many,
            v2(1, 0x11, &huge),
        ] {
            expect_refused(PROXY, &balancer, &wrong);
        }
        let half = sends(&balancer, &V1[..20]);
        half.shutdown(Shutdown::Write).unwrap();
        expect_broken(&half);
        let closed = |reason: &str| balancer.number(&format!("closed.{reason}"));
        eventually("all are counted", || closed("proxy_header") == 10);
        // Probes that only connect, and one that breaks off, are no fault of a header.
        let silent = connect_from(PROXY, balancer.address());
        silent.shutdown(Shutdown::Write).unwrap();
        expect_broken(&silent);
        let begun = sends(&balancer, &V1[..20]);
        eventually("it waits", || balancer.number("unfinished_headers") == 1);
        reset(begun);
        eventually("it has gone", || closed("client_reset") == 1);
        assert_eq!([closed("client_closed"), closed("proxy_untrusted")], [1, 1]);
        assert_eq!(balancer.number("proxy_checks_unlogged"), 2);
        let listener = &balancer.ask(&["listeners"])[0];
        let by = listener["refused_by"].to_string();
        assert_eq!(by, r#"{"proxy_header":10,"proxy_untrusted":1}"#);
        assert_eq!(backend.accepted(), 0);
        balancer.finish();
    });
}

#[test]
fn a_header_may_come_in_pieces_and_must_come_in_time() {
    watched(|| {
        let backend = Backend::echo();
        let settings = "timeouts: (proxy_header: \"1s\")";
        let balancer = Launch::with_config(&file(&backend, settings), 1)
            .workers(2)
            .start();
        // A tenth of a second: others come and go meanwhile.
        let mut slow = connect_from(PROXY, balancer.address());
        for byte in V1 {
            slow.write_all(&[*byte]).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        slow.write_all(b"hello").unwrap();
        let mut slow = expect_served(slow, b"hello");
        // A header that comes later is the client's own bytes, and names no other client.
        ping(&mut slow, &naming([10, 6, 0, 1], b""));
        assert_eq!(balancer.ask(&["sessions"])[0]["client"], "192.0.2.1:56324");
        drop(slow);
        // What may begin a second header is waited for, and is data if it does not.
        let mut server_first = sends(&balancer, &[V1, b"\r\n"].concat());
        eventually("it waits", || balancer.number("unfinished_headers") == 1);
        server_first.write_all(b"hello").unwrap();
        drop(expect_served(server_first, b"\r\nhello"));
        // Drips, and silence.
        let silent = connect_from(PROXY, balancer.address());
        let mut dripping = connect_from(PROXY, balancer.address());
        let long = naming([192, 0, 2, 1], &tlv(4, &[0; 4_000]));
        let ends = long.iter().any(|byte| {
            thread::sleep(Duration::from_millis(20));
            dripping.write_all(&[*byte]).is_err()
        });
        assert!(ends, "it dripped a whole header");
        expect_broken(&silent);
        let closed = |reason: &str| balancer.number(&format!("closed.{reason}"));
        eventually("both are counted", || closed("proxy_header_timeout") == 2);
        // Too many pieces cost too many looks, however fast they come.
        let mut pieces = connect_from(PROXY, balancer.address());
        pieces.set_nodelay(true).unwrap();
        let ends = long.iter().any(|byte| {
            thread::sleep(Duration::from_millis(1));
            pieces.write_all(&[*byte]).is_err()
        });
        assert!(ends, "it sent a whole header");
        eventually("it is counted", || {
            closed("proxy_header") + closed("proxy_header_timeout") == 3
        });
        balancer.finish();
    });
}

/// More than there may be: each worker's oldest make room, and whole headers are not concerned.
/// They hold no buffer, and nothing of one that waits is lost.
#[test]
fn unfinished_headers_are_bounded_and_keep_no_proxy_out() {
    watched(|| {
        let backend = Backend::echo();
        let settings = "unfinished_headers: 200, timeouts: (proxy_header: \"1m\")";
        let text = file(&backend, settings);
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let memory = || -> usize {
            let resident = balancer.process.status("VmRSS");
            resident.strip_suffix(" kB").unwrap().parse().unwrap()
        };
        let before = memory();
        // Each worker has more than its half by far, or by chance in one of 10^100 runs not.
        let mut half: Vec<_> = (0..1_000).map(|_| sends(&balancer, &V1[..20])).collect();
        eventually("as many wait as may", || {
            let refused = balancer.number("closed.proxy_headers_full");
            balancer.number("unfinished_headers") == 200 && refused == 800
        });
        assert_eq!(balancer.number("buffers"), 0);
        // A buffer for each of them would be twice as much.
        let grown = memory().saturating_sub(before);
        assert!(grown < 8 << 10, "{grown} KiB");
        drop(expect_served(
            sends(&balancer, &[V1, b"hello"].concat()),
            b"hello",
        ));
        // What may begin a second header, and does not go on, is waited for much shorter.
        drop(expect_served(
            sends(&balancer, &[V1, b"PRO"].concat()),
            b"PRO",
        ));
        let mut last = half.pop().unwrap();
        last.write_all(&V1[20..]).unwrap();
        let last = expect_served(last, b"");
        // The listener goes, and another one comes: what waits goes on.
        let mut waiting = half.pop().unwrap();
        let moved = text
            .replace("front", "back")
            .replace("127.0.0.1:0", "127.0.0.2:0");
        fs::write(balancer.dir().join("config.ron"), moved).unwrap();
        assert!(balancer.words(&["reload"]).contains("is in force"));
        waiting.write_all(&V1[20..]).unwrap();
        drop(expect_served(waiting, b""));
        drop((half, last));
        balancer.finish();
    });
}

#[test]
fn peers_of_a_unix_socket_name_clients_where_they_may() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let path = launch.dir().join("front.sock");
        let from = format!("unix:{}", path.display());
        let balancer = launch
            .also_from(&from)
            .flag("--accept-proxy", "unix")
            .flag("--accept-proxy", "127.7.0.0/24")
            .flag("--deny", "10.6.0.0/16")
            .flag("--access-log", "-")
            .start();
        let connect = |bytes: &[u8]| {
            let mut proxy = UnixStream::connect(&path).unwrap();
            proxy.write_all(bytes).unwrap();
            proxy
        };
        let mut served = connect(&[V1, b"hello"].concat());
        let mut echoed = [0; 5];
        served.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"hello");
        ping(&mut served, b"more");
        expect_end(&mut connect(&naming([10, 6, 0, 1], b"")));
        drop(served);
        eventually("both have a line", || balancer.output().count("\n") == 2);
        let [line, denied] = ["reason=client_closed", "reason=access_denied"]
            .map(|reason| balancer.output().lines_with(reason).remove(0));
        assert!(line.contains(" client=192.0.2.1:56324 ") && line.contains(" proxy=unix"));
        assert!(denied.contains(" client=10.6.0.1:56324 ") && denied.contains(" proxy=unix"));
        // The same flag names the proxies of the other listener.
        drop(expect_served(
            sends(&balancer, &[V1, b"hello"].concat()),
            b"hello",
        ));
        balancer.finish();
    });
}

#[test]
fn what_else_a_header_says_decides_routes_and_keys() {
    watched(|| {
        let fleet = Fleet::of(4);
        let [own, routed @ ..] = &fleet.addresses()[..] else {
            panic!("there are four");
        };
        let routed: Vec<_> = routed.iter().map(|its| format!("{its:?}")).collect();
        let config = format!(
            "(workers: 2, access_log: \"off\",
            listeners: [(bind: \"127.0.0.1:0\", pool: \"p\", accept_proxy: [\"127.7.0.1\"],
                routes: [(proxy_tlv: [\"authority=*.shop.example\", \"alpn=h2\"], pool: \"keyed\"),
                (proxy_tlv: [\"0xE0=none\"], pool: \"refuse\")])],
            pools: [(name: \"p\", backends: [\"{own}\"]), (name: \"keyed\",
                strategy: (name: \"hash\", key: \"proxy_tlv(0xE1)\"), backends: [{}])])",
            routed.join(", ")
        );
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        let call = |client: u8, all: &[(u8, &[u8])]| {
            let tlvs: Vec<u8> = all
                .iter()
                .flat_map(|(kind, value)| tlv(*kind, value))
                .collect();
            let mut proxy = sends(&balancer, &naming([192, 0, 2, client], &tlvs));
            proxy.write_all(b"hello").unwrap();
            Guest::welcome(proxy).leave()
        };
        let shop: [(u8, &[u8]); 2] = [(2, b"A.Shop.Example"), (1, b"h2")];
        // By chance all have one backend in one of 10^9 runs.
        let mut seen = [0; 4];
        for n in 0..20 {
            let key = [n];
            let all = [&shop[..], &[(0xe1, &key[..])]].concat();
            let backend = call(1, &all);
            assert_eq!(call(n, &all), backend, "from any address");
            seen[backend] += 1;
        }
        assert!(
            seen[0] == 0 && seen.iter().filter(|its| **its > 0).count() > 1,
            "{seen:?}"
        );
        assert_eq!(call(1, &shop[..1]), 0, "it names no application protocol");
        assert_eq!(call(1, &[(2, b"shop.example"), (1, b"h2")]), 0);
        expect_refused(
            PROXY,
            &balancer,
            &naming([192, 0, 2, 1], &tlv(0xe0, b"none")),
        );
        assert_eq!(balancer.number("closed.no_route"), 1);
        balancer.finish();
    });
}
