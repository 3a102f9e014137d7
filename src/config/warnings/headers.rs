//! Warnings about parts of PROXY headers that no client of the pool has.

use super::Finding;
use crate::config::{BackendHeader, Config, HeaderPart, Listener, SendProxy};

pub(super) fn find(config: &Config, i: usize, found: &mut Vec<Finding>) {
    let users = config.listeners.iter();
    let users: Vec<_> = users
        .filter(|one| one.pools().any(|pool| pool == i))
        .collect();
    // A pool that no listener uses has a warning of its own.
    if users.is_empty() {
        return;
    }
    let pool = &config.pools[i];
    let of_pool = pool
        .send_proxy
        .iter()
        .map(|its| (format!("pools[{i}]"), its));
    let own = pool.backends.iter().enumerate();
    let own = own.filter_map(|(j, backend)| match &backend.send_proxy {
        BackendHeader::Own(header) => Some((format!("pools[{i}].backends[{j}]"), header)),
        BackendHeader::OfPool | BackendHeader::Off => None,
    });
    for (at, header) in of_pool.chain(own) {
        for (setting, sentence) in lacking(header, &users, &pool.name) {
            found.push(Finding::at(format!("{at}.send_proxy.{setting}"), sentence));
        }
    }
}

/// What no header ever says, each with the setting that asks for it.
fn lacking(header: &SendProxy, users: &[&Listener], pool: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if header.says(HeaderPart::Ssl) && users.iter().all(|one| one.tls.is_none()) {
        let sentence =
            format!("tlvs: \"ssl\" says nothing: no listener that leads to `{pool}` has `tls`");
        found.push(("tlvs", sentence));
    }
    if header.relay && users.iter().all(|one| one.accept_proxy.is_empty()) {
        let sentence = format!(
            "relay: there is nothing to pass on: no listener that leads to `{pool}` has \
             `accept_proxy`"
        );
        found.push(("relay", sentence));
    }
    found
}
