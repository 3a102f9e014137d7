//! Keeps the file of bans up to date.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::admin::model::EventKind;
use crate::control::aside;
use crate::control::events::{Events, Severity, Subject};
use crate::guard::Bans;
use crate::sys;

use super::file::{KeptBans, save};

/// Has another thread write the file after changes.
#[derive(Default)]
pub(super) struct Saver {
    path: Option<PathBuf>,
    /// The changes that the file has.
    saved: Option<u64>,
    running: Option<Running>,
    /// Not before this time, in ns of the workers' clock.
    resume_at: u64,
    /// The file is left as it is: it could not be read.
    is_off: bool,
    /// Why it could not be written at last.
    pub(super) error: Option<String>,
}

struct Running {
    outcome: oneshot::Receiver<io::Result<()>>,
    changes: u64,
    began: u64,
}

impl Saver {
    /// Goes on with a file that was read at the start.
    pub(super) fn begin(&mut self, kept: &KeptBans) {
        self.is_off = kept.is_unread;
        self.error.clone_from(&kept.problem);
    }

    /// To be called each second.
    pub(super) fn tick(&mut self, path: Option<&Path>, bans: &Arc<Bans>, events: &Events) {
        if self.path.as_deref() != path {
            self.path = path.map(Path::to_owned);
            self.saved = None;
        }
        if let Some(running) = &mut self.running {
            let outcome = match running.outcome.try_recv() {
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => Err(io::Error::other("no thread can be created")),
                Ok(outcome) => outcome,
            };
            let (changes, began) = (running.changes, running.began);
            self.running = None;
            self.on_saved(outcome, changes, events);
            let now = sys::monotonic();
            self.resume_at = now.saturating_add(PAUSE_FACTOR * (now - began));
        }
        let changes = bans.changes();
        // Without a ban there is nothing to keep, unless there was one.
        let is_new = self.saved.is_none() && bans.is_empty() && changes == 0;
        if self.saved == Some(changes) || is_new || sys::monotonic() < self.resume_at {
            return;
        }
        if let Some(outcome) = self.save(bans) {
            self.running = Some(Running {
                outcome,
                changes,
                began: sys::monotonic(),
            });
        }
    }

    /// Writes the file at the end, and waits a while for it.
    pub(super) async fn end(&self, bans: &Arc<Bans>) {
        let Some(outcome) = self.save(bans) else {
            return;
        };
        match tokio::time::timeout(END_TIME, outcome).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => log::error!("cannot write the bans file: {error}"),
            Ok(Err(_)) | Err(_) => log::error!("cannot write the bans file in time"),
        }
    }

    fn save(&self, bans: &Arc<Bans>) -> Option<oneshot::Receiver<io::Result<()>>> {
        let path = self.path.clone().filter(|_| !self.is_off)?;
        let bans = Arc::clone(bans);
        Some(aside::begin(move || save(&path, &bans)))
    }

    fn on_saved(&mut self, outcome: io::Result<()>, changes: u64, events: &Events) {
        match outcome {
            Ok(()) => (self.saved, self.error) = (Some(changes), None),
            Err(error) => {
                let path = self.path.as_deref().unwrap_or_else(|| Path::new(""));
                let shown = path.display();
                let error = format!("cannot write the bans file {shown}: {error}");
                // Once, however often it is tried again.
                if self.error.as_ref() != Some(&error) {
                    let about = Subject::default();
                    events.tell(Severity::Warn, EventKind::BansUnsaved, about, error.clone());
                }
                self.error = Some(error);
            }
        }
    }
}

/// After a file was written, that takes a pause so many times as long: bans that come all the time
/// cost a tenth of a disk's time.
const PAUSE_FACTOR: u64 = 9;
/// How long the end waits for the disk.
const END_TIME: Duration = Duration::from_secs(2);
