//! Looks things up by name.

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::HashMap;

/// Finds each of many things by its name. Most are found where their namesakes stand in a newer
/// list; the map of all names is made only when one is not.
#[derive(Debug)]
pub struct ByName<'a, T> {
    all: &'a [T],
    name: fn(&T) -> &str,
    map: OnceCell<HashMap<&'a str, &'a T>>,
}

impl<'a, T> ByName<'a, T> {
    /// `name` is the name of one, unique among all.
    #[must_use]
    pub fn new(all: &'a [T], name: fn(&T) -> &str) -> Self {
        Self {
            all,
            name,
            map: OnceCell::new(),
        }
    }

    /// The one of this name, which probably stands at `place`.
    #[must_use]
    pub fn get(&self, place: usize, name: &str) -> Option<&'a T> {
        let guess = self.all.get(place);
        guess.filter(|one| (self.name)(one) == name).or_else(|| {
            let named = || self.all.iter().map(|one| ((self.name)(one), one));
            let map = self.map.get_or_init(|| named().collect());
            map.get(name).copied()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_wherever_it_stands() {
        let all = ["a", "b", "c"];
        let by_name = ByName::new(&all, |name| name);
        assert_eq!(by_name.get(1, "b"), Some(&"b"));
        assert!(by_name.map.get().is_none());
        let found = [(0, "c"), (9, "a"), (1, "d")].map(|(place, name)| by_name.get(place, name));
        assert_eq!(found, [Some(&"c"), Some(&"a"), None]);
    }
}
