//! Limits how many of many equal things are reported.

use crate::time::SECOND;

/// Lets so many through in each second, and counts the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// When the second began, in ns of the workers' clock.
    began: u64,
    passed: u32,
}

impl Sample {
    /// Whether this one is within `max` of its second.
    pub fn takes(&mut self, now: u64, max: u32) -> bool {
        if now.saturating_sub(self.began) >= SECOND {
            *self = Self {
                began: now,
                passed: 0,
            };
        }
        let is_taken = self.passed < max;
        self.passed += u32::from(is_taken);
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_lets_so_many_through() {
        let mut sample = Sample::default();
        let mut taken = |at: u64| (0..5).filter(|_| sample.takes(at, 3)).count();
        assert_eq!([taken(SECOND), taken(SECOND + 1)], [3, 0]);
        assert_eq!([taken(2 * SECOND - 1), taken(2 * SECOND)], [0, 3]);
        assert_eq!([taken(9 * SECOND), taken(9 * SECOND + 1)], [3, 0]);
    }
}
