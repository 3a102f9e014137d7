//! Routes: which clients of a listener go to another pool than the listener's own.

use std::ops::RangeInclusive;

use serde_json::json;

use super::access_list::prefix;
use super::codec::{Codec, Leaf, groups, list, name, named, number, parsed, required, spelled};
use super::foreign;
use super::listener::{pool_index, pool_name};
use super::proxy_tlv::{ProxyTlv, TlvValue, proxy_tlv};
use super::reader::{At, Reader};
use super::table::{Settings, Shape, settings};
use super::text::Text;
use super::tls_client::{TlsClientName, tls_client};
use super::tree::Kind;
use super::values::{self, ValueError};
use super::{Key, Listener};
use crate::peek::{NamePattern, Protocol};
use crate::prefix::Prefix;

settings! {
    /// Clients of a listener, and the pool that they go to. A client is one of them if it has a
    /// value of each list that is not empty.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Route: Shape {
        /// Its name in logs, metrics and commands, in which it stands for its place otherwise.
        pub name: Option<String> = None => name().given();
        /// Server names that the client asks for in TLS: "a.example", "*.example" for all names
        /// below it, or "~api-[0-9]+\\.example" for those that match a regular expression.
        pub sni: Vec<NamePattern> = Vec::new() => list(pattern());
        /// Application protocols that the client offers in TLS (ALPN), such as "h2".
        pub alpn: Vec<String> = Vec::new() => list(spelled(
            "the name of an application protocol such as \"h2\", 1 to 255 bytes",
            |text| (1..=255).contains(&text.len()).then(|| text.to_owned()),
            String::clone,
        ));
        /// Protocols that the client speaks. "other" is any other one whose clients speak first,
        /// "server_first" takes clients that say nothing for `timeouts.server_first`.
        pub protocol: Vec<Protocol> = Vec::new() => list(protocol());
        /// Addresses and prefixes that the client connects from.
        pub client: Vec<Prefix> = Vec::new() => list(prefix());
        /// What the header of the client's proxy says (`accept_proxy`), such as
        /// "authority=*.example", "alpn=h2", "ssl_cn=bob" or "0xE0=blue". Of each TLV that is named
        /// the client must have one of the values.
        pub proxy_tlv: Vec<ProxyTlv> = Vec::new() => list(proxy_tlv());
        /// Whom the certificate names that the client shows (`clients` of `tls`), such as
        /// "cn=robot", "dns=*.example", "email=a@b.example", "ip=10.0.0.1", "uri=spiffe://a/b" or
        /// "fingerprint=HEX" (SHA-256).
        pub tls_client: Vec<TlsClientName> = Vec::new() => list(tls_client());
        /// Hosts that the client's first HTTP/1 request is for, as in `sni`.
        pub http_host: Vec<NamePattern> = Vec::new() => list(pattern());
        /// Beginnings of the path of the client's first HTTP/1 request, such as "/api/".
        pub http_path: Vec<String> = Vec::new() => list(spelled(
            "the beginning of a path such as \"/api/\", in ASCII and without a query",
            |text| is_path(text).then(|| text.to_owned()),
            String::clone,
        ));
        /// The name of the pool that they go to. "refuse": they are refused.
        pub pool: Option<usize> = Some(NOT_GIVEN) => pool_or_refuse();
        /// In place of `pool`: pools that share them, by weight.
        pub pools: Vec<Share> = Vec::new() => groups();
        /// What keeps a client with one of `pools`, as in the strategy hash. Where its first
        /// bytes lack it, its address does.
        pub key: Key = Key::default()
            => parsed("a key such as \"source_ip\"", values::persist_key, Key::to_string);
    }
}

settings! {
    /// A pool that gets a share of a route's clients.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Share {
        /// The name of the pool.
        pub name: usize = usize::MAX => required(pool_name());
        /// Its share relative to the other pools; 0: it gets no new clients.
        pub weight: u16 = 1 => number(SHARE);
    }
}

/// Whether it is a setting that says which clients a route takes.
#[must_use]
pub fn is_condition(setting: &str) -> bool {
    LISTS.contains(&setting)
}

impl Shape for Route {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let is_taken =
            |name: &str| name == UNROUTED || name.bytes().all(|byte| byte.is_ascii_digit());
        if self.name.as_deref().is_some_and(is_taken) {
            let sentence = format!(
                "expected another name: numbers are the places of routes, and `{UNROUTED}` are \
                 clients that no route takes"
            );
            reader.wrong(at, "name", sentence);
        }
        // An empty list looks as if no client had a value of it, and yet all would be taken.
        for list in LISTS {
            let value = at.value.field(list);
            if value.is_some_and(|its| matches!(&its.kind, Kind::List(all) if all.is_empty())) {
                let sentence = "expected at least one value: leave it out where any will do";
                reader.wrong(at, list, sentence);
            }
        }
        self.check_pools(at, reader);
        let speaks_http = self.protocol.is_empty() || self.protocol.contains(&Protocol::Http);
        if let Some(setting) = self.asked_of_http().filter(|_| !speaks_http) {
            reader.wrong(at, setting, unspoken("http"));
        }
    }
}

/// What is wrong with a condition on a protocol that `protocol` leaves out.
fn unspoken(protocol: &str) -> String {
    format!(
        "no client has it and speaks only what `protocol` says: add \"{protocol}\" there, or \
         leave `protocol` out"
    )
}

impl Route {
    /// The first of its settings that ask a hello of TLS.
    fn asked_of_tls(&self) -> Option<&'static str> {
        let given = [
            ("sni", !self.sni.is_empty()),
            ("alpn", !self.alpn.is_empty()),
        ];
        given.into_iter().find_map(|(name, is)| is.then_some(name))
    }

    /// The first of its settings that ask a request of HTTP.
    fn asked_of_http(&self) -> Option<&'static str> {
        let given = [
            ("http_host", !self.http_host.is_empty()),
            ("http_path", !self.http_path.is_empty()),
        ];
        given.into_iter().find_map(|(name, is)| is.then_some(name))
    }

    /// The settings with which it asks for more than a client's first bytes are, where no TLS ends:
    /// each with why. Where TLS ends, a client has both a hello and what is inside.
    pub(super) fn beyond_one_protocol(&self) -> Vec<(&'static str, String)> {
        let Some(tls) = self.asked_of_tls() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        // A hello behind PostgreSQL's request for TLS is of both protocols.
        let may_have_hello = [Protocol::Tls, Protocol::Postgres];
        let has = |protocol: &Protocol| self.protocol.contains(protocol);
        if !self.protocol.is_empty() && !may_have_hello.iter().any(has) {
            found.push((tls, unspoken("tls")));
        }
        if let Some(http) = self.asked_of_http() {
            let sentence = format!(
                "no client has it and `{tls}`: one is in TLS, the other in plain HTTP: make two \
                 routes, or end TLS here by `tls` at the listener"
            );
            found.push((http, sentence));
        }
        found
    }

    fn check_pools(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let is_given = |name| at.value.field(name).is_some();
        if is_given("pool") && is_given("pools") {
            reader.wrong(
                at,
                "pools",
                "`pool` says where its clients go: leave one out",
            );
        } else if !is_given("pool") && !is_given("pools") && !reader.is_misshapen() {
            let sentence = "missing field `pool`, or `pools` for several with weights";
            reader.mistake(&at.value.start(), sentence.to_owned());
        }
        if is_given("pools") && self.is_weightless() {
            reader.wrong(at, "pools", WEIGHTLESS);
        }
        // One that could not be read is wrong already.
        let is_read = |share: &Share| share.name != usize::MAX;
        let of_others = |place: usize| self.pools[..place].iter().filter(|its| is_read(its));
        let mut shares = self.pools.iter().enumerate();
        if shares.any(|(place, share)| of_others(place).any(|other| other.name == share.name)) {
            reader.wrong(
                at,
                "pools",
                "each pool stands there once: add up its weights",
            );
        }
        if !is_given("pools") {
            reader.wrong(
                at,
                "key",
                "it keeps clients with one of `pools`: leave it out",
            );
        }
    }

    /// Whether it has `pools`, or an empty list of them, and none with a weight above 0.
    pub(super) fn is_weightless(&self) -> bool {
        self.pools.iter().all(|share| share.weight == 0)
    }

    /// Gives its pools these places in place of those that they have.
    pub(super) fn map_pools(&mut self, mut to: impl FnMut(usize) -> usize) {
        let only = self.pool.as_mut().filter(|pool| **pool != NOT_GIVEN);
        let shares = self.pools.iter_mut().map(|share| &mut share.name);
        for pool in only.into_iter().chain(shares) {
            *pool = to(*pool);
        }
    }

    /// What it asks of clients, without its name and the pools that they go to.
    pub(super) fn conditions(&self) -> Self {
        let Self {
            name,
            pool,
            pools,
            key,
            ..
        } = Self::base();
        Self {
            name,
            pool,
            pools,
            key,
            ..self.clone()
        }
    }

    /// The pools that its clients go to, with their weights; none: they are refused.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        let only = self.pool.filter(|_| self.pools.is_empty());
        let only = only.map(|pool| Share {
            name: pool,
            weight: 1,
        });
        only.into_iter().chain(self.pools.iter().cloned())
    }

    /// Whether it asks for the same clients as another.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        // Field by field: there may be thousands of names, and a copy of them takes long.
        let Self {
            name: _,
            sni,
            alpn,
            protocol,
            client,
            proxy_tlv,
            tls_client,
            http_host,
            http_path,
            pool: _,
            pools: _,
            key: _,
        } = self;
        *sni == other.sni
            && *alpn == other.alpn
            && *protocol == other.protocol
            && *client == other.client
            && *proxy_tlv == other.proxy_tlv
            && *tls_client == other.tls_client
            && *http_host == other.http_host
            && *http_path == other.http_path
    }

    /// Whether every client is one of its clients.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.values() == 0
    }

    /// Whether it looks at the client's first bytes.
    #[must_use]
    pub fn needs_bytes(&self) -> bool {
        self.needs_key_of_bytes() || self.values() > self.client.len() + self.proxy_tlv.len()
    }

    /// Whether a key in the client's first bytes says which of its pools it is.
    #[must_use]
    pub fn needs_key_of_bytes(&self) -> bool {
        let by_bytes = matches!(&self.key, Key::Peeked(field) if field.is_in_bytes());
        by_bytes && !self.pools.is_empty()
    }

    /// Whether it takes TLS behind PostgreSQL's request for it, by its hello, and no other.
    #[must_use]
    pub fn asks_postgres_for_names(&self) -> bool {
        let asks = !self.sni.is_empty() || !self.alpn.is_empty();
        let is_of_tls = self.protocol.contains(&Protocol::Tls);
        asks && !is_of_tls && self.protocol.contains(&Protocol::Postgres)
    }

    /// Whether it takes clients that say nothing, as their server speaks first.
    #[must_use]
    pub fn asks_for_silence(&self) -> bool {
        self.protocol.contains(&Protocol::ServerFirst)
    }

    /// Whether the addresses of its clients say which of its pools they go to.
    #[must_use]
    pub fn shares_by_address(&self) -> bool {
        self.pools.len() > 1 && !matches!(self.key, Key::Peeked(_))
    }

    /// How many values its lists have.
    #[must_use]
    pub fn values(&self) -> usize {
        self.sni.len()
            + self.alpn.len()
            + self.protocol.len()
            + self.client.len()
            + self.proxy_tlv.len()
            + self.tls_client.len()
            + self.http_host.len()
            + self.http_path.len()
    }

    /// How many regular expressions its lists have.
    #[must_use]
    pub fn regexes(&self) -> usize {
        let hosts = self.proxy_tlv.iter().filter_map(|tlv| match &tlv.value {
            TlvValue::Host(host) => Some(host),
            TlvValue::Bytes(_) => None,
        });
        let all = self.sni.iter().chain(&self.http_host).chain(hosts);
        all.filter(|one| matches!(one, NamePattern::Matching(_)))
            .count()
    }
}

impl Listener {
    /// The pools that its clients go to, its own first. A pool may come twice.
    pub fn pools(&self) -> impl Iterator<Item = usize> {
        let routed = self.routes.iter().flat_map(Route::shares);
        std::iter::once(self.pool).chain(routed.map(|share| share.name))
    }
}

fn pattern() -> Leaf<NamePattern> {
    parsed(
        "a host name such as \"a.example\", \"*.example\" for all names below it, or a regular \
         expression behind a ~",
        |text| {
            text.parse()
                .map_err(|error| ValueError::Refused(format!("`{text}`: {error}")))
        },
        NamePattern::to_string,
    )
}

fn protocol() -> Leaf<Protocol> {
    named("protocol", &Protocol::ALL).meaning(foreign::protocol)
}

fn is_path(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    text.starts_with('/') && text.len() <= PATH_MAX && text.bytes().all(is_part)
}

/// A pool, or that clients are refused.
fn pool_or_refuse() -> Codec<Option<usize>> {
    const EXPECTED: &str = "the name of a pool, or \"refuse\", in double quotes";
    Codec::new(
        EXPECTED,
        json!({ "type": "string" }),
        |at, reader, _| match at.text() {
            Some(REFUSE) => Some(None),
            Some(_) => pool_index(at, reader, &[REFUSE]).map(Some),
            None => reader.unexpected(at, EXPECTED),
        },
        |pool, _, around| match pool {
            None => Text::quoted(REFUSE),
            Some(pool) => Text::quoted(around.pools.get(*pool).map_or("", String::as_str)),
        },
    )
}

/// What a client must have a value of, where it is given.
pub(super) const LISTS: [&str; 8] = [
    "sni",
    "alpn",
    "protocol",
    "client",
    "proxy_tlv",
    "tls_client",
    "http_host",
    "http_path",
];
/// In place of a pool's name.
pub const REFUSE: &str = "refuse";
/// In place of a route's name, where no route takes a client.
pub const UNROUTED: &str = "default";
/// In place of the index of a pool, where `pools` says which.
const NOT_GIVEN: usize = usize::MAX;
/// Weights of pools.
pub(super) const SHARE: RangeInclusive<u32> = 0..=1_000;
/// What is wrong with `pools` that all have the weight 0.
pub(super) const WEIGHTLESS: &str = "expected at least one with a weight above 0";
/// The most bytes of the beginning of a path.
const PATH_MAX: usize = 1_024;
/// Routes that a listener may have.
pub const ROUTES_MAX: usize = 256;
/// Pools of all routes of a listener, each as often as it stands there.
pub const ROUTE_POOLS_MAX: usize = 512;
/// Regular expressions of all routes of a listener: a name is compared with each.
pub const ROUTE_REGEXES_MAX: usize = 64;
/// Values of all routes of a listener: names, prefixes and others.
pub const ROUTE_VALUES_MAX: usize = 4_096;
