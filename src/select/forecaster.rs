//! The part of `predictive` and `least_time` that looks at load: once per second, on the control
//! thread.
//!
//! Per backend it measures how many connections it is at work for (those that wait for an answer,
//! and by time those that it streams to), forecasts that over the horizon, and learns what a
//! connection costs it: the time to its answer, and its bytes. The result is left in the backend's
//! [`Tally`], where all workers read it.

use std::sync::Arc;

use crate::config;
use crate::pool::{Backend, Outlook, Pool, Tally, Totals};

use super::forecast::number;
use super::{Forecast, Model};

/// Looks ahead for one pool.
#[derive(Debug)]
pub struct Forecaster {
    settings: config::Predictive,
    histories: Vec<History>,
    ticked_at: Option<u64>,
}

#[derive(Debug)]
struct History {
    tally: Arc<Tally>,
    seen: Totals,
    load: Forecast,
    /// Sessions that it streams to, smoothed.
    streaming: f64,
    recent: Recent,
    outlook: Outlook,
}

/// Sums over recent seconds, fading.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    /// Seconds to first answers,
    answer: f64,
    /// and how many those were.
    answered: f64,
    /// Bytes of sessions that ended,
    bytes: f64,
    /// and how many those were.
    ended: f64,
}

/// What is foreseen of one backend, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Prospect {
    /// Its name.
    pub backend: String,
    /// Connections that it will be at work for after the horizon.
    pub load: f64,
    /// How far such forecasts were off of late, on average.
    pub error: f64,
    /// What they stand on.
    pub model: Model,
    /// What a connection costs it, relative to the others of its pool.
    pub cost: f64,
    /// Its weight as it takes effect: the configured one over the cost.
    pub weight: f64,
}

impl Forecaster {
    /// A forecaster that has seen nothing.
    #[must_use]
    pub fn new(settings: config::Predictive) -> Self {
        Self {
            settings,
            histories: Vec::new(),
            ticked_at: None,
        }
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> config::Predictive {
        self.settings
    }

    /// Looks at what happened since the last call, which should be a second ago, and ahead. `now`
    /// is in nanoseconds, monotonic.
    pub fn tick(&mut self, pool: &Pool, now: u64) {
        self.follow(pool);
        let Some(before) = self.ticked_at else {
            self.ticked_at = Some(now);
            return;
        };
        let span = seconds(now.saturating_sub(before));
        // What came in a moment, over that moment, would be a spike.
        if span < SPAN_SECONDS_MIN {
            return;
        }
        self.ticked_at = Some(now);
        for history in &mut self.histories {
            history.measure(span);
        }
        let best = self.histories.iter().map(History::surely_within);
        let best = best.fold(f32::INFINITY, f32::min);
        let usual = self.usual(|_| true);
        // Those whose times differ by noise alone cost the same.
        let alike = self.usual(|history| history.is_within(best)).answer;
        for history in &mut self.histories {
            let alike = if history.is_within(best) { alike } else { None };
            history.foresee(usual, alike);
        }
    }

    /// What is foreseen, for each backend of the pool.
    #[must_use]
    pub fn prospects(&self, pool: &Pool) -> Vec<Prospect> {
        let with_history = pool.backends.iter().zip(&self.histories);
        let prospect = with_history.map(|(backend, history)| Prospect {
            backend: backend.name.clone(),
            load: history.load.ahead(),
            error: history.load.error(),
            model: history.load.model(),
            cost: history.outlook.cost.into(),
            weight: f64::from(backend.weight) / f64::from(history.outlook.cost),
        });
        prospect.collect()
    }

    /// Keeps a history for each backend of the pool, in its order.
    pub fn follow(&mut self, pool: &Pool) {
        let same =
            |history: &History, backend: &Backend| Arc::ptr_eq(&history.tally, &backend.tally);
        let pairs = self.histories.iter().zip(&pool.backends);
        let unchanged = self.histories.len() == pool.backends.len();
        if unchanged
            && pairs
                .clone()
                .all(|(history, backend)| same(history, backend))
        {
            return;
        }
        let mut old = std::mem::take(&mut self.histories);
        let histories = pool.backends.iter().map(|backend| {
            match old.iter().position(|history| same(history, backend)) {
                Some(at) => old.swap_remove(at),
                None => History::new(&backend.tally, self.settings),
            }
        });
        self.histories = histories.collect();
    }

    /// What is usual with some backends: seconds to an answer, bytes of a session.
    fn usual(&self, of: impl Fn(&History) -> bool) -> Costs {
        let mut sum = Recent::default();
        for history in self.histories.iter().filter(|history| of(history)) {
            let Recent {
                answer,
                answered,
                bytes,
                ended,
            } = history.recent;
            sum.answer += answer;
            sum.answered += answered;
            sum.bytes += bytes;
            sum.ended += ended;
        }
        sum.costs()
    }
}

impl History {
    fn new(tally: &Arc<Tally>, settings: config::Predictive) -> Self {
        let horizon = usize::try_from(settings.horizon.as_secs()).unwrap_or(usize::MAX);
        Self {
            tally: Arc::clone(tally),
            seen: tally.totals(),
            load: Forecast::new(horizon, settings.season.map(|season| season.as_secs())),
            streaming: 0.0,
            recent: Recent::default(),
            outlook: Outlook::default(),
        }
    }

    /// Takes in what happened during the last `span` seconds.
    fn measure(&mut self, span: f64) {
        let totals = self.tally.totals();
        let seen = std::mem::replace(&mut self.seen, totals);
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let streaming = seconds(since(totals.in_use, seen.in_use)) / span;
        self.streaming += SMOOTHING * (streaming - self.streaming);
        self.load.push(f64::from(self.tally.waiting()) + streaming);
        let keep = (-span / MEMORY_SECONDS).exp();
        let recent = &mut self.recent;
        recent.fade(keep);
        recent.answer += seconds(since(totals.answer, seen.answer));
        recent.answered += number(since(totals.answered, seen.answered));
        recent.bytes += number(since(totals.bytes, seen.bytes));
        recent.ended += number(since(totals.ended, seen.ended));
    }

    /// How many more connections it will be at work for than now, beyond what forecasts err.
    fn change(&self) -> f64 {
        let change = self.load.ahead() - self.load.present();
        above(change, CHANGE_MIN)
    }

    /// Its answers are not likely to take longer than this, in µs. Costs are by means: to take some
    /// noise for a difference does little harm.
    fn surely_within(&self) -> f32 {
        let known = self.tally.latency().known();
        known.map_or(f32::INFINITY, |known| known.likely().1)
    }

    /// Whether they may take no longer than so many µs.
    fn is_within(&self, high: f32) -> bool {
        let known = self.tally.latency().known();
        known.is_none_or(|known| known.likely().0 <= high)
    }

    /// Tells the workers. `alike`: what its answers and others' take that differ by noise alone.
    fn foresee(&mut self, usual: Costs, alike: Option<f64>) {
        let own = self.recent.costs();
        let time = ratio(alike.or(own.answer), usual.answer);
        let bytes = ratio(own.bytes, usual.bytes);
        // Bytes say less of the work than time does, and single sessions have most of them.
        let cost = time * bytes.powf(BYTES_PART);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an estimate needs no more than the 24 bits of an f32"
        )]
        let outlook = Outlook {
            load: (above(self.streaming, STREAMING_MIN) + self.change()) as f32,
            cost: cost.clamp(1.0 / COST_MAX, COST_MAX) as f32,
        };
        self.outlook = outlook;
        self.tally.foresee(outlook);
    }
}

/// Means of [`Recent`]; `None` where too little is known.
#[derive(Clone, Copy, Debug)]
struct Costs {
    answer: Option<f64>,
    bytes: Option<f64>,
}

impl Recent {
    fn fade(&mut self, keep: f64) {
        self.answer *= keep;
        self.answered *= keep;
        self.bytes *= keep;
        self.ended *= keep;
    }

    fn costs(&self) -> Costs {
        let mean = |sum: f64, count: f64| (count >= ENOUGH).then(|| sum / count);
        Costs {
            answer: mean(self.answer, self.answered),
            bytes: mean(self.bytes, self.ended),
        }
    }
}

/// None at all where it is noise.
fn above(value: f64, noise: f64) -> f64 {
    if value.abs() < noise { 0.0 } else { value }
}

/// 1 when either is unknown.
fn ratio(own: Option<f64>, usual: Option<f64>) -> f64 {
    match (own, usual) {
        (Some(own), Some(usual)) if usual > 0.0 && own > 0.0 => own / usual,
        _ => 1.0,
    }
}

fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

/// The time constant of what is remembered of costs.
const MEMORY_SECONDS: f64 = 30.0;
/// The weight of the last second in what is streamed to.
const SMOOTHING: f64 = 0.3;
/// Less than this is no load: it would outweigh connections that are open.
const STREAMING_MIN: f64 = 0.1;
const CHANGE_MIN: f64 = 0.3;
/// Ticks closer than this to the last one are left out.
const SPAN_SECONDS_MIN: f64 = 0.5;
/// Connections that make a mean worth using.
const ENOUGH: f64 = 3.0;
const BYTES_PART: f64 = 0.25;
/// No backend is taken for more than so many times as slow, or as fast, as usual.
const COST_MAX: f64 = 16.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Backend, Strategy};
    use crate::pool::{Ended, Standing};

    const SECOND: u64 = 1_000_000_000;

    fn pool() -> Pool {
        let address = |port: u16| format!("127.0.0.1:{port}").parse().unwrap();
        Pool::new(&config::Pool {
            strategy: Strategy::Predictive(config::Predictive::default()),
            persist: None,
            ..config::Pool::of("p", (1..4).map(address).map(Backend::at).collect())
        })
    }

    fn forecaster() -> Forecaster {
        Forecaster::new(config::Predictive {
            horizon: Duration::from_secs(5),
            season: None,
        })
    }

    /// So many seconds in each of which every backend answers 10 clients: the third one takes
    /// three times as long, and all of them are at work for others for half of the second.
    fn busy(forecaster: &mut Forecaster, pool: &Pool, seconds: std::ops::Range<u64>) {
        for second in seconds {
            for (backend, time) in pool.backends.iter().zip([10, 10, 30]) {
                for _ in 0..10 {
                    assert!(backend.try_acquire(0));
                    backend.tally.on_answered(time * SECOND / 1_000, 0, SECOND);
                    backend.release(Ended {
                        waiting: false,
                        in_use: 0,
                        bytes: 1_000,
                    });
                }
                backend.tally.on_used(SECOND / 2);
            }
            forecaster.tick(pool, second * SECOND);
        }
    }

    #[test]
    fn costs_are_learned_and_take_effect_on_weights() {
        let (pool, mut forecaster) = (pool(), forecaster());
        busy(&mut forecaster, &pool, 0..60);
        let prospects = forecaster.prospects(&pool);
        let [fast, _, slow] = &prospects[..] else {
            panic!("{prospects:?}");
        };
        assert!((slow.cost / fast.cost - 3.0).abs() < 0.01, "{prospects:?}");
        assert!((fast.weight / slow.weight - 3.0).abs() < 0.01);
        for (prospect, backend) in prospects.iter().zip(&pool.backends) {
            let outlook = backend.tally.outlook();
            assert!((f64::from(outlook.cost) - prospect.cost).abs() < 1e-6);
            assert!((prospect.load - 0.5).abs() < 0.01 && prospect.error < 0.01);
            assert!(
                (outlook.load - 0.5).abs() < 0.01,
                "it streams to half a session"
            );
        }
    }

    #[test]
    fn backends_that_come_and_go_keep_or_lose_their_history() {
        let (pool, mut forecaster) = (pool(), forecaster());
        busy(&mut forecaster, &pool, 0..60);
        let mut config = config::Pool {
            strategy: pool.strategy.clone(),
            persist: None,
            ..config::Pool::of(
                "p",
                ["127.0.0.1:9", "127.0.0.1:3"]
                    .map(|address| Backend::at(address.parse().unwrap()))
                    .to_vec(),
            )
        };
        let pool = Pool::build(&config, Some(&pool), |_| Standing::default());
        forecaster.tick(&pool, 61 * SECOND);
        let prospects = forecaster.prospects(&pool);
        assert_eq!(prospects.len(), 2);
        assert!(prospects[0].load < 1e-9 && (prospects[0].cost - 1.0).abs() < 1e-9);
        assert!(prospects[1].load > 0.2);
        config.backends.clear();
        forecaster.tick(
            &Pool::build(&config, Some(&pool), |_| Standing::default()),
            62 * SECOND,
        );
        assert!(forecaster.histories.is_empty());
    }

    #[test]
    fn ticks_that_come_late_and_all_at_once_are_one() {
        let (pool, mut forecaster) = (pool(), forecaster());
        busy(&mut forecaster, &pool, 0..60);
        for late in 1..5 {
            pool.backends[0].tally.on_used(SECOND);
            forecaster.tick(&pool, 59 * SECOND + late * 20_000);
        }
        forecaster.tick(&pool, 63 * SECOND);
        let load = forecaster.prospects(&pool)[0].load;
        assert!((0.3..1.0).contains(&load), "{load}");
    }

    #[test]
    fn a_quiet_pool_foresees_nothing() {
        let (pool, mut forecaster) = (pool(), forecaster());
        for second in 0..100 {
            forecaster.tick(&pool, second * SECOND);
            forecaster.tick(&pool, second * SECOND);
        }
        for backend in &pool.backends {
            assert_eq!(backend.tally.outlook(), Outlook::default());
        }
    }
}
