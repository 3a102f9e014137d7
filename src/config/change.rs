//! Changes of a running configuration: the verbs of the API and the command line.

mod access_edits;
mod batch;
mod routes;
mod topic;

use std::collections::HashMap;

use thiserror::Error;

pub use access_edits::AccessEdits;
pub(crate) use routes::route_values;
pub use routes::{NewWeights, PoolWeight, RouteRef, RouteWeights};
pub use topic::Topic;

use super::rules::{self, Finding};
use super::{Backend, Config, Listener, Patch, Pool, RouteList, Strategy, values};

/// One change. Names are those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend joins a pool.
    AddBackend {
        /// The pool.
        pool: String,
        /// Its name and address must be unique in the pool.
        backend: Box<Backend>,
    },
    /// A backend leaves: it gets no new sessions, and its open sessions go on.
    RemoveBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
    },
    /// Settings of a backend change.
    SetBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// Its new settings.
        patch: Patch<Backend>,
    },
    /// Settings of a pool change.
    SetPool {
        /// The pool.
        pool: String,
        /// Its new settings.
        patch: Patch<Pool>,
    },
    /// Settings of a listener change.
    SetListener {
        /// The listener.
        listener: String,
        /// Its new settings.
        patch: Patch<Listener>,
    },
    /// A listener gets other routes.
    SetRoutes {
        /// The listener.
        listener: String,
        /// All its new routes.
        routes: RouteList,
        /// The [`RouteList::version`] of its routes before; `None`: any.
        version: Option<String>,
    },
    /// Pools of a route get other weights. The others stay.
    WeighRoute {
        /// The listener.
        listener: String,
        /// The route.
        route: RouteRef,
        /// The new weights.
        weights: RouteWeights,
        /// As of `SetRoutes`.
        version: Option<String>,
    },
    /// Prefixes join or leave an access list.
    EditAccessList {
        /// The list.
        list: String,
        /// The prefixes.
        edits: AccessEdits,
    },
    /// Settings for all listeners together change.
    SetGlobal {
        /// The new settings.
        patch: Patch<Config>,
    },
}

/// Why a change is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// The pool, backend, listener or access list does not exist.
    #[error("there is no {what} called `{name}`{hint}")]
    Unknown {
        /// `pool`, `backend`, `listener` or `access list`.
        what: &'static str,
        /// As it was written.
        name: String,
        /// What may have been meant, as the end of the sentence.
        hint: String,
    },
    /// The pool has a backend with this name already.
    #[error("pool `{pool}` has a backend called `{name}` already")]
    Exists {
        /// The pool.
        pool: String,
        /// The backend.
        name: String,
    },
    /// The listener has no such route.
    #[error("listener `{listener}` has no {route}{rest}")]
    NoRoute {
        /// The listener.
        listener: String,
        /// The route, in words.
        route: String,
        /// Which routes it has, as the end of the sentence.
        rest: String,
    },
    /// The routes are not those that the change was made for.
    #[error("the routes of listener `{listener}` have changed: read them again, and try again")]
    Stale {
        /// The listener.
        listener: String,
    },
    /// The result would not be a valid configuration.
    #[error("{0}")]
    Invalid(String),
}

impl Change {
    /// The configuration with this change. A change without effect returns it unchanged.
    ///
    /// # Errors
    /// [`ChangeError`]; the result must pass the same rules as a file.
    pub fn apply(&self, config: &Config) -> Result<Config, ChangeError> {
        let (next, refused) = Self::apply_all(std::slice::from_ref(self), config);
        match refused.into_iter().next() {
            None => Ok(next),
            Some((_, error)) => Err(error.with_hint(self.topic(), config)),
        }
    }

    /// Applies these changes. Returns the configuration with all changes that are accepted, and
    /// the errors of the others by index. Each pool is validated once, however many of the
    /// changes concern it, and what they name is looked up in tables: there may be thousands.
    #[must_use]
    pub fn apply_all(changes: &[Self], config: &Config) -> (Config, Refused) {
        let mut next = config.clone();
        let (of_pools, mut refused) = by_pool(changes.iter(), config);
        for (place, change) in changes.iter().enumerate() {
            if let Err(error) = change.make_outside_pools(&mut next) {
                refused.push((place, error));
            }
        }
        for (at, changes) in of_pools {
            settle(&mut next, at, &changes, &mut refused);
        }
        refused.sort_by_key(|(place, _)| *place);
        (next, refused)
    }

    /// Makes these changes of existing backends. They were validated when they were made. Changes
    /// that would leave a pool without a selectable backend are skipped.
    pub(crate) fn set_backends<'a>(changes: impl Iterator<Item = &'a Self>, config: &mut Config) {
        for (at, changes) in by_pool(changes, config).0 {
            let before = config.pools[at].clone();
            batch::make(&mut config.pools[at], &changes);
            if rules::nothing_to_select(&config.pools[at]).is_some() {
                config.pools[at] = before;
            }
        }
    }

    /// Makes a change that is not about a pool, unless the result is invalid.
    fn make_outside_pools(&self, config: &mut Config) -> Result<(), ChangeError> {
        match self {
            Self::SetListener { listener, .. }
            | Self::SetRoutes { listener, .. }
            | Self::WeighRoute { listener, .. } => {
                let mut listeners = config.listeners.iter();
                let at = listeners.position(|one| one.name == *listener);
                let at = at.ok_or_else(|| unknown("listener", listener))?;
                let before = config.listeners[at].clone();
                if let Err(error) = self.make_of_listener(config, at) {
                    config.listeners[at] = before;
                    return Err(error);
                }
            }
            Self::EditAccessList { list, edits } => {
                let mut lists = config.access_lists.iter();
                let at = lists.position(|one| one.name == *list);
                let at = at.ok_or_else(|| unknown("access list", list))?;
                let before = config.access_lists[at].clone();
                edits.apply(&mut config.access_lists[at]);
                if let Some(why) = rules::too_many_prefixes(&config.access_lists[at]) {
                    config.access_lists[at] = before;
                    let why = format!("access list `{list}`: {why}");
                    return Err(ChangeError::Invalid(why));
                }
            }
            Self::SetGlobal { patch } => {
                let before = (config.fleet_max_connections, config.rate_limit);
                patch.apply(config);
                if let Some(why) = rules::broken_by_global(config) {
                    (config.fleet_max_connections, config.rate_limit) = before;
                    return Err(ChangeError::Invalid(why));
                }
            }
            Self::AddBackend { .. }
            | Self::RemoveBackend { .. }
            | Self::SetBackend { .. }
            | Self::SetPool { .. } => {}
        }
        Ok(())
    }

    /// Makes a change of the listener at this index. It stays as the change left it if that fails.
    fn make_of_listener(&self, config: &mut Config, at: usize) -> Result<(), ChangeError> {
        let broken = match self {
            Self::SetListener { patch, .. } => {
                patch.apply(&mut config.listeners[at]);
                rules::broken_by_listener(config, at)
            }
            Self::SetRoutes {
                routes, version, ..
            } => {
                routes::check_version(config, at, version.as_deref())?;
                routes::set(config, at, routes)
            }
            Self::WeighRoute {
                route,
                weights,
                version,
                ..
            } => {
                routes::check_version(config, at, version.as_deref())?;
                let listener = &mut config.listeners[at];
                let place = route.find(&listener.routes);
                let place = place.ok_or_else(|| route.missing(listener))?;
                weights.apply(config, at, place)
            }
            Self::AddBackend { .. }
            | Self::RemoveBackend { .. }
            | Self::SetBackend { .. }
            | Self::SetPool { .. }
            | Self::EditAccessList { .. }
            | Self::SetGlobal { .. } => None,
        };
        match broken {
            None => Ok(()),
            Some(why) => {
                let name = &config.listeners[at].name;
                Err(ChangeError::Invalid(format!("listener `{name}`: {why}")))
            }
        }
    }

    /// The part of it about the settings of these bits, if it has any.
    pub(crate) fn only(&self, settings: u32) -> Option<Self> {
        let mut part = self.clone();
        let given = match &mut part {
            Self::AddBackend { .. }
            | Self::RemoveBackend { .. }
            | Self::EditAccessList { .. }
            | Self::SetRoutes { .. }
            | Self::WeighRoute { .. } => return Some(part),
            Self::SetBackend { patch, .. } => &mut patch.given,
            Self::SetPool { patch, .. } => &mut patch.given,
            Self::SetListener { patch, .. } => &mut patch.given,
            Self::SetGlobal { patch } => &mut patch.given,
        };
        *given &= settings;
        (*given != 0).then_some(part)
    }
}

/// Changes with their indices.
type Indexed<'a> = Vec<(usize, &'a Change)>;
/// Changes that are refused, by index.
type Refused = Vec<(usize, ChangeError)>;

/// The changes of each pool by its index, and the errors of those of unknown pools.
fn by_pool<'a>(
    changes: impl Iterator<Item = &'a Change>,
    config: &Config,
) -> (Vec<(usize, Indexed<'a>)>, Refused) {
    let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
    for (place, change) in changes.enumerate() {
        if let Some(pool) = change.topic().pool() {
            by_name.entry(pool).or_default().push((place, change));
        }
    }
    let pools = config.pools.iter().enumerate();
    let known = pools.filter_map(|(at, pool)| Some((at, by_name.remove(&*pool.name)?)));
    let known = known.collect();
    let others = by_name.into_iter();
    let others = others.flat_map(|(pool, changes)| {
        let refuse = move |(place, _)| (place, unknown("pool", pool));
        changes.into_iter().map(refuse)
    });
    (known, others.collect())
}

/// Makes those of these changes of a pool that leave it valid. All are tried at once, then without
/// the backends that break a rule, then in halves: a few invalid ones of thousands cost little.
fn settle(next: &mut Config, at: usize, changes: &[(usize, &Change)], refused: &mut Refused) {
    let before = next.pools[at].clone();
    let errors = batch::make(&mut next.pools[at], changes);
    if errors.len() == changes.len() {
        refused.extend(errors);
        return;
    }
    let found = broken(next, at, changes);
    let Some(first) = found.first() else {
        refused.extend(errors);
        return;
    };
    let invalid = |why: &str| ChangeError::Invalid(format!("pool `{}`: {why}", before.name));
    if let [(place, _)] = changes {
        refused.push((*place, invalid(&first.sentence)));
        next.pools[at] = before;
        return;
    }
    let guilty = rules::members_found(&next.pools[at], &found);
    let breaks = |change: &Change| {
        if let Change::AddBackend { backend, .. } = change {
            guilty.get(&*backend.name).copied()
        } else {
            None
        }
    };
    let mut rest = Vec::new();
    for (place, change) in changes {
        match breaks(change) {
            Some(why) => refused.push((*place, invalid(why))),
            None => rest.push((*place, *change)),
        }
    }
    next.pools[at] = before;
    if rest.len() < changes.len() {
        settle(next, at, &rest, refused);
    } else {
        let (former, latter) = changes.split_at(changes.len() / 2);
        settle(next, at, former, refused);
        settle(next, at, latter, refused);
    }
}

/// The rules for a file that these changes of a pool broke. It looks at all that they may have
/// made invalid.
fn broken(config: &mut Config, at: usize, changes: &[(usize, &Change)]) -> Vec<Finding> {
    let pool = &mut config.pools[at];
    let removes = |change: &Change| matches!(change, Change::RemoveBackend { .. });
    let sets = |change: &Change| matches!(change, Change::SetBackend { .. });
    // The groups of `two_tier` depend on its backends.
    let is_grouped = matches!(pool.strategy, Strategy::TwoTier(_));
    let of_whole = |sentence: String| Finding::at("", sentence);
    if !is_grouped && changes.iter().all(|(_, change)| sets(change)) {
        let why = rules::nothing_to_select(pool).map(str::to_owned);
        why.map(of_whole).into_iter().collect()
    } else if is_empty(pool) && changes.iter().any(|(_, change)| removes(change)) {
        vec![of_whole(LAST.to_owned())]
    } else {
        pool.backends.sort_by_key(|backend| backend.reserve);
        let mut found = Vec::new();
        rules::of_pool("", pool, &mut found);
        if found.is_empty() {
            found.extend(rules::loop_of(config, at).map(of_whole));
        }
        found
    }
}

/// Why the last backend of a pool can't be removed.
const LAST: &str = "this is its last backend: add another one first, or drain this one";

/// Whether it has no backend left, and discovers none.
fn is_empty(pool: &Pool) -> bool {
    pool.discovery.is_none() && pool.backends.iter().all(|one| one.reserve)
}

/// The error for an unknown name, without a hint: of thousands, each would take its time.
fn unknown(what: &'static str, name: &str) -> ChangeError {
    ChangeError::Unknown {
        what,
        name: name.to_owned(),
        hint: String::new(),
    }
}

impl ChangeError {
    /// The error of a single change, with what an unknown name may have meant.
    fn with_hint(mut self, topic: Topic<'_>, config: &Config) -> Self {
        if let Self::Unknown { what, name, hint } = &mut self {
            let pool = topic.pool().and_then(|pool| config.pool(pool));
            *hint = match (*what, pool) {
                ("listener", _) => {
                    let listeners = config.listeners.iter();
                    values::known(name, listeners.map(|one| &*one.name))
                }
                ("access list", _) => {
                    let lists = config.access_lists.iter();
                    values::known(name, lists.map(|one| &*one.name))
                }
                (_, Some(pool)) => values::known(name, pool.backends.iter().map(|one| &*one.name)),
                (_, None) => values::known(name, config.pools.iter().map(|one| &*one.name)),
            };
        }
        self
    }
}

#[cfg(test)]
mod tests;
