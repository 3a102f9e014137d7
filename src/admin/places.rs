//! The places of a server's connections. Once all are taken, the connection that has been idle for
//! longest gives its place to the next: silent clients keep no other client from asking.
//!
//! A connection is idle while the control thread has nothing to answer on it: also in the middle of
//! a request's head or body, which may never come.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use crate::sys;

/// The places of a server.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Vec<Weak<Place>>,
    /// Notified when a connection becomes idle.
    became_idle: Arc<Notify>,
}

impl Places {
    /// Gives a place to a connection; `socket` is a copy of its descriptor.
    pub(super) fn take(&mut self, socket: OwnedFd) -> Arc<Place> {
        self.taken.retain(|place| place.strong_count() > 0);
        let place = Arc::new(Place {
            socket,
            busy: AtomicUsize::new(0),
            idle_since: AtomicU64::new(sys::monotonic()),
            is_lost: AtomicBool::new(false),
            lost: Notify::new(),
            became_idle: Arc::clone(&self.became_idle),
        });
        self.taken.push(Arc::downgrade(&place));
        place
    }

    /// Has the connection end that has been idle for longest, if there is one; one at a time.
    pub(super) fn end_oldest_idle(&self) {
        let all: Vec<_> = self.taken.iter().filter_map(Weak::upgrade).collect();
        if all
            .iter()
            .any(|place| place.is_lost.load(Ordering::Relaxed))
        {
            return;
        }
        let idle = all
            .iter()
            .filter(|place| place.busy.load(Ordering::Relaxed) == 0);
        if let Some(oldest) = idle.min_by_key(|place| place.idle_since.load(Ordering::Relaxed)) {
            oldest.is_lost.store(true, Ordering::Relaxed);
            oldest.lost.notify_one();
        }
    }

    /// Ends when another connection is idle.
    pub(super) fn became_idle(&self) -> impl Future<Output = ()> + use<> {
        let became_idle = Arc::clone(&self.became_idle);
        async move { became_idle.notified().await }
    }
}

/// The place of a connection.
#[derive(Debug)]
pub(super) struct Place {
    /// A copy: hyper owns the connection itself.
    socket: OwnedFd,
    /// What keeps it from being idle.
    busy: AtomicUsize,
    /// In ns of the monotonic clock.
    idle_since: AtomicU64,
    is_lost: AtomicBool,
    lost: Notify,
    became_idle: Arc<Notify>,
}

impl Place {
    /// Ends when another connection gets the place.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Keeps the place for as long as this lives.
    pub(super) fn keep(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Busy {
    /// Ends when the client is gone. hyper does not look while it answers, so that a client that
    /// has only ended its requests (shutdown(2), SHUT_WR) gets its answer. On TCP such a client
    /// looks like one that is gone, and counts as that: it is asked of streams without an end.
    pub(super) async fn gone(&self) {
        // Whatever kind of socket it is: nothing is read or written by it.
        let watched = || UnixStream::from_std(self.0.socket.try_clone()?.into());
        let Ok(socket) = watched() else {
            return pending().await;
        };
        while !sys::is_hung_up(&self.0.socket) {
            if socket.readable().await.is_err() {
                return pending().await;
            }
            // Not readable any more, until something else comes.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::READABLE, nothing);
            if sys::has_ended(&self.0.socket) && !sys::is_hung_up(&self.0.socket) {
                // Readable from now on, whatever comes.
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(sys::monotonic(), Ordering::Relaxed);
        if self.0.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.became_idle.notify_one();
        }
    }
}

/// How soon it is noticed that a client is gone that had ended its requests before.
const LOOK_EVERY: Duration = Duration::from_secs(1);
