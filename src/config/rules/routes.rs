//! The rules of a listener's routes.

use std::collections::HashSet;

use super::Finding;
use super::reach::Earlier;
use crate::address::Address;
use crate::config::route::REFUSE;
use crate::config::{
    Config, Listener, PostgresTls, ROUTE_POOLS_MAX, ROUTE_REGEXES_MAX, ROUTE_VALUES_MAX,
    ROUTES_MAX, Route, Tls,
};

/// The rules that the routes of a listener break; `at` is the listener's path.
pub(super) fn find(config: &Config, at: &str, listener: &Listener, found: &mut Vec<Finding>) {
    let routes = &listener.routes;
    if routes.is_empty() {
        return;
    }
    let sentence = beyond_limits([
        routes.len(),
        routes.iter().map(Route::values).sum(),
        routes.iter().map(|route| route.shares().count()).sum(),
        routes.iter().map(Route::regexes).sum(),
    ]);
    if let Some(sentence) = sentence {
        return found.push(Finding::at(format!("{at}.routes"), sentence));
    }
    for (place, route) in routes.iter().enumerate() {
        let path = format!("{at}.routes[{place}]");
        // Where proxies name them, clients have addresses.
        let has_addresses =
            matches!(listener.bind, Address::Tcp(_)) || !listener.accept_proxy.is_empty();
        if !has_addresses && !route.client.is_empty() {
            let sentence = "client: clients of a Unix socket have no address: leave it out";
            let finding = Finding::at(format!("{path}.client"), sentence);
            found.push(finding.needing(format!("{at}.bind")));
        }
        if !has_addresses && route.shares_by_address() {
            let sentence = "pools: clients of a Unix socket have no address, and would all go to \
                            one: name a `key`";
            let finding = Finding::at(format!("{path}.pools"), sentence);
            found.push(finding.needing(format!("{at}.bind")));
        }
        if listener.accept_proxy.is_empty() && !route.proxy_tlv.is_empty() {
            let sentence = "proxy_tlv: no header of a proxy is read here: set `accept_proxy` at \
                            the listener, or leave it out";
            let finding = Finding::at(format!("{path}.proxy_tlv"), sentence);
            found.push(finding.needing(format!("{at}.accept_proxy")));
        }
        let asks = |tls: &Tls| tls.clients.is_some();
        if !route.tls_client.is_empty() && !listener.tls.as_ref().is_some_and(asks) {
            let sentence = "tls_client: clients are asked for no certificate here: set `clients` \
                            of the listener's `tls`, or leave it out";
            let finding = Finding::at(format!("{path}.tls_client"), sentence);
            found.push(finding.needing(format!("{at}.tls")));
        }
        let asks = route.asks_postgres_for_names() && listener.tls.is_none();
        if asks && listener.postgres_tls == PostgresTls::Pass {
            let sentence = "protocol: the hello of PostgreSQL's clients is not looked at here: set \
                            `postgres_tls: \"answer\"` at the listener, or add \"tls\"";
            let finding = Finding::at(format!("{path}.protocol"), sentence);
            found.push(finding.needing(format!("{at}.postgres_tls")));
        }
        if listener.tls.is_none() {
            let beyond = route.beyond_one_protocol().into_iter();
            found.extend(beyond.map(|(setting, why)| {
                let finding = Finding::at(format!("{path}.{setting}"), format!("{setting}: {why}"));
                finding.needing(format!("{at}.tls"))
            }));
        }
    }
    find_earlier(at, listener, found);
    let ambiguous = config.pools.iter().position(|pool| pool.name == REFUSE);
    if let Some(pool) = ambiguous {
        let sentence =
            format!("a pool called `{REFUSE}` can't be told from the word in routes: rename it");
        let path = format!("pools[{pool}].name");
        // Of several listeners the first one says it.
        if found.iter().all(|finding| finding.sentence != sentence) {
            found.push(Finding::at(path, sentence));
        }
    }
}

/// The rules that routes break by those before them.
fn find_earlier(at: &str, listener: &Listener, found: &mut Vec<Finding>) {
    let routes = &listener.routes;
    let (mut earlier, mut names) = (Earlier::new(listener.tls.is_some()), HashSet::new());
    for (place, route) in routes.iter().enumerate() {
        let path = format!("{at}.routes[{place}]");
        if let Some(name) = &route.name
            && !names.insert(name)
        {
            let sentence = format!("two routes of the listener are called `{name}`: rename one");
            found.push(Finding::at(format!("{path}.name"), sentence));
        }
        if let Some(first) = earlier.taking_all_of(route) {
            let why = match routes[first].takes_all() {
                true => "has no condition and takes every client",
                false => "takes all of its clients",
            };
            let sentence = format!(
                "no client reaches this route, as route {} {why}: put this one before it, or \
                 leave it out",
                first + 1
            );
            let needs = format!("{at}.routes[{first}]|{path}");
            found.push(Finding::at(path, sentence).needing(needs));
        }
        earlier.add(place, route);
    }
}

/// The limit of a listener's routes that so many routes, values, pools and regular expressions are
/// beyond, in words.
pub(in crate::config) fn beyond_limits(counts: [usize; 4]) -> Option<String> {
    let [routes, values, pools, regexes] = counts;
    if routes > ROUTES_MAX || values > ROUTE_VALUES_MAX {
        return Some(format!(
            "routes: {routes} routes with {values} values: expected at most {ROUTES_MAX} routes \
             with {ROUTE_VALUES_MAX} values in all"
        ));
    }
    if pools > ROUTE_POOLS_MAX {
        return Some(format!(
            "routes: they lead to {pools} pools: expected at most {ROUTE_POOLS_MAX} in all"
        ));
    }
    (regexes > ROUTE_REGEXES_MAX).then(|| {
        format!(
            "routes: {regexes} regular expressions: expected at most {ROUTE_REGEXES_MAX} in all"
        )
    })
}
