//! Pools: the backends behind listeners, and how one of them is selected.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::availability::on_down;
use super::check::check;
use super::codec::{
    duration, group, group_or_off, groups, list_or, name, named, number, required, spelled,
    truth_or_group,
};
use super::discovery::DiscoveryFile;
use super::reader::{At, Reader};
use super::send_proxy::SEND_PROXY;
use super::strategy_file::{StrategyFile, strategy};
use super::table::{Shape, settings};
use super::tls::TLS;
use super::values::{self, HOUR, between};
use super::{
    AllDown, Backend, BackendTls, Check, Config, Discovery, Ejection, Group, OnDown, Persist,
    QueueLimits, Scaling, SendProxy, Strategy, TwoTier,
};
use crate::origin::{Origins, Ports};
use crate::peek::MemberPattern;

settings! {
    /// A set of backends and the way one of them is selected.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Pool: Shape {
        /// The name that listeners use. It must be unique.
        pub name: String = String::new() => required(name());
        /// How a backend is selected.
        pub strategy: Strategy = Strategy::default();
            @strategy => strategy(),
                |pool: &Self| StrategyFile { strategy: pool.strategy.clone() },
                |pool: &mut Self, file: StrategyFile| pool.strategy = file.strategy;
        /// The pattern of the server names by which clients select backends themselves: `{n}` is
        /// the number of the member. Off: the strategy selects.
        pub sni_member: Option<MemberPattern> = None => spelled(
                "a host name with {n} in it, such as \"broker-{n}.k.example.com\"",
                MemberPattern::read,
                MemberPattern::to_string,
            ).or("off");
        /// The key by which clients return to their last backend. Off: no persistence.
        pub persist: Option<Persist> = None
            => group_or_off("\"off\", a key or a group such as (key: \"sni\", ttl: \"1h\")");
        /// The most connections to all its backends, over all workers. Off: no limit.
        pub max_connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// Local addresses and ports of connections to its backends.
        pub origins: Origins = Origins::default();
            @source
            /// Local addresses of connections to backends, used in turn; "client": the address of
            /// the client, whose answers must come back through this machine.
            => list_or(
                    spelled(
                        values::SOURCE_ADDRESS,
                        values::source_address,
                        ToString::to_string,
                    ),
                    "client",
                ),
                |pool: &Self| pool.own_addresses().map(<[_]>::to_vec),
                |pool: &mut Self, own| pool.begin_at(own);
            @source_ports
            /// Local ports of connections to backends, a part of net.ipv4.ip_local_port_range.
            [origins.ports] => spelled(
                    "a range of ports such as \"40000-49999\"",
                    |text| text.parse().ok(),
                    Ports::to_string,
                ).or("auto");
        /// The PROXY header that connections to its backends begin with, which tells them the
        /// client's address. Off: none.
        pub send_proxy: Option<SendProxy> = None => group_or_off(SEND_PROXY);
        /// Whether connections to its backends speak TLS. True: their certificates are verified by
        /// what the machine trusts.
        pub tls: Option<BackendTls> = None => truth_or_group(TLS);
        /// Where clients wait while every backend is full.
        pub queue: QueueLimits = QueueLimits::default() => group();
        /// How its backends are probed. Off: no probes.
        pub check: Option<Check> = None => check();
        /// When failures of real sessions eject a backend. Off: never.
        pub ejection: Option<Ejection> = Some(Ejection::default())
            => group_or_off("\"off\" or a group such as (failures: 5)");
        /// With fewer usable backends than this share of those that are ready, in percent, all that
        /// are ready get connections; 0: never. Auto: 0 where the check judges an answer, else 50.
        pub panic_below: Option<u8> = None => number(values::PERCENT).or("auto");
        /// What happens when no backend is usable: "open" uses all that are ready, "closed" none.
        /// Auto: no backend that is down where the check judges an answer, else "open".
        pub all_down: Option<AllDown> = None => named("answer", &AllDown::ALL).or("auto");
        /// How long a backend that returns takes to reach its full share. Off: at once.
        pub slow_start: Option<Duration> = None => duration(between(100, HOUR)).or("off");
        /// What happens to the sessions of a backend that goes down.
        pub on_down: OnDown = OnDown::Keep => on_down();
        /// Where more backends are found. Off: only those that are listed are used.
        pub discovery: Option<Discovery> = None;
            @discover => group_or_off("\"off\" or a group such as (dns: \"NAME\", port: 80)"),
                |pool: &Self| pool.discovery.clone().map(DiscoveryFile::from),
                |pool: &mut Self, file| pool.discovery = file.map(Discovery::from);
        /// How the pool grows by its reserve, and shrinks again. Off: no scaling.
        pub scaling: Option<Scaling> = None
            => group_or_off("\"off\" or a group such as (high: 100)");
        /// Its backends. At least one that is not of the reserve, unless more are discovered; the
        /// reserve stands behind the others.
        pub backends: Vec<Backend> = Vec::new();
            @backends => groups(), |pool: &Self| pool.members(false),
                |pool: &mut Self, members| pool.put_members(false, members);
            @reserve
            /// Backends that wait until the pool grows.
            => groups(), |pool: &Self| pool.members(true),
                |pool: &mut Self, members| pool.put_members(true, members);
    }
}

impl Shape for Pool {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if let Strategy::StickyRoundRobin(_) = self.strategy {
            let sentence = "`sticky_round_robin` persists already: use `round_robin` with persist";
            reader.wrong(at, "persist", sentence);
        }
    }
}

impl Config {
    /// Whether connections of a pool begin at the addresses of their clients.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.pools.iter().any(|pool| pool.origins.at_client)
    }
}

impl Pool {
    /// The backend of this name.
    #[must_use]
    pub fn backend(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// A pool with this name and these backends, and defaults for all else.
    #[must_use]
    pub fn of(name: impl Into<String>, backends: Vec<Backend>) -> Self {
        Self {
            name: name.into(),
            backends,
            ..<Self as super::table::Settings>::base()
        }
    }

    /// The addresses of this machine that connections begin at; `None`: those of clients.
    fn own_addresses(&self) -> Option<&[IpAddr]> {
        let own = (!self.origins.at_client).then_some(&self.origins.addresses);
        own.map(|own| &**own)
    }

    fn begin_at(&mut self, own: Option<Vec<IpAddr>>) {
        self.origins.at_client = own.is_none();
        self.origins.addresses = own.unwrap_or_default();
    }

    /// Which clients return to the backend that they had. `None`: none.
    #[must_use]
    pub fn persists(&self) -> Option<&Persist> {
        if let Strategy::StickyRoundRobin(persist) = &self.strategy {
            Some(persist)
        } else {
            self.persist.as_ref()
        }
    }

    /// Selects by another strategy from now on. How clients of `sticky_round_robin` persist is said
    /// by a file alone, so the pool goes on as before.
    pub(crate) fn select_by(&mut self, mut strategy: Strategy) {
        if let Strategy::StickyRoundRobin(persist) = &mut strategy
            && let Some(own) = self.persists()
        {
            *persist = own.clone();
            self.persist = None;
        }
        self.strategy = strategy;
    }

    /// The strategy in words, or that clients select by name.
    #[must_use]
    pub fn selects_by(&self) -> String {
        match self.sni_member {
            Some(_) => SNI_MEMBER.to_owned(),
            None => self.strategy.to_string(),
        }
    }

    /// The number of the backend of this name, where clients select by it.
    #[must_use]
    pub fn member_of(&self, backend: &str) -> Option<u32> {
        self.sni_member.as_ref()?;
        let mut all = self.backends.iter().zip(self.numbers());
        all.find_map(|(its, number)| (its.name == backend).then_some(number))
    }

    /// The number of each backend, by which `sni_member` selects it.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let places = self.backends.iter().zip(0..);
        places.map(|(backend, place)| backend.member.unwrap_or(place))
    }

    /// The queue as it takes effect. With `sni_member` none waits: a client whose backend is full
    /// would hold up those of others.
    #[must_use]
    pub fn queue_in_force(&self) -> QueueLimits {
        let max = if self.sni_member.is_some() {
            0
        } else {
            self.queue.max
        };
        QueueLimits { max, ..self.queue }
    }

    /// The groups of `two_tier`: those that it lists, or else those that backends name. A group
    /// without a weight of its own has that of its backends.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let Strategy::TwoTier(TwoTier { groups, .. }) = &self.strategy else {
            return Vec::new();
        };
        let of_backends = Group::of(&self.backends);
        if groups.is_empty() {
            return of_backends;
        }
        let mut groups = groups.clone();
        for group in groups.iter_mut().filter(|group| group.weight == 0) {
            let same = of_backends.iter().find(|its| its.name == group.name);
            group.weight = same.map_or(1, |its| its.weight);
        }
        groups
    }

    /// The strategy with the groups that take effect.
    #[must_use]
    pub fn strategy_in_force(&self) -> Strategy {
        let mut strategy = self.strategy.clone();
        if let Strategy::TwoTier(tiers) = &mut strategy {
            tiers.groups = self.groups();
        }
        strategy
    }

    fn members(&self, of_reserve: bool) -> Vec<Backend> {
        let members = self.backends.iter();
        let members = members.filter(|backend| backend.reserve == of_reserve);
        members.cloned().collect()
    }

    fn put_members(&mut self, of_reserve: bool, mut members: Vec<Backend>) {
        for backend in &mut members {
            backend.reserve = of_reserve;
        }
        self.backends
            .retain(|backend| backend.reserve != of_reserve);
        self.backends.extend(members);
        self.backends.sort_by_key(|backend| backend.reserve);
    }
}

/// The setting, in place of a strategy's name.
pub const SNI_MEMBER: &str = "sni_member";
