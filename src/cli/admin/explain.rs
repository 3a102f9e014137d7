//! `mahoraga explain`: where sessions went and why, or where a client would go.

use std::fmt::Write;

use super::args::ExplainArgs;
use super::client::{Client, ClientError, path, query};
use super::show;
use super::table::{Align, Cell, Paint, Table, Tone};
use super::units::{bytes, micros, plain, span};
use crate::admin::model::{
    AttemptStatus, CandidateStatus, DecisionStatus, DryRunQuery, DryRunStatus, ExplainQuery,
    KeyStatus, RouteQuestion, SessionExplanation, client_address,
};
use crate::config::SNI_MEMBER;
use crate::session::CloseReason;
use crate::worker::DECISIONS;

pub(super) async fn explain(args: &ExplainArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    if let Some(ip) = args.asked.client {
        let said = args.asked.question();
        let asked = DryRunQuery {
            pool: args.subject.clone(),
            listener: args.listener.clone(),
            client: ip.to_string(),
            sni: said.sni,
            url: args.url.clone(),
            alpn: said.alpn,
            protocol: said.protocol,
            http_host: said.http_host,
            http_path: said.http_path,
            proxy_tlv: said.proxy_tlv,
            tls_client: said.tls_client,
        };
        let told: DryRunStatus = client
            .get(&(path(&["explain", "dry_run"]) + &query(&asked)))
            .await?;
        show(&args.options, &told, |told, paint| {
            dry_run_text(told, asked.sni.as_deref(), paint)
        });
        return Ok(());
    }
    if args.asked.question() != RouteQuestion::default() {
        let why = "what a client says is asked with --client, its address";
        return Err(ClientError::Usage(why.to_owned()));
    }
    let about = args.subject.as_deref().unwrap_or_default();
    let asked = subject(about, args.last)?;
    let told: Vec<SessionExplanation> = client.get(&(path(&["explain"]) + &query(&asked))).await?;
    if told.is_empty() && !args.options.json {
        let why = format!(
            "no session of {} is remembered: each worker remembers its last {DECISIONS}",
            plain(about)
        );
        return Err(ClientError::Refused(why));
    }
    show(&args.options, &told, |told, paint| {
        let each = told.iter().map(|one| session_text(one, paint));
        each.collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// What a user asks about: a session's id, or a client's address.
fn subject(text: &str, last: u32) -> Result<ExplainQuery, ClientError> {
    let last = Some(last);
    if let Ok(session) = text.parse() {
        return Ok(ExplainQuery {
            session: Some(session),
            last,
            ..ExplainQuery::default()
        });
    }
    client_address(text).map_err(|_| {
        let expected = "expected a session's id such as 0-17, or a client's address";
        ClientError::Usage(format!(
            "invalid session or client \"{}\": {expected}",
            plain(text)
        ))
    })?;
    Ok(ExplainQuery {
        client: Some(text.to_owned()),
        last,
        ..ExplainQuery::default()
    })
}

fn session_text(its: &SessionExplanation, paint: Paint) -> String {
    let client = its.client.as_deref().unwrap_or("a Unix socket");
    let mut pool = plain(&its.pool);
    if !its.strategy.is_empty() {
        let _ = write!(pool, " ({})", plain(&its.strategy));
    }
    let by = its.proxy.as_deref().map_or_else(String::new, |proxy| {
        format!(" behind proxy {}", plain(proxy))
    });
    let mut text = format!(
        "Session {}: from {}{by} by listener {} to pool {pool}, {} ago.\n",
        plain(&its.session),
        plain(client),
        plain(&its.listener),
        span(its.age_s),
    );
    if let Some(says) = &its.route_says {
        let _ = writeln!(text, "Its route: {}.", plain(says));
    }
    if let Some(sni) = &its.sni {
        let _ = writeln!(text, "It asked for {} in TLS.", plain(sni));
    }
    text += &outcome(its);
    text.push_str(&keys_text(&its.keys, its.sni.as_deref()));
    match &its.decision {
        Some(decision) => text += &decision_text("Decision", decision, paint),
        None if is_refused(its) => {
            text.push_str("It was refused before a backend was selected.\n");
            return text;
        }
        None => text.push_str("No backend was selected: the session ended before that.\n"),
    }
    text += &attempts_text(its, paint);
    text
}

/// Whether a rule, or a worker that had too much to do, refused its client.
fn is_refused(its: &SessionExplanation) -> bool {
    let mut all = CloseReason::ALL.into_iter();
    let reason = all.find(|reason| Some(reason.as_str()) == its.reason.as_deref());
    reason.is_some_and(CloseReason::is_refusal)
}

/// How far the session has come, or how it ended.
fn outcome(its: &SessionExplanation) -> String {
    let Some(reason) = &its.reason else {
        return "It is open.\n".to_owned();
    };
    let mut text = format!("It ended: {}", plain(reason));
    if let Some(us) = its.total_us {
        let _ = write!(text, " after {}", micros(us as f64));
    }
    let waits = [
        ("waited in the queue", its.queued_us),
        ("connected after", its.connect_us),
        ("first byte after", its.first_byte_us),
    ];
    for (what, us) in waits {
        if let Some(us) = us {
            let _ = write!(text, ", {what} {}", micros(f64::from(us)));
        }
    }
    if let (Some(up), Some(down)) = (its.bytes_up, its.bytes_down) {
        let _ = write!(
            text,
            ", {} up, {} down",
            bytes(up as f64),
            bytes(down as f64)
        );
    }
    text += ".\n";
    if let Some(cause) = &its.cause {
        let _ = writeln!(text, "The cause: {}.", plain(cause));
    }
    text
}

fn keys_text(keys: &[KeyStatus], sni: Option<&str>) -> String {
    let each = keys.iter().map(|key| {
        let what = match key.purpose.as_str() {
            "persist" => "Remembered by",
            _ => "Selected by",
        };
        let stands_in = if key.missed {
            ", which its first bytes lacked: its address stands in"
        } else {
            ""
        };
        if key.kind == SNI_MEMBER {
            return match (key.hash.as_str(), sni) {
                ("none", None) => format!("{what} {SNI_MEMBER}: it asked for no name.\n"),
                ("none", Some(_)) => format!("{what} {SNI_MEMBER}: no member has its name.\n"),
                (number, _) => format!("{what} {SNI_MEMBER}: member {}.\n", plain(number)),
            };
        }
        format!(
            "{what} {} (hash {}){stands_in}.\n",
            plain(&key.kind),
            plain(&key.hash)
        )
    });
    each.collect()
}

fn decision_text(what: &str, decision: &DecisionStatus, paint: Paint) -> String {
    let mut text = format!("{what}: {}.\n\n", plain(&decision.says));
    let mut table = Table::new(&[
        ("backend", Align::Left),
        ("address", Align::Left),
        ("score", Align::Right),
        ("why", Align::Left),
    ]);
    for one in &decision.candidates {
        table.row([
            one.backend.as_str().into(),
            other_than(&one.address, &one.backend).into(),
            one.score
                .map(|score| score.to_string())
                .unwrap_or_default()
                .into(),
            verdict(one),
        ]);
    }
    text += &table.text(paint);
    let listed = decision.candidates.len();
    let more = usize::from(decision.backends).saturating_sub(listed);
    if more > 0 {
        let counts = decision.passed_over.iter();
        let counts: Vec<_> = counts
            .map(|(why, count)| format!("{count} {}", plain(why)))
            .collect();
        let _ = writeln!(text, "and {more} more; passed over: {}", counts.join(", "));
    }
    if let Some(what) = &decision.score_is {
        let _ = writeln!(text, "score: {}", plain(what));
    }
    text
}

fn verdict(one: &CandidateStatus) -> Cell {
    let tone = match one.verdict.as_str() {
        "chosen" => Tone::Good,
        "tried" | "ejected" | "down" | "failing" | "unresolved" => Tone::Bad,
        "full" | "backlog_full" | "max_load" => Tone::Warning,
        _ => Tone::Plain,
    };
    Cell::toned(one.says.as_str(), tone)
}

/// An address that says more than the name.
fn other_than<'a>(address: &'a str, name: &str) -> &'a str {
    if address == name { "" } else { address }
}

fn attempts_text(its: &SessionExplanation, paint: Paint) -> String {
    if its.attempts.is_empty() {
        return "\nNo connect to a backend was made.\n".to_owned();
    }
    let mut table = Table::new(&[
        ("connect", Align::Right),
        ("backend", Align::Left),
        ("address", Align::Left),
        ("outcome", Align::Left),
        ("took", Align::Right),
    ]);
    let failed = its.attempts_failed as usize;
    let kept = its.attempts.iter().filter(|one| !has_stood(one)).count();
    for (nth, one) in its.attempts.iter().enumerate() {
        let nth = if has_stood(one) { failed } else { nth };
        let (outcome, tone) = if has_stood(one) {
            (one.outcome.clone(), Tone::Good)
        } else if one.outcome.starts_with('E') {
            (format!("{} ({})", one.outcome, one.says), Tone::Bad)
        } else {
            (one.says.clone(), Tone::Bad)
        };
        table.row([
            (nth + 1).to_string().into(),
            one.backend.as_str().into(),
            other_than(&one.address, &one.backend).into(),
            Cell::toned(outcome, tone),
            micros(f64::from(one.us)).into(),
        ]);
    }
    let mut text = format!("\n{}", table.text(paint));
    if failed > kept {
        let _ = writeln!(text, "and {} more that failed", failed - kept);
    }
    text
}

fn has_stood(attempt: &AttemptStatus) -> bool {
    attempt.outcome == "connected"
}

fn dry_run_text(told: &DryRunStatus, sni: Option<&str>, paint: Paint) -> String {
    let client = plain(&told.client);
    if told.pool.is_empty() {
        let why = told.listeners.iter().find_map(|one| one.route.as_ref());
        let why = why.map_or_else(String::new, |route| format!(": {}", plain(&route.says)));
        return format!("A client of {client} would be refused{why}.\n");
    }
    let goes = match &told.decision.backend {
        _ if told.refused => "would be refused".to_owned(),
        _ if told.elsewhere => "would go elsewhere".to_owned(),
        Some(backend) => format!("would go to {}", plain(backend)),
        None => "would get no backend".to_owned(),
    };
    let joint = if told.elsewhere { "not to" } else { "in" };
    let mut text = format!(
        "A client of {client} {goes}, {joint} pool {} ({}).\n",
        plain(&told.pool),
        plain(&told.strategy)
    );
    text.push_str(&refusals_text(told));
    text.push_str(&routes_text(told));
    text.push_str(&keys_text(&told.keys, sni));
    let what = match (told.refused, told.elsewhere) {
        (true, _) => "If it were let in",
        (false, true) => "If it came here",
        (false, false) => "Decision",
    };
    text += &decision_text(what, &told.decision, paint);
    let differs = told
        .workers
        .iter()
        .any(|one| one.backend != told.decision.backend);
    if differs {
        let mut table = Table::new(&[
            ("worker", Align::Right),
            ("listener", Align::Left),
            ("backend", Align::Left),
        ]);
        for one in &told.workers {
            let backend = one.backend.as_deref().unwrap_or("none");
            table.row([
                one.worker.to_string().into(),
                one.listener.as_str().into(),
                backend.into(),
            ]);
        }
        text = text + "\n" + &table.text(paint);
    }
    for sentence in &told.says {
        let _ = writeln!(text, "note: {}", plain(sentence));
    }
    text
}

/// Which listeners refuse the client, a line each.
fn refusals_text(told: &DryRunStatus) -> String {
    let refusals = told.listeners.iter().filter_map(|one| one.refused.as_ref());
    let but = if told.refused { "" } else { "But " };
    let mut text = String::new();
    for refusal in refusals.clone().take(REFUSALS_MAX) {
        let _ = writeln!(text, "{but}{}.", plain(&refusal.says));
    }
    let more = refusals.count().saturating_sub(REFUSALS_MAX);
    if more > 0 {
        let _ = writeln!(text, "{more} more listeners refuse it: --json lists them.");
    }
    text
}

/// Where the listeners lead the client that let it in, a line each; of one without routes nothing
/// where it is the only one.
fn routes_text(told: &DryRunStatus) -> String {
    let is_one_of_several = told.listeners.len() > 1;
    let lines = told.listeners.iter().filter_map(|one| match &one.route {
        Some(route) => {
            let to = match &route.pool {
                Some(pool) if *pool != told.pool => format!(", to pool {}", plain(pool)),
                _ => String::new(),
            };
            Some(format!("Its route: {}{to}.\n", plain(&route.says)))
        }
        None if is_one_of_several && one.refused.is_none() => Some(format!(
            "Its route: listener `{}` has no routes: its pool takes all.\n",
            plain(&one.listener)
        )),
        None => None,
    });
    let mut text: String = lines.clone().take(REFUSALS_MAX).collect();
    let more = lines.count().saturating_sub(REFUSALS_MAX);
    if more > 0 {
        let _ = writeln!(
            text,
            "{more} more listeners lead to the pool: --json lists them."
        );
    }
    text
}

/// Listeners that refuse a client, or route it, which the text has.
const REFUSALS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, score: Option<f64>, verdict: &str, says: &str) -> CandidateStatus {
        CandidateStatus {
            backend: name.to_owned(),
            address: format!("10.0.0.{}:80", name.len()),
            score,
            verdict: verdict.to_owned(),
            says: says.to_owned(),
        }
    }

    fn attempt(name: &str, outcome: &str, says: &str, us: u32) -> AttemptStatus {
        AttemptStatus {
            backend: name.to_owned(),
            address: format!("10.0.0.{}:80", name.len()),
            outcome: outcome.to_owned(),
            says: says.to_owned(),
            us,
        }
    }

    #[test]
    fn a_session_is_told_in_plain_words() {
        let its = SessionExplanation {
            session: "0-17".to_owned(),
            listener: "front".to_owned(),
            client: Some("192.0.2.7:51234".to_owned()),
            proxy: Some("10.0.0.5:40000".to_owned()),
            pool: "web".to_owned(),
            strategy: "least_connections".to_owned(),
            age_s: 3.0,
            state: "closed".to_owned(),
            decision: Some(DecisionStatus {
                backend: Some("b".to_owned()),
                says: "b was selected: it has the fewest connections for its weight".to_owned(),
                score_is: Some("connections per unit of weight; the lowest wins".to_owned()),
                candidates: vec![
                    candidate("b", Some(0.5), "chosen", "chosen"),
                    candidate("app", None, "tried", "an attempt on it failed"),
                ],
                backends: 3,
                passed_over: [("down".to_owned(), 1), ("tried".to_owned(), 1)].into(),
                ..DecisionStatus::default()
            }),
            attempts: vec![
                attempt("app", "ECONNREFUSED", "Connection refused", 113),
                attempt("b", "connected", "connected", 240),
            ],
            attempts_failed: 1,
            connect_us: Some(500),
            total_us: Some(12_000),
            bytes_up: Some(100),
            bytes_down: Some(2_000),
            reason: Some("client_closed".to_owned()),
            ..SessionExplanation::default()
        };
        let text = session_text(&its, Paint(false));
        assert_eq!(text, include_str!("explain/session.txt"));
    }

    #[test]
    fn a_member_is_told_by_its_number() {
        let key = |hash: &str| {
            [KeyStatus {
                purpose: "select".to_owned(),
                kind: SNI_MEMBER.to_owned(),
                hash: hash.to_owned(),
                missed: false,
            }]
        };
        let name = Some("broker-1.k.example");
        let selected = |hash, sni| keys_text(&key(hash), sni);
        assert_eq!(selected("1", name), "Selected by sni_member: member 1.\n");
        let unknown = "Selected by sni_member: no member has its name.\n";
        assert_eq!(selected("none", name), unknown);
        let silent = "Selected by sni_member: it asked for no name.\n";
        assert_eq!(selected("none", None), silent);
    }

    #[test]
    fn the_cause_of_an_end_is_told() {
        let its = SessionExplanation {
            reason: Some("tls_failed".to_owned()),
            cause: Some("the client sent no TLS".to_owned()),
            ..SessionExplanation::default()
        };
        let want = "It ended: tls_failed.\nThe cause: the client sent no TLS.\n";
        assert_eq!(outcome(&its), want);
    }

    #[test]
    fn a_subject_is_a_session_or_a_client() {
        let of = |text| subject(text, 1).map_err(|error| error.to_string());
        assert!(of("0-17").unwrap().session.is_some());
        for client in [
            "192.0.2.7",
            "192.0.2.7:80",
            "2001:db8::1",
            "[2001:db8::1]:80",
        ] {
            assert_eq!(of(client).unwrap().client.as_deref(), Some(client));
        }
        assert_eq!(
            of("front").unwrap_err(),
            "invalid session or client \"front\": expected a session's id such as 0-17, or a \
             client's address"
        );
    }
}
