//! Refuses clients at accept, before they take a place or a backend is selected. Those that have
//! gone by then are closed in the same way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::guard::{AccessFilter, Action, Pass};
use crate::kernel::{Kernel, Socket};
use crate::session::{CloseReason, Summary};
use crate::snapshot::Snapshot;

use super::accept::Port;
use super::{Record, Worker};

/// Why a client is refused, and what is done with it.
pub(super) type Denial = (CloseReason, Action);

impl<K: Kernel> Worker<K> {
    /// Asks the rules of a port about a client, in their fixed order: the ban table, its access
    /// list, then the limits of its connections and their rates. Counts what a rule refuses. A
    /// client without an address came by a Unix socket.
    pub(super) fn ask(&self, port: usize, client: Option<SocketAddr>) -> Result<Pass, Denial> {
        let port = &self.ports[port];
        let Port {
            access, listener, ..
        } = port;
        if is_banned(port, &self.snapshot, client, self.now) {
            return Err((CloseReason::Banned, Action::Reset));
        }
        if let Some(list) = access.as_ref().filter(|list| is_denied(list, client)) {
            listener.refused.fetch_add(1, Ordering::Relaxed);
            return Err((CloseReason::AccessDenied, list.action));
        }
        if listener.rules.is_empty() {
            return Ok(Pass::default());
        }
        let (sources, ip) = (&self.snapshot.sources, client.map(|client| client.ip()));
        let admitted = listener.gate.admit(sources, &listener.rules, ip, self.now);
        admitted.map_err(|limit| (limit.into(), listener.rules.action(limit)))
    }

    /// Refuses a client as its rule says, counts it, and logs it unless many are refused.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        port: usize,
        socket: Socket,
        client: Option<SocketAddr>,
        (reason, action): Denial,
    ) {
        self.stats.closed[reason as usize].increment();
        if self.log.is_some() {
            if self.refusals.takes(self.now, LINES_MAX) {
                let client = client.or_else(|| self.kernel.peer(&socket));
                self.log_refused(port, client, reason);
            } else {
                self.stats.refusals_unlogged.increment();
            }
        }
        self.dismiss(socket, action);
    }

    fn log_refused(&mut self, port: usize, client: Option<SocketAddr>, reason: CloseReason) {
        self.sessions_opened += 1;
        let record = Record {
            number: self.sessions_opened,
            worker: self.id,
            listener: Arc::clone(&self.ports[port].listener),
            backend: None,
            client,
            summary: Summary::refused(self.now),
            closed_at: self.now,
            reason,
            dry_run: None,
        };
        self.write_record(record);
    }
}

/// Whether a client of a port is banned, which is counted.
pub(super) fn is_banned(
    port: &Port,
    snapshot: &Snapshot,
    client: Option<SocketAddr>,
    now: u64,
) -> bool {
    let Some(ip) = client.map(|client| client.ip()) else {
        return false;
    };
    let is_banned = snapshot.is_banned(ip, now);
    if is_banned {
        snapshot.bans.count_hit(ip, now);
        port.listener.gate.count_banned();
    }
    is_banned
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
