//! Health of backends: active probes on the control thread, and slow answers to real sessions.
//!
//! Each target has a task of its own that probes it and reports the result; a probe that hangs
//! delays no other, and no target has two probes at a time. A target is an address with a check:
//! pools that share both share its probes. Probing costs the same whether backends answer or not.

mod answer;
mod ejection;
mod failure;
mod outliers;
mod own_tls;
mod places;
mod probe;
mod running;
mod schedule;
mod stream;
mod tls;
mod verdict;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::address::Address;
use crate::config::{self, AdminState, BackendTls, Check, CheckInForce, Config, ProbeTls};
use crate::origin::Origins;
use crate::peek::proxy_protocol::HeaderVersion;
use crate::pool::Health;
use crate::shared::Shared;
use crate::sys;
use crate::time::{between, nanos};
use crate::tls::TlsClient;

pub(super) use own_tls::can_use as can_use_certificates;
pub(super) use own_tls::system as system_authorities;

pub(super) use ejection::EjectionTimer;
pub use failure::{Closed, Failure, ProbeStage};
pub(super) use outliers::{Outliers, Window};
pub use verdict::{Turn, Verdict};

use super::roster::{Member, MemberId, PoolRecord, Roster};
use places::Places;
use probe::{Prober, Spec};
use schedule::FirstProbes;
use tls::ProbeClient;

/// All probes of a configuration. Lives in the control thread's runtime.
#[derive(Debug)]
pub struct Checks {
    targets: HashMap<TargetId, Target>,
    by_aim: HashMap<Rc<Aim>, TargetId>,
    /// Each with the number of its targets.
    specs: HashMap<CheckInForce, (Rc<Spec>, usize)>,
    random: Rng,
    spread: FirstProbes,
    places: Places,
    /// How many targets there have been.
    started: u64,
    /// Targets that have not been probed yet.
    unprobed: usize,
    /// Every target has been probed at least once.
    first_round: bool,
    sender: mpsc::Sender<ProbeReport>,
    reports: mpsc::Receiver<ProbeReport>,
}

/// Identifies a target; no other target ever gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetId(u64);

/// What is probed, and how.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Aim {
    address: Address,
    /// Local addresses and ports of the probes.
    origins: Origins,
    /// The host name that this address was resolved from.
    host: Option<String>,
    /// The PROXY header that they begin with.
    header: Option<HeaderVersion>,
    by: CheckInForce,
}

#[derive(Debug)]
struct Target {
    aim: Rc<Aim>,
    task: JoinHandle<()>,
    /// The backends that it is probed for.
    members: Vec<MemberId>,
    verdict: Verdict,
    /// The last probes, the newest last.
    recent: VecDeque<ProbeOutcome>,
    probes: u64,
    failures: u64,
}

/// What a target's task reports after each probe.
#[derive(Debug)]
struct ProbeReport {
    target: TargetId,
    verdict: Verdict,
    turn: Option<Turn>,
    outcome: ProbeOutcome,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// When it began, in ns of the workers' clock.
    pub at: u64,
    /// How long it took, in ns.
    pub took: u64,
}

/// News for the control loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthNews {
    /// The health of a target has changed, or was found out.
    Turned(Turned),
    /// Every target has been probed.
    FirstRound,
}

/// A change of a target's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The address that is probed.
    pub address: Address,
    /// Its health, and whether no probe had decided it before.
    pub turn: Turn,
    /// Why the last probe failed, if it did.
    pub failure: Option<Failure>,
    /// The backends that it is probed for.
    pub members: Vec<MemberId>,
}

/// What the probes of a backend found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its health.
    pub health: Health,
    /// Probes in a row that contradict it.
    pub against: u32,
    /// How many of them change it.
    pub needed: u32,
    /// The last probe.
    pub last: Option<ProbeOutcome>,
    /// Probes so far.
    pub probes: u64,
    /// How many failed, with those of an earlier check.
    pub failures: u64,
}

impl Checks {
    /// Probes nothing yet. The seed decides when probes start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        Self {
            targets: HashMap::new(),
            by_aim: HashMap::new(),
            specs: HashMap::new(),
            spread: FirstProbes::new(&mut random),
            places: Places::of_this_process(),
            random,
            started: 0,
            unprobed: 0,
            first_round: false,
            sender,
            reports,
        }
    }

    /// Follows another configuration, which the roster follows already. A target that stays keeps
    /// its schedule and its health. Where a backend gets another check, or its host name another
    /// address, its health stays until new probes contradict it. Backends in `maint` and those
    /// without an address are not probed.
    ///
    /// Must be called in the runtime of `tokio_uring::start`.
    pub fn follow(&mut self, config: &Config, roster: &mut Roster) {
        let mut left = Vec::new();
        for (member, target) in roster.take_left() {
            self.leave(target, member);
            left.push(target);
        }
        for (pool, record) in config.pools.iter().zip(&mut roster.pools) {
            let checked = record.checked.as_ref();
            if checked.is_some_and(|checked| Shared::is_same(checked, pool)) {
                continue;
            }
            record.checked = Some(pool.clone());
            let check = pool.check_in_force();
            for (index, backend) in pool.backends.iter().enumerate() {
                let check = check.as_ref().filter(|_| is_probed(backend));
                left.extend(self.assign((pool, backend), check, (record, index)));
            }
        }
        left.into_iter().for_each(|target| self.end_if_idle(target));
        self.refresh();
        self.first_round |= self.targets.is_empty();
    }

    /// Probes a backend by this check, and no longer by another one. Answers with the target that
    /// it has left.
    fn assign(
        &mut self,
        (pool, backend): (&config::Pool, &config::Backend),
        check: Option<&CheckInForce>,
        (record, index): (&mut PoolRecord, usize),
    ) -> Option<TargetId> {
        let member = &mut record.members[index];
        let before = member.target.and_then(|id| self.targets.get(&id));
        let stays =
            |target: &Target| check.is_some_and(|check| target.aim.is(pool, backend, check));
        if before.is_some_and(stays) {
            return None;
        }
        let known = before.map(|target| (target.verdict, target.failures));
        let next = check
            .map(|check| self.find_or_start((&pool.name, Aim::new(pool, backend, check)), known));
        let left = std::mem::replace(&mut member.target, next);
        if let Some(left) = left {
            self.leave(left, member.id);
        }
        let target = next.and_then(|id| self.targets.get_mut(&id));
        let health = target.map_or(Health::Up, |target| {
            target.members.push(member.id);
            target.verdict.health()
        });
        record.change(index).health = health;
        left
    }

    /// A backend is no longer probed by this target.
    fn leave(&mut self, target: TargetId, member: MemberId) {
        if let Some(target) = self.targets.get_mut(&target) {
            target.members.retain(|id| *id != member);
        }
    }

    /// Ends a target without backends, and releases what it shared.
    fn end_if_idle(&mut self, id: TargetId) {
        let Entry::Occupied(entry) = self.targets.entry(id) else {
            return;
        };
        if !entry.get().members.is_empty() {
            return;
        }
        let target = entry.remove();
        self.unprobed -= usize::from(target.probes == 0);
        self.by_aim.remove(&target.aim);
        if let Some((_, targets)) = self.specs.get_mut(&target.aim.by) {
            *targets -= 1;
            if *targets == 0 {
                self.specs.remove(&target.aim.by);
            }
        }
    }

    /// Has certificates read again that have changed.
    pub fn refresh(&self) {
        let specs = self.specs.values();
        let clients = specs.filter_map(|(spec, _)| spec.tls.as_ref());
        clients.for_each(ProbeClient::refresh);
    }

    /// Has probes speak TLS as connections to backends do by now: `client_of` has what those of a
    /// pool begin it by. Comes after [`Self::follow`], before anything is awaited.
    pub fn follow_tls(&self, config: &Config, client_of: impl Fn(&str) -> Option<Arc<TlsClient>>) {
        let pools = config.pools.iter();
        let clients = pools.filter_map(|pool| Some((pool.tls.as_ref()?, client_of(&pool.name)?)));
        // Pools with the same settings share their probes: what they read is the same.
        let clients: HashMap<&BackendTls, Arc<TlsClient>> = clients.collect();
        for (by, (spec, _)) in &self.specs {
            if let (ProbeTls::OfPool(tls), Some(client)) = (&by.tls, &spec.tls) {
                client.follow(clients.get(tls).map(Arc::clone));
            }
        }
    }

    fn find_or_start(
        &mut self,
        (pool, aim): (&str, Aim),
        known: Option<(Verdict, u64)>,
    ) -> TargetId {
        if let Some(id) = self.by_aim.get(&aim) {
            return *id;
        }
        let spec = self.specs.entry(aim.by.clone());
        let (spec, targets) = spec.or_insert_with_key(|by| (Rc::new(Spec::new(by)), 0));
        *targets += 1;
        self.unprobed += 1;
        let fresh = || Verdict::new(aim.by.check.initial);
        let failures = known.map_or(0, |(_, failures)| failures);
        let verdict = known.map_or_else(fresh, |(verdict, _)| verdict.handed_over());
        self.started += 1;
        let id = TargetId(self.started);
        let task = TargetTask {
            prober: Prober::new(&aim.address, aim.origins.clone(), spec)
                .with_host(aim.host.as_deref())
                .with_header(aim.header),
            target: id,
            pool: pool.to_owned(),
            places: self.places.clone(),
            verdict,
            random: self.random.fork(),
            sender: self.sender.clone(),
        };
        let wait = self.spread.next(aim.by.check.interval);
        let aim = Rc::new(aim);
        let target = Target {
            aim: Rc::clone(&aim),
            task: tokio_uring::spawn(task.run(wait)),
            members: Vec::new(),
            verdict,
            recent: VecDeque::new(),
            probes: 0,
            failures,
        };
        self.targets.insert(id, target);
        self.by_aim.insert(aim, id);
        id
    }

    /// Waits for news. The future can be dropped without loss. Only here a target's health changes,
    /// and each change is reported.
    pub async fn next(&mut self) -> HealthNews {
        loop {
            if !self.first_round && self.unprobed == 0 {
                self.first_round = true;
                return HealthNews::FirstRound;
            }
            let report = self.reports.recv().await;
            let report = report.expect("a sender is kept for targets to come");
            if let Some(turned) = self.take_in(report) {
                return HealthNews::Turned(turned);
            }
        }
    }

    fn take_in(&mut self, report: ProbeReport) -> Option<Turned> {
        // A target that has ended meanwhile does not count.
        let target = self.targets.get_mut(&report.target)?;
        self.unprobed -= usize::from(target.probes == 0);
        target.probes += 1;
        target.failures += u64::from(report.outcome.failure.is_some());
        target.verdict = report.verdict;
        let failure = report.outcome.failure.clone();
        if target.recent.len() == RECENT_MAX {
            target.recent.pop_front();
        }
        target.recent.push_back(report.outcome);
        report.turn.map(|turn| Turned {
            address: target.aim.address.clone(),
            turn,
            failure,
            members: target.members.clone(),
        })
    }

    /// What the probes of a backend found out; `None`: it is not probed.
    #[must_use]
    pub fn report(&self, member: &Member) -> Option<Report> {
        let target = self.targets.get(&member.target?)?;
        Some(Report {
            health: target.verdict.health(),
            against: target.verdict.against(),
            needed: target.verdict.needed(&target.aim.by.check),
            last: target.recent.back().cloned(),
            probes: target.probes,
            failures: target.failures,
        })
    }

    /// The last probes of a backend, the newest last.
    pub fn recent(&self, member: &Member) -> impl Iterator<Item = &ProbeOutcome> {
        let target = member.target.and_then(|target| self.targets.get(&target));
        target.into_iter().flat_map(|target| &target.recent)
    }

    /// Whether every target has been probed at least once. It stays true when targets join. Without
    /// targets it is true from the first [`Self::follow`] on, without news of it.
    #[must_use]
    pub fn first_round_done(&self) -> bool {
        self.first_round
    }

    /// How many targets are probed.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }
}

impl Aim {
    fn new(pool: &config::Pool, backend: &config::Backend, by: &CheckInForce) -> Self {
        let address = probed_address(backend, &by.check);
        Self {
            origins: pool.origins.towards(&address),
            address,
            host: backend.host.clone(),
            header: pool.probe_header(backend, &by.check),
            by: by.clone(),
        }
    }

    /// Whether this backend is probed so by this check.
    fn is(&self, pool: &config::Pool, backend: &config::Backend, by: &CheckInForce) -> bool {
        self.host == backend.host
            && self.address == probed_address(backend, &by.check)
            && self.header == pool.probe_header(backend, &by.check)
            && self.by == *by
            && self.origins == pool.origins.towards(&self.address)
    }
}

fn probed_address(backend: &config::Backend, check: &Check) -> Address {
    let mut address = backend.address.clone();
    if let (Address::Tcp(address), Some(port)) = (&mut address, check.port) {
        address.set_port(port);
    }
    address
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn is_probed(backend: &config::Backend) -> bool {
    match backend.state {
        AdminState::Ready | AdminState::Drain => backend.is_resolved(),
        AdminState::Maint => false,
    }
}

/// Counts a probe, unless it failed because this process lacks something: a process without free
/// descriptors must not take all backends out of rotation.
fn count(verdict: &mut Verdict, failure: Option<&Failure>, check: &Check) -> Option<Turn> {
    match failure {
        None => verdict.on_probe(true, check),
        Some(failure) if failure.is_telling() => verdict.on_probe(false, check),
        Some(_) => None,
    }
}

/// A target's task.
struct TargetTask {
    prober: Prober,
    target: TargetId,
    /// The pool that it was probed for first.
    pool: String,
    places: Places,
    verdict: Verdict,
    random: Rng,
    sender: mpsc::Sender<ProbeReport>,
}

impl TargetTask {
    async fn run(mut self, mut wait: Duration) {
        let mut lane = (std::mem::take(&mut self.pool), false);
        loop {
            let due = sys::monotonic().saturating_add(nanos(wait));
            tokio::time::sleep(wait).await;
            let late = between(due, sys::monotonic());
            let place = self.places.take(&lane).await;
            let outcome = self.prober.probe().await;
            drop(place);
            lane.1 = outcome.failure.is_some();
            let check = self.prober.check();
            let turn = count(&mut self.verdict, outcome.failure.as_ref(), check);
            // A probe without a result is repeated soon.
            let stalled = outcome.failure == Some(Failure::Stalled);
            let interval = schedule::jittered(self.verdict.interval(check), &mut self.random);
            let started = outcome.at;
            let report = ProbeReport {
                target: self.target,
                verdict: self.verdict,
                turn,
                outcome,
            };
            if self.sender.send(report).await.is_err() {
                return;
            }
            // The interval counts from start to start. After a longer probe the next follows at
            // once.
            let passed = between(started, sys::monotonic());
            wait = interval.saturating_sub(passed) + schedule::relief(late);
            if stalled {
                wait = wait.min(AFTER_STALL);
            }
        }
    }
}

/// How soon a probe is repeated that a stall of this process has spoiled.
const AFTER_STALL: Duration = Duration::from_millis(100);
/// Probes of a target that are remembered.
const RECENT_MAX: usize = 12;
/// Results that wait to be taken in. When there are more, targets wait.
const REPORTS_MAX: usize = 1_024;

#[cfg(test)]
mod tests;
