//! Known names, and suggestions for unknown ones.

use std::mem::discriminant;

use super::{NAME_CHARS_MAX, ValueError};

/// The value of a name; `kind` is the kind of thing that is named.
pub fn named<T: Clone>(
    kind: &'static str,
    name: &str,
    all: &[(&'static str, T)],
) -> Result<T, ValueError> {
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        ValueError::Unknown {
            kind,
            name: name.to_owned(),
            hint: hint(name, &names),
        }
    })
}

/// The name of a value whose settings may be others.
pub(in crate::config) fn name_of_kind<T>(all: &[(&'static str, T)], value: &T) -> &'static str {
    let found = all
        .iter()
        .find(|(_, known)| discriminant(known) == discriminant(value));
    found.map_or("", |(name, _)| name)
}

/// The end of a sentence that says what an unknown name may have meant.
pub(super) fn hint(name: &str, known: &[&str]) -> String {
    let near = did_you_mean(name, known.iter().copied());
    if near.is_empty() {
        format!(": expected {}", one_of(known))
    } else {
        near
    }
}

/// `` `a`, `b` or `c` ``.
pub(in crate::config) fn one_of(names: &[&str]) -> String {
    listed(names, "or")
}

pub(super) fn listed(names: &[&str], last_by: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    joined(&quoted, last_by)
}

/// `a, b or c`, if the last is joined by `or`.
pub(in crate::config) fn joined(items: &[String], last_by: &str) -> String {
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} {last_by} {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

/// `` , did you mean `near`? `` when one of the candidates is near, else nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    // One slip in three letters is a slip; more is another word.
    let slips_max = 1.max(word.chars().count() / 3);
    nearest(word, candidates, slips_max)
        .map(|candidate| format!(", did you mean `{candidate}`?"))
        .unwrap_or_default()
}

/// The candidate with the fewest slips, and no more than these. Of thousands it compares the first
/// ones that may be near: the API asks with any name among all backends.
pub(in crate::config) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
    slips_max: usize,
) -> Option<&'a str> {
    let length = |text: &str| text.chars().count();
    // The distance takes time and memory by the product of the lengths.
    let comparable = |text: &str| text.len() <= 4 * NAME_CHARS_MAX;
    let near: Vec<_> = candidates
        .filter(|candidate| !word.is_empty() && comparable(word) && comparable(candidate))
        .filter(|candidate| length(candidate).abs_diff(length(word)) <= slips_max)
        .take(COMPARED_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .collect();
    let (slips, first) = near.iter().min_by_key(|(slips, _)| *slips)?;
    // Of `v1` and `v2` neither is nearer to `v3`.
    let ties = near.iter().filter(|(other, _)| other == slips).count();
    (ties == 1 || length(word) > UNCLEAR_CHARS_MAX).then_some(first)
}

/// The end of a sentence about an unknown name: what may have been meant, or which names there are.
pub(crate) fn known<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let near = did_you_mean(name, names.iter().copied());
    let shown = &names[..names.len().min(KNOWN_SHOWN)];
    match names.len() - shown.len() {
        _ if !near.is_empty() => near,
        0 if shown.is_empty() => String::new(),
        0 => format!(": expected {}", one_of(shown)),
        more => {
            let shown: Vec<_> = shown.iter().map(|name| format!("`{name}`")).collect();
            format!(": expected {} or one of {more} more", shown.join(", "))
        }
    }
}

/// Characters of a word that says nothing of what was meant where several names are as near.
const UNCLEAR_CHARS_MAX: usize = 2;
/// Names that are compared with an unknown one: some milliseconds.
const COMPARED_MAX: usize = 500;
/// Names that an error lists; beyond them only their number is shown.
const KNOWN_SHOWN: usize = 8;
