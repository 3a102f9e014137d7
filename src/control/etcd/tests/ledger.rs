//! What is asked of etcd about the ledger of shares, and what its answers mean.

use std::time::Duration;

use serde_json::{Value, json};

use super::stand_in::{Answer as Said, StandIn, listed};
use super::{LedgerKeeper, run, source};
use crate::control::etcd::wire::encoded;
use crate::fleet_shares::{Answer, Ask, Ledger, LedgerWrite};
use crate::time::SECOND;

fn said(value: &Value) -> Said {
    Said::Json(200, value.to_string())
}

fn keeper(etcd: &StandIn) -> LedgerKeeper {
    let lease = Duration::from_secs(80);
    LedgerKeeper::new(&source(&[etcd]), ("lb-1", "me"), lease, &Default::default())
}

#[test]
fn leases_are_granted_and_renewed_until_they_have_ended() {
    run(async {
        let etcd = StandIn::start().await;
        etcd.lists([
            said(&json!({ "ID": "7", "TTL": "60" })),
            said(&json!({ "result": { "ID": "7", "TTL": "60" } })),
            said(&json!({ "result": { "ID": "7" } })),
            said(&json!({ "error": { "message": "no leader" } })),
        ]);
        let mut keeper = keeper(&etcd);
        // etcd may grant another time than it was asked for.
        assert_eq!(
            keeper.ask(&Ask::Grant).await.unwrap(),
            Answer::Granted(7, 60 * SECOND)
        );
        assert_eq!(etcd.asked("/v3/lease/grant"), [json!({ "TTL": 80 })]);
        for goes_on in [true, false] {
            let renewed = keeper.ask(&Ask::Renew(7)).await.unwrap();
            assert_eq!(renewed, Answer::Renewed(goes_on));
        }
        let why = keeper.ask(&Ask::Renew(7)).await.unwrap_err();
        assert_eq!(why.to_string(), "no leader");
    });
}

#[test]
fn a_name_is_bound_unless_another_process_has_it() {
    run(async {
        let etcd = StandIn::start().await;
        let bound_to = |instance: &str| {
            let kvs = json!([{ "key": "", "value": encoded(instance.as_bytes()) }]);
            said(&json!({ "responses": [{ "response_range": { "kvs": kvs } }] }))
        };
        let done = || said(&json!({ "succeeded": true }));
        etcd.lists([done(), bound_to("other"), bound_to("me"), done()]);
        let mut keeper = keeper(&etcd);
        for by in [None, Some("other".to_owned()), None] {
            let bound = keeper.ask(&Ask::Register(7)).await.unwrap();
            assert_eq!(bound, Answer::Registered(by));
        }
        let asked = etcd.asked("/v3/kv/txn");
        let targets = asked.iter().map(|its| its["compare"][0]["target"].clone());
        let targets: Vec<_> = targets.collect();
        assert_eq!(targets, ["VERSION", "VERSION", "VERSION", "VALUE"]);
        assert_eq!(asked[0]["success"][0]["request_put"]["lease"], "7");
    });
}

#[test]
fn a_ledger_is_written_on_its_revision_and_for_those_who_are_gone() {
    run(async {
        let etcd = StandIn::start().await;
        let ledger = r#"{"lb-2": {"rate": {"limit": 9, "share": 5, "base": 4}}}"#;
        etcd.lists([
            listed(
                9,
                &[
                    ("limits/ledger", ledger, 8),
                    ("limits/members/lb-2", "it", 5),
                ],
            ),
            said(&json!({ "succeeded": true })),
            said(&json!({})),
            listed(9, &[("limits/ledger", "{", 8)]),
        ]);
        let mut keeper = keeper(&etcd);
        let Answer::Read(view) = keeper.ask(&Ask::Read).await.unwrap() else {
            panic!("expected a view");
        };
        assert_eq!((view.revision, view.ledger.sum("rate")), (8, 5));
        assert_eq!(view.instances["lb-2"], "it");
        let write = Ask::Write(LedgerWrite {
            revision: 8,
            ledger: Ledger::default(),
            gone: vec!["lb-3".to_owned()],
        });
        for is_written in [true, false] {
            let written = keeper.ask(&write).await.unwrap();
            assert_eq!(written, Answer::Written(is_written));
        }
        let compare = &etcd.asked("/v3/kv/txn")[0]["compare"];
        assert_eq!(compare[0]["mod_revision"], "8");
        assert_eq!(compare[1]["value"], encoded(b"me"));
        assert_eq!(compare[2]["key"], encoded(b"/p/limits/members/lb-3"));
        let why = keeper.ask(&Ask::Read).await.unwrap_err().to_string();
        assert!(why.starts_with("key `/p/limits/ledger`: "), "{why}");
    });
}

#[test]
fn what_no_balancer_has_written_is_refused() {
    run(async {
        let etcd = StandIn::start().await;
        let mut keeper = keeper(&etcd);
        let many = |count: usize| {
            let names = (0..count).map(|number| format!("\"pod-{number}\": {{}}"));
            format!("{{{}}}", names.collect::<Vec<_>>().join(","))
        };
        for (ledger, why) in [
            (many(256), "256 balancers: expected at most 255; delete it"),
            (
                "{\"a\\nb\": {}}".to_owned(),
                "invalid name \"a\\nb\": expected 1 to 64 characters",
            ),
        ] {
            etcd.lists([listed(9, &[("limits/ledger", &ledger, 8)])]);
            let told = keeper.ask(&Ask::Read).await.unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
        etcd.lists([listed(9, &[("limits/ledger", &many(255), 8)])]);
        assert!(keeper.ask(&Ask::Read).await.is_ok());
        etcd.lists([said(&json!({ "kvs": [], "more": true }))]);
        let told = keeper.ask(&Ask::Read).await.unwrap_err().to_string();
        assert!(told.ends_with("delete the others"), "{told}");
    });
}
