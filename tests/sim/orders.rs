//! Orders of the control thread while sessions go on, and checks of their effect: listeners that
//! come and go, lists of sessions, sessions that are closed.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use mahoraga::kernel::Socket;
use mahoraga::pool::Tally;
use mahoraga::session::CloseReason;
use mahoraga::time::{MS, NEVER, nanos};
use mahoraga::token::Side;
use mahoraga::worker::{Command, Record, SessionFilter, SessionId, SessionInfo};

use crate::kernel::{FIRST_LISTENER, FIRST_SOCKET, FakeKernel, index};
use crate::net::Conn;
use crate::pools::Pools;
use crate::random::Random;

/// An order to close sessions.
#[derive(Debug)]
pub(crate) struct Close {
    filter: SessionFilter,
    /// The backend that went down, if the order is about it.
    tally: Option<Arc<Tally>>,
    reason: CloseReason,
    /// When it was ordered, and by when the last session must be closed.
    at: u64,
    by: u64,
}

/// An order to list sessions.
#[derive(Debug)]
pub(crate) struct List {
    filter: SessionFilter,
    at: u64,
    replies: Receiver<Vec<SessionInfo>>,
}

/// Mixes orders into the commands of a run.
pub(crate) fn mix_in(
    commands: &mut VecDeque<Command>,
    pools: &Pools,
    log: &Sender<Record>,
    random: &mut Random,
) {
    for beat in 1..=random.below(5) {
        let command = match random.below(9) {
            8 => {
                let spread = Duration::from_millis(random.pick(&[0, 5, 300]));
                let tallies = pools.tallies.iter();
                let some = tallies.filter(|_| random.permille(300));
                Command::CloseDowned(some.map(|its| (Arc::clone(its), spread)).collect())
            }
            0..=3 => {
                let reasons = [CloseReason::Killed, CloseReason::BackendDown];
                let spread = random.pick(&[0, 5, 300]);
                Command::Close(
                    filter(pools, random),
                    random.pick(&reasons),
                    Duration::from_millis(spread),
                    bounded(1).0,
                )
            }
            4..=5 => {
                let mut filter = filter(pools, random);
                filter.limit = Some(random.pick(&[1, 1_000, 1_000]));
                Command::Sessions(filter, bounded(1).0)
            }
            6 => Command::Log(random.permille(700).then(|| log.clone().into())),
            _ => Command::Beat(beat),
        };
        insert(command, commands, random);
    }
    if random.permille(400) {
        // One notes what waits, and a later one closes what still does.
        for _ in 0..6 {
            let bytes = random.pick(&[1, 1 << 20]);
            insert(Command::FreeMemory(bytes), commands, random);
        }
    }
}

fn insert(command: Command, commands: &mut VecDeque<Command>, random: &mut Random) {
    let at = random.below(commands.len() as u64 + 1);
    commands.insert(usize::try_from(at).expect("few"), command);
}

fn filter(pools: &Pools, random: &mut Random) -> SessionFilter {
    let mut filter = SessionFilter::default();
    for _ in 0..random.pick(&[0, 1, 1, 1, 2]) {
        let any = random.below(pools.tallies.len() as u64);
        let any = usize::try_from(any).expect("few");
        match random.below(8) {
            0 => filter.listener = Some(format!("l{}", random.below(3))),
            1 => filter.pool = Some(random.pick(&["p", "p", "q"]).to_owned()),
            2..=5 => filter.backend = Some(pools.known[any % pools.known.len()].name.clone()),
            6 => filter.client = Some(client_ip(random.between(0, 3))),
            _ => {
                filter.id = Some(SessionId {
                    worker: 0,
                    number: random.between(1, 20),
                });
            }
        }
    }
    filter
}

/// Clients come from a few addresses.
pub(crate) fn client_ip(number: u64) -> IpAddr {
    let last = u8::try_from(1 + number % 3).expect("few");
    IpAddr::from([10, 0, 0, last])
}

impl FakeKernel {
    /// Before a snapshot is published its new listeners begin to listen, and their sockets are
    /// handed over.
    pub(crate) fn begin_listening(&mut self, publication: usize) {
        for number in self.world.in_force[publication].clone() {
            if self.world.in_force[publication - 1].contains(&number) {
                continue;
            }
            if self.random.permille(100) {
                self.trace.see("listening socket lost");
                self.world.lost.insert(number);
            } else {
                self.trace.see("listener added");
                self.listeners[number].closed = false;
                self.handed.push_back(number);
            }
        }
        let before = &self.world.in_force[publication - 1];
        let stays = |number: &usize| self.world.in_force[publication].contains(number);
        if !before.iter().all(stays) {
            self.trace.see("listener removed");
        }
    }

    /// The worker asks for the socket of a new listener.
    pub(crate) fn hand_over(&mut self, number: usize) -> Option<Socket> {
        let next = self.handed.front().copied();
        if self.world.lost.contains(&number) {
            assert!(next.is_none_or(|next| next > number), "{next:?} is skipped");
            return None;
        }
        assert_eq!(next, Some(number), "requested out of order");
        self.handed.pop_front();
        let fd = FIRST_LISTENER + i32::try_from(number).expect("few");
        Some(Socket::from_raw(fd))
    }

    /// A listening socket is closed: no client may be left in it, and the worker must know that the
    /// listener is gone.
    pub(crate) fn on_listener_closed(&mut self, number: usize) {
        let listening = &mut self.listeners[number];
        assert!(!listening.closed, "a listener is closed twice");
        assert!(listening.backlog.is_empty(), "clients are left behind");
        listening.closed = true;
        let stays = |publication: usize| self.world.in_force[publication].contains(&number);
        let gone = !self.world.known.clone().all(stays);
        assert!(
            gone || self.world.over_at.is_some(),
            "live listener {number} is closed"
        );
    }

    /// A listener that is gone must stop listening soon.
    pub(crate) fn look_for_leftovers(&mut self) {
        let present = &self.world.in_force[*self.world.known.start()];
        for (number, listening) in self.listeners.iter_mut().enumerate() {
            if listening.closed || present.contains(&number) {
                listening.gone_since = None;
                continue;
            }
            let since = *listening.gone_since.get_or_insert(self.now);
            assert!(self.now - since < GONE_MAX, "{number} still listens");
        }
    }

    /// Records an order before it is sent.
    pub(crate) fn note_order(&mut self, command: Command) -> Command {
        let at = self.now;
        match command {
            Command::Close(filter, reason, spread, reply) => {
                self.world.closes.push(Close {
                    filter: filter.clone(),
                    tally: None,
                    reason,
                    at,
                    by: at + nanos(spread),
                });
                Command::Close(filter, reason, spread, reply)
            }
            Command::Sessions(filter, _) => {
                let (reply, replies) = bounded(1);
                self.world.lists.push(List {
                    filter: filter.clone(),
                    at,
                    replies,
                });
                Command::Sessions(filter, reply)
            }
            Command::Beat(beat) => {
                self.world.beat = beat;
                command
            }
            Command::CloseDowned(ref backends) => {
                for (tally, _) in backends {
                    self.world.closes.push(Close {
                        filter: SessionFilter::default(),
                        tally: Some(Arc::clone(tally)),
                        reason: CloseReason::BackendDown,
                        at,
                        // A publication may end the order.
                        by: NEVER,
                    });
                }
                command
            }
            Command::Publish(_)
            | Command::TakeHistograms(_)
            | Command::Log(_)
            | Command::Decisions(..)
            | Command::Preview(..)
            | Command::FreeMemory(_)
            | Command::Stop(_) => command,
        }
    }

    /// A session has ended: it must not outlive an order to close it, and without an order it is
    /// not closed.
    pub(crate) fn check_closes(&self, record: &Record) {
        // Each attempt has failed, but for the last one.
        let failed = record.tries.as_ref().map_or(0, |tries| tries.failed());
        assert!(
            u32::from(record.summary.attempts) <= failed + 1,
            "{record:?}"
        );
        let reason = record.reason().expect("lines of ends alone");
        let ordered = match reason {
            CloseReason::Killed | CloseReason::BackendDown => true,
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
            | CloseReason::Banned
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
            | CloseReason::IdleTimeout
            | CloseReason::HalfClosedTimeout
            | CloseReason::SessionTimeout
            | CloseReason::NoResources
            | CloseReason::NoLocalPort
            | CloseReason::NoSourceAddress
            | CloseReason::NotTransparent
            | CloseReason::Stalled
            | CloseReason::Shutdown => false,
        };
        let meant = self.world.closes.iter().filter(|close| {
            let reason_fits = close.reason == reason && close.at <= record.at;
            reason_fits && means(close, record)
        });
        assert!(!ordered || meant.count() > 0, "{reason} without an order");
        self.check_bans(record);
        for close in &self.world.closes {
            let had = means(close, record) && was_so(close, record);
            assert!(
                !had || record.at < close.by.saturating_add(LATE_MAX),
                "{} outlives an order: {close:?}",
                record.number
            );
        }
    }

    /// A session of a banned client ends soon, and only such a one is closed as banned.
    fn check_bans(&self, record: &Record) {
        let client = record.client.expect("every client has an address").ip();
        let (opened_at, closed_at) = (record.summary.opened_at, record.at);
        let bans = self.world.banned.iter().filter(|(ip, ..)| *ip == client);
        let is_banned = bans.clone().any(|(_, at, _)| *at <= closed_at);
        let reason = record.reason().expect("lines of ends alone");
        assert!(
            reason != CloseReason::Banned || is_banned,
            "{client} is not banned"
        );
        // Before a header is complete nothing is asked about clients.
        let is_proxy = record.listener.proxies.is_some() && record.proxy.is_none();
        for (_, at, until) in bans {
            let is_late = opened_at < *at && closed_at >= (*at).saturating_add(LATE_MAX);
            let outlives = is_late && *until >= (*at).saturating_add(LATE_MAX);
            assert!(!outlives, "{} outlives its ban", record.number);
            let is_refused = (*at..*until).contains(&opened_at) && closed_at < *until;
            assert!(
                !is_refused || is_proxy || reason == CloseReason::Banned,
                "{reason} of a banned client"
            );
        }
    }

    /// Each list that came back holds all open sessions, and no other.
    pub(crate) fn check_lists(&mut self) {
        let lists = std::mem::take(&mut self.world.lists);
        for list in lists {
            let Ok(infos) = list.replies.try_recv() else {
                self.world.lists.push(list);
                continue;
            };
            self.trace.see("sessions listed");
            let limit = list.filter.limit.map_or(usize::MAX, |limit| limit as usize);
            assert!(infos.len() <= limit);
            let clients: Vec<i32> = infos.iter().map(|info| self.check_info(info)).collect();
            let all = limit == 1_000 && is_all(&list.filter);
            let long_open =
                |conn: &Conn| conn.is_open() && conn.partner.is_some() && conn.paired_at < list.at;
            for (fd, conn) in (FIRST_SOCKET..).zip(&self.conns) {
                let missed = conn.side == Side::Client && long_open(conn) && !clients.contains(&fd);
                assert!(!(all && missed), "{fd} is not in the list");
            }
        }
    }

    fn check_info(&self, info: &SessionInfo) -> i32 {
        let client = info.client.expect("every client has an address");
        let fd = i32::from(client.port());
        let conn = &self.conns[index(fd)];
        assert_eq!(conn.side, Side::Client);
        assert_eq!(info.listener.name, format!("l{}", conn.listener));
        assert!(info.view.opened_at <= self.now && info.view.opened_at <= info.view.active_at);
        assert!(info.view.delivered[0] <= conn.inbound.taken);
        assert!(info.view.delivered[1] <= conn.outbound.given);
        fd
    }
}

fn is_all(filter: &SessionFilter) -> bool {
    let named = [&filter.listener, &filter.pool, &filter.backend];
    named.iter().all(|name| name.is_none()) && filter.id.is_none() && filter.client.is_none()
}

/// Whether an order is about this session at its end.
fn means(close: &Close, record: &Record) -> bool {
    let filter = &close.filter;
    let client = record.client.expect("every client has an address").ip();
    let backend = record.backend.as_ref();
    let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|w| w == name);
    is(&filter.listener, &record.listener.name)
        && is(&filter.pool, &record.pool().name)
        && is(&filter.backend, backend.map_or("", |backend| &backend.name))
        && close
            .tally
            .as_ref()
            .is_none_or(|tally| backend.is_some_and(|backend| Arc::ptr_eq(&backend.tally, tally)))
        && filter.client.is_none_or(|wanted| wanted == client)
        && filter.id.is_none_or(|id| id.number == record.number)
}

/// Whether it was when the order came.
fn was_so(close: &Close, record: &Record) -> bool {
    let (summary, at) = (&record.summary, close.at);
    if close.filter.backend.is_none() && close.tally.is_none() {
        return summary.opened_at < at;
    }
    let connected = summary.connect.map(|after| summary.opened_at + after);
    connected.is_some_and(|connected| connected < at)
}

/// A listener that is gone is closed within this time: its accept ends late.
const GONE_MAX: u64 = 500 * MS;
/// An ordered close happens within this time: lags, and operations in flight that have to end.
const LATE_MAX: u64 = 200 * MS;
