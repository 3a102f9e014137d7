//! What keys and values make of a pool.

use std::time::Duration;

use super::*;
use crate::control::remote::{KeyNews, Step};

fn entry(key: &str, revision: i64, value: Option<&str>) -> KeyNews<Backend> {
    KeyNews {
        key: key.to_owned(),
        revision,
        value: value.map(|value| backend(key, value.as_bytes())),
    }
}

fn members(keys: &[(&str, i64, &str)]) -> Keys<Backend> {
    let mut members = Keys::new(("key", "keys under `/p/`".to_owned()), "/p/", BACKENDS_MAX);
    assert!(members.take(all(keys), &Notify::new()));
    members
}

fn all(keys: &[(&str, i64, &str)]) -> Step<Backend> {
    let keys = keys.iter();
    let keys = keys.map(|(key, revision, value)| entry(key, *revision, Some(value)));
    Step::Listed {
        keys: keys.collect(),
        has_more: false,
        went_back: false,
    }
}

fn shown(members: &Keys<Backend>) -> (Vec<String>, Option<String>) {
    let (found, error) = keyed::answer(members, backends);
    let found = found.map_or_else(Vec::new, |found| found.backends);
    let shown = found.iter().map(|its| {
        format!(
            "{} {} {} {:?}",
            its.name, its.address, its.weight, its.state
        )
    });
    (shown.collect(), error)
}

#[test]
fn a_value_is_read_as_a_backend_of_a_file() {
    let read = |value: &str| backend("w1", value.as_bytes());
    let full = read(
        r#"{"address": "10.0.0.1:80", "name": "w1", "weight": 3, "state": "drain", "backup": true,
            "max_connections": 7, "bandwidth": {"up": "1MiB/s"}}"#,
    );
    let full = full.unwrap();
    assert_eq!((&*full.name, full.weight, full.backup), ("w1", 3, true));
    assert_eq!(full.state, crate::config::AdminState::Drain);
    let alone = read(r#"{"address": "unix:/run/w1"}"#).unwrap();
    assert_eq!(alone.name, "w1");
    for (value, why) in [
        ("", "invalid value: it is empty: expected a JSON object"),
        ("[]", "invalid value: expected a JSON object"),
        (
            "{\"address\"",
            "invalid value: expected JSON, and not what is at column 10",
        ),
        ("{}", "missing field `address`"),
        (
            r#"{"address": "10.0.0.1:80", "weight": 999}"#,
            "invalid `weight` `999`: expected a whole number, 0 to 256",
        ),
        (
            r#"{"address": "10.0.0.1:80", "wieght": 1}"#,
            "unknown field `wieght`, did you mean `weight`?",
        ),
        (
            r#"{"address": "db-1:80"}"#,
            "invalid address `db-1`: expected IPv4:port, [IPv6]:port or unix:/path; names are for \
             discovery by `dns`",
        ),
        (
            r#"{"address": "10.0.0.1:80", "name": "w2"}"#,
            "invalid `name` `w2`: expected that of the key, `w1`, or none",
        ),
        (
            r#"{"address": "10.0.0.1:80", "group": "a"}"#,
            "group: expected none, as the backend is discovered",
        ),
    ] {
        assert_eq!(read(value).unwrap_err(), why, "{value}");
    }
    let slash = backend("a/b", b"{}").unwrap_err();
    assert_eq!(slash, "invalid name `a/b`: expected no `/` in it");
}

#[test]
fn a_bad_value_keeps_the_last_good_one() {
    let good = r#"{"address": "10.0.0.1:80", "weight": 3}"#;
    let mut members = members(&[("a", 1, good), ("b", 2, "?")]);
    let b = "key `/p/b`: invalid value: expected JSON, and not what is at column 1; it is left out";
    let a = "a 10.0.0.1:80 3 Ready".to_owned();
    assert_eq!(shown(&members), (vec![a.clone()], Some(b.to_owned())));
    let bad = r#"{"address": "10.0.0.1:80", "weight": -1}"#;
    assert!(members.take(
        Step::Changed(vec![entry("a", 3, Some(bad))]),
        &Notify::new()
    ));
    let (found, error) = shown(&members);
    assert_eq!(found, std::slice::from_ref(&a));
    let error = error.unwrap();
    let begin = "key `/p/a`: invalid `weight` `-1`: expected a whole number, 0 to 256";
    let end = "; its last good value stays; and 1 mistake more";
    assert!(error.starts_with(begin) && error.ends_with(end), "{error}");
    // After a list too.
    assert!(members.take(all(&[("a", 3, bad)]), &Notify::new()));
    assert_eq!(shown(&members).0, [a]);
    // A key that is deleted and comes back has no value before.
    members.take(
        Step::Changed(vec![entry("a", 4, None), entry("a", 5, Some(bad))]),
        &Notify::new(),
    );
    assert!(shown(&members).0.is_empty());
}

#[test]
fn the_later_write_counts() {
    let at = |weight: u16| format!(r#"{{"address": "10.0.0.1:80", "weight": {weight}}}"#);
    let mut members = members(&[("a", 5, &at(1))]);
    // One that arrives late, as after a disconnect.
    let stale = Step::Changed(vec![entry("a", 4, Some(&at(9))), entry("a", 5, None)]);
    assert!(!members.take(stale, &Notify::new()));
    assert_eq!(
        shown(&members),
        (vec!["a 10.0.0.1:80 1 Ready".to_owned()], None)
    );
    members.take(
        Step::Changed(vec![entry("b", 6, Some(&at(2)))]),
        &Notify::new(),
    );
    let told = |left: &str, later: &str| {
        Some(format!(
            "key `/p/{left}`: it is left out, as `/p/{later}` was written later and has the same \
             address, 10.0.0.1:80"
        ))
    };
    assert_eq!(
        shown(&members),
        (vec!["b 10.0.0.1:80 2 Ready".to_owned()], told("a", "b"))
    );
    members.take(
        Step::Changed(vec![entry("a", 7, Some(&at(3)))]),
        &Notify::new(),
    );
    assert_eq!(
        shown(&members),
        (vec!["a 10.0.0.1:80 3 Ready".to_owned()], told("b", "a"))
    );
}

#[test]
fn neither_a_failure_nor_an_empty_prefix_empties_a_pool() {
    let mut members = members(&[("a", 1, r#"{"address": "10.0.0.1:80"}"#)]);
    members.take(
        Step::Failed("it is away".to_owned(), Duration::ZERO),
        &Notify::new(),
    );
    // Nothing is found, so what was found before stays.
    let (found, error) = keyed::answer(&members, backends);
    assert_eq!((found, error), (None, Some("it is away".to_owned())));
    members.take(all(&[]), &Notify::new());
    let (found, error) = keyed::answer(&members, backends);
    assert_eq!(
        (found, error),
        (None, Some("no key under `/p/`".to_owned()))
    );
}

#[test]
fn keys_beyond_the_limit_are_left_out_until_there_is_room() {
    let values: Vec<_> = (0..=BACKENDS_MAX)
        .map(|n| (format!("k{n:04}"), format!(r#"{{"address": "unix:/{n}"}}"#)))
        .collect();
    let keys = values.iter().map(|(key, value)| (&**key, 1, &**value));
    let keys: Vec<_> = keys.collect();
    let mut members = members(&keys[..BACKENDS_MAX]);
    assert!(keyed::answer(&members, backends).1.is_none());
    let (key, _, value) = keys[BACKENDS_MAX];
    assert!(members.take(
        Step::Changed(vec![entry(key, 2, Some(value))]),
        &Notify::new()
    ));
    let (found, error) = keyed::answer(&members, backends);
    assert_eq!(found.unwrap().backends.len(), BACKENDS_MAX);
    let want = "more than 1000 keys under `/p/`: others are left out";
    assert_eq!(error.as_deref(), Some(want));
    // The end of one makes room: all are listed again.
    let again = Notify::new();
    members.take(Step::Changed(vec![entry("k0000", 3, None)]), &again);
    let notified = tokio::task::unconstrained(again.notified());
    assert!(futures_util::FutureExt::now_or_never(notified).is_some());
}
