//! The shape of a pool.

use super::scalar::{Scalar, Short, short};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Pool", default, deny_unknown_fields)]
pub(in crate::config) struct RawPool {
    pub(in crate::config) name: Scalar,
    pub(in crate::config) strategy: Short<RawStrategy>,
    pub(in crate::config) persist: Short<RawPersist>,
    pub(in crate::config) max_connections: Scalar,
    pub(in crate::config) source: Vec<Scalar>,
    pub(in crate::config) source_ports: Scalar,
    pub(in crate::config) queue: Short<RawQueue>,
    pub(in crate::config) check: Short<RawCheck>,
    pub(in crate::config) ejection: Short<RawEjection>,
    pub(in crate::config) panic_below: Scalar,
    pub(in crate::config) all_down: Scalar,
    pub(in crate::config) slow_start: Scalar,
    pub(in crate::config) on_down: Short<RawOnDown>,
    pub(in crate::config) discover: Short<RawDiscovery>,
    pub(in crate::config) scaling: Short<RawScaling>,
    pub(in crate::config) backends: Vec<Short<RawBackend>>,
    pub(in crate::config) reserve: Vec<Short<RawBackend>>,
}

/// The settings of all strategies together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Strategy", default, deny_unknown_fields)]
pub(in crate::config) struct RawStrategy {
    pub(in crate::config) name: Scalar,
    pub(in crate::config) key: Scalar,
    pub(in crate::config) max_load: Scalar,
    pub(in crate::config) decay: Scalar,
    pub(in crate::config) ttl: Scalar,
    pub(in crate::config) clients_max: Scalar,
    pub(in crate::config) first: Scalar,
    pub(in crate::config) subset: Scalar,
    pub(in crate::config) then: Scalar,
    pub(in crate::config) groups: Option<Vec<Short<RawGroup>>>,
    pub(in crate::config) horizon: Scalar,
    pub(in crate::config) season: Scalar,
}

impl RawStrategy {
    /// The settings that are there.
    pub(in crate::config) fn settings(&self) -> impl Iterator<Item = &'static str> {
        let Self {
            name: _,
            key,
            max_load,
            decay,
            ttl,
            clients_max,
            first,
            subset,
            then,
            groups,
            horizon,
            season,
        } = self;
        let groups = groups.as_ref().map(|_| "groups");
        let scalars = [
            ("key", key),
            ("max_load", max_load),
            ("decay", decay),
            ("ttl", ttl),
            ("clients_max", clients_max),
            ("first", first),
            ("subset", subset),
            ("then", then),
            ("horizon", horizon),
            ("season", season),
        ];
        let there = scalars.into_iter().filter(|(_, value)| value.is_set());
        there.map(|(name, _)| name).chain(groups)
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Group", default, deny_unknown_fields)]
pub(in crate::config) struct RawGroup {
    pub(in crate::config) name: Scalar,
    pub(in crate::config) weight: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Persist", default, deny_unknown_fields)]
pub(in crate::config) struct RawPersist {
    pub(in crate::config) key: Scalar,
    pub(in crate::config) ttl: Scalar,
    pub(in crate::config) clients_max: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Backend", default, deny_unknown_fields)]
pub(in crate::config) struct RawBackend {
    pub(in crate::config) address: Scalar,
    pub(in crate::config) name: Scalar,
    pub(in crate::config) weight: Scalar,
    pub(in crate::config) max_connections: Scalar,
    pub(in crate::config) backup: Scalar,
    pub(in crate::config) group: Scalar,
    pub(in crate::config) state: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Queue", default, deny_unknown_fields)]
pub(in crate::config) struct RawQueue {
    pub(in crate::config) max: Scalar,
    pub(in crate::config) timeout: Scalar,
}

/// The settings of all types of checks together.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Check", default, deny_unknown_fields)]
pub(in crate::config) struct RawCheck {
    pub(in crate::config) r#type: Scalar,
    pub(in crate::config) send: Scalar,
    pub(in crate::config) expect: Scalar,
    pub(in crate::config) expect_regex: Scalar,
    pub(in crate::config) method: Scalar,
    pub(in crate::config) path: Scalar,
    pub(in crate::config) host: Scalar,
    pub(in crate::config) status: Scalar,
    pub(in crate::config) tls: Short<RawCheckTls>,
    pub(in crate::config) interval: Scalar,
    pub(in crate::config) interval_down: Scalar,
    pub(in crate::config) interval_between: Scalar,
    pub(in crate::config) timeout: Scalar,
    pub(in crate::config) rise: Scalar,
    pub(in crate::config) fall: Scalar,
    pub(in crate::config) port: Scalar,
    pub(in crate::config) proxy_header: Scalar,
    pub(in crate::config) initial: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Tls", default, deny_unknown_fields)]
pub(in crate::config) struct RawCheckTls {
    /// `true` or `false` in place of the group.
    #[serde(skip)]
    pub(in crate::config) bare: Scalar,
    pub(in crate::config) sni: Scalar,
    pub(in crate::config) alpn: Vec<Scalar>,
    pub(in crate::config) verify: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Ejection", default, deny_unknown_fields)]
pub(in crate::config) struct RawEjection {
    /// `"off"` in place of the group.
    #[serde(skip)]
    pub(in crate::config) bare: Scalar,
    pub(in crate::config) failures: Scalar,
    pub(in crate::config) base: Scalar,
    pub(in crate::config) max: Scalar,
    pub(in crate::config) share: Scalar,
    pub(in crate::config) latency: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "OnDown", default, deny_unknown_fields)]
pub(in crate::config) struct RawOnDown {
    /// A word in place of the group.
    #[serde(skip)]
    pub(in crate::config) bare: Scalar,
    pub(in crate::config) close_over: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Discover", default, deny_unknown_fields)]
pub(in crate::config) struct RawDiscovery {
    /// `"off"` in place of the group.
    #[serde(skip)]
    pub(in crate::config) bare: Scalar,
    pub(in crate::config) dns: Scalar,
    pub(in crate::config) port: Scalar,
    pub(in crate::config) srv: Scalar,
    pub(in crate::config) file: Scalar,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename = "Scaling", default, deny_unknown_fields)]
pub(in crate::config) struct RawScaling {
    /// `"off"` in place of the group.
    #[serde(skip)]
    pub(in crate::config) bare: Scalar,
    pub(in crate::config) by: Scalar,
    pub(in crate::config) high: Scalar,
    pub(in crate::config) low: Scalar,
    pub(in crate::config) window: Scalar,
    pub(in crate::config) cool_down: Scalar,
    pub(in crate::config) min: Scalar,
    pub(in crate::config) webhook: Scalar,
}

short! {
    RawStrategy { name },
    RawGroup { name },
    RawPersist { key },
    RawBackend { address },
    RawQueue { max },
    RawCheck { r#type },
    RawCheckTls { bare },
    RawEjection { bare },
    RawOnDown { bare },
    RawDiscovery { bare },
    RawScaling { bare },
}
