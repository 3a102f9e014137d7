//! What several balancers tell each other without etcd: bans and sticky clients.
//!
//! Each balancer connects to each other one, by TLS with certificates on both sides, and sends what
//! it has written by that connection: never what it has learned, but for a member that connects
//! again. Of two writes about one thing the later one counts, by a hybrid logical clock. All tasks
//! run on the thread of `remote`: the control thread gets whole lists, and never waits.

mod bans;
mod clients;
mod clock;
mod counts;
mod frame;
mod hub;
mod incoming;
mod link;
mod outgoing;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::admin::model::{EventKind, PeersStatus};
use crate::config::{Config, FleetSettings, PeerSettings};
use crate::guard::ImportedBans;
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;

use super::balancer::Balancer;
use super::events::{Events, Severity, Subject};
use super::remote;
use bans::BanWrites;
pub(super) use bans::OwnLifted;
use counts::PeerCounts;
use hub::{Control, Hub, Order};
pub(super) use tls::mistake_in;

/// Follows what peers share.
pub(super) struct Peers {
    followed: Option<Followed>,
    /// Numbers the tasks: news of one that was stopped may still arrive.
    tasks: u64,
    sender: mpsc::Sender<PeersNews>,
    news: mpsc::Receiver<PeersNews>,
    events: Events,
}

struct Followed {
    settings: PeerSettings,
    share_bans: bool,
    /// What is known of bans: also of members that are away.
    bans: Arc<Mutex<BanWrites>>,
    number: u64,
    orders: mpsc::Sender<Order>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    counts: Vec<Arc<PeerCounts>>,
    strangers: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What has changed, or went wrong.
pub(super) struct PeersNews {
    number: u64,
    what: News,
}

enum News {
    /// The others ban these networks, and no more.
    Bans(ImportedBans),
    /// Another one has lifted bans of this balancer.
    Lifted(Vec<OwnLifted>),
    /// What is wrong with a member; `None`: it is well.
    Problem {
        peer: String,
        problem: Option<String>,
    },
    /// Something fails that concerns no member.
    Failed(String),
}

impl Peers {
    /// Follows no peer yet.
    pub(super) fn new(events: &Events) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self {
            followed: None,
            tasks: 0,
            sender,
            news,
            events: events.clone(),
        }
    }

    /// Follows what a configuration says. `true`: there are no peers now, and were before.
    fn follow(&mut self, config: &Config, snapshot: &Arc<Snapshot>) -> bool {
        let peers = |fleet: &FleetSettings| Some((fleet.peers.clone()?, fleet.share_bans));
        let wanted = config.fleet.as_ref().and_then(peers);
        let followed = self.followed.as_ref();
        let present = followed.map(|its| (its.settings.clone(), its.share_bans));
        if present == wanted {
            return false;
        }
        // The address is free for the next one, before that listens. What it held is handed on.
        let bans = self.followed.take().map(|its| Arc::clone(&its.bans));
        self.followed = wanted.map(|wanted| {
            self.tasks += 1;
            let bans = bans.unwrap_or_else(no_bans);
            Followed::begin(wanted, bans, (self.tasks, self.sender.clone()), snapshot)
        });
        self.followed.is_none()
    }

    /// To be called each second.
    pub(super) fn tick(&self, snapshot: &Arc<Snapshot>) {
        if let Some(followed) = &self.followed {
            followed.snapshots.send_if_modified(|before| {
                let is_new = !Arc::ptr_eq(before, snapshot);
                *before = Arc::clone(snapshot);
                is_new
            });
        }
    }

    /// Whether this balancer's own bans are shared, and those of peers can be lifted here.
    pub(super) fn is_sharing(&self) -> bool {
        self.followed.as_ref().is_some_and(|its| its.share_bans)
    }

    /// An operator has lifted bans here.
    pub(super) fn share_lifted(&self, prefixes: Vec<Prefix>) {
        self.lifted_sharer()(prefixes);
    }

    /// The same, to be called once they are lifted.
    pub(super) fn lifted_sharer(&self) -> impl FnOnce(Vec<Prefix>) + use<> {
        let followed = self.followed.as_ref().filter(|its| its.share_bans);
        let orders = followed.map(|its| its.orders.clone());
        let events = self.events.clone();
        move |prefixes| {
            let Some(orders) = orders.filter(|_| !prefixes.is_empty()) else {
                return;
            };
            if orders.try_send(Order::Lifted(prefixes)).is_err() {
                let message = "too many orders wait for peers: they keep bans that were lifted";
                let (kind, about) = (EventKind::FleetFailed, Subject::default());
                events.tell_one_of_many(Severity::Warn, kind, about, message.to_owned());
            }
        }
    }

    /// Waits until something has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) -> PeersNews {
        let news = self.news.recv().await;
        news.expect("a sender is kept here, so the channel stays open")
    }

    /// What goes wrong now, a sentence each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let counts = self.followed.iter().flat_map(|its| &its.counts);
        counts.filter_map(|its| Some(sentence(&its.name, &its.problem()?)))
    }

    /// As the API shows it.
    pub(super) fn status(&self) -> PeersStatus {
        let Some(followed) = &self.followed else {
            return PeersStatus::default();
        };
        let others = followed.counts.iter();
        let others = others.filter(|its| !its.is_own.load(Ordering::Relaxed));
        PeersStatus {
            members: others.map(|its| its.status()).collect(),
            strangers: followed.strangers.load(Ordering::Relaxed),
        }
    }

    fn report(&self, severity: Severity, kind: EventKind, message: String) {
        self.events
            .tell_one_of_many(severity, kind, Subject::default(), message);
    }
}

impl Followed {
    fn begin(
        (settings, share_bans): (PeerSettings, bool),
        bans: Arc<Mutex<BanWrites>>,
        (number, news): (u64, mpsc::Sender<PeersNews>),
        snapshot: &Arc<Snapshot>,
    ) -> Self {
        let members = settings.members.iter();
        let counts: Vec<_> = members.map(|its| Arc::new(PeerCounts::new(its))).collect();
        let strangers = Arc::default();
        let shared = (&settings, share_bans);
        let hub = Hub::new(shared, &bans, &counts, &strangers, (number, news));
        let (orders, waiting) = mpsc::channel(ORDERS);
        let (snapshots, shown) = watch::channel(Arc::clone(snapshot));
        let control = Control {
            orders: waiting,
            snapshots: shown,
        };
        Self {
            settings,
            share_bans,
            bans,
            number,
            orders,
            snapshots,
            counts,
            strangers,
            task: remote::spawn(hub.run(control)),
        }
    }
}

impl Balancer {
    /// Peers share something else, or something goes wrong with them.
    pub(super) fn on_peers(&mut self, PeersNews { number, what }: PeersNews) {
        if self.peers.followed.as_ref().map(|its| its.number) != Some(number) {
            // Of a task that has ended.
            return;
        }
        match what {
            News::Bans(list) => {
                let snapshot = self.publisher.snapshot();
                self.bans.set_peers(Arc::new(list), snapshot);
            }
            News::Lifted(lifted) => lifted.into_iter().for_each(|its| self.lift_own(its)),
            News::Problem { peer, problem } => match problem {
                Some(problem) => {
                    let message = sentence(&peer, &problem);
                    let kind = EventKind::FleetFailed;
                    self.peers.report(Severity::Warn, kind, message);
                }
                None => {
                    let message = format!("peer {peer} is connected");
                    let kind = EventKind::FleetRestored;
                    self.peers.report(Severity::Info, kind, message);
                }
            },
            News::Failed(message) => {
                let kind = EventKind::FleetFailed;
                self.peers.report(Severity::Warn, kind, message);
            }
        }
    }

    /// Follows what a configuration says about peers.
    pub(super) fn follow_peers(&mut self) {
        let snapshot = self.publisher.snapshot();
        if self.peers.follow(&self.in_force.config, snapshot) {
            let none = ImportedBans::of(crate::guard::BannedBy::Peer, Vec::new());
            self.bans.set_peers(Arc::new(none), snapshot);
        }
    }
}

/// What a balancer knows that begins to follow peers. No other has its number.
fn no_bans() -> Arc<Mutex<BanWrites>> {
    Arc::new(Mutex::new(BanWrites::new(fastrand::u64(1..))))
}

fn sentence(peer: &str, why: &str) -> String {
    format!("peer {peer}: {why}")
}

/// News that wait to be taken in; the tasks wait with more.
const NEWS: usize = 16;
/// Orders that wait for the tasks.
const ORDERS: usize = 256;

#[cfg(test)]
mod tests;
