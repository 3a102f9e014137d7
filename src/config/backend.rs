//! A backend, and how it was written where it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use super::AdminState;
use super::codec::{Leaf, name, named, number, required, spelled, truth};
use super::listener::stand_in;
use super::table::{Settings, Shape, settings};
use super::values;
use crate::address::{Address, Written};

settings! {
    /// One address of a pool.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Backend {
        /// Where it is connected to. Of a host name it is the last address that is known: the
        /// unspecified address until there is one.
        pub address: Address = stand_in();
            @address => required(place()),
                |backend: &Self| (backend.address.clone(), backend.host.clone()),
                |backend: &mut Self, (address, host)| {
                    backend.address = address;
                    backend.host = host;
                };
        /// The host name, where one was written in place of an address. The backend stays the same
        /// whatever the name comes to mean.
        pub host: Option<String> = None;
        /// What logs and commands call it. No other backend of the pool has it; without a name it
        /// is called by its address.
        pub name: String = String::new() => name();
        /// Its share relative to the other backends; 0: none.
        pub weight: u16 = 1 => number(values::WEIGHT);
        /// Its connections at a time, over all workers. Off: no limit.
        pub max_connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// Whether it is selected only while no other backend can be.
        pub backup: bool = false => truth();
        /// Its group, for the strategy two_tier; other strategies ignore it.
        pub group: Option<String> = None => name().given();
        /// What the operator wants of it: "ready", "drain" (it keeps its sessions and gets no more)
        /// or "maint" (it is not probed either).
        pub state: AdminState = AdminState::Ready => named("state", &AdminState::ALL);
        /// It waits until its pool scales up.
        pub reserve: bool = false;
    }
}

impl Shape for Backend {
    const SHORT: Option<&'static str> = Some("address");

    fn implied(&self, default: &Self) -> Self {
        Self {
            name: self.target().to_string(),
            ..default.clone()
        }
    }
}

/// An address, or a host name and a port that stand in for one.
fn place() -> Leaf<(Address, Option<String>)> {
    spelled(
        "an address: host:port, [IPv6]:port or unix:/path",
        |text| values::backend_at(text).map(|backend| (backend.address, backend.host)),
        |(address, host)| Target::new(host.as_deref(), address).to_string(),
    )
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
            ..Self::base()
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
