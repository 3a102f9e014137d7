//! Changes of a running configuration: the verbs of the API and the command line.

use std::num::NonZeroU32;

use thiserror::Error;

use super::{AdminState, Backend, Config, ConfigError, Group, Pool, Queue, Strategy, values};

/// One change. Names are those of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend joins a pool.
    AddBackend {
        /// The pool.
        pool: String,
        /// Its name and address are nobody else's there.
        backend: Box<Backend>,
    },
    /// A backend leaves: it gets no new sessions, those that it has go on.
    RemoveBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
    },
    /// What is some changes.
    SetBackend {
        /// The pool.
        pool: String,
        /// The backend.
        backend: String,
        /// Its share.
        weight: Option<u16>,
        /// Its limit; `Some(None)`: none.
        max_connections: Option<Option<NonZeroU32>>,
        /// What the operator wants of it.
        state: Option<AdminState>,
    },
    /// What is some changes.
    SetPool {
        /// The pool.
        pool: String,
        /// How a backend is selected.
        strategy: Option<Strategy>,
        /// Connections to all its backends; `Some(None)`: no limit.
        max_connections: Option<Option<NonZeroU32>>,
        /// Who waits.
        queue: Option<Queue>,
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
        /// `None`: what the descriptor limit allows.
        max_connections: Option<NonZeroU32>,
    },
}

/// Why a change is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// There is no such thing.
    #[error("there is no {what} called `{name}`{hint}")]
    Unknown {
        /// `pool`, `backend` or `listener`.
        what: &'static str,
        /// As it was written.
        name: String,
        /// `, did you mean ...?` or nothing.
        hint: String,
    },
    /// There is one already.
    #[error("pool `{pool}` has a backend called `{name}` already")]
    Exists {
        /// The pool.
        pool: String,
        /// The backend.
        name: String,
    },
    /// What would come of it is no configuration.
    #[error("{0}")]
    Invalid(String),
}

impl Change {
    /// The configuration with this change; one that changes nothing leaves it as it is.
    ///
    /// # Errors
    /// [`ChangeError`]; what comes of a change is judged as a file would be.
    pub fn apply(&self, config: &Config) -> Result<Config, ChangeError> {
        let mut next = config.clone();
        self.make(&mut next)?;
        let read = super::parse(String::new(), next.to_ron().into_bytes());
        // Settings that no change is about need not be UTF-8.
        let (read, _) = read.map_err(|error| self.refused(&error))?;
        Ok(Config {
            listeners: read.listeners,
            pools: read.pools,
            ..next
        })
    }

    /// Makes the change, whatever comes of it.
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
                weight,
                max_connections,
                state,
            } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                find(("backend", backend), &mut pool.backends, |one| &one.name)?;
                regroup(pool, |pool| {
                    let named = pool.backends.iter_mut().filter(|one| one.name == *backend);
                    for one in named {
                        one.weight = weight.unwrap_or(one.weight);
                        one.max_connections = max_connections.unwrap_or(one.max_connections);
                        one.state = state.unwrap_or(one.state);
                    }
                });
                Ok(())
            }
            Self::SetPool {
                pool,
                strategy,
                max_connections,
                queue,
            } => {
                let pool = find(("pool", pool), &mut config.pools, |one| &one.name)?;
                if let Some(strategy) = strategy {
                    set_strategy(pool, strategy);
                }
                pool.max_connections = max_connections.unwrap_or(pool.max_connections);
                pool.queue = queue.unwrap_or(pool.queue);
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

    /// What a reader says of the outcome, which was right before: it is about this change.
    fn refused(&self, error: &ConfigError) -> ChangeError {
        let sentence = match error {
            ConfigError::Mistakes(mistakes) => mistakes.first().map(|one| one.sentence.as_str()),
            ConfigError::Unreadable { why, .. } => Some(why.as_str()),
        };
        // Places of a text that nobody has seen.
        let sentence = sentence.unwrap_or_default();
        let sentence = sentence.split(": the first is at ").next();
        let sentence = sentence.unwrap_or_default();
        ChangeError::Invalid(match self {
            Self::AddBackend { pool, .. }
            | Self::RemoveBackend { pool, .. }
            | Self::SetBackend { pool, .. }
            | Self::SetPool { pool, .. } => format!("pool `{pool}`: {sentence}"),
            Self::SetListener { listener, .. } => format!("listener `{listener}`: {sentence}"),
            Self::SetLimit { .. } => sentence.to_owned(),
        })
    }
}

/// The one of a name.
fn find<'a, T>(
    (what, name): (&'static str, &str),
    all: &'a mut [T],
    name_of: impl Fn(&T) -> &str,
) -> Result<&'a mut T, ChangeError> {
    let hint = values::did_you_mean(name, all.iter().map(&name_of));
    let found = all.iter_mut().find(|one| name_of(one) == name);
    found.ok_or_else(|| ChangeError::Unknown {
        what,
        name: name.to_owned(),
        hint,
    })
}

fn add(pool: &mut Pool, backend: &Backend) -> Result<(), ChangeError> {
    for other in &pool.backends {
        if other.name == backend.name {
            return Err(ChangeError::Exists {
                pool: pool.name.clone(),
                name: backend.name.clone(),
            });
        }
        if other.address == backend.address {
            return Err(ChangeError::Invalid(format!(
                "pool `{}` has the address `{}` already, as backend `{}`",
                pool.name, other.address, other.name
            )));
        }
    }
    regroup(pool, |pool| pool.backends.push(backend.clone()));
    Ok(())
}

/// Changes backends; groups that followed from them follow still.
fn regroup(pool: &mut Pool, change: impl FnOnce(&mut Pool)) {
    let follow = |pool: &Pool| match &pool.strategy {
        Strategy::TwoTier(tiers) => tiers.groups == Group::of(&pool.backends),
        Strategy::RoundRobin
        | Strategy::StickyRoundRobin
        | Strategy::Hash(_)
        | Strategy::LeastConnections
        | Strategy::LeastTime(_)
        | Strategy::Random
        | Strategy::PowerOfTwo
        | Strategy::First
        | Strategy::Predictive(_) => false,
    };
    let follows = follow(pool);
    change(pool);
    if let Strategy::TwoTier(tiers) = &mut pool.strategy
        && follows
    {
        tiers.groups = Group::of(&pool.backends);
    }
}

fn set_strategy(pool: &mut Pool, strategy: &Strategy) {
    if pool.strategy == *strategy {
        return;
    }
    // The persistence of `sticky_round_robin` is a part of it, which goes with it.
    if pool.strategy == Strategy::StickyRoundRobin {
        pool.persist = None;
    }
    pool.strategy = strategy.clone();
}

#[cfg(test)]
mod tests;
