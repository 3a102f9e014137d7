//! How often a query that is answered at once is asked again: a token bucket, as Consul asks of its
//! clients. Changes that are rare are seen at once, and those that are not are polled.

use std::time::Duration;

use tokio::time::Instant;

/// Lets a few queries pass at once, and then one each interval.
pub(super) struct Bucket {
    interval: Duration,
    /// When it would be full again.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            full_at: Instant::now(),
        }
    }

    /// When the next query may be asked. It counts as asked then.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let saved = self.interval * (BURST - 1);
        let at = self.full_at.checked_sub(saved).unwrap_or(now).max(now);
        self.full_at = self.full_at.max(at) + self.interval;
        at
    }
}

/// Queries at once.
const BURST: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pass_at_once_and_then_one_each_interval() {
        let every = Duration::from_secs(5);
        let mut bucket = Bucket::new(every);
        let began = Instant::now();
        let mut now = began;
        let mut waits = Vec::new();
        for _ in 0..5 {
            now = bucket.next(now);
            waits.push(now.duration_since(began).as_secs());
        }
        assert_eq!(waits, [0, 0, 5, 10, 15]);
        // Rare changes do not wait.
        now += every * 4;
        assert_eq!(bucket.next(now), now);
        assert_eq!(bucket.next(now), now);
        assert_eq!(bucket.next(now), now + every);
    }
}
