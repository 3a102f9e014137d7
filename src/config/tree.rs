//! The values of a RON text with their places: the one tree that everything else reads.
//!
//! RON's own parser hands out values without places, and its errors say where it stopped rather
//! than what is wrong. So the brackets and names of the text are read here, and each string, number
//! and word in them by RON. [`ron::value::RawValue`] would give places too, but reads every value
//! again on each level, gives none to the names of fields, and leaves the errors as they are.

use super::foreign;
use super::syntax;
use super::tokens::{Lexeme, Span, TokenKind, tokens};

/// A value and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// The whole value, brackets included.
    pub(super) span: Span,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    Text(String),
    Bytes(Vec<u8>),
    /// A whole number.
    Number(i64),
    Bool(bool),
    List(Vec<Value>),
    /// `(name: value, ...)`
    Group(Vec<NamedValue>),
    /// JSON's `null`.
    Null,
    /// A value that no setting takes: a fraction, a tuple, a map, a bare word.
    #[default]
    Other,
}

/// A named value of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedValue {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) value: Value,
}

/// What is wrong with a text, and where.
pub(super) type Wrong = (Span, String);

impl Value {
    /// Reads a text.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut parser = Parser::new(text, false);
        let parsed = parser.whole();
        parsed.map_err(|wrong| syntax::explained(text, &parser.tokens, wrong))
    }

    /// Reads JSON, whose validity was checked before. Its objects are groups.
    pub(super) fn of_json(text: &str) -> Result<Self, Wrong> {
        Parser::new(text, true).value()
    }

    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let found = self.fields().iter().find(|field| field.name == name);
        found.map(|field| &field.value)
    }

    /// The fields of a group; none of anything else.
    pub(super) fn fields(&self) -> &[NamedValue] {
        if let Kind::Group(fields) = &self.kind {
            fields
        } else {
            &[]
        }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        if let Kind::List(items) = &self.kind {
            items
        } else {
            &[]
        }
    }

    /// Whether it is a group or a list.
    pub(super) fn has_parts(&self) -> bool {
        matches!(self.kind, Kind::Group(_) | Kind::List(_))
    }

    /// The first byte, where a mistake about a whole group is shown.
    pub(super) fn start(&self) -> Span {
        self.span.start..self.span.start + 1
    }

    /// The place of a path such as `pools[0].check.interval`, or of the first of several with `|`
    /// between them that leads to a value.
    pub(super) fn place(&self, paths: &str) -> Reached<'_> {
        let all: Vec<_> = paths.split('|').map(|path| self.place_of(path)).collect();
        let found = all.iter().find(|place| matches!(place, Reached::Found(_)));
        *found.unwrap_or(&all[0])
    }

    /// A bare value that stands for a group is each of its fields; where a field is missing, it is
    /// the start of the group that lacks it.
    fn place_of(&self, path: &str) -> Reached<'_> {
        let mut value = self;
        for step in path.split(['.', '[']) {
            let next = match (step.strip_suffix(']'), &value.kind) {
                (Some(index), Kind::List(items)) => {
                    index.parse().ok().and_then(|at: usize| items.get(at))
                }
                (None, Kind::Group(_)) => value.field(step),
                (Some(_) | None, _) => Some(value),
            };
            let Some(next) = next else {
                return Reached::Missing(value);
            };
            value = next;
        }
        Reached::Found(value)
    }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reached<'a> {
    /// To this value.
    Found(&'a Value),
    /// To no value: this group lacks it.
    Missing(&'a Value),
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Lexeme>,
    next: usize,
    /// The brackets around the next token.
    open: Vec<Span>,
    is_json: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, is_json: bool) -> Self {
        Self {
            text,
            tokens: tokens(text),
            next: 0,
            open: Vec::new(),
            is_json,
        }
    }

    fn whole(&mut self) -> Result<Value, Wrong> {
        if self.kind(0).is_none() {
            let sentence = format!(
                "the file is empty: the smallest one is {}",
                foreign::SMALLEST
            );
            return Err((0..1, sentence));
        }
        self.skip_extensions();
        let value = self.value()?;
        match (self.tokens.get(self.next), &value.kind) {
            (None, _) => Ok(value),
            (Some(rest), Kind::Group(_) | Kind::List(_)) => Err((
                rest.span.clone(),
                "nothing may follow the closing bracket".to_owned(),
            )),
            (Some(_), _) => Err((value.span, syntax::whole_group())),
        }
    }

    /// Steps over `#![enable(...)]`.
    fn skip_extensions(&mut self) {
        while self.word(0) == Some("#!") && self.kind(1) == Some(TokenKind::Open('[')) {
            let rest = &self.tokens[self.next..];
            let end = rest
                .iter()
                .position(|token| token.kind == TokenKind::Close(']'));
            self.next = end.map_or(self.tokens.len(), |end| self.next + end + 1);
        }
    }

    fn value(&mut self) -> Result<Value, Wrong> {
        if self.open.len() > DEPTH_MAX {
            return Err(self.wrong("brackets are nested too deeply here"));
        }
        match self.kind(0) {
            Some(TokenKind::Open('(')) => self.group(),
            Some(TokenKind::Open('[')) => self.list(),
            Some(TokenKind::Open(_)) => self.map(),
            Some(TokenKind::Text) => self.leaf(),
            Some(TokenKind::Word) if self.is_named() => {
                let is_some = self.word(0) == Some("Some");
                self.next += 1;
                if is_some { self.some() } else { self.group() }
            }
            Some(TokenKind::Word) => match self.unquoted() {
                Some(wrong) => Err(wrong),
                None => self.leaf(),
            },
            _ => Err(self
                .unquoted()
                .unwrap_or_else(|| self.wrong("expected a value here"))),
        }
    }

    /// Whether a group with the name of its type is next.
    fn is_named(&self) -> bool {
        let is_value = |word: &str| matches!(word, "true" | "false" | "inf" | "NaN" | "None");
        let is_name = |word: &str| syntax::is_name(word) && !is_value(word);
        let is_name = self.word(0).is_some_and(is_name);
        is_name && self.kind(1) == Some(TokenKind::Open('('))
    }

    fn leaf(&mut self) -> Result<Value, Wrong> {
        let span = self.tokens[self.next].span.clone();
        let leaf = if self.is_json {
            leaf_of_json
        } else {
            leaf_of_ron
        };
        let kind = leaf(&self.text[span.clone()]);
        let kind = kind.map_err(|sentence| (span.clone(), sentence))?;
        self.next += 1;
        Ok(Value { span, kind })
    }

    fn list(&mut self) -> Result<Value, Wrong> {
        let (start, items) = self.values(']')?;
        Ok(self.left(start, Kind::List(items)))
    }

    /// Fields in parentheses; values without names, which no setting takes, are stepped over.
    fn group(&mut self) -> Result<Value, Wrong> {
        let is_tuple = match (self.kind(1), self.kind(2)) {
            (Some(TokenKind::Close(_)), _) => false,
            (Some(TokenKind::Text), next) => next != Some(TokenKind::Colon),
            (Some(TokenKind::Word), next) => matches!(
                next,
                Some(TokenKind::Comma | TokenKind::Close(_) | TokenKind::Open(_))
            ),
            _ => true,
        };
        if !is_tuple {
            return self.fields();
        }
        let (start, _) = self.values(')')?;
        Ok(self.left(start, Kind::Other))
    }

    /// `Some(value)` is the value.
    fn some(&mut self) -> Result<Value, Wrong> {
        let (start, mut items) = self.values(')')?;
        let some = self.left(start, Kind::Other);
        Ok(match (items.pop(), items.is_empty()) {
            (Some(only), true) => only,
            _ => some,
        })
    }

    /// Values up to the bracket that closes.
    fn values(&mut self, closing: char) -> Result<(usize, Vec<Value>), Wrong> {
        let start = self.enter();
        let mut items = Vec::new();
        while !self.leaves(closing) {
            items.push(self.value()?);
            self.comma(closing)?;
        }
        Ok((start, items))
    }

    fn fields(&mut self) -> Result<Value, Wrong> {
        let start = self.enter();
        let mut fields = Vec::new();
        while !self.leaves(')') {
            let Some(name) = self.word(0).filter(|word| syntax::is_name(word)) else {
                return Err(self.nameless());
            };
            let name_span = self.tokens[self.next].span.clone();
            self.next += 1;
            self.colon()?;
            let value = self.value()?;
            fields.push(NamedValue {
                name: name.trim_start_matches("r#").to_owned(),
                name_span,
                value,
            });
            self.comma(')')?;
        }
        Ok(self.left(start, Kind::Group(fields)))
    }

    /// A map of RON, which no setting takes, or an object of JSON.
    fn map(&mut self) -> Result<Value, Wrong> {
        let start = self.enter();
        let mut fields = Vec::new();
        while !self.leaves('}') {
            let name = self.value()?;
            self.colon()?;
            let value = self.value()?;
            if let Kind::Text(text) = name.kind {
                fields.push(NamedValue {
                    name: text,
                    name_span: name.span,
                    value,
                });
            }
            self.comma('}')?;
        }
        let kind = if self.is_json {
            Kind::Group(fields)
        } else {
            Kind::Other
        };
        Ok(self.left(start, kind))
    }

    /// What stands in place of the name of a field.
    fn nameless(&self) -> Wrong {
        let is_named = self.kind(1) == Some(TokenKind::Colon);
        let quoted = self
            .tokens
            .get(self.next)
            .filter(|token| is_named && token.kind == TokenKind::Text);
        let name = quoted.map(|token| self.text[token.span.clone()].trim_matches('"'));
        match name.filter(|name| syntax::is_name(name)) {
            Some(name) => self.wrong(&format!("the name of a field has no quotes: write {name}")),
            None if self.kind(0) == Some(TokenKind::Text) => self.wrong(syntax::NAMELESS),
            None => self.wrong("expected the name of a field here"),
        }
    }

    fn colon(&mut self) -> Result<(), Wrong> {
        if self.kind(0) != Some(TokenKind::Colon) {
            let ends = matches!(self.kind(0), Some(TokenKind::Comma | TokenKind::Close(_)));
            let before = &self.tokens[self.next - 1];
            return Err(match &self.text[before.span.clone()] {
                name if ends && syntax::is_name(name) => {
                    let sentence = format!("`{name}` has no value: write `{name}: ` and the value");
                    (before.span.clone(), sentence)
                }
                _ => self.wrong("a `:` is missing before this"),
            });
        }
        self.next += 1;
        Ok(())
    }

    /// The comma behind an item, which the last one need not have.
    fn comma(&mut self, closing: char) -> Result<(), Wrong> {
        if self.kind(0) == Some(TokenKind::Colon)
            && let Some(wrong) = self.unquoted()
        {
            return Err(wrong);
        }
        match self.kind(0) {
            Some(TokenKind::Comma) => self.next += 1,
            Some(TokenKind::Close(found)) if found == closing => {}
            Some(TokenKind::Colon) if closing == ']' => {
                let open = self.open.last().cloned().unwrap_or_default();
                return Err((open, syntax::IN_PARENTHESES.to_owned()));
            }
            Some(TokenKind::Colon) if closing == ')' => {
                let open = self.open.last().map_or(0, |open| open.end);
                let first = self.tokens.iter().find(|token| token.span.start >= open);
                let span = first.map_or(open..open, |first| first.span.clone());
                return Err((span, syntax::NAMELESS.to_owned()));
            }
            _ => {
                let sentence = format!("a comma or `{closing}` is missing before this");
                return Err(self.wrong(&sentence));
            }
        }
        Ok(())
    }

    /// A value that lacks its quotes, and has a colon in it as `localhost:80` has. In a map it may
    /// be a name and its value.
    fn unquoted(&self) -> Option<Wrong> {
        let is_in_map = self
            .open
            .last()
            .is_some_and(|open| &self.text[open.clone()] == "{");
        let token = self.tokens.get(self.next).filter(|_| !is_in_map)?;
        let span = token.span.clone();
        let rest = &self.text[span.start..];
        let end = rest.find(|c: char| c.is_whitespace() || ",()[]{}\"".contains(c));
        let bare = &rest[..end.unwrap_or(rest.len())];
        let is_colon = token.kind == TokenKind::Colon;
        let behind = bare.get(if is_colon { 0 } else { span.len() }..)?;
        let goes_on = behind.starts_with(':') && !bare.ends_with(':');
        goes_on.then(|| (span.start..span.start + bare.len(), syntax::quotes(bare)))
    }

    /// Steps over a bracket that opens.
    fn enter(&mut self) -> usize {
        let span = self.tokens[self.next].span.clone();
        let start = span.start;
        self.open.push(span);
        self.next += 1;
        start
    }

    /// Whether the bracket that closes is next.
    fn leaves(&self, closing: char) -> bool {
        self.kind(0) == Some(TokenKind::Close(closing))
    }

    /// Steps over it.
    fn left(&mut self, start: usize, kind: Kind) -> Value {
        let end = self.tokens[self.next].span.end;
        self.open.pop();
        self.next += 1;
        Value {
            span: start..end,
            kind,
        }
    }

    fn kind(&self, ahead: usize) -> Option<TokenKind> {
        let token = self.tokens.get(self.next + ahead);
        token.map(|token| token.kind)
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        let token = self.tokens.get(self.next + ahead)?;
        (token.kind == TokenKind::Word).then(|| &self.text[token.span.clone()])
    }

    /// What is wrong with the next token; at the end of the text, the bracket that stays open.
    fn wrong(&self, sentence: &str) -> Wrong {
        match (self.tokens.get(self.next), self.open.last()) {
            (Some(token), _) => (token.span.clone(), sentence.to_owned()),
            (None, Some(open)) => {
                let bracket = &self.text[open.clone()];
                (open.clone(), format!("this `{bracket}` is never closed"))
            }
            (None, None) => {
                let end = self.text.len();
                (end..end + 1, sentence.to_owned())
            }
        }
    }
}

/// Brackets in brackets; no setting stands in half as many.
const DEPTH_MAX: usize = 32;

/// What a string, a number or a word is. A number beyond the range of `i64` is none: no setting
/// takes it.
fn leaf_of_ron(written: &str) -> Result<Kind, String> {
    Ok(match ron::from_str(written) {
        Ok(ron::Value::String(text)) => Kind::Text(text),
        Ok(ron::Value::Bytes(bytes)) => Kind::Bytes(bytes),
        Ok(ron::Value::Bool(truth)) => Kind::Bool(truth),
        Ok(number @ ron::Value::Number(_)) => number.into_rust().map_or(Kind::Other, Kind::Number),
        Ok(_) => Kind::Other,
        Err(_) if syntax::is_name(written) => Kind::Other,
        Err(error) => return Err(syntax::of_leaf(written, &error)),
    })
}

fn leaf_of_json(written: &str) -> Result<Kind, String> {
    let leaf = serde_json::from_str(written).map_err(|error| error.to_string())?;
    Ok(match leaf {
        serde_json::Value::String(text) => Kind::Text(text),
        serde_json::Value::Bool(truth) => Kind::Bool(truth),
        serde_json::Value::Number(number) => number.as_i64().map_or(Kind::Other, Kind::Number),
        serde_json::Value::Null => Kind::Null,
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => Kind::Other,
    })
}

#[cfg(test)]
mod tests;
