//! Reports shortages: of descriptors, memory, local ports or source addresses. Workers only count
//! them, because to write a log line may block. They are reported once per second at most, with the
//! remedy.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;

use crate::admin::model::EventKind;
use crate::origin::Origins;
use crate::snapshot::Snapshot;
use crate::sys;
use crate::wording::plural;
use crate::worker::Stats;

use super::events::{Events, Severity, Subject};
use super::roster::Roster;

/// The shortages of the last second.
#[derive(Default)]
pub(super) struct Shortages {
    /// Failures so far because of too few descriptors or too little memory.
    resources: u64,
    /// Connects for which no local port was free, to any backend.
    ports: PortShortage,
    /// Connects so far from a source address that this machine does not have.
    sourceless: u64,
    /// The source addresses that it does not have.
    missing: Vec<IpAddr>,
    /// The present shortages, a sentence each.
    now: Vec<String>,
}

/// Connects to one backend for which no local port was free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PortShortage {
    /// So far.
    count: u64,
    /// Seconds until the shortage counts as over.
    left: u32,
}

impl Shortages {
    /// Reports what was counted in the last second.
    pub(super) fn report(
        &mut self,
        stats: &[Arc<Stats>],
        snapshot: &Snapshot,
        roster: &mut Roster,
        events: &Events,
    ) {
        self.now.clear();
        let count = |stats: &Arc<Stats>| stats.accept_exhausted.get();
        let resources: u64 = stats.iter().map(count).sum();
        let times = resources - std::mem::replace(&mut self.resources, resources);
        if times > 0 {
            let lack = format!(
                "out of descriptors or memory: accepting pauses ({} since the last line); raise \
                 `ulimit -n` or lower max_connections",
                plural(times, "time")
            );
            log::warn!("{lack}");
            self.now.push(lack);
        }
        let count = |stats: &Arc<Stats>| stats.ports_exhausted.get();
        let lasts = self.ports.left > 0;
        let more = self.ports.tick(stats.iter().map(count).sum());
        // Workers count it before they count it for the backend.
        if lasts || more > 0 {
            self.report_ports(snapshot, roster, events);
        }
        let count = |stats: &Arc<Stats>| stats.sources_missing.get();
        let sourceless = stats.iter().map(count).sum();
        let more = std::mem::replace(&mut self.sourceless, sourceless) != sourceless;
        if more || !self.missing.is_empty() {
            self.report_sources(more, roster, events);
        }
    }

    /// Names each source address that this machine does not have, once, until it is back. With
    /// `any`, another one may be missing than was known.
    fn report_sources(&mut self, any: bool, roster: &Roster, events: &Events) {
        let mut pools: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for record in &roster.pools {
            for address in &record.config.origins.addresses {
                if any || self.missing.contains(address) {
                    pools.entry(*address).or_default().push(&record.config.name);
                }
            }
        }
        let named: Vec<_> = pools.keys().copied().collect();
        pools.retain(|address, _| is_missing(*address));
        for address in &self.missing {
            // One that no pool names any more is as missing as before.
            if named.contains(address) && !pools.contains_key(address) {
                log::info!("source address {address} is no longer missing");
            }
        }
        for (address, pools) in &pools {
            let (pool, others) = (pools[0], and_more(pools.len() - 1));
            let lack = format!(
                "this machine does not have source address {address} of pool `{pool}`{others}: \
                 add it, or remove it from `source`; connections begin at other sources or wait"
            );
            if !self.missing.contains(address) {
                let about = Subject::pool(pool);
                let kind = EventKind::NoSourceAddress;
                events.tell_one_of_many(Severity::Warn, kind, about, lack.clone());
            }
            self.now.push(lack);
        }
        self.missing = pools.into_keys().collect();
    }

    fn report_ports(&mut self, snapshot: &Snapshot, roster: &mut Roster, events: &Events) {
        let mut lacking = Vec::new();
        for (plan, record) in snapshot.pools.iter().zip(&mut roster.pools) {
            let pool = plan.pool();
            for (backend, member) in pool.backends.iter().zip(&mut record.members) {
                let begins = member.ports.left == 0;
                let more = member.ports.tick(backend.tally.portless());
                if more > 0 {
                    let remedy = remedy(&backend.origins);
                    lacking.push(((&*pool.name, &*backend.name, remedy), more, begins));
                }
            }
        }
        let Some(((pool, backend, remedy), ..)) = lacking.first() else {
            return;
        };
        let times: u64 = lacking.iter().map(|(_, more, _)| more).sum();
        let others = and_more(lacking.len() - 1);
        let lack = format!(
            "no free local port to backend `{backend}` of pool `{pool}`{others} ({} in the last \
             second): {remedy}",
            plural(times, "time")
        );
        log::warn!("{lack}");
        self.now.push(lack);
        for ((pool, backend, remedy), _, begins) in &lacking {
            if *begins {
                let message =
                    format!("no free local port to backend `{backend}` of pool `{pool}`: {remedy}");
                let about = Subject::backend(pool, backend);
                events.tell_one_of_many(Severity::Quiet, EventKind::NoLocalPort, about, message);
            }
        }
    }

    /// The present shortages, a sentence each.
    pub(super) fn now(&self) -> &[String] {
        &self.now
    }
}

impl PortShortage {
    /// Begins at this count.
    pub(super) fn since(count: u64) -> Self {
        Self { count, left: 0 }
    }

    /// To be called each second with the present count; answers with the increase.
    fn tick(&mut self, count: u64) -> u64 {
        let more = count - self.count.min(count);
        self.count = count;
        self.left = if more > 0 {
            QUIET_SECONDS
        } else {
            self.left.saturating_sub(1)
        };
        more
    }
}

fn is_missing(address: IpAddr) -> bool {
    let probed = sys::probe_address(address).map_err(|error| error.kind());
    probed == Err(ErrorKind::AddrNotAvailable)
}

fn and_more(others: usize) -> String {
    match others {
        0 => String::new(),
        others => format!(" and {others} more"),
    }
}

/// What helps when local ports run out.
fn remedy(origins: &Origins) -> &'static str {
    match origins.at_client {
        true => OF_CLIENT,
        false => OF_MACHINE,
    }
}

const OF_CLIENT: &str = "a client has used up those of its own address: limit its connections by \
                         source_limits, or widen net.ipv4.ip_local_port_range (and source_ports)";
const OF_MACHINE: &str = "name more `source` addresses in the pool, or widen \
                      net.ipv4.ip_local_port_range (and source_ports)";
/// After so many seconds without it a shortage is over, and the next one is an event again.
const QUIET_SECONDS: u32 = 10;
