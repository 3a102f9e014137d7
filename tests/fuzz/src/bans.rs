//! The ban table against a list of bans.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mahoraga::guard::{Ban, BannedBy, Bans, BansFull, ImportedBans, Trusted};
use mahoraga::prefix::Prefix;
use mahoraga::time::NEVER;

use super::input::Input;

/// Any order of bans, ends of bans, files of bans and clients.
pub fn bans(bytes: &[u8]) {
    let mut input = Input(bytes);
    let bans = Bans::new(input.byte().into());
    let mut model = Model::default();
    while !input.is_empty() {
        let step = input.byte();
        model.now += u64::from(step >> 4);
        match step & 7 {
            0..3 => {
                let (_, by) = BannedBy::ALL[usize::from(step >> 3) % BannedBy::ALL.len()];
                let (prefix, time) = (input.prefix(), input.byte());
                let until = match time {
                    u8::MAX => NEVER,
                    time => model.now + u64::from(time),
                };
                let ban = Ban::new(prefix, by, "".into(), (0, until));
                let added = bans.add(ban, model.now);
                let added = added.map(|(ban, before)| (ban.until, before.map(|its| its.until)));
                assert_eq!(
                    added,
                    model.add(bans.max(), prefix, (by, until)),
                    "{prefix}"
                );
            }
            3 => {
                let prefix = input.prefix();
                let lifted = bans.lift(prefix).map(|ban| (ban.by, ban.until, ban.hits()));
                assert_eq!(lifted, model.all.remove(&prefix), "{prefix}");
            }
            4 => {
                let at_most = usize::from(input.below(4));
                let ended = bans.expire(model.now, at_most);
                let ended: Vec<_> = ended.iter().map(|ban| ban.prefix).collect();
                assert_eq!(ended, model.expire(at_most));
            }
            5 => bans.set_max(input.byte().into()),
            6 => {
                let lines = (0..input.below(4)).map(|_| input.prefix());
                let lines: Vec<_> = lines.collect();
                let file = lines.iter().map(|prefix| (*prefix, "".into()));
                let file = ImportedBans::new(file.collect());
                let outcome = bans.import(&file, &Trusted::default(), model.now);
                let counts = (outcome.new, outcome.lifted, outcome.no_room);
                assert_eq!(counts, model.import(bans.max(), lines), "{file:?}");
            }
            _ => {
                let ip = input.ip();
                let expected = model.find(ip);
                assert_eq!(bans.is_banned(ip, model.now), expected.is_some(), "{ip}");
                let found = bans.find(ip, model.now).map(|ban| ban.prefix);
                assert_eq!(found, expected, "{ip}");
                bans.count_hit(ip, model.now);
                if let Some(prefix) = expected {
                    model.hit(prefix);
                }
            }
        }
        model.compare(&bans);
    }
}

type Entry = (BannedBy, u64, u64);

#[derive(Default)]
struct Model {
    now: u64,
    hits: u64,
    /// Who banned, until when, and how many it has refused.
    all: BTreeMap<Prefix, Entry>,
}

impl Model {
    /// Until when it is banned, and was before.
    fn add(
        &mut self,
        max: u32,
        prefix: Prefix,
        (by, until): (BannedBy, u64),
    ) -> Result<(u64, Option<u64>), BansFull> {
        let before = self.all.get(&prefix).copied();
        let held = before.filter(|its| its.1 > self.now);
        if let Some((before, until, _)) = held
            && by != before
            && by != BannedBy::Hand
        {
            return Ok((until, Some(until)));
        }
        let count = u32::try_from(self.all.len()).expect("few");
        let max = match by {
            BannedBy::Hand => max,
            BannedBy::Rule => max - max / 16,
            BannedBy::File | BannedBy::Fleet | BannedBy::Peer => max - max / 8,
        };
        if before.is_none() && count >= max {
            return Err(BansFull(count));
        }
        let hits = before.map_or(0, |its| its.2);
        self.all.insert(prefix, (by, until, hits));
        Ok((until, held.map(|its| its.1)))
    }

    /// How many bans are new and lifted, and for how many there is no room.
    fn import(&mut self, max: u32, mut lines: Vec<Prefix>) -> (u64, u64, u64) {
        lines.sort_unstable();
        lines.dedup();
        let (now, before) = (self.now, self.all.len());
        self.all.retain(|prefix, (by, until, _)| {
            *by != BannedBy::File || *until <= now || lines.contains(prefix)
        });
        let lifted = before - self.all.len();
        let (mut new, mut no_room) = (0, 0);
        for prefix in lines {
            // One of the file that ends is banned for as long as the file has it.
            let is_known = |its: &Entry| its.1 > now && (its.0 != BannedBy::File || its.1 == NEVER);
            if self.all.get(&prefix).is_some_and(is_known) {
                continue;
            }
            match self.add(max, prefix, (BannedBy::File, NEVER)) {
                Ok((_, before)) => new += u64::from(before.is_none()),
                Err(_) => no_room += 1,
            }
        }
        (new, lifted as u64, no_room)
    }

    fn expire(&mut self, at_most: usize) -> Vec<Prefix> {
        let over = self.all.iter().filter(|(_, its)| its.1 <= self.now);
        let mut over: Vec<_> = over.map(|(prefix, its)| (its.1, *prefix)).collect();
        over.sort_unstable();
        over.truncate(at_most);
        let over: Vec<_> = over.into_iter().map(|(_, prefix)| prefix).collect();
        self.all.retain(|prefix, _| !over.contains(prefix));
        over
    }

    fn find(&self, ip: IpAddr) -> Option<Prefix> {
        let held = self.all.iter().filter(|(_, its)| its.1 > self.now);
        let held = held.map(|(prefix, _)| *prefix);
        let within = held.filter(|prefix| prefix.contains(ip));
        within.max_by_key(Prefix::length)
    }

    fn hit(&mut self, prefix: Prefix) {
        self.hits += 1;
        self.all.entry(prefix).and_modify(|its| its.2 += 1);
    }

    fn compare(&self, bans: &Bans) {
        assert_eq!(bans.len() as usize, self.all.len());
        assert_eq!(bans.hits(), self.hits);
        let all = bans.all(self.now);
        let all: Vec<_> = all
            .iter()
            .map(|ban| (ban.prefix, (ban.by, ban.until, ban.hits())))
            .collect();
        let held = self.all.iter().filter(|(_, its)| its.1 > self.now);
        let held: Vec<_> = held.map(|(prefix, its)| (*prefix, *its)).collect();
        assert_eq!(all, held);
    }
}
