//! The history of a backend since it joined its pool, for people and metrics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::fault::Fault;

/// The history of one backend, kept over reloads. Workers count failed connects; the control thread
/// records the rest.
#[derive(Debug, Default)]
pub struct History {
    /// How many times its probes found it down.
    times_down: AtomicU64,
    /// How long it was down, in ns, without the present time.
    down: AtomicU64,
    /// Since when it is down, in ns of the workers' clock; 0 while it is up.
    down_since: AtomicU64,
    /// Failed connects, by [`Fault`].
    connects_failed: [AtomicU64; Fault::ALL.len()],
    /// Counts the beginnings and the ends of changes of what follows, which one thread makes: odd
    /// while it is no whole.
    changes: AtomicU64,
    /// One more than the index in [`Condition::ALL`]; 0 before the first.
    condition: AtomicU8,
    /// When the condition changed last, in ms since 1970.
    changed_at: AtomicU64,
    /// How long each condition lasted, in ns, without the present time.
    times: [AtomicU64; Condition::ALL.len()],
    /// Since when the present one lasts, in ns of the workers' clock.
    since: AtomicU64,
}

/// The condition of a backend in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It answers, or is not probed.
    Up,
    /// Its host name has no address.
    Unresolved,
    /// It does not answer.
    Down,
    /// It failed or is slow, and gets no connections for a while.
    Ejected,
    /// It waits in the reserve.
    Standby,
    /// The operator drains it: it keeps its sessions and gets no more.
    Drain,
    /// The operator took it out.
    Maint,
}

/// A [`History`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySummary {
    /// How many times its probes found it down.
    pub times_down: u64,
    /// How long it was down, in ns, including the present time.
    pub down: u64,
    /// Its condition, and since when, in ms since 1970; `None` before it is first published.
    pub last_change: Option<(Condition, u64)>,
    /// How long each condition lasted, in ns, in the order of [`Condition::ALL`]: the present one
    /// included.
    pub times: Times,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Up,
        Self::Unresolved,
        Self::Down,
        Self::Ejected,
        Self::Standby,
        Self::Drain,
        Self::Maint,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unresolved => "unresolved",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Standby => "standby",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// A time of each condition, in ns, in the order of [`Condition::ALL`].
type Times = [u64; Condition::ALL.len()];

impl History {
    /// Records its condition: `now` in ns of the workers' clock, `wall` in ms since 1970.
    pub fn note(&self, condition: Condition, is_down: bool, now: u64, wall: u64) {
        let since = self.down_since.load(Ordering::Relaxed);
        if is_down && since == 0 {
            self.times_down.fetch_add(1, Ordering::Relaxed);
            self.down_since.store(now.max(1), Ordering::Relaxed);
        } else if !is_down && since > 0 {
            self.down
                .fetch_add(now.saturating_sub(since), Ordering::Relaxed);
            self.down_since.store(0, Ordering::Relaxed);
        }
        let code = condition as u8 + 1;
        if self.condition.load(Ordering::Relaxed) == code {
            return;
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
        let before = self.condition.swap(code, Ordering::SeqCst);
        self.changed_at.store(wall, Ordering::SeqCst);
        let since = self.since.swap(now, Ordering::SeqCst);
        if let Some(time) = place_of(before).and_then(|place| self.times.get(place)) {
            time.fetch_add(now.saturating_sub(since), Ordering::SeqCst);
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// A connect to it failed.
    pub fn on_connect_failed(&self, fault: Fault) {
        self.connects_failed[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Failed connects by fault; faults without any are left out.
    pub fn connects_failed(&self) -> impl Iterator<Item = (Fault, u64)> {
        let counts = Fault::ALL.into_iter().zip(&self.connects_failed);
        let counts = counts.map(|(fault, count)| (fault, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// How long each condition lasted, the present one included, and the last change.
    fn conditions(&self, now: u64) -> (Times, Option<(Condition, u64)>) {
        let place = place_of(self.condition.load(Ordering::SeqCst));
        let condition = place.and_then(|place| Condition::ALL.get(place));
        let mut times = Times::default();
        for (time, its) in times.iter_mut().zip(&self.times) {
            *time = its.load(Ordering::SeqCst);
        }
        if let Some(time) = place.and_then(|place| times.get_mut(place)) {
            *time += now.saturating_sub(self.since.load(Ordering::SeqCst));
        }
        let at = self.changed_at.load(Ordering::SeqCst);
        (times, condition.map(|&condition| (condition, at)))
    }

    /// The summary at `now`, in ns of the workers' clock.
    #[must_use]
    pub fn summary(&self, now: u64) -> HistorySummary {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let since = read(&self.down_since);
        let present = if since > 0 {
            now.saturating_sub(since)
        } else {
            0
        };
        let (times, last_change) = loop {
            let before = self.changes.load(Ordering::SeqCst);
            let told = self.conditions(now);
            if before.is_multiple_of(2) && before == self.changes.load(Ordering::SeqCst) {
                break told;
            }
            // The control thread is in the midst of a change.
            std::thread::yield_now();
        };
        HistorySummary {
            times,
            times_down: read(&self.times_down),
            down: read(&self.down) + present,
            last_change,
        }
    }
}

/// The index of a condition in [`Condition::ALL`], by how it is kept.
fn place_of(code: u8) -> Option<usize> {
    usize::from(code).checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_in_the_order_of_their_codes() {
        for (index, condition) in Condition::ALL.into_iter().enumerate() {
            assert_eq!(condition as usize, index);
        }
    }

    #[test]
    fn downs_and_their_time_add_up() {
        let history = History::default();
        assert_eq!(history.summary(9), HistorySummary::default());
        history.note(Condition::Up, false, 10, 1_000);
        history.note(Condition::Down, true, 20, 1_001);
        // Published again for another reason.
        history.note(Condition::Down, true, 25, 1_002);
        let summary = history.summary(30);
        assert_eq!((summary.times_down, summary.down), (1, 10));
        assert_eq!(summary.last_change, Some((Condition::Down, 1_001)));
        history.note(Condition::Drain, true, 35, 1_003);
        history.note(Condition::Drain, false, 40, 1_004);
        history.note(Condition::Down, true, 100, 1_005);
        let want = HistorySummary {
            times_down: 2,
            down: 21,
            last_change: Some((Condition::Down, 1_005)),
            // Up, unresolved, down, ejected, standby, drain, maint.
            times: [10, 0, 16, 0, 0, 65, 0],
        };
        assert_eq!(history.summary(101), want);
    }

    #[test]
    fn what_is_read_in_the_midst_of_a_change_is_whole() {
        let history = History::default();
        history.note(Condition::Up, false, 1, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let told: u64 = history.summary(20_001).times.iter().sum();
                    assert_eq!(told, 20_000);
                }
            });
            for now in 2..=20_001 {
                let condition = match now % 2 {
                    0 => Condition::Down,
                    _ => Condition::Up,
                };
                history.note(condition, false, now, now);
            }
        });
    }
}
