//! Reading rows: for answers, and for another store.

use rusqlite::{OptionalExtension as _, params};

use super::{NewRows, PastEvent, Row, Store, StoreError, signed, whole};
use crate::history::Resolution;

/// What is done with a row: its time, the place of its subject among those that are asked for, and
/// the bytes of its sample.
type EachRow<'a> = dyn FnMut(u64, usize, &[u8]) -> Result<(), StoreError> + 'a;

impl Store {
    /// Each row of these times, in their order: the time, the subject's number and the sample.
    pub(super) fn each_row(
        &self,
        of: Resolution,
        from: u64,
        until: u64,
        mut each: impl FnMut(u64, i64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut select = self.connection.prepare(&rows_within(of))?;
        let mut rows = select.query(params![signed(from), signed(until)])?;
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(2)?.as_blob();
            let bytes = bytes.map_err(|_| super::damaged("a sample"))?;
            each(whole(row.get(0)?), row.get(1)?, bytes)?;
        }
        Ok(())
    }

    /// The rows of some subjects, each found by its key.
    fn rows_of(
        &self,
        of: Resolution,
        (from, until): (u64, u64),
        subjects: &[i64],
        each: &mut EachRow<'_>,
    ) -> Result<(), StoreError> {
        let table = of.table();
        let sql = format!("SELECT sample FROM {table} WHERE at = ? AND subject = ?");
        let mut select = self.connection.prepare(&sql)?;
        let step = of.step();
        let mut at = from.next_multiple_of(step);
        while at < until {
            for (nth, subject) in subjects.iter().enumerate() {
                let sample = select.query_row(params![signed(at), subject], |row| {
                    Ok(each(at, nth, row.get_ref(0)?.as_blob().unwrap_or_default()))
                });
                sample.optional()?.unwrap_or(Ok(()))?;
            }
            at += step;
        }
        Ok(())
    }

    /// The samples of these subjects, which are in the order of their numbers, from one time to
    /// another, in intervals of this resolution; in finer ones where it has none: before its first
    /// whole interval, and since its last.
    pub(in crate::history) fn scan(
        &self,
        of: Resolution,
        (from, until): (u64, u64),
        subjects: &[i64],
        each: &mut EachRow<'_>,
    ) -> Result<(), StoreError> {
        if from >= until || subjects.is_empty() {
            return Ok(());
        }
        let step = of.step();
        let begin = from.next_multiple_of(step);
        let end = (until / step * step).min(self.summed(of));
        match of.finer() {
            Some(finer) if end <= begin => self.scan(finer, (from, until), subjects, each),
            Some(finer) => {
                self.scan(finer, (from, begin), subjects, each)?;
                self.select(of, (begin, end), subjects, each)?;
                self.scan(finer, (end, until), subjects, each)
            }
            None => self.select(of, (from, until), subjects, each),
        }
    }

    /// The rows of some subjects, which are in the order of their numbers, in the order of time.
    pub(super) fn select(
        &self,
        of: Resolution,
        (from, until): (u64, u64),
        subjects: &[i64],
        each: &mut EachRow<'_>,
    ) -> Result<(), StoreError> {
        // To find a row takes as long as to pass some.
        if subjects.len() * FINDING < self.subjects.len() {
            // Nothing is before the first row.
            let from = self.oldest(of)?.map_or(until, |first| first.max(from));
            return self.rows_of(of, (from, until), subjects, each);
        }
        self.each_row(of, from, until, |at, subject, bytes| {
            match subjects.binary_search(&subject) {
                Ok(nth) => each(at, nth, bytes),
                Err(_) => Ok(()),
            }
        })
    }

    /// What came after this second and this event, but for the last second, which may not be whole:
    /// some more than so many bytes at most. Minutes stand in for seconds that are gone. Where the
    /// clock was set back, what came after is told from then on: [`NewRows::last`] goes back too.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn rows_after(
        &self,
        (after, last_event): (Option<u64>, i64),
        at_most: usize,
        is_last_whole: bool,
    ) -> Result<NewRows, StoreError> {
        // The clock was set back: what is new begins with the last second that there is.
        let after = after.map(|after| match self.last {
            Some(last) if after > last => last.saturating_sub(1),
            _ => after,
        });
        let mut rows = NewRows {
            figures: self.figures.clone(),
            subjects: self
                .subjects
                .iter()
                .map(|(its, of)| (*of, its.clone()))
                .collect(),
            last_event,
            last: after,
            ..NewRows::default()
        };
        rows.events = self.events_after(&mut rows.last_event)?;
        let (Some(first), Some(last)) = (self.oldest(Resolution::Seconds)?, self.last) else {
            return Ok(rows);
        };
        let end = last + u64::from(is_last_whole);
        let mut from = match after {
            None => first,
            Some(after) => after + 1,
        };
        if from.saturating_add(GAP) < first {
            // The minute that the first second is in has other seconds, which are gone.
            let within = (from / 60 * 60, first.next_multiple_of(60));
            let copied = self.copy(Resolution::Minutes, within, at_most, &mut rows.minutes)?;
            if copied < within.1 {
                rows.last = Some(copied - 1);
                return Ok(rows);
            }
            // After a jump of the clock that minute is not over, and has no other seconds.
            from = rows.minutes.last().map_or(first, |(last, ..)| last + 60);
        }
        from = from.max(first);
        let copied = self.copy(Resolution::Seconds, (from, end), at_most, &mut rows.seconds)?;
        rows.last = copied.checked_sub(1).filter(|last| *last >= from).or(after);
        Ok(rows)
    }

    /// Adds the rows of these times to others, some more than so many bytes at most, and whole
    /// intervals; the time that it has come to.
    fn copy(
        &self,
        of: Resolution,
        (from, until): (u64, u64),
        at_most: usize,
        into: &mut Vec<Row>,
    ) -> Result<u64, StoreError> {
        let mut select = self.connection.prepare(&rows_within(of))?;
        let mut rows = select.query(params![signed(from), signed(until)])?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let at = whole(row.get(0)?);
            if bytes >= at_most && into.last().is_some_and(|(last, ..)| *last < at) {
                return Ok(at);
            }
            let sample: Vec<u8> = row.get(2)?;
            bytes += sample.len() + ROW_BYTES;
            into.push((at, row.get(1)?, sample));
        }
        Ok(until)
    }

    fn events_after(&self, last: &mut i64) -> Result<Vec<PastEvent>, StoreError> {
        let mut select = self.connection.prepare(
            "SELECT number, at, kind, pool, backend, message FROM events WHERE number > ? \
             ORDER BY number LIMIT 1000",
        )?;
        let mut rows = select.query([*last])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            *last = row.get(0)?;
            events.push(event_of(row)?);
        }
        Ok(events)
    }

    /// When the first event was, in ms.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn first_event(&self) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT min(at) FROM events";
        let at: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(at.map(whole))
    }

    /// When the last event was, in ms.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn last_event(&self) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT max(at) FROM events";
        let at: Option<i64> = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(at.map(whole))
    }

    /// The number of the last event until a time in ms; 0: there is none.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn event_number(&self, until: u64) -> Result<i64, StoreError> {
        let sql = "SELECT max(number) FROM events WHERE at <= ?";
        let until = params![signed(until)];
        let number: Option<i64> = self.connection.query_row(sql, until, |row| row.get(0))?;
        Ok(number.unwrap_or(0))
    }

    /// The last events that match, the newest first: `within` has times in ms.
    pub(in crate::history) fn last_events(
        &self,
        within: (u64, u64),
        (pool, backend): (Option<&str>, Option<&str>),
        limit: u32,
    ) -> Result<Vec<PastEvent>, StoreError> {
        let mut select = self.connection.prepare(
            "SELECT number, at, kind, pool, backend, message FROM events \
             WHERE at >= ?1 AND at < ?2 AND (?3 IS NULL OR pool = ?3) \
             AND (?4 IS NULL OR backend = ?4) ORDER BY at DESC, number DESC LIMIT ?5",
        )?;
        let (from, until) = within;
        let mut rows = select.query(params![signed(from), signed(until), pool, backend, limit])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            events.push(event_of(row)?);
        }
        Ok(events)
    }
}

/// Rows are in the order of time.
fn rows_within(of: Resolution) -> String {
    let table = of.table();
    format!("SELECT at, subject, sample FROM {table} WHERE at >= ? AND at < ?")
}

fn event_of(row: &rusqlite::Row<'_>) -> Result<PastEvent, StoreError> {
    Ok(PastEvent {
        at_ms: whole(row.get(1)?),
        kind: row.get(2)?,
        pool: row.get(3)?,
        backend: row.get(4)?,
        message: row.get(5)?,
    })
}

/// What a row has beside its sample.
const ROW_BYTES: usize = 12;
/// Seconds may come this late.
const GAP: u64 = 60;
/// A row that is found costs as much as so many that are passed.
const FINDING: usize = 4;
