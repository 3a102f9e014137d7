//! Reads the settings of a tree, and collects their mistakes.

use std::fmt::Display;

use super::error::{Mistake, SHOWN_MAX, cap};
use super::foreign;
use super::rules::Finding;
use super::source::Source;
use super::syntax;
use super::table::{self, Defaults, Settings};
use super::tokens::Span;
use super::tree::{Kind, Value};
use super::values::{ValueError, did_you_mean, nearest, one_of};

/// A value to read, and its name in messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    /// The name of its field.
    pub(super) name: &'a str,
    /// As it was written.
    pub(super) written: &'a str,
    /// It is an item of the list of that name.
    pub(super) is_item: bool,
}

impl<'a> At<'a> {
    /// The value, when it is a string.
    pub(super) fn text(&self) -> Option<&'a str> {
        if let Kind::Text(text) = &self.value.kind {
            Some(text)
        } else {
            None
        }
    }

    /// Whether it is this word, or a group in which that setting is.
    pub(super) fn says(&self, setting: &str, word: &str) -> bool {
        let value = self.value.field(setting).unwrap_or(self.value);
        matches!(&value.kind, Kind::Text(text) if text == word)
    }

    pub(super) fn is_group(&self) -> bool {
        matches!(self.value.kind, Kind::Group(_))
    }

    /// How to write the value, when it is a word without quotes.
    pub(super) fn unquoted(&self) -> Option<String> {
        let is_word = self.value.kind == Kind::Other && syntax::is_name(self.written);
        is_word.then(|| syntax::quotes(self.written))
    }
}

/// Context that the reading of a setting needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Around {
    /// Defaults for settings that listeners leave out.
    pub(super) defaults: Defaults,
    /// The names of the pools, in order.
    pub(super) pools: Vec<String>,
    /// A pool that is not there gets a place behind them: others know which there are.
    pub(super) adds_pools: bool,
}

/// The mistakes found so far.
pub(super) struct Reader<'a> {
    source: &'a Source,
    pub(super) around: Around,
    mistakes: Vec<(Span, String)>,
    /// Names or brackets are wrong, so that what seems to be missing may only be misplaced.
    is_misshapen: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source, around: Around) -> Self {
        Self {
            source,
            around,
            mistakes: Vec::new(),
            is_misshapen: false,
        }
    }

    /// A value of the text.
    pub(super) fn at(&self, value: &'a Value, name: &'a str) -> At<'a> {
        At {
            value,
            name,
            written: &self.source.text()[value.span.clone()],
            is_item: false,
        }
    }

    pub(super) fn mistake(&mut self, span: &Span, sentence: String) {
        self.mistakes.push((span.clone(), sentence));
    }

    /// A mistake in a setting of a group, if it is given there.
    pub(super) fn wrong(&mut self, group: At<'_>, setting: &str, sentence: impl Display) {
        if let Some(value) = group.value.field(setting) {
            self.mistake(&value.span, format!("{setting}: {sentence}"));
        }
    }

    /// Brackets, or the name of a field, are wrong.
    pub(super) fn misshapen(&mut self, span: &Span, sentence: String) {
        self.is_misshapen = true;
        self.mistake(span, sentence);
    }

    pub(super) fn is_misshapen(&self) -> bool {
        self.is_misshapen
    }

    /// Begins the mistakes within items of a list with what the item is, and its number from 1 on.
    pub(super) fn number_items(&mut self, list: &Value, what: &str) {
        let items = list.items();
        for (span, sentence) in &mut self.mistakes {
            let at = items.partition_point(|item| item.span.end <= span.start);
            if items
                .get(at)
                .is_some_and(|item| item.span.start <= span.start)
            {
                *sentence = format!("{what} {}: {sentence}", at + 1);
            }
        }
    }

    /// Whether hints for further mistakes are worth the search for them.
    pub(super) fn gives_hints(&self) -> bool {
        self.mistakes.len() < SHOWN_MAX
    }

    /// Adds the rules that are broken, unless a mistake in the same settings was found.
    pub(super) fn add_findings(&mut self, found: Vec<Finding>) {
        let source = self.source;
        self.sort();
        let new = found.into_iter();
        let new = new.filter(|one| !one.is_known(source, |span| self.is_refused(span)));
        let mut new: Vec<_> = new.map(|one| (one.span(source), one)).collect();
        new.sort_by_key(|(span, _)| span.start);
        let new = new.into_iter().enumerate().map(|(i, (span, one))| {
            // No more than these are shown, and a place in a long line takes time.
            let is_shown = i < SHOWN_MAX;
            let sentence = if is_shown {
                one.whole_sentence(source)
            } else {
                one.sentence
            };
            (span, sentence)
        });
        self.mistakes.extend(new);
    }

    /// Whether a mistake in this value was found. The mistakes are sorted, as there may be as many
    /// of them as of values to ask about.
    fn is_refused(&self, span: &Span) -> bool {
        let first = self
            .mistakes
            .partition_point(|(at, _)| at.start < span.start);
        let within = self.mistakes[first..].iter();
        let mut within = within.take_while(|(at, _)| at.start < span.end);
        within.any(|(at, _)| at.end <= span.end)
    }

    fn sort(&mut self) {
        self.mistakes.sort_by_key(|(span, _)| span.start);
    }

    /// The value, or the mistake if it is invalid.
    pub(super) fn take<T>(&mut self, at: At<'_>, read: Result<T, ValueError>) -> Option<T> {
        read.inspect_err(|error| {
            self.mistake(&at.value.span, error.about_setting(at));
        })
        .ok()
    }

    /// The mistake that the value is neither a group nor a string that stands for one.
    pub(super) fn unexpected<T>(&mut self, at: At<'_>, expected: &str) -> Option<T> {
        let error = match at.unquoted() {
            Some(sentence) => ValueError::Refused(sentence),
            None => ValueError::Unexpected(expected.to_owned()),
        };
        self.take(at, Err(error))
    }

    /// Reads a group, or the bare value that stands for it.
    pub(super) fn group<T: Settings>(&mut self, at: At<'a>, default: &T) -> Option<T> {
        if at.is_group() {
            let names: Vec<_> = T::table().iter().map(|setting| setting.name).collect();
            self.known(at.value, &names);
            return Some(self.fields(at, default));
        }
        let Some(short) = T::SHORT else {
            let sentence = format!("{}, such as {}", syntax::GROUP, table::example::<T>());
            self.misshapen(&at.value.span, sentence);
            return None;
        };
        let mut group = default.clone();
        let name = if at.is_item { short } else { at.name };
        let at = At {
            name,
            is_item: false,
            ..at
        };
        for setting in T::table().iter().filter(|setting| setting.name == short) {
            setting.row.read(at, self, &mut group);
        }
        let group = implied(group, default, |name| name == short);
        group.check(at, self);
        Some(group)
    }

    /// Refuses fields of other names, and a second one of a name.
    pub(super) fn known(&mut self, group: &Value, names: &[&str]) {
        for (i, field) in group.fields().iter().enumerate() {
            let (name, span) = (&*field.name, &field.name_span);
            if !names.contains(&name) {
                self.misshapen(span, unknown_field(name, names));
            } else if group.fields()[..i].iter().any(|one| one.name == name) {
                self.misshapen(span, format!("duplicate field `{name}`: leave one out"));
            }
        }
    }

    /// Reads the fields of a group.
    fn fields<T: Settings>(&mut self, at: At<'a>, default: &T) -> T {
        let mut group = default.clone();
        for setting in T::table() {
            if let Some(value) = at.value.field(setting.name) {
                let field = self.at(value, setting.name);
                setting.row.read(field, self, &mut group);
            } else if setting.row.facts().is_required && !self.is_misshapen {
                let sentence = format!("missing field `{}`", setting.name);
                self.mistake(&at.value.start(), sentence);
            }
        }
        let group = implied(group, default, |name| at.value.field(name).is_some());
        group.check(at, self);
        group
    }

    /// What was read, or the first mistake: the caller names the value.
    pub(super) fn finish<T>(self, read: T) -> Result<T, ValueError> {
        match self.into_mistakes().into_iter().next() {
            None => Ok(read),
            Some(mistake) => Err(mistake.into()),
        }
    }

    /// All mistakes, in source order.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.sort();
        cap(&mut self.mistakes, "mistakes");
        let said = self.mistakes.iter();
        said.map(|(span, sentence)| Mistake::new(self.source, span, sentence))
            .collect()
    }
}

/// Derives settings from those that are given.
fn implied<T: Settings>(mut group: T, default: &T, is_given: impl Fn(&str) -> bool) -> T {
    let implied = group.implied(default);
    let table = T::table().iter();
    for setting in table.filter(|setting| !is_given(setting.name)) {
        setting.row.copy(&mut group, &implied);
    }
    group
}

fn unknown_field(found: &str, expected: &[&str]) -> String {
    let names = || expected.iter().copied();
    // A word of another program is no slip, but for a single letter.
    let is_slip = nearest(found, names(), 1).is_some();
    let foreign = foreign::ours_in_group(found, expected)
        .or_else(|| foreign::unsupported(found))
        .or_else(|| foreign::ours(found).filter(|_| !is_slip));
    let hint = did_you_mean(found, names());
    match foreign {
        Some(ours) => format!("unknown field `{found}`: {ours}"),
        None if !hint.is_empty() => format!("unknown field `{found}`{hint}"),
        None => format!("unknown field `{found}`: expected {}", one_of(expected)),
    }
}
