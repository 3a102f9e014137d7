//! What etcd, Consul and Kubernetes have in common as sources of backends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::address::Address;
use crate::config::{AdminState, Backend};
use crate::control::remote::{self, Gathered, Keys, Mistakes, Rounds, STEPS};

use super::news::BACKENDS_MAX;
use super::{Found, Teller};

/// Makes backends of good values, and adds what is wrong with them.
pub(super) type ToBackends<T> = fn(&Keys<T>, &mut Mistakes) -> Vec<Backend>;

/// Follows what a server has, and sends each change, several together where they come fast. After a
/// notification it sends what there is, changed or not. It runs on the thread of `remote`.
pub(super) async fn follow<T: Send>(
    rounds: impl Rounds<T>,
    keys: Keys<T>,
    reader: ToBackends<T>,
    teller: Teller,
    again: Arc<Notify>,
) {
    let (steps, news) = mpsc::channel(STEPS);
    let mut gathered = Gathered::new(keys, news, Arc::clone(&again));
    let send = async {
        while let Some(keys) = gathered.changed().await {
            let next = keys.failure().map(|(_, next)| *next);
            let (found, error) = answer(keys, reader);
            teller.tell(found, error, next).await;
        }
    };
    tokio::select! {
        () = remote::follow(rounds, steps, again) => {}
        () = send => {}
    }
}

/// The backends, and what is wrong. Without a backend the last good set stays.
pub(super) fn answer<T>(keys: &Keys<T>, reader: ToBackends<T>) -> (Option<Found>, Option<String>) {
    if let Some((why, _)) = keys.failure() {
        return (None, Some(why.clone()));
    }
    let mut mistakes = keys.mistakes();
    let backends = reader(keys, &mut mistakes);
    if backends.len() > BACKENDS_MAX {
        mistakes.add(|| format!("more than {BACKENDS_MAX} backends: others are left out"));
    }
    let found = (!backends.is_empty()).then(|| Found::of(backends));
    (found, mistakes.sentence())
}

/// One backend for each address: of several, one that is ready, and then the one that gets more
/// clients.
pub(super) fn distinct(all: impl Iterator<Item = Backend>) -> Vec<Backend> {
    let mut by_address: HashMap<Address, Backend> = HashMap::new();
    let rank = |its: &Backend| (its.state == AdminState::Ready, its.weight);
    for backend in all {
        match by_address.entry(backend.address.clone()) {
            Entry::Vacant(place) => {
                place.insert(backend);
            }
            Entry::Occupied(mut other) if rank(other.get()) < rank(&backend) => {
                other.insert(backend);
            }
            Entry::Occupied(_) => {}
        }
    }
    by_address.into_values().collect()
}
