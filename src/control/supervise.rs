//! The control thread's loop: it handles one wake-up after the other.

use std::fs;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_uring::fs::File;

use crate::admin::model::{EventKind, Stage};
use crate::admin::{Author, Call, Calls};
use crate::config::Admin;
use crate::operational_log;
use crate::sys::{self, Doorbell};
use crate::time::between;
use crate::wording::plural;
use crate::worker::Command;

use super::balancer::Balancer;
use super::events::{Severity, Subject};
use super::fleet::FleetNews;
use super::health::HealthNews;
use super::leaving::Departure;
use super::peers::PeersNews;
use super::reload::{ConfigWatch, ReloadOutcome, ReloadRequest};
use super::tls::TlsNews;
use super::watchdog::Watchdog;
use super::{access_lists, admin_listeners, bans, pools, systemd};

/// What wakes the control thread.
enum Wake {
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Dump,
    /// SIGUSR2.
    Upgrade,
    /// SIGTERM, SIGINT or SIGQUIT.
    Stop(i32),
    /// A second has passed; this is how late the tick comes.
    Second(Duration),
    /// A worker ejected a backend, or it is time to readmit one.
    Ejections,
    Call(Call),
    HealthNews(HealthNews),
    /// The file of an access list has changed.
    AccessFile(access_lists::PrefixNews),
    /// The file of imported bans has changed.
    BanFile(bans::BanFileNews),
    /// Peers share something else, or something goes wrong with them.
    Peers(PeersNews),
    /// The fleet shares something else.
    Fleet(FleetNews),
    /// Discovery found other backends or addresses.
    Discovered,
    Watchdog,
    /// A new snapshot is due.
    Publish,
    /// It is time to close sockets of removed listeners.
    CloseRemoved,
    /// The configuration file was read.
    Reread(ReloadOutcome),
    /// The configuration file has changed.
    FileChanged,
    /// The balancer leaves, and new clients are to be refused.
    Departure(Departure),
    /// Every worker has ended.
    WorkersEnded(io::Result<()>),
}

impl Balancer {
    /// Handles every wake-up until all workers have ended.
    pub(super) async fn supervise(&mut self, signals: &mut Signals, mut calls: Calls) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let notices = Rc::new(Notify::new());
        tokio_uring::spawn(listen(Arc::clone(&self.workers.bell), Rc::clone(&notices)));
        let workers = Rc::clone(&self.workers);
        let mut finished = std::pin::pin!(workers.finished());
        self.metrics.measurements.begin();
        loop {
            self.advance();
            self.follow_readiness();
            // One wake-up in each turn of the runtime: however many calls wait, probes and servers
            // have their turn between two of them.
            self.take_turn().await;
            let publish_due = self.publisher.due();
            let watch = self.reloading.watch.clone();
            let close_due = self.workers.next_to_close();
            let wake = tokio::select! {
                _ = signals.hup.recv() => Wake::Reload,
                _ = signals.usr1.recv() => Wake::Dump,
                _ = signals.usr2.recv() => Wake::Upgrade,
                _ = signals.term.recv() => Wake::Stop(libc::SIGTERM),
                _ = signals.int.recv() => Wake::Stop(libc::SIGINT),
                _ = signals.quit.recv() => Wake::Stop(libc::SIGQUIT),
                ended = &mut finished => Wake::WorkersEnded(ended),
                () = notices.notified() => Wake::Ejections,
                () = until(self.roster.next_end()) => Wake::Ejections,
                news = self.checks.next() => Wake::HealthNews(news),
                () = self.in_force.discoveries.changed() => Wake::Discovered,
                news = self.access.changed() => Wake::AccessFile(news),
                news = self.bans.import.changed() => Wake::BanFile(news),
                news = self.fleet.changed() => Wake::Fleet(news),
                news = self.peers.changed() => Wake::Peers(news),
                () = Watchdog::due(self.watchdog.as_mut()) => Wake::Watchdog,
                () = until(publish_due) => Wake::Publish,
                () = until(close_due) => Wake::CloseRemoved,
                outcome = self.reloading.read() => Wake::Reread(outcome),
                () = ConfigWatch::changed(watch) => Wake::FileChanged,
                departure = self.leaving.departure() => Wake::Departure(departure),
                Some(call) = calls.next() => Wake::Call(call),
                due = second.tick() => Wake::Second(due.elapsed()),
            };
            if let Wake::WorkersEnded(outcome) = wake {
                if let Err(error) = outcome {
                    log::error!("cannot wait for the workers to end: {error}");
                }
                return;
            }
            self.on_wake(wake);
        }
    }

    /// Waits for the next turn of the runtime. An operation of io_uring, as those of others are
    /// passed to the kernel only when no task is ready, and a task that yields always is. While
    /// some task is ready all the time, signals and calls must not wait for that.
    async fn take_turn(&self) {
        let began = Instant::now();
        let turn = tokio::time::timeout(TURN_TIME, tokio_uring::no_op());
        if turn.await.is_err() {
            self.metrics.measurements.on_tick(began.elapsed());
        }
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Reload => self.on_hup(),
            Wake::Dump => {
                pools::log(&self.roster, self.publisher.snapshot());
                let workers = Rc::clone(&self.workers);
                let measurements = Rc::clone(&self.metrics.measurements);
                tokio_uring::spawn(async move { measurements.dump(&workers).await });
            }
            Wake::Upgrade => log::warn!("SIGUSR2 does nothing: it is reserved for upgrades"),
            Wake::Stop(signal) => self.stop(signal),
            Wake::Second(late) => {
                self.metrics.measurements.on_tick(late);
                self.tick();
            }
            Wake::Ejections => self.on_ejections(),
            Wake::Call(call) => self.on_call(call),
            Wake::Departure(departure) => self.on_departure(&departure),
            Wake::HealthNews(HealthNews::Turned(turned)) => {
                self.health_cycle().on_turned(&turned);
                self.publisher.request();
            }
            Wake::AccessFile(news) => self.on_access_file(news),
            Wake::BanFile(news) => self.on_ban_file(news),
            Wake::Fleet(news) => self.on_fleet(news),
            Wake::Peers(news) => self.on_peers(news),
            Wake::Discovered => self.on_discovered(),
            Wake::Watchdog => {
                let stopping = self.stage == Stage::Stopping;
                if let Some(watchdog) = &mut self.watchdog {
                    watchdog.feed(&self.workers, stopping);
                }
            }
            Wake::Publish => self.publish(),
            Wake::CloseRemoved => self.workers.close_removed(),
            Wake::Reread(outcome) => self.on_read(outcome),
            Wake::FileChanged => self.reload(ReloadRequest::unanswered(Author::File)),
            // `advance` looks at the first round after each wake; the loop ends with the workers.
            Wake::HealthNews(HealthNews::FirstRound) | Wake::WorkersEnded(_) => {}
        }
    }

    /// Becomes ready once every probed backend has had a probe and every name was looked up. A name
    /// server that does not answer delays that for a while only.
    fn advance(&mut self) {
        if self.stage != Stage::Starting {
            return;
        }
        let patience_ended = self.metrics.uptime() >= DISCOVERY_PATIENCE;
        let discovered = self.in_force.has_discovered() || patience_ended;
        let known = self.checks.first_round_done() && discovered;
        if self.stage == Stage::Starting && known {
            self.stage = Stage::Ready;
            // The last probes' results may not be published yet.
            self.publish();
            systemd::ready(READY);
            let targets = self.checks.targets();
            let message = match targets {
                // Pools without a check are complete at once.
                0 => "ready: no pool has a check".to_owned(),
                _ => format!(
                    "ready: the first probes of {} are done",
                    plural(targets as u64, "backend")
                ),
            };
            let severity = if targets > 0 {
                Severity::Info
            } else {
                Severity::Quiet
            };
            self.events
                .tell(severity, EventKind::Ready, Subject::default(), message);
        }
    }

    /// Has the track file say what `/readyz` says.
    fn follow_readiness(&self) {
        let has_share = self.fleet.limits.shareless().is_none();
        let is_ready = self.shown_stage() == Stage::Ready && has_share;
        let path = self.in_force.config.track_file.as_deref();
        self.track_file.follow(path, is_ready);
    }

    /// The file of an access list has other prefixes, or a mistake.
    fn on_access_file(&mut self, news: access_lists::PrefixNews) {
        let (severity, kind, message) = match self.access.take(news) {
            Some(Ok(message)) => (Severity::Info, EventKind::AccessListRead, message),
            Some(Err(message)) => (Severity::Warn, EventKind::AccessListFailed, message),
            None => return,
        };
        self.events
            .tell(severity, kind, Subject::default(), message);
        self.publisher.request();
    }

    /// Certificates may have changed, or expire soon.
    fn follow_certificates(&mut self) {
        let (is_other, news) = self.tls.tick();
        if news.iter().any(|news| matches!(news, TlsNews::Read(_))) {
            // Checks with TLS of their own may name the same files.
            self.checks.refresh();
        }
        for news in news {
            let (severity, kind, message) = match news {
                TlsNews::Read(message) => (Severity::Info, EventKind::CertificatesRead, message),
                TlsNews::Failed(message) => {
                    (Severity::Warn, EventKind::CertificatesFailed, message)
                }
                TlsNews::Expires(message) => {
                    (Severity::Warn, EventKind::CertificateExpires, message)
                }
            };
            self.events
                .tell(severity, kind, Subject::default(), message);
        }
        if is_other {
            let client_of = |pool: &str| self.tls.client_of_pool(pool);
            self.checks.follow_tls(&self.in_force.config, client_of);
            self.publisher.request();
        }
    }

    fn on_hup(&mut self) {
        drop(self.reopen_logs());
        self.in_force.discoveries.look_again();
        if self.reloading.reread.is_none() {
            log::info!("nothing to reload: the balancer runs without a configuration file");
        }
        self.reload(ReloadRequest::unanswered(Author::Signal));
    }

    /// Opens the files of the logs again, after they were moved away. Failures are logged.
    pub(super) fn reopen_logs(&self) -> Reopening {
        let mut files = Vec::new();
        if let Some(path) = self.log_orders.path() {
            files.push((path, self.log_orders.reopen(&self.workers.log_bell)));
        }
        let audit = &self.audit;
        files.extend(audit.path().map(Path::to_owned).zip(audit.reopen()));
        let names = files.iter().map(|(path, _)| path.display().to_string());
        match &names.collect::<Vec<_>>()[..] {
            [] => log::info!("no log is written to a file: nothing to open again"),
            names => log::info!("opening the logs again: {}", names.join(", ")),
        }
        Reopening(files)
    }

    fn tick(&mut self) {
        sys::read_local_ports();
        sys::read_bind_rules();
        if self.in_force.discoveries.look_at_own_addresses() {
            self.on_discovered();
        }
        systemd::tell_late();
        self.events.tick();
        self.follow_certificates();
        let snapshot = self.publisher.snapshot();
        self.metrics
            .tick(&self.workers, snapshot, &mut self.roster, &self.events);
        pools::recall(&mut self.roster, snapshot, &mut self.history);
        pools::tick(&mut self.roster, snapshot);
        self.access.tick();
        self.syn_filter.tick(snapshot, &self.workers);
        let file = self.in_force.config.bans.file.as_deref();
        self.bans.tick(file, snapshot, &self.events);
        self.fleet.tick(&snapshot.bans);
        self.peers.tick(snapshot);
        let has_left = snapshot.has_left();
        self.publisher.repeat();
        self.workers.repeat_closing(self.publisher.snapshot());
        if self.roster.end_slow_starts(sys::monotonic()) || has_left {
            self.publish();
        }
        self.health_cycle().eject_outliers();
        self.on_ejections();
        if self.scaling().tick() {
            self.publish();
        }
        self.sample();
    }

    /// A worker has ejected a backend or banned a source, or it is time to readmit a backend.
    fn on_ejections(&mut self) {
        self.on_rule_bans();
        if self.health_cycle().look_at_ejections() {
            self.publisher.request();
        }
    }

    fn stop(&mut self, signal: i32) {
        if self.stage == Stage::Stopping {
            log::warn!(
                "second signal: ending at once, closing {}",
                plural(self.workers.sessions(), "session")
            );
            let admin = self.in_force.config.admin.as_ref();
            let makes = |its: &&Admin| its.http.as_ref().is_some_and(|http| http.makes_tokens);
            let tokens = admin.filter(makes).map(admin_listeners::token_file);
            self.workers.remove_files(tokens);
            operational_log::flush();
            std::process::exit(128 + signal);
        }
        self.stage = Stage::Stopping;
        self.watch_file(false);
        let grace = self.in_force.config.shutdown_grace;
        let message = format!(
            "stopping: {} may go on for {}",
            plural(self.workers.sessions(), "session"),
            humantime::format_duration(grace)
        );
        systemd::stopping(&message);
        self.events.tell(
            Severity::Info,
            EventKind::Stopping,
            Subject::default(),
            message,
        );
        self.workers.close_listeners();
        self.workers.tell_all(|| Command::Stop(grace));
    }
}

/// Files that are being opened again.
pub(super) struct Reopening(Vec<(PathBuf, oneshot::Receiver<Result<(), String>>)>);

impl Reopening {
    /// The names of the files, once lines go to all of them; or why one can't be opened.
    pub(super) async fn outcome(self) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + REOPEN_TIME;
        let mut names = Vec::new();
        let mut failed = Vec::new();
        for (path, outcome) in self.0 {
            let name = path.display().to_string();
            match tokio::time::timeout_at(deadline, outcome).await {
                Ok(Ok(Err(why))) => failed.push(format!("cannot open {name}: {why}")),
                Err(_) => failed.push(format!(
                    "cannot open {name} within {}: its directory does not answer, or the old \
                     file does not take its last lines",
                    humantime::format_duration(REOPEN_TIME)
                )),
                // Without an answer, a reload has sent the log elsewhere.
                Ok(Ok(Ok(())) | Err(_)) => names.push(name),
            }
        }
        if failed.is_empty() {
            return Ok(names);
        }
        Err(failed.join("; "))
    }
}

/// How long a request to open files again waits for its outcome.
const REOPEN_TIME: Duration = Duration::from_secs(3);

/// How long the loop waits for its next turn.
const TURN_TIME: Duration = Duration::from_millis(5);

/// Waits until a time of the workers' clock, in ns.
async fn until(at: Option<u64>) {
    match at {
        Some(at) => {
            tokio::time::sleep(between(sys::monotonic(), at)).await;
        }
        None => pending().await,
    }
}

/// Notifies the loop each time that a worker rings.
async fn listen(doorbell: Arc<Doorbell>, notices: Rc<Notify>) {
    let bell = match doorbell.eventfd().try_clone() {
        Ok(eventfd) => File::from_std(fs::File::from(eventfd)),
        Err(error) => {
            return log::error!("cannot watch the workers: {error}; ejections are noticed late");
        }
    };
    loop {
        // A ring after this ends the read; for one before it the loop looks now.
        doorbell.sleep();
        notices.notify_one();
        let (read, _) = bell.read_at(vec![0; 8], 0).await;
        if read.is_err() {
            return;
        }
    }
}

pub(super) struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    term: Signal,
    int: Signal,
    quit: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }
}

/// The status that the service manager shows.
pub(super) const READY: &str = "balancing";

/// How long names that have no answer yet delay readiness.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(30);
