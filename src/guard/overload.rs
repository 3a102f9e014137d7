//! Finds out that accepted clients wait for too long, and for so long that it is no burst.
//!
//! The idea is that of controlled delay (CoDel, RFC 8289): a queue that empties now and then does
//! no harm, however long it is at times. One that stands adds its length to every client's time.

/// How a worker takes accepted clients in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Clients that begin their session in a turn. The others wait, so that open sessions are
    /// served in between.
    pub per_turn: u32,
    /// Which of them are refused; `None`: none is.
    pub shed: Option<Shed>,
}

/// When clients that wait are refused; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// A client may wait for this long while the worker is overloaded.
    pub wait: u64,
    /// The worker is overloaded when the first client has waited for longer at each look during
    /// this time.
    pub after: u64,
    /// Whether such clients are only counted.
    pub dry_run: bool,
}

impl Admission {
    /// Clients that are refused in a turn at most. To accept and reset one takes a sixth of what a
    /// session takes, which is not to be taken from sessions.
    #[must_use]
    pub fn sheds(&self) -> u32 {
        self.per_turn.div_ceil(2)
    }
}

impl Default for Admission {
    /// Enough that a turn's own cost is small beside theirs, and few enough that it is short.
    fn default() -> Self {
        Self {
            per_turn: 16,
            shed: None,
        }
    }
}

/// Whether a worker is overloaded.
#[derive(Debug, Default)]
pub struct OverloadDetector {
    /// Since when the first client has waited for too long at each look.
    since: Option<u64>,
    /// The worker is overloaded until this time, or for longer if clients wait for too long again.
    until: u64,
}

impl OverloadDetector {
    /// The first client that waits has done so for `wait`. Returns whether clients that have waited
    /// for longer than they may are to be refused.
    ///
    /// `stalled` is when this thread last ran again after a stall: what waited meanwhile shows
    /// nothing of the load.
    pub fn look(&mut self, wait: u64, rules: &Shed, stalled: u64, now: u64) -> bool {
        if wait <= rules.wait {
            self.since = None;
            return now < self.until;
        }
        let since = (*self.since.get_or_insert(now)).max(stalled);
        let lasts = now.saturating_sub(since) >= rules.after || now < self.until;
        if lasts {
            self.until = now.saturating_add(rules.after);
        }
        lasts
    }

    /// No client waits.
    pub fn on_empty(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MS, SECOND};

    const RULES: Shed = Shed {
        wait: 50 * MS,
        after: SECOND,
        dry_run: false,
    };

    /// Looks each 10 ms from `from` on, until `to`, in ms; the first time that clients are refused.
    fn waits(
        overload: &mut OverloadDetector,
        wait: u64,
        from: u64,
        to: u64,
        stalled: u64,
    ) -> Option<u64> {
        let mut times = (from..to).step_by(10);
        times.find(|at| overload.look(wait * MS, &RULES, stalled * MS, at * MS))
    }

    #[test]
    fn a_burst_that_passes_is_no_overload() {
        let mut overload = OverloadDetector::default();
        // However long they wait.
        assert_eq!(waits(&mut overload, 900, 0, 1_000, 0), None);
        assert_eq!(waits(&mut overload, 50, 1_000, 1_010, 0), None);
        assert_eq!(waits(&mut overload, 900, 1_010, 2_010, 0), None);
        overload.on_empty();
        assert_eq!(waits(&mut overload, 900, 2_010, 3_010, 0), None);
    }

    #[test]
    fn a_wait_that_stays_too_long_is_one_until_none_is_for_as_long() {
        let mut overload = OverloadDetector::default();
        assert_eq!(waits(&mut overload, 51, 0, 5_000, 0), Some(1_000));
        // What is refused makes the wait short; the load is the same.
        assert!(overload.look(10 * MS, &RULES, 0, 1_500 * MS));
        assert!(overload.look(60 * MS, &RULES, 0, 1_990 * MS));
        assert!(overload.look(10 * MS, &RULES, 0, 2_989 * MS));
        assert!(!overload.look(10 * MS, &RULES, 0, 2_990 * MS));
        // Then it takes as long as before.
        assert_eq!(waits(&mut overload, 51, 3_000, 9_000, 0), Some(4_000));
    }

    #[test]
    fn a_stall_of_this_process_is_no_overload() {
        let mut overload = OverloadDetector::default();
        assert!(!overload.look(60 * MS, &RULES, 0, 100 * MS));
        // Stopped for an hour; all that came meanwhile waits.
        let stalled = 3_600_000;
        let until = stalled + 990;
        assert_eq!(waits(&mut overload, stalled, stalled, until, stalled), None);
        let after = Some(stalled + 1_000);
        assert_eq!(
            waits(&mut overload, 900, until, until + 500, stalled),
            after
        );
    }
}
