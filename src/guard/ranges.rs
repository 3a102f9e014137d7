//! A sorted map from ranges of numbers to small values, which is built once.
//!
//! It is a tree of blocks, each as large as a cache line: a look-up touches one line for each
//! level, and the upper levels stay in the cache. There are no pointers, and so it is freed at
//! once.

use crate::sys::vec_in_huge_pages;

/// The value of each number. The value of a range holds from its first number to the next range.
#[derive(Debug)]
pub(super) struct Ranges {
    /// The first keys of blocks of the next level, the root first.
    levels: Vec<Box<[Block]>>,
    leaves: Box<[Leaf]>,
}

/// The first keys of eight blocks of the next level.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block([u64; BLOCK]);

/// Where ranges begin, and their values.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Leaf {
    starts: [u64; LEAF],
    values: [u8; LEAF],
}

impl Default for Ranges {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Ranges {
    /// A map of ranges, in the order of their first numbers, each of which is there once. Numbers
    /// before the first range have the value 0.
    pub(super) fn new(ranges: &[(u64, u8)]) -> Self {
        let first = Some(&(0, 0)).filter(|_| ranges.first().is_none_or(|(start, _)| *start > 0));
        let all: Vec<_> = first.into_iter().chain(ranges).copied().collect();
        let leaves = boxed(all.chunks(LEAF).map(Leaf::new));
        let mut levels: Vec<Box<[Block]>> = Vec::new();
        let mut firsts: Vec<u64> = leaves.iter().map(|leaf| leaf.starts[0]).collect();
        while firsts.len() > 1 {
            let blocks = boxed(firsts.chunks(BLOCK).map(Block::new));
            firsts = blocks.iter().map(|block| block.0[0]).collect();
            levels.push(blocks);
        }
        levels.reverse();
        Self { levels, leaves }
    }

    /// The value of a number.
    pub(super) fn get(&self, number: u64) -> u8 {
        let mut at = 0;
        for level in &self.levels {
            let at_most = level.len() - 1;
            at = at.min(at_most) * BLOCK + last_up_to(number, &level[at.min(at_most)].0);
        }
        // Only the greatest number is not below the keys that the last blocks do not use.
        let leaf = &self.leaves[at.min(self.leaves.len() - 1)];
        leaf.values[last_up_to(number, &leaf.starts)]
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.levels.iter().map(|level| size_of_val(&**level)).sum();
        blocks + size_of_val(&*self.leaves)
    }
}

fn boxed<T>(all: impl ExactSizeIterator<Item = T>) -> Box<[T]> {
    let mut boxed = vec_in_huge_pages(all.len());
    boxed.extend(all);
    boxed.into_boxed_slice()
}

/// The index of the last start that is not beyond a number. The first never is. Without branches,
/// as the processor could not predict them.
fn last_up_to<const N: usize>(number: u64, starts: &[u64; N]) -> usize {
    let before = starts[1..].iter();
    before.map(|start| usize::from(*start <= number)).sum()
}

impl Block {
    fn new(firsts: &[u64]) -> Self {
        let mut block = [u64::MAX; BLOCK];
        block[..firsts.len()].copy_from_slice(firsts);
        Self(block)
    }
}

impl Leaf {
    fn new(ranges: &[(u64, u8)]) -> Self {
        let (_, last) = ranges[ranges.len() - 1];
        let mut leaf = Self {
            starts: [u64::MAX; LEAF],
            // Also behind the last start: the greatest number is not below an unused start.
            values: [last; LEAF],
        };
        for (at, (start, value)) in ranges.iter().enumerate() {
            (leaf.starts[at], leaf.values[at]) = (*start, *value);
        }
        leaf
    }
}

/// Keys in a cache line.
const BLOCK: usize = 8;
/// Ranges in a cache line.
const LEAF: usize = 7;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn blocks_are_cache_lines() {
        assert_eq!((size_of::<Block>(), size_of::<Leaf>()), (64, 64));
    }

    #[test]
    fn each_number_has_the_value_of_the_range_that_began_last() {
        let mut rng = fastrand::Rng::with_seed(1);
        for count in [0, 1, 2, 6, 7, 8, 55, 56, 57, 63, 64, 500, 5_000] {
            // Close together, and at both ends.
            let mut model: BTreeMap<u64, u8> = BTreeMap::new();
            for _ in 0..count {
                let start = match rng.u8(..8) {
                    0 => u64::MAX - rng.u64(..3),
                    1 => rng.u64(..3),
                    _ => rng.u64(..10_000),
                };
                model.insert(start, rng.u8(..));
            }
            let ranges: Vec<_> = model
                .iter()
                .map(|(start, value)| (*start, *value))
                .collect();
            let map = Ranges::new(&ranges);
            let near = ranges
                .iter()
                .flat_map(|(start, _)| [start.saturating_sub(1), *start, start.saturating_add(1)]);
            for number in near.chain([0, u64::MAX]) {
                let want = model
                    .range(..=number)
                    .next_back()
                    .map_or(0, |(_, value)| *value);
                assert_eq!(map.get(number), want, "{number} of {count}");
            }
        }
    }
}
