//! The last decisions of a worker: where sessions went and why, what was tried, how they ended.
//!
//! They stand in a ring of fixed size that is made, and touched, once. A session knows its record
//! by a number; a record that others have overwritten since is found by none. Records name pools
//! and backends by numbers, which the control thread resolves.

use std::net::SocketAddr;

use crate::fault::Fault;
use crate::guard::Sample;
use crate::kernel::Errno;
use crate::peek::Name;
use crate::route::RouteNumber;
use crate::select::{Choice, Considered, Keys, Request, Selector, Why};
use crate::session::{CloseReason, Summary};
use crate::snapshot::LiveListener;
use crate::time::US;

use super::filter::{DecisionFilter, SessionId};
use super::headers::ProxyPeer;
use super::slot::Slot;
use super::{Record, TRIES_KEPT};

/// What a worker remembers of a session: 472 bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRecord {
    /// Its session: its worker is known by the ring.
    pub number: u64,
    /// When its client was accepted, in ns of the workers' clock.
    pub opened_at: u64,
    /// Its client; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The proxy that named its client by a header.
    pub proxy: Option<ProxyPeer>,
    /// The id of its listener.
    pub listener: u64,
    /// The number of its pool.
    pub pool: u32,
    /// Counts up with each record, and is never 0 in a record that was written.
    serial: u32,
    /// Which of the listener's routes its client took, if they are of `routes`.
    pub route: RouteNumber,
    /// The version of the listener's routes.
    pub routes: u32,
    /// Its client asked for a name in TLS, which stands beside.
    has_name: bool,
    /// What it ended by stands beside, in words.
    has_cause: bool,
    /// The names of the keys for the strategy and for persistence.
    pub key_names: [Option<&'static str>; 2],
    /// The keys that the client had at its last selection.
    pub keys: Keys,
    /// Its last selection.
    pub considered: Considered,
    /// Its connects that failed, the first ones.
    attempts: [FailedConnect; TRIES_KEPT],
    /// How many failed.
    pub failed: u32,
    /// How long the connect took that stood, in µs.
    pub connected: Option<u32>,
    /// How it ended; `None`: it goes on.
    pub end: Option<End>,
}

/// A record, and what stands beside it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Its session.
    pub id: SessionId,
    /// The record.
    pub record: DecisionRecord,
    /// The name that its client asked for in TLS, where a route or a key looked at it.
    pub server_name: Option<String>,
    /// What exactly it ended by, where the reason leaves that open.
    pub cause: Option<String>,
}

/// A connect that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedConnect {
    /// The number of the backend.
    pub backend: u32,
    /// How long it took, in µs.
    pub took: u32,
    /// What it failed by.
    pub errno: Errno,
    /// Whose fault that was.
    pub fault: Fault,
}

/// How a session ended; times in µs since its accept.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Why.
    pub reason: CloseReason,
    /// How long it lasted, in ns.
    pub lasted: u64,
    /// When its backend was connected.
    pub connect: Option<u32>,
    /// When the first byte of its backend came.
    pub first_byte: Option<u32>,
    /// How long it waited in queues.
    pub queued: Option<u32>,
    /// Bytes delivered from the client, from the backend.
    pub delivered: [u64; 2],
}

/// The decisions of one worker. Refused clients have a ring of their own: a flood of them is not
/// to make the others forgotten.
#[derive(Debug)]
pub(super) struct Decisions {
    sessions: Ring,
    /// The names that the clients of `sessions` asked for in TLS, by the place of the record; none
    /// before the first one.
    names: Vec<String>,
    /// What sessions ended by, in the same way.
    causes: Vec<String>,
    refused: Ring,
    /// Bounds how many refused clients are taken note of.
    refusals: Sample,
}

#[derive(Debug)]
struct Ring {
    records: Box<[DecisionRecord]>,
    /// The serial of the last record.
    last: u32,
}

impl DecisionRecord {
    const NONE: Self = Self {
        number: 0,
        opened_at: 0,
        client: None,
        proxy: None,
        listener: 0,
        pool: 0,
        serial: 0,
        route: RouteNumber::DEFAULT,
        routes: 0,
        has_name: false,
        has_cause: false,
        key_names: [None; 2],
        keys: Keys {
            select: 0,
            persist: 0,
            source: 0,
        },
        considered: Considered::NONE,
        attempts: [FailedConnect {
            backend: 0,
            took: 0,
            errno: Errno::CANCELED,
            fault: Fault::Busy,
        }; TRIES_KEPT],
        failed: 0,
        connected: None,
        end: None,
    };

    /// Of a client of this listener: the session of this number, or what would have been it.
    fn by(listener: &LiveListener, route: RouteNumber, number: u64) -> Self {
        let plan = listener.plan_of(route);
        Self {
            number,
            listener: listener.id,
            pool: plan.pool().number,
            route,
            routes: listener.routes.version(),
            key_names: plan.key_names(),
            ..Self::NONE
        }
    }

    /// Its connects that failed, the first ones.
    #[must_use]
    pub fn attempts(&self) -> &[FailedConnect] {
        let kept = usize::try_from(self.failed).map_or(TRIES_KEPT, |failed| failed.min(TRIES_KEPT));
        &self.attempts[..kept]
    }

    /// A connect to a backend failed.
    pub(super) fn on_failed(&mut self, attempt: FailedConnect) {
        let place = usize::try_from(self.failed).unwrap_or(TRIES_KEPT);
        if let Some(free) = self.attempts.get_mut(place) {
            *free = attempt;
        }
        self.failed = self.failed.saturating_add(1);
    }

    /// The session has ended.
    pub(super) fn on_end(&mut self, reason: CloseReason, summary: &Summary, now: u64) {
        self.end = Some(End {
            reason,
            lasted: now.saturating_sub(summary.opened_at),
            connect: summary.connect.map(us),
            first_byte: summary.first_byte.map(us),
            queued: summary.queued.map(us),
            delivered: summary.delivered,
        });
    }
}

impl Decisions {
    pub(super) fn new() -> Self {
        Self {
            sessions: Ring::new(DECISIONS),
            names: Vec::new(),
            causes: Vec::new(),
            refused: Ring::new(REFUSED),
            refusals: Sample::default(),
        }
    }

    /// The record of a session, which is begun if there is none. `None`: it has been overwritten.
    pub(super) fn of(&mut self, slot: &mut Slot) -> Option<&mut DecisionRecord> {
        if slot.decision != 0 {
            return self.find(slot.decision);
        }
        let record = self.sessions.begin(DecisionRecord {
            opened_at: slot.session.view().opened_at,
            client: slot.peer,
            proxy: slot.proxy(),
            keys: slot.keys,
            ..DecisionRecord::by(&slot.listener, slot.route, slot.number)
        });
        slot.decision = record.serial;
        Some(record)
    }

    /// The record of this serial, unless it has been overwritten.
    pub(super) fn find(&mut self, serial: u32) -> Option<&mut DecisionRecord> {
        self.sessions.find(serial)
    }

    /// Whether a client that is refused now is one of the few that are taken note of.
    pub(super) fn takes_refused(&mut self, now: u64) -> bool {
        self.refusals.takes(now, REFUSED_PER_SECOND)
    }

    /// Takes note of the name that a session's client asks for in TLS.
    pub(super) fn note_name(&mut self, slot: &mut Slot, name: &Name) {
        let Some(record) = self.of(slot) else {
            return;
        };
        record.has_name = true;
        let place = self.sessions.place(slot.decision);
        let name = str::from_utf8(name.as_bytes()).unwrap_or_default();
        put(&mut self.names, place, name);
    }

    /// Takes note of what exactly a session ended by.
    pub(super) fn note_cause(&mut self, serial: u32, cause: &str) {
        let Some(record) = self.sessions.find(serial) else {
            return;
        };
        record.has_cause = true;
        let place = self.sessions.place(serial);
        let cause = &cause[..cause.floor_char_boundary(CAUSE_MAX)];
        put(&mut self.causes, place, cause);
    }

    /// Takes note of a client that was refused before it had a session.
    pub(super) fn on_refused(&mut self, refused: &Record) {
        let record = self.refused.begin(DecisionRecord {
            opened_at: refused.at,
            client: refused.client,
            proxy: refused.proxy,
            ..DecisionRecord::by(&refused.listener, refused.route, refused.number)
        });
        if let Some(reason) = refused.reason() {
            record.on_end(reason, &refused.summary, refused.at);
        }
    }

    /// Takes note of a selection, which was just made for this session.
    pub(super) fn on_selected(
        &mut self,
        slot: &mut Slot,
        selector: &Selector,
        (now, choice): (u64, Choice),
    ) {
        let Some(record) = self.of(slot) else { return };
        let plan = slot.listener.plan_of(slot.route);
        record.pool = plan.pool().number;
        record.route = slot.route;
        record.routes = slot.listener.routes.version();
        record.key_names = plan.key_names();
        record.keys = slot.keys;
        let request = Request {
            now,
            keys: slot.keys,
            tried: slot.tried(),
        };
        selector.explain(&request, choice, &mut record.considered);
        if slot.only().is_some() && matches!(choice, Choice::Backend(_)) {
            record.considered.why = Some(Why::Cancels);
        }
    }

    /// The records that match, of each kind the newest first: as many as the filter's limit allows.
    pub(super) fn list(&self, worker: u32, filter: &DecisionFilter) -> Vec<Decided> {
        let rings = [&self.sessions, &self.refused];
        let found = rings.into_iter().flat_map(|ring| {
            let all = ring.newest_first().map(move |record| {
                let number = record.number;
                (SessionId { worker, number }, record)
            });
            let found = all.filter(|(id, record)| filter.matches(*id, record.client));
            found.take(filter.last as usize)
        });
        let decided = found.map(|(id, record)| Decided {
            id,
            record: *record,
            server_name: self.beside(&self.names, record, record.has_name),
            cause: self.beside(&self.causes, record, record.has_cause),
        });
        decided.collect()
    }

    /// A text that stands beside a record, if it has one.
    fn beside(&self, texts: &[String], record: &DecisionRecord, has: bool) -> Option<String> {
        let text = texts.get(self.sessions.place(record.serial));
        text.filter(|_| has).cloned()
    }
}

/// Puts a text beside the record at a place. Its memory is that of the text before.
fn put(texts: &mut Vec<String>, place: usize, text: &str) {
    if texts.is_empty() {
        texts.resize(DECISIONS, String::new());
    }
    let its = &mut texts[place];
    its.clear();
    its.push_str(text);
}

impl Ring {
    fn new(length: usize) -> Self {
        Self {
            records: vec![DecisionRecord::NONE; length].into(),
            last: 0,
        }
    }

    /// Begins a record, over the oldest one.
    fn begin(&mut self, first: DecisionRecord) -> &mut DecisionRecord {
        self.last = self.last.checked_add(1).unwrap_or(1);
        let place = self.place(self.last);
        self.records[place] = DecisionRecord {
            serial: self.last,
            ..first
        };
        &mut self.records[place]
    }

    fn find(&mut self, serial: u32) -> Option<&mut DecisionRecord> {
        let place = self.place(serial);
        let record = &mut self.records[place];
        (serial != 0 && record.serial == serial).then_some(record)
    }

    fn newest_first(&self) -> impl Iterator<Item = &DecisionRecord> {
        let newest = self.place(self.last);
        let all = self.records[..=newest].iter().rev();
        let all = all.chain(self.records[newest + 1..].iter().rev());
        all.filter(|record| record.serial != 0)
    }

    fn place(&self, serial: u32) -> usize {
        serial as usize % self.records.len()
    }
}

fn us(ns: u64) -> u32 {
    u32::try_from(ns / US).unwrap_or(u32::MAX)
}

/// Decisions that a worker remembers.
pub const DECISIONS: usize = 4_096;
/// Bytes of what a session ended by.
const CAUSE_MAX: usize = 256;
/// Refused clients that a worker remembers beside.
const REFUSED: usize = 256;
/// Refused clients that are taken note of in a second: each costs a getpeername(2).
const REFUSED_PER_SECOND: u32 = 100;
/// 2 MiB for each worker.
const _: () = assert!(size_of::<DecisionRecord>() <= 472);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::worker::DecisionSubject;

    fn record(number: u64) -> DecisionRecord {
        DecisionRecord {
            number,
            client: Some(([10, 0, 0, u8::try_from(number % 2).unwrap()], 50_000).into()),
            ..DecisionRecord::NONE
        }
    }

    fn numbers(decisions: &Decisions, of: DecisionSubject, last: u32) -> Vec<u64> {
        let found = decisions.list(3, &DecisionFilter { of, last });
        found.iter().map(|one| one.id.number).collect()
    }

    #[test]
    fn the_last_decisions_are_found_and_older_ones_are_not() {
        let mut decisions = Decisions::new();
        let even = DecisionSubject::Client(IpAddr::from([10, 0, 0, 0]));
        assert!(numbers(&decisions, even, 9).is_empty());
        let all = DECISIONS as u64 + 100;
        let first = decisions.sessions.begin(record(1)).serial;
        for number in 2..=all {
            decisions.sessions.begin(record(number));
        }
        assert!(decisions.find(first).is_none(), "it has been overwritten");
        assert_eq!(numbers(&decisions, even, 2), [all, all - 2]);
        assert_eq!(numbers(&decisions, even, u32::MAX).len(), DECISIONS / 2);
        let session = |number| DecisionSubject::Session(SessionId { worker: 3, number });
        assert_eq!(numbers(&decisions, session(101), 9), [101], "the oldest");
        assert!(numbers(&decisions, session(100), 9).is_empty());
        let mapped = "::ffff:10.0.0.0".parse().unwrap();
        assert_eq!(
            numbers(&decisions, DecisionSubject::Client(mapped), 1),
            [all]
        );
        let port = |port| DecisionSubject::Connection(([10, 0, 0, 0], port).into());
        assert_eq!(numbers(&decisions, port(50_000), 1), [all]);
        assert!(numbers(&decisions, port(50_001), 1).is_empty());
    }

    #[test]
    fn the_cause_of_an_end_stands_beside_its_record_alone() {
        let mut decisions = Decisions::new();
        let first = decisions.sessions.begin(record(1)).serial;
        let second = decisions.sessions.begin(record(2)).serial;
        decisions.note_cause(first, &"é".repeat(CAUSE_MAX));
        decisions.note_cause(second + 1, "of none");
        let of = DecisionSubject::Client(IpAddr::from([10, 0, 0, 1]));
        let told = decisions.list(3, &DecisionFilter { of, last: 9 });
        assert_eq!(told[0].cause, Some("é".repeat(CAUSE_MAX / 2)));
        let of = DecisionSubject::Client(IpAddr::from([10, 0, 0, 0]));
        let told = decisions.list(3, &DecisionFilter { of, last: 9 });
        assert_eq!(told[0].cause, None);
        // Of the next record at that place it is none.
        for number in 0..DECISIONS as u64 {
            decisions.sessions.begin(record(2 * number + 1));
        }
        let of = DecisionSubject::Client(IpAddr::from([10, 0, 0, 1]));
        let told = decisions.list(3, &DecisionFilter { of, last: u32::MAX });
        assert!(told.iter().all(|one| one.cause.is_none()));
    }

    #[test]
    fn serials_go_on_after_the_last_one() {
        let mut decisions = Decisions::new();
        decisions.sessions.last = u32::MAX;
        assert_eq!(decisions.sessions.begin(record(1)).serial, 1);
        assert!(decisions.find(1).is_some());
        assert!(decisions.find(0).is_none());
    }

    #[test]
    fn the_first_failures_are_kept_and_all_are_counted() {
        let mut its = DecisionRecord::NONE;
        for took in 1..=6 {
            its.on_failed(FailedConnect {
                backend: 1,
                took,
                errno: Errno::CONNREFUSED,
                fault: Fault::Backend,
            });
        }
        let took = its.attempts().iter().map(|attempt| attempt.took);
        assert_eq!(took.collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(its.failed, 6);
    }
}
