//! Access lists: who may connect, and what the others leave behind.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, expect_reset, ping, reset, try_connect_from};
use crate::watchdog::{eventually, watched};

/// A client of this machine.
fn client(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 6, 0, last)
}

fn expect_served(from: Ipv4Addr, to: SocketAddr) {
    ping(&mut try_connect_from(from, to).unwrap(), b"hello");
}

/// connect(2) may already report it.
#[track_caller]
fn expect_refused(from: Ipv4Addr, to: SocketAddr) {
    match try_connect_from(from, to) {
        Ok(mut client) => expect_reset(&mut client),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn is_served(from: Ipv4Addr, to: SocketAddr) -> bool {
    let stream = try_connect_from(from, to);
    stream.is_ok_and(|mut stream| {
        use std::io::{Read, Write};
        stream.write_all(b"ping").is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
    })
}

/// A list and a listener that names it.
fn file(backend: &Backend, list: &str) -> String {
    format!(
        "(workers: 2, access_log: \"-\", access_lists: [(name: \"office\", {list})],
        listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\", access_list: \"office\")],
        pools: [(name: \"p\", backends: [\"{}\"])])",
        backend.address
    )
}

fn reload(balancer: &Balancer, text: &str) {
    fs::write(balancer.dir().join("config.ron"), text).unwrap();
    assert!(balancer.words(&["reload"]).contains("is in force"));
    balancer.until_adopted();
}

#[test]
fn flags_let_in_by_the_longest_prefix() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address))
            .flag("--access-log", "-")
            .flag("--allow", "127.6.0.0/24")
            .flag("--deny", "127.6.0.128/25")
            .flag("--deny", "0.0.0.0/0")
            .flag("--allow", "127.6.0.200")
            .workers(2)
            .start();
        let to = balancer.address();
        for last in [1, 127, 200] {
            expect_served(client(last), to);
        }
        for last in [128, 199, 201] {
            expect_refused(client(last), to);
        }
        expect_refused(Ipv4Addr::LOCALHOST, to);
        assert_eq!(backend.accepted(), 3);
        eventually("each has a line", || {
            balancer.output().count("reason=access_denied") == 4
        });
        let lines = balancer.output().lines_with("reason=access_denied");
        assert!(
            lines.iter().all(|line| line.contains(" backend=- ")),
            "{lines:?}"
        );
        assert_eq!(balancer.number("closed.access_denied"), 4);
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(listener["refused_by"].to_string(), r#"{"access_denied":4}"#);
        assert_eq!(listener["refused"], 4);
        balancer.finish();
    });
}

#[test]
fn with_allow_alone_all_others_are_refused() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address))
            .flag("--allow", "127.6.0.0/24")
            .start();
        expect_served(client(1), balancer.address());
        expect_refused(Ipv4Addr::LOCALHOST, balancer.address());
        balancer.finish();
    });
}

#[test]
fn refusals_are_counted_and_reported() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "deny: [\"127.6.0.0/24\"]");
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let events = balancer.follow();
        for _ in 0..300 {
            expect_refused(client(1), balancer.address());
        }
        expect_served(
            client(2).to_bits().wrapping_add(256).into(),
            balancer.address(),
        );
        let event = events.next("access_denied");
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with("listener `front`: "), "{message}");
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(
            (&listener["access_list"], &listener["refused"]),
            (&"office".into(), &300.into())
        );
        let list = &balancer.ask(&["status"])["access_lists"][0];
        assert_eq!(
            (&list["prefixes"], &list["others"]),
            (&1.into(), &"allow".into())
        );
        // A flood of clients is no flood of lines, and each is a line or is counted.
        eventually("all are accounted for", || {
            let lines = balancer.output().count("reason=access_denied") as u64;
            lines + balancer.number("refusals_unlogged") == 300
        });
        drop(events);
        balancer.finish();
    });
}

/// They have no address any more, which no list has.
#[test]
fn clients_that_have_gone_are_not_refused() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "allow: [\"127.0.0.0/8\"]");
        let text = text.replace(
            "pool: \"p\",",
            "pool: \"p\", source_limits: (connections: 5),",
        );
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        balancer.process.freeze();
        // The kernel takes them into the backlog.
        for _ in 0..20 {
            reset(try_connect_from(client(1), balancer.address()).unwrap());
        }
        balancer.process.signal(libc::SIGCONT);
        eventually("they are counted", || {
            balancer.number("closed.client_reset") == 20
        });
        expect_served(client(1), balancer.address());
        eventually("they have lines", || {
            balancer.output().count("reason=client_reset") == 20
        });
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(listener["refused"], 0);
        assert_eq!(balancer.number("closed.access_denied"), 0);
        assert_eq!(balancer.number("closed.source_connections"), 0);
        balancer.finish();
    });
}

#[test]
fn a_list_changes_with_a_reload_and_sessions_go_on() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::with_config(&file(&backend, "allow: [\"127.6.0.0/24\"]"), 1);
        let balancer = launch.workers(2).start();
        let to = balancer.address();
        let mut held = try_connect_from(client(1), to).unwrap();
        ping(&mut held, b"hello");
        reload(&balancer, &file(&backend, "deny: [\"127.6.0.0/24\"]"));
        eventually("the new list is asked", || !is_served(client(1), to));
        expect_served(Ipv4Addr::LOCALHOST, to);
        ping(&mut held, b"still here");
        drop(held);
        balancer.finish();
    });
}

#[test]
fn a_file_is_followed_and_a_bad_one_leaves_the_last_good_list() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "file: \"office.txt\", others: \"allow\"");
        let launch = Launch::with_config(&text, 1).workers(2);
        let path = launch.dir().join("office.txt");
        let write = |text: &str| {
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        write("127.6.0.1\n");
        let balancer = launch.start();
        let to = balancer.address();
        expect_refused(client(1), to);
        expect_served(client(2), to);
        write("127.6.0.0/24 # all\nallow 127.6.0.1\n");
        eventually("the file is read again", || is_served(client(1), to));
        balancer.until_adopted();
        eventually("by every worker", || !is_served(client(2), to));
        write("127.6.0.2\nwhat is this?\n");
        balancer.until_logged("office.txt: line 2: invalid prefix `what is this?`");
        let list = &balancer.ask(&["status"])["access_lists"][0];
        assert!(list["error"].as_str().unwrap().contains("line 2"), "{list}");
        assert_eq!(list["prefixes"], 2);
        expect_refused(client(2), to);
        let alerts = balancer.ask(&["status"])["alerts"].to_string();
        assert!(alerts.contains("office.txt: line 2: "), "{alerts}");
        // A reload is refused, also where the configuration is as before.
        let (code, why) = balancer.refusal(&["reload"]);
        assert_eq!(code, Some(1), "{why}");
        assert!(why.contains("office.txt: line 2: "), "{why}");
        write("# 127.6.0.0/24\n");
        balancer.until_logged("office.txt: expected at least one prefix, as it had 2");
        let (code, why) = balancer.refusal(&["reload"]);
        assert!(code == Some(1) && why.contains("as it had 2"), "{why}");
        expect_refused(client(2), to);
        // A reload reads a file at once, and its mistake is over.
        write("127.6.0.0/24\n");
        assert!(balancer.words(&["reload"]).contains("is in force"));
        eventually("the reload has read the file", || {
            balancer.ask(&["status"])["access_lists"][0]["prefixes"] == 1
        });
        balancer.until_adopted();
        assert_eq!(balancer.ask(&["status"])["alerts"].to_string(), "[]");
        expect_refused(client(2), to);
        // A reload that names a bad file changes nothing.
        fs::write(balancer.dir().join("bad.txt"), "10.0.0.1/8\n").unwrap();
        let bad = file(&backend, "file: \"bad.txt\", others: \"allow\"");
        fs::write(balancer.dir().join("config.ron"), bad).unwrap();
        balancer.process.signal(libc::SIGHUP);
        balancer.until_logged("access list file bad.txt: line 1: ");
        expect_refused(client(2), to);
        balancer.finish();
    });
}

#[test]
fn edits_hold_over_a_reload_that_does_not_change_their_prefixes() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(
            &backend,
            "deny: [\"127.6.0.0/24\"], file: \"office.txt\", others: \"allow\"",
        );
        let launch = Launch::with_config(&text, 1).workers(2);
        fs::write(launch.dir().join("office.txt"), "127.6.0.9\n").unwrap();
        let balancer = launch.start();
        let to = balancer.address();
        let events = balancer.follow();
        expect_refused(client(1), to);
        for (prefix, why) in [
            (
                "127.6.0.9",
                "office.txt has it; take it out of that file, or `mahoraga allow` it",
            ),
            (
                "127.6.0.5",
                "`office` does not have it, but 127.6.0.0/24; `mahoraga access office`",
            ),
            (
                "192.0.2.1",
                "`office` does not have it; `mahoraga access office` shows",
            ),
        ] {
            let (code, error) = balancer.refusal(&["unlist", prefix]);
            assert!(code == Some(1) && error.contains(why), "{error}");
        }
        // Also one that the file has.
        let shown = balancer.words(&["allow", "127.6.0.1", "127.6.0.9"]);
        assert!(
            shown.ends_with("office: allow 127.6.0.1, 127.6.0.9\n"),
            "{shown}"
        );
        balancer.until_adopted();
        expect_served(client(1), to);
        expect_served(client(9), to);
        let event = events.next("changed");
        let message = event["message"].as_str().unwrap();
        assert!(
            message.starts_with("office: 127.6.0.1 off to allow, 127.6.0.9 off to allow"),
            "{message}"
        );
        assert!(
            balancer
                .words(&["config", "show"])
                .contains("\"127.6.0.1\"")
        );
        reload(&balancer, &(text + "\n"));
        expect_served(client(1), to);
        let shown = balancer.words(&["access", "office"]);
        assert!(shown.contains("\nallow  127.6.0.1\n"), "{shown}");
        assert_eq!(
            balancer.words(&["access", "--client", "127.6.0.2"]),
            "127.6.0.2: deny, by 127.6.0.0/24\n"
        );
        balancer.words(&["unlist", "127.6.0.1", "--list", "office"]);
        eventually("it is removed", || !is_served(client(1), to));
        let note = balancer.words(&["unlist", "127.6.0.9", "--json"]);
        assert!(
            note.contains("office.txt has 127.6.0.9 too, and holds now: deny"),
            "{note}"
        );
        drop(events);
        balancer.finish();
    });
}

#[test]
fn a_listener_takes_and_leaves_a_list_while_it_runs() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "deny: [\"127.6.0.0/24\"]");
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = balancer.address();
        expect_refused(client(1), to);
        let set = |list| balancer.words(&["set", "listener", "front", "--access-list", list]);
        set("off");
        eventually("all may connect", || is_served(client(1), to));
        set("office");
        eventually("the list is asked", || !is_served(client(1), to));
        balancer.finish();
    });
}

#[test]
fn a_dry_run_counts_and_reports_and_refuses_no_one() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "deny: [\"127.6.0.0/24\"], dry_run: true");
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let events = balancer.follow();
        expect_served(client(1), balancer.address());
        let event = events.next("access_denied");
        assert_eq!(
            event["message"],
            "access list `office`: 1 client would be refused (dry_run), 1 in all"
        );
        let list = &balancer.ask(&["access"])[0];
        assert_eq!(
            (&list["refused"], &list["dry_run"]),
            (&1.into(), &true.into())
        );
        let listener = &balancer.ask(&["listeners"])[0];
        assert_eq!(listener["refused"], 0);
        assert_eq!(listener["dry_run"]["access_denied"], 1);
        assert_eq!(balancer.number("closed.access_denied"), 0);
        let line = "dry_run=access_denied";
        eventually("it has a line", || balancer.output().count(line) == 1);
        drop(events);
        balancer.finish();
    });
}

#[test]
fn a_start_without_the_file_is_refused() {
    watched(|| {
        let backend = Backend::echo();
        let text = file(&backend, "file: \"office.txt\", others: \"allow\"");
        let (status, log) = Launch::with_config(&text, 1).run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(
            log.contains("access list file office.txt: No such file"),
            "{log}"
        );
    });
}

/// As many prefixes as a file may have. A build without optimizations needs ten seconds to read
/// them: a tenth takes it as long as an optimized one needs for all.
pub(crate) const MANY: u32 = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

/// Many prefixes, none of which is a loopback address.
pub(crate) fn many() -> String {
    let mut text = String::new();
    for number in 0..MANY {
        let ip = Ipv4Addr::from((10 << 24) + number * 16);
        writeln!(text, "{ip}/28").unwrap();
    }
    text
}
