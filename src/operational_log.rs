//! The operational log: lines for the operator on standard error, written by a thread of their own,
//! as a pipe may be full. Lines that there is no room for are dropped and counted.

#![forbid(unsafe_code)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use env_logger::fmt::Formatter;
use env_logger::{Env, Target, WriteStyle};
use log::{Level, Record};
use serde_json::Value;

use crate::config::{RecordFormat, values};
use crate::control::{self, sandbox};
use crate::sys;
use crate::time::SECOND;
use crate::wording::{is_misleading, plural};
use crate::writer::{Outlet, Writer};

/// Writes lines in the format that the environment names. Until [`start`] the caller's thread
/// writes them, and may block.
pub fn prepare() {
    IS_JSON.store(
        matches!(format_in_environment(), Some(Ok(RecordFormat::Json))),
        Ordering::Relaxed,
    );
}

/// Starts the thread that writes every line from now on, panics included. Call it once, before any
/// other thread starts.
///
/// # Errors
/// Standard error is closed, or the thread can't be created. The caller's thread then writes lines.
pub fn start() -> io::Result<()> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let writer = Writer::start("log", file, StandardError::default())?;
    // There is none yet.
    let _ = WRITER.set(writer);
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        say(&format_args!("thread '{name}' {panic}"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            if sandbox::may_open_files() {
                say(&trace);
            } else {
                say(&"no backtrace: this thread may open no file; --no-sandbox shows one");
            }
        }
        flush();
    }));
    Ok(())
}

/// The format that the environment names, which wins over that of the configuration.
pub fn format_in_environment() -> Option<Result<RecordFormat, values::ValueError>> {
    env::var_os(FORMAT).map(|name| values::record_format(&name))
}

/// Writes records in the format of the configuration from now on, unless the environment names one.
pub fn set_format(format: RecordFormat) {
    if env::var_os(FORMAT).is_none() {
        IS_JSON.store(format == RecordFormat::Json, Ordering::Relaxed);
    }
}

/// Logs a text of several lines, such as a table: one record for each line, or one JSON object.
pub fn report(level: Level, text: &dyn Display) {
    log::log!(target: REPORT, level, "{text}");
}

/// Installs the logger, at the level that the variable names.
pub fn follow(level: &str, default: &str) {
    let environment = Env::new()
        .filter_or(level, default)
        .write_style("MAHORAGA_LOG_STYLE");
    let mut builder = env_logger::Builder::from_env(environment);
    if WRITER.get().is_some() {
        builder.target(Target::Pipe(Box::new(Pipe)));
        if env::var_os("MAHORAGA_LOG_STYLE").is_none_or(|style| style == "auto") {
            builder.write_style(style());
        }
    }
    builder
        .filter_module(control::HISTOGRAMS_TARGET, log::LevelFilter::Info)
        .filter_module(control::AUDIT_TARGET, log::LevelFilter::Info)
        .format(write_record)
        .init();
}

/// A record is always one line: a name or an error from elsewhere must not look like another one.
fn write_record(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let message = record.args().to_string();
    if IS_JSON.load(Ordering::Relaxed) {
        return out.write_all(json_record(record.level(), &message).as_bytes());
    }
    let style = out.default_level_style(record.level());
    let header = format!(
        "[{} {style}{:<5}{style:#}]",
        out.timestamp(),
        record.level()
    );
    if [REPORT, control::HISTOGRAMS_TARGET].contains(&record.target()) {
        let mut lines = message.lines();
        return lines.try_for_each(|line| writeln!(out, "{header} {}", escaped(line)));
    }
    writeln!(out, "{header} {}", escaped(&message))
}

fn json_record(level: Level, message: &str) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let level = level.as_str().to_ascii_lowercase();
    let message = Value::from(message);
    format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":{message}}}\n")
}

/// A line in which `\n`, `\u{1b}` and their like stand for characters that a terminal or a reader
/// of lines could take for something else.
fn escaped(line: &str) -> Cow<'_, str> {
    if !line.contains(is_misleading) {
        return line.into();
    }
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if is_misleading(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.into()
}

/// Writes a line as it is: on standard error, or nowhere when that is closed. Where records are
/// JSON it is one of them.
pub fn say(line: &dyn Display) {
    if IS_JSON.load(Ordering::Relaxed) {
        let text = line.to_string();
        let (level, message) = match text.split_once(": ") {
            Some(("warning", message)) => (Level::Warn, message),
            Some(("error", message)) => (Level::Error, message),
            _ => (Level::Error, &*text),
        };
        return write(&json_record(level, message));
    }
    write(&format!("{line}\n"));
}

fn write(line: &str) {
    match WRITER.get() {
        Some(writer) => writer.push_or_drop(line.as_bytes().to_vec()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until everything is written, but only for a moment. Call it before the process ends.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(END_TIME);
    }
}

/// Lines that were dropped so far: there was no room, or standard error did not take them.
#[must_use]
pub fn dropped() -> u64 {
    let no_room = WRITER.get().map_or(0, Writer::dropped);
    no_room + REFUSED.load(Ordering::Relaxed)
}

/// Colours are for terminals only.
fn style() -> WriteStyle {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    if io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb {
        WriteStyle::Always
    } else {
        WriteStyle::Never
    }
}

/// Where the logger writes its lines, each in one piece.
struct Pipe;

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(writer) = WRITER.get() {
            writer.push_or_drop(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines from the queue to standard error, and reports dropped ones.
#[derive(Default)]
struct StandardError {
    /// Lines that were reported as dropped so far.
    reported: u64,
    /// When they were last reported, in ns of the workers' clock.
    reported_at: u64,
}

impl Outlet for StandardError {
    fn lost(&mut self, _line: Vec<u8>, _error: &io::Error) {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }

    fn written(&mut self) {
        let dropped = dropped();
        if dropped > self.reported {
            let now = sys::monotonic();
            if now.saturating_sub(self.reported_at) < REPORT_EVERY {
                return;
            }
            let lately = dropped - self.reported;
            (self.reported, self.reported_at) = (dropped, now);
            log::warn!(
                "{} of this log dropped, {dropped} in all: standard error did not take them",
                plural(lately, "line")
            );
        }
    }
}

const REPORT_EVERY: u64 = SECOND;
/// Whether records are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// The variable that names the format of records.
pub const FORMAT: &str = "MAHORAGA_LOG_FORMAT";
/// The log target of texts of several lines.
const REPORT: &str = "report";
static WRITER: OnceLock<Writer> = OnceLock::new();
/// Lines that standard error refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// How long a stuck standard error delays the end of the process. On a busy machine the thread that
/// writes may wait longer than 0.2 s for a CPU, and the reason of a refused start would be lost.
const END_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_record_looks_like_another_one() {
        assert_eq!(escaped("web/a is down: tcp"), "web/a is down: tcp");
        assert_eq!(
            escaped("it said `-ERR\r\n[2026] up\u{1b}[2K`"),
            "it said `-ERR\\r\\n[2026] up\\u{1b}[2K`"
        );
        let json = json_record(Level::Warn, "two\nlines \"quoted\"");
        assert_eq!(json.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["level"], "warn");
        assert_eq!(read["message"], "two\nlines \"quoted\"");
    }
}
