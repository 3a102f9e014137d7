//! Which sessions the access log takes, and which fields a line has.

use super::*;
use crate::config::{LogField, LogOnly};
use crate::session::CloseReason;

#[test]
fn the_access_log_says_which_sessions_and_fields_it_has() {
    let log = |log: &str| {
        let text = SMALLEST.replacen('(', &format!("(access_log: ({log}), "), 1);
        read(&text).map(|(config, _)| config.access_log.unwrap_or_default())
    };
    let reasons = log("only: [\"idle_timeout\", \"killed\"]").unwrap().only;
    let want = vec![CloseReason::IdleTimeout, CloseReason::Killed];
    assert_eq!(reasons, LogOnly::Reasons(want));
    assert_eq!(log("only: \"errors\"").unwrap().only, LogOnly::Errors);
    let fields = log("fields: [\"sample\", \"standard\"]")
        .unwrap()
        .written_fields();
    assert_eq!(fields[..2], [LogField::Sample, LogField::Time]);
    assert_eq!(fields.last(), Some(&LogField::DryRun));
    // One that the group has too stands where its name does.
    let moved = log("fields: [\"proxy\", \"standard\"]").unwrap();
    let moved = moved.written_fields();
    let places = moved.iter().enumerate();
    let places = places.filter_map(|(at, field)| (*field == LogField::Proxy).then_some(at));
    assert_eq!(places.collect::<Vec<_>>(), [0]);
    assert_eq!(moved.len(), fields.len() - 1);
    let refused = |text: &str| {
        let error = log(text).unwrap_err().to_string();
        let sentence = error.lines().next().unwrap_or_default().to_owned();
        sentence
            .split_once(": ")
            .map(|(_, sentence)| sentence.to_owned())
            .unwrap()
    };
    for (text, want) in [
        (
            "only: \"error\"",
            "invalid `only` `\"error\"`: expected \"all\", \"errors\" or a list of close reasons \
             such as [\"idle_timeout\"]",
        ),
        (
            "only: [\"idle\"]",
            "invalid item of `only` `idle`: expected `client_closed`, `backend_closed`, ",
        ),
        (
            "only: []",
            "only: expected a reason: without one no session has a line",
        ),
        (
            "fields: [\"cliant\"]",
            "invalid item of `fields` `cliant`, did you mean `client`?",
        ),
        (
            "fields: [\"client\", \"standard\", \"client\"]",
            "fields: `client` is there twice: leave one out",
        ),
        (
            "only: \"errors\", start: true",
            "start: expected `only: \"all\"` with it: how a session ends is not known before",
        ),
        (
            "progress: \"5m\", only: [\"killed\"]",
            "progress: expected `only: \"all\"` with it",
        ),
        (
            "fields: []",
            "fields: expected a field: a line can't be without one",
        ),
    ] {
        let sentence = refused(text);
        assert!(sentence.contains(want), "{text}: {sentence}");
    }
}
