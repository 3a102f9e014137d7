//! The figures of Consul and Kubernetes.

use super::figure::{Figure, Value, each, each_now};
use crate::admin::model::{RegistryStatus, Status};

pub(super) fn figures() -> Vec<Figure<Status>> {
    vec![
        each_now(
            "registry_services",
            "Services of Consul and Kubernetes that are followed.",
            "registry",
            |its| both(its, |registry| registry.services),
        ),
        each_now(
            "registry_watched",
            "Those of them whose changes arrive now.",
            "registry",
            |its| both(its, |registry| registry.watched),
        ),
        each(
            "registry_requests",
            "Requests to Consul and Kubernetes.",
            "registry",
            |its| both(its, |registry| registry.requests),
        ),
        each(
            "registry_failures",
            "Their endpoints that failed, each time that one was left for another.",
            "registry",
            |its| both(its, |registry| registry.failures),
        ),
        each(
            "registry_lists",
            "How often all of a service of Consul or Kubernetes was listed.",
            "registry",
            |its| both(its, |registry| registry.lists),
        ),
        each(
            "registry_changes",
            "Changes of services of Consul and Kubernetes that arrived.",
            "registry",
            |its| both(its, |registry| registry.changes),
        ),
    ]
}

fn both(status: &Status, of: fn(&RegistryStatus) -> u64) -> Vec<(String, Value)> {
    let all = [
        ("consul", &status.consul),
        ("kubernetes", &status.kubernetes),
    ];
    let all = all.map(|(name, its)| (name.to_owned(), Value::Whole(of(its))));
    all.into()
}
