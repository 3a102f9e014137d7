//! Routes of a listener with their pools by name, as requests and commands have them.
//!
//! A configuration has the places of pools, which a reload may change. A [`RouteList`] keeps names:
//! they are looked up each time that it is applied.

use std::collections::HashMap;

use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{groups, required, spelled};
use super::error::{Mistake, bounded};
use super::json::{self, BodyError};
use super::listener::no_pool;
use super::proxy_tlv::ProxyTlv;
use super::reader::{Around, Reader};
use super::route::{LISTS, REFUSE, ROUTES_MAX, Route};
use super::rules::beyond_limits;
use super::source::Source;
use super::table::{self, Settings, settings};
use super::text::Text;
use super::tokens::{Span, TokenKind, tokens};
use super::tree::{Kind, Value};
use super::{Config, ConfigError, Listener, RouteRef};

/// The routes of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteList {
    /// Their pools are places in `pools`.
    pub(super) routes: Vec<Route>,
    /// The names of those pools, in the order in which routes name them first.
    pub(super) pools: Vec<String>,
}

settings! {
    /// What a request puts in the place of a listener's routes.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(super) struct RoutesBody {
        /// All routes, in their order, as a file has them.
        pub(super) routes: Vec<Route> = Vec::new() => required(groups());
        /// The `version` that the routes must have now, as an answer had it. Left out: any.
        pub(super) version: String = String::new() => version();
    }
}

/// A version that the routes of a listener must have.
pub(super) fn version() -> super::codec::Leaf<String> {
    spelled(
        "the `version` of an answer, or nothing for any",
        |text| Some(text.to_owned()),
        String::clone,
    )
}

impl RouteList {
    /// The routes of a listener of a configuration.
    #[must_use]
    pub fn of(config: &Config, listener: &Listener) -> Self {
        let mut pools: Vec<String> = Vec::new();
        let mut places = HashMap::new();
        let mut routes = listener.routes.clone();
        for route in &mut routes {
            route.map_pools(|pool| {
                *places.entry(pool).or_insert_with(|| {
                    pools.push(config.pools[pool].name.clone());
                    pools.len() - 1
                })
            });
        }
        Self { routes, pools }
    }

    /// Reads the body of a request, and the version that it asks for.
    ///
    /// # Errors
    /// It is no JSON object with routes, or a value is invalid.
    pub fn read(json: &[u8]) -> Result<(Self, Option<String>), BodyError> {
        json::read(json, RoutesBody::table(), |group, reader| {
            let list = group.field("routes");
            if !is_of_size(list, reader) {
                return None;
            }
            let body = reader.group(reader.at(group, ""), &RoutesBody::base());
            if let Some(list) = list {
                reader.number_items(list, "route");
            }
            let RoutesBody { routes, version } = body?;
            let pools = std::mem::take(&mut reader.around.pools);
            let version = Some(version).filter(|version| !version.is_empty());
            Some((Self { routes, pools }, version))
        })
    }

    /// Reads a list of routes as a file has it; `file` is the name of the text in messages.
    ///
    /// # Errors
    /// The text has mistakes.
    pub fn parse(file: String, text: String) -> Result<Self, ConfigError> {
        let mistakes = ConfigError::Mistakes;
        let source = Source::new(file, text);
        let wrong =
            |span: &Span, sentence| Err(mistakes(vec![Mistake::new(&source, span, sentence)]));
        match tokens(source.text()).first() {
            None => {
                let sentence = "the file is empty: expected a list; `[]` takes all routes away";
                return wrong(&(0..1), sentence);
            }
            Some(first) if first.kind != TokenKind::Open('[') => {
                return wrong(&first.span, LIST_ALONE);
            }
            Some(_) => {}
        }
        let source = source.parsed();
        let source = source.map_err(|mistake| mistakes(vec![mistake]))?;
        let mut reader = Reader::new(&source, Around::default());
        let list = source.root();
        let routes = if is_of_size(Some(list), &mut reader) {
            groups::<Route>().read(reader.at(list, "routes"), &mut reader, &Vec::new())
        } else {
            None
        };
        reader.number_items(list, "route");
        let pools = std::mem::take(&mut reader.around.pools);
        let found = reader.into_mistakes();
        match routes.filter(|_| found.is_empty()) {
            Some(routes) => Ok(Self { routes, pools }),
            None => Err(mistakes(found)),
        }
    }

    /// Its routes for a configuration, or which pool that lacks.
    pub(super) fn resolved(&self, config: &Config) -> Result<Vec<Route>, String> {
        let named = config.pools.iter().enumerate();
        let named: HashMap<&str, usize> = named.map(|(at, pool)| (&*pool.name, at)).collect();
        let places = self.pools.iter();
        let places = places.map(|name| named.get(&**name).copied().ok_or(name));
        let places: Vec<Result<usize, &String>> = places.collect();
        let mut routes = self.routes.clone();
        for (number, route) in (1..).zip(&mut routes) {
            let mut lacks = None;
            route.map_pools(|pool| {
                places[pool].unwrap_or_else(|name| {
                    lacks.get_or_insert(name);
                    0
                })
            });
            if let Some(name) = lacks {
                let names = config.pools.iter().map(|pool| &*pool.name);
                let sentence = no_pool(name, std::iter::once(REFUSE).chain(names));
                return Err(format!("route {number}: {sentence}"));
            }
        }
        Ok(routes)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The pools of a route and their weights; the route is named, or numbered from 1 on. Empty
    /// where it is not there, or refuses its clients.
    #[must_use]
    pub fn weights(&self, route: &str) -> Vec<(&str, u16)> {
        let place = route.parse::<RouteRef>().ok();
        let place = place.and_then(|route| route.find(&self.routes));
        let shares = place.into_iter().flat_map(|at| self.routes[at].shares());
        let named = shares.map(|share| (&*self.pools[share.name], share.weight));
        named.collect()
    }

    /// As a request has them: an array of objects.
    #[must_use]
    pub fn json(&self) -> Json {
        self.texts().iter().map(Text::body).collect()
    }

    /// As a file has them, a line for each.
    #[must_use]
    pub fn ron(&self) -> String {
        Text::List(self.texts()).lines()
    }

    /// Each route as a file has it, on one line. The middle of a very long one is left out.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let texts = self.texts().into_iter();
        texts.map(|text| bounded(text.shown().unwrap_or_default()))
    }

    /// What tells these routes from others: equal routes have the same, at any time.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{:016x}", xxh3_64(self.json().to_string().as_bytes()))
    }

    fn texts(&self) -> Vec<Text> {
        let around = Around {
            pools: self.pools.clone(),
            ..Around::default()
        };
        let base = Route::base();
        let routes = self.routes.iter();
        routes
            .map(|route| table::text(route, &base, &around))
            .collect()
    }
}

/// The JSON schema of a request's body, as a part of the description of the API.
pub(crate) fn routes_schema() -> Json {
    table::object(&RoutesBody::base(), RoutesBody::table())
}

/// What stands in the file beside the list, or in its place.
const LIST_ALONE: &str = "expected only the list of routes in `[` and `]` here, such as \
                          [(sni: [\"a.example\"], pool: \"web\")], as `mahoraga routes` prints it";

/// The values of a list of a route, where it is given.
fn items<'a>(route: &'a Value, name: &str) -> &'a [Value] {
    route.field(name).map_or(&[][..], Value::items)
}

/// Prepares a reader for a list of routes, whose pools get their places while it is read. Reports a
/// list that is beyond the limits: to read it all would take long.
fn is_of_size(list: Option<&Value>, reader: &mut Reader<'_>) -> bool {
    reader.around.adds_pools = true;
    let Some(list) = list else {
        return true;
    };
    let routes = list.items();
    let values = |route: &Value| {
        let counts = LISTS.iter().map(|name| items(route, name).len());
        counts.sum::<usize>()
    };
    let regexes = |route: &Value| {
        let count = |name, is_regex: fn(&str) -> bool| {
            let values = items(route, name).iter();
            let is_one = |value: &&Value| matches!(&value.kind, Kind::Text(text) if is_regex(text));
            values.filter(is_one).count()
        };
        count("sni", |text| text.starts_with('~'))
            + count("http_host", |text| text.starts_with('~'))
            + count("proxy_tlv", ProxyTlv::has_regex)
    };
    let pools = |route: &Value| items(route, "pools").len();
    let counted = routes.iter().take(ROUTES_MAX + 1);
    let sentence = beyond_limits([
        routes.len(),
        counted.clone().map(values).sum(),
        counted.clone().map(pools).sum(),
        counted.map(regexes).sum(),
    ]);
    let is_beyond = sentence.is_some();
    if let Some(sentence) = sentence {
        reader.mistake(&list.start(), sentence);
    }
    !is_beyond
}
