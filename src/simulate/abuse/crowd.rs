//! The crowds: who connects, how often, from where, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use serde::Serialize;

use super::super::chance::TimeDistribution;

/// Clients of one kind.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Unique among crowds.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// What it takes too much of; `None`: its clients are good.
    pub abuse: Option<Abuse>,
    /// How many clients it has.
    pub clients: u32,
    /// Visits of the whole crowd in a second. They come at random.
    pub(super) visits: f64,
    /// Connections that a visit opens, [`APART`](super::engine::APART) one after the other.
    pub(super) connections: u32,
    /// How long a connection lasts.
    pub(super) lasts: TimeDistribution,
    /// Where its addresses are.
    pub(super) home: Home,
}

/// What abuse takes too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Abuse {
    /// Connections that are open at a time.
    Connections,
    /// New connections.
    Rate,
}

/// The addresses of a crowd.
#[derive(Clone, Copy, Debug)]
pub(super) enum Home {
    /// One for all clients.
    One(Ipv4Addr),
    /// An IPv4 address for each client, from this one on.
    Each(Ipv4Addr),
    /// A network of this length for each client, the networks one after the other, from this one
    /// on.
    Networks(Ipv6Addr, u8),
    /// Another /64 for each connection, in turn, of so many from this one on.
    Rotating(Ipv6Addr, u32),
}

impl Crowd {
    /// The good ones, and then the abusive ones.
    #[must_use]
    pub fn all() -> [Self; 8] {
        [
            Self {
                name: "homes",
                about: "1,000 clients, each with an IPv4 address of its own",
                ..Self::browsers(1_000, Home::Each(Ipv4Addr::new(198, 18, 0, 0)))
            },
            Self {
                name: "nat",
                about: "500 clients behind one IPv4 address: an office, or a mobile network",
                ..Self::browsers(500, Home::One(Ipv4Addr::new(203, 0, 113, 1)))
            },
            Self {
                name: "homes_v6",
                about: "256 clients, each with an IPv6 /56 of its own, all in one /48",
                ..Self::browsers(256, Home::Networks(network(1), 56))
            },
            Self {
                name: "phones_v6",
                about: "512 clients, each with an IPv6 /64 of its own, in two /56s side by side",
                ..Self::browsers(512, Home::Networks(network(2), 64))
            },
            Self::abusive(
                "flood",
                "one IPv4 address that opens 2,000 connections a second",
                (Abuse::Rate, 2_000.0, 0.2),
                Home::One(Ipv4Addr::new(192, 0, 2, 1)),
            ),
            Self::abusive(
                "holder",
                "one IPv4 address that opens 20 connections a second and keeps them for minutes",
                (Abuse::Connections, 20.0, 600.0),
                Home::One(Ipv4Addr::new(192, 0, 2, 2)),
            ),
            Self::abusive(
                "rotates_56",
                "500 connections a second, each from the next /64 of an IPv6 /56",
                (Abuse::Rate, 500.0, 1.0),
                Home::Rotating(network(3), 1 << 8),
            ),
            Self::abusive(
                "rotates_48",
                "500 connections a second, each from the next /64 of an IPv6 /48",
                (Abuse::Rate, 500.0, 1.0),
                Home::Rotating(network(4), 1 << 16),
            ),
        ]
    }

    /// Browsers: each comes once a minute on average, with the six connections that browsers open
    /// to a host that speaks HTTP/1, and keeps them for 20 s on average.
    fn browsers(clients: u32, home: Home) -> Self {
        Self {
            name: "",
            about: "",
            abuse: None,
            clients,
            visits: f64::from(clients) / 60.0,
            connections: 6,
            lasts: TimeDistribution::Exponential { mean: 20.0 },
            home,
        }
    }

    fn abusive(
        name: &'static str,
        about: &'static str,
        (abuse, a_second, lasts): (Abuse, f64, f64),
        home: Home,
    ) -> Self {
        Self {
            name,
            about,
            abuse: Some(abuse),
            clients: 1,
            visits: a_second,
            connections: 1,
            lasts: TimeDistribution::Exponential { mean: lasts },
            home,
        }
    }

    /// The address of a client, of which this is the crowd's `nth` connection.
    pub(super) fn address(&self, client: u32, nth: u32, rng: &mut Rng) -> IpAddr {
        let mut interface = || u128::from(rng.u64(..));
        match self.home {
            Home::One(ip) => ip.into(),
            Home::Each(first) => Ipv4Addr::from_bits(first.to_bits() + client).into(),
            Home::Networks(first, length) => {
                let bits = u128::from(client) << (128 - u32::from(length));
                Ipv6Addr::from_bits((first.to_bits() + bits) | interface()).into()
            }
            Home::Rotating(first, networks) => {
                let bits = u128::from(nth % networks) << 64;
                Ipv6Addr::from_bits((first.to_bits() + bits) | interface()).into()
            }
        }
    }
}

/// A /48 of the prefix for documents (RFC 3849).
const fn network(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xDB8, number, 0, 0, 0, 0, 0)
}
