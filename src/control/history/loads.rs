//! The past of forecasts: what the history has of each backend's load, learned again after a start.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::{Reach, Recorder, Shared, hangs, ms};
use crate::config::Predictive;
use crate::control::aside;
use crate::history::{Past, Store, StoreError, Subject};
use crate::select::Forecast;

/// A pool whose backends' past is asked for.
#[derive(Clone, Debug)]
pub(in crate::control) struct Wanted {
    pub(in crate::control) pool: String,
    pub(in crate::control) settings: Predictive,
}

/// Forecasts of a pool's backends, by name, which have learned what the history has.
#[derive(Debug)]
pub(in crate::control) struct Learned {
    pub(in crate::control) of: Wanted,
    pub(in crate::control) forecasts: HashMap<String, Forecast>,
}

/// A question for the past that another thread answers.
#[derive(Debug, Default)]
pub(super) struct Recall(Option<oneshot::Receiver<Vec<Learned>>>);

impl Recorder {
    /// Whether the past can be asked for: it is known whether there is a file, and no question is
    /// under way.
    pub(in crate::control) fn can_recall(&self) -> bool {
        self.recall.0.is_none() && self.shared.is_settled()
    }

    /// Asks for the past of these pools, without waiting.
    pub(in crate::control) fn recall(&mut self, wanted: Vec<Wanted>) {
        let shared = std::sync::Arc::clone(&self.shared);
        let now = ms(SystemTime::now()) / 1_000;
        self.recall.0 = Some(aside::consult(move || shared.learned(wanted, now)));
    }

    /// What was asked for, once it is there.
    pub(in crate::control) fn recalled(&mut self) -> Option<Vec<Learned>> {
        let answer = self.recall.0.as_mut()?.try_recv();
        if !matches!(answer, Err(oneshot::error::TryRecvError::Empty)) {
            self.recall.0 = None;
        }
        answer.ok()
    }
}

/// A forecast that learns, and the second that it has come to.
struct Learning {
    forecast: Forecast,
    /// Of the season, in seconds.
    period: u64,
    at: u64,
}

impl Shared {
    /// Whether the file is open, or will not be soon.
    fn is_settled(&self) -> bool {
        self.file.as_ref().is_none_or(|file| {
            let state = file.state.lock();
            state.is_open || state.error.is_some() || state.working_since.is_some_and(hangs)
        })
    }

    /// Forecasts that have learned what the file and memory have. What can't be read is left out:
    /// they learn it as time passes.
    pub(super) fn learned(&self, wanted: Vec<Wanted>, now: u64) -> Vec<Learned> {
        let mut learning: Vec<BTreeMap<Subject, Learning>> = Vec::new();
        learning.resize_with(wanted.len(), BTreeMap::new);
        let pools: HashMap<&str, usize> = wanted
            .iter()
            .enumerate()
            .map(|(nth, its)| (its.pool.as_str(), nth))
            .collect();
        let since = wanted.iter().map(|its| reaches_back(&its.settings)).max();
        let since = now.saturating_sub(since.unwrap_or_default());
        let mut learn = |subject: &Subject, past: &Past| {
            let Some(&nth) = pools.get(subject.pool.as_str()) else {
                return;
            };
            let settings = &wanted[nth].settings;
            if past.at + reaches_back(settings) < now {
                return;
            }
            if !learning[nth].contains_key(subject) {
                let its = Learning {
                    forecast: Forecast::of(settings),
                    period: settings.season.map_or(u64::MAX, |its| its.as_secs()),
                    at: past.at,
                };
                learning[nth].insert(subject.clone(), its);
            }
            if let Some(learning) = learning[nth].get_mut(subject) {
                learning.take(past);
            }
        };
        let mut replay = |store: &Store, within| -> Result<(), StoreError> {
            let is_asked = |subject: &Subject| pools.contains_key(subject.pool.as_str());
            store.replay(within, &FIGURES, &is_asked, &mut learn)
        };
        let from = match self.look(Reach::All) {
            Ok(Some((store, _look))) => {
                let until = self.file_has_until();
                let read = replay(&store, (since, until.min(now)));
                read.inspect_err(|error| log::debug!("cannot read the past of loads: {error}"))
                    .map_or(0, |()| until)
            }
            Ok(None) | Err(_) => 0,
        };
        let memory = self.memory.lock();
        if let Err(error) = replay(&memory, (since.max(from), now)) {
            log::debug!("cannot read the past of loads: {error}");
        }
        drop(memory);
        let both = wanted.iter().cloned().zip(learning);
        let learned = both.map(|(of, learning)| {
            let forecasts = learning.into_iter().map(|(subject, mut its)| {
                its.skip_to(now);
                (subject.name, its.forecast)
            });
            Learned {
                of,
                forecasts: forecasts.collect(),
            }
        });
        learned.collect()
    }
}

impl Learning {
    fn take(&mut self, past: &Past) {
        // The clock was set back, or another store has it too. A mean over a good part of a period
        // would make its season flat.
        let is_coarse = past.seconds > 1 && self.period / PARTS < past.seconds;
        if past.at < self.at || is_coarse {
            return;
        }
        self.skip_to(past.at);
        let load = past.means.iter().sum();
        match past.seconds {
            1 => self.forecast.push(load),
            seconds => self.forecast.learn(load, seconds),
        }
        self.at += past.seconds;
    }

    fn skip_to(&mut self, at: u64) {
        let passed = at.saturating_sub(self.at);
        if passed > 0 {
            self.forecast.skip(passed);
            self.at = at;
        }
    }
}

/// How far back a forecast reads, in seconds: some periods, and some minutes; without a season some
/// minutes.
fn reaches_back(settings: &Predictive) -> u64 {
    let periods = settings
        .season
        .map_or(0, |season| PERIODS * season.as_secs());
    periods + RECENT
}

/// What a load is, as in the history: connections that wait for an answer, and the time of sessions
/// that are streamed to, of each second.
const FIGURES: [&str; 2] = ["waiting", "streamed"];
/// Each period halves what is left of what a season does not know.
const PERIODS: u64 = 8;
/// Of a period an interval is this part at most.
const PARTS: u64 = 24;
/// Seconds are kept for this long by default.
const RECENT: u64 = 15 * 60;

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;
    use std::time::Duration;

    use super::*;
    use crate::history::{Batch, FigureOf, Keep, Of, Point, open};
    use crate::metric::Kind;
    use crate::select::Model;

    const PERIOD: u64 = 3_600;
    const BEGIN: u64 = 1_800_000_000;
    const KEEP: Keep = Keep {
        seconds: 900,
        minutes: 86_400,
        hours: 86_400,
        bytes: 16 << 20,
    };

    #[expect(clippy::cast_precision_loss, reason = "seconds of a test are few")]
    fn wave(at: u64) -> f64 {
        100.0 + 50.0 * (at as f64 * TAU / PERIOD as f64).sin()
    }

    /// A backend waits for half of the wave, and streams for the other half.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the wave is between 50 and 150"
    )]
    fn batch(at: u64) -> Batch {
        let figure = |name: &str, kind, is_part| FigureOf {
            of: Of::Backend,
            name: name.to_owned(),
            kind,
            unit: None,
            is_part,
        };
        let half = wave(at) / 2.0;
        let subject = Subject {
            of: Of::Backend,
            pool: "web".to_owned(),
            name: "a".to_owned(),
        };
        let points = vec![
            (
                figure("waiting", Kind::Gauge, false),
                Point::gauge(half as u64),
            ),
            (
                figure("streamed", Kind::Counter, true),
                Point::Counter((half * 1e6) as u64),
            ),
        ];
        vec![(subject, points)]
    }

    #[test]
    fn a_restart_goes_on_with_the_season_that_the_file_knows() {
        let name = format!("mahoraga-loads-{:x}", fastrand::u64(..));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("history.db");
        let mut store = open(&path, KEEP).unwrap().store;
        // Seconds at the end, and before them one sample of each minute.
        let end = BEGIN + 8 * PERIOD;
        let seconds = end - KEEP.seconds..end;
        for at in (BEGIN..seconds.start).step_by(60).chain(seconds) {
            store.write(at, &batch(at), &[]).unwrap();
        }
        let shared = Shared::new(Some(path)).unwrap();
        let mut state = shared.file.as_ref().unwrap().state.lock();
        (state.is_open, state.copied) = (true, Some(end - 1));
        drop(state);
        let settings = Predictive {
            horizon: Duration::from_secs(300),
            season: Some(Duration::from_secs(PERIOD)),
        };
        let wanted = Wanted {
            pool: "web".to_owned(),
            settings,
        };
        // The balancer was stopped for 40 s.
        let now = end + 40;
        let mut learned = shared.learned(vec![wanted], now);
        let mut forecast = learned.remove(0).forecasts.remove("a").unwrap();
        let mut blank = Forecast::of(&settings);
        let mut errors = [0.0, 0.0];
        assert_eq!(forecast.model(), Model::Season);
        for at in now..now + 200 {
            for (forecast, error) in [&mut forecast, &mut blank].into_iter().zip(&mut errors) {
                forecast.push(wave(at));
                *error += (forecast.ahead() - wave(at + 300)).abs() / 200.0;
            }
        }
        assert!(errors[0] < errors[1] / 2.0 && errors[0] < 5.0, "{errors:?}");
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_first_seconds_of_a_history_are_learned_too() {
        let shared = Shared::new(None).unwrap();
        let mut memory = shared.memory.lock();
        // From the 5th second of a minute on; once that is over it counts as a whole one.
        for (until, known) in [(25, 20), (175, 175)] {
            for at in BEGIN + 5..BEGIN + until {
                if memory.last().is_none_or(|last| at > last) {
                    memory.write(at, &batch(at), &[]).unwrap();
                }
            }
            drop(memory);
            let wanted = Wanted {
                pool: "web".to_owned(),
                settings: Predictive::default(),
            };
            let learned = shared.learned(vec![wanted], BEGIN + until);
            assert_eq!(learned[0].forecasts["a"].learned(), known);
            memory = shared.memory.lock();
        }
    }
}
