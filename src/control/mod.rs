//! The control thread: starts the workers, answers signals and the admin API, probes backends,
//! writes the logs, and stops the workers at the end.

#![forbid(unsafe_code)]

mod access_lists;
mod access_log;
mod admin_listeners;
mod announce;
pub(crate) mod aside;
mod at_start;
mod audit;
mod balancer;
mod bans;
mod calls;
pub mod capacity;
mod consul;
mod declared;
mod dial;
mod discovery;
mod etcd;
pub mod events;
mod explain;
mod file_watch;
mod fleet;
pub mod health;
mod health_cycle;
mod histograms;
mod history;
mod in_force;
mod kubernetes;
mod leaving;
mod list_files;
mod listening;
mod metrics;
mod names;
mod overloads;
mod peers;
mod pools;
mod preflight;
mod publisher;
mod recent;
mod refusals;
mod regrets;
mod reload;
mod remedy;
mod remote;
mod replies;
pub mod roster;
pub mod sandbox;
mod scaling;
mod shortages;
mod start;
mod status;
mod supervise;
mod syn_filter;
mod systemd;
mod tcp_pressure;
mod tls;
mod track_file;
mod unix_sockets;
mod watchdog;
mod webhook;
mod workers;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
use crate::admin::{self, TokenError};
use crate::config::Config;
use crate::fault;
use crate::origin::Ports;
use crate::ring::{self, Features, SetupError};
use crate::sys::{self, SocketFile};

use access_lists::AccessLists;
pub use access_lists::read_access_list;
use access_log::{AccessLogWriter, Log, Orders, Sink};
use admin_listeners::AdminListeners;
pub use admin_listeners::token_file;
pub(crate) use audit::TARGET as AUDIT_TARGET;
use balancer::Balancer;
use bans::KeptBans;
pub use bans::{read_imported_bans, rewrite_kept_bans};
use discovery::Discoveries;
use histograms::Measurements;
pub(crate) use histograms::TARGET as HISTOGRAMS_TARGET;
pub use history::HistoryReader;
pub(crate) use history::HistoryRefusal;
use history::Recorder;
pub use listening::Inherited;
use listening::Patience;
pub use preflight::{preflight, start_warnings, unreadable};
pub use reload::{Reread, Seen};
pub(crate) use remote::GATHER;
use supervise::Signals;
use tls::TlsInForce;

/// Why the balancer did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// io_uring is not available.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// A listener's address can't be bound.
    #[error(
        "{}cannot listen on {bind}: {error}{}",
        of_listener(listener, bind),
        remedy::of_bind(error, bind)
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
        "pool `{pool}`: cannot connect from {address}: {error}; give the address to an interface \
         of this machine, or remove it from `source`"
    )]
    Source {
        /// The pool's name.
        pool: String,
        /// As configured.
        address: IpAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// Connections to backends can't begin at the addresses of clients.
    #[error(
        "pool `{pool}`: cannot connect from clients' addresses (source: \"client\"): {error}{}",
        remedy::of_transparency(error)
    )]
    Transparency {
        /// The pool's name.
        pool: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// Connections to backends can't begin at these ports.
    #[error(
        "pool `{pool}`: cannot connect from source_ports {ports}: expected a part of the kernel's \
         local ports, {first} to {last}; widen net.ipv4.ip_local_port_range for others"
    )]
    SourcePorts {
        /// The pool's name.
        pool: String,
        /// As configured.
        ports: Ports,
        /// The first of the kernel's local ports.
        first: u16,
        /// The last of them.
        last: u16,
    },
    /// The access log can't be opened.
    #[error("cannot open the access log {path}: {error}{}", remedy::of_file(error))]
    AccessLog {
        /// As configured.
        path: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// The file of an access list can't be read, or holds a mistake.
    #[error("access list file {0}")]
    AccessList(String),
    /// The file of imported bans can't be read, or holds a mistake.
    #[error("imported bans: {0}")]
    ImportedBans(String),
    /// The file that keeps bans can't be read, or can't be replaced.
    #[error("cannot keep bans in {path}: {error}{}", remedy::of_file(error))]
    BansFile {
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
        /// The path of the setting.
        setting: String,
        /// The file, and what is wrong with it.
        why: String,
    },
    /// A listener or a pool can't speak TLS with the files that its settings name.
    #[error("{owner}: tls: {why}")]
    Tls {
        /// Which one.
        owner: String,
        /// The path of the setting, such as `pools[0].tls.verify`.
        setting: String,
        /// The file, and what is wrong with it.
        why: String,
    },
    /// The configured memory is too little for the workers.
    #[error("invalid memory: expected at least {least} for {workers} workers")]
    Memory {
        /// What they need at least.
        least: String,
        /// How many workers there would be.
        workers: u32,
    },
    /// The admin API can't listen where the configuration says, or its audit log can't be opened.
    #[error("admin: cannot make {at}: {error}{}", remedy::of_file(error))]
    Admin {
        /// The socket, address or file.
        at: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// The user to run as can't make the default socket of the admin API.
    #[error(
        "admin: cannot make {at}: {error}; {}, name a socket where it may by \
         admin: (socket: \"PATH\"), or do without by admin: \"off\"",
        remedy::of_denial("its directory")
    )]
    DefaultAdmin {
        /// The socket.
        at: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// The address for metrics can't be listened on.
    #[error(
        "metrics: cannot listen on {bind}: {error}{}",
        remedy::of_bind(error, &Address::Tcp(*bind))
    )]
    Metrics {
        /// As configured.
        bind: SocketAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// A token of the admin API or of the listener for metrics can't be read.
    #[error("{of}: {error}")]
    Token {
        /// The setting that it belongs to.
        of: &'static str,
        /// What is wrong with its file.
        error: TokenError,
    },
    /// The user to run as does not exist.
    #[error("invalid user `{name}`: expected a user of this machine; create it, or name another")]
    User {
        /// As configured.
        name: String,
    },
    /// The user to run as can't open a file that is opened again while the balancer runs.
    #[error(
        "cannot open {path} as user `{user}`: permission denied; the balancer opens it again while \
         it runs: {}",
        remedy::of_unreadable()
    )]
    Unreadable {
        /// The file.
        path: String,
        /// The user's name.
        user: String,
    },
    /// A thread, an eventfd or the like can't be made.
    #[error("cannot {what}: {error}")]
    Thread {
        /// What was to be done.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

/// The beginning of a sentence about a listener; a name that is its address stands there already.
fn of_listener(name: &str, bind: &Address) -> String {
    if name == bind.to_string() {
        String::new()
    } else {
        format!("listener `{name}`: ")
    }
}

impl StartError {
    /// Whether the configuration may be right while this machine lacks what it names: then a later
    /// start may succeed.
    #[must_use]
    pub fn is_machines(&self) -> bool {
        match self {
            Self::Source { .. } | Self::Transparency { .. } | Self::SourcePorts { .. } => true,
            Self::Bind { error, .. }
            | Self::AccessLog { error, .. }
            | Self::BansFile { error, .. }
            | Self::Admin { error, .. }
            | Self::DefaultAdmin { error, .. }
            | Self::Metrics { error, .. } => fault::is_passing_lack(error),
            Self::Ring(_)
            | Self::AccessList(_)
            | Self::ImportedBans(_)
            | Self::Certificates { .. }
            | Self::Tls { .. }
            | Self::Memory { .. }
            | Self::Token { .. }
            | Self::User { .. }
            | Self::Unreadable { .. }
            | Self::Thread { .. } => false,
        }
    }

    /// The path of the setting that it is about, where that is known.
    #[must_use]
    pub fn setting(&self) -> Option<&str> {
        if let Self::Certificates { setting, .. } | Self::Tls { setting, .. } = self {
            return Some(setting);
        }
        None
    }

    /// The exit code of the program once [`preflight`] found nothing: 3 when io_uring is not
    /// available, 2 when the configured user does not exist, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ring(_) => 3,
            Self::User { .. } => 2,
            Self::Bind { .. }
            | Self::AccessList(_)
            | Self::ImportedBans(_)
            | Self::Source { .. }
            | Self::Transparency { .. }
            | Self::SourcePorts { .. }
            | Self::AccessLog { .. }
            | Self::BansFile { .. }
            | Self::Admin { .. }
            | Self::DefaultAdmin { .. }
            | Self::Metrics { .. }
            | Self::Token { .. }
            | Self::Certificates { .. }
            | Self::Tls { .. }
            | Self::Memory { .. }
            | Self::Unreadable { .. }
            | Self::Thread { .. } => 1,
        }
    }
}

/// Runs the balancer until SIGTERM, SIGINT or SIGQUIT stops it and its last session has ended.
/// Calls `ready` once every worker accepts. The calling thread becomes the control thread, and
/// handles the signals that [`sys::hold_signals`] held back. Random numbers start from `seed`.
///
/// SIGHUP opens the files of the logs again, so that they can be rotated, and reloads the
/// configuration, if there is a `reread`; SIGUSR1 writes histograms; SIGUSR2 is reserved. A second
/// signal to stop ends the process at once, with exit code 128 + its number.
///
/// # Errors
/// [`StartError`]: the balancer did not start.
pub fn run(
    config: &Config,
    reread: Option<Reread>,
    seed: u64,
    ready: impl FnOnce(),
) -> Result<(), StartError> {
    // From here on a signal waits for its handler, as what is made now is removed in order.
    sys::replace_handlers();
    let prepared = Prepared::new(config)?;
    let measurements = Rc::new(Measurements::new(config.histogram_log.clone()));
    let measured = Rc::clone(&measurements);
    tokio_uring::start(measured.measure(async move {
        let thread = |error| StartError::Thread {
            what: "handle signals",
            error,
        };
        let mut signals = Signals::new().map_err(thread)?;
        sys::release_signals();
        let (handle, calls) = admin::Handle::new();
        let patience = Patience::new();
        let mut listeners = AdminListeners::open(config, prepared.socket, &patience).await?;
        // The time that the admin API took does not count for the listeners.
        let patience = Patience::new();
        let mut discoveries = Discoveries::new(handle.events());
        let resolved = discoveries.begin_with(config).await;
        let access = AccessLists::new(config, prepared.access_files);
        let tls = TlsInForce::new(config, prepared.tls_files);
        let Inherited { by_listener, spare } = prepared.inherited;
        let start_with = (&resolved, access.lists(), tls.by_owner());
        let found = (prepared.features, &prepared.bans);
        let workers = start::start(start_with, found, by_listener, &patience, seed).await?;
        sandbox::end_start(reread.is_some());
        let workers = Rc::new(workers);
        workers.keep_spare(spare);
        let orders = Rc::new(Orders::default());
        let (sink, records) = (prepared.sink, workers.records.clone());
        let log = Log { sink, records };
        let stats = workers.stats.clone();
        let writer = AccessLogWriter::new(log, &workers.log_bell, &orders, stats);
        let log = tokio_uring::spawn(writer.run());
        let history = Recorder::start(&config.history, handle.events())?;
        let handle = handle.with_history(history.reader());
        let events = handle.events();
        let (tokens, socket) = (listeners.tokens.clone(), listeners.socket.take());
        let known = (config, discoveries, (access, tls));
        let kept = (&orders, &measurements, history);
        let mut balancer = Balancer::new(known, &workers, (reread, tokens, socket), events, kept)?;
        balancer.begin_bans(prepared.bans);
        let listeners = listeners.serve(&handle);
        ready();
        balancer.supervise(&mut signals, calls).await;
        listeners.close().await;
        workers.join();
        workers.remove_files(None);
        balancer.fleet.limits.leave().await;
        balancer.track_file.finish().await;
        balancer.keep_bans().await;
        balancer.end_history();
        workers.log_bell.close();
        // The reader of a pipe may have stopped reading.
        let _ = tokio::time::timeout(LOG_GRACE, log).await;
        Ok(())
    }))
}

/// What is made before the control thread has its loop.
struct Prepared {
    socket: Option<SocketFile>,
    sink: Option<Sink>,
    access_files: Vec<access_lists::PrefixesRead>,
    tls_files: tls::TlsRead,
    bans: KeptBans,
    features: Features,
    inherited: Inherited,
}

impl Prepared {
    fn new(config: &Config) -> Result<Self, StartError> {
        // Before all that takes time: of two that start on one socket at the same moment, one has
        // usually ended before the other listens.
        let socket = admin_listeners::claim(config.admin.as_ref())?;
        let sink = config.access_log.as_ref().map(Sink::open).transpose()?;
        sink.iter().for_each(Sink::warn_if_shared);
        let access_files = access_lists::read_files(config, &access_lists::KnownPrefixes::new())?;
        let tls_files = tls::read_files(config)?;
        let bans = KeptBans::read(config)?;
        // Before the control thread's own ring, which panics where io_uring is not available.
        let features = ring::probe()?;
        let inherited = systemd::activated(&config.listeners);
        let inherited = inherited.map_err(|error| StartError::Thread {
            what: "take the descriptors that the service manager passed",
            error,
        })?;
        Ok(Self {
            socket,
            sink,
            access_files,
            tls_files,
            bans,
            features,
            inherited,
        })
    }
}

/// How long the end waits for the access log, whose reader may be stuck.
const LOG_GRACE: Duration = Duration::from_secs(2);
