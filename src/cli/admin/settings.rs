//! The flags of `mahoraga set`: one for each setting that can change while the balancer runs.

use clap::{Arg, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use crate::config::{Changeable, Patch, changing};

/// New values of settings, at least one.
#[derive(Clone, Debug)]
pub struct SettingFlags<G: Changeable>(pub Patch<G>);

impl<G: Changeable> Args for SettingFlags<G> {
    fn augment_args(command: Command) -> Command {
        let flags = changing::<G>().map(|setting| {
            let (help, _) = setting
                .about
                .split_once(". ")
                .unwrap_or((&setting.about, ""));
            let name = setting.name;
            let flag = Arg::new(name)
                .long(name.replace('_', "-"))
                .value_name(setting.values)
                .help(help.trim_end_matches('.').to_owned())
                .value_parser(move |text: &str| Patch::<G>::of(name, text));
            match name {
                // As a file may have it: `queue: 5`.
                "queue_max" => flag.visible_alias("queue"),
                _ => flag,
            }
        });
        let names = changing::<G>().map(|setting| setting.name);
        let group = ArgGroup::new("settings").args(names);
        let group = group.required(true).multiple(true);
        command.args(flags).group(group)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<G: Changeable> FromArgMatches for SettingFlags<G> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = changing::<G>().filter_map(|its| matches.get_one::<Patch<G>>(its.name));
        let all = given.fold(Patch::default(), |all, one| one.after(&all));
        Ok(Self(all))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let Self(given) = Self::from_arg_matches(matches)?;
        self.0 = given.after(&self.0);
        Ok(())
    }
}
