//! Kubernetes: the EndpointSlices of a Service (`/apis/discovery.k8s.io/v1`).
//!
//! A [`Watch`] lists the slices and then follows their changes. A watch that ends in order goes on
//! from where it was; after a disconnect, and when its version has expired, all slices are listed
//! again. All of it runs on the thread of [`super::remote`].

mod slice;
mod watch;
mod wire;

use std::env;

use super::remote;
use crate::config::{Kubernetes, Server};

pub(super) use slice::{Endpoint, Slice};
pub(super) use watch::{KubernetesWatch, SLICES_MAX};

/// What is wrong with the files of a source, by the name of the setting, if anything. May take
/// long.
pub(super) fn mistake_in(source: &Kubernetes) -> Option<(&'static str, String)> {
    let token = source.token_path().map(|path| ("token_file", path));
    remote::mistake_in(&server(source), token)
}

/// How a source is reached: in a cluster, by what that says.
fn server(source: &Kubernetes) -> Server {
    let server = source.server();
    match source.is_in_cluster() {
        true => Server {
            endpoints: vec![in_cluster(|name| env::var(name).ok())],
            ..server
        },
        false => server,
    }
}

/// The API server of the cluster in which this process runs.
fn in_cluster(variable: impl Fn(&str) -> Option<String>) -> String {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let Some(host) = variable("KUBERNETES_SERVICE_HOST") else {
        return IN_CLUSTER.to_owned();
    };
    let host = match host.contains(':') {
        true => format!("[{host}]"),
        false => host,
    };
    match variable("KUBERNETES_SERVICE_PORT") {
        Some(port) => format!("https://{host}:{port}"),
        None => format!("https://{host}"),
    }
}

/// The name of the API server in the DNS of a cluster.
const IN_CLUSTER: &str = "https://kubernetes.default.svc";

#[cfg(test)]
mod tests;
