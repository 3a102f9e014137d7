//! Refuses clients at accept, before they take a place or a backend is selected. Those that have
//! gone by then are closed in the same way.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::guard::{Action, ClientStage};
use crate::kernel::{Kernel, Socket};
use crate::route::RouteNumber;
use crate::session::{CloseReason, Summary};
use crate::snapshot::Snapshot;

use super::accept::Port;
use super::headers::ProxyPeer;
use super::{LogEvent, Record, Worker};

/// Why a client is refused, and what is done with it.
pub(super) type Denial = (CloseReason, Action);

impl Port {
    /// What is asked about its clients. They connect themselves, so it is asked at accept.
    pub(super) fn client_stage<'a>(&'a self, snapshot: &'a Snapshot) -> ClientStage<'a> {
        ClientStage {
            bans: &snapshot.bans,
            ban_action: snapshot.ban_action,
            trusted: &snapshot.trusted,
            access: self.access.as_deref(),
            rules: &self.listener.rules,
            gate: &self.listener.gate,
            sources: &snapshot.sources,
        }
    }
}

/// Who is refused: what was asked for of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    /// The client; of a proxy that did not name one, the proxy.
    pub(super) client: Option<SocketAddr>,
    /// The proxy that named it.
    pub(super) proxy: Option<ProxyPeer>,
}

impl From<Option<SocketAddr>> for Caller {
    fn from(client: Option<SocketAddr>) -> Self {
        let proxy = None;
        Self { client, proxy }
    }
}

impl<K: Kernel> Worker<K> {
    /// Refuses a client as its rule says, counts it, and logs it unless many are refused.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        port: usize,
        socket: Socket,
        caller: impl Into<Caller>,
        (reason, action): Denial,
    ) {
        let mut caller = caller.into();
        self.stats.closed[reason as usize].increment();
        // It would have the next number.
        let id = (self.id, self.sessions_opened + 1);
        let log = self.log.as_ref();
        let takes = log.is_some_and(|log| log.rule.takes(id, reason));
        // A proxy that has left before its header.
        let is_check = self.ports[port].listener.proxies.is_some() && caller.proxy.is_none();
        let has_line = takes && !(is_check && self.leaves_out_check(reason));
        let is_logged = has_line && self.refusals.takes(self.now, LINES_MAX);
        if has_line && !is_logged {
            self.stats.refusals_unlogged.increment();
        }
        // Those without a line use up no room of lines.
        let is_remembered = self.decisions.takes_refused(self.now);
        if is_logged || is_remembered {
            // The client of a proxy has no other address than the header's.
            if caller.proxy.is_none() && caller.client.is_none() {
                caller.client = self.kernel.peer(&socket);
            }
            let record = self.refused(port, caller, reason);
            if is_remembered {
                self.decisions.on_refused(&record);
            }
            if is_logged {
                self.write_record(record);
            }
        }
        self.dismiss(socket, action);
    }

    fn refused(&mut self, port: usize, caller: Caller, reason: CloseReason) -> Record {
        self.sessions_opened += 1;
        Record {
            number: self.sessions_opened,
            worker: self.id,
            listener: Arc::clone(&self.ports[port].listener),
            route: RouteNumber::DEFAULT,
            backend: None,
            client: caller.client,
            proxy: caller.proxy,
            summary: Summary::refused(self.now),
            at: self.now,
            event: LogEvent::End(reason),
            dry_run: None,
            tries: None,
            connect_us: 0,
            extras: None,
        }
    }
}

/// Refused clients that a worker takes note of in a second, in the access log too: a flood of
/// clients is not to be a flood of lines.
pub(super) const LINES_MAX: u32 = 100;
