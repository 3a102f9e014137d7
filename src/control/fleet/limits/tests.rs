//! Which limits hold over the fleet, and where.

use super::*;
use crate::config::parse;
use crate::fleet_shares::{Answer, Ask, FleetShare, Ledger, LedgerView, ShareBound};
use crate::guard::AccessFilters;
use crate::pool::Standing;
use crate::time::SECOND;
use crate::tls::TlsByOwner;

fn config(limits: &str, of_listener: &str) -> Config {
    let text = format!(
        "(fleet: (etcd: (endpoints: [\"http://127.0.0.1:1\"], prefix: \"/f/\")), {limits}
        listeners: [(name: \"web\", bind: \"127.0.0.1:1\", pool: \"a\", {of_listener})],
        pools: [(name: \"a\", backends: [\"127.0.0.1:2\"])])"
    );
    parse("f".to_owned(), text.into()).unwrap().0
}

fn publish(before: Option<&Snapshot>, config: &Config) -> Snapshot {
    let access = AccessFilters::new();
    let none = TlsByOwner::default();
    let by = (config, &access, &none);
    let standings = |_| [Standing::default()].into_iter();
    Snapshot::compose(before, by, 100, standings, |_| true).take_effect()
}

#[test]
fn each_limit_has_a_name_and_holds_from_the_first_snapshot_on() {
    let all = config(
        "fleet_max_connections: 50, rate_limit: (rate: 9, fleet: true),",
        "fleet_max_connections: 20, rate_limit: (rate: 5, fleet: true)",
    );
    let snapshot = publish(None, &all);
    let shown = |limits: &[FleetLimit]| {
        let limits = limits
            .iter()
            .map(|its| format!("{} {}", its.name, its.whole));
        limits.collect::<Vec<_>>().join(", ")
    };
    let found = limits(&all, &snapshot);
    assert_eq!(
        shown(&found),
        "connections 50, rate 9, listeners/web/connections 20, listeners/web/rate 5"
    );
    let connections = &snapshot.listeners[0].connections;
    assert!(connections.is_full() && snapshot.connections.is_full());
    found[2].set_share(ShareBound {
        share: 7,
        base: 7,
        until: 0,
    });
    assert_eq!(connections.places(), 7);
    // Off again: the task may still set a share, and does not limit it.
    let none = config("", "rate_limit: (rate: 5)");
    let after = publish(Some(&snapshot), &none);
    assert_eq!(limits(&none, &after).len(), 0);
    found[2].set_share(ShareBound::default());
    assert!(!connections.is_full() && after.connections.places() == 100);
}

/// A balancer that has a share of 7 and a base of 5 of a limit of 20.
fn member() -> FleetMember {
    let now = sys::boot_time();
    let mut member = FleetMember::new("lb", instance(), SECOND);
    let share = FleetShare {
        limit: 20,
        share: 7,
        base: 5,
        want: 0,
    };
    let shares = [("listeners/web/connections".to_owned(), share)];
    let view = LedgerView {
        revision: 3,
        ledger: Ledger {
            members: [("lb".to_owned(), shares.into())].into(),
        },
        instances: [("lb".to_owned(), instance().to_owned())].into(),
    };
    for (ask, answer) in [
        (Ask::Grant, Answer::Granted(7, 100 * SECOND)),
        (Ask::Register(7), Answer::Registered(None)),
        (Ask::Read, Answer::Read(view)),
    ] {
        member.answered(ask, answer, now, now);
    }
    member
}

#[test]
fn another_way_to_the_same_ledger_keeps_the_base() {
    let on = |endpoints: &[&str]| {
        let mut config = config("", "fleet_max_connections: 20");
        let fleet = config.fleet.as_mut().unwrap();
        fleet.name = Some("lb".to_owned());
        let endpoints = endpoints.iter().map(|its| (*its).to_owned());
        fleet.etcd.as_mut().unwrap().endpoints = endpoints.collect();
        config
    };
    let [one, other] = ["http://127.0.0.1:1", "http://127.0.0.1:2"];
    let mut fleet = FleetLimits::new(Arc::default());
    let snapshot = publish(None, &on(&[one]));
    let running = |fleet: &FleetLimits| Arc::clone(&fleet.running.as_ref().unwrap().member);
    let bound = |fleet: &FleetLimits| {
        let member = running(fleet);
        let bound = member
            .lock()
            .as_ref()
            .unwrap()
            .bound("listeners/web/connections");
        (bound.share, bound.base)
    };
    fleet.follow(&on(&[one]), &snapshot);
    assert_eq!(bound(&fleet), (0, 0));
    *running(&fleet).lock() = Some(member());
    assert_eq!(bound(&fleet), (7, 5));
    fleet.follow(&on(&[one, other]), &snapshot);
    assert_eq!(bound(&fleet), (5, 5));
    // Nothing says that this is the same etcd.
    fleet.follow(&on(&["http://127.0.0.1:3"]), &snapshot);
    assert_eq!(bound(&fleet), (0, 0));
}
