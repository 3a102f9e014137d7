//! What is asked of a history.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::store::StoreError;
use super::{Of, Subject};

/// What is asked of the history: all that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    /// From when: how long ago, such as `1h`, a time such as `2026-01-31T12:00:00Z`, or seconds
    /// since 1970. One hour ago, if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Until when: now, if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How long an interval is, such as `1m`. It is longer where no shorter ones are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Kinds of subjects: some of `process`, `listener`, `pool` and `backend`, with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// A pool and its backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Backends of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// A listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Figures, with commas, such as `connections,traffic.up`; `closed` is all `closed.REASON`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<String>,
}

/// Which past events are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryEventQuery {
    /// As in `history`; one day ago, if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Until when: now, if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Only those of this pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Only those of this backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// At most so many, up to 10000; 200 if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Why a history does not answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The question is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The store can't be read.
    #[error("cannot read the history: {0}")]
    Store(#[from] StoreError),
}

/// What is asked, as a store understands it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The first second.
    pub since: u64,
    /// The first second that does not belong to it.
    pub until: u64,
    /// An interval in seconds.
    pub step: Option<u64>,
    of: Vec<Of>,
    pool: Option<String>,
    backend: Option<String>,
    listener: Option<String>,
    figures: Vec<String>,
}

/// Which events are asked for. Times are ms since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuestion {
    pub(super) within: (u64, u64),
    pub(super) pool: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) limit: u32,
}

impl Question {
    /// # Errors
    /// [`AskError::Wrong`]
    pub fn new(query: &HistoryQuery, now: SystemTime) -> Result<Self, AskError> {
        let (since, until) = range((&query.since, &query.until), HOUR, now)?;
        let step = query.step.as_deref().map(|text| {
            let step = duration(text).map(|step| step.as_secs());
            step.filter(|step| (1..=STEP_MAX).contains(step))
                .ok_or_else(|| wrong("step", text, "1s to 400d, such as 1m"))
        });
        let words = |text: &Option<String>| -> Vec<String> {
            let words = text.iter().flat_map(|text| text.split(','));
            words
                .map(|word| word.trim().to_owned())
                .filter(|word| !word.is_empty())
                .collect()
        };
        let of = words(&query.of).into_iter().map(|word| {
            let of = Of::ALL.into_iter().find(|of| of.as_str() == word);
            of.ok_or_else(|| wrong("of", &word, "some of process, listener, pool and backend"))
        });
        Ok(Self {
            since,
            until,
            step: step.transpose()?,
            of: of.collect::<Result<_, _>>()?,
            pool: query.pool.clone(),
            backend: query.backend.clone(),
            listener: query.listener.clone(),
            figures: words(&query.figures),
        })
    }

    /// Whether it is about a subject.
    pub(super) fn matches(&self, subject: &Subject) -> bool {
        let is_kind = self.of.is_empty() || self.of.contains(&subject.of);
        let is = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|it| it == name);
        let is_named = match subject.of {
            Of::Process => self.pool.is_none() && self.backend.is_none() && self.listener.is_none(),
            Of::Listener => match &self.listener {
                Some(name) => *name == subject.name,
                None => self.pool.is_none() && self.backend.is_none(),
            },
            Of::Pool | Of::Backend if self.names_only_listener() => false,
            Of::Pool => self.backend.is_none() && is(&self.pool, &subject.pool),
            Of::Backend => is(&self.pool, &subject.pool) && is(&self.backend, &subject.name),
        };
        is_kind && is_named
    }

    fn names_only_listener(&self) -> bool {
        self.listener.is_some() && self.pool.is_none() && self.backend.is_none()
    }

    /// Whether it is about a figure.
    pub(super) fn has(&self, figure: &str) -> bool {
        let is = |asked: &String| {
            figure == asked
                || figure
                    .strip_prefix(asked.as_str())
                    .is_some_and(|label| label.starts_with('.'))
        };
        self.figures.is_empty() || self.figures.iter().any(is)
    }
}

impl EventQuestion {
    /// # Errors
    /// [`AskError::Wrong`]
    pub fn new(query: &HistoryEventQuery, now: SystemTime) -> Result<Self, AskError> {
        let (since, until) = range((&query.since, &query.until), DAY, now)?;
        let limit = query.limit.unwrap_or(EVENTS);
        if limit > EVENTS_MAX {
            return Err(AskError::Wrong(format!(
                "limit: {EVENTS_MAX} events at most"
            )));
        }
        Ok(Self {
            within: (since.saturating_mul(1_000), until.saturating_mul(1_000)),
            pool: query.pool.clone(),
            backend: query.backend.clone(),
            limit,
        })
    }
}

impl EventQuestion {
    /// The same for events before a time in ms.
    #[must_use]
    pub fn before(&self, ms: Option<u64>) -> Self {
        let (since, until) = self.within;
        let until = ms.map_or(until, |ms| until.min(ms));
        Self {
            within: (since, until),
            ..self.clone()
        }
    }

    /// Events at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }
}

/// From when until when, in seconds.
fn range(
    (since, until): (&Option<String>, &Option<String>),
    ago: u64,
    now: SystemTime,
) -> Result<(u64, u64), AskError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let read = |name, text: &Option<String>, absent| match text {
        None => Ok(absent),
        Some(text) => time(text, now).ok_or_else(|| {
            let expected = match text.parse::<u64>() {
                Ok(_) => {
                    "how long ago with its unit, such as 3600s, or seconds since 1970, 946684800 \
                     or more"
                }
                Err(_) => {
                    "how long ago, such as 1h, a time such as 2026-01-31T12:00:00Z, a date, or \
                     seconds since 1970"
                }
            };
            wrong(name, text, expected)
        }),
    };
    let until = read("until", until, now + 1)?.min(now + 1);
    let since = read("since", since, until.saturating_sub(ago))?;
    if since < until {
        return Ok((since, until));
    }
    let why = "invalid since: expected a time before `until`, and before now";
    Err(AskError::Wrong(why.to_owned()))
}

fn time(text: &str, now: u64) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds).filter(|seconds| *seconds >= EARLIEST);
    }
    if let Some(ago) = duration(text) {
        return Some(now.saturating_sub(ago.as_secs()));
    }
    let midnight = || humantime::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let time = humantime::parse_rfc3339_weak(text).or_else(|_| midnight());
    let time = time.ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

fn wrong(name: &str, text: &str, expected: &str) -> AskError {
    AskError::Wrong(format!("invalid {name} `{text}`: expected {expected}"))
}

/// The first time that is taken as a number, where the year 2000 begins: a smaller number is a span
/// without its unit.
const EARLIEST: u64 = 946_684_800;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const STEP_MAX: u64 = 400 * DAY;
/// Events of an answer, if the question does not say.
const EVENTS: u32 = 200;
/// Events of an answer.
pub const EVENTS_MAX: u32 = 10_000;
