//! The rules of limits over the fleet.

use super::Finding;
use crate::config::{Config, RateLimit};

/// The rules that the limits of all listeners together break.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    let is_shared = config.fleet_max_connections.is_some();
    limits(config, "", (is_shared, config.rate_limit), found);
}

/// The rules that the limits of a listener break, by its index.
pub(super) fn of_listener(config: &Config, i: usize, found: &mut Vec<Finding>) {
    let listener = &config.listeners[i];
    let is_shared = listener.fleet_max_connections.is_some();
    let at = format!("listeners[{i}].");
    limits(config, &at, (is_shared, listener.rate_limit), found);
}

/// The first rule that a change of the limits of all listeners together breaks.
pub(in crate::config) fn broken_by_global(config: &Config) -> Option<String> {
    let mut found = Vec::new();
    find(config, &mut found);
    found.into_iter().next().map(|finding| finding.sentence)
}

fn limits(
    config: &Config,
    at: &str,
    (is_shared, rate): (bool, Option<RateLimit>),
    found: &mut Vec<Finding>,
) {
    if config.fleet.as_ref().is_some_and(|its| its.etcd.is_some()) {
        return;
    }
    let rate = rate.is_some_and(|limit| limit.fleet);
    for (setting, named, is_set) in [
        ("fleet_max_connections", "fleet_max_connections", is_shared),
        ("rate_limit.fleet", "fleet", rate),
    ] {
        let sentence = format!(
            "{named}: shares of limits are held in etcd: give `fleet`, such as \
             fleet: (etcd: (endpoints: [...], prefix: \"/mahoraga/fleet/\"))"
        );
        let finding = Finding::at(format!("{at}{setting}"), sentence).needing("fleet");
        found.extend(is_set.then_some(finding));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Change, Patch, parse};

    #[test]
    fn limits_of_the_fleet_need_one() {
        let read = |limit: &str| {
            let text = format!(
                "({limit} listeners: [(bind: \"127.0.0.1:1\", pool: \"a\")],
                pools: [(name: \"a\", backends: [\"127.0.0.1:2\"])])"
            );
            parse("f".to_owned(), text.into())
        };
        for limit in [
            "fleet_max_connections: 9,",
            "rate_limit: (rate: 9, fleet: true),",
        ] {
            let told = read(limit).unwrap_err().to_string();
            assert!(
                told.contains("shares of limits are held in etcd: give `fleet`"),
                "{told}"
            );
        }
        let fleet = "fleet: (etcd: (endpoints: [\"http://a:1\"], prefix: \"/f/\")),";
        read(&format!("{fleet} fleet_max_connections: 9,")).unwrap();
        let (config, _) = read("").unwrap();
        let change = Change::SetGlobal {
            patch: Patch::all(&[("fleet_max_connections", "9")]),
        };
        let why = change.apply(&config).unwrap_err().to_string();
        assert!(why.contains("give `fleet`"), "{why}");
    }
}
