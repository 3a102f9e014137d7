//! The group or subset that a client belongs to: `two_tier` promises to keep it there.
//!
//! Found by asking the strategy itself, over the same backends all up and idle. It returns the
//! members of a subset one after the other when the earlier ones count as tried.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{FirstTier, Strategy};
use crate::pool::{Health, Pool, Tally};
use crate::select::{Choice, Keys, Plan, Request, Seat, Selector};

/// The backends of each client's own group or subset.
#[derive(Debug)]
pub(super) struct Homes {
    selector: Selector,
    pool: Arc<Pool>,
    /// The size of a subset; `None`: clients belong to groups.
    size: Option<usize>,
    /// The backends of each client, by its key.
    known: HashMap<u64, Vec<u16>>,
}

impl Homes {
    /// For a pool whose strategy is `two_tier` with `first: "hash"`; `None` for other pools.
    pub(super) fn new(pool: &Pool) -> Option<Self> {
        let Strategy::TwoTier(tiers) = &pool.strategy else {
            return None;
        };
        let FirstTier::Hash { subset, .. } = tiers.first else {
            return None;
        };
        let size = usize::from(subset.get());
        let size = tiers.groups.is_empty().then_some(size);
        let mut pool = pool.with(|backend| {
            backend.health = Health::Up;
            backend.tally = Arc::new(Tally::default());
        });
        pool.sticky = None;
        let pool = Arc::new(pool);
        let plan = Arc::new(Plan::new(Arc::clone(&pool)));
        Some(Self {
            selector: Selector::new(
                plan,
                Seat {
                    worker: 0,
                    of: 1,
                    pool: 0,
                    seed: 0,
                },
            ),
            pool,
            size,
            known: HashMap::new(),
        })
    }

    /// Whether a backend is one of a client's own.
    pub(super) fn is_home(&mut self, keys: Keys, index: u16) -> bool {
        let Self {
            selector,
            pool,
            size,
            known,
        } = self;
        let home = known.entry(keys.select).or_insert_with(|| {
            let mut members = Vec::new();
            for _ in 0..size.unwrap_or(1) {
                let request = Request {
                    now: 0,
                    keys,
                    tried: &members,
                };
                match selector.select(&request) {
                    Choice::Backend(member) => members.push(member),
                    Choice::Full | Choice::Unavailable => break,
                }
            }
            members
        });
        let group = |index: u16| &pool.backends[usize::from(index)].group;
        match size {
            Some(_) => home.contains(&index),
            None => home.first().is_some_and(|&own| group(own) == group(index)),
        }
    }
}
