//! What a balancer has of limits over the fleet, as the API tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shares of limits over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetStatus {
    /// The name of this balancer in the fleet.
    pub name: String,
    /// Balancers that etcd has, this one included.
    pub members: u64,
    /// Those of them that have a lease.
    pub leased: u64,
    /// Whether this one's lease lasts. Without it, each limit is `base` here.
    pub has_lease: bool,
    /// Writes of this balancer that came too late, since the start: another one had written before,
    /// and its write held.
    pub conflicts: u64,
    /// The limits.
    pub limits: Vec<FleetLimitStatus>,
}

/// A limit over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetLimitStatus {
    /// Which: `connections` or `rate` of all listeners, or of one, such as
    /// `listeners/web/connections`.
    pub limit: String,
    /// The limit over all balancers: connections, or new connections in a second.
    pub whole: u32,
    /// What this balancer may take now.
    pub share: u32,
    /// What it may take once its lease has ended.
    pub base: u32,
    /// What it has in use, or takes in a second.
    pub used: u32,
    /// What it asks for; 0: it has enough.
    pub wanted: u32,
    /// What all balancers have together.
    pub given: u64,
}

impl FleetLimitStatus {
    /// The listener that it is one of; `None`: it is of all together.
    #[must_use]
    pub fn listener(&self) -> Option<&str> {
        let name = self.limit.strip_prefix("listeners/")?;
        let (name, _) = name.rsplit_once('/')?;
        Some(name)
    }
}
