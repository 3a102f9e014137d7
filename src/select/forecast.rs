//! Forecasts of one number that is measured each second.
//!
//! Three models run side by side: exponential smoothing (the level), Holt's damped trend, and
//! seasonal terms after two periods. Each model's forecast is compared with the value that comes
//! `horizon` seconds later. The model with the smallest recent error is used.
//!
//! Holt, "Forecasting seasonals and trends by exponentially weighted moving averages", 1957.
//! Gardner and McKenzie, "Forecasting trends in time series", Management Science 31(10), 1985.
//! Winters, "Forecasting sales by exponentially weighted moving averages", 1960.

use std::collections::VecDeque;

use crate::config;

/// The forecast of one series.
#[derive(Clone, Debug)]
pub struct Forecast {
    horizon: usize,
    holt: Holt,
    season: Option<Season>,
    /// Seconds since it began, those without a value included.
    seconds: u64,
    /// Seconds with a value.
    learned: u64,
    /// The forecasts of all models, the oldest first: at most `horizon` entries.
    predictions: VecDeque<[f64; MODELS]>,
    /// The mean absolute error of each model, as a moving average.
    errors: [f64; MODELS],
    /// How many forecasts have come due.
    due: u64,
}

/// The models of a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The level stays.
    Level,
    /// The level and its trend go on, the trend damped.
    Trend,
    /// As it was at this time of the period, shifted by the recent error of that.
    Season,
}

impl Model {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Trend => "trend",
            Self::Season => "season",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Holt {
    /// There was a value.
    is_known: bool,
    level: f64,
    trend: f64,
}

/// The seasonal terms.
#[derive(Clone, Debug)]
struct Season {
    /// In seconds.
    period: u64,
    /// The mean over a period.
    mean: f64,
    /// Deviations from the mean, by time of the period.
    bins: Vec<f64>,
    /// The recent average of how far the series is from mean and deviation together.
    residual: f64,
}

impl Forecast {
    /// A forecast over `horizon` seconds (0 counts as 1) of a series that repeats every `period`
    /// seconds, or of one that does not repeat.
    #[must_use]
    pub fn new(horizon: usize, period: Option<u64>) -> Self {
        Self {
            horizon: horizon.max(1),
            holt: Holt::default(),
            season: period.map(Season::new),
            seconds: 0,
            learned: 0,
            predictions: VecDeque::new(),
            errors: [0.0; MODELS],
            due: 0,
        }
    }

    /// A forecast with these settings.
    #[must_use]
    pub fn of(settings: &config::Predictive) -> Self {
        let horizon = usize::try_from(settings.horizon.as_secs()).unwrap_or(usize::MAX);
        Self::new(horizon, settings.season.map(|season| season.as_secs()))
    }

    /// Adds the next second's value.
    pub fn push(&mut self, value: f64) {
        if self.predictions.len() == self.horizon
            && let Some(predictions) = self.predictions.pop_front()
        {
            self.record_errors(predictions, value);
        }
        self.holt.push(value);
        if let Some(season) = &mut self.season {
            season.push(value, self.seconds, self.learned == 0);
        }
        self.seconds += 1;
        self.learned += 1;
        let predictions =
            [Model::Level, Model::Trend, Model::Season].map(|model| self.predict(model));
        self.predictions.push_back(predictions);
    }

    /// Adds what the values of the next seconds were on average, where no more is known: season and
    /// level learn it. It says nothing about a trend, nor about how good forecasts of a second are.
    pub fn learn(&mut self, mean: f64, seconds: u64) {
        self.predictions.clear();
        self.holt = Holt {
            is_known: true,
            level: mean,
            trend: 0.0,
        };
        for second in 0..seconds {
            if let Some(season) = &mut self.season {
                season.push(mean, self.seconds + second, self.learned + second == 0);
            }
        }
        self.seconds += seconds;
        self.learned += seconds;
    }

    /// Passes over seconds of which nothing is known. Level and trend begin again after many.
    pub fn skip(&mut self, seconds: u64) {
        self.seconds += seconds;
        self.predictions.clear();
        if seconds > GAP {
            self.holt.is_known = false;
            self.holt.trend = 0.0;
            if let Some(season) = &mut self.season {
                season.residual = 0.0;
            }
        }
    }

    /// Of how many seconds it has learned.
    #[must_use]
    pub fn learned(&self) -> u64 {
        self.learned
    }

    /// The value now, smoothed.
    #[must_use]
    pub fn present(&self) -> f64 {
        self.holt.level
    }

    /// The forecast for `horizon` seconds from now; never negative.
    #[must_use]
    pub fn ahead(&self) -> f64 {
        self.predict(self.model())
    }

    /// The recent mean absolute error of the model in use, in the unit of the values. 0 before the
    /// first forecast comes due.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.errors[self.model() as usize]
    }

    /// The model in use: the one with the smallest recent error.
    #[must_use]
    pub fn model(&self) -> Model {
        let [level, trend, season] = self.errors;
        // Among equals the simplest.
        if self.knows_seasons() && season < level && season < trend {
            Model::Season
        } else if self.due > 0 && trend < level {
            Model::Trend
        } else {
            Model::Level
        }
    }

    fn predict(&self, model: Model) -> f64 {
        let ahead = match model {
            Model::Level => self.holt.level,
            Model::Trend => self.holt.ahead(self.horizon),
            Model::Season => {
                let then = self.seconds + self.horizon as u64 - 1;
                let ahead = |season: &Season| season.at(then, self.horizon);
                self.season.as_ref().map_or(0.0, ahead)
            }
        };
        ahead.max(0.0)
    }

    fn record_errors(&mut self, predictions: [f64; MODELS], value: f64) {
        self.due += 1;
        let weight = if self.due == 1 { 1.0 } else { ERROR_WEIGHT };
        for (error, predictions) in self.errors.iter_mut().zip(predictions) {
            *error += weight * ((predictions - value).abs() - *error);
        }
    }

    fn knows_seasons(&self) -> bool {
        let enough = |season: &Season| self.learned >= 2 * season.period;
        self.season.as_ref().is_some_and(enough)
    }
}

impl Holt {
    fn push(&mut self, value: f64) {
        if !self.is_known {
            self.is_known = true;
            self.level = value;
            return;
        }
        let expected = self.level + DAMPING * self.trend;
        let level = expected + LEVEL * (value - expected);
        self.trend = DAMPING * self.trend + TREND * (level - self.level - DAMPING * self.trend);
        self.level = level;
    }

    fn ahead(&self, seconds: usize) -> f64 {
        // The sum of the damping's powers up to the horizon.
        let steps = DAMPING * (1.0 - power(DAMPING, seconds)) / (1.0 - DAMPING);
        self.level + steps * self.trend
    }
}

impl Season {
    fn new(period: u64) -> Self {
        let period = period.max(1);
        let bins = usize::try_from(period).unwrap_or(BINS_MAX).min(BINS_MAX);
        Self {
            period,
            mean: 0.0,
            bins: vec![0.0; bins],
            residual: 0.0,
        }
    }

    fn push(&mut self, value: f64, second: u64, is_first: bool) {
        let bin = self.bin(second);
        if is_first {
            self.mean = value;
        }
        let seasonal = self.bins[bin];
        let weight = (PERIODIC / number(self.period)).min(LEVEL);
        self.mean += weight * (value - seasonal - self.mean);
        self.residual += LEVEL * (value - seasonal - self.mean - self.residual);
        let weight = SEASON / number((self.period / self.bins.len() as u64).max(1));
        self.bins[bin] += weight * (value - self.mean - seasonal);
    }

    /// The value at a second that is `ahead` seconds away.
    fn at(&self, second: u64, ahead: usize) -> f64 {
        let residual = self.residual * power(DAMPING, ahead);
        self.mean + self.bins[self.bin(second)] + residual
    }

    fn bin(&self, second: u64) -> usize {
        let bin = second % self.period * self.bins.len() as u64 / self.period;
        usize::try_from(bin).unwrap_or(0)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "periods of seconds are small numbers"
)]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

fn power(base: f64, exponent: usize) -> f64 {
    base.powi(i32::try_from(exponent).unwrap_or(i32::MAX))
}

const MODELS: usize = 3;
/// The weight of the newest value in the level.
const LEVEL: f64 = 0.3;
/// The weight of the newest value in the trend.
const TREND: f64 = 0.1;
/// The weight of a whole period's values in the mean over a period.
const PERIODIC: f64 = 2.0;
/// The weight of the newest period in a seasonal term.
const SEASON: f64 = 0.5;
/// The weight of the newest forecast in the error.
const ERROR_WEIGHT: f64 = 0.02;
/// What is left of the trend after each second.
const DAMPING: f64 = 0.98;
/// After so many seconds without a value the last level says nothing about the next one.
const GAP: u64 = 60;
/// Seasonal terms of a period at most: a day has one for each five minutes.
const BINS_MAX: usize = 288;

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// Pushes `seconds` values of a function of time.
    fn after(mut forecast: Forecast, seconds: u32, of: impl Fn(f64) -> f64) -> Forecast {
        for second in 0..seconds {
            forecast.push(of(f64::from(second)));
        }
        forecast
    }

    #[test]
    fn a_level_goes_on() {
        let forecast = after(Forecast::new(10, None), 100, |_| 5.0);
        assert!((forecast.ahead() - 5.0).abs() < 1e-9);
        assert!(forecast.error() < 1e-9);
        assert_eq!(forecast.model(), Model::Level);
    }

    #[test]
    fn a_trend_goes_on() {
        let forecast = after(Forecast::new(10, None), 200, |t| 100.0 + 2.0 * t);
        let then = 100.0 + 2.0 * 209.0;
        assert_eq!(forecast.model(), Model::Trend);
        assert!(
            (forecast.ahead() - then).abs() < 6.0,
            "{}",
            forecast.ahead()
        );
    }

    #[test]
    fn nothing_is_ever_below_zero() {
        let forecast = after(Forecast::new(30, None), 50, |t| 100.0 - 2.0 * t);
        assert!(forecast.ahead() >= 0.0);
    }

    #[test]
    fn what_repeats_is_foreseen_after_two_periods() {
        let wave = |t: f64| 100.0 + 50.0 * (t * TAU / 300.0).sin();
        let early = after(Forecast::new(30, Some(300)), 500, wave);
        assert_ne!(early.model(), Model::Season);
        let late = after(Forecast::new(30, Some(300)), 1_500, wave);
        assert_eq!(late.model(), Model::Season);
        let plain = after(Forecast::new(30, None), 1_500, wave);
        assert!(
            late.error() < plain.error() / 2.0,
            "{} {}",
            late.error(),
            plain.error()
        );
        assert!((late.ahead() - wave(1_529.0)).abs() < 10.0);
    }

    #[test]
    fn a_season_is_learned_from_means_and_goes_on_after_a_gap() {
        let wave = |t: u32| 100.0 + 50.0 * (f64::from(t) * TAU / 3_600.0).sin();
        let mut late = Forecast::new(300, Some(3_600));
        for minute in 0..600 {
            let seconds = (0..60).map(|second| wave(minute * 60 + second));
            late.learn(seconds.sum::<f64>() / 60.0, 60);
        }
        assert_eq!(late.model(), Model::Level, "minutes judge no model");
        (36_000..36_900).for_each(|second| late.push(wave(second)));
        late.skip(100);
        assert_eq!((late.learned(), late.model()), (36_900, Model::Season));
        let mut errors = 0.0;
        for second in 37_000..37_200 {
            late.push(wave(second));
            errors += (late.ahead() - wave(second + 300)).abs() / 200.0;
        }
        assert!(errors < 5.0, "{errors}");
        // What was before a long gap is no level.
        late.skip(5_000);
        late.push(7.0);
        assert!((late.present() - 7.0).abs() < 1e-9);
    }

    #[test]
    fn noise_is_not_taken_for_a_trend() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut forecast = Forecast::new(10, Some(600));
        for _ in 0..3_000 {
            forecast.push(50.0 + 20.0 * (rng.f64() - 0.5));
        }
        assert!(
            (forecast.ahead() - 50.0).abs() < 10.0,
            "{}",
            forecast.ahead()
        );
    }

    #[test]
    fn memory_is_bounded() {
        let forecast = after(Forecast::new(600, Some(86_400)), 2_000, |t| t);
        assert_eq!(forecast.predictions.len(), 600);
        assert_eq!(forecast.season.unwrap().bins.len(), 288);
    }
}
