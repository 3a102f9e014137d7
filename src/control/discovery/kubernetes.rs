//! Backends in Kubernetes: the endpoints in the slices of a Service.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{AdminState, Backend, Kubernetes};
use crate::control::kubernetes::{Endpoint, KubernetesWatch, SLICES_MAX, Slice};
use crate::control::remote::{Keys, Mistakes, RemoteCounts, WatchPace};

use super::keyed::{self, distinct};
use super::news::Teller;

/// Follows the slices of a Service, and sends each change.
pub(super) async fn follow(
    source: Kubernetes,
    teller: Teller,
    pace: WatchPace,
    again: Arc<Notify>,
    counts: Arc<RemoteCounts>,
) {
    let watch = KubernetesWatch::new(&source, pace, &counts);
    keyed::follow(watch, keys(&source), backends, teller, again).await;
}

/// No slice is known yet.
fn keys(source: &Kubernetes) -> Keys<Slice> {
    let Kubernetes {
        namespace, service, ..
    } = source;
    let all = format!("slices of Service `{namespace}/{service}`");
    Keys::new(("slice", all), &format!("{namespace}/"), SLICES_MAX)
}

/// The backends: those that are about to end drain. Where no endpoint is ready, they still take
/// clients, as they do for others inside the cluster.
fn backends(keys: &Keys<Slice>, mistakes: &mut Mistakes) -> Vec<Backend> {
    let slices = || keys.good().map(|(_, _, slice)| slice);
    let endpoints = || slices().flat_map(|slice| &slice.endpoints);
    let has_ready = endpoints().any(|its| its.is_ready);
    let backend = |its: &Endpoint| Backend {
        state: match its.is_ready || !has_ready {
            true => AdminState::Ready,
            false => AdminState::Drain,
        },
        ..Backend::at(its.address.clone())
    };
    let backends = distinct(endpoints().map(backend));
    if keys.is_empty() {
        mistakes.add(|| format!("no {}", keys.all()));
    } else if backends.is_empty() && !slices().any(|slice| slice.has_port) {
        mistakes.add(|| format!("the {} have no such port of TCP", keys.all()));
    } else if backends.is_empty() {
        mistakes.add(|| format!("the {} have no endpoint that is ready", keys.all()));
    }
    backends
}

#[cfg(test)]
mod tests;
