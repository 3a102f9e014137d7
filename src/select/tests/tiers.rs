//! Backups, and two tiers.

use super::*;

fn groups(names: &[(&str, u32)]) -> Vec<Group> {
    let group = |(name, weight): &(&str, u32)| Group {
        name: (*name).to_owned(),
        weight: *weight,
    };
    names.iter().map(group).collect()
}

/// Six backends, two of each group.
fn grouped() -> Vec<config::Backend> {
    let mut all = backends(&[1; 6]);
    for (backend, group) in all.iter_mut().zip(["a", "a", "b", "b", "c", "c"]) {
        backend.group = Some(group.to_owned());
    }
    all
}

fn tiers(first: FirstTier, then: SecondTier, weights: [u32; 3]) -> Bench {
    let [a, b, c] = weights;
    let strategy = Strategy::TwoTier(TwoTier {
        first,
        then,
        groups: groups(&[("a", a), ("b", b), ("c", c)]),
    });
    Bench::of(strategy, &grouped())
}

fn hash() -> FirstTier {
    FirstTier::default()
}

const SECONDS: [SecondTier; 3] = [
    SecondTier::LeastConnections,
    SecondTier::LeastTime(LeastTime {
        decay: Duration::from_secs(10),
    }),
    SecondTier::PowerOfTwo,
];

fn take_out(bench: &mut Bench, names: &[&str]) {
    bench.change(|backend| {
        if names.contains(&backend.name.as_str()) {
            backend.health = Health::Down;
        }
    });
}

#[test]
fn a_backup_is_selected_only_when_no_other_backend_is_usable() {
    for (name, strategy) in Strategy::all() {
        let mut all = backends(&[1, 1, 1]);
        all[1].backup = true;
        let mut bench = Bench::of(strategy, &all);
        let picks: Vec<_> = (0..200).map(|client| bench.of_key(client)).collect();
        assert!(!picks.contains(&1), "{name}");
        take_out(&mut bench, &["b0", "b2"]);
        assert_eq!(bench.of_key(3), 1, "{name}");
        bench.change(|backend| backend.health = Health::Up);
        assert_ne!(bench.of_key(3), 1, "{name}");
    }
}

#[test]
fn priority_spills_to_the_next_group_when_the_first_is_down_or_full() {
    for then in SECONDS {
        let mut bench = tiers(FirstTier::Priority, then, [1, 1, 1]);
        let picks = |bench: &mut Bench| {
            let mut picks: Vec<_> = (0..50).map(|client| bench.of_key(client)).collect();
            picks.sort_unstable();
            picks.dedup();
            picks
        };
        assert_eq!(picks(&mut bench), [0, 1]);
        take_out(&mut bench, &["b0"]);
        assert_eq!(picks(&mut bench), [1]);
        bench.backend(1).tally.connections.set_max(1);
        bench.open(1, 1);
        assert_eq!(picks(&mut bench), [2, 3]);
        take_out(&mut bench, &["b2", "b3"]);
        assert_eq!(picks(&mut bench), [4, 5]);
    }
}

#[test]
fn groups_take_their_weights() {
    let mut bench = tiers(FirstTier::Weight, SecondTier::LeastConnections, [8, 1, 1]);
    let mut counts = [0_u32; 3];
    for _ in 0..1_000 {
        counts[usize::from(bench.stay() / 2)] += 1;
    }
    assert_eq!(counts, [800, 100, 100]);
    take_out(&mut bench, &["b2", "b3"]);
    assert!(
        (0..100).all(|_| bench.next() / 2 != 1),
        "a group that is down is passed over"
    );
}

#[test]
fn a_round_of_groups_goes_on_over_snapshots() {
    let mut bench = tiers(FirstTier::Weight, SecondTier::LeastConnections, [2, 1, 1]);
    let mut counts = [0_u32; 3];
    // As many snapshots as clients.
    for _ in 0..400 {
        counts[usize::from(bench.next() / 2)] += 1;
        let pool = Arc::new(bench.pool.with(|_| ()));
        let plan = Arc::new(Plan::new(Arc::clone(&pool)));
        bench.selector.follow(plan, ALONE);
        bench.pool = pool;
    }
    assert_eq!(counts, [200, 100, 100]);
}

#[test]
fn the_second_tier_heeds_weights() {
    for then in SECONDS {
        let strategy = Strategy::TwoTier(TwoTier {
            first: FirstTier::Priority,
            then,
            groups: groups(&[("a", 1)]),
        });
        let mut all = backends(&[9, 1]);
        for backend in &mut all {
            backend.group = Some("a".to_owned());
        }
        let mut bench = Bench::of(strategy, &all);
        for index in [0, 1] {
            bench.answers(index, 10 * MS);
        }
        bench.fill(1_000);
        let light = bench.backend(1).tally.connections.used();
        assert!((90..=110).contains(&light), "{then:?}: {light}");
    }
}

#[test]
fn a_hash_keeps_a_client_in_its_group_and_the_group_even() {
    for then in SECONDS {
        let mut bench = tiers(hash(), then, [1, 1, 1]);
        let mut counts = [0_u32; 6];
        for client in 0..3_000 {
            let index = bench.of_key(client);
            assert_eq!(bench.of_key(client) / 2, index / 2);
            bench.open(index, 1);
            counts[usize::from(index)] += 1;
        }
        let [a, b, c] = [0, 2, 4].map(|at| counts[at] + counts[at + 1]);
        assert_shares(&[a, b, c], &[1; 3]);
        for at in [0, 2, 4] {
            assert!(counts[at].abs_diff(counts[at + 1]) < 60, "{counts:?}");
        }
        // One of two is down: no client leaves the group.
        let before: Vec<_> = (0..500).map(|client| bench.of_key(client) / 2).collect();
        take_out(&mut bench, &["b0", "b3"]);
        let after: Vec<_> = (0..500).map(|client| bench.of_key(client) / 2).collect();
        assert_eq!(before, after);
    }
}

fn subsets(size: u16) -> Strategy {
    Strategy::TwoTier(TwoTier {
        first: FirstTier::Hash {
            key: Key::default(),
            subset: std::num::NonZeroU16::new(size).unwrap(),
        },
        ..TwoTier::default()
    })
}

#[test]
fn without_groups_each_client_has_a_subset_of_its_own() {
    let mut bench = Bench::new(subsets(2), &[1; 10]);
    let mut whole = [0_u32; 10];
    for client in 0..500 {
        let mut own = [0_u32; 10];
        (0..40).for_each(|_| own[usize::from(bench.of_key(client))] += 1);
        let backends = own.iter().filter(|count| **count > 0).count();
        assert_eq!(backends, 2, "{own:?}");
        for (all, own) in whole.iter_mut().zip(own) {
            *all += own;
        }
    }
    assert!(
        whole.iter().all(|count| (1_400..2_600).contains(count)),
        "{whole:?}"
    );
}

#[test]
fn a_backend_that_leaves_moves_no_client_out_of_its_subset() {
    let mut bench = Bench::new(subsets(3), &[1; 10]);
    let subset = |bench: &mut Bench, client| {
        let mut own: Vec<_> = (0..60).map(|_| bench.of_key(client)).collect();
        own.sort_unstable();
        own.dedup();
        own
    };
    let before: Vec<_> = (0..300).map(|client| subset(&mut bench, client)).collect();
    take_out(&mut bench, &["b7"]);
    for (client, before) in (0..).zip(&before) {
        let after = subset(&mut bench, client);
        assert!(
            after.iter().all(|index| before.contains(index)),
            "{before:?} {after:?}"
        );
    }
    // All backends of a subset are full: the next one in the key's order is used, the same each
    // time.
    let own = before[0].clone();
    for index in own {
        bench.backend(index).tally.connections.set_max(0);
    }
    let next = subset(&mut bench, 0);
    assert!(next.len() <= 3 && next.iter().all(|index| !before[0].contains(index)));
}
