//! `mahoraga history`: what figures were, and what happened, of a running balancer or of its file.

mod names;

use std::path::Path;
use std::time::SystemTime;

use super::args::HistoryArgs;
use super::client::{Client, ClientError, path, query};
use super::table::{Align, Paint, Table};
use super::units::{bytes, micros, plain, rate};
use super::{print, show};
use crate::admin::model::{
    FigureHistory, HistoryAnswer, HistoryEvent, HistoryEventQuery, HistoryQuery, Measured,
    SubjectHistory,
};
use crate::history::{
    AskError, Asked, EVENTS_MAX, EventQuestion, Question, Span, Store, StoreError, open_to_read,
};

pub(super) async fn history(args: &HistoryArgs) -> Result<(), ClientError> {
    if args.events {
        return events(args).await;
    }
    let is_table = !args.csv && !args.options.json;
    let is_named = args.pool.is_some() || args.backend.is_some() || args.listener.is_some();
    let of = is_table && !is_named && args.of.is_none();
    let query = HistoryQuery {
        since: Some(args.since.clone()),
        until: args.until.clone(),
        step: args
            .step
            .clone()
            .or_else(|| is_table.then(|| step(&args.since)).flatten()),
        of: args.of.clone().or_else(|| of.then(|| "process".to_owned())),
        pool: args.pool.clone(),
        backend: args.backend.clone(),
        listener: args.listener.clone(),
        figures: args.figures.clone(),
    };
    let history = answer(args, &query).await?;
    names::refuse_unknown(args, &query, &history).await?;
    if args.csv {
        for note in &history.notes {
            crate::cli::say(&plain(note));
        }
        // A reader that closed standard output does not need the rest.
        let _ = print(&csv(&history));
        return Ok(());
    }
    if args.options.json {
        let json = serde_json::to_string(&history);
        let json = json.expect("the model has text for keys alone");
        // One line: there are a thousand numbers in it.
        let _ = print(&(json + "\n"));
        return Ok(());
    }
    show(&args.options, &history, text);
    Ok(())
}

async fn answer(args: &HistoryArgs, query: &HistoryQuery) -> Result<HistoryAnswer, ClientError> {
    let Some(file) = &args.file else {
        return ask(args, "", query).await;
    };
    of_file(file, |store| {
        let question = Question::new(query, SystemTime::now())?;
        let span = store.span()?;
        let mut asked = Asked::new(question, &[span])?;
        asked.take(store, 0, u64::MAX)?;
        let mut history = asked.history();
        if history.subjects.is_empty() {
            history.notes.push(extent(&span));
        }
        Ok(history)
    })
}

/// What a file has, for a question that it has no answer to.
fn extent(span: &Span) -> String {
    match span.extent() {
        Some((first, last)) => format!("the file has {} to {}", clock(first, 1), clock(last, 1)),
        None => "the file has nothing".to_owned(),
    }
}

async fn events(args: &HistoryArgs) -> Result<(), ClientError> {
    let limit = args.limit.unwrap_or(EVENTS_MAX);
    let query = HistoryEventQuery {
        since: Some(args.since.clone()),
        until: args.until.clone(),
        pool: args.pool.clone(),
        backend: args.backend.clone(),
        // One more tells whether there are more.
        limit: Some((limit + 1).min(EVENTS_MAX)),
    };
    let mut events: Vec<HistoryEvent> = match &args.file {
        Some(file) => of_file(file, |store| {
            let question = EventQuestion::new(&query, SystemTime::now())?;
            let events = store.events(&question)?;
            if events.is_empty() {
                let extent = extent(&store.span()?);
                crate::cli::say(&format_args!("nothing was recorded in this time; {extent}"));
            }
            Ok(events.into_iter().map(HistoryEvent::from).collect())
        })?,
        None => ask(args, "/events", &query).await?,
    };
    if events.is_empty() {
        names::refuse_unknown_subject(args).await?;
    }
    let shown = limit as usize;
    if events.len() > shown || events.len() == EVENTS_MAX as usize {
        events.truncate(shown);
        let sentence = "are shown: name --until or --limit to see others";
        crate::cli::say(&format_args!("only the newest {shown} {sentence}"));
    }
    show(&args.options, &events, |events, _| {
        let lines = events.iter().rev().map(|event| {
            let message = event.message.lines().next().unwrap_or_default();
            format!("{}  {}  {}\n", event.at, event.kind, plain(message))
        });
        lines.collect()
    });
    Ok(())
}

async fn ask<T: serde::de::DeserializeOwned>(
    args: &HistoryArgs,
    part: &str,
    asked: &impl serde::Serialize,
) -> Result<T, ClientError> {
    let client = Client::new(&args.options)?;
    client
        .get(&(path(&["history"]) + part + &query(asked)))
        .await
}

/// Reads the file of a balancer that has stopped.
fn of_file<T>(
    file: &Path,
    read: impl FnOnce(&Store) -> Result<T, AskError>,
) -> Result<T, ClientError> {
    let failed = |error: AskError| match error {
        AskError::Wrong(why) => ClientError::Usage(why),
        AskError::Store(error) => {
            let file = file.display();
            let sentence = if matches!(error, StoreError::Foreign) {
                format!("{file} is not a history of mahoraga")
            } else if matches!(error, StoreError::Busy) {
                format!("cannot read {file}: {error}; a running balancer answers without --file")
            } else {
                format!("cannot read {file}: {error}")
            };
            ClientError::Refused(sentence)
        }
    };
    let store = open_to_read(file).map_err(|error| failed(error.into()))?;
    read(&store).map_err(failed)
}

/// The length of the lines of a table, for some 30 of them.
fn step(since: &str) -> Option<String> {
    let ago = humantime::parse_duration(since).ok()?.as_secs();
    let steps = [
        1, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400,
    ];
    let fits = steps.into_iter().find(|step| ago / step <= LINES);
    Some(format!("{}s", fits.unwrap_or(7 * 86_400)))
}

fn text(history: &HistoryAnswer, paint: Paint) -> String {
    let tables = history.subjects.iter().map(|subject| {
        let names = [&subject.listener, &subject.pool, &subject.backend];
        let names: Vec<_> = names
            .into_iter()
            .flatten()
            .map(|name| plain(name))
            .collect();
        let head = match history.subjects.len() {
            1 => String::new(),
            _ => format!("{} {}\n", subject.kind, names.join("/")),
        };
        head + &table(history, subject, paint)
    });
    let mut tables: Vec<_> = tables.collect();
    let notes = history.notes.iter().map(|note| plain(note));
    if tables.is_empty() {
        let nothing = std::iter::once("nothing was recorded in this time".to_owned());
        return nothing.chain(notes).collect::<Vec<_>>().join("; ") + "\n";
    }
    tables.extend(notes.map(|note| note + "\n"));
    tables.join("\n")
}

/// The figures that every kind of subject has, in a line for each interval.
fn table(history: &HistoryAnswer, subject: &SubjectHistory, paint: Paint) -> String {
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("CONN", Align::Right),
        ("MAX", Align::Right),
        ("NEW/S", Align::Right),
        ("UP/S", Align::Right),
        ("DOWN/S", Align::Right),
        ("FAILED", Align::Right),
        ("FIRST BYTE", Align::Right),
        ("P99", Align::Right),
    ]);
    // The others are of a second, and this is of a line.
    table.rename(FAILED, format!("FAILED/{}", short(history.step)));
    let find = |names: &[&str]| names.iter().find_map(|name| subject.figures.get(*name));
    let connections = find(&["connections"]);
    let new = find(&["worker_accepted", "opened"]);
    let [up, down] = ["up", "down"]
        .map(|way| find(&[&format!("worker_traffic.{way}"), &format!("traffic.{way}")]));
    let failed: Vec<_> = subject
        .figures
        .iter()
        .filter(|(name, _)| is_failure(name))
        .collect();
    let first_byte = find(&["worker_first_byte"]);
    for (nth, at) in history.at.iter().enumerate() {
        // It may have begun within the interval, or the interval may not be over.
        let recorded = subject.recorded.get(nth).copied();
        let seconds = recorded.filter(|its| *its > 0).unwrap_or(history.step);
        let seconds = f64::from(u32::try_from(seconds).unwrap_or(u32::MAX));
        let per_s = |figure: Option<&FigureHistory>| Some(sum(figure?, nth)? / seconds);
        let Some((mean, max)) = connections.and_then(|figure| gauge(figure, nth)) else {
            continue;
        };
        let failures = failed.iter().filter_map(|(_, figure)| sum(figure, nth));
        let failures: f64 = failures.sum();
        let cell = |text: Option<String>| text.unwrap_or_default().into();
        let quantiles = first_byte.and_then(|figure| quantiles(figure, nth));
        table.row([
            clock(*at, history.step).into(),
            number(mean).into(),
            number(max).into(),
            cell(per_s(new).map(number)),
            cell(per_s(up).map(bytes)),
            cell(per_s(down).map(bytes)),
            cell((failures > 0.0).then(|| number(failures))),
            cell(quantiles.map(|(p50, _)| micros(p50 * 1e6))),
            cell(quantiles.map(|(_, p99)| micros(p99 * 1e6))),
        ]);
    }
    table.text(paint)
}

/// A number, without a fraction where it is whole.
fn number(number: f64) -> String {
    let text = rate(number);
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// `30s`, `5m`, `1h`: the length of an interval.
fn short(step: u64) -> String {
    match step {
        _ if step.is_multiple_of(86_400) => format!("{}d", step / 86_400),
        _ if step.is_multiple_of(3_600) => format!("{}h", step / 3_600),
        _ if step.is_multiple_of(60) => format!("{}m", step / 60),
        _ => format!("{step}s"),
    }
}

/// Whether a figure counts clients or connects that failed.
fn is_failure(name: &str) -> bool {
    name == "worker_connect_failures"
        || name.starts_with("connect_failures.")
        || name.starts_with("refused.")
}

/// The time of an interval, without what all have the same.
fn clock(at: u64, step: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at.min(LATEST));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let text = text.trim_end_matches('Z').replace('T', " ");
    match step {
        0..60 => text + "Z",
        _ => text[..text.len() - 3].to_owned() + "Z",
    }
}

fn sum(figure: &FigureHistory, nth: usize) -> Option<f64> {
    match figure {
        FigureHistory::Counter { sum, .. } => sum.get(nth).copied()?.map(Measured::number),
        FigureHistory::Gauge { .. } | FigureHistory::Histogram { .. } => None,
    }
}

fn gauge(figure: &FigureHistory, nth: usize) -> Option<(f64, f64)> {
    match figure {
        FigureHistory::Gauge { mean, max, .. } => {
            Some((mean.get(nth).copied()??, max.get(nth).copied()??.number()))
        }
        FigureHistory::Counter { .. } | FigureHistory::Histogram { .. } => None,
    }
}

fn quantiles(figure: &FigureHistory, nth: usize) -> Option<(f64, f64)> {
    match figure {
        FigureHistory::Histogram { p50, p99, .. } => {
            Some((p50.get(nth).copied()??, p99.get(nth).copied()??))
        }
        FigureHistory::Counter { .. } | FigureHistory::Gauge { .. } => None,
    }
}

/// A line for each value: what is absent was not recorded.
fn csv(history: &HistoryAnswer) -> String {
    let mut text = "time,kind,listener,pool,backend,figure,value_of,value\n".to_owned();
    for subject in &history.subjects {
        let names = [&subject.listener, &subject.pool, &subject.backend];
        let names = names
            .map(|name| quoted(name.as_deref().unwrap_or_default()))
            .join(",");
        for (figure, values) in &subject.figures {
            for (nth, at) in history.at.iter().enumerate() {
                for (of, value) in values_at(values, nth) {
                    let (kind, figure) = (&subject.kind, quoted(figure));
                    text += &format!("{at},{kind},{names},{figure},{of},{value}\n");
                }
            }
        }
    }
    text
}

fn values_at(figure: &FigureHistory, nth: usize) -> Vec<(&'static str, String)> {
    let whole = |value: Option<&Option<Measured>>| {
        value.copied().flatten().map(|value| match value {
            Measured::Whole(whole) => whole.to_string(),
            Measured::Part(part) => part.to_string(),
        })
    };
    let part = |value: Option<&Option<f64>>| value.copied().flatten().map(|it| it.to_string());
    let all = match figure {
        FigureHistory::Counter { sum, .. } => vec![("sum", whole(sum.get(nth)))],
        FigureHistory::Gauge { mean, max, .. } => {
            vec![("mean", part(mean.get(nth))), ("max", whole(max.get(nth)))]
        }
        FigureHistory::Histogram {
            count: counts,
            p50,
            p99,
            p999,
            ..
        } => {
            let counted = counts.get(nth).copied().flatten();
            vec![
                ("count", counted.map(|count| count.to_string())),
                ("p50", part(p50.get(nth))),
                ("p99", part(p99.get(nth))),
                ("p999", part(p999.get(nth))),
            ]
        }
    };
    all.into_iter()
        .filter_map(|(of, value)| Some((of, value?)))
        .collect()
}

/// A field of CSV (RFC 4180). A spreadsheet takes what begins like a formula for text.
fn quoted(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// The column of failures.
const FAILED: usize = 6;
/// Lines of a table.
const LINES: u64 = 60;
/// The last second of the year 9999.
const LATEST: u64 = 253_402_300_799;
