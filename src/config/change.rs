//! Changes of a running configuration: the verbs of the API and the command line.

mod batch;
mod topic;

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;

pub use topic::Topic;

use super::{Backend, Config, Group, Listener, Patch, Pool, Strategy, rules, values};

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
    /// Settings for all listeners together change.
    SetGlobal {
        /// The new settings.
        patch: Patch<Config>,
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

    /// Makes these changes of existing backends. They were validated when they were made. Changes
    /// that would leave a pool without a selectable backend are skipped.
    pub(crate) fn set_backends<'a>(changes: impl Iterator<Item = &'a Self>, config: &mut Config) {
        let mut by_pool: HashMap<&str, HashMap<&str, &Patch<Backend>>> = HashMap::new();
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
            if rules::nothing_to_select(pool).is_some() {
                *pool = before;
            }
        }
    }

    /// Validates everything that it may have made invalid.
    fn check(&self, next: &mut Config) -> Result<(), ChangeError> {
        match self {
            Self::SetListener { .. } | Self::SetGlobal { .. } => Ok(()),
            Self::SetBackend { pool, .. } => match next.pool(pool) {
                // Its groups depend on its backends.
                Some(its) if matches!(its.strategy, Strategy::TwoTier(_)) => {
                    judge_pool(next, pool).map_err(|why| self.refused(&why))
                }
                Some(its) => match rules::nothing_to_select(its) {
                    Some(why) => Err(self.refused(why)),
                    None => Ok(()),
                },
                None => Ok(()),
            },
            Self::RemoveBackend { pool, .. } if next.pool(pool).is_some_and(is_empty) => {
                Err(self.refused(LAST))
            }
            Self::AddBackend { pool, .. }
            | Self::RemoveBackend { pool, .. }
            | Self::SetPool { pool, .. } => {
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
                patch.apply(find(("pool", pool), &mut config.pools, |one| &one.name)?);
                Ok(())
            }
            Self::SetListener { listener, patch } => {
                let all = &mut config.listeners;
                patch.apply(find(("listener", listener), all, |one| &one.name)?);
                Ok(())
            }
            Self::SetGlobal { patch } => {
                patch.apply(config);
                Ok(())
            }
        }
    }

    /// The same change, setting by setting.
    pub(crate) fn singles(&self) -> Vec<Self> {
        match self {
            Self::AddBackend { .. } | Self::RemoveBackend { .. } => vec![self.clone()],
            Self::SetBackend {
                pool,
                backend,
                patch,
            } => {
                let singles = patch.singles().map(|patch| Self::SetBackend {
                    pool: pool.clone(),
                    backend: backend.clone(),
                    patch,
                });
                singles.collect()
            }
            Self::SetPool { pool, patch } => {
                let singles = patch.singles().map(|patch| Self::SetPool {
                    pool: pool.clone(),
                    patch,
                });
                singles.collect()
            }
            Self::SetListener { listener, patch } => {
                let singles = patch.singles().map(|patch| Self::SetListener {
                    listener: listener.clone(),
                    patch,
                });
                singles.collect()
            }
            Self::SetGlobal { patch } => {
                let singles = patch.singles().map(|patch| Self::SetGlobal { patch });
                singles.collect()
            }
        }
    }

    /// The error for a change that makes a valid configuration invalid.
    fn refused(&self, why: &str) -> ChangeError {
        ChangeError::Invalid(match self.topic() {
            Topic::Backend(pool, _) | Topic::Pool(pool) => format!("pool `{pool}`: {why}"),
            Topic::Listener(listener) => format!("listener `{listener}`: {why}"),
            Topic::Global => why.to_owned(),
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

/// Whether it has no backend left, and discovers none.
fn is_empty(pool: &Pool) -> bool {
    pool.discovery.is_none() && pool.backends.iter().all(|one| one.reserve)
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
