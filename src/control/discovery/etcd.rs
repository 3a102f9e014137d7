//! Backends in etcd: the rest of a key after the prefix is the name of a backend, and its value the
//! backend as a JSON object, with the settings that a file has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::address::Address;
use crate::config::{Backend, BodyError, Etcd, values};
use crate::control::etcd::Watch;
use crate::control::remote::{Keys, Mistakes, RemoteCounts, WatchPace};

use super::keyed;
use super::news::{BACKENDS_MAX, Teller};

/// Follows the keys under a prefix, and sends each change.
pub(super) async fn follow(
    source: Etcd,
    teller: Teller,
    pace: WatchPace,
    again: Arc<Notify>,
    counts: Arc<RemoteCounts>,
) {
    let watch = Watch::new(&source, (backend, BACKENDS_MAX), pace, &counts);
    let all = format!("keys under `{}`", source.prefix);
    let keys = Keys::new(("key", all), &source.prefix, BACKENDS_MAX);
    keyed::follow(watch, keys, backends, teller, again).await;
}

/// The backends: of two keys with one address, the later one counts.
fn backends(keys: &Keys<Backend>, mistakes: &mut Mistakes) -> Vec<Backend> {
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
    backends.map(|(_, _, backend)| backend.clone()).collect()
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
