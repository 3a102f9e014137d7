//! What a question says of time, and what an answer says of it.

use super::*;

#[test]
fn the_step_that_a_refusal_names_is_enough() {
    let now = at(BEGIN);
    for since in ["7d", "30d", "4000d"] {
        let asked = |step: &str| {
            let query = HistoryQuery {
                since: Some(since.to_owned()),
                step: Some(step.to_owned()),
                ..HistoryQuery::default()
            };
            Asked::new(Question::new(&query, now).unwrap(), &[])
        };
        let why = asked("1s").unwrap_err().to_string();
        let (_, enough) = why.split_once("a step of ").unwrap();
        let (enough, _) = enough.split_once(' ').unwrap();
        assert!(asked(enough).is_ok(), "{why}");
    }
}

#[test]
fn an_interval_says_how_many_seconds_were_recorded() {
    let mut store = memory();
    // From the 50th second of a minute until the 10th of the one after next.
    for second in 50..130 {
        let batch = batch("a", 2, 5);
        store.write(BEGIN + second, &batch, &[]).unwrap();
    }
    let history = ask(&[&store], &since(BEGIN, "1m"), BEGIN + 130).unwrap();
    assert_eq!(sums(&history, "opened"), [Some(20), Some(120), Some(20)]);
    assert_eq!(history.subjects[0].recorded, [10, 60, 10]);
    // A question for a counter alone tells it too.
    let counter = HistoryQuery {
        figures: Some("opened".to_owned()),
        ..since(BEGIN, "1m")
    };
    let history = ask(&[&store], &counter, BEGIN + 130).unwrap();
    assert_eq!(history.subjects[0].recorded, [10, 60, 10]);
}

#[test]
fn a_date_is_its_midnight() {
    let query = HistoryQuery {
        since: Some("2026-01-31".to_owned()),
        until: Some("2026-02-01T00:00:00Z".to_owned()),
        ..HistoryQuery::default()
    };
    let question = Question::new(&query, at(BEGIN + 400 * 86_400)).unwrap();
    assert_eq!(question.until - question.since, 86_400);
}

#[test]
fn a_number_without_a_unit_is_no_time_ago() {
    for text in ["0", "3600"] {
        let query = since(0, "1m");
        let query = HistoryQuery {
            since: Some(text.to_owned()),
            ..query
        };
        let why = Question::new(&query, at(BEGIN)).unwrap_err().to_string();
        assert_eq!(
            why,
            format!(
                "invalid since `{text}`: expected how long ago with its unit, such as 3600s, or \
                 seconds since 1970, 946684800 or more"
            )
        );
    }
    assert!(Question::new(&since(946_684_800, "1d"), at(BEGIN)).is_ok());
}
