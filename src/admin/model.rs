//! What goes over the wire, as JSON. Times are seconds, shares are percent, unless a name says
//! otherwise; a limit that is absent (`null`) is none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::Role;
use crate::buckets::{BucketCounts, SessionCounts};
use crate::config::{AdminState, EffectiveSetting};
pub use crate::history::{
    FigureHistory, HistoryAnswer, HistoryEvent, HistoryEventQuery, HistoryQuery, Measured,
    SubjectHistory,
};
pub use crate::session::SessionState;
pub use crate::worker::{SESSIONS, SESSIONS_MAX, SessionFilter, SessionId};

mod access_lists;
mod bans;
mod done;
mod etcd;
mod events;
mod explain;
mod figures;
mod fleet;
mod membership;
mod peers;
mod route;
mod sessions;
mod tls;

pub use access_lists::{AccessDecision, AccessListDetail, AccessListStatus, AccessQuestion};
pub use bans::{
    BANS, BANS_MAX, BanFilter, BanImportStatus, BanOrder, BanStatus, Banned, BannedBy, BansStatus,
    Lifted, LiftedBans, SynFilterMeans, SynFilterStatus, UnbanFilter,
};
pub use done::{Changed, Killed, Reloaded, Reopened};
pub use etcd::{EtcdStatus, RegistryStatus};
pub use events::{BalancerEvent, EventKind};
pub use explain::{
    AttemptStatus, CandidateStatus, DecisionStatus, DryRunQuery, DryRunStatus, EXPLANATIONS_MAX,
    ExplainQuery, KeyStatus, ListenerChoice, RefusalStatus, SessionExplanation, WorkerChoice,
    client_address,
};
pub use figures::{
    ControlStatus, HistogramStatus, HistoryStatus, LastChange, LatencyStatus, LatencyWindow,
    ProbeStatus, SegmentsStatus, TrafficStatus,
};
pub use fleet::{FleetLimitStatus, FleetStatus};
pub use membership::{LEAVE_WAIT, LeaveQuery, Readiness};
pub use peers::{PeerStatus, PeersStatus};
pub use route::{ListenerRoutes, MetStatus, RouteChoice, RouteQuestion, RouteStatus};
pub use sessions::{SessionStatus, TlsClientStatus};
pub use tls::{CertificateStatus, RevocationListStatus, StapleStatus, TlsStatus};

/// Overall status of the balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The commit that it was built of, and its date; none in a debug build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub started_at: String,
    /// How long it has been running, in seconds.
    pub uptime_s: f64,
    /// Whether it takes connections.
    pub stage: Stage,
    /// Why it is not ready in the stage `ready`: it can serve no client that a limit over the fleet
    /// is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Addresses of `freebind` listeners that were still on this machine when it left: clients come
    /// to them, and are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub still_here: Vec<IpAddr>,
    /// The number of the snapshot in force; it counts up with every change of any kind.
    pub snapshot: u64,
    /// How long the last change took to reach every worker, in µs.
    pub publish_us: Option<u64>,
    /// Client connections now.
    pub connections: u64,
    /// Client connections at most.
    pub max_connections: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Bytes of all sessions since the start.
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// Sessions ended since the start, by reason; without those that never happened.
    pub closed: BTreeMap<String, u64>,
    /// What this machine lacked in the last second, such as descriptors or local ports, a sentence
    /// each with the remedy.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Pools whose new sessions fail, or go to backends that may not work, and what goes wrong with
    /// discovery: a sentence each.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// What settings have cost clients since the start, a sentence each with the setting, and the
    /// listener, pool or backend that it cost most.
    #[serde(default)]
    pub regrets: Vec<String>,
    /// The access lists.
    #[serde(default)]
    pub access_lists: Vec<AccessListStatus>,
    /// The table of sources.
    #[serde(default)]
    pub sources: SourcesStatus,
    /// What waited for the limit of bandwidth of all sessions.
    #[serde(default)]
    pub paced: PacedStatus,
    /// The ban table.
    #[serde(default)]
    pub bans: BansStatus,
    /// What drops banned clients before they are accepted.
    #[serde(default)]
    pub syn_filter: SynFilterStatus,
    /// The history of figures and events.
    #[serde(default)]
    pub history: HistoryStatus,
    /// What of the configuration takes effect at the next start, a sentence each.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// How long clients waited: in the last 10 s and minute, and since the start.
    #[serde(default)]
    pub latencies: Vec<LatencyStatus>,
    /// What came of reading the configuration again.
    pub reloads: Reloads,
    /// Scaling decisions that could not be sent to the webhook.
    #[serde(default)]
    pub webhook_failures: u64,
    /// What is known of etcd, over all prefixes that are followed.
    #[serde(default)]
    pub etcd: EtcdStatus,
    /// What is known of other balancers that this one shares bans and sticky clients with.
    #[serde(default)]
    pub peers: PeersStatus,
    /// What is known of Consul, over all services that are followed.
    #[serde(default)]
    pub consul: RegistryStatus,
    /// What is known of Kubernetes, over all Services that are followed.
    #[serde(default)]
    pub kubernetes: RegistryStatus,
    /// What this balancer has of limits over the fleet; `null`: there are none.
    #[serde(default)]
    pub fleet: Option<FleetStatus>,
    /// Lines of the operational log that were dropped: standard error did not take them.
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// Clients of the listener for metrics that were reset, as its `allow` has none of their
    /// addresses.
    #[serde(default)]
    pub scrapers_refused: u64,
    /// Segments of TCP that this machine has sent and received.
    #[serde(default)]
    pub segments: Option<SegmentsStatus>,
    /// What the process may do.
    #[serde(default)]
    pub privileges: PrivilegesStatus,
    /// The control thread's own time.
    #[serde(default)]
    pub control: ControlStatus,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
}

/// What the process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrivilegesStatus {
    /// The user that it runs as.
    pub user: String,
    /// The capabilities that it has, such as `CAP_NET_BIND_SERVICE`.
    pub capabilities: Vec<String>,
    /// Whether programs that it would execute get no more than it has.
    pub no_new_privs: bool,
    /// Whether all threads are confined to the system calls that they need (seccomp).
    pub calls_filtered: bool,
}

/// Whether the balancer takes connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not every backend that is probed has been probed once.
    #[default]
    Starting,
    /// It takes connections.
    Ready,
    /// It is leaving: clients are to go to another balancer, and it takes those that still come.
    Leaving,
    /// It has left: it takes no new clients, and lets open sessions finish.
    Left,
    /// It is stopping, and lets open sessions finish.
    Stopping,
}

/// Readings of the configuration after the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloads {
    /// Reloads that took effect.
    pub succeeded: u64,
    /// Reloads that were refused: the configuration before stayed in force.
    pub failed: u64,
    /// When the last one was (RFC 3339).
    pub last_at: Option<String>,
    /// Why the last one was refused, if it was.
    pub last_error: Option<String>,
}

/// Client connections, of all listeners together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Open now.
    pub connections: u64,
    /// The limit.
    pub max_connections: u64,
}

/// A worker: its counters are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: u32,
    /// The number of the snapshot that it routes by.
    pub snapshot: u64,
    /// Bytes of its sessions.
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// Its gauges and counters by name, as SIGUSR1 shows them.
    pub numbers: BTreeMap<String, u64>,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub bind: String,
    /// Where its sessions go.
    pub pool: String,
    /// Client connections now.
    pub connections: u64,
    /// Client connections at most.
    pub max_connections: Option<u32>,
    /// Sessions begun since it listens.
    #[serde(default)]
    pub sessions: u64,
    /// Sessions ended since it listens, by reason; without reasons that never occurred. Clients in
    /// `refused` had none.
    #[serde(default)]
    pub closed: BTreeMap<String, u64>,
    /// The access list that says which clients may connect.
    #[serde(default)]
    pub access_list: Option<String>,
    /// Clients refused since it listens.
    #[serde(default)]
    pub refused: u64,
    /// The same by rule: those that were banned, those that the access list refused, and those that
    /// limits of new connections refused, by limit. Their sum is `refused`.
    #[serde(default)]
    pub refused_by: BTreeMap<String, u64>,
    /// Clients that such a rule would have refused if it were not in a dry run, by rule.
    #[serde(default)]
    pub dry_run: BTreeMap<String, u64>,
    /// Clients that came back within a second after the idle timeout had cut them.
    #[serde(default)]
    pub idle_regrets: u64,
    /// What this balancer has of its limits over the fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fleet: Vec<FleetLimitStatus>,
    /// What waited for its limits of bandwidth, by limit: `session`, `source` or `all`.
    #[serde(default)]
    pub paced: BTreeMap<String, PacedStatus>,
    /// Its routes in their order, each with every pool that it leads to.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// Sessions ended that none of its routes took: they went to its pool, or ended before a route
    /// was known; `null`: it has no routes.
    #[serde(default)]
    pub unrouted: Option<u64>,
    /// TLS that ends there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// Bytes of its sessions.
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// How long handshakes of TLS took since the accept, for `/metrics`.
    #[serde(skip)]
    pub handshakes: BucketCounts,
    /// How long clients waited since their accept, for `/metrics`.
    #[serde(skip)]
    pub times: SessionCounts,
    /// How long clients waited in queues of pools, for `/metrics`.
    #[serde(skip)]
    pub waits: BucketCounts,
}

impl TlsStatus {
    /// When the first of its certificates expires, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        self.certificates.iter().map(|one| one.expires).min()
    }
}

/// What waited for a limit of bandwidth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacedStatus {
    /// How often a session waited to receive from its client.
    pub rests_up: u64,
    /// How often a session waited to receive from its backend.
    pub rests_down: u64,
    /// Bytes that it waited for, from clients.
    pub bytes_up: u64,
    /// Bytes that it waited for, from backends.
    pub bytes_down: u64,
}

/// The table of sources, for limits of what a source may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourcesStatus {
    /// How many sources it has.
    pub known: u64,
    /// The number of sources that the table has room for.
    pub capacity: u32,
    /// Clients that shared the limits of one source, as it had no room for theirs.
    pub overflowed: u64,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// How a backend is selected.
    pub strategy: String,
    /// Connections to all its backends now.
    pub connections: u64,
    /// Connections to all its backends at most.
    pub max_connections: Option<u32>,
    /// Bytes to and from its backends, including removed backends.
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// Clients that wait for a place now.
    pub queued: u64,
    /// Clients that wait at most.
    pub queue_max: u32,
    /// How long clients wait in the queue at most, in seconds.
    pub queue_timeout_s: f64,
    /// Clients refused as `pool_full` for whom a place came free within 100 ms.
    #[serde(default)]
    pub full_regrets: u64,
    /// Clients refused as `queue_timeout` for whom a place came free within 100 ms.
    #[serde(default)]
    pub queue_regrets: u64,
    /// Too few backends are usable: health is ignored.
    pub panic: bool,
    /// Clients that are remembered, where it persists.
    pub clients: Option<u64>,
    /// TLS with its backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// How long handshakes of TLS with its backends took, for `/metrics`.
    #[serde(skip)]
    pub handshakes: BucketCounts,
    /// How long its sessions took, for `/metrics`.
    #[serde(skip)]
    pub times: SessionCounts,
    /// How long clients waited in its queue, for `/metrics`.
    #[serde(skip)]
    pub waits: BucketCounts,
    /// In the order of the configuration, then those that are leaving.
    pub backends: Vec<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackendStatus {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Where it is, as it was written: an address, or a host name and a port.
    pub address: String,
    /// Where a host name leads to now; null where an address was written, and until it is known.
    pub resolved: Option<String>,
    /// Its share, 0 to 256.
    pub weight: u16,
    /// Connections at most.
    pub max_connections: Option<u32>,
    /// It is selected only while no other can be.
    pub backup: bool,
    /// The version of the PROXY header that connections to it begin with, `v1` or `v2`.
    #[serde(default)]
    pub send_proxy: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// Its number among the members of its pool, where that has `sni_member`.
    #[serde(default)]
    pub member: Option<u32>,
    /// What the operator wants of it.
    pub state: AdminState,
    /// The result of its probes.
    pub health: HealthStatus,
    /// Why the last probe failed, that none was made yet, or what a reader should know of it.
    pub check: Option<String>,
    /// For how long it is ejected, in seconds.
    pub ejected_s: Option<f64>,
    /// How far its slow start has come, in percent, while it lasts.
    pub rising: Option<u8>,
    /// Whether it waits in the reserve.
    pub standby: bool,
    /// Whether it was removed and still has sessions.
    pub leaving: bool,
    /// Whether it can be selected.
    pub in_rotation: bool,
    /// What waited for its limits of bandwidth.
    #[serde(default)]
    pub paced: PacedStatus,
    /// Connections now, being made or established.
    pub connections: u64,
    /// Connections that wait for an answer now.
    pub waiting: u64,
    /// Failures since its last answer.
    pub failures: u64,
    /// Average of its recent answer times, in ms.
    pub answer_ms: Option<f64>,
    /// 99% of its first bytes came within so many ms from the connect on: of those of the last
    /// minute, estimated within a bucket that is twice as wide as its begin, or four times.
    #[serde(default)]
    pub first_byte_p99_ms: Option<f64>,
    /// Connections begun since it joined, whether it took them or not. Attempts that never left
    /// this machine, such as for want of a local port, do not count.
    pub opened: u64,
    /// Connects to it that found no free local port; they count as no failure of it.
    #[serde(default)]
    pub no_local_port: u64,
    /// Connections that it answered.
    pub answered: u64,
    /// Time that it streamed to sessions after their first answers, of all together, in seconds.
    #[serde(default)]
    pub streamed_s: f64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// Bytes to and from it.
    #[serde(flatten)]
    pub traffic: TrafficStatus,
    /// Connects of sessions that failed, by kind (`refused`, `timed_out`, `unreachable`,
    /// `no_local_port`, ...); without those that never happened.
    #[serde(default)]
    pub connect_failures: BTreeMap<String, u64>,
    /// Probes of it that failed.
    #[serde(default)]
    pub checks_failed: u64,
    /// Its last probes, the newest last; in answers about its pool or itself alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeStatus>,
    /// Times that its probes said that it does not answer.
    #[serde(default)]
    pub times_down: u64,
    /// How long it was down in all, the present time included, in seconds.
    #[serde(default)]
    pub down_s: f64,
    /// How long it was in each state, the present time included, in seconds: `up`, `unresolved`,
    /// `down`, `ejected`, `standby`, `drain` or `maint`; without those that it never had.
    #[serde(default)]
    pub state_s: BTreeMap<String, f64>,
    /// Times that it was ejected.
    #[serde(default)]
    pub times_ejected: u64,
    /// Ejections that ended while none of the probes since their begin had failed.
    #[serde(default)]
    pub ejection_regrets: u64,
    /// When it became what it is.
    #[serde(default)]
    pub last_change: Option<LastChange>,
    /// How long its sessions took, for `/metrics`.
    #[serde(skip)]
    pub times: SessionCounts,
}

/// The health of a backend by its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It is not probed.
    #[default]
    Unchecked,
    /// It answers.
    Up,
    /// It does not answer, or wrongly.
    Down,
    /// Its host name has no address yet.
    Unresolved,
}

/// How a backend is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Removal {
    /// Has no effect: every change holds over reloads.
    #[schemars(extend("deprecated" = true))]
    pub keep: bool,
}

/// Which past events come first; new events follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Watching {
    /// How many past events; the balancer remembers the last 256.
    pub recent: u32,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallerStatus {
    /// `read`, or `write` for one who may change things too; null for an unknown one.
    pub role: Option<Role>,
}

/// The effective configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigText {
    /// A whole `config.ron`. Comments at its start name what of the state in force it does not
    /// have.
    pub ron: String,
    /// The same of the file or the flags alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// Each setting with its value and where that comes from; those that are not read again are as
    /// at the start.
    #[serde(default)]
    pub settings: Vec<EffectiveSetting>,
    /// How many more there are than are listed.
    #[serde(default)]
    pub more: usize,
}

/// The request is wrong, or was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}
