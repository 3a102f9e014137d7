//! What several balancers share by etcd: bans, and administrative states of backends.
//!
//! Two kinds of keys stand under the prefix: `bans/PREFIX`, with an end and a reason, and
//! `states/POOL/BACKEND`. The thread of etcd reads and checks them, and sends whole sets. The last
//! good one stays, whatever fails.

mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::admin::model::EventKind;
use crate::config::{AdminState, Backend, Config, Etcd};
use crate::guard::ImportedBans;
use crate::prefix::Prefix;
use crate::wording::plural;

use super::balancer::Balancer;
use super::etcd::{self, EtcdCounts, WatchPace};
use super::events::{Events, Severity, Subject};

/// Follows what the fleet shares, and keeps the last good state of it.
pub(super) struct Fleet {
    followed: Option<Followed>,
    /// Numbers the tasks: news of one that was stopped may still arrive.
    tasks: u64,
    sender: mpsc::Sender<FleetNews>,
    news: mpsc::Receiver<FleetNews>,
    states: Arc<FleetStates>,
    /// Why nothing is known of the present, or what is wrong with some keys.
    error: Option<String>,
    events: Events,
    counts: Arc<EtcdCounts>,
}

struct Followed {
    source: Etcd,
    number: u64,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The administrative states of backends that are not ready, by pool and backend.
pub(super) type FleetStates = BTreeMap<String, BTreeMap<String, AdminState>>;

/// What the fleet shares now.
#[derive(Debug, Default)]
pub(super) struct Shares {
    states: FleetStates,
    bans: ImportedBans,
}

/// What has changed.
pub(super) struct FleetNews {
    number: u64,
    /// `None`: what was known before stays.
    shares: Option<Shares>,
    error: Option<String>,
}

impl Fleet {
    /// Follows nothing yet.
    pub(super) fn new(events: &Events, counts: Arc<EtcdCounts>) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self {
            followed: None,
            tasks: 0,
            sender,
            news,
            states: Arc::default(),
            error: None,
            events: events.clone(),
            counts,
        }
    }

    /// Follows what a configuration says. `true`: it shares nothing now, and did before.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        let source = config.fleet.as_ref().map(|fleet| &fleet.etcd);
        if self.followed.as_ref().map(|its| &its.source) == source {
            return false;
        }
        self.error = None;
        self.followed = source.map(|source| {
            self.tasks += 1;
            let to = (self.tasks, self.sender.clone());
            let counts = Arc::clone(&self.counts);
            let task = keys::follow(source.clone(), to, WatchPace::default(), counts);
            Followed {
                source: source.clone(),
                number: self.tasks,
                task: etcd::spawn(task),
            }
        });
        self.followed.is_none()
    }

    /// Waits until something has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) -> FleetNews {
        let news = self.news.recv().await;
        news.expect("a sender is kept here, so the channel stays open")
    }

    /// Takes news in, and reports what goes wrong. Answers with what is shared now, if that is
    /// known.
    fn take(&mut self, news: FleetNews) -> Option<Shares> {
        let number = self.followed.as_ref()?.number;
        if number != news.number {
            return None;
        }
        if self.error != news.error {
            let (severity, kind, message) = match &news.error {
                Some(why) => (Severity::Warn, EventKind::FleetFailed, sentence(why)),
                None => {
                    let message = "what the fleet shares is known again".to_owned();
                    (Severity::Info, EventKind::FleetRestored, message)
                }
            };
            self.events
                .tell_one_of_many(severity, kind, Subject::default(), message);
            self.error = news.error;
        }
        news.shares
    }

    /// What goes wrong now, in a sentence.
    pub(super) fn problem(&self) -> Option<String> {
        self.error.as_deref().map(sentence)
    }

    /// The key that may ban a network.
    fn ban_key(&self, prefix: Prefix) -> Option<String> {
        let source = &self.followed.as_ref()?.source;
        Some(format!("{}bans/{prefix}", source.prefix))
    }
}

impl Balancer {
    /// The fleet shares something else, or it is not known what.
    pub(super) fn on_fleet(&mut self, news: FleetNews) {
        if let Some(shares) = self.fleet.take(news) {
            self.share(shares);
        }
    }

    /// Follows what a configuration says about the fleet.
    pub(super) fn follow_fleet(&mut self) {
        if self.fleet.follow(&self.in_force.config) {
            self.share(Shares {
                states: FleetStates::new(),
                bans: keys::no_bans(),
            });
        }
    }

    fn share(&mut self, Shares { states, bans }: Shares) {
        let snapshot = self.publisher.snapshot();
        self.bans.set_fleet(Arc::new(bans), snapshot);
        if *self.fleet.states != states {
            self.report_states(&states);
            self.fleet.states = Arc::new(states);
            self.in_force.set_states(Arc::clone(&self.fleet.states));
            self.publisher.request();
        }
    }

    /// The key that bans exactly this network, if the fleet does.
    pub(super) fn fleet_key(&self, prefix: Prefix) -> Option<String> {
        let is_banned = self.bans.is_of_fleet(prefix);
        self.fleet.ban_key(prefix).filter(|_| is_banned)
    }

    fn report_states(&self, states: &FleetStates) {
        let before = &*self.fleet.states;
        let differ = of_all(states).filter(|(pool, backend, state)| {
            before.get(*pool).and_then(|pool| pool.get(*backend)) != Some(state)
        });
        let over = of_all(before).filter(|(pool, backend, _)| {
            states
                .get(*pool)
                .is_none_or(|pool| !pool.contains_key(*backend))
        });
        let over = over.map(|(pool, backend, _)| (pool, backend, AdminState::Ready));
        for (pool, backend, state) in differ.chain(over) {
            let message = format!("the fleet has {pool}/{backend} in {}", state.as_str());
            let about = Subject::backend(pool, backend);
            let kind = EventKind::FleetChanged;
            self.events
                .tell_one_of_many(Severity::Info, kind, about, message);
        }
        let count: usize = states.values().map(BTreeMap::len).sum();
        let count = plural(count as u64, "backend");
        log::info!("the fleet has {count} in drain or maint");
    }
}

/// Puts backends into the states that the fleet has them in, where those are stricter than their
/// own.
pub(super) fn apply(states: &FleetStates, config: &mut Config) {
    if states.is_empty() {
        return;
    }
    for pool in &mut config.pools {
        let Some(states) = states.get(&pool.name) else {
            continue;
        };
        for place in 0..pool.backends.len() {
            let backend = &pool.backends[place];
            if let Some(state) = states.get(&backend.name)
                && is_stricter(*state, backend)
            {
                // Only a pool that changes is borrowed mutably: the others stay shared.
                pool.backends[place].state = *state;
            }
        }
    }
}

fn is_stricter(state: AdminState, than: &Backend) -> bool {
    let rank = |state| match state {
        AdminState::Ready => 0,
        AdminState::Drain => 1,
        AdminState::Maint => 2,
    };
    rank(state) > rank(than.state)
}

fn of_all(states: &FleetStates) -> impl Iterator<Item = (&str, &str, AdminState)> {
    states.iter().flat_map(|(pool, backends)| {
        let backends = backends.iter();
        backends.map(|(backend, state)| (&**pool, &**backend, *state))
    })
}

fn sentence(why: &str) -> String {
    format!("the fleet's state in etcd: {why}")
}

/// News that wait to be taken in; the task waits with more.
const NEWS: usize = 4;
