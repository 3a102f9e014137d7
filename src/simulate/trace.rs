//! The sessions of an access log, for replay.
//!
//! Reads both formats of the access log. A line has the end of its session and its length, from
//! which the arrival follows, to the millisecond. The backend's work is the time from the connect
//! to the first byte. Lines that cannot be read are counted; they are never an error.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::time::{SECOND, US};

/// Recorded sessions in order of their arrival.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    sessions: Vec<Recorded>,
    addresses: Vec<Option<IpAddr>>,
    backends: Vec<String>,
    /// Lines that could not be read.
    pub skipped: Skipped,
}

/// Lines of an access log that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The number of lines.
    pub lines: u64,
    /// The first of them: line number, from 1 on, and reason.
    pub first: Vec<(u64, &'static str)>,
    /// The log has more than [`LINES_MAX`] lines; the rest was not read.
    pub rest: bool,
}

/// A recorded session. Times are in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Since the first session's arrival.
    pub(super) at: u64,
    pub(super) lifetime: u64,
    /// From the connect to the first byte.
    pub(super) work: u64,
    pub(super) bytes: u64,
    pub(super) client: u32,
    pub(super) port: u16,
    /// The backend, as an index into the trace's names of backends.
    pub(super) backend: Option<u16>,
}

impl Trace {
    /// Reads an access log of JSON or `key=value` lines, up to [`LINES_MAX`] of them.
    ///
    /// # Errors
    ///
    /// Returns the error of the reader.
    pub fn read(mut log: impl BufRead) -> io::Result<Self> {
        let mut reader = Reader::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut limited = log.by_ref().take(LINE_BYTES_MAX);
            if limited.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if number > LINES_MAX {
                reader.trace.skipped.rest = true;
                break;
            }
            let cut = line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX;
            let read = if cut {
                log.skip_until(b'\n')?;
                Err("it is longer than 64 KiB")
            } else {
                reader.take(&line)
            };
            if let Err(why) = read {
                reader.trace.skipped.add(number, why);
            }
        }
        Ok(reader.finish())
    }

    /// The number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether it has no sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The number of clients.
    pub(super) fn clients(&self) -> u32 {
        u32::try_from(self.addresses.len()).unwrap_or(u32::MAX)
    }

    /// Just after the last arrival, in ns.
    pub(super) fn end(&self) -> u64 {
        let last = self.sessions.last();
        last.map_or(0, |last| last.at * US + 1)
    }

    pub(super) fn session(&self, nth: usize) -> Option<&Recorded> {
        self.sessions.get(nth)
    }

    /// Where a client came from; `None`: a Unix socket.
    pub(super) fn address(&self, client: u32) -> Option<IpAddr> {
        *self.addresses.get(client as usize)?
    }

    /// The names of the backends that sessions went to.
    pub(super) fn backends(&self) -> &[String] {
        &self.backends
    }
}

impl Skipped {
    fn add(&mut self, line: u64, why: &'static str) {
        self.lines += 1;
        if self.first.len() < SKIPPED_SHOWN {
            self.first.push((line, why));
        }
    }
}

/// Collects sessions.
#[derive(Default)]
struct Reader {
    trace: Trace,
    clients: HashMap<Option<IpAddr>, u32>,
    backends: HashMap<String, u16>,
}

impl Reader {
    /// Reads one line; an empty line is skipped.
    fn take(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
        let line = line.trim();
        if line.is_empty() {
            return Ok(());
        }
        let fields = if line.starts_with('{') {
            json(line)
        } else {
            key_value(line)
        };
        let fields = fields.ok_or("it is neither JSON nor key=value pairs")?;
        let ended = fields.time.ok_or("it has no time")?;
        let total = fields.total.ok_or("it has no total_us")?;
        let connect = fields.connect.ok_or("its session was never connected")?;
        let first_byte = fields.first_byte.ok_or("its backend never answered")?;
        let at = ended.checked_sub(total).ok_or("it began before 1970")?;
        let address = fields.client.map(|client| client.ip());
        let backend = fields.backend.and_then(|name| self.backend(name));
        let client = self.client(address).ok_or("it has one client too many")?;
        self.trace.sessions.push(Recorded {
            at,
            lifetime: total,
            work: first_byte.saturating_sub(connect),
            bytes: fields.bytes[0].saturating_add(fields.bytes[1]),
            client,
            port: fields.client.map_or(0, |client| client.port()),
            backend,
        });
        Ok(())
    }

    fn client(&mut self, address: Option<IpAddr>) -> Option<u32> {
        let next = u32::try_from(self.trace.addresses.len()).ok()?;
        Some(*self.clients.entry(address).or_insert_with(|| {
            self.trace.addresses.push(address);
            next
        }))
    }

    fn backend(&mut self, name: String) -> Option<u16> {
        if let Some(known) = self.backends.get(&name) {
            return Some(*known);
        }
        let next = u16::try_from(self.trace.backends.len()).ok()?;
        self.trace.backends.push(name.clone());
        self.backends.insert(name, next);
        Some(next)
    }

    fn finish(self) -> Trace {
        let mut trace = self.trace;
        trace.sessions.sort_by_key(|session| session.at);
        let first = trace.sessions.first().map_or(0, |first| first.at);
        for session in &mut trace.sessions {
            session.at -= first;
        }
        let near = trace
            .sessions
            .partition_point(|session| session.at <= SPAN_MAX);
        trace.skipped.lines += (trace.sessions.len() - near) as u64;
        trace.sessions.truncate(near);
        trace
    }
}

/// The fields of a line. Times are µs, `time` since 1970.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    time: Option<u64>,
    client: Option<SocketAddr>,
    backend: Option<String>,
    connect: Option<u64>,
    first_byte: Option<u64>,
    total: Option<u64>,
    bytes: [u64; 2],
}

impl Fields {
    /// Reads a field from its text; a field that can't be read stays `None`.
    fn set(&mut self, key: &str, value: &str) {
        let number = || value.parse().ok().filter(|number| *number <= SPAN_MAX);
        match key {
            "time" => self.time = micros(value),
            "client" => self.client = value.parse().ok(),
            "backend" if value != "-" => self.backend = Some(value.to_owned()),
            "connect_us" => self.connect = number(),
            "first_byte_us" => self.first_byte = number(),
            "total_us" => self.total = number(),
            "bytes_up" => self.bytes[0] = value.parse().unwrap_or(0),
            "bytes_down" => self.bytes[1] = value.parse().unwrap_or(0),
            _ => {}
        }
    }
}

fn json(line: &str) -> Option<Fields> {
    let values: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    let mut fields = Fields::default();
    for (key, value) in &values {
        match value {
            Value::String(text) => fields.set(key, text),
            Value::Number(number) => fields.set(key, &number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
        }
    }
    Some(fields)
}

/// Pairs between single spaces; a value with spaces in it stands in quotes, as a JSON string.
fn key_value(line: &str) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let value = values.next()?.ok()?;
            rest = after.get(values.byte_offset()..)?.trim_start();
            fields.set(key, &value);
        } else {
            let (value, after) = after.split_once(' ').unwrap_or((after, ""));
            rest = after.trim_start();
            fields.set(key, value);
        }
    }
    Some(fields)
}

fn micros(rfc3339: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(rfc3339).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

/// Lines of a trace that are read.
pub const LINES_MAX: u64 = 10_000_000;
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Bad lines that are reported one by one.
const SKIPPED_SHOWN: usize = 3;
/// The longest session and the longest trace: a year, in µs. Longer sessions are left out.
const SPAN_MAX: u64 = 366 * 86_400 * SECOND / US;

#[cfg(test)]
mod tests;
