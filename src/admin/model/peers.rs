//! What is known of the other balancers of the fleet, as the API tells it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The balancers that this one shares bans and sticky clients with, without etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeersStatus {
    /// Each of them, but this one.
    pub members: Vec<PeerStatus>,
    /// Connections that were refused, as their certificates name no member.
    pub strangers: u64,
}

/// A balancer that this one shares with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerStatus {
    /// Its name in the configuration and in its certificate.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Whether it takes what this balancer sends now.
    pub sending: bool,
    /// Whether it is connected to this balancer now, to send.
    pub receiving: bool,
    /// Entries that were sent to it since the start.
    pub sent: u64,
    /// Entries that came from it since the start.
    pub received: u64,
    /// Those that were not taken, by reason; without those that never happened. `malformed` counts
    /// frames, each of which has ended a connection.
    pub refused: BTreeMap<String, u64>,
    /// How often all was sent to it again, as it was too slow for changes.
    pub resyncs: u64,
    /// How long it took to answer this balancer last, in ms; none while it takes nothing.
    pub lag_ms: Option<u64>,
    /// Why it is not connected, or what is wrong with what it sends, if anything.
    pub problem: Option<String>,
}
