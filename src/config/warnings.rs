//! Warnings: settings that are valid but likely to cause harm.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::error::{Warning, cap};
use super::log::{JOURNALD, SYSLOG};
use super::rules::Finding;
use super::source::{Place, Source};
use super::tokens::Span;
use super::values::nearest;
use super::{
    AccessLog, Backend, Config, FirstTier, HalfSent, HistoryPlace, Key, Listener, LogSink, Pool,
    ProbeTls, ProxySource, Route, Strategy, Timeouts, Verify, values,
};
use crate::address::Address;
use crate::peek::Field;
use crate::prefix::Prefix;
use crate::sys;

mod headers;
mod live;
mod routes;

/// Resources that the machine gives to the process.
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
    histogram_log(config, &mut found);
    words_as_files(config, &mut found);
    live::loops(config, &mut found);
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(sentence) = idle(listener.timeouts.idle) {
            let at = format!("listeners[{i}].timeouts.idle|defaults.timeouts.idle");
            found.push(Finding::at(at, sentence));
        }
    }
    proxies(config, &mut found);
    fleet(config, &mut found);
    routes::find(config, &mut found);
    access_lists(config, &mut found);
    bans(config, &mut found);
    for (i, pool) in config.pools.iter().enumerate() {
        strategy(i, pool, &mut found);
        live::pool(i, pool, &mut found);
        live::origins(i, pool, &mut found);
        keys(config, i, &mut found);
        headers::find(config, i, &mut found);
        unverified(i, pool, &mut found);
        if config
            .listeners
            .iter()
            .all(|its| its.pools().all(|pool| pool != i))
        {
            let sentence = format!("no listener uses the pool `{}`", pool.name);
            found.push(Finding::at(format!("pools[{i}].name"), sentence));
        }
    }
    placed(found, source)
}

/// Certificates that are not verified, by connections or by probes alone.
fn unverified(i: usize, pool: &Pool, found: &mut Vec<Finding>) {
    let Some(tls) = &pool.tls else {
        return;
    };
    let name = &pool.name;
    if tls.verify == Verify::Off {
        let sentence = format!(
            "certificates of the backends of `{name}` are not verified: any server that answers \
             at their addresses gets what clients send"
        );
        return found.push(Finding::at(format!("pools[{i}].tls.verify"), sentence));
    }
    let check = pool.check_in_force();
    let check = check.filter(|its| its.check.port.is_none());
    let verifies = |tls: &ProbeTls| match tls {
        ProbeTls::Plain => false,
        ProbeTls::OfPool(tls) | ProbeTls::Own(tls) => tls.verify != Verify::Off,
    };
    if check.is_some_and(|its| !verifies(&its.tls)) {
        let sentence = format!(
            "probes of `{name}` verify no certificate, and connections to its backends do: a \
             backend that takes no client may be up"
        );
        found.push(Finding::at(format!("pools[{i}].check.tls"), sentence));
    }
}

fn access_lists(config: &Config, found: &mut Vec<Finding>) {
    for (i, list) in config.access_lists.iter().enumerate() {
        let name = &list.name;
        let mut listeners = config.listeners.iter();
        if listeners.all(|listener| listener.access_list.as_ref() != Some(name)) {
            let sentence = format!("no listener uses the access list `{name}`");
            found.push(Finding::at(format!("access_lists[{i}].name"), sentence));
        }
    }
}

/// Limits over the fleet of listeners whose names other balancers can't have.
fn fleet(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        let is_shared = listener.fleet_max_connections.is_some()
            || listener.rate_limit.is_some_and(|limit| limit.fleet);
        let is_own = matches!(listener.bind, Address::Tcp(at) if !at.ip().is_unspecified());
        if is_shared && is_own && listener.name == listener.bind.to_string() {
            let sentence = format!(
                "name: balancers share the limits of listeners of one name, and `{}` is an address \
                 of this one: give it a name",
                listener.name
            );
            found.push(Finding::at(
                format!("listeners[{i}].name|listeners[{i}].bind"),
                sentence,
            ));
        }
    }
}

/// Networks of proxies that have all addresses.
fn proxies(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        let why = "every machine that reaches the listener: each may claim any address, \
                   and so pass limits, bans and access lists; write the addresses of the proxies";
        let all = &listener.accept_proxy;
        let wide = all.iter().enumerate().filter(|(_, one)| is_whole(one));
        for (j, one) in wide {
            let at = format!("listeners[{i}].accept_proxy[{j}]");
            found.push(Finding::at(at, format!("accept_proxy: {one} trusts {why}")));
        }
        // Several together may be the same.
        let networks = ProxySource::networks(&listener.accept_proxy);
        let is_all = [true, false].map(|is_v4| {
            let of_family = networks.iter().filter(|one| one.ip().is_ipv4() == is_v4);
            Prefix::are_all_addresses(of_family)
        });
        if !all.iter().any(is_whole) && is_all.contains(&true) {
            let at = format!("listeners[{i}].accept_proxy");
            found.push(Finding::at(
                at,
                format!("accept_proxy: these networks together trust {why}"),
            ));
        }
    }
}

fn is_whole(one: &ProxySource) -> bool {
    matches!(one, ProxySource::Network(all) if all.length() == 0)
}

/// Rules that ban no source, as nothing that the listener refuses is an offence.
fn bans(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        if listener.ban.is_none() || offences(config, listener) {
            continue;
        }
        let sentence = "ban: it bans no one: a listener bans clients that its `access_list` or \
                        its `source_limits` refuse (not in a dry run), or whose first bytes do not \
                        come in time";
        found.push(Finding::at(format!("listeners[{i}].ban"), sentence));
    }
}

/// Whether a source can commit an offence at a listener.
fn offences(config: &Config, listener: &Listener) -> bool {
    let lists = config.access_lists.iter();
    let mut own = lists.filter(|list| listener.access_list.as_ref() == Some(&list.name));
    let limits = listener.source_limits.as_ref();
    let limits =
        limits.is_some_and(|its| !its.dry_run && (its.connections.is_some() || its.rate.is_some()));
    let mut pools = listener.pools().map(|pool| &config.pools[pool]);
    let waits = listener.half_sent == HalfSent::Close;
    own.any(|list| !list.dry_run)
        || limits
        || waits && pools.any(|pool| needs_bytes(pool))
        || waits && listener.routes.iter().any(Route::needs_bytes)
}

/// Whether first bytes of a pool's clients are waited for.
fn needs_bytes(pool: &Pool) -> bool {
    let mut keys = [pool.strategy.key(), pool.persists().map(|its| &its.key)].into_iter();
    pool.sni_member.is_some()
        || pool.tells_hello()
        || keys.any(|key| matches!(key, Some(Key::Peeked(field)) if field.is_in_bytes()))
}

fn workers(config: &Config, host: Host, found: &mut Vec<Finding>) {
    let Some(workers) = config.workers.filter(|workers| *workers > host.cpus) else {
        return;
    };
    let cpus = match host.cpus.get() {
        1 => "1 CPU".to_owned(),
        cpus => format!("{cpus} CPUs"),
    };
    let sentence = format!("workers: {workers} would take turns: the process may use {cpus}");
    found.push(Finding::at("workers", sentence));
}

fn memory(config: &Config, host: Host, found: &mut Vec<Finding>) {
    let Some(memory) = config.memory.filter(|memory| *memory > host.memory) else {
        return;
    };
    let sentence = format!(
        "memory: {} of buffers and pipes are more than the process may use, {}: the kernel would \
         end it before they are used up",
        values::memory_text(memory),
        values::memory_text(host.memory >> 20 << 20),
    );
    found.push(Finding::at("memory", sentence));
}

/// The histogram log is not opened before SIGUSR1, and its directory may be made until then.
/// Without those of other logs and of the admin socket no start succeeds, which is reported then.
fn histogram_log(config: &Config, found: &mut Vec<Finding>) {
    let path = &config.histogram_log;
    let directory = path.parent();
    if let Some(directory) = directory.filter(|directory| is_missing(directory)) {
        let directory = directory.display();
        let sentence = format!("the directory of the histogram log, `{directory}`, does not exist");
        found.push(Finding::at("histogram_log", sentence));
    } else if let Err(error) = sys::can_append_to(path)
        && error.kind() == ErrorKind::PermissionDenied
    {
        let path = path.display();
        let sentence = format!(
            "the user of this process (uid {}) can't write the histogram log, `{path}`, at SIGUSR1",
            sys::user_id()
        );
        found.push(Finding::at("histogram_log", sentence));
    }
}

/// Files whose name is almost a word that the setting takes.
fn words_as_files(config: &Config, found: &mut Vec<Finding>) {
    let mut look = |at: &str, path: &Path, words: &[&str]| {
        let name = path.to_string_lossy();
        // A path with a directory or an ending is meant as one.
        let is_bare = !name.contains(['/', '.']);
        if let Some(word) = nearest(&name, words.iter().copied(), 1).filter(|_| is_bare) {
            let sentence = format!(
                "`{name}` is a file of that name, did you mean `{word}`? Write `./{name}` for the \
                 file"
            );
            found.push(Finding::at(at, sentence));
        }
    };
    if let Some(AccessLog {
        to: LogSink::File(path),
        ..
    }) = &config.access_log
    {
        let words = ["off", SYSLOG, JOURNALD];
        look("access_log.to|access_log", path, &words);
    }
    if let HistoryPlace::File(path) = &config.history.path {
        look("history.path|history", path, &["auto", "memory"]);
    }
}

/// Whether no file can be created there. False if this process may not look.
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

/// The warning about an idle timeout, if any.
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

fn descriptors(config: &Config, host: Host, found: &mut Vec<Finding>) {
    let of_listeners = config
        .listeners
        .iter()
        .enumerate()
        .filter_map(|(i, listener)| {
            listener
                .max_connections
                .map(|limit| (format!("listeners[{i}].max_connections"), limit))
        });
    // A listener's own limit matters where no limit of the whole is below it.
    let limits: Vec<_> = match config.max_connections {
        Some(limit) => vec![("max_connections".to_owned(), limit)],
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
            found.push(Finding::at(at, sentence));
        }
    }
}

/// Warnings about a strategy that does not fit its backends.
fn strategy(i: usize, pool: &Pool, found: &mut Vec<Finding>) {
    // Backends that take connections while all is well.
    let is_active = |backend: &&Backend| !backend.backup && !backend.reserve && backend.weight > 0;
    let active: Vec<_> = pool.backends.iter().filter(is_active).collect();
    if let Strategy::TwoTier(tiers) = &pool.strategy {
        if let FirstTier::Hash { subset, .. } = tiers.first
            && pool.groups().is_empty()
            && usize::from(subset.get()) > active.len()
            && active.len() > 1
        {
            let sentence = format!(
                "a subset of {subset} is all {} backends of the pool `{}`: the key picks nothing",
                active.len(),
                pool.name
            );
            found.push(Finding::at(format!("pools[{i}].strategy.subset"), sentence));
        }
    } else if let Some(backend) = pool.backends.iter().position(|one| one.group.is_some()) {
        let sentence = format!(
            "the group does nothing: the strategy is `{}`, and only `two_tier` picks groups",
            pool.strategy
        );
        let at = format!("pools[{i}].backends[{backend}].group");
        found.push(Finding::at(at, sentence));
    }
    if let (Strategy::First, [first, _, ..]) = (&pool.strategy, &active[..])
        && first.max_connections.is_none()
    {
        let sentence = format!(
            "all clients go to the backend `{}`: the first without max_connections is never full",
            first.name
        );
        found.push(Finding::at(format!("pools[{i}].strategy.name"), sentence));
    }
}

/// Warns of keys that all clients share, or that clients change.
fn keys(config: &Config, i: usize, found: &mut Vec<Finding>) {
    let pool = &config.pools[i];
    let (of_strategy, of_persist) = (
        format!("pools[{i}].strategy.key"),
        format!("pools[{i}].persist.key"),
    );
    let selects = pool.strategy.key().map(|key| (&of_strategy, key));
    let its_own = matches!(pool.strategy, Strategy::StickyRoundRobin(_));
    let at = if its_own { &of_strategy } else { &of_persist };
    let persists = pool.persists().map(|persist| (at, &persist.key));
    let users = config.listeners.iter();
    let users = users.filter(|one| one.pools().any(|pool| pool == i));
    // Others do not know which proxy a client came by, or have the addresses that it names.
    let direct = users.clone().filter(|one| one.accept_proxy.is_empty());
    let first = direct.clone().next();
    let socket = direct
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
                found.push(Finding::at(at, sentence));
            }
            (Key::Peeked(Field::TlsSessionId), _) => {
                let sentence = "TLS 1.3 clients send a new session ID with each connection: \
                                by `tls_session_id` they are new each time";
                found.push(Finding::at(at, sentence));
            }
            (Key::Peeked(Field::ProxyTlv(_)), _) if first.is_some() => {
                let name = first.map_or("", |listener| &listener.name);
                let sentence = format!(
                    "the listener `{name}` has no `accept_proxy`: its clients have no `proxy_tlv`, \
                     and their address is the key"
                );
                found.push(Finding::at(at, sentence));
            }
            (Key::Peeked(Field::TlsClientCn | Field::TlsClientFingerprint), _) => {
                let asks =
                    |one: &&Listener| one.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
                if let Some(listener) = users.clone().find(|one| !asks(one)) {
                    let sentence = format!(
                        "the listener `{}` asks for no certificates (`clients` of `tls`): its \
                         clients have no `{}`, and their address is the key",
                        listener.name,
                        key.name()
                    );
                    found.push(Finding::at(at, sentence));
                }
            }
            (Key::SourceIp { .. } | Key::SourceIpPort | Key::Peeked(_), _) => {}
        }
    }
}

/// Warnings about settings of a file, each with the path of the setting.
#[must_use]
pub fn warnings_at(found: Vec<(String, String)>, source: &Source) -> Vec<Warning> {
    let found = found.into_iter();
    let found = found.map(|(path, sentence)| Finding::at(path, sentence));
    placed(found.collect(), Some(source))
}

/// The place of a setting in a file, if the file has it.
#[must_use]
pub fn place_of(path: &str, source: &Source) -> Option<Place> {
    let span = Finding::at(path, "").span(source);
    (span != source.root().start()).then(|| source.place(&span))
}

/// Gives warnings their places, one to each sentence: it names the other settings that it concerns.
fn placed(found: Vec<Finding>, source: Option<&Source>) -> Vec<Warning> {
    let Some(source) = source else {
        let said = found.into_iter().map(|finding| Warning {
            place: None,
            sentence: finding.sentence,
        });
        let mut said: Vec<_> = said.collect();
        said.dedup();
        return said;
    };
    let mut spans: BTreeMap<String, BTreeSet<(usize, usize)>> = BTreeMap::new();
    // A setting that the file does not have at all has no line to show.
    let nowhere = source.root().start();
    for one in found {
        let span = one.span(source);
        spans
            .entry(one.sentence)
            .or_default()
            .insert((span.start, span.end));
    }
    let found = spans.into_iter().filter_map(|(sentence, spans)| {
        let mut spans = spans.into_iter().map(|(start, end)| start..end);
        let first = spans.next()?;
        Some((first, sentence + &others(spans, source)))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(span, _)| span.start);
    cap(&mut found, "warnings");
    let placed = found.into_iter().map(|(span, sentence)| Warning {
        place: (span != nowhere).then(|| source.place(&span)),
        sentence,
    });
    placed.collect()
}

/// The end of a sentence that holds for other settings too.
fn others(mut spans: impl ExactSizeIterator<Item = Span>, source: &Source) -> String {
    let named = spans.by_ref().take(OTHERS_SHOWN).map(|span| {
        let place = source.place(&span);
        format!("{}:{}", place.line, place.column)
    });
    let named: Vec<_> = named.collect();
    match spans.len() {
        0 if named.is_empty() => String::new(),
        0 => format!("; the same at {}", named.join(", ")),
        more => format!("; the same at {} and {more} more", named.join(", ")),
    }
}

/// Places that a warning names beside its own.
const OTHERS_SHOWN: usize = 4;
/// The longest idle timeout without a warning.
const IDLE_MAX: Duration = Duration::from_secs(3600);
