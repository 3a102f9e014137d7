//! Forecasts of one number that is measured each second.
//!
//! Three models run side by side: the smoothed level; with Holt's trend, damped (Holt 1957; Gardner
//! and McKenzie 1985); with seasonal terms (Winters 1960), once two periods were seen. What each
//! said `horizon` seconds ago is held against what came; the one that was best of late is used.

use std::collections::VecDeque;

/// The forecast of one series.
#[derive(Clone, Debug)]
pub struct Forecast {
    horizon: usize,
    holt: Holt,
    season: Option<Season>,
    seconds: u64,
    /// What each model said, the oldest first: at most `horizon` entries.
    said: VecDeque<[f64; MODELS]>,
    /// Mean absolute error of each model, fading.
    errors: [f64; MODELS],
    judged: u64,
}

/// What a forecast stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The present goes on.
    Level,
    /// So does its trend.
    Trend,
    /// As it was at this time of the period, with the trend.
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
    level: f64,
    trend: f64,
}

/// What repeats itself.
#[derive(Clone, Debug)]
struct Season {
    /// In seconds.
    period: u64,
    /// The mean over the time of a period,
    mean: f64,
    /// deviations from it by time of the period,
    bins: Vec<f64>,
    /// and how far the series is from both together of late.
    residual: f64,
}

impl Forecast {
    /// A forecast over `horizon` seconds, 1 at least, of a series that repeats itself every
    /// `period` seconds, if it does.
    #[must_use]
    pub fn new(horizon: usize, period: Option<u64>) -> Self {
        Self {
            horizon: horizon.max(1),
            holt: Holt::default(),
            season: period.map(Season::new),
            seconds: 0,
            said: VecDeque::new(),
            errors: [0.0; MODELS],
            judged: 0,
        }
    }

    /// Takes the next second's value.
    pub fn push(&mut self, value: f64) {
        if self.said.len() == self.horizon
            && let Some(said) = self.said.pop_front()
        {
            self.judge(said, value);
        }
        let first = self.seconds == 0;
        self.holt.push(value, first);
        if let Some(season) = &mut self.season {
            season.push(value, self.seconds);
        }
        self.seconds += 1;
        let said = [Model::Level, Model::Trend, Model::Season].map(|model| self.by(model));
        self.said.push_back(said);
    }

    /// The value now, smoothed.
    #[must_use]
    pub fn present(&self) -> f64 {
        self.holt.level
    }

    /// The value that is expected after the horizon; never negative.
    #[must_use]
    pub fn ahead(&self) -> f64 {
        self.by(self.model())
    }

    /// Mean absolute error of the model in use, as of late, in the unit of the values; 0 before
    /// the first forecast came due.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.errors[self.model() as usize]
    }

    /// The model in use: the one that erred least.
    #[must_use]
    pub fn model(&self) -> Model {
        let [level, trend, season] = self.errors;
        // Of equals the simplest.
        if self.knows_seasons() && season < level && season < trend {
            Model::Season
        } else if self.judged > 0 && trend < level {
            Model::Trend
        } else {
            Model::Level
        }
    }

    fn by(&self, model: Model) -> f64 {
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

    fn judge(&mut self, said: [f64; MODELS], value: f64) {
        self.judged += 1;
        let weight = if self.judged == 1 { 1.0 } else { JUDGING };
        for (error, said) in self.errors.iter_mut().zip(said) {
            *error += weight * ((said - value).abs() - *error);
        }
    }

    fn knows_seasons(&self) -> bool {
        let enough = |season: &Season| self.seconds >= 2 * season.period;
        self.season.as_ref().is_some_and(enough)
    }
}

impl Holt {
    fn push(&mut self, value: f64, first: bool) {
        if first {
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

    fn push(&mut self, value: f64, second: u64) {
        let bin = self.bin(second);
        if second == 0 {
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
/// Weights of the newest value: in the level, in the trend,
const LEVEL: f64 = 0.3;
const TREND: f64 = 0.1;
/// in the level over a period (per period), in a seasonal term (per time that it comes),
const PERIODIC: f64 = 2.0;
const SEASON: f64 = 0.5;
/// and in the error.
const JUDGING: f64 = 0.02;
/// A trend goes on, but not for ever.
const DAMPING: f64 = 0.98;
/// A day has a term for each five minutes.
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
        assert_eq!(forecast.said.len(), 600);
        assert_eq!(forecast.season.unwrap().bins.len(), 288);
    }
}
