//! Warnings about settings that cause harm while backends fail and return.

use super::Finding;
use crate::address::Address;
use crate::config::{Config, OnDown, Pool, rules, values};
use crate::wording::plural;

pub(super) fn pool(i: usize, pool: &Pool, found: &mut Vec<Finding>) {
    if let Some(check) = &pool.check {
        let interval = check.shortest_interval();
        let backends = pool.backends.len();
        // Whole numbers come near enough.
        let probes = (backends as u128).saturating_mul(1000) / interval.as_millis().max(1);
        if probes > PROBES_MAX {
            let interval = values::written(interval);
            let sentence = format!(
                "{}, each probed every {interval}, are {probes} probes a second",
                plural(backends as u64, "backend")
            );
            found.push(Finding::at(format!("pools[{i}].check.interval"), sentence));
        }
    } else if pool.ejection.is_none() {
        let nothing = "without check and ejection no backend goes down";
        if pool.slow_start.is_some() {
            let sentence = format!("slow_start does nothing: {nothing}, and none returns");
            found.push(Finding::at(format!("pools[{i}].slow_start"), sentence));
        }
        if pool.on_down != OnDown::Keep {
            let sentence = format!("on_down does nothing: {nothing}");
            found.push(Finding::at(format!("pools[{i}].on_down"), sentence));
        }
    }
}

/// Source addresses that no backend can be connected to from.
pub(super) fn origins(i: usize, pool: &Pool, found: &mut Vec<Finding>) {
    // Only the DNS knows where names lead to.
    let names = pool.backends.iter().any(|backend| backend.host.is_some());
    if pool.discovery.is_some() || names {
        return;
    }
    let mut wanted = pool.backends.iter().map(|backend| &backend.address);
    for (n, own) in pool.origins.addresses.iter().enumerate() {
        let fits = |to: &Address| match to {
            Address::Tcp(to) => to.is_ipv4() == own.is_ipv4(),
            Address::Unix(_) => false,
        };
        if !wanted.clone().any(fits) {
            let family = if own.is_ipv4() { "IPv4" } else { "IPv6" };
            let sentence = format!("source: no backend of the pool is at an {family} address");
            found.push(Finding::at(format!("pools[{i}].source[{n}]"), sentence));
        }
    }
    if pool.origins.at_client && wanted.clone().all(|to| matches!(to, Address::Unix(_))) {
        let sentence = "source: no backend of the pool sees an address: all are Unix sockets";
        found.push(Finding::at(format!("pools[{i}].source"), sentence));
    }
    if pool.origins.ports.is_some() && wanted.all(|to| matches!(to, Address::Unix(_))) {
        let sentence = "source_ports does nothing: every backend is a Unix socket";
        found.push(Finding::at(format!("pools[{i}].source_ports"), sentence));
    }
}

/// Backends whose addresses this machine has now.
pub(super) fn loops(config: &Config, found: &mut Vec<Finding>) {
    for (at, sentence) in rules::loops_by_machine(config) {
        let sentence = format!("{sentence}; it is left out while this machine has its address");
        found.push(Finding::at(at, sentence));
    }
}

/// The most probes a second of one pool without a warning.
const PROBES_MAX: u128 = 1000;
