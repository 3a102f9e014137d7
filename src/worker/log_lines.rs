//! The lines of sessions in the access log: at their end, and at their start and while they last
//! where the log asks for it.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::kernel::{Kernel, Sleeper, TcpInfo};
use crate::peek::client_hello::ja4;
use crate::peek::{FirstBytes, http};
use crate::session::{CloseReason, SessionState};
use crate::time::{MS, NEVER};
use crate::token::Side;

use super::log_feed::{LogFeed, LogRule};
use super::refuse::LINES_MAX;
use super::report::TlsRecord;
use super::slot::Slot;
use super::{LogEvent, Record, Worker};

/// What a worker keeps for lines of the access log that most logs do not have. Times are ns of its
/// clock.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    /// The status of the first answer of each session that has one, by its slot; `None`: lines
    /// have none. It is not in the slot, which idle sessions pay for too.
    statuses: Option<HashMap<usize, NonZeroU16>>,
    /// The same for the name that the client asked for in TLS.
    names: Option<HashMap<usize, Box<str>>>,
    /// The same for the fingerprint of its hello.
    fingerprints: Option<HashMap<usize, Box<str>>>,
    /// The slot to look at next for a session that has been open for long.
    next: usize,
    /// When to look.
    look_at: u64,
}

/// What most lines do not have, see [`Record`].
#[derive(Debug)]
pub(super) struct LineExtras {
    pub(super) status: Option<NonZeroU16>,
    pub(super) server_name: Option<Box<str>>,
    pub(super) ja4: Option<Box<str>>,
    pub(super) tls: [Option<Box<TlsRecord>>; 2],
    pub(super) tcp: Option<Box<[Option<TcpInfo>; 2]>>,
}

impl LogLines {
    pub(super) fn of(log: Option<&LogFeed>) -> Self {
        let has = |asked: fn(&LogRule) -> bool| log.is_some_and(|log| asked(&log.rule));
        Self {
            statuses: has(|rule| rule.status).then(HashMap::new),
            names: has(|rule| rule.server_name).then(HashMap::new),
            fingerprints: has(|rule| rule.ja4).then(HashMap::new),
            ..Self::default()
        }
    }

    /// The first bytes of a backend's answer have come.
    pub(super) fn note_answer(&mut self, key: usize, first: &[u8]) {
        if let Some(statuses) = &mut self.statuses
            && let Some(status) = http::status(first)
        {
            statuses.insert(key, status);
        }
    }

    /// The client's first bytes have decided where it goes.
    pub(super) fn note_first_bytes(&mut self, key: usize, first: &[u8]) {
        if let Some(names) = &mut self.names
            && let Ok(name) = FirstBytes::new(first, true).server_name()
        {
            let name = String::from_utf8_lossy(name.as_bytes());
            names.insert(key, name.into());
        }
        if let Some(fingerprints) = &mut self.fingerprints
            && let Ok(fingerprint) = ja4(first)
        {
            fingerprints.insert(key, fingerprint.into());
        }
    }

    fn status(&self, key: usize) -> Option<NonZeroU16> {
        self.statuses.as_ref()?.get(&key).copied()
    }

    fn name(&self, key: usize) -> Option<Box<str>> {
        self.names.as_ref()?.get(&key).cloned()
    }

    fn fingerprint(&self, key: usize) -> Option<Box<str>> {
        self.fingerprints.as_ref()?.get(&key).cloned()
    }

    /// The session of a slot has ended.
    fn forget(&mut self, key: usize) {
        if let Some(statuses) = &mut self.statuses {
            statuses.remove(&key);
        }
        if let Some(names) = &mut self.names {
            names.remove(&key);
        }
        if let Some(fingerprints) = &mut self.fingerprints {
            fingerprints.remove(&key);
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// What the line of a session that has ended says besides, if it gets one. Its sockets are
    /// open still.
    pub(super) fn end_extras(
        &mut self,
        key: usize,
        slot: &Slot,
        reason: CloseReason,
    ) -> Option<LineExtras> {
        let rule = self.log.as_ref()?.rule;
        if !rule.takes((self.id, slot.number), reason) {
            self.log_lines.forget(key);
            return None;
        }
        let is_check = slot.is_own() && slot.session.delivered()[Side::Client as usize] == 0;
        if is_check && self.leaves_out_check(reason) {
            self.log_lines.forget(key);
            return None;
        }
        let stopped_early = slot.target.is_none()
            && matches!(
                reason,
                CloseReason::FirstBytesTimeout
                    | CloseReason::NoRoute
                    | CloseReason::NotTransparent
                    | CloseReason::Banned
            );
        if stopped_early && !self.refusals.takes(self.now, LINES_MAX) {
            self.stats.refusals_unlogged.increment();
            self.log_lines.forget(key);
            return None;
        }
        let extras = self.extras(key, slot);
        self.log_lines.forget(key);
        Some(extras)
    }

    /// Whether a connection of a proxy's own, on which it has sent nothing, gets no line. It is
    /// counted then. One that the proxy did not end itself gets its line.
    pub(super) fn leaves_out_check(&self, reason: CloseReason) -> bool {
        let is_its_end = matches!(reason, CloseReason::ClientClosed | CloseReason::ClientReset);
        let log = self.log.as_ref();
        let leaves_out = is_its_end && log.is_some_and(|log| !log.rule.proxy_checks);
        if leaves_out {
            self.stats.proxy_checks_unlogged.increment();
        }
        leaves_out
    }

    /// A session is connected to its backend.
    pub(super) fn log_start(&self, key: usize) {
        let Some(rule) = self.log.as_ref().map(|log| log.rule) else {
            return;
        };
        let slot = &self.slots[key];
        if rule.start && rule.samples((self.id, slot.number)) {
            self.write_record(self.line(key, slot, LogEvent::Start));
        }
    }

    /// When to look for sessions that have been open for long.
    pub(super) fn progress_due(&self) -> u64 {
        let progress = self.log.as_ref().and_then(|log| log.rule.progress);
        match progress {
            Some(_) if !self.slots.is_empty() => self.log_lines.look_at,
            _ => NEVER,
        }
    }

    /// Writes lines of sessions that have been open for long: looks at some slots at a time, and
    /// comes around once in the time from line to line, so that no session has to remember its
    /// last one, and lines are spread over that time.
    pub(super) fn log_progress(&mut self) {
        let Some(rule) = self.log.as_ref().map(|log| log.rule) else {
            return;
        };
        let Some(every) = rule.progress.filter(|_| self.now >= self.progress_due()) else {
            return;
        };
        let all = self.slots.capacity().max(1);
        let first = self.log_lines.next;
        // At least 64 of them, and as many as make looks rare: their number is that of the most
        // sessions there ever were.
        let looks = (every / LOOK_EVERY).max(1);
        let at_once = usize::try_from((all as u64).div_ceil(looks)).unwrap_or(all);
        let at_once = at_once.max(SLOTS_AT_ONCE);
        let end = all.min(first.saturating_add(at_once));
        for key in first..end {
            let Some(slot) = self.slots.get(key) else {
                continue;
            };
            let view = slot.session.view();
            let lasts = self.now.saturating_sub(view.opened_at) >= every;
            let is_open = view.state == SessionState::Open;
            if lasts && is_open && rule.samples((self.id, slot.number)) {
                self.write_record(self.line(key, slot, LogEvent::Progress));
            }
        }
        self.log_lines.next = if end < all { end } else { 0 };
        let looks = all.div_ceil(at_once) as u64;
        self.log_lines.look_at = self.now.saturating_add((every / looks).max(1));
    }

    /// The line of a session that goes on.
    fn line(&self, key: usize, slot: &Slot, event: LogEvent) -> Record {
        let LineExtras {
            status,
            server_name,
            ja4,
            tls,
            tcp,
        } = self.extras(key, slot);
        Record {
            number: slot.number,
            worker: self.id,
            listener: Arc::clone(&slot.listener),
            route: slot.route,
            backend: slot.target.clone(),
            client: slot.peer,
            proxy: slot.proxy(),
            summary: slot.session.summary(self.now),
            at: self.now,
            event,
            dry_run: slot.dry_run,
            tries: slot.tries.clone(),
            connect_us: slot.connect_us,
            status,
            server_name,
            ja4,
            tls,
            tcp,
        }
    }

    fn extras(&self, key: usize, slot: &Slot) -> LineExtras {
        let asks = self.log.as_ref().is_some_and(|log| log.rule.tcp_info);
        let asks_tls = self.log.as_ref().is_some_and(|log| log.rule.tls);
        LineExtras {
            status: self.log_lines.status(key),
            server_name: self.log_lines.name(key),
            ja4: self.log_lines.fingerprint(key),
            tls: Side::BOTH.map(|side| asks_tls.then(|| slot.tls_record(side)).flatten()),
            tcp: asks.then(|| Box::new(self.tcp_of(slot))),
        }
    }

    fn tcp_of(&self, slot: &Slot) -> [Option<TcpInfo>; 2] {
        let backend = slot.backend.as_ref();
        let backend = backend.and_then(|backend| self.kernel.tcp_info(backend));
        [self.kernel.tcp_info(&slot.client), backend]
    }

    /// Queues a line of the access log. A full queue drops it.
    pub(super) fn write_record(&self, record: Record) {
        let Some(log) = &self.log else { return };
        if log.records.try_send(record).is_ok() {
            self.kernel.wake(Sleeper::LogWriter);
        } else {
            self.stats.log_dropped.increment();
        }
    }
}

/// Slots that are looked at in a turn for sessions that have been open for long.
const SLOTS_AT_ONCE: usize = 64;
/// At most how often, so that few sessions after many do not keep the worker awake.
const LOOK_EVERY: u64 = 20 * MS;
