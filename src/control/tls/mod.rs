//! The TLS of listeners and of pools: their certificates, keys and authorities, which are read
//! before a configuration that names them takes effect, and again when one of their files has
//! changed.
//!
//! What was read takes the place of what was before without a new listener or pool: connections
//! that stand go on. Where files can't be used those of before stay.

mod expiry;
mod files;
mod listeners;
mod owners;
mod pools;
mod revocation;
mod staple;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admin::model::TlsStatus;
use crate::config::Config;
use crate::tls::{TlsByOwner, TlsClient};

use super::StartError;
pub(in crate::control) use files::client_settings;
use listeners::ListenerTls;
use owners::{OwnerRead, Owners};
use pools::PoolTls;
pub(in crate::control) use warnings::warnings;

/// The TLS of all listeners and pools that have some.
#[derive(Debug, Default)]
pub(super) struct TlsInForce {
    listeners: Owners<ListenerTls>,
    pools: Owners<PoolTls>,
    by_owner: TlsByOwner,
}

/// What was read for a configuration.
#[derive(Default)]
pub(super) struct TlsRead {
    listeners: Vec<OwnerRead<ListenerTls>>,
    pools: Vec<OwnerRead<PoolTls>>,
}

/// What is to be told about certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TlsNews {
    /// New ones are in force.
    Read(String),
    /// They can't be used.
    Failed(String),
    /// One expires soon.
    Expires(String),
}

/// Reads the files of all listeners and pools. May take long.
///
/// # Errors
/// A listener or pool, and what is wrong with one of its files.
pub(super) fn read_files(config: &Config) -> Result<TlsRead, StartError> {
    Ok(TlsRead {
        listeners: owners::read_all(config)?,
        pools: owners::read_all(config)?,
    })
}

impl TlsRead {
    /// How many listeners and pools it is of.
    pub(super) fn len(&self) -> usize {
        self.listeners.len() + self.pools.len()
    }
}

impl TlsInForce {
    /// The TLS of a configuration whose files were read.
    pub(super) fn new(config: &Config, read: TlsRead) -> Self {
        let mut all = Self::default();
        all.offer(read);
        all.follow(config);
        all
    }

    /// What workers begin TLS by.
    pub(super) fn by_owner(&self) -> &TlsByOwner {
        &self.by_owner
    }

    /// What connections to backends of a pool begin TLS by.
    pub(super) fn client_of_pool(&self, name: &str) -> Option<Arc<TlsClient>> {
        self.pools.its(name).map(|its| Arc::clone(&its.client))
    }

    /// Takes files that were read for the next configuration.
    pub(super) fn offer(&mut self, read: TlsRead) {
        self.listeners.offer(read.listeners);
        self.pools.offer(read.pools);
    }

    /// Makes the TLS of a configuration. Answers whether workers begin TLS by something else now.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        self.listeners.follow(config);
        self.pools.follow(config);
        self.has_changed()
    }

    /// Looks at the files, each second, on another thread. Answers whether workers are to begin TLS
    /// by something else now, and with what is to be told.
    pub(super) fn tick(&mut self) -> (bool, Vec<TlsNews>) {
        let mut news = Vec::new();
        self.listeners.tick(&mut news);
        self.pools.tick(&mut news);
        (self.has_changed(), news)
    }

    fn has_changed(&mut self) -> bool {
        let now = TlsByOwner {
            listeners: self.listeners.by_name(|its| Arc::clone(&its.terminator)),
            pools: self.pools.by_name(|its| Arc::clone(&its.originator)),
        };
        let is_same = now.is_same(&self.by_owner);
        self.by_owner = now;
        !is_same
    }

    /// What is wrong with files now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.listeners.problems().chain(self.pools.problems())
    }

    /// The TLS of a listener, as the API shows it.
    pub(super) fn of_listener(&self, name: &str) -> Option<TlsStatus> {
        self.listeners.status(name, |its| &its.terminator.counts)
    }

    /// The TLS of pools, by their names, as the API shows it.
    pub(super) fn of_pools(&self) -> BTreeMap<String, TlsStatus> {
        let names = self.by_owner.pools.keys();
        let all = names.filter_map(|name| {
            let status = self.pools.status(name, |its| &its.originator.counts);
            Some((name.clone(), status?))
        });
        all.collect()
    }
}
