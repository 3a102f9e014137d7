//! The control thread: starts the workers, listens to signals, writes logs, and ends it all.

#![forbid(unsafe_code)]

mod access_log;
mod admin_listeners;
mod announce;
pub(crate) mod aside;
mod at_start;
mod audit;
mod balancer;
mod calls;
pub mod capacity;
mod declared;
mod discovery;
pub mod events;
mod file_watch;
pub mod health;
mod health_cycle;
mod histograms;
mod listening;
mod metrics;
mod pools;
mod preflight;
mod publisher;
mod recent;
mod reload;
mod remedy;
pub mod roster;
mod scaling;
mod shortages;
mod start;
mod status;
mod supervise;
mod systemd;
mod webhook;
mod workers;

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::admin::{self, TokenError};
use crate::config::Config;
use crate::fault;
use crate::origin::Ports;
use crate::ring::{self, SetupError};
use crate::sys;

use access_log::{AccessLogWriter, Log, Orders, Sink};
use admin_listeners::AdminListeners;
pub(crate) use audit::TARGET as AUDIT_TARGET;
pub(crate) use audit::is_misleading;
use balancer::Balancer;
use discovery::Discoveries;
pub(crate) use histograms::TARGET as HISTOGRAMS_TARGET;
pub use listening::Inherited;
use listening::Patience;
pub use preflight::preflight;
pub use reload::{Reread, Seen};
use supervise::Signals;

/// Why the balancer did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// io_uring is not to be had.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// A listener's address can't be bound.
    #[error(
        "listener `{listener}` can't listen on {bind}: {error}{}",
        remedy::of_bind(error)
    )]
    Bind {
        /// Its name.
        listener: String,
        /// Its address.
        bind: Address,
        /// What the kernel says.
        error: io::Error,
    },
    /// Connections to backends can't begin at an address.
    #[error(
        "pool `{pool}` can't use the source address {address}: {error}; give it to an interface of \
         this machine, or take it out of `source`"
    )]
    Source {
        /// The pool's name.
        pool: String,
        /// As configured.
        address: IpAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// Connections to backends can't begin at these ports.
    #[error(
        "pool `{pool}` can't use source_ports {ports}: the kernel takes local ports from {first} \
         to {last} only; name a part of these, or widen net.ipv4.ip_local_port_range"
    )]
    SourcePorts {
        /// The pool's name.
        pool: String,
        /// As configured.
        ports: Ports,
        /// The kernel's first one,
        first: u16,
        /// and its last.
        last: u16,
    },
    /// The access log can't be opened.
    #[error("access log {path} can't be opened: {error}{}", remedy::of_file(error))]
    AccessLog {
        /// As configured.
        path: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// Probes can't use the certificates of a file.
    #[error("pool `{pool}`: check: {why}")]
    Certificates {
        /// The pool's name.
        pool: String,
        /// The file, and what is wrong with it.
        why: String,
    },
    /// Not all workers could work.
    #[error("invalid memory: expected at least {least} for {workers} workers")]
    Memory {
        /// Of these workers.
        least: String,
        /// As many as there would be.
        workers: u32,
    },
    /// The admin API can't be had where the configuration wants it.
    #[error("admin: {at}: {error}")]
    Admin {
        /// The socket, address or file.
        at: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// A token of the admin API can't be had.
    #[error("admin: {0}")]
    Token(#[from] TokenError),
    /// A thread, an eventfd or the control thread's runtime can't be made.
    #[error("{what}: {error}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

impl StartError {
    /// Whether the configuration may be right, and this machine lacks what it names: a later start
    /// may succeed.
    #[must_use]
    pub fn is_machines(&self) -> bool {
        match self {
            Self::Source { .. } | Self::SourcePorts { .. } => true,
            Self::Bind { error, .. }
            | Self::AccessLog { error, .. }
            | Self::Admin { error, .. } => fault::is_passing_lack(error),
            Self::Ring(_)
            | Self::Certificates { .. }
            | Self::Memory { .. }
            | Self::Token(_)
            | Self::Thread { .. } => false,
        }
    }

    /// The exit code of the program once [`preflight`] found nothing: 3 when io_uring is not to be
    /// had, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ring(_) => 3,
            Self::Bind { .. }
            | Self::Source { .. }
            | Self::SourcePorts { .. }
            | Self::AccessLog { .. }
            | Self::Admin { .. }
            | Self::Token(_)
            | Self::Certificates { .. }
            | Self::Memory { .. }
            | Self::Thread { .. } => 1,
        }
    }
}

/// Runs the balancer until SIGTERM, SIGINT or SIGQUIT have ended its last session. `ready` is
/// called once every worker accepts. The calling thread becomes the control thread. Signals that
/// [`sys::hold_signals`] held back are handled from here on. Chance begins with `seed`.
///
/// SIGHUP opens the files of the logs again, which lets them be rotated, and reads the
/// configuration again where `reread` can; SIGUSR1 writes histograms; SIGUSR2 is reserved. A second
/// signal to stop ends the process at once, with 128 + its number.
///
/// # Errors
/// [`StartError`]; once started, it does not fail.
pub fn run(
    config: &Config,
    reread: Option<Reread>,
    seed: u64,
    ready: impl FnOnce(),
) -> Result<(), StartError> {
    // From here on a signal waits for its handler, as what is made now is removed in order.
    sys::replace_handlers();
    // Before all that takes time: of two that start on one socket at the same moment, one has
    // ended before the other listens.
    let socket = admin_listeners::claim(config.admin.as_ref())?;
    let sink = config.access_log.as_ref().map(Sink::open).transpose()?;
    // Before the control thread's own ring, which would panic where there is none.
    let features = ring::probe()?;
    let inherited = systemd::activated(&config.listeners).map_err(|error| StartError::Thread {
        what: "the descriptors that were handed in can't be taken",
        error,
    })?;
    tokio_uring::start(async move {
        let thread = |error| StartError::Thread {
            what: "signals can't be awaited",
            error,
        };
        let mut signals = Signals::new().map_err(thread)?;
        sys::release_signals();
        let (handle, calls) = admin::Handle::new();
        let patience = Patience::new();
        let listeners = AdminListeners::open(config.admin.as_ref(), socket, &patience).await?;
        // What the admin API took of it is not the listeners'.
        let patience = Patience::new();
        let mut discoveries = Discoveries::new();
        let resolved = discoveries.begin_with(config).await;
        let Inherited { by_listener, spare } = inherited;
        let workers = start::start(&resolved, features, by_listener, &patience, seed).await?;
        let workers = Rc::new(workers);
        workers.keep_spare(spare);
        let orders = Rc::new(Orders::default());
        let records = workers.records.clone();
        let writer = AccessLogWriter::new(Log { sink, records }, &workers.doorbell, &orders);
        let log = tokio_uring::spawn(writer.run(workers.stats.clone()));
        let events = handle.events();
        let tokens = listeners.tokens.clone();
        let known = (config, discoveries);
        let mut balancer = Balancer::new(known, &workers, (reread, tokens), events, &orders)?;
        let listeners = listeners.serve(&handle);
        ready();
        balancer.supervise(&mut signals, calls).await;
        listeners.close().await;
        workers.join();
        workers.doorbell.close();
        // Whoever reads the log may have stopped reading.
        let _ = tokio::time::timeout(LOG_GRACE, log).await;
        Ok(())
    })
}

/// How long a stuck reader of the access log delays the end.
const LOG_GRACE: Duration = Duration::from_secs(2);
