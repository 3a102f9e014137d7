//! A backend, and how its address was written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use super::AdminState;
use super::bandwidth::Rates;
use super::codec::{Leaf, group_or_none, name, named, number, parsed, required, truth};
use super::listener::stand_in;
use super::reader::Around;
use super::send_proxy::{BackendHeader, backend_header};
use super::table::{Settings, Shape, settings};
use super::values::{self, ValueError};
use crate::address::{Address, Written};
use crate::peek::MEMBER_MAX;

settings! {
    /// One address of a pool.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Backend: Shape {
        /// The address to connect to. For a host name: the last known address, or the unspecified
        /// address until one is known.
        pub address: Address = stand_in();
            @address => required(place()),
                |backend: &Self| (backend.address.clone(), backend.host.clone()),
                |backend: &mut Self, (address, host)| {
                    backend.address = address;
                    backend.host = host;
                };
        /// The host name, if one was written in place of an address. The backend stays the same
        /// when the name leads to another address.
        pub host: Option<String> = None;
        /// Its name in logs and commands, unique within the pool. The default is its address.
        pub name: String = String::new() => name();
        /// Its share relative to the other backends; 0: no share.
        pub weight: u16 = 1 => number(values::WEIGHT);
        /// The most connections at a time, over all workers. Off: no limit.
        pub max_connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// How many bytes all its sessions together may move in a second. Beyond it they wait.
        /// Off: no limit.
        pub bandwidth: Rates = Rates::default() => group_or_none();
        /// The PROXY header that connections to it begin with, in place of that of its pool.
        pub send_proxy: BackendHeader = BackendHeader::OfPool => backend_header();
        /// Whether it is selected only while no other backend is usable.
        pub backup: bool = false => truth();
        /// Its group, for the strategy two_tier; other strategies ignore it.
        pub group: Option<String> = None => name().given();
        /// Its number among the members of its pool, for `sni_member`; other pools ignore it. Auto:
        /// its place in the list, from 0 on.
        pub member: Option<u32> = None => number(0..=MEMBER_MAX).or("auto");
        /// Its administrative state: "ready", "drain" (it keeps its sessions and gets no new ones)
        /// or "maint" (like drain, and it is not probed).
        pub state: AdminState = AdminState::Ready => named("state", &AdminState::ALL);
        /// Whether it waits in the reserve until its pool scales up.
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
    parsed(
        "an address: host:port, [IPv6]:port or unix:/path",
        |text| match values::backend_at(text) {
            Ok(backend) => Ok((backend.address, backend.host)),
            Err(error) => Err(with_options(text).map_or(error, ValueError::Refused)),
        },
        |(address, host)| Target::new(host.as_deref(), address).to_string(),
    )
}

/// How to write a backend with the options of a flag, `ADDR,weight=2`, in a file.
fn with_options(text: &str) -> Option<String> {
    if let Some((address, _)) = text.split_once(char::is_whitespace)
        && values::backend_at(address).is_ok()
    {
        return Some(format!(
            "expected an address without options: write \"{address}\", and options as fields"
        ));
    }
    let backend = values::backend(text).ok()?;
    let fields = backend.ron();
    Some(format!(
        "expected an address without options: write {fields}"
    ))
}

/// A backend's address or host name, as written. Two backends with equal names are the same
/// backend if their targets are equal too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target<'a> {
    /// This address.
    Address(&'a Address),
    /// The address of this host name, at this port.
    Host(&'a str, u16),
}

impl Backend {
    /// A backend with this address and defaults for all else.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            name: address.to_string(),
            address,
            ..Self::base()
        }
    }

    /// A backend at a written address, with defaults for all else. A host name is not resolved.
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

    /// The text of it in a file.
    #[must_use]
    pub fn ron(&self) -> String {
        let text = super::table::text(self, &Self::base(), &Around::default());
        text.shown().unwrap_or_default()
    }

    /// Its address or host name, as written.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        Target::new(self.host.as_deref(), &self.address)
    }

    /// Whether there is an address to connect to.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        is_resolved(self.host.as_deref(), &self.address)
    }

    /// Whether it has this address, or one that is no IP address.
    #[must_use]
    pub fn is_resolved_to(&self, ip: IpAddr) -> bool {
        match &self.address {
            Address::Tcp(address) => address.ip() == ip,
            Address::Unix(_) => true,
        }
    }

    /// Sets the address that its host name leads to now.
    pub fn resolve(&mut self, ip: IpAddr) {
        if let Address::Tcp(address) = &self.address {
            self.address = Address::Tcp(SocketAddr::new(ip, address.port()));
        }
    }
}

impl<'a> Target<'a> {
    /// The target of a backend with this host name, if any, and this address.
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

/// The address of a host name that was not resolved yet.
const UNRESOLVED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
