//! What a listener asks at accept where proxies connect for clients: such a connection begins with
//! a header that names the client.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Example, Limit, Trusted};
use crate::prefix::Prefix;

/// The rules about the peers of such a listener. They are all that is asked at accept: ban table,
/// access list, limits and rates are about clients, and are asked ([`ClientStage`]) when the header
/// is complete. A ban of a proxy's own address would be one of all its clients: trust decides.
///
/// A header that has come whole takes no place. Beyond that nothing but the number of unfinished
/// headers bounds what peers may hold.
///
/// [`ClientStage`]: super::ClientStage
#[derive(Debug)]
pub struct PeerStage {
    trusted: Trusted,
    trusts_unix: bool,
    counts: Arc<PeerCounts>,
}

/// What all workers count of a listener's peers. It outlives snapshots.
#[derive(Debug)]
struct PeerCounts {
    unfinished: Limit,
    refused: [AtomicU64; PeerDenied::ALL.len()],
    first: Example,
}

/// Why a peer's connection is refused before its client is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerDenied {
    /// It may not name clients.
    Untrusted,
    /// Its header is malformed, is missing, ends too early, or has another one behind it.
    Header,
    /// Its header was not complete in time.
    Late,
    /// Peers had as many unfinished headers as there may be, and its own was the oldest.
    Crowded,
}

impl PeerDenied {
    /// Every one, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Untrusted, Self::Header, Self::Late, Self::Crowded];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_untrusted",
            Self::Header => "proxy_header",
            Self::Late => "proxy_header_timeout",
            Self::Crowded => "proxy_headers_full",
        }
    }
}

impl PeerStage {
    /// Lets peers of these networks, and those of a Unix socket if `trusts_unix`, name clients,
    /// with so many unfinished headers at a time over all workers.
    #[must_use]
    pub fn new(trusted: &[Prefix], trusts_unix: bool, unfinished_max: u32) -> Self {
        Self {
            trusted: Trusted::new(trusted),
            trusts_unix,
            counts: Arc::new(PeerCounts {
                unfinished: Limit::new(unfinished_max),
                refused: Default::default(),
                first: Example::default(),
            }),
        }
    }

    /// The same counts with other rules.
    #[must_use]
    pub fn with(&self, trusted: &[Prefix], trusts_unix: bool) -> Self {
        Self {
            trusted: Trusted::new(trusted),
            trusts_unix,
            counts: Arc::clone(&self.counts),
        }
    }

    /// Whether it trusts just these.
    #[must_use]
    pub fn is_of(&self, trusted: &[Prefix], trusts_unix: bool) -> bool {
        self.trusted.prefixes() == trusted && self.trusts_unix == trusts_unix
    }

    /// Sets how many headers may be unfinished at a time, over all workers.
    pub fn set_unfinished_max(&self, max: u32) {
        self.counts.unfinished.set_max(max);
    }

    /// How many headers may be unfinished at this worker of so many: its equal part, so that a new
    /// one takes no place of another worker's. One at least: where there are more workers than
    /// places, [`begin`](Self::begin) decides.
    #[must_use]
    pub fn unfinished_share(&self, worker: u32, of: u32) -> usize {
        let max = self.counts.unfinished.max();
        let (part, rest) = (max / of.max(1), max % of.max(1));
        let share = part + u32::from(worker < rest);
        usize::try_from(share.max(1)).unwrap_or(usize::MAX)
    }

    /// Whether a peer may name clients; `None` is one of a Unix socket.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.trusts_unix, |ip| self.trusted.contains(ip))
    }

    /// Whether it trusts an address of this network.
    #[must_use]
    pub fn meets(&self, network: Prefix) -> bool {
        self.trusted.meets(network)
    }

    /// Takes a place for a header that has not come whole, until [`finish`](Self::finish).
    /// `false`: there are as many as there may be.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.counts.unfinished.try_acquire()
    }

    /// Such a header is complete, or its connection has ended before that.
    pub fn finish(&self) {
        self.counts.unfinished.release();
    }

    /// Headers that are unfinished.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        self.counts.unfinished.used()
    }

    /// Counts a refused connection. `what` says of which peer, and what was wrong, where no other
    /// one waits for [`take_last`](Self::take_last).
    pub fn count_refused(&self, denied: PeerDenied, what: impl FnOnce() -> String) {
        self.counts.refused[denied as usize].fetch_add(1, Ordering::Relaxed);
        self.counts.first.note(what);
    }

    /// Connections that were refused for this reason.
    #[must_use]
    pub fn refused(&self, denied: PeerDenied) -> u64 {
        self.counts.refused[denied as usize].load(Ordering::Relaxed)
    }

    /// The first one since this was asked last, in words.
    #[must_use]
    pub fn take_last(&self) -> Option<String> {
        self.counts.first.take()
    }
}
