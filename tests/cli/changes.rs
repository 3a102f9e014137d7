//! Commands that change something: what they send, and what they print.

use std::fs;

use mahoraga::admin::model::{Changed, Readiness, Reloaded, Reopened, Stage};

use super::super::fake::Fake;
use super::super::stderr;
use super::{failed, json, pools, succeeded};

/// A command that names a backend, its request, and its output.
const BACKEND_CHANGES: [(&str, &str, &str); 9] = [
    (
        "weight app-2 5",
        r#"PATCH /v1/pools/web/backends/app-2 {"weight":5}"#,
        "snapshot 19: web/app-2 has weight 5\n",
    ),
    (
        "weight web/app-1 0 --keep",
        r#"PATCH /v1/pools/web/backends/app-1 {"weight":0}"#,
        "snapshot 19: web/app-1 has weight 0\n",
    ),
    (
        "drain app-2",
        r#"PATCH /v1/pools/web/backends/app-2 {"state":"drain"}"#,
        "snapshot 19: web/app-2 drains: no new sessions\n",
    ),
    (
        "ready app-2",
        r#"PATCH /v1/pools/web/backends/app-2 {"state":"ready"}"#,
        "snapshot 19: web/app-2 is ready\n",
    ),
    (
        "maint db/app-1 --keep",
        r#"PATCH /v1/pools/db/backends/app-1 {"state":"maint"}"#,
        "snapshot 19: db/app-1 is out of service: no new sessions, no probes\n",
    ),
    (
        "remove app-3",
        "DELETE /v1/pools/web/backends/app-3",
        "snapshot 19: web/app-3 removed\n",
    ),
    (
        "remove app-3 --keep --json",
        "DELETE /v1/pools/web/backends/app-3",
        "{\"snapshot\":19,\"changed\":true}\n",
    ),
    (
        "set backend app-4 --max-connections off",
        r#"PATCH /v1/pools/web/backends/app-4 {"max_connections":"off"}"#,
        "snapshot 19: web/app-4 has max_connections off\n",
    ),
    (
        "set backend app-4 --max-connections 9 --weight 2",
        r#"PATCH /v1/pools/web/backends/app-4 {"max_connections":9,"weight":2}"#,
        "snapshot 19: web/app-4 has weight 2, max_connections 9\n",
    ),
];

#[test]
fn backends_are_changed() {
    let all = json(&pools());
    let changed = json(&changed(19));
    let answers = [all.as_str(), changed.as_str()].repeat(BACKEND_CHANGES.len());
    let fake = Fake::saying("client_backend_changes", &answers);
    for (command, request, text) in BACKEND_CHANGES {
        let output = fake.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(succeeded(&output), text, "{command}");
        assert_eq!(fake.asked(), ["GET /v1/pools", request], "{command}");
    }
}

fn changed(snapshot: u64) -> Changed {
    Changed {
        snapshot,
        changed: true,
        ..Changed::default()
    }
}

#[test]
fn a_change_without_effect_and_one_with_a_warning_say_so() {
    let all = json(&pools());
    let same = json(&Changed {
        snapshot: 19,
        ..Changed::default()
    });
    let last = json(&Changed {
        notes: vec!["pool `web` has no usable backend left".to_owned()],
        ..changed(20)
    });
    let answers = [all.as_str(), &same, &all, &last, &all, &last];
    let fake = Fake::saying("client_notes_of_changes", &answers);
    let want = "snapshot 19: web/app-2 drains: no new sessions, as before\n";
    assert_eq!(succeeded(&fake.run(&["drain", "app-2"])), want);
    let output = fake.run(&["drain", "app-2"]);
    let warning = "warning: pool `web` has no usable backend left\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), warning));
    let output = fake.run(&["drain", "app-2", "--json"]);
    assert!(succeeded(&output).contains("no usable backend left"));
}

#[test]
fn several_backends_are_changed_by_one_command() {
    let all = json(&pools());
    let changed = [19, 20, 21].map(|snapshot| json(&changed(snapshot)));
    let mut answers = vec![all.as_str()];
    answers.extend(changed.iter().map(String::as_str));
    let fake = Fake::saying("client_several", &answers);
    let output = fake.run(&["drain", "app-2", "db/app-1", "web/app-3", "app-2"]);
    let want = "snapshot 19: web/app-2 drains: no new sessions\n\
                snapshot 20: db/app-1 drains: no new sessions\n\
                snapshot 21: web/app-3 drains: no new sessions\n";
    assert_eq!(succeeded(&output), want);
    let drain = |of: &str| format!(r#"PATCH /v1/pools/{of} {{"state":"drain"}}"#);
    let want = [
        "GET /v1/pools".to_owned(),
        drain("web/backends/app-2"),
        drain("db/backends/app-1"),
        drain("web/backends/app-3"),
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn one_wrong_name_changes_none() {
    let all = json(&pools());
    let fake = Fake::saying("client_one_wrong", &[&all]);
    let output = fake.run(&["remove", "app-2", "app-9"]);
    assert!(failed(&output, 1).starts_with("there is no backend called `app-9`"));
    assert_eq!(fake.asked(), ["GET /v1/pools"]);
}

/// The same for those that name none.
const CHANGES: [(&str, &str, &str); 12] = [
    (
        "add web 127.0.0.1:9005",
        r#"POST /v1/pools/web/backends {"address":"127.0.0.1:9005"}"#,
        "snapshot 19: web/127.0.0.1:9005 added\n",
    ),
    (
        "add web unix:/a,weight=2,max_connections=9,backup --name n --group g --state maint --keep",
        concat!(
            r#"POST /v1/pools/web/backends {"address":"unix:/a","backup":true,"group":"g","#,
            r#""max_connections":9,"name":"n","state":"maint","weight":2}"#
        ),
        "snapshot 19: web/n added\n",
    ),
    (
        "set pool web --strategy least_time",
        r#"PATCH /v1/pools/web {"strategy":"least_time"}"#,
        "snapshot 19: web has strategy least_time\n",
    ),
    (
        "set pool web --queue-max 1 --queue-timeout 2s",
        r#"PATCH /v1/pools/web {"queue_max":1,"queue_timeout":"2s"}"#,
        "snapshot 19: web has queue_max 1, queue_timeout 2s\n",
    ),
    (
        "set pool web --queue-timeout 2s --keep",
        r#"PATCH /v1/pools/web {"queue_timeout":"2s"}"#,
        "snapshot 19: web has queue_timeout 2s\n",
    ),
    (
        "set global --max-connections 500",
        r#"PATCH /v1/limits {"max_connections":500}"#,
        "snapshot 19: global has max_connections 500\n",
    ),
    (
        "set listener front --max-connections off",
        r#"PATCH /v1/listeners/front {"max_connections":"off"}"#,
        "snapshot 19: front has max_connections off\n",
    ),
    (
        "set listener front --source-limits (connections:20,rate:50) --ban off",
        r#"PATCH /v1/listeners/front {"ban":"off","source_limits":{"connections":20,"rate":50}}"#,
        "snapshot 19: front has source_limits (connections: 20, rate: 50), ban off\n",
    ),
    (
        "set listener front --bandwidth (all:(down:\"5MB/s\"))",
        r#"PATCH /v1/listeners/front {"bandwidth":{"all":{"down":"5MB/s"}}}"#,
        "snapshot 19: front has bandwidth (all: (down: \"5MB/s\"))\n",
    ),
    (
        "set global --rate-limit (rate:1000)",
        r#"PATCH /v1/limits {"rate_limit":{"rate":1000}}"#,
        "snapshot 19: global has rate_limit (rate: 1000)\n",
    ),
    (
        "set pool web --max-connections 1",
        r#"PATCH /v1/pools/web {"max_connections":1}"#,
        "snapshot 19: web has max_connections 1\n",
    ),
    (
        "reload --json",
        "POST /v1/reload",
        "{\n  \"snapshot\": 19,\n  \"changed\": true\n}\n",
    ),
];

#[test]
fn a_reload_says_what_it_did_not_do() {
    let notes = ["workers takes effect at the next start", "a\u{1b}b"];
    let reloaded = json(&Reloaded {
        snapshot: 19,
        changed: true,
        notes: notes.map(str::to_owned).into(),
        ..Reloaded::default()
    });
    let holding = "1 change by command still holds: web/app-2: removed";
    let same = json(&Reloaded {
        snapshot: 19,
        changes: vec![holding.to_owned()],
        ..Reloaded::default()
    });
    let fake = Fake::saying("client_notes", &[reloaded.as_str(), &same]);
    let output = fake.run(&["reload"]);
    let want = "warning: workers takes effect at the next start\nwarning: a\u{fffd}b\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), want));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "snapshot 19 is in force\n"
    );
    assert_eq!(fake.asked(), ["POST /v1/reload"]);
    let want = format!("nothing has changed: snapshot 19 is in force\n{holding}\n");
    assert_eq!(succeeded(&fake.run(&["reload"])), want);
}

#[test]
fn leave_waits_until_the_balancer_has_left() {
    let [leaving, left, ready] =
        [Stage::Leaving, Stage::Left, Stage::Ready].map(|stage| json(&readiness(stage)));
    let fake = Fake::saying("client_leave", &[&leaving, &leaving, &left, &ready]);
    assert_eq!(
        succeeded(&fake.run(&["leave", "--wait", "1500ms"])),
        "left: no new clients are taken, and sessions may go on\n"
    );
    let asked = ["POST /v1/leave?wait_s=1.5", "GET /healthz", "GET /healthz"];
    assert_eq!(fake.asked(), asked);
    assert_eq!(
        succeeded(&fake.run(&["join"])),
        "joined: new clients are taken\n"
    );
    assert_eq!(fake.asked(), ["POST /v1/join"]);
}

#[test]
fn leave_fails_when_the_balancer_has_not_left() {
    for (stage, why) in [
        (Stage::Ready, "joined meanwhile"),
        (Stage::Starting, "joined meanwhile"),
        (Stage::Stopping, "the balancer is stopping"),
    ] {
        let [leaving, then] = [Stage::Leaving, stage].map(|stage| json(&readiness(stage)));
        let fake = Fake::saying("client_leave_fails", &[&leaving, &then]);
        let output = fake.run(&["leave"]);
        let want = format!("error: cannot leave: {why}\n");
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), &*want));
    }
    let left = readiness(Stage::Left);
    let here = json(&Readiness {
        still_here: vec!["192.0.2.1".parse().unwrap()],
        ..left.clone()
    });
    let fake = Fake::saying("client_leave_here", &[&json(&left), &here]);
    let output = fake.run(&["leave"]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let want = "error: left, but 192.0.2.1 is still on this machine";
    assert!(error.starts_with(want), "{error}");
}

fn readiness(stage: Stage) -> Readiness {
    Readiness {
        stage,
        ..Readiness::default()
    }
}

#[test]
fn the_logs_are_opened_again_by_name() {
    let [some, none] = [vec!["a.log".to_owned(), "b.log".to_owned()], vec![]]
        .map(|files| json(&Reopened { files }));
    let fake = Fake::saying("client_reopen", &[some.as_str(), &none]);
    assert_eq!(
        succeeded(&fake.run(&["reopen"])),
        "opened again: a.log, b.log\n"
    );
    assert_eq!(fake.asked(), ["POST /v1/reopen"]);
    let want = "no log is written to a file: nothing to open again\n";
    assert_eq!(succeeded(&fake.run(&["reopen"])), want);
}

#[test]
fn the_rest_is_changed() {
    let changed = json(&changed(19));
    let fake = Fake::saying("client_changes", &[changed.as_str(); CHANGES.len()]);
    for (command, request, text) in CHANGES {
        let output = fake.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(succeeded(&output), text, "{command}");
        let asked = fake.asked();
        assert!(
            asked.len() == 1 && asked[0].starts_with(request),
            "{asked:?}"
        );
    }
}

#[test]
fn routes_are_shown_as_a_file_has_them_and_put_back() {
    let routes = concat!(
        r#""routes":[{"pools":[{"name":"x","weight":5},{"name":"y"}],"sni":["a.example"]},"#,
        r#"{"pool":"refuse"}],"version":"#
    );
    let answer = format!("{{{routes}\"01\"}}");
    let changed = json(&changed(19));
    let fake = Fake::saying("client_routes", &[&*answer, &changed]);
    let shown = succeeded(&fake.run(&["routes", "edge"])).to_owned();
    let want = "// routes of edge, version 01\n[\n    (sni: [\"a.example\"], \
                pools: [(name: \"x\", weight: 5), (name: \"y\")]),\n    (pool: \"refuse\"),\n]\n";
    assert_eq!(shown, want);
    let file = fake.directory.join("r.ron");
    fs::write(&file, shown).unwrap();
    let set = ["set", "routes", "edge", "--from", "r.ron"];
    let words = succeeded(&fake.run(&set)).to_owned();
    assert_eq!(words, "snapshot 19: edge has 2 routes\n");
    let path = "/v1/listeners/edge/routes";
    let want = [
        format!("GET {path}"),
        format!("PUT {path} {{{routes}null}}"),
    ];
    assert_eq!(fake.asked(), want);
    // The balancer is not asked.
    fs::write(&file, "[\n(pol: \"x\"),\n]").unwrap();
    let wrong = failed(&fake.run(&set), 2).to_owned();
    assert!(
        wrong.starts_with("r.ron:2:2: route 1: unknown field `pol`, did you mean `pool`?"),
        "{wrong}"
    );
    fs::write(&file, "// none\n").unwrap();
    let empty = failed(&fake.run(&set), 2).to_owned();
    let want = "r.ron:1:1: the file is empty: expected a list; `[]` takes all routes away";
    assert!(empty.starts_with(want), "{empty}");
    let absent = ["set", "routes", "edge", "--from", "absent.ron"];
    let absent = failed(&fake.run(&absent), 2).to_owned();
    assert!(absent.starts_with("cannot read absent.ron: "), "{absent}");
}

#[test]
fn a_backend_of_a_pool_with_members_is_added_with_its_number() {
    let answer = json(&Changed {
        member: Some(3),
        ..changed(19)
    });
    let fake = Fake::saying("client_member", &[&*answer]);
    let words = fake.run(&["add", "brokers", "127.0.0.1:9005"]);
    let want = "snapshot 19: brokers/127.0.0.1:9005 added as member 3\n";
    assert_eq!(succeeded(&words), want);
}

#[test]
fn new_weights_are_answered_with_all_weights_and_shares() {
    let routes = concat!(
        r#"{"routes":[{"pools":[{"name":"stable","weight":50},{"name":"canary","weight":100},"#,
        r#"{"name":"old","weight":0},{"name":"new","weight":1}]},"#,
        r#"{"name":"b","pool":"stable"}],"version":"01"}"#
    );
    let changed = json(&changed(19));
    let fake = Fake::saying("client_weights", &[&*changed, routes, &changed]);
    let output = fake.run(&["set", "route", "edge", "1", "canary=100", "old=0"]);
    let want = "snapshot 19: route 1 of edge has stable 50 (33 %), canary 100 (66 %), \
                old 0 (0 %), new 1 (0.7 %)\n";
    assert_eq!(succeeded(&output), want);
    let to = [
        "set",
        "route",
        "a/b",
        "2",
        "x=1",
        "--if-version",
        "01",
        "--json",
    ];
    succeeded(&fake.run(&to));
    let want = [
        concat!(
            r#"PATCH /v1/listeners/edge/routes/1 {"pools":[{"name":"canary","weight":100},"#,
            r#"{"name":"old","weight":0}],"version":null}"#
        ),
        "GET /v1/listeners/edge/routes",
        concat!(
            r#"PATCH /v1/listeners/a%2Fb/routes/2 {"pools":[{"name":"x","weight":1}],"#,
            r#""version":"01"}"#
        ),
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn a_wait_ends_when_the_backend_is_idle() {
    let changed = json(&changed(19));
    let mut of = pools();
    let all = json(&of);
    let mut db = of.remove(1);
    let busy = json(&db);
    db.backends[0].connections = 0;
    let answers = [
        all.as_str(),
        &changed,
        &busy,
        &json(&db),
        &all,
        &changed,
        &busy,
        &busy,
    ];
    let fake = Fake::saying("client_wait", &answers);
    let output = fake.run(&["drain", "db/app-1", "--wait"]);
    assert_eq!(
        succeeded(&output),
        "snapshot 19: db/app-1 drains: no new sessions\n"
    );
    assert_eq!(fake.asked().split_off(2), ["GET /v1/pools/db"; 2]);
    let output = fake.run(&["remove", "db/app-1", "--wait=1ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: db/app-1 still has 2 connections after 1ms\n"
    );
}

#[test]
fn a_backend_may_not_be_found() {
    let all = json(&pools());
    let fake = Fake::saying("client_find", &[all.as_str(); 4]);
    let want = "more than one backend is called `app-1`: write web/app-1 or db/app-1";
    assert_eq!(failed(&fake.run(&["drain", "app-1"]), 1), want);
    let kill = ["sessions", "--kill", "--backend", "app-1"];
    assert_eq!(failed(&fake.run(&kill), 1), want);
    let want = "there is no backend called `ap-2`, did you mean `app-2`?";
    assert_eq!(failed(&fake.run(&["ready", "ap-2"]), 1), want);
    let list = ["sessions", "--backend", "ap-2"];
    assert_eq!(failed(&fake.run(&list), 1), want);
}
