//! Reports the differences between two configurations or snapshots, as events and log lines.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::address::Address;
use crate::admin::model::EventKind;
use crate::by_name::ByName;
use crate::config::{self, Backend, Config, Target};
use crate::pool::{Pool, Service};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::wording::plural;

use super::events::{Events, Severity, Subject};
use super::in_force::InForce;
use super::roster::Roster;

/// Reports pools whose new sessions fail or go to backends that may not work, and when they are
/// served again.
pub(super) fn service(events: &Events, snapshot: &Snapshot, roster: &mut Roster) {
    for (plan, record) in snapshot.pools.iter().zip(&mut roster.pools) {
        let pool = plan.pool();
        // Failures come and go between two looks: they are for the alerts of the status.
        let service = match pool.service() {
            Service::Failing => Service::Usable,
            service @ (Service::Refused | Service::Panic | Service::Usable) => service,
        };
        if record.service.is_none() && pool.backends.is_empty() {
            // That it has no backend yet is no news, so the first one does not end anything.
            continue;
        }
        let before = record.service.replace(service).unwrap_or_default();
        if before == service {
            continue;
        }
        let about = Subject::pool(&pool.name);
        if before == Service::Panic {
            let (severity, message) = match service {
                Service::Usable | Service::Failing => {
                    (Severity::Info, "has enough usable backends again")
                }
                Service::Refused | Service::Panic => (Severity::Quiet, "panics no longer"),
            };
            let message = format!("pool `{}` {message}", pool.name);
            events.tell_one_of_many(severity, EventKind::PanicOver, about, message);
        }
        let (severity, kind) = match (before, service) {
            (_, Service::Refused) => (Severity::Warn, EventKind::PoolDown),
            (_, Service::Panic) => (Severity::Warn, EventKind::Panic),
            (Service::Refused, Service::Usable) => (Severity::Info, EventKind::PoolUp),
            (_, Service::Usable | Service::Failing) => continue,
        };
        events.tell_one_of_many(severity, kind, about, sentence(pool, service));
    }
}

/// Where the new sessions of a pool go, in a sentence. Callers hand over what they looked at, as
/// workers may change `Pool::service` meanwhile.
pub(super) fn sentence(pool: &Pool, service: Service) -> String {
    let (name, usable, all) = (&pool.name, pool.usable(), pool.backends.len());
    match service {
        Service::Refused if all == 0 => {
            format!("pool `{name}` has no backend: new sessions fail until one is added")
        }
        Service::Refused if all == 1 => {
            format!("pool `{name}` has no usable backend: new sessions fail until its only one is")
        }
        Service::Refused => format!(
            "pool `{name}` has no usable backend: new sessions fail until one of {all} is usable"
        ),
        Service::Panic => format!(
            "pool `{name}` panics: {usable} of {all} backends are usable, so all that are ready \
             get connections"
        ),
        Service::Failing => {
            let failures = pool.reachable().map(|one| one.tally.failures());
            let (count, least) = failures.fold((0, u32::MAX), |(count, least), one| {
                (count + 1, least.min(one))
            });
            let least = plural(least.into(), "time");
            let what = match count {
                1 if all == 1 => format!("its only backend has failed {least} in a row"),
                1 => format!("the only backend in rotation has failed {least} in a row"),
                _ => format!(
                    "each of its {count} backends in rotation has failed {least} in a row \
                     or more"
                ),
            };
            format!("pool `{name}` fails its clients: {what}")
        }
        Service::Usable => format!("pool `{name}` has usable backends again: {usable} of {all}"),
    }
}

/// Reports which host names of backends have another address than before.
pub(super) fn resolved(events: &Events, before: &Config, config: &Config) {
    let old_pools = by_name(before);
    for (place, pool) in config.pools.iter().enumerate() {
        let old = old_pools.get(place, &pool.name);
        // Most pools are as they were.
        if old.is_some_and(|old| Shared::is_same(old, pool)) {
            continue;
        }
        let old = old.map(|old| &old.backends);
        let has_hosts = pool.backends.iter().any(|its| its.host.is_some());
        if !has_hosts || old == Some(&pool.backends) {
            continue;
        }
        let old = old.into_iter().flatten();
        let old: HashMap<_, _> = old.map(|its| (&*its.name, its)).collect();
        let named = pool.backends.iter().filter(|its| its.host.is_some());
        for backend in named.filter(|its| its.is_resolved()) {
            let old = old.get(&*backend.name).copied();
            let old = old.filter(|old| old.target() == backend.target());
            let old = old.filter(|old| old.is_resolved());
            if old.is_none_or(|old| old.address != backend.address) {
                report_resolved(events, pool, backend, old);
            }
        }
    }
}

fn report_resolved(events: &Events, pool: &config::Pool, backend: &Backend, old: Option<&Backend>) {
    let (name, address) = (&backend.name, &backend.address);
    let message = match old {
        Some(old) => format!(
            "backend `{name}` of pool `{}` is at {address} now, no longer at {}",
            pool.name, old.address
        ),
        None => format!("backend `{name}` of pool `{}` is at {address}", pool.name),
    };
    let about = Subject::backend(&pool.name, name);
    events.tell_one_of_many(Severity::Info, EventKind::BackendResolved, about, message);
}

/// Reports backends whose host name has no address when it is first looked up.
pub(super) fn unresolved(events: &Events, in_force: &mut InForce) {
    let failed: HashSet<_> = in_force.discoveries.failed_hosts().into_iter().collect();
    if failed.is_empty() {
        return;
    }
    for pool in &in_force.config.pools {
        for backend in pool.backends.iter().filter(|its| !its.is_resolved()) {
            let host = backend.host.as_ref().map(|host| host.to_ascii_lowercase());
            let Some(host) = host.filter(|host| failed.contains(host)) else {
                continue;
            };
            let why = in_force.discoveries.host_error(&host).unwrap_or_default();
            let (name, of) = (&backend.name, &pool.name);
            let message = format!("backend `{name}` of pool `{of}` has no address: {why}");
            let about = Subject::backend(of, name);
            let kind = EventKind::BackendUnresolved;
            events.tell_one_of_many(Severity::Quiet, kind, about, message);
        }
    }
}

/// Reports listeners and backends that were added or removed.
pub(super) fn differences(events: &Events, before: &Config, config: &Config) {
    let [old, new] = [before, config].map(listeners);
    for (kind, here, there, verb) in [
        (EventKind::ListenerAdded, &new, &old, "is added"),
        (EventKind::ListenerRemoved, &old, &new, "is removed"),
    ] {
        for (name, bind) in here.difference(there) {
            let message = format!("listener `{name}` on {bind} {verb}");
            events.tell_one_of_many(Severity::Quiet, kind, Subject::default(), message);
        }
    }
    let [old, new] = [(before, config), (config, before)].map(|(one, other)| {
        let others = by_name(other);
        let pools = one.pools.iter().enumerate();
        backends(pools.filter_map(|(place, pool)| {
            let other = others.get(place, &pool.name);
            let is_same = |other| Shared::is_same(other, pool) || other.backends == pool.backends;
            (!other.is_some_and(is_same)).then_some(pool)
        }))
    });
    for (kind, here, there, verb) in [
        (EventKind::BackendAdded, &new, &old, "joins"),
        (EventKind::BackendRemoved, &old, &new, "leaves"),
    ] {
        let differ: Vec<_> = here.difference(there).collect();
        // Discovery can find hundreds at once: then one line stands for all.
        let severity = if differ.len() > SINGLE_LINES {
            log::info!("{} backends: each {verb} its pool", differ.len());
            Severity::Quiet
        } else {
            Severity::Info
        };
        if differ.len() > SINGLE_EVENTS {
            for of_pool in differ.chunk_by(|(one, ..), (next, ..)| one == next) {
                let (pool, ..) = of_pool[0];
                let message = format!("{} backends: each {verb} pool `{pool}`", of_pool.len());
                events.tell(severity, kind, Subject::pool(pool), message);
            }
            continue;
        }
        for (pool, name, address) in differ {
            let message = format!("backend `{name}` at {address} {verb} pool `{pool}`");
            let about = Subject::backend(pool, name);
            events.tell(severity, kind, about, message);
        }
    }
}

fn listeners(config: &Config) -> BTreeSet<(&str, &Address)> {
    let listeners = config.listeners.iter();
    listeners.map(|its| (&*its.name, &its.bind)).collect()
}

fn by_name(config: &Config) -> ByName<'_, Shared<config::Pool>> {
    ByName::new(&config.pools, |pool| &pool.name)
}

/// The backends of these pools.
fn backends<'a>(
    pools: impl Iterator<Item = &'a Shared<config::Pool>>,
) -> BTreeSet<(&'a str, &'a str, Target<'a>)> {
    let all = pools.flat_map(|pool| {
        let backends = pool.backends.iter();
        backends.map(|its| (&*pool.name, &*its.name, its.target()))
    });
    all.collect()
}

/// Up to so many backends get a log line each.
const SINGLE_LINES: usize = 20;
/// Up to so many get an event each, as more would displace all others that are kept. Beyond, their
/// pools do.
const SINGLE_EVENTS: usize = 128;

#[cfg(test)]
mod tests {
    use super::super::events::Since;
    use super::*;
    use crate::config::{Listener, Pool};

    #[tokio::test]
    async fn many_backends_at_once_are_an_event_for_each_pool() {
        let pools = |count: u16| {
            let at = |port| {
                format!("127.0.0.1:{port}")
                    .parse()
                    .map(Backend::at)
                    .unwrap()
            };
            let backends: Vec<_> = (1..=count).map(at).collect();
            ["a", "b"]
                .map(|name| Pool::of(name, backends.clone()))
                .to_vec()
        };
        let config = |count| Config::of(Vec::<Listener>::new(), pools(count));
        for (count, expected) in [(64, 128), (65, 2)] {
            let events = Events::new();
            differences(&events, &config(0), &config(count));
            let mut watch = events.watch(Since::Recent(256));
            let first = watch.next().await.unwrap();
            events.push(crate::admin::model::BalancerEvent::default());
            let mut seen = 1;
            while watch.next().await.unwrap().kind == EventKind::BackendAdded {
                seen += 1;
            }
            assert_eq!(seen, expected);
            if expected == 2 {
                assert_eq!(first.message, "65 backends: each joins pool `a`");
                assert_eq!(first.pool.as_deref(), Some("a"));
            }
        }
    }
}
