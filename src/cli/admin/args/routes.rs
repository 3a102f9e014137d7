//! Flags of `routes`, `set routes` and `set route`.

use std::path::PathBuf;

use clap::Args;

use super::{ChangeArgs, ClientOptions};
use crate::config::PoolWeight;

/// The arguments of `mahoraga routes`.
#[derive(Args, Clone, Debug)]
pub struct RoutesArgs {
    /// The listener
    pub listener: String,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga set routes`.
#[derive(Args, Clone, Debug)]
pub struct SetRoutesArgs {
    /// The listener
    pub listener: String,
    /// A file with all its routes, as `mahoraga routes` prints them; -: standard input
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Which routes they replace, and when.
    #[command(flatten)]
    pub expected: ExpectedVersion,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The arguments of `mahoraga set route`.
#[derive(Args, Clone, Debug)]
pub struct SetRouteArgs {
    /// The listener
    pub listener: String,
    /// The route: its name, or its number in the listener, from 1 on
    pub route: String,
    /// Pools of the route with their new weights, 0 to 1000; the others keep theirs
    #[arg(value_name = "POOL=N", required = true)]
    pub pools: Vec<PoolWeight>,
    /// Which routes it is one of.
    #[command(flatten)]
    pub expected: ExpectedVersion,
    /// How to make the change.
    #[command(flatten)]
    pub how: ChangeArgs,
}

/// The version that the routes must have now.
#[derive(Args, Clone, Debug)]
pub struct ExpectedVersion {
    /// Only if the routes have this version still, which `mahoraga routes` prints
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<String>,
}
