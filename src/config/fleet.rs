//! What several balancers share.

use super::codec::{group, required, truth};
use super::etcd::Etcd;
use super::table::{Shape, defaults, settings};

settings! {
    /// What several balancers share: bans, and administrative states of backends.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FleetSettings: Shape {
        /// The keys of an etcd cluster that have it: `bans/PREFIX` and `states/POOL/BACKEND`.
        pub etcd: Etcd = Etcd::default() => required(group());
        /// Whether this balancer writes its own bans there, by hand and by rules, for the others.
        pub share_bans: bool = true => truth();
    }
}

defaults!(FleetSettings);

impl Shape for FleetSettings {}
