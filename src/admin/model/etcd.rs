//! What is known of servers of shared state, as the API tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// etcd, over all prefixes that are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EtcdStatus {
    /// Prefixes of keys that are followed.
    pub prefixes: u64,
    /// Those of them whose changes arrive now. The others have what they last had.
    pub watched: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Endpoints that failed since the start: each time that one was left for another.
    pub failures: u64,
    /// How often all keys of a prefix were listed.
    pub lists: u64,
    /// Changes of keys that arrived.
    pub changes: u64,
}

/// Consul or Kubernetes, over all services that are followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistryStatus {
    /// Services that are followed.
    pub services: u64,
    /// Those of them whose changes arrive now. The others have what they last had.
    pub watched: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Endpoints that failed since the start: each time that one was left for another.
    pub failures: u64,
    /// How often all of a service was listed.
    pub lists: u64,
    /// Changes of a service that arrived: of Consul a change of its instances, of Kubernetes one of
    /// a slice.
    pub changes: u64,
}
