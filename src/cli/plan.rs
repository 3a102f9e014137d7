//! `mahoraga plan`: how many cores and machines a load takes.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::config::values::{self, ValueError};
use crate::sizing::{self, Costs, FleetLoad, MachineShape};

/// The flags of `mahoraga plan`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("demand").required(true).multiple(true))]
pub struct PlanArgs {
    /// Clients that are connected at a time, such as 1M.
    #[arg(long, value_name = "N", group = "demand", value_parser = load)]
    pub clients: Option<u64>,
    /// New connections in a second, each with a small request.
    #[arg(long, value_name = "N", group = "demand", value_parser = load)]
    pub rate: Option<u64>,
    /// Small requests in a second over connections that are open.
    #[arg(long, value_name = "N", group = "demand", value_parser = load)]
    pub requests: Option<u64>,
    /// Bits in a second, of both directions together, such as 20G.
    #[arg(long, value_name = "BITS", group = "demand", value_parser = bits)]
    pub bandwidth: Option<u64>,
    /// Clients that move these bits at a time: 64 are spliced, others copied [default: --clients].
    #[arg(long, value_name = "N", requires = "bandwidth", value_parser = load)]
    pub streams: Option<u64>,
    /// Addresses and ports of backends.
    #[arg(long, value_name = "N", value_parser = backends)]
    pub backends: u64,
    /// Cores of a machine, each with a worker.
    #[arg(long, value_name = "N", default_value = "16", value_parser = cores)]
    pub cores: u64,
    /// Bits in a second that the network of a machine takes, each way.
    #[arg(long, value_name = "BITS", default_value = "25G", value_parser = bits)]
    pub nic: u64,
    /// Memory of a machine; idle sessions get half of it.
    #[arg(long, value_name = "SIZE", default_value = "64GiB", value_parser = values::memory_amount)]
    pub memory: u64,
    /// The limit of descriptors, which counts for each worker (LimitNOFILE, fs.nr_open).
    #[arg(long, value_name = "N", default_value = "1048576", value_parser = descriptors)]
    pub descriptors: u64,
    /// Local ports of an address (net.ipv4.ip_local_port_range).
    #[arg(long, value_name = "N", default_value = "28232", value_parser = ports)]
    pub ports: u64,
    /// How long a port stays in use after its connection; 1s with net.ipv4.tcp_tw_reuse=1.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time_wait)]
    pub time_wait: Duration,
    /// How much of CPU and network may be used, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "70", value_parser = percent)]
    pub load: u64,
    /// Machines that may fail.
    #[arg(long, value_name = "N", default_value = "1", value_parser = spare)]
    pub spare: u64,
    /// Write JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Prints the size of the fleet.
#[must_use]
pub(super) fn plan(args: &PlanArgs) -> ExitCode {
    let streams = args.streams.or(args.clients);
    if args.bandwidth.is_some() && streams.is_none() {
        return super::refuse(&format_args!(
            "error: --bandwidth: expected --clients or --streams beside it, as more than 64 \
             streams cost several times the CPU"
        ));
    }
    let costs = match Costs::measured() {
        Ok(costs) => costs,
        Err(error) => {
            super::say_error(&format_args!("cannot read loadtest/capacity.tsv: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let demand = FleetLoad {
        clients: args.clients.unwrap_or(0),
        rate: args.rate.unwrap_or(0),
        requests: args.requests.unwrap_or(0),
        bandwidth: args.bandwidth.unwrap_or(0),
        streams: streams.unwrap_or(0),
        backends: args.backends,
    };
    let machine = MachineShape {
        cores: args.cores,
        nic: args.nic,
        memory: args.memory,
        descriptors: args.descriptors,
        ports: args.ports,
        time_wait_s: args.time_wait.as_secs(),
        load_percent: args.load,
        spare: args.spare,
    };
    let sizing = sizing::size(demand, machine, costs);
    let text = match args.json {
        true => sizing::json(&sizing),
        false => sizing::table(&sizing),
    };
    // A reader that closed standard output does not need the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// A value parser for each range of counts.
macro_rules! counts {
    ($($name:ident = $range:expr;)*) => {
        $(fn $name(text: &str) -> Result<u64, ValueError> {
            const RANGE: RangeInclusive<u64> = $range;
            values::count(text, RANGE)
        })*
    };
}

counts! {
    load = 1..=1_000 * 1_000_000;
    bits = 1..=1_000 * 1_000_000 * 1_000_000;
    backends = 1..=65_536;
    cores = 1..=1_024;
    descriptors = 1_024..=1 << 30;
    ports = 1..=64_511;
    percent = 1..=100;
    spare = 0..=1_000;
}

fn time_wait(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::TIME_WAIT)
}

/// Shown by `-h` and `--help`.
pub(super) const AFTER_HELP: &str = "Examples:
  mahoraga plan --clients 1M --rate 50k --bandwidth 20G --backends 40
  mahoraga plan --requests 500k --backends 10 --cores 8 --nic 10G --json

The costs of a worker are measured, on the machine that the answer names: yours
has others, which loadtest/capacity.sh measures. The answer is a beginning, for
a load that spreads evenly. TLS passes through, so it costs nothing here.

What the limits are, and what one machine carries: docs/scaling.md";
