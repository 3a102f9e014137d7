//! Changes of a listener's routes: all of them, or the weights of one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value as Json};

use super::{Change, ChangeError};
use crate::config::codec::{groups, name, number, required};
use crate::config::error::bounded;
use crate::config::reader::Around;
use crate::config::route::{SHARE, WEIGHTLESS};
use crate::config::route_list::version;
use crate::config::table::{self, Settings, defaults, settings};
use crate::config::{Config, Listener, ROUTE_POOLS_MAX, Route, RouteList, rules, values};

settings! {
    /// A change of a route while the balancer runs.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct NewWeights {
        /// Pools that the route has in its `pools`, with their new weights. Others keep theirs.
        pub pools: Vec<PoolWeight> = Vec::new() => groups();
        /// The `version` that the listener's routes must have now, as an answer had it. Left out:
        /// any.
        pub version: String = String::new() => version();
    }
}

settings! {
    /// A pool of a route, and its new weight.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PoolWeight {
        /// The name of the pool.
        pub name: String = String::new() => required(name());
        /// Its share relative to the other pools of the route; 0: it gets no new clients.
        pub weight: u16 = 1 => required(number(SHARE));
    }
}

defaults!(NewWeights);

impl NewWeights {
    /// The weights of a request, and the version that it asks for.
    ///
    /// # Errors
    /// None, too many, or a pool twice.
    pub fn checked(&self) -> Result<(RouteWeights, Option<String>), String> {
        let mut weights = RouteWeights::default();
        if self.pools.is_empty() {
            return Err("expected `pools` with at least one pool and its weight".to_owned());
        }
        if self.pools.len() > ROUTE_POOLS_MAX {
            let count = self.pools.len();
            return Err(format!(
                "pools: {count} are too many: expected at most {ROUTE_POOLS_MAX}"
            ));
        }
        for pool in &self.pools {
            if weights.0.insert(pool.name.clone(), pool.weight).is_some() {
                return Err(format!(
                    "pools: `{}` is listed twice: leave one out",
                    pool.name
                ));
            }
        }
        let version = Some(self.version.clone());
        Ok((weights, version.filter(|version| !version.is_empty())))
    }
}

/// Such as `canary=5`.
impl FromStr for PoolWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.rsplit_once('=').unwrap_or((text, ""));
        if name.is_empty() || weight.is_empty() {
            return Err("expected a pool and its weight, such as canary=5".to_owned());
        }
        let weight = number::<u16>(SHARE)
            .flag(weight)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            name: name.to_owned(),
            weight,
        })
    }
}

/// Weights of pools of a route, by the names of the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteWeights(BTreeMap<String, u16>);

impl RouteWeights {
    /// All weights of a route of a listener; none where it is not there.
    pub(crate) fn now(config: &Config, listener: &str, route: &RouteRef) -> Self {
        let routes = routes_of(config, listener);
        let route = route.find(routes).map(|place| &routes[place]);
        let shares = route.into_iter().flat_map(|route| &route.pools);
        let named = shares.map(|share| (config.pools[share.name].name.clone(), share.weight));
        Self(named.collect())
    }

    /// Whether a route of a listener has these pools, and is valid with these weights.
    pub(crate) fn fit(&self, config: &Config, listener: &str, route: &RouteRef) -> bool {
        let routes = routes_of(config, listener);
        let name = |pool: usize| &*config.pools[pool].name;
        let fits = |place: usize| self.apply_to(&mut routes[place].clone(), name).is_ok();
        route.find(routes).is_some_and(fits)
    }

    /// These after earlier ones, as one.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        let both = earlier.0.iter().chain(&self.0);
        Self(both.map(|(pool, weight)| (pool.clone(), *weight)).collect())
    }

    /// The pools and their new weights, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u16)> {
        self.0.iter().map(|(pool, weight)| (&**pool, *weight))
    }

    /// Changes the route at this place. Answers with what is wrong with it then.
    pub(super) fn apply(
        &self,
        config: &mut Config,
        listener: usize,
        place: usize,
    ) -> Option<String> {
        let number = place + 1;
        let (pools, listeners) = (&config.pools, &mut config.listeners);
        let route = &mut listeners[listener].routes[place];
        let wrong = self.apply_to(route, |pool| &*pools[pool].name).err();
        wrong.map(|why| format!("route {number}: {why}"))
    }

    /// Changes a route, whose pools have these names.
    fn apply_to<'a>(
        &self,
        route: &mut Route,
        name: impl Fn(usize) -> &'a str,
    ) -> Result<(), String> {
        if route.pools.is_empty() {
            let why = "pools: it has none with weights: give it `pools` in place of `pool` first";
            return Err(why.to_owned());
        }
        for (pool, weight) in &self.0 {
            let mut shares = route.pools.iter_mut();
            let Some(share) = shares.find(|share| name(share.name) == pool) else {
                let names = route.pools.iter().map(|share| name(share.name));
                let hint = values::known(pool, names);
                return Err(format!("pools: it has no pool called `{pool}`{hint}"));
            };
            share.weight = *weight;
        }
        match route.is_weightless() {
            true => Err(format!("pools: {WEIGHTLESS}")),
            false => Ok(()),
        }
    }
}

/// Such as `canary 5, stable 95`.
impl fmt::Display for RouteWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (pool, weight)) in self.0.iter().take(SHOWN_MAX).enumerate() {
            write!(f, "{}{pool} {weight}", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Which route of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteRef {
    /// By its number, from 1 on.
    Number(usize),
    /// By its name.
    Named(String),
    /// The one that asks for the same clients as this one, wherever it stands.
    Asking(Box<Route>),
}

impl RouteRef {
    /// The place of the route.
    pub(in crate::config) fn find(&self, routes: &[Route]) -> Option<usize> {
        match self {
            Self::Number(number) => {
                let place = number.checked_sub(1)?;
                (place < routes.len()).then_some(place)
            }
            Self::Named(name) => {
                let is_it = |route: &Route| route.name.as_ref() == Some(name);
                routes.iter().position(is_it)
            }
            Self::Asking(one) => routes.iter().position(|route| route.asks_the_same(one)),
        }
    }

    /// The error for a listener that lacks it.
    pub(super) fn missing(&self, listener: &Listener) -> ChangeError {
        let rest = match self {
            Self::Named(name) => {
                let names = listener.routes.iter();
                let names: Vec<_> = names.filter_map(|route| route.name.as_deref()).collect();
                match names.is_empty() {
                    true => there(listener),
                    false => values::known(name, names.into_iter()),
                }
            }
            Self::Number(_) | Self::Asking(_) => there(listener),
        };
        ChangeError::NoRoute {
            listener: listener.name.clone(),
            route: self.to_string(),
            rest,
        }
    }
}

/// Which routes a listener has, each by its name or its number, as the end of a sentence.
fn there(listener: &Listener) -> String {
    let all = (1..).zip(&listener.routes);
    let named = all.map(|(number, route): (usize, &Route)| {
        let name = route.name.clone();
        name.unwrap_or_else(|| number.to_string())
    });
    let mut shown: Vec<_> = named.take(SHOWN_MAX).collect();
    match listener.routes.len() - shown.len() {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    match shown.len() {
        0 => ": it has no routes".to_owned(),
        1 => format!(": its only route is {}", shown[0]),
        _ => format!(": its routes are {}", values::joined(&shown, "and")),
    }
}

impl FromStr for RouteRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `+7` is a name.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let named = || values::is_name(text).then(|| Self::Named(text.to_owned()));
        let its = match is_number {
            true => text.parse().ok().map(Self::Number),
            false => named(),
        };
        its.ok_or_else(|| {
            format!(
                "invalid route `{}`: expected its name, or its number in its listener, from 1 on",
                bounded(text.to_owned())
            )
        })
    }
}

/// Such as `route 2`, `route shop`, or `route (sni: ["a.example"])`.
impl fmt::Display for RouteRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "route {number}"),
            Self::Named(name) => write!(f, "route {name}"),
            Self::Asking(route) => {
                let conditions = table::text(&**route, &Route::base(), &Around::default());
                let conditions = conditions.shown().unwrap_or_else(|| "for all".to_owned());
                write!(f, "route {}", bounded(conditions))
            }
        }
    }
}

impl Change {
    /// The change as it holds over reloads, which may move routes: it names a route by its name, or
    /// else by what it asks for, and no version. `config` is that before the change.
    #[must_use]
    pub(crate) fn lasting(mut self, config: &Config) -> Self {
        match &mut self {
            Self::SetRoutes { version, .. } => *version = None,
            Self::WeighRoute {
                listener,
                route,
                version,
                ..
            } => {
                *version = None;
                let routes = routes_of(config, listener);
                if let Some(place) = route.find(routes) {
                    let found = &routes[place];
                    *route = match &found.name {
                        Some(name) => RouteRef::Named(name.clone()),
                        None => RouteRef::Asking(Box::new(found.conditions())),
                    };
                }
            }
            Self::AddBackend { .. }
            | Self::RemoveBackend { .. }
            | Self::SetBackend { .. }
            | Self::SetPool { .. }
            | Self::SetListener { .. }
            | Self::EditAccessList { .. }
            | Self::SetGlobal { .. } => {}
        }
        self
    }
}

impl RouteList {
    /// With these weights in a route, if it has them.
    pub(crate) fn weighed(&self, route: &RouteRef, weights: &RouteWeights) -> Option<Self> {
        let mut list = self.clone();
        let place = route.find(&list.routes)?;
        let names = &self.pools;
        let set = weights.apply_to(&mut list.routes[place], |pool| &*names[pool]);
        set.is_ok().then_some(list)
    }
}

/// Whether the routes of a listener, by its index, have this version; `None`: any is right.
pub(super) fn check_version(
    config: &Config,
    at: usize,
    version: Option<&str>,
) -> Result<(), ChangeError> {
    let listener = &config.listeners[at];
    match version {
        Some(version) if RouteList::of(config, listener).version() != version => {
            let listener = listener.name.clone();
            Err(ChangeError::Stale { listener })
        }
        _ => Ok(()),
    }
}

/// Gives a listener these routes. Answers with what is wrong with them.
pub(super) fn set(config: &mut Config, at: usize, routes: &RouteList) -> Option<String> {
    match routes.resolved(config) {
        Ok(routes) => {
            config.listeners[at].routes = routes;
            rules::broken_by_routes(config, at)
        }
        Err(why) => Some(why),
    }
}

/// None where the listener is not there.
fn routes_of<'a>(config: &'a Config, listener: &str) -> &'a [Route] {
    let listener = config.listener(listener);
    listener.map_or(&[], |its| &its.routes)
}

/// What a configuration has of what a change of routes changes, by paths such as
/// `routes[1].pools[canary].weight`. A route has its name there, or else its number from 1 on.
pub(crate) fn route_values(change: &Change, config: &Config) -> Option<Json> {
    let values: Map<String, Json> = match change {
        Change::SetRoutes { listener: name, .. } => {
            let routes = RouteList::of(config, config.listener(name)?);
            let words = routes.routes.iter().zip(routes.words()).enumerate();
            let words = words
                .map(|(place, (route, text))| (format!("routes[{}]", called(route, place)), text));
            // Of long routes the words may be the same.
            let version = [("version".to_owned(), routes.version())];
            let all = words.chain(version);
            all.map(|(path, value)| (path, value.into())).collect()
        }
        Change::WeighRoute {
            listener: name,
            route,
            weights,
            ..
        } => {
            let routes = &config.listener(name)?.routes;
            let place = route.find(routes)?;
            let called = called(&routes[place], place);
            let now = RouteWeights::now(config, name, route);
            let paths = weights.0.keys().map(|pool| {
                let path = format!("routes[{called}].pools[{pool}].weight");
                (path, now.0.get(pool).copied().into())
            });
            paths.collect()
        }
        Change::AddBackend { .. }
        | Change::RemoveBackend { .. }
        | Change::SetBackend { .. }
        | Change::SetPool { .. }
        | Change::SetListener { .. }
        | Change::EditAccessList { .. }
        | Change::SetGlobal { .. } => return None,
    };
    Some(values.into())
}

/// The name of the route at this place, or else its number.
fn called(route: &Route, place: usize) -> String {
    let number = || (place + 1).to_string();
    route.name.clone().unwrap_or_else(number)
}

/// Pools that a sentence names.
const SHOWN_MAX: usize = 10;
