//! Commands to a running balancer: what they ask, and what they make of the answer.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};

use mahoraga::admin::model::{
    BackendStatus, Changed, ConfigText, Event, HistogramStatus, Killed, ListenerStatus, PoolStatus,
    Reloads, SessionStatus, Stage, Status, WorkerStatus,
};
use serde::Serialize;

use super::fake::{Fake, answer, over_tcp};
use super::{directory, mahoraga, run, stderr, stdout};

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

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
        closed: [
            ("backend_closed".to_owned(), 7),
            ("client_closed".to_owned(), 118_793),
        ]
        .into(),
        reloads: Reloads {
            succeeded: 3,
            failed: 1,
            last_at: Some("2026-01-05T03:04:05Z".to_owned()),
            last_error: Some("config.ron:1:1: listeners: at least one is wanted".to_owned()),
        },
        workers: vec![worker(0), worker(1)],
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
        numbers: numbers.map(|(name, n)| (name.to_owned(), n)).into(),
    }
}

fn backend(pool: &str, name: &str, port: u16) -> BackendStatus {
    BackendStatus {
        pool: pool.to_owned(),
        name: name.to_owned(),
        address: format!("127.0.0.1:{port}"),
        weight: 1,
        state: "ready".to_owned(),
        health: "up".to_owned(),
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
        ..backend("web", "app-1", 9001)
    };
    let down = BackendStatus {
        health: "down".to_owned(),
        check: Some("no answer".to_owned()),
        failures: 12,
        in_rotation: false,
        ..backend("web", "app-2", 9002)
    };
    let ejected = BackendStatus {
        ejected_s: Some(23.4),
        in_rotation: false,
        ..backend("web", "app-3", 9003)
    };
    let rising = BackendStatus {
        rising: Some(40),
        backup: true,
        ..backend("web", "app-4", 9004)
    };
    let drained = BackendStatus {
        state: "drain".to_owned(),
        health: "unchecked".to_owned(),
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
            queued: 4,
            queue_max: 100,
            queue_timeout_s: 2.5,
            panic: true,
            clients: Some(12_345),
            backends: vec![busy, down, ejected, rising],
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

/// What a command says that goes well.
#[track_caller]
fn said(output: &Output) -> &str {
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
fn status_is_told() {
    let fake = Fake::saying("client_status", &[&json(&status()), &json(&status())]);
    assert_eq!(said(&fake.run(&["status"])), STATUS);
    let output = fake.run(&["status", "--json"]);
    let again: Status = serde_json::from_str(said(&output)).unwrap();
    assert_eq!(again, status());
    assert!(said(&output).starts_with("{\n  \"version\": \"0.1.0\",\n"));
    assert_eq!(fake.asked(), ["GET /v1/status", "GET /v1/status"]);
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
        },
        ListenerStatus {
            name: "db".to_owned(),
            bind: "[::1]:5432".to_owned(),
            pool: "db".to_owned(),
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
    assert_eq!(said(&fake.run(&["listeners"])), LISTENERS);
    assert_eq!(said(&fake.run(&["pools"])), POOLS);
    assert_eq!(said(&fake.run(&["pools", "db"])), POOL);
    assert_eq!(said(&fake.run(&["backends"])), BACKENDS);
    let output = fake.run(&["backends", "--pool", "db/ä"]);
    assert!(POOL.ends_with(said(&output)));
    let output = fake.run(&["backends", "--json"]);
    let backends: Vec<BackendStatus> = serde_json::from_str(said(&output)).unwrap();
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

#[test]
fn sessions_are_listed_and_closed() {
    let sessions = [SessionStatus {
        id: "0-17".to_owned(),
        listener: "front".to_owned(),
        pool: "web".to_owned(),
        backend: Some("app-1".to_owned()),
        client: Some("192.0.2.7:40000".to_owned()),
        state: "open".to_owned(),
        age_s: 125.0,
        idle_s: 0.2,
        bytes_up: 512,
        bytes_down: 3_400_000,
    }];
    let (one, two) = (json(&Killed { sessions: 1 }), json(&Killed { sessions: 2 }));
    let answers = [
        json(&sessions),
        "[]".to_owned(),
        one.clone(),
        one.clone(),
        two,
        one,
    ];
    let fake = Fake::saying("client_sessions", &answers.each_ref().map(String::as_str));
    assert_eq!(said(&fake.run(&["sessions"])), SESSIONS);
    let filter = [
        "sessions", "--pool", "web", "--client", "::1", "--limit", "5",
    ];
    assert_eq!(said(&fake.run(&filter)), "no session\n");
    let kill = |more: &[&str]| {
        let output = fake.run(&[&["sessions", "--kill"], more].concat());
        said(&output).to_owned()
    };
    assert_eq!(kill(&["0-17", "1-3"]), "2 sessions closed\n");
    assert_eq!(kill(&["--backend", "app 1"]), "2 sessions closed\n");
    assert_eq!(kill(&["--all", "--json"]), "{\n  \"sessions\": 1\n}\n");
    let want = [
        "GET /v1/sessions",
        "GET /v1/sessions?pool=web&client=%3A%3A1&limit=5",
        "DELETE /v1/sessions/0-17",
        "DELETE /v1/sessions/1-3",
        "DELETE /v1/sessions?backend=app%201",
        "DELETE /v1/sessions?all=true",
    ];
    assert_eq!(fake.asked(), want);
    assert_eq!(
        failed(&run(&["sessions", "--kill"]), 2),
        "--kill: which ones? Give ids, --listener, --pool, --backend or --client, or --all"
    );
    assert_eq!(
        failed(&run(&["sessions", "--pool", "web", "--kill", "0-1"]), 2),
        "--kill: give ids or what else they have in common, not both"
    );
}

/// A command that names a backend, its request, and what it says.
const BACKEND_CHANGES: [(&str, &str, &str); 8] = [
    (
        "weight app-2 5",
        r#"PATCH /v1/pools/web/backends/app-2 {"weight":5,"keep":false}"#,
        "version 19: web/app-2 has weight 5\n",
    ),
    (
        "weight web/app-1 0 --keep",
        r#"PATCH /v1/pools/web/backends/app-1 {"weight":0,"keep":true}"#,
        "version 19: web/app-1 has weight 0, over reloads too\n",
    ),
    (
        "drain app-2",
        r#"PATCH /v1/pools/web/backends/app-2 {"state":"drain","keep":false}"#,
        "version 19: web/app-2 is in drain\n",
    ),
    (
        "ready app-2",
        r#"PATCH /v1/pools/web/backends/app-2 {"state":"ready","keep":false}"#,
        "version 19: web/app-2 is ready\n",
    ),
    (
        "maint db/app-1 --keep",
        r#"PATCH /v1/pools/db/backends/app-1 {"state":"maint","keep":true}"#,
        "version 19: db/app-1 is in maint, over reloads too\n",
    ),
    (
        "remove app-3",
        "DELETE /v1/pools/web/backends/app-3",
        "version 19: web/app-3 is removed\n",
    ),
    (
        "remove app-3 --keep --json",
        "DELETE /v1/pools/web/backends/app-3?keep=true",
        "{\n  \"snapshot\": 19\n}\n",
    ),
    (
        "set limit off --backend app-4",
        r#"PATCH /v1/pools/web/backends/app-4 {"max_connections":0,"keep":false}"#,
        "version 19: connections to web/app-4 have no limit of their own\n",
    ),
];

#[test]
fn backends_are_changed() {
    let all = json(&pools());
    let changed = json(&Changed { snapshot: 19 });
    let answers = [all.as_str(), changed.as_str()].repeat(BACKEND_CHANGES.len());
    let fake = Fake::saying("client_backend_changes", &answers);
    for (command, request, text) in BACKEND_CHANGES {
        let output = fake.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(said(&output), text, "{command}");
        assert_eq!(fake.asked(), ["GET /v1/pools", request], "{command}");
    }
}

/// The same of those that name none.
const CHANGES: [(&str, &str, &str); 10] = [
    (
        "add web 127.0.0.1:9005",
        r#"POST /v1/pools/web/backends {"address":"127.0.0.1:9005","name":null,"weight":null,"#,
        "version 19: web/127.0.0.1:9005 is there\n",
    ),
    (
        "add web unix:/a,weight=2,max_connections=9,backup --name n --group g --state maint --keep",
        concat!(
            r#"POST /v1/pools/web/backends {"address":"unix:/a","name":"n","weight":2,"#,
            r#""max_connections":9,"backup":true,"group":"g","state":"maint","keep":true}"#
        ),
        "version 19: web/n is there, over reloads too\n",
    ),
    (
        "set strategy web least_time",
        r#"PATCH /v1/pools/web {"strategy":"least_time","keep":false}"#,
        "version 19: web selects by least_time\n",
    ),
    (
        "set queue web --max 1 --timeout 2s",
        r#"PATCH /v1/pools/web {"queue_max":1,"queue_timeout":"2s","keep":false}"#,
        "version 19: the queue of web has 1 place and a wait of at most 2s\n",
    ),
    (
        "set queue web --timeout 2s --keep",
        r#"PATCH /v1/pools/web {"queue_timeout":"2s","keep":true}"#,
        "version 19: the queue of web has a wait of at most 2s, over reloads too\n",
    ),
    (
        "set limit 500",
        r#"PATCH /v1/limits {"max_connections":500,"keep":false}"#,
        "version 19: at most 500 connections of clients\n",
    ),
    (
        "set limit off --listener front",
        r#"PATCH /v1/listeners/front {"max_connections":0,"keep":false}"#,
        "version 19: connections of clients of front have no limit of their own\n",
    ),
    (
        "set limit 1 --pool web",
        r#"PATCH /v1/pools/web {"max_connections":1,"keep":false}"#,
        "version 19: at most 1 connection to web\n",
    ),
    (
        "reload",
        "POST /v1/reload",
        "version 19: the file was read again\n",
    ),
    (
        "reload --json",
        "POST /v1/reload",
        "{\n  \"snapshot\": 19\n}\n",
    ),
];

#[test]
fn the_rest_is_changed() {
    let changed = json(&Changed { snapshot: 19 });
    let fake = Fake::saying("client_changes", &[changed.as_str(); CHANGES.len()]);
    for (command, request, text) in CHANGES {
        let output = fake.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(said(&output), text, "{command}");
        let asked = fake.asked();
        assert!(
            asked.len() == 1 && asked[0].starts_with(request),
            "{asked:?}"
        );
    }
}

#[test]
fn a_wait_ends_when_the_backend_is_idle() {
    let changed = json(&Changed { snapshot: 19 });
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
    assert_eq!(said(&output), "version 19: db/app-1 is in drain\n");
    assert_eq!(fake.asked().split_off(2), ["GET /v1/pools/db"; 2]);
    let output = fake.run(&["remove", "db/app-1", "--wait=1ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "error: db/app-1 has 2 connections still, after 1ms\n"
    );
}

#[test]
fn a_backend_may_not_be_found() {
    let all = json(&pools());
    let fake = Fake::saying("client_find", &[all.as_str(); 2]);
    let want = "more than one backend is called `app-1`: write web/app-1 or db/app-1";
    assert_eq!(failed(&fake.run(&["drain", "app-1"]), 1), want);
    let want = "there is no backend called `ap-2`, did you mean `app-2`?";
    assert_eq!(failed(&fake.run(&["ready", "ap-2"]), 1), want);
}

#[test]
fn the_configuration_is_written_as_it_is() {
    let ron = "(\n    workers: 2,\n)\n".to_owned();
    let text = json(&ConfigText { ron: ron.clone() });
    let fake = Fake::saying("client_config", &[&text, &text]);
    assert_eq!(said(&fake.run(&["config", "show"])), ron);
    let output = fake.run(&["config", "show", "--json"]);
    let want = "{\n  \"ron\": \"(\\n    workers: 2,\\n)\\n\"\n}\n";
    assert_eq!(said(&output), want);
    assert_eq!(fake.asked(), ["GET /v1/config"; 2]);
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
    assert_eq!(said(&fake.run(&["histograms"])), HISTOGRAMS);
    let output = fake.run(&["histograms", "--workers"]);
    assert_eq!(said(&output), HISTOGRAMS_OF_WORKERS);
}

/// A stream of two events that ends, or goes on for as long as the test.
fn stream() -> String {
    let event = |number: u64, message: &str| {
        let event = json(&Event {
            number,
            at: format!("2026-01-02T03:04:0{number}.678Z"),
            kind: "backend_down".to_owned(),
            pool: Some("web".to_owned()),
            backend: Some("app-1".to_owned()),
            message: message.to_owned(),
        });
        format!("id: {number}\nevent: backend_down\ndata: {event}\n\n")
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n{}{}",
        event(1, "web/app-1 is down: connection refused"),
        event(2, "web/app-1 is up"),
    )
}

#[test]
fn events_are_lines() {
    let fake = Fake::answering("client_events", vec![stream(); 3]);
    let want = "2026-01-02 03:04:01  web/app-1 is down: connection refused\n\
                2026-01-02 03:04:02  web/app-1 is up\n";
    assert_eq!(said(&fake.run(&["events"])), want);
    let output = fake.run(&["events", "--recent", "1", "--json"]);
    let event: Event = serde_json::from_str(said(&output)).unwrap();
    assert_eq!((event.number, event.kind.as_str()), (1, "backend_down"));
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
    assert!(
        line.starts_with("{\"new_per_s\":0,\"bytes_per_s\":0,\"connections\":1234,\"status\":")
    );
}

#[test]
fn who_can_not_be_asked() {
    let empty = directory("client_nobody");
    let run = |arguments: &[&str]| {
        let mut command = mahoraga();
        command
            .args(arguments)
            .current_dir(&empty)
            .output()
            .unwrap()
    };
    let want = "no balancer answers at mahoraga.sock: is `mahoraga run` running here? \
                Name its socket with --admin";
    assert_eq!(failed(&run(&["status"]), 1), want);
    // Left behind by one that was killed.
    drop(UnixListener::bind(empty.join("mahoraga.sock")).unwrap());
    assert_eq!(failed(&run(&["status"]), 1), want);
    let listener = UnixListener::bind(empty.join("silent.sock")).unwrap();
    assert_eq!(
        failed(&run(&["status", "--admin", "silent.sock"]), 1),
        "no answer from silent.sock within 5 s"
    );
    drop(listener);
    let output = run(&["status", "--admin", "http://192.0.2.1:80"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not on loopback: a token would cross the network"));
}

#[test]
fn answers_that_are_none() {
    let unknown = r#"{"error":"there is no pool called `wbe`, did you mean `web`?"}"#;
    let answers = [
        answer("404 Not Found", unknown),
        answer("404 Not Found", "<html>"),
        answer("200 OK", "{}"),
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_owned(),
        answer("403 Forbidden", r#"{"error":"this token may only look"}"#),
    ];
    let fake = Fake::answering("client_answers", answers.into());
    let gone = "the balancer at mahoraga.sock went away before it had answered";
    for want in [
        "there is no pool called `wbe`, did you mean `web`?",
        "mahoraga.sock answers GET /v1/pools/wbe with 404 Not Found: \
         is it a balancer of this version?",
        "mahoraga.sock answers GET /v1/pools/wbe with missing field `name` at line 1 column 2: \
         is it a balancer of this version?",
        "what answers at mahoraga.sock is no balancer",
        gone,
        gone,
        "this token may only look",
    ] {
        assert_eq!(failed(&fake.run(&["pools", "wbe"]), 1), want);
    }
}

#[test]
fn a_token_goes_over_http() {
    let directory = directory("client_token");
    fs::write(directory.join("token"), "s3cret\n").unwrap();
    fs::write(directory.join("empty"), "\n").unwrap();
    let run = |url: &str, more: &[&str]| {
        let mut command = mahoraga();
        command.args(["listeners", "--admin", url]).args(more);
        command.current_dir(&directory).output().unwrap()
    };
    let (url, head) = over_tcp(answer("200 OK", "[]"));
    said(&run(&url, &["--token-file", "token"]));
    let head = head.join().unwrap();
    assert!(
        head.contains("\r\nauthorization: bearer s3cret\r\n"),
        "{head}"
    );
    let host = url.strip_prefix("http://").unwrap();
    assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");

    let (url, head) = over_tcp(answer("401 Unauthorized", ""));
    let want = format!("{url} wants a token: name its file with --token-file");
    assert_eq!(failed(&run(&url, &[]), 1), want);
    assert!(!head.join().unwrap().contains("authorization"));
    let output = run(&url, &["--token-file", "absent"]);
    let want = "the token file absent: No such file or directory (os error 2)";
    assert_eq!(failed(&output, 2), want);
    let output = run(&url, &["--token-file", "empty"]);
    assert_eq!(
        failed(&output, 2),
        "the token file empty: one word is wanted in it"
    );

    let (url, head) = over_tcp(answer("200 OK", "[]"));
    let mut command = mahoraga();
    let command = command.arg("listeners").current_dir(&directory);
    let command = command
        .env("MAHORAGA_ADMIN", url)
        .env("MAHORAGA_TOKEN_FILE", "token");
    said(&command.output().unwrap());
    assert!(head.join().unwrap().contains("bearer s3cret"));
    let mut command = mahoraga();
    let command = command.arg("status").env("MAHORAGA_ADMIN", "https://a");
    let output = command.output().unwrap();
    let want = "MAHORAGA_ADMIN: `https://a` is no admin API: \
                write the path of a socket, or http://HOST:PORT";
    assert_eq!(failed(&output, 2), want);
}

#[test]
fn a_reader_that_leaves_ends_a_command() {
    let fake = Fake::answering("client_reader", vec![answer("200 OK", "[]"), stream()]);
    for command in [&["listeners"][..], &["events", "--follow"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = mahoraga();
        let child = child.args(command).current_dir(&fake.directory);
        let output = child
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    }
}

#[test]
fn the_help_has_two_lists() {
    let output = run(&["--help"]);
    let help = said(&output);
    let (head, _) = help.split_once("\nExamples:").unwrap();
    assert_eq!(head, HELP);
    let (_, clients) = head
        .split_once("Commands to a running balancer:\n")
        .unwrap();
    let clients = clients.lines().take_while(|line| !line.is_empty());
    for line in clients {
        let command = line.split_whitespace().next().unwrap();
        let output = run(&[command, "--help"]);
        assert!(
            said(&output).contains(&format!("Usage: mahoraga {command}")),
            "{command}"
        );
        let says = said(&output).contains("--admin <PATH|URL>");
        assert!(says || ["set", "config"].contains(&command), "{command}");
    }
    assert_eq!(said(&run(&["drain", "--help"])), DRAIN);
}

const STATUS: &str = "\
mahoraga 0.1.0, ready, up 3d 4h, process 4711
version      18, in force after 850 µs
connections  1234 of at most 16384
accepted     120034
closed       backend_closed 7, client_closed 118793
reloads      3 done, 1 refused, the last at 2026-01-05T03:04:05Z
refused      config.ron:1:1: listeners: at least one is wanted

worker  version  sessions  accepted  connect failures
     0       18       617     60017                 2
     1       18       617     60017                 2
";

const LISTENERS: &str = "\
listener  bind          pool  connections  limit
front     0.0.0.0:8080  web          1.2k  10000
db        [::1]:5432    db              0
";

const POOLS: &str = "\
pool  strategy           in rotation  connections  limit  queued  queue          clients
web   round_robin             2 of 4         1.2k   5000       4  100 for 2.5 s      12k
db    least_connections       0 of 2            2
web: panic: too few are up, health is ignored
";

const POOL: &str = "\
pool  strategy           in rotation  connections
db    least_connections       0 of 2            2

pool  backend  address         weight  conns  opened  bytes  state
db    app-1    127.0.0.1:5432       1      2       0    0 B  drain
db    old      127.0.0.1:5433       1      0       0    0 B  removed
";

const BACKENDS: &str = "\
pool  backend  address         weight  conns  limit  wait  opened  answer   bytes  fails  state
web   app-1    127.0.0.1:9001       1   1.2k   2000     3     99k  1.2 ms  3.4 GB         up
web   app-2    127.0.0.1:9002       1      0                    0             0 B     12  down: no answer
web   app-3    127.0.0.1:9003       1      0                    0             0 B         ejected 23s
web   app-4    127.0.0.1:9004       1      0                    0             0 B         rising 40%, backup
db    app-1    127.0.0.1:5432       1      2                    0             0 B         drain
db    old      127.0.0.1:5433       1      0                    0             0 B         removed
";

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

const HELP: &str = "\
A TCP load balancer on io_uring

Usage: mahoraga <COMMAND>

Balancer:
  run         Balance as a configuration file says
  check       Judge a configuration file: nothing is said when it is right
  proxy       Balance without a configuration file
  demo        Start three small HTTP backends and the balancer in front of them
  simulate    Try strategies on a simulated fleet: seconds instead of days

Commands to a running balancer:
  status      How the balancer is going
  listeners   The listeners and their limits
  pools       The pools: strategy, connections, who waits
  backends    The backends: state, weight, connections, answer times
  sessions    The sessions: list or close them
  add         Add a backend to a pool
  remove      Remove a backend: its sessions go on
  weight      Set the share of a backend
  drain       Give a backend no more sessions: those that it has go on
  ready       Give a backend its share again, after drain or maint
  maint       Take a backend away: no sessions and no probes
  set         Set the strategy, the queue or the limit of a pool, and other limits
  reload      Read the configuration file again
  config      The configuration that is in force
  histograms  What the workers measured: times and bytes of sessions
  events      What happened of late, and what happens
  top         All at a glance, each second anew

Options:
  -h, --help     Print help
  -V, --version  Print version
";

const DRAIN: &str = "\
Give a backend no more sessions: those that it has go on

Usage: mahoraga drain [OPTIONS] <BACKEND>

Arguments:
  <BACKEND>  Which: its name, or POOL/BACKEND

Options:
      --wait[=<DUR|off>]   Wait until it has no connection, for so long at most [default: off,
                           without an end]
      --keep               Let it hold over reloads of the file
      --admin <PATH|URL>   The balancer's admin socket, or http://HOST:PORT on loopback [env:
                           MAHORAGA_ADMIN] [default: mahoraga.sock]
      --token-file <FILE>  The file of the token that http:// wants [env: MAHORAGA_TOKEN_FILE]
      --json               Write the balancer's JSON
  -h, --help               Print help

Examples:
  mahoraga drain app-1
  mahoraga drain web/app-1 --wait=10m && ssh app-1 reboot
";
