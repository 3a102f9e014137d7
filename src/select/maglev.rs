//! The Maglev lookup table: consistent hashing with one array access per selection.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4. Each backend walks all slots in an order that its name alone decides; in turns,
//! each takes the next slot on its walk that is still empty. Weights follow from how many turns a
//! backend gets and when.
//!
//! Invariant: the table is a function of the names and weights alone. Balancers that share nothing
//! but those map a key to the same backend, whatever the order of their configurations.

use std::cmp::Reverse;

use crate::hash;

/// A backend as the table knows it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What lookups answer with: an index into the pool. Plays no part in the table's shape.
    pub backend: u16,
    /// Known to all balancers, unique among the entries.
    pub name: &'a str,
    /// Its share, 0 to 256; with 0 it gets no slot.
    pub weight: u16,
}

/// The table: 65,537 slots, 128 KiB. Never changes: another set of backends is another table.
#[derive(Debug)]
pub struct Maglev {
    /// The backend of each slot. Empty when no entry has a weight.
    slots: Box<[u16]>,
}

impl Maglev {
    /// Slots of a table: a prime, so that every skip walks all of them.
    pub const SLOTS: u32 = 65_537;

    /// The table of these backends.
    ///
    /// Shares are exact by largest remainder: a backend has its exact share of the slots rounded
    /// down or up, the same weights differ by one slot at most. A backend whose share is below one
    /// slot may get none.
    ///
    /// With equal weights, removing one of N backends moves at most 2/N of all slots, its own
    /// included, for N up to 100 (measured: 1.04/N at 10, 1.64/N at 100). Beyond, more of the
    /// slots of others move: 7/N at 1,000. With other weights too, those of others that move are
    /// fewer than 1/N for N up to 100.
    ///
    /// Takes 2 ms for 10 or 100 backends, 3 ms for 10,000. As in coupon collecting, the walks see
    /// SLOTS * ln(SLOTS) slots in all, 730,000: the last empty slots are long to find, but by all
    /// walks together, and no walk sees a slot twice.
    ///
    /// # Panics
    ///
    /// With more than 65,536 entries: each has another `backend`.
    #[must_use]
    pub fn new(entries: &[Candidate<'_>]) -> Self {
        assert!(
            entries.len() <= 1 << RANK_BITS,
            "an entry has an index of its own"
        );
        let mut entries: Vec<_> = entries.iter().filter(|e| e.weight > 0).copied().collect();
        if entries.is_empty() {
            return Self {
                slots: Box::default(),
            };
        }
        entries.sort_unstable_by_key(|entry| (entry.name, entry.backend));
        let mut walks: Vec<_> = entries.iter().map(|entry| Walk::new(entry.name)).collect();
        let mut slots = vec![None; Self::SLOTS as usize];
        for rank in turns(&entries) {
            let slot = walks[rank].find(|&slot| slots[slot].is_none());
            let slot = slot.expect("a walk never ends, and there is a slot for each turn");
            slots[slot] = Some(entries[rank].backend);
        }
        Self {
            slots: slots.into_iter().flatten().collect(),
        }
    }

    /// The backend of this key, a [`hash::of`] what identifies the client. `None` when there are
    /// no backends.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<u16> {
        self.slots.get(slot(key)).copied()
    }

    /// The key's `n`-th alternative, for when the backend of [`Self::get`] can't be used.
    ///
    /// Each is the backend of an independent slot, by weight: the keys of an unusable backend
    /// spread over all others, where the neighbour of a slot would take them alone. The same
    /// backend can come again, and each comes some time.
    #[must_use]
    pub fn probe(&self, key: u64, n: u32) -> Option<u16> {
        // The key's own SplitMix64 sequence.
        let step = (u64::from(n) + 1).wrapping_mul(GOLDEN_GAMMA);
        self.get(hash::mix(key.wrapping_add(step)))
    }
}

/// The order in which a backend wants the slots: the paper's permutation, drawn as it is walked.
#[derive(Clone, Copy, Debug)]
struct Walk {
    next: u32,
    skip: u32,
}

impl Walk {
    fn new(name: &str) -> Self {
        let below = |hash: u64, bound: u32| {
            u32::try_from(hash % u64::from(bound)).expect("the rest is below the bound")
        };
        Self {
            next: below(hash::of(name.as_bytes()), Maglev::SLOTS),
            skip: 1 + below(hash::seeded(name.as_bytes(), SKIP_SEED), Maglev::SLOTS - 1),
        }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.next;
        self.next += self.skip;
        if self.next >= Maglev::SLOTS {
            self.next -= Maglev::SLOTS;
        }
        Some(slot as usize)
    }
}

/// Whose turn it is, slot after slot, as ranks in the order of names.
///
/// The j-th turn of a backend is due at (j + 1/2) / weight. That time does not depend on the other
/// backends, so that those left take the same turns in the same order when one goes: what moves
/// is little more than its slots.
fn turns(entries: &[Candidate<'_>]) -> impl Iterator<Item = usize> + use<> {
    let mut turns = Vec::with_capacity(Maglev::SLOTS as usize);
    for ((rank, entry), quota) in (0u64..).zip(entries).zip(quotas(entries)) {
        turns.extend((0..quota).map(|turn| {
            // Times that differ do so by 1 / 256^2 at least, which these bits tell apart; equal
            // ones go by name.
            let due = ((2 * turn + 1) << TIME_BITS) / u64::from(entry.weight);
            due << RANK_BITS | rank
        }));
    }
    turns.sort_unstable();
    let rank_mask = (1 << RANK_BITS) - 1;
    turns
        .into_iter()
        .map(move |turn| usize::try_from(turn & rank_mask).expect("a rank has 16 bits"))
}

/// How many slots each gets: its share rounded down, and the slots left over one each to those
/// with the largest remainders, the first by name among equals.
fn quotas(entries: &[Candidate<'_>]) -> Vec<u64> {
    let sum: u64 = entries.iter().map(|entry| u64::from(entry.weight)).sum();
    let share = |entry: &Candidate<'_>| u64::from(entry.weight) * u64::from(Maglev::SLOTS);
    let mut quotas: Vec<_> = entries.iter().map(|entry| share(entry) / sum).collect();
    let mut ranks: Vec<_> = (0..entries.len()).collect();
    ranks.sort_by_key(|&rank| Reverse(share(&entries[rank]) % sum));
    let left = u64::from(Maglev::SLOTS) - quotas.iter().sum::<u64>();
    for (_, rank) in (0..left).zip(ranks) {
        quotas[rank] += 1;
    }
    quotas
}

fn slot(hash: u64) -> usize {
    usize::try_from(hash % u64::from(Maglev::SLOTS)).expect("a slot has 17 bits")
}

/// Bits for a backend's rank by name.
const RANK_BITS: u32 = 16;
/// Bits of a turn's time behind the point: twice the time is kept, which has one more before it.
const TIME_BITS: u32 = 17;
/// Of the hash that a walk's skip comes from, apart from the one of its start.
const SKIP_SEED: u64 = 1;
/// The odd step between a SplitMix64 generator's states.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests;
