//! Backends that lead back to their own pool: each connection would open another one, until the
//! descriptors of the process are used up.
//!
//! What the configuration alone says is a mistake in it. An address that this machine happens to
//! have, as the one that two machines share (VRRP), is none: the file is as good as on another
//! machine. Such a backend is left out while the machine has its address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Finding, members};
use crate::address::Address;
use crate::config::{Backend, Config};
use crate::sys::{self, SocketTarget};

mod components;

use components::Components;

/// What this machine tells about where a connection ends.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// Whether it has an address.
    pub(crate) is_own: &'a dyn Fn(&SocketAddr) -> bool,
    /// What a path leads to; `None`: that is not known, and the path counts as it is written.
    pub(crate) target: &'a dyn Fn(&Path) -> Option<SocketTarget>,
}

/// The configuration alone tells.
const TEXT: Machine<'_> = Machine {
    is_own: &|_| false,
    target: &|_| None,
};

/// The same, but paths that may be written in many ways are followed. It asks the file system,
/// which may block.
const FILE: Machine<'_> = Machine {
    is_own: &|_| false,
    target: &|path| Some(SocketTarget::of(path)),
};

/// Finds them in every pool, by the configuration alone. Asks the file system, which may block.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    let loops = Loops::of_all(config, FILE);
    for (i, pool) in config.pools.iter().enumerate() {
        for (at, backend) in members(&format!("pools[{i}]"), pool) {
            if let Some(sentence) = loops.sentence(backend, i) {
                found.push(Finding::at(format!("{at}.address"), sentence));
            }
        }
    }
}

/// What is wrong with the first backend of a pool that leads back to it, by the configuration
/// alone.
pub(in crate::config) fn of_pool(config: &Config, pool: usize) -> Option<String> {
    let loops = Loops::through(config, TEXT, pool);
    let mut backends = config.pools[pool].backends.iter();
    backends.find_map(|backend| loops.sentence(backend, pool))
}

/// What is wrong with the first backend of the pools of a listener that leads back to its own pool
/// by this listener, by the configuration alone.
pub(super) fn of_listener(config: &Config, listener: usize) -> Option<String> {
    let mut pools: Vec<_> = config.listeners[listener].pools().collect();
    pools.sort_unstable();
    pools.dedup();
    let loops = Loops::from(config, TEXT, pools.iter().copied());
    pools.iter().find_map(|pool| {
        let mut backends = config.pools[*pool].backends.iter();
        let sentence = backends.find_map(|backend| loops.sentence(backend, *pool))?;
        Some(format!("pool `{}`: {sentence}", config.pools[*pool].name))
    })
}

/// What is wrong with a backend that would lead back to its pool, by what this machine tells.
pub(crate) fn leads_back(
    config: &Config,
    pool: &str,
    backend: &Backend,
    machine: Machine<'_>,
) -> Option<String> {
    let at = config.pools.iter().position(|its| its.name == pool)?;
    let mut config = config.clone();
    config.pools[at].backends.push(backend.clone());
    Loops::through(&config, machine, at).sentence(backend, at)
}

/// The backends that lead back only as this machine has their addresses: path and sentence of each.
/// Asks the file system, which may block.
pub(in crate::config) fn by_machine(config: &Config) -> Vec<(String, String)> {
    let text = Loops::of_all(config, FILE);
    let is_own = &sys::is_own_address;
    let machine = Loops::of_all(config, Machine { is_own, ..FILE });
    let mut found = Vec::new();
    for (i, pool) in config.pools.iter().enumerate() {
        for (at, backend) in members(&format!("pools[{i}]"), pool) {
            if let Some(sentence) = machine.sentence(backend, i)
                && text.sentence(backend, i).is_none()
            {
                found.push((format!("{at}.address"), sentence));
            }
        }
    }
    found
}

/// The backends that lead back to their own pool: each with its pool, and what is wrong.
pub(crate) fn found_loops<'a>(
    config: &'a Config,
    machine: Machine<'_>,
) -> Vec<(&'a str, &'a Backend, String)> {
    let loops = Loops::of_all(config, machine);
    let mut found = Vec::new();
    for (place, pool) in config.pools.iter().enumerate() {
        for backend in &pool.backends {
            if let Some(sentence) = loops.sentence(backend, place) {
                found.push((&*pool.name, backend, sentence));
            }
        }
    }
    found
}

/// Which pools and listeners form loops. A pool leads to the points that its backends are at, and
/// a point to the pools of its listeners: so a point that thousands of backends and of listeners
/// share costs one step for each of them, not for each pair.
struct Loops<'a> {
    config: &'a Config,
    points: Points<'a>,
    /// Of the pools, by their place, and behind them of the points.
    components: Components,
    /// The first listener of each point that leads back to it.
    back: Vec<Option<usize>>,
}

impl<'a> Loops<'a> {
    fn of_all(config: &'a Config, machine: Machine<'a>) -> Self {
        Self::from(config, machine, 0..config.pools.len())
    }

    /// Those that a pool is part of; the others are not looked at.
    fn through(config: &'a Config, machine: Machine<'a>, pool: usize) -> Self {
        Self::from(config, machine, pool..pool + 1)
    }

    fn from(config: &'a Config, machine: Machine<'a>, pools: impl Iterator<Item = usize>) -> Self {
        let points = Points::of(config, machine);
        let first = config.pools.len();
        let components = Components::reached_from(pools, |node| match node.checked_sub(first) {
            None => {
                let backends = config.pools[node].backends.iter();
                let reached = backends.flat_map(|backend| points.reached(backend));
                reached.map(|point| first + point).collect()
            }
            Some(point) => {
                let listeners = points.listeners[point].iter();
                let pools = listeners.flat_map(|listener| config.listeners[*listener].pools());
                pools.filter(|pool| *pool < first).collect()
            }
        });
        let back = points.listeners.iter().enumerate();
        let back = back.map(|(point, listeners)| {
            let leads = |pool: usize| pool < first && components.are_one(first + point, pool);
            let mut listeners = listeners.iter().copied();
            listeners.find(|listener| config.listeners[*listener].pools().any(leads))
        });
        Self {
            config,
            back: back.collect(),
            points,
            components,
        }
    }

    fn sentence(&self, backend: &Backend, pool: usize) -> Option<String> {
        // Most pools are in no loop.
        if !self.components.is_in_loop(pool) {
            return None;
        }
        let first = self.config.pools.len();
        let reached = self.points.reached(backend);
        let round = reached.filter(|point| self.components.are_one(pool, first + point));
        let listener = round.filter_map(|point| self.back[point]).min()?;
        Some(format!(
            "backend `{}` leads back to its own pool by the listener on `{}`, so that a \
             connection would go round without end: expected the address of a server",
            backend.name, self.config.listeners[listener].bind
        ))
    }
}

/// Where connections end at listeners: their addresses and sockets.
struct Points<'a> {
    machine: Machine<'a>,
    /// The points of a port.
    by_port: HashMap<u16, HashMap<Ip, usize>>,
    by_path: HashMap<&'a Path, usize>,
    /// A path may be written in many ways.
    by_target: HashMap<SocketTarget, usize>,
    /// The listeners of each point, in their order.
    listeners: Vec<Vec<usize>>,
}

/// A canonical address, with its zone.
type Ip = (IpAddr, u32);

impl<'a> Points<'a> {
    fn of(config: &'a Config, machine: Machine<'a>) -> Self {
        let mut points = Self {
            machine,
            by_port: HashMap::new(),
            by_path: HashMap::new(),
            by_target: HashMap::new(),
            listeners: Vec::new(),
        };
        let leads_to_socket = |backend: &Backend| matches!(backend.address, Address::Unix(_));
        // Without such backends the file system is not asked.
        let mut backends = config.pools.iter().flat_map(|pool| &pool.backends);
        let has_sockets = backends.any(leads_to_socket);
        for (i, listener) in config.listeners.iter().enumerate() {
            let next = points.listeners.len();
            let point = match &listener.bind {
                // A free port each time.
                Address::Tcp(bind) if bind.port() == 0 => continue,
                Address::Tcp(bind) => {
                    let of_port = points.by_port.entry(bind.port()).or_default();
                    *of_port.entry(ip(bind)).or_insert(next)
                }
                Address::Unix(_) if !has_sockets => continue,
                Address::Unix(path) => {
                    let by_path = *points.by_path.entry(path).or_insert(next);
                    match (machine.target)(path) {
                        Some(target) => *points.by_target.entry(target).or_insert(by_path),
                        None => by_path,
                    }
                }
            };
            if point == next {
                points.listeners.push(Vec::new());
            }
            points.listeners[point].push(i);
        }
        points
    }

    /// The points that a connection to this backend may end at.
    fn reached(&self, backend: &Backend) -> impl Iterator<Item = usize> {
        let reached = match &backend.address {
            Address::Tcp(_) => self.reached_by_tcp(backend),
            // Without such listeners the file system is not asked.
            Address::Unix(_) if self.by_path.is_empty() => [None; 3],
            Address::Unix(path) => {
                let target = (self.machine.target)(path);
                let by_target = target.and_then(|its| self.by_target.get(&its));
                let by_path = self.by_path.get(path.as_path());
                [by_path.copied(), by_target.copied(), None]
            }
        };
        reached.into_iter().flatten()
    }

    fn reached_by_tcp(&self, backend: &Backend) -> [Option<usize>; 3] {
        let Address::Tcp(address) = &backend.address else {
            return [None; 3];
        };
        let Some(of_port) = self.by_port.get(&address.port()) else {
            return [None; 3];
        };
        let to = match backend.host.as_deref() {
            _ if backend.is_resolved() => *address,
            Some(host) if host.eq_ignore_ascii_case("localhost") => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
            }
            // Other names are not resolved here.
            _ => return [None; 3],
        };
        let at = |ip: Ip| of_port.get(&ip).copied();
        let its = ip(&to);
        // A listener on `[::]` takes connections of IPv4 too.
        let any_v4 = its.0.is_ipv4().then_some((Ipv4Addr::UNSPECIFIED.into(), 0));
        let any = [any_v4.and_then(at), at((Ipv6Addr::UNSPECIFIED.into(), 0))];
        let is_here = any != [None; 2] && self.is_here(&to);
        let [v4, v6] = any.map(|point| point.filter(|_| is_here));
        [at(its), v4, v6]
    }

    /// Whether a listener on all addresses has this one.
    fn is_here(&self, to: &SocketAddr) -> bool {
        let is_own = self.machine.is_own;
        match to.ip().to_canonical() {
            ip if ip.is_loopback() => true,
            ip @ IpAddr::V4(_) => is_own(&SocketAddr::new(ip, to.port())),
            IpAddr::V6(_) => is_own(to),
        }
    }
}

fn ip(address: &SocketAddr) -> Ip {
    match (address.ip().to_canonical(), address) {
        (ip @ IpAddr::V6(_), SocketAddr::V6(address)) => (ip, address.scope_id()),
        (ip, _) => (ip, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::config::{Change, parse};

    fn refused(listeners: &str, pools: &[(&str, &str)]) -> Option<String> {
        let pools = pools
            .iter()
            .map(|(name, backend)| format!("(name: \"{name}\", backends: [\"{backend}\"]),"));
        let pools: String = pools.collect();
        let text = format!("(listeners: [{listeners}], pools: [{pools}])");
        let refused = parse("f".to_owned(), text.into()).err()?.to_string();
        refused.lines().next().map(str::to_owned)
    }

    #[test]
    fn a_pool_is_not_its_own_backend() {
        for (bind, backend, loops) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "localhost:8080", true),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "192.0.2.1:8080", false),
            ("0.0.0.0:8080", "[::1]:8080", false),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("[::]:8080", "app:8080", false),
            ("[fe80::1%1]:8080", "[fe80::1%1]:8080", true),
            ("[fe80::1%1]:8080", "[fe80::1%2]:8080", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "unix:/../a", true),
            ("unix:/a", "unix:/proc/self/root/a", true),
        ] {
            let listener = format!("(bind: \"{bind}\", pool: \"a\")");
            let refused = refused(&listener, &[("a", backend)]);
            let want = format!(
                "backend `{backend}` leads back to its own pool by the listener on `{bind}`, so \
                 that a connection would go round without end: expected the address of a server"
            );
            let found = refused.as_ref().is_some_and(|text| text.ends_with(&want));
            assert_eq!(found, loops, "{bind} {backend}: {refused:?}");
        }
    }

    #[test]
    fn two_pools_may_follow_each_other_and_not_go_round() {
        let listeners = "(bind: \"unix:/a\", pool: \"a\"), (bind: \"unix:/b\", pool: \"b\")";
        let chain = [("a", "unix:/b"), ("b", "unix:/c")];
        assert_eq!(refused(listeners, &chain), None);
        let round = [("a", "unix:/b"), ("b", "unix:/a")];
        assert!(refused(listeners, &round).is_some_and(|text| text.contains("leads back")));
    }

    #[test]
    fn a_change_does_not_make_a_loop() {
        let text = "(listeners: [(bind: \"unix:/a\", pool: \"a\")],
                     pools: [(name: \"a\", backends: [\"unix:/b\"])])";
        let (config, _) = parse("f".to_owned(), text.into()).unwrap();
        let add = |backend: &str| Change::AddBackend {
            pool: "a".to_owned(),
            backend: Box::new(backend.parse().map(Backend::written).unwrap()),
        };
        assert!(add("unix:/c").apply(&config).is_ok());
        let error = add("unix:/a").apply(&config).unwrap_err().to_string();
        assert!(
            error.starts_with("pool `a`: backend `unix:/a` leads back"),
            "{error}"
        );
        let (after, refused) = Change::apply_all(&[add("unix:/a"), add("unix:/c")], &config);
        assert_eq!((after.pools[0].backends.len(), refused.len()), (2, 1));
    }

    /// Each looks once whether its address is this machine's, however many listeners have its port,
    /// and again for the sentence about it.
    #[test]
    fn thousands_of_backends_and_listeners_are_not_compared_in_pairs() {
        let text = "(listeners: [(bind: \"0.0.0.0:80\", pool: \"a\")],
                     pools: [(name: \"a\", backends: [\"192.0.2.1:80\"])])";
        let (mut config, _) = parse("f".to_owned(), text.into()).unwrap();
        let (listener, pool) = (config.listeners[0].clone(), config.pools[0].clone());
        // Each pool leads to all pools but the first.
        config.listeners = vec![listener; LISTENERS];
        for (i, listener) in config.listeners.iter_mut().enumerate() {
            listener.pool = i.max(1);
        }
        config.pools = vec![pool; LISTENERS];
        for pool in &mut config.pools {
            let backend = pool.backends[0].clone();
            pool.backends = vec![backend; BACKENDS / LISTENERS];
        }
        let asked = Cell::new(0);
        let is_own = |_: &SocketAddr| {
            asked.set(asked.get() + 1);
            true
        };
        let found = found_loops(
            &config,
            Machine {
                is_own: &is_own,
                ..TEXT
            },
        );
        assert_eq!(found.len(), BACKENDS - BACKENDS / LISTENERS);
        assert!(asked.get() <= 2 * BACKENDS, "{}", asked.get());
    }

    const LISTENERS: usize = 1_000;
    const BACKENDS: usize = 10_000;
}
