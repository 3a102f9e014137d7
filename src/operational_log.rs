//! The operational log: lines for the operator on standard error, written by a thread of their own,
//! as a pipe may be full. Lines that there is no room for are dropped and counted.

#![forbid(unsafe_code)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use env_logger::{Env, Target, WriteStyle};

use crate::control;
use crate::sys;
use crate::writer::{Outlet, Writer};

/// Has every line written by a thread from now on, those of a panic too. To be called once, before
/// there is another thread.
///
/// # Errors
/// Standard error is closed, or the thread can't be made: lines are written at once then.
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
            say(&trace);
        }
        flush();
    }));
    Ok(())
}

/// Sends what is logged there from now on, at the level that the variable names.
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
        .format_target(false)
        .init();
}

/// Writes a line as it is: on standard error, or nowhere when that is closed.
pub fn say(line: &dyn Display) {
    match WRITER.get() {
        Some(writer) => writer.push_or_drop(format!("{line}\n").into_bytes()),
        None => drop(writeln!(io::stderr(), "{line}")),
    }
}

/// Waits until everything is written, if that takes no longer than a moment. To be called before
/// the process ends.
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

/// Colours are for people.
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

/// What becomes of a line at the far end of the queue.
#[derive(Default)]
struct StandardError {
    /// Lines that were reported as dropped so far,
    reported: u64,
    /// and when, in ns of the workers' clock.
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
                "{lately} lines of this log were dropped, {dropped} in all: standard error did \
                 not take them"
            );
        }
    }
}

/// One second, in ns.
const REPORT_EVERY: u64 = 1_000_000_000;
static WRITER: OnceLock<Writer> = OnceLock::new();
/// Lines that standard error refused.
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// How long a stuck standard error delays the end of the process.
const END_TIME: Duration = Duration::from_millis(200);
