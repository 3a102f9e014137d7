//! What a task finds at each look, and how often it looks.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::sync::mpsc;

use super::question::Question;
use crate::config::{Backend, bounded};
use crate::control::remote::WatchPace;

/// The outcome of a look.
#[derive(Debug)]
pub(super) struct LookNews {
    pub(super) question: Question,
    pub(super) task: u64,
    /// `None`: the last answer stays.
    pub(super) found: Option<Found>,
    /// What went wrong. It may be only a part, so that something was found all the same.
    pub(super) error: Option<String>,
    /// When the next look is due, if that is known.
    pub(super) next: Option<Duration>,
}

/// Sends a task's news.
#[derive(Debug)]
pub(super) struct Teller {
    pub(super) question: Question,
    pub(super) task: u64,
    pub(super) sender: mpsc::Sender<LookNews>,
}

impl Teller {
    /// Sends the outcome of a look, once there is room.
    pub(super) async fn tell(
        &self,
        found: Option<Found>,
        error: Option<String>,
        next: Option<Duration>,
    ) {
        let news = LookNews {
            question: self.question.clone(),
            task: self.task,
            found,
            error: error.map(bounded),
            next,
        };
        // Without a receiver the balancer is ending, and this task with it.
        let _ = self.sender.send(news).await;
    }
}

/// How often tasks look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The shortest time to live of answers of the DNS.
    pub(super) ttl_min: Duration,
    /// The longest one.
    pub(super) ttl_max: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub(super) retry_min: Duration,
    /// The longest pause.
    pub(super) retry_max: Duration,
    /// From one look at a file to the next.
    pub(super) look: Duration,
    pub(super) remote: WatchPace,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(3600),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            look: Duration::from_secs(1),
            remote: WatchPace::default(),
        }
    }
}

/// A set of backends: sorted, each address once, and a bounded number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) backends: Vec<Backend>,
    /// How many were left out because there were too many.
    pub(super) dropped: usize,
}

impl Found {
    /// Of two backends with one address, keeps the one that gets more clients.
    pub(super) fn of(mut found: Vec<Backend>) -> Self {
        found.sort_by(|one, other| {
            let rank = |b: &Backend| (b.backup, Reverse(b.weight));
            let by_address = one.address.cmp(&other.address);
            by_address.then_with(|| rank(one).cmp(&rank(other)))
        });
        found.dedup_by(|next, kept| next.address == kept.address);
        // A stable sort: addresses stay in order.
        found.sort_by_key(|backend| backend.backup);
        let dropped = found.len().saturating_sub(BACKENDS_MAX);
        found.truncate(BACKENDS_MAX);
        Self {
            backends: found,
            dropped,
        }
    }
}

/// Backends that a pool may discover.
pub(super) const BACKENDS_MAX: usize = 1_000;
