//! The backends of a pool and what all workers count about them.

#![forbid(unsafe_code)]

mod sticky;

pub use sticky::StickyTable;

use std::sync::Arc;

use crate::address::Address;
use crate::config::{self, Strategy};
use crate::guard::Limit;

/// A set of backends.
#[derive(Debug)]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// How a backend is selected.
    pub strategy: Strategy,
    /// In the order of the configuration.
    pub backends: Vec<Arc<Backend>>,
}

/// One address of a pool.
#[derive(Debug)]
pub struct Backend {
    /// Unique within its pool.
    pub name: String,
    /// Where it is connected to.
    pub address: Address,
    /// Its share, 0 to 256.
    pub weight: u16,
    /// Connections of all workers, being made or established: exact.
    pub connections: Limit,
}

impl Pool {
    /// A pool nobody is connected to.
    #[must_use]
    pub fn new(config: &config::Pool) -> Self {
        let backends = config
            .backends
            .iter()
            .map(|backend| Arc::new(Backend::new(backend)));
        Self {
            name: config.name.clone(),
            strategy: config.strategy.clone(),
            backends: backends.collect(),
        }
    }
}

impl Backend {
    fn new(config: &config::Backend) -> Self {
        Self {
            name: config.name.clone(),
            address: config.address.clone(),
            weight: config.weight,
            connections: Limit::unbounded(),
        }
    }
}
