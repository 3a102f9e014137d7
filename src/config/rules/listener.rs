//! The rules of a listener, beside those about its address and its name.

use std::collections::HashSet;

use super::access::PREFIXES_MAX;
use super::{Finding, unique};
use crate::address::Address;
use crate::config::error::SHOWN_MAX;
use crate::config::values::{known, written};
use crate::config::{Config, Listener, PostgresTls, ProxySource};

/// The rules that listeners break.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    let lists = lists(config).collect();
    for i in 0..config.listeners.len() {
        of_listener(config, i, &lists, found);
    }
}

/// The first rule that a listener breaks, by its index.
pub(in crate::config) fn broken_by_listener(config: &Config, i: usize) -> Option<String> {
    let mut found = Vec::new();
    of_listener(config, i, &lists(config).collect(), &mut found);
    found.into_iter().next().map(|finding| finding.sentence)
}

/// The first rule that the routes of a listener break, by its index, with the route's number.
pub(in crate::config) fn broken_by_routes(config: &Config, i: usize) -> Option<String> {
    let listener = &config.listeners[i];
    let mut found = Vec::new();
    super::routes::find(config, &format!("listeners[{i}]"), listener, &mut found);
    if let Some(first) = found.into_iter().next() {
        return Some(first.of_item("routes", "route"));
    }
    super::loops::of_listener(config, i)
}

fn lists(config: &Config) -> impl Iterator<Item = &str> {
    config.access_lists.iter().map(|list| &*list.name)
}

fn of_listener(config: &Config, i: usize, names: &HashSet<&str>, found: &mut Vec<Finding>) {
    let listener = &config.listeners[i];
    let limits = listener.source_limits.as_ref();
    let is_paced = listener.bandwidth.limits_sources();
    let at = |setting: &str| format!("listeners[{i}].{setting}");
    super::routes::find(config, &format!("listeners[{i}]"), listener, found);
    proxies(listener, &at, found);
    super::fleet::of_listener(config, i, found);
    let mut secured = listener.pools().map(|pool| &config.pools[pool]);
    if listener.postgres_tls == PostgresTls::Answer
        && listener.tls.is_none()
        && let Some(pool) = secured.find(|pool| pool.tls.is_some())
    {
        let sentence = format!(
            "postgres_tls: the pool `{}` speaks TLS with its backends already: leave out one of \
             them, or end the TLS of clients with the listener's `tls`",
            pool.name
        );
        found.push(Finding::at(at("postgres_tls"), sentence));
    }
    if listener.freebind && matches!(listener.bind, Address::Unix(_)) {
        let sentence = "freebind: a Unix socket is bound to a path: leave it out";
        found.push(Finding::at(at("freebind"), sentence).needing(at("bind")));
    }
    // Where proxies name them, clients have addresses.
    if matches!(listener.bind, Address::Unix(_)) && listener.accept_proxy.is_empty() {
        for (path, setting, is_set) in [
            ("access_list", "access_list", listener.access_list.is_some()),
            ("source_limits", "source_limits", limits.is_some()),
            ("ban", "ban", listener.ban.is_some()),
            ("bandwidth.source", "source", is_paced),
        ] {
            let sentence =
                format!("{setting}: clients of a Unix socket have no address: leave it out");
            let finding = Finding::at(at(path), sentence).needing(at("bind"));
            found.extend(is_set.then_some(finding));
        }
        return;
    }
    // With a limit of bandwidth they say what a source is.
    if limits.is_some_and(|its| its.connections.is_none() && its.rate.is_none()) && !is_paced {
        let sentence = "source_limits: expected `connections`, `rate` or both";
        found.push(Finding::at(at("source_limits"), sentence).needing(at("bind")));
    }
    if let Some(ban) = listener.ban.filter(|ban| ban.r#for > ban.up_to) {
        let longest = written(ban.up_to);
        let sentence = format!("expected `for` up to `up_to`, which is {longest}");
        let needs = format!("{}|{}", at("ban.up_to"), at("bind"));
        found.push(Finding::at(at("ban.for"), sentence).needing(needs));
    }
    let unknown = listener.access_list.as_deref();
    if let Some(name) = unknown.filter(|name| !names.contains(name)) {
        // No more than these are shown, and each hint compares with each list.
        let is_shown = found.len() < SHOWN_MAX;
        let hint = known(name, lists(config).filter(|_| is_shown));
        let sentence = format!("access_list: there is no access list called `{name}`{hint}");
        found.push(Finding::at(at("access_list"), sentence).needing("access_lists"));
    }
}

/// The rules of the peers that may name clients.
fn proxies(listener: &Listener, at: &impl Fn(&str) -> String, found: &mut Vec<Finding>) {
    let all = &listener.accept_proxy;
    if all.len() > PREFIXES_MAX {
        let count = all.len();
        let sentence = format!("{count} prefixes are too many: at most {PREFIXES_MAX}");
        found.push(Finding::at(at("accept_proxy"), sentence));
        return;
    }
    let is_unix = matches!(listener.bind, Address::Unix(_));
    for (i, one) in all.iter().enumerate() {
        let sentence = match (one, is_unix) {
            (ProxySource::Unix, false) => {
                "\"unix\" is for listeners of a Unix socket: write the addresses of the proxies"
            }
            (ProxySource::Network(_), true) => {
                "peers of a Unix socket have no address: write \"unix\""
            }
            _ => continue,
        };
        let finding = Finding::at(at(&format!("accept_proxy[{i}]")), sentence);
        found.push(finding.needing(at("bind")));
    }
    let names: Vec<_> = all.iter().map(ToString::to_string).collect();
    let names = names.iter().enumerate();
    let names = names.map(|(i, name)| (at(&format!("accept_proxy[{i}]")), &**name));
    unique(("listed twice:", ": leave one out"), names, found);
}
