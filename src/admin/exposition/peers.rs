//! Figures of the other balancers of the fleet.

use std::sync::LazyLock;
use std::time::Duration;

use super::figure::{Group, Value, counter, counts, each, gauge, optional};
use crate::admin::model::PeerStatus;
use crate::metric::{Kind, Unit};

pub(super) static PEER: LazyLock<Group<PeerStatus>> = LazyLock::new(|| {
    let figures = vec![
        gauge(
            "sending",
            "Whether it takes what this balancer sends: 1, else 0.",
            |its: &PeerStatus| its.sending,
        ),
        gauge(
            "receiving",
            "Whether it is connected to this balancer, to send: 1, else 0.",
            |its: &PeerStatus| its.receiving,
        ),
        counter(
            "sent",
            "Entries (bans, sticky clients) that were sent to it.",
            |its: &PeerStatus| its.sent,
        ),
        counter(
            "received",
            "Entries that came from it.",
            |its: &PeerStatus| its.received,
        ),
        each(
            "refused",
            "Entries that came from it and were not taken, by reason; `malformed` counts frames.",
            "reason",
            |its: &PeerStatus| counts(&its.refused),
        ),
        counter(
            "resyncs",
            "How often all was sent to it again, as it was too slow for changes.",
            |its: &PeerStatus| its.resyncs,
        ),
        optional(
            Kind::Gauge,
            "lag",
            "How long it took to answer this balancer last.",
            |its: &PeerStatus| {
                let lag = Duration::from_millis(its.lag_ms?);
                Some(Value::Part(lag.as_secs_f64()))
            },
        )
        .in_unit(Unit::Seconds),
    ];
    Group::new("peer", &["peer"], figures)
});
