//! History: what each figure was, in the last minutes by second, then by minute and by hour.
//!
//! A [`SubjectSample`] is what a subject did within an interval; samples of neighbouring intervals
//! add up to that of both. A [`Store`] keeps them, in memory or in a file of SQLite, within a bound
//! in bytes. A [`Question`] is answered from a store in memory and from one in a file together: the
//! file has the past, memory has what the file lacks yet.
//!
//! This room knows neither threads nor the balancer: `control/history` feeds it.

#![forbid(unsafe_code)]

mod answer;
mod file;
mod gathered;
mod question;
mod sample;
mod store;

pub use answer::{
    Asked, FigureHistory, HistoryAnswer, HistoryEvent, Measured, Span, SubjectHistory,
};
pub use file::{
    Left, Meddling, Opened, log_bytes, may_be_ours, open, open_beside, open_to_read, remove_log,
    set_aside,
};
pub use question::{
    AskError, EVENTS_MAX, EventQuestion, HistoryEventQuery, HistoryQuery, Question,
};
pub use sample::{Point, SubjectSample};
pub use store::{Batch, Keep, NewRows, Past, PastEvent, Store, StoreError};

use crate::metric::{Kind, Unit};

/// What a sample is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Its kind.
    pub of: Of,
    /// Its pool, of a pool or a backend; else empty.
    pub pool: String,
    /// Its name; empty: it is the process or a pool.
    pub name: String,
}

/// The kinds of subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Of {
    /// The process, with the sum of its workers.
    Process,
    /// A listener.
    Listener,
    /// A pool.
    Pool,
    /// A backend.
    Backend,
}

impl Of {
    /// Each kind, in the order of answers.
    pub const ALL: [Self; 4] = [Self::Process, Self::Listener, Self::Pool, Self::Backend];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Listener => "listener",
            Self::Pool => "pool",
            Self::Backend => "backend",
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Process => 0,
            Self::Listener => 1,
            Self::Pool => 2,
            Self::Backend => 3,
        }
    }

    fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.number() == number)
    }
}

/// A figure of a kind of subjects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FigureOf {
    /// Whose it is.
    pub of: Of,
    /// Its name, with a label's value behind a dot, such as `traffic.up`.
    pub name: String,
    /// How it changes.
    pub kind: Kind,
    /// What it is in.
    pub unit: Option<Unit>,
    /// Its values are not whole: they are kept in millionths.
    pub is_part: bool,
}

/// How long intervals are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resolution {
    /// A second.
    Seconds,
    /// A minute, which begins with one of the clock.
    Minutes,
    /// An hour, which begins with one of UTC.
    Hours,
}

impl Resolution {
    /// Each one, the finest first.
    pub const ALL: [Self; 3] = [Self::Seconds, Self::Minutes, Self::Hours];

    /// An interval in seconds.
    #[must_use]
    pub fn step(self) -> u64 {
        match self {
            Self::Seconds => 1,
            Self::Minutes => 60,
            Self::Hours => 3_600,
        }
    }

    /// The next finer one.
    fn finer(self) -> Option<Self> {
        match self {
            Self::Seconds => None,
            Self::Minutes => Some(Self::Seconds),
            Self::Hours => Some(Self::Minutes),
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }
}

/// Millionths in one.
pub const MILLION: u64 = 1_000_000;

#[cfg(test)]
mod tests;
