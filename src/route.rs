//! Routes: which of a listener's pools a client goes to.
//!
//! The routes of a listener are asked in their order, and the first that takes the client counts.
//! What a route asks of first bytes may not be known yet: then the answer is that more of them are
//! needed, unless the routes before and the route itself rule it out without them. An answer stays
//! whatever bytes follow.

#![forbid(unsafe_code)]

mod names;
mod why;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{self, Key, ROUTES_MAX, TlsClientName, TlvValue};
use crate::peek::proxy_protocol::TlvName;
use crate::peek::{FirstBytes, Miss, Name, Protocol};
use crate::prefix::Prefix;
use crate::select::{Plan, Rendezvous, hash_of};
use crate::session::SessionLimits;

use names::Names;
pub use why::{Met, ShareOf, VALUES_SHOWN};

/// The routes of a listener, compiled.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    all: Vec<Compiled>,
    /// Where they lead, by route; of those that share a pool's clients each pool.
    exits: Vec<Exit>,
    offers: Arc<Offers>,
    /// Sessions that have ended and that none of them took.
    unrouted: Arc<AtomicU64>,
    needs_bytes: bool,
    /// One of them asks for silence.
    take_silent: bool,
    /// What they were compiled from.
    written: Arc<[config::Route]>,
    /// [`Self::version`].
    version: u32,
}

/// Which route of its listener a session took, and to which of its pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteNumber(u16);

/// A pool that routes lead to.
#[derive(Clone, Debug)]
pub struct Routed {
    /// The pool.
    pub plan: Arc<Plan>,
    /// Deadlines and tries of its sessions.
    pub limits: SessionLimits,
}

#[derive(Clone, Debug)]
struct Compiled {
    conditions: Arc<Conditions>,
    /// The place of its first exit.
    exit: usize,
    /// Which of its exits a client takes, where there are several.
    shares: Option<Arc<Shares>>,
}

/// One pool of a route.
#[derive(Clone, Debug)]
struct Exit {
    /// The route's place.
    place: usize,
    /// `None`: clients are refused.
    to: Option<Routed>,
    /// Sessions that it took and that have ended. They outlive changes of other routes, and of
    /// weights.
    sessions: Arc<AtomicU64>,
}

/// How several pools share the clients of a route. Each client keeps its pool while weights of
/// others change, unless one that gains takes it.
#[derive(Debug)]
struct Shares {
    key: Key,
    pools: Rendezvous,
}

/// What a client must have: a value of each of them that is not empty.
#[derive(Debug)]
struct Conditions {
    clients: Vec<Prefix>,
    /// Of each of these TLVs one of the values.
    tlvs: Vec<(TlvName, Vec<TlvValue>)>,
    tls_clients: Vec<TlsClientName>,
    protocols: Vec<Protocol>,
    names: Names,
    /// It asks for an application protocol ([`Offers`]).
    asks_for_offer: bool,
    hosts: Names,
    paths: Vec<String>,
}

/// Application protocols (ALPN), each with the routes that ask for it. A hello may offer thousands,
/// and is walked once for all routes.
#[derive(Debug, Default)]
struct Offers(HashMap<Box<[u8]>, Places>);

/// The places of some routes of a listener, one bit for each.
#[derive(Clone, Copy, Debug, Default)]
struct Places([u64; ROUTES_MAX / 64]);

impl RouteNumber {
    /// No route took the client: it goes to the listener's own pool.
    pub const DEFAULT: Self = Self(0);

    /// As an index: that of the listener's own pool is 0, and those of routes follow.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }

    fn exit(self) -> Option<usize> {
        self.index().checked_sub(1)
    }

    fn of(exit: usize) -> Self {
        Self(u16::try_from(exit + 1).unwrap_or(0))
    }
}

impl Routes {
    /// Compiles routes; `to` is the pool at an index of the configuration. What `before` has of
    /// them is kept: there may be thousands of names, and a snapshot each second.
    #[must_use]
    pub fn new(
        routes: &[config::Route],
        to: impl Fn(usize) -> Routed,
        before: Option<&Self>,
    ) -> Self {
        let same = before.filter(|before| *before.written == *routes);
        // Those that changed may have other weights only, and ask for thousands of names.
        let alike = same.or_else(|| before.filter(|before| ask_the_same(&before.written, routes)));
        let mut exits = Vec::new();
        let mut all = Vec::with_capacity(routes.len());
        for (place, route) in routes.iter().enumerate() {
            let kept = alike.and_then(|alike| alike.all.get(place));
            let exit = exits.len();
            let to: Vec<_> = route.shares().map(|share| to(share.name)).collect();
            all.push(Compiled {
                conditions: kept.map_or_else(
                    || Arc::new(Conditions::new(route)),
                    |kept| Arc::clone(&kept.conditions),
                ),
                exit,
                shares: (to.len() > 1).then(|| Arc::new(Shares::new(route, &to))),
            });
            let is_refusal = to.is_empty();
            let stood = before.and_then(|before| match same {
                Some(_) => Some((before, place)),
                None => Some((before, place_before(before, route)?)),
            });
            let to = to.into_iter().map(Some);
            exits.extend(to.chain(is_refusal.then_some(None)).map(|to| Exit {
                place,
                sessions: counted_before(stood, to.as_ref()),
                to,
            }));
        }
        let is_as_before = |before: &&Self| {
            let mut both = before.written.iter().zip(routes);
            both.all(|(one, other)| one.key == other.key)
                && places(&before.exits).eq(places(&exits))
        };
        let version = match alike.filter(is_as_before) {
            Some(before) => before.version,
            None => before.map_or(0, |before| before.version) + 1,
        };
        Self {
            all,
            exits,
            offers: alike.map_or_else(
                || Arc::new(Offers::new(routes)),
                |alike| Arc::clone(&alike.offers),
            ),
            unrouted: before.map_or_else(Arc::default, |before| Arc::clone(&before.unrouted)),
            needs_bytes: routes.iter().any(config::Route::needs_bytes),
            take_silent: routes.iter().any(config::Route::asks_for_silence),
            written: same.map_or_else(|| routes.into(), |same| Arc::clone(&same.written)),
            version,
        }
    }

    /// Counts up where the listener gets other routes, and not where it gets other weights or names
    /// of them: with one version numbers mean the same.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether they are written as others are.
    #[must_use]
    pub fn are_written_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.written, &other.written) || *self.written == *other.written
    }

    /// The number of the listener's own pool, and those of the routes' pools.
    pub fn numbers(&self) -> impl Iterator<Item = RouteNumber> + use<> {
        let routes = (0..self.exits.len()).map(RouteNumber::of);
        std::iter::once(RouteNumber::DEFAULT).chain(routes)
    }

    /// Whether one of them looks at first bytes.
    #[must_use]
    pub fn need_bytes(&self) -> bool {
        self.needs_bytes
    }

    /// Whether one of them asks for a client that says nothing.
    #[must_use]
    pub fn take_silent(&self) -> bool {
        self.take_silent
    }

    /// Where a route leads; `None`: to the listener's own pool, or nowhere.
    #[must_use]
    pub fn to(&self, route: RouteNumber) -> Option<&Routed> {
        self.exits.get(route.exit()?)?.to.as_ref()
    }

    /// The place among the routes of one that a client took; `None`: none took it.
    #[must_use]
    pub fn place(&self, route: RouteNumber) -> Option<usize> {
        Some(self.exits.get(route.exit()?)?.place)
    }

    /// The name of a route that a client took, where it has one.
    #[must_use]
    pub fn name(&self, route: RouteNumber) -> Option<&str> {
        self.written.get(self.place(route)?)?.name.as_deref()
    }

    /// What they were compiled from.
    #[must_use]
    pub fn written(&self) -> &[config::Route] {
        &self.written
    }

    /// A session that took a route, or none, has ended.
    pub fn count(&self, route: RouteNumber) {
        let sessions = match route.exit() {
            Some(exit) => self.exits.get(exit).map(|exit| &exit.sessions),
            None => (!self.is_empty()).then_some(&self.unrouted),
        };
        if let Some(sessions) = sessions {
            sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sessions that have ended and that none of them took, since the listener has some.
    #[must_use]
    pub fn unrouted(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }

    /// The pools of all routes, each with the place of its route, and how many of the sessions that
    /// it took have ended; no pool where clients are refused.
    pub fn counts(&self) -> impl Iterator<Item = (usize, Option<&Routed>, u64)> {
        let sessions = |exit: &Exit| exit.sessions.load(Ordering::Relaxed);
        let exits = self.exits.iter();
        exits.map(move |exit| (exit.place, exit.to.as_ref(), sessions(exit)))
    }

    /// Whether a route refuses its clients.
    #[must_use]
    pub fn refuses(&self, route: RouteNumber) -> bool {
        let exit = route.exit().and_then(|exit| self.exits.get(exit));
        exit.is_some_and(|exit| exit.to.is_none())
    }

    /// The first route that leads to the pool of this number, and that has no addresses or one of
    /// which this is said.
    #[must_use]
    pub fn leading_to(&self, pool: u32, has: impl Fn(&Prefix) -> bool) -> Option<RouteNumber> {
        let leads = |exit: &Exit| {
            let to = exit.to.as_ref();
            let clients = &self.all[exit.place].conditions.clients;
            to.is_some_and(|to| to.plan.pool().number == pool)
                && (clients.is_empty() || clients.iter().any(&has))
        };
        self.exits.iter().position(leads).map(RouteNumber::of)
    }

    /// The route of a client with these first bytes; `None`: more of them are needed.
    #[must_use]
    pub fn decide(&self, client: Option<IpAddr>, first: &FirstBytes<'_>) -> Option<RouteNumber> {
        let offered = OnceCell::new();
        for (place, route) in self.all.iter().enumerate() {
            let is_offered = || {
                let places = offered.get_or_init(|| self.offers.of(first));
                places.map(|places| places.have(place))
            };
            match route.conditions.take(client, first, is_offered) {
                Ok(true) => return route.number(client, first),
                Ok(false) | Err(Miss::Absent) => {}
                Err(Miss::Incomplete) => return None,
            }
        }
        Some(RouteNumber::DEFAULT)
    }

    /// The route that takes a client for its silence; `None`: none does, and its first bytes may
    /// still come.
    #[must_use]
    pub fn decide_silent(
        &self,
        client: Option<IpAddr>,
        silence: &FirstBytes<'_>,
    ) -> Option<RouteNumber> {
        let route = self.decide(client, silence)?;
        let conditions = &self.all.get(self.place(route)?)?.conditions;
        conditions.ask_for_silence().then_some(route)
    }

    /// The same routes to other plans of their pools, where `newer` has one.
    #[must_use]
    pub fn with_plans(&self, newer: impl Fn(&Arc<Plan>) -> Option<Arc<Plan>>) -> Self {
        let mut routes = self.clone();
        for to in routes.exits.iter_mut().filter_map(|exit| exit.to.as_mut()) {
            if let Some(plan) = newer(&to.plan) {
                to.plan = plan;
            }
        }
        routes
    }
}

/// Whether routes ask for the same clients as others, one by one.
fn ask_the_same(some: &[config::Route], others: &[config::Route]) -> bool {
    let mut both = some.iter().zip(others);
    some.len() == others.len() && both.all(|(one, other)| one.asks_the_same(other))
}

/// Of each exit the place of its route, and the number of its pool.
fn places(exits: &[Exit]) -> impl Iterator<Item = (usize, Option<u32>)> {
    let number = |exit: &Exit| exit.to.as_ref().map(|to| to.plan.pool().number);
    exits.iter().map(move |exit| (exit.place, number(exit)))
}

/// Where a route stood before: the one of its name, or else the one for the same clients, if the
/// two have no other names.
fn place_before(before: &Routes, route: &config::Route) -> Option<usize> {
    let mut written = before.written.iter();
    let namesake = |its: &config::Route| its.name.is_some() && its.name == route.name;
    let is_same = |its: &config::Route| {
        (its.name.is_none() || route.name.is_none()) && its.asks_the_same(route)
    };
    let found = written.clone().position(namesake);
    found.or_else(|| written.position(is_same))
}

/// The count of a route's pool, which goes on where the route stays and leads to the same pool.
fn counted_before(before: Option<(&Routes, usize)>, to: Option<&Routed>) -> Arc<AtomicU64> {
    let number = |to: Option<&Routed>| to.map(|to| to.plan.pool().number);
    let exit = before.and_then(|(before, place)| {
        let mut exits = before.exits.iter();
        exits.find(|exit| exit.place == place && number(exit.to.as_ref()) == number(to))
    });
    exit.map_or_else(Arc::default, |exit| Arc::clone(&exit.sessions))
}

impl Compiled {
    /// The number of the pool that one of its clients goes to; `None`: more first bytes are needed.
    fn number(&self, client: Option<IpAddr>, first: &FirstBytes<'_>) -> Option<RouteNumber> {
        let Some(shares) = &self.shares else {
            return Some(RouteNumber::of(self.exit));
        };
        let key = hash_of(&shares.key, client, first)?;
        let mut best = [0];
        shares.pools.best(key, &mut best);
        Some(RouteNumber::of(self.exit + usize::from(best[0])))
    }
}

impl Shares {
    fn new(route: &config::Route, to: &[Routed]) -> Self {
        let names = to.iter().map(|to| &*to.plan.pool().name);
        let weights = route.shares().map(|share| u32::from(share.weight));
        Self {
            key: route.key.clone(),
            pools: Rendezvous::new(names.zip(weights)),
        }
    }
}

impl Conditions {
    fn new(route: &config::Route) -> Self {
        Self {
            clients: route.client.clone(),
            tlvs: by_name(&route.proxy_tlv),
            tls_clients: route.tls_client.clone(),
            protocols: route.protocol.clone(),
            names: Names::new(&route.sni),
            asks_for_offer: !route.alpn.is_empty(),
            hosts: Names::new(&route.http_host),
            paths: route.http_path.clone(),
        }
    }

    fn ask_for_silence(&self) -> bool {
        self.protocols.contains(&Protocol::ServerFirst)
    }

    /// Whether the client speaks one of the protocols. One byte tells that it does not wait for
    /// its server.
    fn protocol_is_met(&self, first: &FirstBytes<'_>) -> Result<bool, Miss> {
        let wait_for_server = *self.protocols == [Protocol::ServerFirst];
        match first.protocol() {
            _ if first.follow_postgres() && self.protocols.contains(&Protocol::Postgres) => {
                Ok(true)
            }
            Err(Miss::Incomplete) if wait_for_server && first.have_come() => Ok(false),
            told => told.map(|its| self.protocols.contains(&its)),
        }
    }

    /// Whether the client is one of the route's. What one condition rules out needs no more bytes
    /// for another.
    fn take(
        &self,
        client: Option<IpAddr>,
        first: &FirstBytes<'_>,
        is_offered: impl FnOnce() -> Result<bool, Miss>,
    ) -> Result<bool, Miss> {
        let ip = client.map(|ip| ip.to_canonical());
        let is_in = |prefix: &Prefix| ip.is_some_and(|ip| prefix.contains(ip));
        if !self.clients.is_empty() && !self.clients.iter().any(is_in) {
            return Ok(false);
        }
        self.take_besides(first, is_offered)
    }

    /// The same of a client that has the address that they ask for.
    fn take_besides(
        &self,
        first: &FirstBytes<'_>,
        is_offered: impl FnOnce() -> Result<bool, Miss>,
    ) -> Result<bool, Miss> {
        let says = |(name, values): &(TlvName, Vec<TlvValue>)| {
            let value = first.proxy_tlv(*name);
            value.is_ok_and(|value| values.iter().any(|one| is_said(one, value)))
        };
        if !self.tlvs.iter().all(says) {
            return Ok(false);
        }
        let mut answer = Ok(true);
        let mut is_met = |met: Result<bool, Miss>| {
            if met == Err(Miss::Incomplete) {
                answer = Err(Miss::Incomplete);
            }
            matches!(met, Ok(true) | Err(Miss::Incomplete))
        };
        let of_protocol = || self.protocol_is_met(first);
        let of_name = || {
            first
                .server_name()
                .map(|name| self.names.have(name.as_bytes()))
        };
        let of_host = || {
            first
                .http_host()
                .map(|name| self.hosts.have(name.as_bytes()))
        };
        let starts = |path: &[u8]| {
            self.paths
                .iter()
                .any(|its| path.starts_with(its.as_bytes()))
        };
        let of_path = || first.http_path().map(starts);
        let of_client = || {
            let client = first.tls_client()?;
            Ok(self.tls_clients.iter().any(|one| one.is_of(client)))
        };
        let are_met = (self.tls_clients.is_empty() || is_met(of_client()))
            && (self.protocols.is_empty() || is_met(of_protocol()))
            && (self.names.is_empty() || is_met(of_name()))
            && (!self.asks_for_offer || is_met(is_offered()))
            && (self.hosts.is_empty() || is_met(of_host()))
            && (self.paths.is_empty() || is_met(of_path()));
        if are_met { answer } else { Ok(false) }
    }
}

/// The values of each TLV that a route names.
fn by_name(all: &[config::ProxyTlv]) -> Vec<(TlvName, Vec<TlvValue>)> {
    let mut by_name: Vec<(TlvName, Vec<TlvValue>)> = Vec::new();
    for one in all {
        match by_name.iter_mut().find(|(name, _)| *name == one.name) {
            Some((_, values)) => values.push(one.value.clone()),
            None => by_name.push((one.name, vec![one.value.clone()])),
        }
    }
    by_name
}

/// Whether the value of a TLV is one of these.
fn is_said(expected: &TlvValue, value: &[u8]) -> bool {
    match expected {
        TlvValue::Bytes(bytes) => bytes == value,
        TlvValue::Host(pattern) => {
            Name::read(value.iter().copied()).is_some_and(|name| pattern.fits(name.as_bytes()))
        }
    }
}

impl Offers {
    fn new(routes: &[config::Route]) -> Self {
        let mut all = HashMap::<Box<[u8]>, Places>::new();
        for (place, route) in routes.iter().enumerate() {
            for name in &route.alpn {
                all.entry(name.as_bytes().into()).or_default().add(place);
            }
        }
        Self(all)
    }

    /// The routes that ask for something that these first bytes offer.
    fn of(&self, first: &FirstBytes<'_>) -> Result<Places, Miss> {
        let mut places = Places::default();
        first.each_offer(|name| {
            if let Some(some) = self.0.get(name) {
                places.join(some);
            }
        })?;
        Ok(places)
    }
}

impl Places {
    fn add(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn join(&mut self, other: &Self) {
        let words = self.0.iter_mut().zip(other.0);
        words.for_each(|(word, other)| *word |= other);
    }

    fn have(self, place: usize) -> bool {
        let word = self.0.get(place / 64);
        word.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }
}

#[cfg(test)]
mod tests;
