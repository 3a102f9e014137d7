//! The rules of access lists, and of the listeners that name them.

use std::collections::HashSet;

use super::{Finding, RENAME, unique};
use crate::address::Address;
use crate::config::Config;
use crate::config::error::SHOWN_MAX;
use crate::config::values::known;

/// The rules that access lists and their use break.
pub(super) fn find(config: &Config, found: &mut Vec<Finding>) {
    let lists = &config.access_lists;
    let names = lists.iter().enumerate();
    let names = names.map(|(i, list)| (format!("access_lists[{i}].name"), &*list.name));
    unique(("two access lists are called", RENAME), names, found);
    for (i, list) in lists.iter().enumerate() {
        let at = format!("access_lists[{i}]");
        let both = [("allow", &list.allow), ("deny", &list.deny)];
        let prefixes = both.iter().flat_map(|(setting, prefixes)| {
            let all = prefixes.iter().enumerate();
            let at = &at;
            all.map(move |(i, prefix)| (format!("{at}.{setting}[{i}]"), prefix.to_string()))
        });
        let prefixes: Vec<_> = prefixes.collect();
        if prefixes.len() > PREFIXES_MAX {
            let sentence = format!(
                "{} prefixes are too many: at most {PREFIXES_MAX}; put them into a `file`",
                prefixes.len()
            );
            let setting = both[usize::from(list.allow.len() < list.deny.len())].0;
            found.push(Finding::start(format!("{at}.{setting}"), sentence));
        }
        let prefixes = prefixes.iter().map(|(at, prefix)| (at.clone(), &**prefix));
        unique(("listed twice:", ": leave one out"), prefixes, found);
    }
    listeners(config, found);
}

fn listeners(config: &Config, found: &mut Vec<Finding>) {
    let lists = config.access_lists.iter().map(|list| &*list.name);
    let names: HashSet<_> = lists.clone().collect();
    let before = found.len();
    for (i, listener) in config.listeners.iter().enumerate() {
        let Some(name) = &listener.access_list else {
            continue;
        };
        let at = format!("listeners[{i}].access_list");
        if let Address::Unix(_) = listener.bind {
            let sentence = "access_list: clients of a Unix socket have no address: leave it out";
            found.push(Finding::at(at, sentence).needing(format!("listeners[{i}].bind")));
        } else if !names.contains(&**name) {
            // No more than these are shown, and each hint compares with each list.
            let is_shown = found.len() - before < SHOWN_MAX;
            let hint = known(name, lists.clone().filter(|_| is_shown));
            let sentence = format!("access_list: there is no access list called `{name}`{hint}");
            found.push(Finding::at(at, sentence).needing("access_lists"));
        }
    }
}

/// Prefixes that the configuration itself may have in one list.
const PREFIXES_MAX: usize = 10_000;
