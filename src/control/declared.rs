//! What the configuration file says, and what was changed since over the API.
//!
//! Pure: what is in force after any number of reloads and changes is a function of the last file,
//! the changes that are kept and the changes since that file.

use crate::config::{Change, ChangeError, Config, Pool};

/// The configuration without what is discovered.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// As the file says.
    file: Config,
    config: Config,
    /// Changes that hold over reloads, in order; at most one of a kind for each thing.
    kept: Vec<Change>,
    /// Changes of backends that were discovered: they are told each time anew.
    afloat: Vec<Change>,
}

impl Declared {
    /// What a file says.
    pub(super) fn new(file: Config) -> Self {
        Self {
            config: file.clone(),
            file,
            kept: Vec::new(),
            afloat: Vec::new(),
        }
    }

    /// What is in force, as far as it was said.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The same with the changes of discovered backends, where `config` is what is said together
    /// with what is discovered.
    pub(super) fn complete(&self, config: Config) -> Config {
        let changes = self.afloat.iter();
        changes.fold(config, |config, change| {
            // Whom it is about may have vanished, and may come back.
            change.apply(&config).unwrap_or(config)
        })
    }

    /// Another file takes the place of the last one. The changes that are kept are made again;
    /// those that it leaves no room for are given up, and told.
    pub(super) fn reload(&self, file: Config) -> (Self, Vec<ChangeError>) {
        let mut next = Self {
            afloat: self.afloat.clone(),
            ..Self::new(file)
        };
        let mut given_up = Vec::new();
        for change in &self.kept {
            match change.apply(&next.config) {
                Ok(config) => {
                    next.config = config;
                    next.kept.push(change.clone());
                }
                // Then the file says so itself.
                Err(ChangeError::Unknown { .. })
                    if matches!(change, Change::RemoveBackend { .. }) => {}
                Err(error) => given_up.push(error),
            }
        }
        (next, given_up)
    }

    /// What a change makes of it. `effective` is what is in force with what is discovered.
    ///
    /// # Errors
    /// What [`Change::apply`] says; or that a discovered backend can't be removed.
    pub(super) fn change(
        &self,
        change: &Change,
        keep: bool,
        effective: &Config,
    ) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        match change.apply(&self.config) {
            Ok(config) => {
                next.config = config;
                if keep {
                    next.keep(change);
                }
                Ok(next)
            }
            Err(unknown @ ChangeError::Unknown { .. }) => {
                // It may be one that was discovered.
                let Ok(_) = change.apply(effective) else {
                    return Err(unknown);
                };
                if let Change::RemoveBackend { backend, .. } = change {
                    return Err(ChangeError::Invalid(format!(
                        "backend `{backend}` was discovered and would be again: \
                         set it to maint, or remove it where it is discovered"
                    )));
                }
                // Who vanished for good shall leave nothing behind.
                next.afloat.retain(|before| before.apply(effective).is_ok());
                record(&mut next.afloat, change);
                Ok(next)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down a change that holds over reloads.
    fn keep(&mut self, change: &Change) {
        let Change::RemoveBackend { pool, backend } = change else {
            return record(&mut self.kept, change);
        };
        // Who was added over the API leaves no trace; the file's own must be removed each time.
        self.kept.retain(|before| {
            matches!(before, Change::RemoveBackend { .. }) || !is_of_same_backend(before, change)
        });
        let mut pools = self.file.pools.iter();
        let pool = pools.find(|its| its.name == *pool);
        let in_file = |pool: &Pool| pool.backends.iter().any(|its| its.name == *backend);
        if pool.is_some_and(in_file) && !self.kept.contains(change) {
            self.kept.push(change.clone());
        }
    }
}

/// Writes a change down, as one with an earlier change of the same thing.
fn record(changes: &mut Vec<Change>, change: &Change) {
    for before in changes.iter_mut() {
        if let Some(both) = merged(before, change) {
            *before = both;
            return;
        }
    }
    changes.push(change.clone());
}

fn is_of_same_backend(one: &Change, other: &Change) -> bool {
    let backend = |change: &Change| match change {
        Change::AddBackend { pool, backend } => Some((pool.clone(), backend.name.clone())),
        Change::RemoveBackend { pool, backend } | Change::SetBackend { pool, backend, .. } => {
            Some((pool.clone(), backend.clone()))
        }
        Change::SetPool { .. } | Change::SetListener { .. } | Change::SetLimit { .. } => None,
    };
    backend(one).is_some_and(|pair| Some(pair) == backend(other))
}

/// Two changes of the same thing as one: what the second does not say stays as the first said.
fn merged(first: &Change, second: &Change) -> Option<Change> {
    match (first, second) {
        (
            Change::SetBackend {
                pool,
                backend,
                weight,
                max_connections,
                state,
            },
            Change::SetBackend {
                pool: its_pool,
                backend: same,
                weight: next_weight,
                max_connections: next_max,
                state: next_state,
            },
        ) if pool == its_pool && backend == same => Some(Change::SetBackend {
            pool: pool.clone(),
            backend: backend.clone(),
            weight: next_weight.or(*weight),
            max_connections: next_max.or(*max_connections),
            state: next_state.or(*state),
        }),
        (
            Change::SetPool {
                pool,
                strategy,
                max_connections,
                queue,
            },
            Change::SetPool {
                pool: same,
                strategy: next_strategy,
                max_connections: next_max,
                queue: next_queue,
            },
        ) if pool == same => Some(Change::SetPool {
            pool: pool.clone(),
            strategy: next_strategy.clone().or_else(|| strategy.clone()),
            max_connections: next_max.or(*max_connections),
            queue: next_queue.or(*queue),
        }),
        (Change::SetListener { listener, .. }, Change::SetListener { listener: same, .. })
            if listener == same =>
        {
            Some(second.clone())
        }
        (Change::SetLimit { .. }, Change::SetLimit { .. }) => Some(second.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
