//! Tests of [`super`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

fn certificate(file: &str, day: u64) -> CertificateStatus {
    CertificateStatus {
        file: file.to_owned(),
        names: Vec::new(),
        expires: i64::try_from(day * DAY).unwrap() - 1,
    }
}

fn certificates(all: impl IntoIterator<Item = CertificateStatus>) -> Shown {
    Shown {
        certificates: all.into_iter().collect(),
        ..Shown::default()
    }
}

fn day(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(number * DAY)
}

fn expired(file: &str) -> String {
    format!("the certificate in {file} has expired")
}

fn expires(file: &str, days: u64) -> String {
    format!("the certificate in {file} expires in {days} d")
}

#[test]
fn each_certificate_is_told_at_30_7_and_1_days_and_when_it_has_expired() {
    let shown = certificates([certificate("a", 100), certificate("b", 110)]);
    let mut warned = Warned::default();
    let told = (0..120).filter_map(|today| Some((today, warned.news(&shown, day(today))?)));
    let told: Vec<_> = told.collect();
    let expected = [
        (70, expires("a", 30)),
        (80, expires("b", 30)),
        (93, expires("a", 7)),
        (99, expires("a", 1)),
        (100, expired("a")),
        (103, expires("b", 7)),
        (109, expires("b", 1)),
        (110, expired("b")),
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_expired_certificate_hides_no_other() {
    let shown = certificates([certificate("a", 10), certificate("b", 110)]);
    let told = Warned::default().news(&shown, day(105)).unwrap();
    assert_eq!(told, format!("{}; {}", expired("a"), expires("b", 5)));
    let all: Vec<_> = shown.expired(day(105)).collect();
    assert_eq!(all, [expired("a")]);
}

#[test]
fn another_certificate_in_the_same_file_is_told_too() {
    let mut warned = Warned::default();
    let mut news = |all: &[(&str, u64)]| {
        let all = all.iter().map(|(file, day)| certificate(file, *day));
        warned.news(&certificates(all), day(99))
    };
    let (a, b) = (("a", 100), ("b", 100));
    assert_eq!(news(&[a]), Some(expires("a", 1)));
    assert_eq!(news(&[a, b]), Some(expires("b", 1)));
    assert_eq!(news(&[a, a]), None, "the same file twice is one");
    assert_eq!(news(&[("a", 102)]), Some(expires("a", 3)));
}

#[test]
fn an_event_names_some_of_many() {
    let all = (0..20).map(|n| certificate(&n.to_string(), 100));
    let told = Warned::default().news(&certificates(all), day(100));
    let told = told.unwrap();
    assert!(told.ends_with("; 12 more expire or have expired"), "{told}");
    assert_eq!(told.matches("has expired").count(), NAMED_MAX, "{told}");
}

#[test]
fn a_revocation_list_is_told_a_day_before_and_when_it_has_expired() {
    let shown = Shown {
        revocation_lists: vec![RevocationListStatus {
            file: "a.crl".to_owned(),
            issuer: "CN=a".to_owned(),
            revoked: 0,
            expires: certificate("a.crl", 100).expires,
        }],
        ..Shown::default()
    };
    let mut warned = Warned::default();
    let told = (0..120).filter_map(|today| Some((today, warned.news(&shown, day(today))?)));
    let told: Vec<_> = told.collect();
    let list = "the revocation list of `CN=a` in a.crl";
    let refused = "certificates of this issuer are refused until a new one";
    let expected = [
        (99, format!("{list} expires in 1 d")),
        (100, format!("{list} has expired: {refused}")),
    ];
    assert_eq!(told, expected);
}
