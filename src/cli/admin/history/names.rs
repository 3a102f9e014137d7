//! Names in a question that nothing recorded has: the user is told which there are.

use super::{HistoryArgs, answer};
use crate::admin::model::{HistoryAnswer, HistoryQuery, SubjectHistory};
use crate::cli::admin::client::ClientError;
use crate::config::values::known;

/// Refuses a name of a subject or a figure that was not recorded. In a time of which nothing is
/// recorded every name is right.
pub(super) async fn refuse_unknown(
    args: &HistoryArgs,
    query: &HistoryQuery,
    history: &HistoryAnswer,
) -> Result<(), ClientError> {
    for (what, name) in asked(query) {
        if names(history, what).any(|its| is(what, &name, its)) {
            continue;
        }
        // All that there is, in one interval or two: it may be too much for an answer.
        let Ok(all) = answer(args, &wider(query, what, history)).await else {
            continue;
        };
        let mut there: Vec<_> = names(&all, what).collect();
        if there.is_empty() || there.iter().any(|its| is(what, &name, its)) {
            continue;
        }
        if what == "figure" {
            there = there.into_iter().map(without_label).collect();
        }
        there.sort_unstable();
        there.dedup();
        let like: Vec<_> = there.iter().filter(|its| its.contains(&*name)).collect();
        let hint = match like.is_empty() {
            true => known(&name, there.iter().copied()),
            false => known(&name, like.into_iter().copied()),
        };
        let sentence = format!("no {what} called `{name}` was recorded in this time{hint}");
        return Err(ClientError::Refused(sentence));
    }
    Ok(())
}

/// Refuses a pool or a backend that was not recorded, of a question about events that found none.
pub(super) async fn refuse_unknown_subject(args: &HistoryArgs) -> Result<(), ClientError> {
    if args.pool.is_none() && args.backend.is_none() {
        return Ok(());
    }
    let query = HistoryQuery {
        since: Some(args.since.clone()),
        until: args.until.clone(),
        pool: args.pool.clone(),
        backend: args.backend.clone(),
        ..HistoryQuery::default()
    };
    let history = answer(args, &query).await?;
    refuse_unknown(args, &query, &history).await
}

/// Each name that is asked for, and what it is the name of.
fn asked(query: &HistoryQuery) -> Vec<(&'static str, String)> {
    let subjects = [
        ("pool", &query.pool),
        ("backend", &query.backend),
        ("listener", &query.listener),
    ];
    let subjects = subjects.into_iter();
    let subjects = subjects.filter_map(|(what, name)| Some((what, name.clone()?)));
    let figures = query.figures.iter().flat_map(|text| text.split(','));
    let figures = figures.map(str::trim).filter(|word| !word.is_empty());
    let figures = figures.map(|word| ("figure", word.to_owned()));
    subjects.chain(figures).collect()
}

/// The question for all names of a kind.
fn wider(query: &HistoryQuery, what: &str, history: &HistoryAnswer) -> HistoryQuery {
    let seconds = (history.until - history.since).clamp(1, STEP_MAX);
    let time = HistoryQuery {
        since: query.since.clone(),
        until: query.until.clone(),
        step: Some(format!("{seconds}s")),
        ..HistoryQuery::default()
    };
    if what == "figure" {
        return HistoryQuery {
            of: query.of.clone(),
            pool: query.pool.clone(),
            backend: query.backend.clone(),
            listener: query.listener.clone(),
            ..time
        };
    }
    HistoryQuery {
        of: Some(what.to_owned()),
        pool: query.pool.clone().filter(|_| what == "backend"),
        // All subjects have it.
        figures: Some("connections".to_owned()),
        ..time
    }
}

/// The names of a kind in an answer.
fn names<'a>(history: &'a HistoryAnswer, what: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    let subjects = history.subjects.iter();
    let name: fn(&SubjectHistory) -> Option<&str> = match what {
        "pool" => |subject| subject.pool.as_deref(),
        "backend" => |subject| subject.backend.as_deref(),
        "listener" => |subject| subject.listener.as_deref(),
        _ => {
            let figures = subjects.flat_map(|subject| subject.figures.keys());
            return Box::new(figures.map(String::as_str));
        }
    };
    Box::new(subjects.filter_map(name))
}

/// Whether a name is the one that is asked for: a figure without its label is all of them.
fn is(what: &str, asked: &str, name: &str) -> bool {
    name == asked || (what == "figure" && without_label(name) == asked)
}

fn without_label(figure: &str) -> &str {
    figure.split_once('.').map_or(figure, |(name, _)| name)
}

/// The longest step of a question: 400 days.
const STEP_MAX: u64 = 400 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_looked_for() {
        let query = HistoryQuery {
            pool: Some("web".to_owned()),
            figures: Some("connections, traffic.up,".to_owned()),
            ..HistoryQuery::default()
        };
        let want = [
            ("pool", "web"),
            ("figure", "connections"),
            ("figure", "traffic.up"),
        ];
        assert_eq!(
            asked(&query),
            want.map(|(what, name)| (what, name.to_owned()))
        );
        assert!(is("figure", "traffic", "traffic.up"));
        assert!(!is("figure", "traf", "traffic.up"));
        assert!(!is("pool", "web", "web.1"));
    }
}
