//! Watches of a stand-in for the API server of Kubernetes, which answers late, wrong or not at all.
//! The shapes are those of its documentation: no real one was tried.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::control::remote::stand_in::{FAST, Running, Scripted, StandIn, run};
use crate::control::remote::{KeyNews, RemoteCounts, Step, WatchPace};

async fn start() -> StandIn {
    let server = StandIn::start(|path| match path {
        "/livez" => "look",
        path if path.contains("&watch=1&") => "watch",
        _ => "list",
    })
    .await;
    server.set("look", [Scripted::json("ok")]);
    server
}

fn source(servers: &[&StandIn]) -> Kubernetes {
    Kubernetes {
        service: "example".to_owned(),
        namespace: "default".to_owned(),
        endpoints: servers.iter().map(|its| its.endpoint()).collect(),
        ..Kubernetes::default()
    }
}

/// A slice as the documentation of Kubernetes has it.
fn object(name: &str, version: &str, ips: &[&str]) -> Value {
    let endpoints = ips.iter().map(|ip| {
        json!({
            "addresses": [ip],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "hostname": "pod-1", "nodeName": "node-1", "zone": "us-west2-a",
            "targetRef": { "kind": "Pod", "name": "pod-1", "uid": "1" },
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "resourceVersion": version,
            "labels": { "kubernetes.io/service-name": "example" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn listed(version: &str, rest: &str, items: &[Value]) -> Scripted {
    Scripted::json(json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "resourceVersion": version, "continue": rest },
        "items": items,
    }))
}

fn event(kind: &str, object: &Value) -> String {
    json!({ "type": kind, "object": object }).to_string()
}

fn bookmark(version: &str) -> String {
    let object = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": { "resourceVersion": version, "creationTimestamp": null },
        "addressType": "", "endpoints": null, "ports": null,
    });
    event("BOOKMARK", &object)
}

fn status(code: u16, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Expired", "code": code,
    })
}

fn begin(source: &Kubernetes, pace: WatchPace) -> Running<Slice> {
    let watch = |counts: &Arc<RemoteCounts>| KubernetesWatch::new(source, pace, counts);
    Running::begin(watch, in_words)
}

fn in_words(step: Step<Slice>) -> String {
    match step {
        Step::Listed { keys, has_more, .. } => {
            let more = if has_more { " and more" } else { "" };
            format!("all: {}{more}", shown(keys))
        }
        Step::Changed(keys) => format!("new: {}", shown(keys)),
        Step::Failed(why, _) => format!("failed: {why}"),
    }
}

fn shown(keys: Vec<KeyNews<Slice>>) -> String {
    let shown = keys.into_iter().map(|news| {
        let value = match news.value {
            None => "gone".to_owned(),
            Some(Ok(slice)) => {
                let endpoints = slice.endpoints.iter().map(|its| its.address.to_string());
                endpoints.collect::<Vec<_>>().join("+")
            }
            Some(Err(why)) => format!("({why})"),
        };
        format!("{}={value}", news.key)
    });
    shown.collect::<Vec<_>>().join(" ")
}

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices\
                    ?labelSelector=kubernetes.io%2Fservice-name%3Dexample&";

#[test]
fn slices_are_listed_in_pages_and_followed() {
    run(async {
        let server = start().await;
        let pages = [
            listed("100", "rest/1==", &[object("a", "7", &["10.1.2.3"])]),
            listed("100", "", &[object("b", "9", &["10.1.2.4", "10.1.2.5"])]),
        ];
        server.set("list", pages);
        let first = Scripted::Ended(vec![
            event("MODIFIED", &object("a", "101", &["10.1.2.6"])),
            event("DELETED", &object("b", "102", &[])),
            bookmark("140"),
        ]);
        let second = Scripted::Lines(vec![event("ADDED", &object("c", "141", &["10.1.2.7"]))]);
        server.set("watch", [first, second]);
        let mut watch = begin(&source(&[&server]), FAST);
        let all = "all: a=10.1.2.3:80 b=10.1.2.4:80+10.1.2.5:80";
        assert_eq!(watch.next().await, all);
        assert_eq!(watch.next().await, "new: a=10.1.2.6:80");
        assert_eq!(watch.next().await, "new: b=gone");
        assert_eq!(watch.next().await, "new: c=10.1.2.7:80");
        let [one, two] = &server.asked("list")[..] else {
            panic!()
        };
        assert_eq!(one.path, format!("{PATH}limit=50"));
        assert_eq!(two.path, format!("{PATH}limit=50&continue=rest%2F1%3D%3D"));
        // A watch that ended in order goes on from the bookmark, without a list.
        let [one, two] = &server.asked("watch")[..] else {
            panic!()
        };
        let query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion=";
        assert_eq!(one.path, format!("{PATH}{query}100"));
        assert_eq!(two.path, format!("{PATH}{query}140"));
        let status = watch.counts.registry();
        assert_eq!((status.services, status.watched), (1, 1));
        assert_eq!((status.lists, status.changes), (1, 3));
    });
}

#[test]
fn what_has_expired_is_listed_again() {
    run(async {
        let server = start().await;
        let gone = || Scripted::Whole(410, String::new(), status(410, "too old").to_string());
        let a = |version: &str, ip| listed(version, "", &[object("a", version, &[ip])]);
        server.set(
            "list",
            [
                // The rest of a list, a watch, and one that runs.
                listed("1", "rest", &[object("x", "1", &["10.0.0.9"])]),
                gone(),
                a("2", "10.0.0.2"),
                a("3", "10.0.0.3"),
                a("4", "10.0.0.4"),
            ],
        );
        let late = vec![
            bookmark("3"),
            event("ERROR", &status(410, "too old resource version")),
        ];
        server.set(
            "watch",
            [gone(), Scripted::Lines(late), Scripted::Lines(Vec::new())],
        );
        let mut watch = begin(&source(&[&server]), FAST);
        for ip in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            assert_eq!(watch.next().await, format!("all: a={ip}:80"));
        }
        assert_eq!(watch.counts.registry().failures, 0);
    });
}

#[test]
fn garbage_slow_answers_and_disconnects_are_told() {
    run(async {
        let server = start().await;
        let whole = |code: u16, message: &str| {
            Scripted::Whole(code, String::new(), status(code, message).to_string())
        };
        let half = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"typ";
        let mut running = None;
        for (answer, why) in [
            (Scripted::json("<html>"), "cannot read its answer"),
            (Scripted::json("{}"), "a list without a version"),
            (listed("1", "rest", &[]), "a list without an end"),
            (Scripted::json("{\"items\": {}}"), "cannot read its answer"),
            (Scripted::Raw(half.to_owned()), "body"),
            (Scripted::Raw(String::new()), "connection closed"),
            (whole(401, "Unauthorized"), "answers \"Unauthorized\" (401)"),
            (
                whole(403, "endpointslices.discovery.k8s.io is forbidden"),
                "\"endpointslices.discovery.k8s.io is forbidden\" (403)",
            ),
        ] {
            server.set("list", [answer]);
            let watch = running.get_or_insert_with(|| begin(&source(&[&server]), FAST));
            watch.until(why).await;
        }
        let mut watch = running.unwrap();
        server.set(
            "list",
            [listed("1", "", &[object("a", "1", &["10.0.0.1"])])],
        );
        for (answer, why) in [
            (
                Scripted::Lines(vec!["{".to_owned()]),
                "cannot read its answer",
            ),
            (
                Scripted::Lines(vec!["\u{0}".to_owned()]),
                "cannot read its answer",
            ),
            (Scripted::Raw(half.to_owned()), "body"),
            (
                Scripted::Lines(vec![event("ERROR", &status(500, "etcd is away"))]),
                "answers \"etcd is away\" (500)",
            ),
            (
                Scripted::Lines(vec![event("MOVED", &json!({}))]),
                "an event of type `MOVED`",
            ),
            (
                Scripted::Lines(vec![event("ADDED", &json!({}))]),
                "an event without a version",
            ),
        ] {
            server.set("watch", [answer]);
            watch.until(why).await;
        }
    });
}

#[test]
fn a_server_that_hangs_is_left_for_another_one() {
    run(async {
        let [hangs, well] = [start().await, start().await];
        well.set(
            "list",
            [listed("4", "", &[object("a", "4", &["10.0.0.1"])])],
        );
        well.set("watch", [Scripted::Lines(Vec::new())]);
        let pace = WatchPace {
            answer: Duration::from_millis(30),
            ..FAST
        };
        let mut watch = begin(&source(&[&hangs, &well]), pace);
        watch.until("all: a=10.0.0.1:80").await;
        hangs.set(
            "list",
            [listed("5", "", &[object("b", "5", &["10.0.0.2"])])],
        );
        hangs.set("watch", [Scripted::Lines(Vec::new())]);
        well.set("list", [Scripted::Silence]);
        well.set("look", [Scripted::Silence]);
        watch.until("all: b=10.0.0.2:80").await;
        hangs.set("list", [Scripted::Silence]);
        hangs.set("look", [Scripted::Silence]);
        watch.until("no answer within 30ms").await;
    });
}

#[test]
fn a_token_that_rotates_is_read_again() {
    run(async {
        let server = start().await;
        let directory = env::temp_dir().join(format!("kube_token_{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("token");
        std::fs::write(&file, "one").unwrap();
        let source = Kubernetes {
            token_file: Some(file.clone()),
            ..source(&[&server])
        };
        server.set(
            "list",
            [listed("1", "", &[object("a", "1", &["10.0.0.1"])])],
        );
        server.set("watch", [Scripted::Ended(vec![bookmark("2")])]);
        let mut watch = begin(&source, FAST);
        watch.until("all: a").await;
        assert_eq!(
            server.asked("list")[0].secret.as_deref(),
            Some("Bearer one")
        );
        std::fs::write(&file, "two").unwrap();
        let is_new = |asked: &Vec<_>| {
            let last = asked.last();
            last.and_then(|its: &remote::stand_in::Asked| its.secret.clone())
                .is_some_and(|secret| secret == "Bearer two")
        };
        while !is_new(&server.asked("watch")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Who asks whether it still answers is not said.
        assert!(server.asked("look").iter().all(|its| its.secret.is_none()));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn slices_are_bounded() {
    run(async {
        let server = start().await;
        // An annotation of 1 MB is not read, and a page beyond the bound is asked for in parts.
        let mut large = object("a", "1", &["10.0.0.1"]);
        large["metadata"]["annotations"] = json!({ "note": "x".repeat(1 << 20) });
        server.set(
            "list",
            [
                Scripted::json(" ".repeat((8 << 20) + 1)),
                listed("1", "", &[large]),
            ],
        );
        server.set("watch", [Scripted::Lines(Vec::new())]);
        let mut watch = begin(&source(&[&server]), FAST);
        assert_eq!(watch.next().await, "all: a=10.0.0.1:80");
        assert_eq!(server.asked("list")[1].path, format!("{PATH}limit=6"));
        let page = |n: usize| {
            let name = |i| object(&format!("s{n}-{i}"), "1", &[]);
            listed("2", "rest", &(0..50).map(name).collect::<Vec<_>>())
        };
        let last = listed(
            "2",
            "rest",
            &(0..7)
                .map(|i| object(&format!("t{i}"), "1", &[]))
                .collect::<Vec<_>>(),
        );
        server.set("list", (0..5).map(page).chain([last]));
        watch.again.notify_one();
        watch.until(" and more").await;
        assert!(
            server
                .asked("list")
                .last()
                .unwrap()
                .path
                .contains("limit=7&")
        );
        let many = vec!["10.0.0.1"; 1_001];
        server.set("list", [listed("3", "", &[object("a", "1", &many)])]);
        watch.again.notify_one();
        watch.until("expected at most 1000 in a list").await;
    });
}

#[test]
fn the_server_of_the_cluster_is_the_default() {
    let of = |host: &'static str, port: &'static str| {
        in_cluster(move |name| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
            _ => Some(port.to_owned()),
        })
    };
    assert_eq!(of("10.96.0.1", "443"), "https://10.96.0.1:443");
    assert_eq!(of("fd00::1", "6443"), "https://[fd00::1]:6443");
    assert_eq!(of("10.96.0.1", ""), "https://10.96.0.1");
    assert_eq!(of("", ""), "https://kubernetes.default.svc");
    let source = Kubernetes::default();
    let directory = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(
        source.token_path().unwrap().to_str().unwrap(),
        format!("{directory}/token")
    );
    let ca = source.server().ca.unwrap();
    assert_eq!(ca.to_str().unwrap(), format!("{directory}/ca.crt"));
    let elsewhere = Kubernetes {
        endpoints: vec!["https://k:6443".to_owned()],
        ..source
    };
    assert_eq!(
        (elsewhere.token_path(), elsewhere.server().ca),
        (None, None)
    );
}
