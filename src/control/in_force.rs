//! The configuration in force: what is declared, with what is discovered, in the states of the
//! fleet.

use std::sync::Arc;

use crate::config::Config;
use crate::shared::Shared;

use super::declared::Declared;
use super::discovery::{self, Discoveries};
use super::fleet::{self, FleetStates};

/// What is declared, what is discovered, and the configuration that both make.
pub(super) struct InForce {
    pub(super) declared: Arc<Declared>,
    pub(super) discoveries: Discoveries,
    /// What is declared, with what is discovered.
    pub(super) config: Config,
    /// Discovery found something that the configuration in force does not have yet, or the fleet
    /// has other states.
    has_news: bool,
    /// In which the fleet has backends.
    states: Arc<FleetStates>,
}

impl InForce {
    /// A configuration at the start, without what is discovered.
    pub(super) fn new(config: &Config, discoveries: Discoveries) -> Self {
        Self {
            declared: Arc::new(Declared::new(config.clone())),
            discoveries,
            config: config.clone(),
            has_news: true,
            states: Arc::default(),
        }
    }

    /// The fleet has backends in these states.
    pub(super) fn set_states(&mut self, states: Arc<FleetStates>) {
        self.states = states;
        self.has_news = true;
    }

    /// Whether discovery found something that the configuration does not have yet.
    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Takes in all that discovery found.
    pub(super) fn on_discovered(&mut self) {
        self.discoveries.take_rest();
        self.has_news = true;
    }

    /// The configuration of now, with all that is discovered.
    pub(super) fn renewed(&mut self) -> Config {
        let config = self.effective(&Arc::clone(&self.declared));
        self.has_news = false;
        config
    }

    /// A declared configuration, with what is discovered. Pools that are declared as now are those
    /// in force, unless something was discovered or ordered about what is.
    pub(super) fn effective(&mut self, declared: &Declared) -> Config {
        let has_news = self.has_news
            || self.discoveries.leaves_out()
            || !self.declared.has_same_floating(declared);
        let pools = &declared.config().pools;
        let now = self.declared.config().pools.iter().zip(&self.config.pools);
        let now = now.map(Some).chain(std::iter::repeat(None));
        let in_force = pools.iter().zip(now).map(|(pool, now)| {
            let now = now.filter(|(known, _)| !has_news && Shared::is_same(known, pool));
            now.map(|(_, in_force)| in_force)
        });
        let in_force: Vec<_> = in_force.collect();
        let states = Arc::clone(&self.states);
        let combine = |discoveries: &Discoveries| {
            let kept = |place: usize, pool: &str| {
                in_force[place].filter(|_| !discoveries.leaves_out_of(pool))
            };
            let found = |place: usize, pool: &str| match kept(place, pool) {
                Some(_) => None,
                None => discoveries.found(pool),
            };
            let mut config = declared.complete(discovery::merge(declared.config(), found));
            fleet::apply(&states, &mut config);
            for (place, pool) in config.pools.iter_mut().enumerate() {
                match kept(place, &pool.name) {
                    Some(in_force) => *pool = in_force.clone(),
                    None => {
                        discoveries.resolve(pool, Some(&self.config));
                        discoveries.add_known(pool);
                    }
                }
            }
            config
        };
        let mut config = self.discoveries.without_loops(has_news, combine);
        config.share_pools(&self.config);
        self.discoveries.end_known(&config);
        config
    }

    /// A declared configuration with the discovered backends as they were found, and those that
    /// stay while names have no address.
    pub(super) fn with_discovered(&self, declared: &Config) -> Config {
        let mut config = discovery::merge(declared, |_, pool| self.discoveries.found(pool));
        let pools = config.pools.iter_mut();
        pools.for_each(|pool| self.discoveries.add_known(pool));
        config
    }

    /// Whether every pool that discovers and every host name has had an answer, a failure included.
    pub(super) fn has_discovered(&self) -> bool {
        let mut pools = self.config.pools.iter();
        pools.all(|pool| pool.discovery.is_none() || self.discoveries.has_answer(&pool.name))
            && self.discoveries.knows_hosts()
    }
}
