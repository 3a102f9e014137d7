//! What two configurations differ in, for the audit log.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::error::bounded;
use super::reader::Around;
use super::table::Settings;
use super::text::Text;
use super::{Config, Pool};

/// The settings that differ between two configurations, by their paths, such as
/// `pools[web].check`: their values before, and their values since. What is not there has null. Of
/// very many the first ones are named, and `more` has the number of the others.
#[must_use]
pub(crate) fn differences(old: &Config, new: &Config) -> (Json, Json) {
    let mut found = Found::default();
    let around = [old, new].map(Config::around);
    found.settings("", [old, new], &around);
    let listeners = [old, new].map(|config| by_name(&config.listeners, |its| &its.name));
    found.items("listeners", &listeners, &around, |found, at, both| {
        found.settings(at, both, &around);
    });
    let access = [old, new].map(|config| {
        let lists = config.access_lists.iter().map(|list| &**list);
        by_name(lists, |its| &its.name)
    });
    found.items("access_lists", &access, &around, |found, at, both| {
        found.settings(at, both, &around);
    });
    let pools = [old, new].map(|config| {
        let pools = config.pools.iter().map(|pool| &**pool);
        by_name(pools, |its| &its.name)
    });
    found.items("pools", &pools, &around, |found, at, both: [&Pool; 2]| {
        found.settings(at, both, &around);
        let backends = both.map(|pool| by_name(&pool.backends, |its| &its.name));
        let at = format!("{at}.backends");
        found.items(&at, &backends, &around, |found, at, both| {
            found.settings(at, both, &around);
        });
    });
    found.end()
}

/// Items in their order, and the place of each by its name.
struct ByName<'a, T> {
    items: Vec<(&'a str, &'a T)>,
    places: HashMap<&'a str, usize>,
}

fn by_name<'a, T>(
    items: impl IntoIterator<Item = &'a T>,
    name: fn(&T) -> &String,
) -> ByName<'a, T> {
    let items: Vec<_> = items.into_iter().map(|one| (&**name(one), one)).collect();
    let places = items.iter().enumerate().map(|(i, (name, _))| (*name, i));
    ByName {
        places: places.collect(),
        items,
    }
}

impl<'a, T> ByName<'a, T> {
    fn get(&self, name: &str) -> Option<&'a T> {
        self.places.get(name).map(|at| self.items[*at].1)
    }
}

#[derive(Default)]
struct Found {
    old: Map<String, Json>,
    new: Map<String, Json>,
    more: usize,
}

impl Found {
    /// Settings of a group, but for the lists that are compared by names.
    fn settings<T: Settings>(&mut self, at: &str, [old, new]: [&T; 2], around: &[Around; 2]) {
        let rows = T::table().iter().filter(|row| !LISTS.contains(&row.name));
        for setting in rows {
            // A pool is an index, which another order of the pools changes.
            if setting.name != "pool" && setting.row.is_same(old, new) {
                continue;
            }
            if self.is_full() && setting.name != "pool" {
                self.more += 1;
                continue;
            }
            let old = value(&setting.row.text(old, &around[0]));
            let new = value(&setting.row.text(new, &around[1]));
            if old != new {
                let path = match at {
                    "" => setting.name.to_owned(),
                    at => format!("{at}.{}", setting.name),
                };
                self.add(path, old, new);
            }
        }
    }

    /// Items of a list by their names: those that are gone, those that are new, and in `each` those
    /// of both.
    fn items<'a, T: Settings>(
        &mut self,
        list: &str,
        [old, new]: &[ByName<'a, T>; 2],
        around: &[Around; 2],
        mut each: impl FnMut(&mut Self, &str, [&'a T; 2]),
    ) {
        for (name, item) in &new.items {
            let at = format!("{list}[{name}]");
            match old.get(name) {
                Some(before) if before == *item && list != "listeners" => {}
                Some(before) => each(self, &at, [before, item]),
                None if self.is_full() => self.more += 1,
                None => self.add(at, Json::Null, essence(*item, &around[1])),
            }
        }
        for (name, item) in &old.items {
            if self.is_full() && new.get(name).is_none() {
                self.more += 1;
            } else if new.get(name).is_none() {
                self.add(
                    format!("{list}[{name}]"),
                    essence(*item, &around[0]),
                    Json::Null,
                );
            }
        }
    }

    /// What else differs is only counted: values take long to write.
    fn is_full(&self) -> bool {
        self.old.len() >= NAMED_MAX
    }

    fn add(&mut self, path: String, old: Json, new: Json) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        self.old.insert(path.clone(), old);
        self.new.insert(path, new);
    }

    fn end(mut self) -> (Json, Json) {
        if self.more > 0 {
            self.new.insert("more".to_owned(), self.more.into());
        }
        (self.old.into(), self.new.into())
    }
}

/// The value of a setting, without the middle of a very long one.
pub(super) fn value(text: &Text) -> Json {
    let json = text.json();
    match json.to_string() {
        long if long.len() > VALUE_BYTES_MAX => bounded(long).into(),
        _ => json,
    }
}

/// An item by the first of the settings that it must have: an address, or its name.
fn essence<T: Settings>(item: &T, around: &Around) -> Json {
    let required = T::table().iter().find(|row| row.row.facts().is_required);
    required.map_or(Json::Null, |setting| value(&setting.row.text(item, around)))
}

/// The settings that are lists of named groups.
pub(super) const LISTS: [&str; 5] = ["listeners", "access_lists", "pools", "backends", "reserve"];
/// Settings that are named.
const NAMED_MAX: usize = 50;
/// A longer value is cut.
const VALUE_BYTES_MAX: usize = 400;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(text: &str) -> Config {
        crate::config::parse(String::new(), text.into()).unwrap().0
    }

    #[test]
    fn what_differs_is_named() {
        let old = config(
            "(workers: 1, listeners: [
                (name: \"a\", bind: \"127.0.0.1:1\", pool: \"p\"),
                (name: \"b\", bind: \"127.0.0.1:2\", pool: \"p\"),
            ], pools: [(name: \"p\", backends: [\"127.0.0.1:3\", \"127.0.0.1:4\"])])",
        );
        let new = config(
            "(listeners: [
                (name: \"a\", bind: \"127.0.0.1:1\", pool: \"p\", max_connections: 5),
                (name: \"c\", bind: \"127.0.0.1:2\", pool: \"q\"),
            ], pools: [
                (name: \"q\", backends: [\"127.0.0.1:3\"]),
                (name: \"p\", check: \"tcp\", backends: [
                    (address: \"127.0.0.1:3\", weight: 2), \"127.0.0.1:5\",
                ]),
            ])",
        );
        let want_old = json!({
            "workers": 1,
            "listeners[a].max_connections": "off",
            "listeners[c]": null,
            "listeners[b]": "127.0.0.1:2",
            "pools[q]": null,
            "pools[p].check": "off",
            "pools[p].backends[127.0.0.1:3].weight": 1,
            "pools[p].backends[127.0.0.1:5]": null,
            "pools[p].backends[127.0.0.1:4]": "127.0.0.1:4",
        });
        let want_new = json!({
            "workers": "auto",
            "listeners[a].max_connections": 5,
            "listeners[c]": "127.0.0.1:2",
            "listeners[b]": null,
            "pools[q]": "q",
            "pools[p].check": "tcp",
            "pools[p].backends[127.0.0.1:3].weight": 2,
            "pools[p].backends[127.0.0.1:5]": "127.0.0.1:5",
            "pools[p].backends[127.0.0.1:4]": null,
        });
        assert_eq!(differences(&old, &new), (want_old, want_new));
        let none = (json!({}), json!({}));
        assert_eq!(differences(&new, &new.clone()), none);
    }

    #[test]
    fn of_many_differences_the_first_are_named() {
        let with = |weight: u32| {
            let backends =
                (1..=200).map(|i| format!("(address: \"127.0.0.1:{i}\", weight: {weight}),"));
            config(&format!(
                "(listeners: [(bind: \"127.0.0.1:1000\", pool: \"p\")],
                  pools: [(name: \"p\", backends: [{}])])",
                backends.collect::<String>()
            ))
        };
        let (old, new) = differences(&with(1), &with(2));
        assert_eq!((&new["more"], old["more"].is_null()), (&json!(150), true));
        assert_eq!(old.as_object().unwrap().len(), 50);
    }
}
