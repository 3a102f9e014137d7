//! Listening: addresses are bound here, before anything depends on it, at the start and when a
//! reload brings new ones; sockets can be handed in as well.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::config::{self, Config};
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound};

use super::StartError;

/// Sockets that listen already, by the places of their listeners in the configuration. All
/// workers accept from them.
pub type Inherited = BTreeMap<usize, OwnedFd>;

/// Listens on a listener's address for so many workers. Clients can connect from here on.
///
/// # Errors
/// [`StartError::Bind`]; nothing listens then.
pub(super) fn bind(listener: &config::Listener, workers: usize) -> Result<Bound, StartError> {
    let bound = sys::listen_all(&listener.bind, workers);
    told(listener, bound)
}

/// Listens on all addresses of a configuration but for those that are listened on already.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; nothing listens then.
pub(super) fn bind_all(
    config: &Config,
    workers: usize,
    mut inherited: Inherited,
) -> Result<Vec<Bound>, StartError> {
    let listeners = config.listeners.iter().enumerate();
    let bound = listeners.map(|(index, listener)| match inherited.remove(&index) {
        Some(socket) => told(listener, sys::inherit(socket, &listener.bind)),
        None => bind(listener, workers),
    });
    bound.collect()
}

/// Listens on the addresses that a configuration adds to those of a snapshot.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; none of them listens then.
pub(super) fn bind_new(
    present: &Snapshot,
    config: &Config,
    workers: usize,
) -> Result<Vec<Bound>, StartError> {
    let listeners = config.listeners.iter().zip(present.staying(config));
    let new = listeners.filter(|(_, stays)| stays.is_none());
    new.map(|(listener, _)| bind(listener, workers)).collect()
}

fn told(listener: &config::Listener, bound: std::io::Result<Bound>) -> Result<Bound, StartError> {
    let bound = bound.map_err(|error| StartError::Bind {
        listener: listener.name.clone(),
        bind: listener.bind.clone(),
        error,
    })?;
    log::info!("listener `{}` on {}", listener.name, bound.address);
    Ok(bound)
}
