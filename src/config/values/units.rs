//! Amounts with a unit: durations, memory, bytes per second.

/// The units of a kind of amount, smallest first.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Units(pub(in crate::config) &'static [(&'static str, u64)]);

impl Units {
    /// Reads a whole number with a unit. One that is too large is the largest.
    pub(in crate::config) fn read(self, text: &str) -> Option<u64> {
        let (number, unit) = split(text);
        let (_, unit) = self.0.iter().find(|(name, _)| *name == unit)?;
        let number = Some(number).filter(|number| !number.is_empty())?;
        let number = number.parse::<u64>().unwrap_or(u64::MAX);
        Some(number.saturating_mul(*unit))
    }

    /// An amount in the largest unit that leaves no fraction.
    pub(in crate::config) fn write(self, amount: u64) -> String {
        // Zero has no unit.
        let mut units = self.0.iter().filter(|_| amount > 0);
        match units.rfind(|(_, unit)| amount.is_multiple_of(*unit)) {
            Some((name, unit)) => format!("{}{name}", amount / unit),
            None => amount.to_string(),
        }
    }
}

/// The digits that a text begins with, and the rest.
pub(in crate::config) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}
