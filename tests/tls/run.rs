//! Runs a seed, and checks what the peers and the access log say.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam::channel::{bounded, never};
use fastrand::Rng;
use mahoraga::config::{self, Strategy};
use mahoraga::guard::{Action, Admission, Bans, Gate, Limit, Pit, Rules, Sources};
use mahoraga::kernel::{Manner, Socket};
use mahoraga::pool::Pool;
use mahoraga::route::Routes;
use mahoraga::select::{Plan, Seat};
use mahoraga::session::{CloseReason, SessionLimits};
use mahoraga::snapshot::{LiveListener, Postgres, Snapshot};
use mahoraga::time::{NEVER, SECOND};
use mahoraga::tls::{
    AskingRecords, Originate, Originator, Records, ServerAt, Terminate, Terminator, TlsFailure,
};
use mahoraga::worker::{Inbox, Record, Setup, Stats, Worker};

use crate::cipher::{Cipher, CipherPeer};
use crate::kernel::ByteKernel;
use crate::peers::{Asked, Asking, End, PeerTls, Talker};
use crate::real::{self, RealPeer};

/// What peers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Cipher,
    Tls12,
    Tls13,
}

/// Which peers speak it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    speaks: Speaks,
    clients: bool,
    backends: bool,
    /// It is asked for first, as by PostgreSQL.
    asks: bool,
}

impl Kind {
    fn of_seed(speaks: Speaks, seed: u64) -> Self {
        Self {
            speaks,
            clients: !seed.is_multiple_of(3),
            backends: seed % 3 != 1,
            asks: seed.is_multiple_of(5),
        }
    }

    fn clients(self) -> impl Fn() -> Option<Box<dyn PeerTls>> {
        let config =
            (self.speaks != Speaks::Cipher).then(|| real::clients(self.speaks == Speaks::Tls13));
        move || {
            let tls: Box<dyn PeerTls> = match &config {
                None => Box::<CipherPeer>::default(),
                Some(config) => Box::new(RealPeer::client(config)),
            };
            let tls = match self.asks {
                true => Box::new(Asking::new(tls)),
                false => tls,
            };
            self.clients.then_some(tls)
        }
    }

    pub(crate) fn backend(self) -> Option<Box<dyn PeerTls>> {
        let tls: Box<dyn PeerTls> = match self.speaks {
            Speaks::Cipher => Box::new(CipherPeer::server()),
            Speaks::Tls12 | Speaks::Tls13 => {
                Box::new(RealPeer::server(self.speaks == Speaks::Tls13))
            }
        };
        let tls = match self.asks {
            true => Box::new(Asked::new(tls)),
            false => tls,
        };
        self.backends.then_some(tls)
    }

    fn terminator(self) -> Option<Arc<Terminator>> {
        let begins: Arc<dyn Terminate> = match self.speaks {
            Speaks::Cipher => Arc::new(Cipher),
            Speaks::Tls12 | Speaks::Tls13 => Arc::new(real::server()),
        };
        let counts = Arc::default();
        self.clients
            .then(|| Arc::new(Terminator { begins, counts }))
    }

    fn originator(self) -> Option<Arc<Originator>> {
        let begins: Arc<dyn Originate> = match self.speaks {
            Speaks::Cipher => Arc::new(Cipher),
            Speaks::Tls12 | Speaks::Tls13 => Arc::new(real::backends()),
        };
        let begins = match self.asks {
            true => Arc::new(AsksFirst(begins)),
            false => begins,
        };
        let (counts, refused) = (Arc::default(), Arc::default());
        self.backends.then(|| {
            Arc::new(Originator {
                begins,
                counts,
                refused,
            })
        })
    }
}

/// Asks backends for it first.
#[derive(Debug)]
struct AsksFirst(Arc<dyn Originate>);

impl Originate for AsksFirst {
    fn begin(&self, server: ServerAt<'_>) -> Result<Box<dyn Records>, TlsFailure> {
        Ok(Box::new(AskingRecords::new(self.0.begin(server)?)))
    }
}

/// How a session ended.
pub(crate) struct Outcome {
    pub(crate) reason: CloseReason,
    pub(crate) delivered: [u64; 2],
}

/// Runs some clients to their ends.
pub(crate) fn seed(speaks: Speaks, seed: u64) -> Vec<Outcome> {
    let mut random = Rng::with_seed(seed);
    let kind = Kind::of_seed(speaks, seed);
    let tls = kind.clients();
    let clients = (0..CLIENTS).map(|_| Talker::new(true, tls(), &mut random));
    let clients: Vec<_> = clients.collect();
    let (log, records) = bounded(64);
    let setup = Setup {
        seat: Seat {
            worker: 0,
            of: 1,
            pool: 0,
            seed: 0,
        },
        snapshot: snapshot(kind),
        sockets: vec![Socket::from_raw(-1)],
        capacity: 10_000,
        backlog: 0,
        mailbox: never(),
        inboxes: [Inbox::default()].into(),
        log: Some(log.into()),
        idle_cuts: Arc::default(),
        stats: Arc::new(Stats::default()),
    };
    let mut worker = Worker::new(ByteKernel::new(kind, random, clients), setup);
    let mut ended: Vec<Record> = Vec::new();
    for _ in 0..TURNS_MAX {
        worker.turn();
        ended.extend(records.try_iter());
        if ended.len() == CLIENTS {
            break;
        }
    }
    assert_eq!(
        ended.len(),
        CLIENTS,
        "seed {seed} ({kind:?}): sessions that never end"
    );
    // Peers take what is left for them.
    (0..200).for_each(|_| worker.turn());
    let kernel = worker.kernel_mut();
    assert_eq!(
        mahoraga::kernel::Kernel::buffers_in_use(kernel),
        0,
        "buffers are lost"
    );
    let outcomes = ended
        .iter()
        .map(|record| check(kernel, record, (kind, seed)));
    outcomes.collect()
}

/// What the log says of a session must be what its peers saw.
fn check(kernel: &ByteKernel, record: &Record, about: (Kind, u64)) -> Outcome {
    let client = usize::from(record.client.expect("an address").port() - 1_000);
    let mut pairs = kernel.pairs.values();
    let pair = pairs.find(|pair| pair[0] == Some(client));
    let backend = pair.and_then(|pair| pair[1]);
    let (client, backend) = (&kernel.conns[client], backend.map(|fd| &kernel.conns[fd]));
    let reason = record.reason().expect("lines of ends alone");
    let delivered = record.summary.delivered;
    let (from, to) = (&client.peer, backend.map(|conn| (conn, &conn.peer)));
    let about = format!(
        "seed {} ({:?}): {reason}, {delivered:?} delivered, \
         client {:?} sent {} got {}, backend {:?}",
        about.1,
        about.0,
        from.end,
        from.sent,
        from.got,
        to.as_ref()
            .map(|(conn, its)| (its.end, its.sent, its.got, conn.heard, conn.closed))
    );
    let ends = [Some(from.end), to.as_ref().map(|(_, its)| its.end)];
    if reason.is_orderly() {
        let (_, its, ..) = to.expect("it had a backend");
        assert_eq!(delivered, [from.sent, its.sent], "{about}");
        let was_cut = ends.contains(&Some(End::Cut));
        // One that is cut may not read to the end, but all that it sent arrives.
        let reads = |end: End| end != End::Cut;
        assert!(!reads(its.end) || its.got == from.sent, "{about}");
        assert!(!reads(from.end) || from.got == its.sent, "{about}");
        for conn in [Some(client), backend].into_iter().flatten() {
            // One that is cut was told the other's end first, and that other hears of the cut.
            // Its reset may have come before the word.
            let hears_all =
                !was_cut || conn.peer.end == End::Cut && conn.heard != Some(Manner::Reset);
            let is_told = conn.was_told || conn.peer.tls.is_none();
            assert!(!hears_all || is_told, "an end without a word: {about}");
            let resets = conn.closed == Some(Manner::Reset);
            assert_eq!(resets, was_cut, "{about}");
        }
        return Outcome { reason, delivered };
    }
    let by_client = [
        (CloseReason::TlsTruncated, End::Cut),
        (CloseReason::TlsFailed, End::Garbage),
        (CloseReason::ClientReset, End::Reset),
    ];
    let by_client = by_client.contains(&(reason, from.end));
    let by_backend = [
        (CloseReason::BackendTlsTruncated, End::Cut),
        (CloseReason::BackendTlsFailed, End::Garbage),
        (CloseReason::BackendReset, End::Reset),
        (CloseReason::ConnectFailed, End::Reset),
        // It came together with the end of the handshake.
        (CloseReason::ConnectFailed, End::Garbage),
    ];
    let by_backend = ends[1].is_some_and(|end| by_backend.contains(&(reason, end)));
    assert!(by_client || by_backend, "{about}");
    if let Some((conn, its)) = to {
        // What was cut never looks like an end, unless that had come before.
        let cut = [(conn, its, from), (client, from, its)];
        for (conn, its, other) in cut {
            // What answers garbage may be any alert.
            let hears = !matches!(its.end, End::Reset | End::Garbage);
            let was_cut = hears && its.got < other.sent;
            let looks_ended = match &its.tls {
                Some(_) => conn.was_told,
                None => conn.heard != Some(Manner::Reset),
            };
            assert!(!was_cut || !looks_ended, "{about}");
        }
        // What was under way at a cut is not counted.
        assert!(
            delivered[0] <= from.sent && delivered[1] <= its.sent,
            "{about}"
        );
    }
    Outcome { reason, delivered }
}

fn snapshot(kind: Kind) -> Arc<Snapshot> {
    let address = "127.0.0.1:9000".parse().expect("an address");
    let mut pool = Pool::new(&config::Pool {
        strategy: Strategy::RoundRobin,
        persist: None,
        ..config::Pool::of("p", vec![config::Backend::at(address)])
    });
    pool.tls = kind.originator();
    let sources = Sources::new(0);
    let listener = LiveListener {
        id: 0,
        name: "l".into(),
        bind: "127.0.0.1:443".parse().expect("an address"),
        plan: Arc::new(Plan::new(Arc::new(pool))),
        routes: Routes::default(),
        connections: Arc::new(Limit::unbounded()),
        traffic: Arc::default(),
        file_gone_at: Arc::default(),
        proxies: None,
        rules: Rules::default(),
        ban: None,
        gate: Arc::new(Gate::new(&sources)),
        limits: SessionLimits {
            handshake: kind.clients.then_some(100 * SECOND),
            ..LIMITS
        },
        bandwidth: Arc::default(),
        postgres: Postgres {
            ends_tls: kind.clients && kind.asks,
            ..Postgres::default()
        },
        tls: kind.terminator(),
    };
    Arc::new(Snapshot {
        version: 1,
        pools: vec![Arc::clone(&listener.plan)],
        listeners: vec![Arc::new(listener)],
        connections: Arc::new(Limit::unbounded()),
        access: HashMap::new(),
        sources: Arc::new(sources),
        bans: Arc::new(Bans::new(10)),
        ban_action: Action::Reset,
        trusted: Arc::default(),
        pit: Pit {
            slots: Arc::new(Limit::unbounded()),
            time: 0,
        },
        admission: Admission::default(),
        listeners_made: 1,
        bandwidth: Arc::default(),
        has_bandwidth_limits: false,
    })
}

/// Clients of a seed.
const CLIENTS: usize = 5;
/// More than any seed takes.
const TURNS_MAX: usize = 8_000;
/// No session is to reach a deadline.
const LIMITS: SessionLimits = SessionLimits {
    connect: 100 * SECOND,
    idle: 100 * SECOND,
    half_closed: 100 * SECOND,
    session: NEVER,
    attempts: 1,
    peek: None,
    server_first: NEVER,
    ends_half_sent: false,
    ends_together: false,
    watches_work: true,
    overhears: false,
    handshake: None,
};
