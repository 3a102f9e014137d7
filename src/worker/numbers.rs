//! The gauges and counters of a worker, each declared once.

use crate::metric::{Kind, Metric};
use crate::pool::Traffic;
use crate::session::CloseReason;

use super::latencies::Latencies;
use super::metrics::{Number, Progress};

/// Makes [`Numbers`] and [`NUMBERS`] from rows: what a number is, its kind and its name.
macro_rules! numbers {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident,)+) => {
        /// The numbers of [`Stats`](super::Stats).
        #[derive(Debug, Default)]
        pub struct Numbers {
            $($(#[doc = $help])+ pub $name: Number,)+
            /// Bytes that were delivered.
            pub traffic: Traffic,
            /// How long clients waited.
            pub latencies: Latencies,
            /// Sessions ended, by reason.
            pub closed: PerReason,
            /// How far the worker has come.
            pub progress: Progress,
        }

        /// What the numbers are that have no label, in the order of [`Numbers::values`].
        pub static NUMBERS: [Metric; COUNT] = [$(Metric {
            name: stringify!($name),
            kind: kind!($kind),
            unit: None,
            help: concat!($($help),+).trim_ascii_start(),
        }),+];

        const COUNT: usize = [$(stringify!($name)),+].len();

        impl Numbers {
            /// Their present values.
            #[must_use]
            pub fn values(&self) -> [u64; COUNT] {
                [$(self.$name.get()),+]
            }
        }
    };
}

/// A number for each close reason, in their order.
#[derive(Debug)]
pub struct PerReason([Number; CloseReason::ALL.len()]);

impl Default for PerReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Number::default()))
    }
}

impl std::ops::Deref for PerReason {
    type Target = [Number];

    fn deref(&self) -> &[Number] {
        &self.0
    }
}

macro_rules! kind {
    (gauge) => {
        Kind::Gauge
    };
    (counter) => {
        Kind::Counter
    };
}

numbers! {
    /// Sessions that are open now.
    gauge sessions,
    /// Receive buffers that hold bytes now.
    gauge buffers,
    /// Pipes that hold bytes now.
    gauge pipes,
    /// Accepted connections that wait for a place now.
    gauge parked,
    /// Accepted connections that wait for their turn now.
    gauge arriving,
    /// Connections of proxies that wait now for the rest of the header that names their client.
    gauge unfinished_headers,
    /// Refused clients that are held now.
    gauge held,
    /// Connections accepted.
    counter accepted,
    /// Sessions whose first bytes lacked what a backend is selected by: their client's
    /// address was taken instead.
    counter peek_misses,
    /// Connect attempts that failed.
    counter connect_failures,
    /// TLVs of clients' PROXY headers that were not passed on, as the header had no room for them.
    counter proxy_tlvs_dropped,
    /// Connects that found no free local port.
    counter ports_exhausted,
    /// Connects from a `source` address that this machine does not have.
    counter sources_missing,
    /// Times that a listener stopped accepting: a limit was reached, or descriptors ran out.
    counter accept_pauses,
    /// Times that accepting failed because descriptors or memory were lacking.
    counter accept_exhausted,
    /// New listeners whose listening socket did not arrive: this worker does not listen there.
    counter listeners_lost,
    /// Waits that ended or reported a change, and nothing could be moved: a few for each
    /// session that is half-closed or slow. A busy loop would be thousands a second.
    counter turns_in_vain,
    /// Clients that would have been refused as `overloaded` or `memory_full` if that were not in
    /// dry run.
    counter overloaded_dry_run,
    /// Segments that the kernel dropped at listening sockets while this worker was overloaded: of
    /// clients for which the short backlog had no room, and of those that a filter refuses.
    counter backlog_drops,
    /// Connects after the first one of a session: the one before failed.
    counter retries,
    /// Calls of io_uring_enter(2): each hands over what was asked, and nearly each one waits. So
    /// the worker woke at most that often.
    counter enters,
    /// Operations that were handed to the kernel.
    counter submissions,
    /// Completions that the kernel answered with.
    counter completions,
    /// Other system calls: sockets made, asked or set, bytes spliced, pipes made, memory given
    /// back, threads woken.
    counter other_calls,
    /// Refused clients that hear nothing more.
    counter dropped,
    /// Refused clients that stay connected for a while.
    counter tarpitted,
    /// Refused clients that were let go before their time, as others needed their slots.
    counter held_early,
    /// Times that a direction of a session rested, as it had used up its bandwidth.
    counter bandwidth_rests,
    /// Access log lines that were dropped because the queue was full.
    counter log_dropped,
    /// Refused clients without a line of their own in the access log, as there were many.
    counter refusals_unlogged,
    /// Connections of proxies' own on which they sent nothing, such as health checks: they have no
    /// line in the access log.
    counter proxy_checks_unlogged,
    /// Access log lines that the log did not take, as on a full disk. The control thread counts
    /// them, alone.
    counter log_unwritten,
    /// Clients that came back within a second after the idle timeout had cut them.
    counter idle_regrets,
    /// Clients refused as `pool_full` for whom a place came free within 100 ms.
    counter full_regrets,
    /// Clients refused as `queue_timeout` for whom a place came free within 100 ms.
    counter queue_regrets,
}
