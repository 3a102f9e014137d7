//! How many cores, machines, addresses and descriptors a load takes, and which limit binds first.
//!
//! Pure arithmetic over what one worker was measured to cost ([`Costs`]). Each limit is a
//! [`Law`]: what the load needs, what one core, machine or address has, and so how many of them it
//! takes. No law knows of another one.

#![forbid(unsafe_code)]

mod costs;
mod laws;
mod report;

use serde::Serialize;

use crate::config::DESCRIPTORS_RESERVED;

pub use costs::{Costs, CostsError};
pub use laws::{Law, SizeUnit};
pub use report::{json, table};

/// What a fleet of balancers is to carry; 0 is none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FleetLoad {
    /// Clients that are connected at a time.
    pub clients: u64,
    /// New connections in a second, each with a small request.
    pub rate: u64,
    /// Small requests in a second over connections that are open.
    pub requests: u64,
    /// Bits in a second, of both directions together.
    pub bandwidth: u64,
    /// Clients that move these bits at a time: few have theirs spliced, others copied.
    pub streams: u64,
    /// Addresses and ports of backends.
    pub backends: u64,
}

/// A machine of the fleet, and how far it may be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MachineShape {
    /// Cores, each with a worker.
    pub cores: u64,
    /// Bits in a second that its network takes, each way.
    pub nic: u64,
    /// Bytes of memory. Idle sessions get half of them: the rest is for bytes under way.
    pub memory: u64,
    /// The limit of descriptors, which counts for each worker.
    pub descriptors: u64,
    /// Local ports of an address.
    pub ports: u64,
    /// Seconds for which a port stays in use after its connection.
    pub time_wait_s: u64,
    /// How much of CPU and network may be used, in percent.
    pub load_percent: u64,
    /// Machines that may fail.
    pub spare: u64,
}

/// What a load takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sizing {
    /// The load.
    pub demand: FleetLoad,
    /// The machines.
    pub machine: MachineShape,
    /// What the costs of the laws are.
    pub costs: Costs,
    /// Machines in all.
    pub machines: u64,
    /// Machines that carry the load while the spare ones have failed.
    pub working: u64,
    /// Cores of each.
    pub cores: u64,
    /// Addresses of each that connections to backends begin at.
    pub addresses: u64,
    /// Sessions of each worker.
    pub sessions: u64,
    /// Descriptors of each worker.
    pub descriptors: u64,
    /// The name of the law of cores and machines that is used most: as the load grows it binds
    /// first.
    pub binds_first: &'static str,
    /// The laws.
    pub laws: Vec<Law>,
}

/// The size of a fleet of such machines for this load.
///
/// The load is taken to spread evenly. Sums and products stop at the largest number, so any input
/// has an answer.
#[must_use]
pub fn size(demand: FleetLoad, machine: MachineShape, costs: Costs) -> Sizing {
    let mut laws = laws::all(&demand, &machine, &costs);
    let most = |unit| {
        let counts = laws.iter().filter(|law| law.unit == unit);
        counts.map(|law| law.count).max().unwrap_or(0).max(1)
    };
    let cores_in_all = most(SizeUnit::Core);
    let working = most(SizeUnit::Machine).max(cores_in_all.div_ceil(machine.cores.max(1)));
    let cores = cores_in_all.div_ceil(working);
    let addresses = most(SizeUnit::Address).div_ceil(working);
    for law in &mut laws {
        law.note_use(match law.unit {
            SizeUnit::Core => working.saturating_mul(machine.cores),
            SizeUnit::Machine => working,
            SizeUnit::Address => working.saturating_mul(addresses),
        });
    }
    // Addresses can be added. Of equals the first one.
    let first = laws
        .iter()
        .rev()
        .filter(|law| law.unit != SizeUnit::Address);
    let first = first.max_by(|one, other| one.used.total_cmp(&other.used));
    let sessions = demand.clients.div_ceil(working.saturating_mul(cores));
    Sizing {
        machines: working.saturating_add(machine.spare),
        working,
        cores,
        addresses,
        sessions,
        descriptors: sessions
            .saturating_mul(costs.session_descriptors)
            .saturating_add(DESCRIPTORS_RESERVED),
        binds_first: first.map_or("", |law| law.name),
        demand,
        machine,
        costs,
        laws,
    }
}

#[cfg(test)]
mod tests;
