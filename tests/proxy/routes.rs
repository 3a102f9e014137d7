//! Routes: clients of one listener that go to several pools.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::metrics::{scrape, sum};
use crate::peers::{self, expect_reset, ping};
use crate::stage::{Guest, source, tally};
use crate::watchdog::{eventually, watched};

/// A listener with these routes and other fields. The pools have the names of `NAMES`, and a
/// backend of the fleet each, with these other fields.
fn config(fleet: &Fleet, routes: &str, fields: [&str; 3]) -> String {
    let backends = fleet.addresses();
    let pools = NAMES.iter().zip(&backends).zip(fields);
    let pools = pools.map(|((name, backend), fields)| {
        format!("(name: \"{name}\", {fields} backends: [\"{backend}\"]),\n")
    });
    let pools: String = pools.collect();
    format!(
        "(workers: 2, listeners: [(bind: \"127.0.0.1:0\", pool: \"own\", \
         timeouts: (peek: \"1m\"), routes: [{routes}])],\npools: [{pools}])"
    )
}

const NAMES: [&str; 3] = ["own", "one", "two"];

fn start(fleet: &Fleet, routes: &str) -> Balancer {
    let config = config(fleet, routes, [""; 3]);
    Launch::with_config(&config, 1).workers(2).start()
}

/// A hello for a name of 15 bytes.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let mut hello = include_bytes!("../captures/openssl.bin").to_vec();
    let old = b"WWW.Example.com";
    let at = hello.windows(old.len()).position(|some| some == old);
    hello[at.unwrap()..][..old.len()].copy_from_slice(name.as_bytes());
    hello
}

fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into()
}

/// Connects and sends this, cut in two.
fn send(balancer: &Balancer, from: Ipv4Addr, first: &[u8]) -> TcpStream {
    let mut stream = peers::connect_from(from, balancer.address());
    let (start, rest) = first.split_at(first.len() / 2);
    stream.write_all(start).unwrap();
    stream.write_all(rest).unwrap();
    stream
}

/// The same in one piece, where the first half is enough to refuse it.
fn send_whole(balancer: &Balancer, first: &[u8]) -> TcpStream {
    let mut stream = peers::connect_from(source(1), balancer.address());
    stream.write_all(first).unwrap();
    stream
}

/// The pool that a client with these first bytes goes to.
fn pool(balancer: &Balancer, first: &[u8]) -> &'static str {
    let stream = send(balancer, Ipv4Addr::LOCALHOST, first);
    NAMES[Guest::welcome(stream).leave()]
}

fn reload(balancer: &Balancer, config: &str) {
    let before = balancer.log().count("reload: ");
    balancer.edit(|_| config.to_owned());
    balancer.process.signal(libc::SIGHUP);
    eventually("the configuration was read", || {
        balancer.log().count("reload: ") > before
    });
    balancer.until_adopted();
}

#[test]
fn a_client_goes_to_the_pool_of_the_first_route_that_it_fits() {
    watched(|| {
        let fleet = Fleet::of(3);
        let balancer = start(
            &fleet,
            "(sni: [\"WWWW1.a.example.\"], pool: \"one\"), \
             (sni: [\"*.a.example\"], pool: \"two\"), \
             (http_host: [\"a.example\"], http_path: [\"/api/\"], pool: \"one\"), \
             (protocol: [\"ssh\", \"postgres\"], pool: \"two\"), \
             (client: [\"127.0.0.9\"], pool: \"one\"), \
             (alpn: [\"h3\"], pool: \"refuse\"), (http_path: [\"/secret\"], pool: \"refuse\")",
        );
        for (first, to) in [
            (hello("wwww1.A.example"), "one"),
            (hello("wwww2.a.example"), "two"),
            (hello("x.yyyyy.example"), "own"),
            (request("A.Example:80", "/api/x"), "one"),
            (request("a.example", "/x"), "own"),
            (request("b.example", "/api/x"), "own"),
            (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "two"),
            (b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec(), "two"),
            (b"EHLO a.example\r\n".to_vec(), "own"),
        ] {
            assert_eq!(pool(&balancer, &first), to, "{}", first.escape_ascii());
        }
        for (client, pool, route) in [
            (&["--sni", "wwww1.a.example"][..], Some("one"), Some(1)),
            (
                &["--http-host", "a.example", "--http-path", "/api/x"],
                Some("one"),
                Some(3),
            ),
            (&["--client", "127.0.0.9"], Some("one"), Some(5)),
            (&["--alpn", "h2", "--alpn", "h3"], None, Some(6)),
            (&["--protocol", "mqtt"], Some("own"), None),
        ] {
            let choice = balancer.ask(&[&["route", "127.0.0.1:0"], client].concat());
            assert_eq!(
                (choice["pool"].as_str(), choice["route"].as_u64()),
                (pool, route)
            );
        }
        let words = balancer.words(&["route", "127.0.0.1:0", "--http-path", "/secret"]);
        let sentence = "The client would be refused: route 7 of listener `127.0.0.1:0` refuses \
                        it, by http_path `/secret`; its address was not given (`--client`), and \
                        may change that.";
        assert_eq!(words.trim_end(), sentence);
        let from = Ipv4Addr::new(127, 0, 0, 9);
        let guest = Guest::welcome(send(&balancer, from, &request("b.example", "/")));
        assert_eq!(balancer.ask(&["sessions"])[0]["pool"], "one");
        assert_eq!(NAMES[guest.leave()], "one");
        let mut refused = send(&balancer, source(1), &request("a.example", "/secret/x"));
        expect_reset(&mut refused);
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.no_route"), 1);
        let routes = &balancer.ask(&["listeners"])[0]["routes"];
        let counts: Vec<_> = routes.as_array().unwrap().iter().collect();
        let counts: Vec<_> = counts.iter().map(|one| one["sessions"].as_u64()).collect();
        assert_eq!(counts, [1, 1, 1, 2, 1, 0, 1].map(Some));
        let text = scrape(&balancer, "*/*");
        assert_eq!(sum(&text, "mahoraga_listener_routed_total"), 11, "{text}");
        let unrouted = "route=\"default/own\"} 4";
        assert!(text.contains(unrouted), "{text}");
        let table = balancer.words(&["listeners"]);
        assert!(table.contains("refuse"), "{table}");
        let lines = balancer.output().lines(11);
        let lines: Vec<_> = lines.iter().map(|line| key_values(line)).collect();
        let count = |name| lines.iter().filter(|line| line["pool"] == name).count();
        assert_eq!(NAMES.map(count), [4, 3, 3], "{lines:?}");
        let refused = lines.iter().filter(|line| line["reason"] == "no_route");
        assert_eq!(refused.count(), 1);
        balancer.finish();
    });
}

/// A close that found the bytes behind its hello unread would reset the connection, and take the
/// alert with it.
#[test]
fn a_refused_client_of_tls_gets_an_alert() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(sni: [\"*.a.example\"], pool: \"one\"), (pool: \"refuse\")";
        let balancer = start(&fleet, routes);
        for behind in [0, 20_000] {
            let mut first = hello("x.yyyyy.example");
            first.resize(first.len() + behind, b'x');
            let mut stream = peers::connect(balancer.address());
            stream.write_all(&first).unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            // Fatal, unrecognized_name.
            assert_eq!(told, [21, 3, 3, 0, 2, 2, 112]);
        }
        assert_eq!(pool(&balancer, &hello("wwww1.a.example")), "one");
        expect_reset(&mut send_whole(&balancer, &request("a.example", "/")));
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.no_route"), 3);
        balancer.finish();
    });
}

/// They fill more than one buffer.
#[test]
fn first_bytes_route_alike_in_one_piece_and_in_two() {
    watched(|| {
        let fleet = Fleet::of(2);
        let balancer = start(&fleet, "(http_host: [\"a.example\"], pool: \"one\")");
        let mut first = request("a.example", "/");
        first.resize(first.len() + 20_000, b'x');
        for cut in [1, 5, 20, first.len()] {
            let mut stream = send(&balancer, source(1), &first[..cut]);
            eventually("it has come", || balancer.number("sessions") == 1);
            stream.write_all(&first[cut..]).unwrap();
            let mut guest = Guest::welcome(stream);
            guest.stream.read_exact(&mut vec![0; first.len()]).unwrap();
            assert_eq!(guest.leave(), 1, "{cut}");
            balancer.assert_rest();
        }
        balancer.finish();
    });
}

/// Silent clients from these addresses of 127.0.0.0/24 go to these pools, and one is refused.
fn expect_pools(balancer: &Balancer, clients: [(u8, Option<usize>); 3]) {
    for (from, to) in clients {
        let mut stream = peers::connect_from([127, 0, 0, from].into(), balancer.address());
        match to {
            Some(to) => assert_eq!(Guest::welcome(stream).leave(), to),
            None => expect_reset(&mut stream),
        }
    }
    balancer.assert_rest();
    assert_eq!(balancer.number("closed.no_route"), 1);
}

/// The server may speak first.
#[test]
fn a_client_that_its_address_routes_need_not_speak() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(client: [\"127.0.0.2\"], pool: \"one\"), \
                      (client: [\"127.0.0.3\"], pool: \"refuse\"), \
                      (client: [\"127.0.0.0/29\"], sni: [\"a.example\"], pool: \"two\")";
        let balancer = start(&fleet, routes);
        expect_pools(&balancer, [(2, Some(1)), (3, None), (9, Some(0))]);
        balancer.finish();
    });
}

#[test]
fn a_line_has_the_route_and_the_name() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(sni: [\"wwww1.a.example\"], pool: \"one\"), \
                      (name: \"rest\", sni: [\"*.a.example\"], pool: \"refuse\")";
        let fields = "access_log: (to: \"-\", fields: [\"route\", \"sni\"]), workers: 1";
        let config = config(&fleet, routes, [""; 3]).replace("workers: 2", fields);
        let balancer = Launch::with_config(&config, 1).start();
        for first in [
            hello("wwww1.A.example"),
            request("a", "/"),
            hello("x.yyyyy.example"),
        ] {
            pool(&balancer, &first);
            balancer.assert_rest();
        }
        let mut refused = send(&balancer, source(1), &hello("wwww2.a.example"));
        refused.read_to_end(&mut Vec::new()).unwrap();
        let expected = [
            "route=1 sni=wwww1.a.example",
            "route=- sni=-",
            "route=- sni=x.yyyyy.example",
            "route=rest sni=wwww2.a.example",
        ];
        assert_eq!(balancer.output().lines(4), expected);
        let explained = ["127.0.0.1", &source(1).to_string()].map(|client| {
            let told = balancer.ask(&["explain", client, "--last", "9"]);
            let told = told.as_array().unwrap().clone();
            let one = |its: &Value| json!([its["route"], its["sni"], its["route_says"]]);
            told.iter().map(one).collect::<Vec<_>>()
        });
        let none = "no route of listener `127.0.0.1:0` takes it, so it goes to the listener's pool";
        let first = "route 1 of listener `127.0.0.1:0` takes it, by sni `wwww1.a.example`";
        let last = "route 2 (`rest`) of listener `127.0.0.1:0` refuses it, by sni `*.a.example`";
        assert_eq!(
            explained,
            [
                vec![
                    json!([null, "x.yyyyy.example", none]),
                    json!([null, null, none]),
                    json!([1, "wwww1.a.example", first]),
                ],
                vec![json!([2, "wwww2.a.example", last])],
            ]
        );
        balancer.finish();
    });
}

/// Moving a weight moves the clients that it must, and open sessions stay.
#[test]
fn pools_share_the_clients_of_a_route_and_keep_each() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(sni: [\"*.a.example\"], pools: [(name: \"one\", weight: 3), \
                      (name: \"two\", weight: 1)])";
        let balancer = start(&fleet, routes);
        let first = hello("wwww1.a.example");
        let pool_of = |from| Guest::welcome(send(&balancer, source(from), &first)).leave();
        let pools: Vec<_> = (0..40).map(pool_of).collect();
        // One of the two has none of them in one run of 10^5, and runs do not differ.
        let counts = tally(3, pools.iter().copied());
        assert!(
            counts[0] == 0 && counts[1] > counts[2] && counts[2] > 0,
            "{counts:?}"
        );
        let mut stays = Guest::welcome(send(&balancer, source(0), &first));
        stays.stream.read_exact(&mut vec![0; first.len()]).unwrap();
        let moved = routes.replace("weight: 1", "weight: 0");
        reload(&balancer, &config(&fleet, &moved, [""; 3]));
        assert!((0..40).all(|from| pool_of(from) == 1));
        ping(&mut stays.stream, b"still there");
        assert_eq!(stays.leave(), pools[0]);
        balancer.finish();
    });
}

/// The others have as long as ever for their first bytes.
#[test]
fn a_client_that_says_nothing_is_routed_soon_where_its_server_speaks_first() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(client: [\"127.0.0.2\"], protocol: [\"server_first\"], pool: \"one\"), \
                      (protocol: [\"other\"], pool: \"two\")";
        let config = config(&fleet, routes, [""; 3]);
        let config = config.replace("peek: \"1m\"", "peek: \"1m\", server_first: \"20ms\"");
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        let slow = peers::connect_from([127, 0, 0, 3].into(), balancer.address());
        let silent = peers::connect_from([127, 0, 0, 2].into(), balancer.address());
        assert_eq!(Guest::welcome(silent).leave(), 1);
        assert_eq!(
            balancer.number("sessions"),
            1,
            "it waits for its first bytes"
        );
        (&slow).write_all(b"EHLO a.example\r\n").unwrap();
        assert_eq!(Guest::welcome(slow).leave(), 2);
        balancer.assert_rest();
        let silent = balancer.ask(&["route", "127.0.0.1:0", "--client", "127.0.0.2"]);
        assert_eq!(silent["route"], 1);
        let other = balancer.ask(&["route", "127.0.0.1:0", "--protocol", "other"]);
        assert_eq!(other["route"], 2);
        balancer.finish();
    });
}

/// Without a route that looks at first bytes nothing waits for them.
#[test]
fn routes_by_address_alone_wait_for_no_bytes() {
    watched(|| {
        let fleet = Fleet::of(3);
        let balancer = start(
            &fleet,
            "(client: [\"127.0.0.2\"], pool: \"two\"), (client: [\"127.0.0.3\"], pool: \"refuse\")",
        );
        expect_pools(&balancer, [(1, Some(0)), (2, Some(2)), (3, None)]);
        balancer.finish();
    });
}

#[test]
fn the_first_bytes_that_route_a_client_have_its_key_too() {
    watched(|| {
        let fleet = Fleet::of(4);
        let all = fleet.addresses();
        let config = format!(
            "(workers: 2, listeners: [(bind: \"127.0.0.1:0\", pool: \"own\", \
             timeouts: (peek: \"1m\"), \
             routes: [(http_host: [\"a.example\"], pool: \"hashed\")])], \
             pools: [(name: \"own\", backends: [\"{}\"]), (name: \"hashed\", \
             strategy: (name: \"hash\", key: \"http_path\"), backends: [\"{}\", \"{}\", \"{}\"])])",
            all[0], all[1], all[2], all[3]
        );
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        let backend = |n: u32, from| {
            let first = request("a.example", &format!("/item/{n}"));
            Guest::welcome(send(&balancer, source(from), &first)).leave()
        };
        // By chance a backend of three has none of them in one run of 10^7.
        let backends: Vec<_> = (0..40).map(|n| backend(n, n)).collect();
        for n in 0..10 {
            assert_eq!(backend(n, 100 + n), backends[n as usize], "path {n}");
        }
        let counts = tally(4, backends);
        assert!(counts[0] == 0 && !counts[1..].contains(&0), "{counts:?}");
        assert_eq!(pool_number(&balancer, "b.example"), 0);
        assert_eq!(balancer.number("peek_misses"), 0);
        balancer.finish();
    });
}

fn pool_number(balancer: &Balancer, host: &str) -> usize {
    let first = request(host, "/item/1");
    Guest::welcome(send(balancer, Ipv4Addr::LOCALHOST, &first)).leave()
}

#[test]
fn routes_change_and_no_connection_is_lost() {
    watched(|| {
        let fleet = Fleet::of(3);
        let first = "(http_host: [\"a.example\"], pool: \"one\")";
        let balancer = start(&fleet, first);
        let open = |host| {
            let first = request(host, "/");
            let mut guest = Guest::welcome(send(&balancer, source(1), &first));
            guest.stream.read_exact(&mut vec![0; first.len()]).unwrap();
            guest
        };
        let mut guests = vec![open("a.example"), open("b.example")];
        // Its first bytes come before and after the change.
        let mut half = peers::connect(balancer.address());
        half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        eventually("all are sessions", || balancer.number("sessions") == 3);
        let next = "(http_host: [\"a.example\", \"b.example\"], pool: \"two\"), (pool: \"refuse\")";
        reload(&balancer, &config(&fleet, next, [""; 3]));
        for (host, to) in [("a.example", 2), ("b.example", 2)] {
            let guest = open(host);
            assert_eq!(guest.backend, to, "{host}");
            guests.push(guest);
        }
        expect_reset(&mut send_whole(&balancer, &request("c.example", "/")));
        // A client whose first bytes are awaited is routed by the new routes.
        half.write_all(b"Host: b.example\r\n\r\n").unwrap();
        let mut half = Guest::welcome(half);
        assert_eq!(half.backend, 2);
        half.stream.read_exact(&mut [0; 35]).unwrap();
        guests.push(half);
        for guest in &mut guests {
            ping(&mut guest.stream, b"still there");
        }
        reload(&balancer, &config(&fleet, "", [""; 3]));
        let guest = open("a.example");
        assert_eq!(guest.backend, 0);
        guests.push(guest);
        for mut guest in guests {
            ping(&mut guest.stream, b"still there");
            guest.leave();
        }
        balancer.assert_rest();
        assert_eq!(balancer.number("closed.no_route"), 1);
        balancer.finish();
    });
}

#[test]
fn a_client_waits_in_the_queue_of_the_pool_that_it_is_routed_to() {
    watched(|| {
        let fleet = Fleet::of(3);
        let routes = "(http_path: [\"/one\"], pool: \"one\")";
        let full = ["", "max_connections: 1,", ""];
        let config = config(&fleet, routes, full);
        let balancer = Launch::with_config(&config, 1).workers(2).start();
        let first = Guest::welcome(send(&balancer, source(1), &request("a", "/one")));
        let waiting = send(&balancer, source(2), &request("a", "/one"));
        eventually("it waits", || balancer.ask(&["pools"])[1]["queued"] == 1);
        assert_eq!(pool(&balancer, &request("a", "/")), "own");
        assert_eq!(first.leave(), 1);
        assert_eq!(Guest::welcome(waiting).leave(), 1);
        balancer.finish();
    });
}

/// A session knows its pool by its listener, which has gone.
#[test]
fn a_client_of_a_removed_listener_connects_by_the_present_pool() {
    watched(|| {
        let fleet = Fleet::of(2);
        let all = fleet.addresses();
        let config = |listeners: &str, backend: usize| {
            format!(
                "(workers: 1, listeners: [(name: \"stays\", bind: \"127.0.0.1:0\", pool: \"p\"), \
                 {listeners}],\npools: [(name: \"p\", max_connections: 1, \
                 backends: [\"{}\"])])",
                all[backend]
            )
        };
        let leaves = "(name: \"leaves\", bind: \"127.0.0.2:0\", pool: \"p\")";
        let balancer = Launch::with_config(&config("", 0), 1).start();
        reload(&balancer, &config(leaves, 0));
        let at = balancer.log().lines_with("listener `leaves` on ");
        let at = at[0].rsplit(' ').next().unwrap().parse().unwrap();
        let first = Guest::welcome(peers::connect(at));
        let waiting = peers::connect(at);
        eventually("it waits", || balancer.ask(&["pools"])[0]["queued"] == 1);
        reload(&balancer, &config("", 0));
        reload(&balancer, &config("", 1));
        assert_eq!(first.leave(), 0);
        assert_eq!(Guest::welcome(waiting).leave(), 1);
        balancer.finish();
    });
}

/// Its pool is still there by another route, which does not take it.
#[test]
fn a_client_that_waits_goes_on_when_a_route_for_others_leads_to_its_pool() {
    watched(|| {
        let fleet = Fleet::of(2);
        let all = fleet.addresses();
        let config = |listener: &str| {
            format!(
                "(workers: 1, listeners: [(name: \"in\", bind: \"127.0.0.1:0\", {listener})],\n\
                 pools: [(name: \"own\", max_connections: 1, backends: [\"{}\"]), \
                 (name: \"two\", backends: [\"{}\"])])",
                all[0], all[1]
            )
        };
        let balancer = Launch::with_config(&config("pool: \"own\""), 1).start();
        let first = Guest::welcome(peers::connect(balancer.address()));
        let waiting = peers::connect(balancer.address());
        eventually("it waits", || balancer.ask(&["pools"])[0]["queued"] == 1);
        let others = "pool: \"two\", routes: [(client: [\"127.0.0.9\"], pool: \"own\")]";
        reload(&balancer, &config(others));
        assert_eq!(Guest::welcome(waiting).leave(), 1);
        assert_eq!(first.leave(), 0);
        balancer.finish();
    });
}
