//! A line of the access log.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde::Serialize;

use crate::config::values::written;
use crate::config::{AccessLog, LogField, LogFormat, LogSink};
use crate::kernel::TcpInfo;
use crate::pool::Pool;
use crate::session::{CloseReason, Summary};
use crate::sys;
use crate::time::{US, between};
use crate::tls::ClientIdentity;
use crate::worker::{LEFT, LineExtras, LogEvent, LogRule, Record, TlsRecord};

/// A connect that was made, as a line shows it.
#[derive(Serialize)]
pub(super) struct Attempt<'a> {
    backend: &'a str,
    address: String,
    outcome: &'static str,
    us: u64,
}

/// The connects of a session: the first that failed, and the one that stood.
fn attempts(record: &Record) -> Vec<Attempt<'_>> {
    let failed = record.tries.iter().flat_map(|tries| tries.first());
    let failed = failed.map(|one| Attempt {
        backend: &one.backend.name,
        address: one.backend.address.to_string(),
        outcome: one.fault.outcome(one.errno),
        us: us(one.took),
    });
    let backend = record.backend.as_ref();
    let stood = backend.filter(|_| record.summary.connect.is_some());
    let stood = stood.map(|backend| Attempt {
        backend: &backend.name,
        address: backend.address.to_string(),
        outcome: "connected",
        us: record.connect_us.into(),
    });
    failed.chain(stood).collect()
}

use super::socket::{JOURNAL_HEAD, JournalFields, Level, SyslogHead};

/// How lines look.
pub(super) struct Layout {
    format: LogFormat,
    fields: Vec<LogField>,
    /// Which sessions have a line, and so how many one stands for.
    rule: LogRule,
    framing: Framing,
}

/// What stands around a line.
enum Framing {
    /// A file has lines.
    Newline,
    Syslog(SyslogHead),
    Journald,
}

impl Layout {
    pub(super) fn of(log: &AccessLog) -> Self {
        Self {
            format: log.format,
            fields: log.written_fields(),
            rule: super::rule(log),
            framing: match log.to {
                LogSink::Stdout | LogSink::File(_) => Framing::Newline,
                LogSink::Syslog(_) => Framing::Syslog(SyslogHead::new()),
                LogSink::Journald(_) => Framing::Journald,
            },
        }
    }

    /// Whether each line is a datagram.
    pub(super) fn is_for_socket(&self) -> bool {
        !matches!(self.framing, Framing::Newline)
    }
}

/// Writes the line of a session: the fields of the layout, each once, in all formats.
pub(super) fn write_line(out: &mut String, record: &Record, layout: &Layout) {
    let is_ordinary = record.reason().is_none_or(CloseReason::is_orderly);
    let level = match is_ordinary {
        true => Level::Info,
        false => Level::Notice,
    };
    match &layout.framing {
        Framing::Newline => {}
        Framing::Syslog(head) => head.write(out, happened(record), level),
        Framing::Journald => out.push_str(JOURNAL_HEAD),
    }
    let mut line = Line {
        out: &mut *out,
        format: layout.format,
        first: true,
    };
    line.begin();
    for field in &layout.fields {
        write_field(&mut line, record, *field, layout.rule);
    }
    line.end();
    match &layout.framing {
        Framing::Newline => out.push('\n'),
        // The end of the datagram ends it.
        Framing::Syslog(_) => {}
        Framing::Journald => {
            out.push('\n');
            let mut fields = JournalFields::begin(out, level);
            for field in &layout.fields {
                write_field(&mut fields, record, *field, layout.rule);
            }
        }
    }
}

fn happened(record: &Record) -> SystemTime {
    SystemTime::now() - between(record.at, sys::monotonic())
}

/// Where the fields of a line go.
pub(super) trait Fields {
    fn text(&mut self, key: &str, value: impl fmt::Display);

    /// A number, or that there is none.
    fn number(&mut self, key: &str, value: Option<u64>);

    /// Whether something is so, or that it is not known.
    fn truth(&mut self, key: &str, value: Option<bool>) {
        self.optional_text(key, value);
    }

    fn optional_text(&mut self, key: &str, value: Option<impl fmt::Display>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.number(key, None),
        }
    }

    /// Each attempt with its address and its outcome.
    fn attempts(&mut self, key: &str, all: &[Attempt<'_>]) {
        self.short_attempts(key, all);
    }

    /// The same as one word.
    fn short_attempts(&mut self, key: &str, all: &[Attempt<'_>]) {
        let one = |its: &Attempt<'_>| format!("{}|{}|{}", its.address, its.outcome, its.us);
        let text = all.iter().map(one).collect::<Vec<_>>().join(",");
        self.optional_text(key, (!all.is_empty()).then_some(text));
    }
}

#[expect(clippy::too_many_lines, reason = "an arm for each field")]
fn write_field(line: &mut impl Fields, record: &Record, field: LogField, rule: LogRule) {
    let summary = &record.summary;
    let key = field.as_str();
    match field {
        LogField::Time => line.text(key, humantime::format_rfc3339_millis(happened(record))),
        LogField::Session => line.text(key, format_args!("{}-{}", record.worker, record.number)),
        LogField::Listener => line.text(key, &record.listener.name),
        LogField::Client => line.optional_text(key, record.client.as_ref()),
        LogField::Backend => {
            let backend = record.backend.as_ref();
            line.optional_text(key, backend.map(|backend| &backend.name));
        }
        LogField::Pool => line.optional_text(key, pool(record).map(|pool| &pool.name)),
        LogField::Strategy => {
            line.optional_text(key, pool(record).map(|pool| pool.config.selects_by()))
        }
        LogField::Attempts => line.number(key, Some(summary.attempts.into())),
        LogField::QueuedUs => line.number(key, summary.queued.map(us)),
        LogField::ConnectUs => line.number(key, summary.connect.map(us)),
        LogField::FirstByteUs => line.number(key, summary.first_byte.map(us)),
        LogField::TotalUs => line.number(key, Some(us(total(summary, record.at)))),
        LogField::BytesUp => line.number(key, Some(summary.delivered[0])),
        LogField::BytesDown => line.number(key, Some(summary.delivered[1])),
        LogField::Worker => line.number(key, Some(record.worker.into())),
        LogField::Reason => line.optional_text(key, record.reason()),
        LogField::AttemptsList => line.attempts(key, &attempts(record)),
        LogField::Proxy => {
            if let Some(proxy) = record.proxy {
                line.text(key, proxy);
            }
        }
        LogField::DryRun => {
            if let Some(denied) = record.dry_run {
                line.text(key, CloseReason::from(denied));
            }
        }
        LogField::Sample => {
            let sessions = rule.stands_for(record.reason());
            line.number(key, Some(sessions.into()));
        }
        LogField::Status => line.number(
            key,
            extras(record, |its| its.status).map(|code| code.get().into()),
        ),
        LogField::Route => {
            let routes = &record.listener.routes;
            let place = routes.place(record.route);
            match routes.name(record.route) {
                Some(name) => line.text(key, name),
                None => line.number(key, place.map(|place| place as u64 + 1)),
            }
        }
        LogField::Sni => line.optional_text(key, extras(record, |its| its.server_name.as_ref())),
        LogField::TlsJa4 => line.optional_text(key, extras(record, |its| its.ja4.as_ref())),
        LogField::TlsVersion => line.optional_text(key, tls(record, 0, |tls| tls.version)),
        LogField::TlsCipher => line.optional_text(key, tls(record, 0, |tls| tls.cipher)),
        LogField::TlsAlpn => line.optional_text(key, tls(record, 0, |tls| tls.protocol.as_ref())),
        LogField::TlsResumed => line.truth(key, tls(record, 0, |tls| tls.resumed)),
        LogField::TlsUs => line.number(key, tls(record, 0, |tls| tls.took_us).map(u64::from)),
        LogField::TlsError => line.optional_text(key, tls_error(record)),
        LogField::TlsClientSubject => {
            line.optional_text(key, client(record).map(|its| &its.subject))
        }
        LogField::TlsClientCn => {
            line.optional_text(key, client(record).and_then(|its| its.common_name.as_ref()));
        }
        LogField::TlsClientSan => {
            let names = client(record).map(ClientIdentity::names_text);
            line.optional_text(key, names.filter(|names| !names.is_empty()));
        }
        LogField::TlsClientSerial => line.optional_text(key, client(record).map(|its| &its.serial)),
        LogField::TlsClientFingerprint => {
            line.optional_text(key, client(record).map(|its| &its.fingerprint));
        }
        LogField::BackendTlsVersion => line.optional_text(key, tls(record, 1, |tls| tls.version)),
        LogField::BackendTlsCipher => line.optional_text(key, tls(record, 1, |tls| tls.cipher)),
        LogField::BackendTlsAlpn => {
            line.optional_text(key, tls(record, 1, |tls| tls.protocol.as_ref()))
        }
        LogField::BackendTlsResumed => line.truth(key, tls(record, 1, |tls| tls.resumed)),
        LogField::BackendTlsUs => {
            line.number(key, tls(record, 1, |tls| tls.took_us).map(u64::from))
        }
        LogField::BackendTlsError => {
            line.optional_text(key, tls(record, 1, |tls| tls.error.as_ref()))
        }
        LogField::ClientRttUs => line.number(key, tcp(record, 0, |tcp| tcp.rtt_us)),
        LogField::ClientRetransmits => line.number(key, tcp(record, 0, |tcp| tcp.retransmits)),
        LogField::ClientLost => line.number(key, tcp(record, 0, |tcp| tcp.lost)),
        LogField::BackendRttUs => line.number(key, tcp(record, 1, |tcp| tcp.rtt_us)),
        LogField::BackendRetransmits => line.number(key, tcp(record, 1, |tcp| tcp.retransmits)),
        LogField::BackendLost => line.number(key, tcp(record, 1, |tcp| tcp.lost)),
        LogField::Event => {
            let event = match record.event {
                LogEvent::Start => "start",
                LogEvent::Progress => "progress",
                LogEvent::End(_) => "end",
            };
            line.text(key, event);
        }
        // The layout has what it stands for.
        LogField::Standard => {}
    }
}

/// Where its route led; a client that a route refused was to go nowhere.
fn pool(record: &Record) -> Option<&Pool> {
    (record.reason() != Some(CloseReason::NoRoute)).then(|| &**record.pool())
}

/// Something that most lines do not have.
fn extras<'a, T>(record: &'a Record, read: fn(&'a LineExtras) -> Option<T>) -> Option<T> {
    record.extras.as_deref().and_then(read)
}

/// Something of the TLS of one side, the client's first.
fn tls<'a, T>(record: &'a Record, side: usize, read: fn(&'a TlsRecord) -> Option<T>) -> Option<T> {
    record.extras.as_ref()?.tls[side].as_ref().and_then(read)
}

/// Why the TLS of the client failed. One that left or was late did not fail by what it sent.
fn tls_error(record: &Record) -> Option<Cow<'_, str>> {
    if let Some(error) = tls(record, 0, |tls| tls.error.as_deref()) {
        return Some(error.into());
    }
    let reason = record.reason()?;
    if reason == CloseReason::TlsFailed {
        return Some(LEFT.into());
    }
    let limit = record.listener.limits_of(record.route).handshake;
    let limit = limit.filter(|_| reason == CloseReason::TlsTimeout)?;
    let limit = written(between(0, limit));
    Some(format!("the client's handshake was not done within {limit}").into())
}

/// Who the client is by its certificate.
fn client(record: &Record) -> Option<&ClientIdentity> {
    tls(record, 0, |tls| tls.client.as_deref())
}

/// A number of the connection of one side, the client's first.
fn tcp(record: &Record, side: usize, number: fn(&TcpInfo) -> u32) -> Option<u64> {
    let info = record.extras.as_ref()?.tcp[side].as_ref();
    info.map(|info| number(info).into())
}

fn total(summary: &Summary, at: u64) -> u64 {
    at.saturating_sub(summary.opened_at)
}

fn us(ns: u64) -> u64 {
    ns / US
}

struct Line<'a> {
    out: &'a mut String,
    format: LogFormat,
    first: bool,
}

impl Line<'_> {
    fn begin(&mut self) {
        if self.format == LogFormat::Json {
            self.out.push('{');
        }
    }

    fn end(&mut self) {
        if self.format == LogFormat::Json {
            self.out.push('}');
        }
    }

    fn key(&mut self, key: &str) {
        let (first, json) = (
            std::mem::take(&mut self.first),
            self.format == LogFormat::Json,
        );
        if !first {
            self.out.push(if json { ',' } else { ' ' });
        }
        // Writing to a string does not fail.
        let _ = if json {
            write!(self.out, "\"{key}\":")
        } else {
            write!(self.out, "{key}=")
        };
    }
}

impl Fields for Line<'_> {
    fn text(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        let value = value.to_string();
        let plain = !value.is_empty()
            && value
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control() && !"\"=\\".contains(c));
        if plain && self.format == LogFormat::KeyValue {
            self.out.push_str(&value);
        } else {
            let _ = write!(self.out, "{}", serde_json::Value::from(value));
        }
    }

    fn truth(&mut self, key: &str, value: Option<bool>) {
        let Some(value) = value else {
            return self.number(key, None);
        };
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    fn attempts(&mut self, key: &str, all: &[Attempt<'_>]) {
        if all.is_empty() || self.format != LogFormat::Json {
            return self.short_attempts(key, all);
        }
        self.key(key);
        // Strings and numbers are always valid JSON.
        let list = serde_json::to_string(all).unwrap_or_default();
        self.out.push_str(&list);
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        self.key(key);
        let none = if self.format == LogFormat::Json {
            "null"
        } else {
            "-"
        };
        let _ = match value {
            Some(value) => write!(self.out, "{value}"),
            None => write!(self.out, "{none}"),
        };
    }
}
