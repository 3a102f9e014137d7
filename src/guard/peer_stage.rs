//! What a listener asks at accept where proxies connect for clients: such a connection begins with
//! a header that names the client.

use std::net::IpAddr;

use super::{Limit, Trusted};
use crate::prefix::Prefix;

/// The rules about the peers of such a listener. They are all that is asked at accept: ban table,
/// access list, limits and rates are about clients, and are asked ([`ClientStage`]) when the header
/// is complete. A ban of a proxy's own address would be one of all its clients: trust decides.
///
/// Until then nothing but the number of unfinished headers bounds what peers may hold.
///
/// [`ClientStage`]: super::ClientStage
#[derive(Debug)]
pub struct PeerStage {
    trusted: Trusted,
    unfinished: Limit,
}

/// Why a peer is refused at accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerDenied {
    /// It may not name clients.
    Untrusted,
    /// Peers have as many unfinished headers as there may be.
    UnfinishedHeaders,
}

impl PeerStage {
    /// Lets peers of these networks name clients, with so many unfinished headers at a time over
    /// all workers.
    #[must_use]
    pub fn new(trusted: &[Prefix], unfinished_max: u32) -> Self {
        Self {
            trusted: Trusted::new(trusted),
            unfinished: Limit::new(unfinished_max),
        }
    }

    /// Admits a peer, whose header is unfinished until [`finish`](Self::finish), or says why it is
    /// refused.
    ///
    /// # Errors
    /// [`PeerDenied`]; then it takes no place.
    pub fn admit(&self, peer: IpAddr) -> Result<(), PeerDenied> {
        if !self.trusted.contains(peer) {
            return Err(PeerDenied::Untrusted);
        }
        match self.unfinished.try_acquire() {
            true => Ok(()),
            false => Err(PeerDenied::UnfinishedHeaders),
        }
    }

    /// The header of an admitted peer is complete, or its connection has ended before that.
    pub fn finish(&self) {
        self.unfinished.release();
    }

    /// Headers that are unfinished.
    #[must_use]
    pub fn unfinished(&self) -> u32 {
        self.unfinished.used()
    }
}
