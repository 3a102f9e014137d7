//! Bans before accept: banned networks whose clients keep knocking are dropped by the kernel, at
//! the listening sockets.
//!
//! The filter belongs to the socket, not to a descriptor of it. So this thread attaches it to its
//! own copies of the listening sockets, and workers never touch it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use crate::address::Address;
use crate::admin::model::{SynFilterMeans, SynFilterStatus};
use crate::guard::{self, Bans, ClassicInstruction, PeerStage, Trusted};
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;
use crate::sys::{self, Bound, SynMaps};
use crate::time::SECOND;

use super::workers::Workers;

/// Makes what needs CAP_BPF, before the process gives it up. The first call counts.
pub(super) fn prepare() {
    maps();
}

fn maps() -> &'static io::Result<SynMaps> {
    static MAPS: OnceLock<io::Result<SynMaps>> = OnceLock::new();
    MAPS.get_or_init(|| SynMaps::new(MAPS_PREFIXES, guard::extended_syn_program))
}

/// Which networks the kernel drops, and how.
pub(super) struct SynFilter {
    means: Means,
    /// Why nothing better is in force.
    why: Option<String>,
    dropping: BTreeMap<Prefix, Dropping>,
    /// The network that was looked at last.
    looked: Option<Prefix>,
    /// Segments that were dropped.
    dropped: u64,
    /// The changes of the ban table that are known.
    changes: u64,
    trusted: Arc<Trusted>,
    /// The listeners' proxies that are known.
    proxies: Vec<Arc<PeerStage>>,
    /// Networks came in or went since the filter was attached.
    has_changed: bool,
}

/// How the kernel drops segments.
#[derive(Clone, Copy)]
enum Means {
    Maps(&'static SynMaps),
    /// At most so many networks.
    Classic(usize),
    None,
}

/// A network in the filter.
struct Dropping {
    /// Segments that were counted at its ban.
    counted: u64,
    /// When it last was seen to knock, in ns of the workers' clock.
    knocked_at: u64,
}

/// The filter of all listening sockets.
pub(super) enum Attachment {
    None,
    Maps(&'static SynMaps),
    Classic(Vec<ClassicInstruction>),
}

impl Attachment {
    pub(super) fn attach(&self, socket: &OwnedFd) -> io::Result<()> {
        match self {
            Self::None => sys::detach_filter(socket),
            Self::Maps(maps) => maps.attach(socket)?,
            Self::Classic(program) => sys::attach_classic(socket, program)?,
        }
        Ok(())
    }

    /// Attaches it to the sockets of a TCP listener: others receive no segments.
    pub(super) fn attach_to(&self, bound: &Bound) -> io::Result<()> {
        match bound.address {
            Address::Tcp(_) => bound.sockets.iter().try_for_each(|its| self.attach(its)),
            Address::Unix(_) => Ok(()),
        }
    }
}

impl SynFilter {
    /// The best that this process may use, with nothing in it.
    pub(super) fn new() -> Self {
        let (means, why) = match maps() {
            Ok(maps) => (Means::Maps(maps), None),
            Err(error) => {
                let why = format!("cannot make eBPF maps: {error}; give the process CAP_BPF");
                (Means::Classic(CLASSIC_PREFIXES), Some(why))
            }
        };
        Self {
            means,
            why,
            dropping: BTreeMap::new(),
            looked: None,
            dropped: 0,
            changes: 0,
            trusted: Arc::default(),
            proxies: Vec::new(),
            has_changed: false,
        }
    }

    /// To be called each second: networks that keep knocking come in, quiet ones go.
    pub(super) fn tick(&mut self, snapshot: &Snapshot, workers: &Workers) {
        let knocking = snapshot.bans.take_knocking();
        if self.dropping.is_empty() && knocking.is_empty() {
            return;
        }
        let now = sys::monotonic();
        let was_empty = self.dropping.is_empty();
        self.follow(snapshot, now);
        self.look(&snapshot.bans, now);
        for prefix in knocking {
            self.add(prefix, snapshot, now);
        }
        self.attach(was_empty, workers);
    }

    /// A ban is about to be lifted: the kernel drops its clients no longer.
    pub(super) fn lift(&mut self, prefix: Prefix, bans: &Bans, workers: &Workers) {
        if self.dropping.contains_key(&prefix) {
            self.count(prefix, bans, sys::monotonic());
            self.remove(prefix);
            self.attach(false, workers);
        }
    }

    /// Takes out networks that are not banned any more, or trusted since.
    fn follow(&mut self, snapshot: &Snapshot, now: u64) {
        let changes = snapshot.bans.changes();
        let proxies: Vec<_> = proxies(snapshot).cloned().collect();
        let is_same = proxies.len() == self.proxies.len()
            && proxies
                .iter()
                .zip(&self.proxies)
                .all(|(new, old)| Arc::ptr_eq(new, old));
        if self.changes == changes && Arc::ptr_eq(&self.trusted, &snapshot.trusted) && is_same {
            return;
        }
        self.proxies = proxies;
        self.changes = changes;
        self.trusted = Arc::clone(&snapshot.trusted);
        let prefixes = self.dropping.keys().copied();
        let gone = prefixes.filter(|prefix| !may_drop(snapshot, *prefix, now));
        for prefix in gone.collect::<Vec<_>>() {
            self.remove(prefix);
        }
    }

    /// Counts what was dropped of some networks, the next ones each time, and takes out quiet ones.
    /// A classic filter does not count: its networks have to knock again after a while.
    fn look(&mut self, bans: &Bans, now: u64) {
        let after = self.looked.map_or(Unbounded, Excluded);
        let next = self.dropping.range((after, Unbounded)).take(LOOKS);
        let next: Vec<Prefix> = next.map(|(prefix, _)| *prefix).collect();
        // Behind the last one comes the first.
        self.looked = next.last().copied().filter(|_| next.len() == LOOKS);
        for prefix in next {
            let knocked_at = self.count(prefix, bans, now);
            if now.saturating_sub(knocked_at) > QUIET {
                self.remove(prefix);
            }
        }
    }

    /// Counts what was dropped of a network as hits of its ban. Answers when it last knocked.
    fn count(&mut self, prefix: Prefix, bans: &Bans, now: u64) -> u64 {
        let Some(its) = self.dropping.get_mut(&prefix) else {
            return now;
        };
        if let Means::Maps(maps) = self.means
            && let Ok(dropped) = maps.dropped(prefix)
            && dropped > its.counted
        {
            let new = dropped - its.counted;
            bans.count_dropped(prefix, new);
            self.dropped += new;
            (its.counted, its.knocked_at) = (dropped, now);
        }
        its.knocked_at
    }

    fn add(&mut self, prefix: Prefix, snapshot: &Snapshot, now: u64) {
        let has_room = match self.means {
            Means::Maps(_) => self.dropping.len() < MAPS_PREFIXES as usize,
            Means::Classic(most) => self.dropping.len() < most,
            Means::None => false,
        };
        if self.dropping.contains_key(&prefix) || !has_room || !may_drop(snapshot, prefix, now) {
            return;
        }
        if let Means::Maps(maps) = self.means
            && let Err(error) = maps.insert(prefix)
        {
            self.why = Some(format!("cannot add {prefix} to the map: {error}"));
            return;
        }
        let dropping = Dropping {
            counted: 0,
            knocked_at: now,
        };
        self.dropping.insert(prefix, dropping);
        self.has_changed = true;
    }

    fn remove(&mut self, prefix: Prefix) {
        self.dropping.remove(&prefix);
        self.has_changed = true;
        if let Means::Maps(maps) = self.means {
            // It is there: nothing else removes it.
            let _ = maps.remove(prefix);
        }
    }

    /// Brings the filter to the sockets if its networks have changed. One with maps looks into
    /// them: it only comes and goes.
    fn attach(&mut self, was_empty: bool, workers: &Workers) {
        if !std::mem::take(&mut self.has_changed) {
            return;
        }
        let prefixes: Vec<Prefix> = self.dropping.keys().copied().collect();
        let attachment = match self.means {
            _ if prefixes.is_empty() => Attachment::None,
            Means::Maps(_) if !was_empty => return,
            Means::Maps(maps) => Attachment::Maps(maps),
            Means::Classic(_) => Attachment::Classic(guard::classic_syn_program(&prefixes)),
            Means::None => return,
        };
        if was_empty || prefixes.is_empty() {
            log::info!(
                "{}",
                match prefixes.is_empty() {
                    true => "banned clients no longer connect: the filter of listeners is removed",
                    false => "banned clients go on connecting: the kernel drops them before accept",
                }
            );
        }
        let Err(error) = workers.filter_syns(attachment) else {
            return;
        };
        log::warn!("cannot drop banned clients before accept: {error}");
        // All sockets are to do the same.
        let _ = workers.filter_syns(Attachment::None);
        self.why = Some(format!("cannot attach a filter: {error}"));
        self.means = match self.means {
            // The program may be too large (net.core.optmem_max).
            Means::Classic(_)
                if prefixes.len() > 1 && error.kind() != ErrorKind::PermissionDenied =>
            {
                Means::Classic(prefixes.len() / 2)
            }
            Means::Maps(_) => Means::Classic(CLASSIC_PREFIXES),
            Means::Classic(_) | Means::None => Means::None,
        };
        // They come in again as they knock.
        self.dropping.clear();
    }

    /// What is in force, for people.
    pub(super) fn status(&self) -> SynFilterStatus {
        SynFilterStatus {
            means: match self.means {
                Means::Maps(_) => SynFilterMeans::Ebpf,
                Means::Classic(_) => SynFilterMeans::Classic,
                Means::None => SynFilterMeans::None,
            },
            networks: self.dropping.len() as u64,
            dropped: matches!(self.means, Means::Maps(_)).then_some(self.dropped),
            why: self.why.clone(),
        }
    }
}

/// Whether all clients of a network are banned, and none of them is trusted, or is a proxy: its
/// segments are those of others, whatever bans say of clients.
fn may_drop(snapshot: &Snapshot, prefix: Prefix, now: u64) -> bool {
    let has_proxies = || proxies(snapshot).any(|stage| stage.meets(prefix));
    !snapshot.trusted.meets(prefix) && !has_proxies() && snapshot.bans.holds(prefix, now)
}

/// The proxies of each listener that has some.
fn proxies(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<PeerStage>> {
    let listeners = snapshot.listeners.iter();
    let all = listeners.filter_map(|listener| listener.proxies.as_ref());
    all.map(|proxies| &proxies.stage)
}

impl Workers {
    /// Attaches a filter to all listening sockets, in place of the one before, and to those of
    /// later listeners.
    fn filter_syns(&self, attachment: Attachment) -> io::Result<()> {
        *self.syn_filter.borrow_mut() = attachment;
        self.filter_all()
    }

    /// Attaches the filter in force to the sockets of a listener: one that drops all new clients,
    /// or banned ones.
    pub(super) fn filter(&self, bound: &Bound) -> io::Result<()> {
        match (self.refuses_new.get(), &bound.address) {
            (true, Address::Tcp(_)) => bound.sockets.iter().try_for_each(sys::drop_new_clients),
            (true, Address::Unix(_)) => Ok(()),
            (false, _) => self.syn_filter.borrow().attach_to(bound),
        }
    }

    fn filter_all(&self) -> io::Result<()> {
        let listening = self.listening.borrow();
        let mut all = listening.values();
        all.try_for_each(|its| self.filter(&its.bound))
    }

    /// Has all TCP listeners drop new clients, or let them in again. Those whose handshake is under
    /// way come in.
    pub(super) fn refuse_new_clients(&self, refuses: bool) {
        self.refuses_new.set(refuses);
        if let Err(error) = self.filter_all() {
            let what = if refuses { "refuse" } else { "let in" };
            log::error!("cannot {what} new clients at every listener: {error}");
        }
    }
}

/// Networks in each map: a look at all of them takes 16 s.
const MAPS_PREFIXES: u32 = 16_384;
/// Networks in a classic filter, which compares one after the other.
const CLASSIC_PREFIXES: usize = 256;
/// Networks that are looked at in a second; each is a system call.
const LOOKS: usize = 1_024;
/// A network without a knock for so long is no longer dropped: 60 s.
const QUIET: u64 = 60 * SECOND;
