//! Servers that are asked for shared state over HTTP: etcd, Consul, Kubernetes.
//!
//! What they have in common: endpoints that take turns, TLS by files that rotate, answers and lines
//! that are bounded, and rounds that follow what a server has, with pauses that grow
//! ([`follow`]). All of it runs on a thread of its own ([`spawn`]): the control thread gets what
//! was read, checked and bounded, and never waits. What is known of each key stands in [`Keys`].

mod connection;
mod endpoints;
mod files;
mod keys;
mod lists;
mod pace;
mod rotating;
mod rounds;
#[cfg(test)]
pub(super) mod stand_in;
mod thread;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::Deserialize;
use thiserror::Error;

use super::dial::DialError;
use crate::address::Address;
use crate::admin::model::RegistryStatus;
use crate::config::{bounded, values};

pub(super) use connection::{Connection, Lines, Request, stream_error_words};
pub(super) use endpoints::Endpoints;
pub(super) use files::{
    authorities, chain, contents, mistake_in, pair_fault, pem_fault, private_key, roots, unfit,
    unreadable,
};
pub(crate) use keys::GATHER;
pub(super) use keys::{Gathered, KeyNews, Keys, Mistakes, STEPS, Step};
pub(super) use lists::few;
pub(super) use pace::{WatchPace, jittered};
pub(super) use rotating::Secret;
pub(super) use rounds::{Round, Rounds, follow};
pub(super) use thread::spawn;

/// Why a server does not answer a question, or gives an answer that is of no use.
#[derive(Debug, Error)]
pub(super) enum RemoteError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    File(String),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Late(std::time::Duration),
    /// It answers with an error.
    #[error("it answers \"{message}\" ({status})")]
    Refused { status: u16, message: String },
    #[error("its answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("cannot read its answer: {0}")]
    Garbage(String),
    /// The rest of a list is no longer there: it begins again.
    #[error("what was being listed has expired")]
    Expired,
}

impl RemoteError {
    pub(in crate::control) fn broken(error: &dyn std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Reads an answer in JSON.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(text).map_err(|error| RemoteError::Garbage(error.to_string()))
}

/// What is counted of one kind of server, over all that is followed there.
#[derive(Debug, Default)]
pub(super) struct RemoteCounts {
    pub(super) requests: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) lists: AtomicU64,
    pub(super) followed: AtomicI64,
    pub(super) watching: AtomicI64,
}

impl RemoteCounts {
    /// As the API shows those of a registry of services.
    pub(super) fn registry(&self) -> RegistryStatus {
        RegistryStatus {
            services: Self::now(&self.followed),
            watched: Self::now(&self.watching),
            requests: Self::total(&self.requests),
            failures: Self::total(&self.failures),
            lists: Self::total(&self.lists),
            changes: Self::total(&self.changes),
        }
    }

    pub(super) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// The value of a counter.
    pub(super) fn total(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// The value of a gauge.
    pub(super) fn now(gauge: &AtomicI64) -> u64 {
        u64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// A text as part of a path or a query: all but the unreserved characters of RFC 3986, section 2.3,
/// is percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The address of a server, by the rules of a file. Host names are refused, as no task resolves
/// them.
pub(super) fn server_address(ip: &str, port: u16) -> Result<Address, String> {
    let ip: IpAddr = ip.parse().map_err(|_| {
        let ip = bounded(ip.to_owned());
        format!("invalid address `{ip}`: expected an IP; names are for discovery by `dns`")
    })?;
    let read = values::backend_at(&SocketAddr::new(ip, port).to_string());
    read.map(|backend| backend.address)
        .map_err(|error| error.to_string())
}

/// Counts in a gauge, until it is dropped.
pub(super) struct Counted {
    counts: Arc<RemoteCounts>,
    gauge: fn(&RemoteCounts) -> &AtomicI64,
}

impl Counted {
    pub(super) fn new(counts: &Arc<RemoteCounts>, gauge: fn(&RemoteCounts) -> &AtomicI64) -> Self {
        gauge(counts).fetch_add(1, Ordering::Relaxed);
        let counts = Arc::clone(counts);
        Self { counts, gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}
