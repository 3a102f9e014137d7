//! Changes of a running configuration: the verbs of the API and the command line.

mod batch;
mod topic;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

use thiserror::Error;

pub use topic::Topic;

use super::values::ValueError;
use super::{Backend, BackendPatch, Config, Group, Pool, PoolPatch, Strategy, rules, values};

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
        patch: BackendPatch,
    },
    /// Settings of a pool change.
    SetPool {
        /// The pool.
        pool: String,
        /// Its new settings.
        patch: PoolPatch,
    },
    /// A listener's limit.
    SetListener {
        /// The listener.
        listener: String,
        /// Its client connections; `None`: no limit of its own.
        max_connections: Option<NonZeroU32>,
    },
    /// The limit of all client connections.
    SetLimit {
        /// `None`: as many as the descriptor limit allows.
        max_connections: Option<NonZeroU32>,
    },
}

/// Why a change is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// The pool, backend or listener does not exist.
    #[error("there is no {what} called `{name}`{hint}")]
    Unknown {
        /// `pool`, `backend` or `listener`.
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
        let mut next = config.clone();
        self.make(&mut next)?;
        self.check(&mut next)?;
        Ok(next)
    }

    /// Applies these changes. Returns the configuration with all changes that are accepted, and
    /// the errors of the others by index. Each pool is validated once, however many of the
    /// changes concern it, and what they name is looked up in tables: there may be thousands.
    #[must_use]
    pub fn apply_all(changes: &[Self], config: &Config) -> (Config, Vec<(usize, ChangeError)>) {
        let mut next = config.clone();
        let mut refused = Vec::new();
        let mut of_pools: BTreeMap<&str, Vec<(usize, &Self)>> = BTreeMap::new();
        for (place, change) in changes.iter().enumerate() {
            if let Some(pool) = change.topic().pool() {
                of_pools.entry(pool).or_default().push((place, change));
            } else if let Err(error) = change
                .check(&mut next)
                .and_then(|()| change.make(&mut next))
            {
                refused.push((place, error));
            }
        }
        let pools = config.pools.iter().enumerate();
        let pools: HashMap<_, _> = pools.map(|(at, pool)| (&*pool.name, at)).collect();
        for (name, changes) in of_pools {
            let Some(&at) = pools.get(name) else {
                let unknown = changes
                    .iter()
                    .map(|(place, _)| (*place, gone("pool", name)));
                refused.extend(unknown);
                continue;
            };
            let errors = batch::make(&mut next.pools[at], &changes);
            if judge_pool(&mut next, name).is_ok() {
                refused.extend(errors);
                continue;
            }
            // At least one of them is invalid: find it.
            next.pools[at] = config.pools[at].clone();
            for (place, change) in changes {
                match change.apply(&next) {
                    Ok(with) => next = with,
                    Err(error) => refused.push((place, error)),
                }
            }
        }
        refused.sort_by_key(|(place, _)| *place);
        (next, refused)
    }

    /// The configuration with these changes of existing backends. They were validated when they
    /// were made. A change that would leave a pool without a selectable backend is skipped.
    pub(crate) fn set_backends<'a>(changes: impl Iterator<Item = &'a Self>, config: &mut Config) {
        let mut by_pool: HashMap<&str, HashMap<&str, &BackendPatch>> = HashMap::new();
        for change in changes {
            if let Self::SetBackend {
                pool,
                backend,
                patch,
            } = change
            {
                by_pool.entry(pool).or_default().insert(backend, patch);
            }
        }
        for pool in &mut config.pools {
            let Some(changes) = by_pool.get(&*pool.name) else {
                continue;
            };
            let before = pool.clone();
            regroup(pool, |pool| {
                for backend in &mut pool.backends {
                    if let Some(patch) = changes.get(&*backend.name) {
                        patch.apply(backend);
                    }
                }
            });
            if nothing_to_select(pool) {
                *pool = before;
            }
        }
    }

    /// Validates everything that it may have made invalid.
    fn check(&self, next: &mut Config) -> Result<(), ChangeError> {
        let in_range = |name: &str, number: Option<u32>, range| {
            let Some(number) = number else {
                return Ok(());
            };
            let number = number.to_string();
            let read = values::number(&number, range);
            let refused = |error: ValueError| self.refused(&error.about(name, &number));
            read.map(drop).map_err(refused)
        };
        let limit = |limit: Option<NonZeroU32>| {
            let limit = limit.map(NonZeroU32::get);
            in_range("max_connections", limit, values::CONNECTIONS)
        };
        match self {
            Self::SetListener {
                max_connections, ..
            }
            | Self::SetLimit { max_connections } => limit(*max_connections),
            Self::SetBackend { pool, patch, .. } => {
                in_range("weight", patch.weight.map(u32::from), values::WEIGHT)?;
                limit(patch.max_connections.flatten())?;
                match next.pool(pool) {
                    // Its groups depend on its backends.
                    Some(its) if matches!(its.strategy, Strategy::TwoTier(_)) => {
                        judge_pool(next, pool).map_err(|why| self.refused(&why))
                    }
                    Some(its) if nothing_to_select(its) => {
                        Err(self
                            .refused("backends: every weight is 0, so that none is ever selected"))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Self::AddBackend { pool, backend } => {
                let name = values::name(&backend.name).map(drop);
                name.map_err(|error| self.refused(&error.about("name", &backend.name)))?;
                in_range("weight", Some(u32::from(backend.weight)), values::WEIGHT)?;
                limit(backend.max_connections)?;
                judge_pool(next, pool).map_err(|why| self.refused(&why))
            }
            Self::RemoveBackend { pool, .. } | Self::SetPool { pool, .. } => {
                let named = next.pool(pool);
                let is_alone = |its: &Pool| {
                    its.discovery.is_none() && its.backends.iter().all(|one| one.reserve)
                };
                if named.is_some_and(is_alone) {
                    return Err(self.refused(LAST));
                }
                judge_pool(next, pool).map_err(|why| self.refused(&why))
            }
        }
    }

    /// Applies the change without validating the result.
    fn make(&self, config: &mut Config) -> Result<(), ChangeError> {
        match self {
            Self::AddBackend { pool, backend } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                add(pool, backend)
            }
            Self::RemoveBackend { pool, backend } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                find(("backend", backend), &mut pool.backends, |one| &one.name)?;
                regroup(pool, |pool| {
                    pool.backends.retain(|one| one.name != *backend);
                });
                Ok(())
            }
            Self::SetBackend {
                pool,
                backend,
                patch,
            } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                find(("backend", backend), &mut pool.backends, |one| &one.name)?;
                regroup(pool, |pool| {
                    let named = pool.backends.iter_mut().filter(|one| one.name == *backend);
                    named.for_each(|one| patch.apply(one));
                });
                Ok(())
            }
            Self::SetPool { pool, patch } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                patch.apply(pool);
                Ok(())
            }
            Self::SetListener {
                listener,
                max_connections,
            } => {
                let all = &mut config.listeners;
                let listener = find(("listener", listener), all, |one| &one.name)?;
                listener.max_connections = *max_connections;
                Ok(())
            }
            Self::SetLimit { max_connections } => {
                config.max_connections = *max_connections;
                Ok(())
            }
        }
    }

    /// The error for a change that makes a valid configuration invalid.
    fn refused(&self, why: &str) -> ChangeError {
        ChangeError::Invalid(match self.topic() {
            Topic::Backend(pool, _) | Topic::Pool(pool) => format!("pool `{pool}`: {why}"),
            Topic::Listener(listener) => format!("listener `{listener}`: {why}"),
            Topic::Clients => why.to_owned(),
        })
    }
}

/// Why the last backend of a pool can't be removed.
const LAST: &str = "this is its last backend: add another one first, or drain this one";

/// Completes a pool, and validates it by the rules for a file.
fn judge_pool(config: &mut Config, name: &str) -> Result<(), String> {
    let Some(pool) = config.pools.iter_mut().find(|pool| pool.name == name) else {
        return Ok(());
    };
    pool.complete();
    pool.backends.sort_by_key(|backend| backend.reserve);
    let mut found = Vec::new();
    rules::of_pool("", pool, &mut found);
    let broken = found.into_iter().next().map(|finding| finding.sentence);
    match broken.or_else(|| rules::loop_of(config, name)) {
        Some(sentence) => Err(sentence),
        None => Ok(()),
    }
}

/// Whether every weight is 0 and the pool discovers no other backends.
fn nothing_to_select(pool: &Pool) -> bool {
    let mut declared = pool.backends.iter().filter(|one| !one.reserve);
    pool.discovery.is_none() && declared.all(|one| one.weight == 0)
}

/// Finds an item by its name.
fn find<'a, T>(
    (what, name): (&'static str, &str),
    all: &'a mut [T],
    name_of: impl Fn(&T) -> &str,
) -> Result<&'a mut T, ChangeError> {
    match all.iter().position(|one| name_of(one) == name) {
        Some(place) => Ok(&mut all[place]),
        None => Err(ChangeError::Unknown {
            what,
            name: name.to_owned(),
            hint: values::known(name, all.iter().map(name_of)),
        }),
    }
}

/// The error for a name that was known once, and is no longer: there is none to suggest.
fn gone(what: &'static str, name: &str) -> ChangeError {
    ChangeError::Unknown {
        what,
        name: name.to_owned(),
        hint: String::new(),
    }
}

fn add(pool: &mut Pool, backend: &Backend) -> Result<(), ChangeError> {
    if pool.backend(&backend.name).is_some() {
        return Err(exists(&pool.name, backend));
    }
    regroup(pool, |pool| pool.backends.push(backend.clone()));
    Ok(())
}

/// The error for a backend with the name of another one.
fn exists(pool: &str, backend: &Backend) -> ChangeError {
    ChangeError::Exists {
        pool: pool.to_owned(),
        name: backend.name.clone(),
    }
}

/// Changes backends, and derives the groups again if they were derived from the backends.
fn regroup(pool: &mut Pool, change: impl FnOnce(&mut Pool)) {
    let before = Group::of(&pool.backends);
    change(pool);
    if let Strategy::TwoTier(tiers) = &mut pool.strategy
        && tiers.groups == before
    {
        tiers.groups = Group::of(&pool.backends);
    }
}

#[cfg(test)]
mod tests;
