//! Listening: addresses are bound here, before anything depends on it, at the start and when a
//! reload brings new ones; sockets can be handed in as well.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::config::{self, Config};
use crate::snapshot::{Listener, Snapshot};
use crate::sys::{self, Bound};

use super::StartError;
use super::workers::{Held, Workers};

/// Sockets that listen already, as the service manager has made them. All workers accept from them.
#[derive(Debug, Default)]
pub struct Inherited {
    /// By the places of their listeners in the configuration.
    pub by_listener: BTreeMap<usize, OwnedFd>,
    /// Those of no listener: a reload may bring one, and while the manager listens there no other
    /// socket can.
    pub spare: Vec<(Address, OwnedFd)>,
}

/// Listens on all addresses of a configuration but for those that are listened on already.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; nothing listens then.
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
                let bind = || sys::listen_all(&listener.bind, workers, false);
                patience.bind(bind).await
            }
        };
        all.push(told(listener, bound)?);
    }
    Ok(all)
}

/// How long the start tries again while an address is in use, in all. The sockets of a process that
/// was killed are closed some 10 ms after it is gone: until then its rings hold them.
pub(super) struct Patience {
    /// In ns of the monotonic clock.
    until: u64,
}

impl Patience {
    /// From now on.
    pub(super) fn new() -> Self {
        let until = sys::monotonic() + PATIENCE;
        Self { until }
    }

    /// From now on, for what a start can do without.
    pub(super) fn brief() -> Self {
        let until = sys::monotonic() + BRIEF;
        Self { until }
    }

    /// Binds, as soon as that can be done.
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

/// Says what an address in use means, where the kernel says no more than that.
fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EADDRINUSE) {
        return error;
    }
    let sentence = "the address is in use: another process listens on it (`ss -ltnp` shows which)";
    io::Error::new(io::ErrorKind::AddrInUse, sentence)
}

/// Listens on the addresses that a configuration adds to those of a snapshot. A listener that comes
/// back while the sockets of its address are still there gets them, with the clients in them; and
/// what is about to leave is in the way of no other address. `bound` are sockets that listen on
/// such addresses already.
///
/// # Errors
/// [`StartError::Bind`] of the first that fails; none of them listens then.
pub(super) fn bind_new(
    workers: &Workers,
    present: &Snapshot,
    config: &Config,
    mut bound: Vec<Bound>,
) -> Result<Vec<Bound>, StartError> {
    let stays = present.staying(config);
    let is_gone = |old: &&Arc<Listener>| !stays.iter().flatten().any(|one| one.id == old.id);
    let gone = present.listeners.iter().filter(is_gone);
    let gone: Vec<u64> = gone.map(|listener| listener.id).collect();
    let new = config.listeners.iter().zip(&stays);
    let new = new.filter(|(_, stays)| stays.is_none());
    // What can fail comes first.
    let mut sources = Vec::new();
    for (listener, _) in new {
        let ready = bound.iter().position(|its| its.address == listener.bind);
        if let Some(place) = ready {
            let ready = told(listener, Ok(bound.swap_remove(place)))?;
            sources.push((listener, Source::Fresh(ready)));
            continue;
        }
        let source = match workers.find_held(&listener.bind, &gone) {
            Some(held) => Source::Held(held),
            None => {
                let is_ours = workers.is_in_the_way(&listener.bind, &gone);
                let bound = sys::listen_all(&listener.bind, workers.len(), is_ours);
                Source::Fresh(told(listener, bound.map_err(explained))?)
            }
        };
        sources.push((listener, source));
    }
    let all = sources.into_iter().map(|(listener, source)| match source {
        Source::Fresh(bound) => Ok(bound),
        Source::Held(held) => {
            let back = workers.take_over(held, &listener.bind);
            let lost = || io::ErrorKind::AddrNotAvailable.into();
            told(listener, back.ok_or_else(lost))
        }
    });
    all.collect()
}

/// Where a listener gets its sockets from.
enum Source {
    Fresh(Bound),
    Held(Held),
}

/// Connections to backends can begin where the pools say: this machine has those addresses, and its
/// kernel takes those ports. What was in force before is not tried again: an address that has moved
/// to another machine must not stand in the way of a change of something else.
///
/// # Errors
/// [`StartError::Source`] or [`StartError::SourcePorts`] of the first that can't be.
pub(super) fn probe_origins(config: &Config, before: Option<&Config>) -> Result<(), StartError> {
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
        // Beyond its own range the kernel heeds no other.
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

fn told(listener: &config::Listener, bound: io::Result<Bound>) -> Result<Bound, StartError> {
    let bound = bound.map_err(|error| StartError::Bind {
        listener: listener.name.clone(),
        bind: listener.bind.clone(),
        error,
    })?;
    log::info!("listener `{}` on {}", listener.name, bound.address);
    Ok(bound)
}

/// One second, in ns.
const PATIENCE: u64 = 1_000_000_000;
/// The same for what a start can do without: 50 ms, in ns.
const BRIEF: u64 = 50_000_000;
const TRY_EVERY: Duration = Duration::from_millis(20);
