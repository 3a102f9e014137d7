//! Bans of a list, the lines of a file or the keys of a fleet: they come and go with it.

use std::sync::Arc;

use super::{Ban, BannedBy, Bans};
use crate::guard::Trusted;
use crate::prefix::Prefix;
use crate::time::{NEVER, SECOND};

/// The networks that a list bans, in their order.
#[derive(Debug)]
pub struct ImportedBans {
    by: BannedBy,
    all: Box<[ImportedBan]>,
}

/// A network that a list bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedBan {
    /// The network.
    pub prefix: Prefix,
    /// Why, in a sentence; empty: no reason was given.
    pub reason: Arc<str>,
    /// Until when, in ns of the workers' clock; [`NEVER`]: as long as the list has it.
    pub until: u64,
}

/// What is in force of a list, and what changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOutcome {
    /// Networks that were not banned before.
    pub new: u64,
    /// Bans that were lifted, as the list no longer has them.
    pub lifted: u64,
    /// Networks of the list that are not banned, as they are trusted.
    pub trusted: u64,
    /// Networks of the list that are not banned, as the table is full.
    pub no_room: u64,
}

impl Default for ImportedBans {
    fn default() -> Self {
        Self::of(BannedBy::File, Vec::new())
    }
}

impl ImportedBans {
    /// Those of a file, each with the reason. Of equal networks the first counts.
    #[must_use]
    pub fn new(all: Vec<(Prefix, Arc<str>)>) -> Self {
        let all = all.into_iter().map(|(prefix, reason)| ImportedBan {
            prefix,
            reason,
            until: NEVER,
        });
        Self::of(BannedBy::File, all.collect())
    }

    /// Those of a list. Of equal networks the first counts.
    #[must_use]
    pub fn of(by: BannedBy, mut all: Vec<ImportedBan>) -> Self {
        all.sort_by_key(|its| its.prefix);
        all.dedup_by_key(|its| its.prefix);
        Self {
            by,
            all: all.into(),
        }
    }

    /// How many networks it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Its networks.
    pub fn iter(&self) -> impl Iterator<Item = &ImportedBan> {
        self.all.iter()
    }

    /// Whether it has exactly this network.
    #[must_use]
    pub fn contains(&self, prefix: Prefix) -> bool {
        let found = self.all.binary_search_by_key(&prefix, |its| its.prefix);
        found.is_ok()
    }
}

impl Bans {
    /// Bans what a list has, and lifts the bans of it that it no longer has. A ban of another
    /// origin stays as it is; what the list bans too is banned by it once such a ban has ended and
    /// this is called again. Takes long where the list does: it is not for the control thread.
    pub fn import(&self, list: &ImportedBans, trusted: &Trusted, now: u64) -> ImportOutcome {
        let is_trusted = |prefix: Prefix| {
            // Fast path: to look for one that has all of the network takes as long as the list.
            trusted.contains(prefix.ip()) && trusted.around(prefix).is_some()
        };
        let mut outcome = ImportOutcome::default();
        for ban in self.all(now) {
            let is_of_list = ban.by == list.by;
            let stays = list.contains(ban.prefix) && !is_trusted(ban.prefix);
            if is_of_list && !stays && self.lift_by(ban.prefix, list.by) {
                outcome.lifted += 1;
            }
        }
        let since = i64::try_from(now).unwrap_or(i64::MAX);
        for listed in list.iter().filter(|its| its.until > now) {
            if is_trusted(listed.prefix) {
                outcome.trusted += 1;
                continue;
            }
            let is_same = |ban: &Ban| {
                ban.reason == listed.reason && ban.until.abs_diff(listed.until) < SECOND
            };
            let is_known = self
                .exact(listed.prefix, now)
                .is_some_and(|ban| ban.by != list.by || is_same(&ban));
            if is_known {
                continue;
            }
            let reason = Arc::clone(&listed.reason);
            let ban = Ban::new(listed.prefix, list.by, reason, (since, listed.until));
            match self.add(ban, now) {
                Ok((_, before)) => outcome.new += u64::from(before.is_none()),
                Err(_) => outcome.no_room += 1,
            }
        }
        outcome
    }

    /// Lifts the ban of exactly this network, if this is its origin.
    fn lift_by(&self, prefix: Prefix, by: BannedBy) -> bool {
        let mut order = self.order.lock();
        let is_its = order.by_prefix.get(&prefix).is_some_and(|ban| ban.by == by);
        is_its && self.remove(&mut order, prefix).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100 * SECOND;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn file(prefixes: &[&str]) -> ImportedBans {
        let all = prefixes.iter();
        ImportedBans::new(all.map(|text| (prefix(text), "feed".into())).collect())
    }

    fn ban(bans: &Bans, text: &str, by: BannedBy, until: u64) {
        let ban = Ban::new(prefix(text), by, "".into(), (0, until));
        bans.add(ban, NOW).unwrap();
    }

    /// The networks that are banned, and by whom.
    fn banned(bans: &Bans, now: u64) -> String {
        let all = bans.all(now);
        let all = all
            .iter()
            .map(|ban| format!("{} {}", ban.prefix, ban.by.as_str()));
        all.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn bans_come_and_go_with_the_lines_of_the_file() {
        let (bans, trusted) = (Bans::new(100), Trusted::default());
        let import = |lines: &[&str], now| bans.import(&file(lines), &trusted, now);
        let outcome = import(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], NOW);
        assert_eq!((outcome.new, outcome.lifted), (2, 0));
        bans.count_hit([10, 0, 0, 2].into(), NOW);
        let added = bans.added();
        let outcome = import(&["10.0.0.2", "2001:db8::/48"], NOW + SECOND);
        assert_eq!((outcome.new, outcome.lifted), (1, 1));
        assert_eq!(banned(&bans, NOW), "10.0.0.2 file, 2001:db8::/48 file");
        // What stays is the same ban: sessions are looked at for the other one alone.
        assert_eq!(bans.added(), added + 1);
        let kept = bans.exact(prefix("10.0.0.2"), NOW).unwrap();
        assert_eq!((kept.hits(), kept.since), (1, i64::try_from(NOW).unwrap()));
        assert_eq!(&*kept.reason, "feed");
        assert_eq!(import(&[], NOW).lifted, 2);
        assert!(bans.is_empty());
    }

    #[test]
    fn bans_by_hand_and_by_rules_stay_and_the_file_follows_them() {
        let (bans, trusted) = (Bans::new(100), Trusted::default());
        let (lines, until) = (file(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), NOW + SECOND);
        ban(&bans, "10.0.0.1", BannedBy::Hand, until);
        ban(&bans, "10.0.0.2", BannedBy::Rule, until);
        bans.import(&lines, &trusted, NOW);
        ban(&bans, "10.0.0.3", BannedBy::Rule, until);
        let before = "10.0.0.1 hand, 10.0.0.2 rule, 10.0.0.3 file";
        assert_eq!(banned(&bans, NOW), before);
        assert_eq!(bans.expire(until, 9).len(), 2);
        let outcome = bans.import(&lines, &trusted, until);
        assert_eq!(outcome.new, 2);
        let after = "10.0.0.1 file, 10.0.0.2 file, 10.0.0.3 file";
        assert_eq!(banned(&bans, until), after);
        ban(&bans, "10.0.0.3", BannedBy::Hand, NEVER);
        bans.import(&ImportedBans::default(), &trusted, until);
        assert_eq!(banned(&bans, until), "10.0.0.3 hand");
    }

    #[test]
    fn trusted_networks_are_not_banned_by_a_file() {
        let bans = Bans::new(100);
        let lines = file(&["10.1.0.0/24", "10.0.0.0/8", "10.0.0.0/15"]);
        bans.import(&lines, &Trusted::default(), NOW);
        let trusted = Trusted::new(&[prefix("10.1.0.0/16")]);
        let outcome = bans.import(&lines, &trusted, NOW);
        assert_eq!((outcome.trusted, outcome.lifted, outcome.new), (1, 1, 0));
        assert_eq!(banned(&bans, NOW), "10.0.0.0/8 file, 10.0.0.0/15 file");
    }

    #[test]
    fn bans_of_a_fleet_have_their_ends_and_leave_those_of_a_file() {
        let (bans, trusted) = (Bans::new(100), Trusted::new(&[prefix("10.9.0.0/16")]));
        bans.import(&file(&["10.0.0.1"]), &trusted, NOW);
        let fleet = |all: &[(&str, u64)]| {
            let all = all.iter().map(|(text, until)| ImportedBan {
                prefix: prefix(text),
                reason: "".into(),
                until: *until,
            });
            ImportedBans::of(BannedBy::Fleet, all.collect())
        };
        let (soon, late) = (NOW + SECOND, NOW + 9 * SECOND);
        let list = fleet(&[
            ("10.0.0.1", late),
            ("10.0.0.2", soon),
            ("10.9.0.1", late),
            ("::1", 9),
        ]);
        let outcome = bans.import(&list, &trusted, NOW);
        assert_eq!((outcome.new, outcome.trusted), (1, 1));
        assert_eq!(banned(&bans, NOW), "10.0.0.1 file, 10.0.0.2 fleet");
        // A little later it is the same ban: sessions are not looked at again.
        let added = bans.added();
        bans.import(&fleet(&[("10.0.0.2", soon + 1)]), &trusted, NOW);
        assert_eq!(bans.added(), added);
        bans.import(&fleet(&[("10.0.0.2", late)]), &trusted, NOW);
        assert_eq!(banned(&bans, soon + 1), "10.0.0.1 file, 10.0.0.2 fleet");
        assert_eq!(banned(&bans, late), "10.0.0.1 file");
        assert_eq!(bans.import(&fleet(&[]), &trusted, NOW).lifted, 1);
    }

    #[test]
    fn a_file_leaves_room_for_rules_and_operators() {
        let (bans, trusted) = (Bans::new(16), Trusted::default());
        let lines: Vec<_> = (0..20).map(|n| format!("10.0.0.{n}")).collect();
        let lines = file(&lines.iter().map(|line| &**line).collect::<Vec<_>>());
        let outcome = bans.import(&lines, &trusted, NOW);
        assert_eq!((outcome.new, outcome.no_room), (14, 6));
        ban(&bans, "10.0.1.1", BannedBy::Rule, NEVER);
        ban(&bans, "10.0.1.2", BannedBy::Hand, NEVER);
        assert_eq!(bans.len(), 16);
        bans.set_max(100);
        assert_eq!(bans.import(&lines, &trusted, NOW).new, 6);
    }
}
