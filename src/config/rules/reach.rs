//! Whether clients reach a route, or one before it takes them all.
//!
//! The values of earlier routes are found by a hash: no two lists are compared. A listener's routes
//! have thousands of values, and an operator changes them while the control thread serves others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::proxy_tlv::TlvValue;
use crate::config::tls_client::TlsClientName;
use crate::config::{ROUTES_MAX, Route};
use crate::peek::proxy_protocol::TlvName;
use crate::peek::{NamePattern, Protocol, above};
use crate::prefix::Prefix;

/// The routes before one, by what they ask for.
pub(super) struct Earlier<'a> {
    /// Where TLS ends at the listener, a client has a hello and speaks what is inside.
    ends_tls: bool,
    all: Places,
    sni: Column<'a>,
    alpn: Column<'a>,
    protocol: Column<'a>,
    client: Column<'a>,
    proxy_tlv: BTreeMap<TlvName, Column<'a>>,
    tls_client: Column<'a>,
    http_host: Column<'a>,
    http_path: Column<'a>,
    /// The lengths of the paths.
    paths: BTreeSet<usize>,
}

impl<'a> Earlier<'a> {
    /// No route yet.
    pub(super) fn new(ends_tls: bool) -> Self {
        Self {
            ends_tls,
            all: Places::default(),
            sni: Column::default(),
            alpn: Column::default(),
            protocol: Column::default(),
            client: Column::default(),
            proxy_tlv: BTreeMap::new(),
            tls_client: Column::default(),
            http_host: Column::default(),
            http_path: Column::default(),
            paths: BTreeSet::new(),
        }
    }

    /// Adds the route at a place, below [`ROUTES_MAX`].
    pub(super) fn add(&mut self, place: usize, route: &'a Route) {
        self.all.add(place);
        self.sni.add(place, route.sni.iter().map(named));
        self.alpn
            .add(place, route.alpn.iter().map(|name| Value::Text(name)));
        let protocols = route.protocol.iter().copied();
        self.protocol.add(place, protocols.map(Value::Protocol));
        let clients = route.client.iter().copied();
        self.client.add(place, clients.map(Value::Client));
        for tlv in &route.proxy_tlv {
            let column = self.proxy_tlv.entry(tlv.name).or_default();
            column.add(place, std::iter::once(said(&tlv.value)));
        }
        let certificates = route.tls_client.iter().map(certificate);
        self.tls_client.add(place, certificates);
        self.http_host.add(place, route.http_host.iter().map(named));
        self.http_path
            .add(place, route.http_path.iter().map(|path| Value::Text(path)));
        self.paths.extend(route.http_path.iter().map(String::len));
    }

    /// The place of the first route that surely takes every client of this one.
    pub(super) fn taking_all_of(&self, route: &'a Route) -> Option<usize> {
        let around = |value: Value<'a>| value.and_around();
        let itself = |value: Value<'a>| std::iter::once(value);
        let protocols = self.spoken(route).into_iter().map(Value::Protocol);
        let clients = route.client.iter().copied().map(Value::Client);
        let certificates = route.tls_client.iter().map(certificate);
        let conditions = [
            self.sni.around(route.sni.iter().map(named), around),
            self.alpn
                .around(route.alpn.iter().map(|name| Value::Text(name)), itself),
            self.protocol.around(protocols, itself),
            self.client.around(clients, around),
            self.tls_client.around(certificates, around),
            self.http_host
                .around(route.http_host.iter().map(named), around),
            self.http_path
                .around(route.http_path.iter(), |path| self.beginnings(path)),
        ];
        let tlvs = self.proxy_tlv.iter().map(|(name, column)| {
            let same = route.proxy_tlv.iter().filter(|tlv| tlv.name == *name);
            column.around(same.map(|tlv| said(&tlv.value)), around)
        });
        let taking = conditions.into_iter().chain(tlvs);
        taking.fold(self.all, Places::and).first()
    }

    /// The protocols that the clients of a route speak; none: any.
    fn spoken(&self, route: &Route) -> Vec<Protocol> {
        if !route.protocol.is_empty() {
            route.protocol.clone()
        } else if !(self.ends_tls || route.sni.is_empty() && route.alpn.is_empty()) {
            vec![Protocol::Tls]
        } else if !(route.http_host.is_empty() && route.http_path.is_empty()) {
            vec![Protocol::Http]
        } else {
            Vec::new()
        }
    }

    /// The beginnings of a path that are as long as a path of an earlier route.
    fn beginnings(&self, path: &'a str) -> impl Iterator<Item = Value<'a>> {
        let lengths = self.paths.range(..=path.len());
        lengths.filter_map(|length| path.get(..*length).map(Value::Text))
    }
}

/// What the routes ask for in one of their lists.
#[derive(Default)]
struct Column<'a> {
    /// The routes that ask for something here.
    asking: Places,
    by_value: HashMap<Value<'a>, Places>,
}

impl<'a> Column<'a> {
    fn add(&mut self, place: usize, values: impl Iterator<Item = Value<'a>>) {
        for value in values {
            self.asking.add(place);
            self.by_value.entry(value).or_default().add(place);
        }
    }

    /// The routes that take every client that has one of these values, or no list here.
    /// `wider` are the values around one, that one among them.
    fn around<V, W: Iterator<Item = Value<'a>>>(
        &self,
        values: impl Iterator<Item = V>,
        wider: impl Fn(V) -> W,
    ) -> Places {
        let of_value = |value| {
            let found = wider(value).filter_map(|wide| self.by_value.get(&wide));
            found.copied().fold(Places::default(), Places::or)
        };
        let of_all = values.map(of_value).reduce(Places::and);
        of_all.unwrap_or_default().or(self.asking.not())
    }
}

/// A value of a list.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value<'a> {
    /// A name or a path as it is.
    Text(&'a str),
    /// All names below this one.
    Below(&'a [u8]),
    /// Names that match a regular expression.
    Matching(&'a NamePattern),
    Protocol(Protocol),
    Client(Prefix),
    Certificate(&'a TlsClientName),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// This value, and all that stand for every client that it stands for.
    fn and_around(self) -> impl Iterator<Item = Self> {
        let (below, prefix): (&[u8], _) = match self {
            Self::Text(name) => (name.as_bytes(), None),
            Self::Below(name) => (name, None),
            Self::Client(prefix) => (&[], Some(prefix)),
            Self::Matching(_) | Self::Protocol(_) | Self::Certificate(_) | Self::Bytes(_) => {
                (&[], None)
            }
        };
        let prefixes = prefix.into_iter().flat_map(|prefix| {
            let shorter = (0..prefix.length()).rev();
            shorter.filter_map(move |length| Prefix::new(prefix.ip(), length))
        });
        let wider = above(below).map(Self::Below);
        let wider = wider.chain(prefixes.map(Self::Client));
        std::iter::once(self).chain(wider)
    }
}

fn named(pattern: &NamePattern) -> Value<'_> {
    match pattern {
        NamePattern::Exact(name) => Value::Text(name),
        NamePattern::Below(name) => Value::Below(name.as_bytes()),
        NamePattern::Matching(_) => Value::Matching(pattern),
    }
}

fn said(tlv: &TlvValue) -> Value<'_> {
    match tlv {
        TlvValue::Host(pattern) => named(pattern),
        TlvValue::Bytes(bytes) => Value::Bytes(bytes),
    }
}

fn certificate(name: &TlsClientName) -> Value<'_> {
    match name {
        TlsClientName::Dns(pattern) => named(pattern),
        TlsClientName::CommonName(_)
        | TlsClientName::Email(_)
        | TlsClientName::Fingerprint(_)
        | TlsClientName::Ip(_)
        | TlsClientName::Uri(_) => Value::Certificate(name),
    }
}

/// Places of routes: a bit for each.
#[derive(Clone, Copy, Default)]
struct Places([u64; ROUTES_MAX / 64]);

impl Places {
    fn add(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    fn not(self) -> Self {
        Self(self.0.map(|bits| !bits))
    }

    /// The lowest.
    fn first(self) -> Option<usize> {
        let at = self.0.iter().position(|bits| *bits != 0)?;
        Some(at * 64 + self.0[at].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::Earlier;
    use crate::config::RouteList;

    /// For each route the first one before it that takes all of its clients.
    fn taking(routes: &str, ends_tls: bool) -> Vec<Option<usize>> {
        let list = RouteList::parse("routes.ron".to_owned(), format!("[{routes}]")).unwrap();
        let mut earlier = Earlier::new(ends_tls);
        let routes = list.routes.iter().enumerate();
        let taking = routes.map(|(place, route)| {
            let found = earlier.taking_all_of(route);
            earlier.add(place, route);
            found
        });
        taking.collect()
    }

    #[test]
    fn what_headers_and_certificates_say_is_compared_by_name() {
        let routes = "(proxy_tlv: [\"authority=*.b\", \"0xE0=blue\"], pool: \"a\"), \
                      (proxy_tlv: [\"authority=a.b\"], pool: \"a\"), \
                      (proxy_tlv: [\"0xE0=blue\", \"alpn=h2\", \"authority=c.b\"], pool: \"a\"), \
                      (proxy_tlv: [\"0xE0=blue\", \"authority=a.b\", \"authority=b\"], \
                      pool: \"a\"), \
                      (tls_client: [\"dns=*.b\", \"cn=x\"], pool: \"a\"), \
                      (tls_client: [\"cn=x\", \"dns=a.b\"], sni: [\"a\"], pool: \"a\"), \
                      (tls_client: [\"cn=a.b\"], pool: \"a\")";
        let none = None;
        assert_eq!(
            taking(routes, true),
            [none, none, Some(0), none, none, Some(4), none]
        );
    }

    #[test]
    fn where_tls_ends_names_say_nothing_about_what_is_inside() {
        let routes = "(protocol: [\"tls\"], pool: \"a\"), (sni: [\"b\"], pool: \"a\"), \
                      (protocol: [\"http\"], pool: \"a\"), (http_path: [\"/\"], pool: \"a\")";
        assert_eq!(taking(routes, false), [None, Some(0), None, Some(2)]);
        assert_eq!(taking(routes, true), [None, None, None, Some(2)]);
    }

    #[test]
    fn as_many_routes_and_values_as_a_listener_has_are_compared() {
        let names = |route: usize, host: &str| {
            let names = (0..16).map(|one| format!("\"{host}.n{one}.r{}.example\"", route / 2));
            names.collect::<Vec<_>>().join(", ")
        };
        let each = (0..256).map(|route| {
            let host = if route % 2 == 0 { "*" } else { "a.b" };
            format!("(sni: [{}], pool: \"a\"), ", names(route, host))
        });
        let found = taking(&each.collect::<String>(), false);
        let expected = (0..256).map(|route| (route % 2 == 1).then(|| route - 1));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}
