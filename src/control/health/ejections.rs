//! How long backends stay ejected.

use std::collections::HashMap;

use crate::config::Ejection;
use crate::time::nanos;

/// Who is ejected until when. The n-th time in a row takes n times as long as the first, and n
/// falls by one for each such time that a backend stays in. Times are ns of the workers' clock.
#[derive(Debug, Default)]
pub struct Ejections {
    known: HashMap<(String, String), Record>,
}

#[derive(Debug)]
struct Record {
    /// How many in a row.
    count: u64,
    /// When the last one began.
    since: u64,
    /// Its end,
    until: u64,
    /// which is over, and told of.
    over: bool,
    /// The first one's length.
    base: u64,
}

impl Ejections {
    /// A pool's backend (by name) is ejected now: until when. One that is ejected already stays so
    /// as long as it was to.
    pub fn on_ejected(&mut self, pool: &str, backend: &str, settings: &Ejection, now: u64) -> u64 {
        let key = (pool.to_owned(), backend.to_owned());
        let before = self.known.get(&key);
        if let Some(before) = before.filter(|before| !before.over) {
            return before.until;
        }
        let base = nanos(settings.base).max(1);
        let max = nanos(settings.max).max(base);
        // Beyond what makes the longest it counts no further, or it would never be forgiven.
        let count = before.map_or(0, |before| before.count_at(now)) + 1;
        let count = count.min(max.div_ceil(base));
        let until = now.saturating_add(base.saturating_mul(count).min(max));
        let record = Record {
            count,
            since: now,
            until,
            over: false,
            base,
        };
        self.known.insert(key, record);
        until
    }

    /// Until when a backend is ejected.
    #[must_use]
    pub fn until(&self, pool: &str, backend: &str) -> Option<u64> {
        let record = self.known.get(&(pool.to_owned(), backend.to_owned()))?;
        (!record.over).then_some(record.until)
    }

    /// Since when a backend is ejected, and whether it was not so a short time before.
    #[must_use]
    pub fn since(&self, pool: &str, backend: &str) -> Option<(u64, bool)> {
        let record = self.known.get(&(pool.to_owned(), backend.to_owned()))?;
        (!record.over).then_some((record.since, record.count == 1))
    }

    /// Those (pool and backend) whose time is over by now, each once.
    pub fn due(&mut self, now: u64) -> Vec<(String, String)> {
        let mut due = Vec::new();
        for (key, record) in &mut self.known {
            if !record.over && record.until <= now {
                record.over = true;
                due.push(key.clone());
            }
        }
        self.known
            .retain(|_, record| !record.over || record.count_at(now) > 0);
        due.sort();
        due
    }

    /// When the next one's time is over.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let open = self.known.values().filter(|record| !record.over);
        open.map(|record| record.until).min()
    }

    /// A backend's ejection is over before its time.
    pub fn end(&mut self, pool: &str, backend: &str, now: u64) {
        let record = self.known.get_mut(&(pool.to_owned(), backend.to_owned()));
        if let Some(record) = record.filter(|record| !record.over) {
            record.over = true;
            record.until = now;
        }
    }

    /// Forgets the backends (by pool and name) that are no more.
    pub fn retain(&mut self, mut is_there: impl FnMut(&str, &str) -> bool) {
        self.known
            .retain(|(pool, backend), _| is_there(pool, backend));
    }
}

impl Record {
    /// The count less what was forgiven since the end.
    fn count_at(&self, now: u64) -> u64 {
        let forgiven = now.saturating_sub(self.until) / self.base;
        self.count.saturating_sub(forgiven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Ejects as soon as it may, and returns how many seconds that lasts.
    fn eject(ejections: &mut Ejections, now: u64) -> u64 {
        let until = ejections.on_ejected("pool", "a", &Ejection::default(), now * SECOND);
        until / SECOND - now
    }

    fn key(backend: &str) -> (String, String) {
        ("pool".to_owned(), backend.to_owned())
    }

    #[test]
    fn each_in_a_row_lasts_longer_up_to_the_longest() {
        let mut ejections = Ejections::default();
        let mut now = 0;
        for n in 1..=15 {
            let lasts = eject(&mut ejections, now);
            assert_eq!(lasts, (30 * n).min(300));
            now += lasts;
            assert_eq!(ejections.due(now * SECOND - 1), []);
            assert_eq!(ejections.due(now * SECOND), [key("a")]);
            assert_eq!(ejections.due(now * SECOND), [], "once");
        }
    }

    #[test]
    fn staying_in_is_forgiven_step_by_step() {
        let mut ejections = Ejections::default();
        // When, and for how long then.
        for (now, lasts) in [
            (0, 30),
            (30, 60),
            (90, 90),
            // One step of 30 s was forgiven since 180,
            (180 + 30, 90),
            // two since 300,
            (300 + 89, 60),
            // and all since 449.
            (449 + 60, 30),
        ] {
            assert_eq!(eject(&mut ejections, now), lasts, "at {now}");
            assert_eq!(ejections.due((now + lasts) * SECOND), [key("a")]);
        }
    }

    #[test]
    fn the_longest_is_forgiven_in_the_end_too() {
        let mut ejections = Ejections::default();
        let mut now = 0;
        for _ in 0..100 {
            now += eject(&mut ejections, now);
            ejections.due(now * SECOND);
        }
        now += 30 * 10;
        ejections.due(now * SECOND);
        assert!(ejections.known.is_empty());
        assert_eq!(eject(&mut ejections, now), 30);
    }

    #[test]
    fn who_is_ejected_is_not_ejected_again() {
        let mut ejections = Ejections::default();
        assert_eq!(eject(&mut ejections, 0), 30);
        assert_eq!(eject(&mut ejections, 10), 20);
        assert_eq!(ejections.until("pool", "a"), Some(30 * SECOND));
        ejections.due(30 * SECOND);
        assert_eq!(ejections.until("pool", "a"), None);
    }

    #[test]
    fn the_next_that_is_due_is_known() {
        let mut ejections = Ejections::default();
        assert_eq!(ejections.next(), None);
        let settings = Ejection::default();
        ejections.on_ejected("pool", "b", &settings, 7 * SECOND);
        ejections.on_ejected("pool", "a", &settings, 0);
        assert_eq!(ejections.next(), Some(30 * SECOND));
        assert_eq!(ejections.due(40 * SECOND), [key("a"), key("b")]);
        assert_eq!(ejections.next(), None);
    }

    #[test]
    fn one_that_ends_early_counts_all_the_same() {
        let mut ejections = Ejections::default();
        let settings = Ejection::default();
        ejections.on_ejected("pool", "a", &settings, 0);
        ejections.end("pool", "a", 10 * SECOND);
        assert_eq!(
            (ejections.until("pool", "a"), ejections.next()),
            (None, None)
        );
        let until = ejections.on_ejected("pool", "a", &settings, 20 * SECOND);
        assert_eq!(until, 80 * SECOND);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut ejections = Ejections::default();
        let settings = Ejection::default();
        for backend in ["a", "b", "c"] {
            ejections.on_ejected("pool", backend, &settings, 0);
        }
        ejections.retain(|_, backend| backend == "c");
        assert_eq!(ejections.due(u64::MAX), [key("c")]);
    }
}
