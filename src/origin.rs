//! Where connections to backends begin: addresses of this machine, and local ports.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::address::Address;

/// What connections to the backends of a pool may begin at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origins {
    /// Addresses of this machine, each in turn for backends of its family; none of a family: the
    /// kernel chooses by its routes.
    pub addresses: Vec<IpAddr>,
    /// Local ports; `None`: those of `net.ipv4.ip_local_port_range`.
    pub ports: Option<Ports>,
}

/// What one connection begins at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The kernel chooses where there is none.
    pub address: Option<IpAddr>,
    /// The kernel takes one of these, or of its own range.
    pub ports: Option<Ports>,
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
            ports: self.ports,
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
        self.addresses.is_empty() && self.ports.is_none()
    }

    /// The n-th, with the ports that are this user's.
    #[must_use]
    pub fn nth(&self, n: usize, user: User) -> Origin {
        Origin {
            address: self.addresses.get(n).copied(),
            ports: self.ports.map(|ports| ports.of(user)),
        }
    }
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
}
