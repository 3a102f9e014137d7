//! Whole screens, letter for letter.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::super::super::find::BackendName;
use super::super::keys::{Controls, Proposal};
use super::super::model::{Answers, Listed, TopModel};
use super::draw;
use crate::admin::model::{
    BackendStatus, BalancerEvent, HealthStatus, LatencyStatus, LatencyWindow, PoolStatus,
    SessionStatus, Stage, Status, TrafficStatus,
};
use crate::config::AdminState;
use crate::time::SECOND;

fn backend(name: &str, connections: u64, opened: u64) -> BackendStatus {
    BackendStatus {
        pool: "web".to_owned(),
        name: name.to_owned(),
        weight: 1,
        state: AdminState::Ready,
        health: HealthStatus::Up,
        in_rotation: true,
        connections,
        opened,
        traffic: TrafficStatus {
            bytes_down_per_s: connections * 1_000,
            ..TrafficStatus::default()
        },
        ..BackendStatus::default()
    }
}

fn sample(second: u64) -> Answers {
    let down = BackendStatus {
        health: HealthStatus::Down,
        check: Some("connection refused".to_owned()),
        failures: 7,
        ..backend("app-2", 0, 100)
    };
    let slow = BackendStatus {
        ejected_s: Some(23.4),
        answer_ms: Some(250.0),
        weight: 256,
        waiting: 4,
        ..backend("app-3", 12, 50 * second)
    };
    let quick = BackendStatus {
        answer_ms: Some(1.24),
        first_byte_p99_ms: Some(4.2),
        ..backend("app-1", 1_234, 1_000 * second)
    };
    let latency = |name: &str, counts: [u64; 3], p50_us, p99_us| {
        let [last_10s, last_1m, since_start] = counts.map(|count| LatencyWindow {
            count,
            p50_us,
            p99_us,
            ..LatencyWindow::default()
        });
        LatencyStatus {
            name: name.to_owned(),
            last_10s,
            last_1m,
            since_start,
        }
    };
    Answers {
        at: second * SECOND,
        status: Status {
            version: "0.1.0".to_owned(),
            stage: Stage::Ready,
            uptime_s: 3_600.0 + second as f64,
            snapshot: 18,
            connections: 1_246,
            max_connections: 16_384,
            latencies: vec![
                latency("connect", [0, 3, 5], 180, 2_400),
                latency("first_byte", [2, 3, 5], 1_900, 250_000),
                latency("session", [0; 3], 0, 0),
            ],
            accepted: 350 * second * second,
            traffic: TrafficStatus {
                bytes_down: 105_000_000 * second,
                ..TrafficStatus::default()
            },
            ..Status::default()
        },
        pools: vec![PoolStatus {
            name: "web".to_owned(),
            backends: vec![quick, down, slow],
            ..PoolStatus::default()
        }],
        ..Answers::default()
    }
}

fn model() -> TopModel {
    let mut model = TopModel::default();
    for second in 1..4 {
        model.take(sample(second));
    }
    for number in 1..7 {
        model.push_event(BalancerEvent {
            number,
            at: format!("2026-01-02T03:04:0{number}.5Z"),
            message: format!("web/app-{number} is down: connection refused"),
            ..BalancerEvent::default()
        });
    }
    model
}

fn controls(keys: &str) -> Controls {
    let mut controls = Controls::default();
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            letter => KeyCode::Char(letter),
        };
        controls.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
    controls
}

fn terminal(size: (u16, u16), model: &TopModel, keys: &str, colour: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal
        .draw(|frame| draw(frame, model, &controls(keys), colour))
        .unwrap();
    terminal
}

/// The lines of a screen, without blanks at their ends.
fn screen(size: (u16, u16), model: &TopModel, keys: &str) -> Vec<String> {
    let terminal = terminal(size, model, keys, false);
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(size.0));
    lines
        .map(|line| {
            let line: String = line.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn all_fits_on_a_usual_terminal() {
    let got = screen((80, 24), &model(), "c");
    assert_eq!(got.join("\n"), USUAL);
}

#[test]
fn a_small_terminal_shows_what_it_can() {
    let got = screen((80, 10), &model(), "jn");
    assert_eq!(got[7..].join("\n"), SMALL);
    for size in [(1, 1), (80, 1), (3, 40), (20, 5), (300, 100)] {
        screen(size, &model(), "?");
        screen(size, &TopModel::default(), "");
    }
}

#[test]
fn a_narrow_terminal_leaves_numbers_out_before_the_state() {
    let got = screen((60, 24), &model(), "c");
    assert_eq!(got[9..13].join("\n"), NARROW);
    // However little room there is, a part of the state is there.
    let got = screen((30, 24), &model(), "c");
    assert_eq!(got[10], "web/app-1 up");
}

#[test]
fn a_wide_terminal_has_room_for_the_99th_percentile() {
    let got = screen((100, 24), &model(), "c");
    assert!(got[9].contains("  answer     p99  fails"), "{}", got[9]);
    assert!(got[10].contains("  1.2 ms  4.2 ms"), "{}", got[10]);
}

#[test]
fn each_view_shows_what_its_command_does() {
    let mut model = model();
    let table = |model: &TopModel, keys: &str| {
        let got = screen((80, 24), model, keys);
        got[9..12].join("\n")
    };
    assert_eq!(table(&model, "2"), POOLS);
    // It is asked for when the view is chosen.
    assert_eq!(table(&model, "4"), "...\n\n");
    let mut listed = sample(4);
    let session = |id: &str, client: &str| SessionStatus {
        id: id.to_owned(),
        listener: "web".to_owned(),
        pool: "web".to_owned(),
        backend: Some("app-1".to_owned()),
        client: Some(client.to_owned()),
        ..SessionStatus::default()
    };
    let sessions = [("0-1", "192.0.2.1:5000"), ("0-2", "192.0.2.2:5000")];
    let sessions = sessions.map(|(id, client)| session(id, client));
    listed.listed = Listed::Sessions(sessions.into());
    model.take(listed);
    let got = table(&model, "4");
    assert!(
        got.lines()
            .nth(1)
            .unwrap()
            .starts_with("0-1  192.0.2.1:5000 "),
        "{got}"
    );
    let got = table(&model, "4/0-2\n");
    assert!(
        got.lines()
            .nth(1)
            .unwrap()
            .starts_with("0-2  192.0.2.2:5000 "),
        "{got}"
    );
}

#[test]
fn a_change_is_asked_about_and_reported_in_the_last_line() {
    let model = model();
    let mut controls = controls("c");
    controls.proposal = Some(Proposal {
        backend: BackendName::of(&backend("app-1", 1_234, 0)),
        connections: 1_234,
        to: AdminState::Drain,
    });
    let foot = |controls: &Controls| {
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        let draws = terminal.draw(|frame| draw(frame, &model, controls, false));
        draws.unwrap();
        let cells = terminal.backend().buffer().content();
        let last = cells[cells.len() - 100..].iter().map(|cell| cell.symbol());
        last.collect::<String>().trim_end().to_owned()
    };
    let want = "y/n? drain web/app-1: no new sessions, 1234 connections may end";
    assert_eq!(foot(&controls), want);
    controls.proposal = None;
    controls.notice = Some("web/app-1: drain (snapshot 19)".to_owned());
    assert_eq!(foot(&controls), "web/app-1: drain (snapshot 19)");
}

#[test]
fn the_last_line_shows_the_state() {
    let mut model = model();
    let foot = |model: &TopModel, keys: &str| screen((80, 24), model, keys).pop().unwrap();
    assert_eq!(foot(&model, "/app"), "/app_");
    assert_eq!(foot(&model, " "), "paused: press space to go on");
    model.set_unreachable("no answer from mahoraga.sock within 5 s".to_owned());
    let want = "reconnecting: no answer from mahoraga.sock within 5 s";
    assert_eq!(foot(&model, ""), want);
    let shown = screen((80, 24), &model, "/p-3");
    assert!(
        shown[10].starts_with("web/app-3") && shown[11].is_empty(),
        "{shown:?}"
    );
}

#[test]
fn keys_are_listed() {
    let got = screen((80, 24), &model(), "?");
    assert_eq!(got[5..20].join("\n"), KEYS);
}

#[test]
fn colour_follows_the_terminal_and_the_environment() {
    let colours = |colour| {
        let terminal = terminal((80, 24), &model(), "", colour);
        let cells = terminal.backend().buffer().content();
        let colours = cells.iter().map(|cell| cell.fg);
        colours.filter(|fg| *fg != Color::Reset).count()
    };
    assert_eq!(colours(false), 0);
    assert!(colours(true) > 20);
}

/// The first command of an operator during an attack.
#[test]
fn refused_clients_and_bans_are_shown_while_there_are_any() {
    let mut model = TopModel::default();
    for second in 1..4 {
        let mut sample = sample(second);
        sample.status.closed = [("source_rate".to_owned(), 30_000 * second)].into();
        sample.status.bans.count = 12;
        model.take(sample);
    }
    let got = screen((80, 24), &model, "");
    assert!(got[0].ends_with(" connections  12 bans"), "{}", got[0]);
    assert!(
        got[1].starts_with("new 1.8k/s, refused 30k/s  traffic "),
        "{}",
        got[1]
    );
}

#[test]
fn a_pool_that_panics_stands_out() {
    let mut sample = sample(1);
    sample.pools[0].panic = true;
    let mut model = TopModel::default();
    model.take(sample);
    let line = screen((60, 24), &model, "").remove(1);
    assert_eq!(line, "web: panic: too few are up, health is ignored");
}

#[test]
fn an_alert_has_lines_of_its_own_in_red() {
    let mut sample = sample(1);
    let alert = "cannot keep the history in /var/lib/mahoraga/history.db: the disk is full; the \
                 last hour is kept in memory";
    sample.status.alerts = vec![alert.to_owned(), "another".to_owned()];
    let mut model = TopModel::default();
    model.take(sample);
    for width in [60, 80] {
        let got = screen((width, 24), &model, "");
        let text = got[1..].join(" ");
        let want = format!("1 of 2 alerts: {alert}");
        assert!(text.starts_with(&want), "{got:?}");
        let terminal = terminal((width, 24), &model, "", true);
        let cells = terminal.backend().buffer().content();
        assert_eq!(cells[usize::from(width)].fg, Color::Red);
    }
}

#[test]
fn what_has_no_room_is_left_out_whole() {
    let mut model = model();
    let got = screen((60, 24), &model, "c");
    assert_eq!(
        got[0],
        "mahoraga 0.1.0  ready  up 1h 0m  1.2k of 16k connections"
    );
    assert_eq!(got[1], "new 1.8k/s                     traffic 105 MB/s");
    assert!(got[5].ends_with("1.9 ms  250 ms"), "{got:?}");
    assert_eq!(
        got[23],
        "q quit  ? help  tab views  / filter  D drain  R ready"
    );
    let mut listed = sample(4);
    let session = SessionStatus {
        id: "0-1".to_owned(),
        listener: "a-listener-with-a-name".to_owned(),
        pool: "a-pool-with-a-name".to_owned(),
        backend: Some("a-backend-with-a-name".to_owned()),
        client: Some("192.0.2.1:5000".to_owned()),
        ..SessionStatus::default()
    };
    listed.listed = Listed::Sessions(vec![session]);
    model.take(listed);
    let got = screen((60, 24), &model, "4");
    assert!(got[9].ends_with("  listener"), "{got:?}");
    assert!(got[10].ends_with("  a-listener-with-a-name"), "{got:?}");
}

#[test]
fn few_columns_and_lines_show_what_they_can() {
    let got = screen((30, 12), &model(), "");
    assert!(got[0].ends_with("connections"), "{got:?}");
}

const USUAL: &str = "\
mahoraga 0.1.0  ready  up 1h 0m  snapshot 18  1.2k of 16k connections
new 1.8k/s                 traffic 105 MB/s            connections 1.2k
                       ▁█                          ██                         ██
                       ██                          ██                         ██
connect, p50 and p99       first_byte, p50 and p99     session, p50 and p99
10 s  -                    10 s  1.9 ms  250 ms        10 s  -
1 min 180 µs  2.4 ms       1 min 1.9 ms  250 ms        1 min -
all   180 µs  2.4 ms       all   1.9 ms  250 ms        all   -

backend   state                 weight conns▾  wait  new/s    B/s  answer  fails
web/app-1 up                         1   1.2k     0   1.0k 1.2 MB  1.2 ms      0
web/app-3 ejected 23s              256     12     4     50  12 kB  250 ms      0
web/app-2 down: connection ref       1      0     0      0    0 B              7





events
2026-01-02 03:04:03Z  web/app-3 is down: connection refused
2026-01-02 03:04:04Z  web/app-4 is down: connection refused
2026-01-02 03:04:05Z  web/app-5 is down: connection refused
2026-01-02 03:04:06Z  web/app-6 is down: connection refused
q quit  ? help  tab views  / filter  D drain  R ready  sort: p w c n b a f";

const NARROW: &str = "\
backend   state                 conns▾  new/s  answer  fails
web/app-1 up                      1.2k   1.0k  1.2 ms      0
web/app-3 ejected 23s               12     50  250 ms      0
web/app-2 down: connection refu      0      0              7";

const POOLS: &str = "\
pool  in rotation  connections
web        3 of 3            0
";

const SMALL: &str = "\
backend   state (2-2 of 3)      weight  conns  wait new/s▾    B/s  answer  fails
web/app-3 ejected 23s              256     12     4     50  12 kB  250 ms      0
q quit  ? help  tab views  / filter  D drain  R ready  sort: p w c n b a f";

const KEYS: &str = "\
10 s  -   │space           pause, and go on                          │
1 min 180 │/               show only lines with these letters        │
all   180 │j, k, PgUp/PgDn mark another line                         │
          │Tab, 1 to 5     backends, pools, listeners, sessions, bans│
backend   │r               reverse the order of backends             │wer  fails
web/app-1 │D               drain the marked backend                  │ ms      0
web/app-2 │R               make it ready                             │         7
web/app-3 │M               take it out of service                    │ ms      0
          │p               sort by place in the configuration        │
          │w               sort by weight                            │
          │c               sort by connections                       │
          │n               sort by new connections a second          │
          │b               sort by bytes a second                    │
events    │a               sort by answer time                       │
2026-01-02│f               sort by failures                          │";
