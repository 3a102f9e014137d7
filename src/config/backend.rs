//! A backend, and how it was written where it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use super::AdminState;
use crate::address::{Address, Written};

/// One address of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique within its pool; the address, or the host name and port, when the file names none.
    pub name: String,
    /// Where it is connected to. Of a host it is the last that is known: the unspecified address,
    /// which no name has, until there is one.
    pub address: Address,
    /// The host name, where one was written in place of an address. The backend stays the same
    /// whatever the name comes to mean.
    pub host: Option<String>,
    /// Its share relative to the other backends, 0 to 256; 0: none.
    pub weight: u16,
    /// Connections at most, over all workers; `None`: no limit.
    pub max_connections: Option<NonZeroU32>,
    /// It is selected only while no other backend can be.
    pub backup: bool,
    /// Its group, for `two_tier`; other strategies ignore it.
    pub group: Option<String>,
    /// What the operator wants of it.
    pub state: AdminState,
    /// It waits until its pool scales up.
    pub reserve: bool,
}

/// Where a backend is, as it was written: two backends of a name are the same one where this is
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target<'a> {
    /// At this address.
    Address(&'a Address),
    /// Where this host name leads to, at this port.
    Host(&'a str, u16),
}

impl Backend {
    /// A backend of which only the address is said.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            name: address.to_string(),
            address,
            host: None,
            weight: 1,
            max_connections: None,
            backup: false,
            group: None,
            state: AdminState::Ready,
            reserve: false,
        }
    }

    /// The same, of an address as it was written. A name is not resolved.
    #[must_use]
    pub fn written(written: Written) -> Self {
        match written {
            Written::Address(address) => Self::at(address),
            Written::Host(host, port) => Self {
                name: Target::Host(&host, port).to_string(),
                host: Some(host),
                ..Self::at(Address::Tcp((UNRESOLVED, port).into()))
            },
        }
    }

    /// Where it is, as it was written.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target::new(self.host.as_deref(), &self.address)
    }

    /// Whether there is an address to connect to.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        is_resolved(self.host.as_deref(), &self.address)
    }

    /// Says what its host name means now.
    pub fn resolve(&mut self, ip: IpAddr) {
        if let Address::Tcp(address) = &self.address {
            self.address = Address::Tcp(SocketAddr::new(ip, address.port()));
        }
    }
}

impl<'a> Target<'a> {
    /// Where a backend is that has this host name, if it has one, and this address.
    #[must_use]
    pub fn new(host: Option<&'a str>, address: &'a Address) -> Self {
        match (host, address) {
            (Some(host), Address::Tcp(address)) => Self::Host(host, address.port()),
            (None, _) | (Some(_), Address::Unix(_)) => Self::Address(address),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether a backend with this host name, if it has one, can be connected to at this address.
pub(crate) fn is_resolved(host: Option<&str>, address: &Address) -> bool {
    match address {
        Address::Tcp(address) => host.is_none() || address.ip() != UNRESOLVED,
        Address::Unix(_) => true,
    }
}

/// Stands in for the address of a name that was not resolved yet.
const UNRESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
