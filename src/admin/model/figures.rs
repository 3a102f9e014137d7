//! What was measured, as it goes over the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Times of one kind, of all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyStatus {
    /// `connect` and `first_byte`: from a client's accept to its backend's connection and first
    /// byte; `session`: from accept to the end; `queue`: in queues of pools, of clients that waited
    /// there; `turn`: a turn of a worker.
    pub name: String,
    /// Those of the last 10 seconds, to 12.
    pub last_10s: LatencyWindow,
    /// Those of the last minute.
    pub last_1m: LatencyWindow,
    /// All of them.
    pub since_start: LatencyWindow,
}

/// Times within a window; they are off by 4% at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyWindow {
    /// How many there were.
    pub count: u64,
    /// Half are below, in µs.
    pub p50_us: u64,
    /// 99% are below, in µs.
    pub p99_us: u64,
    /// 99.9% are below, in µs.
    #[serde(default)]
    pub p999_us: u64,
}

/// A probe of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    /// When it began, in seconds before now.
    pub ago_s: f64,
    /// How long it took, in µs.
    pub took_us: u64,
    /// Why it failed; null: it passed.
    pub error: Option<String>,
}

/// How a backend's condition changed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastChange {
    /// `up`, `down`, `ejected`, `standby`, `drain` or `maint`.
    pub to: String,
    /// When (RFC 3339).
    pub at: String,
}

/// Bytes delivered while this is read, those of sessions that go on included: half a second late
/// at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrafficStatus {
    /// Bytes from clients to backends.
    pub bytes_up: u64,
    /// Bytes from backends to clients.
    pub bytes_down: u64,
    /// Bytes from clients in a second: in the last one.
    pub bytes_up_per_s: u64,
    /// Bytes to clients in a second: in the last one.
    pub bytes_down_per_s: u64,
}

impl TrafficStatus {
    /// Bytes in both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_up.saturating_add(self.bytes_down)
    }

    /// Bytes in both directions in a second.
    #[must_use]
    pub fn per_s(&self) -> u64 {
        self.bytes_up_per_s.saturating_add(self.bytes_down_per_s)
    }
}

/// Segments of TCP in the network namespace of the balancer since it was made: those of other
/// programs too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentsStatus {
    /// Received.
    pub received: u64,
    /// Sent, without those that were sent again.
    pub sent: u64,
    /// Sent again.
    pub sent_again: u64,
}

/// Turns of the control thread since the start: all that it does between two looks for what is
/// ready. No file and no client delays them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlStatus {
    /// The number of turns.
    pub turns: u64,
    /// Half took less, in µs.
    pub p50_us: u64,
    /// 99% took less, in µs.
    pub p99_us: u64,
    /// The longest, in µs.
    pub max_us: u64,
}

/// The history of figures and events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryStatus {
    /// The file that keeps it; none: the last hour is kept in memory.
    pub file: Option<String>,
    /// Bytes in use in the file.
    pub bytes: u64,
    /// Samples that were dropped: the machine was too busy.
    pub dropped: u64,
    /// Why the file can't be written, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A histogram over all that a worker saw since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistogramStatus {
    /// The worker; none: all together.
    pub worker: Option<u32>,
    /// What was measured, as SIGUSR1 calls it.
    pub name: String,
    /// `us`, `ns` or `B`.
    pub unit: String,
    /// How often.
    pub count: u64,
    /// Half are below.
    pub p50: u64,
    /// 90% are below.
    pub p90: u64,
    /// 99% are below.
    pub p99: u64,
    /// 99.9% are below.
    pub p999: u64,
    /// The greatest.
    pub max: u64,
}
