//! Settings that take effect at a start alone: what is in force, whatever the file says since.

use std::num::NonZeroU32;

use crate::config::{Admin, Config};

/// As they were at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AtStart {
    workers: Option<NonZeroU32>,
    memory: Option<u64>,
    admin: Option<Admin>,
}

impl AtStart {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            workers: config.workers,
            memory: config.memory,
            admin: config.admin.clone(),
        }
    }

    /// What of a configuration waits for the next start, a sentence each.
    pub(super) fn waiting(&self, config: &Config) -> Vec<String> {
        let waits = [
            ("workers", self.workers != config.workers),
            ("memory", self.memory != config.memory),
            ("admin", self.admin != config.admin),
        ];
        let waits = waits.into_iter().filter(|(_, waits)| *waits);
        waits
            .map(|(setting, _)| format!("{setting} takes effect at the next start"))
            .collect()
    }

    /// What is in force, as a file that says first what waits.
    pub(super) fn to_ron(&self, config: &Config) -> String {
        let in_force = Config {
            workers: self.workers,
            memory: self.memory,
            admin: self.admin.clone(),
            ..config.clone()
        };
        let waiting = self.waiting(config).into_iter();
        let waiting = waiting.map(|one| format!("// The file says something else: {one}.\n"));
        waiting.collect::<String>() + &in_force.to_ron()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_in_force_and_says_what_waits() {
        let config = Config::of(Vec::new(), Vec::new());
        let at_start = AtStart::of(&config);
        assert_eq!(at_start.to_ron(&config), config.to_ron());
        let next = Config {
            memory: Some(64 << 20),
            reload_on_change: true,
            ..config.clone()
        };
        let waits = "memory takes effect at the next start";
        assert_eq!(at_start.waiting(&next), [waits]);
        let in_force = Config {
            reload_on_change: true,
            ..config
        };
        let want = format!(
            "// The file says something else: {waits}.\n{}",
            in_force.to_ron()
        );
        assert_eq!(at_start.to_ron(&next), want);
    }
}
