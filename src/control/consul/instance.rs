//! Instances of a service, as Consul answers them.

use serde::Deserialize;

use crate::address::Address;
use crate::config::{AdminState, Consul, ConsulHealth};
use crate::control::remote::{few, server_address};

/// An instance that may be a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Instance {
    pub(in crate::control) address: Address,
    /// 0 to 65,535, as Consul has it.
    pub(in crate::control) weight: u16,
    pub(in crate::control) state: AdminState,
}

/// The answer of `/v1/health/service/NAME`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct HealthEntries(
    #[serde(deserialize_with = "few::<INSTANCES_MAX, _, _>")] pub(super) Vec<HealthEntry>,
);

/// An instance in an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct HealthEntry {
    node: Node,
    service: Service,
    #[serde(deserialize_with = "few::<CHECKS_MAX, _, _>")]
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Node {
    node: String,
    address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: i64,
    weights: Option<Weights>,
}

#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    status: String,
}

impl HealthEntry {
    /// Its node and its id, which together are unique.
    pub(super) fn name(&self) -> String {
        let name = format!("{}/{}", self.node.node, self.service.id);
        name.chars().take(NAME_CHARS_MAX).collect()
    }

    /// What it is by the rules of a file; `None`: it is left out, as its checks say.
    pub(super) fn instance(&self, source: &Consul) -> Option<Result<Instance, String>> {
        let has = |status: &str| self.checks.iter().any(|check| check.status == status);
        let is_critical = has("critical");
        let is_warned = has("warning");
        let fits = match source.health {
            ConsulHealth::Passing => !is_critical && !is_warned,
            ConsulHealth::Warning => !is_critical,
            ConsulHealth::Any => true,
        };
        fits.then(|| self.read(is_warned && !is_critical))
    }

    fn read(&self, is_warned: bool) -> Result<Instance, String> {
        let port = u16::try_from(self.service.port).ok();
        let port = port.filter(|port| *port > 0).ok_or_else(|| {
            let port = self.service.port;
            format!("invalid `Service.Port` `{port}`: expected 1 to 65535")
        })?;
        let weights = self.service.weights.as_ref();
        let weight = weights.map_or(1, |its| match is_warned {
            true => its.warning,
            false => its.passing,
        });
        let weight = u16::try_from(weight)
            .map_err(|_| format!("invalid `Service.Weights` `{weight}`: expected 0 to 65535"))?;
        let address = match &*self.service.address {
            "" => &self.node.address,
            address => address,
        };
        let is_in_maintenance = self.checks.iter().any(|check| {
            check.status == "critical"
                && (check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance"))
        });
        Ok(Instance {
            address: server_address(address, port)?,
            weight,
            state: match is_in_maintenance {
                true => AdminState::Drain,
                false => AdminState::Ready,
            },
        })
    }
}

/// Instances in an answer. A pool has a tenth of them at most.
pub(super) const INSTANCES_MAX: usize = 10_000;
/// Checks of an instance.
const CHECKS_MAX: usize = 1_000;
/// The longest name of an instance in sentences.
const NAME_CHARS_MAX: usize = 256;
