//! Looks at the kernel's memory for TCP once per second. While it is short, workers close sessions
//! that hold much of it and move little (`worker/hoarders.rs`).
//!
//! The kernel's own marks decide, `net.ipv4.tcp_mem`: at the third it drops what arrives for any
//! socket of the machine. A little below that sessions are closed, until less than the second is in
//! use, above which the kernel itself begins to save.

use std::sync::Arc;

use crate::config::values::memory_text;
use crate::session::CloseReason;
use crate::sys::TcpMemory;
use crate::worker::{Command, Stats};

use super::workers::Workers;

/// Whether the kernel's memory for TCP is short.
#[derive(Debug, Default)]
pub(super) struct TcpPressure {
    is_short: bool,
    /// Sessions that were closed for it, at the last call and at the last line of the log.
    closed: u64,
    logged: u64,
    /// Seconds until the next line may come.
    left: u32,
    /// What is so now, for people.
    now: Option<String>,
}

impl TcpPressure {
    /// To be called each second.
    pub(super) fn tick(&mut self, memory: Option<TcpMemory>, workers: &Workers) {
        let closed = |its: &Arc<Stats>| its.closed[CloseReason::Stalled as usize].get();
        let closed = workers.stats.iter().map(closed).sum();
        let excess = self.update(memory, closed);
        if let Some(line) = self.due() {
            log::warn!("{line}");
        }
        if let Some(excess) = excess {
            let share = excess.div_ceil(workers.stats.len().max(1) as u64);
            workers.tell_all(|| Command::FreeMemory(share));
        }
    }

    /// What is so now, for people.
    pub(super) fn now(&self) -> Option<&String> {
        self.now.as_ref()
    }

    /// How many bytes are to be freed; `None`: there are enough. `closed` are the sessions that
    /// were closed for it so far.
    fn update(&mut self, memory: Option<TcpMemory>, closed: u64) -> Option<u64> {
        self.left = self.left.saturating_sub(1);
        let more = closed - self.closed;
        self.closed = closed;
        let short = memory.filter(|its| match self.is_short {
            true => its.used > its.pressure,
            false => its.used > its.max - its.max / MARGIN,
        });
        self.is_short = short.is_some();
        self.now = short.map(|its| sentence(its, more, "in the last second"));
        short.map(|its| its.used.saturating_sub(its.pressure))
    }

    /// The line of the log that is due: at once, and then every ten seconds while it lasts.
    fn due(&mut self) -> Option<String> {
        let line = self.now.clone().filter(|_| self.left == 0)?;
        self.left = PAUSE_SECONDS;
        let more = self.closed - std::mem::replace(&mut self.logged, self.closed);
        Some(format!("{line} ({more} since the last such line)"))
    }
}

fn sentence(memory: TcpMemory, closed: u64, when: &str) -> String {
    let [used, max] = [memory.used, memory.max].map(|bytes| memory_text(bytes >> 20 << 20));
    format!(
        "the TCP sockets of this machine hold {used} of the {max} at which the kernel drops what \
         arrives: {closed} sessions were closed {when} whose peers take little of what waits for \
         them; raise net.ipv4.tcp_mem, or lower the third numbers of tcp_rmem and tcp_wmem"
    )
}

/// Memory is short from a sixteenth below the limit on: the look at it comes once per second.
const MARGIN: u64 = 16;
/// From one line to the next.
const PAUSE_SECONDS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(used: u64) -> Option<TcpMemory> {
        Some(TcpMemory {
            used: used << 20,
            pressure: 150 << 20,
            max: 200 << 20,
        })
    }

    #[test]
    fn memory_is_freed_from_below_the_limit_down_to_the_mark_of_pressure() {
        let mut tcp = TcpPressure::default();
        assert_eq!(tcp.update(None, 0), None);
        for (used, excess) in [
            (187, None),
            (188, Some(38 << 20)),
            (151, Some(1 << 20)),
            (150, None),
            (187, None),
        ] {
            assert_eq!(tcp.update(memory(used), 0), excess, "{used}");
            assert_eq!(tcp.now().is_some(), excess.is_some());
        }
    }

    #[test]
    fn a_line_comes_at_once_and_then_each_ten_seconds() {
        let mut tcp = TcpPressure::default();
        for second in 0..20 {
            tcp.update(memory(190), 3 * second);
            let line = tcp.due();
            assert_eq!(line.is_some(), second % 10 == 0, "{second}");
            if second == 10 {
                let line = line.unwrap();
                assert!(line.starts_with(
                    "the TCP sockets of this machine hold 190MiB of the 200MiB at which the \
                     kernel drops what arrives: 3 sessions were closed in the last second "
                ));
                assert!(line.ends_with(" (30 since the last such line)"), "{line}");
            }
        }
    }
}
