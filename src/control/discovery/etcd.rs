//! Backends in etcd: the rest of a key after the prefix is the name of a backend, and its value the
//! backend as a JSON object, with the settings that a file has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::address::Address;
use crate::config::{Backend, BodyError, Etcd, values};
use crate::control::etcd::Watch;
use crate::control::remote::{self, Gathered, Keys, RemoteCounts, STEPS, WatchPace};

use super::news::BACKENDS_MAX;
use super::{Found, Teller};

/// Follows the keys under a prefix, and sends each change, several together where they come fast.
/// After a notification it sends what there is, changed or not. It runs on the thread of `remote`.
pub(super) async fn follow(
    source: Etcd,
    teller: Teller,
    pace: WatchPace,
    again: Arc<Notify>,
    counts: Arc<RemoteCounts>,
) {
    let (steps, news) = mpsc::channel(STEPS);
    let watch = Watch::new(&source, (backend, BACKENDS_MAX), pace, &counts);
    let keys = Keys::new(
        ("key", format!("keys under `{}`", source.prefix)),
        &source.prefix,
        BACKENDS_MAX,
    );
    let mut gathered = Gathered::new(keys, news, Arc::clone(&again));
    let send = async {
        while let Some(keys) = gathered.changed().await {
            let next = keys.failure().map(|(_, next)| *next);
            let (found, error) = answer(keys);
            teller.tell(found, error, next).await;
        }
    };
    tokio::select! {
        () = remote::follow(watch, steps, again) => {}
        () = send => {}
    }
}

/// The backends, and what is wrong. Without a backend the last good set stays.
fn answer(keys: &Keys<Backend>) -> (Option<Found>, Option<String>) {
    if let Some((why, _)) = keys.failure() {
        return (None, Some(why.clone()));
    }
    let mut mistakes = keys.mistakes();
    // Of two keys with one address, the later one counts.
    let mut by_address: HashMap<&Address, (&str, i64, &Backend)> = HashMap::new();
    for (key, revision, backend) in keys.good() {
        match by_address.entry(&backend.address) {
            Entry::Vacant(place) => {
                place.insert((key, revision, backend));
            }
            Entry::Occupied(mut other) => {
                let (first, known, _) = *other.get();
                let is_later = revision > known;
                let [left_out, later] = if is_later { [first, key] } else { [key, first] };
                mistakes.add(|| {
                    format!(
                        "key `{0}{left_out}`: it is left out, as `{0}{later}` was written later \
                         and has the same address, {1}",
                        keys.prefix(),
                        backend.address
                    )
                });
                if is_later {
                    other.insert((key, revision, backend));
                }
            }
        }
    }
    if keys.is_empty() {
        mistakes.add(|| format!("no key under `{}`", keys.prefix()));
    }
    let backends = by_address.into_values();
    let backends: Vec<_> = backends.map(|(_, _, backend)| backend.clone()).collect();
    let found = (!backends.is_empty()).then(|| Found::of(backends));
    (found, mistakes.sentence())
}

/// Reads the value of a key. Host names are refused, as no task resolves them.
fn backend(name: &str, value: &[u8]) -> Result<Backend, String> {
    let name = values::name(name).map_err(|error| error.about("name", name))?;
    if name.contains('/') {
        return Err(format!("invalid name `{name}`: expected no `/` in it"));
    }
    let read = Backend::read(value).map_err(|error| match error {
        BodyError::Malformed(why) => why.replacen("invalid body", "invalid value", 1),
        BodyError::Invalid(why) => why,
    })?;
    if let Some(host) = &read.host {
        return Err(format!(
            "invalid address `{host}`: expected IPv4:port, [IPv6]:port or unix:/path; names are \
             for discovery by `dns`"
        ));
    }
    if ![&*name, &*read.address.to_string()].contains(&&*read.name) {
        return Err(format!(
            "invalid `name` `{}`: expected that of the key, `{name}`, or none",
            read.name
        ));
    }
    for (setting, is_given) in [
        ("group", read.group.is_some()),
        ("member", read.member.is_some()),
    ] {
        if is_given {
            return Err(format!(
                "{setting}: expected none, as the backend is discovered"
            ));
        }
    }
    Ok(Backend { name, ..read })
}

#[cfg(test)]
mod tests;
