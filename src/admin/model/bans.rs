//! Bans, as they go over the wire.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::guard::BannedBy;
use crate::prefix::Prefix;

/// A network whose clients are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BanStatus {
    /// The address or the prefix.
    #[schemars(with = "String")]
    pub prefix: Prefix,
    /// Who banned it.
    pub by: BannedBy,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Since when (RFC 3339).
    pub since: String,
    /// Until when (RFC 3339); `null`: until it is lifted.
    #[serde(default)]
    pub until: Option<String>,
    /// How long it still holds, in seconds; `null`: until it is lifted.
    #[serde(default)]
    pub left_s: Option<f64>,
    /// Clients that it refused.
    #[serde(default)]
    pub hits: u64,
}

/// The answer to a ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Banned {
    /// The ban in force.
    #[serde(flatten)]
    pub ban: BanStatus,
    /// Whether it replaces a ban of the same network.
    #[serde(default)]
    pub replaced: bool,
    /// What it does not do, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The answer to a lifted ban.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lifted {
    /// The ban that was in force.
    #[serde(flatten)]
    pub ban: BanStatus,
    /// What bans its clients all the same, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Selects bans to be lifted: every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UnbanFilter {
    /// Only those within this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub within: Option<Prefix>,
    /// Only those by an operator (`hand`), or by a rule (`rule`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<BannedBy>,
    /// All of them: it goes with no other field.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// The answer to lifted bans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiftedBans {
    /// The number of bans that were lifted.
    pub bans: u64,
    /// What bans clients all the same, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The watched file of bans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BanImportStatus {
    /// Its path.
    pub file: String,
    /// Networks that it has.
    pub networks: u64,
    /// Networks of it that are not banned, as they are trusted.
    pub trusted: u64,
    /// Networks of it that are not banned, as the table is full.
    pub no_room: u64,
    /// What is wrong with it now; then the last good one is in force.
    pub error: Option<String>,
}

/// The ban table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BansStatus {
    /// How many bans there are.
    pub count: u32,
    /// How many there may be.
    pub max: u32,
    /// Clients that were refused as they are banned.
    pub hits: u64,
    /// The watched file of bans; `null`: none is imported.
    #[serde(default)]
    pub import: Option<BanImportStatus>,
}

/// What drops banned clients that keep knocking before they are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SynFilterStatus {
    /// How it is done.
    pub means: SynFilterMeans,
    /// Banned networks whose clients are dropped now.
    pub networks: u64,
    /// First segments (SYN) that were dropped since the start; `null`: they are not counted.
    pub dropped: Option<u64>,
    /// Why it is not done in a better way.
    pub why: Option<String>,
}

/// How banned clients are dropped before they are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SynFilterMeans {
    /// By a program with maps of networks, which counts.
    Ebpf,
    /// By a program that compares with some hundred networks, and does not count.
    Classic,
    /// Not at all: they are accepted and reset.
    #[default]
    None,
}

/// Selects bans: every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BanFilter {
    /// Only those that this address is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub client: Option<IpAddr>,
    /// Only those within this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub within: Option<Prefix>,
    /// Only those by an operator (`hand`), by a rule (`rule`), of the watched file (`file`), of the
    /// fleet (`fleet`), or of other balancers (`peer`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<BannedBy>,
    /// Their order.
    #[serde(skip_serializing_if = "BanOrder::is_default")]
    pub sort: BanOrder,
    /// The most bans that are listed: 1,000,000 at most, 1,000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The order of bans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BanOrder {
    /// By prefix.
    #[default]
    Prefix,
    /// The newest first.
    Since,
    /// The first to end first.
    Until,
    /// Those that refused most clients first.
    Hits,
}

impl BanOrder {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("prefix", Self::Prefix),
        ("since", Self::Since),
        ("until", Self::Until),
        ("hits", Self::Hits),
    ];

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Bans that are listed without a limit.
pub const BANS: u32 = 1_000;
/// Bans that are listed at most.
pub const BANS_MAX: u32 = 1_000_000;
