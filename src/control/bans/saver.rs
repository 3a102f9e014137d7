//! Keeps the file of bans up to date.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, timeout_at};

use crate::admin::model::EventKind;
use crate::control::aside;
use crate::control::events::{Events, Severity};
use crate::guard::Bans;
use crate::sys;
use crate::time::SECOND;

use super::file::{Damage, KeptBans, save};
use super::tell;

/// Has another thread write the file after changes: one at a time. A file that a reload names is
/// read first, as at a start.
#[derive(Default)]
pub(super) struct Saver {
    /// The file that is written; `None`: there is none, or it is not read yet.
    file: Option<KeptFile>,
    reading: Option<Running<KeptFile>>,
    /// With how many ns it took.
    writing: Option<Running<(io::Result<()>, u64)>>,
    /// The changes that the write under way has.
    changes: u64,
    /// Not before this time, in ns of the workers' clock.
    resume_at: u64,
    /// A look whether a file that was set aside is still there.
    looking: Option<Running<bool>>,
}

/// A file, and what is known of it.
struct KeptFile {
    path: PathBuf,
    /// The changes that it has.
    saved: Option<u64>,
    /// It could not be read, and is left as it is.
    is_unread: bool,
    /// Why it could not be read or written at last.
    error: Option<String>,
    /// A mistake for which it was set aside: reported until that file is gone.
    damage: Option<Damage>,
    /// Bans of it that hold.
    restored: usize,
}

/// What another thread does with a file.
struct Running<T> {
    path: PathBuf,
    outcome: oneshot::Receiver<T>,
    /// In ns of the workers' clock.
    began: u64,
}

impl<T: Send + 'static> Running<T> {
    fn begin(path: &Path, call: impl FnOnce(PathBuf) -> T + Send + 'static) -> Self {
        let own = path.to_owned();
        Self {
            path: path.to_owned(),
            outcome: aside::begin(move || call(own)),
            began: sys::monotonic(),
        }
    }

    /// Whether its disk does not answer.
    fn hangs(&self) -> bool {
        sys::monotonic() - self.began > HANGS_AFTER
    }
}

impl KeptFile {
    fn new(path: &Path, kept: &KeptBans, restored: usize) -> Self {
        Self {
            path: path.to_owned(),
            saved: None,
            is_unread: kept.is_unread,
            error: kept.problem.clone(),
            damage: kept.damage.clone(),
            restored,
        }
    }

    /// Whether the table has something that the file has not.
    fn lacks(&self, bans: &Bans) -> bool {
        // Without a ban there is nothing to keep, unless there was one.
        let is_new = self.saved.is_none() && bans.is_empty() && bans.changes() == 0;
        self.saved != Some(bans.changes()) && !is_new && !self.is_unread
    }
}

impl Saver {
    /// Goes on with a file that was read at the start, of which so many bans hold.
    pub(super) fn begin(
        &mut self,
        (path, kept): (Option<&Path>, &KeptBans),
        restored: usize,
        events: &Events,
    ) {
        self.file = path.map(|path| KeptFile::new(path, kept, restored));
        self.file.iter().for_each(|file| report(file, events));
    }

    /// What is wrong with the file.
    pub(super) fn problem(&self) -> Option<String> {
        let hangs = |what: &str, path: &Path| {
            let shown = path.display();
            format!("cannot {what} the bans file {shown}: no answer yet; bans are not kept")
        };
        let reading = self.reading.as_ref().filter(|its| its.hangs());
        let writing = self.writing.as_ref().filter(|its| its.hangs());
        let reading = reading.map(|its| hangs("read", &its.path));
        let writing = writing.map(|its| hangs("write", &its.path));
        let error = self.file.as_ref().and_then(|file| file.error.clone());
        reading.or(writing).or(error)
    }

    /// What was wrong with the file that was read, until it is removed.
    pub(super) fn damage(&self) -> Option<&str> {
        let damage = self.file.as_ref()?.damage.as_ref();
        damage.map(|damage| &*damage.sentence)
    }

    /// Looks from time to time whether the file that was set aside is still there.
    fn look_aside(&mut self) {
        let Some(damage) = self.file.as_mut().map(|file| &mut file.damage) else {
            return;
        };
        let Some(Damage { aside, .. }) = damage else {
            return;
        };
        let Some(looking) = &mut self.looking else {
            let look = |path: PathBuf| {
                fs::symlink_metadata(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            };
            self.looking = Some(Running::begin(aside, look));
            return;
        };
        // Another file may have been set aside meanwhile.
        let is_it = looking.path == *aside;
        let outcome = looking.outcome.try_recv();
        if is_it && outcome == Ok(true) {
            *damage = None;
        }
        let is_over = outcome != Err(TryRecvError::Empty);
        if !is_it || is_over && sys::monotonic() - looking.began > LOOK_PAUSE {
            self.looking = None;
        }
    }

    /// To be called each second. `path` is where bans are kept.
    pub(super) fn tick(&mut self, path: Option<&Path>, bans: &Arc<Bans>, events: &Events) {
        if self.file.as_ref().map(|file| &*file.path) != path {
            self.file = None;
            self.read(path, bans, events);
        }
        self.look_aside();
        if let Some(writing) = &mut self.writing {
            let (outcome, took) = match writing.outcome.try_recv() {
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => (Err(io::Error::other("no thread can be created")), 0),
                Ok(outcome) => outcome,
            };
            self.resume_at = sys::monotonic().saturating_add(PAUSE_FACTOR * took);
            if let Some(writing) = self.writing.take() {
                self.on_written(&writing.path, outcome, events);
            }
        }
        let is_due = self.file.as_ref().is_some_and(|file| file.lacks(bans));
        if is_due && sys::monotonic() >= self.resume_at {
            self.changes = bans.changes();
            self.writing = self.write(bans);
        }
    }

    /// Writes the file at the end, and waits a while for it.
    pub(super) async fn end(&mut self, bans: &Arc<Bans>) {
        let deadline = Instant::now() + END_TIME;
        // Two at once would write one file.
        if let Some(writing) = self.writing.take()
            && timeout_at(deadline, writing.outcome).await.is_err()
        {
            return log::error!("cannot write the bans file in time");
        }
        // Also without a change: bans have refused clients.
        let Some(writing) = self.write(bans) else {
            return;
        };
        match timeout_at(deadline, writing.outcome).await {
            Ok(Ok((Ok(()), _))) => {}
            Ok(Ok((Err(error), _))) => log::error!("cannot write the bans file: {error}"),
            Ok(Err(_)) | Err(_) => log::error!("cannot write the bans file in time"),
        }
    }

    /// Reads a file that is to keep bans from now on: what it has holds beside what the table has.
    fn read(&mut self, path: Option<&Path>, bans: &Arc<Bans>, events: &Events) {
        if self.reading.as_ref().map(|its| &*its.path) != path {
            self.reading = path.map(|path| {
                let bans = Arc::clone(bans);
                Running::begin(path, move |path| {
                    let kept = KeptBans::of_last_run(&path);
                    KeptFile::new(&path, &kept, kept.restore(&bans))
                })
            });
        }
        let Some(reading) = &mut self.reading else {
            return;
        };
        match reading.outcome.try_recv() {
            Err(TryRecvError::Empty) => {}
            // No thread could be made: it is tried again.
            Err(TryRecvError::Closed) => self.reading = None,
            Ok(file) => {
                self.reading = None;
                report(&file, events);
                self.file = Some(file);
            }
        }
    }

    fn write(&self, bans: &Arc<Bans>) -> Option<Running<(io::Result<()>, u64)>> {
        let file = self.file.as_ref().filter(|file| !file.is_unread)?;
        let bans = Arc::clone(bans);
        Some(Running::begin(&file.path, move |path| {
            let began = sys::monotonic();
            (save(&path, &bans), sys::monotonic() - began)
        }))
    }

    fn on_written(&mut self, path: &Path, outcome: io::Result<()>, events: &Events) {
        // A reload may have named another one meanwhile.
        let Some(file) = self.file.as_mut().filter(|file| file.path == path) else {
            return;
        };
        match outcome {
            Ok(()) => (file.saved, file.error) = (Some(self.changes), None),
            Err(error) => {
                let shown = path.display();
                let error = format!("cannot write the bans file {shown}: {error}");
                // Once, however often it is tried again.
                if file.error.as_ref() != Some(&error) {
                    let kind = EventKind::BansUnsaved;
                    tell(events, Severity::Warn, kind, error.clone());
                }
                file.error = Some(error);
            }
        }
    }
}

/// What was read of a file.
fn report(file: &KeptFile, events: &Events) {
    let restored = file.restored;
    if restored > 0 {
        let message = format!("bans of the last run that hold: {restored}");
        tell(events, Severity::Info, EventKind::Banned, message);
    }
    let damage = file.damage.as_ref().map(|damage| &damage.sentence);
    for problem in file.error.iter().chain(damage) {
        let kind = EventKind::BansUnsaved;
        tell(events, Severity::Warn, kind, problem.clone());
    }
}

/// After a file was written, that takes a pause so many times as long: bans that come all the time
/// cost a tenth of a disk's time.
const PAUSE_FACTOR: u64 = 9;
/// How long the end waits for the disk.
const END_TIME: Duration = Duration::from_secs(2);
/// From one look for a file that was set aside to the next one.
const LOOK_PAUSE: u64 = 2 * SECOND;
/// A disk that has not answered for so long is reported.
const HANGS_AFTER: u64 = 10 * SECOND;
