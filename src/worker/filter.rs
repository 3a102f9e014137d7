//! Selects sessions, for the control thread, over the wire and on the command line.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Selects sessions: every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// Only the session of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub id: Option<SessionId>,
    /// Only those of this listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Only those of this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Only those that are connected, or connect, to this backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The client's address, without its port. An IPv4 address matches its IPv6-mapped form too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// At most this many in a list, up to 10,000; 1000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Every session, with no other filter: to close all of them takes it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Identifies a session: its worker, and its number among the sessions of that worker. Written as
/// in the access log, `0-17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId {
    /// The number of the worker.
    pub worker: u32,
    /// Counts up within the worker.
    pub number: u64,
}

impl SessionId {
    /// Its text, in memory that is there.
    pub(super) fn write(self, into: &mut [u8]) -> &[u8] {
        let room = into.len();
        let mut rest = &mut *into;
        let written = write!(rest, "{self}").map_or(0, |()| room - rest.len());
        &into[..written]
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker, self.number)
    }
}

impl FromStr for SessionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('-');
        let id = parts.and_then(|(worker, number)| {
            Some(Self {
                worker: worker.parse().ok()?,
                number: number.parse().ok()?,
            })
        });
        id.ok_or_else(|| {
            format!("invalid session id \"{text}\": expected WORKER-NUMBER, as `0-17`")
        })
    }
}

impl TryFrom<String> for SessionId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

/// Selects decisions: those of one session, or those of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionFilter {
    /// Which.
    pub of: DecisionSubject,
    /// At most so many, the newest.
    pub last: u32,
}

/// What decisions are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionSubject {
    /// A session.
    Session(SessionId),
    /// The sessions of an address.
    Client(IpAddr),
    /// The sessions of an address and a port.
    Connection(SocketAddr),
}

impl DecisionFilter {
    /// Whether a decision about this session, of this client, matches. An IPv4 address matches its
    /// IPv6-mapped form too.
    pub(super) fn matches(&self, id: SessionId, client: Option<SocketAddr>) -> bool {
        let is_of = |ip: IpAddr| {
            client.is_some_and(|client| client.ip().to_canonical() == ip.to_canonical())
        };
        match self.of {
            DecisionSubject::Session(wanted) => wanted == id,
            DecisionSubject::Client(ip) => is_of(ip),
            DecisionSubject::Connection(address) => {
                is_of(address.ip()) && client.is_some_and(|client| client.port() == address.port())
            }
        }
    }
}

/// Sessions in a list, unless the request asks for another number.
pub const SESSIONS: u32 = 1_000;
/// Sessions in a list at most.
pub const SESSIONS_MAX: u32 = 10_000;
