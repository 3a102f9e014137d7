//! What a store does of itself: summing up by minutes and hours, and removing what is too old or
//! too much.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::params;

use super::{PAGE, Store, StoreError, signed};
use crate::history::Resolution;
use crate::history::sample::SubjectSample;
use crate::sys;
use crate::time::between;

impl Store {
    /// Sums up each minute and hour that is over.
    pub(super) fn sum_up(&mut self) -> Result<(), StoreError> {
        self.last = self.edge("max", Resolution::Seconds)?.or(self.last);
        let Some(last) = self.last else {
            return Ok(());
        };
        self.sum_up_by(Resolution::Minutes, Resolution::Seconds, last)?;
        let end = self.summed[0];
        self.sum_up_by(Resolution::Hours, Resolution::Minutes, end)
    }

    /// Up to this time all is there.
    fn sum_up_by(
        &mut self,
        coarse: Resolution,
        fine: Resolution,
        until: u64,
    ) -> Result<(), StoreError> {
        let (step, place) = (coarse.step(), usize::from(coarse == Resolution::Hours));
        loop {
            // Intervals without a row are skipped.
            let sql = format!("SELECT min(at) FROM {} WHERE at >= ?", fine.table());
            let begin = params![signed(self.summed[place])];
            let first: Option<i64> = self.connection.query_row(&sql, begin, |row| row.get(0))?;
            let Some(first) = first.map(super::whole) else {
                return Ok(());
            };
            let begin = first / step * step;
            let end = begin + step;
            if end > until {
                return Ok(());
            }
            for (subject, sample) in self.sums(fine, begin, end)? {
                self.insert(("OR REPLACE", coarse), begin, subject, &sample)?;
                self.connection.execute(
                    "UPDATE subjects SET seen = ? WHERE number = ? AND seen < ?",
                    params![signed(end), subject, signed(end - SEEN_STEP.min(end))],
                )?;
            }
            self.summed[place] = end;
        }
    }

    /// The sum of each subject's samples.
    fn sums(
        &self,
        fine: Resolution,
        begin: u64,
        end: u64,
    ) -> Result<BTreeMap<i64, SubjectSample>, StoreError> {
        let mut sums: BTreeMap<i64, SubjectSample> = BTreeMap::new();
        self.each_row(fine, begin, end, |_, subject, bytes| {
            let sample = SubjectSample::of_bytes(bytes);
            sums.entry(subject)
                .or_default()
                .add(&sample.ok_or_else(|| super::damaged("a sample"))?);
            Ok(())
        })?;
        Ok(sums)
    }

    /// Removes what is older than it is kept, each minute.
    pub(super) fn prune(&mut self) -> Result<(), StoreError> {
        let is_due = |now: u64| now.abs_diff(self.pruned.at) >= PRUNE_EVERY;
        if !self.written.is_some_and(is_due) {
            return Ok(());
        }
        let passed = between(self.pruned.looked, sys::monotonic());
        self.prune_after(passed)
    }

    /// Removes what is older than it is kept, a time after the last look.
    ///
    /// The clock may be wrong, and a file may have rows of a time when it was. So what is old is
    /// told from the batch that was written just now. Of minutes, hours and events no more goes
    /// than in some times the time that has passed: a clock that is years ahead for an hour costs a
    /// few hours of the oldest. Seconds are in the minutes too, and go at once.
    pub(in crate::history) fn prune_after(&mut self, passed: Duration) -> Result<(), StoreError> {
        let Some(now) = self.written else {
            return Ok(());
        };
        self.pruned.at = now;
        self.pruned.looked = sys::monotonic();
        let mut oldest = None;
        for (place, resolution) in Resolution::ALL.into_iter().enumerate() {
            let before = now.saturating_sub(self.keep.of(resolution));
            let first = self.oldest(resolution)?;
            oldest = oldest.into_iter().chain(first).min();
            let cut = match (resolution, oldest) {
                (Resolution::Seconds, _) => before,
                (_, None) => continue,
                (_, Some(oldest)) => self.pruned.before[place]
                    .max(oldest)
                    .saturating_add(passed.as_secs().saturating_mul(PRUNE_SPEED))
                    .min(before),
            };
            self.pruned.before[place] = cut;
            self.remove_before(resolution, cut)?;
        }
        // The oldest of all was found by now, hours the last.
        let before = self.pruned.before[2];
        self.connection.execute(
            "DELETE FROM events WHERE at < ?1 OR number <= (SELECT max(number) FROM events) - ?2",
            params![signed(before.saturating_mul(1_000)), EVENTS_MAX],
        )?;
        // One that is not summed up yet was seen just now.
        let forgotten = signed(before.saturating_sub(2 * SEEN_STEP));
        let gone = "DELETE FROM subjects WHERE seen < ?";
        if self.connection.execute(gone, params![forgotten])? > 0 {
            let there = super::subjects(&self.connection)?;
            self.subjects.retain(|_, number| there.contains_key(number));
        }
        Ok(())
    }

    /// Forgets what is later than this second: the clock was set back. Only for a store in memory,
    /// as a clock that is wrong now would cost all that a file has.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn forget_after(&mut self, at: u64) -> Result<(), StoreError> {
        for resolution in Resolution::ALL {
            let sql = format!("DELETE FROM {} WHERE at > ?", resolution.table());
            self.connection.execute(&sql, params![signed(at)])?;
        }
        self.recall()
    }

    fn remove_before(&self, resolution: Resolution, before: u64) -> Result<usize, StoreError> {
        let sql = format!("DELETE FROM {} WHERE at < ?", resolution.table());
        Ok(self.connection.execute(&sql, params![signed(before)])?)
    }

    /// Removes the oldest until what is there has some room below the bound.
    pub(super) fn shorten(&self) -> Result<(), StoreError> {
        for _ in 0..SHORTEN_MAX {
            if self.bytes()? <= self.keep.bytes / 10 * 9 {
                break;
            }
            self.shorten_once()?;
        }
        // A file that had another bound before.
        let pages = self.keep.bytes / PAGE;
        if self.pragma("page_count")? > pages {
            // Each page that moves is in the log for a while.
            let some = (pages / VACUUM_PART).clamp(VACUUM_LEAST, VACUUM_MOST);
            let sql = format!("PRAGMA incremental_vacuum({some})");
            self.connection.execute_batch(&sql)?;
        }
        Ok(())
    }

    /// Removes the oldest part of each resolution: the same share of the time that it has.
    pub(super) fn shorten_once(&self) -> Result<(), StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let cut = self.cut_oldest();
        let end = if cut.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.connection.execute_batch(end)?;
        cut
    }

    fn cut_oldest(&self) -> Result<(), StoreError> {
        let mut removed = 0;
        for resolution in Resolution::ALL {
            let (first, last) = (self.oldest(resolution)?, self.edge("max", resolution)?);
            if let (Some(first), Some(last)) = (first, last) {
                // A row of a time when the clock was wrong makes no share greater.
                let has = last.saturating_sub(first).min(self.keep.of(resolution));
                // Of a few intervals one is more than its share.
                let mut share = has / SHARES / resolution.step() * resolution.step();
                match (self.is_seconds_first, resolution) {
                    (true, Resolution::Seconds) if has > SECONDS_LEAST => {
                        self.remove_before(resolution, first + share.max(1))?;
                        return Ok(());
                    }
                    (true, Resolution::Seconds) => continue,
                    (true, Resolution::Minutes) => share = share.max(resolution.step()),
                    _ => {}
                }
                removed += self.remove_before(resolution, first + share)?;
            }
        }
        for resolution in Resolution::ALL {
            if let Some(first) = self.oldest(resolution)?.filter(|_| removed == 0) {
                removed = self.remove_before(resolution, first + 1)?;
            }
        }
        self.connection.execute(
            "DELETE FROM events WHERE number <= (SELECT min(number) + (max(number) - min(number)) \
             / ? FROM events)",
            params![signed(SHARES)],
        )?;
        Ok(())
    }

    /// Copies all of the log into the file and cuts it off, unless it is being read.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn cut_log(&self) -> Result<(), StoreError> {
        self.checkpoint("TRUNCATE").map(drop)
    }

    /// Copies all of the log into the file, which may have lost the log's name; `false`: it is
    /// being read, or can't be.
    #[must_use]
    pub fn save_log(&self) -> bool {
        self.checkpoint("PASSIVE").unwrap_or(false)
    }

    fn checkpoint(&self, how: &str) -> Result<bool, StoreError> {
        let sql = format!("PRAGMA wal_checkpoint({how})");
        let (is_busy, all, copied) = self.connection.query_row(&sql, [], |row| {
            Ok((
                row.get::<_, bool>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })?;
        Ok(!is_busy && all == copied)
    }

    /// Closes it without copying its log into the file: the log is not what it was.
    pub fn give_up(self) {
        // It is closed in any case. What can't be set leaves the copying, which then fails.
        let no_copy = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        let _ = self.connection.set_db_config(no_copy, true);
    }

    /// The bytes that are in use.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn bytes(&self) -> Result<u64, StoreError> {
        let used = self
            .pragma("page_count")?
            .saturating_sub(self.pragma("freelist_count")?);
        Ok(used * PAGE)
    }

    pub(super) fn pragma(&self, name: &str) -> Result<u64, StoreError> {
        let value: i64 = self
            .connection
            .pragma_query_value(None, name, |row| row.get(0))?;
        Ok(super::whole(value))
    }
}

/// How often old rows are removed, in seconds.
const PRUNE_EVERY: u64 = 60;
/// What is too old goes at most this much faster than time passes.
const PRUNE_SPEED: u64 = 4;
/// Events at most.
const EVENTS_MAX: i64 = 100_000;
/// What is too much goes in such shares of all.
const SHARES: u64 = 50;
/// Seconds that stay where they go first: no minute is summed up from fewer than it has.
const SECONDS_LEAST: u64 = 90;
/// Shares that go at a time. The next batch goes on.
const SHORTEN_MAX: usize = 10;
/// Pages that a file gives back at a time: this part of those that it may have, and how many that
/// are at least and at most.
const VACUUM_PART: u64 = 64;
const VACUUM_LEAST: u64 = 16;
const VACUUM_MOST: u64 = 512;
/// How exactly it is known when a subject was seen last, in seconds.
const SEEN_STEP: u64 = 600;
