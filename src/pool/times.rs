//! How long the sessions of a backend take, which count for its pool too.

use crate::buckets::{SessionTimes, TimeBuckets};

use super::Backend;

impl Backend {
    /// Counts a time in ns of a session, for it and for its pool.
    pub fn record(&self, what: fn(&SessionTimes) -> &TimeBuckets, ns: u64) {
        what(&self.tally.times).record(ns);
        what(&self.times_in_pool).record(ns);
    }
}
