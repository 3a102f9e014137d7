//! Whatever the order in which balancers learn of writes, they come to the same.

use fastrand::Rng;

use super::*;
use crate::control::peers::clock::SKEW_MAX;

const NOW: Now = Now {
    monotonic: 1_000 * SECOND,
    wall: 1_700_000_000 * SECOND,
};

fn at(seconds: u64) -> Now {
    Now {
        monotonic: NOW.monotonic + seconds * SECOND,
        wall: NOW.wall + seconds * SECOND,
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A ban by hand that began `ago` seconds before, and ends in a minute.
fn ban(text: &str, now: Now, ago: u64) -> Arc<Ban> {
    let since = signed(now.monotonic - ago * SECOND);
    let until = now.monotonic + 60 * SECOND;
    let time = (since, until);
    Arc::new(Ban::new(prefix(text), BannedBy::Hand, "flood".into(), time))
}

/// A balancer with its table of own bans.
struct Node {
    writes: BanWrites,
    table: Vec<Arc<Ban>>,
    /// How far its clock is ahead, in ns.
    ahead: i64,
}

impl Node {
    fn new(writer: u64, ahead: i64) -> Self {
        Self {
            writes: BanWrites::new(writer),
            table: Vec::new(),
            ahead,
        }
    }

    fn now(&self, now: Now) -> Now {
        Now {
            wall: now.wall.saturating_add_signed(self.ahead),
            ..now
        }
    }

    fn ban(&mut self, text: &str, now: Now) {
        self.table.retain(|ban| ban.prefix != prefix(text));
        self.table.push(ban(text, now, 0));
    }

    fn unban(&mut self, text: &str, now: Now) {
        self.table.retain(|ban| ban.prefix != prefix(text));
        let now = self.now(now);
        self.writes.lift(prefix(text), now);
    }

    /// Looks at its own bans, and answers with what the others are to learn.
    fn look(&mut self, now: Now) -> Vec<BanEntry> {
        let now = self.now(now);
        self.writes.follow_clock(now);
        self.writes.look(&self.table, now);
        self.follow_lifted();
        self.writes.take_unsent(now.monotonic)
    }

    fn learn(&mut self, entries: &[BanEntry], from: usize, now: Now) {
        let now = self.now(now);
        for entry in entries {
            let _ = self.writes.merge(entry, Source::Peer(from), now);
        }
        self.follow_lifted();
    }

    fn follow_lifted(&mut self) {
        for OwnLifted { prefix, since } in self.writes.take_lifted() {
            self.table
                .retain(|ban| (ban.prefix, ban.since) != (prefix, since));
        }
    }

    /// All networks that it bans, by itself or as others do.
    fn banned(&mut self, now: Now) -> Vec<Prefix> {
        self.writes.is_changed = true;
        let list = self.writes.take_list(now.monotonic).unwrap();
        let own = self.table.iter().filter(|ban| ban.until > now.monotonic);
        let own = own.map(|ban| ban.prefix);
        let mut all: Vec<_> = own.chain(list.iter().map(|its| its.prefix)).collect();
        all.sort();
        all.dedup();
        all
    }

    /// What it has as the last write about each network.
    fn known(&self) -> Vec<(Prefix, Stamp, u64, bool)> {
        let all = self.writes.all.iter();
        all.map(|(prefix, its)| (*prefix, its.stamp, its.writer, its.reason.is_some()))
            .collect()
    }
}

/// All that it knows, of all makers.
fn all_of(node: &Node, now: Now) -> Vec<BanEntry> {
    let known = node.writes.known(true, now.monotonic);
    known.into_values().flatten().collect()
}

#[test]
fn a_ban_reaches_the_others_and_ends_there_too() {
    let (mut a, mut b) = (Node::new(1, 0), Node::new(2, 0));
    a.ban("192.0.2.1", NOW);
    let sent = a.look(NOW);
    assert_eq!((sent.len(), sent[0].left_ms), (1, Some(60_000)));
    b.learn(&sent, 0, at(1));
    assert_eq!(b.banned(at(1)), [prefix("192.0.2.1")]);
    let list = b.writes.take_list(at(1).monotonic);
    assert!(list.is_none(), "nothing has changed");
    // What was learned is told to no one, but for a new member.
    assert_eq!(b.look(at(1)), []);
    assert_eq!(all_of(&b, at(1)).len(), 1);
    assert_eq!(b.banned(at(62)), []);
    b.writes.expire(at(62).monotonic);
    assert!(b.known().is_empty() && b.writes.held[&Source::Peer(0)] == 0);
}

#[test]
fn a_lifted_ban_is_lifted_everywhere_and_stays_so() {
    let (mut a, mut b) = (Node::new(1, 0), Node::new(2, 0));
    a.ban("192.0.2.1", NOW);
    let banned = a.look(NOW);
    b.learn(&banned, 0, NOW);
    b.unban("192.0.2.1", at(1));
    let lifted = b.writes.take_unsent(at(1).monotonic);
    a.learn(&lifted, 0, at(1));
    assert_eq!((a.banned(at(1)), b.banned(at(1))), (vec![], vec![]));
    // An old message comes late.
    b.learn(&banned, 0, at(2));
    assert_eq!(b.banned(at(2)), []);
    // A new ban of the same network counts again.
    a.ban("192.0.2.1", at(3));
    b.learn(&a.look(at(3)), 0, at(3));
    assert_eq!(b.banned(at(3)), [prefix("192.0.2.1")]);
}

#[test]
fn an_operator_who_knew_of_a_write_wins_whatever_the_clocks_say() {
    // The clock of the first is 9 s ahead.
    let ahead = i64::try_from(9 * SECOND).unwrap();
    let (mut a, mut b) = (Node::new(1, ahead), Node::new(2, 0));
    a.ban("192.0.2.1", NOW);
    b.learn(&a.look(NOW), 0, NOW);
    b.unban("192.0.2.1", at(1));
    let lifted = b.writes.take_unsent(at(1).monotonic);
    a.learn(&lifted, 0, at(1));
    assert_eq!(a.banned(at(1)), []);
    // The other way round: lifted by the one that is ahead, and banned again.
    a.ban("192.0.2.2", at(2));
    b.learn(&a.look(at(2)), 0, at(2));
    a.unban("192.0.2.2", at(3));
    b.learn(&a.writes.take_unsent(at(3).monotonic), 0, at(3));
    b.ban("192.0.2.2", at(4));
    a.learn(&b.look(at(4)), 0, at(4));
    let all = [prefix("192.0.2.2")];
    assert_eq!(
        (a.banned(at(4)), b.banned(at(4))),
        (all.to_vec(), all.to_vec())
    );
}

#[test]
fn bans_of_the_last_run_do_not_come_before_what_was_done_since() {
    let (mut a, mut b) = (Node::new(1, 0), Node::new(2, 0));
    a.table.push(ban("192.0.2.1", NOW, 30));
    b.learn(&a.look(NOW), 0, NOW);
    b.unban("192.0.2.1", at(1));
    // It starts again with the bans that it kept.
    let mut again = Node::new(3, 0);
    again.table.push(ban("192.0.2.1", NOW, 30));
    let sent = again.look(at(2));
    again.learn(&all_of(&b, at(2)), 0, at(2));
    b.learn(&sent, 0, at(2));
    assert_eq!((again.banned(at(2)), b.banned(at(2))), (vec![], vec![]));
}

#[test]
fn a_balancer_whose_clock_was_ahead_is_heard_once_that_is_right() {
    let hour = i64::try_from(3_600 * SECOND).unwrap();
    let (mut a, mut b) = (Node::new(1, hour), Node::new(2, 0));
    a.ban("192.0.2.1", NOW);
    a.ban("192.0.2.2", NOW);
    b.learn(&a.look(NOW), 0, NOW);
    assert_eq!(b.banned(NOW), []);
    a.ahead = 0;
    b.learn(&a.look(at(1)), 0, at(1));
    assert_eq!(b.banned(at(1)), a.banned(at(1)));
    assert_eq!(b.banned(at(1)).len(), 2);
    // It hears the others too.
    b.unban("192.0.2.1", at(2));
    a.learn(&b.writes.take_unsent(at(2).monotonic), 0, at(2));
    a.unban("192.0.2.2", at(3));
    b.learn(&a.writes.take_unsent(at(3).monotonic), 0, at(3));
    assert_eq!((a.banned(at(3)), b.banned(at(3))), (vec![], vec![]));
}

#[test]
fn a_fleet_whose_clocks_were_ahead_still_comes_to_the_same() {
    let hour = i64::try_from(3_600 * SECOND).unwrap();
    let (mut a, mut b) = (Node::new(1, hour), Node::new(2, hour));
    a.ban("192.0.2.1", NOW);
    b.learn(&a.look(NOW), 0, NOW);
    // What it learned stays, and its maker is heard about it.
    (a.ahead, b.ahead) = (0, 0);
    b.look(at(1));
    assert_eq!(b.banned(at(1)), [prefix("192.0.2.1")]);
    b.learn(&a.look(at(2)), 0, at(2));
    assert_eq!(b.banned(at(2)), [prefix("192.0.2.1")]);
    assert_eq!(a.known(), b.known());
    a.unban("192.0.2.1", at(3));
    b.learn(&a.writes.take_unsent(at(3).monotonic), 0, at(3));
    assert_eq!(b.banned(at(3)), []);
}

#[test]
fn a_lie_about_the_time_is_refused() {
    let mut node = Node::new(1, 0);
    let mut entry = BanEntry {
        prefix: prefix("192.0.2.1"),
        stamp: Stamp::at(NOW.wall + 2 * SKEW_MAX),
        writer: 9,
        left_ms: None,
        reason: Some("".into()),
    };
    assert_eq!(
        node.writes.merge(&entry, Source::Peer(0), NOW),
        Err(Refusal::Clock)
    );
    entry.stamp = Stamp(u64::MAX);
    assert_eq!(
        node.writes.merge(&entry, Source::Peer(0), NOW),
        Err(Refusal::Clock)
    );
    entry.stamp = Stamp::at(NOW.wall);
    entry.prefix = prefix("0.0.0.0/0");
    assert_eq!(
        node.writes.merge(&entry, Source::Peer(0), NOW),
        Err(Refusal::TooWide)
    );
    assert!(node.known().is_empty());
}

#[test]
fn a_member_that_floods_has_its_own_part_only() {
    let mut node = Node::new(1, 0);
    let entry = |number: u32| BanEntry {
        prefix: Prefix::new(std::net::Ipv4Addr::from_bits(number).into(), 32).unwrap(),
        stamp: Stamp::at(NOW.wall),
        writer: 9,
        left_ms: Some(60_000),
        reason: Some("".into()),
    };
    let most = u32::try_from(PEER_MAX).unwrap();
    for number in 0..most {
        assert_eq!(
            node.writes.merge(&entry(number), Source::Peer(0), NOW),
            Ok(())
        );
    }
    let more = node.writes.merge(&entry(most), Source::Peer(0), NOW);
    assert_eq!(more, Err(Refusal::NoRoom));
    assert_eq!(
        node.writes.merge(&entry(most), Source::Peer(1), NOW),
        Ok(())
    );
    node.writes.expire(at(61).monotonic);
    assert_eq!(
        node.writes.merge(&entry(most), Source::Peer(0), NOW),
        Ok(())
    );
}

#[test]
fn what_a_member_passes_on_costs_its_own_room_for_that() {
    let mut node = Node::new(1, 0);
    let entry = |number: u32| BanEntry {
        prefix: Prefix::new(std::net::Ipv4Addr::from_bits(number).into(), 32).unwrap(),
        stamp: Stamp::at(NOW.wall),
        writer: 9,
        left_ms: Some(60_000),
        reason: Some("".into()),
    };
    let (maker, by) = (1, 0);
    let passed_on = Source::PassedOn { maker, by };
    let most = u32::try_from(PEER_MAX).unwrap();
    for number in 0..most {
        assert_eq!(node.writes.merge(&entry(number), passed_on, NOW), Ok(()));
    }
    let more = node.writes.merge(&entry(most), passed_on, NOW);
    assert_eq!(more, Err(Refusal::NoRoom));
    // Both still have room for what they make, and so has another one that passes on.
    let another = Source::PassedOn { maker, by: 2 };
    for (number, from) in [
        (0, Source::Peer(by)),
        (1, Source::Peer(maker)),
        (2, another),
    ] {
        assert_eq!(node.writes.merge(&entry(most + number), from, NOW), Ok(()));
    }
    // The one who made it says it: it is charged with it from then on, and frees the other's room.
    assert_eq!(
        node.writes.merge(&entry(7), Source::Peer(maker), NOW),
        Ok(())
    );
    assert_eq!(node.writes.held[&Source::Peer(maker)], 2);
    assert_eq!(node.writes.merge(&entry(7), passed_on, NOW), Ok(()));
    assert_eq!(node.writes.merge(&entry(most + 9), passed_on, NOW), Ok(()));
    assert_eq!(node.writes.held[&passed_on], PEER_MAX);
}

#[test]
fn what_members_have_told_is_handed_on_by_their_names() {
    let mut node = Node::new(1, 0);
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
    node.writes.hand_on(1, names(&["a", "b", "c"]));
    for (nth, text) in ["192.0.2.0", "192.0.2.1", "192.0.2.2"].iter().enumerate() {
        let mut maker = Node::new(10 + nth as u64, 0);
        maker.ban(text, NOW);
        node.learn(&maker.look(NOW), nth, NOW);
    }
    // The last one passes on what the second one has made, and the other way round.
    for (number, maker, by) in [(3, 1, 2), (4, 2, 1)] {
        let mut other = Node::new(20 + number, 0);
        other.ban(&format!("192.0.2.{number}"), NOW);
        let source = Source::PassedOn { maker, by };
        let told = &other.look(NOW)[0];
        assert_eq!(node.writes.merge(told, source, NOW), Ok(()));
    }
    node.ban("192.0.2.9", NOW);
    node.unban("192.0.2.2", NOW);
    node.look(NOW);
    node.writes.hand_on(2, names(&["c", "B", "new"]));
    assert!(node.writes.is_of(2) && !node.writes.is_of(1));
    let banned = ["192.0.2.1", "192.0.2.3", "192.0.2.4", "192.0.2.9"].map(prefix);
    assert_eq!(node.banned(NOW), banned);
    let passed_on = Source::PassedOn { maker: 0, by: 1 };
    assert_eq!(node.writes.held[&Source::Peer(1)], 1);
    assert_eq!(node.writes.held[&passed_on], 1);
    // That a ban was lifted is known on.
    let lifted = node.known().into_iter().filter(|its| !its.3);
    assert_eq!(
        lifted.map(|its| its.0).collect::<Vec<_>>(),
        [prefix("192.0.2.2")]
    );
    // Without the second one all that it made or passed on ends.
    node.writes.hand_on(3, names(&["c"]));
    assert_eq!(node.banned(NOW), [prefix("192.0.2.9")]);
    let known = node.writes.known(true, NOW.monotonic);
    assert_eq!(known.keys().collect::<Vec<_>>(), [&None]);
}

#[test]
fn own_bans_beyond_the_limit_are_those_of_rules_that_are_the_oldest() {
    let mut node = Node::new(1, 0);
    let by = |number: usize, by| {
        let ip = std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap());
        let prefix = Prefix::new(ip.into(), 32).unwrap();
        let since = signed(number as u64);
        Arc::new(Ban::new(prefix, by, "".into(), (since, NEVER)))
    };
    node.table.push(by(0, BannedBy::Hand));
    node.table
        .extend((1..=OWN_MAX).map(|number| by(number, BannedBy::Rule)));
    node.table.push(by(OWN_MAX + 1, BannedBy::File));
    let sent = node.look(NOW);
    assert_eq!(sent.len(), OWN_MAX);
    let has = |number| {
        sent.iter()
            .any(|its| its.prefix == by(number, BannedBy::Hand).prefix)
    };
    assert!(has(0) && !has(1) && has(2) && !has(OWN_MAX + 1));
}

/// Messages between balancers that get lost, come late, twice and in any order, until the network
/// heals and each sends all that it knows.
#[test]
fn all_come_to_the_same_after_a_partition() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let skew = i64::try_from(SKEW_MAX / 3).unwrap();
        let mut nodes: Vec<_> = (1..=3)
            .map(|writer| Node::new(writer, rng.i64(-skew..=skew)))
            .collect();
        let mut under_way: Vec<(usize, usize, Vec<BanEntry>)> = Vec::new();
        let names = ["192.0.2.1", "192.0.2.2", "2001:db8::/64", "10.0.0.0/8"];
        for step in 0..40 {
            let (now, from) = (at(step), rng.usize(..3));
            let name = rng.choice(names).unwrap();
            let sent = match rng.u8(..3) {
                0 => {
                    nodes[from].ban(name, now);
                    nodes[from].look(now)
                }
                1 => {
                    nodes[from].unban(name, now);
                    nodes[from].writes.take_unsent(now.monotonic)
                }
                _ => Vec::new(),
            };
            let others = (0..3).filter(|to| *to != from);
            under_way.extend(others.map(|to| (from, to, sent.clone())));
            rng.shuffle(&mut under_way);
            for _ in 0..rng.usize(..=under_way.len()) {
                let (from, to, entries) = match rng.u8(..4) {
                    // It comes, and will again.
                    0 => under_way[under_way.len() - 1].clone(),
                    _ => under_way.pop().unwrap(),
                };
                if rng.u8(..4) > 0 {
                    nodes[to].learn(&entries, from, now);
                }
            }
        }
        let now = at(41);
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                nodes[from].look(now);
                let all = all_of(&nodes[from], now);
                nodes[to].learn(&all, from, now);
            }
        }
        let known: Vec<_> = nodes.iter().map(Node::known).collect();
        assert_eq!(known[0], known[1], "seed {seed}");
        assert_eq!(known[1], known[2], "seed {seed}");
        let banned: Vec<_> = nodes.iter_mut().map(|node| node.banned(now)).collect();
        assert_eq!(banned[0], banned[1], "seed {seed}");
        assert_eq!(banned[1], banned[2], "seed {seed}");
    }
}

#[test]
fn many_bans_that_a_member_lifts_are_taken_in_parts() {
    let mut writes = BanWrites::new(1);
    let lifted = OwnLifted {
        prefix: "192.0.2.1".parse().unwrap(),
        since: 1,
    };
    writes.lifted = vec![lifted; LIFTED_AT_ONCE + 1];
    assert_eq!(writes.take_lifted().len(), LIFTED_AT_ONCE);
    assert_eq!(writes.take_lifted(), [lifted]);
}
