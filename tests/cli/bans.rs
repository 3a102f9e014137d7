//! Commands about bans: what they send, and what they print.

use std::fs;

use mahoraga::admin::model::{
    BanImportStatus, BanStatus, Banned, BannedBy, BansStatus, Lifted, LiftedBans, Status,
    WorkerStatus,
};

use super::super::fake::{Fake, answer};
use super::super::stderr;
use super::{failed, json, succeeded};

fn ban(prefix: &str, by: BannedBy) -> BanStatus {
    BanStatus {
        prefix: prefix.parse().unwrap(),
        by,
        reason: Some("floods\u{1b}[2J".to_owned()),
        since: "2026-01-02T03:04:05Z".to_owned(),
        until: None,
        left_s: None,
        hits: 12_731,
    }
}

fn banned(prefix: &str) -> Banned {
    Banned {
        ban: ban(prefix, BannedBy::Hand),
        replaced: false,
        notes: Vec::new(),
    }
}

const BANS: &str = "\
banned         by    since                 ends in  refused  reason
192.0.2.7      hand  2026-01-02T03:04:05Z    never      13k  floods\u{fffd}[2J
2001:db8::/48  rule  2026-01-02T03:04:05Z   1m 30s        0
203.0.113.9    file  2026-01-02T03:04:05Z    never      13k  floods\u{fffd}[2J
";

#[test]
fn bans_are_shown_with_their_origin() {
    let by_rule = BanStatus {
        reason: None,
        until: Some("2026-01-02T03:05:35Z".to_owned()),
        left_s: Some(90.4),
        hits: 0,
        ..ban("2001:db8::/48", BannedBy::Rule)
    };
    let all = [
        ban("192.0.2.7", BannedBy::Hand),
        by_rule,
        ban("203.0.113.9", BannedBy::File),
    ];
    let text = json(&all);
    let fake = Fake::saying("client_bans", &[text.as_str(); 5]);
    assert_eq!(succeeded(&fake.run(&["bans"])), BANS);
    let filtered = "bans --client 192.0.2.7 --within 192.0.2.0/24 --by file --sort hits --limit 3";
    let output = fake.run(&filtered.split(' ').collect::<Vec<_>>());
    let want = format!("{BANS}only the first 3 are shown: see --limit\n");
    assert_eq!(succeeded(&output), want);
    let output = fake.run(&["bans", "--json"]);
    let again: Vec<BanStatus> = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!(again, all);
    // What `ban --from` and a watched file read.
    let lines = "192.0.2.7 # floods\u{fffd}[2J\n\
                 2001:db8::/48 # until 2026-01-02T03:05:35Z\n\
                 203.0.113.9 # floods\u{fffd}[2J\n";
    assert_eq!(succeeded(&fake.run(&["bans", "--export"])), lines);
    assert_eq!(
        succeeded(&fake.run(&["bans", "--export", "--limit", "9"])),
        lines
    );
    let want = [
        "GET /v1/bans",
        "GET /v1/bans?client=192.0.2.7&within=192.0.2.0%2F24&by=file&sort=hits&limit=3",
        "GET /v1/bans",
        "GET /v1/bans?limit=1000000",
        "GET /v1/bans?limit=9",
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn the_status_says_what_of_a_watched_file_is_not_banned() {
    let import = |networks, trusted, no_room| {
        let import = BanImportStatus {
            file: "/feed".to_owned(),
            networks,
            trusted,
            no_room,
            error: None,
        };
        let bans = BansStatus {
            max: 10,
            import: Some(import),
            ..BansStatus::default()
        };
        json(&Status {
            bans,
            ..Status::default()
        })
    };
    let answers = [import(1, 0, 0), import(9, 3, 2)];
    let fake = Fake::saying("client_bans_status", &answers.each_ref().map(|its| &**its));
    for file in [
        "1 network in /feed\n",
        "9 networks in /feed, 3 trusted, 2 without room\n",
    ] {
        let output = fake.run(&["status"]);
        let lines = format!("bans         0 of at most 10, 0 clients refused\n             {file}");
        let text = succeeded(&output);
        assert!(text.contains(&lines), "{text}");
    }
}

/// They are in no session, and so in no other list.
#[test]
fn the_status_counts_clients_that_are_held() {
    let worker = |numbers: &[(&str, u64)]| WorkerStatus {
        numbers: numbers
            .iter()
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect(),
        ..WorkerStatus::default()
    };
    let status = |workers: Vec<WorkerStatus>| {
        json(&Status {
            workers,
            ..Status::default()
        })
    };
    let answers = [
        status(vec![worker(&[("held", 0)])]),
        status(vec![
            worker(&[("held", 3), ("tarpitted", 9)]),
            worker(&[("held", 1), ("dropped", 2), ("held_early", 5)]),
        ]),
    ];
    let fake = Fake::saying("client_held_status", &answers.each_ref().map(|its| &**its));
    let output = fake.run(&["status"]);
    assert!(!succeeded(&output).contains("held "));
    let output = fake.run(&["status"]);
    let line = "held         4 now, of 9 tarpitted and 2 dropped clients, 5 let go early\n";
    assert!(succeeded(&output).contains(line), "{output:?}");
}

#[test]
fn clients_are_banned() {
    let forever = json(&banned("192.0.2.7"));
    let mut again = banned("10.0.0.0/7");
    again.replaced = true;
    again.ban.until = Some("2026-01-02T03:14:05Z".to_owned());
    again.notes = vec!["clients of 10.1.0.0/16 still connect".to_owned()];
    let again = json(&again);
    let mut answers = vec![&*forever, &again, &forever, &again];
    answers.extend([&*forever; 5]);
    let fake = Fake::saying("client_ban", &answers);
    let output = fake.run(&["ban", "192.0.2.7"]);
    assert_eq!(succeeded(&output), "192.0.2.7 banned until it is lifted\n");
    let wide = "ban 10.0.0.0/7 ::1 --for 10m --reason floods --force";
    let output = fake.run(&wide.split(' ').collect::<Vec<_>>());
    let warning = "warning: clients of 10.1.0.0/16 still connect\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), warning));
    let lines = "10.0.0.0/7 banned until 2026-01-02T03:14:05Z, in place of its earlier ban\n\
                 ::1 banned until it is lifted\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
    // In JSON the answer has its notes.
    let output = fake.run(&["ban", "10.0.0.0/7", "--json"]);
    assert_eq!(succeeded(&output), again.clone() + "\n");
    fs::write(
        fake.directory.join("feed"),
        "# two\n192.0.2.8 # why it was\n\n  2001:db8::/48;\n\
         192.0.2.9 # until 2001-01-01T00:00:00Z over\n",
    )
    .unwrap();
    let output = fake.run(&["ban", "--from", "feed"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    let past = "warning: 192.0.2.9 is not banned: its ban ended at 2001-01-01T00:00:00Z\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), past));
    let output = fake.run(&[
        "ban", "--from", "feed", "--for", "10m", "--reason", "floods",
    ]);
    assert_eq!(succeeded(&output).lines().count(), 3);
    let (times, force) = (r#""for":"10m","force":true"#, r#""reason":"floods""#);
    let reason = force;
    let want = [
        r#"POST /v1/bans {"prefix":"192.0.2.7"}"#.to_owned(),
        format!(r#"POST /v1/bans {{{times},"prefix":"10.0.0.0/7",{force}}}"#),
        format!(r#"POST /v1/bans {{{times},"prefix":"::1",{force}}}"#),
        r#"POST /v1/bans {"prefix":"10.0.0.0/7"}"#.to_owned(),
        r#"POST /v1/bans {"prefix":"192.0.2.8","reason":"why it was"}"#.to_owned(),
        r#"POST /v1/bans {"prefix":"2001:db8::/48"}"#.to_owned(),
        format!(r#"POST /v1/bans {{"for":"10m","prefix":"192.0.2.8",{reason}}}"#),
        format!(r#"POST /v1/bans {{"for":"10m","prefix":"2001:db8::/48",{reason}}}"#),
        format!(r#"POST /v1/bans {{"for":"10m","prefix":"192.0.2.9",{reason}}}"#),
    ];
    let mut asked = fake.asked();
    for request in &mut asked {
        *request = sorted(request);
    }
    assert_eq!(asked, want.map(|request| sorted(&request)));
}

/// A request whose fields are in a known order.
fn sorted(request: &str) -> String {
    let (line, body) = request.split_once('{').unwrap();
    let body: serde_json::Value = serde_json::from_str(&format!("{{{body}")).unwrap();
    format!("{line}{body}")
}

#[test]
fn bans_are_lifted() {
    let lifted = |hits, notes: &[&str]| {
        let ban = BanStatus {
            hits,
            ..ban("192.0.2.0/24", BannedBy::Hand)
        };
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        json(&Lifted { ban, notes })
    };
    let answers = [
        lifted(1, &[]),
        lifted(2, &["/feed bans it again"]),
        lifted(2, &["/feed bans it again"]),
    ];
    let fake = Fake::saying("client_unban", &answers.each_ref().map(|its| &**its));
    let output = fake.run(&["unban", "192.0.2.0/24", "::1"]);
    let warning = "warning: /feed bans it again\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), warning));
    let lines = "192.0.2.0/24 unbanned; 1 client refused\n::1 unbanned; 2 clients refused\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
    let output = fake.run(&["unban", "::1", "--json"]);
    assert_eq!(succeeded(&output), answers[2].clone() + "\n");
    let want = [
        "DELETE /v1/bans/192.0.2.0%2F24",
        "DELETE /v1/bans/%3A%3A1",
        "DELETE /v1/bans/%3A%3A1",
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn the_balancer_may_refuse() {
    let error = |text: &str| format!(r#"{{"error":"{text}"}}"#);
    let unprocessable = "422 Unprocessable Entity";
    let one = answer("200 OK", &json(&banned("192.0.2.7")));
    let full = error("cannot ban ::1: the ban table is full");
    let answers = [
        answer(
            unprocessable,
            &error("cannot ban 192.0.2.8: it is `trusted`"),
        ),
        one.clone(),
        answer(unprocessable, &full),
        one,
        answer("404 Not Found", &error("192.0.2.9 is not banned")),
        answer("403 Forbidden", &error("this token may only look")),
    ];
    let fake = Fake::answering("client_bans_refused", answers.into());
    // The rest is banned all the same.
    let output = fake.run(&["ban", "192.0.2.8", "192.0.2.7", "::1", "192.0.2.7"]);
    assert_eq!(output.status.code(), Some(1));
    let line = "192.0.2.7 banned until it is lifted\n".repeat(2);
    assert_eq!(String::from_utf8_lossy(&output.stdout), line);
    let lines = "error: cannot ban 192.0.2.8: it is `trusted`\n\
                 error: cannot ban ::1: the ban table is full\n\
                 error: 2 of 4 could not be banned\n";
    assert_eq!(stderr(&output), lines);
    let output = fake.run(&["unban", "192.0.2.9"]);
    assert_eq!(failed(&output, 1), "192.0.2.9 is not banned");
    assert_eq!(failed(&fake.run(&["bans"]), 1), "this token may only look");
}

/// Nothing is sent.
#[test]
fn mistakes_in_arguments_are_found_before_a_request() {
    let fake = Fake::saying("client_bans_mistakes", &["{}"]);
    fs::write(fake.directory.join("feed"), "192.0.2.7\n192.0.2.0/8 # x\n").unwrap();
    for (command, why) in [
        ("ban", "required arguments"),
        ("unban", "required arguments"),
        ("ban 192.0.2", "expected an IP address or a prefix"),
        ("ban 10.1.0.0/8", "write `10.0.0.0/8`"),
        ("unban office", "expected an IP address or a prefix"),
        ("ban ::1 --for soon", "expected"),
        ("ban ::1 --for 0s", "expected"),
        ("ban ::1 --reason a\u{7}b", "no control character"),
        ("ban --from absent", "cannot read absent: No such file"),
        ("ban --from feed", "feed: line 2: "),
        (
            "bans --by me",
            "expected `hand`, `rule`, `file`, `fleet` or `peer`",
        ),
        ("bans --sort hit", "did you mean `hits`?"),
        ("bans --limit 0", "expected"),
        ("bans --limit 1000001", "expected"),
        ("bans --client 10.0.0.0/8", "expected an IP address"),
        ("bans --export --json", "cannot be used with"),
    ] {
        let output = fake.run(&command.split(' ').collect::<Vec<_>>());
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {error}");
        assert!(error.contains(why), "{command}: {error}");
    }
    assert!(fake.asked().is_empty());
}

#[test]
fn bans_are_lifted_together() {
    let lifted = json(&LiftedBans {
        bans: 1_002,
        notes: vec!["bans of /feed stay as long as it has them".to_owned()],
    });
    let fake = Fake::saying("client_unban_all", &[lifted.as_str(); 3]);
    let output = fake.run(&["unban", "--all"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1002 bans lifted\n"
    );
    let warning = "warning: bans of /feed stay as long as it has them\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), warning));
    fake.run(&["unban", "--within", "10.0.0.0/8", "--by", "rule"]);
    let output = fake.run(&["unban", "--by", "hand", "--json"]);
    assert_eq!(succeeded(&output), lifted + "\n");
    let want = [
        "DELETE /v1/bans?all=true",
        "DELETE /v1/bans?within=10.0.0.0%2F8&by=rule",
        "DELETE /v1/bans?by=hand",
    ];
    assert_eq!(fake.asked(), want);
    for both in [&["--all", "--by", "rule"][..], &["::1", "--all"]] {
        let output = fake.run(&[&["unban"][..], both].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("cannot be used with"));
    }
}
