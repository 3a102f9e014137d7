//! Rust source without its comments and literals: only code is left.

/// The code of a source, with a space for each comment and literal.
pub(crate) fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest, &code));
        let length = skipped.unwrap_or_else(|| next.len_utf8());
        code.push_str(if skipped.is_some() {
            " "
        } else {
            &rest[..length]
        });
        rest = &rest[length..];
    }
    code
}

/// Whether a word stands in some code by itself, not within a longer name.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !is_name(c)).any(|found| found == word)
}

/// The names of the types that some code declares for the whole crate or beyond.
pub(crate) fn public_types(code: &str) -> Vec<String> {
    types(code, false)
}

/// Those, and the types that it declares for other files of its room.
pub(crate) fn shared_types(code: &str) -> Vec<String> {
    types(code, true)
}

fn types(code: &str, of_room: bool) -> Vec<String> {
    let mut parts = code.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_owned();
    let code = parts.fold(first, |all, part| {
        let rest = part.split_once(')').map_or("", |(_, rest)| rest);
        all + "pub(super)" + rest
    });
    let mut words = code
        .split(|c: char| !is_name(c))
        .filter(|word| !word.is_empty());
    let mut names = Vec::new();
    let mut is_public = false;
    while let Some(word) = words.next() {
        match word {
            "pub" => is_public = true,
            // `pub(crate)`, `pub unsafe trait`.
            "crate" | "unsafe" => {}
            "super" => is_public &= of_room,
            "struct" | "enum" | "trait" | "type" | "union" if is_public => {
                names.extend(words.next().map(str::to_owned));
                is_public = false;
            }
            _ => is_public = false,
        }
    }
    names
}

/// The length of the comment that a text begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    // Block comments nest.
    let mut depth = 0;
    let mut at = 0;
    loop {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 || at >= text.len() {
            return Some(at);
        }
    }
}

/// The length of the literal at the start of a text, with the code `before` it.
fn literal(text: &str, before: &str) -> Option<usize> {
    match text.chars().next()? {
        '"' => Some(quoted(text, '"')),
        // A lifetime has no second quote after one character.
        '\'' => {
            let second = text[1..].chars().next()?;
            let is_char = second == '\\' || text[1 + second.len_utf8()..].starts_with('\'');
            is_char.then(|| quoted(text, '\''))
        }
        'r' | 'b' | 'c' if !before.ends_with(is_name) => raw(text),
        _ => None,
    }
}

/// Up to the quote that is not escaped.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

/// A raw string, `r"..."` with any number of hashes, or one with `br` or `cr` before it.
fn raw(text: &str) -> Option<usize> {
    let prefix = text.find('r').filter(|at| *at <= 1)? + 1;
    let hashes = text[prefix..].chars().take_while(|c| *c == '#').count();
    let begin = prefix + hashes + 1;
    if !text[prefix + hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text[begin..].find(&end).map(|at| begin + at + end.len());
    Some(length.unwrap_or(text.len()))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn only_code_is_left() {
    for hidden in [
        "// unsafe",
        "/* /* */ unsafe */",
        r#""unsafe""#,
        r#""\" unsafe""#,
        "r#\"\" unsafe\"#",
        "br\"\\\" ; \"unsafe\"",
        "unsafe_code",
        "'\"' ; \"unsafe\"",
        "'\\'' ; \"unsafe\"",
        "&'a str ; \"unsafe\" 'b",
    ] {
        assert!(!has_word(&code(hidden), "unsafe"), "{hidden}");
    }
    for plain in [
        "unsafe {}",
        "/* */unsafe fn",
        "\"\\\\\" unsafe {}",
        "r#\"\\\"# unsafe {}",
        "'\"' unsafe {} '\"'",
        "&'a unsafe",
        "attr\"x\" unsafe",
        "// a\nunsafe {}",
    ] {
        assert!(has_word(&code(plain), "unsafe"), "{plain}");
    }
}

#[test]
fn types_are_public_by_their_own_word() {
    let code = "pub struct A; pub(crate) enum B {} struct C { pub d: E } pub use f::G; \
                pub(super) enum M {} pub(in crate::n) enum O {} \
                pub(crate) unsafe trait H {} pub type I<T> = J<T>; pub fn k() { struct L; }";
    assert_eq!(public_types(code), ["A", "B", "H", "I"]);
    assert_eq!(shared_types(code), ["A", "B", "M", "O", "H", "I"]);
}
