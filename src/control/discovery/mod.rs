//! Backends that are not in the configuration: what the DNS says of a name, or what a file lists.
//!
//! Each pool that discovers has a task of its own, which looks again and again and tells what it
//! found. [`Discoveries`] keeps the last good set of each, whatever fails afterwards; [`merge`]
//! puts them behind the declared ones.

mod dns;
mod file;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::{Backend, Config, Discovery};

/// What was found for each pool that discovers.
///
/// [`Self::follow`] says which pools those are; [`Self::changed`] has to be awaited over and over,
/// as it is what takes news in.
#[derive(Debug)]
pub(super) struct Discoveries {
    followed: BTreeMap<String, Followed>,
    sender: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    /// Counts tasks: news of those that were stopped may be on their way still.
    tasks: u64,
    pace: Pace,
}

/// How discovery of a pool is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// When backends were last found, whether they were others than before or not.
    pub(super) succeeded_at: Option<SystemTime>,
    /// What went wrong at the last look; `None`: nothing.
    pub(super) error: Option<String>,
    /// When the DNS is asked next; `None` for files, which are looked at each second.
    pub(super) next_at: Option<SystemTime>,
}

/// The configuration with the backends that were found behind the declared ones. Who is declared
/// with the same name or address is that one already.
#[must_use]
pub(super) fn merge(declared: &Config, found: impl Fn(&str) -> Option<Vec<Backend>>) -> Config {
    let mut merged = declared.clone();
    for pool in &mut merged.pools {
        if pool.discovery.is_none() {
            continue;
        }
        let names: BTreeSet<_> = pool.backends.iter().map(|b| b.name.clone()).collect();
        let addresses: BTreeSet<_> = pool.backends.iter().map(|b| b.address.clone()).collect();
        let is_new = |b: &Backend| !names.contains(&b.name) && !addresses.contains(&b.address);
        let found = found(&pool.name).unwrap_or_default();
        pool.backends.extend(found.into_iter().filter(is_new));
    }
    merged
}

impl Discoveries {
    /// Follows nothing yet.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::at_pace(Pace::default())
    }

    fn at_pace(pace: Pace) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self {
            followed: BTreeMap::new(),
            sender,
            news,
            tasks: 0,
            pace,
        }
    }

    /// Begins to look where the configuration says, and ends what it no longer says. What stays
    /// keeps what it found. A pool that looks elsewhere from now on keeps it until the first
    /// answer from there, good or bad. To be called inside the control thread's runtime.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut before = std::mem::take(&mut self.followed);
        for pool in &config.pools {
            let Some(discovery) = pool.discovery.clone() else {
                continue;
            };
            let resolvers = match discovery {
                Discovery::Dns { .. } | Discovery::Srv(_) => config.resolvers.clone(),
                Discovery::File(_) => Vec::new(),
            };
            let source = Source {
                discovery,
                resolvers,
            };
            let followed = match before.remove(&pool.name) {
                Some(old) if old.source == source => old,
                old => self.begin(&pool.name, source, old),
            };
            self.followed.insert(pool.name.clone(), followed);
        }
    }

    /// The last good set of a pool, sorted by address, backups last; `None`: nothing is known yet.
    #[must_use]
    pub(super) fn found(&self, pool: &str) -> Option<&[Backend]> {
        self.followed.get(pool)?.found.as_deref()
    }

    /// Whether a pool has had an answer since it began to discover, good or bad.
    #[must_use]
    pub(super) fn has_answer(&self, pool: &str) -> bool {
        let state = self.state(pool);
        state.is_some_and(|state| state.succeeded_at.is_some() || state.error.is_some())
    }

    /// How it is going; `None`: the pool discovers nothing.
    #[must_use]
    pub(super) fn state(&self, pool: &str) -> Option<&State> {
        Some(&self.followed.get(pool)?.state)
    }

    /// Waits until the set of a pool is another one; answers with its name. Nothing is lost when
    /// this is dropped before it ends.
    pub(super) async fn changed(&mut self) -> String {
        loop {
            let news = self.news.recv().await;
            let news = news.expect("a sender is kept here, so the channel stays open");
            if let Some(pool) = self.take(news) {
                return pool;
            }
        }
    }

    /// A task for a pool, which may have looked elsewhere before.
    fn begin(&mut self, pool: &str, source: Source, old: Option<Followed>) -> Followed {
        self.tasks += 1;
        let teller = Teller {
            pool: pool.to_owned(),
            task: self.tasks,
            sender: self.sender.clone(),
        };
        let task = match &source.discovery {
            Discovery::Dns { name, port } => {
                let question = dns::Question::Addresses(name.clone(), *port);
                let dns = dns::Dns::new(question, source.resolvers.clone());
                tokio::spawn(dns.follow(teller, self.pace))
            }
            Discovery::Srv(name) => {
                let question = dns::Question::Services(name.clone());
                let dns = dns::Dns::new(question, source.resolvers.clone());
                tokio::spawn(dns.follow(teller, self.pace))
            }
            Discovery::File(path) => tokio::spawn(file::follow(path.clone(), teller, self.pace)),
        };
        let elsewhere = |old: &Followed| old.source.discovery != source.discovery;
        Followed {
            task: task.abort_handle(),
            number: self.tasks,
            state: State::default(),
            is_stale: old.as_ref().is_some_and(elsewhere),
            found: old.and_then(|mut old| old.found.take()),
            source,
        }
    }

    /// Takes news in. Answers with the pool if its set is another one now.
    fn take(&mut self, news: News) -> Option<String> {
        let followed = self.followed.get_mut(&news.pool)?;
        if followed.number != news.task {
            return None;
        }
        let pool = news.pool;
        let state = &mut followed.state;
        if news.error != state.error {
            match (&news.error, &news.found) {
                (Some(error), Some(_)) => log::warn!("discovery of pool `{pool}`: {error}"),
                (Some(error), None) => {
                    log::warn!("discovery of pool `{pool}`: {error}; what was found before stays");
                }
                (None, _) => log::info!("discovery of pool `{pool}` works again"),
            }
        }
        state.error = news.error;
        state.next_at = news.next.map(|after| SystemTime::now() + after);
        let was_stale = std::mem::take(&mut followed.is_stale);
        let Some(found) = news.found else {
            // What another source said is no last good set of this one.
            let had = was_stale && followed.found.take().is_some();
            return had.then_some(pool);
        };
        state.succeeded_at = Some(SystemTime::now());
        let Found {
            backends: found,
            dropped,
        } = found;
        if followed.found.as_ref() == Some(&found) {
            return None;
        }
        log_change(&pool, followed.found.as_deref().unwrap_or_default(), &found);
        if dropped > 0 {
            log::warn!(
                "discovery of pool `{pool}`: {dropped} backends are left out: {BACKENDS_MAX} are \
                 the most"
            );
        }
        followed.found = Some(found);
        Some(pool)
    }
}

impl Default for Discoveries {
    fn default() -> Self {
        Self::new()
    }
}

/// A pool that discovers.
#[derive(Debug)]
struct Followed {
    source: Source,
    task: AbortHandle,
    /// Which of all tasks so far.
    number: u64,
    found: Option<Vec<Backend>>,
    /// It was found elsewhere than where is looked now, and nothing came from there yet.
    is_stale: bool,
    state: State,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where to look.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    discovery: Discovery,
    /// For the DNS.
    resolvers: Vec<SocketAddr>,
}

/// What came of a look.
#[derive(Debug)]
struct News {
    pool: String,
    task: u64,
    /// `None`: what was found before stays.
    found: Option<Found>,
    /// What went wrong. It may be a part only, beside what was found.
    error: Option<String>,
    /// When the next look is due, if that is known.
    next: Option<Duration>,
}

/// A task's way to tell its news.
#[derive(Debug)]
struct Teller {
    pool: String,
    task: u64,
    sender: mpsc::Sender<News>,
}

impl Teller {
    /// Tells what came of a look, once there is room.
    async fn tell(&self, found: Option<Found>, error: Option<String>, next: Option<Duration>) {
        let news = News {
            pool: self.pool.clone(),
            task: self.task,
            found,
            error,
            next,
        };
        // Who would have read it has ended, and this task is about to.
        let _ = self.sender.send(news).await;
    }
}

/// How often is looked.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Answers of the DNS hold this long at least,
    ttl_min: Duration,
    /// and at most.
    ttl_max: Duration,
    /// After the first failure, and twice as long after each further one,
    retry_min: Duration,
    /// but no longer.
    retry_max: Duration,
    /// From one look at a file to the next.
    look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(3600),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            look: Duration::from_secs(1),
        }
    }
}

/// A set of backends: in order, each address once, and no more than there may be.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    backends: Vec<Backend>,
    /// Those that were left out, as they were too many.
    dropped: usize,
}

impl Found {
    /// Of an address that is there twice the one that gets more clients stays.
    fn of(mut found: Vec<Backend>) -> Self {
        found.sort_by(|one, other| {
            let rank = |b: &Backend| (b.backup, Reverse(b.weight));
            let by_address = one.address.cmp(&other.address);
            by_address.then_with(|| rank(one).cmp(&rank(other)))
        });
        found.dedup_by(|next, kept| next.address == kept.address);
        // A stable sort: addresses stay in order.
        found.sort_by_key(|backend| backend.backup);
        let dropped = found.len().saturating_sub(BACKENDS_MAX);
        found.truncate(BACKENDS_MAX);
        Self {
            backends: found,
            dropped,
        }
    }
}

fn log_change(pool: &str, before: &[Backend], found: &[Backend]) {
    let addresses = |set: &[Backend]| -> BTreeSet<_> {
        let addresses = set.iter().map(|backend| backend.address.clone());
        addresses.collect()
    };
    let (old, new) = (addresses(before), addresses(found));
    log::info!(
        "discovery of pool `{pool}`: {} backends, {} new, {} gone",
        found.len(),
        new.difference(&old).count(),
        old.difference(&new).count()
    );
}

/// Backends that a pool may discover.
const BACKENDS_MAX: usize = 1_000;
/// News that wait to be taken in; tasks wait with more.
const NEWS: usize = 64;

#[cfg(test)]
mod tests;
