//! Where a client of a listener would go, as it goes over the wire.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::values::{self, ValueError};
use crate::config::{ProxyTlv, TlsClientName, TlvValue, identity_of};
use crate::peek::proxy_protocol::TlvName;
use crate::peek::{NamePattern, Protocol, Spoken, SpokenBytes};
use crate::tls::ClientIdentity;

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
    /// The protocol that it speaks; inside of TLS where that ends at the listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The host of its HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_host: Option<String>,
    /// The path of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// What the header of its proxy says, as in `proxy_tlv` of a route and with commas between
    /// them; a comma in a value is `\x2C`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_tlv: Option<String>,
    /// Whom the certificate names that it shows in TLS, as in `tls_client` of a route and with
    /// commas between them; a comma in a value is `\x2C`. It is taken to be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client: Option<String>,
}

/// Where a client of a listener would go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteChoice {
    /// The listener.
    pub listener: String,
    /// The pool; `null`: the client is refused.
    pub pool: Option<String>,
    /// The reason that its session would end with, where it is refused: `no_route`, or `tls_failed`
    /// where its handshake fails.
    #[serde(default)]
    pub refused: Option<String>,
    /// Which of the listener's routes takes it, from 1 on; `null`: none.
    pub route: Option<u64>,
    /// The name of that route, where it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// The conditions of that route, with those of their values that the client has.
    #[serde(default)]
    pub by: Vec<MetStatus>,
    /// How many of the route's clients go to that pool, in percent, where several pools share them.
    #[serde(default)]
    pub share: Option<f64>,
    /// Why, in a sentence.
    pub says: String,
}

/// A condition of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetStatus {
    /// Its setting, such as `sni`.
    pub setting: String,
    /// Those of its values that the client has, or all where that is not known: the first 8.
    pub values: Vec<String>,
    /// How many there are beside.
    #[serde(default)]
    pub more: u64,
}

impl MetStatus {
    /// A few of the values in words, each between these marks.
    #[must_use]
    pub fn listed(&self, mark: &str) -> String {
        let few = self.values.iter().take(VALUES_SAID);
        let few: Vec<_> = few.map(|value| format!("{mark}{value}{mark}")).collect();
        let said = few.len() as u64;
        let more = self.values.len() as u64 + self.more - said;
        let text = few.join(" or ");
        match more {
            0 => text,
            more => format!("{text} or {more} more"),
        }
    }
}

/// Values of a condition that a sentence has.
const VALUES_SAID: usize = 3;

/// A pool that a route of a listener leads to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// Which of the listener's routes, from 1 on.
    pub route: u64,
    /// Its name, where it has one.
    #[serde(default)]
    pub name: Option<String>,
    /// Whom it takes: a value of each of these. With none of them it takes all.
    #[serde(default)]
    pub conditions: Vec<MetStatus>,
    /// The pool; `null`: clients are refused.
    pub pool: Option<String>,
    /// The weight of that pool, where several pools share the route's clients.
    #[serde(default)]
    pub weight: Option<u16>,
    /// The same as a share of the route's clients, in percent.
    #[serde(default)]
    pub share: Option<f64>,
    /// Sessions ended that it took, while it has that name, or asks for the same clients.
    pub sessions: u64,
}

/// The routes of a listener, as a file has them. A request may send them back with other routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerRoutes {
    /// What tells these routes from others. A change that names it is refused if another one came
    /// before.
    pub version: String,
    /// An object for each route, in their order.
    #[schemars(with = "Vec<BTreeMap<String, Value>>")]
    pub routes: Value,
}

impl RouteStatus {
    /// Whom it takes, in words.
    #[must_use]
    pub fn takes(&self) -> String {
        let one = |its: &MetStatus| format!("{} {}", its.setting, its.listed(""));
        let all: Vec<_> = self.conditions.iter().map(one).collect();
        match all.is_empty() {
            true => "all".to_owned(),
            false => all.join(", "),
        }
    }

    /// Its name, or else its place.
    #[must_use]
    pub fn called(&self) -> String {
        let place = || self.route.to_string();
        self.name.clone().unwrap_or_else(place)
    }

    /// The route and its pool, as metrics name them.
    #[must_use]
    pub fn label(&self) -> String {
        let pool = self.pool.as_deref().unwrap_or("refuse");
        format!("{}/{pool}", self.called())
    }
}

impl RouteQuestion {
    /// The bytes that the client would begin with.
    ///
    /// # Errors
    /// No client says all of that: why, in a sentence.
    pub fn spoken(&self) -> Result<SpokenBytes, String> {
        let says = self.says()?;
        Self::bytes(&says, &says)
    }

    /// What the client says.
    pub(super) fn says(&self) -> Result<Spoken, String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let tlvs = listed(self.proxy_tlv.as_deref());
        Ok(Spoken {
            server_name: text(&self.sni),
            alpn: listed(self.alpn.as_deref()),
            identity: self.tls_client.as_deref().map(identity).transpose()?,
            protocol: self.protocol.as_deref().map(protocol).transpose()?,
            host: text(&self.http_host),
            path: text(&self.http_path),
            tlvs: tlvs
                .iter()
                .map(|text| tlv(text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The bytes of what it says where TLS passes through, and where TLS ends.
    pub(super) fn bytes(passing: &Spoken, ending: &Spoken) -> Result<SpokenBytes, String> {
        SpokenBytes::new(passing, ending).ok_or_else(|| {
            "no client says all of that: `protocol` is another than `http_host` and `http_path` \
             are in, or a value has spaces or is too long"
                .to_owned()
        })
    }
}

/// The values of a list with commas between them.
fn listed(list: Option<&str>) -> Vec<String> {
    let names = list.iter().flat_map(|names| names.split(','));
    names.map(|name| name.trim().to_owned()).collect()
}

/// Whom a certificate names.
fn identity(text: &str) -> Result<ClientIdentity, String> {
    let names = listed(Some(text)).into_iter();
    let names = names.map(|name| name.replace("\\x2C", ",").parse::<TlsClientName>());
    let names = names.collect::<Result<Vec<_>, _>>();
    let names = names.map_err(|error| error.to_string());
    let identity = names.and_then(|names| identity_of(&names));
    identity.map_err(|why| format!("invalid tls_client: {why}"))
}

/// A TLV that a header has.
fn tlv(text: &str) -> Result<(TlvName, Vec<u8>), String> {
    let refused = |why: String| format!("invalid proxy_tlv: {why}");
    let not_one = || refused(format!("`{text}`: expected one host name"));
    // An expression takes long to compile, and no client says one.
    if ProxyTlv::has_regex(text) {
        return Err(not_one());
    }
    let one: ProxyTlv = text
        .parse()
        .map_err(|error: ValueError| refused(error.to_string()))?;
    match one.value {
        TlvValue::Bytes(bytes) => Ok((one.name, bytes)),
        TlvValue::Host(NamePattern::Exact(name)) => Ok((one.name, name.into_bytes())),
        TlvValue::Host(NamePattern::Below(_) | NamePattern::Matching(_)) => Err(not_one()),
    }
}

fn protocol(name: &str) -> Result<Protocol, String> {
    values::named("protocol", name, &Protocol::ALL).map_err(|error| error.to_string())
}
