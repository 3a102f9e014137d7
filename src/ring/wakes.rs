//! What ends the waits of threads.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use crate::sys::Doorbell;

/// What ends the waits of threads. Its eventfds must be in the descriptor table of each worker.
#[derive(Clone, Debug)]
pub struct Wakes {
    /// The number of the ring's own worker.
    pub worker: u32,
    /// The eventfds that end the waits of workers, by worker.
    pub workers: Arc<[Arc<OwnedFd>]>,
    /// Wakes the control thread.
    pub control: Arc<Doorbell>,
    /// Wakes the writer of the access log.
    pub log_writer: Arc<Doorbell>,
}

impl Wakes {
    /// What ends the wait of the ring's own worker.
    #[must_use]
    pub fn own(&self) -> &Arc<OwnedFd> {
        &self.workers[self.worker as usize]
    }

    /// The descriptors of all of them.
    pub fn descriptors(&self) -> impl Iterator<Item = i32> {
        let bells = [&self.control, &self.log_writer].map(|bell| bell.eventfd());
        let all = self.workers.iter().map(|wake| &**wake).chain(bells);
        all.map(AsRawFd::as_raw_fd)
    }
}
