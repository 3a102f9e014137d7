//! Why a session ended: the field of the log line and the label of the counter.

use std::fmt;

use crate::guard::{DeniedBy, PeerDenied, Refusal};
use crate::kernel::Manner;

use super::Side;

/// Why a session ended, grouped by whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// Both directions ended in order, that of the client first.
    ClientClosed,
    /// Both directions ended in order, that of the backend first.
    BackendClosed,
    /// The client reset its connection.
    ClientReset,
    /// The backend reset its connection.
    BackendReset,
    /// Its backend went down, and sessions were not to stay with it.
    BackendDown,
    /// No attempt reached a backend: refused, unreachable, reset while connecting.
    ConnectFailed,
    /// No attempt reached a backend: the last one went unanswered.
    ConnectTimeout,
    /// The backend has no TLS for a client of PostgreSQL that was told that it may begin with it.
    TlsRefused,
    /// The client broke the protocol of TLS, or left in its handshake.
    TlsFailed,
    /// The client's handshake of TLS was not complete in time.
    TlsTimeout,
    /// Clients had as many handshakes of TLS under way as there may be, and this was the oldest.
    TlsHandshakesFull,
    /// The client's connection ended in the middle of what it sent by TLS: it never said that no
    /// more would come.
    TlsTruncated,
    /// The backend broke the protocol of TLS, after its handshake.
    BackendTlsFailed,
    /// The backend's connection ended in the middle of what it sent by TLS.
    BackendTlsTruncated,
    /// The pool has no backend to select.
    NoBackend,
    /// The client is banned. Its session may have been open.
    Banned,
    /// The access list of the listener does not let the client connect.
    AccessDenied,
    /// The client's source has as many connections as it may have.
    SourceConnections,
    /// The client's source connects more often than it may.
    SourceRate,
    /// The listener's clients connect more often than they may.
    ListenerRate,
    /// The clients of all listeners connect more often than they may.
    GlobalRate,
    /// The client waited for too long to be taken in, as the worker was overloaded.
    Overloaded,
    /// The worker had no memory for more clients.
    MemoryFull,
    /// The client had sent only the beginning of its first bytes when their time was over.
    FirstBytesTimeout,
    /// A route of the listener refuses the client.
    NoRoute,
    /// The peer may not name clients: it is in none of the networks of `accept_proxy`.
    ProxyUntrusted,
    /// The header that names the client is malformed, is missing, ends too early, or has another
    /// one behind it.
    ProxyHeader,
    /// The header that names the client was not complete in time.
    ProxyHeaderTimeout,
    /// Proxies had as many unfinished headers as there may be, and this was the oldest.
    ProxyHeadersFull,
    /// Every backend of the pool was full, and so was its queue.
    PoolFull,
    /// The client waited in that queue for as long as it may.
    QueueTimeout,
    /// No byte moved for the idle timeout.
    IdleTimeout,
    /// One direction had ended and no byte moved in the other for its timeout.
    HalfClosedTimeout,
    /// The session reached the longest time that it may take.
    SessionTimeout,
    /// No descriptor or memory for a backend socket until the connect deadline.
    NoResources,
    /// No local port towards a backend was free until the connect deadline.
    NoLocalPort,
    /// This machine lacked the source addresses of the pool until the connect deadline.
    NoSourceAddress,
    /// No backend of the pool can be connected to from the client's address, as it has to be.
    NotTransparent,
    /// The kernel's memory for TCP was short, and its peers took little of what waited for them.
    Stalled,
    /// The balancer stopped and its grace was over.
    Shutdown,
    /// The operator closed it.
    Killed,
}

impl CloseReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 41] = [
        Self::ClientClosed,
        Self::BackendClosed,
        Self::ClientReset,
        Self::BackendReset,
        Self::BackendDown,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsRefused,
        Self::TlsFailed,
        Self::TlsTimeout,
        Self::TlsHandshakesFull,
        Self::TlsTruncated,
        Self::BackendTlsFailed,
        Self::BackendTlsTruncated,
        Self::NoBackend,
        Self::Banned,
        Self::AccessDenied,
        Self::SourceConnections,
        Self::SourceRate,
        Self::ListenerRate,
        Self::GlobalRate,
        Self::Overloaded,
        Self::MemoryFull,
        Self::FirstBytesTimeout,
        Self::NoRoute,
        Self::ProxyUntrusted,
        Self::ProxyHeader,
        Self::ProxyHeaderTimeout,
        Self::ProxyHeadersFull,
        Self::PoolFull,
        Self::QueueTimeout,
        Self::IdleTimeout,
        Self::HalfClosedTimeout,
        Self::SessionTimeout,
        Self::NoResources,
        Self::NoLocalPort,
        Self::NoSourceAddress,
        Self::NotTransparent,
        Self::Stalled,
        Self::Shutdown,
        Self::Killed,
    ];

    /// The reason for a session that ended in order, this side first.
    #[must_use]
    pub fn closed_by(side: Side) -> Self {
        match side {
            Side::Client => Self::ClientClosed,
            Side::Backend => Self::BackendClosed,
        }
    }

    /// Whether both directions ended in order.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        matches!(self, Self::ClientClosed | Self::BackendClosed)
    }

    /// Whether the client's source is to blame: rules ban sources for it. Limits of all clients
    /// together are no offence of one.
    #[must_use]
    pub fn is_offence(self) -> bool {
        matches!(
            self,
            Self::AccessDenied
                | Self::SourceConnections
                | Self::SourceRate
                | Self::FirstBytesTimeout
        )
    }

    /// Whether a rule, or a worker that has too much to do, refuses clients by it. Few of them had
    /// a session: those that were banned later, and those that a route refused.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Banned
                | Self::AccessDenied
                | Self::SourceConnections
                | Self::SourceRate
                | Self::ListenerRate
                | Self::GlobalRate
                | Self::Overloaded
                | Self::MemoryFull
                | Self::NoRoute
                | Self::ProxyUntrusted
                | Self::ProxyHeader
                | Self::ProxyHeaderTimeout
                | Self::ProxyHeadersFull
        )
    }

    /// The reason for a connection of this side that broke.
    #[must_use]
    pub fn reset_by(side: Side) -> Self {
        match side {
            Side::Client => Self::ClientReset,
            Side::Backend => Self::BackendReset,
        }
    }

    /// The reason for a side that broke the protocol of TLS.
    #[must_use]
    pub fn tls_failed_by(side: Side) -> Self {
        match side {
            Side::Client => Self::TlsFailed,
            Side::Backend => Self::BackendTlsFailed,
        }
    }

    /// The reason for a side whose TLS ended without its own end (`close_notify`).
    #[must_use]
    pub fn tls_truncated_by(side: Side) -> Self {
        match side {
            Side::Client => Self::TlsTruncated,
            Side::Backend => Self::BackendTlsTruncated,
        }
    }

    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::BackendClosed => "backend_closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::BackendDown => "backend_down",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsRefused => "tls_refused",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::TlsHandshakesFull => "tls_handshakes_full",
            Self::TlsTruncated => "tls_truncated",
            Self::BackendTlsFailed => "backend_tls_failed",
            Self::BackendTlsTruncated => "backend_tls_truncated",
            Self::NoBackend => "no_backend",
            Self::Banned => "banned",
            Self::AccessDenied => "access_denied",
            Self::SourceConnections => Refusal::SourceConnections.as_str(),
            Self::SourceRate => Refusal::SourceRate.as_str(),
            Self::ListenerRate => Refusal::ListenerRate.as_str(),
            Self::GlobalRate => Refusal::GlobalRate.as_str(),
            Self::Overloaded => "overloaded",
            Self::MemoryFull => "memory_full",
            Self::FirstBytesTimeout => "first_bytes_timeout",
            Self::NoRoute => "no_route",
            Self::ProxyUntrusted => PeerDenied::Untrusted.as_str(),
            Self::ProxyHeader => PeerDenied::Header.as_str(),
            Self::ProxyHeaderTimeout => PeerDenied::Late.as_str(),
            Self::ProxyHeadersFull => PeerDenied::Crowded.as_str(),
            Self::PoolFull => "pool_full",
            Self::QueueTimeout => "queue_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfClosedTimeout => "half_closed_timeout",
            Self::SessionTimeout => "session_timeout",
            Self::NoResources => "no_resources",
            Self::NoLocalPort => "no_local_port",
            Self::NoSourceAddress => "no_source_address",
            Self::NotTransparent => "not_transparent",
            Self::Stalled => "stalled",
            Self::Shutdown => "shutdown",
            Self::Killed => "killed",
        }
    }

    /// How the sockets are closed: what cut a stream short must not look like its end.
    pub(super) fn manner(self, undelivered: bool) -> Manner {
        match self {
            Self::ClientClosed | Self::BackendClosed => Manner::Graceful,
            Self::IdleTimeout if !undelivered => Manner::Graceful,
            Self::ClientReset
            | Self::BackendReset
            | Self::BackendDown
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::TlsRefused
            | Self::TlsFailed
            | Self::TlsTimeout
            | Self::TlsHandshakesFull
            | Self::TlsTruncated
            | Self::BackendTlsFailed
            | Self::BackendTlsTruncated
            | Self::NoBackend
            | Self::Banned
            | Self::AccessDenied
            | Self::SourceConnections
            | Self::SourceRate
            | Self::ListenerRate
            | Self::GlobalRate
            | Self::Overloaded
            | Self::MemoryFull
            | Self::FirstBytesTimeout
            | Self::NoRoute
            | Self::ProxyUntrusted
            | Self::ProxyHeader
            | Self::ProxyHeaderTimeout
            | Self::ProxyHeadersFull
            | Self::PoolFull
            | Self::QueueTimeout
            | Self::IdleTimeout
            | Self::HalfClosedTimeout
            | Self::SessionTimeout
            | Self::NoResources
            | Self::NoLocalPort
            | Self::NoSourceAddress
            | Self::NotTransparent
            | Self::Stalled
            | Self::Shutdown
            | Self::Killed => Manner::Reset,
        }
    }
}

impl From<Refusal> for CloseReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SourceConnections => Self::SourceConnections,
            Refusal::SourceRate => Self::SourceRate,
            Refusal::ListenerRate => Self::ListenerRate,
            Refusal::GlobalRate => Self::GlobalRate,
        }
    }
}

impl From<DeniedBy> for CloseReason {
    fn from(rule: DeniedBy) -> Self {
        match rule {
            DeniedBy::Ban => Self::Banned,
            DeniedBy::AccessList => Self::AccessDenied,
            DeniedBy::Limit(limit) => limit.into(),
        }
    }
}

impl From<PeerDenied> for CloseReason {
    fn from(denied: PeerDenied) -> Self {
        match denied {
            PeerDenied::Untrusted => Self::ProxyUntrusted,
            PeerDenied::Header => Self::ProxyHeader,
            PeerDenied::Late => Self::ProxyHeaderTimeout,
            PeerDenied::Crowded => Self::ProxyHeadersFull,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_counters() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn only_an_end_in_order_is_a_fin() {
        for reason in CloseReason::ALL {
            let graceful = reason.manner(true) == Manner::Graceful;
            assert_eq!(graceful, reason.is_orderly(), "{reason}");
        }
        assert_eq!(CloseReason::IdleTimeout.manner(false), Manner::Graceful);
    }
}
