//! Where a client of a listener would go, as it goes over the wire.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::peek::{Protocol, Spoken};

/// A client that would connect to a listener. It says nothing of what is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteQuestion {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub client: Option<IpAddr>,
    /// The server name that it asks for in TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The application protocols that it offers in TLS, with commas between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// The protocol that it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The host of its HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_host: Option<String>,
    /// The path of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
}

/// Where a client of a listener would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteChoice {
    /// The listener.
    pub listener: String,
    /// The pool; `null`: the client is refused.
    pub pool: Option<String>,
    /// Which of the listener's routes takes it, from 1 on; `null`: none.
    pub route: Option<u64>,
    /// Why, in a sentence.
    pub says: String,
}

/// A pool that a route of a listener leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// Which of the listener's routes, from 1 on.
    pub route: u64,
    /// The pool; `null`: clients are refused.
    pub pool: Option<String>,
    /// Sessions ended that it took, while it asks for the same clients.
    pub sessions: u64,
}

impl RouteStatus {
    /// The route and its pool, as metrics name them.
    #[must_use]
    pub fn name(&self) -> String {
        let pool = self.pool.as_deref().unwrap_or("refuse");
        format!("{}/{pool}", self.route)
    }
}

impl RouteQuestion {
    /// The bytes that the client would begin with.
    ///
    /// # Errors
    /// No client says all of that: why, in a sentence.
    pub fn first_bytes(&self) -> Result<Vec<u8>, String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let alpn = self
            .alpn
            .iter()
            .flat_map(|names| names.split(',').map(str::trim));
        let spoken = Spoken {
            server_name: text(&self.sni),
            alpn: alpn.map(str::to_owned).collect(),
            protocol: self.protocol.as_deref().map(protocol).transpose()?,
            host: text(&self.http_host),
            path: text(&self.http_path),
        };
        let bytes = spoken.first_bytes();
        bytes.ok_or_else(|| {
            "no client says all of that: `sni` and `alpn` are in TLS, `http_host` and `http_path` \
             in plain HTTP, and their values have no spaces"
                .to_owned()
        })
    }
}

fn protocol(name: &str) -> Result<Protocol, String> {
    crate::config::values::named("protocol", name, &Protocol::ALL)
        .map_err(|error| error.to_string())
}
