//! Discovery: resolves the host names of backends, and finds backends in the DNS, in a file, in
//! etcd, in Consul or in Kubernetes.
//!
//! Each question has a task of its own, which looks again and again and reports what it found, for
//! all pools that ask it. [`Discoveries`] keeps the last good answer to each question when later
//! looks fail, and when the pools that ask change otherwise; [`merge`] adds what was found after
//! the declared backends.

mod consul;
mod dns;
mod etcd;
mod file;
mod keyed;
mod known;
mod kubernetes;
mod loops;
mod news;
mod prepared;
mod problems;
mod question;
mod socket_paths;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::config::{Backend, Config, Pool};
use crate::shared::Shared;
use crate::sys::{OwnAddresses, SocketTarget};
use crate::wording::plural;

use super::events::Events;

pub(super) use dns::system_resolver;
pub(super) use file::mistake_in;
use known::Staying;
use loops::LeftOut;
use news::{BACKENDS_MAX, Found, LookNews, Pace, Teller};
pub(super) use prepared::Awaited;
use question::{Asking, Host, Question};
use socket_paths::{Answer, SocketPaths};

/// What was found for each pool that discovers, and for each host name.
///
/// [`Self::follow`] sets the questions; [`Self::changed`] has to be awaited again and again, as it
/// takes the answers in.
#[derive(Debug)]
pub(super) struct Discoveries {
    /// By name.
    pools: BTreeMap<String, Asking>,
    /// Host names of backends, in lower case.
    hosts: BTreeMap<String, Host>,
    followed: BTreeMap<Question, Followed>,
    sender: mpsc::Sender<LookNews>,
    news: mpsc::Receiver<LookNews>,
    /// Numbers the tasks: news of one that was stopped may still arrive.
    tasks: u64,
    /// Limits the questions to the DNS that are under way.
    questions: Arc<Semaphore>,
    pace: Pace,
    left_out: LeftOut,
    own_addresses: Rc<OwnAddresses>,
    socket_paths: Rc<SocketPaths>,
    socket_answers: mpsc::UnboundedReceiver<Answer>,
    staying: Staying,
    events: Events,
    counts: tasks::ServerCounts,
    /// The pools that are followed, and the servers that are asked.
    asking: (Vec<Shared<Pool>>, Vec<SocketAddr>),
}

/// The state of one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QuestionState {
    /// When backends were last found, changed or not.
    pub(super) succeeded_at: Option<SystemTime>,
    /// What went wrong at the last look.
    pub(super) error: Option<String>,
    /// That look found nothing, so what was found before stays.
    pub(super) is_kept: bool,
    /// When the DNS is asked next, or a server that failed; `None` for files, which are looked at
    /// each second.
    pub(super) next_at: Option<SystemTime>,
}

/// The configuration with the backends that were found, after the declared ones. One that has the
/// name or address of a declared backend is left out. `found` is asked by the index of a pool and
/// its name.
#[must_use]
pub(super) fn merge(
    declared: &Config,
    found: impl Fn(usize, &str) -> Option<Vec<Backend>>,
) -> Config {
    let mut merged = declared.clone();
    for (place, pool) in merged.pools.iter_mut().enumerate() {
        let asks = pool.discovery.is_some();
        let Some(mut found) = found(place, &pool.name).filter(|_| asks) else {
            continue;
        };
        let names: HashSet<_> = pool.backends.iter().map(|b| &*b.name).collect();
        let addresses: HashSet<_> = pool.backends.iter().map(|b| &b.address).collect();
        found.retain(|b| !names.contains(&*b.name) && !addresses.contains(&b.address));
        pool.backends.extend(found);
    }
    merged
}

impl Discoveries {
    /// Asks nothing yet.
    #[must_use]
    pub(super) fn new(events: &Events) -> Self {
        Self {
            events: events.clone(),
            ..Self::at_pace(Pace::default())
        }
    }

    fn at_pace(pace: Pace) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        let (socket_paths, socket_answers) = SocketPaths::new(SocketTarget::of);
        Self {
            pools: BTreeMap::new(),
            hosts: BTreeMap::new(),
            followed: BTreeMap::new(),
            sender,
            news,
            tasks: 0,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            pace,
            left_out: LeftOut::default(),
            own_addresses: Rc::default(),
            socket_paths: Rc::new(socket_paths),
            socket_answers,
            staying: Staying::default(),
            events: Events::new(),
            counts: tasks::ServerCounts::default(),
            asking: Default::default(),
        }
    }

    /// Asks the questions of a configuration, and ends others. A question that stays keeps its
    /// answer, whichever pools ask it now, with whatever ports. A pool with a new question keeps
    /// what it had until the first answer, a failure included. To be called inside the control
    /// thread's runtime.
    pub(super) fn follow(&mut self, config: &Config) {
        let next = (config.pools.clone(), config.resolvers.clone());
        let before = std::mem::replace(&mut self.asking, next);
        if asks_the_same(&before, &self.asking) {
            return;
        }
        let mut pools = BTreeMap::new();
        for pool in &config.pools {
            let Some(discovery) = &pool.discovery else {
                continue;
            };
            let mut asking = Asking::new(discovery);
            if let Some(before) = self.pools.get(&pool.name) {
                if before.question == asking.question {
                    asking.before = before.before.clone();
                    asking.good = before.good.clone();
                } else {
                    asking.before = self.found(&pool.name);
                }
            }
            pools.insert(pool.name.clone(), asking);
        }
        self.pools = pools;
        let mut before = std::mem::take(&mut self.followed);
        let mut hosts = BTreeMap::new();
        let all = config.pools.iter().flat_map(|pool| &pool.backends);
        for name in all.filter_map(|backend| backend.host.as_ref()) {
            let name = name.to_ascii_lowercase();
            let host = self.hosts.remove(&name).unwrap_or_default();
            hosts.insert(name, host);
        }
        self.hosts = hosts;
        for question in Question::all(config) {
            let resolvers = question.resolvers(config);
            let mut followed = match before.remove(&question) {
                Some(old) if old.resolvers == resolvers => old,
                old => self.begin(&question, resolvers, old),
            };
            if let Question::Addresses(name) = &question
                && let Some(host) = self.hosts.get_mut(name)
            {
                host.choose(followed.found.as_deref());
            }
            followed.asked_by.clear();
            self.followed.insert(question, followed);
        }
        for (pool, asking) in &self.pools {
            if let Some(followed) = self.followed.get_mut(&asking.question) {
                followed.asked_by.push(pool.clone());
            }
        }
    }

    /// Begins to follow a configuration, and answers with it, its host names resolved. It waits for
    /// answers, so that the first clients are served, but only for a moment: when the DNS does not
    /// answer, the balancer starts without them.
    pub(super) async fn begin_with(&mut self, config: &Config) -> Config {
        self.follow(config);
        let answers = async {
            while !self.knows_hosts() {
                if let Some(news) = self.news.recv().await {
                    self.take(news);
                }
            }
        };
        let _ = tokio::time::timeout(START_TIME, answers).await;
        self.without_loops(false, |discoveries| {
            let mut resolved = config.clone();
            let pools = resolved.pools.iter_mut();
            pools.for_each(|pool| discoveries.resolve(pool, None));
            resolved
        })
    }

    /// Asks all questions again now, as an operator requests. A question under way is asked once
    /// more after that.
    pub(super) fn look_again(&self) {
        for followed in self.followed.values() {
            followed.again.notify_one();
        }
    }

    /// Sets the addresses of backends with host names. `before`: the configuration whose address of
    /// a backend stays in use when its host name has none yet, or one that can't be used.
    pub(super) fn resolve(&self, pool: &mut Shared<Pool>, before: Option<&Config>) {
        for place in 0..pool.backends.len() {
            let backend = &pool.backends[place];
            let Some(name) = &backend.host else { continue };
            let ip = match self.address(name) {
                Some(ip) => self.left_out.usable(&pool.name, backend, ip, before),
                None => before.and_then(|before| known::address(before, &pool.name, backend)),
            };
            // Only a pool that changes is borrowed mutably: the others stay shared.
            if let Some(ip) = ip.filter(|ip| !backend.is_resolved_to(*ip)) {
                pool.backends[place].resolve(ip);
            }
        }
    }

    /// The address of a host name.
    fn address(&self, name: &str) -> Option<IpAddr> {
        self.hosts.get(&name.to_ascii_lowercase())?.address
    }

    /// Whether every host name has had an answer, a failure included.
    #[must_use]
    pub(super) fn knows_hosts(&self) -> bool {
        let mut names = self.hosts.keys();
        names.all(|name| self.host_state(name).is_some_and(QuestionState::is_known))
    }

    /// What went wrong when a host name was last looked up.
    #[must_use]
    pub(super) fn host_error(&self, name: &str) -> Option<String> {
        self.host_state(&name.to_ascii_lowercase())?.error.clone()
    }

    /// Host names whose first look has failed since this was last asked.
    pub(super) fn failed_hosts(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        for (name, host) in &mut self.hosts {
            let state = self.followed.get(&Question::Addresses(name.clone()));
            let is_known = state.is_some_and(|followed| followed.state.is_known());
            if host.address.is_none() && is_known && !host.is_reported {
                host.is_reported = true;
                failed.push(name.clone());
            }
        }
        failed
    }

    fn host_state(&self, name: &str) -> Option<&QuestionState> {
        let followed = self.followed.get(&Question::Addresses(name.to_owned()))?;
        Some(&followed.state)
    }

    /// The last backends that were found for a pool, sorted by address, backups last; `None`: none
    /// yet.
    #[must_use]
    pub(super) fn found(&self, pool: &str) -> Option<Vec<Backend>> {
        let asking = self.pools.get(pool)?;
        let followed = self.followed.get(&asking.question)?;
        match &followed.found {
            Some(found) => {
                let usable = self.left_out.rest(pool, asking.with_port(found));
                let is_empty = usable.is_empty() && !found.is_empty();
                let good = is_empty.then(|| self.left_out.rest(pool, asking.good.clone()));
                Some(good.unwrap_or(usable))
            }
            None if followed.state.is_known() => None,
            None => asking.before.clone(),
        }
    }

    /// Whether a pool's question has had an answer, a failure included.
    #[must_use]
    pub(super) fn has_answer(&self, pool: &str) -> bool {
        self.state(pool).is_some_and(QuestionState::is_known)
    }

    /// The state of a pool's question; `None`: the pool does not discover.
    #[must_use]
    pub(super) fn state(&self, pool: &str) -> Option<&QuestionState> {
        let question = &self.pools.get(pool)?.question;
        Some(&self.followed.get(question)?.state)
    }

    /// Waits until what is found has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) {
        loop {
            let has_changed = tokio::select! {
                Some(news) = self.news.recv() => self.take(news),
                Some(answer) = self.socket_answers.recv() => self.socket_paths.take(answer),
                else => unreachable!("senders are kept here, so the channels stay open"),
            };
            if has_changed {
                return;
            }
        }
    }

    /// Takes in all news that have arrived.
    pub(super) fn take_rest(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.take(news);
        }
    }

    /// Starts the task of a question, which other resolvers may have been asked before.
    fn begin(
        &mut self,
        question: &Question,
        resolvers: Vec<SocketAddr>,
        mut old: Option<Followed>,
    ) -> Followed {
        self.tasks += 1;
        let teller = Teller {
            question: question.clone(),
            task: self.tasks,
            sender: self.sender.clone(),
        };
        let memory = old.as_ref().map(|old| old.memory.clone());
        let memory = memory.unwrap_or_default();
        let again = Arc::new(Notify::new());
        let dns = dns::Dns {
            question: question.clone(),
            servers: resolvers.clone(),
            memory: memory.clone(),
            questions: Arc::clone(&self.questions),
        };
        let task = self.spawn(dns, teller, Arc::clone(&again));
        Followed {
            task,
            number: self.tasks,
            state: QuestionState::default(),
            found: old.as_mut().and_then(|old| old.found.take()),
            again,
            asked_by: Vec::new(),
            memory,
            resolvers,
        }
    }

    /// Takes news in. `true`: what is found has changed.
    fn take(&mut self, news: LookNews) -> bool {
        let Some(followed) = self.followed.get_mut(&news.question) else {
            return false;
        };
        if followed.number != news.task {
            return false;
        }
        let host = match &news.question {
            Question::Addresses(name) => self.hosts.get_mut(name),
            Question::Services(_)
            | Question::File(_)
            | Question::Etcd(_)
            | Question::Consul(_)
            | Question::Kubernetes(_) => None,
        };
        let subject = problems::subject(host.is_some(), &news.question, &followed.asked_by);
        let state = &mut followed.state;
        state.is_kept = news.found.is_none() && followed.found.is_some();
        let before = std::mem::replace(&mut state.error, news.error);
        if state.error != before {
            state.report(&self.events, &subject, &followed.asked_by);
        }
        state.next_at = news.next.map(|after| SystemTime::now() + after);
        if news.found.is_some() {
            state.succeeded_at = Some(SystemTime::now());
        }
        // What another question found does not count as a good answer of this one.
        let mut changed = false;
        for pool in &followed.asked_by {
            let asking = self.pools.get_mut(pool);
            changed |= asking.is_some_and(|asking| asking.before.take().is_some());
        }
        let Some(found) = news.found else {
            // It is to be reported that there is no address.
            return changed || host.is_some_and(|host| host.address.is_none() && !host.is_reported);
        };
        let (found, dropped) = (found.backends, found.dropped);
        if followed.found.as_ref() == Some(&found) {
            return changed;
        }
        let what = match host {
            Some(host) => {
                host.choose(Some(&found));
                "addresses"
            }
            None => "backends",
        };
        let before = followed.found.as_deref().unwrap_or_default();
        log_change((&subject, what), before, &found);
        if dropped > 0 {
            let dropped = plural(dropped as u64, "backend");
            log::warn!("{subject}: {dropped} left out: the limit is {BACKENDS_MAX}");
        }
        followed.found = Some(found);
        true
    }
}

/// Whether these pools ask the same questions of the same servers, one after the other.
fn asks_the_same(
    (pools, servers): &(Vec<Shared<Pool>>, Vec<SocketAddr>),
    (others, their_servers): &(Vec<Shared<Pool>>, Vec<SocketAddr>),
) -> bool {
    fn hosts(pool: &Pool) -> impl Iterator<Item = &str> {
        pool.backends.iter().filter_map(|its| its.host.as_deref())
    }
    let is_same = |one: &Pool, other: &Pool| {
        one.name == other.name && one.discovery == other.discovery && hosts(one).eq(hosts(other))
    };
    let mut both = pools.iter().zip(others);
    servers == their_servers
        && pools.len() == others.len()
        && both.all(|(one, other)| Shared::is_same(one, other) || is_same(one, other))
}

/// A question that is asked again and again.
#[derive(Debug)]
struct Followed {
    task: AbortHandle,
    /// The task's number.
    number: u64,
    /// The last good answer; addresses alone have port 0.
    found: Option<Vec<Backend>>,
    state: QuestionState,
    /// Makes the task look again at once.
    again: Arc<Notify>,
    /// Pools, by name.
    asked_by: Vec<String>,
    memory: dns::LastAnswers,
    /// For the DNS.
    resolvers: Vec<SocketAddr>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl QuestionState {
    /// Whether there was an answer, a failure included.
    fn is_known(&self) -> bool {
        self.succeeded_at.is_some() || self.error.is_some()
    }
}

fn log_change((subject, what): (&str, &str), before: &[Backend], found: &[Backend]) {
    let addresses = |set: &[Backend]| -> BTreeSet<_> {
        let addresses = set.iter().map(|backend| backend.address.clone());
        addresses.collect()
    };
    let (old, new) = (addresses(before), addresses(found));
    log::info!(
        "{subject}: {} {what}, {} new, {} gone",
        found.len(),
        new.difference(&old).count(),
        old.difference(&new).count()
    );
}

/// How long a start waits for the first answers to host names.
const START_TIME: Duration = Duration::from_millis(500);
/// Questions to the DNS that are under way at a time, of all names together: each has a socket.
const QUESTIONS_MAX: usize = 128;
/// News that wait to be taken in; tasks wait with more.
const NEWS: usize = 64;

#[cfg(test)]
mod tests;
