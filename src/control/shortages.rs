//! Reports what this machine lacks: descriptors, memory, local ports. Workers only count it,
//! because writing a line may wait. It is reported once per second at most, with the remedy.

use std::sync::Arc;

use crate::admin::model::EventKind;
use crate::snapshot::Snapshot;
use crate::worker::Stats;

use super::events::{Events, Subject, Weight};
use super::roster::Roster;

/// What was lacking recently.
#[derive(Default)]
pub(super) struct Shortages {
    /// Failures for want of descriptors or memory so far.
    resources: u64,
    /// What is lacking now, as sentences: of the last second in which something was.
    now: Vec<String>,
}

/// Connects to one backend that found no local port.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ports {
    /// So far.
    count: u64,
    /// Seconds until it counts as over.
    left: u32,
}

impl Shortages {
    /// Looks at what was counted since the last second, and reports it.
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
                "out of descriptors or memory: accepting pauses ({times} times since the last \
                 line); raise `ulimit -n` or lower max_connections"
            );
            log::warn!("{lack}");
            self.now.push(lack);
        }
        self.report_ports(snapshot, roster, events);
    }

    fn report_ports(&mut self, snapshot: &Snapshot, roster: &mut Roster, events: &Events) {
        let mut lacking = Vec::new();
        for (plan, record) in snapshot.pools.iter().zip(&mut roster.pools) {
            let pool = plan.pool();
            for (backend, member) in pool.backends.iter().zip(&mut record.members) {
                let begins = member.ports.left == 0;
                let more = member.ports.tick(backend.tally.portless());
                if more > 0 {
                    lacking.push(((&*pool.name, &*backend.name), more, begins));
                }
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

impl Ports {
    /// So many connects had found none before it is looked at.
    pub(super) fn since(count: u64) -> Self {
        Self { count, left: 0 }
    }

    /// A second has passed, and so many connects found no port so far: how many more.
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

/// What helps when local ports run out.
const REMEDY: &str = "name more `source` addresses in the pool, or widen \
                      net.ipv4.ip_local_port_range (and source_ports)";
/// A lack that lasted no second of so many is over: the next one is an event again.
const QUIET_SECONDS: u32 = 10;
