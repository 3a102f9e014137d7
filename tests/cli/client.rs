//! Commands that query a running balancer: what they request, and how they show it.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use mahoraga::admin::model::{
    AccessDecision, AccessListDetail, AccessListStatus, BackendStatus, BalancerEvent,
    CertificateStatus, ConfigText, EventKind, HealthStatus, HistogramStatus, Killed, LastChange,
    LatencyStatus, LatencyWindow, ListenerStatus, MetStatus, PoolStatus, PrivilegesStatus, Reloads,
    RouteChoice, RouteStatus, SessionState, SessionStatus, Stage, Status, TlsStatus, TrafficStatus,
    WorkerStatus,
};
use mahoraga::config::{AdminState, EffectiveSetting, SettingSource};
use serde::Serialize;

use super::fake::{Fake, answer};
use super::{Running, run, stderr, stdout};

mod bans;
mod changes;
mod refusals;

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// A download that is still under way.
const TRAFFIC: TrafficStatus = TrafficStatus {
    bytes_up: 12_345_678,
    bytes_down: 3_400_000_000,
    bytes_up_per_s: 1_500,
    bytes_down_per_s: 20_000_000,
};

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        pid: 4_711,
        started_at: "2026-01-02T03:04:05Z".to_owned(),
        uptime_s: 273_900.0,
        stage: Stage::Ready,
        snapshot: 18,
        publish_us: Some(850),
        connections: 1_234,
        max_connections: 16_384,
        accepted: 120_034,
        traffic: TRAFFIC,
        closed: [
            ("backend_closed".to_owned(), 7),
            ("client_closed".to_owned(), 118_793),
        ]
        .into(),
        lacks: vec!["no free local port to backend `b`".to_owned()],
        alerts: vec!["pool `web` has no usable backend".to_owned()],
        waiting: vec!["memory takes effect at the next start".to_owned()],
        latencies: vec![latency("connect", 180), latency("session", 0)],
        reloads: Reloads {
            succeeded: 3,
            failed: 1,
            last_at: Some("2026-01-05T03:04:05Z".to_owned()),
            last_error: Some(
                "config.ron:1:9: `\u{1b}x` is no listener\n1 | x\n        ^".to_owned(),
            ),
        },
        privileges: PrivilegesStatus {
            user: "mahoraga".to_owned(),
            capabilities: vec!["CAP_NET_BIND_SERVICE".to_owned()],
            no_new_privs: true,
            calls_filtered: true,
        },
        workers: vec![worker(0), worker(1)],
        ..Status::default()
    }
}

fn latency(name: &str, p50_us: u64) -> LatencyStatus {
    let window = |count: u64| LatencyWindow {
        count: count * p50_us,
        p50_us,
        p99_us: 10 * p50_us * count,
        ..LatencyWindow::default()
    };
    LatencyStatus {
        name: name.to_owned(),
        last_10s: LatencyWindow::default(),
        last_1m: window(1),
        since_start: window(20),
    }
}

fn worker(worker: u32) -> WorkerStatus {
    let numbers = [
        ("sessions", 617),
        ("accepted", 60_017),
        ("connect_failures", 2),
    ];
    WorkerStatus {
        worker,
        snapshot: 18,
        traffic: TRAFFIC,
        numbers: numbers.map(|(name, n)| (name.to_owned(), n)).into(),
    }
}

fn backend(pool: &str, name: &str, port: u16) -> BackendStatus {
    BackendStatus {
        pool: pool.to_owned(),
        name: name.to_owned(),
        address: format!("[::1]:{port}"),
        weight: 1,
        state: AdminState::Ready,
        health: HealthStatus::Up,
        in_rotation: true,
        ..BackendStatus::default()
    }
}

fn pools() -> Vec<PoolStatus> {
    let busy = BackendStatus {
        connections: 1_234,
        max_connections: Some(2_000),
        waiting: 3,
        opened: 98_765,
        answer_ms: Some(1.24),
        bytes: 3_412_345_678,
        traffic: TRAFFIC,
        ..backend("web", "app-1", 9001)
    };
    let down = BackendStatus {
        health: HealthStatus::Down,
        check: Some("refused".to_owned()),
        failures: 12,
        connect_failures: [("refused".to_owned(), 3), ("timed_out".to_owned(), 1)].into(),
        checks_failed: 1_034,
        times_down: 3,
        down_s: 4_000.0,
        times_ejected: 1,
        last_change: Some(LastChange {
            to: "down".to_owned(),
            at: "2026-01-02T03:04:05.000Z".to_owned(),
        }),
        in_rotation: false,
        ..backend("web", "app-2", 9002)
    };
    let ejected = BackendStatus {
        ejected_s: Some(23.4),
        in_rotation: false,
        ..backend("web", "app-3", 9003)
    };
    let rising = BackendStatus {
        rising: Some(4),
        ..backend("web", "app-4", 9004)
    };
    let drained = BackendStatus {
        state: AdminState::Drain,
        health: HealthStatus::Unchecked,
        in_rotation: false,
        connections: 2,
        ..backend("db", "app-1", 5432)
    };
    let leaving = BackendStatus {
        leaving: true,
        in_rotation: false,
        ..backend("db", "old", 5433)
    };
    vec![
        PoolStatus {
            name: "web".to_owned(),
            strategy: "round_robin".to_owned(),
            connections: 1_234,
            max_connections: Some(5_000),
            traffic: TRAFFIC,
            queued: 4,
            queue_max: 100,
            queue_timeout_s: 2.5,
            panic: true,
            clients: Some(12_345),
            backends: vec![busy, down, ejected, rising],
            ..PoolStatus::default()
        },
        PoolStatus {
            name: "db".to_owned(),
            strategy: "least_connections".to_owned(),
            connections: 2,
            backends: vec![drained, leaving],
            ..PoolStatus::default()
        },
    ]
}

/// The output of a command that succeeds.
#[track_caller]
fn succeeded(output: &Output) -> &str {
    assert_eq!((output.status.code(), stderr(output)), (Some(0), ""));
    stdout(output)
}

/// The error of a command, in one line.
#[track_caller]
fn failed(output: &Output, code: i32) -> &str {
    assert_eq!((output.status.code(), stdout(output)), (Some(code), ""));
    let line = stderr(output).strip_prefix("error: ").unwrap();
    line.strip_suffix('\n').unwrap()
}

#[test]
fn status_is_shown() {
    let fake = Fake::saying("client_status", &[&json(&status()), &json(&status())]);
    assert_eq!(succeeded(&fake.run(&["status"])), STATUS);
    let output = fake.run(&["status", "--json"]);
    let again: Status = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!(again, status());
    assert!(succeeded(&output).starts_with("{\n  \"version\": \"0.1.0\",\n"));
    assert_eq!(fake.asked(), ["GET /v1/status", "GET /v1/status"]);
}

#[test]
fn wide_shows_the_history_of_backends() {
    let fake = Fake::saying("client_history", &[&json(&pools()[0])]);
    let output = fake.run(&["backends", "--pool", "web", "--wide"]);
    let (_, history) = succeeded(&output).split_once("\n\n").unwrap();
    assert_eq!(history, HISTORY);
}

#[test]
fn past_events_that_are_left_out_are_told() {
    let event = |number: u32| {
        format!(
            "{{\"at\":\"2026-01-02T03:04:0{number}Z\",\"kind\":\"up\",\"pool\":null,\
             \"backend\":null,\"message\":\"event {number}\"}}"
        )
    };
    let events = format!("[{},{},{}]", event(3), event(2), event(1));
    let fake = Fake::saying("client_past_events", &[&events, &events]);
    let all = fake.run(&["history", "--events"]);
    assert_eq!(succeeded(&all).lines().count(), 3);
    assert_eq!(stderr(&all), "");
    let some = fake.run(&["history", "--events", "--limit", "2"]);
    let want = "2026-01-02T03:04:02Z  up  event 2\n2026-01-02T03:04:03Z  up  event 3\n";
    assert_eq!(stdout(&some), want);
    let told = stderr(&some);
    assert!(told.starts_with("only the newest 2 are shown"), "{told}");
    let asked = fake.asked();
    assert!(asked[0].ends_with("limit=10000"), "{asked:?}");
    assert!(asked[1].ends_with("limit=3"), "{asked:?}");
}

fn routes() -> Vec<RouteStatus> {
    vec![
        RouteStatus {
            route: 1,
            name: Some("trial".to_owned()),
            conditions: vec![MetStatus {
                setting: "sni".to_owned(),
                values: ["a.b", "*.c", "d", "e"].map(str::to_owned).to_vec(),
                more: 3,
            }],
            pool: Some("web".to_owned()),
            weight: Some(1),
            share: Some(12.5),
            sessions: 9,
        },
        RouteStatus {
            route: 2,
            ..RouteStatus::default()
        },
    ]
}

#[test]
fn listeners_and_pools_and_backends_are_tables() {
    let listeners = [
        ListenerStatus {
            name: "front".to_owned(),
            bind: "0.0.0.0:8080".to_owned(),
            pool: "web".to_owned(),
            connections: 1_234,
            max_connections: Some(10_000),
            sessions: 98_765,
            access_list: Some("office".to_owned()),
            refused: 7,
            refused_by: [
                ("access_denied".to_owned(), 4),
                ("source_rate".to_owned(), 3),
            ]
            .into(),
            dry_run: [("global_rate".to_owned(), 12)].into(),
            traffic: TRAFFIC,
            tls: Some(tls()),
            ..ListenerStatus::default()
        },
        ListenerStatus {
            name: "db".to_owned(),
            bind: "[::1]:5432".to_owned(),
            pool: "db".to_owned(),
            routes: routes(),
            unrouted: Some(1_234),
            ..ListenerStatus::default()
        },
    ];
    let pools = pools();
    let all = json(&pools);
    let answers = [
        &json(&listeners),
        &all,
        &json(&pools[1]),
        &all,
        &json(&pools[1]),
        &all,
    ];
    let fake = Fake::saying("client_tables", &answers.map(String::as_str));
    assert_eq!(succeeded(&fake.run(&["listeners"])), LISTENERS);
    assert_eq!(succeeded(&fake.run(&["pools"])), POOLS);
    assert_eq!(succeeded(&fake.run(&["pools", "db"])), POOL);
    assert_eq!(succeeded(&fake.run(&["backends"])), BACKENDS);
    let output = fake.run(&["backends", "--pool", "db/ä"]);
    assert!(POOL.ends_with(succeeded(&output)));
    let output = fake.run(&["backends", "--json"]);
    let backends: Vec<BackendStatus> = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!(backends.len(), 6);
    let want = [
        "GET /v1/listeners",
        "GET /v1/pools",
        "GET /v1/pools/db",
        "GET /v1/pools",
        "GET /v1/pools/db%2F%C3%A4",
        "GET /v1/pools",
    ];
    assert_eq!(fake.asked(), want);
}

fn tls() -> TlsStatus {
    let certificate = |expires| CertificateStatus {
        expires,
        ..CertificateStatus::default()
    };
    TlsStatus {
        certificates: [4_102_531_200, 4_102_444_800].map(certificate).to_vec(),
        clients: Some("optional".to_owned()),
        handshakes: [
            ("1.2/full".to_owned(), 3),
            ("1.3/resumed".to_owned(), 1_200),
        ]
        .into(),
        failures: [("left".to_owned(), 2), ("not_tls".to_owned(), 5)].into(),
        ..TlsStatus::default()
    }
}

fn access_list(name: &str) -> AccessListStatus {
    AccessListStatus {
        name: name.to_owned(),
        prefixes: 1_003,
        others: "allow".to_owned(),
        refused: 7,
        dry_run: true,
        file: Some("feed.txt".to_owned()),
        error: Some("feed.txt: line 2".to_owned()),
    }
}

fn access_list_with(client: Option<AccessDecision>) -> AccessListDetail {
    AccessListDetail {
        list: access_list("office"),
        allow: vec!["10.0.0.0/8".to_owned()],
        deny: vec!["10.6.0.0/16".to_owned()],
        client,
    }
}

#[test]
fn access_lists_are_shown() {
    let verdict = AccessDecision {
        client: "192.0.2.7".parse().unwrap(),
        access: "deny".to_owned(),
        prefix: Some("192.0.2.0/24".to_owned()),
        in_file: true,
    };
    let one = json(&[access_list("office")]);
    let listeners = json(&[ListenerStatus {
        name: "front".to_owned(),
        access_list: Some("office".to_owned()),
        dry_run: [("access_denied".to_owned(), 7)].into(),
        ..ListenerStatus::default()
    }]);
    let answers = [
        &one,
        &listeners,
        &json(&access_list_with(None)),
        &listeners,
        &one,
        &json(&access_list_with(Some(verdict))),
    ];
    let fake = Fake::saying("client_access", &answers.map(String::as_str));
    assert_eq!(succeeded(&fake.run(&["access"])), ACCESS_LISTS);
    let prefixes = "allow  10.0.0.0/8\ndeny   10.6.0.0/16\n1001 more in feed.txt\n";
    assert_eq!(
        succeeded(&fake.run(&["access", "office"])),
        format!("{ACCESS_LISTS}{prefixes}")
    );
    assert_eq!(
        succeeded(&fake.run(&["access", "--client", "192.0.2.7"])),
        "192.0.2.7: deny (dry run), by 192.0.2.0/24 of feed.txt\n"
    );
    let want = [
        "GET /v1/access_lists",
        "GET /v1/listeners",
        "GET /v1/access_lists/office",
        "GET /v1/listeners",
        "GET /v1/access_lists",
        "GET /v1/access_lists/office?client=192.0.2.7",
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn a_route_is_asked_for() {
    let choice = RouteChoice {
        listener: "a b".to_owned(),
        pool: Some("web".to_owned()),
        route: Some(2),
        share: Some(5.0),
        says: "route 2 of listener `a b` takes it".to_owned(),
        ..RouteChoice::default()
    };
    let fake = Fake::saying("client_route", &[&json(&choice)]);
    let client = [
        "route",
        "a b",
        "--sni",
        "a.example",
        "--alpn",
        "h2",
        "--alpn",
        "h3",
    ];
    let more = ["--client", "::1", "--proxy-tlv", "0xE0=a,b"];
    let names = ["--tls-client", "cn=a,b", "--tls-client", "ip=::1"];
    let output = fake.run(&[&client[..], &more, &names].concat());
    assert_eq!(
        succeeded(&output),
        "The client would go to pool web (5 %): route 2 of listener `a b` takes it.\n"
    );
    let path = "GET /v1/listeners/a%20b/route?client=%3A%3A1&sni=a.example&alpn=h2%2Ch3\
                &proxy_tlv=0xE0%3Da%5Cx2Cb&tls_client=cn%3Da%5Cx2Cb%2Cip%3D%3A%3A1";
    assert_eq!(fake.asked(), [path]);
}

#[test]
fn access_lists_are_edited() {
    let one = json(&[access_list("office")]);
    let two = json(&[access_list("office"), access_list("b")]);
    let changed = r#"{"snapshot": 5, "changed": true}"#;
    let answers = [&one, changed, changed, &one, changed, &two, "[]"];
    let fake = Fake::saying("client_access_edits", &answers);
    assert_eq!(
        succeeded(&fake.run(&["deny", "192.0.2.7", "::1"])),
        "snapshot 5: office: deny 192.0.2.7, ::1\n"
    );
    assert_eq!(
        succeeded(&fake.run(&["unlist", "::1", "--list", "b"])),
        "snapshot 5: b: remove ::1\n"
    );
    assert_eq!(
        succeeded(&fake.run(&["allow", "10.0.0.0/8", "--json"])),
        "{\"snapshot\":5,\"changed\":true}\n"
    );
    assert_eq!(
        failed(&fake.run(&["allow", "::1"]), 2),
        "--list: there are 2 access lists: expected `office` or `b`"
    );
    let output = fake.run(&["allow", "::1"]);
    let why = failed(&output, 1);
    assert!(
        why.starts_with("there is no access list: add one to"),
        "{why}"
    );
    let want = [
        "GET /v1/access_lists",
        "PATCH /v1/access_lists/office {\"deny\":[\"192.0.2.7\",\"::1\"]}",
        "PATCH /v1/access_lists/b {\"remove\":[\"::1\"]}",
        "GET /v1/access_lists",
        "PATCH /v1/access_lists/office {\"allow\":[\"10.0.0.0/8\"]}",
        "GET /v1/access_lists",
        "GET /v1/access_lists",
    ];
    assert_eq!(fake.asked(), want);
}

fn one_session() -> [SessionStatus; 1] {
    [SessionStatus {
        id: "0-17".to_owned(),
        listener: "front".to_owned(),
        pool: "web".to_owned(),
        backend: Some("app-1".to_owned()),
        client: Some("192.0.2.7:40000".to_owned()),
        proxy: None,
        tls_client: None,
        state: SessionState::Open,
        age_s: 125.0,
        idle_s: 0.2,
        bytes_up: 512,
        bytes_down: 3_400_000,
    }]
}

#[test]
fn sessions_are_listed_and_closed() {
    let sessions = one_session();
    let (one, two) = (json(&Killed { sessions: 1 }), json(&Killed { sessions: 2 }));
    let pools = json(&pools());
    let answers = [
        json(&sessions),
        "[]".to_owned(),
        json(&sessions),
        r#"{"connections": 234, "max_connections": 1000}"#.to_owned(),
        json(&sessions),
        one.clone(),
        one.clone(),
        pools.clone(),
        two,
        pools.clone(),
        one.clone(),
        pools,
        one.clone(),
        one,
    ];
    let fake = Fake::saying("client_sessions", &answers.each_ref().map(String::as_str));
    assert_eq!(succeeded(&fake.run(&["sessions"])), SESSIONS);
    let filter = [
        "sessions", "--pool", "web", "--client", "::1", "--limit", "5",
    ];
    assert_eq!(succeeded(&fake.run(&filter)), "no sessions\n");
    let first = fake.run(&["sessions", "--limit", "1"]);
    assert_eq!(
        succeeded(&first),
        format!("{SESSIONS}1 of 234 sessions: --limit shows more\n")
    );
    let of_pool = fake.run(&["sessions", "--limit", "1", "--pool", "web"]);
    assert_eq!(
        succeeded(&of_pool),
        format!("{SESSIONS}the first 1: --limit shows more\n")
    );
    let kill = |more: &[&str]| {
        let output = fake.run(&[&["sessions", "--kill"], more].concat());
        succeeded(&output).to_owned()
    };
    assert_eq!(kill(&["0-17", "1-3"]), "2 sessions closed\n");
    assert_eq!(kill(&["--backend", "app-2"]), "2 sessions closed\n");
    // Sessions of a backend that was removed; of a backend by pool and name.
    assert_eq!(kill(&["--backend", "db/old"]), "1 session closed\n");
    let both = ["--pool", "db", "--backend", "app-1"];
    assert_eq!(kill(&both), "1 session closed\n");
    assert_eq!(kill(&["--all", "--json"]), "{\n  \"sessions\": 1\n}\n");
    let want = [
        "GET /v1/sessions",
        "GET /v1/sessions?pool=web&client=%3A%3A1&limit=5",
        "GET /v1/sessions?limit=1",
        "GET /v1/limits",
        "GET /v1/sessions?pool=web&limit=1",
        "DELETE /v1/sessions/0-17",
        "DELETE /v1/sessions/1-3",
        "GET /v1/pools",
        "DELETE /v1/sessions?pool=web&backend=app-2",
        "GET /v1/pools",
        "DELETE /v1/sessions?pool=db&backend=old",
        "GET /v1/pools",
        "DELETE /v1/sessions?pool=db&backend=app-1",
        "DELETE /v1/sessions?all=true",
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn kill_needs_ids_or_a_filter() {
    assert_eq!(
        failed(&run(&["sessions", "--kill"]), 2),
        "--kill: expected ids, --listener, --pool, --backend, --client or --all"
    );
    assert_eq!(
        failed(&run(&["sessions", "--pool", "web", "--kill", "0-1"]), 2),
        "--kill: expected ids or other flags, not both"
    );
}

#[test]
fn the_configuration_is_written_as_it_is() {
    let ron = "(\n    workers: 2,\n)\n".to_owned();
    let setting = |path: &str, value: serde_json::Value, from| EffectiveSetting {
        path: path.to_owned(),
        value,
        from,
    };
    let config = ConfigText {
        ron: ron.clone(),
        settings: vec![
            setting("workers", 2.into(), SettingSource::File),
            setting("memory", "auto".into(), SettingSource::Default),
            setting("pools[a].check", "tcp".into(), SettingSource::Command),
        ],
        more: 3,
        ..ConfigText::default()
    };
    let text = json(&config);
    let fake = Fake::saying("client_config", &[&text, &text, &text]);
    assert_eq!(succeeded(&fake.run(&["config", "show"])), ron);
    let output = fake.run(&["config", "show", "--json"]);
    let told: ConfigText = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!(told, config);
    let output = fake.run(&["config", "show", "--sources"]);
    let want = "\
SETTING         FROM          VALUE
workers         file or flag  2
pools[a].check  command       \"tcp\"
and 3 more
";
    assert_eq!(succeeded(&output), want);
    assert_eq!(fake.asked(), ["GET /v1/config"; 3]);
}

#[test]
fn what_a_saved_configuration_lacks_is_a_warning() {
    let ron = "// A restart ends these changes:\n// web/a: maint\n(\n)\n".to_owned();
    let text = json(&ConfigText {
        ron: ron.clone(),
        ..ConfigText::default()
    });
    let fake = Fake::saying("client_config_lacks", &[&text]);
    let output = fake.run(&["config", "show"]);
    let want = "warning: A restart ends these changes:\nwarning: web/a: maint\n";
    assert_eq!((stdout(&output), stderr(&output)), (&*ron, want));
}

#[test]
fn histograms_have_units() {
    let one = |worker, name: &str, unit: &str, p50: u64| HistogramStatus {
        worker,
        name: name.to_owned(),
        unit: unit.to_owned(),
        count: 12_345 * u64::from(p50 > 0),
        p50,
        p90: p50 * 2,
        p99: p50 * 10,
        p999: p50 * 100,
        max: p50 * 1_000,
    };
    let all = [
        one(None, "connect", "us", 180),
        one(None, "bytes_up", "B", 512),
        one(None, "turn", "ns", 2_400),
        one(Some(0), "connect", "us", 0),
    ];
    let text = json(&all);
    let fake = Fake::saying("client_histograms", &[&text, &text]);
    assert_eq!(succeeded(&fake.run(&["histograms"])), HISTOGRAMS);
    let output = fake.run(&["histograms", "--workers"]);
    assert_eq!(succeeded(&output), HISTOGRAMS_OF_WORKERS);
}

/// A stream of two events that ends, or stays open for as long as the test.
fn stream() -> String {
    let event = |number: u64, message: &str| {
        let event = json(&BalancerEvent {
            number,
            at: format!("2026-01-02T03:04:0{number}.678Z"),
            kind: EventKind::BackendDown,
            pool: Some("web".to_owned()),
            backend: Some("app-1".to_owned()),
            message: message.to_owned(),
        });
        format!("id: {number}\nevent: backend_down\ndata: {event}\n\n")
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n{}{}",
        event(1, "web/app-1 is down: connection refused"),
        event(
            2,
            "reload: the old configuration stays\nconfig.ron:1:9: wrong"
        ),
    )
}

#[test]
fn events_are_lines() {
    let fake = Fake::answering("client_events", vec![stream(); 3]);
    let want = "2026-01-02 03:04:01Z  web/app-1 is down: connection refused\n\
                2026-01-02 03:04:02Z  reload: the old configuration stays\n    \
                config.ron:1:9: wrong\n";
    assert_eq!(succeeded(&fake.run(&["events"])), want);
    let output = fake.run(&["events", "--recent", "1", "--json"]);
    let event: BalancerEvent = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!((event.number, event.kind), (1, EventKind::BackendDown));
    let output = fake.run(&["events", "--follow"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), want));
    assert_eq!(
        stderr(&output),
        "error: the balancer at mahoraga.sock has ended\n"
    );
    let want = [
        "GET /v1/events?recent=20",
        "GET /v1/events?recent=1",
        "GET /v1/events?recent=20",
    ];
    assert_eq!(fake.asked(), want);
}

#[test]
fn top_draws_and_leaves_the_terminal_as_it_was() {
    let (status, pools) = (json(&status()), json(&pools()));
    let bodies = [status.as_str(), &pools, "[]"].map(|body| answer("200 OK", body));
    let answers = bodies.into_iter().chain([stream()]);
    let fake = Fake::answering("client_screen", answers.collect());
    let top = format!(
        "stty rows 24 cols 80; exec {} top --interval 1h",
        env!("CARGO_BIN_EXE_mahoraga")
    );
    // A terminal for the command, from util-linux.
    let child = Command::new("script")
        .args(["-qec", &top, "/dev/null"])
        .env("TERM", "xterm")
        .current_dir(&fake.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    if child.is_err() && std::env::var_os("CI").is_none() {
        return eprintln!("SKIPPED: there is no script(1) here to give `top` a terminal");
    }
    let child = child.unwrap();
    let mut screen = String::new();
    let mut child = Running(child);
    let mut stdout = child.0.stdout.take().unwrap();
    let mut read = |until: &str| {
        let mut bytes = [0; 4096];
        while !screen.contains(until) {
            let length = stdout.read(&mut bytes).unwrap();
            assert!(length > 0, "{screen:?}");
            screen += &String::from_utf8_lossy(&bytes[..length]);
        }
    };
    read("\x1b[?1049h");
    read("ejected");
    read("refused");
    let mut stdin = child.0.stdin.take().unwrap();
    stdin.write_all(b"q").unwrap();
    read("\x1b[?1049l");
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn top_without_a_terminal() {
    let (status, pools) = (json(&status()), json(&pools()));
    let fake = Fake::saying("client_top", &[status.as_str(), &pools, "[]"].repeat(2));
    assert_eq!(
        failed(&fake.run(&["top"]), 2),
        "top draws on a terminal: without one, use top --json or `mahoraga status`"
    );
    let output = fake.run(&["top", "--json", "--interval", "100ms"]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<_> = stdout(&output).lines().collect();
    let [line] = lines[..] else {
        panic!("{lines:?}")
    };
    assert!(line.starts_with(
        "{\"new_per_s\":0,\"bytes_per_s\":0,\"connections\":1234,\"refused_per_s\":0,\"status\":"
    ));
}

/// The command asks no balancer.
#[test]
fn the_reference_says_each_setting_with_its_default() {
    let output = run(&["config", "reference"]);
    let text = succeeded(&output);
    for want in [
        "\nworkers\n    How many worker threads run. Auto: one for each CPU that the process may \
         use.\n    a whole number, 1 to 1024, or \"auto\"; default \"auto\"; takes a restart\n",
        "\nlisteners.bind\n",
        "; required; changes on reload\n",
        "\npools.queue.timeout\n",
        "a duration, 20ms to 1h; default \"5s\"; changes on reload\n",
    ] {
        assert!(format!("\n{text}").contains(want), "{want}");
    }
    let output = run(&["config", "reference", "pools.check", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(succeeded(&output)).unwrap();
    assert_eq!(rows[0]["name"], "pools.check");
    let timeout = rows.iter().find(|row| row["name"] == "pools.check.timeout");
    assert_eq!(timeout.unwrap()["default"], "\"1s\"");
    let is_within =
        |row: &serde_json::Value| row["name"].as_str().unwrap().starts_with("pools.check");
    assert!(rows.len() > 10 && rows.iter().all(is_within));
    for (at, why) in [
        ("bnas", "there is no setting `bnas`, did you mean `bans`?"),
        (
            "half_close",
            "there is no setting `half_close`: there is `listeners.half_close`",
        ),
    ] {
        assert_eq!(failed(&run(&["config", "reference", at]), 2), why);
    }
    let output = run(&["config", "reference", "--schema"]);
    let schema: serde_json::Value = serde_json::from_str(succeeded(&output)).unwrap();
    let workers = &schema["properties"]["workers"]["anyOf"];
    assert_eq!(workers[0]["const"], "auto");
    assert_eq!(workers[1]["maximum"], 1024);
}

const STATUS: &str = "\
mahoraga 0.1.0, ready, up 3d 4h, process 4711
snapshot     18, in force after 850 µs
connections  1234 of at most 16384
accepted     120034
traffic      up 12 MB (1.5 kB/s), down 3.4 GB (20 MB/s)
closed       backend_closed 7, client_closed 118793
reloads      3 done, 1 refused, the last at 2026-01-05T03:04:05Z
refused      config.ron:1:9: `\u{fffd}x` is no listener
             1 | x
                     ^
privileges   user mahoraga, CAP_NET_BIND_SERVICE, no_new_privs, system calls filtered
waiting      memory takes effect at the next start
lacking      no free local port to backend `b`
alert        pool `web` has no usable backend

p50, p99  last 10 s  last 1 min      since start
connect   -          180 µs, 1.8 ms  180 µs, 36 ms
session   -          -               -

worker  snapshot  sessions  accepted    B/s  connect failures
     0        18       617     60017  20 MB                 2
     1        18       617     60017  20 MB                 2
";

const LISTENERS: &str = "\
listener  bind          pool  connections  limit  access list  refused   bytes    B/s
front     0.0.0.0:8080  web          1.2k  10000  office             7  3.4 GB  20 MB
db        [::1]:5432    db              0         -                  0     0 B
clients of `front` refused: access_denied 4, source_rate 3
clients of `front` would have been refused (dry run): global_rate 12

TLS ends at  certificates  first expires         clients show  handshakes  failed
front                   2  2100-01-01T00:00:00Z  optional            1.2k       7

listener  route    pool     share  sessions  takes
db        trial    web     12.5 %         9  sni a.b or *.c or d or 4 more
db        2        refuse                 0  all
db        default  db                  1.2k  all others
";

const ACCESS_LISTS: &str = "\
access list  prefixes  others  dry run  by listener  file
office           1003  allow         7  front 7      feed.txt
office: the last good file is in force: feed.txt: line 2
";

const POOLS: &str = "\
pool  strategy           in rotation  connections  limit    B/s  queue             clients
web   round_robin             2 of 4         1.2k   5000  20 MB  4 of 100, 2500ms      12k
db    least_connections       0 of 1            2
web: panic: too few are up, health is ignored
";

const POOL: &str = "\
pool  strategy           in rotation  connections
db    least_connections       0 of 1            2

pool  backend  address     weight  conns  opened  bytes  state
db    app-1    [::1]:5432       1      2       0    0 B  drain
db    old      [::1]:5433       1      0       0    0 B  removed
";

const BACKENDS: &str = include_str!("client/backends.txt");

const HISTORY: &str = include_str!("client/history.txt");

const SESSIONS: &str = "\
id    client           listener  pool  backend  state    age  idle     up    down
0-17  192.0.2.7:40000  front     web   app-1    open   2m 5s    0s  512 B  3.4 MB
";

const HISTOGRAMS: &str = "\
since the start  count     p50     p90     p99   p99.9     max
connect            12k  180 µs  360 µs  1.8 ms   18 ms  180 ms
bytes_up           12k   512 B  1.0 kB  5.1 kB   51 kB  512 kB
turn               12k  2.4 µs  4.8 µs   24 µs  240 µs  2.4 ms
";

const HISTOGRAMS_OF_WORKERS: &str = "\
worker  since the start  count     p50     p90     p99   p99.9     max
all     connect            12k  180 µs  360 µs  1.8 ms   18 ms  180 ms
all     bytes_up           12k   512 B  1.0 kB  5.1 kB   51 kB  512 kB
all     turn               12k  2.4 µs  4.8 µs   24 µs  240 µs  2.4 ms
0       connect              0
";
