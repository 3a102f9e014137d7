//! Snapshots: what the workers route by. They are immutable, numbered and published as a whole.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::address::Address;
use crate::by_name::ByName;
use crate::config::{self, Config, ProxySource};
use crate::guard::{
    AccessFilter, AccessFilters, Action, Admission, BanRule, Bans, Example, Gate, Limit,
    ListenerBandwidth, Meters, PeerStage, Pit, Rules, Sources, Trusted,
};
use crate::peek::FirstBytes;
use crate::peek::proxy_protocol::CheckedTlvs;
use crate::pool::{Cancels, Pool, Standing, Tally, Traffic};
use crate::prefix::Prefix;
use crate::route::{RouteNumber, Routed, Routes};
use crate::select::Plan;
use crate::session::SessionLimits;
use crate::shared::Shared;
use crate::time::{NEVER, nanos};
use crate::tls::{Originator, Terminator, TlsByOwner};

/// All that workers need to know at one moment. A session keeps the snapshot's parts that it began
/// with.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts up with every publication.
    pub version: u64,
    /// The listeners; the index is the listener's number.
    pub listeners: Vec<Arc<LiveListener>>,
    /// The pools, whether a listener uses them or not.
    pub pools: Vec<Arc<Plan>>,
    /// Client connections of all listeners and workers.
    pub connections: Arc<Limit>,
    /// Which clients may connect, by the ids of the listeners that do not let all in. Sessions keep
    /// their listener, and must not keep a table of a million prefixes with it.
    pub access: HashMap<u64, Arc<AccessFilter>>,
    /// What is counted of clients' sources.
    pub sources: Arc<Sources>,
    /// Networks whose clients are refused by every listener.
    pub bans: Arc<Bans>,
    /// What is done with clients that are banned.
    pub ban_action: Action,
    /// Networks that no ban concerns.
    pub trusted: Arc<Trusted>,
    /// Where refused clients are held.
    pub pit: Pit,
    /// How workers take accepted clients in.
    pub admission: Admission,
    /// How many listeners there have been; the id of the next new one.
    pub listeners_made: u64,
    /// The bandwidth of all sessions together. It outlives snapshots.
    pub bandwidth: Arc<Meters>,
    /// Whether bandwidth is limited anywhere.
    pub has_bandwidth_limits: bool,
}

/// A composed snapshot that is not in force. To drop it has no effect.
#[derive(Debug)]
pub struct Draft<'a> {
    next: Snapshot,
    before: Option<&'a Snapshot>,
    config: &'a Config,
    max_connections: u32,
}

/// A bound address with the pools behind it.
#[derive(Clone, Debug)]
pub struct LiveListener {
    /// Stays the same over all snapshots while it listens, whatever else changes. New listeners
    /// count up in the order of their snapshot.
    pub id: u64,
    /// Unique among listeners.
    pub name: String,
    /// Where it listens.
    pub bind: Address,
    /// The pool that its sessions go to, unless a route takes them.
    pub plan: Arc<Plan>,
    /// Which clients go elsewhere.
    pub routes: Routes,
    /// Client connections of this listener over all workers.
    pub connections: Arc<Limit>,
    /// Bytes of its sessions.
    pub traffic: Arc<Traffic>,
    /// Of a removed Unix listener: when its file was gone, in ns of the workers' clock; [`NEVER`]
    /// while it is being removed, 0 before that.
    pub file_gone_at: Arc<AtomicU64>,
    /// The proxies that connect for its clients; `None`: clients connect themselves.
    pub proxies: Option<Proxies>,
    /// The limits of its new connections.
    pub rules: Rules,
    /// When sources are banned that such limits, or others, refuse.
    pub ban: Option<BanRule>,
    /// What those limits, its access list and bans count.
    pub gate: Arc<Gate>,
    /// Deadlines and tries of sessions that no route takes.
    pub limits: SessionLimits,
    /// The bandwidth of its sessions.
    pub bandwidth: Arc<ListenerBandwidth>,
    /// What is done with requests of PostgreSQL.
    pub postgres: Postgres,
    /// The TLS of its clients, where it ends here.
    pub tls: Option<Arc<Terminator>>,
}

/// What a listener does with requests of PostgreSQL clients that stand before a session.
#[derive(Clone, Debug, Default)]
pub struct Postgres {
    /// It answers those for TLS, which goes on to the backend.
    pub answers_tls: bool,
    /// It answers those for TLS, which ends here.
    pub ends_tls: bool,
    /// Where sessions are that clients may ask to cancel; `None`: such requests are like others.
    pub cancels: Option<Arc<Cancels>>,
    /// A backend that had no TLS for a client, for the report.
    pub refused: Arc<Example>,
}

/// The proxies of a listener: each of their connections begins with a header that names its client.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// Which peers they are, and what is counted of them.
    pub stage: Arc<PeerStage>,
    /// How long a header may take since the accept, in ns.
    pub timeout: u64,
}

impl Snapshot {
    /// The pool of this name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        let mut pools = self.pools.iter().map(|plan| plan.pool());
        pools.find(|pool| pool.name == name)
    }

    /// Whether clients of an address are refused now.
    #[must_use]
    pub fn is_banned(&self, ip: IpAddr, now: u64) -> bool {
        self.bans.refuses(ip, &self.trusted, now)
    }

    /// Composes the snapshot of a configuration with its access lists, which is to replace the one
    /// before. Counts and tables are kept: those of pools by name, of backends by name and address,
    /// of listeners by address. `max_connections` is what the configuration or the descriptor limit
    /// allows in all; `standings` is what is known of the backends of the pool at an index of the
    /// configuration, in their order, and `has_changed` whether that, or the pool, may have changed
    /// since `before`.
    ///
    /// Workers see no difference before [`Draft::take_effect`].
    #[must_use]
    pub fn compose<'a, Standings: Iterator<Item = Standing>>(
        before: Option<&'a Self>,
        (config, access, tls): (&'a Config, &AccessFilters, &TlsByOwner),
        max_connections: u32,
        standings: impl Fn(usize) -> Standings,
        has_changed: impl Fn(usize) -> bool,
    ) -> Draft<'a> {
        let pools = compose_pools(before, (config, tls), standings, has_changed);
        let sources = before.map_or_else(
            || Arc::new(Sources::new(config.source_table)),
            |before| Arc::clone(&before.sources),
        );
        let bans = before.map_or_else(
            || Arc::new(Bans::new(config.bans.max)),
            |before| Arc::clone(&before.bans),
        );
        let trusted = trusted(before, config);
        let (listeners, listeners_made) =
            compose_listeners(before, (config, tls), &pools, &sources);
        let filters = listeners.iter().zip(&config.listeners);
        let filters = filters.filter_map(|(listener, config)| {
            let filter = access.get(config.access_list.as_ref()?)?;
            Some((listener.id, Arc::clone(filter)))
        });
        let filters = filters.collect();
        let unbounded = || Arc::new(Limit::unbounded());
        let connections = before.map(|before| Arc::clone(&before.connections));
        let next = Self {
            version: before.map_or(0, |before| before.version) + 1,
            listeners,
            pools,
            connections: connections.unwrap_or_else(unbounded),
            access: filters,
            sources,
            bans,
            ban_action: config.bans.action,
            trusted,
            pit: pit(before, config),
            admission: admission(config),
            listeners_made,
            bandwidth: before.map_or_else(Arc::default, |before| Arc::clone(&before.bandwidth)),
            has_bandwidth_limits: config.limits_bandwidth(),
        };
        Draft {
            next,
            before,
            config,
            max_connections,
        }
    }

    /// The same, with new ids for these listeners: their sockets are replaced.
    #[must_use]
    pub fn with_new_sockets(&self, ids: &[u64]) -> Self {
        let mut made = self.listeners_made;
        let mut access = self.access.clone();
        let listeners = self.listeners.iter().map(|old| {
            if !ids.contains(&old.id) {
                return Arc::clone(old);
            }
            made += 1;
            if let Some(filter) = access.remove(&old.id) {
                access.insert(made - 1, filter);
            }
            Arc::new(LiveListener {
                id: made - 1,
                file_gone_at: Arc::default(),
                ..LiveListener::clone(old)
            })
        });
        Self {
            listeners: listeners.collect(),
            access,
            listeners_made: made,
            ..self.clone()
        }
    }

    /// Whether the sessions of this backend, which went down, are still to be closed: it has left
    /// the snapshot, or it is down and its pool closes them.
    #[must_use]
    pub fn closes_or_lacks(&self, tally: &Arc<Tally>) -> bool {
        let mut pools = self.pools.iter().map(|plan| plan.pool());
        pools.all(|pool| {
            let mut backends = pool.backends.iter();
            let found = backends.find(|backend| Arc::ptr_eq(&backend.tally, tally));
            found.is_none_or(|backend| pool.closes_over(backend).is_some())
        })
    }

    /// Whether a removed backend has lost its last session since, so that it can be dropped.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.pools.iter().any(|plan| plan.pool().has_left())
    }

    /// For each listener of a configuration the one of this snapshot with its address; `None`: its
    /// address is new.
    #[must_use]
    pub fn staying(&self, config: &Config) -> Vec<Option<&LiveListener>> {
        // Several may have port 0: then names decide, and none counts twice.
        let mut left: HashMap<&Address, Vec<&LiveListener>> = HashMap::new();
        for old in &self.listeners {
            left.entry(&old.bind).or_default().push(old);
        }
        let stay = config.listeners.iter().map(|listener| {
            let same = left.get_mut(&listener.bind)?;
            let namesake = same.iter().position(|old| old.name == listener.name);
            let found = namesake.or_else(|| (!same.is_empty()).then_some(0))?;
            Some(same.remove(found))
        });
        stay.collect()
    }
}

impl Draft<'_> {
    /// Sets the limits of the snapshot, for all workers at once, and readmits backends that can no
    /// longer be ejected. Pools that are the same as before are not touched. The snapshot is to be
    /// published at once.
    #[must_use]
    pub fn take_effect(self) -> Snapshot {
        let next = self.next;
        next.connections.set_max(self.max_connections);
        let is_shared = self.config.fleet_max_connections.is_some();
        next.connections.set_shared(is_shared);
        let is_shared = self.config.rate_limit.is_some_and(|limit| limit.fleet);
        next.sources.fleet_rate.set_shared(is_shared);
        next.bans.set_max(self.config.bans.max);
        next.pit.slots.set_max(self.config.tarpit.slots.get());
        next.bandwidth.set(self.config.bandwidth.by_way());
        for (listener, config) in next.listeners.iter().zip(&self.config.listeners) {
            let max = config.max_connections.map_or(u32::MAX, NonZeroU32::get);
            listener.connections.set_max(max);
            let is_shared = config.fleet_max_connections.is_some();
            listener.connections.set_shared(is_shared);
            let is_shared = config.rate_limit.is_some_and(|limit| limit.fleet);
            listener.gate.fleet_rate.set_shared(is_shared);
            if let Some(proxies) = &listener.proxies {
                let max = config.unfinished_headers.get();
                proxies.stage.set_unfinished_max(max);
            }
            listener
                .bandwidth
                .session
                .set(config.bandwidth.session.by_way());
            listener
                .bandwidth
                .source
                .set(config.bandwidth.source.by_way());
            listener.bandwidth.all.set(config.bandwidth.all.by_way());
        }
        let before = plans_by_name(self.before);
        for (place, plan) in next.pools.iter().enumerate() {
            let pool = plan.pool();
            match before.get(place, &pool.name) {
                Some(old) if Arc::ptr_eq(old, plan) => {}
                old => pool.take_effect(old.map(|old| &**old.pool())),
            }
        }
        next
    }
}

fn trusted(before: Option<&Snapshot>, config: &Config) -> Arc<Trusted> {
    let before = before.map(|before| &before.trusted);
    match before.filter(|its| its.prefixes() == config.trusted) {
        Some(same) => Arc::clone(same),
        None => Arc::new(Trusted::new(&config.trusted)),
    }
}

/// The pools of a configuration, with the arguments of [`Snapshot::compose`].
fn compose_pools<Standings: Iterator<Item = Standing>>(
    before: Option<&Snapshot>,
    (config, tls): (&Config, &TlsByOwner),
    standings: impl Fn(usize) -> Standings,
    has_changed: impl Fn(usize) -> bool,
) -> Vec<Arc<Plan>> {
    let known = plans_by_name(before);
    let is_same = |old: &Pool, place, pool: &Shared<config::Pool>| match has_changed(place) {
        true => old.is_unchanged(pool, standings(place)),
        false => !old.has_left(),
    };
    let plan = |(place, pool): (usize, &Shared<config::Pool>)| {
        match known.get(place, &pool.name) {
            // Its tables take time to make, and would be the same.
            Some(old) if is_same(old.pool(), place, pool) => Arc::clone(old),
            old => {
                let before = old.map(|old| &**old.pool());
                let mut pool = Pool::compose(pool, before, standings(place));
                pool.tls = pool.config.tls.as_ref().map(|_| {
                    let known = tls.pools.get(&pool.name).map(Arc::clone);
                    known.unwrap_or_else(|| Arc::new(Originator::unread()))
                });
                Arc::new(Plan::new(Arc::new(pool)))
            }
        }
    };
    config.pools.iter().enumerate().map(plan).collect()
}

fn plans_by_name(snapshot: Option<&Snapshot>) -> ByName<'_, Arc<Plan>> {
    let plans = snapshot.map_or(&[][..], |snapshot| &snapshot.pools);
    ByName::new(plans, |plan| &plan.pool().name)
}

impl LiveListener {
    /// A listener without rules.
    fn new(
        (id, gate): (u64, Arc<Gate>),
        config: &config::Listener,
        pools: &[Arc<Plan>],
        old: Option<&Self>,
    ) -> Self {
        let postgres = postgres(config, old);
        let peeks = config.pools().any(|pool| pools[pool].peeks())
            || config.routes.iter().any(config::Route::needs_bytes)
            || postgres.needs_bytes();
        let to = |pool: usize| Routed {
            limits: limits(config, &pools[pool], peeks),
            plan: Arc::clone(&pools[pool]),
        };
        let Routed { plan, limits } = to(config.pool);
        let connections = match old {
            Some(old) => Arc::clone(&old.connections),
            None => Arc::new(Limit::unbounded()),
        };
        Self {
            id,
            name: config.name.clone(),
            bind: config.bind.clone(),
            connections,
            traffic: old.map_or_else(Arc::default, |old| Arc::clone(&old.traffic)),
            file_gone_at: old.map_or_else(Arc::default, |old| Arc::clone(&old.file_gone_at)),
            proxies: proxies(config, old.and_then(|old| old.proxies.as_ref())),
            rules: Rules::default(),
            ban: ban(config),
            gate,
            limits,
            routes: Routes::new(&config.routes, to, old.map(|old| &old.routes)),
            bandwidth: old.map_or_else(Arc::default, |old| Arc::clone(&old.bandwidth)),
            postgres,
            plan,
            tls: None,
        }
    }
}

impl Postgres {
    /// Whether a client's first bytes are looked at for such requests.
    #[must_use]
    pub fn needs_bytes(&self) -> bool {
        self.answers_tls || self.cancels.is_some()
    }
}

fn postgres(config: &config::Listener, old: Option<&LiveListener>) -> Postgres {
    let known = old.and_then(|old| old.postgres.cancels.clone());
    let answers = config.postgres_tls == config::PostgresTls::Answer;
    Postgres {
        refused: old.map_or_else(Arc::default, |old| Arc::clone(&old.postgres.refused)),
        answers_tls: answers && config.tls.is_none(),
        ends_tls: answers && config.tls.is_some(),
        cancels: config.postgres_cancel.then(|| known.unwrap_or_default()),
    }
}

impl LiveListener {
    /// Whether its clients have addresses: those of a Unix socket have one where their proxies
    /// name it.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        matches!(self.bind, Address::Tcp(_)) || self.proxies.is_some()
    }

    /// The pool of sessions of this route; of one that refuses them, the listener's own.
    #[must_use]
    pub fn plan_of(&self, route: RouteNumber) -> &Arc<Plan> {
        if route == RouteNumber::DEFAULT {
            return &self.plan;
        }
        self.routes.to(route).map_or(&self.plan, |to| &to.plan)
    }

    /// Deadlines and tries of sessions of this route.
    #[must_use]
    pub fn limits_of(&self, route: RouteNumber) -> &SessionLimits {
        if route == RouteNumber::DEFAULT {
            return &self.limits;
        }
        self.routes.to(route).map_or(&self.limits, |to| &to.limits)
    }

    /// Its own pool, and that of each route, by the routes' indices.
    pub fn plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.routes.numbers().map(|route| self.plan_of(route))
    }

    /// Whether clients may go to this pool.
    #[must_use]
    pub fn leads_to(&self, pool: &str) -> bool {
        self.plans().any(|plan| plan.pool().name == pool)
    }

    /// As [`Routes::leading_to`], which comes after its own pool.
    #[must_use]
    pub fn route_to(&self, pool: u32, has: impl Fn(&Prefix) -> bool) -> Option<RouteNumber> {
        let own = (self.plan.pool().number == pool).then_some(RouteNumber::DEFAULT);
        own.or_else(|| self.routes.leading_to(pool, has))
    }

    /// The route of a client that took a route of this listener as it was before, and whose first
    /// bytes are not looked at again: one that leads to the same pool, or else what its address
    /// decides.
    #[must_use]
    pub fn route_after(
        &self,
        old: &Self,
        route: RouteNumber,
        (client, tlvs): (Option<IpAddr>, CheckedTlvs<'_>),
    ) -> RouteNumber {
        if self.routes.is_empty() {
            return RouteNumber::DEFAULT;
        }
        let routed = old.routes.to(route);
        let has = |prefix: &Prefix| client.is_some_and(|ip| prefix.contains(ip));
        let same = routed.and_then(|to| self.routes.leading_to(to.plan.pool().number, has));
        let decided = || self.routes.decide(client, &FirstBytes::none().behind(tlvs));
        same.or_else(decided).unwrap_or_default()
    }

    /// The same with its pools as they are by now, by their numbers.
    #[must_use]
    pub fn with_plans(&self, now: &HashMap<u32, &Arc<Plan>>) -> Self {
        let newer = |plan: &Arc<Plan>| now.get(&plan.pool().number).map(|plan| Arc::clone(plan));
        Self {
            plan: newer(&self.plan).unwrap_or_else(|| Arc::clone(&self.plan)),
            routes: self.routes.with_plans(newer),
            ..self.clone()
        }
    }
}

fn pit(before: Option<&Snapshot>, config: &Config) -> Pit {
    let slots = before.map(|before| Arc::clone(&before.pit.slots));
    Pit {
        slots: slots.unwrap_or_else(|| Arc::new(Limit::unbounded())),
        time: nanos(config.tarpit.time),
    }
}

fn admission(config: &Config) -> Admission {
    Admission {
        shed: config.overload.map(|overload| overload.rules()),
        ..Admission::default()
    }
}

/// The listeners of a configuration, and how many listeners were ever made.
fn compose_listeners(
    before: Option<&Snapshot>,
    (config, tls): (&Config, &TlsByOwner),
    pools: &[Arc<Plan>],
    sources: &Arc<Sources>,
) -> (Vec<Arc<LiveListener>>, u64) {
    let mut made = before.map_or(0, |before| before.listeners_made);
    let stay = before.map_or_else(Vec::new, |before| before.staying(config));
    let stay = stay.into_iter().chain(std::iter::repeat(None));
    let listeners = config.listeners.iter().zip(stay).map(|(listener, old)| {
        let id = old.map_or(made, |old| old.id);
        made += u64::from(old.is_none());
        let gate = match old {
            Some(old) => Arc::clone(&old.gate),
            None => Arc::new(Gate::new(sources)),
        };
        Arc::new(LiveListener {
            rules: rules(config, listener),
            tls: tls.listeners.get(&listener.name).map(Arc::clone),
            ..LiveListener::new((id, gate), listener, pools, old)
        })
    });
    (listeners.collect(), made)
}

/// The proxies of a listener, with what is counted of them.
fn proxies(listener: &config::Listener, before: Option<&Proxies>) -> Option<Proxies> {
    let sources = &listener.accept_proxy;
    if sources.is_empty() {
        return None;
    }
    let networks = ProxySource::networks(sources);
    let trusts_unix = sources.contains(&ProxySource::Unix);
    let stage = match before.map(|before| &before.stage) {
        Some(same) if same.is_of(&networks, trusts_unix) => Arc::clone(same),
        Some(old) => Arc::new(old.with(&networks, trusts_unix)),
        None => {
            let max = listener.unfinished_headers.get();
            Arc::new(PeerStage::new(&networks, trusts_unix, max))
        }
    };
    Some(Proxies {
        stage,
        timeout: nanos(listener.timeouts.proxy_header),
    })
}

/// The limits of a listener's new connections.
fn rules(config: &Config, listener: &config::Listener) -> Rules {
    Rules {
        source: listener.source_rules(),
        listener: listener.rate_limit.map(|limit| limit.rule()),
        global: config.rate_limit.map(|limit| limit.rule()),
    }
}

fn ban(listener: &config::Listener) -> Option<BanRule> {
    let limits = listener.source_limits.unwrap_or_default();
    listener.ban.map(|ban| ban.rule(&limits))
}

/// The limits of sessions that go to a pool; `peeks`: first bytes of some clients are looked at.
fn limits(listener: &config::Listener, plan: &Plan, peeks: bool) -> SessionLimits {
    let timeouts = &listener.timeouts;
    SessionLimits {
        connect: nanos(timeouts.connect),
        idle: timeouts.idle.map_or(NEVER, nanos),
        half_closed: nanos(timeouts.half_closed),
        session: timeouts.session.map_or(NEVER, nanos),
        peek: peeks.then(|| nanos(timeouts.peek)),
        server_first: match listener.routes.iter().any(config::Route::asks_for_silence) {
            true => nanos(timeouts.server_first),
            false => NEVER,
        },
        ends_half_sent: listener.half_sent == config::HalfSent::Close,
        watches_work: plan.pool().strategy.looks_ahead().is_some(),
        attempts: listener.attempts,
        ends_together: listener.half_close == config::HalfClose::End,
        overhears: listener.postgres_cancel,
        handshake: listener.tls.as_ref().map(|tls| nanos(tls.handshake)),
    }
}

#[cfg(test)]
mod tests;
