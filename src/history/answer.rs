//! What a history answers: a list of intervals, and for each figure a value of each interval.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gathered::{Gathered, columns, ratio};
use super::question::{AskError, EventQuestion, Question};
use super::sample::{Reading, Seen};
use super::store::{PastEvent, Store, StoreError};
use super::{FigureOf, MILLION, Of, Resolution, Subject};
use crate::metric::Kind;

/// What happened from one time to another, in intervals of equal length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryAnswer {
    /// Where the first interval begins, in seconds since 1970.
    pub since: u64,
    /// Where the last one ends. The one that is not over yet has what was so far.
    pub until: u64,
    /// How long each is, in seconds.
    pub step: u64,
    /// Where each begins, in seconds since 1970.
    pub at: Vec<u64>,
    /// The subjects that there is something of.
    pub subjects: Vec<SubjectHistory>,
    /// What it lacks, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The history of the process, a listener, a pool or a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectHistory {
    /// `process`, `listener`, `pool` or `backend`.
    pub kind: String,
    /// The listener's name.
    pub listener: Option<String>,
    /// The pool's name, of a pool or a backend.
    pub pool: Option<String>,
    /// The backend's name.
    pub backend: Option<String>,
    /// For how many seconds of each interval it was recorded: fewer than `step` where it began, or
    /// where the interval is not over yet. A counter's increase divided by it is a rate.
    #[serde(default)]
    pub recorded: Vec<u64>,
    /// What each figure was. One without a value is absent.
    pub figures: BTreeMap<String, FigureHistory>,
}

/// A figure in each interval; null where nothing was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FigureHistory {
    /// By how much it went up within each interval.
    Counter {
        /// `bytes`, `seconds` or null.
        unit: Option<String>,
        /// The increase.
        sum: Vec<Option<Measured>>,
    },
    /// What goes up and down.
    Gauge {
        /// `bytes`, `seconds` or null.
        unit: Option<String>,
        /// Its average.
        mean: Vec<Option<f64>>,
        /// Its greatest value.
        max: Vec<Option<Measured>>,
    },
    /// Times, off by 4% at most.
    Histogram {
        /// `seconds`.
        unit: Option<String>,
        /// How many there were.
        count: Vec<Option<u64>>,
        /// Half were shorter.
        p50: Vec<Option<f64>>,
        /// 99% were shorter.
        p99: Vec<Option<f64>>,
        /// 99.9% were shorter.
        p999: Vec<Option<f64>>,
    },
}

/// A number that may be whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Measured {
    /// It is.
    Whole(u64),
    /// It is not.
    Part(f64),
}

impl Measured {
    pub(super) fn of(value: u64, is_part: bool) -> Self {
        match is_part {
            false => Self::Whole(value),
            true => Self::Part(ratio(value, MILLION)),
        }
    }

    /// The number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough to show it")]
    pub fn number(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Part(part) => part,
        }
    }
}

/// An event of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEvent {
    /// When (RFC 3339).
    pub at: String,
    /// The kind of event; `audit`: who changed something.
    pub kind: String,
    /// The pool that it concerns.
    pub pool: Option<String>,
    /// The backend that it concerns.
    pub backend: Option<String>,
    /// A sentence that describes it.
    pub message: String,
}

/// What a store has, in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first time of each resolution.
    oldest: [Option<u64>; 3],
    /// The last second.
    pub last: Option<u64>,
}

impl Span {
    /// The first second of anything, and the last.
    #[must_use]
    pub fn extent(&self) -> Option<(u64, u64)> {
        Some((self.oldest.iter().flatten().copied().min()?, self.last?))
    }
}

impl Store {
    /// What it has, in time.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn span(&self) -> Result<Span, StoreError> {
        let mut oldest = [None; 3];
        for (place, resolution) in oldest.iter_mut().zip(Resolution::ALL) {
            *place = self.oldest(resolution)?;
        }
        Ok(Span {
            oldest,
            last: self.last(),
        })
    }

    /// The last events that match, the newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn events(&self, asked: &EventQuestion) -> Result<Vec<PastEvent>, StoreError> {
        let about = (asked.pool.as_deref(), asked.backend.as_deref());
        self.last_events(asked.within, about, asked.limit)
    }
}

impl From<PastEvent> for HistoryEvent {
    fn from(event: PastEvent) -> Self {
        let at = UNIX_EPOCH + Duration::from_millis(event.at_ms.min(LATEST_MS));
        Self {
            at: humantime::format_rfc3339_millis(at).to_string(),
            kind: event.kind,
            pool: event.pool,
            backend: event.backend,
            message: event.message,
        }
    }
}

/// An answer under way. What stores have is put into it in the order of time.
#[derive(Debug)]
pub struct Asked {
    question: Question,
    step: u64,
    resolution: Resolution,
    since: u64,
    until: u64,
    /// Where each subject that was asked for stands in `gathered`.
    subjects: BTreeMap<Subject, usize>,
    gathered: Vec<Gathered>,
    /// The figures of each kind of subjects.
    figures: BTreeMap<Of, Vec<FigureOf>>,
    /// Values that it has in each interval, absent ones too, in eighths of one: whether a subject
    /// was there takes one.
    eighths: u64,
    /// Samples that can't be read.
    unreadable: u64,
    /// It would have more than an answer may have.
    is_too_much: bool,
}

impl Asked {
    /// Plans the answer from stores that have these times.
    ///
    /// # Errors
    /// [`AskError::Wrong`]: there would be too many intervals.
    pub fn new(question: Question, spans: &[Span]) -> Result<Self, AskError> {
        let seconds = question.until - question.since;
        let least = finest(question.since, spans).step();
        let step = match question.step {
            Some(step) => step.max(least),
            None => {
                let about = (seconds / POINTS).max(least);
                let round = STEPS.into_iter().find(|step| *step >= about);
                round.unwrap_or_else(|| about.next_multiple_of(DAY))
            }
        };
        // Intervals that are kept are parts of those that are shown.
        let coarsest = Resolution::ALL
            .into_iter()
            .rev()
            .find(|of| step >= of.step());
        let resolution = coarsest.unwrap_or(Resolution::Seconds);
        let step = step.next_multiple_of(resolution.step());
        let since = question.since / step * step;
        let until = question.until.next_multiple_of(step);
        if (until - since) / step > POINTS_MAX {
            let enough = seconds.div_ceil(POINTS_MAX - 2);
            let units = Resolution::ALL.into_iter().rev().map(Resolution::step);
            let unit = units.into_iter().find(|unit| enough >= *unit);
            let enough = enough.next_multiple_of(unit.unwrap_or(1));
            let why = format!(
                "invalid step: expected {POINTS_MAX} intervals at most: a step of {enough}s or \
                 more, or a later `since`"
            );
            return Err(AskError::Wrong(why));
        }
        Ok(Self {
            question,
            step,
            resolution,
            since,
            until,
            subjects: BTreeMap::new(),
            gathered: Vec::new(),
            figures: BTreeMap::new(),
            eighths: 0,
            unreadable: 0,
            is_too_much: false,
        })
    }

    /// Adds what a store has from this second on until another one.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn take(&mut self, store: &Store, from: u64, until: u64) -> Result<(), AskError> {
        let within = (self.since.max(from), self.until.min(until));
        let figures = self.figures_of(store);
        let subjects = self.subjects_of(store);
        let numbers: Vec<i64> = subjects.iter().map(|its| its.number).collect();
        let mut read = Reading::default();
        let resolution = self.resolution;
        let scanned = store.scan(resolution, within, &numbers, &mut |at, nth, bytes| {
            let Some(subject) = subjects.get(nth).filter(|_| !self.is_too_much) else {
                return Ok(());
            };
            if read.take(bytes) {
                self.is_too_much = !self.gather(subject, &figures, at, &read);
            } else {
                // The others are as right as they were.
                self.unreadable += 1;
            }
            Ok(())
        });
        scanned.map_err(StoreError::of_content)?;
        if self.is_too_much {
            let why = format!(
                "the answer would have more than {VALUES_MAX} values: ask for a pool, a backend \
                 or a listener, for some `figures`, for one kind (`of`), or for a longer `step`"
            );
            return Err(AskError::Wrong(why));
        }
        Ok(())
    }

    /// The figures of a store that are asked for, in the order of their numbers.
    fn figures_of(&mut self, store: &Store) -> Vec<NumberedFigure> {
        let asked = store
            .figures()
            .filter(|(_, figure)| self.question.has(&figure.name));
        let figures = asked.map(|(number, figure)| {
            let known = self.figures.entry(figure.of).or_default();
            let place = known.iter().position(|its| its == figure);
            let place = place.unwrap_or_else(|| {
                known.push(figure.clone());
                known.len() - 1
            });
            NumberedFigure {
                number,
                of: figure.of,
                kind: figure.kind,
                place,
            }
        });
        figures.collect()
    }

    /// The subjects of a store that are asked for, in the order of their numbers.
    fn subjects_of(&mut self, store: &Store) -> Vec<NumberedSubject> {
        let mut found = Vec::new();
        for (subject, number) in store.subjects() {
            if self.question.matches(subject) {
                let place = *self.subjects.entry(subject.clone()).or_insert_with(|| {
                    self.gathered.push(Gathered::default());
                    self.gathered.len() - 1
                });
                let of = subject.of;
                found.push(NumberedSubject { number, of, place });
            }
        }
        found.sort_unstable_by_key(|its| its.number);
        found
    }

    /// Adds a sample; `false`: the answer would have too many values.
    fn gather(
        &mut self,
        subject: &NumberedSubject,
        figures: &[NumberedFigure],
        at: u64,
        read: &Reading,
    ) -> bool {
        let intervals = self.intervals();
        let gathered = &mut self.gathered[subject.place];
        if gathered.is_new() {
            gathered.begin(intervals);
            self.eighths += 1;
        }
        let find = |number: u32| {
            let place = figures.binary_search_by_key(&number, |its| its.number);
            let figure = figures.get(place.ok()?)?;
            (figure.of == subject.of).then_some(figure)
        };
        for figure in read.points.iter().filter_map(|(number, _)| find(*number)) {
            if !gathered.has(figure.place) {
                gathered.begin_figure(figure.place, figure.kind);
                self.eighths += 8 * columns(figure.kind);
            }
        }
        if !self.make_room() {
            return false;
        }
        let interval = usize::try_from((at - self.since) / self.step).unwrap_or(usize::MAX);
        let gathered = &mut self.gathered[subject.place];
        // What is read each second tells how many there were.
        let seconds = read.points.iter().filter_map(|(_, seen)| match seen {
            Seen::Gauge { count, .. } => Some(*count),
            Seen::Counter(_) | Seen::Times(_) => None,
        });
        gathered.add_seconds(interval, seconds.max().unwrap_or(0).max(1));
        for (number, seen) in &read.points {
            if let Some(figure) = find(*number) {
                gathered.add(figure.place, interval, seen, &read.steps);
            }
        }
        true
    }

    /// Makes intervals longer until the values that there are find room, if the question leaves
    /// that open; `false`: there are too many.
    fn make_room(&mut self) -> bool {
        loop {
            let intervals = (self.until - self.since) / self.step;
            if intervals.saturating_mul(self.eighths) / 8 <= VALUES_MAX {
                return true;
            }
            if self.question.step.is_some() || intervals <= COARSE_POINTS {
                return false;
            }
            self.coarsen();
        }
    }

    /// Makes the intervals longer: each is some of those before, so nothing is lost.
    fn coarsen(&mut self) {
        let longer = STEPS
            .into_iter()
            .find(|step| *step > self.step && step.is_multiple_of(self.step));
        let step = longer.unwrap_or(self.step * 2);
        let factor = usize::try_from(step / self.step).unwrap_or(usize::MAX);
        self.step = step;
        self.until = self.since + (self.until - self.since).next_multiple_of(step);
        for gathered in &mut self.gathered {
            gathered.coarsen(factor);
        }
    }

    fn intervals(&self) -> usize {
        usize::try_from((self.until - self.since) / self.step).unwrap_or(usize::MAX)
    }

    /// Samples that it lacks, as they can't be read.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// The answer.
    #[must_use]
    pub fn history(self) -> HistoryAnswer {
        let unreadable = (self.unreadable > 0).then(|| {
            let count = self.unreadable;
            format!("without {count} samples, which are damaged and can't be read")
        });
        let subjects = self.subjects.into_iter().filter_map(|(subject, place)| {
            let gathered = &self.gathered[place];
            let known = self.figures.get(&subject.of)?;
            gathered.has_figures().then(|| SubjectHistory {
                recorded: gathered.recorded(self.step),
                figures: gathered.shown(known).collect(),
                ..named(subject)
            })
        });
        HistoryAnswer {
            since: self.since,
            until: self.until,
            step: self.step,
            at: (self.since..self.until)
                .step_by(usize::try_from(self.step).unwrap_or(usize::MAX))
                .collect(),
            notes: unreadable.into_iter().collect(),
            subjects: subjects.collect(),
        }
    }
}

/// A figure that is asked for, as a store has it.
struct NumberedFigure {
    number: u32,
    of: Of,
    kind: Kind,
    /// Its place among those of its kind of subjects.
    place: usize,
}

/// A subject that is asked for, as a store has it.
struct NumberedSubject {
    number: i64,
    of: Of,
    /// Its place in what was gathered.
    place: usize,
}

/// The finest resolution that goes back as far as anything does, or as is asked.
fn finest(since: u64, spans: &[Span]) -> Resolution {
    let oldest = |of: Resolution| {
        let place = Resolution::ALL.iter().position(|its| *its == of);
        let all = spans.iter().filter_map(|span| span.oldest[place?]);
        all.min()
    };
    let first = Resolution::ALL.into_iter().filter_map(oldest).min();
    let Some(first) = first.map(|first| first.max(since)) else {
        return Resolution::Seconds;
    };
    // What was summed up begins with its interval, which may be before the first second.
    let reaches = |of: &Resolution| {
        let slack = match of {
            Resolution::Seconds => Resolution::Minutes.step(),
            Resolution::Minutes | Resolution::Hours => Resolution::Hours.step(),
        };
        oldest(*of).is_some_and(|its| its < first + slack)
    };
    let found = Resolution::ALL.into_iter().find(reaches);
    found.unwrap_or(Resolution::Seconds)
}

fn named(subject: Subject) -> SubjectHistory {
    let Subject { of, pool, name } = subject;
    let (listener, pool, backend) = match of {
        Of::Process => (None, None, None),
        Of::Listener => (Some(name), None, None),
        Of::Pool => (None, Some(pool), None),
        Of::Backend => (None, Some(pool), Some(name)),
    };
    SubjectHistory {
        kind: of.as_str().to_owned(),
        listener,
        pool,
        backend,
        recorded: Vec::new(),
        figures: BTreeMap::new(),
    }
}

/// Intervals of an answer, if the question does not say: about so many at most.
const POINTS: u64 = 300;
/// Intervals of an answer.
const POINTS_MAX: u64 = 1_500;
/// Values of an answer.
const VALUES_MAX: u64 = 500_000;
/// Where an answer has too many values, and no step is asked for, intervals get longer, but not
/// beyond so many.
const COARSE_POINTS: u64 = 30;
/// The end of the year 9999, the last one that is written.
const LATEST_MS: u64 = 253_402_300_799_999;
const DAY: u64 = 86_400;
/// The lengths of intervals that are chosen, in seconds.
const STEPS: [u64; 19] = [
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1_800,
    3_600,
    7_200,
    10_800,
    21_600,
    43_200,
    DAY,
    7 * DAY,
];
