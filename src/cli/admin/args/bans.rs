//! The arguments of the commands about bans.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{ClientOptions, client};
use crate::admin::model::{BANS_MAX, BanOrder, BannedBy};
use crate::cli::args::ban_time;
use crate::config::values::{self, ValueError};
use crate::prefix::Prefix;

/// The arguments of `mahoraga bans`.
#[derive(Args, Clone, Debug)]
pub struct BansArgs {
    /// Only those that this address is in
    #[arg(long, value_name = "IP", value_parser = client)]
    pub client: Option<IpAddr>,
    /// Only those within this prefix
    #[arg(long, value_name = "CIDR", value_parser = values::prefix)]
    pub within: Option<Prefix>,
    /// Only those by an operator (hand), by a rule (rule), or of the watched file (file)
    #[arg(long, value_name = "WHO", value_parser = banned_by)]
    pub by: Option<BannedBy>,
    /// Sort by prefix, since, until or hits [default: prefix]
    #[arg(long, value_name = "BY", value_parser = ban_order)]
    pub sort: Option<BanOrder>,
    /// Show at most N, up to 1000000 [default: 1000]
    #[arg(long, value_name = "N", value_parser = ban_limit)]
    pub limit: Option<u32>,
    /// Print lines for `mahoraga ban --from` and for other programs: PREFIX # until TIME reason
    #[arg(long, conflicts_with = "json")]
    pub export: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

fn banned_by(text: &str) -> Result<BannedBy, ValueError> {
    values::named("origin of bans", text, &BannedBy::ALL)
}

/// Whose bans can be lifted together.
fn lifted_by(text: &str) -> Result<BannedBy, ValueError> {
    if text == BannedBy::File.as_str() {
        let why = "bans of the watched file end when its lines are taken out";
        return Err(ValueError::Refused(why.to_owned()));
    }
    if text == BannedBy::Fleet.as_str() {
        let why = "bans of the fleet end when their keys are deleted in etcd";
        return Err(ValueError::Refused(why.to_owned()));
    }
    if text == BannedBy::Peer.as_str() {
        let why = "bans of peers are lifted by their networks: name those";
        return Err(ValueError::Refused(why.to_owned()));
    }
    let all = BannedBy::ALL;
    let all: Vec<_> = all.into_iter().filter(|(_, by)| !by.is_listed()).collect();
    values::named("origin of bans", text, &all)
}

fn ban_order(text: &str) -> Result<BanOrder, ValueError> {
    values::named("order", text, &BanOrder::ALL)
}

fn ban_limit(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=BANS_MAX)
}

/// The arguments of `mahoraga ban`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("banned").args(["prefixes", "from"]).required(true).multiple(true))]
pub struct BanArgs {
    /// Addresses or prefixes, such as 192.0.2.7 or 198.51.100.0/24
    #[arg(value_name = "CIDR", value_parser = values::prefix)]
    pub prefixes: Vec<Prefix>,
    /// Also those of this file (- for standard input): one on a line; a comment after # or ; is its
    /// reason, or `until TIME reason`
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// How long, such as 10m [default: as the file says, or until it is lifted]
    #[arg(long = "for", value_name = "DURATION", value_parser = ban_time)]
    pub time: Option<Duration>,
    /// Why, in up to 200 characters [default: as the file says]
    #[arg(long, value_name = "TEXT", value_parser = values::reason)]
    pub reason: Option<String>,
    /// Ban also a prefix shorter than /8 of IPv4, or than /19 of IPv6
    #[arg(long)]
    pub force: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}

/// The arguments of `mahoraga unban`.
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("lifted")
        .args(["prefixes", "within", "by", "all"])
        .required(true)
        .multiple(true)
)]
pub struct UnbanArgs {
    /// The addresses or prefixes of bans
    #[arg(
        value_name = "CIDR",
        conflicts_with_all = ["within", "by", "all"],
        value_parser = values::prefix
    )]
    pub prefixes: Vec<Prefix>,
    /// All that are within this prefix
    #[arg(long, value_name = "CIDR", value_parser = values::prefix)]
    pub within: Option<Prefix>,
    /// All by an operator (hand), or by a rule (rule)
    #[arg(long, value_name = "WHO", value_parser = lifted_by)]
    pub by: Option<BannedBy>,
    /// All of them
    #[arg(long, conflicts_with_all = ["within", "by"])]
    pub all: bool,
    /// How to reach the balancer.
    #[command(flatten)]
    pub options: ClientOptions,
}
