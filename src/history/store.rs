//! Samples and events in SQLite, in memory or in a file, within a bound in bytes.
//!
//! Seconds come in; whole minutes are summed up from them, and whole hours from minutes. So what
//! was in the file when the process was killed is summed up by the next one. Rows are in the order
//! of time, so each batch is written in one place, and what is too old is cut off in one piece.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::sample::{Point, SubjectSample};
use super::{FigureOf, Of, Resolution, Subject};
use crate::metric::{Kind, Unit};
use crate::sys;

/// Samples and events, in memory or in a file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    keep: Keep,
    figures: Figures,
    subjects: HashMap<Subject, i64>,
    /// The end of what is summed up by minutes, and by hours, in seconds since 1970.
    summed: [u64; 2],
    /// The last second that was written.
    last: Option<u64>,
    /// The second of the batch that was written last: what the clock says, where `last` may be
    /// what it said when it was wrong.
    written: Option<u64>,
    /// How far what is old was removed.
    pruned: Pruned,
    /// Where there is too much, seconds go first: minutes say the same of a longer time.
    is_seconds_first: bool,
}

/// How far what is too old was removed.
#[derive(Debug)]
struct Pruned {
    /// The second of the last look.
    at: u64,
    /// When that was, in ns of the machine's monotonic clock.
    looked: u64,
    /// What was before this second is gone, by resolution.
    before: [u64; 3],
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Seconds are kept for this long, in seconds.
    pub seconds: u64,
    /// Minutes are kept for this long, in seconds.
    pub minutes: u64,
    /// Hours and events are kept for this long, in seconds.
    pub hours: u64,
    /// Bytes of all at most. The oldest goes first: the same share of each resolution.
    pub bytes: u64,
}

impl Keep {
    fn of(&self, resolution: Resolution) -> u64 {
        match resolution {
            Resolution::Seconds => self.seconds,
            Resolution::Minutes => self.minutes,
            Resolution::Hours => self.hours,
        }
    }
}

/// What happened, with its time in ms since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastEvent {
    /// When.
    pub at_ms: u64,
    /// The kind, a word for programs.
    pub kind: String,
    /// The pool that it is about.
    pub pool: Option<String>,
    /// The backend that it is about.
    pub backend: Option<String>,
    /// A sentence.
    pub message: String,
}

/// What figures a store has, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    numbers: HashMap<FigureOf, u32>,
    by_number: BTreeMap<u32, FigureOf>,
}

impl Figures {
    fn insert(&mut self, number: u32, figure: FigureOf) {
        self.numbers.insert(figure.clone(), number);
        self.by_number.insert(number, figure);
    }
}

/// Rows of a store, for another one.
#[derive(Debug, Default)]
pub struct NewRows {
    figures: Figures,
    subjects: HashMap<i64, Subject>,
    minutes: Vec<Row>,
    seconds: Vec<Row>,
    events: Vec<PastEvent>,
    /// The number of the last event.
    pub last_event: i64,
    /// The last second, if there is one.
    pub last: Option<u64>,
}

impl NewRows {
    /// There is nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty() && self.minutes.is_empty() && self.events.is_empty()
    }
}

/// A time, the number of a subject, and the bytes of a sample.
type Row = (u64, i64, Vec<u8>);

/// A sample of each subject.
pub type Batch = Vec<(Subject, Vec<(FigureOf, Point)>)>;

impl Store {
    /// A store in memory.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn in_memory(keep: Keep) -> Result<Self, StoreError> {
        let connection = Connection::open_in_memory()?;
        Self::make(&connection)?;
        Ok(Self {
            is_seconds_first: true,
            ..Self::on(connection, keep)?
        })
    }

    /// Makes the tables in an empty database.
    pub(super) fn make(connection: &Connection) -> Result<(), StoreError> {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE figures (
                 number INTEGER PRIMARY KEY, subject INTEGER NOT NULL, name TEXT NOT NULL,
                 kind INTEGER NOT NULL, unit INTEGER NOT NULL, part INTEGER NOT NULL);
             CREATE TABLE subjects (
                 number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, pool TEXT NOT NULL,
                 name TEXT NOT NULL, seen INTEGER NOT NULL);
             CREATE TABLE events (
                 number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, pool TEXT,
                 backend TEXT, message TEXT NOT NULL);
             CREATE INDEX events_at ON events (at);
             {}
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {VERSION};
             COMMIT;",
            Resolution::ALL
                .map(|resolution| format!(
                    "CREATE TABLE {} (at INTEGER NOT NULL, subject INTEGER NOT NULL, \
                     sample BLOB NOT NULL, PRIMARY KEY (at, subject)) WITHOUT ROWID;",
                    resolution.table()
                ))
                .concat()
        ))?;
        Ok(())
    }

    /// Takes a database that has the tables.
    pub(super) fn on(connection: Connection, keep: Keep) -> Result<Self, StoreError> {
        let mut store = Self {
            connection,
            keep,
            figures: Figures::default(),
            subjects: HashMap::new(),
            summed: [0; 2],
            last: None,
            written: None,
            pruned: Pruned {
                at: 0,
                looked: sys::monotonic(),
                before: [0; 3],
            },
            is_seconds_first: false,
        };
        let pages = (keep.bytes / PAGE).max(16);
        let pages = i64::try_from(pages).unwrap_or(i64::MAX);
        let () = store
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        store.recall()?;
        Ok(store)
    }

    /// Reads what it keeps in memory of the database: again after a transaction that failed.
    pub(super) fn recall(&mut self) -> Result<(), StoreError> {
        self.recall_all().map_err(StoreError::of_content)
    }

    fn recall_all(&mut self) -> Result<(), StoreError> {
        self.figures = Figures::default();
        let mut figures = self
            .connection
            .prepare("SELECT number, subject, name, kind, unit, part FROM figures")?;
        let mut rows = figures.query([])?;
        while let Some(row) = rows.next()? {
            let figure = FigureOf {
                of: Of::of_number(row.get(1)?).ok_or_else(|| damaged("a kind of subjects"))?,
                name: row.get(2)?,
                kind: kind_of(row.get(3)?).ok_or_else(|| damaged("a kind of figures"))?,
                unit: unit_of(row.get(4)?),
                is_part: row.get(5)?,
            };
            self.figures.insert(row.get(0)?, figure);
        }
        self.subjects = subjects(&self.connection)?
            .into_iter()
            .map(|(number, subject)| (subject, number))
            .collect();
        // What is read or written later only.
        self.connection
            .prepare("SELECT number, at, kind, pool, backend, message FROM events")?;
        self.connection.prepare("SELECT seen FROM subjects")?;
        for of in Resolution::ALL {
            let sql = format!("SELECT at, subject, sample FROM {}", of.table());
            self.connection.prepare(&sql)?;
        }
        self.last = self.edge("max", Resolution::Seconds)?;
        for (place, of) in [Resolution::Minutes, Resolution::Hours]
            .into_iter()
            .enumerate()
        {
            let last = self.edge("max", of)?;
            self.summed[place] = last.map_or(0, |last| last + of.step());
        }
        Ok(())
    }

    /// The first (`min`) or the last (`max`) time of a resolution. One beyond the year 9999 is no
    /// time that was recorded.
    fn edge(&self, of: &str, resolution: Resolution) -> Result<Option<u64>, StoreError> {
        let table = resolution.table();
        let sql = format!("SELECT {of}(at) FROM {table}");
        let at: Option<i64> = self.connection.query_row(&sql, [], |row| row.get(0))?;
        match at.map(whole) {
            Some(at) if at > LATEST => Err(damaged("a time")),
            at => Ok(at),
        }
    }

    /// The first time of a resolution.
    pub(super) fn oldest(&self, resolution: Resolution) -> Result<Option<u64>, StoreError> {
        self.edge("min", resolution)
    }

    /// The last second that was written.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Its figures, in the order of their numbers.
    pub(super) fn figures(&self) -> impl Iterator<Item = (u32, &FigureOf)> {
        let figures = self.figures.by_number.iter();
        figures.map(|(number, figure)| (*number, figure))
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = (&Subject, i64)> {
        self.subjects
            .iter()
            .map(|(subject, number)| (subject, *number))
    }

    /// The end of what is summed up by a resolution.
    pub(super) fn summed(&self, resolution: Resolution) -> u64 {
        match resolution {
            Resolution::Seconds => u64::MAX,
            Resolution::Minutes => self.summed[0],
            Resolution::Hours => self.summed[1],
        }
    }

    /// Adds a sample of each subject, and events, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was added.
    pub fn write(
        &mut self,
        at: u64,
        batch: &Batch,
        events: &[PastEvent],
    ) -> Result<(), StoreError> {
        self.written = Some(at);
        self.in_transaction(|store| {
            for (subject, points) in batch {
                let mut sample = SubjectSample::default();
                for (figure, point) in points {
                    sample.put(store.number_of(figure)?, point.clone());
                }
                let subject = store.subject(subject, at)?;
                store.put(at, subject, &sample)?;
            }
            events.iter().try_for_each(|event| store.put_event(event))
        })
    }

    /// Adds what another store has, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was added.
    pub fn add(&mut self, rows: &NewRows) -> Result<(), StoreError> {
        let newest = rows.seconds.iter().chain(&rows.minutes);
        self.written = newest.map(|(at, ..)| *at).max().or(self.written);
        self.in_transaction(|store| {
            let mut numbers = HashMap::new();
            for (number, figure) in &rows.figures.by_number {
                numbers.insert(*number, store.number_of(figure)?);
            }
            let mut known = HashMap::new();
            let decoded = |bytes: &[u8]| {
                let sample = SubjectSample::of_bytes(bytes).unwrap_or_default();
                sample.renumbered(|number| numbers.get(&number).copied())
            };
            for (at, subject, bytes) in &rows.minutes {
                let Some(named) = rows.subjects.get(subject) else {
                    continue;
                };
                let subject = store.subject(named, *at)?;
                store.insert(
                    ("OR REPLACE", Resolution::Minutes),
                    *at,
                    subject,
                    &decoded(bytes),
                )?;
            }
            if let Some((last, ..)) = rows.minutes.last() {
                store.summed[0] = store.summed[0].max(last + 60);
            }
            for (at, subject, bytes) in &rows.seconds {
                let Some(named) = rows.subjects.get(subject) else {
                    continue;
                };
                let own = match known.get(subject) {
                    Some(own) => *own,
                    None => *known.entry(*subject).or_insert(store.subject(named, *at)?),
                };
                store.put(*at, own, &decoded(bytes))?;
            }
            rows.events
                .iter()
                .try_for_each(|event| store.put_event(event))
        })
    }

    fn in_transaction(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let done = act(self)
            .and_then(|()| self.sum_up())
            .and_then(|()| self.prune())
            .map_err(StoreError::of_content);
        let done = done.and_then(|()| Ok(self.connection.execute_batch("COMMIT")?));
        let Err(error) = done else {
            // What was written is there: a failure shows when the next batch is written.
            let _ = self.shorten();
            return Ok(());
        };
        // Some errors have ended the transaction already.
        let _ = self.connection.execute_batch("ROLLBACK");
        let error = self.why(error);
        if !matches!(error, StoreError::Corrupt(_)) {
            self.recall()?;
        }
        if matches!(error, StoreError::Bound) {
            self.shorten_once()?;
        }
        Err(error)
    }

    /// SQLite has one code for a full disk and for its own bound.
    fn why(&self, error: StoreError) -> StoreError {
        let is_bound = || {
            let pages = self.pragma("page_count").ok()?;
            Some(pages + 1 >= self.pragma("max_page_count").ok()?)
        };
        if matches!(error, StoreError::Full) && is_bound() == Some(true) {
            return StoreError::Bound;
        }
        error
    }

    fn number_of(&mut self, figure: &FigureOf) -> Result<u32, StoreError> {
        if let Some(number) = self.figures.numbers.get(figure) {
            return Ok(*number);
        }
        let number = self.figures.by_number.last_key_value();
        let number = number.map_or(Some(1), |(last, _)| last.checked_add(1));
        let number = number.ok_or_else(|| damaged("a number of a figure"))?;
        let unit = match figure.unit {
            None => 0,
            Some(Unit::Bytes) => 1,
            Some(Unit::Seconds) => 2,
        };
        let kind = match figure.kind {
            Kind::Gauge => 0,
            Kind::Counter => 1,
            Kind::Histogram => 2,
        };
        self.connection.execute(
            "INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?)",
            params![
                number,
                figure.of.number(),
                figure.name,
                kind,
                unit,
                figure.is_part
            ],
        )?;
        self.figures.insert(number, figure.clone());
        Ok(number)
    }

    fn subject(&mut self, subject: &Subject, at: u64) -> Result<i64, StoreError> {
        if let Some(number) = self.subjects.get(subject) {
            return Ok(*number);
        }
        self.connection.execute(
            "INSERT INTO subjects (kind, pool, name, seen) VALUES (?, ?, ?, ?)",
            params![subject.of.number(), subject.pool, subject.name, signed(at)],
        )?;
        let number = self.connection.last_insert_rowid();
        self.subjects.insert(subject.clone(), number);
        Ok(number)
    }

    /// Adds a sample of a second: to what that second has already, if there is something.
    fn put(&mut self, at: u64, subject: i64, sample: &SubjectSample) -> Result<(), StoreError> {
        let mut sum = None;
        if self.last.is_some_and(|last| at <= last) {
            let there: Option<Vec<u8>> = self
                .connection
                .prepare("SELECT sample FROM seconds WHERE at = ? AND subject = ?")?
                .query_row(params![signed(at), subject], |row| row.get(0))
                .optional()?;
            sum = there.and_then(|bytes| SubjectSample::of_bytes(&bytes));
            // The clock was set back: that time is summed up again.
            self.summed[0] = self.summed[0].min(at / 60 * 60);
            self.summed[1] = self.summed[1].min(at / 3_600 * 3_600);
        }
        let mut sum = sum.unwrap_or_default();
        sum.add(sample);
        self.insert(("OR REPLACE", Resolution::Seconds), at, subject, &sum)
    }

    fn insert(
        &self,
        (how, into): (&str, Resolution),
        at: u64,
        subject: i64,
        sample: &SubjectSample,
    ) -> Result<(), StoreError> {
        let sql = format!("INSERT {how} INTO {} VALUES (?, ?, ?)", into.table());
        let mut insert = self.connection.prepare(&sql)?;
        insert.execute(params![signed(at), subject, sample.to_bytes()])?;
        Ok(())
    }

    fn put_event(&self, event: &PastEvent) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO events (at, kind, pool, backend, message) VALUES (?, ?, ?, ?, ?)",
            params![
                signed(event.at_ms),
                event.kind,
                event.pool,
                event.backend,
                event.message
            ],
        )?;
        Ok(())
    }
}

/// The subjects of a database, by number.
fn subjects(connection: &Connection) -> Result<HashMap<i64, Subject>, StoreError> {
    let mut found = HashMap::new();
    let mut subjects = connection.prepare("SELECT number, kind, pool, name FROM subjects")?;
    let mut rows = subjects.query([])?;
    while let Some(row) = rows.next()? {
        let subject = Subject {
            of: Of::of_number(row.get(1)?).ok_or_else(|| damaged("a kind of subjects"))?,
            pool: row.get(2)?,
            name: row.get(3)?,
        };
        found.insert(row.get(0)?, subject);
    }
    Ok(found)
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("it has {what} that there is not"))
}

fn kind_of(number: i64) -> Option<Kind> {
    match number {
        0 => Some(Kind::Gauge),
        1 => Some(Kind::Counter),
        2 => Some(Kind::Histogram),
        _ => None,
    }
}

fn unit_of(number: i64) -> Option<Unit> {
    match number {
        1 => Some(Unit::Bytes),
        2 => Some(Unit::Seconds),
        _ => None,
    }
}

/// SQLite has signed numbers only. No time is that late.
pub(super) fn signed(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

pub(super) fn whole(at: i64) -> u64 {
    u64::try_from(at).unwrap_or(0)
}

/// Marks a file as one of a history: `Mhrg`.
pub(super) const APPLICATION: i32 = 0x4d68_7267;
/// The form of the tables and of samples. One with other steps of times is another form.
pub(super) const VERSION: i32 = 1;
/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;
/// Bytes of a page.
pub(super) const PAGE: u64 = 4_096;

mod error;
mod past;
mod rows;
mod upkeep;

pub use error::StoreError;
pub use past::Past;
