//! Why sessions went where they went, as it goes over the wire.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::{RouteChoice, RouteQuestion};
use crate::peek::SpokenBytes;
use crate::worker::SessionId;

/// Selects decisions: those of a session, or those of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainQuery {
    /// The id of a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub session: Option<SessionId>,
    /// The address of a client, or its address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// At most this many, the newest, up to 100; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
}

/// Where a session went, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionExplanation {
    /// Worker and number, as in the access log: `0-17`.
    pub session: String,
    /// Its listener.
    pub listener: String,
    /// The client's address and port; none over a Unix socket.
    pub client: Option<String>,
    /// The proxy that named the client by a header: its address and port, or `unix`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Which of the listener's routes its client took, from 1 on; none: it took none, or the
    /// routes have changed since.
    #[serde(default)]
    pub route: Option<u64>,
    /// The name of that route, where it has one.
    #[serde(default)]
    pub route_name: Option<String>,
    /// Which route its client took, and why, in a sentence; none: no route was decided.
    #[serde(default)]
    pub route_says: Option<String>,
    /// The name that its client asked for in TLS, where a route or a key looked at it.
    #[serde(default)]
    pub sni: Option<String>,
    /// Its pool.
    pub pool: String,
    /// The strategy of the pool when the backend was selected.
    pub strategy: String,
    /// When its client was accepted (RFC 3339).
    pub opened_at: String,
    /// How long ago that was, in seconds.
    #[serde(default)]
    pub age_s: f64,
    /// `open` or `closed`.
    pub state: String,
    /// What the client was selected and remembered by.
    pub keys: Vec<KeyStatus>,
    /// The last selection; none: the session ended before it.
    pub decision: Option<DecisionStatus>,
    /// Connects in their order: up to four that failed, then the one that stood.
    pub attempts: Vec<AttemptStatus>,
    /// All connects that failed.
    pub attempts_failed: u32,
    /// The time in queues of pools, in µs, if it waited in one and has ended.
    pub queued_us: Option<u32>,
    /// From the accept until the backend was connected, in µs, of a session that has ended.
    pub connect_us: Option<u32>,
    /// From the accept until the backend's first byte, in µs, of a session that has ended.
    pub first_byte_us: Option<u32>,
    /// From the accept to the end, in µs, of a session that has ended.
    pub total_us: Option<u64>,
    /// Bytes delivered from the client, of a session that has ended.
    pub bytes_up: Option<u64>,
    /// Bytes delivered to the client, of a session that has ended.
    pub bytes_down: Option<u64>,
    /// Why it ended; none: it goes on.
    pub reason: Option<String>,
    /// What exactly was the cause, in words, where TLS failed or no connection could begin at the
    /// client's address; none: the reason says it all.
    #[serde(default)]
    pub cause: Option<String>,
}

/// A key of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyStatus {
    /// `select`: the strategy selects by it; `persist`: the client is remembered by it.
    #[serde(rename = "use")]
    pub purpose: String,
    /// What it is, as in the configuration, such as `sni`.
    pub kind: String,
    /// Its hash: the same key has the same. Of `sni_member` the member's number, or `none`.
    pub hash: String,
    /// The client's first bytes lacked it, and its address stood in.
    pub missed: bool,
}

/// A selection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionStatus {
    /// The selected backend; none: none was selected.
    pub backend: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Why it came out so, in a word.
    pub why: String,
    /// The same in a sentence.
    pub says: String,
    /// What the scores are; none: the strategy has no scores.
    pub score_is: Option<String>,
    /// The selected backend, the best others, then those that could not be used: up to 8.
    pub candidates: Vec<CandidateStatus>,
    /// All backends of the pool.
    pub backends: u16,
    /// The backends that were passed over, by the word for why.
    pub passed_over: BTreeMap<String, u16>,
    /// Backends beyond the 256 that an explanation looks at.
    pub not_looked_at: u16,
}

/// A backend that could have been selected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateStatus {
    /// Its name.
    pub backend: String,
    /// Its address.
    pub address: String,
    /// What the strategy compares by; none: the strategy has no scores.
    pub score: Option<f64>,
    /// `chosen`, or why not, in a word.
    pub verdict: String,
    /// The same in words.
    pub says: String,
}

/// A connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptStatus {
    /// The backend.
    pub backend: String,
    /// The address that was connected to.
    pub address: String,
    /// `connected`, or what it failed by: the name of the error, or `timeout`.
    pub outcome: String,
    /// The same in words.
    pub says: String,
    /// How long it took, in µs.
    pub us: u32,
}

/// A client that would connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DryRunQuery {
    /// The pool. Either this or a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The listener, whose routes say which pool it is. With neither: the one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The client's address, or its address and port.
    pub client: String,
    /// The host that it names as a TLS server name or in HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// What it requests over HTTP, such as `/path` or `http://host/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_host: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_tlv: Option<String>,
    /// As in the question for a route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client: Option<String>,
}

impl DryRunQuery {
    /// What the client says, as routes see it. What it requests is of the host that `sni` names:
    /// inside of TLS for that name where TLS ends at the listener, and elsewhere in plain HTTP.
    ///
    /// # Errors
    /// No client says all of that: why, in a sentence.
    pub fn spoken(&self) -> Result<SpokenBytes, String> {
        let of_url = self.sni.clone().filter(|_| self.url.is_some());
        let ending = RouteQuestion {
            client: None,
            sni: self.sni.clone(),
            alpn: self.alpn.clone(),
            protocol: self.protocol.clone(),
            http_host: self.http_host.clone().or(of_url),
            http_path: self.http_path.clone().or_else(|| self.url.clone()),
            proxy_tlv: self.proxy_tlv.clone(),
            tls_client: self.tls_client.clone(),
        };
        let sni = self.sni.clone().filter(|_| self.url.is_none());
        let passing = RouteQuestion {
            sni,
            ..ending.clone()
        };
        RouteQuestion::bytes(&passing.says()?, &ending.says()?)
    }
}

/// Where a client would go now, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DryRunStatus {
    /// The pool.
    pub pool: String,
    /// Its strategy.
    pub strategy: String,
    /// The client's address.
    pub client: String,
    /// What it is selected and remembered by.
    pub keys: Vec<KeyStatus>,
    /// Whether every listener of the pool, or a route, would refuse it: then it goes to no backend.
    #[serde(default)]
    pub refused: bool,
    /// Whether the routes of the listeners that let it in lead it elsewhere: then it goes to
    /// another pool, or to none.
    #[serde(default)]
    pub elsewhere: bool,
    /// What the first worker would decide, by a listener that lets it in if there is one.
    pub decision: DecisionStatus,
    /// What each worker would decide, for each listener of the pool, if it lets the client in.
    pub workers: Vec<WorkerChoice>,
    /// Whether the listeners of the pool let it in: up to 100, those that refuse it first. Limits
    /// and rates, which depend on the clients of the moment, are not looked at.
    #[serde(default)]
    pub listeners: Vec<ListenerChoice>,
    /// What is worth knowing beside, a sentence each.
    pub says: Vec<String>,
}

impl DryRunStatus {
    /// Of a client that a route refuses.
    #[must_use]
    pub fn no_route(client: String, route: RouteChoice) -> Self {
        Self {
            client,
            refused: true,
            decision: DecisionStatus {
                why: route.refused.clone().unwrap_or_default(),
                says: format!("none was selected: {}", route.says),
                ..DecisionStatus::default()
            },
            listeners: vec![ListenerChoice {
                listener: route.listener.clone(),
                refused: None,
                route: Some(route),
            }],
            ..Self::default()
        }
    }
}

/// Whether a listener would let a client in, and where its routes lead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerChoice {
    /// The listener.
    pub listener: String,
    /// Why it would refuse the client; none: it would let it in.
    pub refused: Option<RefusalStatus>,
    /// Where its routes would lead the client; none: it has no routes.
    #[serde(default)]
    pub route: Option<RouteChoice>,
}

/// Why a listener would refuse a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusalStatus {
    /// The reason that its session would end with: `banned`, `access_denied` or `tls_failed`.
    pub reason: String,
    /// The same in a sentence, which names the listener, and the ban, the list or what the
    /// handshake fails by.
    pub says: String,
}

/// What a worker would decide for a client of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerChoice {
    /// The worker.
    pub worker: u32,
    /// The listener.
    pub listener: String,
    /// The backend; none: none would be selected.
    pub backend: Option<String>,
}

/// The address of a client, with or without its port.
///
/// # Errors
/// A sentence.
pub fn client_address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let with_port = text.parse::<std::net::SocketAddr>();
    let with_port = with_port.map(|address| (address.ip(), Some(address.port())));
    let without = || text.parse::<IpAddr>().map(|ip| (ip, None));
    let expected = "expected an IP address, or an address and a port such as 192.0.2.7:51234";
    with_port
        .or_else(|_| without())
        .map_err(|_| format!("invalid client \"{text}\": {expected}"))
}

/// Decisions that an answer has at most.
pub const EXPLANATIONS_MAX: u32 = 100;
