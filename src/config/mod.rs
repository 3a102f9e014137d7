//! What the balancer is told to do: validated, with every default filled in.
//!
//! The same [`Config`] comes from `config.ron` and from the flags of `mahoraga proxy`.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::origin::Origins;

mod admin;
mod availability;
mod backend;
mod change;
mod check;
mod emit;
mod error;
mod judge;
mod key;
mod load;
mod raw;
mod source;
mod spans;
mod strategy;
mod syntax;
mod validate;
pub mod values;
mod warnings;

pub use admin::{ADMIN_SOCKET, Admin, AdminHttp};
pub use availability::{AllDown, Discovery, Ejection, OnDown, Queue, ScaleBy, Scaling};
pub(crate) use backend::is_resolved;
pub use backend::{Backend, Target};
pub use change::{Change, ChangeError};
pub use check::{Check, CheckTls, Expect, Initial, Probe, ProxyHeader, Verify};
pub use error::{ConfigError, Mistake, Warning};
pub use key::Key;
pub use load::{STANDARD_INPUT, load, load_again, name_of, parse};
pub use source::{Place, Source};
pub use strategy::{
    FirstTier, Group, Hash, LeastTime, Persist, Predictive, SecondTier, Strategy, TwoTier,
};
pub use warnings::{DESCRIPTORS_RESERVED, Host, descriptors_needed, warnings};

/// A whole, valid configuration.
///
/// Invariant: names are unique among listeners, among pools and within a pool; every listener's
/// `pool` is an index into `pools`; every pool has a backend of weight above 0 that is not of the
/// reserve, unless it discovers; the reserve stands behind all others, and is there where the pool
/// scales and nowhere else; `two_tier` has every group that a backend of its pool names, and if one
/// names a group, all do; a pool of `sticky_round_robin` persists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Worker threads; `None`: one per CPU that the process may use.
    pub workers: Option<NonZeroU32>,
    /// Client connections in all; `None`: what the descriptor limit allows.
    pub max_connections: Option<NonZeroU32>,
    /// Bytes of receive buffers and pipes, over all workers; `None`: by what the machine has.
    pub memory: Option<u64>,
    /// How long sessions may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Where each session's line goes; `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// The file that SIGUSR1 appends histograms to (HdrHistogram V2 log format).
    pub histogram_log: PathBuf,
    /// The file is read again when it changes.
    pub reload_on_change: bool,
    /// Where it is administered; `None`: nowhere.
    pub admin: Option<Admin>,
    /// Who is asked for host names of backends and for names of [`Discovery`]; empty: whom
    /// `/etc/resolv.conf` names, after `/etc/hosts`.
    pub resolvers: Vec<SocketAddr>,
    /// What is listened on.
    pub listeners: Vec<Listener>,
    /// The groups of backends that listeners name.
    pub pools: Vec<Pool>,
}

impl Config {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// A configuration of which only this is said. It logs no sessions and nobody administers it.
    #[must_use]
    pub fn of(listeners: Vec<Listener>, pools: Vec<Pool>) -> Self {
        Self {
            workers: None,
            max_connections: None,
            memory: None,
            shutdown_grace: SHUTDOWN_GRACE,
            access_log: None,
            histogram_log: HISTOGRAM_LOG.into(),
            reload_on_change: false,
            admin: None,
            resolvers: Vec::new(),
            listeners,
            pools,
        }
    }
}

/// Where and how sessions are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The sink.
    pub to: LogSink,
    /// The shape of a line.
    pub format: LogFormat,
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Appended to a file, made when absent.
    File(PathBuf),
}

/// The shape of an access log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    KeyValue,
    /// One JSON object.
    Json,
}

impl LogFormat {
    /// Every format with the name that configuration and command line know it by.
    pub const ALL: [(&'static str, Self); 2] =
        [("key_value", Self::KeyValue), ("json", Self::Json)];
}

/// A bound address and the pool behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique among listeners; the address when the file names none.
    pub name: String,
    /// Where it listens.
    pub bind: Address,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Client connections of this listener over all workers; `None`: no limit of its own.
    pub max_connections: Option<NonZeroU32>,
    /// Connect attempts per session, each on another backend while there is one. 1 to 16. Beyond
    /// them backends that refuse at once are passed over, unless it is 1; 16 attempts in all.
    pub attempts: u8,
    /// What an end of one direction means.
    pub half_close: HalfClose,
    /// Deadlines of its sessions.
    pub timeouts: Timeouts,
}

/// What becomes of a session one direction of which has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HalfClose {
    /// The end is relayed, and the other direction goes on.
    #[default]
    Relay,
    /// What has arrived is delivered, then both connections are closed.
    End,
}

impl HalfClose {
    /// Both, with the names that the configuration knows them by.
    pub const ALL: [(&'static str, Self); 2] = [("relay", Self::Relay), ("end", Self::End)];
}

/// The deadlines of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One connect attempt.
    pub connect: Duration,
    /// No byte in either direction; `None`: never.
    pub idle: Option<Duration>,
    /// No byte since one direction ended while the other goes on.
    pub half_closed: Duration,
    /// The whole session; `None`: never.
    pub session: Option<Duration>,
    /// A client's first bytes, where a backend is selected by them, 1 ms to 1 min.
    pub peek: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Some(Duration::from_secs(600)),
            half_closed: Duration::from_secs(30),
            session: None,
            peek: Duration::from_secs(3),
        }
    }
}

/// A set of backends and the way one of them is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// How a backend is selected.
    pub strategy: Strategy,
    /// Which clients come back to the backend that they had; `None`: nobody.
    pub persist: Option<Persist>,
    /// Connections to all its backends, over all workers; `None`: no limit.
    pub max_connections: Option<NonZeroU32>,
    /// Addresses and ports of this machine that connections to its backends begin at.
    pub origins: Origins,
    /// Where clients wait while every backend is full.
    pub queue: Queue,
    /// How its backends are probed; `None`: they are not.
    pub check: Option<Check>,
    /// When real sessions take a backend out; `None`: never.
    pub ejection: Option<Ejection>,
    /// With fewer usable backends than this share of those that are ready, in percent, all that
    /// are ready are balanced over. 0 to 100; 0: never; `None`: by the kind of check, as
    /// [`Self::panics_below`] says.
    pub panic_below: Option<u8>,
    /// What becomes of it when none is usable; `None`: by the kind of check, as
    /// [`Self::fails_open`] and [`Self::takes_ejected`] say.
    pub all_down: Option<AllDown>,
    /// How long a backend that returns takes to its full share; `None`: none.
    pub slow_start: Option<Duration>,
    /// What becomes of the sessions of a backend that goes down.
    pub on_down: OnDown,
    /// Where more backends are found.
    pub discovery: Option<Discovery>,
    /// How it grows and shrinks by its reserve.
    pub scaling: Option<Scaling>,
    /// At least one that is not of the reserve, but where they are discovered.
    pub backends: Vec<Backend>,
}

impl Pool {
    /// The backend of this name.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// A pool of which only the name and the backends are said.
    #[must_use]
    pub fn of(name: impl Into<String>, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::default(),
            persist: None,
            max_connections: None,
            origins: Origins::default(),
            queue: Queue::default(),
            check: None,
            ejection: Some(Ejection::default()),
            panic_below: None,
            all_down: None,
            slow_start: None,
            on_down: OnDown::default(),
            discovery: None,
            scaling: None,
            backends,
        }
    }
}

/// What the operator wants of a backend. The words are HAProxy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// It takes its share.
    #[default]
    Ready,
    /// It keeps its sessions and takes no more.
    Drain,
    /// It is away: it keeps its sessions, takes no more and is not probed.
    Maint,
}

impl AdminState {
    /// Every state with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        (Self::Ready.as_str(), Self::Ready),
        (Self::Drain.as_str(), Self::Drain),
        (Self::Maint.as_str(), Self::Maint),
    ];

    /// Its name, in the file, in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// Connect attempts of a session when nothing else is said.
pub const ATTEMPTS: u8 = 3;
/// Grace of a stop when nothing else is said.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// The histogram log when nothing else is said.
pub const HISTOGRAM_LOG: &str = "mahoraga.hlog";

#[cfg(test)]
mod tests;
