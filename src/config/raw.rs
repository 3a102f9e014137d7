//! The shape of `config.ron`, before anything is judged.
//!
//! Serde checks what RON alone can: syntax, field names and nesting. Every leaf is a [`Scalar`], of
//! whatever type was written, so that a wrong leaf is reported beside all other wrong leaves.

mod pool;
mod scalar;

pub(super) use pool::{
    RawBackend, RawCheck, RawCheckTls, RawDiscovery, RawEjection, RawGroup, RawOnDown, RawPersist,
    RawPool, RawQueue, RawScaling, RawStrategy,
};
use scalar::short;
pub(super) use scalar::{Scalar, Short};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Config", default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) workers: Scalar,
    pub(super) max_connections: Scalar,
    pub(super) memory: Scalar,
    pub(super) shutdown_grace: Scalar,
    pub(super) access_log: Short<RawAccessLog>,
    pub(super) histogram_log: Scalar,
    pub(super) reload_on_change: Scalar,
    pub(super) resolvers: Vec<Scalar>,
    pub(super) admin: Short<RawAdmin>,
    pub(super) defaults: RawDefaults,
    pub(super) listeners: Vec<RawListener>,
    pub(super) pools: Vec<RawPool>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "AccessLog", default, deny_unknown_fields)]
pub(super) struct RawAccessLog {
    pub(super) to: Scalar,
    pub(super) format: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Admin", default, deny_unknown_fields)]
pub(super) struct RawAdmin {
    pub(super) socket: Scalar,
    pub(super) http: Option<RawAdminHttp>,
    pub(super) audit_log: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "AdminHttp", default, deny_unknown_fields)]
pub(super) struct RawAdminHttp {
    pub(super) bind: Scalar,
    pub(super) read_token: Scalar,
    pub(super) write_token: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Defaults", default, deny_unknown_fields)]
pub(super) struct RawDefaults {
    pub(super) attempts: Scalar,
    pub(super) timeouts: RawTimeouts,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Listener", default, deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) name: Scalar,
    pub(super) bind: Scalar,
    pub(super) pool: Scalar,
    pub(super) max_connections: Scalar,
    pub(super) attempts: Scalar,
    pub(super) half_close: Scalar,
    pub(super) timeouts: RawTimeouts,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Timeouts", default, deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub(super) connect: Scalar,
    pub(super) idle: Scalar,
    pub(super) half_closed: Scalar,
    pub(super) session: Scalar,
    pub(super) peek: Scalar,
}

short! {
    RawAccessLog { to },
    RawAdmin { socket },
}
