//! Warnings about settings of listeners that have no effect without routes.

use super::{Finding, needs_bytes};
use crate::config::{Config, Listener, PostgresTls, Route, Timeouts, values};
use crate::peek::Protocol;

pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        if let Some(sentence) = server_first(config, listener) {
            let at = format!("listeners[{i}].timeouts.server_first|defaults.timeouts.server_first");
            found.push(Finding::at(at, sentence));
        }
        let passes = listener.postgres_tls == PostgresTls::Answer && listener.tls.is_none();
        if passes && !hello_counts(config, listener) {
            let sentence = "postgres_tls: no route and no pool of the listener asks for what is in \
                            the hello: add a route with `sni`, or leave the request to the backend";
            found.push(Finding::at(
                format!("listeners[{i}].postgres_tls"),
                sentence,
            ));
        }
        protocols(i, listener, found);
    }
}

/// Application protocols of a listener that ends TLS which its routes can do nothing with.
fn protocols(i: usize, listener: &Listener, found: &mut Vec<Finding>) {
    let Some(tls) = &listener.tls else {
        return;
    };
    let reads_http = |route: &Route| !route.http_host.is_empty() || !route.http_path.is_empty();
    let reads_http = listener.routes.iter().any(reads_http);
    if reads_http && tls.alpn.iter().any(|name| name == "h2") {
        let sentence = "alpn: a client that agrees on \"h2\" speaks HTTP/2, whose requests are not \
                        read, so that no route by `http_host` or `http_path` takes it: leave out \
                        \"h2\"";
        found.push(Finding::at(format!("listeners[{i}].tls.alpn"), sentence));
    }
    for (j, route) in listener.routes.iter().enumerate() {
        let mut all = route.alpn.iter();
        if let Some(name) = all.find(|name| !tls.alpn.contains(name)) {
            let sentence = format!(
                "alpn: TLS ends here and never agrees on \"{name}\", which is not in `alpn` of the \
                 listener's `tls`: add it there, or leave it out"
            );
            let at = format!("listeners[{i}].routes[{j}].alpn");
            found.push(Finding::at(at, sentence));
        }
    }
}

/// A time for silent clients that no route takes.
fn server_first(config: &Config, listener: &Listener) -> Option<String> {
    let own = listener.timeouts.server_first;
    let takes = |listener: &Listener| listener.routes.iter().any(Route::asks_for_silence);
    // One of `defaults` may be there for another listener.
    let is_shared = |other: &Listener| takes(other) && other.timeouts.server_first == own;
    if own == Timeouts::default().server_first
        || takes(listener)
        || config.listeners.iter().any(is_shared)
    {
        return None;
    }
    Some(format!(
        "timeouts.server_first: {} does nothing: no route of the listener has \
         protocol: [\"server_first\"]",
        values::written(own)
    ))
}

/// Whether something asks for what is in the hello of TLS.
fn hello_counts(config: &Config, listener: &Listener) -> bool {
    let asks = |route: &Route| {
        let by_name = !route.sni.is_empty() || !route.alpn.is_empty();
        by_name || route.protocol.contains(&Protocol::Tls) || route.needs_key_of_bytes()
    };
    let mut pools = listener.pools().map(|pool| &config.pools[pool]);
    listener.routes.iter().any(asks) || pools.any(|pool| needs_bytes(pool))
}
