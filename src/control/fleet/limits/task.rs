//! The task that holds shares of limits: one request to etcd after the other.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::admin::model::{FleetLimitStatus, FleetStatus};
use crate::config::bounded;
use crate::control::etcd::LedgerKeeper;
use crate::control::remote::RemoteCounts;
use crate::fleet_shares::{Answer, Ask, Demand, FleetMember};
use crate::sys;

use super::demand::Meter;
use super::problems::problems;
use super::{FleetLimit, News, SharedMember, Terms, instance};

/// Takes part in the ledger, for as long as it is not dropped.
pub(super) fn run(
    terms: &Terms,
    (limits, leave): (watch::Receiver<Vec<FleetLimit>>, Leave),
    (member, news): (SharedMember, Arc<Mutex<News>>),
    counts: &Arc<RemoteCounts>,
) -> impl Future<Output = ()> + use<> {
    let by = (&*terms.name, instance());
    let holder = Holder {
        member,
        keeper: LedgerKeeper::new(&terms.etcd, by, terms.lease, counts),
        limits,
        leave,
        meters: BTreeMap::new(),
        failures: Failures::default(),
        news,
    };
    holder.run()
}

/// Asks the task to end its lease, and to say when it has.
type Leave = oneshot::Receiver<oneshot::Sender<()>>;

struct Holder {
    member: SharedMember,
    keeper: LedgerKeeper,
    limits: watch::Receiver<Vec<FleetLimit>>,
    leave: Leave,
    meters: BTreeMap<String, Meter>,
    failures: Failures,
    news: Arc<Mutex<News>>,
}

/// Requests that fail.
#[derive(Debug, Default)]
struct Failures {
    /// What was asked, and why it failed: until the same succeeds, or nothing is to be asked.
    last: Option<(Discriminant<Ask>, String)>,
    in_a_row: u32,
}

impl Failures {
    fn add(&mut self, ask: &Ask, why: String) {
        self.last = Some((discriminant(ask), why));
        self.in_a_row += 1;
    }

    /// This has succeeded; `None`: nothing is to be asked.
    fn end(&mut self, ask: Option<&Ask>) {
        let what = ask.map(discriminant);
        let last = self.last.as_ref().map(|(what, _)| *what);
        if what.is_none() || what == last {
            *self = Self::default();
        }
    }

    fn why(&self) -> Option<&str> {
        self.last.as_ref().map(|(_, why)| &**why)
    }

    /// Up to 1.6 s while requests fail.
    fn pause(&self) -> Duration {
        let pause = TICK * (1 << self.in_a_row.saturating_sub(1).min(3));
        pause.mul_f64(1.0 + fastrand::f64() / 4.0)
    }
}

impl Holder {
    async fn run(mut self) {
        // Without a sender the task is about to be dropped, and without a member too.
        while self.limits.has_changed().is_ok() {
            let limits = self.limits.borrow_and_update().clone();
            match self.turn(&limits).await {
                None => return,
                Some(true) => continue,
                Some(false) => self.tell(&limits),
            }
            let pause = self.failures.pause();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Other limits do not wait.
                _ = self.limits.changed() => {}
                left = &mut self.leave => {
                    let given_back = self.give_back(&limits);
                    let _ = tokio::time::timeout(GIVES_BACK_WITHIN, given_back).await;
                    if let Some(lease) = self.on_member(|its| its.lease()).flatten() {
                        let _ = self.keeper.revoke(lease).await;
                    }
                    // Who waited for it may have gone.
                    let _ = left.map(|left| left.send(()));
                    return;
                }
            }
        }
    }

    /// `None`: another task has the member.
    fn on_member<T>(&self, what: impl FnOnce(&mut FleetMember) -> T) -> Option<T> {
        self.member.lock().as_mut().map(what)
    }

    /// One request at most. `true`: there may be another one at once.
    async fn turn(&mut self, limits: &[FleetLimit]) -> Option<bool> {
        let demands = self.demands(limits);
        self.on_member(|its| its.plan(&demands, sys::boot_time()))?;
        self.apply(limits);
        // What is in use by now: no worker takes more by the old shares.
        let demands = self.demands(limits);
        let asked_at = sys::boot_time();
        let Some(ask) = self.on_member(|its| its.ask(&demands, asked_at))? else {
            self.failures.end(None);
            return Some(false);
        };
        let answer = match self.keeper.ask(&ask).await {
            Ok(answer) => {
                self.failures.end(Some(&ask));
                answer
            }
            Err(why) => {
                let why = bounded(format!("{}: {why}", self.keeper.endpoint()));
                log::debug!("limits of the fleet: {why}");
                self.failures.add(&ask, why);
                self.keeper.turn();
                Answer::Failed
            }
        };
        if answer == Answer::Written(false) {
            log::debug!("limits of the fleet: another balancer has written before: again");
        }
        let has_failed = answer == Answer::Failed;
        self.on_member(|its| its.answered(ask, answer, asked_at, sys::boot_time()))?;
        self.apply(limits);
        Some(!has_failed && !self.on_member(|its| its.has_rival())?)
    }

    /// Takes this balancer out of the ledger. Others may write at the same time, of which some may
    /// end too.
    async fn give_back(&mut self, limits: &[FleetLimit]) {
        self.on_member(FleetMember::leave);
        self.apply(limits);
        let mut is_there = true;
        while is_there {
            let asked_at = sys::boot_time();
            let Ok(view) = self.keeper.ask(&Ask::Read).await else {
                return;
            };
            let write = self.on_member(|its| {
                its.answered(Ask::Read, view, asked_at, sys::boot_time());
                its.farewell(sys::boot_time())
            });
            let Some(write) = write.flatten() else {
                return;
            };
            let answer = self.keeper.ask(&Ask::Write(write)).await;
            is_there = matches!(answer, Ok(Answer::Written(false)));
        }
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
        self.on_member(|member| {
            for limit in limits {
                limit.set_share(member.bound(&limit.name));
            }
        });
    }

    /// What is known now.
    fn tell(&self, limits: &[FleetLimit]) {
        let now = sys::boot_time();
        let news = self.on_member(|member| {
            let of_limits = limits.iter().map(|its| (&*its.name, its.whole));
            News {
                status: self.status(member, limits, now),
                problems: problems(
                    member,
                    &of_limits.collect::<Vec<_>>(),
                    self.failures.why(),
                    now,
                ),
            }
        });
        if let Some(news) = news {
            *self.news.lock() = news;
        }
    }

    fn status(&self, member: &FleetMember, limits: &[FleetLimit], now: u64) -> FleetStatus {
        let ledger = member.ledger();
        let (name, _) = member.identity();
        let shown = limits.iter().map(|limit| {
            let bound = member.bound(&limit.name);
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
        FleetStatus {
            name: name.to_owned(),
            limits: shown.collect(),
            members: ledger.members.len() as u64,
            leased: member.leased() as u64,
            has_lease: member.has_lease(now),
            conflicts: member.conflicts(),
        }
    }
}

/// From one look at what is needed to the next, at least.
const TICK: Duration = Duration::from_millis(200);
/// How much of the time that a process has to leave its shares may take; the rest is its lease's.
const GIVES_BACK_WITHIN: Duration = Duration::from_millis(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_until_the_same_succeeds_or_all_is_done() {
        let mut failures = Failures::default();
        failures.add(&Ask::Read, "garbage".to_owned());
        failures.end(Some(&Ask::Renew(7)));
        assert_eq!((failures.why(), failures.in_a_row), (Some("garbage"), 1));
        failures.end(Some(&Ask::Read));
        assert_eq!((failures.why(), failures.in_a_row), (None, 0));
        failures.add(&Ask::Renew(7), "late".to_owned());
        failures.end(None);
        assert_eq!(failures.why(), None);
    }
}
