//! etcd: the keys under a prefix, over its JSON gateway (`/v3/kv/range`, `/v3/watch`).
//!
//! All of it runs on the thread of [`super::remote`]. A [`Watch`] lists the keys and then follows
//! their changes; after each disconnect, and when its revision was compacted, it lists again. It
//! does not know what values mean: a function reads each, so that no more than a page of them is
//! kept as text.

mod client;
mod ledger;
mod watch;
mod wire;
mod writer;

use super::remote::{self, RemoteCounts};
use crate::admin::model::EtcdStatus;
use crate::config::Etcd;

pub(super) use ledger::LedgerKeeper;
pub(super) use watch::Watch;
pub(super) use writer::KeyWriter;

/// What is counted of it, as the API shows it.
pub(super) fn status(counts: &RemoteCounts) -> EtcdStatus {
    EtcdStatus {
        prefixes: RemoteCounts::now(&counts.followed),
        watched: RemoteCounts::now(&counts.watching),
        requests: RemoteCounts::total(&counts.requests),
        failures: RemoteCounts::total(&counts.failures),
        lists: RemoteCounts::total(&counts.lists),
        changes: RemoteCounts::total(&counts.changes),
    }
}

/// What is wrong with the files of a cluster, by the name of the setting, if anything. May take
/// long.
pub(super) fn mistake_in(source: &Etcd) -> Option<(&'static str, String)> {
    let password = source.password_file.as_deref();
    let password = password.map(|path| ("password_file", path));
    remote::mistake_in(&source.server(), password)
}

#[cfg(test)]
mod tests;
