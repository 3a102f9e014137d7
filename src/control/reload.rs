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

/// Who asked for the file to be read again, and where the answer goes.
pub(super) struct Asked {
    pub(super) author: Author,
    pub(super) reply: Option<Reply<Result<Reloaded, String>>>,
}

/// Readings of the file: one at a time, and another one for whoever asks meanwhile.
#[derive(Default)]
pub(super) struct Reloading {
    /// What is being read, and for whom.
    reading: Option<Reading>,
    waiting: Vec<Asked>,
}

struct Reading {
    config: oneshot::Receiver<Result<Config, ConfigError>>,
    asked: Vec<Asked>,
}

impl Reloading {
    /// What was read. May be dropped while it waits.
    pub(super) async fn read(&mut self) -> Result<Config, String> {
        let Some(reading) = &mut self.reading else {
            return pending().await;
        };
        match (&mut reading.config).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
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
        systemd::reloading();
        let asked = std::mem::take(&mut self.reloading.waiting);
        let (done, config) = oneshot::channel();
        self.reloading.reading = Some(Reading { config, asked });
        let Some(Reread { path, read }) = self.reread.clone() else {
            return self.end_reload(Err("it runs without a configuration file".to_owned()));
        };
        let thread = std::thread::Builder::new().name("reload".to_owned());
        let thread = thread.spawn(move || {
            // Nobody waits for it any more when the process ends.
            let _ = done.send(read(&path));
        });
        if let Err(error) = thread {
            self.end_reload(Err(format!("the file can't be read: {error}")));
        }
    }

    /// The file was read: routes by it, or tells what is wrong.
    pub(super) fn end_reload(&mut self, read: Result<Config, String>) {
        let Some(reading) = self.reloading.reading.take() else {
            return;
        };
        let outcome = read.and_then(|file| self.take_over(file));
        let outcome = outcome.map(|()| self.snapshot.version);
        self.tell_reload(&outcome);
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
            let reloaded = outcome.clone().map(|snapshot| Reloaded {
                snapshot,
                notes: Vec::new(),
            });
            let _ = reply.map(|reply| reply.send(reloaded));
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
        let sight = self.file_watch.as_mut().and_then(FileWatch::look);
        if let (Some(sight), Some(watch)) = (sight, &mut self.file_watch) {
            watch.set_read(sight);
            if self.config.reload_on_change {
                let author = Author::Operator;
                self.reload(Asked {
                    author,
                    reply: None,
                });
            }
        }
    }

    fn take_over(&mut self, file: Config) -> Result<(), String> {
        let old = self.declared.config().clone();
        let (declared, given_up) = self.declared.reload(file);
        // Taken before anything changes: it may fail.
        let log = self.next_log(&old, declared.config())?;
        self.apply(declared).map_err(|error| error.to_string())?;
        if let Some(sink) = log {
            self.switch_log(sink);
        }
        for error in given_up {
            log::warn!("reload: a change that was to be kept is given up: {error}");
        }
        let new = self.declared.config();
        if old.histogram_log != new.histogram_log {
            self.measurements.set_path(new.histogram_log.clone());
        }
        for (setting, changed) in [
            ("workers", old.workers != new.workers),
            ("admin", old.admin != new.admin),
        ] {
            if changed {
                log::warn!("reload: {setting} takes effect at the next start");
            }
        }
        Ok(())
    }

    /// The sink of another access log, `Some(None)` where there shall be none any more.
    fn next_log(&self, old: &Config, new: &Config) -> Result<Option<Option<Sink>>, String> {
        if old.access_log == new.access_log {
            return Ok(None);
        }
        let open = |log: &AccessLog| Sink::open(log).map_err(|error| error.to_string());
        new.access_log.as_ref().map(open).transpose().map(Some)
    }

    fn switch_log(&self, sink: Option<Sink>) {
        if let Some(records) = self.crew.log(sink.is_some()) {
            self.log_orders
                .switch(Log { sink, records }, &self.crew.doorbell);
        }
    }
}
