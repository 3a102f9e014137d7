//! Binds the listeners' addresses, at the start and when a reload adds some; or takes sockets that
//! the service manager passed.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::address::Address;
use crate::config::{self, Config};
use crate::snapshot::Snapshot;
use crate::sys::{self, Binding, Bound};
use crate::time::{MS, SECOND};

use super::StartError;
use super::unix_sockets::{Opened, SocketSource};
use super::workers::{HeldSockets, Workers};

/// Listening sockets that the service manager passed. All workers accept from them.
#[derive(Debug, Default)]
pub struct Inherited {
    /// By the indices of their listeners in the configuration.
    pub by_listener: BTreeMap<usize, OwnedFd>,
    /// Those of no listener. They are kept, as a reload may add one: while the manager listens on
    /// the address, no other socket can.
    pub spare: Vec<(Address, OwnedFd)>,
}

/// Listens on all addresses of a configuration, except those of inherited sockets.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; then nothing listens.
pub(super) async fn bind_all(
    config: &Config,
    workers: usize,
    mut inherited: BTreeMap<usize, OwnedFd>,
    patience: &Patience,
) -> Result<Vec<Bound>, StartError> {
    let mut all = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let bound = match inherited.remove(&index) {
            Some(socket) => sys::inherit(socket, &listener.bind),
            None => {
                let bind = || sys::listen_all(&listener.bind, workers, listener.freebind);
                patience.bind(bind).await
            }
        };
        let bound = bound.map_err(|error| refused(listener, error))?;
        log_bound(listener, &bound);
        all.push(bound);
    }
    Ok(all)
}

/// How long a start retries while an address is in use, over all addresses. The rings of a killed
/// process hold its sockets until some 10 ms after its end.
pub(super) struct Patience {
    /// In ns of the monotonic clock.
    until: u64,
}

impl Patience {
    /// For what a start needs: a second from now on.
    pub(super) fn new() -> Self {
        let until = sys::monotonic() + PATIENCE;
        Self { until }
    }

    /// For what a start can do without: 50 ms from now on.
    pub(super) fn brief() -> Self {
        let until = sys::monotonic() + BRIEF;
        Self { until }
    }

    /// Binds, and retries while the address is in use.
    pub(super) async fn bind<T>(&self, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            let bound = bind();
            let until = match bound.as_ref().map_err(io::Error::kind) {
                Err(io::ErrorKind::AddrInUse) => self.until,
                _ => return bound,
            };
            if sys::monotonic() >= until {
                return bound.map_err(explained);
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
}

/// Says how to find out who uses an address, where the kernel says no more than that it is in use.
fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EADDRINUSE) {
        return error;
    }
    let sentence = "the address is in use: another process listens on it (`ss -ltnp` shows which), \
                    or a connection has it as its local address (`ss -tan`)";
    io::Error::new(io::ErrorKind::AddrInUse, sentence)
}

/// Listens on the addresses that a configuration adds to those of a snapshot. A listener that was
/// removed and comes back before its sockets are closed gets them back, with the clients that wait
/// in them; and sockets of listeners that are about to be removed block no other address. `opened`
/// has the sockets of new Unix listeners, and keeps them when this fails.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; then none of them listens.
pub(super) fn bind_new(
    workers: &Workers,
    present: &Snapshot,
    config: &Config,
    opened: &mut Opened,
) -> Result<Vec<Bound>, StartError> {
    let stays = present.staying(config);
    let stay: HashSet<u64> = stays.iter().flatten().map(|listener| listener.id).collect();
    let gone = present.listeners.iter().map(|listener| listener.id);
    let gone: Vec<u64> = gone.filter(|id| !stay.contains(id)).collect();
    let new = config.listeners.iter().zip(&stays);
    let new = new.filter(|(_, stays)| stays.is_none());
    // First all that can fail.
    let mut sources = Vec::new();
    for (listener, _) in new {
        let source = match &listener.bind {
            bind if workers.has_removed(bind) => {
                Ok(Some(SocketSource::HeldSockets(HeldSockets::Removed)))
            }
            bind @ Address::Unix(_) => can_take(opened, bind, &gone).map(|()| None),
            Address::Tcp(to) => {
                let how = Binding {
                    may_join: workers.may_block(&listener.bind, &gone),
                    freebind: listener.freebind,
                };
                let bound = sys::listen_port(*to, workers.len(), how).map_err(explained);
                bound.map(|bound| Some(SocketSource::New(bound)))
            }
        };
        sources.push((listener, source.map_err(|error| refused(listener, error))?));
    }
    let all = sources.into_iter().map(|(listener, source)| {
        let opened = || opened.new.remove(&listener.bind)?.ok();
        let bound = match source.or_else(opened) {
            Some(SocketSource::New(bound)) => Some(bound),
            Some(SocketSource::HeldSockets(held)) => workers.reuse(held, &listener.bind),
            None => None,
        };
        let lost = || refused(listener, io::ErrorKind::AddrNotAvailable.into());
        bound
            .ok_or_else(lost)
            .inspect(|bound| log_bound(listener, bound))
    });
    all.collect()
}

/// Whether a new Unix listener can take what was opened for it. `gone` are the listeners that are
/// about to be removed.
fn can_take(opened: &mut Opened, bind: &Address, gone: &[u64]) -> io::Result<()> {
    let error = match opened.new.get(bind) {
        Some(Ok(SocketSource::HeldSockets(HeldSockets::Leaving(id)))) if !gone.contains(id) => {
            let sentence = "another listener of this balancer has this socket, by another path";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, sentence));
        }
        Some(Ok(_)) => return Ok(()),
        Some(Err(_)) => opened.new.remove(bind).and_then(Result::err),
        None => None,
    };
    Err(error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Checks that connections to backends can begin at the pools' `source` addresses and ports. What
/// `before` has is not checked again: an address that has moved to another machine must not prevent
/// a change of something else.
///
/// # Errors
/// [`StartError::Source`], [`StartError::Transparency`] or [`StartError::SourcePorts`] of the first
/// that can't be used.
pub(super) fn probe_origins(config: &Config, before: Option<&Config>) -> Result<(), StartError> {
    let mut transparent = before.is_some_and(Config::is_transparent);
    let old = before.into_iter().flat_map(|before| &before.pools);
    let mut addresses = HashSet::new();
    let mut ranges = HashSet::new();
    for origins in old.map(|pool| &pool.origins) {
        addresses.extend(origins.addresses.iter());
        ranges.extend(origins.ports);
    }
    for pool in &config.pools {
        let new = pool.origins.addresses.iter();
        for &address in new.filter(|address| addresses.insert(*address)) {
            sys::probe_address(address).map_err(|error| StartError::Source {
                pool: pool.name.clone(),
                address,
                error,
            })?;
        }
        if pool.origins.at_client && !std::mem::replace(&mut transparent, true) {
            sys::probe_transparency().map_err(|error| StartError::Transparency {
                pool: pool.name.clone(),
                error,
            })?;
        }
        let new = pool.origins.ports.filter(|ports| ranges.insert(*ports));
        let Some(ports) = new else {
            continue;
        };
        if !sys::has_port_range() {
            log::warn!(
                "pool `{}`: source_ports does nothing: this kernel has no IP_LOCAL_PORT_RANGE, \
                 which came with Linux 6.3",
                pool.name
            );
        }
        // The kernel ignores ports outside its own range.
        sys::read_local_ports();
        let kernels = sys::local_ports();
        if !kernels.contains(&ports.first()) || !kernels.contains(&ports.last()) {
            return Err(StartError::SourcePorts {
                pool: pool.name.clone(),
                ports,
                first: *kernels.start(),
                last: *kernels.end(),
            });
        }
    }
    Ok(())
}

fn log_bound(listener: &config::Listener, bound: &Bound) {
    log::info!("listener `{}` on {}", listener.name, bound.address);
}

fn refused(listener: &config::Listener, error: io::Error) -> StartError {
    StartError::Bind {
        listener: listener.name.clone(),
        bind: listener.bind.clone(),
        error,
    }
}

const PATIENCE: u64 = SECOND;
const BRIEF: u64 = 50 * MS;
const TRY_EVERY: Duration = Duration::from_millis(20);
