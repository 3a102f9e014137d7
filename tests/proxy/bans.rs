//! Bans: whose clients are refused, and for how long.

use std::fs;
use std::net::Ipv4Addr;

use crate::asking::Followed;
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, expect_reset, ping, visit};
use crate::watchdog::{eventually, watched};

/// A client of this machine: there are millions.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7F09_0000 + number)
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
        let exported = balancer.words(&["bans", "--export"]);
        assert_eq!(exported.lines().count(), 2_000);
        let path = balancer.dir().join("bans.txt");
        let text = "# of a feed\n127.9.0.0 ; again\n\n127.9.0.1 # and again\n";
        fs::write(&path, text).unwrap();
        let from = ["ban", "--from", "bans.txt", "--reason", "feed"];
        assert_eq!(balancer.words(&from).lines().count(), 2);
        let exported = balancer.words(&["bans", "--export", "--limit", "3"]);
        assert_eq!(exported, "127.9.0.0 # feed\n127.9.0.1 # feed\n127.9.0.2\n");
        fs::write(&path, "127.9.0.0\nwhat is this?\n").unwrap();
        let (code, why) = balancer.refusal(&["ban", "--from", "bans.txt"]);
        assert!(
            code == Some(2) && why.contains("bans.txt: line 2: invalid prefix"),
            "{why}"
        );
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

#[test]
fn a_source_that_floods_is_banned_and_others_do_not_notice() {
    watched(|| {
        let backend = Backend::echo();
        let text = format!(
            "(workers: 2, access_log: \"-\", trusted: [\"127.9.1.0/24\"],
            listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\",
                source_limits: (connections: 4),
                ban: (after: 20, within: \"1m\", for: \"1h\", up_to: \"2h\"))],
            pools: [(name: \"p\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = balancer.address();
        let events = balancer.follow();
        let mut others: Vec<_> = (100..140).map(|n| visit(client(n), to).unwrap()).collect();
        let mut trusted: Vec<_> = (0..4).map(|_| visit(client(300), to).unwrap()).collect();
        let mut floods: Vec<_> = (0..4).map(|_| visit(client(1), to).unwrap()).collect();
        for _ in 0..20 {
            assert!(visit(client(1), to).is_none());
            assert!(visit(client(300), to).is_none());
        }
        // The twentieth is one too many: also the open sessions end.
        floods.iter_mut().for_each(expect_reset);
        assert!(visit(client(1), to).is_none());
        let ban = &balancer.ask(&["bans", "--by", "rule"])[0];
        let shown = ["prefix", "by", "reason", "hits"].map(|field| ban[field].to_string());
        let reason = "\"source_connections: 20 times within 1m\"";
        assert_eq!(shown, ["\"127.9.0.1\"", "\"rule\"", reason, "1"]);
        let event = events.next("banned");
        assert_eq!(
            event["message"],
            "127.9.0.1 banned for 1h by a rule: source_connections: 20 times within 1m"
        );
        assert_eq!(balancer.ask(&["bans"]).as_array().unwrap().len(), 1);
        for other in others.iter_mut().chain(&mut trusted) {
            ping(other, b"still here");
        }
        assert!(visit(client(200), to).is_some());
        eventually("it is logged", || {
            balancer.output().count("reason=banned") == 5
        });
        balancer.words(&["unban", "127.9.0.1"]);
        assert!(visit(client(1), to).is_some());
        drop((events, others, trusted));
        balancer.finish();
    });
}

#[test]
fn flags_ban_clients_that_an_access_list_refuses_again_and_again() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = Launch::to(std::slice::from_ref(&backend.address))
            .flag("--deny", "127.9.0.0/24")
            .flag("--ban-after", "3/10m")
            .flag("--ban-for", "10m")
            .workers(2)
            .start();
        let to = balancer.address();
        for number in 0..200 {
            for _ in 0..3 {
                assert!(visit(client(number), to).is_none());
            }
        }
        let bans = balancer.ask(&["bans"]);
        assert_eq!(bans.as_array().unwrap().len(), 200);
        assert_eq!(bans[0]["reason"], "access_denied: 3 times within 10m");
        assert_eq!(balancer.number("closed.access_denied"), 600);
        assert!(visit(client(7), to).is_none());
        assert_eq!(balancer.number("closed.banned"), 1);
        assert!(visit(client(300), to).is_some());
        balancer.finish();
    });
}

#[test]
fn a_dry_run_reports_whom_a_rule_would_ban() {
    watched(|| {
        let backend = Backend::echo();
        let text = format!(
            "(workers: 2, listeners: [(bind: \"127.0.0.1:0\", pool: \"p\",
                source_limits: (connections: 1), ban: (after: 2, dry_run: true))],
            pools: [(name: \"p\", backends: [\"{}\"])])",
            backend.address
        );
        let balancer = Launch::with_config(&text, 1).workers(2).start();
        let to = balancer.address();
        let events = balancer.follow();
        let held = visit(client(1), to).unwrap();
        for _ in 0..2 {
            assert!(visit(client(1), to).is_none());
        }
        let event = events.next("banned");
        let message = event["message"].as_str().unwrap();
        assert!(
            message.starts_with("127.9.0.1 would be banned for 1m"),
            "{message}"
        );
        assert_eq!(balancer.ask(&["status"])["bans"]["count"], 0);
        drop((events, held));
        balancer.finish();
    });
}

#[test]
fn bans_survive_a_restart_and_a_crash() {
    watched(|| {
        let backend = Backend::echo();
        let name = format!("mahoraga-kept-bans-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("bans");
        let start = || start(&backend, &format!("bans: (file: {path:?}),"));
        let balancer = start();
        balancer.words(&["ban", "127.9.0.1", "--for", "1h", "--reason", "it floods"]);
        assert!(visit(client(1), balancer.address()).is_none());
        balancer.finish();
        let mut balancer = start();
        assert!(visit(client(1), balancer.address()).is_none());
        let ban = &balancer.ask(&["bans"])[0];
        let shown = ["prefix", "by", "reason", "hits"].map(|field| ban[field].to_string());
        assert_eq!(shown, ["\"127.9.0.1\"", "\"hand\"", "\"it floods\"", "2"]);
        balancer.until_logged("bans of the last run that hold: 1");
        balancer.words(&["unban", "127.9.0.1"]);
        balancer.words(&["ban", "127.9.0.2"]);
        let kept = |prefix: &str| fs::read_to_string(&path).unwrap().contains(prefix);
        eventually("the file has it", || {
            kept("127.9.0.2 ") && !kept("127.9.0.1 ")
        });
        balancer.process.signal(libc::SIGKILL);
        balancer.wait();
        // What a crash can't do: half a file.
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("end 1", "")).unwrap();
        let balancer = start();
        assert!(visit(client(2), balancer.address()).is_none());
        assert!(visit(client(1), balancer.address()).is_some());
        balancer.until_logged("it is set aside as");
        // Also once the file is written again, until the operator has seen to it.
        let alerts = || balancer.ask(&["status"])["alerts"].to_string();
        balancer.words(&["ban", "127.9.0.3"]);
        eventually("the file has it", || kept("127.9.0.3 "));
        assert!(alerts().contains("set aside as"), "{}", alerts());
        fs::remove_file(dir.join("bans.corrupt")).unwrap();
        eventually("the alert has ended", || alerts() == "[]");
        balancer.finish();
        fs::remove_dir_all(&dir).unwrap();
    });
}

#[test]
fn a_watched_file_bans_what_it_has() {
    watched(|| {
        let backend = Backend::echo();
        let name = format!("mahoraga-imported-bans-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("feed.txt");
        let write = |text: &str| {
            let new = dir.join("feed.new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        write("# a feed\n127.9.0.1 # floods\n127.9.1.0/24\n");
        let settings = format!("bans: (import: {path:?}), trusted: [\"127.9.1.7\"],");
        let balancer = start(&backend, &settings);
        let to = balancer.address();
        let events = balancer.follow();
        // Before the first client.
        assert!(visit(client(1), to).is_none() && visit(client(256), to).is_none());
        assert!(visit(client(256 + 7), to).is_some());
        let mut held = visit(client(2), to).unwrap();
        balancer.words(&["ban", "127.9.0.3", "--reason", "ours"]);
        let (code, why) = balancer.refusal(&["unban", "127.9.0.1"]);
        assert!(code == Some(1) && why.contains("feed.txt bans it"), "{why}");
        write("127.9.0.2 ; joins them\n127.9.0.3\n127.9.0.4\n");
        let event = events.next("bans_imported");
        let message = event["message"].as_str().unwrap();
        assert!(
            message.ends_with("feed.txt: 3 networks, 2 new, 2 lifted"),
            "{message}"
        );
        expect_reset(&mut held);
        assert!(visit(client(1), to).is_some() && visit(client(256), to).is_some());
        let all = balancer.ask(&["bans"]);
        let shown = all.as_array().unwrap().iter();
        let shown = shown.map(|ban| {
            let [prefix, by] = ["prefix", "by"].map(|field| ban[field].as_str().unwrap());
            format!("{prefix} {by} {}", ban["reason"])
        });
        let want = [
            "127.9.0.2 file \"joins them\"",
            "127.9.0.3 hand \"ours\"",
            "127.9.0.4 file null",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), want);
        // The file's ban holds again.
        let lifted = balancer.ask(&["unban", "127.9.0.3"]);
        let note = lifted["notes"][0].as_str().unwrap();
        assert!(note.ends_with("bans it again"), "{lifted}");
        eventually("it is banned", || visit(client(3), to).is_none());
        assert_eq!(
            balancer
                .ask(&["bans", "--by", "file"])
                .as_array()
                .unwrap()
                .len(),
            3
        );
        a_mistake_in_the_file_changes_nothing(&balancer, &events, &write);
        let config = balancer.dir().join("config.ron");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace(&settings, "")).unwrap();
        assert!(balancer.words(&["reload"]).contains("is in force"));
        eventually("none is banned", || visit(client(2), to).is_some());
        assert_eq!(balancer.ask(&["bans"]).as_array().unwrap().len(), 0);
        drop(events);
        balancer.finish();
        fs::remove_dir_all(&dir).unwrap();
    });
}

fn a_mistake_in_the_file_changes_nothing(
    balancer: &Balancer,
    events: &Followed,
    write: &impl Fn(&str),
) {
    let to = balancer.address();
    write("127.9.0.9\n0.0.0.0/0\n");
    let event = events.next("bans_import_failed");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.contains("feed.txt: line 2: invalid prefix `0.0.0.0/0`"),
        "{message}"
    );
    assert!(visit(client(9), to).is_some() && visit(client(4), to).is_none());
    let status = balancer.ask(&["status"]);
    assert_eq!(status["alerts"][0], message);
    let import = &status["bans"]["import"];
    assert_eq!(
        (&import["networks"], &import["trusted"]),
        (&3.into(), &0.into())
    );
    let (_, why) = balancer.refusal(&["reload"]);
    assert!(why.contains("imported bans: "), "{why}");
}

#[test]
fn a_file_that_a_reload_names_is_read_before_it_is_written() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = start(&backend, "");
        let to = balancer.address();
        balancer.words(&["ban", "127.9.0.1", "127.9.0.2", "--reason", "now"]);
        let path = balancer.dir().join("kept-bans");
        let line = "rule 2026-01-01T00:00:00Z forever 7 3 source_rate: 10 times";
        let kept = format!("mahoraga bans 2\n127.9.0.2 {line}\n127.9.0.3 {line}\nend 2\n");
        fs::write(&path, kept).unwrap();
        let config = balancer.dir().join("config.ron");
        let text = fs::read_to_string(&config).unwrap();
        let with = format!("workers: 2, bans: (file: {path:?}),");
        fs::write(&config, text.replace("workers: 2,", &with)).unwrap();
        assert!(balancer.words(&["reload"]).contains("is in force"));
        eventually("the file has all", || {
            let text = fs::read_to_string(&path).unwrap();
            ["127.9.0.1 hand", "127.9.0.2 hand", "127.9.0.3 rule"]
                .iter()
                .all(|begin| text.contains(begin))
        });
        assert!(visit(client(3), to).is_none() && visit(client(1), to).is_none());
        balancer.until_logged("bans of the last run that hold: 1");
        let lifted = balancer.words(&["unban", "--by", "rule"]);
        assert_eq!(lifted, "1 ban lifted\n");
        assert!(visit(client(3), to).is_some());
        balancer.finish();
    });
}
