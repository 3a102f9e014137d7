//! The value of each setting in force, and where it comes from.

use std::borrow::Borrow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::difference::{LISTS, value};
use super::reader::Around;
use super::table::Settings;
use super::{AccessList, Backend, Config, Listener, Pool};
use crate::by_name::ByName;
use crate::shared::Shared;

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EffectiveSetting {
    /// Where it stands, such as `pools[web].check`.
    pub path: String,
    /// Its value as a file has it; null where that is nothing. Of a very long one the middle is
    /// left out.
    pub value: Json,
    /// Where it comes from.
    pub from: SettingSource,
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// Nothing sets it.
    Default,
    /// The file, or the flags where there is none.
    File,
    /// A command, or a change by the API, since the file was read.
    Command,
    /// What was discovered for its pool.
    Discovery,
}

/// The settings of a configuration in force, of each group in the order of its table, and how many
/// more there are beyond [`NAMED_MAX`]. `file` is what was read, `declared` that with the changes
/// since, `in_force` has what was discovered too.
#[must_use]
pub(crate) fn effective_settings(
    [file, declared, in_force]: [&Config; 3],
) -> (Vec<EffectiveSetting>, usize) {
    let around = in_force.around();
    let mut walk = Walk {
        around: &around,
        found: Vec::new(),
        more: 0,
    };
    let base = Config::base();
    walk.settings("", in_force, (&base, Some(file)), SettingSource::Command);
    let listeners = [file, declared, in_force].map(|config| &*config.listeners);
    walk.items("listeners", listeners, |its: &Listener| &its.name);
    let access = [file, declared, in_force].map(|config| &*config.access_lists);
    walk.items::<AccessList, _>("access_lists", access, |its: &Shared<AccessList>| &its.name);
    let pools = [file, declared, in_force].map(|config| &*config.pools);
    walk.items::<Pool, _>("pools", pools, |its: &Shared<Pool>| &its.name);
    let by_name = |config: usize| ByName::new(pools[config], |its: &Shared<Pool>| &its.name);
    let (in_file, declared) = (by_name(0), by_name(1));
    for (place, pool) in in_force.pools.iter().enumerate() {
        let found = [
            in_file.get(place, &pool.name),
            declared.get(place, &pool.name),
        ];
        let [in_file, declared] = found.map(|pool| pool.map_or(&[][..], |pool| &*pool.backends));
        let backends = [in_file, declared, &*pool.backends];
        let list = format!("pools[{}].backends", pool.name);
        walk.items(&list, backends, |its: &Backend| &its.name);
    }
    (walk.found, walk.more)
}

struct Walk<'a> {
    around: &'a Around,
    found: Vec<EffectiveSetting>,
    more: usize,
}

impl Walk<'_> {
    /// Settings of a group, but for the lists that are walked by names. What neither its default
    /// nor the file has comes from `other`.
    fn settings<T: Settings>(
        &mut self,
        at: &str,
        group: &T,
        (default, file): (&T, Option<&T>),
        other: SettingSource,
    ) {
        let implied = group.implied(default);
        for setting in T::table() {
            if LISTS.contains(&setting.name) {
                continue;
            }
            if self.found.len() >= NAMED_MAX {
                self.more += 1;
                continue;
            }
            let row = &setting.row;
            let given = row.write(group, &implied, self.around);
            let from = match file {
                Some(file) if !row.is_same(file, group) => other,
                None if given.is_some() => other,
                _ if given.is_some() => SettingSource::File,
                _ => SettingSource::Default,
            };
            let text = given.unwrap_or_else(|| row.text(group, self.around));
            let value = text.shown().map_or(Json::Null, |_| value(&text));
            let path = match at {
                "" => setting.name.to_owned(),
                at => format!("{at}.{}", setting.name),
            };
            self.found.push(EffectiveSetting { path, value, from });
        }
    }

    /// The items of a list: of the file, declared, and in force.
    fn items<T: Settings, I: Borrow<T>>(
        &mut self,
        list: &str,
        [file, declared, in_force]: [&[I]; 3],
        name: fn(&I) -> &str,
    ) {
        let (in_file, declared) = (ByName::new(file, name), ByName::new(declared, name));
        let default = T::within(T::base(), self.around);
        for (place, item) in in_force.iter().enumerate() {
            let name = name(item);
            let before = in_file.get(place, name).map(Borrow::borrow);
            let other = match declared.get(place, name) {
                Some(_) => SettingSource::Command,
                None => SettingSource::Discovery,
            };
            let at = format!("{list}[{name}]");
            self.settings(&at, item.borrow(), (&default, before), other);
        }
    }
}

/// Settings that are named: 200 backends have some 4,000.
const NAMED_MAX: usize = 50_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(weight: u32, backends: &str) -> Config {
        let text = format!(
            "(
                workers: 2,
                listeners: [(name: \"in\", bind: \"127.0.0.1:1\", pool: \"web\")],
                pools: [(name: \"web\", backends: [
                    (address: \"127.0.0.1:2\", weight: {weight}), {backends}
                ])],
            )"
        );
        crate::config::parse(String::new(), text.into()).unwrap().0
    }

    #[test]
    fn each_value_has_its_source() {
        let file = config(1, "");
        let declared = config(5, "(name: \"new\", address: \"127.0.0.1:3\")");
        let found = "(name: \"new\", address: \"127.0.0.1:3\"), \"127.0.0.1:4\"";
        let in_force = config(5, found);
        let (settings, more) = effective_settings([&file, &declared, &in_force]);
        assert_eq!(more, 0);
        let of = |path: &str| {
            let found = settings.iter().find(|setting| setting.path == path);
            let found = found.unwrap_or_else(|| panic!("no {path}"));
            (found.value.clone(), found.from)
        };
        assert_eq!(of("workers"), (json!(2), SettingSource::File));
        assert_eq!(of("memory"), (json!("auto"), SettingSource::Default));
        assert_eq!(of("listeners[in].bind").1, SettingSource::File);
        assert_eq!(of("listeners[in].attempts").1, SettingSource::Default);
        assert_eq!(of("pools[web].check").1, SettingSource::Default);
        let at = |name: &str, setting: &str| of(&format!("pools[web].backends[{name}].{setting}"));
        assert_eq!(
            at("127.0.0.1:2", "weight"),
            (json!(5), SettingSource::Command)
        );
        assert_eq!(at("127.0.0.1:2", "address").1, SettingSource::File);
        assert_eq!(at("new", "address").1, SettingSource::Command);
        assert_eq!(at("new", "weight"), (json!(1), SettingSource::Default));
        assert_eq!(at("127.0.0.1:4", "address").1, SettingSource::Discovery);
        let lists = ["listeners", "pools", "access_lists", "pools[web].backends"];
        assert!(
            settings
                .iter()
                .all(|setting| !lists.contains(&&*setting.path))
        );
        // A command may have put back what the file changes.
        let (settings, _) = effective_settings([&declared, &file, &file]);
        let weight = settings
            .iter()
            .find(|one| one.path.ends_with("127.0.0.1:2].weight"));
        assert_eq!(weight.unwrap().from, SettingSource::Command);
    }
}
