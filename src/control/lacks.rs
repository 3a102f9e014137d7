//! What this machine lacks: descriptors, memory, local ports. Workers only count it, as a line can
//! wait for whoever reads it; it is reported once per second at most, with the remedy.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::model::EventKind;
use crate::snapshot::Snapshot;
use crate::worker::Stats;

use super::balancer::Key;
use super::events::{Events, Subject, Weight};

/// What was lacking recently.
#[derive(Default)]
pub(super) struct Lacks {
    /// Failures for want of descriptors or memory so far.
    resources: u64,
    /// What is lacking now, as sentences: of the last second in which something was.
    now: Vec<String>,
    /// Backends that no local port was free towards.
    ports: BTreeMap<Key, Ports>,
}

/// Connects to one backend that found no local port.
#[derive(Default)]
struct Ports {
    /// So far.
    count: u64,
    /// Seconds until it counts as over.
    left: u32,
}

impl Lacks {
    /// Looks at what was counted since the last second, and reports it.
    pub(super) fn report(&mut self, stats: &[Arc<Stats>], snapshot: &Snapshot, events: &Events) {
        self.now.clear();
        let count = |stats: &Arc<Stats>| stats.accept_exhausted.get();
        let resources: u64 = stats.iter().map(count).sum();
        let times = resources - std::mem::replace(&mut self.resources, resources);
        if times > 0 {
            let lack = format!(
                "out of descriptors or memory: accepting pauses ({times} times since the last \
                 line); raise `ulimit -n` or lower max_connections"
            );
            log::warn!("{lack}");
            self.now.push(lack);
        }
        self.report_ports(snapshot, events);
    }

    fn report_ports(&mut self, snapshot: &Snapshot, events: &Events) {
        let mut lacking = Vec::new();
        let mut before = std::mem::take(&mut self.ports);
        for pool in snapshot.pools.iter().map(|plan| plan.pool()) {
            for backend in &pool.backends {
                let count = backend.tally.portless();
                if count == 0 {
                    continue;
                }
                let key = (pool.name.clone(), backend.name.clone());
                let mut ports = before.remove(&key).unwrap_or_default();
                // A backend that left and came back counts from 0 again.
                let more = count.saturating_sub(ports.count.min(count));
                ports.count = count;
                if more > 0 {
                    lacking.push((key.clone(), more, ports.left == 0));
                    ports.left = QUIET_SECONDS;
                } else {
                    ports.left = ports.left.saturating_sub(1);
                }
                self.ports.insert(key, ports);
            }
        }
        let Some(((pool, backend), ..)) = lacking.first() else {
            return;
        };
        let times: u64 = lacking.iter().map(|(_, more, _)| more).sum();
        let others = match lacking.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        let lack = format!(
            "no free local port to backend `{backend}` of pool `{pool}`{others} ({times} times in \
             the last second): {REMEDY}"
        );
        log::warn!("{lack}");
        self.now.push(lack);
        for ((pool, backend), _, begins) in &lacking {
            if *begins {
                let message =
                    format!("no free local port to backend `{backend}` of pool `{pool}`: {REMEDY}");
                let about = Subject::backend(pool, backend);
                events.tell(Weight::Quiet, EventKind::NoLocalPort, about, message);
            }
        }
    }

    /// What is lacking now, a sentence each.
    pub(super) fn now(&self) -> &[String] {
        &self.now
    }
}

/// What helps when local ports run out.
const REMEDY: &str = "name more `source` addresses in the pool, or widen \
                      net.ipv4.ip_local_port_range (and source_ports)";
/// A lack that lasted no second of so many is over: the next one is an event again.
const QUIET_SECONDS: u32 = 10;
