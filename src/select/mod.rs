//! Choosing a backend for a session. Each worker has selectors of its own; what is shared between
//! workers stands in [`crate::pool`].

#![forbid(unsafe_code)]

mod maglev;
mod rendezvous;
mod round_robin;

pub use maglev::{Entry, Maglev};
pub use rendezvous::Rendezvous;
pub use round_robin::RoundRobin;

use crate::config::Strategy;
use crate::pool::Pool;

/// A worker's selector for one pool.
#[derive(Debug)]
pub enum Selector {
    /// Weighted round robin, smooth.
    RoundRobin(RoundRobin),
}

/// What is known of the session that a backend is selected for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Backends that this session's earlier attempts failed on, as indices into the pool.
    pub tried: &'a [u16],
}

/// Which worker of how many selects: each starts at another place.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// 0 to `of` - 1.
    pub worker: u32,
    /// The number of workers.
    pub of: u32,
}

impl Selector {
    /// The selector that the pool's strategy asks for.
    #[must_use]
    pub fn new(pool: &Pool, seat: Seat) -> Self {
        match pool.strategy {
            _ => Self::RoundRobin(RoundRobin::new(pool, seat)),
        }
    }

    /// Selects a backend, as an index into the pool. A backend that was tried is selected again
    /// only when no other is left; `None` when the pool has none at all.
    pub fn select(&mut self, request: Request<'_>) -> Option<u16> {
        match self {
            Self::RoundRobin(round_robin) => round_robin.select(request),
        }
    }
}
