//! What happens, as the API tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has happened: a word for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Connections are taken.
    Ready,
    /// The balancer is stopping.
    Stopping,
    /// The balancer is leaving: it is not ready, and takes the clients that still come.
    Leaving,
    /// The balancer has left: it takes no new clients.
    Left,
    /// The balancer takes part again after it was leaving.
    Joined,
    /// The API or the command line changed something.
    Changed,
    /// The file was read again and is in force.
    Reloaded,
    /// The file was refused: the old configuration stays in force.
    ReloadFailed,
    /// Probes say that a backend answers.
    BackendUp,
    /// Probes say that a backend does not answer.
    BackendDown,
    /// A backend gets no sessions for a time, as it failed.
    BackendEjected,
    /// The time of an ejected backend is over.
    BackendReadmitted,
    /// A backend joins a pool.
    BackendAdded,
    /// A backend leaves a pool.
    BackendRemoved,
    /// The host name of a backend leads to an address for the first time, or to another one.
    BackendResolved,
    /// The host name of a backend has no address yet.
    BackendUnresolved,
    /// An address that was discovered, or that a host name has, leads back to its own pool.
    BackendRefused,
    /// Addresses can't be discovered, or some of what was found can't be used.
    DiscoveryFailed,
    /// Discovery works again.
    DiscoveryRestored,
    /// What the fleet shares is not known, or some of it can't be used.
    FleetFailed,
    /// What the fleet shares is known again.
    FleetRestored,
    /// The fleet has a backend in another administrative state.
    FleetChanged,
    /// A listener is added.
    ListenerAdded,
    /// A listener is removed.
    ListenerRemoved,
    /// Backends of the reserve take part.
    ScaledIn,
    /// Backends go back to the reserve.
    ScaledOut,
    /// Too few backends of a pool are usable: health is ignored.
    Panic,
    /// Enough backends of a pool are usable again, or none is ready.
    PanicOver,
    /// No backend of a pool is usable: its new sessions fail.
    PoolDown,
    /// A pool has usable backends again.
    PoolUp,
    /// No local port is free to connect to a backend.
    NoLocalPort,
    /// This machine does not have a `source` address.
    NoSourceAddress,
    /// A client or a network is banned.
    Banned,
    /// A ban has ended, or was lifted.
    Unbanned,
    /// Banned clients were refused.
    BannedRefused,
    /// The ban table has no room for sources that a rule bans.
    BansFull,
    /// Bans can't be kept for the next run, or those of the last run are lost.
    BansUnsaved,
    /// The watched file of bans was read again, and what it has is banned.
    BansImported,
    /// The watched file of bans is wrong: the last good one stays in force.
    BansImportFailed,
    /// A listener refuses clients by its access list.
    AccessDenied,
    /// Peers that may not name clients, or whose PROXY header is wrong or late, are refused.
    ProxyRefused,
    /// PostgreSQL backends have no TLS for clients that `postgres_tls` has answered.
    TlsRefused,
    /// Handshakes of TLS with backends failed.
    BackendTlsFailed,
    /// A limit of new connections refuses clients, or would if it were not in a dry run.
    LimitExceeded,
    /// Clients are reset that have not finished their first bytes in time.
    FirstBytesTimeout,
    /// Workers refuse new clients: they can't keep up, or have no memory for more.
    Overloaded,
    /// The table of sources has no room for new ones, which share the limits of one source.
    SourceTableFull,
    /// The file of an access list was read again and is in force.
    AccessListRead,
    /// The file of an access list is wrong: the last good one stays in force.
    AccessListFailed,
    /// New files of TLS of a listener or a pool are in force: certificates, authorities, revocation
    /// lists.
    CertificatesRead,
    /// Files of TLS of a listener or a pool can't be used: what they held before stays.
    CertificatesFailed,
    /// A certificate or a revocation list of a listener or a pool expires soon, or has expired.
    CertificateExpires,
    /// The history can't be kept in its file: the last hour is kept in memory.
    HistoryFailed,
    /// The history is kept in its file again.
    HistoryRestored,
    /// The file of the history is damaged, or another program has changed it: the message says
    /// what was done.
    HistoryDamaged,
    /// Events that this watcher was too slow or too late for; the number is that of the last.
    #[default]
    Missed,
}

/// Something that happened to the balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Event")]
pub struct BalancerEvent {
    /// Counts up from 1.
    pub number: u64,
    /// When (RFC 3339).
    pub at: String,
    /// The kind of event.
    pub kind: EventKind,
    /// The pool that it concerns.
    pub pool: Option<String>,
    /// The backend that it concerns.
    pub backend: Option<String>,
    /// A sentence that describes it.
    pub message: String,
}
