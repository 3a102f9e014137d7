//! What some figures were, from the earliest time on: for what learns from them.

use super::{Store, StoreError};
use crate::history::sample::{Reading, Seen};
use crate::history::{MILLION, Resolution, Subject};

/// What figures of a subject were within an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// Where it begins, in seconds since 1970.
    pub at: u64,
    /// How long it is.
    pub seconds: u64,
    /// Of each figure its mean; of a counter its increase in a second. 0: it did not happen.
    pub means: Vec<f64>,
}

impl Store {
    /// What figures of some subjects were from one second to another, the earliest first: by hour,
    /// by minute and by second, from where there are such.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn replay(
        &self,
        (from, until): (u64, u64),
        figures: &[&str],
        is_asked: &dyn Fn(&Subject) -> bool,
        each: &mut dyn FnMut(&Subject, &Past),
    ) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let asked = self.subjects().filter(|(subject, _)| is_asked(subject));
        let mut asked: Vec<(i64, &Subject)> = asked.map(|(its, number)| (number, its)).collect();
        asked.sort_unstable_by_key(|(number, _)| *number);
        let numbers: Vec<i64> = asked.iter().map(|(number, _)| *number).collect();
        let seconds = self.edge_of(Resolution::Seconds, Resolution::Minutes)?;
        let seconds = seconds.unwrap_or(until).clamp(from, until);
        let minutes = self.edge_of(Resolution::Minutes, Resolution::Hours)?;
        let minutes = minutes.unwrap_or(until).clamp(from, seconds);
        let mut read = Reading::default();
        for (of, within) in [
            (Resolution::Hours, (from, minutes)),
            (Resolution::Minutes, (minutes, seconds)),
            (Resolution::Seconds, (seconds, until)),
        ] {
            self.select(of, within, &numbers, &mut |at, nth, bytes| {
                let Some((_, subject)) = asked.get(nth) else {
                    return Ok(());
                };
                // One that can't be read is left out.
                if read.take(bytes) {
                    let means = self.means(&read, subject, figures);
                    let seconds = of.step();
                    each(subject, &Past { at, seconds, means });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Where the finer intervals begin that coarser ones do not have. The coarser one that the
    /// first of them is in has those before it too.
    fn edge_of(&self, fine: Resolution, coarse: Resolution) -> Result<Option<u64>, StoreError> {
        let summed = self.oldest(coarse)?;
        let step = coarse.step();
        let edge = self.oldest(fine)?.map(|first| match summed {
            Some(summed) if summed <= first / step * step => first.next_multiple_of(step),
            _ => first,
        });
        Ok(edge)
    }

    fn means(&self, read: &Reading, subject: &Subject, figures: &[&str]) -> Vec<f64> {
        let ratio = super::super::gathered::ratio;
        // What is read each second tells how many there were.
        let seconds = read.points.iter().filter_map(|(_, seen)| match seen {
            Seen::Gauge { count, .. } => Some(*count),
            Seen::Counter(_) | Seen::Times(_) => None,
        });
        let seconds = seconds.max().unwrap_or(0).max(1);
        let mut means = vec![0.0; figures.len()];
        for (number, seen) in &read.points {
            let Some(figure) = self.figures.by_number.get(number) else {
                continue;
            };
            let place = figures.iter().position(|name| *name == figure.name);
            let Some(place) = place.filter(|_| figure.of == subject.of) else {
                continue;
            };
            let mean = match seen {
                Seen::Counter(sum) => ratio(*sum, seconds),
                Seen::Gauge { count, sum, .. } => ratio(*sum, (*count).max(1)),
                Seen::Times(_) => continue,
            };
            let scale = if figure.is_part { MILLION } else { 1 };
            means[place] = mean / ratio(scale, 1);
        }
        means
    }
}
