//! The admin API of a running balancer: HTTP on a Unix socket or on loopback, and a part of it for
//! those who read metrics.
//!
//! [`model`] has the wire types, for the server and for the command line as its client. A request
//! passes `access`, which identifies the caller, then its row in the table of `endpoints`, which
//! checks the role. It goes on as a [`Call`] to the control thread, which owns all state. The
//! router and the OpenAPI description are made from the same table.

#![forbid(unsafe_code)]

mod access;
mod endpoints;
mod exchange;
pub(crate) mod exposition;
mod handlers;
mod lobby;
mod membership;
pub mod model;
mod openapi;
mod pace;
mod page;
mod refusal;
mod server;
mod slots;
mod token_file;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use access::{TokenError, Tokens};
pub use server::{AdminListener, Replacement, refused_scrapers, serve};
pub use token_file::TokenFile;

use crate::config::{Change, ChangeError, NewBan, Patch};
use crate::control::HistoryReader;
use crate::control::events::Events;
use crate::peek::SpokenBytes;
use crate::prefix::Prefix;
use crate::worker::{DecisionFilter, LatencyCounts, PreviewQuestion};
use model::{
    AccessListDetail, AccessListStatus, BanFilter, BanStatus, Banned, Changed, ConfigText,
    DryRunStatus, HistogramStatus, Lifted, LiftedBans, ListenerRoutes, ListenerStatus, PoolStatus,
    Reloaded, RouteChoice, SessionExplanation, SessionFilter, SessionStatus, Stage, Status,
    UnbanFilter,
};

/// Why the ban of a network is not lifted.
#[derive(Clone, Debug, Error)]
pub enum UnbanError {
    /// There is none.
    #[error("{0}")]
    NotBanned(String),
    /// It would come back.
    #[error("{0}")]
    Refused(String),
}

/// A request to the control thread, with the channel for its answer.
#[derive(Debug)]
pub enum Call {
    /// Overall status.
    Status(Reply<Status>),
    /// All listeners.
    Listeners(Reply<Vec<ListenerStatus>>),
    /// All access lists.
    AccessLists(Reply<Vec<AccessListStatus>>),
    /// The access list of a name, and what it says of a client; or the names that are known.
    AccessList(
        String,
        Option<IpAddr>,
        Reply<Result<AccessListDetail, Vec<String>>>,
    ),
    /// The bans that match.
    Bans(BanFilter, Reply<Vec<BanStatus>>),
    /// Bans clients. Answers with the ban, or why none is made.
    Ban(Patch<NewBan>, Author, Reply<Result<Banned, String>>),
    /// Lifts the ban of a network. Answers with what it was, or why there is none.
    Unban(Prefix, Author, Reply<Result<Lifted, UnbanError>>),
    /// Lifts the bans that match.
    UnbanAll(UnbanFilter, Author, Reply<LiftedBans>),
    /// All pools, some of them with their backends.
    Pools(Which, Reply<Vec<PoolStatus>>),
    /// Sessions that are open now; or why not all are known.
    Sessions(SessionFilter, Reply<Result<Vec<SessionStatus>, String>>),
    /// Where sessions went, and why; or why not all workers tell.
    Explain(
        DecisionFilter,
        Reply<Result<Vec<SessionExplanation>, String>>,
    ),
    /// Where a client would go now, and why; or why that can't be told.
    DryRun(PreviewQuestion, Reply<Result<DryRunStatus, String>>),
    /// Which route of the listener of this name would take a client that says this.
    Route(
        String,
        Option<IpAddr>,
        SpokenBytes,
        Reply<Result<RouteChoice, NoRouteTold>>,
    ),
    /// The routes of the listener of this name; or the names that are known.
    Routes(String, Reply<Result<ListenerRoutes, Vec<String>>>),
    /// Closes sessions. Answers with their number, or why none is closed.
    Kill(SessionFilter, Author, Reply<Result<u64, String>>),
    /// How long clients waited and turns took since the start: of each worker.
    Latencies(Reply<Vec<LatencyCounts>>),
    /// The workers' histograms since the start.
    Histograms(Reply<Vec<HistogramStatus>>),
    /// The effective configuration.
    Config(Reply<ConfigText>),
    /// Changes the configuration.
    Change {
        /// What changes.
        change: Change,
        /// Who changes it.
        author: Author,
        /// The version that is in force after it, or why nothing changed.
        reply: Reply<Result<Changed, ChangeError>>,
    },
    /// Reads the file again. Answers with what changed, or with the mistakes in the file.
    Reload(Author, Reply<Result<Reloaded, String>>),
    /// Leaves: refuses readiness, and after this time new clients; or why not.
    Leave(Duration, Author, Reply<Result<Stage, String>>),
    /// Takes part again after that.
    Join(Author, Reply<Result<Stage, String>>),
    /// Opens the log files again. Answers with their names, or why one can't be opened.
    Reopen(Reply<Result<Vec<String>, String>>),
}

/// Why it is not told where a client would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRouteTold {
    /// No listener has the name: those that are known.
    Unknown(Vec<String>),
    /// No client says all of that to the listener: why, in a sentence.
    Unsaid(String),
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

/// The channel for an answer. Its receiver may be gone.
pub type Reply<T> = oneshot::Sender<T>;

/// What a caller may do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    Read,
    /// Read and change.
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
    /// For calls that are answered at once: no long one delays them.
    brief: mpsc::Sender<Call>,
    events: Events,
    history: HistoryReader,
}

/// Where the calls arrive.
#[derive(Debug)]
pub struct Calls {
    calls: mpsc::Receiver<Call>,
    brief: mpsc::Receiver<Call>,
}

impl Calls {
    /// The next call: of each kind in order, and neither kind before the other. `None`: no handle
    /// is left. The future can be dropped without loss.
    pub async fn next(&mut self) -> Option<Call> {
        tokio::select! {
            Some(call) = self.calls.recv() => Some(call),
            Some(call) = self.brief.recv() => Some(call),
            else => None,
        }
    }
}

/// The control thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl Handle {
    /// A handle, and where its calls arrive.
    #[must_use]
    pub fn new() -> (Self, Calls) {
        let (calls, arriving) = mpsc::channel(CALLS);
        let (brief, arriving_brief) = mpsc::channel(CALLS);
        let handle = Self {
            calls,
            brief,
            events: Events::new(),
            history: HistoryReader::empty(),
        };
        let arriving = Calls {
            calls: arriving,
            brief: arriving_brief,
        };
        (handle, arriving)
    }

    /// Sends a call, and waits for the answer.
    ///
    /// # Errors
    /// [`Gone`]
    pub async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let call = call(reply);
        let to = match call {
            Call::Status(_) => &self.brief,
            Call::Listeners(_)
            | Call::AccessLists(_)
            | Call::AccessList(..)
            | Call::Bans(..)
            | Call::Ban(..)
            | Call::Unban(..)
            | Call::UnbanAll(..)
            | Call::Pools(..)
            | Call::Sessions(..)
            | Call::Explain(..)
            | Call::DryRun(..)
            | Call::Route(..)
            | Call::Routes(..)
            | Call::Kill(..)
            | Call::Latencies(_)
            | Call::Histograms(_)
            | Call::Config(_)
            | Call::Change { .. }
            | Call::Reload(..)
            | Call::Leave(..)
            | Call::Join(..)
            | Call::Reopen(_) => &self.calls,
        };
        to.send(call).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// The same handle, which reads from this history.
    #[must_use]
    pub fn with_history(self, history: HistoryReader) -> Self {
        Self { history, ..self }
    }

    /// The history, to read.
    #[must_use]
    pub(crate) fn history(&self) -> &HistoryReader {
        &self.history
    }

    /// The events, to publish and to follow.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }
}

impl Author {
    /// The name in the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Token(Role::Read) => "read",
            Self::Token(Role::Write) => "write",
            Self::Signal => "signal",
            Self::File => "file",
            Self::Balancer => "balancer",
        }
    }
}

/// What follows "changed" in a sentence.
impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket => "over the admin socket",
            Self::Token(Role::Read) => "with the read token",
            Self::Token(Role::Write) => "with the write token",
            Self::Signal => "by SIGHUP",
            Self::File => "by a change of the file",
            Self::Balancer => "by the balancer itself",
        })
    }
}

/// Calls that are queued for the control thread. Beyond that their senders wait.
const CALLS: usize = 64;

#[cfg(test)]
mod tests;
