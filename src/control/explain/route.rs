//! Which route of a listener takes a client, and why.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::admin::NoRouteTold;
use crate::admin::model::{MetStatus, RouteChoice};
use crate::config::Key;
use crate::peek::{Field, FirstBytes, Heard, SpokenBytes, Unheard};
use crate::route::{RouteNumber, Routes, ShareOf};
use crate::select::Looked;
use crate::session::CloseReason;
use crate::snapshot::{LiveListener, Snapshot};
use crate::tls::{FailureKind, TlsFailure};

/// Where a client with this address that says this would go.
pub(in crate::control) fn route(
    snapshot: &Snapshot,
    name: &str,
    client: Option<IpAddr>,
    spoken: &SpokenBytes,
) -> Result<RouteChoice, NoRouteTold> {
    let mut listeners = snapshot.listeners.iter();
    match listeners.find(|listener| listener.name == name) {
        Some(listener) => match heard(listener, spoken) {
            Err(Unheard::Unsaid) => Err(NoRouteTold::Unsaid(unsaid(listener))),
            heard => Ok(choose(listener, client, &heard)),
        },
        None => {
            let names = snapshot.listeners.iter();
            let names = names.map(|listener| listener.name.clone());
            Err(NoRouteTold::Unknown(names.collect()))
        }
    }
}

/// What a listener hears of what a client says.
pub(super) fn heard<'a>(
    listener: &LiveListener,
    spoken: &'a SpokenBytes,
) -> Result<Heard<'a>, Unheard> {
    let tls = listener.tls.as_ref().map(|its| &*its.begins);
    spoken.heard(tls, listener.postgres.answers_tls)
}

fn unsaid(listener: &LiveListener) -> String {
    format!(
        "no client says all of that to listener `{}`, where TLS does not end: `sni`, `alpn` and \
         `tls_client` are in TLS, what else was given is not",
        listener.name
    )
}

/// Why a handshake with a listener fails.
pub(super) fn handshake_fails(listener: &LiveListener, failure: &TlsFailure) -> String {
    let flags = [
        (
            FailureKind::NoClientCertificate,
            " (`--tls-client` gives one)",
        ),
        (FailureKind::UnknownName, " (`--sni` gives one)"),
    ];
    let hint = flags.iter().find(|(kind, _)| *kind == failure.kind);
    let hint = hint.map_or("", |(_, hint)| hint);
    let name = &listener.name;
    format!("listener `{name}` refuses it: its TLS fails, as {failure}{hint}")
}

/// Where a client of a listener would go that hears this of it.
pub(super) fn choose(
    listener: &LiveListener,
    client: Option<IpAddr>,
    heard: &Result<Heard<'_>, Unheard>,
) -> RouteChoice {
    let refused = |reason: CloseReason, says: String| RouteChoice {
        listener: listener.name.clone(),
        refused: Some(reason.as_str().to_owned()),
        says,
        ..RouteChoice::default()
    };
    let heard = match heard {
        Ok(heard) => heard,
        Err(Unheard::Unsaid) => return refused(CloseReason::NoRoute, unsaid(listener)),
        Err(Unheard::Tls(failure)) => {
            let says = handshake_fails(listener, failure);
            return refused(CloseReason::TlsFailed, says);
        }
    };
    let first = &heard.first_bytes();
    let client = client.filter(|_| listener.has_addresses());
    let route = listener.routes.decide(client, first).unwrap_or_default();
    let taken = TakenRoute::new(listener, route, (client, first));
    let plan = listener.plan_of(route);
    let address = client.map(|ip| SocketAddr::new(ip, 0));
    let pool = &plan.pool().name;
    let leads_nowhere =
        !listener.routes.refuses(route) && matches!(plan.look(address, first), Looked::Nowhere);
    let mut says = match leads_nowhere {
        true => format!(
            "it would go to pool `{pool}` of listener `{}`, but its name is that of no member \
             there (`sni_member`), so that it is refused",
            listener.name
        ),
        false => taken.says(),
    };
    if heard.is_http2() {
        says.push_str("; it speaks HTTP/2 (`h2` in `alpn`), whose requests are not read");
    }
    let needs_address = listener.routes.need_address(route, first);
    if client.is_none() && listener.has_addresses() && needs_address {
        says.push_str("; its address was not given (`--client`), and may change that");
    }
    let is_refused = leads_nowhere || listener.routes.refuses(route);
    RouteChoice {
        listener: listener.name.clone(),
        pool: (!is_refused).then(|| pool.clone()),
        refused: is_refused.then(|| CloseReason::NoRoute.as_str().to_owned()),
        route: taken.number(),
        name: taken.name(),
        share: taken.share.as_ref().map(|share| tenths(share.percent)),
        says,
        by: taken.met,
    }
}

/// A route that took a client, and why.
pub(super) struct TakenRoute<'a> {
    listener: &'a LiveListener,
    route: RouteNumber,
    met: Vec<MetStatus>,
    share: Option<ShareOf>,
}

impl<'a> TakenRoute<'a> {
    /// Of a client with this address and these first bytes, or with what is known of them.
    pub(super) fn new(
        listener: &'a LiveListener,
        route: RouteNumber,
        (client, first): (Option<IpAddr>, &FirstBytes<'_>),
    ) -> Self {
        Self {
            listener,
            route,
            met: met(&listener.routes, route, (client, first)),
            share: listener.routes.share(route, first),
        }
    }

    /// The same where the client has come and gone, and only the name in its hello is known: what
    /// it lacks can't be told of anything else.
    pub(super) fn of_past(
        listener: &'a LiveListener,
        route: RouteNumber,
        (client, first): (Option<IpAddr>, &FirstBytes<'_>),
    ) -> Self {
        let mut taken = Self::new(listener, route, (client, first));
        if let Some(share) = &mut taken.share {
            let is_name = share.key == Key::Peeked(Field::Sni).to_string();
            share.missed = share.missed.filter(|missed| !missed || is_name);
        }
        taken
    }

    /// Its place among the routes of the listener, from 1 on; `None`: none took the client.
    pub(super) fn number(&self) -> Option<u64> {
        let place = self.listener.routes.place(self.route)?;
        Some(place as u64 + 1)
    }

    /// Its name, where it has one.
    pub(super) fn name(&self) -> Option<String> {
        self.listener.routes.name(self.route).map(str::to_owned)
    }

    /// All that in a sentence.
    pub(super) fn says(&self) -> String {
        let listener = &self.listener.name;
        let Some(number) = self.number() else {
            return match self.listener.routes.is_empty() {
                true => format!("listener `{listener}` has no routes: its pool takes all"),
                false => format!(
                    "no route of listener `{listener}` takes it, so it goes to the listener's pool"
                ),
            };
        };
        let takes = match self.listener.routes.refuses(self.route) {
            true => "refuses",
            false => "takes",
        };
        let name = self.name().map(|name| format!(" (`{name}`)"));
        let name = name.unwrap_or_default();
        let mut text = format!("route {number}{name} of listener `{listener}` {takes} it");
        if self.met.is_empty() {
            text.push_str(", as every client");
        }
        for (place, met) in self.met.iter().enumerate() {
            let joint = if place == 0 { ", by" } else { " and" };
            // Writing to a string does not fail.
            let _ = write!(text, "{joint} {} {}", met.setting, met.listed("`"));
        }
        if let Some(share) = &self.share {
            let pool = &self.listener.plan_of(self.route).pool().name;
            let key = match share.missed {
                Some(true) => format!("address, as it has no {}", share.key),
                Some(false) => share.key.clone(),
                None => format!("{}, or by its address without one", share.key),
            };
            let percent = tenths(share.percent);
            let _ = write!(
                text,
                ", and gives it to `{pool}`, which gets {percent} % of its clients now, chosen by \
                 its {key}"
            );
        }
        text
    }
}

/// The conditions of a route, and the values of them that a client has.
pub(in crate::control) fn met(
    routes: &Routes,
    route: RouteNumber,
    (client, first): (Option<IpAddr>, &FirstBytes<'_>),
) -> Vec<MetStatus> {
    let all = routes.met(route, client, first).into_iter();
    let shown = all.map(|met| MetStatus {
        setting: met.setting.to_owned(),
        values: met.values,
        more: met.more as u64,
    });
    shown.collect()
}

/// In percent, with a digit behind the point.
pub(in crate::control) fn tenths(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}
