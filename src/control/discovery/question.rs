//! Questions, the pools that ask them, and the addresses of host names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::address::Address;
use crate::config::{Backend, Discovery};

/// A question. Answers are kept by question, not by the pools that ask it or their other settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// All addresses of a name, in lower case, as names of the DNS are case-insensitive.
    Addresses(String),
    /// The service records of a name.
    Services(String),
    /// The backends that a file lists.
    File(PathBuf),
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
        let (question, port) = match discovery {
            Discovery::Dns { name, port } => {
                (Question::Addresses(name.to_ascii_lowercase()), *port)
            }
            Discovery::Srv(name) => (Question::Services(name.to_ascii_lowercase()), 0),
            Discovery::File(path) => (Question::File(path.clone()), 0),
        };
        Self {
            question,
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
