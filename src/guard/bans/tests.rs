//! Bans that come, hold, and go.

use super::*;
use crate::time::SECOND;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ban_of(prefix: Prefix, by: BannedBy, until: u64) -> Ban {
    Ban::new(prefix, by, "".into(), (0, until))
}

fn ban(bans: &Bans, text: &str, until: u64) {
    bans.add(ban_of(prefix(text), BannedBy::Hand, until), 0)
        .unwrap();
}

#[test]
fn the_longest_ban_that_holds_counts_the_client() {
    let bans = Bans::new(10);
    assert!(!bans.is_banned(ip("10.1.2.3"), 1));
    ban(&bans, "10.0.0.0/8", NEVER);
    ban(&bans, "10.1.0.0/16", 5 * SECOND);
    ban(&bans, "2001:db8::/32", NEVER);
    for banned in ["10.1.2.3", "::ffff:10.1.2.3", "10.9.9.9", "2001:db8:1::1"] {
        assert!(bans.is_banned(ip(banned), SECOND), "{banned}");
    }
    for free in ["11.0.0.1", "::1", "2001:db9::", "::ffff:11.0.0.1"] {
        assert!(!bans.is_banned(ip(free), SECOND), "{free}");
    }
    bans.count_hit(ip("10.1.2.3"), SECOND);
    // The longer one is over.
    bans.count_hit(ip("10.1.2.3"), 5 * SECOND);
    bans.count_hit(ip("10.1.2.3"), 6 * SECOND);
    let all = bans.all(SECOND);
    let hits: Vec<_> = all.iter().map(|ban| (ban.prefix, ban.hits())).collect();
    let want = [
        (prefix("10.0.0.0/8"), 2),
        (prefix("10.1.0.0/16"), 1),
        (prefix("2001:db8::/32"), 0),
    ];
    assert_eq!((hits, bans.hits()), (want.to_vec(), 3));
    assert_eq!(bans.all(5 * SECOND).len(), 2);
}

#[test]
fn a_ban_is_lifted_by_its_own_network_only() {
    let bans = Bans::new(10);
    ban(&bans, "10.1.0.0/16", NEVER);
    ban(&bans, "0.0.0.0/0", NEVER);
    ban(&bans, "::/0", NEVER);
    assert!(bans.lift(prefix("10.1.0.0/24")).is_none());
    assert!(bans.lift(prefix("0.0.0.0/0")).is_some());
    assert!(bans.lift(prefix("0.0.0.0/0")).is_none());
    assert!(bans.is_banned(ip("10.1.0.1"), 1) && !bans.is_banned(ip("10.2.0.1"), 1));
    assert!(bans.is_banned(ip("::1"), 1));
    assert!(bans.lift(prefix("::/0")).is_some() && bans.lift(prefix("10.1.0.0/16")).is_some());
    assert!(bans.is_empty() && bans.all(1).is_empty());
}

#[test]
fn bans_end_by_themselves() {
    let bans = Bans::new(10);
    ban(&bans, "10.0.0.1", 3 * SECOND);
    ban(&bans, "10.0.0.2", 2 * SECOND);
    ban(&bans, "10.0.0.3", NEVER);
    assert!(bans.is_banned(ip("10.0.0.1"), 3 * SECOND - 1));
    assert!(!bans.is_banned(ip("10.0.0.1"), 3 * SECOND));
    let first = bans.expire(4 * SECOND, 1);
    assert_eq!(first[0].prefix, prefix("10.0.0.2"));
    // A ban of the same network has another end.
    ban(&bans, "10.0.0.1", 9 * SECOND);
    assert!(bans.expire(8 * SECOND, 10).is_empty());
    assert_eq!((bans.expire(9 * SECOND, 10).len(), bans.len()), (1, 1));
}

#[test]
fn a_full_table_takes_no_more_and_rules_leave_room_for_operators() {
    let bans = Bans::new(32);
    let add = |number: u8, by| {
        let network = Prefix::new([10, 0, 0, number].into(), 32).unwrap();
        bans.add(ban_of(network, by, NEVER), 0)
    };
    let by_rule = (0..40).filter(|number| add(*number, BannedBy::Rule).is_ok());
    assert_eq!(by_rule.count(), 30);
    let by_hand = (100..140).filter(|number| add(*number, BannedBy::Hand).is_ok());
    assert_eq!(by_hand.count(), 2);
    assert_eq!(add(200, BannedBy::Hand).unwrap_err(), BansFull(32));
    // One that is there is replaced, and counts on.
    bans.count_hit(ip("10.0.0.3"), 1);
    let (ban, before) = add(3, BannedBy::Hand).unwrap();
    assert_eq!((ban.hits(), before.unwrap().by), (1, BannedBy::Rule));
    // A rule replaces no ban of an operator.
    let (ban, _) = add(3, BannedBy::Rule).unwrap();
    assert_eq!((ban.by, bans.len()), (BannedBy::Hand, 32));
    bans.set_max(33);
    assert!(add(200, BannedBy::Hand).is_ok());
}

/// What a look-up finds is what a search through all of them finds, whatever came and went.
#[test]
fn a_look_up_is_that_of_a_naive_search() {
    let mut rng = fastrand::Rng::with_seed(11);
    for round in 0..100 {
        let bans = Bans::new(1_000);
        let mut model: BTreeMap<Prefix, u64> = BTreeMap::new();
        let address = |rng: &mut fastrand::Rng| -> IpAddr {
            match rng.bool() {
                true => [10, rng.u8(..2), rng.u8(..2) << 7, rng.u8(..4)].into(),
                false => {
                    let few = |rng: &mut fastrand::Rng| u16::from(rng.u8(..2)) << 15;
                    [0x2001, 0, few(rng), few(rng), 0, few(rng), 0, few(rng)].into()
                }
            }
        };
        for now in 0..200 {
            let ip = address(&mut rng);
            let length = rng.u8(..=if ip.is_ipv4() { 32 } else { 128 });
            let network = Prefix::new(ip, length).unwrap();
            match rng.u8(..4) {
                0 => assert_eq!(
                    bans.lift(network).is_some(),
                    model.remove(&network).is_some()
                ),
                1 => {
                    let over = bans.expire(now, 3);
                    assert!(over.iter().all(|ban| ban.until <= now));
                    over.iter()
                        .for_each(|ban| assert!(model.remove(&ban.prefix).is_some()));
                }
                _ => {
                    let until = [NEVER, now + rng.u64(..50)][rng.usize(..2)];
                    bans.add(ban_of(network, BannedBy::Hand, until), now)
                        .unwrap();
                    model.insert(network, until);
                }
            }
            let ip = address(&mut rng);
            let hold = model.iter().filter(|(_, until)| **until > now);
            let around = hold.map(|(its, _)| *its).filter(|its| its.contains(ip));
            let longest = around.max_by_key(Prefix::length);
            let found = bans.find(ip, now).map(|ban| ban.prefix);
            assert_eq!(found, longest, "{ip} at {now} in round {round}");
            assert_eq!(bans.len() as usize, model.len());
        }
        for network in model.into_keys() {
            bans.lift(network);
        }
        assert!(bans.is_empty() && bans.lengths.of(ip("10.0.0.1")).next().is_none());
        assert!(bans.lengths.of(ip("::1")).next().is_none());
    }
}

#[test]
fn a_ban_reports_clients_that_keep_knocking_and_counts_what_the_kernel_drops() {
    let bans = Bans::new(10);
    ban(&bans, "10.0.0.0/8", NEVER);
    ban(&bans, "10.1.0.0/16", 5 * SECOND);
    (0..10).for_each(|_| bans.count_hit(ip("10.1.2.3"), 4 * SECOND));
    assert!(bans.take_knocking().is_empty());
    (0..10).for_each(|_| bans.count_hit(ip("10.1.9.9"), 4 * SECOND));
    assert_eq!(bans.take_knocking(), [prefix("10.1.0.0/16")]);
    assert!(bans.take_knocking().is_empty());
    assert!(bans.holds(prefix("10.1.0.0/16"), 4 * SECOND));
    assert!(!bans.holds(prefix("10.1.0.0/16"), 5 * SECOND));
    assert!(!bans.holds(prefix("10.1.0.0/24"), 4 * SECOND));
    bans.count_dropped(prefix("10.1.0.0/16"), 1_000);
    // It was lifted meanwhile.
    bans.count_dropped(prefix("10.2.0.0/16"), 5);
    assert_eq!(bans.find(ip("10.1.0.1"), 0).unwrap().hits(), 1_020);
    assert_eq!(bans.hits(), 1_025);
}
