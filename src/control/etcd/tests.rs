//! Watches of a stand-in for etcd, which answers late, wrong or not at all. `scripts/etcd.sh` has
//! the real one.

mod ledger;
mod stand_in;

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::control::remote::stand_in::{FAST, Running, run};
use crate::control::remote::{KeyNews, Step, WatchPace};
use stand_in::{Answer, StandIn, canceled, changes, listed};

const PREFIX: &str = "/p/";

fn source(endpoints: &[&StandIn]) -> Etcd {
    Etcd {
        endpoints: endpoints.iter().map(|its| its.endpoint()).collect(),
        prefix: PREFIX.to_owned(),
        ..Etcd::default()
    }
}

/// A value is a text, but for "bad".
fn text(_: &str, value: &[u8]) -> Result<String, String> {
    match String::from_utf8_lossy(value).into_owned() {
        bad if bad == "bad" => Err("it is bad".to_owned()),
        good => Ok(good),
    }
}

fn begin(source: &Etcd, keys_max: usize, pace: WatchPace) -> Running<String> {
    let watch = |counts: &Arc<RemoteCounts>| Watch::new(source, (text, keys_max), pace, counts);
    Running::begin(watch, in_words)
}

fn in_words(step: Step<String>) -> String {
    match step {
        Step::Listed { keys, has_more, .. } => {
            let more = if has_more { " and more" } else { "" };
            format!("all: {}{more}", shown(keys))
        }
        Step::Changed(keys) => format!("new: {}", shown(keys)),
        Step::Failed(why, _) => {
            let (_, why) = why.split_once("//").unwrap();
            let (_, why) = why.split_once(": ").unwrap();
            format!("failed: {why}")
        }
    }
}

/// Waits for this step; earlier ones may come again.
async fn until(watch: &mut Running<String>, step: &str) {
    while watch.next().await != step {}
}

/// Waits until it fails for this reason.
async fn until_failed(watch: &mut Running<String>, why: &str) {
    loop {
        let told = watch.next().await;
        if told.starts_with("failed: ") && told.contains(why) {
            return;
        }
    }
}

fn shown(keys: Vec<KeyNews<String>>) -> String {
    let shown = keys.into_iter().map(|entry| {
        let value = match entry.value {
            None => "gone".to_owned(),
            Some(Ok(text)) => text,
            Some(Err(why)) => format!("({why})"),
        };
        format!("{}={value}@{}", entry.key, entry.revision)
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn keys_are_listed_and_followed() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([listed(7, &[("a", "1", 3), ("b", "bad", 7)])]);
        etcd.watches([Answer::lines([
            changes(8, &[("a", Some("2"), 8), ("b", None, 8)]),
            changes(9, &[("c", Some("3"), 9)]),
        ])]);
        let mut watch = begin(&source(&[&etcd]), 10, FAST);
        assert_eq!(watch.next().await, "all: a=1@3 b=(it is bad)@7");
        assert_eq!(watch.next().await, "new: a=2@8 b=gone@8");
        assert_eq!(watch.next().await, "new: c=3@9");
        assert_eq!(
            etcd.asked("/v3/watch")[0]["create_request"]["start_revision"],
            8
        );
        let status = status(&watch.counts);
        assert_eq!((status.prefixes, status.watched, status.changes), (1, 1, 3));
        // A notification lists them again.
        etcd.lists([listed(9, &[("c", "3", 9)])]);
        watch.again.notify_one();
        assert_eq!(watch.next().await, "all: c=3@9");
    });
}

#[test]
fn a_compacted_revision_lists_again() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([
            listed(2, &[("a", "1", 2)]),
            listed(5, &[("a", "2", 5)]),
            listed(9, &[("a", "3", 9)]),
        ]);
        // It is compacted before the watch begins, and while it is behind.
        let late = [stand_in::created(5), canceled(9, "")];
        etcd.watches([
            Answer::Lines(vec![canceled(5, "")]),
            Answer::Lines(late.to_vec()),
        ]);
        let mut watch = begin(&source(&[&etcd]), 10, FAST);
        for all in ["all: a=1@2", "all: a=2@5", "all: a=3@9"] {
            assert_eq!(watch.next().await, all);
        }
        assert_eq!(status(&watch.counts).failures, 0);
    });
}

#[test]
fn garbage_slow_answers_and_disconnects_are_told_and_end() {
    run(async {
        let etcd = StandIn::start().await;
        let refused = Answer::Json(
            503,
            r#"{"message":"etcdserver: no leader","code":14}"#.into(),
        );
        let answers = [
            (Answer::Json(200, "<html>".into()), "cannot read its answer"),
            (
                Answer::Json(200, r#"{"kvs":[{"key":"?"}]}"#.into()),
                "expected base64",
            ),
            (
                Answer::Json(200, r#"{"kvs":[{"key":"L3E="}]}"#.into()),
                "without the prefix",
            ),
            (
                Answer::Json(200, r#"{"header":{"revision":"x"}}"#.into()),
                "cannot read its answer",
            ),
            (
                Answer::Raw("no http at all\r\n\r\n".into()),
                "invalid HTTP version",
            ),
            (Answer::Raw(String::new()), "connection closed"),
            (
                Answer::Raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".into()),
                "body",
            ),
            (refused, r#"answers "etcdserver: no leader" (503)"#),
            (Answer::Json(500, "oops".into()), r#"answers "oops" (500)"#),
        ];
        let mut watch = None;
        for (answer, why) in answers {
            etcd.lists([answer]);
            let watch = watch.get_or_insert_with(|| begin(&source(&[&etcd]), 10, FAST));
            until_failed(watch, why).await;
        }
        // Lines of the watch.
        let mut watch = watch.unwrap();
        for (lines, why) in [
            (vec!["{}".to_owned()], "expected a result"),
            (vec!["{".to_owned()], "cannot read its answer"),
            (vec![canceled(0, "permission denied")], "permission denied"),
            (
                vec![r#"{"error":{"message":"too busy"}}"#.to_owned()],
                "too busy",
            ),
            (
                vec![stand_in::created(1), "\u{0}".to_owned()],
                "cannot read its answer",
            ),
        ] {
            etcd.watches([Answer::Lines(lines)]);
            etcd.lists([listed(1, &[("a", "1", 1)])]);
            until_failed(&mut watch, why).await;
        }
        assert_eq!(status(&watch.counts).watched, 0);
    });
}

#[test]
fn an_endpoint_that_hangs_is_left_for_another_one() {
    run(async {
        let [hangs, well] = [StandIn::start().await, StandIn::start().await];
        hangs.lists([Answer::Silence]);
        well.lists([listed(4, &[("a", "1", 4)])]);
        let pace = WatchPace {
            answer: std::time::Duration::from_millis(30),
            ..FAST
        };
        // It begins with one of them at random.
        let mut watch = begin(&source(&[&hangs, &well]), 10, pace);
        until(&mut watch, "all: a=1@4").await;
        // It hangs while it is watched: the next look notices.
        hangs.lists([listed(5, &[("a", "2", 5)])]);
        well.lists([Answer::Silence]);
        well.looks([Answer::Silence]);
        until(&mut watch, "all: a=2@5").await;
        // Both hang: that is told.
        hangs.lists([Answer::Silence]);
        hangs.looks([Answer::Silence]);
        until_failed(&mut watch, "no answer within 30ms").await;
    });
}

#[test]
fn a_wiped_cluster_is_listed_again() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([listed(50, &[("a", "1", 50)])]);
        let mut watch = begin(&source(&[&etcd]), 10, FAST);
        assert_eq!(watch.next().await, "all: a=1@50");
        etcd.lists([listed(1, &[])]);
        etcd.looks([Answer::Json(200, r#"{"header":{"revision":"1"}}"#.into())]);
        assert_eq!(watch.next().await, "all: ");
    });
}

#[test]
fn a_watch_that_is_silent_while_keys_change_is_left() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([listed(5, &[("a", "1", 5)])]);
        let look = |revision: i64, count: i64| {
            let header = serde_json::json!({ "revision": "9" });
            let kvs = [serde_json::json!({ "mod_revision": revision.to_string() })];
            let answer = serde_json::json!({ "header": header, "kvs": kvs, "count": count });
            Answer::Json(200, answer.to_string())
        };
        // One was put.
        etcd.looks([look(5, 1), look(6, 1)]);
        let mut watch = begin(&source(&[&etcd]), 10, FAST);
        assert_eq!(watch.next().await, "all: a=1@5");
        etcd.lists([listed(7, &[("a", "2", 6)])]);
        until(&mut watch, "all: a=2@6").await;
        // One has gone.
        etcd.looks([look(6, 2), look(6, 1)]);
        etcd.lists([listed(8, &[])]);
        until(&mut watch, "all: ").await;
    });
}

#[test]
fn a_revision_that_no_cluster_has_is_garbage() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([listed(i64::MAX, &[])]);
        let mut watch = begin(&source(&[&etcd]), 10, FAST);
        until_failed(&mut watch, "revision 9223372036854775807").await;
        etcd.lists([listed(-7, &[])]);
        until_failed(&mut watch, "revision -7").await;
    });
}

#[test]
fn keys_and_values_are_bounded() {
    run(async {
        let etcd = StandIn::start().await;
        let large = "x".repeat(64 << 10);
        let too_large = "x".repeat((64 << 10) + 3);
        let long_name = "n".repeat(300);
        etcd.lists([listed(
            1,
            &[("a", &large, 1), ("b", &too_large, 1), (&long_name, "1", 1)],
        )]);
        let mut watch = begin(&source(&[&etcd]), 3, FAST);
        let all = watch.next().await;
        assert!(all.starts_with(&format!("all: a={large}@1 ")));
        assert!(all.contains(" b=(invalid value: expected at most 65536 bytes)@1 "));
        let name = "n".repeat(256);
        let why = "(invalid key: expected at most 256 bytes after the prefix, not 300)@1";
        assert!(all.ends_with(&format!(" {name}={why}")), "{all}");
        // One more than there may be, which shows that there are too many.
        let limit = |n: usize| etcd.asked("/v3/kv/range")[n]["limit"].clone();
        assert_eq!(limit(0), 4);
        etcd.lists([listed(
            2,
            &[("a", "1", 1), ("b", "1", 1), ("c", "1", 1), ("d", "1", 1)],
        )]);
        watch.again.notify_one();
        assert_eq!(watch.next().await, "all: a=1@1 b=1@1 c=1@1 and more");
        // A page beyond the bound is asked for in parts, and of one that is too large the name.
        let beyond = Answer::Json(200, " ".repeat(5 << 20));
        let names = listed(3, &[("a", "", 3)]);
        etcd.lists([beyond.clone(), beyond, names]);
        watch.again.notify_one();
        assert_eq!(
            watch.next().await,
            "all: a=(invalid value: expected at most 65536 bytes)@3"
        );
        let asked = etcd.asked("/v3/kv/range");
        let asked: Vec<_> = asked
            .iter()
            .filter(|its| its["sort_target"] != "MOD")
            .collect();
        let [.., last] = &asked[..] else { panic!() };
        assert_eq!(
            (&last["limit"], &last["keys_only"]),
            (&1.into(), &true.into())
        );
    });
}

#[test]
fn a_user_has_a_token_which_is_renewed() {
    run(async {
        let etcd = StandIn::start().await;
        let directory = std::env::temp_dir().join(format!("etcd_token_{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file: PathBuf = directory.join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let source = Etcd {
            user: Some("balancer".to_owned()),
            password_file: Some(file.clone()),
            ..source(&[&etcd])
        };
        etcd.tokens(["one", "two"]);
        etcd.lists([listed(1, &[("a", "1", 1)])]);
        let mut watch = begin(&source, 10, FAST);
        assert_eq!(watch.next().await, "all: a=1@1");
        let asked = &etcd.asked("/v3/auth/authenticate")[0];
        assert_eq!(
            (&asked["name"], &asked["password"]),
            (&"balancer".into(), &"secret".into())
        );
        // etcd forgot it, as after a restart.
        let stale = r#"{"message":"etcdserver: invalid auth token","code":16}"#;
        etcd.lists([Answer::Json(401, stale.into()), listed(2, &[("a", "2", 2)])]);
        watch.again.notify_one();
        assert_eq!(watch.next().await, "all: a=2@2");
        assert_eq!(etcd.last_token(), Some("two".to_owned()));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}
