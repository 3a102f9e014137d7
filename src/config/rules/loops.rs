//! Backends that lead back to their own pool: each connection would open another one, until the
//! descriptors of the process are used up.
//!
//! What the configuration alone says is a mistake in it. An address that this machine happens to
//! have, as the one that two machines share (VRRP), is none: the file is as good as on another
//! machine. Such a backend is left out while the machine has its address.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};

use super::{Finding, members};
use crate::address::Address;
use crate::config::{Backend, Config};
use crate::sys;

/// What tells where a connection ends.
#[derive(Clone, Copy)]
enum Known<'a> {
    /// The configuration alone.
    ByText,
    /// Also whether this machine has an address.
    ByMachine(&'a dyn Fn(&SocketAddr) -> bool),
}

/// Finds them in every pool, by the configuration alone.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    let listeners = Listeners::of(config, Known::ByText);
    for (i, pool) in config.pools.iter().enumerate() {
        for (at, backend) in members(&format!("pools[{i}]"), pool) {
            if let Some(sentence) = listeners.sentence(backend, i) {
                found.push(Finding::at(format!("{at}.address"), sentence));
            }
        }
    }
}

/// What is wrong with the first backend of a pool that leads back to it, by the configuration
/// alone.
pub(in crate::config) fn of_pool(config: &Config, pool: usize) -> Option<String> {
    let listeners = Listeners::of(config, Known::ByText);
    let mut backends = config.pools[pool].backends.iter();
    backends.find_map(|backend| listeners.sentence(backend, pool))
}

/// What is wrong with a backend that would lead back to its pool, as this machine has its address.
pub(crate) fn leads_back(config: &Config, pool: &str, backend: &Backend) -> Option<String> {
    let pool = config.pools.iter().position(|its| its.name == pool)?;
    Listeners::of(config, Known::ByMachine(&sys::is_own_address)).sentence(backend, pool)
}

/// The backends that lead back only as this machine has their addresses: path and sentence of each.
pub(in crate::config) fn by_machine(config: &Config) -> Vec<(String, String)> {
    let text = Listeners::of(config, Known::ByText);
    let machine = Listeners::of(config, Known::ByMachine(&sys::is_own_address));
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
/// `declared` has the same pools without discovered backends; its Unix sockets were checked when it
/// was read. `is_own`: whether this machine has an address.
pub(crate) fn found_loops<'a>(
    config: &'a Config,
    declared: &Config,
    is_own: &'a dyn Fn(&SocketAddr) -> bool,
) -> Vec<(&'a str, &'a Backend, String)> {
    let listeners = Listeners::of(config, Known::ByMachine(is_own));
    let mut found = Vec::new();
    for (place, pool) in config.pools.iter().enumerate() {
        let declared = declared.pools.get(place);
        for backend in &pool.backends {
            let is_declared = || declared.is_some_and(|its| its.backend(&backend.name).is_some());
            if matches!(backend.address, Address::Unix(_)) && is_declared() {
                continue;
            }
            if let Some(sentence) = listeners.sentence(backend, place) {
                found.push((&*pool.name, backend, sentence));
            }
        }
    }
    found
}

/// The listeners.
struct Listeners<'a> {
    config: &'a Config,
    known: Known<'a>,
    by_port: HashMap<u16, Vec<usize>>,
    /// Those on Unix sockets, once a backend is one: a path may be written in many ways.
    by_target: OnceCell<HashMap<sys::SocketTarget, Vec<usize>>>,
}

impl<'a> Listeners<'a> {
    fn of(config: &'a Config, known: Known<'a>) -> Self {
        let mut by_port: HashMap<_, Vec<_>> = HashMap::new();
        for (i, listener) in config.listeners.iter().enumerate() {
            if let Address::Tcp(bind) = &listener.bind {
                by_port.entry(bind.port()).or_default().push(i);
            }
        }
        Self {
            config,
            known,
            by_port,
            by_target: OnceCell::new(),
        }
    }

    fn sentence(&self, backend: &'a Backend, pool: usize) -> Option<String> {
        let listener = self.reached(backend).find(|listener| {
            let leads_to = self.config.listeners[*listener].pool;
            leads_to == pool || self.leads(leads_to, pool)
        })?;
        Some(format!(
            "backend `{}` leads back to its own pool by the listener on `{}`, so that a \
             connection would go round without end: expected the address of a server",
            backend.name, self.config.listeners[listener].bind
        ))
    }

    /// Whether a connection to one pool can come to another, or back.
    fn leads(&self, from: usize, to: usize) -> bool {
        let mut seen = HashSet::from([from]);
        let mut next = vec![from];
        while let Some(pool) = next.pop() {
            let backends = self.config.pools.get(pool).into_iter();
            let backends = backends.flat_map(|pool| &pool.backends);
            for listener in backends.flat_map(|backend| self.reached(backend)) {
                let pool = self.config.listeners[listener].pool;
                if pool == to {
                    return true;
                }
                if seen.insert(pool) {
                    next.push(pool);
                }
            }
        }
        false
    }

    /// The listeners that take a connection to this backend.
    fn reached(&self, backend: &'a Backend) -> impl Iterator<Item = usize> {
        let near = match &backend.address {
            Address::Tcp(to) => self.by_port.get(&to.port()),
            Address::Unix(path) => {
                let all = self.by_target.get_or_init(|| self.by_target());
                // Without such listeners the file system is not asked.
                let target = (!all.is_empty()).then(|| sys::SocketTarget::of(path));
                target.and_then(|target| all.get(&target))
            }
        };
        let near = near.into_iter().flatten().copied();
        near.filter(|listener| reaches(backend, &self.config.listeners[*listener].bind, self.known))
    }

    fn by_target(&self) -> HashMap<sys::SocketTarget, Vec<usize>> {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for (i, listener) in self.config.listeners.iter().enumerate() {
            if let Address::Unix(path) = &listener.bind {
                all.entry(sys::SocketTarget::of(path)).or_default().push(i);
            }
        }
        all
    }
}

/// Whether a connection to the backend ends at a listener that has its port, or its socket.
fn reaches(backend: &Backend, bind: &Address, known: Known<'_>) -> bool {
    let (Address::Tcp(to), Address::Tcp(bind)) = (&backend.address, bind) else {
        return true;
    };
    let to = match backend.host.as_deref() {
        _ if backend.is_resolved() => SocketAddr::new(to.ip().to_canonical(), to.port()),
        Some(host) if host.eq_ignore_ascii_case("localhost") => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()))
        }
        // Other names are not resolved here.
        _ => return false,
    };
    let any = bind.ip().is_unspecified();
    let overlap = Address::Tcp(*bind).overlap(&Address::Tcp(to)).is_some();
    let is_own = || match known {
        Known::ByText => false,
        Known::ByMachine(is_own) => is_own(&to),
    };
    overlap && (!any || to.ip().is_loopback() || is_own())
}

#[cfg(test)]
mod tests {
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
            backend: Box::new(
                backend
                    .parse()
                    .map(crate::config::Backend::written)
                    .unwrap(),
            ),
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
}
