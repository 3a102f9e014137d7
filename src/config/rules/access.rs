//! The rules of access lists, and of the listeners that name them.

use std::collections::HashSet;

use super::{Finding, RENAME, unique};
use crate::address::Address;
use crate::config::error::SHOWN_MAX;
use crate::config::values::known;
use crate::config::{AccessList, Config, Listener};

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
        if let Some(sentence) = too_many_prefixes(list) {
            let setting = both[usize::from(list.allow.len() < list.deny.len())].0;
            found.push(Finding::start(format!("{at}.{setting}"), sentence));
        }
        if let Some(sentence) = without_others(list) {
            let needs = format!("{at}.allow|{at}.deny|{at}.file");
            found.push(Finding::at(format!("{at}.others"), sentence).needing(needs));
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
        let at = format!("listeners[{i}].access_list");
        match fault(listener, &names) {
            Some(Fault::Unix) => {
                found.push(Finding::at(at, UNIX).needing(format!("listeners[{i}].bind")));
            }
            Some(Fault::Unknown(name)) => {
                // No more than these are shown, and each hint compares with each list.
                let is_shown = found.len() - before < SHOWN_MAX;
                let sentence = unknown(name, lists.clone().filter(|_| is_shown));
                found.push(Finding::at(at, sentence).needing("access_lists"));
            }
            None => {}
        }
    }
}

/// The rule that the access list of a listener breaks, by the listener's index.
pub(in crate::config) fn access_list_of_listener(config: &Config, at: usize) -> Option<String> {
    let lists = config.access_lists.iter().map(|list| &*list.name);
    match fault(&config.listeners[at], &lists.clone().collect())? {
        Fault::Unix => Some(UNIX.to_owned()),
        Fault::Unknown(name) => Some(unknown(name, lists)),
    }
}

/// The rule that an access list of too many prefixes breaks.
pub(in crate::config) fn too_many_prefixes(list: &AccessList) -> Option<String> {
    let count = list.allow.len() + list.deny.len();
    let sentence =
        || format!("{count} prefixes are too many: at most {PREFIXES_MAX}; put them into a `file`");
    (count > PREFIXES_MAX).then(sentence)
}

/// The rule that a list breaks which does not say what holds for all others.
fn without_others(list: &AccessList) -> Option<String> {
    let why = match (&list.file, list.allow.is_empty()) {
        _ if list.others.is_some() => return None,
        (Some(_), _) => "has a file",
        (None, true) => "has no prefix",
        (None, false) => "allows and denies",
    };
    Some(format!(
        "the access list `{}` {why}: write others: \"deny\" to let in only clients that it allows, \
         or others: \"allow\" to refuse only clients that it denies",
        list.name
    ))
}

/// What is wrong with the access list of a listener.
enum Fault<'a> {
    /// It listens on a Unix socket.
    Unix,
    /// There is no list of this name.
    Unknown(&'a str),
}

fn fault<'a>(listener: &'a Listener, lists: &HashSet<&str>) -> Option<Fault<'a>> {
    let name = listener.access_list.as_ref()?;
    if let Address::Unix(_) = listener.bind {
        return Some(Fault::Unix);
    }
    (!lists.contains(&**name)).then_some(Fault::Unknown(name))
}

fn unknown<'a>(name: &str, lists: impl Iterator<Item = &'a str>) -> String {
    let hint = known(name, lists);
    format!("access_list: there is no access list called `{name}`{hint}")
}

const UNIX: &str = "access_list: clients of a Unix socket have no address: leave it out";
/// Prefixes that the configuration itself may have in one list.
const PREFIXES_MAX: usize = 10_000;
