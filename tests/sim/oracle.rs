//! The invariants, for any behaviour of the kernel and the peers.

use mahoraga::guard::Limit;
use mahoraga::kernel::{Completion, Done, Manner};
use mahoraga::session::CloseReason;
use mahoraga::time::MS;
use mahoraga::token::Side;
use mahoraga::worker::{Numbers, Record};

use crate::kernel::{FIRST_SOCKET, FakeKernel, index};
use crate::net::{Conn, Hold};

impl FakeKernel {
    /// FIN may go out only behind the last byte of a stream whose sender has ended it.
    pub(crate) fn assert_end_is_due(&mut self, fd: i32) {
        let partner = self.conn(fd).partner.expect("an end comes from a partner");
        assert!(
            self.conn(fd).introduction.is_none(),
            "{fd} ends before its header"
        );
        let given = self.conn(fd).outbound.given;
        let source = &self.conn(partner).inbound;
        assert!(
            source.fin && given == source.written,
            "{fd} is shown an end after {given} bytes, but its partner has {source:?}"
        );
    }

    /// Only the last bytes of a stream whose sender has ended it may be held back.
    pub(crate) fn assert_end_follows(&mut self, fd: i32, bytes: u32) {
        let partner = self.conn(fd).partner.expect("bytes come from a partner");
        // The client's first bytes follow a header.
        if self.conn(fd).is_gone() || self.conn(fd).introduction.is_some() {
            return;
        }
        let given = self.conn(fd).outbound.given + u64::from(bytes);
        let source = &self.conn(partner).inbound;
        assert!(
            source.fin && given == source.written,
            "{fd} must hold bytes back up to {given}, but its partner has {source:?}"
        );
    }

    /// After each turn: counts equal what is open, and are within the limits.
    pub(crate) fn assert_counts(&mut self, numbers: &Numbers, capacity: usize) {
        let sessions = numbers.sessions.get();
        let parked = numbers.parked.get();
        let arriving = numbers.arriving.get();
        let taken = sessions + numbers.unfinished_headers.get();
        self.assert_accepts(taken < capacity as u64);
        let clients = self.open_sockets(Side::Client) as u64;
        let unreported = self.accepted_unreported();
        let counted = sessions
            + parked
            + arriving
            + numbers.held.get()
            + numbers.unfinished_headers.get()
            + unreported;
        assert_eq!(counted, clients, "open clients");
        if arriving > 0 {
            self.trace.see("clients that wait for their turn");
        }
        assert!(sessions <= capacity as u64, "{sessions} sessions");
        let parked_max = PARKED_MAX * self.listeners.len() as u64;
        // A listener that goes accepts every client of its backlog.
        let stays = |number: &usize| self.world.in_force[*self.world.known.end()].contains(number);
        let all_stay = self.world.in_force.iter().flatten().all(stays);
        let closing = self.world.over_at.is_some() || !all_stay;
        assert!(
            closing || parked <= parked_max,
            "{parked} connections are parked"
        );
        if parked > 0 {
            self.trace.see("parked connection");
        }
        let world = &self.world;
        let others = u64::from(world.others);
        let used = |limit: &Limit| u64::from(limit.used());
        assert_eq!(used(&world.in_all), sessions + others, "places in all");
        let by_listener: u64 = world.per_listener.iter().map(|limit| used(limit)).sum();
        let taken = others * world.per_listener.len() as u64;
        assert_eq!(by_listener, sessions + taken, "places of listeners");
        for limit in world.per_listener.iter().chain([&world.in_all]) {
            assert!(limit.used() <= limit.max(), "{limit:?}");
        }
        let [full, full_in_all] = [&world.per_listener[0], &world.in_all].map(|l| l.is_full());
        for (is_full, what) in [
            (sessions == capacity as u64, "worker full"),
            (full, "listener full"),
            (full_in_all, "full in all"),
        ] {
            if is_full {
                self.trace.see(what);
            }
        }
        let buffers: u32 = self.conns.iter().map(|conn| conn.buffers).sum();
        let in_use = u32::try_from(self.buffers.len() - self.free.len()).expect("few");
        assert_eq!(buffers + self.made(), in_use, "buffers");
    }

    /// Clients may wait only while there is no room for them.
    fn assert_accepts(&mut self, has_room: bool) {
        let lacking = self.lacks_descriptors() || self.world.drought;
        let now = self.now;
        let over = self.world.over_at.is_some_and(|at| now < at + OVER_MAX);
        assert!(
            self.world.over_at.is_none() || over,
            "the run goes on long after the grace: {}",
            self.dump()
        );
        let stopping = self.world.over_at.is_some();
        for number in 0..self.listeners.len() {
            let limit = &self.world.per_listener[number];
            let full = limit.is_full() || self.world.in_all.is_full() || !has_room;
            let sessions = limit.used() - self.world.others;
            let theirs = |conn: &&Conn| conn.side == Side::Client && conn.listener == number;
            let conns = self.conns.iter().filter(theirs);
            let has_come = |conn: &&Conn| !conn.held && conn.header.is_none();
            let accepted = conns
                .filter(|conn| conn.is_open() && has_come(conn))
                .count();
            let listening = &mut self.listeners[number];
            let waiting = !listening.backlog.is_empty() && !listening.closed && !stopping;
            let parked = accepted > sessions as usize;
            if full || !(waiting && !lacking || parked) {
                listening.unaccepted_since = None;
                continue;
            }
            let since = *listening.unaccepted_since.get_or_insert(now);
            assert!(
                now - since < UNACCEPTED_MAX,
                "clients of listener {number} wait in vain"
            );
        }
    }

    fn accepted_unreported(&self) -> u64 {
        let accepted = |done: &&Completion| matches!(done.outcome, Ok(Done::Accepted(_)));
        self.completed.iter().filter(accepted).count() as u64
    }

    /// No stream that can move may stand still for a second, and no reset may go unnoticed.
    pub(crate) fn look_for_stalls(&mut self) {
        let now = self.now;
        let starved = self.free.is_empty() || now - self.starved_at < STILL_MAX;
        self.pipes.assert_lent_to_streams(now);
        for at in 0..self.conns.len() {
            self.look_for_silence(number(at), starved);
            let conn = &self.conns[at];
            let Some(partner) = conn.partner.filter(|_| conn.is_open()) else {
                continue;
            };
            let listener = conn.listener.max(self.conns[index(partner)].listener);
            let limits = self.world.limits[listener];
            let other = &self.conns[index(partner)];
            let moved_at = conn.moved_at().max(other.moved_at());
            let closed_at = [conn, other].map(|one| one.peer.closed_at.filter(|_| one.local));
            let moved_at = closed_at.into_iter().flatten().fold(moved_at, u64::max);
            let delivered = conn.is_gone() && other.outbound.fin && other.local;
            assert!(
                starved || !delivered || now - moved_at < GONE_MAX,
                "the peer of {} is gone, and its session is kept: {}",
                number(at),
                self.dump()
            );
            let quiet_max = if conn.outbound.fin || conn.is_gone() || other.is_gone() {
                limits.half_closed
            } else {
                limits.idle.max(limits.half_closed)
            };
            // A check may come up to a quarter later than the deadline, of which a broken session
            // that lingers has one of 100 ms. Peers with bytes to read get more.
            let gets_more = self.has_unread(at) || self.has_unread(index(partner));
            let more = if gets_more { SLOW_READER } else { 0 };
            let quiet_max = (quiet_max.max(100 * MS) / 4).saturating_mul(5);
            let ways = [conn.side, other.side];
            let rests = ways.map(|from| self.world.is_slow(listener, from));
            let resting = if rests.contains(&true) { REST_MAX } else { 0 };
            let quiet_max = quiet_max.saturating_add(more).saturating_add(resting);
            assert!(
                now - moved_at < quiet_max.saturating_add(LATE_MAX),
                "a session outlives its deadline: {}",
                self.dump()
            );
            // A lack of buffers stops no stream that can move.
            let lacks = self.world.famine || rests[1];
            let movable = !lacks && can_move(other, conn);
            let unnoticed = conn
                .reset_at
                .filter(|_| conn.error_pending && !conn.fault_seen && !starved);
            let since = unnoticed.map(|at| at.max(conn.paired_at));
            assert!(
                since.is_none_or(|since| now - since < UNNOTICED_MAX),
                "a reset of {} goes unnoticed: {}",
                number(at),
                self.dump()
            );
            let outbound = &mut self.conns[at].outbound;
            if !movable || outbound.given != outbound.marked {
                outbound.marked = outbound.given;
                outbound.stalled_since = None;
            }
            if movable {
                let since = *outbound.stalled_since.get_or_insert(now);
                assert!(
                    now - since < STILL_MAX,
                    "the stream to {} stands still: {}",
                    number(at),
                    self.dump()
                );
            }
        }
    }

    /// While the kernel lacks memory, a socket that polls as ready takes nothing.
    pub(crate) fn takes_nothing(&mut self, fd: i32) -> bool {
        let lacks = self.world.famine && self.random.permille(900);
        if lacks && self.conn(fd).outbound_room() > 0 {
            self.starved_at = self.now;
            self.trace.see("a sink with room that takes nothing");
        }
        lacks
    }

    fn has_unread(&self, at: usize) -> bool {
        let outbound = &self.conns[at].outbound;
        outbound.given > outbound.read
    }

    /// No peer may wait for ever for an acknowledgement or for bytes that the balancer holds back,
    /// and a client that has reset must be closed.
    fn look_for_silence(&self, fd: i32, starved: bool) {
        let conn = &self.conns[index(fd)];
        if !conn.is_open() {
            return;
        }
        let reported = conn.is_reset() && !conn.error_pending;
        assert!(
            !reported || conn.partner.is_some() || self.now - conn.moved_at < UNNOTICED_MAX,
            "{fd} reset while connecting and is kept: {}",
            self.dump()
        );
        let waits = conn.awaits_acknowledgement() && !conn.is_reset() && !starved;
        let since = conn.owed_since.filter(|_| waits);
        assert!(
            since.is_none_or(|since| self.now - since < STILL_MAX),
            "the peer of {fd} waits for an acknowledgement: {}",
            self.dump()
        );
        let since = Some(conn.outbound.held_since).filter(|_| conn.outbound.held > 0);
        assert!(
            since.is_none_or(|since| self.now - since < STILL_MAX),
            "bytes to {fd} are held back for long: {}",
            self.dump()
        );
    }

    /// A session has ended: its reason must fit what its peers saw.
    #[expect(clippy::too_many_lines, reason = "a table of reasons")]
    pub(crate) fn on_record(&mut self, record: &Record) {
        self.check_closes(record);
        let port = record.client.expect("every client has an address").port();
        let client = &self.conns[index(i32::from(port))];
        let reason = record.reason().expect("lines of ends alone");
        self.trace.see(reason.as_str());
        if record.summary.queued.is_some() && record.summary.connect.is_some() {
            self.trace.see("client served after a wait");
        }
        let closed = matches!(client.hold, Hold::Closed { .. });
        assert!(closed || client.held, "{reason}");
        if self.listeners[client.listener].closed && self.world.over_at.is_none() {
            self.trace.see("a session that outlives its listener");
        }
        let Some(partner) = client.partner else {
            if reason == CloseReason::ClientReset && client.is_gone() {
                self.trace.see("a gone client waits no longer");
            }
            let possible = fits_without_backend(reason, client.refuses_bytes());
            assert!(possible, "{reason} without a backend: {client:?}");
            assert_eq!(record.summary.delivered, [0, 0]);
            return;
        };
        let backend = &self.conns[index(partner)];
        assert!(matches!(backend.hold, Hold::Closed { .. }), "{reason}");
        let ways = [(client, backend), (backend, client)];
        for ((from, to), delivered) in ways.into_iter().zip(record.summary.delivered) {
            check_way(from, to, delivered, reason);
        }
        let broke = match reason {
            CloseReason::ClientReset => client.refuses_bytes(),
            CloseReason::BackendReset => backend.refuses_bytes(),
            CloseReason::ClientClosed
            | CloseReason::BackendClosed
            | CloseReason::IdleTimeout
            | CloseReason::HalfClosedTimeout
            | CloseReason::SessionTimeout
            | CloseReason::Shutdown
            | CloseReason::Killed
            | CloseReason::Banned
            | CloseReason::Stalled
            | CloseReason::BackendDown => true,
            CloseReason::ConnectFailed
            | CloseReason::ConnectTimeout
            | CloseReason::TlsRefused
            | CloseReason::TlsFailed
            | CloseReason::TlsTimeout
            | CloseReason::TlsHandshakesFull
            | CloseReason::TlsTruncated
            | CloseReason::BackendTlsFailed
            | CloseReason::BackendTlsTruncated
            | CloseReason::NoBackend
            | CloseReason::NoRoute
            | CloseReason::ProxyUntrusted
            | CloseReason::ProxyHeader
            | CloseReason::ProxyHeaderTimeout
            | CloseReason::ProxyHeadersFull
            | CloseReason::AccessDenied
            | CloseReason::SourceConnections
            | CloseReason::SourceRate
            | CloseReason::ListenerRate
            | CloseReason::GlobalRate
            | CloseReason::Overloaded
            | CloseReason::MemoryFull
            | CloseReason::FirstBytesTimeout
            | CloseReason::PoolFull
            | CloseReason::QueueTimeout
            | CloseReason::NoResources
            | CloseReason::NoLocalPort
            | CloseReason::NoSourceAddress
            | CloseReason::NotTransparent => false,
        };
        assert!(broke, "{reason}: {client:?} {backend:?}");
        check_deadline(record, self.queue_timeout(record.listener.id));
        if reason == CloseReason::Shutdown {
            assert!(self.world.over_at.is_some_and(|at| at <= record.at));
        }
    }

    /// All resources were given back.
    pub(crate) fn assert_nothing_is_left(&self) {
        assert!(self.ops.is_empty(), "in flight at the end: {:?}", self.ops);
        assert!(self.completed.is_empty());
        assert_eq!(self.free.len(), self.buffers.len(), "buffers in use");
        assert_eq!(self.pipes.leased(), 0, "pipes on lease");
        let open = self.conns.iter().filter(|conn| conn.is_open()).count();
        assert_eq!(open, 0, "sockets open: {}", self.dump());
        assert!(self.listeners.iter().all(|listening| listening.closed));
    }

    /// The state and the operations in flight, for a failure's message.
    pub(crate) fn dump(&self) -> String {
        let conns = (FIRST_SOCKET..).zip(&self.conns);
        let open = conns.filter(|(_, conn)| conn.is_open());
        let lines = open.map(|(fd, conn)| format!("\n  {fd}: {conn:?}"));
        let ops = self.ops.values().map(|op| format!("\n  {op:?}"));
        lines.chain(ops).collect()
    }
}

/// A connection's descriptor by its index.
fn number(at: usize) -> i32 {
    FIRST_SOCKET + i32::try_from(at).expect("few")
}

/// Whether bytes, or the end, could go from one connection to the other.
fn can_move(from: &Conn, to: &Conn) -> bool {
    let waiting = from.inbound.written > to.outbound.given || from.inbound.fin;
    let takes = to.outbound_room() > 0 && !to.refuses_bytes();
    let taken = takes && !to.known_broken && !to.outbound.fin;
    waiting && taken && from.is_open()
}

/// One direction of a session that has ended.
fn check_way(from: &Conn, to: &Conn, delivered: u64, reason: CloseReason) {
    let (sent, given) = (from.inbound.written, to.outbound.given);
    let complete = from.inbound.fin && given == sent;
    assert!(
        delivered <= given,
        "{reason}: {delivered} of {given} {to:?}"
    );
    // The session dropped bytes that it took for delivered.
    let lost = delivered + to.outbound.dropped > given && !to.is_reset();
    assert!(
        !lost,
        "{reason}: held back for an end that did not come: {to:?}"
    );
    if reason.is_orderly() {
        assert!(complete || to.is_gone(), "{reason}: {from:?} to {to:?}");
        assert_eq!(delivered, given, "{reason}");
        let graceful = matches!(
            to.hold,
            Hold::Closed {
                manner: Manner::Graceful,
                ..
            }
        );
        assert!(graceful, "{reason}: {to:?}");
    }
    if to.saw_end() && !complete && !to.is_gone() {
        // Bytes that arrived just now may not have been noticed.
        let fresh = match from.hold {
            Hold::Closed { at, unread, .. } => unread == 0 || at - from.unread_since < LATE_MAX,
            Hold::Backlog | Hold::Open => false,
        };
        let idle = reason == CloseReason::IdleTimeout && given == from.inbound.taken && fresh;
        assert!(
            idle,
            "{reason}: a truncated stream looks whole: {from:?} to {to:?}"
        );
    }
}

/// Whether a session without a backend may end for this reason.
fn fits_without_backend(reason: CloseReason, is_broken: bool) -> bool {
    match reason {
        CloseReason::ClientReset => is_broken,
        CloseReason::ClientClosed
        | CloseReason::BackendClosed
        | CloseReason::BackendReset
        | CloseReason::IdleTimeout
        | CloseReason::HalfClosedTimeout
        | CloseReason::SessionTimeout
        | CloseReason::Stalled => false,
        CloseReason::ConnectFailed
        | CloseReason::ConnectTimeout
        | CloseReason::TlsRefused
        | CloseReason::TlsFailed
        | CloseReason::TlsTimeout
        | CloseReason::TlsHandshakesFull
        | CloseReason::TlsTruncated
        | CloseReason::BackendTlsFailed
        | CloseReason::BackendTlsTruncated
        | CloseReason::NoBackend
        | CloseReason::NoRoute
        | CloseReason::ProxyUntrusted
        | CloseReason::ProxyHeader
        | CloseReason::ProxyHeaderTimeout
        | CloseReason::ProxyHeadersFull
        | CloseReason::AccessDenied
        | CloseReason::SourceConnections
        | CloseReason::SourceRate
        | CloseReason::ListenerRate
        | CloseReason::GlobalRate
        | CloseReason::Overloaded
        | CloseReason::MemoryFull
        | CloseReason::FirstBytesTimeout
        | CloseReason::PoolFull
        | CloseReason::QueueTimeout
        | CloseReason::NoResources
        | CloseReason::NoLocalPort
        | CloseReason::NoSourceAddress
        | CloseReason::NotTransparent
        | CloseReason::Shutdown
        | CloseReason::Killed
        | CloseReason::Banned
        | CloseReason::BackendDown => true,
    }
}

/// No deadline comes early.
fn check_deadline(record: &Record, queue_timeout: u64) {
    let lasted = record.at - record.summary.opened_at;
    let limits = &record.listener.limits;
    let least = match record.reason().expect("lines of ends alone") {
        CloseReason::IdleTimeout => limits.idle,
        CloseReason::HalfClosedTimeout => limits.half_closed,
        CloseReason::SessionTimeout => limits.session,
        CloseReason::FirstBytesTimeout => limits.peek.expect("it waits for first bytes"),
        CloseReason::ClientClosed
        | CloseReason::BackendClosed
        | CloseReason::ClientReset
        | CloseReason::BackendReset
        | CloseReason::ConnectFailed
        | CloseReason::ConnectTimeout
        | CloseReason::TlsRefused
        | CloseReason::TlsFailed
        | CloseReason::TlsTimeout
        | CloseReason::TlsHandshakesFull
        | CloseReason::TlsTruncated
        | CloseReason::BackendTlsFailed
        | CloseReason::BackendTlsTruncated
        | CloseReason::NoBackend
        | CloseReason::NoRoute
        | CloseReason::ProxyUntrusted
        | CloseReason::ProxyHeader
        | CloseReason::ProxyHeaderTimeout
        | CloseReason::ProxyHeadersFull
        | CloseReason::AccessDenied
        | CloseReason::SourceConnections
        | CloseReason::SourceRate
        | CloseReason::ListenerRate
        | CloseReason::GlobalRate
        | CloseReason::Overloaded
        | CloseReason::MemoryFull
        | CloseReason::PoolFull
        | CloseReason::QueueTimeout
        | CloseReason::NoResources
        | CloseReason::NoLocalPort
        | CloseReason::NoSourceAddress
        | CloseReason::NotTransparent
        | CloseReason::Stalled
        | CloseReason::Shutdown
        | CloseReason::Killed
        | CloseReason::Banned
        | CloseReason::BackendDown => 0,
    };
    assert!(
        lasted >= least,
        "{}: after {lasted} ns",
        record.reason().expect("lines of ends alone")
    );
    // After a backend that refuses at once, others that were not tried follow.
    let most = match limits.attempts {
        1 => 1,
        attempts => attempts.max(ATTEMPTS_MAX),
    };
    assert!(record.summary.attempts <= most);
    // The session timeout is checked after the connect attempts. An attempt that begins only at the
    // end of the timeout takes as much again.
    let connecting = u64::from(most) * (2 * limits.connect + LATE_MAX);
    let peeking = limits.peek.map_or(0, |peek| peek + LATE_MAX);
    let queued = record.summary.queued.unwrap_or(0);
    assert!(queued < queue_timeout + LATE_MAX, "queued for {queued} ns");
    let most = limits
        .session
        .saturating_add(peeking + queued + connecting + LATE_MAX);
    assert!(
        lasted <= most,
        "{}: after {lasted} ns",
        record.reason().expect("lines of ends alone")
    );
}

/// Connect attempts of a session in all.
const ATTEMPTS_MAX: u8 = 16;
/// A stream that can move may stand still for this long.
const STILL_MAX: u64 = 500 * MS;
/// What a slow limit has a direction wait for: for its first bytes and what it took before it paid.
const REST_MAX: u64 = 5_000 * MS;
/// A reset has ended its session within this time: 50 ms until an unread side is watched, and lags.
const UNNOTICED_MAX: u64 = 300 * MS;
/// The session of a peer that is gone, whose bytes are all with the other peer, ends within this
/// time: 50 ms until it is watched, 25 ms until the next look, and lags.
const GONE_MAX: u64 = 500 * MS;
/// A worker with room accepts within this time, though accepting fails every now and then.
const UNACCEPTED_MAX: u64 = 1_000 * MS;
/// A run is over this long after the grace of a stop.
const OVER_MAX: u64 = 300 * MS;
/// A session may end this much later than its deadline: lags of the fake kernel, a tick of the
/// timers, a visit under way.
const LATE_MAX: u64 = 200 * MS;
/// What a deadline grants a peer that has bytes to read, as in `session/deadline.rs`.
const SLOW_READER: u64 = 30_000 * MS;
/// Connections parked by one listener: accepts that were under way when the limit was reached.
const PARKED_MAX: u64 = 12;
