//! Weighted chance in constant time: the alias method (Walker 1974, in the form of Vose, "A linear
//! algorithm for generating random numbers with a given distribution", 1991).

use std::sync::Arc;

use fastrand::Rng;

/// One column per candidate: below its threshold the candidate itself, above it another one.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    columns: Arc<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// 0 to 2^32.
    threshold: u64,
    own: u16,
    other: u16,
}

impl Alias {
    /// A table over candidates with their weights.
    pub(super) fn new(candidates: &[(u16, u16)]) -> Self {
        let count = candidates.len() as u64;
        let sum: u64 = candidates
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum();
        // Weights times the number of columns, so that each column holds exactly `sum`.
        let mut parts: Vec<u64> = candidates
            .iter()
            .map(|(_, weight)| u64::from(*weight) * count)
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..parts.len()).partition(|&column| parts[column] < sum);
        let mut columns: Vec<_> = candidates
            .iter()
            .map(|&(own, _)| Column {
                threshold: SCALE,
                own,
                other: own,
            })
            .collect();
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            columns[poor].threshold = parts[poor] * SCALE / sum.max(1);
            columns[poor].other = candidates[rich].0;
            parts[rich] -= sum - parts[poor];
            if parts[rich] < sum {
                large.pop();
                small.push(rich);
            }
        }
        Self {
            columns: columns.into(),
        }
    }

    /// One of the candidates; `None` when there is none.
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<u16> {
        if self.columns.is_empty() {
            return None;
        }
        let column = self.columns[rng.usize(0..self.columns.len())];
        let own = rng.u64(0..SCALE) < column.threshold;
        Some(if own { column.own } else { column.other })
    }
}

const SCALE: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_by_its_weight() {
        let weights = [1, 2, 3, 256, 17, 1];
        let candidates: Vec<_> = (10u16..).zip(weights).collect();
        let alias = Alias::new(&candidates);
        let mut rng = Rng::with_seed(7);
        let mut counts = [0_u32; 6];
        for _ in 0..280_000 {
            counts[usize::from(alias.draw(&mut rng).unwrap() - 10)] += 1;
        }
        for (count, weight) in counts.into_iter().zip(weights) {
            // 1,000 for each unit of weight, within five standard deviations.
            let expected = 1_000.0 * f64::from(weight);
            assert!(
                (f64::from(count) - expected).abs() < 5.0 * expected.sqrt(),
                "{counts:?}"
            );
        }
    }

    #[test]
    fn an_empty_table_draws_none() {
        assert_eq!(Alias::new(&[]).draw(&mut Rng::with_seed(1)), None);
        assert_eq!(Alias::new(&[(4, 1)]).draw(&mut Rng::with_seed(1)), Some(4));
    }
}
