//! Rules across settings, for a configuration from any source.
//!
//! A file, flags and changes of a running balancer go through the same rules. A finding names the
//! setting by its path; for a file the path gives the place.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::error::SHOWN_MAX;
use super::listener::stand_in;
use super::source::Source;
use super::strategy::{NO_SUBSET, SUBSET};
use super::tokens::Span;
use super::tree::Reached;
use super::values::{known, written};
use super::{
    AdminHttp, Backend, Config, FirstTier, Group, Pool, ProbeTls, Strategy, TwoTier, Verify,
};
use crate::address::Address;

mod access;
mod fleet;
mod listener;
mod loops;
mod numbers;
mod reach;
mod routes;

pub(super) use access::too_many_prefixes;
pub(super) use fleet::broken_by_global;
pub(super) use listener::{broken_by_listener, broken_by_routes};
pub(crate) use loops::{Machine, found_loops, leads_back};
pub(super) use loops::{by_machine as loops_by_machine, of_pool as loop_of};
pub(super) use routes::beyond_limits;

/// A broken rule, or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The setting, such as `pools[0].check.timeout`. After `|`: the one to name where that one is
    /// not given.
    path: String,
    /// The setting that it clashes with.
    first: Option<String>,
    /// Settings that must be valid for this finding to make sense.
    needs: Option<String>,
    pub(super) sentence: String,
}

impl Finding {
    pub(super) fn at(path: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            first: None,
            needs: None,
            sentence: sentence.into(),
        }
    }

    fn clashing(self, first: impl Into<String>) -> Self {
        let first = Some(first.into());
        Self { first, ..self }
    }

    fn needing(self, path: impl Into<String>) -> Self {
        let needs = Some(path.into());
        Self { needs, ..self }
    }

    /// The sentence, behind the number of an item if it is about one of such a list: for readers
    /// who see no file.
    fn of_item(self, list: &str, what: &str) -> String {
        let (_, at) = self
            .path
            .split_once(&format!(".{list}["))
            .unwrap_or_default();
        let item = at
            .split_once(']')
            .and_then(|(item, _)| item.parse::<usize>().ok());
        match item {
            Some(item) => format!("{what} {}: {}", item + 1, self.sentence),
            None => self.sentence,
        }
    }

    /// Where it is shown in a file: a group or a list by its beginning.
    pub(super) fn span(&self, source: &Source) -> Span {
        match source.root().place(&self.path) {
            Reached::Found(value) if !value.has_parts() => value.span.clone(),
            Reached::Found(group) | Reached::Missing(group) => group.start(),
        }
    }

    /// The sentence, with the place that it clashes with.
    pub(super) fn whole_sentence(&self, source: &Source) -> String {
        let Some(first) = &self.first else {
            return self.sentence.clone();
        };
        let first = Self::at(first, "").span(source);
        let first = source.place(&first);
        format!(
            "{}; the first is at {}:{}",
            self.sentence, first.line, first.column
        )
    }

    /// Whether a mistake in the settings that it concerns was found before.
    pub(super) fn is_known(&self, source: &Source, refused: impl Fn(&Span) -> bool) -> bool {
        let paths = [Some(&self.path), self.first.as_ref(), self.needs.as_ref()];
        let mut paths = paths.into_iter().flatten().flat_map(|all| all.split('|'));
        paths.any(|path| match source.root().place(path) {
            Reached::Found(value) => refused(&value.span),
            Reached::Missing(_) => false,
        })
    }
}

/// The rules that a configuration breaks.
pub(super) fn of_config(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.listeners.is_empty() {
        found.push(Finding::at("listeners", "listeners: expected at least one"));
    }
    if config.pools.is_empty() {
        found.push(Finding::at("pools", "pools: expected at least one"));
    }
    if let Some(admin) = &config.admin {
        if admin.socket.is_none() && admin.http.is_none() {
            let sentence = "admin: it is served nowhere: write admin: \"off\", or give `http`";
            found.push(Finding::at("admin", sentence));
        }
        let http = admin.http.as_ref();
        let lacks = |http: &AdminHttp| http.read_token.is_none() && http.write_token.is_none();
        if http.is_some_and(|http| lacks(http) && !http.makes_tokens) {
            let sentence = "http: expected a token: give the file of `read_token`, of \
                            `write_token` or of both";
            // Where neither is given, that is where the group begins.
            let tokens = "admin.http.read_token|admin.http.write_token";
            found.push(Finding::at(tokens, sentence));
        }
    }
    access::of_metrics(config, &mut found);
    listeners(config, &mut found);
    access::find(config, &mut found);
    listener::find(config, &mut found);
    fleet::find(config, &mut found);
    let names = config.pools.iter().enumerate();
    let names = names.map(|(i, pool)| (format!("pools[{i}].name"), &*pool.name));
    unique(("two pools are called", RENAME), names, &mut found);
    for (i, pool) in config.pools.iter().enumerate() {
        of_pool(&format!("pools[{i}]"), pool, &mut found);
    }
    loops::find(config, &mut found);
    found
}

/// Revocation lists where nothing is verified.
fn unverified_lists(path: &str, pool: &Pool, found: &mut Vec<Finding>) {
    let own = pool.tls.as_ref().map(|its| ("tls", its.clone()));
    let probes = pool.check_in_force().map(|its| its.tls);
    let probes = probes.and_then(|tls| match tls {
        ProbeTls::Own(tls) => Some(("check.tls", tls)),
        ProbeTls::Plain | ProbeTls::OfPool(_) => None,
    });
    for (group, tls) in own.into_iter().chain(probes) {
        if tls.verify == Verify::Off && tls.crl.is_some() {
            let sentence = "invalid `crl`: expected none where nothing is verified: name the \
                            authorities in `verify`, or leave it out";
            found.push(Finding::at(format!("{path}.{group}.crl"), sentence));
        }
    }
}

/// The rules that a pool breaks; `path` is the pool's path.
pub(super) fn of_pool(path: &str, pool: &Pool, found: &mut Vec<Finding>) {
    backends(path, pool, found);
    let addresses = pool.origins.addresses.iter().map(ToString::to_string);
    let addresses: Vec<_> = addresses.collect();
    let sources = addresses.iter().enumerate();
    let sources = sources.map(|(i, source)| (format!("{path}.source[{i}]"), &**source));
    unique(("source: listed twice:", ": leave one out"), sources, found);
    numbers::find(path, pool, found);
    if let Strategy::TwoTier(tiers) = &pool.strategy {
        two_tier(path, pool, tiers, found);
    }
    if let Some(ejection) = pool.ejection.filter(|its| its.max < its.base) {
        let (max, base) = (written(ejection.max), written(ejection.base));
        let sentence =
            format!("invalid `max` `{max}`: expected at least the first ejection, {base}");
        found.push(Finding::at(format!("{path}.ejection.max"), sentence));
    }
    if let Some(tls) = &pool.tls
        && tls.sni.is_none()
        && tls.verify != Verify::Off
        && pool
            .backends
            .iter()
            .any(|its| matches!(its.address, Address::Unix(_)))
    {
        let sentence = "tls: a Unix socket has no name to verify a certificate for: set `sni`";
        found.push(Finding::at(format!("{path}.tls"), sentence));
    }
    unverified_lists(path, pool, found);
    if let Some(check) = &pool.check
        && check.timeout > check.shortest_interval()
    {
        let (timeout, shortest) = (written(check.timeout), written(check.shortest_interval()));
        let sentence = format!(
            "invalid `timeout` `{timeout}`: expected at most the shortest interval of probes, \
             {shortest}: lower `timeout`, or raise the interval"
        );
        found.push(Finding::at(format!("{path}.check.timeout"), sentence));
    }
    if let Some(scaling) = pool.scaling.as_ref().filter(|its| its.low > its.high / 2) {
        let sentence = format!(
            "invalid `low` `{}`: expected at most half of `high`, {}: the pool would grow and \
             shrink in turn",
            scaling.low,
            scaling.high / 2
        );
        found.push(Finding::at(format!("{path}.scaling.low"), sentence));
    }
}

/// Listeners, and the balancer's own servers, each on an address of its own.
fn listeners(config: &Config, found: &mut Vec<Finding>) {
    let listeners = &config.listeners;
    let servers = servers(config);
    let binds = listeners.iter().map(|listener| &listener.bind);
    let binds: Vec<_> = binds.chain(servers.iter().map(|(_, bind)| bind)).collect();
    let mut names = Vec::new();
    let mut earlier = HashMap::new();
    for (i, listener) in listeners.iter().enumerate() {
        if listener.bind == stand_in() {
            continue;
        }
        let overlap = first_overlap(i, &binds, &mut earlier);
        if let Some((j, both)) = overlap {
            let sentence = format!(
                "two listeners share the address {}: leave one out",
                shared(both)
            );
            let clash = Finding::at(format!("listeners[{i}].bind"), sentence);
            found.push(clash.clashing(format!("listeners[{j}].bind")));
        }
        // The name of a second listener on one address needs no complaint of its own.
        if overlap.is_none_or(|(_, (wide, narrow))| wide != narrow) {
            names.push((i, &*listener.name));
        }
    }
    for (k, (setting, _)) in servers.iter().enumerate() {
        if let Some((j, both)) = first_overlap(listeners.len() + k, &binds, &mut earlier) {
            let sentence = format!(
                "two servers of this balancer share the address {}: give one of them another",
                shared(both)
            );
            let other = j
                .checked_sub(listeners.len())
                .map(|j| servers[j].0.to_owned());
            let other = other.unwrap_or_else(|| format!("listeners[{j}].bind"));
            found.push(Finding::at(*setting, sentence).clashing(other));
        }
    }
    let names = names.into_iter();
    let at = |i| format!("listeners[{i}].name|listeners[{i}].bind");
    let names = names.map(|(i, name)| (at(i), name));
    unique(("two listeners are called", RENAME), names, found);
}

/// The addresses of the balancer's own servers, by the paths of their settings.
fn servers(config: &Config) -> Vec<(&'static str, Address)> {
    let admin = config.admin.as_ref();
    let socket = admin.and_then(|admin| admin.socket.clone());
    let socket = socket.map(|path| ("admin.socket|admin", Address::Unix(path)));
    let http = admin.and_then(|admin| admin.http.as_ref());
    let http = http.map(|http| ("admin.http.bind", Address::Tcp(http.bind)));
    let metrics = config.metrics.as_ref();
    let metrics = metrics.map(|metrics| ("metrics.bind|metrics", Address::Tcp(metrics.bind)));
    let peers = config.fleet.as_ref().and_then(|fleet| fleet.peers.as_ref());
    let peers = peers.map(|peers| ("fleet.peers.listen", Address::Tcp(peers.listen)));
    let all = [socket, http, metrics, peers];
    all.into_iter().flatten().collect()
}

/// The address that two have in common.
fn shared((wide, narrow): (&Address, &Address)) -> String {
    if wide == narrow {
        format!("`{narrow}`")
    } else {
        format!("`{narrow}`, which `{wide}` includes")
    }
}

/// What listeners with overlapping addresses have in common.
#[derive(PartialEq, Eq, Hash)]
enum Common<'a> {
    Path(&'a Path),
    Port(u16),
    /// Its canonical form.
    Ip(u16, IpAddr),
}

/// The first earlier address that overlaps the i-th one, by its index, and the two addresses. It
/// compares only those with a common key: there may be thousands of listeners.
fn first_overlap<'a>(
    i: usize,
    binds: &[&'a Address],
    earlier: &mut HashMap<Common<'a>, Vec<usize>>,
) -> Option<(usize, (&'a Address, &'a Address))> {
    let bind = binds[i];
    let (own, others) = match bind {
        Address::Unix(path) => (vec![Common::Path(path)], vec![Common::Path(path)]),
        // A free port each time.
        Address::Tcp(address) if address.port() == 0 => return None,
        Address::Tcp(address) => {
            let (port, ip) = (address.port(), address.ip().to_canonical());
            let others = if ip.is_unspecified() {
                vec![Common::Port(port)]
            } else {
                let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
                let ips = [ip].into_iter().chain(any);
                ips.map(|ip| Common::Ip(port, ip)).collect()
            };
            (vec![Common::Port(port), Common::Ip(port, ip)], others)
        }
    };
    let overlaps = others.iter().filter_map(|common| {
        let mut others = earlier.get(common)?.iter();
        others.find_map(|j| Some((*j, binds[*j].overlap(bind)?)))
    });
    let first = overlaps.min_by_key(|(j, _)| *j);
    for common in own {
        earlier.entry(common).or_default().push(i);
    }
    first
}

/// Refuses a value that an earlier item has already: what begins the sentence, and what ends it.
fn unique<'a>(
    (what, remedy): (&str, &str),
    all: impl Iterator<Item = (String, &'a str)>,
    found: &mut Vec<Finding>,
) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for (path, shared) in all.filter(|(_, shared)| !shared.is_empty()) {
        if let Some(first) = seen.get(shared) {
            let sentence = format!("{what} `{shared}`{remedy}");
            found.push(Finding::at(path, sentence).clashing(first));
        } else {
            seen.insert(shared, path);
        }
    }
}

fn backends(path: &str, pool: &Pool, found: &mut Vec<Finding>) {
    let at = format!("{path}.backends");
    let count = pool.backends.len();
    if count > BACKENDS_MAX {
        let sentence = format!("invalid backends: expected at most {BACKENDS_MAX}, not {count}");
        found.push(Finding::at(&at, sentence));
    }
    if let Some(sentence) = nothing_to_select(pool) {
        found.push(Finding::at(&at, sentence));
    }
    let has_reserve = pool.backends.last().is_some_and(|last| last.reserve);
    let scaling = format!("{path}.scaling");
    if pool.scaling.is_some() && !has_reserve {
        let sentence = "scaling: there is no `reserve` of backends to grow by";
        found.push(Finding::at(&scaling, sentence));
    } else if pool.scaling.is_none() && has_reserve {
        let sentence = "reserve: without `scaling` it is never brought in";
        found.push(Finding::at(format!("{path}.reserve"), sentence).needing(&scaling));
    }
    let members: Vec<_> = members(path, pool).collect();
    let mut seen = HashMap::new();
    let mut names = Vec::new();
    for (at, backend) in &members {
        let (name, target) = (&*backend.name, backend.target());
        let Some((first, other)) = seen.insert(target, (at, name)) else {
            names.push((format!("{at}.name|{at}.address"), name));
            continue;
        };
        let sentence = if name == other {
            format!("the address `{target}` is listed twice in the pool: leave one out")
        } else {
            format!(
                "two backends of the pool, `{other}` and `{name}`, are at the address `{target}`: \
                 leave one out"
            )
        };
        let clash = Finding::at(format!("{at}.address"), sentence);
        found.push(clash.clashing(format!("{first}.address")));
    }
    let what = "two backends of the pool are called";
    unique((what, RENAME), names.into_iter(), found);
}

/// Why no backend of a pool can be selected, if none can.
pub(super) fn nothing_to_select(pool: &Pool) -> Option<&'static str> {
    let mut declared = pool.backends.iter().filter(|one| !one.reserve).peekable();
    if pool.discovery.is_some() {
        None // Those that are discovered may be all.
    } else if declared.peek().is_none() {
        Some("backends: expected at least one")
    } else {
        let is_off = declared.all(|one| one.weight == 0);
        is_off.then_some("backends: every weight is 0, so that none is ever selected")
    }
}

/// The backends that have an address, with their paths.
fn members<'a>(path: &str, pool: &'a Pool) -> impl Iterator<Item = (String, &'a Backend)> {
    let declared = pool.backends.iter().filter(|one| !one.reserve).count();
    let all = pool.backends.iter().enumerate();
    let all = all.filter(|(_, backend)| backend.address != stand_in());
    all.map(move |(i, backend)| {
        let at = match i.checked_sub(declared) {
            None => format!("{path}.backends[{i}]"),
            Some(i) => format!("{path}.reserve[{i}]"),
        };
        (at, backend)
    })
}

/// The backends of a pool without a path that these findings are about, by name, each with its
/// first sentence.
pub(super) fn members_found<'a>(pool: &'a Pool, found: &'a [Finding]) -> HashMap<&'a str, &'a str> {
    let names: HashMap<_, _> = members("", pool)
        .map(|(at, one)| (at, &*one.name))
        .collect();
    let mut about = HashMap::new();
    for finding in found {
        let end = finding.path.find(']').map_or(0, |end| end + 1);
        if let Some(name) = names.get(&finding.path[..end]) {
            about.entry(*name).or_insert(&*finding.sentence);
        }
    }
    about
}

fn two_tier(path: &str, pool: &Pool, tiers: &TwoTier, found: &mut Vec<Finding>) {
    let groups = &pool.groups()[..];
    let strategy = format!("{path}.strategy");
    match &tiers.first {
        FirstTier::Hash { subset, .. } if !groups.is_empty() && *subset != SUBSET => {
            let sentence = format!("subset: {NO_SUBSET}");
            found.push(Finding::at(format!("{strategy}.subset"), sentence));
        }
        first @ (FirstTier::Weight | FirstTier::Priority) if groups.is_empty() => {
            let sentence = format!(
                "first: `{}` picks a group: say with each backend which it is in, such as \
                 group: \"a\"",
                first.name()
            );
            let needed = format!("{strategy}.groups");
            found.push(Finding::at(format!("{strategy}.first"), sentence).needing(needed));
        }
        FirstTier::Hash { .. } | FirstTier::Weight | FirstTier::Priority => {}
    }
    let names = groups.iter().enumerate();
    let names = names.map(|(i, group)| (format!("{strategy}.groups[{i}].name"), &*group.name));
    unique(("two groups of the pool are called", RENAME), names, found);
    let members: Vec<_> = members(path, pool).collect();
    if members.iter().any(|(_, one)| one.group.is_some()) {
        for (at, _) in members.iter().filter(|(_, one)| one.group.is_none()) {
            let sentence = "missing field `group`: other backends of the pool have one";
            found.push(Finding::at(format!("{at}.group"), sentence));
        }
    }
    // If a group's name was refused, its backends are not at fault.
    if groups.iter().all(|group| !group.name.is_empty()) {
        match_groups(path, groups, &members, found);
    }
}

/// Refuses backends in other groups than these, and groups without a backend.
fn match_groups(
    path: &str,
    groups: &[Group],
    members: &[(String, &Backend)],
    found: &mut Vec<Finding>,
) {
    let before = found.len();
    let names: HashSet<_> = groups.iter().map(|group| &*group.name).collect();
    for (at, backend) in members {
        let Some(name) = &backend.group else { continue };
        if !names.contains(&**name) {
            // No more than these are shown, and each hint compares with each group.
            let is_shown = found.len() - before < SHOWN_MAX;
            let near = groups.iter().filter(|_| is_shown);
            let hint = known(name, near.map(|group| &*group.name));
            let sentence = format!("group: there is no group called `{name}`{hint}");
            found.push(Finding::at(format!("{at}.group"), sentence));
        }
    }
    // A group may be empty for a slip in a backend's.
    if found.len() > before {
        return;
    }
    let used: HashSet<_> = members
        .iter()
        .filter_map(|(_, one)| one.group.as_deref())
        .collect();
    for (i, group) in groups.iter().enumerate() {
        if !used.contains(&*group.name) {
            let sentence = format!("groups: no backend is in the group `{}`", group.name);
            let at = format!("{path}.strategy.groups[{i}].name");
            found.push(Finding::at(at, sentence).needing(format!("{path}.backends")));
        }
    }
}

/// What to do about two of one name.
const RENAME: &str = ": leave one out, or give it another `name`";

/// Backends that a pool may name; it can discover some more. They are counted in 16 bits.
const BACKENDS_MAX: usize = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_overlap_is_that_of_all_pairs() {
        let mut rng = fastrand::Rng::with_seed(1);
        let hosts = [
            "0.0.0.0",
            "127.0.0.1",
            "127.0.0.2",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[fe80::1%1]",
            "[fe80::1%2]",
        ];
        for _ in 0..500 {
            let address = |_| match rng.u8(..8) {
                0 => format!("unix:/{}", rng.u8(..3)),
                _ => format!("{}:{}", hosts[rng.usize(..hosts.len())], rng.u8(..4)),
            };
            let texts: Vec<String> = (0..8).map(address).collect();
            let all: Vec<Address> = texts.iter().map(|text| text.parse().unwrap()).collect();
            let binds: Vec<_> = all.iter().collect();
            let mut earlier = HashMap::new();
            for (i, bind) in all.iter().enumerate() {
                let mut pairs = all[..i].iter().enumerate();
                let want = pairs.find_map(|(j, one)| Some((j, one.overlap(bind)?)));
                assert_eq!(
                    first_overlap(i, &binds, &mut earlier),
                    want,
                    "{texts:?} {i}"
                );
            }
        }
    }
}
