//! Backends in Consul: the instances of a service.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{Backend, Consul};
use crate::control::consul::{ConsulWatch, Instance};
use crate::control::remote::{Keys, Mistakes, RemoteCounts, WatchPace};

use super::dns::weights_of;
use super::keyed::{self, distinct};
use super::news::Teller;

/// Follows the instances of a service, and sends each change.
pub(super) async fn follow(
    source: Consul,
    teller: Teller,
    pace: WatchPace,
    again: Arc<Notify>,
    counts: Arc<RemoteCounts>,
) {
    let watch = ConsulWatch::new(&source, pace, &counts);
    keyed::follow(watch, keys(&source), backends, teller, again).await;
}

/// No instance is known yet.
fn keys(source: &Consul) -> Keys<Instance> {
    let all = format!("instances of service `{}`", source.service);
    Keys::new(("instance", all), "", usize::MAX)
}

/// The backends: their names are their addresses, as an id is unique on its node alone.
fn backends(keys: &Keys<Instance>, mistakes: &mut Mistakes) -> Vec<Backend> {
    let instances: Vec<_> = keys.good().map(|(_, _, instance)| instance).collect();
    let weights: Vec<_> = instances.iter().map(|its| its.weight).collect();
    let weights = weights_of(&weights);
    let backends = distinct(instances.iter().zip(weights).map(|(its, weight)| Backend {
        weight,
        state: its.state,
        ..Backend::at(its.address.clone())
    }));
    if keys.is_empty() {
        mistakes.add(|| format!("no {}", keys.all()));
    }
    backends
}

#[cfg(test)]
mod tests;
