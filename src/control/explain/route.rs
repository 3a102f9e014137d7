//! Which route of a listener would take a client.

use std::net::{IpAddr, SocketAddr};

use crate::admin::model::RouteChoice;
use crate::peek::FirstBytes;
use crate::select::Looked;
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
    let plan = listener.plan_of(route);
    let address = client.map(|ip| SocketAddr::new(ip, 0));
    let by_route = listener.routes.refuses(route);
    let leads_nowhere = !by_route && matches!(plan.look(address, &first), Looked::Nowhere);
    let is_refused = by_route || leads_nowhere;
    let pool = &listener.plan_of(route).pool().name;
    let says = match number {
        _ if leads_nowhere => format!(
            "it would go to pool `{pool}` of listener `{name}`, but its name is that of no member \
             there (`sni_member`), so that it is refused"
        ),
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
