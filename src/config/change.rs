//! Changes of a running configuration: the verbs of the API and the command line.

use std::num::NonZeroU32;

use thiserror::Error;

use super::{AdminState, Backend, Config, Queue, Strategy};

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
        let _ = config;
        Err(ChangeError::Invalid("not yet".to_owned()))
    }
}
