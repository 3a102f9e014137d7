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

fn day(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(number * DAY)
}

fn expires(file: &str, days: u64) -> String {
    format!("the certificate in {file} expires in {days} d")
}

#[test]
fn each_certificate_is_told_at_30_7_and_1_days_and_when_it_has_expired() {
    let shown = [certificate("a", 100), certificate("b", 110)];
    let mut warned = Warned::default();
    let told = (0..120).filter_map(|today| Some((today, warned.news(&shown, day(today))?)));
    let told: Vec<_> = told.collect();
    let expected = [
        (70, expires("a", 30)),
        (80, expires("b", 30)),
        (93, expires("a", 7)),
        (99, expires("a", 1)),
        (100, has_expired("a")),
        (103, expires("b", 7)),
        (109, expires("b", 1)),
        (110, has_expired("b")),
    ];
    assert_eq!(told, expected);
}

#[test]
fn an_expired_certificate_hides_no_other() {
    let shown = [certificate("a", 10), certificate("b", 110)];
    let told = Warned::default().news(&shown, day(105)).unwrap();
    assert_eq!(told, format!("{}; {}", has_expired("a"), expires("b", 5)));
    let expired: Vec<_> = expired(&shown, day(105)).collect();
    assert_eq!(expired, [has_expired("a")]);
}

#[test]
fn another_certificate_in_the_same_file_is_told_too() {
    let mut warned = Warned::default();
    let mut news = |shown: &[CertificateStatus]| warned.news(shown, day(99));
    let (a, b) = (certificate("a", 100), certificate("b", 100));
    assert_eq!(news(std::slice::from_ref(&a)), Some(expires("a", 1)));
    assert_eq!(news(&[a.clone(), b]), Some(expires("b", 1)));
    assert_eq!(news(&[a.clone(), a]), None, "the same file twice is one");
    assert_eq!(news(&[certificate("a", 102)]), Some(expires("a", 3)));
}

#[test]
fn an_event_names_some_of_many() {
    let all: Vec<_> = (0..20).map(|n| certificate(&n.to_string(), 100)).collect();
    let told = Warned::default().news(&all, day(100)).unwrap();
    assert!(told.ends_with("; 12 more expire or have expired"), "{told}");
    assert_eq!(told.matches("has expired").count(), NAMED_MAX, "{told}");
}
