//! Messages between workers and the control thread.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::guard::DeniedBy;
use crate::kernel::TcpInfo;
use crate::pool::{Backend, Pool, Tally};
use crate::route::RouteNumber;
use crate::session::{CloseReason, Summary};
use crate::snapshot::{LiveListener, Snapshot};
use crate::tls::ClientIdentity;

use super::decisions::Decided;
use super::filter::{DecisionFilter, SessionFilter};
use super::headers::ProxyPeer;
use super::log_feed::LogFeed;
use super::metrics::Recorded;
use super::preview::{Preview, PreviewQuestion};
use super::sessions::SessionInfo;
use super::tries::Tries;

/// A command of the control thread to a worker.
#[derive(Debug)]
pub enum Command {
    /// Route by this snapshot from now on.
    Publish(Arc<Snapshot>),
    /// Hand over the histograms and begin new ones.
    TakeHistograms(Sender<(u32, Box<Recorded>)>),
    /// Hand the records of the access log to this feed from now on; `None`: no more.
    Log(Option<LogFeed>),
    /// List the sessions that match.
    Sessions(SessionFilter, Sender<Vec<SessionInfo>>),
    /// List the decisions that match.
    Decisions(DecisionFilter, Sender<Vec<Decided>>),
    /// Say where a client would go now, by each listener of a pool.
    Preview(PreviewQuestion, Sender<Vec<Preview>>),
    /// Close the sessions that match, evenly spread over this time; answered by how many there are.
    Close(SessionFilter, CloseReason, Duration, Sender<Option<u64>>),
    /// Close the sessions of these backends, which went down, each backend's evenly spread over
    /// this time. A snapshot in which one is up again ends what is left of its order.
    CloseDowned(Vec<(Arc<Tally>, Duration)>),
    /// The kernel's memory for TCP is short: close sessions that hold so many bytes of it, if their
    /// peers have taken little of that since the last such command.
    FreeMemory(u64),
    /// Show this number in [`Progress`](super::Progress), as a sign of life.
    Beat(u64),
    /// Accept no more, end when the last session has; cut those that last longer than this.
    Stop(Duration),
}

/// What has happened to a session that gets a line in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// It is connected to its backend.
    Start,
    /// It has been open for long.
    Progress,
    /// It has ended, for this reason.
    End(CloseReason),
}

/// A line of a session in the access log.
#[derive(Debug)]
pub struct Record {
    /// Counts up within a worker.
    pub number: u64,
    /// The worker of the session.
    pub worker: u32,
    /// The listener that accepted its client.
    pub listener: Arc<LiveListener>,
    /// Which of the listener's routes its client took.
    pub route: RouteNumber,
    /// The backend that was selected last.
    pub backend: Option<Arc<Backend>>,
    /// The client; `None` on a Unix socket.
    pub client: Option<std::net::SocketAddr>,
    /// The proxy that named its client by a header.
    pub proxy: Option<ProxyPeer>,
    /// Attempts, times and bytes.
    pub summary: Summary,
    /// When this happened, in nanoseconds of the workers' clock.
    pub at: u64,
    /// What happened.
    pub event: LogEvent,
    /// The rule that would have refused its client if it were not in dry run.
    pub dry_run: Option<DeniedBy>,
    /// Its attempts that failed; `None`: none did.
    pub tries: Option<Box<Tries>>,
    /// How long the connect took that stood, in µs, if one did.
    pub connect_us: u32,
    /// What the log asks for besides. Most logs do not: a record without it is small.
    pub extras: Option<Box<LineExtras>>,
}

/// What most lines do not have. Each is there if the log asks for it.
#[derive(Clone, Debug, Default)]
pub struct LineExtras {
    /// The status of the backend's first answer, if that is HTTP/1.
    pub status: Option<NonZeroU16>,
    /// The name that its client asked for in TLS, if it was looked at.
    pub server_name: Option<Box<str>>,
    /// The fingerprint of its hello (JA4), if it was looked at.
    pub ja4: Option<Box<str>>,
    /// What the TLS of the client, and that of the backend, agreed on, if they have some.
    pub tls: [Option<TlsRecord>; 2],
    /// What TCP knew of the connection of the client, and of that of the backend.
    pub tcp: [Option<TcpInfo>; 2],
}

/// What TLS had agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsRecord {
    /// The version, as `1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite, by its name at IANA.
    pub cipher: Option<&'static str>,
    /// The application protocol (ALPN).
    pub protocol: Option<Box<str>>,
    /// Whether a session was resumed; `None`: the handshake was not done.
    pub resumed: Option<bool>,
    /// How long the handshake took, in µs: since the accept of a client, since the connect of a
    /// backend.
    pub took_us: Option<u32>,
    /// Why it failed.
    pub error: Option<Box<str>>,
    /// Who the client is by its certificate, which was verified.
    pub client: Option<Arc<ClientIdentity>>,
}

impl Record {
    /// The pool that the session went to.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        self.listener.plan_of(self.route).pool()
    }

    /// Why the session ended; `None`: it goes on.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        match self.event {
            LogEvent::Start | LogEvent::Progress => None,
            LogEvent::End(reason) => Some(reason),
        }
    }
}
