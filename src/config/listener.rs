//! Listeners: the addresses that clients connect to.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::Config;
use super::accept_proxy::{ProxySource, proxy_source};
use super::bandwidth::Bandwidth;
use super::bans::{BAN_AFTER, BanAfter};
use super::codec::{
    Codec, Leaf, duration, group, group_if_given, group_or_none, group_or_off, groups, list, name,
    named, number, parsed, required, spelled, truth,
};
use super::limits::{self, RateLimit, SourceLimits};
use super::reader::{Around, At, Reader};
use super::route::Route;
use super::table::{self, Settings, Shape, settings, words};
use super::text::Text;
use super::tls::Tls;
use super::values::{self, HOUR, MINUTE, between};
use crate::address::Address;

settings! {
    /// A bound address and the pool behind it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Listener: Shape {
        /// Its name in logs and commands. The default is its address.
        pub name: String = String::new() => name();
        /// The address that clients connect to.
        pub bind: Address = stand_in() => required(parsed(
            "an address such as \"0.0.0.0:80\": host:port, [IPv6]:port or unix:/path",
            |text| Ok(text.parse()?),
            Address::to_string,
        ));
        /// Whether the address may be missing on this machine at the start, as one that moves from
        /// machine to machine does.
        pub freebind: bool = false => truth();
        /// Proxies that connect for clients: their addresses and prefixes, or "unix" on a Unix
        /// socket. Each of their connections must begin with a header of the PROXY protocol, which
        /// names the client; all other peers are refused. Empty: clients connect themselves, and no
        /// header is read.
        pub accept_proxy: Vec<ProxySource> = Vec::new() => list(proxy_source());
        /// The most connections of such proxies whose header is not complete, over all workers, of
        /// which each has its part. Beyond it the oldest of them is refused.
        pub unfinished_headers: NonZeroU32 = UNFINISHED_HEADERS => number(values::CONNECTIONS);
        /// TLS that ends here: certificates and what goes with them. Without it bytes of TLS go on
        /// to the backends as they come.
        pub tls: Option<Tls> = None => group_if_given();
        /// The name of the pool that its clients go to.
        pub pool: usize = usize::MAX => required(pool_name());
        /// Clients that go to other pools, or are refused. The first route that a client fits
        /// counts; a client that fits none goes to `pool`.
        pub routes: Vec<Route> = Vec::new() => groups();
        /// The most client connections at a time, over all workers. Off: only the global limit
        /// holds.
        pub max_connections: Option<NonZeroU32> = None => number(values::CONNECTIONS).or("off");
        /// The most client connections at a time, over all balancers of the `fleet`: this one has a
        /// share of them. Off: any number.
        pub fleet_max_connections: Option<NonZeroU32> = None
            => number(values::CONNECTIONS).or("off");
        /// The name of the access list that says which clients may connect. Off: all may.
        pub access_list: Option<String> = None => list_name().or("off");
        /// The most new connections of the listener in a second. Off: any number.
        pub rate_limit: Option<RateLimit> = None => group_or_off(limits::RATE_LIMIT);
        /// What one source of its clients may take. Off: no limit but those of the listener.
        pub source_limits: Option<SourceLimits> = None => group_or_off(limits::SOURCE_LIMITS);
        /// When a source of its clients is banned. Off: never by itself.
        pub ban: Option<BanAfter> = None => group_or_off(BAN_AFTER);
        /// How many bytes its sessions may move in a second. Off: any number.
        pub bandwidth: Bandwidth = Bandwidth::default()
            => group_or_none();
        /// Connect attempts for each session, each to another backend while one is left. Beyond
        /// this number a session still passes over backends that refuse at once, up to 16 attempts
        /// in all. 1: no second attempt.
        pub attempts: u8 = ATTEMPTS => number(values::ATTEMPTS);
        /// What happens when one side ends its direction: "relay" passes the end on and the other
        /// direction continues, "end" delivers what has arrived and closes both.
        pub half_close: HalfClose = HalfClose::Relay
            => named("half-close setting", &HalfClose::ALL);
        /// What happens to a client whose first bytes are begun and not complete when
        /// `timeouts.peek` is over: "close" resets it, "pass" lets its address decide.
        pub half_sent: HalfSent = HalfSent::Close => named("half-sent setting", &HalfSent::ALL);
        /// What is done with a PostgreSQL client's request for TLS: "answer" accepts it, and the
        /// hello that follows routes the client, whose TLS ends here where the listener has `tls`;
        /// "pass" leaves it to the backend.
        pub postgres_tls: PostgresTls = PostgresTls::Pass
            => named("PostgreSQL TLS setting", &PostgresTls::ALL);
        /// Whether a PostgreSQL client's request to cancel a query goes to the backend that has
        /// its session.
        pub postgres_cancel: bool = false => truth();
        /// Deadlines of its sessions.
        pub timeouts: Timeouts = Timeouts::default() => group();
    }
}

settings! {
    /// Defaults of listeners: each listener may set its own.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Defaults {
        /// Connect attempts for each session of a listener that sets none.
        pub attempts: u8 = ATTEMPTS => number(values::ATTEMPTS);
        /// Deadlines of sessions whose listener sets none.
        pub timeouts: Timeouts = Timeouts::default() => group();
    }
}

settings! {
    /// The deadlines of a session.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Timeouts {
        /// How long one attempt to connect to a backend may take.
        pub connect: Duration = Duration::from_secs(5) => duration(between(1, HOUR));
        /// A session ends when nothing moves for this long: no byte comes or goes in either
        /// direction, and no peer acknowledges bytes. Off: never.
        pub idle: Option<Duration> = Some(Duration::from_secs(600))
            => duration(values::DEADLINE).or("off");
        /// A session ends when one direction has ended and nothing moves in the other for this
        /// long.
        pub half_closed: Duration = Duration::from_secs(30) => duration(values::DEADLINE);
        /// A session ends after this time, however busy it is. Off: never.
        pub session: Option<Duration> = None => duration(values::DEADLINE).or("off");
        /// How long to wait for a client's first bytes, where a key or a route needs them. A client
        /// that sends nothing waits for all of it.
        pub peek: Duration = Duration::from_secs(3) => duration(between(1, MINUTE));
        /// How long to wait for the whole header of a proxy (`accept_proxy`).
        pub proxy_header: Duration = Duration::from_secs(5) => duration(between(1, MINUTE));
        /// How long a client may say nothing before a route for `protocol: ["server_first"]` takes
        /// it, within `peek`.
        pub server_first: Duration = Duration::from_millis(300)
            => duration(between(1, MINUTE));
    }
}

words! {
    /// What happens to a session when one of its directions has ended.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum HalfClose {
        /// The end is relayed, and the other direction goes on.
        #[default]
        Relay = "relay",
        /// Bytes that have arrived are delivered, then both connections are closed.
        End = "end",
    }
}

words! {
    /// What happens to a client that has sent only the beginning of its first bytes in time.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum HalfSent {
        /// It is reset.
        #[default]
        Close = "close",
        /// Its backend is selected without them.
        Pass = "pass",
    }
}

words! {
    /// What is done with a PostgreSQL client's request for TLS.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum PostgresTls {
        /// The backend answers it.
        #[default]
        Pass = "pass",
        /// It is answered here, before a backend is selected.
        Answer = "answer",
    }
}

impl Shape for Listener {
    fn implied(&self, default: &Self) -> Self {
        Self {
            name: self.bind.to_string(),
            ..default.clone()
        }
    }

    fn within(base: Self, around: &Around) -> Self {
        Self {
            attempts: around.defaults.attempts,
            timeouts: around.defaults.timeouts,
            ..base
        }
    }
}

impl Listener {
    /// A listener on this address before the pool at this index, with defaults for all else.
    #[must_use]
    pub fn at(bind: Address, pool: usize) -> Self {
        Self {
            name: bind.to_string(),
            bind,
            pool,
            ..Self::base()
        }
    }
}

impl Config {
    /// Whether a balancer with it listens on this address: for clients, for the admin API or for
    /// metrics.
    #[must_use]
    pub fn listens_on(&self, at: SocketAddr) -> bool {
        let http = self.admin.as_ref().and_then(|admin| admin.http.as_ref());
        let mut listeners = self.listeners.iter();
        listeners.any(|listener| listener.bind == Address::Tcp(at))
            || http.is_some_and(|http| http.bind == at)
            || self.metrics.as_ref().is_some_and(|its| its.bind == at)
    }
}

super::table::defaults!(Defaults, Timeouts);

/// The defaults for what listeners leave out. They are read before the listeners.
pub(super) fn shared() -> Codec<Defaults> {
    let group = group::<Defaults>();
    Codec::new(
        &*group.facts.expected,
        group.facts.schema,
        |at, reader, default| {
            let read = reader.group(at, default)?;
            reader.around.defaults = read;
            Some(read)
        },
        table::text,
    )
    .of::<Defaults>()
}

/// A pool, by its name.
pub(super) fn pool_name() -> Codec<usize> {
    Codec::new(
        POOL_NAME,
        json!({ "type": "string" }),
        |at, reader, _| pool_index(at, reader, &[]),
        |pool, _, around| Text::quoted(around.pools.get(*pool).map_or("", String::as_str)),
    )
}

/// The place of the pool of this name. A mistake proposes these words too, which are no pools.
pub(super) fn pool_index(
    at: At<'_>,
    reader: &mut Reader<'_>,
    words: &[&'static str],
) -> Option<usize> {
    let Some(name) = at.text() else {
        return reader.unexpected(at, POOL_NAME);
    };
    let around = &mut reader.around;
    let found = around.pools.iter().position(|pool| pool == name);
    if found.is_none() && around.adds_pools {
        around.pools.push(name.to_owned());
        return Some(around.pools.len() - 1);
    }
    let pools = &reader.around.pools;
    // A pool without a name may be the one that is meant: only that mistake is reported.
    let is_complete = !pools.is_empty() && pools.iter().all(|pool| !pool.is_empty());
    if found.is_none() && is_complete {
        let names = pools.iter().map(String::as_str);
        let known = words.iter().copied().chain(names);
        let sentence = no_pool(name, known.filter(|_| reader.gives_hints()));
        reader.mistake(&at.value.span, sentence);
    }
    found
}

/// The sentence that there is no pool of this name among those that are known.
pub(super) fn no_pool<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let hint = values::known(name, known);
    format!("pool: there is no pool called `{name}`{hint}")
}

/// An access list, by its name: rules say whether it is there.
fn list_name() -> Leaf<String> {
    spelled(
        "the name of an entry of `access_lists`, which has the prefixes",
        |text| values::is_name(text).then(|| text.to_owned()),
        String::clone,
    )
}

const POOL_NAME: &str = "the name of a pool, in double quotes";

/// The value in place of a refused address; no valid address equals it.
pub(super) fn stand_in() -> Address {
    Address::Unix(PathBuf::new())
}

/// The default of unfinished headers of a listener: a fast proxy that is 100 ms away has less.
const UNFINISHED_HEADERS: NonZeroU32 = NonZeroU32::new(4_096).unwrap();
/// The default of connect attempts of a session.
pub const ATTEMPTS: u8 = 3;
