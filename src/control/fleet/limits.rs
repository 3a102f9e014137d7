//! Limits over the fleet: this balancer's shares of them, held by leases of etcd.
//!
//! A task on the thread of etcd reads and writes the ledger ([`crate::fleet_shares`]) and sets what
//! workers may take. They read it where they read their own limits, and it ends by itself.

mod demand;
mod problems;
mod task;

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::admin::model::{EventKind, FleetStatus};
use crate::config::{Config, Etcd, RateLimit};
use crate::control::events::{Events, Severity, Subject};
use crate::control::remote::{self, RemoteCounts};
use crate::fleet_shares::{FleetMember, ShareBound};
use crate::guard::{Gate, Limit, Sources};
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::nanos;

/// Follows the limits of a configuration.
pub(in crate::control) struct FleetLimits {
    running: Option<Running>,
    counts: Arc<RemoteCounts>,
    /// What went wrong at the last look.
    seen: Vec<String>,
    /// The problems that the last events were about.
    reported: Vec<String>,
}

struct Running {
    by: Terms,
    limits: watch::Sender<Vec<FleetLimit>>,
    leave: Option<oneshot::Sender<oneshot::Sender<()>>>,
    member: SharedMember,
    news: Arc<Mutex<News>>,
    task: AbortHandle,
}

/// This balancer in the ledger. Taking it out ends the task that had it.
type SharedMember = Arc<Mutex<Option<FleetMember>>>;

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How this balancer takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    etcd: Etcd,
    name: String,
    lease: Duration,
}

impl Terms {
    /// How often the ledger is read while none needs more, in ns. A quarter of it is how soon
    /// what others need is seen.
    fn pace(&self) -> u64 {
        nanos(READ.min(self.lease / 8))
    }

    /// Whether these lead to the ledger of the others, for all that is known: by an endpoint that
    /// both have.
    fn share_ledger(&self, others: &Self) -> bool {
        let known = &others.etcd.endpoints;
        let mut endpoints = self.etcd.endpoints.iter();
        (&self.name, &self.etcd.prefix) == (&others.name, &others.etcd.prefix)
            && endpoints.any(|its| known.contains(its))
    }
}

/// What the task knows.
#[derive(Clone, Debug, Default)]
struct News {
    status: FleetStatus,
    /// What goes wrong, a sentence each.
    problems: Vec<String>,
}

/// A limit, and where workers read what this balancer may take of it.
#[derive(Clone)]
struct FleetLimit {
    /// Its name in the ledger.
    name: String,
    whole: u32,
    of: Of,
}

#[derive(Clone)]
enum Of {
    Connections(Arc<Limit>),
    ListenerRate(Arc<Gate>),
    GlobalRate(Arc<Sources>),
}

impl FleetLimits {
    pub(super) fn new(counts: Arc<RemoteCounts>) -> Self {
        Self {
            running: None,
            counts,
            seen: Vec::new(),
            reported: Vec::new(),
        }
    }

    /// Follows what a configuration says, whose snapshot is in force.
    pub(super) fn follow(&mut self, config: &Config, snapshot: &Snapshot) {
        let limits = limits(config, snapshot);
        let fleet = config.fleet.as_ref().filter(|_| !limits.is_empty());
        let Some((fleet, etcd)) = fleet.and_then(|its| Some((its, its.etcd.as_ref()?))) else {
            self.running = None;
            return;
        };
        let by = Terms {
            etcd: etcd.clone(),
            name: fleet.name.clone().unwrap_or_else(sys::host_name),
            lease: fleet.lease,
        };
        if let Some(running) = self.running.as_ref().filter(|its| its.by == by) {
            running.limits.send_replace(limits);
            return;
        }
        let (member, news) = self.begin(&by);
        let (member, news) = (
            Arc::new(Mutex::new(Some(member))),
            Arc::new(Mutex::new(news)),
        );
        let (sender, receiver) = watch::channel(limits);
        let (leave, left) = oneshot::channel();
        let known = (Arc::clone(&member), Arc::clone(&news));
        let task = task::run(&by, (receiver, left), known, &self.counts);
        self.running = Some(Running {
            by,
            limits: sender,
            leave: Some(leave),
            member,
            news,
            task: remote::spawn(task),
        });
    }

    /// How it begins to take part on these terms: with what it has, if only the way to the ledger
    /// has changed, which may be to other endpoints because etcd is away.
    fn begin(&mut self, by: &Terms) -> (FleetMember, News) {
        let before = self.running.take();
        let before = before.filter(|its| its.by.share_ledger(by));
        let before =
            before.and_then(|its| Some((its.member.lock().take()?, its.news.lock().clone())));
        if let Some((member, news)) = before {
            return (member.again(by.pace()), news);
        }
        let none = "limits of the fleet: no share yet: no client is let in where they hold";
        let news = News {
            status: FleetStatus::default(),
            problems: vec![none.to_owned()],
        };
        (FleetMember::new(&by.name, instance(), by.pace()), news)
    }

    /// Gives the shares back and ends the lease, so that others need not wait for its end, nor the
    /// next process of this balancer. All sessions have ended. It waits for etcd no longer than a
    /// second.
    pub(in crate::control) async fn leave(&mut self) {
        let leave = self.running.as_mut().and_then(|its| its.leave.take());
        let (done, left) = oneshot::channel();
        if leave.is_some_and(|leave| leave.send(done).is_ok()) {
            let _ = tokio::time::timeout(LEAVES_WITHIN, left).await;
        }
        self.running = None;
    }

    /// Reports what goes wrong, and what no longer does. To be called each second.
    pub(super) fn tick(&mut self, events: &Events) {
        let problems: Vec<String> = self.problems().collect();
        // What is over within a second, as at a start, is no event.
        let before = std::mem::replace(&mut self.seen, problems);
        let is_new = |its: &&String| before.contains(its) && !self.reported.contains(its);
        let new: Vec<String> = self.seen.iter().filter(is_new).cloned().collect();
        if self.seen.is_empty() && !self.reported.is_empty() {
            let message = "shares of the fleet's limits are held by a lease again".to_owned();
            tell(events, Severity::Info, EventKind::FleetRestored, message);
        }
        self.reported.retain(|its| self.seen.contains(its));
        for problem in new {
            tell(
                events,
                Severity::Warn,
                EventKind::FleetFailed,
                problem.clone(),
            );
            self.reported.push(problem);
        }
    }

    /// What goes wrong now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> + use<> {
        let running = self.running.as_ref();
        let problems = running.map(|its| its.news.lock().problems.clone());
        problems.into_iter().flatten()
    }

    /// Why no client is let in where a limit over the fleet holds; `None`: this balancer has a
    /// share of each.
    pub(in crate::control) fn shareless(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let news = running.news.lock();
        let limits = &news.status.limits;
        let none = limits.iter().find(|its| its.share == 0);
        match none.map(|its| &its.limit) {
            Some(limit) => Some(format!("no share of the fleet's limit {limit}")),
            None if limits.is_empty() => Some("no share of the fleet's limits yet".to_owned()),
            None => None,
        }
    }

    /// As the API shows it; `None`: there are no such limits.
    pub(in crate::control) fn status(&self) -> Option<FleetStatus> {
        let running = self.running.as_ref()?;
        Some(running.news.lock().status.clone())
    }
}

impl FleetLimit {
    fn set_share(&self, bound: ShareBound) {
        match &self.of {
            Of::Connections(limit) => limit.set_share(bound),
            Of::ListenerRate(gate) => gate.fleet_rate.set_share(bound),
            Of::GlobalRate(sources) => sources.fleet_rate.set_share(bound),
        }
    }
}

/// The limits that hold over the fleet.
fn limits(config: &Config, snapshot: &Snapshot) -> Vec<FleetLimit> {
    let mut limits = Vec::new();
    let mut add = |name: String, whole: Option<NonZeroU32>, of: Of| {
        limits.extend(whole.map(|whole| FleetLimit {
            name,
            whole: whole.get(),
            of,
        }));
    };
    let rate = |limit: Option<RateLimit>| limit.filter(|its| its.fleet).map(|its| its.rate);
    let all = Of::Connections(Arc::clone(&snapshot.connections));
    add("connections".to_owned(), config.fleet_max_connections, all);
    let all = Of::GlobalRate(Arc::clone(&snapshot.sources));
    add("rate".to_owned(), rate(config.rate_limit), all);
    for (listener, live) in config.listeners.iter().zip(&snapshot.listeners) {
        let of = Of::Connections(Arc::clone(&live.connections));
        let name = format!("listeners/{}/connections", listener.name);
        add(name, listener.fleet_max_connections, of);
        let of = Of::ListenerRate(Arc::clone(&live.gate));
        let name = format!("listeners/{}/rate", listener.name);
        add(name, rate(listener.rate_limit), of);
    }
    limits
}

/// This process, whatever other process has its balancer's name.
fn instance() -> &'static str {
    static INSTANCE: OnceLock<String> = OnceLock::new();
    INSTANCE.get_or_init(|| format!("{:x}-{:016x}", std::process::id(), fastrand::u64(..)))
}

fn tell(events: &Events, severity: Severity, kind: EventKind, message: String) {
    events.tell_one_of_many(severity, kind, Subject::default(), message);
}

/// From one look at the ledger to the next, while no balancer needs more.
const READ: Duration = Duration::from_secs(1);
/// How long the end of a lease may hold up that of the process.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
