//! What is known of each key under a prefix: its last good value, and what is wrong with the
//! present one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::wording::plural;

/// What is known of a key now.
#[derive(Debug)]
pub(in crate::control) struct KeyNews<T> {
    /// What follows the prefix.
    pub(in crate::control) key: String,
    /// Of its last change: the latest of several has the highest.
    pub(in crate::control) revision: i64,
    /// `None`: it is gone.
    pub(in crate::control) value: Option<Result<T, String>>,
}

/// What has happened.
#[derive(Debug)]
pub(in crate::control) enum Step<T> {
    /// All keys.
    Listed {
        keys: Vec<KeyNews<T>>,
        /// There are more keys than may be.
        has_more: bool,
        /// The revision is lower than one before: the server was wiped, or restored.
        went_back: bool,
    },
    /// Some keys have changed.
    Changed(Vec<KeyNews<T>>),
    /// No endpoint answers: why, and when the next is asked.
    Failed(String, Duration),
}

/// The keys under a prefix.
#[derive(Debug)]
pub(in crate::control) struct Keys<T> {
    /// The word for a key, such as "key", and the sentence for all of them, such as "keys under /".
    words: (&'static str, String),
    prefix: String,
    /// Keys beyond are left out.
    max: usize,
    /// By what follows the prefix.
    by_key: BTreeMap<String, KeyState<T>>,
    /// There are more keys than may be.
    has_more: bool,
    /// There is none since the cluster was wiped.
    is_wiped: bool,
    /// Why nothing is known of the present, and when that is looked at again.
    failure: Option<(String, Duration)>,
}

/// What is known of a key.
#[derive(Debug)]
struct KeyState<T> {
    /// Of its last change.
    revision: i64,
    /// Its last good value.
    good: Option<T>,
    /// What is wrong with its present value.
    mistake: Option<String>,
}

impl<T> KeyState<T> {
    fn new(revision: i64, value: Result<T, String>, before: Option<T>) -> Self {
        let (good, mistake) = match value {
            Ok(good) => (Some(good), None),
            Err(why) => (before, Some(why)),
        };
        Self {
            revision,
            good,
            mistake,
        }
    }
}

impl<T> Keys<T> {
    /// No key is known yet.
    pub(in crate::control) fn new(words: (&'static str, String), prefix: &str, max: usize) -> Self {
        Self {
            words,
            prefix: prefix.to_owned(),
            max,
            by_key: BTreeMap::new(),
            has_more: false,
            is_wiped: false,
            failure: None,
        }
    }

    pub(in crate::control) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// All of them, in words.
    pub(in crate::control) fn all(&self) -> &str {
        &self.words.1
    }

    /// Why nothing is known of the present, and when that is looked at again.
    pub(in crate::control) fn failure(&self) -> Option<&(String, Duration)> {
        self.failure.as_ref()
    }

    /// Each good value with its key and revision.
    pub(in crate::control) fn good(&self) -> impl Iterator<Item = (&str, i64, &T)> {
        let keys = self.by_key.iter();
        keys.filter_map(|(key, its)| Some((&**key, its.revision, its.good.as_ref()?)))
    }

    /// Whether there is no key since the cluster was wiped, or restored from a backup.
    pub(in crate::control) fn is_wiped(&self) -> bool {
        self.is_wiped && self.is_empty()
    }

    pub(in crate::control) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// What is wrong with keys, and with their number.
    pub(in crate::control) fn mistakes(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        for (key, state) in &self.by_key {
            if let Some(why) = &state.mistake {
                let kept = match state.good {
                    Some(_) => "its last good value stays",
                    None => "it is left out",
                };
                let (word, prefix) = (self.words.0, &self.prefix);
                mistakes.add(|| format!("{word} `{prefix}{key}`: {why}; {kept}"));
            }
        }
        if self.has_more {
            let (max, all) = (self.max, &self.words.1);
            mistakes.add(|| format!("more than {max} {all}: others are left out"));
        }
        mistakes
    }

    /// Takes in what has happened. `true`: what is known has changed. `again` has all keys listed.
    pub(in crate::control) fn take(&mut self, step: Step<T>, again: &Notify) -> bool {
        match step {
            Step::Failed(why, next) => {
                self.failure = Some((why, next));
                true
            }
            Step::Listed {
                keys,
                has_more,
                went_back,
            } => {
                self.is_wiped = keys.is_empty() && (went_back || self.is_wiped);
                let mut before = std::mem::take(&mut self.by_key);
                for KeyNews {
                    key,
                    revision,
                    value,
                } in keys
                {
                    let known = before.remove(&key).and_then(|before| before.good);
                    if let Some(value) = value {
                        let state = KeyState::new(revision, value, known);
                        self.by_key.insert(key, state);
                    }
                }
                self.has_more = has_more;
                self.failure = None;
                true
            }
            Step::Changed(changes) => {
                let mut has_changed = false;
                for change in changes {
                    has_changed |= self.change(change, again);
                }
                has_changed
            }
        }
    }

    /// Takes a change of one key in, unless a later one is known.
    fn change(&mut self, change: KeyNews<T>, again: &Notify) -> bool {
        let count = self.by_key.len();
        let (key, revision) = (change.key, change.revision);
        match (self.by_key.entry(key), change.value) {
            (Place::Occupied(known), _) if known.get().revision >= revision => false,
            (Place::Occupied(known), None) => {
                known.remove();
                if self.has_more {
                    // There is room for one that was left out.
                    again.notify_one();
                }
                true
            }
            (Place::Occupied(mut known), Some(value)) => {
                let good = known.get_mut().good.take();
                known.insert(KeyState::new(revision, value, good));
                true
            }
            (Place::Vacant(_), None) => false,
            (Place::Vacant(_), Some(_)) if count >= self.max => {
                !std::mem::replace(&mut self.has_more, true)
            }
            (Place::Vacant(place), Some(value)) => {
                place.insert(KeyState::new(revision, value, None));
                true
            }
        }
    }
}

/// The first mistake, and how many more there are.
#[derive(Debug, Default)]
pub(in crate::control) struct Mistakes {
    first: Option<String>,
    more: u64,
}

impl Mistakes {
    pub(in crate::control) fn add(&mut self, sentence: impl FnOnce() -> String) {
        match &self.first {
            None => self.first = Some(sentence()),
            Some(_) => self.more += 1,
        }
    }

    pub(in crate::control) fn sentence(self) -> Option<String> {
        let first = self.first?;
        Some(match self.more {
            0 => first,
            more => format!("{first}; and {} more", plural(more, "mistake")),
        })
    }
}

/// The keys that a watch sends, of which it takes in what comes within a quarter of a second
/// together: to use them may take longer.
pub(in crate::control) struct Gathered<T> {
    keys: Keys<T>,
    news: mpsc::Receiver<Step<T>>,
    again: Arc<Notify>,
    next_at: Instant,
}

impl<T> Gathered<T> {
    pub(in crate::control) fn new(
        keys: Keys<T>,
        news: mpsc::Receiver<Step<T>>,
        again: Arc<Notify>,
    ) -> Self {
        Self {
            keys,
            news,
            again,
            next_at: Instant::now(),
        }
    }

    /// Waits until something has changed; `None`: the watch has ended.
    pub(in crate::control) async fn changed(&mut self) -> Option<&Keys<T>> {
        let mut is_due = false;
        while !is_due {
            let step = self.news.recv().await?;
            is_due = self.keys.take(step, &self.again);
        }
        while let Ok(Some(step)) = tokio::time::timeout_at(self.next_at, self.news.recv()).await {
            self.keys.take(step, &self.again);
        }
        self.next_at = Instant::now() + GATHER;
        Some(&self.keys)
    }
}

/// From one answer to the next.
pub(crate) const GATHER: Duration = Duration::from_millis(250);
/// Steps of a watch that wait to be taken in; it waits with more.
pub(in crate::control) const STEPS: usize = 4;
