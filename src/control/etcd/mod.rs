//! etcd: the keys under a prefix, over its JSON gateway (`/v3/kv/range`, `/v3/watch`).
//!
//! All of it runs on a thread of its own ([`spawn`]): the control thread gets what was read,
//! checked and bounded, and never waits. A [`Watch`] lists the keys and then follows their changes;
//! after each disconnect, and when its revision was compacted, it lists again. It does not know
//! what values mean: a function reads each, so that no more than a page of them is kept as text.

mod client;
mod connection;
mod files;
mod keys;
mod thread;
mod watch;
mod wire;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use thiserror::Error;

use super::dial::DialError;
use crate::admin::model::EtcdStatus;
use crate::config::{Etcd, bounded};

pub(super) use keys::{Gathered, Keys, STEPS};
pub(super) use thread::spawn;
pub(super) use watch::{KeyNews, Step, Watch, WatchPace};
pub(super) use writer::KeyWriter;

/// Why etcd does not answer a question, or gives an answer that is of no use.
#[derive(Debug, Error)]
pub(super) enum EtcdError {
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
    #[error("its answer is none of etcd's: {0}")]
    Garbage(String),
    /// The rest of a list was compacted: it begins again.
    #[error("what was being listed was compacted")]
    Compacted,
}

impl EtcdError {
    fn broken(error: &dyn std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What is counted over all prefixes that are followed.
#[derive(Debug, Default)]
pub(super) struct EtcdCounts {
    requests: AtomicU64,
    failures: AtomicU64,
    changes: AtomicU64,
    lists: AtomicU64,
    followed: AtomicI64,
    watching: AtomicI64,
}

impl EtcdCounts {
    /// As the API shows it.
    pub(super) fn status(&self) -> EtcdStatus {
        let now = |gauge: &AtomicI64| u64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(0);
        EtcdStatus {
            prefixes: now(&self.followed),
            watched: now(&self.watching),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            changes: self.changes.load(Ordering::Relaxed),
        }
    }

    fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// Counts in a gauge, until it is dropped.
struct Counted {
    counts: Arc<EtcdCounts>,
    gauge: fn(&EtcdCounts) -> &AtomicI64,
}

impl Counted {
    fn new(counts: &Arc<EtcdCounts>, gauge: fn(&EtcdCounts) -> &AtomicI64) -> Self {
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

/// What is wrong with the files of a cluster, by the name of the setting, if anything. May take
/// long.
pub(super) fn mistake_in(source: &Etcd) -> Option<(&'static str, String)> {
    let is_password = |path: &Path| source.password_file.as_deref() == Some(path);
    let mistakes = source.files().filter_map(|(setting, path)| {
        let read = match is_password(path) {
            true => files::password(path).map(drop),
            false => files::text(path).map(drop),
        };
        Some((setting, read.err()?))
    });
    let is_secured = source.endpoints.iter().any(|its| its.starts_with("https:"));
    let connects = || {
        let why = is_secured.then(|| files::connector(source).err());
        why.flatten().map(|why| ("ca", why))
    };
    let found = mistakes.into_iter().next().or_else(connects);
    found.map(|(setting, why)| (setting, bounded(why)))
}

#[cfg(test)]
mod tests;
