//! Warnings about settings of listeners that have no effect without routes, and about conditions
//! of routes that no client meets.

use std::net::IpAddr;

use super::{Finding, needs_bytes};
use crate::config::{Config, Listener, PostgresTls, Route, Timeouts, values};
use crate::peek::{NamePattern, Protocol};

pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    for (i, listener) in config.listeners.iter().enumerate() {
        for (j, route) in listener.routes.iter().enumerate() {
            for (condition, sentence) in unmet(route) {
                let at = format!("listeners[{i}].routes[{j}].{condition}");
                found.push(Finding::at(at, sentence));
            }
        }
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

/// The values of a route that no client has, as what was meant is written otherwise.
fn unmet(route: &Route) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (k, path) in route
        .http_path
        .iter()
        .enumerate()
        .filter(|(_, path)| path.contains('*'))
    {
        let sentence = format!(
            "http_path: a `*` in `{path}` is that character alone: each path that begins with the \
             value is taken, as by \"/api/\""
        );
        found.push((format!("http_path[{k}]"), sentence));
    }
    for (k, name) in route.sni.iter().enumerate() {
        if let NamePattern::Exact(name) = name
            && is_ip(name)
        {
            let sentence = format!(
                "sni: no client asks for `{name}`: TLS has names of hosts there, and a client of \
                 an IP address sends none (RFC 6066, section 3)"
            );
            found.push((format!("sni[{k}]"), sentence));
        }
    }
    for (k, name) in route.alpn.iter().enumerate() {
        if let Some(meant) = offered(name) {
            let sentence = format!("alpn: no client offers `{name}`, did you mean `{meant}`?");
            found.push((format!("alpn[{k}]"), sentence));
        }
    }
    found
}

fn is_ip(name: &str) -> bool {
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(name).parse::<IpAddr>().is_ok()
}

/// The protocol that clients offer (IANA's ALPN protocol IDs), for another spelling of it.
fn offered(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let meant = match &*lower {
        "h2" | "http2" | "http/2" | "http2.0" | "http/2.0" => "h2",
        "h3" | "http3" | "http/3" | "http/3.0" => "h3",
        "http" | "http1" | "http/1" | "http1.1" | "http/1.1" | "h1" => "http/1.1",
        "http1.0" | "http/1.0" => "http/1.0",
        "acme" | "acme-tls" | "acme-tls/1" => "acme-tls/1",
        _ => return None,
    };
    (meant != name).then_some(meant)
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
