//! What is known of etcd, as the API tells it.

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
