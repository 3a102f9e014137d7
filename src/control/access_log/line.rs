//! A line of the access log.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use crate::config::LogFormat;
use crate::session::{CloseReason, Summary};
use crate::sys;
use crate::time::{US, between};
use crate::worker::Record;

/// The fields of a line, each once, in both formats.
pub(super) fn write_line(out: &mut String, record: &Record, format: LogFormat) {
    let ended = SystemTime::now() - between(record.closed_at, sys::monotonic());
    let mut line = Line {
        out,
        format,
        first: true,
    };
    let summary = &record.summary;
    line.begin();
    line.text("time", humantime::format_rfc3339_millis(ended));
    line.text(
        "session",
        format_args!("{}-{}", record.worker, record.number),
    );
    line.text("listener", &record.listener.name);
    line.optional_text("client", record.client.as_ref());
    line.optional_text(
        "backend",
        record.backend.as_ref().map(|backend| &backend.name),
    );
    line.text("pool", &record.listener.plan.pool().name);
    line.text("strategy", &record.listener.plan.pool().strategy);
    line.number("attempts", Some(u64::from(summary.attempts)));
    line.number("queued_us", summary.queued.map(us));
    line.number("connect_us", summary.connect.map(us));
    line.number("first_byte_us", summary.first_byte.map(us));
    line.number("total_us", Some(us(total(summary, record.closed_at))));
    line.number("bytes_up", Some(summary.delivered[0]));
    line.number("bytes_down", Some(summary.delivered[1]));
    line.number("worker", Some(u64::from(record.worker)));
    line.text("reason", record.reason);
    if let Some(rule) = record.dry_run {
        line.text("dry_run", CloseReason::from(rule));
    }
    line.end();
}

fn total(summary: &Summary, closed_at: u64) -> u64 {
    closed_at.saturating_sub(summary.opened_at)
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
        self.out.push_str(if self.format == LogFormat::Json {
            "}\n"
        } else {
            "\n"
        });
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

    fn optional_text(&mut self, key: &str, value: Option<impl fmt::Display>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.number(key, None),
        }
    }

    /// A number, or the format's word for none.
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
