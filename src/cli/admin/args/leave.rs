//! The arguments of `mahoraga leave`.

use std::time::Duration;

use clap::Args;

use super::ClientOptions;
use crate::config::values::{self, ValueError};

/// The arguments of `mahoraga leave`.
#[derive(Args, Clone, Debug)]
pub struct LeaveArgs {
    /// How long new clients are taken while the addresses of listeners stay on this machine
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = wait)]
    pub wait: Duration,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

fn wait(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::GRACE)
}

pub(super) const LEAVE_HELP: &str = "Examples:
  mahoraga leave
  mahoraga leave --wait 5s && systemctl restart mahoraga

/readyz refuses and track_file says 1, so that keepalived or a router sends new
clients to another balancer. They are taken until no address of a listener is
on this machine, or --wait is over; the command ends then. The process and its
sessions go on: `mahoraga join` takes new clients again. See docs/failover.md.";
