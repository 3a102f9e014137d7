//! Reloads: the configuration file is read again after a signal, a request to the API, or a change
//! of the file. A file with mistakes leaves the old configuration in force.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use log::Level;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::admin::model::{EventKind, Reloaded, Reloads, Stage};
use crate::admin::{Author, Reply, Tokens};
use crate::config::{self, TokenFiles};
use crate::operational_log;

use super::access_log::{Log, Sink};
use super::admin_listeners::AdminSocket;
use super::aside;
use super::audit::{Entry, RELOAD};
use super::balancer::Balancer;
use super::discovery::Awaited;
use super::events::{Severity, Subject};
use super::file_watch::{FileVersion, Look};
use super::supervise::READY;
use super::unix_sockets::Opened;
use super::{preflight, systemd, tls};

mod file;

use file::InUse;
pub(super) use file::{ConfigWatch, Read};
pub use file::{Reread, Seen};

/// A request to reload, and where the answer goes.
pub(super) struct ReloadRequest {
    pub(super) author: Author,
    pub(super) reply: Option<Reply<Result<Reloaded, String>>>,
}

impl ReloadRequest {
    /// By a signal or a change of the file: the log has the answer.
    pub(super) fn unanswered(author: Author) -> Self {
        Self {
            author,
            reply: None,
        }
    }
}

/// Readings of the file: one at a time; requests that come meanwhile get another one.
pub(super) struct Reloading {
    /// Reads the file, where there is one.
    pub(super) reread: Option<Reread>,
    /// Watches the file for changes.
    pub(super) watch: Option<Rc<ConfigWatch>>,
    /// The tokens of each server over HTTP, with where they come from.
    tokens: Vec<(Tokens, TokenFiles)>,
    /// What the API shows of reloads.
    pub(super) status: Reloads,
    /// The reading under way.
    reading: Option<Reading>,
    /// The Unix socket of the API.
    socket: Option<AdminSocket>,
    /// Requests for the next reading.
    queued: Vec<ReloadRequest>,
    /// Readings that timed out and have not ended yet.
    hung: Vec<Arc<AtomicBool>>,
}

struct Reading {
    outcome: oneshot::Receiver<ReloadOutcome>,
    /// It has timed out, and opens no sockets, which nothing would accept from. Its thread shares
    /// this until it ends.
    given_up: Arc<AtomicBool>,
    /// When it times out.
    deadline: Pin<Box<Sleep>>,
    /// Until when it is held back for answers that its configuration needs, once it is read.
    held: Option<(Instant, Awaited)>,
    requests: Vec<ReloadRequest>,
}

/// What a reading found out, and the sockets that it opened. Without a file it opens again the
/// sockets whose files are gone, and that is all.
pub(super) type ReloadOutcome = (Option<ConfigRead>, Opened);

/// The file: what was seen of it before it was read, if it was, and what was read.
pub(super) type ConfigRead = (Option<FileVersion>, Result<Box<Read>, String>);

impl Reloading {
    /// Nothing is being read. To be called inside the control thread's runtime.
    pub(super) fn new(
        reread: Option<Reread>,
        tokens: Vec<(Tokens, TokenFiles)>,
        socket: Option<AdminSocket>,
    ) -> Self {
        Self {
            watch: reread.as_ref().map(ConfigWatch::begin),
            reread,
            tokens,
            socket,
            status: Reloads::default(),
            reading: None,
            queued: Vec::new(),
            hung: Vec::new(),
        }
    }

    /// Waits for the reading under way. The future can be dropped without loss.
    pub(super) async fn read(&mut self) -> ReloadOutcome {
        let Some(reading) = &mut self.reading else {
            return pending().await;
        };
        tokio::select! {
            outcome = &mut reading.outcome => match outcome {
                Ok(outcome) => outcome,
                Err(_) => self.unread("cannot read the file: no thread can be created".to_owned()),
            },
            () = &mut reading.deadline => {
                let why = format!(
                    "cannot read the configuration within {}: a file that it needs, or a name \
                     server, does not answer",
                    humantime::format_duration(READ_TIME)
                );
                self.unread(why)
            }
        }
    }

    /// The outcome of a reading that failed. Without a file no reload has failed.
    fn unread(&self, why: String) -> ReloadOutcome {
        if self.reread.is_none() {
            log::error!("SIGHUP has no effect: {why}");
            return (None, Opened::default());
        }
        (Some((None, Err(why))), Opened::default())
    }

    /// Ends the reading under way, or gives it up: what its thread still opens is closed.
    fn end_reading(&mut self) -> Option<Vec<ReloadRequest>> {
        let reading = self.reading.take()?;
        reading.given_up.store(true, Ordering::Relaxed);
        self.hung.push(reading.given_up);
        Some(reading.requests)
    }

    /// Whether another reading may begin: each one that hangs holds a thread.
    fn may_begin(&mut self) -> bool {
        self.hung.retain(|reading| Arc::strong_count(reading) > 1);
        self.hung.len() < HUNG_MAX
    }
}

impl Balancer {
    /// Reads the file again and applies it. The log, the API and the counters report the outcome
    /// too. Without a file only sockets whose files are gone are opened again.
    pub(super) fn reload(&mut self, request: ReloadRequest) {
        if self.reloading.reread.is_none() && request.reply.is_some() {
            return self.refuse_reload(request);
        }
        self.reloading.queued.push(request);
        if self.reloading.reading.is_none() {
            self.begin_reload();
        }
    }

    /// `changed`: the settings that differ, as they were and as they are.
    fn record_reload(
        &self,
        author: Author,
        changed: Option<[Value; 2]>,
        outcome: Result<u64, String>,
    ) {
        let (old, new) = changed.map(|[old, new]| (old, new)).unzip();
        self.audit.record(&Entry {
            author,
            action: RELOAD,
            target: "config",
            old,
            new,
            outcome,
        });
    }

    /// There is no file to read. The balancer is well: only the caller is answered.
    fn refuse_reload(&self, ReloadRequest { author, reply }: ReloadRequest) {
        let outcome = Err(NO_FILE.to_owned());
        self.record_reload(author, None, outcome.clone());
        // The caller may have gone away.
        let _ = reply.map(|reply| reply.send(outcome.map(|_| Reloaded::default())));
    }

    /// Reads on another thread, as this one has probes to make and calls to answer.
    fn begin_reload(&mut self) {
        let requests = std::mem::take(&mut self.reloading.queued);
        let given_up = Arc::new(AtomicBool::new(false));
        self.reloading.reading = Some(Reading {
            outcome: oneshot::channel().1,
            given_up: Arc::clone(&given_up),
            deadline: Box::pin(tokio::time::sleep(READ_TIME)),
            held: None,
            requests,
        });
        if self.stage == Stage::Stopping {
            let outcome = self.reloading.unread(STOPPING.to_owned());
            return self.on_read(outcome);
        }
        systemd::reloading();
        if !self.reloading.may_begin() {
            let why = format!(
                "cannot read the configuration: {HUNG_MAX} earlier readings still wait for a \
                 file or a name server that does not answer"
            );
            let outcome = self.reloading.unread(why);
            return self.on_read(outcome);
        }
        self.watch_file(false);
        let present = InUse {
            log: self.in_force.config.access_log.clone(),
            tokens: self
                .reloading
                .tokens
                .iter()
                .map(|its| its.1.clone())
                .collect(),
            certificates: preflight::certificate_files(&self.in_force.config),
            access_files: self.access.known(),
            ban_files: self.bans.import.known(),
        };
        let admin = self.reloading.socket.as_ref().map(|its| its.place.clone());
        let sockets = self.workers.unix_sockets(admin);
        let reread = self.reloading.reread.clone();
        let reading = aside::begin(move || {
            let file = reread.map(|reread| {
                // Before it is read: a change after this is another version.
                let version = Look::at(&reread.path).version;
                (Some(version), reread.read(&present))
            });
            let read = file.as_ref().and_then(|(_, read)| read.as_ref().ok());
            let opened = match given_up.load(Ordering::Relaxed) {
                true => Opened::default(),
                false => sockets.open(read.map(|read| &read.config)),
            };
            (file, opened)
        });
        if let Some(now) = &mut self.reloading.reading {
            now.outcome = reading;
        }
    }

    /// Holds a reading back until the host names and the discoveries of its configuration have had
    /// an answer, but not for ever: its pools would have no backend until then, while those in
    /// force are well. `None`: it comes again.
    fn hold_back(&mut self, outcome: ReloadOutcome) -> Option<ReloadOutcome> {
        let (Some((_, Ok(read))), Some(reading)) = (&outcome.0, &mut self.reloading.reading) else {
            return Some(outcome);
        };
        let now = Instant::now();
        let discoveries = &mut self.in_force.discoveries;
        let begin = || (now + ANSWERS_TIME, discoveries.prepare(&read.config));
        let (until, awaited) = reading.held.get_or_insert_with(begin);
        if self.stage == Stage::Stopping
            || now >= *until
            || self.in_force.discoveries.has_answers(awaited, &read.config)
        {
            return Some(outcome);
        }
        reading.deadline.as_mut().reset(*until + READ_TIME);
        let (sender, again) = oneshot::channel();
        reading.outcome = again;
        tokio_uring::spawn(async move {
            tokio::time::sleep(ANSWERS_LOOK).await;
            let _ = sender.send(outcome);
        });
        None
    }

    /// A reading has ended, or timed out.
    pub(super) fn on_read(&mut self, outcome: ReloadOutcome) {
        let Some((file, mut opened)) = self.hold_back(outcome) else {
            return;
        };
        let before = self.publisher.version();
        // Also where the file has mistakes.
        self.replace_sockets(std::mem::take(&mut opened.again));
        if let Some(place) = &mut self.reloading.socket
            && let Some((socket, file)) = opened.admin.take()
        {
            place.replace(socket, file);
        }
        let Some((version, read)) = file else {
            return self.end_look();
        };
        if let Some((watch, version)) = self.reloading.watch.as_ref().zip(version) {
            watch.file.borrow_mut().mark_read(version);
        }
        self.end_reload(before, read, &mut opened);
        self.in_force.discoveries.end_prepared();
        if self.reloading.reading.is_none() {
            self.watch_file(true);
        }
    }

    /// Notices changes of the file or ignores them: it notices them where `reload_on_change` is
    /// set, while no reading is under way, and until the balancer stops.
    pub(super) fn watch_file(&self, on: bool) {
        if let Some(watch) = &self.reloading.watch {
            let on = on && self.stage != Stage::Stopping;
            watch
                .enabled
                .set(on && self.in_force.config.reload_on_change);
        }
    }

    /// Applies what was read, or reports what is wrong. `before`: the version at its beginning.
    fn end_reload(&mut self, before: u64, read: Result<Box<Read>, String>, opened: &mut Opened) {
        let Some(requests) = self.reloading.end_reading() else {
            return;
        };
        // A signal or a change of the file just before the stop is no failure.
        if self.stage == Stage::Stopping && requests.iter().all(|its| its.reply.is_none()) {
            log::info!("reload: {STOPPING}: the file is not read again");
            return self.go_on_after_reload();
        }
        let earlier = Arc::clone(&self.in_force.declared);
        let notes = read.and_then(|read| self.apply_read(*read, opened));
        let changed = notes.as_ref().ok().map(|_| {
            let (old, new) = config::differences(earlier.config(), self.in_force.declared.config());
            [old, new]
        });
        drop(earlier);
        let reloaded = notes.map(|notes| Reloaded {
            snapshot: self.publisher.version(),
            changed: self.publisher.version() != before,
            notes,
            changes: [
                Arc::make_mut(&mut self.in_force.declared).take_agreed(),
                self.in_force.declared.holding(),
            ]
            .into_iter()
            .flatten()
            .collect(),
        });
        self.report_reload(&reloaded, &requests);
        let outcome = reloaded.as_ref().map(|reloaded| reloaded.snapshot);
        let outcome = outcome.map_err(Clone::clone);
        let reloaded = reloaded.map_err(|why| format!("{why}\n{STAYS}"));
        for ReloadRequest { author, reply } in requests {
            self.record_reload(author, changed.clone(), outcome.clone());
            // The caller may have gone away.
            let _ = reply.map(|reply| reply.send(reloaded.clone()));
        }
        self.go_on_after_reload();
    }

    /// A reading without a file has ended: its requests want no answer.
    fn end_look(&mut self) {
        self.reloading.end_reading();
        self.go_on_after_reload();
    }

    fn go_on_after_reload(&mut self) {
        if !self.reloading.queued.is_empty() {
            self.begin_reload();
        } else if self.stage == Stage::Ready {
            systemd::ready(READY);
        }
    }

    fn report_reload(&mut self, outcome: &Result<Reloaded, String>, requests: &[ReloadRequest]) {
        let authors = requests.iter().map(|request| request.author.to_string());
        let authors: BTreeSet<_> = authors.collect();
        let authors = Vec::from_iter(authors).join(", ");
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        self.reloading.status.last_at = Some(now.to_string());
        self.reloading.status.last_error = outcome.clone().err();
        let (severity, kind, message) = match outcome {
            Ok(reloaded) => {
                self.reloading.status.succeeded += 1;
                let sentence = reloaded.sentence().replace('\n', "; ");
                let message = format!("reload: {sentence} (requested {authors})");
                (Severity::Info, EventKind::Reloaded, message)
            }
            Err(why) => {
                self.reloading.status.failed += 1;
                let begin = format!("reload: {STAYS} (requested {authors})");
                operational_log::report(Level::Error, &format!("{begin}\n{why}"));
                let message = format!("{begin}: {}", config::outline(why));
                (Severity::Quiet, EventKind::ReloadFailed, message)
            }
        };
        self.events
            .tell(severity, kind, Subject::default(), message);
    }

    /// Applies what was read. Answers with notes for the caller, a sentence each.
    fn apply_read(&mut self, read: Read, opened: &mut Opened) -> Result<Vec<String>, String> {
        if self.stage == Stage::Stopping {
            return Err(STOPPING.to_owned());
        }
        let reread = self.reloading.reread.as_mut();
        let is_same_text = reread.is_some_and(|reread| reread.digest == read.digest);
        let is_same = is_same_text && read.config == *self.in_force.declared.file();
        let files = [
            read.access_files.len(),
            read.ban_files.len(),
            read.tls_files.len(),
        ];
        if is_same && files == [0; 3] {
            self.checks.refresh();
            self.replace_tokens(read.tokens);
            return Ok(self.at_start.pending(self.in_force.declared.config()));
        }
        let old = Arc::clone(&self.in_force.declared);
        let (declared, ended) = old.reload(read.config, is_same_text);
        self.access.offer(read.access_files);
        self.tls.offer(read.tls_files);
        self.bans.import.offer(read.ban_files);
        let (before, next) = (old.config(), declared.config());
        let kept = self
            .in_force
            .discoveries
            .keep_known(before, next, &self.in_force.config);
        if let Err(error) = self.apply(declared, opened) {
            self.in_force.discoveries.restore_known(kept);
            self.access.offer(Vec::new());
            self.tls.offer(tls::TlsRead::default());
            self.bans.import.offer(Vec::new());
            return Err(error.to_string());
        }
        self.replace_tokens(read.tokens);
        if let Some(reread) = &mut self.reloading.reread {
            reread.digest = read.digest;
        }
        if let Some(sink) = read.log {
            self.switch_log(sink);
        }
        let ended: Vec<_> = self.tell_ended(ended).collect();
        let mut notes = Vec::new();
        let (old, new) = (old.config(), self.in_force.declared.config());
        operational_log::set_format(new.log_format);
        if old.histogram_log != new.histogram_log {
            self.metrics
                .measurements
                .set_path(new.histogram_log.clone());
        }
        notes.extend(self.at_start.pending(new));
        notes.extend(self.in_force.discoveries.known());
        for note in &notes {
            log::warn!("reload: {note}");
        }
        notes.extend(ended);
        Ok(notes)
    }

    fn replace_tokens(&self, read: Vec<Tokens>) {
        for ((tokens, _), read) in self.reloading.tokens.iter().zip(read) {
            tokens.replace(&read);
        }
    }

    fn switch_log(&self, sink: Option<Sink>) {
        if let Some(records) = self.workers.log(sink.as_ref().map(Sink::rule)) {
            self.log_orders
                .switch(Log { sink, records }, &self.workers.log_bell);
        }
    }
}

/// Why there is nothing to read.
const NO_FILE: &str = "cannot reload: the balancer runs without a configuration file: start it \
                       again with other flags, or change it by commands such as `mahoraga set`";
/// Why nothing is read any more.
const STOPPING: &str = "the balancer is stopping";
/// What follows from a refused reading.
const STAYS: &str = "the old configuration stays in force";
/// When a reading times out.
const READ_TIME: Duration = Duration::from_secs(20);
/// How long a reload waits for the first answers to its host names and discoveries: a server of
/// the DNS may let one time out, and commands wait 5 s for the reload.
const ANSWERS_TIME: Duration = Duration::from_secs(3);
const ANSWERS_LOOK: Duration = Duration::from_millis(10);
/// Readings that timed out and still hold a thread, at most.
const HUNG_MAX: usize = 4;
