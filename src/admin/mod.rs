//! The admin API: what may be asked of a running balancer, over HTTP on a Unix socket or on
//! loopback.
//!
//! [`model`] is what goes over the wire, for the server and for the command line as its client.
//! Whatever is asked goes as a [`Call`] to the control thread, which owns all state. A request
//! passes `access` (who is this?), then its row of the table of `endpoints` (may he?), which
//! is also what the router and the OpenAPI description are made of.

#![forbid(unsafe_code)]

mod access;
mod conversion;
mod endpoints;
mod exchange;
mod handlers;
pub mod model;
mod openapi;
mod places;
mod refusal;
mod server;

use std::fmt;

use tokio::sync::{mpsc, oneshot};

pub use access::{TokenError, Tokens};
pub use server::{Door, serve};

use crate::config::{Change, ChangeError};
use crate::control::events::Events;
use model::{
    HistogramStatus, ListenerStatus, PoolStatus, Reloaded, SessionFilter, SessionStatus, Status,
};

/// What the control thread is asked, with where its answer goes.
#[derive(Debug)]
pub enum Call {
    /// How it is going.
    Status(Reply<Status>),
    /// All listeners.
    Listeners(Reply<Vec<ListenerStatus>>),
    /// All pools, some of them with their backends.
    Pools(Which, Reply<Vec<PoolStatus>>),
    /// Sessions that are open now.
    Sessions(SessionFilter, Reply<Vec<SessionStatus>>),
    /// Closes sessions; answers with how many, or why none is closed.
    Kill(SessionFilter, Author, Reply<Result<u64, String>>),
    /// The workers' histograms since the start; they go on counting.
    Histograms(Reply<Vec<HistogramStatus>>),
    /// The effective configuration, as RON.
    Config(Reply<String>),
    /// Changes it; answers with the version that is in force then.
    Change {
        /// What changes.
        change: Change,
        /// Who says so.
        author: Author,
        /// The version, or why nothing changed.
        reply: Reply<Result<u64, ChangeError>>,
    },
    /// Reads the file again; answers with what came of it, or with what is wrong with it.
    Reload(Author, Reply<Result<Reloaded, String>>),
    /// Opens the files of the logs again; answers with their names, or with why one can't be.
    Reopen(Reply<Result<Vec<String>, String>>),
}

/// The pools that are shown with their backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// The one of this name.
    Named(String),
}

impl Which {
    /// Whether a pool of this name is one of them.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(only) => only == name,
        }
    }
}

/// Where an answer goes. Whoever asked may be gone.
pub type Reply<T> = oneshot::Sender<T>;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Look and change.
    Write,
}

/// Who changes something, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Over the Unix socket.
    Socket,
    /// Over HTTP, with the token of this role.
    Token(Role),
    /// By SIGHUP.
    Signal,
    /// By a change of the file.
    File,
    /// The balancer itself: discovery or scaling.
    Balancer,
}

/// The way to the control thread.
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    events: Events,
}

/// The control thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Handle {
    /// A handle, and where its calls arrive.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Call>) {
        let (calls, arriving) = mpsc::channel(CALLS);
        let events = Events::new();
        (Self { calls, events }, arriving)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Gone`]
    pub async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.calls.send(call(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// What happens, to tell of it and to watch it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "socket",
            Self::Token(Role::Read) => "read",
            Self::Token(Role::Write) => "write",
            Self::Signal => "signal",
            Self::File => "file",
            Self::Balancer => "balancer",
        })
    }
}

/// Calls that wait for the control thread; more wait to be sent.
const CALLS: usize = 64;

#[cfg(test)]
mod tests;
