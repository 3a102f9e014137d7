//! What several balancers share by etcd: bans, and administrative states of backends.
//!
//! Two kinds of keys stand under the prefix: `bans/PREFIX`, with an end and a reason, and
//! `states/POOL/BACKEND`. The thread of `remote` reads and checks them, and sends whole sets. The
//! last good one stays, whatever fails. It also writes this balancer's own bans.

mod keys;
mod limits;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::AbortHandle;

use crate::admin::model::EventKind;
use crate::config::{AdminState, Backend, Config, Etcd, shortest_ban};
use crate::guard::{Ban, BannedBy, Bans, ImportedBans};
use crate::prefix::Prefix;
use crate::sys;
use crate::wording::plural;

use super::aside;
use super::balancer::Balancer;
use super::events::{Events, Severity, Subject};
use super::remote::{self, RemoteCounts, WatchPace};
use limits::FleetLimits;
use writer::Write;

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
    /// Why bans of this balancer are not written.
    unwritten: Option<String>,
    /// Looks for bans of rules, on another thread.
    scan: Option<oneshot::Receiver<Vec<Arc<Ban>>>>,
    /// How often the table had changed at the last look, and when that was, in ns of the workers'
    /// clock.
    scanned: (u64, u64),
    /// Shares of limits.
    pub(super) limits: FleetLimits,
    events: Events,
    counts: Arc<RemoteCounts>,
}

struct Followed {
    source: Etcd,
    share_bans: bool,
    number: u64,
    /// For this balancer's own bans, where they are shared.
    writes: Option<mpsc::Sender<Write>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
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

/// What has changed, or went wrong.
pub(super) enum FleetNews {
    /// What is known of the keys.
    Known {
        number: u64,
        /// `None`: what was known before stays.
        shares: Option<Shares>,
        error: Option<String>,
    },
    /// Bans of this balancer are written again, or not.
    Written { number: u64, error: Option<String> },
}

impl Fleet {
    /// Follows nothing yet.
    pub(super) fn new(events: &Events, counts: Arc<RemoteCounts>) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self {
            followed: None,
            tasks: 0,
            sender,
            news,
            states: Arc::default(),
            error: None,
            unwritten: None,
            scan: None,
            scanned: (0, 0),
            limits: FleetLimits::new(Arc::clone(&counts)),
            events: events.clone(),
            counts,
        }
    }

    /// Follows what a configuration says. `true`: it shares nothing now, and did before.
    pub(super) fn follow(&mut self, config: &Config) -> bool {
        let fleet = config.fleet.as_ref();
        let wanted = fleet.and_then(|fleet| Some((fleet.etcd.as_ref()?, fleet.share_bans)));
        let followed = self.followed.as_ref();
        if followed.map(|its| (&its.source, its.share_bans)) == wanted {
            return false;
        }
        (self.error, self.unwritten) = (None, None);
        self.followed = wanted.map(|(source, share_bans)| {
            self.tasks += 1;
            let to = (self.tasks, self.sender.clone());
            let (source, pace) = (source.clone(), WatchPace::default());
            let counts = || Arc::clone(&self.counts);
            let task = keys::follow(source.clone(), to.clone(), pace, counts());
            let mut tasks = vec![remote::spawn(task)];
            let followed = source.clone();
            let writes = share_bans.then(|| {
                let (writes, queue) = mpsc::channel(WRITES);
                tasks.push(remote::spawn(writer::write(
                    source,
                    queue,
                    to,
                    pace,
                    counts(),
                )));
                writes
            });
            Followed {
                source: followed,
                share_bans,
                number: self.tasks,
                writes,
                tasks,
            }
        });
        self.followed.is_none()
    }

    /// Whether this balancer's own bans are written to etcd.
    pub(super) fn is_sharing(&self) -> bool {
        let followed = self.followed.as_ref();
        followed.is_some_and(|its| its.writes.is_some())
    }

    /// This balancer has banned a network. Answers with why the others do not learn of it.
    pub(super) fn share_ban(&self, ban: &Arc<Ban>) -> Option<String> {
        let (prefix, shortest) = (ban.prefix, shortest_ban(ban.prefix));
        if self.is_sharing() && prefix.length() < shortest {
            // Each reader would refuse it.
            return Some(format!(
                "{prefix} is banned on this balancer alone: the fleet takes /{shortest} or longer"
            ));
        }
        self.write(Write::ban(ban));
        None
    }

    /// This balancer has lifted the ban of a network.
    pub(super) fn share_lifted(&self, prefix: Prefix) {
        self.write(Write::Lifted(vec![prefix]));
    }

    /// Deletes the keys of bans that this balancer has lifted, in its own time. The outcome is
    /// `false` where they stay: it shares no bans, or too much waits to be written.
    pub(super) fn key_remover(&self) -> impl FnOnce(Vec<Prefix>) -> bool + use<> {
        let writes = self.followed.as_ref().and_then(|its| its.writes.clone());
        move |lifted| {
            let write = |writes: mpsc::Sender<Write>| writes.try_send(Write::Lifted(lifted));
            writes.is_some_and(|writes| write(writes).is_ok())
        }
    }

    fn write(&self, write: Write) {
        let writes = self.followed.as_ref().and_then(|its| its.writes.as_ref());
        let is_full = writes.is_some_and(|writes| writes.try_send(write).is_err());
        if is_full {
            let message = format!("{WRITES} bans wait to be shared: further ones are not shared");
            let kind = EventKind::FleetFailed;
            self.events
                .tell_one_of_many(Severity::Warn, kind, Subject::default(), message);
        }
    }

    /// Shares what rules have banned since the last look. To be called each second.
    pub(super) fn tick(&mut self, bans: &Arc<Bans>) {
        self.limits.tick(&self.events);
        if !self.is_sharing() {
            return;
        }
        if let Some(scan) = &mut self.scan {
            match scan.try_recv() {
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => {}
                Ok(new) => new.iter().for_each(|ban| drop(self.share_ban(ban))),
            }
            self.scan = None;
        }
        let (added, since) = self.scanned;
        if bans.added() == added {
            return;
        }
        self.scanned = (bans.added(), sys::monotonic());
        let bans = Arc::clone(bans);
        // There may be many.
        self.scan = Some(aside::compute(move || {
            let mut new = bans.all(sys::monotonic());
            let since = i64::try_from(since).unwrap_or(i64::MAX);
            new.retain(|ban| ban.by == BannedBy::Rule && ban.since >= since);
            new.sort_by_key(|ban| std::cmp::Reverse(ban.since));
            new.truncate(RULE_BANS);
            new
        }));
    }

    /// Waits until something has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) -> FleetNews {
        let news = self.news.recv().await;
        news.expect("a sender is kept here, so the channel stays open")
    }

    /// Takes news in, and reports what goes wrong. Answers with what is shared now, if that is
    /// known.
    fn take(&mut self, news: FleetNews) -> Option<Shares> {
        let followed = self.followed.as_ref()?.number;
        match news {
            FleetNews::Known {
                number,
                shares,
                error,
            } if number == followed => {
                if self.error != error {
                    let restored = "what the fleet shares is known again";
                    self.report(error.as_deref().map(sentence), restored);
                    self.error = error;
                }
                shares
            }
            FleetNews::Written { number, error } if number == followed => {
                let restored = "bans are shared with the fleet again";
                self.report(error.as_deref().map(not_shared), restored);
                self.unwritten = error;
                None
            }
            // Of a task that has ended.
            FleetNews::Known { .. } | FleetNews::Written { .. } => None,
        }
    }

    fn report(&self, problem: Option<String>, restored: &str) {
        let (severity, kind) = match problem {
            Some(_) => (Severity::Warn, EventKind::FleetFailed),
            None => (Severity::Info, EventKind::FleetRestored),
        };
        let message = problem.unwrap_or_else(|| restored.to_owned());
        self.events
            .tell_one_of_many(severity, kind, Subject::default(), message);
    }

    /// What goes wrong now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let unknown = self.error.as_deref().map(sentence);
        let unwritten = self.unwritten.as_deref().map(not_shared);
        let problems = unknown.into_iter().chain(unwritten);
        problems.chain(self.limits.problems())
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
        let snapshot = self.publisher.snapshot();
        let config = &self.in_force.config;
        self.fleet.limits.follow(config, snapshot);
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

    /// Why a backend is not in the state that an operator wants, if the fleet has it in a stricter
    /// one.
    pub(super) fn held_by_fleet(
        &self,
        pool: &str,
        backend: &str,
        wanted: AdminState,
    ) -> Option<String> {
        let state = *self.fleet.states.get(pool)?.get(backend)?;
        (rank(state) > rank(wanted)).then(|| {
            let state = state.as_str();
            format!("{pool}/{backend} stays in {state}: the fleet has it so")
        })
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
        let pools = self.in_force.config.pools.iter();
        let pools = pools.filter(|pool| states.contains_key(&pool.name));
        let here = pools.flat_map(|pool| {
            let backends = pool.backends.iter();
            backends.map(|backend| (&*pool.name, &*backend.name))
        });
        let here: HashSet<(&str, &str)> = here.collect();
        for (pool, backend, state) in differ.chain(over) {
            let is_strange = state != AdminState::Ready && !here.contains(&(pool, backend));
            let strange = match is_strange {
                true => ", which this balancer does not have now",
                false => "",
            };
            let state = state.as_str();
            let message = format!("the fleet has {pool}/{backend} in {state}{strange}");
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
    rank(state) > rank(than.state)
}

/// How strict a state is.
fn rank(state: AdminState) -> u8 {
    match state {
        AdminState::Ready => 0,
        AdminState::Drain => 1,
        AdminState::Maint => 2,
    }
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

fn not_shared(why: &str) -> String {
    format!("bans of this balancer are not shared with the fleet: {why}")
}

/// News that wait to be taken in; the tasks wait with more.
const NEWS: usize = 4;
/// Bans that wait to be written.
const WRITES: usize = 256;
/// Bans of rules that are shared of each look, the latest ones: one a second.
const RULE_BANS: usize = 100;
