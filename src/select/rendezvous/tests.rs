//! Tests of rendezvous hashing: order, shares, disruption, and values that must never change.

use super::*;

fn candidates(weights: impl IntoIterator<Item = u32>) -> Vec<(String, u32)> {
    (0..)
        .zip(weights)
        .map(|(number, weight)| (format!("c{number}"), weight))
        .collect()
}

fn rendezvous(candidates: &[(String, u32)]) -> Rendezvous {
    let candidates = candidates.iter();
    Rendezvous::new(candidates.map(|(name, weight)| (name.as_str(), *weight)))
}

fn best(rendezvous: &Rendezvous, key: u64, count: usize) -> Vec<u16> {
    let mut into = vec![u16::MAX; count];
    let found = rendezvous.best(key, &mut into);
    into.truncate(found);
    into
}

fn best_names(candidates: &[(String, u32)], key: u64, count: usize) -> Vec<&str> {
    let best = best(&rendezvous(candidates), key, count).into_iter();
    best.map(|index| candidates[usize::from(index)].0.as_str())
        .collect()
}

fn keys(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| hash::of(&number.to_le_bytes()))
}

#[test]
fn fills_what_there_is() {
    let three = rendezvous(&candidates([1, 0, 1, 1]));
    assert_eq!(three.best(1, &mut []), 0);
    assert_eq!(rendezvous(&[]).best(1, &mut [0; 2]), 0);
    let mut all = best(&three, 1, 9);
    all.sort_unstable();
    assert_eq!(all, [0, 2, 3], "a backend of weight 0 is never chosen");
    let many = rendezvous(&candidates(vec![1; 70_000]));
    assert_eq!(best(&many, 1, 70_000).len(), Rendezvous::BEST_MAX);
}

/// The threshold and the insertion change nothing: the result is that of sorting all.
#[test]
fn is_what_sorting_all_would_give() {
    let mut random = fastrand::Rng::with_seed(1);
    for number in [1, 2, 10, 100, 2_000] {
        for weight_max in [1, 3, 1_000_000] {
            let weights = (0..number).map(|_| random.u32(1..=weight_max));
            let rendezvous = rendezvous(&candidates(weights));
            for key in keys(10) {
                let mut sorted = rendezvous.candidates.clone();
                let score = |c: &Candidate| rendezvous.score(c.random(key), c);
                sorted.sort_by(|a, b| score(a).total_cmp(&score(b)));
                let sorted: Vec<_> = sorted.iter().map(|candidate| candidate.index).collect();
                for count in [1, 2, 16, 17, Rendezvous::BEST_MAX] {
                    let count = count.min(sorted.len());
                    assert_eq!(best(&rendezvous, key, count), sorted[..count]);
                }
            }
        }
    }
}

#[test]
fn the_order_of_the_configuration_does_not_matter() {
    let mut random = fastrand::Rng::with_seed(2);
    for weights in [vec![1; 50], (1..=50).collect()] {
        let mut candidates = candidates(weights);
        for key in keys(100) {
            let before: Vec<_> = best_names(&candidates, key, 5)
                .into_iter()
                .map(String::from)
                .collect();
            random.shuffle(&mut candidates);
            assert_eq!(best_names(&candidates, key, 5), before);
        }
    }
}

/// A key of the removed backend keeps its other choices in their order and gets one more; other
/// keys keep all. This holds also when the remaining weights are equal, and the order no longer
/// comes from logarithms.
#[test]
fn removing_one_touches_only_keys_that_had_it() {
    for heavy in [1, 2, 100] {
        let all = candidates([heavy].into_iter().chain([1; 29]));
        for removed in [0, 1, 29] {
            let mut left = all.clone();
            let (gone, _) = left.remove(removed);
            for key in keys(500) {
                let before = best_names(&all, key, 4);
                let after = best_names(&left, key, 4);
                let kept: Vec<_> = before.into_iter().filter(|&name| name != gone).collect();
                assert_eq!(after[..kept.len()], kept);
            }
        }
    }
}

#[test]
fn weights_are_shares() {
    const KEYS: u32 = 200_000;
    for weights in [vec![1, 1, 1, 1], vec![1, 2, 3, 4], vec![1, 10, 100]] {
        let sum: u32 = weights.iter().sum();
        let rendezvous = rendezvous(&candidates(weights.clone()));
        let mut counts = vec![0u32; weights.len()];
        for key in keys(u64::from(KEYS)) {
            counts[usize::from(best(&rendezvous, key, 1)[0])] += 1;
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            let share = f64::from(weight) / f64::from(sum);
            let expected = f64::from(KEYS) * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() < 4.0 * deviation);
        }
    }
}

/// With the platform's logarithm as the oracle.
#[test]
fn the_logarithm_is_one() {
    let small = |digits| 1u64 << (53 - digits);
    let ends = (1..=53).flat_map(|digits| [small(digits), (1 << 53) - small(digits)]);
    let mut random = fastrand::Rng::with_seed(3);
    for number in ends.chain((0..10_000).map(|_| random.u64(1..1 << 53))) {
        let number = number as f64 / (1u64 << 53) as f64;
        let (ours, theirs) = (exponential(number), -(-number).ln_1p());
        assert!((ours - theirs).abs() <= theirs * 1e-15, "{number:e}");
        assert!(ours * ROUNDING > number);
    }
    assert_eq!(exponential(0.0).to_bits(), 0.0f64.to_bits());
}

/// Other versions of this program, and others of the fleet, must choose the same.
#[test]
fn choices_are_the_same_for_ever() {
    let even = rendezvous(&candidates([1; 10]));
    let weighted = rendezvous(&candidates([1, 2, 3, 5, 8, 13, 21, 34, 55, 89]));
    let key = hash::of(b"192.0.2.1");
    assert_eq!(best(&even, key, 4), [5, 8, 1, 3]);
    assert_eq!(best(&weighted, key, 4), [5, 8, 9, 6]);
    let all = [even, weighted].map(|rendezvous| {
        let choices = keys(1_000).flat_map(|key| best(&rendezvous, key, 3));
        let bytes: Vec<_> = choices.flat_map(u16::to_le_bytes).collect();
        hash::of(&bytes)
    });
    assert_eq!(all, [0x1a3f_47de_72f2_4cb1, 0x473e_96ea_5192_ece7]);
}
