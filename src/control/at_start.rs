//! Settings that take effect only at a start: what is in force, whatever the file says since.

use crate::admin::model::ConfigText;
use crate::config::{self, Config};

use super::declared::Declared;

/// Those settings, as they were at the start. The others have no meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AtStart(Config);

impl AtStart {
    pub(super) fn of(config: &Config) -> Self {
        let mut at_start = Config::of(Vec::new(), Vec::new());
        at_start.take_waiting(config);
        Self(at_start)
    }

    /// Which settings of a configuration take effect at the next start only, a sentence each.
    pub(super) fn pending(&self, config: &Config) -> Vec<String> {
        let differing = self.0.waiting_changes(config);
        differing
            .map(|setting| format!("{setting} takes effect at the next start"))
            .collect()
    }

    /// The configuration in force: as a file, and each setting with its source. `complete` is what
    /// is declared with what is discovered.
    pub(super) fn text(&self, declared: &Declared, complete: &Config) -> ConfigText {
        let in_force = |config: &Config| {
            let mut config = config.clone();
            config.take_waiting(&self.0);
            config
        };
        let [file, changed, complete] =
            [declared.file(), declared.config(), complete].map(in_force);
        let (settings, more) = config::effective_settings([&file, &changed, &complete]);
        ConfigText {
            ron: declared.comments() + &self.to_ron(declared.config()),
            file: self.to_ron(declared.file()),
            settings,
            more,
        }
    }

    /// The configuration in force as the text of a file. Comments at its start name the settings
    /// that take effect at the next start.
    pub(super) fn to_ron(&self, config: &Config) -> String {
        let mut in_force = config.clone();
        in_force.take_waiting(&self.0);
        let pending = self.0.waiting_changes(config).map(|setting| {
            format!("// {setting} differs in the file: it takes effect at the next start.\n")
        });
        pending.collect::<String>() + &in_force.to_ron()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "// memory differs in the file: it takes effect at the next start.\n{}",
            in_force.to_ron()
        );
        assert_eq!(at_start.to_ron(&next), want);
    }
}
