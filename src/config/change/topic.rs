//! What a change is about.

use std::fmt;

use super::Change;

/// What a change is about, by the names of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// A backend: its pool's name, and its own.
    Backend(&'a str, &'a str),
    /// A pool.
    Pool(&'a str),
    /// A listener.
    Listener(&'a str),
    /// An access list.
    AccessList(&'a str),
    /// All listeners together.
    Global,
}

impl Change {
    /// What it changes.
    #[must_use]
    pub fn topic(&self) -> Topic<'_> {
        match self {
            Self::AddBackend { pool, backend } => Topic::Backend(pool, &backend.name),
            Self::RemoveBackend { pool, backend } | Self::SetBackend { pool, backend, .. } => {
                Topic::Backend(pool, backend)
            }
            Self::SetPool { pool, .. } => Topic::Pool(pool),
            Self::SetListener { listener, .. }
            | Self::SetRoutes { listener, .. }
            | Self::WeighRoute { listener, .. } => Topic::Listener(listener),
            Self::EditAccessList { list, .. } => Topic::AccessList(list),
            Self::SetGlobal { .. } => Topic::Global,
        }
    }
}

impl<'a> Topic<'a> {
    /// The pool that it is, or that its backend is in.
    #[must_use]
    pub fn pool(self) -> Option<&'a str> {
        match self {
            Self::Backend(pool, _) | Self::Pool(pool) => Some(pool),
            Self::Listener(_) | Self::AccessList(_) | Self::Global => None,
        }
    }
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(pool, backend) => write!(f, "{pool}/{backend}"),
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Listener(listener) => write!(f, "listener {listener}"),
            Self::AccessList(list) => write!(f, "access list {list}"),
            Self::Global => f.write_str("global"),
        }
    }
}
