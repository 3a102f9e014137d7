//! The laws: each limit as a division of what a load needs by what one of its unit has.

use serde::Serialize;

use super::report::{bits, decimal, grouped};
use super::{Costs, FleetLoad, MachineShape};
use crate::config::DESCRIPTORS_RESERVED;
use crate::control::capacity::{pipes, sessions_per_worker};
use crate::time::{SECOND, US};

/// A limit, and what the load needs of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Law {
    /// Its name.
    pub name: &'static str,
    /// The division with its numbers.
    pub formula: String,
    /// What it counts.
    pub unit: SizeUnit,
    /// How many the load takes, in all.
    pub count: u64,
    /// The part that the load uses of what all machines have, while the spare ones have failed; of
    /// addresses, of those that it takes.
    pub used: f64,
    #[serde(skip)]
    needs: u128,
    #[serde(skip)]
    each_has: u128,
}

/// What a law counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeUnit {
    /// Cores, each with a worker.
    Core,
    /// Machines.
    Machine,
    /// Addresses that connections to backends begin at.
    Address,
}

impl SizeUnit {
    /// The word for one.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Machine => "machine",
            Self::Address => "address",
        }
    }
}

impl Law {
    fn new(
        name: &'static str,
        unit: SizeUnit,
        (needs, each_has): (u128, u128),
        left: String,
    ) -> Self {
        let each_has = each_has.max(1);
        let count = u64::try_from(needs.div_ceil(each_has)).unwrap_or(u64::MAX);
        Self {
            name,
            formula: format!("{left} = {}", decimal(needs, each_has)),
            unit,
            count,
            used: 0.0,
            needs,
            each_has,
        }
    }

    /// Notes the part of `count` units that the load uses.
    pub(super) fn note_use(&mut self, count: u64) {
        self.used = part(self.needs, self.each_has.saturating_mul(count.into()));
    }
}

/// All of them.
pub(super) fn all(load: &FleetLoad, machine: &MachineShape, costs: &Costs) -> Vec<Law> {
    vec![
        cpu(load, machine, costs),
        descriptors(load, machine),
        network(load, machine),
        memory(load, machine, costs),
        ports(load, machine),
    ]
}

/// Nanoseconds of CPU in a second. A machine has pipes for so many streams; the others are copied.
fn cpu(load: &FleetLoad, machine: &MachineShape, costs: &Costs) -> Law {
    let times = |count: u64, cost: u64| u128::from(count) * u128::from(cost);
    let counts = [
        (load.rate, costs.connection_ns),
        (load.requests, costs.request_ns),
    ];
    let bytes = load.bandwidth / 8;
    let pipes = pipes(1, u32::MAX).into();
    let streams = load.streams.max(1);
    let spliced = streams.min(pipes);
    let copied = streams - spliced;
    let cost_of_streams = times(spliced, costs.spliced_us) + times(copied, costs.copied_us);
    let cost_of_bulk = cost_of_streams / u128::from(streams);
    let way = match copied {
        0 => "spliced",
        _ => "mixed",
    };
    let bulk = u128::from(bytes)
        .saturating_mul(cost_of_bulk)
        .saturating_mul(US.into())
        / GB;
    let needs = counts
        .iter()
        .fold(bulk, |sum, (count, cost)| sum + times(*count, *cost));
    let mut terms: Vec<_> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, cost)| {
            let cost = decimal((*cost).into(), US.into());
            format!("{}/s × {cost} µs", grouped(*count))
        })
        .collect();
    if bytes > 0 {
        let rate = decimal(bytes.into(), GB);
        let cost = decimal(cost_of_bulk, u128::from(SECOND / US));
        terms.push(format!("{rate} GB/s {way} × {cost} s/GB"));
    }
    let percent = machine.load_percent;
    let each_has = u128::from(SECOND) * u128::from(percent) / 100;
    let left = format!("({}) / {percent}%", or_none(&terms.join(" + ")));
    Law::new("cpu", SizeUnit::Core, (needs, each_has), left)
}

/// Sessions. A worker has a table of descriptors of its own.
fn descriptors(load: &FleetLoad, machine: &MachineShape) -> Law {
    let each_has = sessions_per_worker(machine.descriptors);
    let left = format!(
        "{} / (({} - {DESCRIPTORS_RESERVED}) / 2)",
        grouped(load.clients),
        grouped(machine.descriptors),
    );
    let ratio = (load.clients.into(), each_has.into());
    Law::new("descriptors", SizeUnit::Core, ratio, left)
}

/// Bits in a second. Each comes in once and goes out once, whichever its direction.
fn network(load: &FleetLoad, machine: &MachineShape) -> Law {
    let percent = machine.load_percent;
    let each_has = u128::from(machine.nic) * u128::from(percent) / 100;
    let left = format!(
        "{} / ({} × {percent}%)",
        bits(load.bandwidth),
        bits(machine.nic)
    );
    let ratio = (load.bandwidth.into(), each_has);
    Law::new("network", SizeUnit::Machine, ratio, left)
}

/// Bytes of idle sessions.
fn memory(load: &FleetLoad, machine: &MachineShape, costs: &Costs) -> Law {
    let needs = u128::from(load.clients) * u128::from(costs.memory_of_session());
    let left = format!(
        "{} × ({} B + 2 × {} B) / ({} GiB / 2)",
        grouped(load.clients),
        grouped(costs.session_bytes),
        grouped(costs.socket_bytes),
        decimal(machine.memory.into(), GIB),
    );
    let each_has = u128::from(machine.memory / 2);
    Law::new("memory", SizeUnit::Machine, (needs, each_has), left)
}

/// Local ports towards a backend. Each address and port of a backend has all ports.
fn ports(load: &FleetLoad, machine: &MachineShape) -> Law {
    let waiting = u128::from(load.rate) * u128::from(machine.time_wait_s);
    let held = u128::from(load.clients) + waiting;
    let needs = held.div_ceil(u128::from(load.backends.max(1)));
    let left = format!(
        "({} + {}/s × {} s) / {} backends / {}",
        grouped(load.clients),
        grouped(load.rate),
        machine.time_wait_s,
        grouped(load.backends),
        grouped(machine.ports),
    );
    Law::new(
        "ports",
        SizeUnit::Address,
        (needs, machine.ports.into()),
        left,
    )
}

fn or_none(terms: &str) -> &str {
    if terms.is_empty() { "0" } else { terms }
}

/// A part of a whole, as a figure.
fn part(needs: u128, has: u128) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits of a part are enough for a figure"
    )]
    let part = needs as f64 / has.max(1) as f64;
    part
}

const GB: u128 = 1_000 * 1_000 * 1_000;
const GIB: u128 = 1 << 30;
