//! Forecasts load for `predictive` and `least_time`, once per second on the control thread.
//!
//! For each backend it measures the load (the connections that wait for an answer, and the sessions
//! that the backend streams to), forecasts it over the horizon, and learns the cost of a
//! connection: the time to its answer, and its bytes. It writes the result to the backend's
//! [`Tally`], where all workers read it.

use std::sync::Arc;

use crate::config;
use crate::pool::{Backend, Outlook, Pool, Tally, Totals};

use super::forecast::number;
use super::{Forecast, Model};

/// Forecasts the load of one pool.
#[derive(Debug)]
pub struct Forecaster {
    settings: config::Predictive,
    estimates: Vec<Estimate>,
    ticked_at: Option<u64>,
}

/// What is measured and forecast of one backend.
#[derive(Debug)]
struct Estimate {
    tally: Arc<Tally>,
    /// The totals at the last tick.
    seen: Totals,
    load: Forecast,
    /// How many sessions it streams to, smoothed.
    streaming: f64,
    recent: Recent,
    outlook: Outlook,
}

/// Sums over the recent past: older seconds count less.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    /// The time to first answers, in seconds.
    answer: f64,
    /// The number of first answers.
    answered: f64,
    /// The bytes of sessions that ended.
    bytes: f64,
    /// The number of sessions that ended.
    ended: f64,
}

/// The forecast of one backend, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendForecast {
    /// Its name.
    pub backend: String,
    /// The load after the horizon: connections in flight.
    pub load: f64,
    /// The recent mean absolute error of such forecasts, in connections.
    pub error: f64,
    /// The model in use.
    pub model: Model,
    /// The cost of a connection, relative to the mean of its pool: 1/16 to 16.
    pub cost: f64,
    /// Its effective weight: the configured weight divided by the cost.
    pub weight: f64,
}

impl Forecaster {
    /// A forecaster without any measurement.
    #[must_use]
    pub fn new(settings: config::Predictive) -> Self {
        Self {
            settings,
            estimates: Vec::new(),
            ticked_at: None,
        }
    }

    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> config::Predictive {
        self.settings
    }

    /// Measures what happened since the last call and makes a new forecast. Call it once per
    /// second. `now` is in nanoseconds, monotonic.
    pub fn tick(&mut self, pool: &Pool, now: u64) {
        self.follow(pool);
        let Some(before) = self.ticked_at else {
            self.ticked_at = Some(now);
            return;
        };
        let span = seconds(now.saturating_sub(before));
        // Late ticks come in a row: rates over such a short span would be spikes.
        if span < SPAN_SECONDS_MIN {
            return;
        }
        self.ticked_at = Some(now);
        for estimate in &mut self.estimates {
            estimate.measure(span);
        }
        let best = self.estimates.iter().map(Estimate::surely_within);
        let best = best.fold(f32::INFINITY, f32::min);
        let usual = self.usual(|_| true);
        // Backends whose answer times differ only by noise have the same cost.
        let alike = self.usual(|estimate| estimate.is_within(best)).answer;
        for estimate in &mut self.estimates {
            let alike = if estimate.is_within(best) {
                alike
            } else {
                None
            };
            estimate.publish(usual, alike);
        }
    }

    /// The forecast of each backend of the pool.
    #[must_use]
    pub fn forecasts(&self, pool: &Pool) -> Vec<BackendForecast> {
        let with_estimate = pool.backends.iter().zip(&self.estimates);
        let forecast = with_estimate.map(|(backend, estimate)| BackendForecast {
            backend: backend.name.clone(),
            load: estimate.load.ahead(),
            error: estimate.load.error(),
            model: estimate.load.model(),
            cost: estimate.outlook.cost.into(),
            weight: f64::from(backend.weight) / f64::from(estimate.outlook.cost),
        });
        forecast.collect()
    }

    /// Keeps one estimate for each backend of the pool, in the pool's order.
    pub fn follow(&mut self, pool: &Pool) {
        let same =
            |estimate: &Estimate, backend: &Backend| Arc::ptr_eq(&estimate.tally, &backend.tally);
        let pairs = self.estimates.iter().zip(&pool.backends);
        let unchanged = self.estimates.len() == pool.backends.len();
        if unchanged
            && pairs
                .clone()
                .all(|(estimate, backend)| same(estimate, backend))
        {
            return;
        }
        let mut old = std::mem::take(&mut self.estimates);
        let estimates = pool.backends.iter().map(|backend| {
            match old.iter().position(|estimate| same(estimate, backend)) {
                Some(at) => old.swap_remove(at),
                None => Estimate::new(&backend.tally, self.settings),
            }
        });
        self.estimates = estimates.collect();
    }

    /// The mean costs over some backends.
    fn usual(&self, of: impl Fn(&Estimate) -> bool) -> Costs {
        let mut sum = Recent::default();
        for estimate in self.estimates.iter().filter(|estimate| of(estimate)) {
            let Recent {
                answer,
                answered,
                bytes,
                ended,
            } = estimate.recent;
            sum.answer += answer;
            sum.answered += answered;
            sum.bytes += bytes;
            sum.ended += ended;
        }
        sum.costs()
    }
}

impl Estimate {
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

    /// Measures what happened during the last `span` seconds.
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

    /// By how much its load will change within the horizon; 0 if by less than noise.
    fn change(&self) -> f64 {
        let change = self.load.ahead() - self.load.present();
        above(change, CHANGE_MIN)
    }

    /// The upper end of its likely answer time, in µs. Costs are ratios of means, so to take some
    /// noise for a difference does little harm.
    fn surely_within(&self) -> f32 {
        let known = self.tally.latency().known();
        known.map_or(f32::INFINITY, |known| known.likely().1)
    }

    /// Whether its answer time may be no longer than `high`, in µs.
    fn is_within(&self, high: f32) -> bool {
        let known = self.tally.latency().known();
        known.is_none_or(|known| known.likely().0 <= high)
    }

    /// Publishes its outlook to the workers. `usual` is the pool's mean; `alike` the mean answer
    /// time of the backends that differ from this one only by noise.
    fn publish(&mut self, usual: Costs, alike: Option<f64>) {
        let own = self.recent.costs();
        let time = ratio(alike.or(own.answer), usual.answer);
        let bytes = ratio(own.bytes, usual.bytes);
        // Bytes are a weaker sign of work than time, and a few sessions have most of them.
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
        self.tally.set_outlook(outlook);
    }
}

/// Means of [`Recent`]; `None` where too little is known.
#[derive(Clone, Copy, Debug)]
struct Costs {
    /// Seconds to a first answer.
    answer: Option<f64>,
    /// Bytes of a session.
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

/// `value`, or 0 if it is below the noise.
fn above(value: f64, noise: f64) -> f64 {
    if value.abs() < noise { 0.0 } else { value }
}

/// `own` relative to `usual`; 1 if either is unknown.
fn ratio(own: Option<f64>, usual: Option<f64>) -> f64 {
    match (own, usual) {
        (Some(own), Some(usual)) if usual > 0.0 && own > 0.0 => own / usual,
        _ => 1.0,
    }
}

fn seconds(ns: u64) -> f64 {
    number(ns) / 1e9
}

/// The time constant of the mean costs.
const MEMORY_SECONDS: f64 = 30.0;
/// The weight of the last second in the number of sessions that a backend streams to.
const SMOOTHING: f64 = 0.3;
/// Fewer sessions than this count as 0: noise would outweigh open connections.
const STREAMING_MIN: f64 = 0.1;
/// A forecast change of the load below this counts as 0.
const CHANGE_MIN: f64 = 0.3;
/// Ticks that follow the last one sooner than this are left out.
const SPAN_SECONDS_MIN: f64 = 0.5;
/// Fewer connections than this make no mean.
const ENOUGH: f64 = 3.0;
/// The exponent by which bytes count in the cost; time has 1.
const BYTES_PART: f64 = 0.25;
/// The cost is bounded by this, and by its inverse.
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

    /// In each of these seconds every backend answers 10 clients and streams for half a second.
    /// The third backend takes three times as long to answer.
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
        let forecasts = forecaster.forecasts(&pool);
        let [fast, _, slow] = &forecasts[..] else {
            panic!("{forecasts:?}");
        };
        assert!((slow.cost / fast.cost - 3.0).abs() < 0.01, "{forecasts:?}");
        assert!((fast.weight / slow.weight - 3.0).abs() < 0.01);
        for (forecast, backend) in forecasts.iter().zip(&pool.backends) {
            let outlook = backend.tally.outlook();
            assert!((f64::from(outlook.cost) - forecast.cost).abs() < 1e-6);
            assert!((forecast.load - 0.5).abs() < 0.01 && forecast.error < 0.01);
            assert!(
                (outlook.load - 0.5).abs() < 0.01,
                "half a second of streaming per second"
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
        let forecasts = forecaster.forecasts(&pool);
        assert_eq!(forecasts.len(), 2);
        assert!(forecasts[0].load < 1e-9 && (forecasts[0].cost - 1.0).abs() < 1e-9);
        assert!(forecasts[1].load > 0.2);
        config.backends.clear();
        forecaster.tick(
            &Pool::build(&config, Some(&pool), |_| Standing::default()),
            62 * SECOND,
        );
        assert!(forecaster.estimates.is_empty());
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
        let load = forecaster.forecasts(&pool)[0].load;
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
