//! The task that holds shares of limits: one request to etcd after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::admin::model::{FleetLimitStatus, FleetStatus};
use crate::config::bounded;
use crate::control::etcd::LedgerKeeper;
use crate::control::remote::RemoteCounts;
use crate::fleet_shares::{Answer, Demand, FleetMember};
use crate::sys;
use crate::time::nanos;

use super::demand::Meter;
use super::{FleetLimit, News, Terms, instance};

/// Takes part in the ledger, for as long as it is not dropped.
pub(super) fn run(
    terms: Terms,
    (limits, leave): (watch::Receiver<Vec<FleetLimit>>, Leave),
    news: Arc<Mutex<News>>,
    counts: &Arc<RemoteCounts>,
) -> impl Future<Output = ()> + use<> {
    let by = (&*terms.name, instance());
    let keeper = LedgerKeeper::new(&terms.etcd, by, terms.lease, counts);
    // A quarter of it is how soon what others need is seen.
    let pace = nanos(READ.min(terms.lease / 8));
    let holder = Holder {
        member: FleetMember::new(&terms.name, instance(), pace),
        keeper,
        limits,
        leave,
        meters: BTreeMap::new(),
        error: None,
        failures: 0,
        news,
    };
    holder.run()
}

/// Asks the task to end its lease, and to say when it has.
type Leave = oneshot::Receiver<oneshot::Sender<()>>;

struct Holder {
    member: FleetMember,
    keeper: LedgerKeeper,
    limits: watch::Receiver<Vec<FleetLimit>>,
    leave: Leave,
    meters: BTreeMap<String, Meter>,
    /// Why the last request failed.
    error: Option<String>,
    /// Failures in a row.
    failures: u32,
    news: Arc<Mutex<News>>,
}

impl Holder {
    async fn run(mut self) {
        // Without a sender the task is about to be dropped.
        while self.limits.has_changed().is_ok() {
            let limits = self.limits.borrow_and_update().clone();
            if self.turn(&limits).await {
                continue;
            }
            self.tell(&limits);
            // Up to 1.6 s while etcd does not answer.
            let pause = TICK * (1 << self.failures.saturating_sub(1).min(3));
            let pause = pause.mul_f64(1.0 + fastrand::f64() / 4.0);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Other limits do not wait.
                _ = self.limits.changed() => {}
                left = &mut self.leave => {
                    if let Some(lease) = self.member.lease() {
                        let _ = self.keeper.revoke(lease).await;
                    }
                    // Who waited for it may have gone.
                    let _ = left.map(|left| left.send(()));
                    return;
                }
            }
        }
    }

    /// One request at most. `true`: there may be another one at once.
    async fn turn(&mut self, limits: &[FleetLimit]) -> bool {
        let demands = self.demands(limits);
        self.member.plan(&demands, sys::boot_time());
        self.apply(limits);
        // What is in use by now: no worker takes more by the old shares.
        let demands = self.demands(limits);
        let asked_at = sys::boot_time();
        let Some(ask) = self.member.ask(&demands, asked_at) else {
            return false;
        };
        let answer = match self.keeper.ask(&ask).await {
            Ok(answer) => {
                (self.error, self.failures) = (None, 0);
                answer
            }
            Err(why) => {
                let why = bounded(format!("{}: {why}", self.keeper.endpoint()));
                log::debug!("limits of the fleet: {why}");
                self.error = Some(why);
                self.failures += 1;
                self.keeper.turn();
                Answer::Failed
            }
        };
        if answer == Answer::Written(false) {
            log::debug!("limits of the fleet: another balancer has written before: again");
        }
        let has_failed = answer == Answer::Failed;
        self.member
            .answered(ask, answer, asked_at, sys::boot_time());
        self.apply(limits);
        !has_failed && !self.member.has_rival()
    }

    fn demands(&mut self, limits: &[FleetLimit]) -> BTreeMap<String, Demand> {
        let known = |name: &String| limits.iter().any(|limit| limit.name == *name);
        self.meters.retain(|name, _| known(name));
        let demands = limits.iter().map(|limit| {
            let meter = self.meters.entry(limit.name.clone()).or_default();
            (limit.name.clone(), meter.look(limit))
        });
        demands.collect()
    }

    fn apply(&self, limits: &[FleetLimit]) {
        for limit in limits {
            limit.set_share(self.member.bound(&limit.name));
        }
    }

    /// What is known now.
    fn tell(&self, limits: &[FleetLimit]) {
        let now = sys::boot_time();
        let ledger = self.member.ledger();
        let (name, _) = self.member.identity();
        let shown = limits.iter().map(|limit| {
            let bound = self.member.bound(&limit.name);
            let meter = self.meters.get(&limit.name).copied();
            let share = ledger.share(name, &limit.name).unwrap_or_default();
            FleetLimitStatus {
                limit: limit.name.clone(),
                whole: limit.whole,
                share: bound.at(now),
                base: bound.base,
                used: meter.unwrap_or_default().used(limit),
                wanted: share.want,
                given: ledger.sum(&limit.name),
            }
        });
        let status = FleetStatus {
            name: name.to_owned(),
            limits: shown.collect(),
            members: ledger.members.len() as u64,
            leased: self.member.leased() as u64,
            has_lease: self.member.has_lease(now),
            conflicts: self.member.conflicts(),
        };
        let problems = self.problems(limits, &status);
        *self.news.lock() = News { status, problems };
    }

    /// What goes wrong, a sentence each.
    fn problems(&self, limits: &[FleetLimit], status: &FleetStatus) -> Vec<String> {
        let mut problems = Vec::new();
        let name = &status.name;
        if self.member.has_rival() {
            problems.push(format!(
                "limits of the fleet: another balancer is called `{name}`, or an earlier process \
                 of this one whose lease lasts: no share before that ends; balancers need names of \
                 their own (`fleet.name`)"
            ));
        } else if !status.has_lease {
            let why = self.error.as_deref().unwrap_or("no lease yet");
            problems.push(format!(
                "limits of the fleet: no lease, so that each is no more than its base here: {why}"
            ));
        }
        for gone in self.member.gone() {
            problems.push(format!(
                "limits of the fleet: `{gone}` has no lease: its bases stay reserved for an hour"
            ));
        }
        let ledger = self.member.ledger();
        for limit in limits {
            let (at, whole) = (&limit.name, limit.whole);
            let shares = ledger.members.iter();
            let shares = shares.filter_map(|(name, its)| Some((name, its.get(at)?)));
            let count = shares.clone().count();
            if usize::try_from(whole).is_ok_and(|whole| whole < count) {
                problems.push(format!(
                    "limits of the fleet: `{at}` is {whole}, and there are {count} balancers: not \
                     each has a part"
                ));
            }
            if let Some((other, share)) = shares.clone().find(|(_, its)| its.limit != whole) {
                let theirs = share.limit;
                problems.push(format!(
                    "limits of the fleet: `{at}` is {whole} here, and {theirs} at `{other}`: the \
                     lower one holds"
                ));
            }
        }
        problems
    }
}

/// From one look at what is needed to the next, at least.
const TICK: Duration = Duration::from_millis(200);
/// From one look at the ledger to the next, while nobody needs more.
const READ: Duration = Duration::from_secs(1);
