//! The slots of a server's connections. Once all are taken, the connection that has been idle for
//! longest ends and the next one gets its slot: silent clients can't lock out others.
//!
//! A connection is idle while the control thread has no request of it to answer. So it is idle also
//! in the middle of a request's head or body, since the rest may never come.

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

/// The slots of a server.
#[derive(Debug, Default)]
pub(super) struct ConnectionSlots {
    taken: Vec<Weak<ConnectionSlot>>,
    /// Notified when a connection becomes idle.
    became_idle: Arc<Notify>,
}

impl ConnectionSlots {
    /// Gives a slot to a connection; `socket` is a copy of its descriptor.
    pub(super) fn take(&mut self, socket: OwnedFd) -> Arc<ConnectionSlot> {
        self.taken.retain(|slot| slot.strong_count() > 0);
        let slot = Arc::new(ConnectionSlot {
            socket,
            busy: AtomicUsize::new(0),
            is_new: AtomicBool::new(true),
            idle_since: AtomicU64::new(sys::monotonic()),
            is_evicted: AtomicBool::new(false),
            evicted: Notify::new(),
            became_idle: Arc::clone(&self.became_idle),
        });
        self.taken.push(Arc::downgrade(&slot));
        slot
    }

    /// Ends the connection that has been idle for longest, if one is idle. One ends at a time.
    pub(super) fn evict_oldest_idle(&self) {
        let all: Vec<_> = self.taken.iter().filter_map(Weak::upgrade).collect();
        if all
            .iter()
            .any(|slot| slot.is_evicted.load(Ordering::Relaxed))
        {
            return;
        }
        let idle = all.iter().filter(|slot| slot.is_idle());
        if let Some(oldest) = idle.min_by_key(|slot| slot.idle_since.load(Ordering::Relaxed)) {
            oldest.is_evicted.store(true, Ordering::Relaxed);
            oldest.evicted.notify_one();
        }
    }

    /// Resolves when another connection becomes idle.
    pub(super) fn became_idle(&self) -> impl Future<Output = ()> + use<> {
        let became_idle = Arc::clone(&self.became_idle);
        async move { became_idle.notified().await }
    }
}

/// The slot of a connection.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    /// A copy of the descriptor: hyper owns the connection itself.
    socket: OwnedFd,
    /// Requests that are being answered: with one, the connection is not idle.
    busy: AtomicUsize,
    /// No request of it has arrived whole.
    is_new: AtomicBool,
    /// In ns of the monotonic clock.
    idle_since: AtomicU64,
    is_evicted: AtomicBool,
    evicted: Notify,
    became_idle: Arc<Notify>,
}

impl ConnectionSlot {
    /// Resolves when another connection gets this slot.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// One that came just now may have sent a request that was not read yet.
    fn is_idle(&self) -> bool {
        let may_ask = || self.is_new.load(Ordering::Relaxed) && sys::has_unread(&self.socket);
        self.busy.load(Ordering::Relaxed) == 0 && !may_ask()
    }

    /// Keeps the slot for as long as the result lives.
    pub(super) fn keep(self: &Arc<Self>) -> Busy {
        self.is_new.store(false, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<ConnectionSlot>);

impl Busy {
    /// Resolves when the client is gone. hyper does not look while it answers, so that a client
    /// that has only ended its requests (shutdown(2), SHUT_WR) gets its answer. On TCP such a
    /// client looks like one that is gone, and counts as gone: this is used for endless streams
    /// only.
    pub(super) async fn client_gone(&self) {
        // The type does not matter, as nothing is read or written through it.
        let watched = || UnixStream::from_std(self.0.socket.try_clone()?.into());
        let Ok(socket) = watched() else {
            return pending().await;
        };
        while !sys::is_hung_up(&self.0.socket) {
            if socket.readable().await.is_err() {
                return pending().await;
            }
            // Clears tokio's readiness, so that the next wait lasts until something else arrives.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = socket.try_io(Interest::READABLE, nothing);
            if sys::has_ended(&self.0.socket) && !sys::is_hung_up(&self.0.socket) {
                // The socket stays readable from here on, so look again from time to time.
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

/// How often a client that has ended its requests is checked for being gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
