//! Pools and their backends.

use std::collections::HashMap;

use super::name_or;
use crate::config::judge::{Judge, number, text};
use crate::config::raw::{RawBackend, RawPool};
use crate::config::spans::Node;
use crate::config::{Backend, Pool, values};

impl<'a> Judge<'a> {
    pub(super) fn pools(&mut self, raw: &'a [RawPool], at: &'a Node) -> Vec<Pool> {
        if raw.is_empty() {
            self.mistake(&at.start(), "pools: at least one is wanted".to_owned());
        }
        let mut names = HashMap::new();
        let pools = raw.iter().enumerate();
        pools
            .map(|(i, raw)| {
                let pool = self.pool(raw, at.item(i));
                if !pool.name.is_empty() {
                    let name = ("two pools are called", pool.name.clone());
                    self.unique(&mut names, name, &at.item(i).field("name").span);
                }
                pool
            })
            .collect()
    }

    fn pool(&mut self, raw: &'a RawPool, at: &'a Node) -> Pool {
        let name = self.leaf(&raw.name, at, "name");
        let strategy = self.leaf(&raw.strategy, at, "strategy");
        let name = self
            .require(&name, |leaf| values::name(text(leaf)?))
            .unwrap_or_default();
        let strategy = self.read(&strategy, |leaf| values::strategy(text(leaf)?));
        let at = at.field("backends");
        let mut names = HashMap::new();
        let mut backends = Vec::with_capacity(raw.backends.len());
        for (i, raw) in raw.backends.iter().enumerate() {
            let at = at.item(i);
            let Some(backend) = self.backend(&raw.0, at) else {
                continue;
            };
            let name = ("two backends of the pool are called", backend.name.clone());
            self.unique(&mut names, name, &name_or(at, "address").span);
            backends.push(backend);
        }
        if raw.backends.is_empty() {
            self.mistake(&at.start(), "backends: at least one is wanted".to_owned());
        } else if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
            let sentence = "backends: every weight is 0, so that none is ever selected";
            self.mistake(&at.start(), sentence.to_owned());
        }
        Pool {
            name,
            strategy: strategy.unwrap_or_default(),
            persist: None,
            backends,
        }
    }

    fn backend(&mut self, raw: &'a RawBackend, at: &'a Node) -> Option<Backend> {
        let address = self.leaf(&raw.address, at, "address");
        let name = self.leaf(&raw.name, at, "name");
        let weight = self.leaf(&raw.weight, at, "weight");
        let address = self.require(&address, |leaf| values::backend_address(text(leaf)?));
        let name = self.read(&name, |leaf| values::name(text(leaf)?));
        let weight = self.read(&weight, number(values::WEIGHT));
        let address = address?;
        Some(Backend {
            name: name.unwrap_or_else(|| address.to_string()),
            address,
            weight: weight
                .and_then(|weight| u16::try_from(weight).ok())
                .unwrap_or(1),
            max_connections: None,
            backup: false,
            group: None,
        })
    }
}
