//! Why a route takes a client: which of its conditions hold, and which of its pools the client
//! goes to.

use std::net::IpAddr;

use super::{Compiled, RouteNumber, Routes, is_said};
use crate::config::{self, Key, TlsClientName};
use crate::peek::{FirstBytes, Miss, Name, NamePattern, Peeked, Protocol};
use crate::prefix::Prefix;

/// A condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its setting, such as `sni`.
    pub setting: &'static str,
    /// Those of its values that the client has, or all where that is not known: the first
    /// [`VALUES_SHOWN`].
    pub values: Vec<String>,
    /// How many there are beside.
    pub more: usize,
}

/// One of several pools that share the clients of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareOf {
    /// The weight of the pool.
    pub weight: u16,
    /// How many of the route's clients go to it, in percent.
    pub percent: f64,
    /// What keeps a client with its pool, such as `source_ip`.
    pub key: String,
    /// The client's first bytes lack the key, and its address stands in; `None`: not known.
    pub missed: Option<bool>,
}

impl Routes {
    /// The conditions of a route that took a client, in the order of a file; none: it takes all.
    #[must_use]
    pub fn met(
        &self,
        route: RouteNumber,
        client: Option<IpAddr>,
        first: &FirstBytes<'_>,
    ) -> Vec<Met> {
        let place = self.place(route);
        let Some(its) = place.and_then(|place| self.written.get(place)) else {
            return Vec::new();
        };
        let named = |name: Result<&Name, Miss>, patterns: &[NamePattern]| {
            let fits = |one: &NamePattern| name.is_ok_and(|name| one.fits(name.as_bytes()));
            of(patterns, fits, NamePattern::to_string)
        };
        let ip = client.map(|ip| ip.to_canonical());
        let is_from = |prefix: &Prefix| ip.is_some_and(|ip| prefix.contains(ip));
        let speaks = |one: &Protocol| {
            first.protocol() == Ok(*one) || *one == Protocol::Postgres && first.follow_postgres()
        };
        let mut offers = Vec::new();
        // Without a hello there are none.
        let _ = first.each_offer(|name| offers.push(name.to_vec()));
        let says = |one: &config::ProxyTlv| {
            let value = first.proxy_tlv(one.name);
            value.is_ok_and(|value| is_said(&one.value, value))
        };
        let shows = |one: &TlsClientName| first.tls_client().is_ok_and(|its| one.is_of(its));
        let path = first.http_path();
        let starts = |one: &String| path.is_ok_and(|path| path.starts_with(one.as_bytes()));
        let all = [
            ("sni", named(first.server_name(), &its.sni)),
            (
                "alpn",
                of(
                    &its.alpn,
                    |one| offers.iter().any(|offer| offer == one.as_bytes()),
                    String::clone,
                ),
            ),
            (
                "protocol",
                of(&its.protocol, speaks, |one| {
                    Protocol::ALL[*one as usize].0.to_owned()
                }),
            ),
            ("client", of(&its.client, is_from, ToString::to_string)),
            ("proxy_tlv", of(&its.proxy_tlv, says, ToString::to_string)),
            (
                "tls_client",
                of(&its.tls_client, shows, ToString::to_string),
            ),
            ("http_host", named(first.http_host(), &its.http_host)),
            ("http_path", of(&its.http_path, starts, String::clone)),
        ];
        let given = all
            .into_iter()
            .filter(|(_, (values, _))| !values.is_empty());
        given
            .map(|(setting, (values, more))| Met {
                setting,
                values,
                more,
            })
            .collect()
    }

    /// Whether it is the first pool of its route.
    #[must_use]
    pub fn is_first_of_route(&self, route: RouteNumber) -> bool {
        let place = self.place(route);
        let its = place.and_then(|place| self.all.get(place));
        its.is_some_and(|its| Some(its.exit) == route.exit())
    }

    /// Whether the address of a client, which took this route without one, may lead it elsewhere:
    /// a route before asks for an address alone that it lacks, or the pools of this one share their
    /// clients by it.
    #[must_use]
    pub fn need_address(&self, route: RouteNumber, first: &FirstBytes<'_>) -> bool {
        let place = self.place(route);
        let before = self.all.iter().take(place.unwrap_or(self.all.len()));
        let offered = self.offers.of(first);
        let lacks_address = |(place, its): (usize, &Compiled)| {
            let is_offered = || offered.map(|offered| offered.have(place));
            let conditions = &its.conditions;
            !conditions.clients.is_empty() && conditions.take_besides(first, is_offered) == Ok(true)
        };
        let shares = place.and_then(|place| self.all.get(place)?.shares.as_ref());
        let shares_by_address = shares.is_some_and(|shares| match &shares.key {
            Key::Peeked(field) => first.key(field) == Peeked::Absent,
            Key::SourceIp { .. } | Key::SourceIpPort => true,
        });
        shares_by_address || before.enumerate().any(lacks_address)
    }

    /// The share that the pool of a route has of its clients; `None`: it has them all.
    #[must_use]
    pub fn share(&self, route: RouteNumber, first: &FirstBytes<'_>) -> Option<ShareOf> {
        let exit = route.exit()?;
        let place = self.place(route)?;
        let compiled = self.all.get(place)?;
        let shares = compiled.shares.as_ref()?;
        let weights: Vec<_> = self
            .written
            .get(place)?
            .shares()
            .map(|its| its.weight)
            .collect();
        let own = weights.get(exit.checked_sub(compiled.exit)?)?;
        let all: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        Some(ShareOf {
            weight: *own,
            percent: 100.0 * f64::from(*own) / f64::from(all.max(1)),
            key: shares.key.to_string(),
            missed: Some(match &shares.key {
                Key::Peeked(field) => first.key(field) == Peeked::Absent,
                Key::SourceIp { .. } | Key::SourceIpPort => false,
            }),
        })
    }
}

/// The values that fit, as they are written, and how many there are beside; all values where none
/// is known to fit.
fn of<T>(
    all: &[T],
    fits: impl Fn(&T) -> bool,
    written: impl Fn(&T) -> String,
) -> (Vec<String>, usize) {
    let fitting: Vec<_> = all.iter().filter(|one| fits(one)).collect();
    let shown = match fitting.is_empty() {
        true => all.iter().collect(),
        false => fitting,
    };
    let few = shown.iter().take(VALUES_SHOWN).map(|one| written(one));
    (few.collect(), shown.len().saturating_sub(VALUES_SHOWN))
}

/// Values of a condition that are shown at most: there may be thousands.
pub const VALUES_SHOWN: usize = 8;
