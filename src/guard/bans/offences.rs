//! Bans by rules: a source that breaks rules too often is banned, for longer each time.
//!
//! Workers count offences, and ban. All share one table, so that a source is banned once, by the
//! offence that is one too many.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Ban, BannedBy, Bans};
use crate::lru::Lru;
use crate::prefix::Prefix;
use crate::time::between;

/// When the sources of a listener are banned. Times are in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanRule {
    /// So many offences are one too many.
    pub after: u32,
    /// They count together if they come within this time of the first.
    pub within: u64,
    /// How long the first ban lasts. Each further one lasts twice as long as the one before.
    pub time: u64,
    /// No ban lasts longer. Sources whose last ban ended this long ago begin again.
    pub up_to: u64,
    /// How many bits of an IPv4 address make a source.
    pub prefix_v4: u8,
    /// How many bits of an IPv6 address make a source.
    pub prefix_v6: u8,
    /// Whether bans are only counted and reported.
    pub dry_run: bool,
}

/// Bans by rules since the last look.
#[derive(Debug, Default)]
pub struct BanNews {
    /// The first of them.
    pub first: Vec<RuleBan>,
    /// How many more there are.
    pub more: u64,
    /// Sources that were not banned, as the table was full.
    pub full: u64,
}

/// A source that a rule banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleBan {
    /// The source.
    pub prefix: Prefix,
    /// What it did.
    pub reason: Arc<str>,
    /// For how long, in ns.
    pub time: u64,
    /// Whether it was not banned, as the rule is in a dry run.
    pub dry_run: bool,
}

/// The offences of sources.
#[derive(Debug)]
pub(super) struct Offences {
    table: Lru<Prefix, Record>,
    news: Mutex<BanNews>,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    /// When the first of the offences came that count together.
    began: u64,
    count: u32,
    /// Until when it is banned, or would be without a dry run. Offences until then are those of
    /// connections from before, and don't count.
    banned_until: u64,
    /// How often it was banned.
    times: u32,
}

impl Default for Offences {
    fn default() -> Self {
        Self {
            table: Lru::new(Lru::<Prefix, Record>::entries_in(BYTES)),
            news: Mutex::default(),
        }
    }
}

impl Record {
    /// Counts an offence. Answers with the time of a ban if it is one too many.
    fn offend(&mut self, rule: &BanRule, now: u64) -> Option<u64> {
        if now < self.banned_until {
            return None;
        }
        if self.count == 0 || now.saturating_sub(self.began) > rule.within {
            (self.began, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count < rule.after {
            return None;
        }
        self.count = 0;
        let longest = rule.up_to.max(rule.time);
        if now >= self.banned_until.saturating_add(longest) {
            self.times = 0;
        }
        let factor = 1u64.checked_shl(self.times).unwrap_or(u64::MAX);
        let time = rule.time.saturating_mul(factor).min(longest);
        self.times = self.times.saturating_add(1);
        self.banned_until = now.saturating_add(time);
        Some(time)
    }
}

/// An offence is one too many.
struct Verdict {
    /// How long the source is banned.
    time: u64,
    /// The how many-th ban of the source it is.
    times: u32,
    /// What was known before.
    before: Record,
}

impl BanRule {
    fn source(&self, ip: IpAddr) -> Option<Prefix> {
        let ip = ip.to_canonical();
        let length = match ip {
            IpAddr::V4(_) => self.prefix_v4,
            IpAddr::V6(_) => self.prefix_v6,
        };
        Prefix::new(ip, length)
    }
}

impl Bans {
    /// Counts an offence of a client, `what` it broke by name, and bans its source if it is one too
    /// many. Answers whether it is: the control thread then has something to report.
    pub fn offend(&self, ip: IpAddr, rule: &BanRule, what: &'static str, now: u64) -> bool {
        let Some(prefix) = rule.source(ip) else {
            return false;
        };
        if !rule.dry_run && self.is_banned(ip, now) {
            // By an operator, or by a wider prefix.
            return false;
        }
        let Some(Verdict {
            time,
            times: nth,
            before,
        }) = self.offences.count(prefix, rule, now)
        else {
            return false;
        };
        let within = humantime::format_duration(between(0, rule.within));
        let reason: Arc<str> = format!("{what}: {} within {within}", times(rule.after)).into();
        let since = i64::try_from(now).unwrap_or(i64::MAX);
        let until = now.saturating_add(time);
        let ban = Ban::new(prefix, BannedBy::Rule, Arc::clone(&reason), (since, until));
        let is_full = !rule.dry_run && self.add(ban.for_the(nth), now).is_err();
        if is_full {
            self.offences.change(prefix, |record| *record = before);
        }
        let mut news = self.offences.news.lock();
        if is_full {
            news.full += 1;
        } else if news.first.len() < NEWS_MAX {
            news.first.push(RuleBan {
                prefix,
                reason,
                time,
                dry_run: rule.dry_run,
            });
        } else {
            news.more += 1;
        }
        true
    }

    /// Takes what rules have banned since the last call.
    #[must_use]
    pub fn take_news(&self) -> BanNews {
        std::mem::take(&mut self.offences.news.lock())
    }
}

impl Offences {
    /// Counts an offence of a source. Answers with its ban if it is one too many. The least recent
    /// offender is forgotten where there is no room.
    fn count(&self, source: Prefix, rule: &BanRule, now: u64) -> Option<Verdict> {
        let (shard, key) = self.table.locate(source);
        let mut shard = shard.lock();
        let known = shard.find(key);
        let index = known.or_else(|| shard.insert(key, Record::default(), |_| false))?;
        shard.touch(index);
        let record = shard.value_mut(index);
        let before = *record;
        let time = record.offend(rule, now)?;
        Some(Verdict {
            time,
            times: record.times,
            before,
        })
    }

    /// The ban of a source was lifted: it begins again.
    pub(super) fn forget(&self, source: Prefix) {
        self.change(source, |record| *record = Record::default());
    }

    /// The ban of a source holds from an earlier run.
    pub(super) fn remember(&self, source: Prefix, times: u32, banned_until: u64) {
        let (shard, key) = self.table.locate(source);
        let mut shard = shard.lock();
        let record = Record {
            times,
            banned_until,
            ..Record::default()
        };
        if shard.find(key).is_none() {
            shard.insert(key, record, |_| false);
        }
    }

    fn change(&self, source: Prefix, change: impl FnOnce(&mut Record)) {
        let (shard, key) = self.table.locate(source);
        let mut shard = shard.lock();
        if let Some(index) = shard.find(key) {
            change(shard.value_mut(index));
        }
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// Bytes for offences: more than a hundred thousand sources.
const BYTES: u64 = 8 << 20;
/// Bans by rules that are reported one by one.
const NEWS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::time::SECOND;

    const RULE: BanRule = BanRule {
        after: 3,
        within: 10 * SECOND,
        time: 60 * SECOND,
        up_to: 200 * SECOND,
        prefix_v4: 32,
        prefix_v6: 64,
        dry_run: false,
    };

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// How long the ban of an address still lasts, in s.
    fn left(bans: &Bans, ip: IpAddr, now: u64) -> Option<u64> {
        bans.find(ip, now).map(|ban| (ban.until - now) / SECOND)
    }

    #[test]
    fn offences_within_the_time_ban_a_source_and_no_other() {
        let bans = Bans::new(100);
        let offend = |last, at: u64| bans.offend(ip(last), &RULE, "source_rate", at * SECOND);
        assert!(!offend(1, 1) && !offend(1, 2) && !offend(2, 2));
        // Too late for the first two.
        assert!(!offend(1, 12) && !offend(1, 13));
        assert!(offend(1, 14));
        assert_eq!(left(&bans, ip(1), 14 * SECOND), Some(60));
        assert_eq!(left(&bans, ip(2), 14 * SECOND), None);
        let news = bans.take_news();
        assert_eq!(&*news.first[0].reason, "source_rate: 3 times within 10s");
        assert_eq!((news.first.len(), news.more, news.full), (1, 0, 0));
        assert!(bans.take_news().first.is_empty());
    }

    #[test]
    fn each_ban_lasts_twice_as_long_up_to_the_cap_until_it_is_forgotten() {
        let bans = Bans::new(100);
        let mut now = SECOND;
        let mut lasts = || {
            while !bans.offend(ip(1), &RULE, "access_denied", now) {}
            let left = left(&bans, ip(1), now).unwrap();
            now += left * SECOND;
            left
        };
        assert_eq!([lasts(), lasts(), lasts(), lasts()], [60, 120, 200, 200]);
        now += RULE.up_to;
        while !bans.offend(ip(1), &RULE, "access_denied", now) {}
        assert_eq!(left(&bans, ip(1), now), Some(60));
    }

    #[test]
    fn an_ipv6_source_is_a_network() {
        let bans = Bans::new(100);
        for host in 1..=3u16 {
            let ip = [0x2001, 0xdb8, 0, 7, 0, 0, 0, host].into();
            bans.offend(ip, &RULE, "source_rate", SECOND);
        }
        let banned = bans.all(SECOND);
        assert_eq!(banned[0].prefix.to_string(), "2001:db8:0:7::/64");
    }

    #[test]
    fn a_dry_run_reports_and_bans_no_one() {
        let bans = Bans::new(100);
        let rule = BanRule {
            dry_run: true,
            ..RULE
        };
        for _ in 0..3 {
            bans.offend(ip(1), &rule, "source_rate", SECOND);
        }
        assert!(bans.is_empty() && bans.take_news().first[0].dry_run);
    }

    #[test]
    fn a_full_table_is_reported() {
        let bans = Bans::new(16);
        let rule = BanRule { after: 1, ..RULE };
        for last in 0..20 {
            bans.offend(ip(last), &rule, "source_rate", SECOND);
        }
        let news = bans.take_news();
        assert_eq!((news.first.len(), news.more, news.full), (NEWS_MAX, 10, 5));
    }

    /// However many workers see the offences, each ban is made once.
    #[test]
    fn a_source_is_banned_once_over_threads() {
        let bans = Bans::new(100);
        let banned: usize = thread::scope(|scope| {
            let worker = || {
                (0..300)
                    .filter(|_| bans.offend(ip(1), &RULE, "x", SECOND))
                    .count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        assert_eq!(banned, 1);
        assert_eq!(left(&bans, ip(1), SECOND), Some(60));
    }

    /// As when the deadline for first bytes ends many of its connections.
    #[test]
    fn offences_of_connections_from_before_a_ban_make_it_no_longer() {
        for dry_run in [false, true] {
            let bans = Bans::new(100);
            let rule = BanRule { dry_run, ..RULE };
            let banned = |seconds: u64| {
                let times = 0..100;
                let offend = |_: &u32| bans.offend(ip(1), &rule, "x", seconds * SECOND);
                times.filter(offend).count()
            };
            assert_eq!([banned(1), banned(2), banned(60)], [1, 0, 0]);
            let news = bans.take_news();
            assert_eq!((news.first.len(), news.more), (1, 0));
            assert_eq!(banned(61), 1, "its time is over");
            assert_eq!(bans.take_news().first[0].time, 120 * SECOND);
        }
    }

    #[test]
    fn a_lifted_ban_counts_offences_again() {
        let bans = Bans::new(100);
        let source = Prefix::new(ip(1), 32).unwrap();
        let offend = || bans.offend(ip(1), &RULE, "x", SECOND);
        assert!(!offend() && !offend() && offend() && !offend());
        bans.lift(source);
        assert!(!offend() && !offend() && offend());
        assert_eq!(left(&bans, ip(1), SECOND), Some(60), "it begins again");
        // An operator's ban is not a rule's.
        bans.lift(source);
        let by_hand = Ban::new(source, BannedBy::Hand, "".into(), (0, u64::MAX));
        bans.add(by_hand, SECOND).unwrap();
        drop(bans.take_news());
        assert!((0..9).all(|_| !offend()));
        assert!(bans.take_news().first.is_empty());
    }
}
