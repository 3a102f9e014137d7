//! Backends in etcd: the rest of a key after the prefix is the name of a backend, and its value the
//! backend as a JSON object, with the settings that a file has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::collections::hash_map::{self, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::address::Address;
use crate::config::{Backend, BodyError, Etcd, values};
use crate::control::etcd::{EtcdCounts, KeyNews, Step, Watch, WatchPace};
use crate::wording::plural;

use super::news::BACKENDS_MAX;
use super::{Found, Teller};

/// Follows the keys under a prefix, and sends each change, several together where they come fast.
/// After a notification it sends what there is, changed or not. It runs on the thread of etcd.
pub(super) async fn follow(
    source: Etcd,
    teller: Teller,
    pace: WatchPace,
    again: Arc<Notify>,
    counts: Arc<EtcdCounts>,
) {
    let (steps, news) = mpsc::channel(STEPS);
    let watch = Watch::new(&source, (backend, BACKENDS_MAX), pace, &counts);
    tokio::select! {
        () = watch.run(steps, Arc::clone(&again)) => {}
        () = send(source.prefix, news, teller, &again) => {}
    }
}

async fn send(
    prefix: String,
    mut news: mpsc::Receiver<Step<Backend>>,
    teller: Teller,
    again: &Notify,
) {
    let mut members = Members {
        prefix,
        ..Members::default()
    };
    let mut next_at = Instant::now();
    while let Some(step) = news.recv().await {
        let mut is_due = members.take(step, again);
        // What comes meanwhile is sent together: each answer goes through the whole pool.
        while let Ok(Some(step)) = tokio::time::timeout_at(next_at, news.recv()).await {
            is_due |= members.take(step, again);
        }
        if is_due {
            let (found, error) = members.answer();
            let next = members.failure.as_ref().map(|(_, next)| *next);
            teller.tell(found, error, next).await;
            next_at = Instant::now() + GATHER;
        }
    }
}

/// The backends under a prefix.
#[derive(Debug, Default)]
struct Members {
    prefix: String,
    /// By what follows the prefix.
    by_key: BTreeMap<String, KeyState>,
    /// There are more keys than may be.
    has_more: bool,
    /// Why nothing is known of the present, and when that is looked at again.
    failure: Option<(String, Duration)>,
}

/// What is known of a key.
#[derive(Debug)]
struct KeyState {
    /// Of its last change.
    revision: i64,
    /// Its last good value.
    good: Option<Backend>,
    /// What is wrong with its present value.
    mistake: Option<String>,
}

impl KeyState {
    fn new(revision: i64, value: Result<Backend, String>, before: Option<Self>) -> Self {
        let (good, mistake) = match value {
            Ok(good) => (Some(good), None),
            Err(why) => (before.and_then(|before| before.good), Some(why)),
        };
        Self {
            revision,
            good,
            mistake,
        }
    }
}

impl Members {
    /// Takes in what has happened. `true`: an answer is due.
    fn take(&mut self, step: Step<Backend>, again: &Notify) -> bool {
        match step {
            Step::Failed(why, next) => {
                self.failure = Some((why, next));
                true
            }
            Step::Listed { keys, has_more } => {
                let mut before = std::mem::take(&mut self.by_key);
                for KeyNews {
                    key,
                    revision,
                    value,
                } in keys
                {
                    let known = before.remove(&key);
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
    fn change(&mut self, change: KeyNews<Backend>, again: &Notify) -> bool {
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
                let before = KeyState {
                    revision,
                    good,
                    mistake: None,
                };
                known.insert(KeyState::new(revision, value, Some(before)));
                true
            }
            (Place::Vacant(_), None) => false,
            (Place::Vacant(_), Some(_)) if count >= BACKENDS_MAX => {
                !std::mem::replace(&mut self.has_more, true)
            }
            (Place::Vacant(place), Some(value)) => {
                place.insert(KeyState::new(revision, value, None));
                true
            }
        }
    }

    /// The backends, and what is wrong. Without a backend the last good set stays.
    fn answer(&self) -> (Option<Found>, Option<String>) {
        let mut mistakes = Mistakes::default();
        if let Some((why, _)) = &self.failure {
            mistakes.add(|| why.clone());
            return (None, mistakes.sentence());
        }
        // Of two keys with one address, the later one counts.
        let mut by_address: HashMap<&Address, (&str, &KeyState, &Backend)> = HashMap::new();
        for (key, state) in &self.by_key {
            if let Some(why) = &state.mistake {
                let kept = match state.good {
                    Some(_) => "its last good value stays",
                    None => "it is left out",
                };
                mistakes.add(|| format!("key `{}{key}`: {why}; {kept}", self.prefix));
            }
            let Some(backend) = &state.good else { continue };
            match by_address.entry(&backend.address) {
                hash_map::Entry::Vacant(place) => {
                    place.insert((key, state, backend));
                }
                hash_map::Entry::Occupied(mut other) => {
                    let (first, known, _) = *other.get();
                    let is_later = state.revision > known.revision;
                    let pair = [first, &**key];
                    let [left_out, later] = if is_later { pair } else { [pair[1], pair[0]] };
                    mistakes.add(|| {
                        format!(
                            "key `{0}{left_out}`: it is left out, as `{0}{later}` was written \
                             later and has the same address, {1}",
                            self.prefix, backend.address
                        )
                    });
                    if is_later {
                        other.insert((key, state, backend));
                    }
                }
            }
        }
        if self.has_more {
            mistakes.add(|| {
                format!(
                    "more than {BACKENDS_MAX} keys under `{}`: others are left out",
                    self.prefix
                )
            });
        }
        if self.by_key.is_empty() {
            mistakes.add(|| format!("no key under `{}`", self.prefix));
        }
        let backends = by_address
            .into_values()
            .map(|(_, _, backend)| backend.clone());
        let backends: Vec<_> = backends.collect();
        let found = (!backends.is_empty()).then(|| Found::of(backends));
        (found, mistakes.sentence())
    }
}

/// The first mistake, and how many more there are.
#[derive(Default)]
struct Mistakes {
    first: Option<String>,
    more: u64,
}

impl Mistakes {
    fn add(&mut self, sentence: impl FnOnce() -> String) {
        match &self.first {
            None => self.first = Some(sentence()),
            Some(_) => self.more += 1,
        }
    }

    fn sentence(self) -> Option<String> {
        let first = self.first?;
        Some(match self.more {
            0 => first,
            more => format!("{first}; and {} more", plural(more, "mistake")),
        })
    }
}

/// Reads the value of a key. Host names are refused, as no task resolves them.
fn backend(name: &str, value: &[u8]) -> Result<Backend, String> {
    let name = values::name(name).map_err(|error| error.about("name", name))?;
    if name.contains('/') {
        return Err(format!("invalid name `{name}`: expected no `/` in it"));
    }
    let read = Backend::read(value).map_err(|error| match error {
        BodyError::Malformed(why) => why.replacen("invalid body", "invalid value", 1),
        BodyError::Invalid(why) => why,
    })?;
    if let Some(host) = &read.host {
        return Err(format!(
            "invalid address `{host}`: expected IPv4:port, [IPv6]:port or unix:/path; names are \
             for discovery by `dns`"
        ));
    }
    if ![&*name, &*read.address.to_string()].contains(&&*read.name) {
        return Err(format!(
            "invalid `name` `{}`: expected that of the key, `{name}`, or none",
            read.name
        ));
    }
    for (setting, is_given) in [
        ("group", read.group.is_some()),
        ("member", read.member.is_some()),
    ] {
        if is_given {
            return Err(format!(
                "{setting}: expected none, as the backend is discovered"
            ));
        }
    }
    Ok(Backend { name, ..read })
}

/// From one answer to the next.
const GATHER: Duration = Duration::from_millis(250);
/// What waits to be taken in; the watch waits with more.
const STEPS: usize = 4;

#[cfg(test)]
mod tests;
