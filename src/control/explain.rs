//! Explains where sessions went, from the records of the workers, and where a client would go.

mod dry_run;
mod listeners;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::Reply;
use crate::admin::model::{
    AttemptStatus, CandidateStatus, DecisionStatus, KeyStatus, SessionExplanation,
};
use crate::config::{SNI_MEMBER, Strategy};
use crate::kernel::Errno;
use crate::peek::{FirstBytes, Spoken};
use crate::select::{Considered, Keys, Rated, Rating, Why};
use crate::session::CloseReason;
use crate::snapshot::Snapshot;
use crate::sys;
use crate::time::{US, between, seconds};
use crate::worker::{Decided, DecisionFilter, DecisionRecord, FailedConnect};

use super::aside;
use super::calls::silent;
use super::names::{BackendLabel, Names, PastNames};
use super::replies::Replies;
pub(super) use dry_run::preview;
use route::TakenRoute;
pub(super) use route::{met, route, tenths};

/// The state that numbers are resolved by.
pub(super) struct NameSource {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) past: Arc<PastNames>,
}

/// Answers with the decisions that match, once the workers have told theirs.
pub(super) async fn explain(
    asked: Replies<Vec<Decided>>,
    filter: DecisionFilter,
    known: NameSource,
    reply: Reply<Result<Vec<SessionExplanation>, String>>,
) {
    let answers = asked.gather().await;
    if let Some(why) = silent(&answers) {
        return drop(reply.send(Err(format!("cannot explain: {why}: try again"))));
    }
    let mut all: Vec<_> = answers.all.into_iter().flatten().collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.record.opened_at));
    all.truncate(filter.last as usize);
    drop(aside::compute(move || {
        let numbers = all.iter().flat_map(|one| numbers(&one.record));
        let names = known.past.resolve(&known.snapshot, &numbers.collect());
        let now = (sys::monotonic(), SystemTime::now());
        let explained = all
            .iter()
            .map(|one| session(one, (&names, &known.snapshot), now));
        drop(reply.send(Ok(explained.collect())));
    }));
}

/// The numbers of all backends that a record names.
fn numbers(decision: &DecisionRecord) -> impl Iterator<Item = u32> {
    let attempts = decision.attempts().iter().map(|attempt| attempt.backend);
    considered_numbers(&decision.considered).chain(attempts)
}

fn considered_numbers(considered: &Considered) -> impl Iterator<Item = u32> {
    considered.listed().iter().map(|rated| rated.number)
}

fn session(
    decided: &Decided,
    (names, snapshot): (&Names, &Snapshot),
    (now, clock): (u64, SystemTime),
) -> SessionExplanation {
    let its = &decided.record;
    let end = its.end.as_ref();
    let made = its.considered.why.is_some();
    let taken = taken(decided, snapshot).unwrap_or_default();
    SessionExplanation {
        session: decided.id.to_string(),
        listener: names.listener(its.listener),
        route: taken.number,
        route_name: taken.name,
        route_says: taken.says,
        sni: decided.server_name.clone(),
        client: its.client.map(|client| client.to_string()),
        proxy: its.proxy.map(|proxy| proxy.to_string()),
        pool: names.pool(its.pool),
        strategy: its.considered.strategy.to_owned(),
        opened_at: humantime::format_rfc3339_millis(clock - between(its.opened_at, now))
            .to_string(),
        age_s: seconds(now.saturating_sub(its.opened_at)),
        state: if end.is_some() { "closed" } else { "open" }.to_owned(),
        keys: keys(its.key_names, its.keys),
        decision: made.then(|| decision(&its.considered, names)),
        attempts: attempts(its, names),
        attempts_failed: its.failed,
        queued_us: end.and_then(|end| end.queued),
        connect_us: end.and_then(|end| end.connect),
        first_byte_us: end.and_then(|end| end.first_byte),
        total_us: end.map(|end| end.lasted / US),
        bytes_up: end.map(|end| end.delivered[0]),
        bytes_down: end.map(|end| end.delivered[1]),
        reason: end.map(|end| end.reason.to_string()),
        cause: decided.cause.clone(),
    }
}

/// The route that a session took.
#[derive(Default)]
struct TakenStatus {
    number: Option<u64>,
    name: Option<String>,
    says: Option<String>,
}

/// The route that a session took, and why; `None`: none was decided, or the listener has none.
fn taken(decided: &Decided, snapshot: &Snapshot) -> Option<TakenStatus> {
    let its = &decided.record;
    let is_refused = its
        .end
        .is_some_and(|end| end.reason == CloseReason::NoRoute);
    let is_decided = its.considered.why.is_some_and(|why| why != Why::Cancels);
    let mut listeners = snapshot.listeners.iter();
    let listener = listeners.find(|listener| listener.id == its.listener)?;
    let same = listener.routes.version() == its.routes;
    if !(is_refused || is_decided) || same && listener.routes.is_empty() {
        return None;
    }
    if !same {
        let says = "the routes of its listener have changed since".to_owned();
        return Some(TakenStatus {
            says: Some(says),
            ..TakenStatus::default()
        });
    }
    let name = decided.server_name.as_deref();
    let hello = name.and_then(|name| Spoken::of_name(name).first_bytes());
    let first = hello.as_deref();
    let first = first.map_or_else(FirstBytes::none, |hello| FirstBytes::new(hello, true));
    let client = its.client.map(|client| client.ip());
    let taken = TakenRoute::of_past(listener, its.route, (client, &first));
    Some(TakenStatus {
        number: taken.number(),
        name: taken.name(),
        says: Some(taken.says()),
    })
}

fn keys(names: [Option<&'static str>; 2], keys: Keys) -> Vec<KeyStatus> {
    let both = [("select", keys.select), ("persist", keys.persist)];
    let both = both.into_iter().zip(names);
    let known = both.filter_map(|((purpose, hash), kind)| {
        let kind = kind?;
        let is_member = kind == SNI_MEMBER;
        Some(KeyStatus {
            purpose: purpose.to_owned(),
            kind: kind.to_owned(),
            hash: match hash.checked_sub(1) {
                Some(number) if is_member => number.to_string(),
                None if is_member => "none".to_owned(),
                Some(_) | None => format!("{hash:016x}"),
            },
            missed: !is_member && !kind.starts_with("source_ip") && hash == keys.source,
        })
    });
    known.collect()
}

fn attempts(its: &DecisionRecord, names: &Names) -> Vec<AttemptStatus> {
    let failed = its.attempts().iter().map(|attempt| {
        let label = names.backend(attempt.backend);
        let FailedConnect { errno, fault, .. } = *attempt;
        AttemptStatus {
            backend: label.name,
            address: label.address,
            outcome: fault.outcome(errno).to_owned(),
            says: match fault.outcome(errno) {
                "timeout" => "no answer in time".to_owned(),
                "tls_refused" => "the server has no TLS for it".to_owned(),
                "no_source_address" => "this machine lacks the source address".to_owned(),
                _ => in_words(errno),
            },
            us: attempt.took,
        }
    });
    let stood = its.connected.map(|us| {
        let label = names.backend(its.considered.chosen);
        AttemptStatus {
            backend: label.name,
            address: label.address,
            outcome: "connected".to_owned(),
            says: "connected".to_owned(),
            us,
        }
    });
    failed.chain(stood).collect()
}

/// An error's text, as `Connection refused`.
fn in_words(errno: Errno) -> String {
    let text = errno.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_owned()
}

fn chosen(considered: &Considered, names: &Names) -> Option<BackendLabel> {
    (considered.chosen != 0).then(|| names.backend(considered.chosen))
}

fn decision(considered: &Considered, names: &Names) -> DecisionStatus {
    let label = chosen(considered, names);
    let counts = Rating::ALL.into_iter().zip(considered.passed_over);
    let counts = counts.filter(|(_, count)| *count > 0);
    let why = considered.why.unwrap_or(Why::NoneUsable);
    let name = label.as_ref().map(|label| label.name.as_str());
    DecisionStatus {
        why: word(why).to_owned(),
        says: sentence(why, name.unwrap_or_default(), considered),
        backend: label.as_ref().map(|label| label.name.clone()),
        address: label.map(|label| label.address),
        score_is: considered
            .score_is
            .map(|what| format!("{what}; the lowest wins")),
        candidates: considered
            .listed()
            .iter()
            .map(|rated| candidate(rated, considered.strategy, names))
            .collect(),
        backends: considered.backends,
        passed_over: counts
            .map(|(verdict, count)| (verdict.as_str().to_owned(), count))
            .collect::<BTreeMap<_, _>>(),
        not_looked_at: considered.backends - considered.looked_at,
    }
}

fn candidate(rated: &Rated, strategy: &str, names: &Names) -> CandidateStatus {
    let label = names.backend(rated.number);
    // Three digits say enough, and 0.1 is not 0.10000000149.
    let score = f64::from(rated.score);
    let score = score
        .is_finite()
        .then(|| (score * 1_000.0).round() / 1_000.0);
    CandidateStatus {
        backend: label.name,
        address: label.address,
        score,
        verdict: rated.verdict.as_str().to_owned(),
        says: verdict(rated.verdict, strategy).to_owned(),
    }
}

/// The strategy of a name, with default settings.
fn strategy(name: &str) -> Strategy {
    let mut all = Strategy::all().into_iter();
    let found = all.find(|(known, _)| *known == name);
    found.map(|(_, strategy)| strategy).unwrap_or_default()
}

fn word(why: Why) -> &'static str {
    match why {
        Why::Strategy => "strategy",
        Why::Remembered => "remembered",
        Why::FailingShare => "failing_share",
        Why::Backup => "backup",
        Why::EjectedOnly => "ejected_only",
        Why::Untried => "untried",
        Why::DownOnly => "down_only",
        Why::TriedAgain => "tried_again",
        Why::Named => "named",
        Why::Cancels => "cancels",
        Why::Full => "full",
        Why::NoneUsable => "none_usable",
    }
}

/// Why a selection came out as it did, in a sentence.
fn sentence(why: Why, backend: &str, considered: &Considered) -> String {
    let reason = match strategy(considered.strategy) {
        Strategy::RoundRobin | Strategy::StickyRoundRobin(_) => "it was its turn",
        Strategy::Hash(_) => "the client's key leads there",
        Strategy::LeastConnections => "it has the fewest connections for its weight",
        Strategy::LeastTime(_) => "it would answer soonest",
        Strategy::Random => "it was drawn by chance, by weight",
        Strategy::PowerOfTwo => "it is the less loaded of two that were drawn",
        Strategy::First => "it is the first in the order of the pool that has room",
        Strategy::TwoTier(_) => "it is the best of the tier that was picked",
        Strategy::Predictive(_) => "it will use the least of its capacity",
    };
    let why = match why {
        Why::Strategy => reason.to_owned(),
        Why::Remembered => "the client had it before".to_owned(),
        Why::FailingShare => "it failed last, and its share of the clients still goes there".into(),
        Why::Backup => format!("of the backups, as no other can be used; {reason}"),
        Why::EjectedOnly => "it is ejected, and no other can be used".to_owned(),
        Why::Untried => format!("an attempt on another failed; of the rest, {reason}"),
        Why::DownOnly => "its checks fail, and all others were tried".to_owned(),
        Why::TriedAgain => "all were tried, so it is tried again".to_owned(),
        Why::Named => "the client's name leads there".to_owned(),
        Why::Cancels => "it has the session that the client asks to cancel".to_owned(),
        Why::Full if considered.strategy == SNI_MEMBER => {
            return "none was selected: the backend of the client's name has the connections that \
                    it may have, or its pool has"
                .into();
        }
        Why::NoneUsable if considered.strategy == SNI_MEMBER => {
            return "none was selected: the client's name leads to no backend that can be used"
                .into();
        }
        Why::Full => {
            return "none was selected: all that are usable have the connections that they may \
                    have"
                .into();
        }
        Why::NoneUsable => return "none was selected: no backend of the pool can be used".into(),
    };
    format!("{backend} was selected: {why}")
}

/// Why a backend was not selected.
fn verdict(verdict: Rating, by: &str) -> &'static str {
    match verdict {
        Rating::Chosen => "chosen",
        Rating::Strategy if by == SNI_MEMBER => "the client's name leads to another, or to none",
        Rating::Strategy => match strategy(by) {
            Strategy::RoundRobin | Strategy::StickyRoundRobin(_) => "its turn comes later",
            Strategy::Hash(_) => "the client's key leads to another",
            Strategy::LeastConnections
            | Strategy::LeastTime(_)
            | Strategy::PowerOfTwo
            | Strategy::Predictive(_) => "its score is no better",
            Strategy::Random => "another was drawn",
            Strategy::First => "it comes later in the order",
            Strategy::TwoTier(_) => "it is not the best of the tier",
        },
        Rating::NotDrawn => "another was drawn",
        Rating::Remembered => "the client had another before",
        Rating::Tier => "it is in another group or subset",
        Rating::MaxLoad => "its load is at max_load",
        Rating::Failing => "it failed last, so it gets no more than its share",
        Rating::SlowStart => "in slow start: it gets a part of its share",
        Rating::Backup => "backup: only while no other can be used",
        Rating::Tried => "an attempt on it failed, or could not be made",
        Rating::Full => "full",
        Rating::BacklogFull => "the backlog of its socket is full",
        Rating::Ejected => "ejected",
        Rating::Down => "down: its checks fail",
        Rating::Drain => "drained by the operator",
        Rating::Maint => "in maintenance",
        Rating::Standby => "in reserve",
        Rating::Weightless => "its weight is 0",
        Rating::Unresolved => "its host name has no address",
    }
}
