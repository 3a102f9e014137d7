//! Wakes a reader that sleeps.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{eventfd, notify};

/// Wakes the reader of a queue, but only when it sleeps: one system call per batch.
#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
    closed: AtomicBool,
    eventfd: OwnedFd,
}

impl Doorbell {
    /// A bell whose reader is awake.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            eventfd: eventfd(false)?,
        })
    }

    /// What to wait on after [`Self::sleep`].
    #[must_use]
    pub fn eventfd(&self) -> &OwnedFd {
        &self.eventfd
    }

    /// The reader is about to wait. It must look at its queue once more before it does.
    pub fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// No thread will ring any more: the reader may end when its queue is empty.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Wakes the reader for something that is not in its queue.
    pub fn wake(&self) {
        notify(&self.eventfd);
    }

    /// Whether [`Self::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Wakes the reader if it sleeps.
    pub fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            notify(&self.eventfd);
        }
    }
}
