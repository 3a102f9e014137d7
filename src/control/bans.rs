//! Bans by operators, and reports about the ban table.

mod file;
mod following;
mod import;
mod reports;
mod saver;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;
use tokio::sync::oneshot;

use crate::admin::model::{
    BANS, BanFilter, BanOrder, BanStatus, Banned, BansStatus, EventKind, Lifted, LiftedBans,
    UnbanFilter,
};
use crate::admin::{Author, Reply, UnbanError};
use crate::config::values::written;
use crate::config::{NewBan, Patch};
use crate::guard::{Ban, BannedBy, Bans, ImportedBans};
use crate::prefix::Prefix;
use crate::sys;
use crate::time::{NEVER, between, nanos, seconds};
use crate::wording::plural;

use super::aside;
use super::audit::Entry;
use super::balancer::Balancer;
use super::events::{Events, Severity, Subject};
use super::peers::OwnLifted;
pub use file::rewrite_kept_bans;
pub(super) use file::{KeptBans, mistake_in_kept};
pub use import::read_imported_bans;
pub(super) use import::{BanFileNews, BansRead, KnownBans, read_import};
pub(super) use reports::BanReports;
use reports::GoesOn;

impl Balancer {
    /// Lists bans, on another thread: there may be many.
    pub(super) fn list_bans(&self, filter: BanFilter, reply: Reply<Vec<BanStatus>>) {
        let bans = Arc::clone(&self.publisher.snapshot().bans);
        drop(aside::compute(move || {
            // A caller that has given up by now needs no answer.
            if !reply.is_closed() {
                drop(reply.send(list(&bans, &filter)));
            }
        }));
    }

    /// Bans a client or a network by order of an operator, and records it.
    pub(super) fn ban(&self, new: &Patch<NewBan>, author: Author) -> Result<Banned, String> {
        let outcome = self.make_ban(new.values());
        let target = new.values().prefix.map(|prefix| prefix.to_string());
        self.audit.record(&Entry {
            author,
            action: "ban",
            target: &target.unwrap_or_default(),
            old: None,
            new: Some(new.json()),
            outcome: match &outcome {
                Ok(_) => Ok(self.publisher.version()),
                Err(why) => Err(why.clone()),
            },
        });
        if let Ok(Banned { ban, .. }) = &outcome {
            let lasts = new
                .values()
                .r#for
                .map(|time| format!(" for {}", written(time)));
            let reason = ban.reason.as_ref().map(|reason| format!(": {reason}"));
            let message = format!(
                "{} banned{} {author}{}",
                ban.prefix,
                lasts.unwrap_or_default(),
                reason.unwrap_or_default()
            );
            self.tell(EventKind::Banned, message);
        }
        outcome
    }

    fn make_ban(&self, new: &NewBan) -> Result<Banned, String> {
        let prefix = new.prefix.ok_or("expected a `prefix`")?;
        if let Some(why) = new.too_wide() {
            return Err(why);
        }
        let snapshot = self.publisher.snapshot();
        if let Some(trusted) = snapshot.trusted.around(prefix) {
            return Err(format!(
                "cannot ban {prefix}: {trusted} of `trusted` has it; take that out of the \
                 configuration first"
            ));
        }
        let mut trusted = snapshot.trusted.within(prefix);
        let trusted = trusted.next().map(|first| {
            let more = match trusted.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("clients of {first}{more} still connect: they are `trusted`")
        });
        let now = sys::monotonic();
        let until = new
            .r#for
            .map_or(NEVER, |time| now.saturating_add(nanos(time)));
        let reason = new.reason.as_deref().unwrap_or_default();
        let time = (i64::try_from(now).unwrap_or(i64::MAX), until);
        let ban = Ban::new(prefix, BannedBy::Hand, reason.into(), time);
        let added = snapshot.bans.add(ban, now);
        let (ban, before) = added.map_err(|full| format!("cannot ban {prefix}: {full}"))?;
        let alone = self.fleet.share_ban(&ban);
        // They look for sessions to close.
        self.workers.wake_all();
        Ok(Banned {
            ban: Clocks::now().status(&ban),
            replaced: before.is_some(),
            notes: trusted.into_iter().chain(alone).collect(),
        })
    }

    /// Lifts the ban of a network by order of an operator, and records it.
    pub(super) fn unban(&mut self, prefix: Prefix, author: Author) -> Result<Lifted, UnbanError> {
        let lifted = self.lift(prefix);
        self.audit.record(&Entry {
            author,
            action: "unban",
            target: &prefix.to_string(),
            old: lifted.as_ref().ok().map(|lifted| json!(lifted.ban)),
            new: None,
            outcome: match &lifted {
                Ok(_) => Ok(self.publisher.version()),
                Err(why) => Err(why.to_string()),
            },
        });
        if let Ok(Lifted { ban, notes }) = &lifted {
            let notes = notes.iter().map(|note| format!("; {note}"));
            let notes: String = notes.collect();
            let refused = refused(ban.hits);
            let message = format!("{prefix} unbanned {author}; it was {refused}{notes}");
            self.tell(EventKind::Unbanned, message);
        }
        lifted
    }

    /// Lifts bans by order of an operator, on another thread: there may be many. What is in the
    /// file of imported bans stays banned, and what others of the fleet ban. The keys of own bans
    /// go, so the fleet does not ban them again.
    pub(super) fn unban_those(
        &mut self,
        filter: UnbanFilter,
        author: Author,
        reply: Reply<LiftedBans>,
    ) {
        let bans = Arc::clone(&self.publisher.snapshot().bans);
        let (events, audit) = (self.events.clone(), Rc::clone(&self.audit));
        let version = self.publisher.version();
        let in_file = self.bans.import.status().filter(|its| its.networks > 0);
        let in_file =
            in_file.map(|its| format!("bans of {} stay as long as it has them", its.file));
        let (of_fleet, remove_keys) = (self.bans.list_of_fleet(), self.fleet.key_remover());
        let tell_peers = self.peers.lifted_sharer();
        let new = json!(filter);
        let (done, is_done) = oneshot::channel();
        self.bans.expect_lifted(is_done);
        let lifted = aside::compute(move || lift_those(&bans, &filter, &of_fleet));
        tokio_uring::spawn(async move {
            // Without a thread nothing is lifted.
            let lifted = lifted.await.unwrap_or_default();
            let bans = lifted.bans;
            let are_removed = remove_keys(lifted.keys);
            tell_peers(lifted.all);
            // Without a receiver the balancer is ending.
            let _ = done.send(!are_removed);
            let again = if are_removed { 0 } else { lifted.in_fleet };
            let stay = stay_in_fleet(lifted.of_fleet + again);
            let of_peers = (lifted.of_peers > 0).then(|| {
                let bans = plural(lifted.of_peers, "ban");
                let stay = if lifted.of_peers == 1 {
                    "stays"
                } else {
                    "stay"
                };
                format!("{bans} of peers {stay}: lift each by its network")
            });
            let notes = in_file.into_iter().chain(stay).chain(of_peers).collect();
            audit.record(&Entry {
                author,
                action: "unban",
                target: "bans",
                old: Some(json!({ "bans": bans })),
                new: Some(new),
                outcome: Ok(version),
            });
            if bans > 0 {
                let message = format!("{} lifted {author}", plural(bans, "ban"));
                tell(&events, Severity::Info, EventKind::Unbanned, message);
            }
            drop(reply.send(LiftedBans { bans, notes }));
        });
    }

    fn lift(&mut self, prefix: Prefix) -> Result<Lifted, UnbanError> {
        let bans = &self.publisher.snapshot().bans;
        let of_file = self.bans.import.has(prefix).map(|path| path.display());
        let is_of_file = |ban: Arc<Ban>| ban.by == BannedBy::File;
        if let Some(path) = &of_file
            && bans.exact(prefix, sys::monotonic()).is_some_and(is_of_file)
        {
            return Err(UnbanError::Refused(format!(
                "cannot unban {prefix}: {path} bans it; take it out of that file, or add it to \
                 `trusted`"
            )));
        }
        let of_fleet = self.fleet_key(prefix);
        let is_of_fleet = |ban: Arc<Ban>| ban.by == BannedBy::Fleet;
        let is_sharing = self.fleet.is_sharing();
        if let Some(key) = of_fleet.as_ref().filter(|_| !is_sharing)
            && bans
                .exact(prefix, sys::monotonic())
                .is_some_and(is_of_fleet)
        {
            return Err(UnbanError::Refused(format!(
                "cannot unban {prefix}: the key `{key}` of etcd bans it; delete that, or add it to \
                 `trusted`"
            )));
        }
        let is_of_peer = |ban: Arc<Ban>| ban.by == BannedBy::Peer;
        if !self.peers.is_sharing() && bans.exact(prefix, sys::monotonic()).is_some_and(is_of_peer)
        {
            return Err(UnbanError::Refused(format!(
                "cannot unban {prefix}: a peer bans it, and `share_bans` is off: lift it there, or \
                 add it to `trusted`"
            )));
        }
        let notes = of_file.map(|path| format!("{path} bans it again"));
        let of_fleet = of_fleet.filter(|_| !is_sharing);
        let of_fleet = of_fleet.map(|key| format!("the key `{key}` of etcd bans it again"));
        let notes = notes.into_iter().chain(of_fleet).collect();
        self.syn_filter.lift(prefix, bans, &self.workers);
        let ban = bans.lift(prefix);
        let ban = ban.ok_or_else(|| UnbanError::NotBanned(not_banned(bans, prefix)))?;
        let lifted = Clocks::now().status(&ban);
        let goes_on = GoesOn {
            fleet: !is_sharing,
            peers: !self.peers.is_sharing(),
        };
        if is_sharing {
            // Its key goes, so the fleet does not ban it again.
            self.fleet.share_lifted(prefix);
        }
        self.peers.share_lifted(vec![prefix]);
        self.bans.on_lifted(&[ban], goes_on);
        self.bans.run(self.publisher.snapshot());
        Ok(Lifted { ban: lifted, notes })
    }

    /// A peer has lifted a ban of this balancer.
    pub(super) fn lift_own(&mut self, lifted: OwnLifted) {
        let OwnLifted { prefix, since } = lifted;
        let bans = &self.publisher.snapshot().bans;
        let is_it = |ban: &Arc<Ban>| ban.since == since && !ban.by.is_listed();
        let exact = bans.exact(prefix, sys::monotonic());
        if exact.filter(is_it).is_none() {
            // There is a later one.
            return;
        }
        self.syn_filter.lift(prefix, bans, &self.workers);
        if let Some(ban) = bans.lift(prefix) {
            if self.fleet.is_sharing() {
                self.fleet.share_lifted(prefix);
            }
            let refused = refused(ban.hits());
            self.bans.on_ended(&[ban]);
            let message = format!("{prefix} unbanned by a peer; it was {refused}");
            self.tell(EventKind::Unbanned, message);
        }
    }

    /// Goes on with bans that were kept, and follows the file of imported ones.
    pub(super) fn begin_bans(&mut self, mut kept: KeptBans) {
        let bans = &self.publisher.snapshot().bans;
        let restored = bans.all(sys::monotonic()).into_iter();
        let restored = restored.filter(|ban| !ban.by.is_listed()).count();
        self.bans.import.offer(std::mem::take(&mut kept.imported));
        self.bans.import.follow(&self.in_force.config);
        let file = self.in_force.config.bans.file.as_deref();
        self.bans.begin((file, &kept), restored, &self.events);
    }

    /// The file of imported bans has changed, or has a mistake.
    pub(super) fn on_ban_file(&mut self, news: BanFileNews) {
        let snapshot = self.publisher.snapshot();
        self.bans.import.take(news, snapshot, &self.events);
    }

    /// The ban table as the API shows it.
    pub(super) fn bans_status(&self) -> BansStatus {
        let bans = &self.publisher.snapshot().bans;
        BansStatus {
            count: bans.len(),
            max: bans.max(),
            hits: bans.hits(),
            import: self.bans.import.status(),
        }
    }

    /// Keeps the bans for the next run, at the end of this one.
    pub(super) async fn keep_bans(&mut self) {
        self.bans.end(&self.publisher.snapshot().bans).await;
    }

    /// Has all workers close the sessions of clients that one of them has banned.
    pub(super) fn on_rule_bans(&mut self) {
        let added = self.publisher.snapshot().bans.added();
        if std::mem::replace(&mut self.bans.woken_for, added) != added {
            self.workers.wake_all();
        }
    }

    /// Thousands may come at once, from a list. The audit log has each.
    fn tell(&self, kind: EventKind, message: String) {
        self.events
            .tell_one_of_many(Severity::Info, kind, Subject::default(), message);
    }
}

fn tell(events: &Events, severity: Severity, kind: EventKind, message: String) {
    events.tell(severity, kind, Subject::default(), message);
}

/// Why the ban of a network can't be lifted.
fn not_banned(bans: &Bans, prefix: Prefix) -> String {
    match bans.find(prefix.ip(), sys::monotonic()) {
        Some(around) if around.prefix.covers(prefix) => format!(
            "{prefix} is banned as a part of {0}: lift the ban of {0}",
            around.prefix
        ),
        _ => format!("{prefix} is not banned: `mahoraga bans` shows what is"),
    }
}

/// What came of an order to lift bans.
#[derive(Debug, Default, PartialEq)]
struct Lifting {
    /// How many were lifted.
    bans: u64,
    /// Of these, how many the fleet has.
    in_fleet: u64,
    /// How many stay, as others of the fleet have made them.
    of_fleet: u64,
    /// How many stay, as peers have made them.
    of_peers: u64,
    /// Those that etcd may have keys of.
    keys: Vec<Prefix>,
    /// All that were lifted.
    all: Vec<Prefix>,
}

/// Lifts the bans that match. Those of the file and of the fleet stay.
fn lift_those(bans: &Bans, filter: &UnbanFilter, of_fleet: &ImportedBans) -> Lifting {
    let mut all = bans.all(sys::monotonic());
    all.retain(|ban| {
        filter.within.is_none_or(|wide| wide.covers(ban.prefix))
            && filter.by.is_none_or(|by| by == ban.by)
    });
    let made_by = |by| all.iter().filter(|ban| ban.by == by).count() as u64;
    let (of_fleet_stay, of_peers) = (made_by(BannedBy::Fleet), made_by(BannedBy::Peer));
    let own = all.iter().filter(|ban| !ban.by.is_listed());
    let lifted: Vec<_> = own.filter_map(|ban| bans.lift(ban.prefix)).collect();
    let known = lifted.iter().filter(|ban| of_fleet.contains(ban.prefix));
    let mut keys: Vec<_> = known.map(|ban| ban.prefix).collect();
    let in_fleet = keys.len() as u64;
    // What was banned just now may be on its way there.
    let others = lifted.iter().filter(|ban| !of_fleet.contains(ban.prefix));
    let mut latest: Vec<_> = others.collect();
    latest.sort_by_key(|ban| std::cmp::Reverse(ban.since));
    keys.extend(latest.iter().take(NEW_KEYS).map(|ban| ban.prefix));
    Lifting {
        bans: lifted.len() as u64,
        in_fleet,
        of_fleet: of_fleet_stay,
        of_peers,
        keys,
        all: lifted.iter().map(|ban| ban.prefix).collect(),
    }
}

/// What to say of bans that stay as etcd has them.
fn stay_in_fleet(count: u64) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 ban of the fleet stays as long as etcd has its key".to_owned()),
        _ => Some(format!(
            "{} of the fleet stay as long as etcd has their keys",
            plural(count, "ban")
        )),
    }
}

/// A ban as the API shows it.
pub(super) fn shown(ban: &Ban) -> BanStatus {
    Clocks::now().status(ban)
}

fn refused(hits: u64) -> String {
    match hits {
        1 => "refused once".to_owned(),
        _ => format!("refused {hits} times"),
    }
}

/// The bans that match, in their order.
fn list(bans: &Bans, filter: &BanFilter) -> Vec<BanStatus> {
    let clocks = Clocks::now();
    let mut all = bans.all(clocks.monotonic);
    let is_client = |ban: &Ban, ip: IpAddr| ban.prefix.contains(ip);
    all.retain(|ban| {
        filter.client.is_none_or(|ip| is_client(ban, ip))
            && filter.within.is_none_or(|wide| wide.covers(ban.prefix))
            && filter.by.is_none_or(|by| by == ban.by)
    });
    match filter.sort {
        BanOrder::Prefix => {}
        BanOrder::Since => all.sort_by_key(|ban| std::cmp::Reverse(ban.since)),
        BanOrder::Until => all.sort_by_key(|ban| ban.until),
        BanOrder::Hits => all.sort_by_cached_key(|ban| std::cmp::Reverse(ban.hits())),
    }
    all.truncate(filter.limit.unwrap_or(BANS) as usize);
    all.iter().map(|ban| clocks.status(ban)).collect()
}

/// Both clocks at a moment: bans are kept in the workers' time, and shown in that of people.
#[derive(Clone, Copy)]
struct Clocks {
    monotonic: u64,
    wall: SystemTime,
}

impl Clocks {
    /// When a ban began and when it ends, if it does.
    fn times(self, ban: &Ban) -> [Option<SystemTime>; 2] {
        let now = i64::try_from(self.monotonic).unwrap_or(i64::MAX);
        let age = between(0, u64::try_from(now - ban.since).unwrap_or(0));
        let since = self.wall.checked_sub(age).unwrap_or(self.wall);
        let left = between(self.monotonic, ban.until);
        let until = self.wall.checked_add(left);
        [Some(since), until.filter(|_| ban.until < NEVER)]
    }

    fn now() -> Self {
        Self {
            monotonic: sys::monotonic(),
            wall: SystemTime::now(),
        }
    }

    fn status(&self, ban: &Ban) -> BanStatus {
        let left = ban.until.saturating_sub(self.monotonic);
        let ends = ban.until < NEVER;
        let shown = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
        let [since, until] = self.times(ban).map(|time| time.map(shown));
        BanStatus {
            prefix: ban.prefix,
            by: ban.by,
            reason: Some(&*ban.reason)
                .filter(|why| !why.is_empty())
                .map(str::to_owned),
            since: since.unwrap_or_default(),
            until,
            left_s: ends.then(|| seconds(left)),
            hits: ban.hits(),
        }
    }
}

/// Of lifted bans whose keys are not known yet, the latest so many are deleted: more than wait to
/// be written and read.
const NEW_KEYS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ImportedBan;

    fn prefix(text: &str) -> Prefix {
        crate::config::values::prefix(text).unwrap()
    }

    #[test]
    fn the_keys_of_own_bans_go_and_those_of_others_stay() {
        let bans = Bans::new(100);
        let add = |text, by| {
            let ban = Ban::new(prefix(text), by, "".into(), (0, NEVER));
            bans.add(ban, sys::monotonic()).unwrap();
        };
        add("192.0.2.1", BannedBy::Hand);
        add("192.0.2.2", BannedBy::Hand);
        add("192.0.2.3", BannedBy::Rule);
        add("192.0.2.4", BannedBy::Fleet);
        add("198.51.100.1", BannedBy::Fleet);
        let listed = ["192.0.2.2", "192.0.2.3", "192.0.2.4", "198.51.100.1"];
        let listed = listed.map(|text| ImportedBan {
            prefix: prefix(text),
            reason: "".into(),
            until: NEVER,
        });
        let list = ImportedBans::of(BannedBy::Fleet, listed.to_vec());
        let by_hand = UnbanFilter {
            by: Some(BannedBy::Hand),
            ..UnbanFilter::default()
        };
        let want = Lifting {
            bans: 2,
            in_fleet: 1,
            of_fleet: 0,
            of_peers: 0,
            keys: vec![prefix("192.0.2.2"), prefix("192.0.2.1")],
            all: vec![prefix("192.0.2.1"), prefix("192.0.2.2")],
        };
        assert_eq!(lift_those(&bans, &by_hand, &list), want);
        let within = UnbanFilter {
            within: Some(prefix("192.0.2.0/24")),
            ..UnbanFilter::default()
        };
        let want = Lifting {
            bans: 1,
            in_fleet: 1,
            of_fleet: 1,
            of_peers: 0,
            keys: vec![prefix("192.0.2.3")],
            all: vec![prefix("192.0.2.3")],
        };
        assert_eq!(lift_those(&bans, &within, &list), want);
        let all = UnbanFilter {
            all: true,
            ..UnbanFilter::default()
        };
        let stay = lift_those(&bans, &all, &list);
        assert_eq!((stay.bans, stay.of_fleet), (0, 2));
    }

    #[test]
    fn bans_that_stay_are_counted_in_words() {
        assert_eq!(stay_in_fleet(0), None);
        let one = "1 ban of the fleet stays as long as etcd has its key";
        assert_eq!(stay_in_fleet(1).unwrap(), one);
        let two = "2 bans of the fleet stay as long as etcd has their keys";
        assert_eq!(stay_in_fleet(2).unwrap(), two);
    }
}
