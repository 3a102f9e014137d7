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
use super::report::LineExtras;
use super::slot::Slot;
use super::{LogEvent, Record, Worker};

/// What a worker keeps for lines of the access log. Times are ns of its clock.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    /// `None`: the lines have nothing but what the sessions know.
    extras: Option<Box<Extras>>,
    /// The slot to look at next for a session that has been open for long.
    next: usize,
    /// When to look.
    look_at: u64,
}

/// What is kept of sessions whose lines have more than most. It is not in the slots, which idle
/// sessions pay for too.
#[derive(Debug)]
struct Extras {
    /// What the lines have.
    rule: LogRule,
    by_slot: HashMap<usize, Noted>,
}

/// What was seen of a session's bytes.
#[derive(Clone, Debug, Default)]
struct Noted {
    status: Option<NonZeroU16>,
    server_name: Option<Box<str>>,
    ja4: Option<Box<str>>,
}

impl LogLines {
    pub(super) fn of(log: Option<&LogFeed>) -> Self {
        let rule = log.map(|log| log.rule).filter(LogRule::asks_for_extras);
        let extras = rule.map(|rule| Extras {
            rule,
            by_slot: HashMap::new(),
        });
        Self {
            extras: extras.map(Box::new),
            ..Self::default()
        }
    }

    /// The first bytes of a backend's answer have come.
    pub(super) fn note_answer(&mut self, key: usize, first: &[u8]) {
        if let Some(extras) = &mut self.extras
            && extras.rule.status
            && let Some(status) = http::status(first)
        {
            extras.by_slot.entry(key).or_default().status = Some(status);
        }
    }

    /// The client's first bytes have decided where it goes.
    pub(super) fn note_first_bytes(&mut self, key: usize, first: &[u8]) {
        let Some(extras) = &mut self.extras else {
            return;
        };
        if extras.rule.server_name
            && let Ok(name) = FirstBytes::new(first, true).server_name()
        {
            let name = String::from_utf8_lossy(name.as_bytes());
            extras.by_slot.entry(key).or_default().server_name = Some(name.into());
        }
        if extras.rule.ja4
            && let Ok(fingerprint) = ja4(first)
        {
            extras.by_slot.entry(key).or_default().ja4 = Some(fingerprint.into());
        }
    }

    /// The session of a slot has ended.
    pub(super) fn forget(&mut self, key: usize) {
        if let Some(extras) = &mut self.extras {
            extras.by_slot.remove(&key);
        }
    }
}

impl<K: Kernel> Worker<K> {
    /// Whether a session that has ended gets a line.
    pub(super) fn has_end_line(&mut self, slot: &Slot, reason: CloseReason) -> bool {
        let Some(rule) = self.log.as_ref().map(|log| log.rule) else {
            return false;
        };
        if !rule.takes((self.id, slot.number), reason) {
            return false;
        }
        let is_check = slot.is_own() && slot.session.delivered()[Side::Client as usize] == 0;
        if is_check && self.leaves_out_check(reason) {
            return false;
        }
        let stopped_early = slot.target.is_none()
            && matches!(
                reason,
                CloseReason::FirstBytesTimeout
                    | CloseReason::NoRoute
                    | CloseReason::NotTransparent
                    | CloseReason::Banned
            );
        let is_beyond = stopped_early && !self.refusals.takes(self.now, LINES_MAX);
        if is_beyond {
            self.stats.refusals_unlogged.increment();
        }
        !is_beyond
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
            extras: self.extras(key, slot),
        }
    }

    /// What the line of a session has besides.
    pub(super) fn extras(&self, key: usize, slot: &Slot) -> Option<Box<LineExtras>> {
        let Extras { rule, by_slot } = &**self.log_lines.extras.as_ref()?;
        let noted = by_slot.get(&key).cloned().unwrap_or_default();
        let tls = |side| rule.tls.then(|| slot.tls_record(side)).flatten();
        Some(Box::new(LineExtras {
            status: noted.status,
            server_name: noted.server_name,
            ja4: noted.ja4,
            tls: Side::BOTH.map(tls),
            tcp: match rule.tcp_info {
                true => self.tcp_of(slot),
                false => [None, None],
            },
        }))
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
