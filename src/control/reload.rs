//! The configuration file is read again: by a signal, by the API, or because it changed. What is
//! wrong leaves the old one in force.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::admin::model::{EventKind, Reloaded, Stage};
use crate::admin::{Author, Entry, Reply};
use crate::config::{AccessLog, Config, ConfigError};

use super::access_log::{Log, Sink};
use super::balancer::Balancer;
use super::events::{Subject, Weight};
use super::file_watch::FileWatch;
use super::supervise::READY;
use super::systemd;

/// Where the configuration came from.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The file.
    pub path: PathBuf,
    /// Reads it again. Names in it are resolved, which may take long.
    pub read: fn(&Path) -> Result<Config, ConfigError>,
}

impl Reread {
    /// Reads the file, and opens what it wants opened: both may take long. `log` is the access log
    /// in force.
    fn read(&self, log: Option<&AccessLog>) -> Result<Box<Read>, String> {
        let config = (self.read)(&self.path).map_err(|error| error.to_string())?;
        let open = |log: &AccessLog| Sink::open(log).map_err(|error| error.to_string());
        let log = if config.access_log.as_ref() == log {
            None
        } else {
            Some(config.access_log.as_ref().map(open).transpose()?)
        };
        Ok(Box::new(Read { config, log }))
    }
}

/// Who asked for the file to be read again, and where the answer goes.
pub(super) struct Asked {
    pub(super) author: Author,
    pub(super) reply: Option<Reply<Result<Reloaded, String>>>,
}

impl Asked {
    /// By a signal, or a change of the file: the log is answer enough.
    pub(super) fn by_operator() -> Self {
        Self {
            author: Author::Operator,
            reply: None,
        }
    }
}

/// Readings of the file: one at a time, and another one for whoever asks meanwhile.
#[derive(Default)]
pub(super) struct Reloading {
    /// What is being read, and for whom.
    reading: Option<Reading>,
    waiting: Vec<Asked>,
}

struct Reading {
    outcome: oneshot::Receiver<Result<Box<Read>, String>>,
    asked: Vec<Asked>,
}

/// What was read, and opened for it.
pub(super) struct Read {
    config: Config,
    /// Where the sessions' lines go from now on, if elsewhere than before.
    log: Option<Option<Sink>>,
}

impl Reloading {
    /// What was read. May be dropped while it waits.
    pub(super) async fn read(&mut self) -> Result<Box<Read>, String> {
        let Some(reading) = &mut self.reading else {
            return pending().await;
        };
        match (&mut reading.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err("the thread that reads the configuration has ended".to_owned()),
        }
    }
}

impl Balancer {
    /// Reads the file again and routes by it. Answers with the version in force then, or with what
    /// is wrong; the log, the API and the counters tell the same.
    pub(super) fn reload(&mut self, asked: Asked) {
        self.reloading.waiting.push(asked);
        if self.reloading.reading.is_none() {
            self.begin_reload();
        }
    }

    /// Reads on a thread of its own: this one has probes to make and calls to answer.
    fn begin_reload(&mut self) {
        let asked = std::mem::take(&mut self.reloading.waiting);
        let (done, outcome) = oneshot::channel();
        self.reloading.reading = Some(Reading { outcome, asked });
        if self.stage == Stage::Stopping {
            return self.end_reload(Err("the balancer is stopping".to_owned()));
        }
        let Some(reread) = self.reread.clone() else {
            return self.end_reload(Err("it runs without a configuration file".to_owned()));
        };
        systemd::reloading();
        // Before it is read: a change that comes meanwhile is another one.
        self.file_watch.iter_mut().for_each(FileWatch::mark_read);
        let log = self.config.access_log.clone();
        let thread = std::thread::Builder::new().name("reload".to_owned());
        let thread = thread.spawn(move || {
            // Nobody waits for it any more when the process ends.
            let _ = done.send(reread.read(log.as_ref()));
        });
        if let Err(error) = thread {
            self.end_reload(Err(format!("the file can't be read: {error}")));
        }
    }

    /// The file was read: routes by it, or tells what is wrong.
    pub(super) fn end_reload(&mut self, read: Result<Read, String>) {
        let Some(reading) = self.reloading.reading.take() else {
            return;
        };
        let notes = read.and_then(|read| self.take_over(read));
        let outcome = notes.as_ref().map(|_| self.snapshot.version);
        let outcome = outcome.map_err(Clone::clone);
        self.tell_reload(&outcome);
        let reloaded = notes.map(|notes| Reloaded {
            snapshot: self.snapshot.version,
            notes,
        });
        for Asked { author, reply } in reading.asked {
            self.audit.borrow_mut().record(&Entry {
                author,
                action: "reload",
                target: "config",
                old: None,
                new: None,
                outcome: outcome.clone(),
            });
            // Whoever asked may have gone away.
            let _ = reply.map(|reply| reply.send(reloaded.clone()));
        }
        if !self.reloading.waiting.is_empty() {
            self.begin_reload();
        } else if self.stage == Stage::Ready {
            systemd::ready(READY);
        }
    }

    fn tell_reload(&mut self, outcome: &Result<u64, String>) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        self.reloads.last_at = Some(now.to_string());
        self.reloads.last_error = outcome.clone().err();
        let (weight, kind, message) = match outcome {
            Ok(version) => {
                self.reloads.succeeded += 1;
                let message = format!("reload: version {version} is in force");
                (Weight::Info, EventKind::Reloaded, message)
            }
            Err(why) => {
                self.reloads.failed += 1;
                let message = format!("reload: the old configuration stays in force\n{why}");
                (Weight::Error, EventKind::ReloadFailed, message)
            }
        };
        self.events.tell(weight, kind, Subject::default(), message);
    }

    /// Reads the file again if it has changed, where that is wanted.
    pub(super) fn watch_file(&mut self) {
        let watch = self.file_watch.as_mut();
        let watch = watch.filter(|_| self.config.reload_on_change);
        if watch.and_then(FileWatch::look).is_some() {
            self.reload(Asked::by_operator());
        }
    }

    /// Routes by what was read. Answers with what somebody should know of it, in sentences.
    fn take_over(&mut self, read: Read) -> Result<Vec<String>, String> {
        if self.stage == Stage::Stopping {
            return Err("the balancer is stopping".to_owned());
        }
        let old = self.declared.clone();
        let (declared, given_up) = old.reload(read.config);
        if let Some((tokens, http)) = &self.tokens {
            tokens.read_again(http).map_err(|error| error.to_string())?;
        }
        self.apply(declared).map_err(|error| error.to_string())?;
        if let Some(sink) = read.log {
            self.switch_log(sink);
        }
        let mut notes = Vec::new();
        if old.is_passing() {
            notes.push("changes that were not to be kept have ended".to_owned());
        }
        let given_up = given_up.iter();
        notes.extend(given_up.map(|error| format!("a kept change has no place any more: {error}")));
        let (old, new) = (old.config(), self.declared.config());
        if old.histogram_log != new.histogram_log {
            self.measurements.set_path(new.histogram_log.clone());
        }
        for (setting, changed) in [
            ("workers", old.workers != new.workers),
            ("admin", old.admin != new.admin),
        ] {
            if changed {
                notes.push(format!("{setting} takes effect at the next start"));
            }
        }
        for note in &notes {
            log::warn!("reload: {note}");
        }
        Ok(notes)
    }

    fn switch_log(&self, sink: Option<Sink>) {
        if let Some(records) = self.crew.log(sink.is_some()) {
            self.log_orders
                .switch(Log { sink, records }, &self.crew.doorbell);
        }
    }
}
