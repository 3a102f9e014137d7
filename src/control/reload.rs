//! The configuration file is read again: by a signal, by the API, or because it changed. What is
//! wrong leaves the old one in force.

use std::path::Path;
use std::time::SystemTime;

use crate::admin::model::Stage;
use crate::admin::{Author, Entry};
use crate::config::{AccessLog, Config, ConfigError};

use super::access_log::{Log, Sink};
use super::balancer::Balancer;
use super::events::{Subject, Weight};
use super::file_watch::FileWatch;
use super::supervise::READY;
use super::systemd;

/// Where the configuration came from.
#[expect(
    missing_debug_implementations,
    reason = "a function has nothing to show"
)]
pub struct Reread<'a> {
    /// The file.
    pub path: &'a Path,
    /// Reads it again.
    pub read: &'a dyn Fn() -> Result<Config, ConfigError>,
}

impl Balancer<'_> {
    /// Reads the file again and routes by it. Answers with the version in force, or with what is
    /// wrong; the log, the API and the counters tell the same.
    pub(super) fn reload(&mut self, author: Author) -> Result<u64, String> {
        systemd::reloading();
        let outcome = self.try_reload();
        if self.stage == Stage::Ready {
            systemd::ready(READY);
        }
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        self.reloads.last_at = Some(now.to_string());
        self.reloads.last_error = outcome.clone().err();
        match &outcome {
            Ok(()) => {
                self.reloads.succeeded += 1;
                let message = format!("reload: version {} is in force", self.snapshot.version);
                self.events
                    .tell(Weight::Info, "reloaded", Subject::default(), message);
            }
            Err(why) => {
                self.reloads.failed += 1;
                let message = format!("reload: the old configuration stays in force\n{why}");
                self.events
                    .tell(Weight::Error, "reload_failed", Subject::default(), message);
            }
        }
        let outcome = outcome.map(|()| self.snapshot.version);
        self.audit.borrow_mut().record(&Entry {
            author,
            action: "reload",
            target: "config",
            old: None,
            new: None,
            outcome: outcome.clone(),
        });
        outcome
    }

    /// Reads the file again if it has changed, where that is wanted.
    pub(super) fn watch_file(&mut self) {
        let sight = self.file_watch.as_mut().and_then(FileWatch::look);
        if let (Some(sight), Some(watch)) = (sight, &mut self.file_watch) {
            watch.set_read(sight);
            if self.config.reload_on_change {
                // It is told by the log already.
                let _ = self.reload(Author::Operator);
            }
        }
    }

    fn try_reload(&mut self) -> Result<(), String> {
        let reread = self.reread.ok_or("it runs without a configuration file")?;
        let file = (reread.read)().map_err(|error| error.to_string())?;
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
