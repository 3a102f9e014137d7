//! Finds out that accepted clients wait for too long, and for so long that it is no burst.
//!
//! The idea is that of controlled delay (CoDel, RFC 8289): a queue that empties now and then does
//! no harm, however long it is at times. One that stands adds its length to every client's time.

use crate::time::{MS, SECOND};

/// How a worker takes accepted clients in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Clients that begin their session in a turn. The others wait, so that open sessions are
    /// served in between.
    pub per_turn: u32,
    /// Which of them are refused; `None`: none is.
    pub shed: Option<Shed>,
}

/// When clients are refused that have come and wait; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// A client may wait for this long while the worker is overloaded.
    pub wait: u64,
    /// The worker is overloaded when the first client has waited for longer at each look during
    /// this time, or has no memory when that is used up at each look.
    pub after: u64,
    /// The part of a worker's receive buffers in use, in percent, from which on its memory is used
    /// up; `None`: it never counts as that.
    pub memory: Option<u8>,
    /// Whether such clients are only counted.
    pub dry_run: bool,
}

impl Admission {
    /// Clients that are refused in a turn at most. To accept and reset one takes a sixth of what a
    /// session takes, which is not to be taken from sessions: the kernel's short backlog refuses
    /// the others at less. Where many more wait than may, as when overload begins, most have given
    /// up by the time that their session would begin.
    #[must_use]
    pub fn sheds(&self, crowded: bool) -> u32 {
        if crowded {
            self.per_turn.saturating_mul(2)
        } else {
            self.per_turn.div_ceil(16)
        }
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

/// Whether a worker is overloaded, or out of memory.
#[derive(Debug, Default)]
pub struct OverloadDetector {
    /// Since when the first client has waited for too long at each look.
    since: Option<u64>,
    /// The worker is overloaded until this time, or for longer if clients wait for too long again.
    until: u64,
    /// Sessions that begin in a second while clients wait: the last measure and those before it;
    /// `None`: not measured yet.
    rate: Option<u64>,
    /// Since when the worker's memory is used up at each look.
    full_since: Option<u64>,
    /// Since when sessions are counted for the next measure, and how many have begun.
    counting: Option<(u64, u32)>,
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

    /// Sessions hold `used` of `all` receive buffers. Returns whether new clients are to be
    /// refused, as that is too much, and has been for a while.
    pub fn is_out_of_memory(&mut self, [used, all]: [u32; 2], rules: &Shed, now: u64) -> bool {
        let part = rules.memory.map(u64::from);
        let is_full = part.is_some_and(|part| u64::from(used) * 100 >= u64::from(all) * part);
        if !is_full {
            self.full_since = None;
            return false;
        }
        let since = *self.full_since.get_or_insert(now);
        now.saturating_sub(since) >= rules.after
    }

    /// No client waits.
    pub fn on_empty(&mut self) {
        self.since = None;
        self.counting = None;
    }

    /// So many of the clients that waited have begun their sessions, and others wait still.
    pub fn on_begun(&mut self, count: u32, now: u64) {
        let Some((since, begun)) = &mut self.counting else {
            self.counting = Some((now, 0));
            return;
        };
        *begun = begun.saturating_add(count);
        let time = now.saturating_sub(*since);
        if time < MEASURE {
            return;
        }
        let rate = u64::from(*begun).saturating_mul(SECOND) / time;
        self.rate = Some(self.rate.map_or(rate, |before| before.midpoint(rate)));
        self.counting = Some((now, 0));
    }

    /// Until when the worker is overloaded; `None`: it is not.
    #[must_use]
    pub fn until(&self, now: u64) -> Option<u64> {
        (now < self.until).then_some(self.until)
    }

    /// How many clients may wait while the worker is overloaded; `None`: it is not, or not for long
    /// enough to tell. They are a quarter more than those that begin within the time that a client
    /// may wait: so some wait for too long, are refused, and show that the load goes on.
    #[must_use]
    pub fn room(&self, rules: &Shed, now: u64) -> Option<u32> {
        let rate = self.rate.filter(|_| self.until(now).is_some())?;
        let within = u128::from(rate) * u128::from(rules.wait) / u128::from(SECOND);
        let room = u32::try_from(within * 5 / 4).unwrap_or(u32::MAX);
        Some(room.clamp(ROOM_MIN, ROOM_MAX))
    }
}

/// How long sessions are counted for a measure of their rate: some turns of a slow worker, and less
/// than a fast one takes for a burst.
const MEASURE: u64 = 20 * MS;
/// Clients that may wait in any case: those of some turns.
const ROOM_MIN: u32 = 64;
/// Those that may at most.
const ROOM_MAX: u32 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Shed = Shed {
        wait: 50 * MS,
        after: SECOND,
        memory: Some(95),
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
    fn memory_that_stays_used_up_is_too_little_until_some_comes_back() {
        let mut overload = OverloadDetector::default();
        let mut look = |used, at| overload.is_out_of_memory([used, 200], &RULES, at * MS);
        assert!(!look(190, 0) && !look(200, 999));
        assert!(look(190, 1_000) && look(200, 9_000));
        assert!(!look(189, 9_001));
        assert!(!look(190, 9_002) && !look(190, 10_001));
        assert!(look(190, 10_002));
    }

    #[test]
    fn as_many_may_wait_as_begin_within_their_time() {
        let mut overload = OverloadDetector::default();
        // 16 sessions begin each 2 ms: 8,000 in a second, 400 within 50 ms.
        let mut begin = |from: u64, to: u64, count| {
            let mut room = None;
            for at in (from..to).step_by(2) {
                overload.look(60 * MS, &RULES, 0, at * MS);
                overload.on_begun(count, at * MS);
                room = overload.room(&RULES, at * MS);
            }
            room
        };
        assert_eq!(begin(0, 1_000, 16), None);
        assert_eq!(begin(1_000, 1_200, 16), Some(500));
        // Other sessions take twice as long: the measures follow, one after the other.
        let room = begin(1_200, 3_000, 8).unwrap();
        assert!((250..=252).contains(&room), "{room}");
        assert_eq!(begin(3_000, 5_000, 0), Some(ROOM_MIN));
        assert_eq!(overload.until(5_000 * MS), Some(5_998 * MS));
        assert_eq!(overload.room(&RULES, 5_998 * MS), None);
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
