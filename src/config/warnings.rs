//! What is legal and likely to hurt.

use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::error::Warning;
use super::source::Source;
use super::spans::Span;
use super::{Backend, Config, FirstTier, Key, Listener, LogSink, Pool, Strategy, Timeouts, values};
use crate::address::Address;
use crate::peek::Field;

mod live;

/// What the machine gives to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The hard limit of `RLIMIT_NOFILE`: the program raises the soft one to it.
    pub descriptors_max: u64,
    /// CPUs that the process may use: as many workers start when the configuration names no number.
    pub cpus: NonZeroU32,
    /// Bytes of memory that the process may use.
    pub memory: u64,
}

/// Descriptors that a worker keeps beside those of its sessions: standard streams, ring,
/// listeners, pipes, accepted connections that wait for a place.
pub const DESCRIPTORS_RESERVED: u64 = 256;

/// The descriptors that one worker needs for its share of `max_connections`.
///
/// Each worker has a descriptor table of its own, and a session takes two: client and backend.
#[must_use]
pub fn descriptors_needed(max_connections: u32, workers: NonZeroU32) -> u64 {
    2 * u64::from(max_connections.div_ceil(workers.get())) + DESCRIPTORS_RESERVED
}

/// The warnings about a configuration, in source order. The directories of logs are looked for.
///
/// `source` is what [`load`](super::load()) gave with it; none when it came from flags.
#[must_use]
pub fn warnings(config: &Config, host: Host, source: Option<&Source>) -> Vec<Warning> {
    let mut found = Vec::new();
    workers(config, host, &mut found);
    memory(config, host, &mut found);
    descriptors(config, host, &mut found);
    directories(config, &mut found);
    live::files(config, &mut found);
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(sentence) = idle(listener.timeouts.idle) {
            found.push((At::Idle(i), sentence));
        }
        if let Some(backend) = config.pools[listener.pool]
            .backends
            .iter()
            .find(|backend| reaches(backend, listener))
        {
            let sentence = format!(
                "the listener on `{}` has itself as backend `{}`: a connection would loop",
                listener.bind, backend.name
            );
            found.push((At::Bind(i), sentence));
        }
    }
    for (i, pool) in config.pools.iter().enumerate() {
        strategy(i, pool, &mut found);
        live::pool(i, pool, &mut found);
        live::origins(i, pool, &mut found);
        keys(config, i, &mut found);
        if config.listeners.iter().all(|listener| listener.pool != i) {
            found.push((
                At::Pool(i),
                format!("no listener uses the pool `{}`", pool.name),
            ));
        }
    }
    placed(found, source)
}

/// What a warning is about.
#[derive(Clone, Copy, Debug)]
enum At {
    Workers,
    Memory,
    MaxConnections,
    AccessLog,
    HistogramLog,
    AdminSocket,
    AuditLog,
    ReadToken,
    WriteToken,
    ListenerMaxConnections(usize),
    Idle(usize),
    Bind(usize),
    Pool(usize),
    Source(usize, usize),
    Strategy(usize),
    Subset(usize),
    Key(usize),
    Persist(usize),
    Group { pool: usize, backend: usize },
    Interval(usize),
    Verify(usize),
    SlowStart(usize),
    OnDown(usize),
    Discovery(usize),
}

impl At {
    fn span(self, source: &Source) -> Span {
        let root = source.root();
        let listener = |i| root.field("listeners").item(i);
        let pool = |i| root.field("pools").item(i);
        let node = match self {
            Self::Workers => root.field("workers"),
            Self::Memory => root.field("memory"),
            Self::AccessLog => root.field("access_log").field("to"),
            Self::HistogramLog => root.field("histogram_log"),
            Self::MaxConnections => root.field("max_connections"),
            Self::ListenerMaxConnections(i) => listener(i).field("max_connections"),
            Self::Bind(i) => listener(i).field("bind"),
            Self::Pool(i) => pool(i).field("name"),
            Self::Source(i, n) => pool(i).field("source").item(n),
            Self::Strategy(i) => pool(i).field("strategy").field("name"),
            Self::Subset(i) => pool(i).field("strategy").field("subset"),
            Self::Key(i) => pool(i).field("strategy").field("key"),
            Self::Persist(i) => pool(i).field("persist").field("key"),
            Self::AdminSocket => root.field("admin").field("socket"),
            Self::AuditLog => root.field("admin").field("audit_log"),
            Self::ReadToken => root.field("admin").field("http").field("read_token"),
            Self::WriteToken => root.field("admin").field("http").field("write_token"),
            Self::Interval(i) => pool(i).field("check").field("interval"),
            Self::Verify(i) => pool(i).field("check").field("tls").field("verify"),
            Self::SlowStart(i) => pool(i).field("slow_start"),
            Self::OnDown(i) => pool(i).field("on_down"),
            Self::Discovery(i) => pool(i).field("discover").field("file"),
            Self::Group { pool: i, backend } => {
                pool(i).field("backends").item(backend).field("group")
            }
            Self::Idle(i) => {
                let own = listener(i)
                    .find("timeouts")
                    .and_then(|timeouts| timeouts.find("idle"));
                own.unwrap_or_else(|| root.field("defaults").field("timeouts").field("idle"))
            }
        };
        node.span.clone()
    }
}

fn workers(config: &Config, host: Host, found: &mut Vec<(At, String)>) {
    let Some(workers) = config.workers.filter(|workers| *workers > host.cpus) else {
        return;
    };
    let cpus = match host.cpus.get() {
        1 => "1 CPU".to_owned(),
        cpus => format!("{cpus} CPUs"),
    };
    let sentence = format!("workers: {workers} would take turns: the process may use {cpus}");
    found.push((At::Workers, sentence));
}

fn memory(config: &Config, host: Host, found: &mut Vec<(At, String)>) {
    let Some(memory) = config.memory.filter(|memory| *memory > host.memory) else {
        return;
    };
    let sentence = format!(
        "memory: {} of buffers and pipes are more than the process may use, {}: the kernel would \
         end it before they are used up",
        values::memory_text(memory),
        values::memory_text(host.memory >> 20 << 20),
    );
    found.push((At::Memory, sentence));
}

/// Directories that may be made before the balancer starts, or be those of another machine.
fn directories(config: &Config, found: &mut Vec<(At, String)>) {
    let access_log = config.access_log.as_ref().and_then(|log| match &log.to {
        LogSink::File(path) => Some(path),
        LogSink::Stdout => None,
    });
    let access_log = access_log.map(|path| (At::AccessLog, "access log", path));
    let histogram_log = (At::HistogramLog, "histogram log", &config.histogram_log);
    let admin = config.admin.as_ref();
    let socket = admin.filter(|admin| admin.required);
    let socket = socket.and_then(|admin| admin.socket.as_ref());
    let socket = socket.map(|path| (At::AdminSocket, "admin socket", path));
    let audit_log = admin.and_then(|admin| admin.audit_log.as_ref());
    let audit_log = audit_log.map(|path| (At::AuditLog, "audit log", path));
    let optional = [access_log, socket, audit_log].into_iter().flatten();
    for (at, what, path) in optional.chain([histogram_log]) {
        if let Some(directory) = path.parent().filter(|directory| is_missing(directory)) {
            let directory = directory.display();
            let sentence = format!("the directory of the {what}, `{directory}`, does not exist");
            found.push((at, sentence));
        }
    }
}

/// Whether no file can be made there; not when nobody may look.
fn is_missing(directory: &Path) -> bool {
    // The parent of a bare file name.
    if directory.as_os_str().is_empty() {
        return false;
    }
    match fs::metadata(directory) {
        Ok(found) => !found.is_dir(),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// What there is to say about an idle timeout.
fn idle(timeout: Option<Duration>) -> Option<String> {
    let Some(timeout) = timeout else {
        return Some("without an idle timeout, a peer that vanishes holds its session".to_owned());
    };
    if timeout <= IDLE_MAX {
        return None;
    }
    let held = values::written(timeout);
    let default = Timeouts::default().idle.map(values::written);
    let default = default.as_deref().unwrap_or("off");
    Some(format!(
        "a peer that vanishes holds its session for {held}: the default idle timeout is {default}"
    ))
}

fn descriptors(config: &Config, host: Host, found: &mut Vec<(At, String)>) {
    let of_listeners = config
        .listeners
        .iter()
        .enumerate()
        .filter_map(|(i, listener)| {
            listener
                .max_connections
                .map(|limit| (At::ListenerMaxConnections(i), limit))
        });
    // A listener's own limit matters where no limit of the whole is below it.
    let limits: Vec<_> = match config.max_connections {
        Some(limit) => vec![(At::MaxConnections, limit)],
        None => of_listeners.collect(),
    };
    for (at, limit) in limits {
        let needed = descriptors_needed(limit.get(), config.workers.unwrap_or(host.cpus));
        if needed > host.descriptors_max {
            let sentence = format!(
                "max_connections: {limit} connections need {needed} descriptors for each worker, \
                 and the hard limit (ulimit -Hn) is {}",
                host.descriptors_max
            );
            found.push((at, sentence));
        }
    }
}

/// What a pool's strategy makes of its backends.
fn strategy(i: usize, pool: &Pool, found: &mut Vec<(At, String)>) {
    // Backends that take connections while all is well.
    let is_active = |backend: &&Backend| !backend.backup && !backend.reserve && backend.weight > 0;
    let active: Vec<_> = pool.backends.iter().filter(is_active).collect();
    if let Strategy::TwoTier(tiers) = &pool.strategy {
        if let FirstTier::Hash { subset, .. } = tiers.first
            && tiers.groups.is_empty()
            && usize::from(subset.get()) > active.len()
            && active.len() > 1
        {
            let sentence = format!(
                "a subset of {subset} is all {} backends of the pool `{}`: the key picks nothing",
                active.len(),
                pool.name
            );
            found.push((At::Subset(i), sentence));
        }
    } else if let Some(backend) = pool.backends.iter().position(|one| one.group.is_some()) {
        let sentence = format!(
            "the group does nothing: the strategy is `{}`, and only `two_tier` picks groups",
            pool.strategy
        );
        found.push((At::Group { pool: i, backend }, sentence));
    }
    if let (Strategy::First, [first, _, ..]) = (&pool.strategy, &active[..])
        && first.max_connections.is_none()
    {
        let sentence = format!(
            "all clients go to the backend `{}`: the first without max_connections is never full",
            first.name
        );
        found.push((At::Strategy(i), sentence));
    }
}

/// Keys that clients do not differ by, or that they change.
fn keys(config: &Config, i: usize, found: &mut Vec<(At, String)>) {
    let pool = &config.pools[i];
    let selects = pool.strategy.key().map(|key| (At::Key(i), key));
    let persists = pool.persist.as_ref().map(|persist| {
        let its_own = pool.strategy == Strategy::StickyRoundRobin;
        let at = if its_own { At::Key(i) } else { At::Persist(i) };
        (at, &persist.key)
    });
    let sockets = config.listeners.iter().filter(|one| one.pool == i);
    let socket = sockets
        .map(|listener| &listener.bind)
        .find(|bind| matches!(bind, Address::Unix(_)));
    for (at, key) in selects.into_iter().chain(persists) {
        match (key, socket) {
            (Key::SourceIp { .. } | Key::SourceIpPort, Some(socket)) => {
                let sentence = format!(
                    "the clients of `{socket}` have no address: by `{}` they are one client, and \
                     go to one backend",
                    key.name()
                );
                found.push((at, sentence));
            }
            (Key::Peeked(Field::TlsSessionId), _) => {
                let sentence = "TLS 1.3 clients send a new session ID with each connection: \
                                by `tls_session_id` they are new each time";
                found.push((at, sentence.to_owned()));
            }
            (Key::SourceIp { .. } | Key::SourceIpPort | Key::Peeked(_), _) => {}
        }
    }
}

/// Whether connecting to the address ends at the listener.
fn reaches(backend: &Backend, listener: &Listener) -> bool {
    // What other names mean is not known here.
    if backend
        .host
        .as_ref()
        .is_some_and(|host| host != "localhost")
    {
        return false;
    }
    match (&backend.address, &listener.bind) {
        (Address::Tcp(to), Address::Tcp(bind)) if to.port() == bind.port() => {
            // To connect to the unspecified address is to connect to this machine, as to
            // `localhost`, which was not resolved.
            let here = to.ip().is_loopback() || to.ip().is_unspecified();
            to == bind || (bind.ip().is_unspecified() && here)
        }
        (to, bind) => to == bind,
    }
}

/// Gives warnings their places. What several listeners inherit is said once.
fn placed(found: Vec<(At, String)>, source: Option<&Source>) -> Vec<Warning> {
    let Some(source) = source else {
        let said = found.into_iter().map(|(_, sentence)| Warning {
            place: None,
            sentence,
        });
        let mut said: Vec<_> = said.collect();
        said.dedup();
        return said;
    };
    let mut found: Vec<_> = found
        .into_iter()
        .map(|(at, sentence)| (at.span(source), sentence))
        .collect();
    found.sort_by_key(|(span, _)| span.start);
    found.dedup();
    // Each is shown with its line, which may be the whole file.
    if found.len() > WARNINGS_MAX {
        let more = found.len() - WARNINGS_MAX;
        found.truncate(WARNINGS_MAX + 1);
        if let Some((_, sentence)) = found.last_mut() {
            *sentence = format!("{more} more warnings follow from here on");
        }
    }
    let place = |span: &Span| Some(source.place(span));
    found
        .into_iter()
        .map(|(span, sentence)| Warning {
            place: place(&span),
            sentence,
        })
        .collect()
}

/// Warnings that are shown one by one.
const WARNINGS_MAX: usize = 100;
/// The longest idle timeout that nothing is said about.
const IDLE_MAX: Duration = Duration::from_secs(3600);
