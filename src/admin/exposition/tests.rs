//! All figures are shown, and `docs/metrics.md` has them all.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::figures::{ACCESS_LIST, BACKEND, LISTENER, POOL, PROCESS, TIMES, WORKER};
use super::peers::PEER;
use super::*;
use crate::admin::model::{AccessListStatus, BackendStatus, PeerStatus, PeersStatus, WorkerStatus};
use crate::worker::{Latencies, NUMBERS};

/// A balancer with one of each.
fn scrape(format: Format) -> Scrape {
    let latencies = Latencies::default();
    for ms in [1, 1, 1_000, 100_000] {
        latencies.connect.record(ms * crate::time::MS);
    }
    for us in [3, 4, 5] {
        latencies.turn.record(us * crate::time::US);
    }
    let counts = latencies.all().map(|times| {
        let mut counts = Counts::default();
        counts.add(times);
        counts
    });
    let refused = || [("source_rate".to_owned(), 7)].into();
    let named = || "a \"b\\\nc".to_owned();
    let numbers = NUMBERS.iter().map(|metric| (metric.name.to_owned(), 3));
    let closed = [("closed.client_closed".to_owned(), 5)];
    Scrape {
        _permit: None,
        format,
        status: Status {
            access_lists: vec![AccessListStatus::default()],
            peers: PeersStatus {
                members: vec![PeerStatus {
                    lag_ms: Some(2),
                    refused: refused(),
                    ..PeerStatus::default()
                }],
                strangers: 0,
            },
            workers: vec![WorkerStatus {
                numbers: numbers.chain(closed).collect(),
                ..WorkerStatus::default()
            }],
            ..Status::default()
        },
        listeners: vec![ListenerStatus {
            name: named(),
            refused_by: refused(),
            max_connections: Some(9),
            ..ListenerStatus::default()
        }],
        pools: vec![PoolStatus {
            name: "p".to_owned(),
            backends: vec![BackendStatus {
                pool: "p".to_owned(),
                name: "b".to_owned(),
                answer_ms: Some(1.5),
                ..BackendStatus::default()
            }],
            ..PoolStatus::default()
        }],
        latencies: vec![counts],
    }
}

#[test]
fn both_formats_have_all_figures() {
    let text = scrape(Format::OpenMetrics).text();
    for line in [
        "# TYPE mahoraga_worker_accepted counter",
        "# HELP mahoraga_worker_accepted Connections accepted.",
        "mahoraga_worker_accepted_total{worker=\"0\"} 3",
        "mahoraga_worker_closed_total{worker=\"0\",reason=\"client_closed\"} 5",
        "mahoraga_listener_connections_max{listener=\"a \\\"b\\\\\\nc\"} 9",
        "mahoraga_listener_refused_total{listener=\"a \\\"b\\\\\\nc\",rule=\"source_rate\"} 7",
        "mahoraga_backend_answer_seconds{pool=\"p\",backend=\"b\"} 0.0015",
        "# UNIT mahoraga_backend_answer_seconds seconds",
        "mahoraga_worker_connect_seconds_count{worker=\"0\"} 4",
        "mahoraga_worker_connect_seconds_bucket{le=\"0.001024\",worker=\"0\"} 2",
        "mahoraga_worker_connect_seconds_bucket{le=\"1.048576\",worker=\"0\"} 3",
        "mahoraga_worker_connect_seconds_bucket{le=\"67.108864\",worker=\"0\"} 3",
        "mahoraga_worker_connect_seconds_bucket{le=\"+Inf\",worker=\"0\"} 4",
        "mahoraga_worker_turn_seconds_bucket{le=\"0.000004\",worker=\"0\"} 1",
        "mahoraga_worker_turn_seconds_bucket{le=\"0.000008\",worker=\"0\"} 3",
    ] {
        assert!(text.lines().any(|its| its == line), "{line}\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let text = scrape(Format::Prometheus).text();
    let line = "# TYPE mahoraga_worker_accepted_total counter";
    assert!(text.lines().any(|its| its == line), "{text}");
}

#[test]
fn each_name_is_declared_once() {
    let text = scrape(Format::OpenMetrics).text();
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert!(names.insert(line), "{line}");
    }
    let declared = [
        rows(&PROCESS),
        rows(&ACCESS_LIST),
        rows(&PEER),
        rows(&LISTENER),
        rows(&POOL),
    ];
    let others = [rows(&BACKEND), rows(&WORKER), rows(&TIMES)];
    let declared: usize = declared.iter().chain(&others).map(Vec::len).sum();
    assert_eq!(names.len(), declared);
}

/// The figures of a group for people: name, kind, labels, meaning.
fn rows<S>(group: &Group<S>) -> Vec<String> {
    let row = |figure: &Figure<S>| {
        let metric = &figure.metric;
        let unit = metric
            .unit
            .map_or(String::new(), |unit| format!("_{}", suffix(unit).as_str()));
        let (kind, total) = match metric.kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Histogram => ("histogram", ""),
        };
        let mut labels = group.labels.to_vec();
        if let Reading::Each(label, _) = figure.reading {
            labels.push(label);
        }
        let name = format!("{PREFIX}_{}{unit}{total}", group.name_of(metric));
        let by = match &*labels {
            [] => String::new(),
            labels => format!(" by {}", labels.join(", ")),
        };
        wrapped(&format!("- `{name}`, {kind}{by}: {}", metric.help))
    };
    group.figures.iter().map(row).collect()
}

/// An item of a list, in lines of 100 columns at most.
fn wrapped(item: &str) -> String {
    let mut lines = vec![String::new()];
    for word in item.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.len() + word.len() >= 100 {
            lines.push(format!("  {word}"));
        } else if last.is_empty() {
            last.push_str(word);
        } else {
            *last += &format!(" {word}");
        }
    }
    lines.join("\n")
}

/// `docs/metrics.md` shows what there is. `UPDATE=1 cargo test` writes it.
#[test]
fn the_page_of_figures_is_right() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (head, _) = page.split_once(MARK).expect("the page has a mark");
    let mut right = format!("{head}{MARK}\n");
    for (title, rows) in [
        ("The process", rows(&PROCESS)),
        ("Access lists", rows(&ACCESS_LIST)),
        ("Peers", rows(&PEER)),
        ("Listeners", rows(&LISTENER)),
        ("Pools", rows(&POOL)),
        ("Backends", rows(&BACKEND)),
        ("Workers", [rows(&WORKER), rows(&TIMES)].concat()),
    ] {
        write!(right, "\n## {title}\n\n{}\n", rows.join("\n")).unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &right).unwrap();
    }
    assert!(
        page == right,
        "docs/metrics.md is old: UPDATE=1 cargo test writes it"
    );
}

#[test]
fn each_kind_of_failure_of_tls_is_explained() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tls.md");
    let text = std::fs::read_to_string(path).unwrap();
    for kind in crate::tls::FailureKind::ALL {
        let row = format!("| `{}` |", kind.as_str());
        assert!(text.contains(&row), "docs/tls.md: {row}");
    }
}

/// Dashboard and rules of `scripts/` ask for figures that there are, and each alert is tested.
#[test]
fn what_dashboard_and_alerts_ask_for_is_there() {
    let text = scrape(Format::Prometheus).text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = types.filter_map(|line| line.split(' ').next()).collect();
    let read = |file: &str| {
        let path = format!("{}/scripts/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    for (file, least) in [
        ("grafana.json", 40),
        ("alerts.yml", 20),
        ("alerts.test.yml", 20),
    ] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: BTreeSet<_> = words.filter(|word| word.starts_with("mahoraga_")).collect();
        assert!(asked.len() >= least, "{file}: {asked:?}");
        for name in asked {
            let parts = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part));
            let of_histogram = parts.into_iter().flatten().any(|name| names.contains(name));
            assert!(of_histogram || names.contains(name), "{file}: {name}");
        }
    }
    let tests = read("alerts.test.yml");
    let rules = read("alerts.yml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert}");
    }
}

const MARK: &str = "<!-- The lists are made from the source. -->";
