//! How backends are probed, as a file says it.

use super::value::{Fields, Value, name_of};
use crate::config::{Check, CheckTls, Expect, Initial, Probe, ProxyHeader, Verify};

pub(super) fn check(check: &Check) -> Value {
    let default = Check::default();
    let (kind, fields) = probe(check);
    let fields = fields
        .some(
            "tls",
            check.tls.as_ref().and_then(|tls| self::tls(tls, kind)),
        )
        .differs("interval", check.interval, default.interval)
        .some("interval_down", check.interval_down)
        .some("interval_between", check.interval_between)
        .differs("timeout", check.timeout, check.timeout_default())
        .differs("rise", check.rise, default.rise)
        .differs("fall", check.fall, default.fall)
        .some("port", check.port)
        .some("proxy_header", check.proxy_header.map(proxy_header))
        .unless(check.initial == default.initial, "initial", || {
            Value::text(name_of(&Initial::ALL, &check.initial))
        });
    if fields.is_empty() {
        Value::text(kind)
    } else {
        fields.led_by("type", Value::text(kind)).into()
    }
}

/// The type of a check, and what only such a check has.
fn probe(check: &Check) -> (&'static str, Fields) {
    let fields = Fields::default();
    match &check.probe {
        Probe::Tcp if check.tls.is_some() => ("tls", fields),
        Probe::Tcp => ("tcp", fields),
        Probe::SendExpect { send, expect } => {
            let fields = fields.unless(send.is_empty(), "send", || Value::bytes(send));
            let fields = match expect {
                Expect::Bytes(bytes) => fields.with("expect", Value::bytes(bytes)),
                Expect::Regex(pattern) => fields.with("expect_regex", Value::text(pattern)),
            };
            ("send_expect", fields)
        }
        Probe::Http {
            method,
            path,
            host,
            status,
        } => {
            let (from, to) = (status.start(), status.end());
            let fields = fields
                .unless(method == Probe::METHOD, "method", || Value::text(method))
                .unless(path == Probe::PATH, "path", || Value::text(path))
                .some("host", host.as_deref().map(Value::text))
                .unless(*status == Probe::STATUS, "status", || {
                    if from == to {
                        (*from).into()
                    } else {
                        Value::text(&format!("{from}-{to}"))
                    }
                });
            ("http", fields)
        }
    }
}

/// What there is to say of TLS; a check of type `tls` has it anyway.
fn tls(tls: &CheckTls, kind: &str) -> Option<Value> {
    let verify = match &tls.verify {
        Verify::Off => None,
        Verify::System => Some(Value::text("system")),
        Verify::File(path) => Some(Value::from(&**path)),
    };
    let alpn = tls.alpn.iter().map(|protocol| Value::text(protocol));
    let group = Fields::default()
        .some("sni", tls.sni.as_deref().map(Value::text))
        .unless(tls.alpn.is_empty(), "alpn", || Value::list(alpn))
        .some("verify", verify)
        .if_any();
    group.or_else(|| (kind != "tls").then(|| true.into()))
}

fn proxy_header(version: ProxyHeader) -> Value {
    Value::text(match version {
        ProxyHeader::V1 => "v1",
        ProxyHeader::V2 => "v2",
    })
}
