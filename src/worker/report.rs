//! Messages between workers and the control thread.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};

use crate::pool::{Backend, Tally};
use crate::session::{CloseReason, Summary};
use crate::snapshot::{Listener, Snapshot};
use crate::sys;

use super::metrics::Histograms;
use super::sessions::{SessionFilter, SessionInfo};

/// A command of the control thread to a worker.
#[derive(Debug)]
pub enum Command {
    /// Route by this snapshot from now on.
    Publish(Arc<Snapshot>),
    /// Hand over the histograms and begin new ones.
    TakeHistograms(Sender<(u32, Box<Histograms>)>),
    /// Write access log lines to this queue from now on; `None`: write no more.
    Log(Option<LogQueue>),
    /// List the sessions that match.
    Sessions(SessionFilter, Sender<Vec<SessionInfo>>),
    /// Close the sessions that match, evenly spread over this time; answered by how many there are.
    Close(SessionFilter, CloseReason, Duration, Sender<Option<u64>>),
    /// Close the sessions of these backends, which went down, each backend's evenly spread over
    /// this time. A snapshot in which one is up again ends what is left of its order.
    CloseDowned(Vec<(Arc<Tally>, Duration)>),
    /// Show this number in [`Progress`](super::Progress), as a sign of life.
    Beat(u64),
    /// Accept no more, end when the last session has; cut those that last longer than this.
    Stop(Duration),
}

/// A session that has ended: its line in the access log.
#[derive(Debug)]
pub struct Record {
    /// Counts up within a worker.
    pub number: u64,
    /// The worker of the session.
    pub worker: u32,
    /// The listener that accepted its client.
    pub listener: Arc<Listener>,
    /// The backend that was selected last.
    pub backend: Option<Arc<Backend>>,
    /// The client; `None` on a Unix socket.
    pub client: Option<std::net::SocketAddr>,
    /// Attempts, times and bytes.
    pub summary: Summary,
    /// When it ended, in nanoseconds of the workers' clock.
    pub closed_at: u64,
    /// Why it ended.
    pub reason: CloseReason,
}

/// A worker's end of the access log. It never waits: a full queue drops the line.
#[derive(Debug)]
pub struct LogQueue {
    records: Sender<Record>,
    doorbell: Arc<Doorbell>,
}

/// Wakes the log's writer, but only when it sleeps: one system call per batch of lines.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    closed: AtomicBool,
    eventfd: OwnedFd,
}

impl LogQueue {
    /// A queue into `records`, whose reader waits for `doorbell`.
    #[must_use]
    pub fn new(records: Sender<Record>, doorbell: Arc<Doorbell>) -> Self {
        Self { records, doorbell }
    }

    /// Queues a line; `false` when it was dropped.
    pub(super) fn push(&self, record: Record) -> bool {
        match self.records.try_send(record) {
            Ok(()) => {
                self.doorbell.ring();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Doorbell {
    /// A bell whose listener is awake.
    #[must_use]
    pub fn new(eventfd: OwnedFd) -> Self {
        Self {
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            eventfd,
        }
    }

    /// What to wait on after [`Self::sleep`].
    #[must_use]
    pub fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// The listener is about to wait. It must look at its queue once more before it does.
    pub fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// No thread will ring any more: the listener may end when its queue is empty.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the listener for something that is not in its queue.
    pub fn wake(&self) {
        sys::notify(&self.eventfd);
    }

    /// Whether [`Self::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Wakes the listener if it sleeps.
    pub fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            sys::notify(&self.eventfd);
        }
    }
}
