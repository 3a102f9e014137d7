//! Written cases that chance hardly reaches: a close that is spread over a time finds a session
//! that its order no longer means; a place is free that a session of an old snapshot does not see.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use mahoraga::address::Address;
use mahoraga::config::{self, Key, OnDown, Strategy};
use mahoraga::guard::{Action, Admission, Bans, Gate, Limit, Pit, Rules, Shed, Sources};
use mahoraga::peek::Field;
use mahoraga::pool::{Pool, SlowStart, Standing};
use mahoraga::route::Routes;
use mahoraga::select::{Plan, Seat};
use mahoraga::session::{CloseReason, SessionLimits};
use mahoraga::snapshot::{LiveListener, Postgres, Proxies, Snapshot};
use mahoraga::time::{MS, NEVER};
use mahoraga::worker::{Command, Inbox, Record, SessionFilter, SessionId, Setup};

use crate::headers::proxies;
use crate::kernel::{FIRST_PORT, FakeKernel, START};
use crate::neighbour::Neighbour;
use crate::pools::Pools;
use crate::random::Random;
use crate::rates::Rates;
use crate::scenario::{Scenario, socket};
use crate::trace::Trace;
use crate::world::{Event, Temper, World};

/// A written run, except for the weather.
pub(crate) struct Moment {
    pub(crate) tempers: Vec<Temper>,
    /// By publication; the backends stay the same.
    pub(crate) snapshots: Vec<Arc<Snapshot>>,
    /// The control thread's commands, and their times.
    pub(crate) commands: Vec<(u64, Command)>,
    /// When clients come.
    pub(crate) clients: Vec<u64>,
    /// No local port is free from the start until this time.
    pub(crate) drought: u64,
    /// Each client sends a byte of a request after such a time, for ever; 0: by chance.
    pub(crate) drip: u64,
    /// Clients ask for TLS first.
    pub(crate) asks: bool,
    /// Clients ask to cancel what a session at the backend of this port does.
    pub(crate) cancels: Option<u16>,
}

impl Moment {
    pub(crate) fn run(self, seed: u64) -> Trace {
        let snapshot = Arc::clone(&self.snapshots[0]);
        let pool = |of: &Arc<Snapshot>| Arc::clone(of.listeners[0].plan.pool());
        let pools: Vec<_> = self.snapshots.iter().map(pool).collect();
        let (mailbox, mails) = unbounded();
        let (times, commands): (Vec<_>, VecDeque<_>) = self.commands.into_iter().unzip();
        let world = World {
            mailbox,
            commands,
            drip: self.drip,
            proxied: snapshot.listeners[0].proxies.iter().map(|_| 0).collect(),
            asks: self.asks,
            cancels: self.cancels,
            backends: self.tempers,
            descriptors: 1_000,
            introduces: false,
            famine: false,
            drought: false,
            sourceless: false,
            full_backlogs: BTreeMap::new(),
            in_all: Arc::clone(&snapshot.connections),
            per_listener: vec![Arc::clone(&snapshot.listeners[0].connections)],
            sources: Arc::clone(&snapshot.sources),
            gates: Vec::new(),
            bans: Arc::clone(&snapshot.bans),
            banned: Vec::new(),
            bandwidth: Vec::new(),
            rates: Rates::default(),
            others: 0,
            neighbour: Neighbour::new(1),
            control_woken: Cell::new(false),
            limits: vec![snapshot.listeners[0].limits],
            routes: pools.iter().map(|pool| vec![Arc::clone(pool)]).collect(),
            known: 0..=0,
            in_force: vec![vec![0]; pools.len()],
            lost: BTreeSet::new(),
            closes: Vec::new(),
            lists: Vec::new(),
            beat: 0,
            over_at: None,
        };
        let inboxes = Arc::clone(&world.neighbour.inboxes);
        let mut kernel = FakeKernel::new(Random::new(seed), Trace::default(), world);
        for at in self.clients {
            kernel.after(at, Event::Arrive(0));
        }
        if self.drought > 0 {
            kernel.world.drought = true;
            kernel.after(self.drought, Event::Drought(false));
        }
        for at in times {
            kernel.after(at, Event::Command);
        }
        let (log, records) = bounded(100);
        let setup = setup(snapshot, (mails, inboxes), log);
        let backends = pools[0].backends.iter();
        let pools = Pools {
            tallies: backends.map(|one| Arc::clone(&one.tally)).collect(),
            present: pools.last().cloned().into_iter().collect(),
            ..Pools::default()
        };
        Scenario::of(kernel, setup, records, pools).run()
    }
}

/// What the one worker begins with.
fn setup(
    snapshot: Arc<Snapshot>,
    (mailbox, inboxes): (Receiver<Command>, Arc<[Inbox]>),
    log: Sender<Record>,
) -> Setup {
    Setup {
        seat: Seat {
            worker: 0,
            of: 1,
            pool: 0,
            seed: 0,
        },
        sockets: vec![socket(0)],
        snapshot,
        capacity: 100,
        backlog: 0,
        mailbox,
        inboxes,
        log: Some(log.into()),
        idle_cuts: Arc::default(),
        stats: Arc::default(),
    }
}

/// Successive snapshots of the one listener.
fn snapshots(pools: Vec<Pool>) -> Vec<Arc<Snapshot>> {
    snapshots_with((LIMITS, Admission::default()), pools)
}

pub(crate) fn snapshots_with(
    (session, admission): (SessionLimits, Admission),
    pools: Vec<Pool>,
) -> Vec<Arc<Snapshot>> {
    let limits = [(); 3].map(|()| Arc::new(Limit::unbounded()));
    let sources = Arc::new(Sources::new(1 << 20));
    let gate = Arc::new(Gate::new(&sources));
    let snapshot = |(version, pool)| {
        let listener = LiveListener {
            id: 0,
            name: "l0".into(),
            bind: "127.0.0.1:80".parse().expect("an address"),
            plan: Arc::new(Plan::new(Arc::new(pool))),
            routes: Routes::default(),
            connections: Arc::clone(&limits[0]),
            traffic: Arc::default(),
            file_gone_at: Arc::default(),
            proxies: None,
            rules: Rules::default(),
            ban: None,
            gate: Arc::clone(&gate),
            limits: session,
            bandwidth: Arc::default(),
            postgres: Postgres::default(),
            tls: None,
        };
        Arc::new(Snapshot {
            version,
            pools: vec![Arc::clone(&listener.plan)],
            listeners: vec![Arc::new(listener)],
            connections: Arc::clone(&limits[1]),
            access: HashMap::new(),
            sources: Arc::clone(&sources),
            bans: Arc::new(Bans::new(10)),
            ban_action: Action::Reset,
            trusted: Arc::default(),
            pit: Pit {
                slots: Arc::clone(&limits[2]),
                time: 0,
            },
            admission,
            listeners_made: 1,
            bandwidth: Arc::default(),
            has_bandwidth_limits: false,
        })
    };
    (1..).zip(pools).map(snapshot).collect()
}

pub(crate) fn backend(port: u16) -> config::Backend {
    config::Backend::at(Address::Tcp(([127, 0, 0, 1], port).into()))
}

fn close(filter: SessionFilter, reason: CloseReason, spread: u64) -> Command {
    Command::Close(filter, reason, Duration::from_millis(spread), bounded(1).0)
}

/// Clients wait for a backend that does not answer. It is reported down, and its sessions are to be
/// closed within two seconds. Meanwhile they give it up and go to another one.
fn gives_up(seed: u64) -> Trace {
    let pool = Pool::new(&config::Pool {
        strategy: Strategy::First,
        ..config::Pool::of("p", vec![backend(FIRST_PORT), backend(FIRST_PORT + 1)])
    });
    let silent = SessionFilter {
        backend: Some(pool.backends[0].name.clone()),
        ..SessionFilter::default()
    };
    let down = close(silent, CloseReason::BackendDown, 2_000);
    let moment = Moment {
        tempers: vec![Temper::Silent, Temper::Good],
        snapshots: snapshots(vec![pool]),
        commands: vec![(15 * MS, down), (3_000 * MS, STOP)],
        clients: (0..8).map(|client| client * MS).collect(),
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

/// Clients wait for a backend that does not answer. It is reported down several times, and its
/// sessions are to be closed within 40 ms; soon after the first of these orders it is up again.
fn returns(seed: u64, orders: u64) -> Trace {
    let config = config::Pool {
        strategy: Strategy::First,
        on_down: OnDown::Close(Duration::from_millis(40)),
        ..config::Pool::of("p", vec![backend(FIRST_PORT), backend(FIRST_PORT + 1)])
    };
    let pool = Pool::new(&config);
    let tally = &pool.backends[0].tally;
    let order = |at| {
        let downed = vec![(Arc::clone(tally), Duration::from_millis(40))];
        (at * MS, Command::CloseDowned(downed))
    };
    let mut commands: Vec<_> = (15..15 + orders).map(order).collect();
    let back = Pool::build(&config, Some(&pool), |_| Standing::default());
    let snapshots = snapshots(vec![pool, back]);
    commands.push((22 * MS, Command::Publish(Arc::clone(&snapshots[1]))));
    commands.push((3_000 * MS, STOP));
    let moment = Moment {
        tempers: vec![Temper::Silent, Temper::Good],
        snapshots,
        commands,
        clients: (0..8).map(|client| client * MS).collect(),
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

/// A backend has one place in slow start, and two after the publication that ends it: the third
/// client waits until the first one, which began before, is closed.
fn outlives_a_slow_start(seed: u64) -> Trace {
    let config = config::Pool {
        queue: config::QueueLimits {
            max: 10,
            timeout: Duration::from_secs(5),
        },
        ..config::Pool::of(
            "p",
            vec![config::Backend {
                max_connections: NonZeroU32::new(2),
                ..backend(FIRST_PORT)
            }],
        )
    };
    let slow_start = SlowStart {
        since: START,
        over: 1_000_000 * MS,
    };
    let rising = Pool::build(&config, None, |_| Standing {
        slow_start: Some(slow_start),
        ..Standing::default()
    });
    rising.take_effect(None);
    let risen = Pool::build(&config, Some(&rising), |_| Standing::default());
    let snapshots = snapshots(vec![rising, risen]);
    let first = SessionFilter {
        id: Some(SessionId {
            worker: 0,
            number: 1,
        }),
        ..SessionFilter::default()
    };
    let moment = Moment {
        tempers: vec![Temper::Good],
        commands: vec![
            (10 * MS, Command::Publish(Arc::clone(&snapshots[1]))),
            (30 * MS, close(first, CloseReason::Killed, 0)),
            (3_000 * MS, STOP),
        ],
        snapshots,
        clients: vec![MS, 15 * MS, 20 * MS],
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

/// Clients wait for a backend that does not answer. Their sessions are to be closed over two
/// seconds by orders that differ in their limits, which closing ignores. Whether the worker takes
/// each of them on.
fn orders_to_close(seed: u64, limits: impl Iterator<Item = u32>) -> Vec<bool> {
    let order = |limit| {
        let (reply, answer) = bounded(1);
        let filter = SessionFilter {
            limit: Some(limit),
            ..SessionFilter::default()
        };
        let spread = Duration::from_secs(2);
        let close = Command::Close(filter, CloseReason::Killed, spread, reply);
        ((45 * MS, close), answer)
    };
    let (mut commands, answers): (Vec<_>, Vec<_>) = limits.map(order).unzip();
    commands.push((3_000 * MS, STOP));
    let backends = vec![backend(FIRST_PORT)];
    let moment = Moment {
        tempers: vec![Temper::Silent],
        snapshots: snapshots(vec![Pool::new(&config::Pool::of("p", backends))]),
        commands,
        // Each order closes one at once.
        clients: vec![MS; 98],
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed);
    let answers = answers.iter().map(|answer| answer.try_recv());
    let answers = answers.map(|count| count.expect("an answer").is_some());
    answers.collect()
}

/// Clients come while no local port is free, and wait until one is, or until their timeout.
fn waits_for_ports(seed: u64, drought: u64) -> Trace {
    let backends = vec![backend(FIRST_PORT), backend(FIRST_PORT + 1)];
    let moment = Moment {
        tempers: vec![Temper::Good; 2],
        snapshots: snapshots(vec![Pool::new(&config::Pool::of("p", backends))]),
        commands: vec![(3_000 * MS, STOP)],
        clients: (0..20).map(|client| client * MS).collect(),
        drought,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

/// Clients drip their first bytes for ever. Fifty of them are more than there are buffers for some
/// seeds.
fn drips(seed: u64, ends_half_sent: bool) -> Trace {
    let hash = config::Hash {
        key: Key::Peeked(Field::HttpPath),
        max_load: None,
    };
    let pool = Pool::new(&config::Pool {
        strategy: Strategy::Hash(hash),
        ..config::Pool::of("p", vec![backend(FIRST_PORT)])
    });
    let limits = SessionLimits {
        peek: Some(100 * MS),
        ends_half_sent,
        ..LIMITS
    };
    let moment = Moment {
        tempers: vec![Temper::Good],
        snapshots: snapshots_with((limits, Admission::default()), vec![pool]),
        commands: vec![(1_000 * MS, STOP)],
        clients: vec![MS; 50],
        drought: 0,
        drip: 5 * MS,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

/// The oracle checks that no session ends before its deadline.
#[test]
fn clients_that_drip_their_first_bytes_are_gone_at_the_deadline() {
    for seed in 0..20 {
        let seen = drips(seed, true).seen;
        let of = |reason| seen.get(reason).copied().unwrap_or(0);
        // Some abort.
        let gone = of("first_bytes_timeout") + of("client_reset");
        assert_eq!(gone, 50, "seed {seed}: {seen:#?}");
        assert!(of("first_bytes_timeout") >= 25, "seed {seed}: {seen:#?}");
        let passed = drips(seed, false).seen;
        assert!(!passed.contains_key("first_bytes_timeout"), "seed {seed}");
        assert!(passed.contains_key("shutdown"), "seed {seed}: {passed:#?}");
    }
}

/// Clients come by proxies, more at once than headers may be unfinished.
fn comes_by_proxies(seed: u64, unfinished_max: u32) -> (Trace, Proxies) {
    let pool = Pool::new(&config::Pool::of("p", vec![backend(FIRST_PORT)]));
    let proxies = proxies(unfinished_max, 100 * MS);
    let mut snapshots = snapshots(vec![pool]);
    let snapshot = Arc::get_mut(&mut snapshots[0]).expect("it is new");
    let listener = Arc::get_mut(&mut snapshot.listeners[0]).expect("it is new");
    listener.proxies = Some(proxies.clone());
    let moment = Moment {
        tempers: vec![Temper::Good],
        snapshots,
        commands: vec![(1_000 * MS, STOP)],
        clients: (0..60).map(|client| client * MS / 4).collect(),
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    (moment.run(seed), proxies)
}

/// The fake kernel checks that exactly the header is taken, and before all else.
#[test]
fn headers_of_proxies_are_whole_or_refused() {
    let mut seen: BTreeMap<_, u64> = BTreeMap::new();
    for seed in 0..20 {
        for unfinished_max in [3, 1_000] {
            let (trace, proxies) = comes_by_proxies(seed, unfinished_max);
            assert_eq!(proxies.stage.unfinished(), 0, "seed {seed}");
            for (what, times) in trace.seen {
                *seen.entry(what).or_default() += times;
            }
        }
    }
    for (what, least) in [
        ("a client that a proxy has named", 500),
        ("a header in pieces", 500),
        ("proxy_untrusted", 300),
        ("proxy_header", 50),
        ("proxy_header_timeout", 50),
        ("proxy_headers_full", 50),
        ("client_closed", 50),
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        assert!(times >= least, "{what}: {times} of {seen:#?}");
    }
}

/// Clients ask for TLS, and so are backends, which answer so or so.
fn asks(seed: u64, ends_half_sent: bool) -> Trace {
    let backends = (0..3).map(|place| backend(FIRST_PORT + place));
    let pool = Pool::new(&config::Pool::of("p", backends.collect()));
    let limits = SessionLimits {
        peek: Some(100 * MS),
        ends_half_sent,
        ..LIMITS
    };
    let snapshots = snapshots_with((limits, Admission::default()), vec![pool]);
    let answering = snapshots.iter().map(|snapshot| {
        let listener = LiveListener {
            postgres: Postgres {
                answers_tls: true,
                ..Postgres::default()
            },
            ..LiveListener::clone(&snapshot.listeners[0])
        };
        Arc::new(Snapshot {
            listeners: vec![Arc::new(listener)],
            ..Snapshot::clone(snapshot)
        })
    });
    let moment = Moment {
        tempers: vec![Temper::Good, Temper::Moody, Temper::Silent],
        snapshots: answering.collect(),
        commands: vec![(2_000 * MS, STOP)],
        clients: (0..20).map(|client| client * MS).collect(),
        drought: 0,
        drip: 0,
        asks: true,
        cancels: None,
    };
    moment.run(seed)
}

/// The oracle checks that both sides get what the other has sent, without the requests.
#[test]
fn sessions_begin_once_client_and_backend_agree_on_tls() {
    let mut seen = BTreeMap::new();
    for seed in 0..16 {
        for (what, count) in asks(seed, seed % 2 == 0).seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for what in [
        "client_closed",
        "tls_refused",
        "first_bytes_timeout",
        "client_reset",
        "an alert",
        "a backend without TLS",
        "a backend that says too much",
        "a backend that closes when it is asked",
        "a backend that says nothing",
        "first bytes in several pieces",
        "first bytes looked at where they wait",
        "retry with bytes of the client",
        "retry on another backend",
        "spurious wake-up",
    ] {
        assert!(seen.contains_key(what), "{what}: {seen:#?}");
    }
}

/// Ninety clients come at once, of which the worker begins one in a turn.
fn comes_at_once(seed: u64, shed: Option<Shed>) -> Trace {
    let pool = Pool::new(&config::Pool::of("p", vec![backend(FIRST_PORT)]));
    let admission = Admission { per_turn: 1, shed };
    let moment = Moment {
        tempers: vec![Temper::Good],
        snapshots: snapshots_with((LIMITS, admission), vec![pool]),
        commands: vec![(3_000 * MS, STOP)],
        clients: vec![MS; 90],
        drought: 0,
        drip: 0,
        asks: false,
        cancels: None,
    };
    moment.run(seed)
}

#[test]
fn clients_that_wait_too_long_for_too_long_are_refused_and_others_served() {
    let shed = Shed {
        wait: 0,
        after: 0,
        memory: None,
        dry_run: false,
    };
    let refused = |seed, shed| {
        let seen = comes_at_once(seed, shed).seen;
        seen.get("overloaded").copied().unwrap_or(0)
    };
    let mut in_all = 0;
    for seed in 0..10 {
        let count = refused(seed, Some(shed));
        // As many may be refused in a turn as are taken in.
        assert!(count <= 60, "seed {seed}: {count}");
        in_all += count;
        assert_eq!(refused(seed, None), 0, "seed {seed}");
        let dry_run = Shed {
            dry_run: true,
            ..shed
        };
        assert_eq!(refused(seed, Some(dry_run)), 0, "seed {seed}");
        // A burst that is over soon is served, however long it is.
        let patient = Shed {
            after: 2_000 * MS,
            ..shed
        };
        assert_eq!(refused(seed, Some(patient)), 0, "seed {seed}");
    }
    assert!(in_all >= 10, "{in_all}");
}

#[test]
fn a_lack_of_ports_ejects_no_backend_and_clients_wait() {
    for seed in 0..20 {
        for drought in [20, 1_000] {
            let seen = waits_for_ports(seed, drought * MS).seen;
            assert!(!seen.contains_key("ejection"), "seed {seed}");
            // How long a client waits for a connect: 50 ms.
            let given_up = seen.get("no_local_port").copied().unwrap_or(0);
            assert_eq!(given_up > 0, drought > 20, "seed {seed}: {given_up}");
        }
    }
}

/// The oracle checks at a session's end which order meant it.
#[test]
fn a_session_that_moved_to_another_backend_is_not_closed() {
    let mut closed = 0;
    for seed in 0..20 {
        closed += gives_up(seed)
            .seen
            .get("backend_down")
            .copied()
            .unwrap_or(0);
    }
    // At least the first of each order.
    assert!(closed >= 15, "{closed}");
}

/// Of eight sessions those are closed whose moments come before the backend returns, however often
/// the order was given.
#[test]
fn a_backend_that_is_up_again_keeps_the_sessions_that_are_left() {
    for orders in [1, 6] {
        let mut closed = 0;
        for seed in 0..20 {
            let seen = returns(seed, orders).seen;
            closed += seen.get("backend_down").copied().unwrap_or(0);
        }
        assert!(
            (15..=70).contains(&closed),
            "{closed} after {orders} orders"
        );
    }
}

#[test]
fn a_worker_refuses_orders_to_close_while_it_carries_out_64() {
    let mut refusals = 0;
    for seed in 0..10 {
        // The first once more is no other one.
        let taken = orders_to_close(seed, (1..=65).chain([1]));
        let places = taken.iter().enumerate();
        let refused: Vec<_> = places.filter(|(_, taken)| !**taken).collect();
        // Where too few sessions have begun, orders are carried out at once.
        assert!(
            refused.is_empty() || refused == [(64, &false)],
            "seed {seed}"
        );
        refusals += refused.len();
    }
    assert!(refusals >= 2, "{refusals}");
}

/// The oracle checks that no client waits while a place is free.
#[test]
fn a_place_is_there_by_what_is_known_now() {
    let mut waited = 0;
    for seed in 0..20 {
        let seen = outlives_a_slow_start(seed).seen;
        waited += seen.get("client served after a wait").copied().unwrap_or(0);
    }
    assert!(waited >= 3, "{waited}");
}

pub(crate) const STOP: Command = Command::Stop(Duration::from_secs(1));
pub(crate) const LIMITS: SessionLimits = SessionLimits {
    connect: 50 * MS,
    idle: NEVER,
    half_closed: 10_000 * MS,
    session: NEVER,
    attempts: 2,
    peek: None,
    server_first: NEVER,
    ends_half_sent: false,
    ends_together: false,
    watches_work: false,
    overhears: false,
    handshake: None,
};
