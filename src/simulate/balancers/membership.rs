//! Changes of the pool, and when each balancer knows of them.
//!
//! By etcd each balancer is told of each change, up to 20 ms later, and takes in at once what has
//! come within a quarter of a second, as [`crate::control`] does. By probes each finds out for
//! itself. What clients notice comes from the production code of the strategy.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use super::super::chance::{float, share};
use super::super::queue::EventQueue;
use super::{FleetScenario, with_strategy};
use crate::config::{self, AdminState, Check, Strategy};
use crate::control::GATHER;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::pool::Pool;
use crate::select::{Choice, Plan, Request, Seat, Selector};
use crate::time::{self, MS, SECOND};

/// A change of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A backend is drained in etcd.
    OneLeaves,
    /// It is back.
    OneReturns,
    /// One backend in a hundred is drained in etcd, one after the other, within 10 s.
    ManyLeave,
    /// A machine dies: its probes get no answer.
    OneDies,
}

/// What a change took. Shares are 0 to 1, times are since the change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeOutcome {
    /// The change.
    pub change: ChangeKind,
    /// How many backends it changed.
    pub backends: u32,
    /// Messages to all balancers: events of etcd, or probes.
    pub messages: u64,
    /// Sets of backends that all balancers together built.
    pub sets: u64,
    /// When the first balancer knew of the first one, in ms.
    pub first_ms: f64,
    /// When all knew of all, in ms after the last one.
    pub all_ms: f64,
    /// The longest time for which balancers had different sets, in ms.
    pub apart_ms: f64,
    /// The share of clients that get another backend.
    pub remapped: f64,
    /// The share of clients that get another one, though theirs has not changed.
    pub remapped_of_others: f64,
}

impl ChangeKind {
    /// All of them, in the order in which they are simulated.
    pub const ALL: [Self; 4] = [
        Self::OneLeaves,
        Self::OneReturns,
        Self::ManyLeave,
        Self::OneDies,
    ];

    /// What a table calls it.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::OneLeaves => "one backend leaves, by etcd",
            Self::OneReturns => "it returns, by etcd",
            Self::ManyLeave => "1% leave in 10 s, by etcd",
            Self::OneDies => "one dies, by probes",
        }
    }
}

/// Makes each change, one apart from the other.
pub(super) fn run(settings: &FleetScenario) -> Vec<ChangeOutcome> {
    let keyed = settings.strategies.iter().map(|(_, strategy)| strategy);
    let keyed = keyed.clone().find(|strategy| strategy.key().is_some());
    let strategy = keyed.cloned();
    let strategy = strategy.unwrap_or_else(|| Strategy::Hash(config::Hash::default()));
    let pool = Pool::new(&with_strategy(&settings.pool, &strategy));
    let clients = clients(settings);
    let all = chosen(&pool, &HashSet::new(), &clients);
    let mut rng = Rng::with_seed(settings.seed);
    let of = |change| {
        let names = leavers(&pool, change);
        let backends = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let knowledge = learn((settings.balancers, backends), change, &mut rng);
        let left = chosen(&pool, &names, &clients);
        let moved = all.iter().zip(&left).filter(|(one, other)| one != other);
        let of_others = moved.clone().filter(|(before, _)| {
            let name = before.map(|index| &pool.backends[usize::from(index)].name);
            name.is_none_or(|name| !names.contains(name.as_str()))
        });
        ChangeOutcome {
            change,
            backends,
            remapped: share(moved.count() as u64, clients.len() as u64),
            remapped_of_others: share(of_others.count() as u64, clients.len() as u64),
            ..knowledge
        }
    };
    ChangeKind::ALL.map(of).into()
}

/// Probes of a backend in a second by one balancer, with the default interval.
pub(super) fn probes_per_s() -> f64 {
    float(SECOND) / float(nanos(Check::default().interval))
}

/// The names of the backends that change: every nth, so that no order of names is special.
fn leavers(pool: &Pool, change: ChangeKind) -> HashSet<String> {
    let backends = pool.backends.len();
    let count = match change {
        ChangeKind::ManyLeave => backends.div_ceil(100),
        ChangeKind::OneLeaves | ChangeKind::OneReturns | ChangeKind::OneDies => 1,
    };
    let nth = |number: usize| number * backends / count + backends / count / 2;
    let names = (0..count).map(|number| pool.backends[nth(number)].name.clone());
    names.collect()
}

/// Addresses of clients.
fn clients(settings: &FleetScenario) -> Vec<SocketAddr> {
    let mut rng = Rng::with_seed(settings.seed);
    let mut address = || IpAddr::V4(Ipv4Addr::from_bits(rng.u32(..)));
    (0..settings.clients.min(CLIENTS_MAX))
        .map(|_| SocketAddr::new(address(), 1))
        .collect()
}

/// The backend of each client while these are drained; `None`: there is none.
fn chosen(pool: &Pool, drained: &HashSet<String>, clients: &[SocketAddr]) -> Vec<Option<u16>> {
    let pool = pool.with(|backend| {
        if drained.contains(&backend.name) {
            backend.admin = AdminState::Drain;
        }
    });
    let plan = Arc::new(Plan::new(Arc::new(pool)));
    let seat = Seat {
        worker: 0,
        of: 1,
        pool: 0,
        seed: 0,
    };
    let mut selector = Selector::new(Arc::clone(&plan), seat);
    let mut choose = |client: &SocketAddr| {
        let keys = plan.keys_without_bytes(Some(*client), CheckedTlvs::NONE);
        let request = Request {
            keys,
            ..Request::default()
        };
        match selector.select(&request) {
            Choice::Backend(index) => Some(index),
            Choice::Full | Choice::Unavailable => None,
        }
    };
    clients.iter().map(&mut choose).collect()
}

/// What a balancer knows.
#[derive(Clone, Copy, Default)]
struct Follower {
    /// Changes that it was told of.
    told: u32,
    /// Changes that its set has.
    has: u32,
    /// When its next set may be built.
    next_at: u64,
    /// It will build one then.
    is_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Knowledge {
    /// A balancer is told of the next change.
    Told(usize),
    /// A balancer builds its set.
    Build(usize),
}

/// When each balancer learns of this many changes; what clients notice is left open.
fn learn((balancers, changes): (u32, u32), change: ChangeKind, rng: &mut Rng) -> ChangeOutcome {
    let mut followers = vec![Follower::default(); balancers as usize];
    let mut queue = EventQueue::new();
    let check = Check::default();
    let (interval, timeout) = (nanos(check.interval), nanos(check.timeout));
    let step = BURST / u64::from(changes.max(1));
    let is_probed = change == ChangeKind::OneDies;
    for balancer in 0..followers.len() {
        let mut told_at = 0;
        for nth in 0..u64::from(changes) {
            told_at = if is_probed {
                rng.u64(..interval) + u64::from(check.fall - 1) * interval + timeout
            } else {
                // Its events come in order.
                told_at.max(nth * step + DELAY_MIN + rng.u64(..DELAY_MAX - DELAY_MIN))
            };
            queue.push(told_at, Knowledge::Told(balancer));
        }
    }
    let of_each = if is_probed { check.fall } else { 1 };
    let mut spread = Spread::new(balancers);
    while let Some((now, event)) = queue.pop() {
        match event {
            Knowledge::Told(balancer) => {
                let its = &mut followers[balancer];
                its.told += 1;
                if !std::mem::replace(&mut its.is_due, true) {
                    let gathered = if is_probed { now } else { its.next_at.max(now) };
                    queue.push(gathered, Knowledge::Build(balancer));
                }
            }
            Knowledge::Build(balancer) => {
                let its = &mut followers[balancer];
                its.is_due = false;
                its.next_at = now + nanos(GATHER);
                spread.on_built(now, its.has, its.told);
                its.has = its.told;
            }
        }
    }
    let last_at = u64::from(changes.saturating_sub(1)) * step;
    ChangeOutcome {
        change,
        backends: changes,
        messages: u64::from(balancers) * u64::from(changes) * u64::from(of_each),
        sets: spread.sets,
        first_ms: float(spread.first_at) / float(MS),
        all_ms: float(spread.last_at.saturating_sub(last_at)) / float(MS),
        apart_ms: float(spread.apart) / float(MS),
        remapped: 0.0,
        remapped_of_others: 0.0,
    }
}

/// How many balancers have which set, by the number of changes in it.
struct Spread {
    of: std::collections::BTreeMap<u32, u32>,
    sets: u64,
    first_at: u64,
    last_at: u64,
    /// Since when sets differ, while they do.
    since: Option<u64>,
    apart: u64,
}

impl Spread {
    fn new(balancers: u32) -> Self {
        Self {
            of: [(0, balancers)].into(),
            sets: 0,
            first_at: 0,
            last_at: 0,
            since: None,
            apart: 0,
        }
    }

    /// A balancer has another set, with `to` changes.
    fn on_built(&mut self, now: u64, from: u32, to: u32) {
        if self.sets == 0 {
            self.first_at = now;
        }
        self.sets += 1;
        self.last_at = now;
        if let Some(left) = self.of.get_mut(&from) {
            *left -= 1;
            if *left == 0 {
                self.of.remove(&from);
            }
        }
        *self.of.entry(to).or_default() += 1;
        if self.of.len() > 1 {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.apart = self.apart.max(now - since);
        }
    }
}

fn nanos(time: Duration) -> u64 {
    time::nanos(time)
}

/// The most clients whose backends are looked at.
const CLIENTS_MAX: u32 = 100_000;
/// How long an event of etcd is under way, in ns.
const DELAY_MIN: u64 = MS / 5;
const DELAY_MAX: u64 = 20 * MS;
/// The time within which many backends change, in ns.
const BURST: u64 = 10 * SECOND;
