//! Questions, the pools that ask them, and the addresses of host names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::address::Address;
use crate::config::{Backend, Config, Consul, Discovery, Etcd, Kubernetes};

/// A question. Answers are kept by question, not by the pools that ask it or their other settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// All addresses of a name, in lower case, as names of the DNS are case-insensitive.
    Addresses(String),
    /// The service records of a name.
    Services(String),
    /// The backends that a file lists.
    File(PathBuf),
    /// The backends under a prefix of etcd.
    Etcd(Etcd),
    /// The instances of a service of Consul.
    Consul(Consul),
    /// The endpoints of a Service of Kubernetes.
    Kubernetes(Kubernetes),
}

/// A pool that discovers.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) question: Question,
    /// The port of backends that are found without one.
    pub(super) port: u16,
    /// What its last question found, until this one has its first answer.
    pub(super) before: Option<Vec<Backend>>,
    /// The last backends that were in use, for answers of which none can be.
    pub(super) good: Vec<Backend>,
}

/// A host name of backends.
#[derive(Debug, Default)]
pub(super) struct Host {
    /// The address that connections go to.
    pub(super) address: Option<IpAddr>,
    /// It was reported that there is none.
    pub(super) is_reported: bool,
}

impl Question {
    /// Those of a configuration.
    pub(super) fn all(config: &Config) -> BTreeSet<Self> {
        let pools = config.pools.iter();
        let by_pool = pools.clone().filter_map(|pool| pool.discovery.as_ref());
        let backends = pools.flat_map(|pool| &pool.backends);
        let names = backends.filter_map(|backend| backend.host.as_ref());
        let names = names.map(|name| Self::Addresses(name.to_ascii_lowercase()));
        by_pool.map(Self::of).chain(names).collect()
    }

    fn of(discovery: &Discovery) -> Self {
        match discovery {
            Discovery::Dns { name, .. } => Self::Addresses(name.to_ascii_lowercase()),
            Discovery::Srv(name) => Self::Services(name.to_ascii_lowercase()),
            Discovery::File(path) => Self::File(path.clone()),
            Discovery::Etcd(source) => Self::Etcd(source.clone()),
            Discovery::Consul(source) => Self::Consul(source.clone()),
            Discovery::Kubernetes(source) => Self::Kubernetes(source.clone()),
        }
    }

    /// The servers that are to be asked.
    pub(super) fn resolvers(&self, config: &Config) -> Vec<SocketAddr> {
        match self {
            Self::Addresses(_) | Self::Services(_) => config.resolvers.clone(),
            Self::File(_) | Self::Etcd(_) | Self::Consul(_) | Self::Kubernetes(_) => Vec::new(),
        }
    }
}

impl Host {
    /// Keeps the present address while it is among those found, as servers answer in varying order.
    /// Otherwise takes the lowest, IPv4 before IPv6, so that all balancers agree.
    pub(super) fn choose(&mut self, found: Option<&[Backend]>) {
        let found = found.into_iter().flatten();
        let addresses = found.filter_map(|backend| match &backend.address {
            Address::Tcp(address) => Some(address.ip()),
            Address::Unix(_) => None,
        });
        let addresses: BTreeSet<_> = addresses.collect();
        if !self.address.is_some_and(|ip| addresses.contains(&ip)) {
            self.address = addresses.first().copied().or(self.address);
        }
    }
}

impl Asking {
    pub(super) fn new(discovery: &Discovery) -> Self {
        let port = match discovery {
            Discovery::Dns { port, .. } => *port,
            Discovery::Srv(_)
            | Discovery::File(_)
            | Discovery::Etcd(_)
            | Discovery::Consul(_)
            | Discovery::Kubernetes(_) => 0,
        };
        Self {
            question: Question::of(discovery),
            port,
            before: None,
            good: Vec::new(),
        }
    }

    pub(super) fn with_port(&self, found: &[Backend]) -> Vec<Backend> {
        let found = found.iter().map(|backend| match &backend.address {
            Address::Tcp(at) if at.port() == 0 => {
                let address = Address::Tcp(SocketAddr::new(at.ip(), self.port));
                Backend {
                    name: address.to_string(),
                    address,
                    ..backend.clone()
                }
            }
            Address::Tcp(_) | Address::Unix(_) => backend.clone(),
        });
        found.collect()
    }
}
