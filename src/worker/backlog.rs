//! The kernel's backlogs of a worker's listening sockets, which are short while it is overloaded.
//!
//! A backlog has room for thousands of clients that have connected and are not accepted yet. In a
//! burst that is what serves them all. Under a load that lasts each of them waits for all others,
//! often for longer than it is patient: the worker would be busy with clients that have gone. A
//! short one refuses the others before they are connected, which costs a few hundred nanoseconds
//! and no descriptor. Such a client's kernel tries again after a second.

use crate::kernel::Kernel;

use super::Worker;

/// What the worker knows of a port's backlog.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Its length while it is short; `None`: it has all its room.
    short: Option<u32>,
    /// What the kernel had dropped at the socket when it was last asked.
    dropped: u32,
}

impl<K: Kernel> Worker<K> {
    /// How many clients may wait now because the worker is overloaded; `None`: it is not.
    pub(super) fn room_for_arrivals(&self) -> Option<u32> {
        let rules = self.snapshot.admission.shed.filter(|shed| !shed.dry_run)?;
        self.arrivals.overload.room(&rules, self.now)
    }

    /// Makes a port's backlog as long as it is to be, and counts what the kernel has dropped while
    /// it was short.
    pub(super) fn update_backlog(&mut self, number: usize) {
        let due = self.arrivals.room.map(length);
        let port = &mut self.ports[number];
        let Some(socket) = port.socket.as_ref() else {
            return;
        };
        let backlog = &mut port.backlog;
        if due.is_none() && backlog.short.is_none() {
            return;
        }
        let dropped = self.kernel.dropped_clients(socket);
        let before = std::mem::replace(&mut backlog.dropped, dropped);
        if backlog.short.is_some() {
            let more = dropped.wrapping_sub(before);
            self.stats.backlog_drops.add(u64::from(more));
        }
        if backlog.short != due {
            backlog.short = due;
            let length = due.unwrap_or(self.backlog);
            self.kernel.set_backlog(socket, length);
        }
    }
}

/// Half as many as may wait in the worker, or up to twice that: a length that seldom changes. The
/// worker looks every 20 ms whether it has room for more.
fn length(room: u32) -> u32 {
    (room / 2).next_power_of_two()
}
