//! Watches of a stand-in for Consul, which answers late, wrong or not at all. The shapes are those
//! of its documentation: no real one was tried.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::config::{AdminState, ConsulHealth};
use crate::control::remote::stand_in::{FAST, Running, Scripted, StandIn, run};
use crate::control::remote::{KeyNews, RemoteCounts, Step, WatchPace};

async fn start() -> StandIn {
    let consul = StandIn::start(|path| match path {
        "/v1/status/leader" => "look",
        path if path.contains("index=0&") => "list",
        _ => "wait",
    })
    .await;
    consul.set("look", [Scripted::json("\"10.1.10.12:8300\"")]);
    consul
}

fn source(servers: &[&StandIn]) -> Consul {
    Consul {
        service: "redis".to_owned(),
        endpoints: servers.iter().map(|its| its.endpoint()).collect(),
        ..Consul::default()
    }
}

/// An instance as the documentation of Consul has it.
fn entry(node: &str, address: &str, weight: i64, status: &str) -> Value {
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": node, "Address": "10.1.10.12",
            "Datacenter": "dc1",
            "TaggedAddresses": { "lan": "10.1.10.12", "wan": "10.1.10.12" },
            "Meta": { "instance_type": "t2.medium" },
        },
        "Service": {
            "ID": "redis", "Service": "redis", "Tags": ["primary"], "Address": address,
            "TaggedAddresses": { "lan": { "address": address, "port": 8000 } },
            "Meta": { "redis_version": "4.0" }, "Port": 8000,
            "Weights": { "Passing": weight, "Warning": 1 }, "Namespace": "default",
        },
        "Checks": [
            { "Node": node, "CheckID": "service:redis", "Name": "Service 'redis' check",
              "Status": status, "Notes": "", "Output": "", "ServiceID": "redis",
              "ServiceName": "redis", "ServiceTags": ["primary"], "Namespace": "default" },
            { "Node": node, "CheckID": "serfHealth", "Name": "Serf Health Status",
              "Status": "passing", "Notes": "", "Output": "", "ServiceID": "",
              "ServiceName": "", "ServiceTags": [], "Namespace": "default" },
        ],
    })
}

/// An answer with this index.
fn indexed(index: &str, entries: impl Into<Value>) -> Scripted {
    let entries: Value = entries.into();
    let header = format!("X-Consul-Index: {index}\r\nX-Consul-Knownleader: true\r\n");
    Scripted::Whole(200, header, entries.to_string())
}

fn begin(source: &Consul, pace: WatchPace) -> Running<Instance> {
    let watch = |counts: &Arc<RemoteCounts>| ConsulWatch::new(source, pace, counts);
    Running::begin(watch, in_words)
}

fn in_words(step: Step<Instance>) -> String {
    match step {
        Step::Listed { keys, .. } => keys.into_iter().map(shown).collect::<Vec<_>>().join(" "),
        Step::Changed(_) => unreachable!("Consul tells whole sets"),
        Step::Failed(why, _) => format!("failed: {why}"),
    }
}

fn shown(news: KeyNews<Instance>) -> String {
    match news.value.unwrap() {
        Ok(Instance {
            address,
            weight,
            state,
        }) => match state {
            AdminState::Ready => format!("{}={address}*{weight}", news.key),
            AdminState::Drain | AdminState::Maint => {
                format!("{}={address}*{weight} drains", news.key)
            }
        },
        Err(why) => format!("{}=({why})", news.key),
    }
}

#[test]
fn instances_are_listed_and_followed() {
    run(async {
        let consul = start().await;
        consul.set(
            "list",
            [indexed("7", [entry("a", "10.0.0.1", 10, "passing")])],
        );
        let two = [
            entry("a", "10.0.0.1", 5, "passing"),
            entry("b", "", 1, "passing"),
        ];
        consul.set("wait", [indexed("9", two), Scripted::Silence]);
        let source = Consul {
            service: "my redis".to_owned(),
            tags: vec!["primary".to_owned(), "v2".to_owned()],
            filter: Some("Service.Meta.version == \"2\"".to_owned()),
            datacenter: Some("dc2".to_owned()),
            namespace: Some("team".to_owned()),
            ..source(&[&consul])
        };
        let mut watch = begin(&source, FAST);
        assert_eq!(watch.next().await, "a/redis=10.0.0.1:8000*10");
        // Without an address of its own it has that of its node.
        assert_eq!(
            watch.next().await,
            "a/redis=10.0.0.1:8000*5 b/redis=10.1.10.12:8000*1"
        );
        let expected = "/v1/health/service/my%20redis?passing=1&filter=%28Service.Meta.version%20\
                        %3D%3D%20%222%22%29%20and%20%60primary%60%20in%20Service.Tags%20and%20\
                        %60v2%60%20in%20Service.Tags&dc=dc2&ns=team&index=";
        assert_eq!(
            consul.asked("list")[0].path,
            format!("{expected}0&wait=240ms")
        );
        assert_eq!(
            consul.asked("wait")[0].path,
            format!("{expected}7&wait=240ms")
        );
        let status = watch.counts.registry();
        assert_eq!((status.services, status.watched, status.changes), (1, 1, 1));
        // A notification lists them again.
        consul.set(
            "list",
            [indexed("9", [entry("c", "10.0.0.3", 1, "passing")])],
        );
        watch.again.notify_one();
        watch.until("c/redis=10.0.0.3:8000*1").await;
    });
}

#[test]
fn an_index_that_goes_back_begins_again_and_one_that_is_none_is_one() {
    run(async {
        let consul = start().await;
        let a = || [entry("a", "10.0.0.1", 1, "passing")];
        let b = || [entry("b", "10.0.0.2", 1, "passing")];
        consul.set("list", [indexed("50", a()), indexed("3", b())]);
        consul.set("wait", [indexed("2", a()), Scripted::Silence]);
        let mut watch = begin(&source(&[&consul]), FAST);
        for step in ["a/redis", "a/redis", "b/redis"] {
            assert!(watch.next().await.starts_with(step));
        }
        let index = |kind: &str, n: usize| {
            let path = consul.asked(kind)[n].path.clone();
            let (_, rest) = path.split_once("index=").unwrap();
            rest.split('&').next().unwrap().to_owned()
        };
        assert_eq!(
            (index("wait", 0), index("list", 1)),
            ("50".into(), "0".into())
        );
        while consul.asked("wait").len() < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(index("wait", 1), "3");
        // None, 0, and what is no number.
        for header in ["", "X-Consul-Index: 0\r\n", "X-Consul-Index: x\r\n"] {
            let consul = start().await;
            let text = Value::from(a().to_vec()).to_string();
            consul.set("list", [Scripted::Whole(200, header.to_owned(), text)]);
            let mut watch = begin(&source(&[&consul]), FAST);
            assert!(watch.next().await.starts_with("a/redis"));
            while consul.asked("wait").is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(consul.asked("wait")[0].path.contains("index=1&"));
        }
    });
}

#[test]
fn garbage_slow_answers_and_disconnects_are_told() {
    run(async {
        let consul = start().await;
        let whole = |status, text: &str| Scripted::Whole(status, String::new(), text.to_owned());
        let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[{\"N";
        let answers = [
            (Scripted::json("<html>"), "cannot read its answer"),
            (Scripted::json("{\"Node\": 1}"), "cannot read its answer"),
            (
                Scripted::json("[{\"Service\": {\"Port\": \"x\"}}]"),
                "cannot read its answer",
            ),
            (
                Scripted::Raw("no http at all\r\n\r\n".into()),
                "invalid HTTP version",
            ),
            (Scripted::Raw(String::new()), "connection closed"),
            (Scripted::Raw(half.to_owned()), "body"),
            (
                whole(500, "No cluster leader"),
                "answers \"No cluster leader\" (500)",
            ),
            (
                whole(403, "Permission denied: token lacks\n"),
                "\"Permission denied: token lacks\"",
            ),
            (whole(502, "<html>bad</html>"), "\"Bad Gateway\" (502)"),
        ];
        let mut running = None;
        for (answer, why) in answers {
            consul.set("list", [answer]);
            let watch = running.get_or_insert_with(|| begin(&source(&[&consul]), FAST));
            watch.until(why).await;
        }
        let watch = running.unwrap();
        assert_eq!(watch.counts.registry().watched, 0);
    });
}

#[test]
fn an_agent_that_hangs_is_left_for_another_one() {
    run(async {
        let [hangs, well] = [start().await, start().await];
        well.set(
            "list",
            [indexed("4", [entry("a", "10.0.0.1", 1, "passing")])],
        );
        let pace = WatchPace {
            answer: Duration::from_millis(30),
            ..FAST
        };
        // It begins with one of them at random.
        let mut watch = begin(&source(&[&hangs, &well]), pace);
        watch.until("a/redis").await;
        // It hangs while a query waits: the next look notices.
        hangs.set(
            "list",
            [indexed("5", [entry("b", "10.0.0.2", 1, "passing")])],
        );
        well.set("list", [Scripted::Silence]);
        well.set("look", [Scripted::Silence]);
        watch.until("b/redis").await;
        hangs.set("list", [Scripted::Silence]);
        hangs.set("look", [Scripted::Silence]);
        watch.until("no answer within 30ms").await;
    });
}

#[test]
fn a_token_that_rotates_is_read_again() {
    run(async {
        let consul = start().await;
        let directory = std::env::temp_dir().join(format!("consul_token_{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("token");
        let source = Consul {
            token_file: Some(file.clone()),
            ..source(&[&consul])
        };
        let mut watch = begin(&source, FAST);
        watch.until("cannot use").await;
        consul.set(
            "list",
            [indexed("1", [entry("a", "10.0.0.1", 1, "passing")])],
        );
        // The third time there is no file: what was read before is used.
        for (token, is_there) in [("one", true), ("two", true), ("two", false)] {
            match is_there {
                true => std::fs::write(&file, format!("{token}\n")).unwrap(),
                false => std::fs::remove_file(&file).unwrap(),
            }
            let before = consul.asked("list").len();
            watch.again.notify_one();
            while consul.asked("list").len() == before {
                watch.until("a/redis").await;
            }
            let asked = consul.asked("list");
            assert_eq!(asked.last().unwrap().secret.as_deref(), Some(token));
        }
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn answers_are_bounded_and_what_is_hidden_is_told() {
    run(async {
        let consul = start().await;
        // A check may say a lot, and no part of it is kept.
        let mut large = entry("a", "10.0.0.1", 1, "passing");
        large["Checks"][0]["Output"] = "x".repeat(1 << 20).into();
        consul.set("list", [indexed("1", [large])]);
        let source = source(&[&consul]);
        let mut watch = begin(&source, FAST);
        assert_eq!(watch.next().await, "a/redis=10.0.0.1:8000*1");
        let header = "X-Consul-Index: 2\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n";
        consul.set(
            "list",
            [Scripted::Whole(200, header.to_owned(), "[]".to_owned())],
        );
        watch.again.notify_one();
        watch
            .until("(hidden)=(the token may not read some instances")
            .await;
        consul.set(
            "list",
            [Scripted::json(format!("[{}]", "{},".repeat(10_000) + "{}"))],
        );
        watch.again.notify_one();
        watch.until("expected at most 10000 in a list").await;
        consul.set("list", [Scripted::json(" ".repeat((16 << 20) + 1))]);
        watch.until("more than 16777216 bytes").await;
    });
}

#[test]
fn checks_and_weights_say_what_an_instance_is() {
    let read = |entry: &Value, health: ConsulHealth| {
        let entry: instance::HealthEntry = serde_json::from_value(entry.clone()).unwrap();
        let source = Consul {
            health,
            ..Consul::default()
        };
        entry.instance(&source)
    };
    let [passing, warning, critical] =
        ["passing", "warning", "critical"].map(|status| entry("a", "10.0.0.1", 10, status));
    let counts = |health| {
        [&passing, &warning, &critical]
            .map(|entry| read(entry, health).map(|its| its.unwrap().weight))
    };
    assert_eq!(counts(ConsulHealth::Passing), [Some(10), None, None]);
    assert_eq!(counts(ConsulHealth::Warning), [Some(10), Some(1), None]);
    assert_eq!(counts(ConsulHealth::Any), [Some(10), Some(1), Some(10)]);
    let mut maintained = critical.clone();
    maintained["Checks"][0]["CheckID"] = "_service_maintenance:redis".into();
    let drains = read(&maintained, ConsulHealth::Any).unwrap().unwrap();
    assert_eq!(drains.state, AdminState::Drain);
    // Before Consul 1.2.3 there were no weights, and lists may be null.
    let old = json!({
        "Node": { "Node": "a", "Address": "fd00::1" },
        "Service": { "ID": "r", "Address": "", "Port": 80, "Tags": null },
        "Checks": null,
    });
    let old = read(&old, ConsulHealth::Passing).unwrap().unwrap();
    assert_eq!(
        (old.address.to_string(), old.weight),
        ("[fd00::1]:80".into(), 1)
    );
    for (field, value, why) in [
        (
            "Port",
            json!(0),
            "invalid `Service.Port` `0`: expected 1 to 65535",
        ),
        (
            "Port",
            json!(65_536),
            "invalid `Service.Port` `65536`: expected 1 to 65535",
        ),
        (
            "Address",
            json!("db.example"),
            "invalid address `db.example`: expected an IP",
        ),
        (
            "Address",
            json!("0.0.0.0"),
            "expected the address of a server",
        ),
        (
            "Weights",
            json!({ "Passing": 70_000, "Warning": 1 }),
            "invalid `Service.Weights` `70000`: expected 0 to 65535",
        ),
    ] {
        let mut bad = passing.clone();
        bad["Service"][field] = value;
        let told = read(&bad, ConsulHealth::Passing).unwrap().unwrap_err();
        assert!(told.contains(why), "{told}");
    }
}
