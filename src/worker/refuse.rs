//! Refuses clients at accept, before they take a place or a backend is selected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::guard::AccessFilter;
use crate::kernel::{Kernel, Manner, Socket};
use crate::session::{CloseReason, Summary};

use super::{Record, Worker};

impl<K: Kernel> Worker<K> {
    /// Why the rules of a port refuse a client, in their fixed order. A client without an address
    /// has gone.
    pub(super) fn refusal(&self, port: usize, client: Option<SocketAddr>) -> Option<CloseReason> {
        let list = self.ports[port].access.as_ref();
        if list.is_some_and(|list| is_denied(list, client)) {
            return Some(CloseReason::AccessDenied);
        }
        None
    }

    /// Resets a client, counts it, and logs it unless many are refused.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        port: usize,
        socket: Socket,
        client: Option<SocketAddr>,
        reason: CloseReason,
    ) {
        self.kernel.close(socket, Manner::Reset);
        let listener = &self.ports[port].listener;
        listener.refused.fetch_add(1, Ordering::Relaxed);
        self.stats.closed[reason as usize].increment();
        if self.log.is_none() {
            return;
        }
        if !self.refusals.takes(self.now, LINES_MAX) {
            return self.stats.refusals_unlogged.increment();
        }
        self.sessions_opened += 1;
        let record = Record {
            number: self.sessions_opened,
            worker: self.id,
            listener: Arc::clone(listener),
            backend: None,
            client,
            summary: Summary::refused(self.now),
            closed_at: self.now,
            reason,
        };
        self.write_record(record);
    }
}

/// Whether a list refuses a client, which it counts.
fn is_denied(list: &AccessFilter, client: Option<SocketAddr>) -> bool {
    if client.is_some_and(|client| list.allows(client.ip())) {
        return false;
    }
    list.refused.fetch_add(1, Ordering::Relaxed);
    !list.dry_run
}

/// Lines for refused clients in the access log, of a worker in a second: a flood of clients is not
/// to be a flood of lines.
const LINES_MAX: u32 = 100;
