//! The control thread: starts the workers, listens to signals, writes logs, and ends it all.

#![forbid(unsafe_code)]

mod access_log;
pub mod capacity;
mod crew;
mod histograms;
mod listening;
mod pools;
mod reload;
mod start;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::address::Address;
use crate::config::Config;
use crate::ring::{self, SetupError};
use crate::worker::{Command, Stats};

use access_log::{AccessLogWriter, Sink};
use crew::Crew;
use histograms::HistogramLog;
pub(crate) use histograms::TARGET as HISTOGRAMS_TARGET;
pub use listening::Inherited;
use pools::Pools;
pub use reload::Reread;

/// Why the balancer did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// io_uring is not to be had.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// A listener's address can't be bound.
    #[error("listener `{listener}` can't listen on {bind}: {error}")]
    Bind {
        /// Its name.
        listener: String,
        /// Its address.
        bind: Address,
        /// What the kernel says.
        error: io::Error,
    },
    /// The access log can't be opened.
    #[error("access log {path} can't be opened: {error}")]
    AccessLog {
        /// As configured.
        path: String,
        /// What the kernel says.
        error: io::Error,
    },
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
    /// The exit code of the program: 3 when io_uring is not to be had, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ring(_) => 3,
            Self::Bind { .. } | Self::AccessLog { .. } | Self::Thread { .. } => 1,
        }
    }
}

/// Runs the balancer until SIGTERM or SIGINT have ended its last session. `ready` is called once
/// every worker accepts. The calling thread becomes the control thread.
///
/// SIGHUP opens the access log's file again, which lets it be rotated, and reads the configuration
/// again where `reread` can; SIGUSR1 writes histograms. A second SIGTERM or SIGINT ends the
/// process at once, with 128 + its number.
///
/// # Errors
/// [`StartError`]; once started, it does not fail.
pub fn run(
    config: &Config,
    reread: Option<&Reread<'_>>,
    ready: impl FnOnce(),
) -> Result<(), StartError> {
    let log_sink = config.access_log.as_ref().map(Sink::open).transpose()?;
    // Before the control thread's own ring, which would panic where there is none.
    let features = ring::probe()?;
    tokio_uring::start(async move {
        let thread = |error| StartError::Thread {
            what: "signals can't be awaited",
            error,
        };
        // Before anything is bound: from here on a signal ends the process in order.
        let mut signals = Signals::new().map_err(thread)?;
        let crew = start::start(config, features, Inherited::new())?;
        let reopen = Rc::new(Cell::new(false));
        let log = log_sink.map(|sink| {
            let writer = AccessLogWriter::new(sink, &crew.doorbell, &reopen);
            tokio_uring::spawn(writer.run(crew.records.clone(), crew.stats.clone()))
        });
        ready();
        let surroundings = Surroundings { reread, reopen };
        supervise(config, &crew, &mut signals, surroundings).await;
        crew.join();
        if let Some(log) = log {
            crew.doorbell.close();
            // Whoever reads the log may have stopped reading.
            let _ = tokio::time::timeout(LOG_GRACE, log).await;
        }
        Ok(())
    })
}

/// Answers signals until one asks to stop and every worker has.
async fn supervise(config: &Config, crew: &Crew, signals: &mut Signals, around: Surroundings<'_>) {
    let mut config = config.clone();
    let mut histograms = HistogramLog::new(config.histogram_log.clone());
    let mut exhaustion = Exhaustion::default();
    let mut snapshot = Arc::clone(&crew.snapshot);
    let mut pools = Pools::new(&snapshot);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    let mut finished = std::pin::pin!(crew.finished());
    loop {
        tokio::select! {
            _ = signals.hup.recv() => {
                log::info!("reopening the access log");
                around.reopen.set(true);
                crew.doorbell.wake();
                if let Some(reread) = around.reread
                    && let Some(next) = reload::reload(crew, &snapshot, &config, reread)
                {
                    (config, snapshot) = next;
                    pools.follow(&snapshot);
                }
            }
            _ = second.tick() => {
                exhaustion.report(crew);
                pools.tick();
            }
            _ = signals.usr1.recv() => {
                pools.log();
                histograms.dump(crew).await;
            }
            _ = signals.term.recv() => stop(&config, crew, &mut stopping, SIGTERM),
            _ = signals.int.recv() => stop(&config, crew, &mut stopping, SIGINT),
            ended = &mut finished => {
                if let Err(error) = ended {
                    log::error!("the workers' end can't be awaited: {error}");
                }
                return;
            }
        }
    }
}

fn stop(config: &Config, crew: &Crew, stopping: &mut bool, signal: i32) {
    if std::mem::replace(stopping, true) {
        log::warn!(
            "second signal: ending at once, {} sessions are cut",
            crew.sessions()
        );
        crew.remove_socket_files();
        std::process::exit(128 + signal);
    }
    let grace = config.shutdown_grace;
    log::info!(
        "stopping: {} sessions have {grace:?} to end",
        crew.sessions()
    );
    crew.tell_all(|| Command::Stop(grace));
}

/// What the control thread has to do with beside the workers.
struct Surroundings<'a> {
    reread: Option<&'a Reread<'a>>,
    /// Asks the writer of the access log to open its file again.
    reopen: Rc<Cell<bool>>,
}

/// Tells, once per second at most, that descriptors or memory run out, or that a listening socket
/// got lost. Workers only count it: a
/// line can wait for whoever reads it.
#[derive(Default)]
struct Exhaustion {
    reported: u64,
    /// Listening sockets that got lost.
    lost: u64,
}

impl Exhaustion {
    fn report(&mut self, crew: &Crew) {
        let count = |stats: &Arc<Stats>| stats.accept_exhausted.get();
        let all: u64 = crew.stats.iter().map(count).sum();
        let lost: u64 = crew
            .stats
            .iter()
            .map(|stats| stats.listeners_lost.get())
            .sum();
        if lost > std::mem::replace(&mut self.lost, lost) {
            log::error!("a worker does not serve a new listener: its socket got lost on the way");
        }
        if all > self.reported {
            log::warn!(
                "out of descriptors or memory: accepting pauses ({} times since the last line); \
                 raise `ulimit -n` or lower max_connections",
                all - self.reported
            );
        }
        self.reported = all;
    }
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }
}

const SIGINT: i32 = libc::SIGINT;
const SIGTERM: i32 = libc::SIGTERM;
/// How long a stuck reader of the access log delays the end.
const LOG_GRACE: Duration = Duration::from_secs(2);
