//! Tests of the Maglev table: counts, order, disruption, and vectors that must never change.

use super::*;

/// Backends b0, b1, ... of these weights.
fn backends(weights: impl IntoIterator<Item = u16>) -> Vec<(String, u16)> {
    (0..)
        .zip(weights)
        .map(|(number, weight)| (format!("b{number}"), weight))
        .collect()
}

fn table(backends: &[(String, u16)]) -> Maglev {
    let mut entries = Vec::new();
    for (backend, (name, weight)) in (0..=u16::MAX).zip(backends) {
        let (name, weight) = (name.as_str(), *weight);
        entries.push(Candidate {
            backend,
            name,
            weight,
        });
    }
    Maglev::new(&entries)
}

/// The table in the form that other balancers compare.
fn names<'a>(table: &Maglev, backends: &'a [(String, u16)]) -> Vec<&'a str> {
    let name = |&backend: &u16| backends[usize::from(backend)].0.as_str();
    table.slots.iter().map(name).collect()
}

fn counts(table: &Maglev, backends: usize) -> Vec<u32> {
    let mut counts = vec![0; backends];
    for &backend in &table.slots {
        counts[usize::from(backend)] += 1;
    }
    counts
}

fn moved(before: &[&str], after: &[&str]) -> usize {
    before.iter().zip(after).filter(|(b, a)| b != a).count()
}

#[test]
fn a_table_without_weights_selects_none() {
    for empty in [table(&[]), table(&backends([0, 0]))] {
        assert_eq!((empty.get(1), empty.probe(1, 0)), (None, None));
    }
    let one = table(&backends([0, 3]));
    assert_eq!((one.get(1), one.probe(1, 0)), (Some(1), Some(1)));
}

/// The counts of Envoy's documentation of its Maglev.
#[test]
fn weights_of_one_and_two_give_exact_thirds() {
    assert_eq!(counts(&table(&backends([1, 2])), 2), [21_846, 43_691]);
}

#[test]
fn the_same_weights_differ_by_one_slot() {
    for number in [1, 2, 3, 7, 100, 650, 10_000, 65_535] {
        for weight in [1, 256] {
            let counts = counts(&table(&backends(vec![weight; number])), number);
            let min = counts.iter().min().unwrap();
            assert!(counts.iter().max().unwrap() - min <= 1, "{number}");
            assert_eq!(counts.iter().sum::<u32>(), Maglev::SLOTS);
        }
    }
}

#[test]
fn each_has_its_share_rounded_down_or_up() {
    let mut random = fastrand::Rng::with_seed(1);
    for number in [3, 40, 1_000] {
        let weights: Vec<u16> = (0..number).map(|_| random.u16(0..=256)).collect();
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        let counts = counts(&table(&backends(weights.clone())), number);
        for (count, weight) in counts.iter().zip(weights) {
            let exact = u64::from(weight) * u64::from(Maglev::SLOTS);
            let count = u64::from(*count);
            assert!(count == exact / sum || count == exact.div_ceil(sum));
        }
    }
}

/// 1 of 5,120,001 is less than a slot: the many heavy ones have the larger remainders.
#[test]
fn a_share_below_a_slot_may_be_none() {
    let light = backends([1].into_iter().chain(vec![256; 20_000]));
    assert_eq!(counts(&table(&light), light.len())[0], 0);
}

#[test]
fn the_order_of_the_configuration_does_not_matter() {
    let mut random = fastrand::Rng::with_seed(2);
    for number in [2, 10, 100, 1_000] {
        let mut backends = backends((0..number).map(|number| 1 + number % 5));
        let before = table(&backends);
        let before: Vec<_> = names(&before, &backends)
            .into_iter()
            .map(String::from)
            .collect();
        for _ in 0..3 {
            random.shuffle(&mut backends);
            assert_eq!(names(&table(&backends), &backends), before);
        }
    }
}

/// Of all slots at most 2/N, those of the removed backend included; and then the same table again.
#[test]
fn removing_one_moves_little_and_adding_it_again_restores_all() {
    for number in [2, 3, 10, 50, 100] {
        let all = backends(vec![1; number]);
        let before = table(&all);
        let before = names(&before, &all);
        for removed in [0, number / 2, number - 1] {
            let mut left = all.clone();
            let back = left.remove(removed);
            let moved = moved(&before, &names(&table(&left), &left));
            assert!(moved * number <= 2 * before.len(), "{removed} of {number}");
            left.push(back);
            assert_eq!(names(&table(&left), &left), before);
        }
    }
}

/// The weights give the slots of the removed backend; those of others that move stay below 1/N.
#[test]
fn removing_a_weight_moves_few_slots_of_others() {
    for weights in [[1, 2, 3, 4], [1, 1, 1, 256], [1, 16, 64, 256]] {
        for number in [4, 100] {
            let all = backends((0..number).map(|number| weights[number % 4]));
            let before = table(&all);
            let before = names(&before, &all);
            for removed in 0..4 {
                let mut left = all.clone();
                let (name, _) = left.remove(removed);
                let own = before.iter().filter(|&&slot| slot == name).count();
                let others = moved(&before, &names(&table(&left), &left)) - own;
                assert!(others * number <= before.len(), "{removed} of {number}");
            }
        }
    }
}

#[test]
fn alternatives_spread_over_all_others_by_weight() {
    let backends = backends([1, 2, 3, 4]);
    let table = table(&backends);
    let mut counts = [0; 4];
    for key in (0..100_000u64).map(hash::mix) {
        if table.get(key) == Some(3) {
            let other = (0..).find_map(|n| table.probe(key, n).filter(|&other| other != 3));
            counts[usize::from(other.unwrap())] += 1;
        }
    }
    // Of 40,000 keys a sixth, a third and a half.
    for (count, expected) in counts.iter().zip([6_667, 13_333, 20_000, 0i32]) {
        assert!((count - expected).abs() < 600, "{counts:?}");
    }
}

#[test]
fn alternatives_visit_every_backend() {
    let table = table(&backends(vec![1; 100]));
    for key in (0..20u64).map(hash::mix) {
        let mut seen = [false; 100];
        for n in 0..2_000 {
            seen[usize::from(table.probe(key, n).unwrap())] = true;
        }
        assert_eq!(seen, [true; 100]);
    }
}

/// Other versions of this program, and others of the fleet, must build the same tables.
#[test]
fn tables_are_the_same_for_ever() {
    let weighted = [1, 2, 3, 5, 8, 13, 21, 34, 55, 256];
    let goldens = [
        (backends([1, 1, 1]), GOLDEN_3),
        (backends(weighted), GOLDEN_10),
        (backends(vec![1; 100]), GOLDEN_100),
    ];
    for (backends, (whole, first)) in goldens {
        let table = table(&backends);
        let names = names(&table, &backends);
        assert_eq!(names[..16].join(" "), first);
        assert_eq!(hash::of(names.join(" ").as_bytes()), whole);
    }
    let table = table(&backends(weighted));
    let key = hash::of(b"192.0.2.1");
    let probes = [0, 1, 2, u32::MAX].map(|n| table.probe(key, n).unwrap());
    assert_eq!((table.get(key), probes), (Some(9), [9, 7, 9, 4]));
}

/// The hash of all names in the order of slots, and the first 16.
type Golden = (u64, &'static str);
const GOLDEN_3: Golden = (
    0xb9d4_b1e8_18d6_cd4c,
    "b1 b0 b1 b2 b2 b0 b1 b1 b2 b1 b2 b2 b2 b1 b1 b2",
);
const GOLDEN_10: Golden = (
    0xa2d1_a102_6187_fa7a,
    "b9 b9 b9 b9 b8 b9 b6 b4 b9 b9 b7 b9 b9 b9 b8 b5",
);
const GOLDEN_100: Golden = (
    0xd9aa_1093_09b2_241c,
    "b30 b74 b12 b17 b36 b80 b84 b60 b45 b66 b7 b98 b39 b72 b69 b37",
);
