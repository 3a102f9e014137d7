//! Places of values, and texts that are no RON.

use super::*;

fn parse(text: &str) -> Value {
    Value::parse(text).unwrap_or_else(|(_, sentence)| panic!("{sentence}: {text}"))
}

/// The value at a path, or, in brackets, the group that lacks it.
fn at<'a>(text: &'a str, value: &Value, path: &str) -> &'a str {
    match value.place(path) {
        Reached::Found(found) => &text[found.span.clone()],
        Reached::Missing(_) => "missing",
    }
}

#[test]
fn values_have_places() {
    let text = r##"#![enable(implicit_some)]
        Config( // a: (comment
            a: [1, "two, (", r#" ] "#, 'x', '\''],
            b: /* b: /* nested */ 3, */ B(c: Some("d"), e: ("f", 2), r#type: ()),
        )"##;
    let root = parse(text);
    let items = ["1", "\"two, (\"", "r#\" ] \"#", "'x'", r"'\''"];
    for (i, want) in items.into_iter().enumerate() {
        assert_eq!(at(text, &root, &format!("a[{i}]")), want);
    }
    assert_eq!(at(text, &root, "b.c"), "\"d\"");
    assert_eq!(at(text, &root, "b.e"), "(\"f\", 2)");
    assert_eq!(at(text, &root, "b.type"), "()");
    assert_eq!(at(text, &root, "b.x"), "missing");
    assert_eq!(at(text, &root, "a[5]"), "missing");
    // A bare value stands for a group.
    assert_eq!(at(text, &root, "b.c.key"), "\"d\"");
    let text = "(é: \"ü\u{2028}日\", \u{200e}b: 2)";
    assert_eq!(at(text, &parse(text), "é"), "\"ü\u{2028}日\"");
    assert_eq!(at(text, &parse(text), "b"), "2");
}

#[test]
fn values_are_what_ron_reads() {
    let kind = |text: &str| parse(text).kind;
    assert_eq!(kind(r#""a\n\u{e9}""#), Kind::Text("a\né".to_owned()));
    assert_eq!(kind(r#"b"\xff""#), Kind::Bytes(vec![0xff]));
    assert_eq!(kind("1_000"), Kind::Number(1000));
    assert_eq!(kind("0x10"), Kind::Number(16));
    assert_eq!(kind("-1"), Kind::Number(-1));
    assert_eq!(kind("18446744073709551615"), Kind::Other);
    assert_eq!(kind("Some(true)"), Kind::Bool(true));
    for other in [
        "1.5",
        "None",
        "off",
        "'a'",
        "(1, 2)",
        "{\"a\": 1}",
        "Some()",
    ] {
        assert_eq!(kind(other), Kind::Other, "{other}");
    }
}

/// Text, the part of it that is marked, and the error.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "(# a\n b: 1)",
        "#",
        "a comment begins with `//`, and not with `#`",
    ),
    (
        "(a: 1, # b\n c: 2)",
        "#",
        "a comment begins with `//`, and not with `#`",
    ),
    (
        "(a: 'web')",
        "'web'",
        "strings stand in double quotes: \"web\"",
    ),
    (
        "(a = 1)",
        "=",
        "write `:` between a field's name and its value, and not `=`",
    ),
    (
        "(a=1)",
        "a=1",
        "write `:` between a field's name and its value, and not `=`",
    ),
    (
        "(a=\"b\")",
        "a=",
        "write `:` between a field's name and its value, and not `=`",
    ),
    (
        "(bind: 127.0.0.1:80, b: 1)",
        "127.0.0.1:80",
        "127.0.0.1:80 must be written in double quotes: \"127.0.0.1:80\"",
    ),
    (
        "(a: 5s)",
        "5s",
        "5s must be written in double quotes: \"5s\"",
    ),
    (
        "(a: unix:/b)",
        "unix:/b",
        "unix:/b must be written in double quotes: \"unix:/b\"",
    ),
    (
        "(a: [127.0.0.1:80])",
        "127.0.0.1:80",
        "127.0.0.1:80 must be written in double quotes: \"127.0.0.1:80\"",
    ),
    (
        "(a: [\"b\", localhost:80], c: 1)",
        "localhost:80",
        "localhost:80 must be written in double quotes: \"localhost:80\"",
    ),
    ("(a: 10k)", "10k", "invalid number 10k: write 10000"),
    (
        "(a: 50%)",
        "50%",
        "invalid number 50%: write 50, or 0.5 for a decimal",
    ),
    (
        "(a: 1GB)",
        "1GB",
        "1GB must be written in double quotes: \"1GiB\"",
    ),
    (
        "(a: [(\"b:1\", weight: 2)])",
        "\"b:1\"",
        "this value needs the name of its field before it, as in `address: \"127.0.0.1:9001\"`",
    ),
    (
        "(a: (weight: 2, \"b:1\"))",
        "\"b:1\"",
        "this value needs the name of its field before it, as in `address: \"127.0.0.1:9001\"`",
    ),
    (
        "((\"bind\": 1))",
        "\"bind\"",
        "the name of a field has no quotes: write bind",
    ),
    (
        "(a: (b: 1, backup))",
        "backup",
        "`backup` has no value: write `backup: ` and the value",
    ),
    (
        "(a: “b”)",
        "“b”",
        "strings stand in plain double quotes, as in \"text\"",
    ),
    (
        "(a: true (b: 1))",
        "(",
        "a comma or `)` is missing before this",
    ),
    (
        "(a: [b: 1])",
        "[",
        "expected fields in `(` and `)` here, and not in `[` and `]`",
    ),
    (
        "(a: \"b, c: \"d\")",
        "\"b, c: \"",
        "this string is never closed",
    ),
    (
        "(a: \"b,\n c: \"d\")",
        "\"b,\n c: \"",
        "this string is never closed",
    ),
    ("(a: [1)", ")", "a comma or `]` is missing before this"),
    ("(a: 1", "(", "this `(` is never closed"),
];

#[test]
fn what_is_written_as_elsewhere_is_named() {
    for (text, marked, sentence) in MISTAKES {
        let (span, message) = Value::parse(text).unwrap_err();
        assert_eq!((&text[span], &*message), (*marked, *sentence), "{text}");
    }
}

/// RON accepts whatever this parser accepts.
#[test]
fn ron_has_the_same_grammar() {
    let example = include_str!("../../../config.ron");
    let mut rng = fastrand::Rng::with_seed(1);
    let telling: Vec<_> = "()[]{}:,\"'/*#\\-.0aNrb=\n ".chars().collect();
    for _ in 0..2_000 {
        let start = rng.usize(..example.len() - 600);
        let start = example.ceil_char_boundary(start);
        let mut text: Vec<_> = example.chars().collect();
        let at = rng.usize(start..start + 600);
        match rng.u8(..3) {
            0 => drop(text.remove(at)),
            1 => text[at] = *rng.choice(&telling).unwrap(),
            _ => text.insert(at, *rng.choice(&telling).unwrap()),
        }
        let text: String = text.into_iter().collect();
        let by_ron = ron::from_str::<serde::de::IgnoredAny>(&text);
        if Value::parse(&text).is_ok() {
            let near: String = text.chars().skip(at.saturating_sub(40)).take(80).collect();
            assert!(by_ron.is_ok(), "{:?} near {near}", by_ron.err());
        }
    }
}

#[test]
fn any_text_is_survived() {
    let whole = r###"(a: [b"\"", r#"x"#, 'é', /* c */ Some((d: 1)), b'r', {"k": 2}], // e
        f: "\\")"###;
    for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let _ = Value::parse(&whole[..end]);
    }
    let deep = "(".repeat(100_000);
    for text in ["", ")", "]](", "/", "\"", "r#", "br##\"", "'", "/*", &deep] {
        assert!(Value::parse(text).is_err(), "{text:.20}");
    }
}
