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
use mahoraga::tls::{Terminate, Terminator};
use mahoraga::worker::{Inbox, Record, Setup, Stats, Worker};

use crate::cipher::{Cipher, CipherClient};
use crate::kernel::{ByteKernel, Conn, Peer};
use crate::peers::{Backend, Client, ClientTls, End};
use crate::real;

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cipher,
    Tls12,
    Tls13,
}

/// How a session ended.
pub(crate) struct Outcome {
    pub(crate) reason: CloseReason,
    pub(crate) delivered: [u64; 2],
}

/// Runs some clients to their ends.
pub(crate) fn seed(kind: Kind, seed: u64) -> Vec<Outcome> {
    let mut random = Rng::with_seed(seed);
    let config = (kind != Kind::Cipher).then(|| real::clients(kind == Kind::Tls13));
    let clients = (0..CLIENTS).map(|_| {
        let tls: Box<dyn ClientTls> = match &config {
            None => Box::<CipherClient>::default(),
            Some(config) => Box::new(real::RealClient::new(config)),
        };
        Client::new(tls, &mut random)
    });
    let clients: Vec<_> = clients.collect();
    let begins: Arc<dyn Terminate> = match kind {
        Kind::Cipher => Arc::new(Cipher),
        Kind::Tls12 | Kind::Tls13 => Arc::new(real::server()),
    };
    let (log, records) = bounded(64);
    let setup = Setup {
        seat: Seat {
            worker: 0,
            of: 1,
            pool: 0,
            seed: 0,
        },
        snapshot: snapshot(begins),
        sockets: vec![Socket::from_raw(-1)],
        capacity: 10_000,
        backlog: 0,
        mailbox: never(),
        inboxes: [Inbox::default()].into(),
        log: Some(log.into()),
        idle_cuts: Arc::default(),
        stats: Arc::new(Stats::default()),
    };
    let mut worker = Worker::new(ByteKernel::new(random, clients), setup);
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
    let (from, to) = (
        client_of(client),
        backend.map(|conn| (conn, backend_of(conn))),
    );
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
        assert_eq!([from.sent, its.sent], [its.got, from.got], "{about}");
        assert_eq!(delivered, [from.sent, its.sent], "{about}");
        assert_eq!(client.heard, Some(Manner::Graceful), "{about}");
        assert!(client.was_told, "an end without a word: {about}");
        return Outcome { reason, delivered };
    }
    let by_client = [
        (CloseReason::TlsTruncated, End::Cut),
        (CloseReason::TlsFailed, End::Garbage),
        (CloseReason::ClientReset, End::Reset),
    ];
    let by_client = by_client.contains(&(reason, from.end));
    let by_backend = reason == CloseReason::BackendReset && ends[1] == Some(End::Reset);
    assert!(by_client || by_backend, "{about}");
    assert!(!client.was_told || from.tls.was_closed(), "{about}");
    if let Some((conn, its)) = to {
        // What was cut never looks like an end, unless that had come before.
        let was_cut = its.end != End::Reset && its.got < from.sent;
        assert!(!was_cut || conn.heard == Some(Manner::Reset), "{about}");
        // What was under way at a cut is not counted.
        assert!(
            delivered[0] <= from.sent && delivered[1] <= its.sent,
            "{about}"
        );
    }
    Outcome { reason, delivered }
}

fn client_of(conn: &Conn) -> &Client {
    match &conn.peer {
        Peer::Client(client) => client,
        Peer::Backend(_) => panic!("a session begins with a client"),
    }
}

fn backend_of(conn: &Conn) -> &Backend {
    match &conn.peer {
        Peer::Backend(backend) => backend,
        Peer::Client(_) => panic!("a session goes to a backend"),
    }
}

fn snapshot(begins: Arc<dyn Terminate>) -> Arc<Snapshot> {
    let address = "127.0.0.1:9000".parse().expect("an address");
    let pool = Pool::new(&config::Pool {
        strategy: Strategy::RoundRobin,
        persist: None,
        ..config::Pool::of("p", vec![config::Backend::at(address)])
    });
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
        limits: LIMITS,
        bandwidth: Arc::default(),
        postgres: Postgres::default(),
        tls: Some(Arc::new(Terminator {
            begins,
            counts: Arc::default(),
        })),
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
    handshake: Some(100 * SECOND),
};
