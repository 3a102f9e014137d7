//! Access lists, as they go over the wire.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An access list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessListStatus {
    /// Its name.
    pub name: String,
    /// How many prefixes it has, those of its file included.
    pub prefixes: u64,
    /// What holds for addresses in none of them: `allow` or `deny`.
    pub others: String,
    /// Clients that it refused since it is there, for all listeners. In a dry run: those that it
    /// would have refused.
    #[serde(default)]
    pub refused: u64,
    /// Whether it only counts and reports the clients that it would refuse.
    #[serde(default)]
    pub dry_run: bool,
    /// The file with more of its prefixes.
    #[serde(default)]
    pub file: Option<String>,
    /// What is wrong with its file: the last good prefixes are in force.
    #[serde(default)]
    pub error: Option<String>,
}

/// An access list with its prefixes, but for those of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessListDetail {
    /// The list.
    #[serde(flatten)]
    pub list: AccessListStatus,
    /// Prefixes whose clients may connect.
    pub allow: Vec<String>,
    /// Prefixes whose clients are refused.
    pub deny: Vec<String>,
    /// What it says of the client that was asked about.
    #[serde(default)]
    pub client: Option<AccessDecision>,
}

/// What an access list says of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessDecision {
    /// The client's address.
    #[schemars(with = "String")]
    pub client: IpAddr,
    /// `allow` or `deny`.
    pub access: String,
    /// The longest prefix that it is in; `null`: it is in none.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Whether the file has that prefix.
    #[serde(default)]
    pub in_file: bool,
}

/// A question about an access list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessQuestion {
    /// The address of a client: whether it may connect, and which prefix says so.
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub client: Option<IpAddr>,
}
