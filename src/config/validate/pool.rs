//! Pools, their backends and their persistence.

use std::collections::HashMap;

use super::{name_or, stand_in};
use crate::config::judge::{
    Judge, duration, duration_or_off, number, number_or, text, text_or, truth,
};
use crate::config::raw::{RawBackend, RawPersist, RawPool, Scalar, Short};
use crate::config::spans::{Node, Span};
use crate::config::values::{self, ValueError};
use crate::config::{Backend, Persist, Pool, Strategy};
use crate::origin::Origins;

/// A backend, and how it was written.
pub(in crate::config) struct Member<'a> {
    pub(super) backend: Backend,
    pub(super) raw: &'a RawBackend,
    pub(super) at: &'a Node,
}

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
        let name = self
            .require(&name, |leaf| values::name(text(leaf)?))
            .unwrap_or_default();
        let members = self.members(raw, at);
        let strategy_at = at.find("strategy");
        let (strategy, its_persist) = strategy_at
            .map(|at| self.strategy(&raw.strategy.0, at, Some(&members)))
            .unwrap_or_default();
        let persist_at = at.find("persist");
        let persist = persist_at.and_then(|at| self.persist(&raw.persist.0, at));
        if let Some(at) = persist_at.filter(|_| strategy == Strategy::StickyRoundRobin) {
            let error = ValueError::PersistsAlready(strategy.clone());
            self.mistake(&at.span, format!("persist: {error}"));
        }
        let backends = members.into_iter().map(|member| member.backend).collect();
        let pool = Pool {
            strategy,
            persist: its_persist.or(persist),
            ..Pool::of(name, backends)
        };
        self.available(pool, raw, at)
    }

    /// The same with what it does when backends fail, return, or are full, and where more are.
    fn available(&mut self, pool: Pool, raw: &'a RawPool, at: &'a Node) -> Pool {
        let max_connections = self.leaf(&raw.max_connections, at, "max_connections");
        let slow_start = self.leaf(&raw.slow_start, at, "slow_start");
        let (ejection, scaling) = (&raw.ejection.0, &raw.scaling.0);
        let ejection = match at.find("ejection") {
            None => pool.ejection,
            there => self.group_or_off(there, &ejection.bare, "(failures: 5)", |judge, at| {
                judge.ejection(ejection, at)
            }),
        };
        Pool {
            origins: self.origins(raw, at),
            max_connections: self
                .read(&max_connections, number_or("off", values::CONNECTIONS))
                .flatten(),
            queue: self.queue(&raw.queue.0, at.field("queue")),
            check: at.find("check").and_then(|at| self.check(&raw.check.0, at)),
            ejection,
            panic_below: self.panic_below(&raw.panic_below, at),
            all_down: self.all_down(&raw.all_down, at),
            slow_start: self
                .read(&slow_start, duration_or_off(values::SLOW_START))
                .flatten(),
            on_down: self.on_down(&raw.on_down.0, at.field("on_down")),
            discovery: self.group_or_off(
                at.find("discover"),
                &raw.discover.0.bare,
                "(dns: \"NAME\", port: 80)",
                |judge, at| judge.discovery(&raw.discover.0, at),
            ),
            scaling: self.group_or_off(
                at.find("scaling"),
                &scaling.bare,
                "(high: 100)",
                |judge, at| judge.scaling(scaling, at),
            ),
            ..pool
        }
    }

    fn origins(&mut self, raw: &'a RawPool, at: &'a Node) -> Origins {
        let source = at.field("source");
        let addresses = self.items((&raw.source, source), "source", |leaf| {
            values::source_address(text(leaf)?)
        });
        let mut seen = HashMap::new();
        for (i, address) in addresses.iter().enumerate() {
            let twice = ("source: listed twice:", address.to_string());
            self.unique(&mut seen, twice, &source.item(i).span);
        }
        let ports = self.leaf(&raw.source_ports, at, "source_ports");
        Origins {
            addresses,
            ports: self
                .read(&ports, |leaf| values::source_ports(text(leaf)?))
                .flatten(),
        }
    }

    /// The backends, and behind them those of the reserve.
    fn members(&mut self, raw: &'a RawPool, at: &'a Node) -> Vec<Member<'a>> {
        let mut names = HashMap::new();
        let mut members = self.listed((&raw.backends, at.field("backends")), &mut names);
        let at_backends = at.field("backends").start();
        let is_group = |name, bare: &Scalar| at.find(name).is_some() && !bare.is_set();
        let is_discovered = is_group("discover", &raw.discover.0.bare);
        let is_scaled = is_group("scaling", &raw.scaling.0.bare);
        let count = raw.backends.len() + raw.reserve.len();
        if count > BACKENDS_MAX {
            let sentence = format!("backends: {count} are too many: at most {BACKENDS_MAX}");
            self.mistake(&at_backends, sentence);
        }
        // Those that are discovered may be all.
        if members.is_empty() && !is_discovered {
            self.mistake(&at_backends, "backends: at least one is wanted".to_owned());
        } else if !is_discovered && members.iter().all(|member| member.backend.weight == 0) {
            let sentence = "backends: every weight is 0, so that none is ever selected";
            self.mistake(&at_backends, sentence.to_owned());
        }
        let reserve = self.listed((&raw.reserve, at.field("reserve")), &mut names);
        if is_scaled && raw.reserve.is_empty() {
            let sentence = "scaling: there is no `reserve` of backends to grow by";
            self.mistake(&at.field("scaling").start(), sentence.to_owned());
        } else if !is_scaled && !raw.reserve.is_empty() {
            let sentence = "reserve: without `scaling` it is never brought in";
            self.mistake(&at.field("reserve").start(), sentence.to_owned());
        }
        members.extend(reserve.into_iter().map(|mut member| {
            member.backend.reserve = true;
            member
        }));
        members
    }

    fn listed(
        &mut self,
        (raw, at): (&'a [Short<RawBackend>], &'a Node),
        names: &mut HashMap<String, Span>,
    ) -> Vec<Member<'a>> {
        let mut members = Vec::with_capacity(raw.len());
        for (i, Short(raw)) in raw.iter().enumerate() {
            let at = at.item(i);
            let backend = self.backend(raw, at);
            if backend.address != stand_in() {
                let name = ("two backends of the pool are called", backend.name.clone());
                self.unique(names, name, &name_or(at, "address").span);
            }
            members.push(Member { backend, raw, at });
        }
        members
    }

    fn backend(&mut self, raw: &'a RawBackend, at: &'a Node) -> Backend {
        let address = self.leaf(&raw.address, at, "address");
        let name = self.leaf(&raw.name, at, "name");
        let weight = self.leaf(&raw.weight, at, "weight");
        let max_connections = self.leaf(&raw.max_connections, at, "max_connections");
        let backup = self.leaf(&raw.backup, at, "backup");
        let group = self.leaf(&raw.group, at, "group");
        let state = self.leaf(&raw.state, at, "state");
        let backend = self
            .require(&address, |leaf| values::backend_at(text(leaf)?))
            .unwrap_or_else(|| Backend::at(stand_in()));
        let weight = self.read(&weight, number(values::WEIGHT));
        Backend {
            name: self
                .read(&name, |leaf| values::name(text(leaf)?))
                .unwrap_or(backend.name),
            weight: weight
                .and_then(|weight| u16::try_from(weight).ok())
                .unwrap_or(backend.weight),
            max_connections: self
                .read(&max_connections, number_or("off", values::CONNECTIONS))
                .flatten(),
            backup: self.read(&backup, truth).unwrap_or(backend.backup),
            group: self.read(&group, |leaf| values::name(text(leaf)?)),
            address: backend.address,
            host: backend.host,
            state: self
                .read(&state, |leaf| values::admin_state(text(leaf)?))
                .unwrap_or(backend.state),
            reserve: false,
        }
    }

    fn persist(&mut self, raw: &'a RawPersist, at: &'a Node) -> Option<Persist> {
        let key = self.leaf(&raw.key, at, "key");
        let key = self.read(&key, |leaf| match text_or(leaf, PERSIST_WANTED)? {
            "off" => Ok(None),
            key => values::persist_key(key).map(Some),
        });
        let persist = self.remembering(&raw.ttl, &raw.clients_max, at);
        match key {
            None => Some(persist),
            Some(key) => key.map(|key| Persist { key, ..persist }),
        }
    }

    /// Persistence by the default key.
    pub(super) fn remembering(
        &mut self,
        ttl: &'a Scalar,
        clients_max: &'a Scalar,
        at: &'a Node,
    ) -> Persist {
        let default = Persist::default();
        let ttl = self.leaf(ttl, at, "ttl");
        let clients_max = self.leaf(clients_max, at, "clients_max");
        Persist {
            ttl: self
                .read(&ttl, duration(values::TTL))
                .unwrap_or(default.ttl),
            clients_max: self
                .read(&clients_max, number(values::CLIENTS))
                .unwrap_or(default.clients_max),
            key: default.key,
        }
    }
}

const PERSIST_WANTED: &str = "a key: write \"KEY\" or (key: \"KEY\", ttl: \"30m\")";
/// Backends that a pool may name; it can discover some more. They are counted in 16 bits.
const BACKENDS_MAX: usize = 60_000;
