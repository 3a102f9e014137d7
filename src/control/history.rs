//! The history of figures and events: the control thread takes a sample each second, the thread
//! `history` puts it into a store in memory, and the thread `history-file` copies from there what
//! its file lacks.
//!
//! The control thread never waits: a sample that finds no room is dropped and counted. A disk that
//! is full, broken, locked or stuck delays the file's thread alone: the last hour stays in memory,
//! and is copied once the disk works again.

mod answers;
mod keeper;
mod loads;
mod sampler;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::admin::exposition::readings::State;
use crate::admin::model::{BalancerEvent, HistoryStatus, Stage};
use crate::config::HistorySettings;
use crate::history::{self, Keep, PastEvent, Store, StoreError};
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::between;

use super::balancer::Balancer;
use super::events::{EventWatch, Events, Since};
use super::status::{self, MemberStatus};
use super::{StartError, remedy};

pub use answers::HistoryReader;
pub(crate) use answers::HistoryRefusal;
use answers::Reach;
use loads::Recall;
pub(super) use loads::Wanted;
use sampler::Sampler;

/// Takes samples. Drop it to end its threads.
#[derive(Debug)]
pub(super) struct Recorder {
    /// `None`: it has ended.
    jobs: Option<Sender<Raw>>,
    notes: Notes,
    shared: Arc<Shared>,
    /// Has no sender left once the threads have ended.
    ended: Receiver<()>,
    recall: Recall,
}

/// Takes what is no event for watchers: who changed something.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    to: Sender<PastEvent>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Mutex<Store>,
    file: Option<KeptFile>,
    /// Samples and events that found no room.
    dropped: AtomicU64,
    /// Places of questions.
    places: Arc<Semaphore>,
    /// Those of questions to memory alone, which go on where the file hangs for others.
    memory_places: Arc<Semaphore>,
    /// When looks into the file began that are not over, in ns of the workers' clock.
    looks: Mutex<Vec<u64>>,
}

/// The file, as its thread last left it.
#[derive(Debug)]
struct KeptFile {
    path: PathBuf,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    /// It can be read.
    is_open: bool,
    bytes: u64,
    /// Why it can't be written.
    error: Option<String>,
    /// When its thread began what it does now, in ns of the workers' clock.
    working_since: Option<u64>,
    /// The last second that it has of this run: from there on memory is read.
    copied: Option<u64>,
    /// What a question could not read of it.
    unreadable: Option<String>,
}

/// What the control thread knows, of which another thread makes a sample.
struct Raw {
    at: SystemTime,
    state: State,
    snapshot: Arc<Snapshot>,
    known: Vec<Option<Vec<MemberStatus>>>,
}

impl Recorder {
    /// Begins a history, in memory and in the file that the settings name.
    ///
    /// # Errors
    /// A thread can't be made.
    pub(super) fn start(settings: &HistorySettings, events: &Events) -> Result<Self, StartError> {
        let shared = Shared::new(settings.file()).map(Arc::new);
        let shared = shared.map_err(|error| StartError::Thread {
            what: "keep the history in memory",
            error,
        })?;
        let (jobs, raw) = channel::bounded(WAITING_MAX);
        let (notes, noted) = channel::bounded(NOTES_MAX);
        let (end, ended) = channel::bounded(0);
        let (bell, stop) = channel::bounded(0);
        let watch = events.watch(Since::Number(0));
        if shared.file.is_some() {
            let (shared, events) = (Arc::clone(&shared), events.clone());
            let keep = Keep {
                seconds: settings.seconds.as_secs(),
                minutes: settings.minutes.as_secs(),
                hours: settings.hours.as_secs(),
                bytes: settings.max_size,
            };
            let end = end.clone();
            spawn("history-file", move || {
                keeper::run(&shared, keep, &stop, &events);
                drop(end);
            })?;
        }
        let own = Arc::clone(&shared);
        spawn("history", move || {
            own.record(&raw, &noted, watch);
            // The file's thread ends after this one: it has the last sample.
            drop((bell, end));
        })?;
        Ok(Self {
            jobs: Some(jobs),
            notes: Notes {
                to: notes,
                shared: Arc::clone(&shared),
            },
            shared,
            ended,
            recall: Recall::default(),
        })
    }

    pub(super) fn reader(&self) -> HistoryReader {
        HistoryReader(Arc::clone(&self.shared))
    }

    pub(super) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Waits for a while until all is in the file.
    pub(super) fn finish(&mut self) {
        self.jobs = None;
        if self.ended.recv_timeout(END_TIME) == Err(RecvTimeoutError::Timeout) {
            log::warn!("cannot write the end of the history in time");
        }
    }

    pub(super) fn status(&self) -> HistoryStatus {
        let file = self.shared.file.as_ref();
        let problem = self.problem();
        HistoryStatus {
            file: file.map(|file| file.path.display().to_string()),
            bytes: file.map_or(0, |file| file.state.lock().bytes),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            error: problem,
        }
    }

    /// What is wrong with the file.
    pub(super) fn problem(&self) -> Option<String> {
        let file = self.shared.file.as_ref()?;
        let state = file.state.lock();
        let hangs = state.working_since.is_some_and(hangs);
        let why = match (&state.error, hangs) {
            (_, true) => "no answer yet",
            (Some(error), false) => error,
            (None, false) => return file.damage(state.unreadable.as_deref()?).into(),
        };
        Some(file.sentence(why))
    }
}

impl KeptFile {
    fn sentence(&self, why: &str) -> String {
        let path = self.path.display();
        format!(
            "cannot keep the history in {path}: {why}; the last hour is kept in memory, and the \
             file is tried again"
        )
    }

    /// Of a file that is written, and of which a part can't be read.
    fn damage(&self, what: &str) -> String {
        let path = self.path.display();
        format!(
            "the history in {path} is damaged: {what}; answers leave that out. Move the file away \
             to begin another one"
        )
    }
}

impl Notes {
    /// Puts a note into the history, if there is room; else it is counted.
    pub(super) fn push(&self, note: PastEvent) {
        if self.to.try_send(note).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn new(file: Option<PathBuf>) -> std::io::Result<Self> {
        let memory = Store::in_memory(MEMORY).map_err(std::io::Error::other)?;
        Ok(Self {
            memory: Mutex::new(memory),
            file: file.map(|path| KeptFile {
                path,
                state: Mutex::default(),
            }),
            dropped: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            memory_places: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            looks: Mutex::default(),
        })
    }

    /// Puts samples and events into the store in memory, until no more come.
    fn record(&self, raw: &Receiver<Raw>, noted: &Receiver<PastEvent>, mut watch: EventWatch) {
        let mut sampler = Sampler::default();
        let mut happened = Vec::new();
        for raw in raw {
            happened.extend(noted.try_iter());
            while let Some(event) = watch.try_next() {
                happened.push(past(event));
            }
            let at = sampler.second(raw.at);
            let batch = sampler.batch(raw.into_state().read(SUBJECTS_MAX));
            let mut memory = self.memory.lock();
            if memory.last().is_some_and(|last| at < last) {
                // The clock was set back. A failure shows below.
                let _ = memory.forget_after(at);
            }
            match memory.write(at, &batch, &happened) {
                Ok(()) => happened.clear(),
                Err(error) => {
                    let events = happened.len().saturating_sub(NOTES_MAX) as u64;
                    self.dropped.fetch_add(1 + events, Ordering::Relaxed);
                    happened.truncate(NOTES_MAX);
                    log::debug!("cannot keep a sample in memory: {error}");
                }
            }
        }
    }
}

impl Raw {
    fn into_state(self) -> State {
        State {
            pools: status::pools(&self.snapshot, &self.known, BTreeMap::new()),
            ..self.state
        }
    }
}

impl Balancer {
    /// Takes a sample of all figures, to be called each second.
    pub(super) fn sample(&self) {
        let Some(jobs) = &self.history.jobs else {
            return;
        };
        if self.stage == Stage::Starting && self.metrics.uptime() < Duration::from_secs(1) {
            return;
        }
        if jobs.is_full() {
            self.history.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let snapshot = self.publisher.snapshot();
        let raw = Raw {
            at: SystemTime::now(),
            state: State {
                status: self.status(),
                listeners: self.listeners(),
                pools: Vec::new(),
                latencies: status::latencies(&self.workers.stats),
            },
            snapshot: Arc::clone(snapshot),
            known: self.known_up_to(SUBJECTS_MAX),
        };
        // Its thread ends with the process only.
        let _ = jobs.try_send(raw);
    }
}

impl Balancer {
    /// What is known of the backends of the first pools, which have no more than so many.
    fn known_up_to(&self, mut left: usize) -> Vec<Option<Vec<MemberStatus>>> {
        let pools = self.in_force.config.pools.iter().zip(&self.roster.pools);
        let known = pools.map(|(pool, record)| {
            left = left.checked_sub(pool.backends.len())?;
            let both = pool.backends.iter().zip(&record.members);
            let known = both.map(|(backend, member)| self.known_of(&pool.name, backend, member));
            Some(known.collect())
        });
        known.collect()
    }

    /// Takes the last sample, and waits for a while until the history has it.
    pub(super) fn end_history(&mut self) {
        self.sample();
        self.history.finish();
    }
}

fn past(event: BalancerEvent) -> PastEvent {
    let at = humantime::parse_rfc3339(&event.at).unwrap_or_else(|_| SystemTime::now());
    let kind = serde_json::to_value(event.kind).unwrap_or_default();
    PastEvent {
        at_ms: ms(at),
        kind: kind.as_str().unwrap_or_default().to_owned(),
        pool: event.pool,
        backend: event.backend,
        message: event.message,
    }
}

/// Since 1970.
pub(super) fn ms(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the disk does not answer what began at this time.
fn hangs(began: u64) -> bool {
    between(began, sys::monotonic()) > HANGS_AFTER
}

/// Whether a question had better do without the file.
fn is_slow(began: u64) -> bool {
    between(began, sys::monotonic()) > SLOW_AFTER
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let thread = thread::Builder::new().name(name.to_owned());
    let run = || {
        // A failure leaves a right that the thread has no use for.
        let _ = sys::done_with_rings();
        run();
    };
    // Signals are the main thread's business.
    let spawned = sys::with_signals_blocked(|| thread.spawn(run));
    spawned.map(drop).map_err(|error| StartError::Thread {
        what: "start the thread of the history",
        error,
    })
}

/// What a file lacks in a warning before the start: why it could not be kept there.
pub(super) fn mistake_in(path: &Path) -> Option<String> {
    let error = match sys::can_replace(path) {
        Err(error) => format!("{error}{}", remedy::of_file(&error)),
        Ok(()) if matches!(history::may_be_ours(path), Ok(false)) => {
            StoreError::Foreign.to_string()
        }
        Ok(()) => return None,
    };
    let path = path.display();
    Some(format!(
        "cannot keep the history in {path}: {error}; the last hour is kept in memory"
    ))
}

/// What is kept in memory: the last hour. With many backends the bytes are too few for 15 minutes
/// of seconds.
const MEMORY: Keep = Keep {
    seconds: 15 * 60,
    minutes: 3_600,
    hours: 3_600,
    bytes: 32 << 20,
};
/// Samples that wait: a machine that is that busy loses some.
const WAITING_MAX: usize = 4;
/// Notes that wait for the next sample.
const NOTES_MAX: usize = 1_024;
/// Subjects of a sample. Beyond that the backends of further pools are left out.
const SUBJECTS_MAX: usize = 4_096;
/// Questions that are answered or wait for that.
const QUESTIONS_MAX: usize = 8;
/// How long the end waits for a disk.
const END_TIME: Duration = Duration::from_secs(2);
/// When a disk counts as slow: less than a question may take.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// When a disk counts as stuck.
const HANGS_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_find_no_room_are_counted() {
        let shared = Arc::new(Shared::new(None).unwrap());
        let (to, noted) = channel::bounded(1);
        let notes = Notes {
            to,
            shared: Arc::clone(&shared),
        };
        for _ in 0..3 {
            notes.push(PastEvent::default());
        }
        assert_eq!(noted.len(), 1);
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 2);
    }
}
