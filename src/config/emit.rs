//! A configuration as the text of a `config.ron` that says it.
//!
//! What is as it would be anyway is left out. What is written is read as an equal configuration,
//! where paths are UTF-8 and a log's file is not called `-` or `off`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::values::{memory_text, written};
use super::{
    ATTEMPTS, AccessLog, Admin, AdminHttp, Config, HISTOGRAM_LOG, HalfClose, Listener, LogFormat,
    LogSink, SHUTDOWN_GRACE, Timeouts,
};
use value::{Fields, Value, name_of};

mod check;
mod pool;
mod value;

impl Config {
    /// The text of a file that says this configuration, and what differs from the defaults alone.
    #[must_use]
    pub fn to_ron(&self) -> String {
        let (attempts, timeouts) = self.shared();
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|one| self.listener(one, (attempts, timeouts)));
        let pools = self.pools.iter().map(pool::pool);
        let shared = Fields::default()
            .differs("attempts", attempts, ATTEMPTS)
            .some("timeouts", deadlines(timeouts, Timeouts::default()));
        let fields = Fields::default()
            .some("workers", self.workers)
            .some("max_connections", self.max_connections)
            .some(
                "memory",
                self.memory.map(|bytes| Value::text(&memory_text(bytes))),
            )
            .differs("shutdown_grace", self.shutdown_grace, SHUTDOWN_GRACE)
            .some("access_log", access_log(self.access_log.as_ref()))
            .unless(
                self.histogram_log.as_os_str() == HISTOGRAM_LOG,
                "histogram_log",
                || (&*self.histogram_log).into(),
            )
            .unless(!self.reload_on_change, "reload_on_change", || true.into())
            .unless(self.resolvers.is_empty(), "resolvers", || {
                let resolvers = self.resolvers.iter();
                Value::list(resolvers.map(|address| Value::text(&address.to_string())))
            })
            .some("admin", admin(self.admin.as_ref()))
            .some("defaults", shared.if_any())
            .with("listeners", Value::list(listeners))
            .with("pools", Value::list(pools));
        fields.file()
    }

    /// What all listeners have, which stands once; else what they have anyway.
    fn shared(&self) -> (u8, Timeouts) {
        let of = |listener: &Listener| (listener.attempts, listener.timeouts);
        let mut all = self.listeners.iter().map(of);
        let first = all
            .next()
            .unwrap_or_else(|| (ATTEMPTS, Timeouts::default()));
        if all.all(|other| other == first) {
            first
        } else {
            (ATTEMPTS, Timeouts::default())
        }
    }

    fn listener(&self, listener: &Listener, (attempts, timeouts): (u8, Timeouts)) -> Value {
        let address = listener.bind.to_string();
        let pool = &self.pools[listener.pool].name;
        Fields::default()
            .unless(listener.name == address, "name", || {
                Value::text(&listener.name)
            })
            .with("bind", Value::text(&address))
            .with("pool", Value::text(pool))
            .some("max_connections", listener.max_connections)
            .differs("attempts", listener.attempts, attempts)
            .unless(
                listener.half_close == HalfClose::default(),
                "half_close",
                || Value::text(name_of(&HalfClose::ALL, &listener.half_close)),
            )
            .some("timeouts", deadlines(listener.timeouts, timeouts))
            .into()
    }
}

/// The deadlines that differ.
fn deadlines(own: Timeouts, others: Timeouts) -> Option<Value> {
    Fields::default()
        .differs("connect", own.connect, others.connect)
        .unless(own.idle == others.idle, "idle", || or_off(own.idle))
        .differs("half_closed", own.half_closed, others.half_closed)
        .unless(own.session == others.session, "session", || {
            or_off(own.session)
        })
        .differs("peek", own.peek, others.peek)
        .if_any()
}

fn access_log(log: Option<&AccessLog>) -> Option<Value> {
    let Some(log) = log else {
        return Some(Value::text("off"));
    };
    let to = match &log.to {
        LogSink::Stdout => None,
        LogSink::File(path) => Some(Value::from(&**path)),
    };
    if log.format == LogFormat::default() {
        return to;
    }
    let format = Value::text(name_of(&LogFormat::ALL, &log.format));
    Some(
        Fields::default()
            .some("to", to)
            .with("format", format)
            .into(),
    )
}

fn admin(admin: Option<&Admin>) -> Option<Value> {
    let Some(admin) = admin else {
        return Some(Value::text("off"));
    };
    let socket = match &admin.socket {
        None => Some(Value::text("off")),
        // The default socket is required by who names it.
        Some(_) if !admin.required => None,
        Some(path) => Some(Value::from(&**path)),
    };
    let more = Fields::default()
        .some("http", admin.http.as_ref().map(admin_http))
        .some("audit_log", admin.audit_log.as_deref());
    match (socket, more.is_empty()) {
        (socket, true) => socket,
        (None, false) => more.if_any(),
        (Some(socket), false) => Some(more.led_by("socket", socket).into()),
    }
}

fn admin_http(http: &AdminHttp) -> Value {
    Fields::default()
        .with("bind", Value::text(&http.bind.to_string()))
        .some("read_token", http.read_token.as_deref())
        .some("write_token", http.write_token.as_deref())
        .into()
}

/// A duration, or `"off"`.
fn or_off(duration: Option<Duration>) -> Value {
    duration.map_or_else(|| Value::text("off"), Value::from)
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Self::text(&written(duration))
    }
}

impl From<NonZeroU32> for Value {
    fn from(number: NonZeroU32) -> Self {
        number.get().into()
    }
}

#[cfg(test)]
mod tests;
