//! What the tasks of all connections share, and what they tell the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use crate::config::{PeerSettings, bounded};
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;
use crate::sys;

use super::bans::{BanWrites, Now, OwnLifted, Source};
use super::clients::{Base, StickyPool, StickyPools};
use super::clock::wall;
use super::counts::{PeerCounts, Refusal};
use super::frame::{BANS_MAX, BanEntry, Body, Clients, Frame};
use super::link::PATIENCE;
use super::tls::Identities;
use super::{News, PeersNews, incoming, outgoing};

/// What the tasks of all connections share.
pub(super) struct Hub {
    pub(super) settings: PeerSettings,
    share_bans: bool,
    /// How long a side may be silent, or take nothing.
    pub(super) patience: Duration,
    pub(super) identities: Identities,
    /// Of each member, by its place.
    pub(super) counts: Vec<Arc<PeerCounts>>,
    /// Connections of those that are no members.
    pub(super) strangers: Arc<AtomicU64>,
    /// Wakes those that wait before they connect to a member again.
    pub(super) retries: Vec<Notify>,
    bans: Arc<Mutex<BanWrites>>,
    known: Mutex<Known>,
    /// Changes, for all connections.
    frames: broadcast::Sender<Change>,
    number: u64,
    news: mpsc::Sender<PeersNews>,
}

struct Known {
    pools: StickyPools,
    /// The place of the pool that is looked at first the next time.
    turn: usize,
    base: Base,
}

/// What all others get.
#[derive(Clone)]
pub(super) enum Change {
    /// A frame of so many entries, which waits since then.
    Frame(Arc<[u8]>, usize, Instant),
    /// All again: changes were lost.
    All,
}

/// What an operator has done.
pub(super) enum Order {
    /// Bans were lifted.
    Lifted(Vec<Prefix>),
}

/// What the control thread shows and orders.
pub(super) struct Control {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Hub {
    /// `bans` is what the hub before it held.
    pub(super) fn new(
        (settings, share_bans): (&PeerSettings, bool),
        bans: &Arc<Mutex<BanWrites>>,
        counts: &[Arc<PeerCounts>],
        strangers: &Arc<AtomicU64>,
        (number, news): (u64, mpsc::Sender<PeersNews>),
    ) -> Self {
        Self {
            settings: settings.clone(),
            share_bans,
            patience: PATIENCE,
            identities: Identities::new(settings),
            counts: counts.to_vec(),
            strangers: Arc::clone(strangers),
            retries: settings.members.iter().map(|_| Notify::new()).collect(),
            bans: Arc::clone(bans),
            known: Mutex::new(Known {
                pools: StickyPools::default(),
                turn: 0,
                base: Base::new(now()),
            }),
            frames: broadcast::channel(CHANGES).0,
            number,
            news,
        }
    }

    /// Runs all connections. It ends never: its task is to be aborted.
    pub(super) async fn run(self, mut control: Control) {
        let hub = Arc::new(self);
        hub.begin();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(incoming::accept(Arc::clone(&hub)));
        for place in 0..hub.settings.members.len() {
            tasks.spawn(outgoing::keep(Arc::clone(&hub), place));
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = Look::default();
        let mut beats = 0_u64;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let snapshot = Arc::clone(&control.snapshots.borrow_and_update());
                    hub.look_at_bans(&snapshot, &mut look);
                    hub.look_at_clients(&snapshot);
                    if beats.is_multiple_of(TICKS_PER_BEAT) {
                        hub.send(Body::Beat);
                    }
                    beats += 1;
                    // However many orders come: each list is of all bans.
                    hub.report();
                }
                order = control.orders.recv() => match order {
                    Some(Order::Lifted(prefixes)) => hub.lift(prefixes),
                    // The control thread follows other settings.
                    None => return,
                },
            }
            hub.send_changes();
        }
    }

    /// From now on bans are this hub's, and no more of the one before it.
    pub(super) fn begin(&self) {
        let names = self.settings.members.iter().map(|its| its.name.clone());
        self.bans.lock().hand_on(self.number, names.collect());
    }

    /// What is known of bans; `None`: another hub has it, and the tasks of this one are to end.
    fn bans(&self) -> Option<MutexGuard<'_, BanWrites>> {
        let bans = self.bans.lock();
        bans.is_of(self.number).then_some(bans)
    }

    /// Looks at the bans of this balancer, if they have changed.
    fn look_at_bans(&self, snapshot: &Snapshot, look: &mut Look) {
        let now = now();
        let Some(mut bans) = self.bans() else {
            return;
        };
        bans.expire(now.monotonic);
        bans.follow_clock(now);
        let changes = snapshot.bans.changes();
        if Some(changes) == look.changes || now.monotonic < look.resume_at {
            return;
        }
        look.changes = Some(changes);
        let table = snapshot.bans.all(now.monotonic);
        bans.look(&table, now);
        let ended = sys::monotonic();
        let took = ended.saturating_sub(now.monotonic);
        look.resume_at = ended.saturating_add(took.saturating_mul(PAUSE_FACTOR));
    }

    /// Sends the sticky clients of this balancer that have changed.
    pub(super) fn look_at_clients(&self, snapshot: &Snapshot) {
        let now = now();
        let mut known = self.known.lock();
        known.base.follow(now);
        known.pools.follow(snapshot);
        let (mut pools, base) = (known.pools.all(), known.base);
        // A pool in which much changes leaves nothing to those behind it.
        let turn = known.turn % pools.len().max(1);
        known.turn = turn + 1;
        drop(known);
        pools.rotate_left(turn);
        let mut left = CLIENTS_PER_TICK;
        for pool in pools {
            if pool.has_lost() {
                self.send_all_again();
            }
            let changed = pool.changes(left, base, now);
            for clients in changed {
                left = left.saturating_sub(clients.entries.len());
                self.send(Body::Clients(clients));
            }
        }
    }

    /// The pools whose sticky clients are shared, and the base of their times.
    pub(super) fn pools(&self) -> (Vec<Arc<StickyPool>>, Base) {
        let known = self.known.lock();
        (known.pools.all(), known.base)
    }

    /// Takes in what a member says of sticky clients.
    pub(super) fn take_clients(&self, clients: &Clients, from: usize) {
        let known = self.known.lock();
        let refused = known.pools.learn(clients, known.base, now());
        for (why, count) in refused {
            self.counts[from].refuse(why, count);
        }
    }

    fn lift(&self, prefixes: Vec<Prefix>) {
        let now = now();
        let Some(mut bans) = self.bans() else {
            return;
        };
        for prefix in prefixes {
            bans.lift(prefix, now);
        }
    }

    /// Sends own writes to all.
    fn send_changes(&self) {
        let unsent = self.bans().map(|mut its| its.take_unsent(sys::monotonic()));
        let unsent = unsent.unwrap_or_default();
        if self.share_bans {
            for some in unsent.chunks(BANS_MAX) {
                self.send(Body::Bans(some.to_vec()));
            }
        }
    }

    /// Sends to all that are connected.
    pub(super) fn send(&self, body: Body) {
        let frame = Frame::now(body);
        let change = Change::Frame(frame.bytes(), frame.entries(), Instant::now());
        // Without a receiver no member is connected, and each gets all when it is.
        let _ = self.frames.send(change);
    }

    /// Has all sent again to all that are connected, as changes were lost.
    pub(super) fn send_all_again(&self) {
        let _ = self.frames.send(Change::All);
    }

    /// Changes from now on.
    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        self.frames.subscribe()
    }

    /// Frames of all bans that are known, for a member that knows none.
    pub(super) fn known_bans(&self) -> Vec<Body> {
        let Some(bans) = self.bans() else {
            return Vec::new();
        };
        let known = bans.known(self.share_bans, sys::monotonic());
        let frames = known.into_iter().flat_map(|(maker, entries)| {
            let frame = move |some: &[BanEntry]| match maker {
                None => Body::Bans(some.to_vec()),
                Some(maker) => Body::PassedOn(maker.to_owned(), some.to_vec()),
            };
            entries.chunks(BANS_MAX).map(frame).collect::<Vec<_>>()
        });
        frames.collect()
    }

    /// Takes in what a member says about its bans, or about those of the one that made them.
    pub(super) fn take_bans(&self, entries: &[BanEntry], from: usize, maker: Option<&str>) {
        let now = now();
        let Some(mut bans) = self.bans() else {
            return;
        };
        let from_other = |name| match bans.place(name)? {
            maker if maker == from => Some(Source::Peer(from)),
            maker => Some(Source::PassedOn { maker, by: from }),
        };
        let Some(source) = maker.map_or(Some(Source::Peer(from)), from_other) else {
            self.counts[from].refuse(Refusal::UnknownMember, entries.len());
            return;
        };
        for entry in entries {
            if let Err(why) = bans.merge(entry, source, now) {
                self.counts[from].refuse(why, 1);
            }
        }
    }

    /// Tells the control thread what has changed, while it takes more.
    fn report(&self) {
        let Some(mut bans) = self.bans() else {
            return;
        };
        if let Ok(permit) = self.news.try_reserve()
            && let Some(list) = bans.take_list(sys::monotonic())
        {
            permit.send(self.news(News::Bans(list)));
        }
        if let Ok(permit) = self.news.try_reserve() {
            let lifted: Vec<OwnLifted> = bans.take_lifted();
            if !lifted.is_empty() {
                permit.send(self.news(News::Lifted(lifted)));
            }
        }
    }

    /// Something goes wrong with a member, or no longer.
    pub(super) async fn note(&self, place: usize, side: Side, problem: Option<String>) {
        let problem = problem.map(bounded);
        let counts = &self.counts[place];
        if !counts.note(side, problem.clone()) {
            return;
        }
        let peer = counts.name.clone();
        let news = self.news(News::Problem { peer, problem });
        // Without a receiver the balancer is ending, and this task with it.
        let _ = self.news.send(news).await;
    }

    /// Something goes wrong that concerns no member.
    pub(super) async fn tell(&self, sentence: String) {
        let news = self.news(News::Failed(bounded(sentence)));
        let _ = self.news.send(news).await;
    }

    fn news(&self, what: News) -> PeersNews {
        PeersNews {
            number: self.number,
            what,
        }
    }

    /// Counts a connection of one that is no member. Answers how many there were.
    pub(super) fn count_stranger(&self) -> u64 {
        self.strangers.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The two connections with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one by which this balancer sends.
    Outgoing,
    /// The one by which the member sends.
    Incoming,
}

/// What the last look at the ban table saw.
#[derive(Default)]
struct Look {
    changes: Option<u64>,
    resume_at: u64,
}

/// The time, by both clocks.
pub(super) fn now() -> Now {
    Now {
        monotonic: sys::monotonic(),
        wall: wall(),
    }
}

/// How often this balancer looks for what has changed here.
const TICK: Duration = Duration::from_millis(200);
/// A beat each second.
const TICKS_PER_BEAT: u64 = 5;
/// Frames that wait for the slowest member, of 64 KiB at most. Beyond: it gets all again.
const CHANGES: usize = 128;
/// Sticky clients that are told in a tick, about. The others wait.
const CLIENTS_PER_TICK: usize = 20_000;
/// After a look at the ban table that takes a pause so many times as long: a table that changes all
/// the time costs a twentieth of a CPU.
const PAUSE_FACTOR: u64 = 19;
