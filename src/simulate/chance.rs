//! The distributions that a scenario draws from, and conversions between integers and floats.

use fastrand::Rng;

use crate::time::SECOND;

/// The distribution of a time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimeDistribution {
    /// Exponential.
    Exponential {
        /// In seconds.
        mean: f64,
    },
    /// Pareto between two bounds: many small ones, few that are very large.
    Pareto {
        /// The exponent of the tail, above 0 and not 1; the smaller, the heavier.
        shape: f64,
        /// In seconds, above 0.
        min: f64,
        /// In seconds.
        max: f64,
    },
}

impl TimeDistribution {
    /// The mean, in seconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match *self {
            Self::Exponential { mean } => mean,
            Self::Pareto { shape, min, max } => {
                let cut = 1.0 - (min / max).powf(shape);
                let tail = min.powf(1.0 - shape) - max.powf(1.0 - shape);
                shape * min.powf(shape) * tail / (cut * (shape - 1.0))
            }
        }
    }

    /// Draws one, in seconds.
    pub(super) fn draw(&self, rng: &mut Rng) -> f64 {
        match *self {
            Self::Exponential { mean } => exponential(rng) * mean,
            Self::Pareto { shape, min, max } => {
                let cut = 1.0 - (min / max).powf(shape);
                min * (1.0 - rng.f64() * cut).powf(-1.0 / shape)
            }
        }
    }
}

/// Exponential with mean 1.
pub(super) fn exponential(rng: &mut Rng) -> f64 {
    // The argument is in (0, 1], so that the logarithm is finite.
    -(1.0 - rng.f64()).ln()
}

/// Converts seconds to nanoseconds; 0 for negative ones.
pub(super) fn nanos(seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float ends at the bounds of the integer, which are the ones wanted"
    )]
    let nanos = (seconds * float(SECOND)) as u64;
    nanos
}

/// Rounds nanoseconds up.
pub(super) fn ceil(nanos: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float ends at the bounds of the integer, which are the ones wanted"
    )]
    let whole = nanos.ceil() as u64;
    whole
}

/// A number as a float; what is lost beyond 2^53 is nothing that a simulation could tell.
pub(super) fn float(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits of a time are enough")]
    let float = number as f64;
    float
}

/// A part of a whole; 0 of nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        float(part) / float(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_is_drawn() {
        let mut rng = Rng::with_seed(3);
        let spreads = [
            TimeDistribution::Exponential { mean: 0.25 },
            TimeDistribution::Pareto {
                shape: 1.5,
                min: 0.01,
                max: 2.0,
            },
        ];
        for spread in spreads {
            let sum: f64 = (0..200_000).map(|_| spread.draw(&mut rng)).sum();
            let mean = sum / 200_000.0;
            assert!(
                (mean / spread.mean() - 1.0).abs() < 0.02,
                "{spread:?} {mean}"
            );
        }
    }

    #[test]
    fn floats_stay_in_range() {
        assert_eq!(nanos(-1.0), 0);
        assert_eq!(nanos(0.000_5), 500_000);
        assert_eq!(nanos(f64::INFINITY), u64::MAX);
        assert_eq!(ceil(1.1), 2);
        assert!(share(0, 0).abs() < f64::EPSILON);
    }
}
