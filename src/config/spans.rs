//! Where each value of a RON text stands.
//!
//! RON hands out values without positions. This scanner reads the same text again, knowing only
//! brackets, strings, comments and `name:`; what it does not understand it steps over. It never
//! fails: the RON parser is the one that refuses.

use std::ops::Range;

/// A piece of the text, in bytes.
pub(super) type Span = Range<usize>;

/// A value and, under it, its fields or items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The whole value, brackets included.
    pub(super) span: Span,
    /// The name in front of the value, for a field.
    label: Option<String>,
    children: Vec<Self>,
}

impl Node {
    /// The tree of a text that RON accepts, which bounds its depth.
    pub(super) fn scan(text: &str) -> Self {
        let tokens = tokens(text);
        let mut open = vec![Frame::default()];
        for (i, token) in tokens.iter().enumerate() {
            let next = tokens.get(i + 1).map(|token| token.kind);
            let top = open.len() - 1;
            match token.kind {
                Kind::Open(_) => open.push(Frame::new(token.span.clone())),
                Kind::Close(_) if top > 0 => close(&mut open, token.span.end),
                Kind::Word if next == Some(Kind::Colon) => {
                    let name = &text[token.span.clone()];
                    open[top].label = Some(name.trim_start_matches("r#").to_owned());
                }
                Kind::Word if next == Some(Kind::Open('(')) => {
                    open[top].wraps = &text[token.span.clone()] == "Some";
                }
                Kind::Word | Kind::Text => open[top].take(Self::leaf(token.span.clone())),
                Kind::Close(_) | Kind::Colon | Kind::Comma => {}
            }
        }
        while open.len() > 1 {
            close(&mut open, text.len());
        }
        // The last value: `#![enable(...)]` may stand in front of it.
        open.pop()
            .and_then(|mut file| file.node.children.pop())
            .unwrap_or_default()
    }

    /// The value of a field; this value itself when it has no such field.
    pub(super) fn field(&self, name: &str) -> &Self {
        self.find(name).unwrap_or(self)
    }

    /// The value of a field.
    pub(super) fn find(&self, name: &str) -> Option<&Self> {
        self.children
            .iter()
            .find(|child| child.label.as_deref() == Some(name))
    }

    /// The name in front of the value, for a field.
    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// An item of a list; this value itself when it has fewer.
    pub(super) fn item(&self, index: usize) -> &Self {
        self.children.get(index).unwrap_or(self)
    }

    /// The same, as the field of a name.
    pub(super) fn called(mut self, name: &str) -> Self {
        self.label = Some(name.to_owned());
        self
    }

    /// The first byte, where a mistake about a whole group is shown.
    pub(super) fn start(&self) -> Span {
        self.span.start..self.span.start + 1
    }

    fn leaf(span: Span) -> Self {
        Self {
            span,
            ..Self::default()
        }
    }
}

/// A group whose closing bracket is still to come.
#[derive(Debug, Default)]
struct Frame {
    node: Node,
    /// The name read last, for the value that follows.
    label: Option<String>,
    /// The group that follows is that of `Some(...)`.
    wraps: bool,
}

impl Frame {
    fn new(span: Span) -> Self {
        Self {
            node: Node::leaf(span),
            ..Self::default()
        }
    }

    fn take(&mut self, mut child: Node) {
        child.label = self.label.take();
        self.node.children.push(child);
    }
}

/// Ends the innermost group and gives it to the one around it.
fn close(open: &mut Vec<Frame>, end: usize) {
    let Some(frame) = open.pop() else { return };
    let Some(parent) = open.last_mut() else {
        return;
    };
    let mut node = frame.node;
    node.span.end = end;
    if std::mem::take(&mut parent.wraps) && node.children.len() == 1 {
        node = node.children.remove(0);
    }
    parent.take(node);
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `(`, `[` or `{`.
    Open(char),
    /// `)`, `]` or `}`.
    Close(char),
    /// `:`.
    Colon,
    /// `,`.
    Comma,
    /// A string, a byte string or a character.
    Text,
    /// Anything else: a name, a number.
    Word,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// The tokens of a text, without white space and comments.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let blank = blank_bytes(rest);
        if blank > 0 {
            at += blank;
            continue;
        }
        let (kind, bytes) = match first {
            '(' | '[' | '{' => (Kind::Open(first), 1),
            ')' | ']' | '}' => (Kind::Close(first), 1),
            ':' => (Kind::Colon, 1),
            ',' => (Kind::Comma, 1),
            _ => match text_bytes(rest) {
                Some(bytes) => (Kind::Text, bytes),
                None => (Kind::Word, word_bytes(rest)),
            },
        };
        tokens.push(Token {
            kind,
            span: at..at + bytes,
        });
        at += bytes;
    }
    tokens
}

fn is_blank(c: char) -> bool {
    // RON skips Pattern_White_Space, which has these two marks beside the white space proper.
    c.is_whitespace() || matches!(c, '\u{200e}' | '\u{200f}')
}

/// The length of the white space or the comment that a text starts with.
fn blank_bytes(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if !text.starts_with("/*") {
        return text.len() - text.trim_start_matches(is_blank).len();
    }
    let (mut depth, mut at) = (0_usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => depth += 1,
            Some(b"*/") => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the string or character literal that a text starts with.
fn text_bytes(text: &str) -> Option<usize> {
    let plain = text.strip_prefix('b').unwrap_or(text);
    if let Some(raw) = plain.strip_prefix('r') {
        let body = raw.trim_start_matches('#');
        let closing = format!("\"{}", &raw[..raw.len() - body.len()]);
        let body = body.strip_prefix('"')?;
        let end = body
            .find(&closing)
            .map_or(body.len(), |end| end + closing.len());
        return Some(text.len() - body.len() + end);
    }
    let quote = plain.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut escaped = false;
    let end = plain[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.map_or(text.len(), |end| text.len() - plain.len() + end + 2))
}

fn word_bytes(text: &str) -> usize {
    let ends = |at: usize, c: char| {
        is_blank(c)
            || "()[]{}:,\"'".contains(c)
            || text[at..].starts_with("//")
            || text[at..].starts_with("/*")
    };
    // The first character belongs to the word whatever it is: a scan always moves on.
    let end = text.char_indices().skip(1).find(|(at, c)| ends(*at, *c));
    end.map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(text: &'a str, node: &Node) -> &'a str {
        &text[node.span.clone()]
    }

    #[test]
    fn finds_fields_and_items() {
        let text = r##"#![enable(implicit_some)]
            Config( // a: (comment
                a: [1, "two, (", r#" ] "# , 'x', '\''],
                b: /* b: /* nested */ 3, */ B(c: Some("d"), e: (1, 2)),
            )"##;
        let root = Node::scan(text);
        let a = root.field("a");
        let items: Vec<_> = (0..5).map(|i| at(text, a.item(i))).collect();
        assert_eq!(items, ["1", "\"two, (\"", "r#\" ] \"#", "'x'", r"'\''"]);
        assert_eq!(at(text, root.field("b").field("c")), "\"d\"");
        assert_eq!(at(text, root.field("b").field("e").item(1)), "2");
    }

    #[test]
    fn falls_back_to_what_is_around() {
        let text = "(a: [1])";
        let root = Node::scan(text);
        assert_eq!(at(text, root.field("b").field("c").item(7)), text);
        assert_eq!(at(text, root.field("a").item(1)), "[1]");
        assert_eq!(root.find("b"), None);
    }

    #[test]
    fn multi_byte_text_keeps_its_bytes() {
        let text = "(é: \"ü\u{2028}日\", \u{200e}b: 2)";
        let root = Node::scan(text);
        assert_eq!(at(text, root.field("é")), "\"ü\u{2028}日\"");
        assert_eq!(at(text, root.field("b")), "2");
    }

    #[test]
    fn takes_any_text() {
        let whole = r###"(a: [b"\"", r#"x"#, 'é', /* c */ Some((d: 1)), b'r', {"k": 2}], // e
            f: "\\")"###;
        for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            let root = Node::scan(&whole[..end]);
            assert!(root.span.end <= end);
        }
        for text in ["", ")", "]](", "/", "\"", "r#", "br##\"", "(((", "'", "b"] {
            Node::scan(text);
        }
    }
}
