//! Bans: whose clients are refused, and for how long.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, expect_reset, ping, try_connect_from};
use crate::watchdog::{eventually, watched};

/// A client of this machine: there are millions.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7F09_0000 + number)
}

/// A connection that was served, or `None` if it was reset.
#[track_caller]
fn visit(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let served = try_connect_from(from, to).and_then(|mut stream| {
        stream.write_all(b"ping")?;
        stream.read_exact(&mut [0; 4])?;
        Ok(stream)
    });
    let is_reset = |kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    served
        .inspect_err(|error| assert!(is_reset(error.kind()), "{error}"))
        .ok()
}

fn start(backend: &Backend, settings: &str) -> Balancer {
    let text = format!(
        "(workers: 2, access_log: \"-\", {settings}
        listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\")],
        pools: [(name: \"p\", backends: [\"{}\"])])",
        backend.address
    );
    Launch::with_config(&text, 1).workers(2).start()
}

#[test]
fn a_ban_refuses_its_clients_and_closes_their_sessions_and_no_others() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "");
        let to = balancer.address();
        let events = balancer.follow();
        // On both workers, and of a network that is banned next to one that is not.
        let mut held: Vec<_> = (0..20)
            .map(|n| visit(client(n % 10), to).unwrap())
            .collect();
        let mut other = visit(client(300), to).unwrap();
        let answer = balancer.words(&[
            "ban",
            "127.9.0.0/24",
            "--reason",
            "it floods",
            "--for",
            "1h",
        ]);
        assert!(answer.starts_with("127.9.0.0/24 banned until "), "{answer}");
        held.iter_mut().for_each(expect_reset);
        assert!(visit(client(5), to).is_none() && visit(client(255), to).is_none());
        ping(&mut other, b"still here");
        assert!(visit(client(256), to).is_some());
        let event = events.next("banned");
        assert_eq!(
            event["message"],
            "127.9.0.0/24 banned for 1h over the admin socket: it floods"
        );
        let refused = events.next("banned_refused");
        let message = refused["message"].as_str().unwrap();
        assert!(message.starts_with("listener `front`: "), "{message}");
        let ban = &balancer.ask(&["bans"])[0];
        let shown = ["prefix", "by", "reason", "hits"].map(|field| ban[field].to_string());
        let want = ["\"127.9.0.0/24\"", "\"hand\"", "\"it floods\"", "2"];
        assert_eq!(shown, want);
        assert!(ban["left_s"].as_f64().unwrap() <= 3_600.0, "{ban}");
        // 20 sessions, and two clients at their connect.
        eventually("each has a line", || {
            balancer.output().count("reason=banned") == 22
        });
        assert_eq!(balancer.number("closed.banned"), 22);
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(
            (&listener["refused"], &listener["refused_by"]["banned"]),
            (&2.into(), &2.into())
        );
        assert_eq!(balancer.ask(&["status"])["bans"]["count"], 1);
        let lifted = balancer.words(&["unban", "127.9.0.0/24"]);
        assert_eq!(lifted, "127.9.0.0/24 unbanned; 2 clients refused\n");
        assert!(visit(client(5), to).is_some());
        drop((events, other));
        balancer.finish();
    });
}

#[test]
fn a_ban_ends_by_itself() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "");
        let events = balancer.follow();
        balancer.words(&["ban", "127.9.0.7", "--for", "1s"]);
        let event = events.next("unbanned");
        let message = event["message"].as_str().unwrap();
        assert!(
            message.starts_with("the ban of 127.9.0.7 (it was refused "),
            "{message}"
        );
        assert!(visit(client(7), balancer.address()).is_some());
        assert_eq!(balancer.ask(&["bans"]).as_array().unwrap().len(), 0);
        drop(events);
        balancer.finish();
    });
}

#[test]
fn trusted_clients_are_not_banned_and_wide_bans_need_force() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "trusted: [\"127.9.1.0/24\"],");
        let to = balancer.address();
        let mut trusted = visit(client(257), to).unwrap();
        let (code, why) = balancer.refusal(&["ban", "127.9.1.7"]);
        assert!(
            code == Some(1) && why.contains("127.9.1.0/24 of `trusted` has it"),
            "{why}"
        );
        let (_, why) = balancer.refusal(&["ban", "126.0.0.0/7"]);
        assert!(why.contains("`--force`"), "{why}");
        // It has the trusted network, whose clients go on.
        balancer.words(&["ban", "126.0.0.0/7", "--force"]);
        assert!(visit(client(1), to).is_none());
        ping(&mut trusted, b"still here");
        assert!(visit(client(258), to).is_some());
        let (code, why) = balancer.refusal(&["unban", "127.9.0.1"]);
        assert!(
            code == Some(1) && why.contains("lift the ban of 126.0.0.0/7"),
            "{why}"
        );
        drop(trusted);
        balancer.finish();
    });
}

#[test]
fn thousands_of_bans_are_listed_sorted_and_bounded() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "bans: (max: 2000),");
        let to = balancer.address();
        let prefixes: Vec<_> = (0..2_000).map(|n| client(n).to_string()).collect();
        for some in prefixes.chunks(500) {
            let some = some.iter().map(|prefix| &**prefix);
            balancer.words(&["ban"].into_iter().chain(some).collect::<Vec<_>>());
        }
        let (code, why) = balancer.refusal(&["ban", "127.10.0.1"]);
        assert!(
            code == Some(1) && why.contains("the ban table is full: it has 2000 bans"),
            "{why}"
        );
        for number in [0, 999, 1_999] {
            assert!(visit(client(number), to).is_none(), "{number}");
        }
        assert!(visit(client(2_000), to).is_some());
        assert!(visit(client(999), to).is_none());
        let listed = |arguments: &[&str]| {
            let all = balancer.ask(arguments);
            let all = all.as_array().unwrap();
            let first = all
                .first()
                .map_or("", |ban| ban["prefix"].as_str().unwrap());
            (all.len(), first.to_owned())
        };
        assert_eq!(listed(&["bans"]), (1_000, "127.9.0.0".to_owned()));
        let most = ["bans", "--sort", "hits", "--limit", "3"];
        assert_eq!(listed(&most), (3, client(999).to_string()));
        let within = ["bans", "--within", "127.9.1.0/24"];
        assert_eq!(listed(&within), (256, "127.9.1.0".to_owned()));
        let of_client = ["bans", "--client", "127.9.1.9", "--by", "hand"];
        assert_eq!(listed(&of_client), (1, "127.9.1.9".to_owned()));
        assert_eq!(listed(&["bans", "--by", "rule"]).0, 0);
        balancer.finish();
    });
}

#[test]
fn bans_hold_over_a_reload() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "");
        balancer.words(&["ban", "127.9.0.1"]);
        let path = balancer.dir().join("config.ron");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            text.replace("workers: 2,", "workers: 2, bans: (max: 5),"),
        )
        .unwrap();
        assert!(balancer.words(&["reload"]).contains("is in force"));
        balancer.until_adopted();
        assert!(visit(client(1), balancer.address()).is_none());
        assert_eq!(balancer.ask(&["status"])["bans"]["max"], 5);
        balancer.finish();
    });
}
