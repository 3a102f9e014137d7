//! The rules of access lists, and of who may read metrics.

use super::{Finding, RENAME, unique};
use crate::config::{AccessList, Config};

/// The rules that access lists break.
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
            found.push(Finding::at(format!("{at}.{setting}"), sentence));
        }
        if let Some(sentence) = without_others(list) {
            let needs = format!("{at}.allow|{at}.deny|{at}.file");
            found.push(Finding::at(format!("{at}.others"), sentence).needing(needs));
        }
        let prefixes = prefixes.iter().map(|(at, prefix)| (at.clone(), &**prefix));
        unique(("listed twice:", ": leave one out"), prefixes, found);
    }
    let trusted = config.trusted.len();
    if trusted > PREFIXES_MAX {
        let sentence = format!("{trusted} prefixes are too many: at most {PREFIXES_MAX}");
        found.push(Finding::at("trusted", sentence));
    }
}

/// The rules that a listener for metrics breaks.
pub(super) fn of_metrics(config: &Config, found: &mut Vec<Finding>) {
    let Some(metrics) = &config.metrics else {
        return;
    };
    if !metrics.is_local() && metrics.allow.is_empty() && metrics.read_token.is_none() {
        let sentence = "metrics: other machines can reach this address: give `allow`, the \
                        prefixes of those that may read, or the file of a `read_token`";
        let settings = Finding::at("metrics.bind|metrics", sentence);
        found.push(settings.needing("metrics.allow|metrics.read_token"));
    }
    let count = metrics.allow.len();
    if count > PREFIXES_MAX {
        let sentence = format!("{count} prefixes are too many: at most {PREFIXES_MAX}");
        found.push(Finding::at("metrics.allow", sentence));
    }
    let prefixes = metrics.allow.iter().map(ToString::to_string);
    let prefixes: Vec<_> = prefixes.collect();
    let prefixes = prefixes.iter().enumerate();
    let prefixes = prefixes.map(|(i, prefix)| (format!("metrics.allow[{i}]"), &**prefix));
    unique(("listed twice:", ": leave one out"), prefixes, found);
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

/// Prefixes that the configuration itself may have in one list, in `trusted`, in `metrics` or in
/// `accept_proxy`.
pub(super) const PREFIXES_MAX: usize = 10_000;
