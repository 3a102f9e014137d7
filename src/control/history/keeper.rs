//! The thread of the history's file: copies from memory what the file lacks, and tries again later
//! when that fails.

use std::time::{Duration, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::{KeptFile, Shared};
use crate::admin::model::EventKind;
use crate::control::events::{Events, Severity, Subject};
use crate::control::remedy;
use crate::history::{self, Keep, Left, Meddling, Opened, Store, StoreError};
use crate::sys;

/// What the file has, and how it goes on.
struct Keeper<'a> {
    shared: &'a Shared,
    file: &'a KeptFile,
    keep: Keep,
    events: &'a Events,
    store: Option<Store>,
    /// How the last batch left the file and its log.
    left: Left,
    /// What the log had may be lost: what memory has of it is written again.
    is_behind: bool,
    /// The last second and the last event that it has of this run.
    copied: (Option<u64>, i64),
}

/// Copies until `stop` has no sender left, and once more then.
pub(super) fn run(shared: &Shared, keep: Keep, stop: &Receiver<()>, events: &Events) {
    let Some(file) = &shared.file else {
        return;
    };
    let now = super::ms(SystemTime::now()) / 1_000;
    let mut keeper = Keeper {
        shared,
        file,
        keep,
        events,
        store: None,
        left: Left::default(),
        is_behind: false,
        copied: (now.checked_sub(2), 0),
    };
    let (mut pause, mut retry) = (Duration::ZERO, RETRY_MIN);
    loop {
        let is_end = stop.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
        file.state.lock().working_since = Some(sys::monotonic());
        let outcome = keeper.copy(is_end);
        (pause, retry) = match &outcome {
            Ok(()) => (COPY_EVERY, RETRY_MIN),
            Err(_) => (retry, (retry * 2).min(RETRY_MAX)),
        };
        keeper.report(outcome);
        if is_end {
            return;
        }
    }
}

impl Keeper<'_> {
    fn copy(&mut self, is_end: bool) -> Result<(), StoreError> {
        self.look_for_meddling()?;
        for _ in 0..ROUNDS_MAX {
            if self.store.is_none() {
                self.open()?;
            }
            let at_once = self.bytes_at_once();
            let Some(store) = &mut self.store else {
                return Ok(());
            };
            let memory = self.shared.memory.lock();
            let rows = memory.rows_after(self.copied, at_once, is_end)?;
            drop(memory);
            if rows.is_empty() {
                // The clock may have been set back.
                self.copied.0 = rows.last;
                return Ok(());
            }
            match store.add(&rows) {
                Ok(()) => {
                    self.copied = (rows.last, rows.last_event);
                    self.note_left()?;
                }
                // It has removed the oldest.
                Err(StoreError::Bound) => self.note_left()?,
                Err(StoreError::Corrupt(why)) => {
                    self.begin_again();
                    let aside = history::set_aside(&self.file.path)?;
                    self.tell_damaged(&aside.display(), &why);
                }
                Err(error) => {
                    // To open it again finds out whether it is still there.
                    self.store = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let Opened { store, set_aside } = history::open(&self.file.path, self.keep)?;
        if let Some((aside, why)) = set_aside {
            self.begin_again();
            self.tell_damaged(&aside.display(), &why);
        }
        if std::mem::take(&mut self.is_behind) {
            let last_event = store.last_event()?.unwrap_or(0);
            let number = self.shared.memory.lock().event_number(last_event)?;
            let (second, event) = self.copied;
            self.copied = (second.min(store.last()).or(Some(0)), event.min(number));
        }
        self.store = Some(store);
        self.note_left()
    }

    /// Notes how a batch has left the file and its log, and cuts a log that is too long.
    fn note_left(&mut self) -> Result<(), StoreError> {
        // Whatever fails, the file is opened again. A failed cut may be half done, and by us.
        let store = self.store.take();
        self.left = Left::of(&self.file.path)?;
        if self.left.log_bytes() > 2 * history::log_bytes(self.keep.bytes) {
            let cut = store.as_ref().map_or(Ok(()), Store::cut_log);
            self.left = Left::of(&self.file.path)?;
            cut?;
        }
        self.store = store;
        Ok(())
    }

    /// Another program may have removed or cut the file or its log, which are open: what is written
    /// then would be lost.
    fn look_for_meddling(&mut self) -> Result<(), StoreError> {
        if self.store.is_none() {
            return Ok(());
        }
        let file = self.file;
        let path = &file.path;
        let meddling = Left::of(path)?.meddling_since(&self.left);
        let (Some(meddling), Some(store)) = (meddling, self.store.take_if(|_| meddling.is_some()))
        else {
            return Ok(());
        };
        match meddling {
            Meddling::Removed => {
                store.give_up();
                self.begin_again();
                history::remove_log(path, &self.left)?;
                let path = path.display();
                self.tell_changed(format!(
                    "the history {path} is begun again: its file was removed, or another one has \
                     its name; the new one has what was in memory"
                ));
            }
            Meddling::Cut => {
                store.give_up();
                self.begin_again();
                let aside = history::set_aside(path)?;
                let why = "another program has cut it or written to it";
                self.tell_damaged(&aside.display(), why);
            }
            Meddling::LogRemoved | Meddling::LogCut => {
                let is_saved = meddling == Meddling::LogRemoved && store.save_log();
                self.is_behind = true;
                if is_saved {
                    drop(store);
                } else {
                    store.give_up();
                    history::remove_log(path, &self.left)?;
                }
                let path = path.display();
                let outcome = match is_saved {
                    true => "nothing is lost",
                    false => "what it had is written again from memory",
                };
                self.tell_changed(format!(
                    "another program has removed or cut the log of the history, {path}-wal: \
                     {outcome}"
                ));
            }
        }
        Ok(())
    }

    /// Bytes of rows in one transaction: a small part of the log.
    fn bytes_at_once(&self) -> usize {
        let bytes = history::log_bytes(self.keep.bytes) / 4;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The next file is a new one, and gets all that memory has.
    fn begin_again(&mut self) {
        self.store = None;
        self.copied = (Some(0), 0);
        let mut state = self.file.state.lock();
        state.copied = self.copied.0;
        state.unreadable = None;
    }

    fn tell_damaged(&self, aside: &dyn std::fmt::Display, why: &str) {
        let path = self.file.path.display();
        let message = format!("the history {path} is begun again: {why}; it is {aside} now");
        self.tell(Severity::Warn, EventKind::HistoryDamaged, message);
    }

    fn tell_changed(&self, message: String) {
        self.tell(Severity::Warn, EventKind::HistoryDamaged, message);
    }

    fn tell(&self, severity: Severity, kind: EventKind, message: String) {
        self.events
            .tell(severity, kind, Subject::default(), message);
    }

    fn report(&self, outcome: Result<(), StoreError>) {
        let error = outcome.err().map(|error| {
            let remedy = match &error {
                StoreError::Io(error) => remedy::of_file(error),
                StoreError::Corrupt(_)
                | StoreError::Foreign
                | StoreError::Later
                | StoreError::Busy
                | StoreError::Full
                | StoreError::Bound
                | StoreError::Sql(_) => String::new(),
            };
            format!("{error}{remedy}")
        });
        let bytes = self.store.as_ref().and_then(|store| store.bytes().ok());
        let mut state = self.file.state.lock();
        state.working_since = None;
        state.is_open = self.store.is_some();
        state.copied = self.copied.0;
        state.bytes = bytes.unwrap_or(state.bytes);
        let before = std::mem::replace(&mut state.error, error.clone());
        drop(state);
        match (before, error) {
            (None, Some(why)) => {
                let message = self.file.sentence(&why);
                self.tell(Severity::Warn, EventKind::HistoryFailed, message);
            }
            (Some(_), None) => {
                let path = self.file.path.display();
                let message = format!("the history is kept in {path} again");
                self.tell(Severity::Info, EventKind::HistoryRestored, message);
            }
            _ => {}
        }
    }
}

/// How often the file gets what is new: a process that is killed loses this much.
const COPY_EVERY: Duration = Duration::from_secs(2);
/// Between two attempts at a file that failed: ever longer.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Transactions at a time.
const ROUNDS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use super::*;
    use crate::admin::exposition::readings::State;
    use crate::control::events::Since;
    use crate::control::history::Reach;
    use crate::control::history::sampler::Sampler;
    use crate::history::{HistoryQuery, open_to_read};

    const KEEP: Keep = Keep {
        seconds: 900,
        minutes: 172_800,
        hours: 172_800,
        bytes: 8 << 20,
    };

    /// A history in a directory that is removed at the end.
    struct World {
        dir: PathBuf,
        shared: Shared,
        events: Events,
        seconds: u64,
    }

    impl Drop for World {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    impl World {
        fn new() -> Self {
            let name = format!(
                "mahoraga-keeper-{}-{:x}",
                std::process::id(),
                fastrand::u64(..)
            );
            let dir = env::temp_dir().join(name);
            let shared = Shared::new(Some(dir.join("history.db"))).unwrap();
            Self {
                dir,
                shared,
                events: Events::new(),
                // The samples of a test are within a minute.
                seconds: super::super::ms(SystemTime::now()) / 60_000 * 60 - 55,
            }
        }

        fn file(&self) -> &Path {
            &self.shared.file.as_ref().unwrap().path
        }

        fn keeper(&self) -> Keeper<'_> {
            Keeper {
                shared: &self.shared,
                file: self.shared.file.as_ref().unwrap(),
                keep: KEEP,
                events: &self.events,
                store: None,
                left: Left::default(),
                is_behind: false,
                copied: (Some(self.seconds - 1), 0),
            }
        }

        /// Puts samples of these seconds into memory.
        fn sample(&self, seconds: std::ops::Range<u64>) {
            let mut sampler = Sampler::default();
            let mut memory = self.shared.memory.lock();
            for nth in seconds {
                let batch = sampler.batch(State::default().read(9));
                memory.write(self.seconds + nth, &batch, &[]).unwrap();
            }
        }

        fn kinds(&self) -> Vec<EventKind> {
            let mut watch = self.events.watch(Since::Number(0));
            std::iter::from_fn(|| watch.try_next())
                .map(|event| event.kind)
                .collect()
        }

        /// The seconds of which there is something.
        fn seconds(&self) -> usize {
            let query = HistoryQuery {
                since: Some(self.seconds.to_string()),
                step: Some("1s".to_owned()),
                ..HistoryQuery::default()
            };
            known(&self.shared.history(&query, Reach::All).unwrap())
        }
    }

    impl World {
        /// The seconds of which the file has something.
        fn seconds_in_file(&self) -> usize {
            let query = HistoryQuery {
                since: Some(self.seconds.to_string()),
                step: Some("1s".to_owned()),
                ..HistoryQuery::default()
            };
            let store = open_to_read(self.file()).unwrap();
            let question = history::Question::new(&query, SystemTime::now()).unwrap();
            let mut asked = history::Asked::new(question, &[store.span().unwrap()]).unwrap();
            asked.take(&store, 0, u64::MAX).unwrap();
            known(&asked.history())
        }
    }

    /// The seconds of which there is something.
    fn known(history: &history::HistoryAnswer) -> usize {
        let up = history.subjects.first().map(|its| &its.figures["ready"]);
        match up {
            Some(history::FigureHistory::Gauge { mean, .. }) => mean.iter().flatten().count(),
            other => panic!("{other:?}"),
        }
    }

    impl Keeper<'_> {
        fn turn(&mut self, is_end: bool) -> Result<(), String> {
            let outcome = self.copy(is_end);
            let shown = outcome.as_ref().map_err(ToString::to_string).copied();
            self.report(outcome);
            shown
        }
    }

    #[test]
    fn what_came_while_the_file_failed_is_in_it_afterwards() {
        let world = World::new();
        let mut keeper = world.keeper();
        world.sample(0..5);
        for _ in 0..2 {
            let why = keeper.turn(false).unwrap_err();
            assert!(why.contains("No such file or directory"), "{why}");
        }
        assert!(keeper.file.state.lock().error.is_some());
        assert_eq!(world.kinds(), [EventKind::HistoryFailed]);
        // Answers do not wait for the file.
        assert_eq!(world.seconds(), 5);
        fs::create_dir(&world.dir).unwrap();
        world.sample(5..9);
        keeper.turn(false).unwrap();
        assert_eq!(
            world.kinds(),
            [EventKind::HistoryFailed, EventKind::HistoryRestored]
        );
        assert_eq!(world.seconds(), 9);
        keeper.turn(true).unwrap();
        drop(keeper);
        let store = open_to_read(world.file()).unwrap();
        assert_eq!(store.last(), Some(world.seconds + 8));
    }

    #[test]
    fn a_file_that_is_damaged_while_it_runs_is_begun_again() {
        let world = World::new();
        fs::create_dir(&world.dir).unwrap();
        let damaged = [&b"SQLite format 3\0"[..], &[b'x'; 9_000]].concat();
        fs::write(world.file(), damaged).unwrap();
        let mut keeper = world.keeper();
        world.sample(0..5);
        keeper.turn(false).unwrap();
        assert_eq!(world.kinds(), [EventKind::HistoryDamaged]);
        assert_eq!(world.seconds(), 5);
        let names = fs::read_dir(&world.dir).unwrap().flatten();
        let aside = names.filter(|its| its.file_name().to_string_lossy().contains(".corrupt-"));
        assert_eq!(aside.count(), 1);
    }

    #[test]
    fn what_another_program_does_to_the_file_is_told_and_loses_nothing() {
        let cut = |path: &Path, part: u64| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let bytes = file.metadata().unwrap().len();
            file.set_len(bytes / part).unwrap();
        };
        let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
        type Harm<'a> = (&'a str, &'a dyn Fn(&Path));
        let harms: [Harm<'_>; 7] = [
            ("its file was removed", &|path| {
                fs::remove_file(path).unwrap()
            }),
            ("another one has its name", &|path| {
                fs::copy(path, path.with_extension("old")).unwrap();
                fs::rename(path.with_extension("old"), path).unwrap();
            }),
            ("has cut it", &|path| cut(path, u64::MAX)),
            ("has cut it", &|path| cut(path, 2)),
            ("nothing is lost", &|path| {
                fs::remove_file(log(path)).unwrap()
            }),
            ("written again", &|path| cut(&log(path), u64::MAX)),
            ("written again", &|path| cut(&log(path), 2)),
        ];
        for (what, harm) in harms {
            let world = World::new();
            fs::create_dir(&world.dir).unwrap();
            let mut keeper = world.keeper();
            for nth in 0..4 {
                world.sample(nth * 5..nth * 5 + 5);
                keeper.turn(false).unwrap();
            }
            harm(world.file());
            world.sample(20..25);
            keeper.turn(true).unwrap();
            assert_eq!(world.kinds(), [EventKind::HistoryDamaged], "{what}");
            let said = world.events.watch(Since::Number(0)).try_next().unwrap();
            assert!(said.message.contains(what), "{}", said.message);
            assert_eq!(world.seconds(), 25, "{what}");
            // It goes on, and the next process finds all of it.
            world.sample(25..30);
            keeper.turn(true).unwrap();
            assert_eq!(world.kinds().len(), 1, "{what}");
            drop(keeper);
            assert_eq!(world.seconds_in_file(), 30, "{what}");
        }
    }

    #[test]
    fn the_least_bound_holds_with_the_log() {
        let world = World::new();
        fs::create_dir(&world.dir).unwrap();
        let mut keeper = world.keeper();
        keeper.keep.bytes = 4 << 20;
        let figure = history::FigureOf {
            of: history::Of::Backend,
            name: "x".to_owned(),
            kind: crate::metric::Kind::Histogram,
            unit: None,
            is_part: false,
        };
        let subject = |nth: u64| history::Subject {
            of: history::Of::Backend,
            pool: String::new(),
            name: nth.to_string(),
        };
        // 15 KB each second: more than the bound in all.
        for nth in 0..280 {
            let steps = (0..460).map(|step| (step, 200 + nth)).collect();
            let point = history::Point::Times(steps);
            let batch = (0..12).map(|nth| (subject(nth), vec![(figure.clone(), point.clone())]));
            let batch: history::Batch = batch.collect();
            let mut memory = world.shared.memory.lock();
            memory.write(world.seconds + nth, &batch, &[]).unwrap();
            drop(memory);
            if nth % 2 == 0 {
                keeper.turn(false).unwrap();
            }
            let log = keeper.file.path.with_extension("db-wal");
            let both = [&keeper.file.path, &log].map(|file| {
                let there = fs::metadata(file);
                there.map_or(0, |there| there.len())
            });
            assert!(both[0] + both[1] <= 4 << 20, "{both:?} after {nth} s");
        }
        let bytes = keeper.store.as_ref().unwrap().bytes().unwrap();
        assert!(bytes > 1 << 20, "{bytes}");
        // The oldest went.
        let last = keeper.store.as_ref().unwrap().last();
        assert!(last >= Some(world.seconds + 277), "{last:?}");
    }

    #[test]
    fn a_clock_that_was_wrong_takes_nothing_and_stops_nothing() {
        const DAY: u64 = 86_400;
        let mut world = World::new();
        fs::create_dir(&world.dir).unwrap();
        world.seconds -= 7_200;
        let begin = world.seconds;
        let mut keeper = world.keeper();
        world.sample(7_200..7_205);
        keeper.turn(false).unwrap();
        // Ahead for some seconds, right again, and then behind.
        for first in [7_200 + 500 * DAY, 7_210, 0, 10] {
            let at = begin + first;
            let memory = &world.shared.memory;
            if memory.lock().last().is_some_and(|last| at < last) {
                memory.lock().forget_after(at).unwrap();
            }
            world.sample(first..first + 1);
            keeper.turn(false).unwrap();
            world.sample(first + 1..first + 5);
            keeper.turn(true).unwrap();
            let query = HistoryQuery {
                since: Some(at.to_string()),
                until: Some((at + 5).to_string()),
                step: Some("1s".to_owned()),
                ..HistoryQuery::default()
            };
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(at + 9);
            let question = history::Question::new(&query, now).unwrap();
            let store = history::open_beside(world.file()).unwrap();
            let span = store.span().unwrap();
            let mut asked = history::Asked::new(question, &[span]).unwrap();
            asked.take(&store, 0, u64::MAX).unwrap();
            assert_eq!(known(&asked.history()), 5, "{first} in the file");
            if first < 7_200 + DAY {
                // One that the file lacks yet, too.
                world.sample(first + 5..first + 6);
                let query = HistoryQuery {
                    until: Some((at + 6).to_string()),
                    ..query
                };
                let answer = world.shared.history(&query, Reach::All).unwrap();
                assert_eq!(known(&answer), 6, "{first} of both");
            }
        }
    }

    #[test]
    fn a_file_that_is_removed_is_made_again_and_a_look_that_hangs_stops_no_other() {
        let world = World::new();
        fs::create_dir(&world.dir).unwrap();
        let mut keeper = world.keeper();
        world.sample(0..5);
        keeper.turn(false).unwrap();
        fs::remove_file(world.file()).unwrap();
        world.sample(5..7);
        keeper.turn(true).unwrap();
        assert_eq!(world.seconds(), 7);
        drop(keeper);
        // Another one has all that memory has.
        let store = open_to_read(world.file()).unwrap();
        assert_eq!(store.last(), Some(world.seconds + 6));
        let span = store.span().unwrap();
        assert_eq!(span, world.shared.memory.lock().span().unwrap());
        // A look that hangs: others are answered without the file.
        world.shared.looks.lock().push(0);
        while !super::super::is_slow(0) {
            std::thread::yield_now();
        }
        assert!(world.shared.look(Reach::All).is_err());
        assert_eq!(world.seconds(), 7);
    }
}
