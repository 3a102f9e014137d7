//! Reads single fields and collects what is wrong with them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Mistake;
use super::raw::Scalar;
use super::source::Source;
use super::spans::{Node, Span};
use super::values::{self, Bounds, Ratio, ValueError};

/// A field that holds a single value.
pub(super) struct Leaf<'a> {
    raw: &'a Scalar,
    name: &'static str,
    /// The group that the field is in.
    group: &'a Node,
    /// The value as it was written.
    written: &'a str,
}

impl<'a> Leaf<'a> {
    /// The value, when it is a string.
    fn text(&self) -> Option<&'a str> {
        if let Scalar::Text(text) = self.raw {
            Some(text)
        } else {
            None
        }
    }

    /// What the author calls it: a value that stands for a whole group has the group's name.
    fn called(&self) -> &'a str {
        let label = self.group.label().filter(|_| self.stands_for_group());
        label.unwrap_or(self.name)
    }

    /// The value as it was written.
    pub(super) fn written(&self) -> &'a str {
        self.written
    }

    fn stands_for_group(&self) -> bool {
        self.group.find(self.name).is_none()
    }
}

/// The mistakes found so far.
pub(super) struct Judge<'a> {
    source: &'a Source,
    mistakes: Vec<(Span, String)>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self {
            source,
            mistakes: Vec::new(),
        }
    }

    /// All mistakes, in source order.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|(span, _)| span.start);
        // Each is shown with its line, which may be the whole file.
        if self.mistakes.len() > MISTAKES_MAX {
            let more = self.mistakes.len() - MISTAKES_MAX;
            self.mistakes.truncate(MISTAKES_MAX + 1);
            if let Some((_, sentence)) = self.mistakes.last_mut() {
                *sentence = format!("{more} more mistakes follow from here on");
            }
        }
        let said = self.mistakes.iter();
        said.map(|(span, sentence)| Mistake::new(self.source, span, sentence))
            .collect()
    }

    pub(super) fn mistake(&mut self, span: &Span, sentence: String) {
        self.mistakes.push((span.clone(), sentence));
    }

    /// A field of a group.
    pub(super) fn leaf(&self, raw: &'a Scalar, group: &'a Node, name: &'static str) -> Leaf<'a> {
        let written = &self.source.text()[group.field(name).span.clone()];
        Leaf {
            raw,
            name,
            group,
            written,
        }
    }

    /// The value of a field; none when it is absent or refused.
    pub(super) fn read<T>(
        &mut self,
        leaf: &Leaf<'a>,
        read: impl FnOnce(&Leaf<'a>) -> Result<T, ValueError>,
    ) -> Option<T> {
        if !leaf.raw.is_set() {
            return None;
        }
        match read(leaf) {
            Ok(value) => Some(value),
            Err(error) => {
                let span = &leaf.group.field(leaf.name).span;
                self.mistake(span, format!("{}: {error}", leaf.called()));
                None
            }
        }
    }

    /// As [`Self::read`], of a field that must be there.
    pub(super) fn require<T>(
        &mut self,
        leaf: &Leaf<'a>,
        read: impl FnOnce(&Leaf<'a>) -> Result<T, ValueError>,
    ) -> Option<T> {
        if !leaf.raw.is_set() {
            self.mistake(
                &leaf.group.start(),
                format!("the field `{}` is missing here", leaf.name),
            );
        }
        self.read(leaf, read)
    }

    /// A group that is there; not where `"off"`, or anything else, stands in its place.
    pub(super) fn group_or_off<T>(
        &mut self,
        at: Option<&'a Node>,
        bare: &'a Scalar,
        wanted: &str,
        read: impl FnOnce(&mut Self, &'a Node) -> Option<T>,
    ) -> Option<T> {
        let at = at?;
        if !bare.is_set() {
            return read(self, at);
        }
        let bare = self.leaf(bare, at, "");
        self.read(&bare, |leaf| match leaf.text() {
            Some("off") => Ok(()),
            _ => Err(not(leaf, &format!("\"off\" or a group such as {wanted}"))),
        });
        None
    }

    /// The items of a list that are right; `name` is what each is called.
    pub(super) fn items<T>(
        &mut self,
        (raw, at): (&'a [Scalar], &'a Node),
        name: &'static str,
        read: impl Fn(&Leaf<'a>) -> Result<T, ValueError>,
    ) -> Vec<T> {
        let items = raw.iter().enumerate();
        let leaves: Vec<_> = items
            .map(|(i, raw)| self.leaf(raw, at.item(i), name))
            .collect();
        let read = leaves.iter().filter_map(|leaf| self.read(leaf, &read));
        read.collect()
    }

    /// Refuses what an earlier one has already: `what` says what they share.
    pub(super) fn unique(
        &mut self,
        seen: &mut HashMap<String, Span>,
        (what, shared): (&str, String),
        span: &Span,
    ) {
        if let Some(first) = seen.get(&shared) {
            self.second(format!("{what} `{shared}`"), span, first);
        } else {
            seen.insert(shared, span.clone());
        }
    }

    /// Refuses what does not go together with an earlier one.
    pub(super) fn second(&mut self, sentence: String, span: &Span, first: &Span) {
        let first = self.source.place(first);
        let at = format!("{}:{}", first.line, first.column);
        self.mistake(span, format!("{sentence}: the first is at {at}"));
    }
}

/// A string.
pub(super) fn text<'a>(leaf: &Leaf<'a>) -> Result<&'a str, ValueError> {
    leaf.text()
        .ok_or_else(|| not(leaf, "a string in double quotes"))
}

/// A string; `wanted` is told to who wrote something else in place of a whole group.
pub(super) fn text_or<'a>(leaf: &Leaf<'a>, wanted: &str) -> Result<&'a str, ValueError> {
    match leaf.text() {
        None if leaf.stands_for_group() => Err(not(leaf, wanted)),
        _ => text(leaf),
    }
}

/// The path of a file.
pub(super) fn path(leaf: &Leaf<'_>) -> Result<PathBuf, ValueError> {
    values::file(Path::new(text(leaf)?)).map(Path::to_owned)
}

/// A whole number.
pub(super) fn number(range: RangeInclusive<u32>) -> impl Fn(&Leaf<'_>) -> Result<u32, ValueError> {
    move |leaf| whole(leaf, &range, "a whole number")
}

/// A whole number above 0, or the word that leaves it open.
pub(super) fn number_or(
    word: &str,
    range: RangeInclusive<u32>,
) -> impl Fn(&Leaf<'_>) -> Result<Option<NonZeroU32>, ValueError> {
    move |leaf| {
        if leaf.text() == Some(word) {
            return Ok(None);
        }
        whole(leaf, &range, &format!("a whole number or \"{word}\"")).map(NonZeroU32::new)
    }
}

/// An amount of memory, or `"auto"`.
pub(super) fn memory(leaf: &Leaf<'_>) -> Result<Option<u64>, ValueError> {
    match leaf.text() {
        Some("auto") => Ok(None),
        text => values::memory(text.unwrap_or(leaf.written)).map(Some),
    }
}

/// A duration.
pub(super) fn duration(bounds: Bounds) -> impl Fn(&Leaf<'_>) -> Result<Duration, ValueError> {
    move |leaf| {
        let text = leaf.text().ok_or_else(|| no_duration(leaf))?;
        values::duration(text, bounds)
    }
}

/// A duration or `"off"`.
pub(super) fn duration_or_off(
    bounds: Bounds,
) -> impl Fn(&Leaf<'_>) -> Result<Option<Duration>, ValueError> {
    move |leaf| {
        let text = leaf.text().ok_or_else(|| no_duration(leaf))?;
        values::duration_or_off(text, bounds)
    }
}

/// A ratio in percent, written as a decimal, or `"off"`.
pub(super) fn ratio_or_off(
    ratio: &'static Ratio,
) -> impl Fn(&Leaf<'_>) -> Result<Option<u16>, ValueError> {
    move |leaf| match leaf.text() {
        Some("off") => Ok(None),
        Some(_) => Err(not(leaf, ratio.wanted)),
        None => values::percent(leaf.written, ratio).map(Some),
    }
}

/// A string, of text or of any bytes.
pub(super) fn bytes(leaf: &Leaf<'_>) -> Result<Vec<u8>, ValueError> {
    if let Scalar::Bytes(bytes) = leaf.raw {
        Ok(bytes.clone())
    } else {
        text(leaf).map(|text| text.as_bytes().to_vec())
    }
}

/// A status code, or a range of them in a string.
pub(super) fn status(leaf: &Leaf<'_>) -> Result<RangeInclusive<u16>, ValueError> {
    values::status(leaf.text().unwrap_or(leaf.written))
}

/// `true` or `false`.
pub(super) fn truth(leaf: &Leaf<'_>) -> Result<bool, ValueError> {
    if let Scalar::Truth(truth) = leaf.raw {
        Ok(*truth)
    } else {
        Err(not(leaf, "true or false"))
    }
}

fn not(leaf: &Leaf<'_>, wanted: &str) -> ValueError {
    ValueError::Not {
        value: leaf.written.to_owned(),
        wanted: wanted.to_owned(),
    }
}

fn no_duration(leaf: &Leaf<'_>) -> ValueError {
    let Scalar::Number(n @ 0..) = leaf.raw else {
        return not(leaf, "a duration such as \"5s\"");
    };
    not(
        leaf,
        &format!("a duration: write \"{n}ms\", \"{n}s\", \"{n}m\" or \"{n}h\""),
    )
}

fn whole(leaf: &Leaf<'_>, range: &RangeInclusive<u32>, wanted: &str) -> Result<u32, ValueError> {
    let number = if let Scalar::Number(number) = leaf.raw {
        u32::try_from(*number).ok()
    } else if leaf.text().is_none() && leaf.written.bytes().all(|b| b.is_ascii_digit()) {
        // RON makes a float of what no integer type holds.
        None
    } else {
        return Err(not(leaf, wanted));
    };
    values::in_range(number, range, leaf.written)
}

/// Mistakes that are shown one by one.
const MISTAKES_MAX: usize = 100;
