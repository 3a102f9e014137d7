//! One run: a seed decides the configuration, the network and the weather.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use mahoraga::config::{Key, Route};
use mahoraga::guard::{
    Access, AccessFilter, Action, Admission, Bans, ByteRate, Gate, Limit, ListenerBandwidth, Pit,
    Prefixes, Rate, RateRule, Rules, Shed, SourceRules, Sources,
};
use mahoraga::kernel::{Kernel, Socket};
use mahoraga::peek::Protocol;
use mahoraga::pool::Pool;
use mahoraga::prefix::Prefix;
use mahoraga::route::{Routed, Routes};
use mahoraga::select::Seat;
use mahoraga::session::SessionLimits;
use mahoraga::snapshot::{LiveListener, Postgres, Proxies, Snapshot};
use mahoraga::time::{MS, NEVER, US};
use mahoraga::worker::{Command, Number, Record, Setup, Stats, Worker};

use crate::headers::proxies;
use crate::kernel::{FIRST_LISTENER, FakeKernel};
use crate::neighbour::Neighbour;
use crate::orders;
use crate::pools::Pools;
use crate::random::Random;
use crate::rates::Rates;
use crate::trace::Trace;
use crate::world::{Event, World};

/// A worker, its surroundings and the checks' state.
#[derive(Debug)]
pub(crate) struct Scenario {
    worker: Worker<FakeKernel>,
    stats: Arc<Stats>,
    records: Receiver<Record>,
    /// The number of logged sessions, and the bytes that they delivered.
    logged: (u64, [u64; 2]),
    capacity: usize,
    pools: Pools,
    ejected: usize,
}

impl Scenario {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let mut plan = Plan::new(&mut random, Random::new(!seed));
        plan.pools.introduces = seed % 4 == 2;
        let (mailbox, commands) = unbounded();
        let (log, records) = bounded(4_096);
        let first = plan.snapshot(&mut random);
        let world = plan.world(&mut random, mailbox, &log);
        let inboxes = Arc::clone(&world.neighbour.inboxes);
        let trace = Trace {
            verbose,
            ..Trace::default()
        };
        let mut kernel = FakeKernel::new(random, trace, world);
        plan.schedule(&mut kernel);
        kernel.maker.random = (seed % 4 == 3).then(|| Random::new(seed));
        let setup = Setup {
            seat: Seat {
                worker: 0,
                of: 1,
                pool: 0,
                seed: 0,
            },
            sockets: first
                .listeners
                .iter()
                .map(|listener| socket(listener.id))
                .collect(),
            snapshot: first,
            capacity: plan.capacity,
            backlog: plan.backlog,
            mailbox: commands,
            inboxes,
            log: Some(log.into()),
            idle_cuts: Arc::default(),
            stats: Arc::default(),
        };
        Self::of(kernel, setup, records, plan.pools)
    }

    /// A worker on this kernel, with the receiver of its records and the pools of its last
    /// snapshot.
    pub(crate) fn of(
        kernel: FakeKernel,
        setup: Setup,
        records: Receiver<Record>,
        pools: Pools,
    ) -> Self {
        Self {
            stats: Arc::clone(&setup.stats),
            capacity: setup.capacity,
            worker: Worker::new(kernel, setup),
            records,
            logged: (0, [0; 2]),
            pools,
            ejected: 0,
        }
    }

    /// Runs to the end; returns what was seen on the way.
    pub(crate) fn run(mut self) -> Trace {
        let mut turns = 0;
        while !self.worker.is_finished() {
            self.worker.turn();
            self.check();
            turns += 1;
            assert!(turns < TURNS_MAX, "{}", self.worker.kernel_mut().dump());
        }
        let mut rest = Vec::new();
        self.worker
            .kernel_mut()
            .wait(Some(Duration::ZERO), &mut rest);
        assert!(rest.is_empty(), "completions after the end: {rest:?}");
        self.check_end();
        std::mem::take(&mut self.worker.kernel_mut().trace)
    }

    fn check(&mut self) {
        let kernel = self.worker.kernel_mut();
        for record in self.records.try_iter() {
            kernel.on_record(&record);
            let (sessions, delivered) = self.logged;
            self.logged = (sessions + 1, sum(delivered, record.summary.delivered));
        }
        kernel.check_lists();
        kernel.assert_counts(&self.stats, self.capacity);
        let version = usize::try_from(self.stats.progress.snapshot()).expect("few");
        assert!(kernel.world.known.contains(&(version - 1)));
        kernel.hear_wake();
        self.check_backends();
    }

    /// The counters of backends equal the real numbers, and the control thread is woken.
    fn check_backends(&mut self) {
        let kernel = self.worker.kernel_mut();
        let tallies = &self.pools.tallies;
        let used: usize = tallies
            .iter()
            .map(|tally| tally.connections.used() as usize)
            .sum();
        let open = kernel.open_sockets(mahoraga::token::Side::Backend);
        let theirs = kernel.world.neighbour.held();
        assert_eq!(used, open + theirs, "backend connections");
        for limit in tallies.iter().map(|tally| &tally.connections) {
            assert!(limit.used() <= limit.max(), "{limit:?}");
        }
        let woken = kernel.world.control_woken.take();
        let mut in_all = 0;
        for pool in &self.pools.present {
            let ejected = pool.backends.iter();
            let ejected = ejected.filter(|backend| backend.tally.is_ejected()).count();
            assert_eq!(pool.ejections.used() as usize, ejected, "{pool:?}");
            for limit in [&pool.ejections, &pool.connections] {
                assert!(limit.used() <= limit.max(), "{limit:?}");
            }
            in_all += ejected;
            if pool.is_full() {
                kernel.trace.see("pool full");
            }
        }
        if in_all > self.ejected {
            kernel.trace.see("ejection");
            assert!(woken, "the control thread is not woken");
        }
        self.ejected = in_all;
    }

    fn check_end(&mut self) {
        let ports = self.worker.ports();
        let kernel = self.worker.kernel_mut();
        kernel.others_take(0);
        kernel.neighbour_ends();
        kernel.assert_nothing_is_left();
        let world = &kernel.world;
        for limit in world.per_listener.iter().chain([&world.in_all]) {
            assert_eq!(limit.used(), 0);
        }
        assert_eq!(world.sources.connections(), 0);
        for gate in &world.gates {
            assert_eq!(gate.overflow_connections(), 0);
        }
        for tally in &self.pools.tallies {
            assert_eq!(tally.connections.used(), 0);
            assert_eq!(tally.waiting(), 0);
        }
        let last = world.in_force.last().expect("there is the first");
        let listened = last.iter().filter(|number| !world.lost.contains(number));
        assert_eq!(ports, listened.count(), "ports of listeners that are gone");
        assert!(kernel.handed.is_empty() && world.lists.is_empty());
        let stats = &self.stats;
        assert_eq!(stats.progress.beat(), world.beat);
        assert!(stats.progress.adopted_at() <= kernel.now);
        assert_eq!(stats.listeners_lost.get(), world.lost.len() as u64);
        for gauge in [
            &stats.sessions,
            &stats.buffers,
            &stats.pipes,
            &stats.parked,
            &stats.arriving,
            &stats.held,
            &stats.log_dropped,
        ] {
            assert_eq!(gauge.get(), 0);
        }
        assert!(self.records.is_empty());
        self.assert_traffic();
    }

    /// The traffic counters equal the sum over the sessions' records, if all were logged. Each byte
    /// is counted once for its worker and once for its backend.
    fn assert_traffic(&self) {
        let counted = self.stats.traffic.bytes();
        let tallies = self.pools.tallies.iter();
        let of_backends = tallies.map(|tally| tally.traffic.bytes()).fold([0; 2], sum);
        assert_eq!(counted, of_backends);
        let (sessions, logged) = self.logged;
        assert!((0..2).all(|way| logged[way] <= counted[way]));
        let ended: u64 = self.stats.closed.iter().map(Number::get).sum();
        assert!(
            sessions < ended || logged == counted,
            "{logged:?} of {counted:?}"
        );
    }
}

fn sum(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    [one[0] + other[0], one[1] + other[1]]
}

/// The choices of a seed before the run.
struct Plan {
    limits: Vec<SessionLimits>,
    capacity: usize,
    /// 0: the worker always accepts a dozen connections at once.
    backlog: u32,
    in_all: Arc<Limit>,
    /// For clients that are held.
    slots: Arc<Limit>,
    per_listener: Vec<Arc<Limit>>,
    sources: Arc<Sources>,
    gates: Vec<Arc<Gate>>,
    /// Of listeners whose clients come by some.
    proxies: BTreeMap<usize, Proxies>,
    bans: Arc<Bans>,
    bandwidth: Vec<Arc<ListenerBandwidth>>,
    /// Decides limits of new connections, so that seeds without one stay as they are.
    rules: Random,
    pools: Pools,
    /// Pools by listener, by publication.
    routes: Vec<Vec<Arc<Pool>>>,
    /// Listeners, by publication.
    in_force: Vec<Vec<usize>>,
    publications: u64,
}

impl Plan {
    fn new(random: &mut Random, mut rules: Random) -> Self {
        Self {
            limits: Vec::new(),
            capacity: random.pick(&[3usize, 8, 40]),
            backlog: random.pick(&[0, 3, 12]),
            in_all: max(random),
            slots: Arc::new(Limit::new(rules.pick(&[1, 100]))),
            per_listener: Vec::new(),
            // With room for one source, others share one's limits.
            sources: Arc::new(Sources::new(rules.pick(&[100, 1 << 20]))),
            gates: Vec::new(),
            proxies: BTreeMap::new(),
            bans: Arc::new(Bans::new(10)),
            bandwidth: Vec::new(),
            rules,
            pools: Pools::default(),
            routes: Vec::new(),
            in_force: Vec::new(),
            publications: random.below(4),
        }
    }

    /// The numbers of the listeners of the next snapshot: one may be gone, others new.
    fn listeners(&mut self, random: &mut Random) -> Vec<usize> {
        let mut numbers = self.in_force.last().cloned().unwrap_or_default();
        let first = numbers.is_empty();
        if !first && random.permille(400) {
            let gone = random.below(numbers.len() as u64);
            numbers.remove(usize::try_from(gone).expect("few"));
        }
        let new = if first || numbers.is_empty() {
            random.between(1, 2)
        } else {
            random.pick(&[0, 0, 1, 2])
        };
        for _ in 0..new {
            numbers.push(self.limits.len());
            self.limits.push(limits(random));
            self.per_listener.push(max(random));
            self.gates.push(Arc::new(Gate::new(&self.sources)));
            let number = self.limits.len() - 1;
            // Without a draw, so that seeds stay as they are.
            if (number as u64 + self.publications) % 4 == 3 {
                self.proxies.insert(number, proxies(2, 40 * MS));
            }
            self.bandwidth.push(Arc::new(bandwidth(&mut self.rules)));
        }
        self.in_force.push(numbers.clone());
        numbers
    }

    /// A snapshot with pools of new and of known backends.
    fn snapshot(&mut self, random: &mut Random) -> Arc<Snapshot> {
        let mut listeners = Vec::new();
        let mut access = HashMap::new();
        for number in self.listeners(random) {
            if random.permille(150) {
                access.insert(number as u64, refuses_one());
            }
            let mut limits = self.limits[number];
            let plan = Arc::new(self.pools.next(number, random));
            let peek = random.pick(&[5 * MS, 100 * MS]);
            let routes = routes(&mut self.rules);
            let peeks = plan.peeks() || routes.iter().any(Route::needs_bytes);
            limits.peek = peeks.then_some(peek);
            limits.ends_half_sent = self.rules.permille(500);
            let to = Routed {
                plan: Arc::clone(&plan),
                limits,
            };
            listeners.push(Arc::new(LiveListener {
                id: number as u64,
                name: format!("l{number}"),
                bind: bind(number).parse().expect("an address"),
                plan,
                routes: Routes::new(&routes, |_| to.clone(), None),
                connections: Arc::clone(&self.per_listener[number]),
                traffic: Arc::default(),
                file_gone_at: Arc::default(),
                proxies: self.proxies.get(&number).cloned(),
                rules: rules(&mut self.rules),
                ban: None,
                gate: Arc::clone(&self.gates[number]),
                limits,
                bandwidth: Arc::clone(&self.bandwidth[number]),
                postgres: Postgres::default(),
                tls: None,
            }));
        }
        self.routes.push(self.pools.present.clone());
        if random.permille(500) {
            listeners.reverse();
        }
        Arc::new(Snapshot {
            version: self.in_force.len() as u64,
            pools: Vec::new(),
            listeners,
            connections: Arc::clone(&self.in_all),
            access,
            sources: Arc::clone(&self.sources),
            bans: Arc::clone(&self.bans),
            ban_action: self.rules.pick(&Action::ALL).1,
            trusted: Arc::default(),
            pit: Pit {
                slots: Arc::clone(&self.slots),
                time: self.rules.pick(&[MS, 500 * MS]),
            },
            admission: admission(&mut self.rules),
            listeners_made: self.limits.len() as u64,
            bandwidth: Arc::default(),
            has_bandwidth_limits: true,
        })
    }

    fn world(
        &mut self,
        random: &mut Random,
        mailbox: Sender<Command>,
        log: &Sender<Record>,
    ) -> World {
        let mut commands = VecDeque::new();
        for _ in 0..self.publications {
            commands.push_back(Command::Publish(self.snapshot(random)));
        }
        orders::mix_in(&mut commands, &self.pools, log, random);
        let grace = random.pick(&[0, 1, 20, 300, 5_000, 30_000]);
        commands.push_back(Command::Stop(Duration::from_millis(grace)));
        World {
            mailbox,
            commands,
            drip: 0,
            proxied: self.proxies.keys().copied().collect(),
            asks: false,
            cancels: None,
            backends: self.pools.tempers.clone(),
            descriptors: random.pick(&[5, 20, 1_000, 1_000, 1_000]),
            introduces: self.pools.introduces,
            famine: false,
            drought: false,
            sourceless: false,
            full_backlogs: BTreeMap::new(),
            in_all: Arc::clone(&self.in_all),
            per_listener: self.per_listener.clone(),
            sources: Arc::clone(&self.sources),
            gates: self.gates.clone(),
            bans: Arc::clone(&self.bans),
            banned: Vec::new(),
            bandwidth: self.bandwidth.clone(),
            rates: Rates::default(),
            others: 0,
            neighbour: Neighbour::new(self.limits.len()),
            control_woken: Cell::new(false),
            limits: self.limits.clone(),
            routes: std::mem::take(&mut self.routes),
            known: 0..=0,
            in_force: self.in_force.clone(),
            lost: BTreeSet::new(),
            closes: Vec::new(),
            lists: Vec::new(),
            beat: 0,
            over_at: None,
        }
    }

    /// Clients in bursts, publications, weather, and the stop near the end.
    fn schedule(&mut self, kernel: &mut FakeKernel) {
        let listeners = self.limits.len() as u64;
        let span = kernel.random.between(50 * MS, 1_500 * MS);
        for _ in 0..kernel.random.between(1, 8) {
            let at = kernel.random.below(span);
            for _ in 0..kernel.random.between(1, 6) {
                let listener = kernel.random.below(listeners);
                let at = at + kernel.random.below(200 * US);
                kernel.after(at, Event::Arrive(usize::try_from(listener).expect("few")));
            }
        }
        let stop = span + kernel.random.pick(&[0, 10 * MS, 500 * MS, 4_000 * MS]);
        for _ in 1..kernel.world.commands.len() {
            let at = kernel.random.below(span);
            kernel.after(at, Event::Command);
        }
        kernel.after(stop, Event::Command);
        for _ in 0..kernel.random.below(4) {
            let at = stop - 20 * US + kernel.random.below(40 * US);
            let listener = kernel.random.below(listeners);
            kernel.after(at, Event::Arrive(usize::try_from(listener).expect("few")));
        }
        if kernel.random.permille(300) {
            let (at, time) = (kernel.random.below(span), kernel.random.below(800 * MS));
            kernel.after(at, Event::Famine(true));
            kernel.after(at + time, Event::Famine(false));
        }
        if kernel.random.permille(300) {
            let (at, time) = (kernel.random.below(span), kernel.random.below(800 * MS));
            kernel.after(at, Event::Drought(true));
            kernel.after(at + time, Event::Drought(false));
        }
        if kernel.random.permille(300) {
            let (at, time) = (kernel.random.below(span), kernel.random.below(300 * MS));
            kernel.after(at, Event::Others(12));
            kernel.after(at + time, Event::Others(0));
        }
        for _ in 0..kernel.random.below(3) {
            let at = kernel.random.below(span);
            kernel.after(at, Event::Readmit);
        }
        for _ in 0..kernel.random.pick(&[0, 0, 10, 40]) {
            let at = kernel.random.below(span);
            kernel.after(at, Event::Neighbour);
        }
        if self.rules.permille(200) {
            let (at, time) = (self.rules.below(span), self.rules.below(800 * MS));
            kernel.after(at, Event::Ban(self.rules.between(0, 2), time));
        }
        for backend in 0..self.pools.tempers.len() {
            if kernel.random.permille(200) {
                let at = kernel.random.below(span);
                let mood = u8::try_from(kernel.random.below(4)).expect("few");
                kernel.after(at, Event::Temper(backend, mood));
            }
        }
    }
}

fn max(random: &mut Random) -> Arc<Limit> {
    let max = random.pick(&[2, 5, 12, u32::MAX]);
    Arc::new(Limit::new(max))
}

/// Limits of new connections, if any.
fn rules(random: &mut Random) -> Rules {
    let rate = |random: &mut Random| {
        let [rate, burst] = [[1, 20], [1, 3]].map(|of| NonZeroU32::new(random.pick(&of)));
        rate.zip(burst).map(|(rate, burst)| Rate::new(rate, burst))
    };
    let rule = |random: &mut Random| {
        let dry_run = random.permille(300);
        rate(random).map(|rate| RateRule {
            rate,
            fleet: None,
            dry_run,
            action: action(random),
        })
    };
    let source = SourceRules {
        connections: NonZeroU32::new(random.pick(&[0, 1, 2])),
        rate: rate(random).filter(|_| random.permille(500)),
        prefix_v4: random.pick(&[8, 32]),
        prefix_v6: 64,
        dry_run: random.permille(300),
        action: action(random),
        is_paced: random.permille(500),
    };
    Rules {
        source: Some(source).filter(|_| random.permille(150)),
        listener: rule(random).filter(|_| random.permille(50)),
        global: rule(random).filter(|_| random.permille(50)),
    }
}

fn action(random: &mut Random) -> Action {
    let (_, action) = random.pick(&Action::ALL);
    action
}

/// Most workers have a turn for every client that comes.
fn admission(random: &mut Random) -> Admission {
    if random.permille(700) {
        return Admission::default();
    }
    let shed = Shed {
        wait: 0,
        after: random.pick(&[0, 30 * US]),
        memory: random.pick(&[Some(100), None]),
        dry_run: random.permille(300),
    };
    Admission {
        per_turn: 1,
        shed: Some(shed),
    }
}

/// Limits of bandwidth, if any. They are so wide that no stream stands still for long.
fn bandwidth(random: &mut Random) -> ListenerBandwidth {
    let bandwidth = ListenerBandwidth::default();
    let mut rate = |all: &[u64]| NonZeroU64::new(random.pick(all)).map(ByteRate::new);
    let session = [(); 2].map(|()| rate(&[0, 0, 0, SLOW_RATE, 500_000, 3_000_000]));
    bandwidth.session.set(session);
    let mut shared = || [(); 2].map(|()| rate(&[0, 0, 0, 20_000_000, 100_000_000]));
    bandwidth.source.set(shared());
    bandwidth.all.set(shared());
    bandwidth
}

/// An access list that refuses the clients of one address.
fn refuses_one() -> Arc<AccessFilter> {
    let prefix = Prefix::new(orders::client_ip(1), 32).expect("an address");
    let own = Prefixes::new(vec![(prefix, Access::Deny)]).expect("one prefix");
    let own = Arc::new(own);
    Arc::new(AccessFilter::new("a".to_owned(), own, None, Access::Allow))
}

/// Routes that refuse one client, and others that lead to the listener's own pool.
fn routes(rules: &mut Random) -> Vec<Route> {
    let client = |number| Prefix::new(orders::client_ip(number), 32).expect("an address");
    let route = |client, protocol, pool| Route {
        name: None,
        sni: Vec::new(),
        alpn: Vec::new(),
        protocol,
        client,
        proxy_tlv: Vec::new(),
        tls_client: Vec::new(),
        http_host: Vec::new(),
        http_path: Vec::new(),
        pool,
        pools: Vec::new(),
        key: Key::default(),
    };
    let all = [
        route(vec![client(1)], vec![], None),
        route(vec![client(0)], vec![], Some(0)),
        route(vec![client(2)], vec![Protocol::Ssh], None),
        route(vec![], vec![Protocol::Http], Some(0)),
    ];
    let some = all.into_iter().filter(|_| rules.permille(100));
    some.collect()
}

/// Whether a listener is a Unix socket.
pub(crate) fn is_local(listener: usize) -> bool {
    listener % 3 == 1
}

fn bind(listener: usize) -> &'static str {
    match is_local(listener) {
        true => "unix:/l",
        false => "127.0.0.1:80",
    }
}

pub(crate) fn socket(listener: u64) -> Socket {
    Socket::from_raw(FIRST_LISTENER + i32::try_from(listener).expect("few"))
}

fn limits(random: &mut Random) -> SessionLimits {
    SessionLimits {
        connect: random.pick(&[30 * MS, 200 * MS, 1_000 * MS]),
        idle: random.pick(&[100 * MS, 2_000 * MS, NEVER]),
        half_closed: random.pick(&[50 * MS, 1_000 * MS, 3_000 * MS]),
        session: random.pick(&[300 * MS, 3_000 * MS, NEVER, NEVER]),
        attempts: random.pick(&[1, 2, 3, 3]),
        peek: None,
        server_first: NEVER,
        ends_half_sent: false,
        ends_together: false,
        watches_work: random.permille(700),
        overhears: false,
        handshake: None,
    }
}

/// In bytes per second: sessions rest for far longer than a reset may go unnoticed.
pub(crate) const SLOW_RATE: u64 = 20_000;
const TURNS_MAX: u64 = 2_000_000;
