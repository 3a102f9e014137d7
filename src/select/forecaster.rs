//! Forecasts load for `predictive` and `least_time`, once per second on the control thread.
//!
//! For each backend it measures the load (the connections that wait for an answer, and the sessions
//! that the backend streams to), forecasts it over the horizon, and learns the cost of a
//! connection: the time to its answer, and its bytes. It writes the result to the backend's
//! [`Tally`], where all workers read it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config;
use crate::pool::{Backend, Outlook, Pool, Tally, Totals, surely_times};
use crate::time::seconds;

use super::forecast::number;
use super::{Forecast, Model};

/// Forecasts the load of one pool.
#[derive(Debug)]
pub struct Forecaster {
    settings: config::Predictive,
    estimates: Vec<Estimate>,
    ticked_at: Option<u64>,
    /// It may learn what was before it.
    takes_past: bool,
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

/// Samples of the recent past: older seconds count less.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    /// The times to first answers, in seconds.
    answer: Samples,
    /// The bytes of sessions that ended.
    bytes: Samples,
}

/// Sums over samples. Of one second only their sum is known.
#[derive(Clone, Copy, Debug, Default)]
struct Samples {
    sum: f64,
    count: f64,
    /// The seconds that had samples.
    seconds: f64,
    /// The squares of those seconds' means, by their numbers of samples.
    squares: f64,
}

/// The samples of one backend, and the range in which their usual value lies.
#[derive(Clone, Copy, Debug)]
struct Measured {
    samples: Samples,
    low: f32,
    high: f32,
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
            takes_past: true,
        }
    }

    /// Whether it may learn what was before it: once.
    pub fn takes_past(&mut self) -> bool {
        std::mem::take(&mut self.takes_past)
    }

    /// Goes on from forecasts that have learned the past, by the names of backends: it takes those
    /// of the pool's.
    pub fn adopt(&mut self, pool: &Pool, learned: &mut HashMap<String, Forecast>) {
        self.follow(pool);
        for (estimate, backend) in self.estimates.iter_mut().zip(&pool.backends) {
            let learned = learned.remove(&backend.name);
            // One that has come meanwhile knows as much as there is.
            let longer = learned.filter(|its| its.learned() > estimate.load.learned());
            if let Some(longer) = longer {
                estimate.load = longer;
            }
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
        let relative = |of: fn(&Estimate) -> Measured| {
            let measured: Vec<_> = self.estimates.iter().map(of).collect();
            relative(&measured)
        };
        let [times, bytes] = [Estimate::answers, Estimate::bytes].map(relative);
        let costs = times.into_iter().zip(bytes);
        for (estimate, (time, bytes)) in self.estimates.iter_mut().zip(costs) {
            // Bytes are a weaker sign of work than time, and a few sessions have most of them.
            estimate.publish(time * bytes.powf(BYTES_PART));
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
}

impl Estimate {
    fn new(tally: &Arc<Tally>, settings: config::Predictive) -> Self {
        Self {
            tally: Arc::clone(tally),
            seen: tally.totals(),
            load: Forecast::of(&settings),
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
        let Recent { answer, bytes } = &mut self.recent;
        let waited = seconds(since(totals.answer, seen.answer));
        answer.add(waited, since(totals.answered, seen.answered), keep);
        let moved = number(since(totals.bytes, seen.bytes));
        bytes.add(moved, since(totals.ended, seen.ended), keep);
    }

    /// By how much its load will change within the horizon; 0 if by less than noise.
    fn change(&self) -> f64 {
        let change = self.load.ahead() - self.load.present();
        above(change, CHANGE_MIN)
    }

    /// Its answer times. The tally knows their range better than their sums do: one late answer may
    /// be noise.
    fn answers(&self) -> Measured {
        let known = self.tally.latency().known();
        let (low, high) = known.map_or((0.0, f32::INFINITY), |known| (known.low, known.high));
        Measured {
            samples: self.recent.answer,
            low,
            high,
        }
    }

    /// The bytes of its sessions.
    fn bytes(&self) -> Measured {
        let samples = self.recent.bytes;
        let (low, high) = samples.range();
        Measured { samples, low, high }
    }

    /// Publishes its outlook to the workers.
    fn publish(&mut self, cost: f64) {
        let outlook = Outlook {
            load: narrow(above(self.streaming, STREAMING_MIN) + self.change()),
            cost: narrow(cost.clamp(1.0 / COST_MAX, COST_MAX)),
        };
        self.outlook = outlook;
        self.tally.set_outlook(outlook);
    }
}

impl Samples {
    /// Adds the samples of a second. `keep` is the part that is left of what was there.
    fn add(&mut self, sum: f64, count: u64, keep: f64) {
        for kept in [
            &mut self.sum,
            &mut self.count,
            &mut self.seconds,
            &mut self.squares,
        ] {
            *kept *= keep;
        }
        if count > 0 {
            let count = number(count);
            self.sum += sum;
            self.count += count;
            self.seconds += 1.0;
            self.squares += sum * sum / count;
        }
    }

    /// `None`: these are too few.
    fn mean(self) -> Option<f64> {
        (self.count >= ENOUGH).then(|| self.sum / self.count)
    }

    /// The range in which the mean of many more would lie: the wider the fewer these are, and the
    /// more the seconds differ.
    fn range(self) -> (f32, f32) {
        let Some(mean) = self.mean().filter(|_| self.seconds >= SECONDS_MIN) else {
            return (0.0, f32::INFINITY);
        };
        let variance = (self.squares - self.sum * mean).max(0.0) / (self.seconds - 1.0);
        let noise = ERRORS * (variance / self.count).sqrt() + mean / self.seconds;
        (narrow((mean - noise).max(0.0)), narrow(mean + noise))
    }
}

/// The cost of each backend by its samples, relative to the mean of all. Backends that differ from
/// the cheapest by no more than noise have the same.
fn relative(all: &[Measured]) -> Vec<f64> {
    let best = all.iter().map(|one| one.high).fold(f32::INFINITY, f32::min);
    let mean = |of: &dyn Fn(&Measured) -> bool| {
        let of = all.iter().filter(|one| of(one));
        let sum = of.fold(Samples::default(), |sum, one| Samples {
            sum: sum.sum + one.samples.sum,
            count: sum.count + one.samples.count,
            ..sum
        });
        sum.mean().filter(|mean| *mean > 0.0)
    };
    let means = mean(&|_| true).zip(mean(&|one| one.low <= best));
    let Some((usual, alike)) = means else {
        return vec![1.0; all.len()];
    };
    let relative = all.iter().map(|one| {
        let times = one.samples.mean().map_or(1.0, |own| own / alike);
        alike * f64::from(surely_times(narrow(times), one.low, best)) / usual
    });
    relative.collect()
}

/// `value`, or 0 if it is below the noise.
fn above(value: f64, noise: f64) -> f64 {
    if value.abs() < noise { 0.0 } else { value }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an estimate needs no more than the 24 bits of an f32"
)]
fn narrow(value: f64) -> f32 {
    value as f32
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
/// Fewer samples than this make no mean: on a loaded machine several answers in a row are late.
const ENOUGH: f64 = 8.0;
/// Fewer seconds than this, of which old ones count less, say nothing about noise.
const SECONDS_MIN: f64 = 2.5;
/// The half width of a range, in standard errors.
const ERRORS: f64 = 3.0;
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
    use crate::time::{MS, SECOND};

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
                    backend.tally.on_answered(time * MS, 0, SECOND);
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

    /// On a loaded machine the first answers of one backend may all be late.
    #[test]
    fn a_few_late_answers_have_no_cost() {
        let (pool, mut forecaster) = (pool(), forecaster());
        for second in 0..7 {
            for (backend, time) in pool.backends.iter().zip([1, 1, 40]) {
                assert!(backend.try_acquire(0));
                let (answer, now) = (time * MS, (second + 1) * SECOND);
                backend.tally.on_answered(answer, now, SECOND);
            }
            forecaster.tick(&pool, (second + 1) * SECOND);
        }
        let costs = pool.backends.iter().map(|one| one.tally.outlook().cost);
        let costs: Vec<_> = costs.collect();
        assert!((costs[2] - costs[0]).abs() < 1e-6, "{costs:?}");
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
    fn a_past_that_was_learned_is_taken_once_and_where_it_says_more() {
        let (pool, mut forecaster) = (pool(), forecaster());
        assert!(forecaster.takes_past() && !forecaster.takes_past());
        busy(&mut forecaster, &pool, 0..3);
        let of = |seconds, load| {
            let mut forecast = Forecast::of(&forecaster.settings());
            forecast.learn(load, seconds);
            forecast
        };
        let names = [0, 1].map(|nth: usize| pool.backends[nth].name.clone());
        let [first, second] = names;
        let mut learned = [(first, of(600, 40.0)), (second, of(1, 50.0))].into();
        forecaster.adopt(&pool, &mut learned);
        let loads = forecaster.forecasts(&pool);
        assert!((loads[0].load - 40.0).abs() < 1e-9, "{loads:?}");
        assert!(loads[1].load < 1.0 && loads[2].load < 1.0, "{loads:?}");
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
