//! Where connections to backends begin: addresses of this machine or of the client, and local
//! ports.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::address::Address;

/// What connections to the backends of a pool may begin at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origins {
    /// Addresses of this machine, each in turn for backends of its family; none of a family: the
    /// kernel chooses by its routes.
    pub addresses: Vec<IpAddr>,
    /// A session's connection begins at the address of its client; `addresses` is empty.
    pub at_client: bool,
    /// Local ports; `None`: those of `net.ipv4.ip_local_port_range`.
    pub ports: Option<Ports>,
}

/// What one connection begins at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The kernel chooses where there is none.
    pub address: Option<IpAddr>,
    /// The address is a client's: this machine need not have it.
    pub is_clients: bool,
    /// The kernel takes one of these, or of its own range.
    pub ports: Option<Ports>,
}

/// The client of a session, as far as connections to backends may begin at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// `None`: it came by a Unix socket, or has gone.
    pub address: Option<IpAddr>,
    /// A PROXY header has named it: it may be any.
    pub is_named: bool,
}

/// The user of a port. Each has ports of its own: those of others would often be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// A worker, and how many there are.
    Worker(u32, u32),
    /// The control thread, for its probes.
    Probes,
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Origins {
    /// Those that a connection to this address can begin at.
    #[must_use]
    pub fn towards(&self, to: &Address) -> Self {
        let Address::Tcp(to) = to else {
            return Self::default();
        };
        let same = |own: &&IpAddr| own.is_ipv4() == to.ip().is_ipv4();
        Self {
            addresses: self.addresses.iter().filter(same).copied().collect(),
            at_client: self.at_client,
            ports: self.ports,
        }
    }

    /// Whether a connection to `to`, whose origins these are, can begin where it has to for this
    /// client: a connection has one family at both ends.
    #[must_use]
    pub fn fit(&self, client: Client, to: &Address) -> bool {
        let Address::Tcp(to) = to else {
            return true;
        };
        let fits = |own: IpAddr| own.is_ipv4() == to.is_ipv4() && client.is_usable();
        !self.at_client || client.address.is_some_and(fits)
    }

    /// What a connection begins at that has to begin at this client.
    #[must_use]
    pub fn of_client(&self, client: Client, user: User) -> Origin {
        Origin {
            address: client.address,
            is_clients: true,
            ports: self.ports.map(|ports| ports.of(user)),
        }
    }

    /// The number of origins to try, one at least.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len().max(1)
    }

    /// Whether the kernel chooses everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && !self.at_client && self.ports.is_none()
    }

    /// The n-th address of this machine, with the ports that are this user's.
    #[must_use]
    pub fn nth(&self, n: usize, user: User) -> Origin {
        Origin {
            address: self.addresses.get(n).copied(),
            is_clients: false,
            ports: self.ports.map(|ports| ports.of(user)),
        }
    }
}

impl Client {
    /// Why no connection to a backend can begin at it, in words. `is_own`: this machine has its
    /// address.
    #[must_use]
    pub fn misfit(self, is_own: bool) -> String {
        let Some(address) = self.address else {
            return match self.is_named {
                true => "its proxy does not say the client's address".to_owned(),
                false => "it came by a Unix socket, so that it has no address".to_owned(),
            };
        };
        let is_of_link = matches!(address, IpAddr::V6(own) if own.is_unicast_link_local());
        if is_of_link {
            return format!("{address} is link-local: it means nothing without its link");
        }
        if !self.is_usable() {
            return format!(
                "a header may not name {address}: backends may trust addresses of that kind, or it \
                 is none of a host"
            );
        }
        if self.is_named && is_own {
            return format!(
                "a header may not name {address}, an address of this machine: backends may trust it"
            );
        }
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("no backend of the pool has an {family} address, as {address} is one")
    }

    /// Whether packets can be sent from its address, and their answers come back. What the kernel
    /// knows of a client that has connected can be believed; a client on this machine has one of
    /// its addresses. Only its network is missing in an address of IPv6 that holds on one link.
    ///
    /// A header may name what would give a client the trust that a backend has in its own machine
    /// or in this one, or what is no address of a host.
    fn is_usable(self) -> bool {
        match self.address {
            None => false,
            Some(IpAddr::V6(own)) if own.is_unicast_link_local() => false,
            Some(_) if !self.is_named => true,
            Some(IpAddr::V4(own)) => !(own.is_link_local() || is_no_host(own)),
            Some(IpAddr::V6(own)) => !(own.is_multicast() || is_of_old(own)),
        }
    }
}

/// Loopback, multicast, 0.0.0.0/8, which is "this network" (RFC 1122, 3.2.1.3), and what is
/// reserved, with broadcast (RFC 1112, section 4).
fn is_no_host(own: Ipv4Addr) -> bool {
    own.is_loopback() || own.is_multicast() || matches!(own.octets()[0], 0 | 240..)
}

/// Loopback, the unspecified address and others that have an IPv4 address in their last 32 bits
/// (RFC 4291, section 2.5.5.1), or site-local ones (RFC 3879).
fn is_of_old(own: Ipv6Addr) -> bool {
    own.segments()[..6] == [0; 6] || own.segments()[0] & 0xffc0 == 0xfec0
}

impl Ports {
    /// From `first` to `last`; `None`: they are the wrong way round, or 0.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The first one.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last one.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// A user's part: the last sixteenth is the probes', as they keep no port for long, and the
    /// workers' parts of the rest are as even as can be. Where a part would be small, workers share
    /// all of the rest: a search through it costs little, and clients are never spread so evenly
    /// that each worker could use up its own.
    #[must_use]
    pub fn of(self, user: User) -> Self {
        let count = u32::from(self.last - self.first) + 1;
        let probes = (count / PROBES_PART).max(1);
        if count == probes {
            return self;
        }
        let rest = count - probes;
        let (start, end) = match user {
            User::Probes => (rest, count),
            User::Worker(number, of) if number < of && of.saturating_mul(PART_MIN) <= rest => {
                (part(rest, number, of), part(rest, number + 1, of))
            }
            User::Worker(..) => (0, rest),
        };
        let at = |offset: u32| self.first + u16::try_from(offset).unwrap_or(0);
        Self {
            first: at(start),
            last: at(end - 1),
        }
    }
}

/// Where one of so many parts of a count begins.
fn part(count: u32, number: u32, of: u32) -> u32 {
    let start = u64::from(count) * u64::from(number) / u64::from(of);
    u32::try_from(start).unwrap_or(count)
}

/// Ports of a worker's own, at least.
const PART_MIN: u32 = 256;
/// Probes have one port of so many.
const PROBES_PART: u32 = 16;

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for Ports {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').ok_or(())?;
        let port = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(())
        };
        Self::new(port(first)?, port(last)?).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_why_no_connection_begins_at_it() {
        let why = |address: &str, is_named, is_own| {
            let address = address.parse().ok();
            Client { address, is_named }.misfit(is_own)
        };
        for (address, is_named, is_own, want) in [
            ("", false, false, "it came by a Unix socket"),
            ("", true, false, "its proxy does not say"),
            ("fe80::1", false, false, "fe80::1 is link-local"),
            (
                "127.0.0.1",
                true,
                true,
                "a header may not name 127.0.0.1: backends",
            ),
            (
                "10.0.0.1",
                true,
                true,
                "a header may not name 10.0.0.1, an address of this",
            ),
            (
                "::1",
                false,
                true,
                "no backend of the pool has an IPv6 address, as ::1",
            ),
            (
                "10.0.0.1",
                true,
                false,
                "no backend of the pool has an IPv4 address",
            ),
        ] {
            let told = why(address, is_named, is_own);
            assert!(told.starts_with(want), "{told}");
        }
    }

    #[test]
    fn parts_are_disjoint_and_cover_the_range() {
        for (first, last, of) in [(20_000, 39_999, 3), (1, 65_535, 17), (1, 274, 1), (5, 6, 1)] {
            let all = Ports::new(first, last).unwrap();
            let workers = (0..of).map(|number| User::Worker(number, of));
            let parts: Vec<_> = workers.map(|user| all.of(user)).collect();
            let sizes = parts.iter().map(|part| part.last - part.first);
            let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
            assert!(most - least <= 1, "{parts:?}");
            let probes = all.of(User::Probes);
            let all: Vec<_> = parts.into_iter().chain([probes]).collect();
            assert_eq!((all[0].first, probes.last), (first, last));
            for pair in all.windows(2) {
                assert_eq!(pair[0].last + 1, pair[1].first, "{pair:?}");
            }
        }
    }

    #[test]
    fn workers_share_a_narrow_range() {
        for (first, last, of) in [(5, 7, 3), (1_000, 1_541, 2)] {
            let few = Ports::new(first, last).unwrap();
            let probes = few.of(User::Probes);
            for number in 0..of {
                let part = few.of(User::Worker(number, of));
                assert_eq!((part.first, part.last + 1), (first, probes.first));
            }
        }
        let one = Ports::new(5, 5).unwrap();
        assert_eq!([one.of(User::Worker(0, 1)), one.of(User::Probes)], [one; 2]);
    }

    #[test]
    fn a_range_is_written_as_it_is_read() {
        for good in ["20000-39999", "1-65535", "7-7"] {
            let ports: Ports = good.parse().unwrap();
            assert_eq!(ports.to_string(), good);
        }
        for bad in ["", "7", "0-9", "9-7", "1-65536", "+1-9", "1 - 9", "1-2-3"] {
            assert_eq!(bad.parse::<Ports>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn a_backend_is_connected_to_from_its_own_family() {
        let origins = Origins {
            addresses: ["10.0.0.5", "fd00::5", "10.0.0.6"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
            at_client: false,
            ports: Ports::new(1_000, 1_999),
        };
        let count = |to: &str| origins.towards(&to.parse().unwrap()).addresses.len();
        assert_eq!([count("10.1.1.1:1"), count("[fd00::1]:1")], [2, 1]);
        let path = origins.towards(&"unix:/run/x".parse().unwrap());
        assert!(path.is_empty() && path.len() == 1);
        let second = origins.nth(2, User::Worker(0, 2));
        assert_eq!(second.address, Some("10.0.0.6".parse().unwrap()));
        assert_eq!(second.ports, Ports::new(1_000, 1_468));
    }

    #[test]
    fn a_client_is_followed_only_within_its_family() {
        let origins = Origins {
            at_client: true,
            ..Origins::default()
        };
        let fits = |client: Option<&str>, to: &str| {
            let to = to.parse().unwrap();
            let client = Client {
                address: client.map(|ip| ip.parse().unwrap()),
                is_named: false,
            };
            let fits = origins.towards(&to).fit(client, &to);
            // Elsewhere every client may be served.
            assert!(Origins::default().fit(client, &to));
            fits
        };
        assert!(fits(Some("192.0.2.7"), "10.0.0.1:80"));
        assert!(fits(Some("2001:db8::7"), "[fd00::1]:80"));
        assert!(!fits(Some("2001:db8::7"), "10.0.0.1:80"));
        assert!(!fits(Some("192.0.2.7"), "[fd00::1]:80"));
        assert!(!fits(None, "10.0.0.1:80"), "a client of a Unix socket");
        // A Unix socket sees no addresses at all.
        assert!(fits(None, "unix:/run/x") && fits(Some("192.0.2.7"), "unix:/run/x"));
    }

    #[test]
    fn a_header_names_no_client_whom_a_backend_would_trust() {
        let usable = |address: &str| {
            [false, true].map(|is_named| {
                let address = Some(address.parse().unwrap());
                Client { address, is_named }.is_usable()
            })
        };
        for host in ["192.0.2.7", "10.9.8.7", "2001:db8::7", "fd00::7"] {
            assert_eq!(usable(host), [true, true], "{host}");
        }
        for own in ["127.0.0.1", "127.9.9.9", "169.254.1.1", "::1"] {
            assert_eq!(usable(own), [true, false], "{own}");
        }
        for none in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::127.0.0.1",
            "fec0::1",
            "::",
            "ff02::1",
        ] {
            assert!(!usable(none)[1], "{none}");
        }
        // Its link is not known.
        assert_eq!(usable("fe80::7"), [false, false]);
    }

    #[test]
    fn a_probe_begins_at_this_machine_whatever_its_clients_are() {
        let origins = Origins {
            at_client: true,
            ports: Ports::new(1_000, 1_999),
            ..Origins::default()
        };
        assert!(!origins.is_empty() && origins.len() == 1);
        let probe = origins.nth(0, User::Probes);
        assert_eq!((probe.address, probe.is_clients), (None, false));
        let client = Client {
            address: "192.0.2.7".parse().ok(),
            is_named: false,
        };
        let own = origins.of_client(client, User::Worker(1, 2));
        assert_eq!((own.address, own.is_clients), (client.address, true));
        assert_eq!(own.ports, Ports::new(1_469, 1_937));
    }
}
