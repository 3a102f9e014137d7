//! Which limits hold over the fleet, and where.

use super::*;
use crate::config::parse;
use crate::fleet_shares::ShareBound;
use crate::guard::AccessFilters;
use crate::pool::Standing;

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
    let by = (config, &access);
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
