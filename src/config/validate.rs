//! What was written, judged and completed with defaults.
//!
//! Reading goes on after a mistake, so that one run reports them all; a stand-in takes the place of
//! a refused value and the whole is thrown away in the end.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::error::Mistake;
use super::judge::{Judge, duration, duration_or_off, number, number_or, path, text, truth};
use super::raw::{RawAccessLog, RawConfig, RawListener, RawPool, RawTimeouts, Scalar};
use super::source::Source;
use super::spans::Node;
use super::{
    ATTEMPTS, AccessLog, Config, HISTOGRAM_LOG, Listener, LogSink, SHUTDOWN_GRACE, Timeouts, values,
};
use crate::address::Address;

mod admin;
mod availability;
mod check;
mod pool;
mod scaling;
mod strategy;
mod tiers;

/// Judges a whole configuration. The mistakes are in source order.
pub(super) fn config(raw: &RawConfig, source: &Source) -> Result<Config, Vec<Mistake>> {
    let root = source.root();
    let mut judge = Judge::new(source);
    let workers = judge.leaf(&raw.workers, root, "workers");
    let max_connections = judge.leaf(&raw.max_connections, root, "max_connections");
    let memory = judge.leaf(&raw.memory, root, "memory");
    let shutdown_grace = judge.leaf(&raw.shutdown_grace, root, "shutdown_grace");
    let histogram_log = judge.leaf(&raw.histogram_log, root, "histogram_log");
    let reload_on_change = judge.leaf(&raw.reload_on_change, root, "reload_on_change");
    let config = Config {
        workers: judge
            .read(&workers, number_or("auto", values::WORKERS))
            .flatten(),
        max_connections: judge
            .read(&max_connections, number_or("auto", values::CONNECTIONS))
            .flatten(),
        memory: judge.read(&memory, super::judge::memory).flatten(),
        shutdown_grace: judge
            .read(&shutdown_grace, duration(values::GRACE))
            .unwrap_or(SHUTDOWN_GRACE),
        access_log: judge.access_log(&raw.access_log.0, root.field("access_log")),
        histogram_log: judge
            .read(&histogram_log, path)
            .unwrap_or_else(|| PathBuf::from(HISTOGRAM_LOG)),
        reload_on_change: judge.read(&reload_on_change, truth).unwrap_or_default(),
        admin: judge.admin(&raw.admin.0, root.find("admin")),
        resolvers: judge.resolvers(&raw.resolvers, root.field("resolvers")),
        listeners: judge.listeners(raw, root),
        pools: judge.pools(&raw.pools, root.field("pools")),
    };
    let mistakes = judge.into_mistakes();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

/// What a listener leaves out, and the pools that it may name.
struct Around<'a> {
    attempts: u8,
    timeouts: Timeouts,
    pools: BTreeMap<&'a str, usize>,
}

impl<'a> Judge<'a> {
    fn access_log(&mut self, raw: &'a RawAccessLog, at: &'a Node) -> Option<AccessLog> {
        let to = self.leaf(&raw.to, at, "to");
        let format = self.leaf(&raw.format, at, "format");
        let to = self.read(&to, |leaf| values::log_sink(Path::new(text(leaf)?)));
        let format = self.read(&format, |leaf| values::log_format(text(leaf)?));
        let to = to.unwrap_or(Some(LogSink::Stdout))?;
        Some(AccessLog {
            to,
            format: format.unwrap_or_default(),
        })
    }

    fn listeners(&mut self, raw: &'a RawConfig, root: &'a Node) -> Vec<Listener> {
        let at = root.field("listeners");
        if raw.listeners.is_empty() {
            self.mistake(&at.start(), "listeners: at least one is wanted".to_owned());
        }
        let defaults = root.field("defaults");
        let timeouts = &raw.defaults.timeouts;
        let around = Around {
            attempts: self.attempts(&raw.defaults.attempts, defaults, ATTEMPTS),
            timeouts: self.timeouts(timeouts, defaults.field("timeouts"), Timeouts::default()),
            pools: names(&raw.pools),
        };
        let listeners = raw.listeners.iter().enumerate();
        let listeners = listeners.map(|(i, raw)| self.listener(raw, at.item(i), &around));
        let listeners: Vec<_> = listeners.collect();
        self.listeners_differ(&listeners, at);
        listeners
    }

    fn listener(&mut self, raw: &'a RawListener, at: &'a Node, around: &Around<'_>) -> Listener {
        let name = self.leaf(&raw.name, at, "name");
        let bind = self.leaf(&raw.bind, at, "bind");
        let pool = self.leaf(&raw.pool, at, "pool");
        let max_connections = self.leaf(&raw.max_connections, at, "max_connections");
        let half_close = self.leaf(&raw.half_close, at, "half_close");
        let bind = self
            .require(&bind, |leaf| Ok(text(leaf)?.parse()?))
            .unwrap_or_else(stand_in);
        let pool = self
            .require(&pool, text)
            .and_then(|name| self.pool_index(name, at, around));
        Listener {
            name: self
                .read(&name, |leaf| values::name(text(leaf)?))
                .unwrap_or_else(|| bind.to_string()),
            bind,
            pool: pool.unwrap_or_default(),
            max_connections: self
                .read(&max_connections, number_or("off", values::CONNECTIONS))
                .flatten(),
            attempts: self.attempts(&raw.attempts, at, around.attempts),
            half_close: self
                .read(&half_close, |leaf| values::half_close(text(leaf)?))
                .unwrap_or_default(),
            timeouts: self.timeouts(&raw.timeouts, at.field("timeouts"), around.timeouts),
        }
    }

    fn pool_index(&mut self, name: &str, at: &Node, around: &Around<'_>) -> Option<usize> {
        let found = around.pools.get(name).copied();
        // Without any pool, that is the mistake to report.
        if found.is_none() && !around.pools.is_empty() {
            let hint = values::did_you_mean(name, around.pools.keys().copied());
            let sentence = format!("pool: there is no pool called `{name}`{hint}");
            self.mistake(&at.field("pool").span, sentence);
        }
        found
    }

    fn attempts(&mut self, raw: &'a Scalar, at: &'a Node, default: u8) -> u8 {
        let attempts = self.leaf(raw, at, "attempts");
        let attempts = self.read(&attempts, number(values::ATTEMPTS));
        attempts
            .and_then(|attempts| u8::try_from(attempts).ok())
            .unwrap_or(default)
    }

    fn timeouts(&mut self, raw: &'a RawTimeouts, at: &'a Node, default: Timeouts) -> Timeouts {
        let connect = self.leaf(&raw.connect, at, "connect");
        let idle = self.leaf(&raw.idle, at, "idle");
        let half_closed = self.leaf(&raw.half_closed, at, "half_closed");
        let session = self.leaf(&raw.session, at, "session");
        let peek = self.leaf(&raw.peek, at, "peek");
        Timeouts {
            connect: self
                .read(&connect, duration(values::CONNECT))
                .unwrap_or(default.connect),
            idle: self
                .read(&idle, duration_or_off(values::DEADLINE_OR_OFF))
                .unwrap_or(default.idle),
            half_closed: self
                .read(&half_closed, duration(values::DEADLINE))
                .unwrap_or(default.half_closed),
            session: self
                .read(&session, duration_or_off(values::DEADLINE_OR_OFF))
                .unwrap_or(default.session),
            peek: self
                .read(&peek, duration(values::PEEK))
                .unwrap_or(default.peek),
        }
    }

    fn listeners_differ(&mut self, listeners: &[Listener], at: &Node) {
        let mut names = HashMap::new();
        for (i, listener) in listeners.iter().enumerate() {
            if listener.bind == stand_in() {
                continue;
            }
            let bind = &at.item(i).field("bind").span;
            let mut earlier = listeners[..i].iter().enumerate();
            let overlap =
                earlier.find_map(|(j, first)| Some((j, first.bind.overlap(&listener.bind)?)));
            if let Some((j, (wide, narrow))) = overlap {
                let shared = if wide == narrow {
                    format!("`{narrow}`")
                } else {
                    format!("`{narrow}`, which `{wide}` includes")
                };
                let sentence = format!("two listeners share the address {shared}");
                self.second(sentence, bind, &at.item(j).field("bind").span);
            }
            // The name of a second listener on one address needs no complaint of its own.
            if overlap.is_none_or(|(_, (wide, narrow))| wide != narrow) {
                let name = ("two listeners are called", listener.name.clone());
                self.unique(&mut names, name, &name_or(at.item(i), "bind").span);
            }
        }
    }
}

/// The pools by name.
fn names(pools: &[RawPool]) -> BTreeMap<&str, usize> {
    let mut names = BTreeMap::new();
    for (i, pool) in pools.iter().enumerate() {
        if let Scalar::Text(name) = &pool.name {
            names.entry(name.as_str()).or_insert(i);
        }
    }
    names
}

/// What gives a listener or a backend its name.
fn name_or<'a>(at: &'a Node, otherwise: &str) -> &'a Node {
    at.find("name").unwrap_or_else(|| at.field(otherwise))
}

/// Stands in for a refused address; no address that is read equals it.
fn stand_in() -> Address {
    Address::Unix(PathBuf::new())
}
