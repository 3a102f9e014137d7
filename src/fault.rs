//! Whose fault an error of the kernel is: one table for sessions, probes and accepting.

#![forbid(unsafe_code)]

use std::io;

use crate::kernel::Errno;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The backend refused or broke the connection, or nothing is there.
    Backend,
    /// The backend did not answer in time.
    Unanswered,
    /// There is no way to the backend from here.
    Network,
    /// It would have had to wait, or a signal came. What a Unix backend's full backlog answers
    /// is Busy too; sessions then wait in the queue of their pool.
    Busy,
    /// The client's connection broke.
    Client,
    /// This machine has no free local port towards the backend.
    Ports,
    /// This machine does not have the `source` address, which may be another's for a while.
    Source,
    /// This process has no descriptor, or the kernel no memory.
    Resources,
    /// This machine does not permit or support the connection. Waiting does not help.
    Local,
}

impl Fault {
    /// All, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Backend,
        Self::Unanswered,
        Self::Network,
        Self::Busy,
        Self::Client,
        Self::Ports,
        Self::Source,
        Self::Resources,
        Self::Local,
    ];

    /// Whether a connect that failed by it never left this machine.
    #[must_use]
    pub fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Ports | Self::Source | Self::Resources | Self::Local
        )
    }

    /// What a connect that failed by it is counted as.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "refused",
            Self::Unanswered => "timed_out",
            Self::Network => "unreachable",
            Self::Busy => "busy",
            Self::Client => "client",
            Self::Ports => "no_local_port",
            Self::Source => "no_source_address",
            Self::Resources => "no_resources",
            Self::Local => "not_permitted",
        }
    }

    /// The outcome of a connect that failed by it, as the access log has it: the error's name, or
    /// why there is none.
    #[must_use]
    pub fn outcome(self, errno: Errno) -> &'static str {
        // Its connect was cancelled: the attempt's time was over.
        if self == Self::Unanswered && errno == Errno::CANCELED {
            return "timeout";
        }
        if errno == Errno::NO_TLS {
            return "tls_refused";
        }
        if errno == Errno::TLS_FAILED {
            return "tls_failed";
        }
        let name = errno.name().filter(|_| self != Self::Source);
        name.unwrap_or(self.as_str())
    }

    /// What an error of socket(2) or bind(2) is as one of connect(2), for [`Self::of_connect`]. A
    /// socket is bound to an address only, so EADDRNOTAVAIL says that this machine does not have
    /// it, not that a port is missing.
    #[must_use]
    pub fn binding(errno: Errno) -> Errno {
        match errno.0 {
            libc::EADDRNOTAVAIL => Errno::NO_SOURCE,
            _ => errno,
        }
    }

    /// Classifies an error on the way to a backend: of connect(2), or one of [`Self::binding`].
    ///
    /// A value that no manual names counts as the backend's: an ejection that was not deserved
    /// costs less than clients who fail again and again.
    #[must_use]
    pub fn of_connect(errno: Errno) -> Self {
        match errno.0 {
            libc::ETIMEDOUT => Self::Unanswered,
            // Routes, neighbours, and what ICMP reports (icmp_err_convert of the kernel).
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::ENETRESET
            | libc::EOPNOTSUPP
            | libc::EMSGSIZE => Self::Network,
            libc::EAGAIN | libc::EINTR => Self::Busy,
            // The second: every port of a range that was bound to explicitly is in use.
            libc::EADDRNOTAVAIL | libc::EADDRINUSE => Self::Ports,
            _ if errno == Errno::NO_SOURCE => Self::Source,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Self::Resources,
            // A firewall, a security module, or the rights of a Unix socket's file.
            libc::EACCES
            | libc::EPERM
            // A family that is disabled, a route of type `blackhole`, an address without its zone;
            // and what only a bug of ours could bring about.
            | libc::EINVAL
            | libc::EAFNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::ESOCKTNOSUPPORT
            | libc::ENODEV
            | libc::EDESTADDRREQ
            | libc::EBADF
            | libc::EFAULT
            | libc::ENOTSOCK
            | libc::EISCONN
            | libc::EALREADY
            | libc::EINPROGRESS
            | libc::ENOSYS
            | libc::ECANCELED => Self::Local,
            _ => Self::Backend,
        }
    }

    /// Classifies an error of accept(2). Linux passes network errors on that are pending on the new
    /// connection: they end that connection only.
    #[must_use]
    pub fn of_accept(errno: Errno) -> Self {
        match errno.0 {
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::ETIMEDOUT
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET
            | libc::EOPNOTSUPP
            // A firewall forbids the connection (accept(2)).
            | libc::EPERM => Self::Client,
            libc::EAGAIN | libc::EINTR => Self::Busy,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Self::Resources,
            _ => Self::Local,
        }
    }

    /// Classifies an error of recv(2), send(2) or splice(2) on a connection to `peer`, which is
    /// [`Self::Client`] or [`Self::Backend`].
    #[must_use]
    pub fn of_traffic(errno: Errno, peer: Self) -> Self {
        match errno.0 {
            libc::EAGAIN | libc::EINTR => Self::Busy,
            libc::ENOBUFS | libc::ENOMEM => Self::Resources,
            _ => peer,
        }
    }

    /// Whether it counts as a failure of the backend.
    ///
    /// That a backend is unreachable counts too: such a backend serves no client, whatever is to
    /// blame, and `ejection.share` bounds what a broken route of this machine can take out.
    #[must_use]
    pub fn blames_backend(self) -> bool {
        matches!(self, Self::Backend | Self::Unanswered | Self::Network)
    }

    /// Whether this machine lacks something for a while: nothing was learned of the backend, and
    /// waiting helps.
    #[must_use]
    pub fn is_lack(self) -> bool {
        self.is_of_origin() || self == Self::Resources
    }

    /// Whether a connect that begins at another address of this machine may succeed.
    #[must_use]
    pub fn is_of_origin(self) -> bool {
        matches!(self, Self::Ports | Self::Source)
    }
}

/// Whether a file can't be used for a lack or a fault of the machine that may pass, whatever its
/// name says.
#[must_use]
pub fn is_passing_lack(error: &io::Error) -> bool {
    let passing = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOSPC,
        libc::EDQUOT,
        libc::EIO,
        libc::ESTALE,
    ];
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| passing.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_counters() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, index);
        }
    }

    const SHORT_OF_MEMORY: [i32; 2] = [libc::ENOBUFS, libc::ENOMEM];
    const SHORT_OF_DESCRIPTORS: [i32; 2] = [libc::EMFILE, libc::ENFILE];
    const AGAIN: [i32; 2] = [libc::EAGAIN, libc::EINTR];

    fn all(errnos: &[i32], of: impl Fn(Errno) -> Fault, fault: Fault) {
        for errno in errnos {
            assert_eq!(of(Errno(*errno)), fault, "{}", Errno(*errno));
        }
    }

    #[test]
    fn every_error_of_a_connect_has_its_owner() {
        let refused = [
            libc::ECONNREFUSED,
            libc::ECONNRESET,
            libc::ECONNABORTED,
            libc::EPIPE,
            // ICMP: protocol unreachable, parameter problem.
            libc::ENOPROTOOPT,
            libc::EPROTO,
            // A Unix socket's path.
            libc::ENOENT,
            libc::ENOTDIR,
            libc::ELOOP,
            libc::ENAMETOOLONG,
            libc::EPROTOTYPE,
        ];
        let unreachable = [
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::ENETDOWN,
            libc::EHOSTDOWN,
            libc::ENONET,
            libc::ENETRESET,
            libc::EOPNOTSUPP,
            libc::EMSGSIZE,
        ];
        let ports = [libc::EADDRNOTAVAIL, libc::EADDRINUSE];
        let local = [
            libc::EACCES,
            libc::EPERM,
            libc::EINVAL,
            libc::EAFNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::ESOCKTNOSUPPORT,
            libc::ENODEV,
            libc::EDESTADDRREQ,
            libc::EBADF,
            libc::EFAULT,
            libc::ENOTSOCK,
            libc::EISCONN,
            libc::EALREADY,
            libc::EINPROGRESS,
            libc::ENOSYS,
            libc::ECANCELED,
        ];
        let of = Fault::of_connect;
        all(&refused, of, Fault::Backend);
        all(&[libc::ETIMEDOUT], of, Fault::Unanswered);
        all(&unreachable, of, Fault::Network);
        all(&AGAIN, of, Fault::Busy);
        all(&ports, of, Fault::Ports);
        all(&SHORT_OF_DESCRIPTORS, of, Fault::Resources);
        all(&SHORT_OF_MEMORY, of, Fault::Resources);
        all(&local, of, Fault::Local);
    }

    #[test]
    fn a_missing_source_address_is_no_lack_of_ports() {
        let of = |errno| Fault::of_connect(Fault::binding(errno));
        all(&[libc::EADDRNOTAVAIL], of, Fault::Source);
        all(&[libc::EINVAL, libc::ENODEV], of, Fault::Local);
        all(&SHORT_OF_DESCRIPTORS, of, Fault::Resources);
    }

    #[test]
    fn an_accept_fails_by_its_client_or_by_a_lack() {
        let client = [
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::ETIMEDOUT,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::ENONET,
            libc::EOPNOTSUPP,
            libc::EPERM,
        ];
        let of = Fault::of_accept;
        all(&client, of, Fault::Client);
        all(&AGAIN, of, Fault::Busy);
        all(&SHORT_OF_DESCRIPTORS, of, Fault::Resources);
        all(&SHORT_OF_MEMORY, of, Fault::Resources);
        all(&[libc::EINVAL, libc::EBADF], of, Fault::Local);
    }

    #[test]
    fn traffic_breaks_by_its_peer_or_waits_for_memory() {
        let broken = [
            libc::ECONNRESET,
            libc::EPIPE,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
        ];
        for peer in [Fault::Client, Fault::Backend] {
            let of = |errno| Fault::of_traffic(errno, peer);
            all(&broken, of, peer);
            all(&AGAIN, of, Fault::Busy);
            all(&SHORT_OF_MEMORY, of, Fault::Resources);
        }
    }

    #[test]
    fn a_lack_and_a_local_refusal_blame_no_backend() {
        for fault in [
            Fault::Ports,
            Fault::Source,
            Fault::Resources,
            Fault::Local,
            Fault::Busy,
            Fault::Client,
        ] {
            assert!(!fault.blames_backend(), "{fault:?}");
        }
        for fault in [Fault::Backend, Fault::Unanswered, Fault::Network] {
            assert!(fault.blames_backend() && !fault.is_lack(), "{fault:?}");
        }
        for fault in [Fault::Ports, Fault::Source, Fault::Resources] {
            assert!(fault.is_lack(), "{fault:?}");
        }
        assert!(!Fault::Local.is_lack() && !Fault::Busy.is_lack());
    }
}
