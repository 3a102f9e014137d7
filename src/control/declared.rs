//! What the configuration file says, and what was changed since over the API.
//!
//! Pure: what is in force after any number of reloads and changes is a function of the last file,
//! the changes that are kept and the changes since that file.

use crate::config::{Change, ChangeError, Config};

/// The configuration without what is discovered.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    /// As the file says.
    file: Config,
    config: Config,
    /// Changes that hold over reloads, in order; at most one of a kind for each thing.
    kept: Vec<Change>,
    /// Changes of backends that were discovered, which are told each time anew; and whether they
    /// hold over reloads.
    afloat: Vec<(Change, bool)>,
    /// Changes were made since the file that do not hold over the next.
    passing: bool,
}

impl Declared {
    /// What a file says.
    pub(super) fn new(file: Config) -> Self {
        Self {
            config: file.clone(),
            file,
            kept: Vec::new(),
            afloat: Vec::new(),
            passing: false,
        }
    }

    /// What is in force, as far as it was said.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a reload would end changes that were not to be kept.
    pub(super) fn is_passing(&self) -> bool {
        self.passing
    }

    /// The same with the changes of discovered backends, where `config` is what is said together
    /// with what is discovered.
    pub(super) fn complete(&self, config: Config) -> Config {
        let changes = self.afloat.iter();
        changes.fold(config, |config, (change, _)| {
            // Whom it is about may have vanished, and may come back.
            change.apply(&config).unwrap_or(config)
        })
    }

    /// Another file takes the place of the last one. The changes that are kept are made again;
    /// those that it leaves no room for are given up, and told.
    pub(super) fn reload(&self, file: Config) -> (Self, Vec<ChangeError>) {
        let mut next = Self::new(file);
        let afloat = self.afloat.iter();
        let kept = afloat.filter(|(change, keep)| *keep && change.apply(&next.config).is_err());
        next.afloat = kept.cloned().collect();
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
        next.passing |= !keep;
        match change.apply(&self.config) {
            Ok(config) => {
                next.config = config;
                // Who is declared was perhaps discovered before: the last word counts.
                next.afloat
                    .retain(|(before, _)| !is_of_same_backend(before, change));
                match change {
                    Change::RemoveBackend { .. } => next.forget(change, keep),
                    Change::AddBackend { .. }
                    | Change::SetBackend { .. }
                    | Change::SetPool { .. }
                    | Change::SetListener { .. }
                    | Change::SetLimit { .. } => {
                        if keep {
                            record(&mut next.kept, change);
                        }
                    }
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
                next.afloat
                    .retain(|(before, _)| before.apply(effective).is_ok());
                let same = |(before, _): &&mut (Change, bool)| is_of_same_backend(before, change);
                let before = next.afloat.iter_mut().find(same);
                let both = before.and_then(|before| Some((merged(&before.0, change)?, before)));
                match both {
                    Some((both, before)) => *before = (both, keep || before.1),
                    None => next.afloat.push((change.clone(), keep)),
                }
                Ok(next)
            }
            Err(error) => Err(error),
        }
    }

    /// A backend was removed: whatever was to be kept of it goes with it. Who was added over the
    /// API leaves no trace; the file's own must be removed again each time, if that is to be kept.
    fn forget(&mut self, removal: &Change, keep: bool) {
        let Change::RemoveBackend { pool, backend } = removal else {
            return;
        };
        self.kept.retain(|before| {
            matches!(before, Change::RemoveBackend { .. }) || !is_of_same_backend(before, removal)
        });
        let in_file = self.file.pool(pool).and_then(|pool| pool.backend(backend));
        if keep && in_file.is_some() && !self.kept.contains(removal) {
            self.kept.push(removal.clone());
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
