//! What the balancer is told to do: validated, with every default filled in.
//!
//! The same [`Config`] comes from `config.ron` and from the flags of `mahoraga proxy`.

#![forbid(unsafe_code)]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;

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

pub use error::{ConfigError, Mistake, Warning};
pub use key::Key;
pub use load::{load, parse};
pub use source::{Place, Source};
pub use strategy::{
    FirstTier, Group, Hash, LeastTime, Persist, Predictive, SecondTier, Strategy, TwoTier,
};
pub use warnings::{DESCRIPTORS_RESERVED, Host, descriptors_needed, warnings};

/// A whole, valid configuration.
///
/// Invariant: names are unique among listeners, among pools and within a pool; every listener's
/// `pool` is an index into `pools`; every pool has a backend of weight above 0; `two_tier` has
/// every group that a backend of its pool names, and if one names a group, all do; a pool of
/// `sticky_round_robin` persists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Worker threads; `None`: one per CPU that the process may use.
    pub workers: Option<NonZeroU32>,
    /// Client connections in all; `None`: what the descriptor limit allows.
    pub max_connections: Option<NonZeroU32>,
    /// How long sessions may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// Where each session's line goes; `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// The file that SIGUSR1 appends histograms to (HdrHistogram V2 log format).
    pub histogram_log: PathBuf,
    /// What is listened on.
    pub listeners: Vec<Listener>,
    /// The groups of backends that listeners name.
    pub pools: Vec<Pool>,
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
    /// Connect attempts per session, each on another backend while there is one. 1 to 16.
    pub attempts: u8,
    /// Deadlines of its sessions.
    pub timeouts: Timeouts,
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
    /// At least one.
    pub backends: Vec<Backend>,
}

/// One address of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique within its pool; the address when the file names none.
    pub name: String,
    /// Where it is connected to.
    pub address: Address,
    /// Its share relative to the other backends, 0 to 256; 0: none.
    pub weight: u16,
    /// Connections at most, over all workers; `None`: no limit.
    pub max_connections: Option<NonZeroU32>,
    /// It is selected only while no other backend can be.
    pub backup: bool,
    /// Its group, for `two_tier`; other strategies ignore it.
    pub group: Option<String>,
}

impl Backend {
    /// A backend of which only the address is said.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            name: address.to_string(),
            address,
            weight: 1,
            max_connections: None,
            backup: false,
            group: None,
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
