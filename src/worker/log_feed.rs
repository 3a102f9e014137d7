//! Which sessions of a worker get a line in the access log, and where their records go.

use crossbeam::channel::Sender;

use crate::hash;
use crate::session::CloseReason;

use super::Record;

/// Takes records of the access log, those that its rule lets pass.
#[derive(Clone, Debug)]
pub struct LogFeed {
    /// Where records go. A full queue drops them.
    pub records: Sender<Record>,
    /// Which sessions get a line.
    pub rule: LogRule,
}

impl From<Sender<Record>> for LogFeed {
    /// Every session.
    fn from(records: Sender<Record>) -> Self {
        let rule = LogRule::default();
        Self { records, rule }
    }
}

/// Which sessions get a line. Workers decide that, so that lines which the log does not take cost
/// no room in its queue, and wake its writer for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRule {
    /// A bit for each reason whose sessions get one.
    reasons: u64,
    /// One of so many that both sides closed in order gets one.
    sample: u32,
    /// Lines have the status of the backend's first answer.
    pub status: bool,
    /// Whether a line has the name that the client asks for in TLS.
    pub server_name: bool,
    /// Whether a line has the fingerprint of the hello.
    pub ja4: bool,
    /// Lines have what TLS that ends here has agreed on.
    pub tls: bool,
    /// Lines have what TCP knows of both connections.
    pub tcp_info: bool,
    /// Connections of a proxy's own on which it sends nothing get one.
    pub proxy_checks: bool,
    /// A session gets a line at its start too.
    pub start: bool,
    /// A session gets a line each so many ns while it is open.
    pub progress: Option<u64>,
}

impl LogRule {
    /// Whether lines have something that sessions do not keep themselves.
    pub(super) fn asks_for_extras(&self) -> bool {
        self.status || self.server_name || self.ja4 || self.tls || self.tcp_info
    }

    /// Sessions that ended for one of these reasons; one of `sample` of those that both sides
    /// closed in order. A `sample` of 0 counts as 1.
    #[must_use]
    pub fn new(reasons: impl IntoIterator<Item = CloseReason>, sample: u32) -> Self {
        let bits = reasons.into_iter().map(|reason| 1 << (reason as u64));
        Self {
            reasons: bits.fold(0, |all, bit: u64| all | bit),
            sample: sample.max(1),
            status: false,
            server_name: false,
            ja4: false,
            tls: false,
            tcp_info: false,
            proxy_checks: true,
            start: false,
            progress: None,
        }
    }

    /// Whether a session gets a line at its end, by its worker and number.
    #[must_use]
    pub fn takes(self, id: (u32, u64), reason: CloseReason) -> bool {
        let is_named = self.reasons & (1 << (reason as u64)) != 0;
        is_named && (!reason.is_orderly() || self.samples(id))
    }

    /// Whether a session is in the sample, by its worker and number. The answer is always the same
    /// for one session: what picks it is its id alone.
    #[must_use]
    pub fn samples(self, (worker, number): (u32, u64)) -> bool {
        hash::mix(u64::from(worker) << 48 ^ number).is_multiple_of(self.sample.into())
    }

    /// How many sessions the line of one stands for that ended for this reason, or goes on.
    #[must_use]
    pub fn stands_for(self, reason: Option<CloseReason>) -> u32 {
        match reason.is_none_or(CloseReason::is_orderly) {
            true => self.sample,
            false => 1,
        }
    }
}

impl Default for LogRule {
    /// Every session.
    fn default() -> Self {
        Self::new(CloseReason::ALL, 1)
    }
}

/// A bit is there for each reason.
const _: () = assert!(CloseReason::ALL.len() <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_ordinary_sessions_is_taken_and_every_other_one() {
        let rule = LogRule::new(CloseReason::ALL, 10);
        let sessions =
            || (0..4).flat_map(|worker| (1..=10_000).map(move |number| (worker, number)));
        let taken = |reason| sessions().filter(|its| rule.takes(*its, reason)).count();
        let ordinary = taken(CloseReason::ClientClosed);
        assert!((3_800..4_200).contains(&ordinary), "{ordinary}");
        assert_eq!(taken(CloseReason::BackendReset), 40_000);
        // Not the same numbers of each worker.
        let of = |worker: u32| {
            let numbers = (1..=1_000)
                .filter(move |number| rule.takes((worker, *number), CloseReason::BackendClosed));
            numbers.collect::<Vec<u64>>()
        };
        assert_ne!(of(0), of(1));
        assert_eq!(of(1), of(1));
        assert_eq!(rule.stands_for(Some(CloseReason::ClientClosed)), 10);
        assert_eq!(rule.stands_for(Some(CloseReason::Killed)), 1);
    }

    #[test]
    fn only_the_reasons_that_are_named_get_a_line() {
        let rule = LogRule::new([CloseReason::IdleTimeout, CloseReason::ClientClosed], 1);
        let taken = CloseReason::ALL.map(|reason| rule.takes((0, 1), reason));
        let taken = CloseReason::ALL.into_iter().zip(taken);
        let taken: Vec<_> = taken
            .filter(|(_, takes)| *takes)
            .map(|(its, _)| its)
            .collect();
        assert_eq!(taken, [CloseReason::ClientClosed, CloseReason::IdleTimeout]);
        let all = LogRule::default();
        assert!(CloseReason::ALL.iter().all(|its| all.takes((3, 9), *its)));
    }
}
