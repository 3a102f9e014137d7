//! Figures of TLS that ends at a listener, and of TLS with a pool's backends.

use std::collections::BTreeMap;

use super::figure::{Figure, Reading, Value, counts, each, metric, times};
use crate::admin::model::{CertificateStatus, ListenerStatus, PoolStatus, StapleStatus, TlsStatus};
use crate::metric::Kind;

/// The figures of a pool, with these beside the others.
pub(super) fn beside_of_pool(mut others: Vec<Figure<PoolStatus>>) -> Vec<Figure<PoolStatus>> {
    others.extend([
        each(
            "tls_handshakes",
            "Handshakes of TLS with its backends, by version and by whether they began a session \
             or resumed one.",
            "kind",
            |its: &PoolStatus| of(its.tls.as_ref(), |tls| counts(&tls.handshakes)),
        ),
        each(
            "tls_failures",
            "Attempts to reach its backends, and sessions, whose TLS failed, by the kind of \
             failure: docs/tls.md lists them.",
            "reason",
            |its: &PoolStatus| of(its.tls.as_ref(), |tls| counts(&tls.failures)),
        ),
        Figure {
            metric: metric(
                Kind::Gauge,
                "certificate_expires",
                "When the certificate that is shown to backends expires, in seconds since 1970, by \
                 its file.",
            ),
            reading: Reading::Each("file", Box::new(|its| of(its.tls.as_ref(), expiries))),
        },
        revocation_lists(|its: &PoolStatus| its.tls.as_ref()),
        times(
            "tls_handshake",
            "From the connect to a backend to the end of the handshake of TLS with it.",
            |its| &its.handshakes,
        ),
    ]);
    others
}

/// The figures of a listener, with these beside the others.
pub(super) fn beside(mut others: Vec<Figure<ListenerStatus>>) -> Vec<Figure<ListenerStatus>> {
    others.extend([
        each(
            "tls_handshakes",
            "Handshakes of TLS that ends there, by version and by whether they began a session or \
             resumed one.",
            "kind",
            |its: &ListenerStatus| of(its.tls.as_ref(), |tls| counts(&tls.handshakes)),
        ),
        each(
            "tls_failures",
            "Clients whose TLS failed, by the kind of failure: docs/tls.md lists them.",
            "reason",
            |its: &ListenerStatus| of(its.tls.as_ref(), |tls| counts(&tls.failures)),
        ),
        Figure {
            metric: metric(
                Kind::Gauge,
                "certificate_expires",
                "When a certificate expires, in seconds since 1970, by its file.",
            ),
            reading: Reading::Each("file", Box::new(|its| of(its.tls.as_ref(), expiries))),
        },
        revocation_lists(|its: &ListenerStatus| its.tls.as_ref()),
        Figure {
            metric: metric(
                Kind::Gauge,
                "ocsp_expires",
                "When an OCSP answer expires that is stapled to a certificate, in seconds since \
                 1970, by its file.",
            ),
            reading: Reading::Each("file", Box::new(|its| of(its.tls.as_ref(), staples))),
        },
        times(
            "tls_handshake",
            "From a client's accept to the end of its handshake of TLS.",
            |its| &its.handshakes,
        ),
    ]);
    others
}

fn of(
    tls: Option<&TlsStatus>,
    read: impl FnOnce(&TlsStatus) -> Vec<(String, Value)>,
) -> Vec<(String, Value)> {
    tls.map_or_else(Vec::new, read)
}

/// When revocation lists expire.
fn revocation_lists<T: 'static>(tls: fn(&T) -> Option<&TlsStatus>) -> Figure<T> {
    Figure {
        metric: metric(
            Kind::Gauge,
            "revocation_list_expires",
            "When a revocation list expires, in seconds since 1970, by its file, of which the \
             first one counts.",
        ),
        reading: Reading::Each("file", Box::new(move |its| of(tls(its), first_expiries))),
    }
}

fn first_expiries(tls: &TlsStatus) -> Vec<(String, Value)> {
    let mut first = BTreeMap::new();
    for its in &tls.revocation_lists {
        let at = u64::try_from(its.expires).unwrap_or(0);
        let known = first.entry(its.file.clone()).or_insert(at);
        *known = at.min(*known);
    }
    let all = first.into_iter();
    all.map(|(file, at)| (file, Value::Whole(at))).collect()
}

fn staples(tls: &TlsStatus) -> Vec<(String, Value)> {
    let at = |its: &StapleStatus| u64::try_from(its.expires).unwrap_or(0);
    let all = tls.staples.iter();
    all.map(|its| (its.file.clone(), Value::Whole(at(its))))
        .collect()
}

fn expiries(tls: &TlsStatus) -> Vec<(String, Value)> {
    let at = |its: &CertificateStatus| u64::try_from(its.expires).unwrap_or(0);
    let all = tls.certificates.iter();
    all.map(|its| (its.file.clone(), Value::Whole(at(its))))
        .collect()
}
