//! Settings that take effect only at a start: what is in force, whatever the file says since.

use std::num::NonZeroU32;

use crate::config::{Admin, Config};

/// Those settings, as they were at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AtStart {
    workers: Option<NonZeroU32>,
    memory: Option<u64>,
    source_table: u64,
    user: Option<String>,
    admin: Option<Admin>,
}

impl AtStart {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            workers: config.workers,
            memory: config.memory,
            source_table: config.source_table,
            user: config.user.clone(),
            admin: config.admin.clone(),
        }
    }

    /// Which settings of a configuration take effect at the next start only, a sentence each.
    pub(super) fn pending(&self, config: &Config) -> Vec<String> {
        let settings = [
            ("workers", self.workers != config.workers),
            ("memory", self.memory != config.memory),
            ("source_table", self.source_table != config.source_table),
            ("user", self.user != config.user),
            ("admin", self.admin != config.admin),
        ];
        let differ = settings.into_iter().filter(|(_, differs)| *differs);
        differ
            .map(|(setting, _)| format!("{setting} takes effect at the next start"))
            .collect()
    }

    /// The configuration in force as the text of a file. Comments at its start name the settings
    /// that take effect at the next start.
    pub(super) fn to_ron(&self, config: &Config) -> String {
        let in_force = Config {
            workers: self.workers,
            memory: self.memory,
            source_table: self.source_table,
            user: self.user.clone(),
            admin: self.admin.clone(),
            ..config.clone()
        };
        let pending = self.pending(config).into_iter();
        let pending = pending.map(|one| format!("// The file says something else: {one}.\n"));
        pending.collect::<String>() + &in_force.to_ron()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::waits_for_a_start;

    #[test]
    fn what_takes_a_start_is_what_the_reference_says() {
        let config = Config::of(Vec::new(), Vec::new());
        let other = Config {
            workers: NonZeroU32::new(3),
            memory: Some(64 << 20),
            source_table: 8 << 20,
            user: Some("balancer".to_owned()),
            admin: Some(Admin::default()),
            ..config.clone()
        };
        let pending = AtStart::of(&config).pending(&other);
        let names: Vec<_> = pending
            .iter()
            .filter_map(|sentence| sentence.split(' ').next())
            .collect();
        let reference = waits_for_a_start().replace(" and ", ", ");
        assert_eq!(names.join(", "), reference);
    }

    #[test]
    fn the_text_has_what_is_in_force_and_names_what_takes_a_start() {
        let config = Config::of(Vec::new(), Vec::new());
        let at_start = AtStart::of(&config);
        assert_eq!(at_start.to_ron(&config), config.to_ron());
        let next = Config {
            memory: Some(64 << 20),
            reload_on_change: true,
            ..config.clone()
        };
        let pending = "memory takes effect at the next start";
        assert_eq!(at_start.pending(&next), [pending]);
        let in_force = Config {
            reload_on_change: true,
            ..config
        };
        let want = format!(
            "// The file says something else: {pending}.\n{}",
            in_force.to_ron()
        );
        assert_eq!(at_start.to_ron(&next), want);
    }
}
