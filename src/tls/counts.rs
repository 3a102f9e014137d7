//! What is counted of a listener's TLS, over all workers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::buckets::TimeBuckets;
use crate::metric::BucketBounds;

use super::{Agreed, FailureKind};

/// Counts of handshakes, which any thread may read.
#[derive(Debug)]
pub struct TlsCounts {
    /// By version and by whether a session was resumed.
    handshakes: [[AtomicU64; 2]; VERSIONS.len()],
    failures: [AtomicU64; FailureKind::ALL.len()],
    /// From the accept to the end of the handshake, in ns.
    pub took: TimeBuckets,
}

impl Default for TlsCounts {
    fn default() -> Self {
        Self {
            handshakes: Default::default(),
            failures: Default::default(),
            took: TimeBuckets::new(BucketBounds::WAITS),
        }
    }
}

impl TlsCounts {
    /// A handshake is done, which took so many ns.
    pub fn on_established(&self, agreed: &Agreed<'_>, took: u64) {
        let mut versions = VERSIONS.into_iter();
        let version = versions.position(|its| Some(its) == agreed.version);
        if let Some(version) = version {
            let count = &self.handshakes[version][usize::from(agreed.resumed)];
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.took.record(took);
    }

    /// TLS of a client has failed.
    pub fn on_failed(&self, kind: FailureKind) {
        self.failures[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes so far: their version, whether they resumed a session, and how many.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, bool, u64)> {
        VERSIONS
            .into_iter()
            .zip(&self.handshakes)
            .flat_map(|(version, both)| {
                let both = [false, true].into_iter().zip(both);
                both.map(move |(resumed, count)| (version, resumed, count.load(Ordering::Relaxed)))
            })
    }

    /// Failures so far, by their kinds.
    pub fn failures(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        let all = FailureKind::ALL.into_iter().zip(&self.failures);
        all.map(|(kind, count)| (kind, count.load(Ordering::Relaxed)))
    }
}

/// The versions that are spoken.
const VERSIONS: [&str; 2] = ["1.2", "1.3"];
