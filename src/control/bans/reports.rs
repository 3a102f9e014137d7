//! Reports what happens to the ban table: each kind at once, and then every ten seconds at most.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::admin::model::EventKind;
use crate::control::events::{Events, Severity, Subject};
use crate::guard::{Ban, BanNews, Bans, ImportOutcome, ImportedBans, RuleBan};
use crate::prefix::Prefix;
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::between;
use crate::wording::plural;

use super::file::KeptBans;
use super::following::FollowedList;
use super::import::BanImport;
use super::saver::Saver;
use super::{refused, tell};

/// Removes bans whose time is over, and reports refused clients: at once, and then every ten
/// seconds at most. Workers only count them.
#[derive(Default)]
pub(in crate::control) struct BanReports {
    /// Banned clients that were reported, by listener.
    reported: HashMap<String, u64>,
    of_refused: Pause,
    of_rules: Pause,
    of_ended: Pause,
    /// The first ban that has ended since the last report, and how many there are.
    ended: Option<(Arc<Ban>, usize)>,
    /// The workers were woken after so many bans.
    pub(super) woken_for: u64,
    saver: Saver,
    pub(in crate::control) import: BanImport,
    /// What the fleet bans.
    fleet: FollowedList,
    /// What peers ban.
    peers: FollowedList,
    /// Other threads that lift bans, until they are done.
    lifting: Vec<oneshot::Receiver<Comeback>>,
}

/// Whether bans that were lifted may come back by the fleet's list.
pub(super) type Comeback = bool;

impl BanReports {
    /// Goes on with bans that were kept, of which so many hold, and reports them.
    pub(in crate::control) fn begin(
        &mut self,
        kept: (Option<&Path>, &KeptBans),
        restored: usize,
        events: &Events,
    ) {
        self.saver.begin(kept, restored, events);
    }

    /// What is wrong with the files of bans, a sentence each.
    pub(in crate::control) fn problems(&self) -> impl Iterator<Item = String> {
        let saver = self.saver.problem().into_iter();
        let damage = self.saver.damage().map(str::to_owned);
        saver.chain(damage).chain(self.import.problems())
    }

    /// Keeps the bans for the next run, at the end of this one.
    pub(in crate::control) async fn end(&mut self, bans: &Arc<Bans>) {
        self.saver.end(bans).await;
    }

    /// To be called each second. `file` is where bans are kept.
    pub(in crate::control) fn tick(
        &mut self,
        file: Option<&Path>,
        snapshot: &Snapshot,
        events: &Events,
    ) {
        self.saver.tick(file, &snapshot.bans, events);
        let ended = snapshot.bans.expire(sys::monotonic(), EXPIRED_AT_ONCE);
        self.on_ended(&ended);
        let mut lifting = std::mem::take(&mut self.lifting);
        lifting.retain_mut(|done| {
            let outcome = done.try_recv();
            if outcome == Err(TryRecvError::Empty) {
                return true;
            }
            self.import.set_due();
            if outcome != Ok(false) {
                self.fleet.set_due();
            }
            self.peers.set_due();
            false
        });
        self.lifting = lifting;
        self.import.tick(snapshot, events);
        if let Some([_, outcome]) = self.fleet.tick(snapshot) {
            report_list("the fleet", self.fleet.list(), outcome, events);
        }
        if let Some([_, outcome]) = self.peers.tick(snapshot) {
            report_list("peers", self.peers.list(), outcome, events);
        }
        self.report_ended(&ended, events);
        self.report_rules(&snapshot.bans, events);
        self.report_refused(snapshot, events);
    }

    /// The fleet bans these networks, and no others.
    pub(in crate::control) fn set_fleet(&mut self, list: Arc<ImportedBans>, snapshot: &Snapshot) {
        self.fleet.set(list);
        self.fleet.run(snapshot);
    }

    /// Peers ban these networks, and no others.
    pub(in crate::control) fn set_peers(&mut self, list: Arc<ImportedBans>, snapshot: &Snapshot) {
        self.peers.set(list);
        self.peers.run(snapshot);
    }

    /// What the fleet bans.
    pub(super) fn list_of_fleet(&self) -> Arc<ImportedBans> {
        Arc::clone(self.fleet.list())
    }

    /// Whether the fleet bans exactly this network.
    pub(in crate::control) fn is_of_fleet(&self, prefix: Prefix) -> bool {
        self.fleet.has(prefix)
    }

    /// These bans have ended, or were lifted: a list may have them too.
    pub(super) fn on_ended(&mut self, ended: &[Arc<Ban>]) {
        self.import.on_ended(ended);
        self.fleet.on_ended(ended);
        self.peers.on_ended(ended);
    }

    /// An operator has lifted these bans: the lists that go on with them may have them too.
    pub(super) fn on_lifted(&mut self, lifted: &[Arc<Ban>], goes_on: GoesOn) {
        self.import.on_ended(lifted);
        if goes_on.fleet {
            self.fleet.on_ended(lifted);
        }
        if goes_on.peers {
            self.peers.on_ended(lifted);
        }
    }

    /// Another thread lifts bans, until this channel says more: a list may have them too.
    pub(super) fn expect_lifted(&mut self, is_done: oneshot::Receiver<Comeback>) {
        self.lifting.push(is_done);
    }

    /// Has other threads change the table where that is due.
    pub(in crate::control) fn run(&mut self, snapshot: &Snapshot) {
        self.import.run(snapshot);
        self.fleet.run(snapshot);
        self.peers.run(snapshot);
    }

    fn report_ended(&mut self, ended: &[Arc<Ban>], events: &Events) {
        if let Some(first) = ended.first() {
            let (_, count) = self.ended.get_or_insert_with(|| (Arc::clone(first), 0));
            *count += ended.len();
        }
        if self.of_ended.is_over()
            && let Some((first, count)) = self.ended.take()
        {
            self.of_ended.begin();
            let message = ended_sentence(&first, count);
            tell(events, Severity::Info, EventKind::Unbanned, message);
        }
    }

    /// What rules have banned waits in the table, which keeps the first of it and counts the rest.
    fn report_rules(&mut self, bans: &Bans, events: &Events) {
        if !self.of_rules.is_over() {
            return;
        }
        let news = bans.take_news();
        if let Some(message) = rule_sentence(&news) {
            self.of_rules.begin();
            tell(events, Severity::Info, EventKind::Banned, message);
        }
        if news.full > 0 {
            self.of_rules.begin();
            let (full, max) = (news.full, bans.max());
            let message = format!(
                "the ban table is full: {full} sources are not banned by a rule; raise `bans: \
                 (max: {max})`"
            );
            tell(events, Severity::Warn, EventKind::BansFull, message);
        }
    }

    fn report_refused(&mut self, snapshot: &Snapshot, events: &Events) {
        if !self.of_refused.is_over() {
            return;
        }
        let counts = snapshot.listeners.iter();
        let counts = counts.map(|listener| (listener.name.clone(), listener.gate.banned()));
        let counts: HashMap<_, _> = counts.filter(|(_, count)| *count > 0).collect();
        if let Some(message) = self.refused_sentence(&counts) {
            self.of_refused.begin();
            tell(events, Severity::Info, EventKind::BannedRefused, message);
        }
        self.reported = counts;
    }

    fn refused_sentence(&self, counts: &HashMap<String, u64>) -> Option<String> {
        let new = counts.iter().map(|(name, count)| {
            let before = self.reported.get(name).copied().unwrap_or(0);
            (count.saturating_sub(before), name)
        });
        let new = new.filter(|(count, _)| *count > 0);
        let all: u64 = new.clone().map(|(count, _)| count).sum();
        let others = match new.clone().count() {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let (_, first) = new.max()?;
        let clients = plural(all, "banned client");
        Some(format!("listener `{first}`{others}: {clients} refused"))
    }
}

/// Reports what came of a list of others.
fn report_list(whose: &str, list: &ImportedBans, outcome: ImportOutcome, events: &Events) {
    let ImportOutcome { new, lifted, .. } = outcome;
    if new + lifted == 0 {
        return;
    }
    let networks = plural(list.len() as u64, "network");
    let trusted = match outcome.trusted {
        0 => String::new(),
        some => format!("; {some} of them are `trusted` and not banned"),
    };
    let no_room = match outcome.no_room {
        0 => String::new(),
        some => format!("; the ban table has no room for {some}"),
    };
    let message =
        format!("bans of {whose}: {networks}, {new} new, {lifted} lifted{trusted}{no_room}");
    let kind = EventKind::BansImported;
    events.tell_one_of_many(Severity::Info, kind, Subject::default(), message);
}

/// Which lists go on with what an operator has lifted: they are not told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoesOn {
    pub(super) fleet: bool,
    pub(super) peers: bool,
}

/// What rules have banned.
fn rule_sentence(news: &BanNews) -> Option<String> {
    let one = |ban: &RuleBan| {
        let time = humantime::format_duration(between(0, ban.time));
        let RuleBan { prefix, reason, .. } = ban;
        match ban.dry_run {
            true => format!("{prefix} would be banned for {time} (dry run): {reason}"),
            false => format!("{prefix} banned for {time} by a rule: {reason}"),
        }
    };
    let first: Vec<_> = news.first.iter().map(one).collect();
    let more = match news.more {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    (!first.is_empty()).then(|| first.join("; ") + &more)
}

/// What has ended: this ban, of so many.
fn ended_sentence(first: &Ban, count: usize) -> String {
    let first = format!("{} (it was {})", first.prefix, refused(first.hits()));
    match count {
        1 => format!("the ban of {first} has ended"),
        _ => format!("the bans of {first} and {} more have ended", count - 1),
    }
}

/// Until the next report of a kind may come: at once, and then every ten seconds at most.
#[derive(Default)]
struct Pause {
    /// In seconds.
    left: u32,
}

impl Pause {
    /// To be called each second.
    fn is_over(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }

    fn begin(&mut self) {
        self.left = PAUSE_SECONDS;
    }
}

/// From one report to the next.
const PAUSE_SECONDS: u32 = 10;
/// Bans that are removed in a second; look-ups skip the others.
const EXPIRED_AT_ONCE: usize = 10_000;
