//! Which route of a listener would take a client.

use std::net::IpAddr;

use crate::admin::model::RouteChoice;
use crate::peek::FirstBytes;
use crate::snapshot::Snapshot;

/// Where a client with this address and these first bytes would go; or the listeners that are
/// known, if none has this name.
pub(in crate::control) fn route(
    snapshot: &Snapshot,
    name: &str,
    client: Option<IpAddr>,
    first: &[u8],
) -> Result<RouteChoice, Vec<String>> {
    let mut listeners = snapshot.listeners.iter();
    let Some(listener) = listeners.find(|listener| listener.name == name) else {
        let names = snapshot.listeners.iter();
        return Err(names.map(|listener| listener.name.clone()).collect());
    };
    let first = FirstBytes::new(first, true);
    let route = listener.routes.decide(client, &first).unwrap_or_default();
    let number = listener.routes.place(route).map(|place| place + 1);
    let is_refused = listener.routes.refuses(route);
    let pool = &listener.plan_of(route).pool().name;
    let says = match number {
        None => {
            format!("no route of listener `{name}` takes it, so it goes to the listener's pool")
        }
        Some(number) if is_refused => format!("route {number} of listener `{name}` refuses it"),
        Some(number) => format!("route {number} of listener `{name}` takes it"),
    };
    Ok(RouteChoice {
        listener: name.to_owned(),
        pool: (!is_refused).then(|| pool.clone()),
        route: number.map(|number| number as u64),
        says,
    })
}
