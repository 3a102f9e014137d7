//! What one worker costs, as `loadtest/capacity.sh` measured it.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

/// Costs of one worker. A cost of CPU is what the process of the balancer used, the kernel's work
/// for it included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Costs {
    /// The machine that was measured.
    pub machine: String,
    /// The day, such as `2026-11-28`.
    pub date: String,
    /// A connection with one small request, from accept to close, in ns of CPU.
    pub connection_ns: u64,
    /// A small request and its answer over an open connection, in ns of CPU.
    pub request_ns: u64,
    /// 10^9 bytes of few streams, which are spliced, in µs of CPU.
    pub spliced_us: u64,
    /// The same of streams that are copied, as there is no pipe for them.
    pub copied_us: u64,
    /// The program's memory for an idle session, in bytes.
    pub session_bytes: u64,
    /// The kernel's memory for an idle socket, in bytes.
    pub socket_bytes: u64,
    /// Descriptors of a session, in the table of its worker.
    pub session_descriptors: u64,
}

/// Why a table of costs can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CostsError {
    /// A line is not a name and a value.
    #[error("invalid line {0}: expected a name, a tab and a value")]
    Line(usize),
    /// No row has this name.
    #[error("there is no row `{0}`")]
    Missing(&'static str),
    /// The value of this row is no cost.
    #[error("invalid {0}: expected a whole number from 1 to {COST_MAX}")]
    Value(&'static str),
    /// This row is none of the table.
    #[error("unknown row `{0}`")]
    Unknown(String),
}

impl Costs {
    /// The costs that this program was built with.
    ///
    /// # Errors
    /// The table is broken.
    pub fn measured() -> Result<Self, CostsError> {
        Self::read(TABLE)
    }

    /// Reads a table: lines of a name and a value, with a tab between; what follows another tab is
    /// for people. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// A row is missing, unknown or invalid.
    pub fn read(text: &str) -> Result<Self, CostsError> {
        let mut rows = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, rest) = line.split_once('\t').ok_or(CostsError::Line(number))?;
            rows.insert(name, rest.split('\t').next().unwrap_or_default());
        }
        let mut word = |name| rows.remove(name).ok_or(CostsError::Missing(name));
        let machine = word("machine")?.to_owned();
        let date = word("date")?.to_owned();
        let mut cost = |name| {
            let value = word(name)?.parse().ok();
            let value = value.filter(|value| (1..=COST_MAX).contains(value));
            value.ok_or(CostsError::Value(name))
        };
        let costs = Self {
            machine,
            date,
            connection_ns: cost("connection")?,
            request_ns: cost("request")?,
            spliced_us: cost("spliced")?,
            copied_us: cost("copied")?,
            session_bytes: cost("session")?,
            socket_bytes: cost("socket")?,
            session_descriptors: cost("descriptors")?,
        };
        match rows.into_keys().next() {
            Some(unknown) => Err(CostsError::Unknown(unknown.to_owned())),
            None => Ok(costs),
        }
    }

    /// Memory of the program and of the kernel for an idle session, which has two sockets.
    #[must_use]
    pub fn memory_of_session(&self) -> u64 {
        self.session_bytes + 2 * self.socket_bytes
    }
}

/// The table, at the time of the build.
const TABLE: &str = include_str!("../../loadtest/capacity.tsv");
/// The largest cost, of any unit.
const COST_MAX: u64 = 10_000_000;
