//! Where sessions went and why, and where a client would go.

use std::net::IpAddr;

use axum::http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, LongAnswer, found};
use crate::admin::endpoints::ApiRequest;
use crate::admin::exchange::{Json, LongJson, Query};
use crate::admin::model::{
    DryRunQuery, DryRunStatus, EXPLANATIONS_MAX, ExplainQuery, RouteChoice, RouteQuestion,
    SessionExplanation, client_address,
};
use crate::admin::refusal::Refusal;
use crate::admin::{Call, NoRouteTold, Which};
use crate::peek::SpokenBytes;
use crate::worker::{DecisionFilter, DecisionSubject, PreviewQuestion};

pub(in crate::admin) async fn route(
    request: ApiRequest,
    Query(question): Query<RouteQuestion>,
) -> Answer<RouteChoice> {
    let name = request.param("listener");
    let spoken = question.spoken().map_err(Refusal::malformed)?;
    let choice = choice(&request, &name, question.client, spoken);
    choice.await.map(Json)
}

/// Where a client of the listener of this name would go.
async fn choice(
    request: &ApiRequest,
    name: &str,
    client: Option<IpAddr>,
    spoken: SpokenBytes,
) -> Result<RouteChoice, Refusal> {
    let choice = request.ask(|reply| Call::Route(name.to_owned(), client, spoken, reply));
    choice.await?.map_err(|why| match why {
        NoRouteTold::Unknown(known) => {
            Refusal::unknown("listener", name, known.iter().map(String::as_str))
        }
        NoRouteTold::Unsaid(why) => Refusal::malformed(why),
    })
}

pub(in crate::admin) async fn explain(
    request: ApiRequest,
    Query(query): Query<ExplainQuery>,
) -> LongAnswer<Vec<SessionExplanation>> {
    let last = query.last.unwrap_or(1);
    if !(1..=EXPLANATIONS_MAX).contains(&last) {
        let why = format!("last: expected 1 to {EXPLANATIONS_MAX}");
        return Err(Refusal::malformed(why));
    }
    let of = match (query.session, query.client) {
        (Some(session), None) => DecisionSubject::Session(session),
        (None, Some(client)) => match client_address(&client).map_err(Refusal::malformed)? {
            (ip, Some(port)) => DecisionSubject::Connection((ip, port).into()),
            (ip, None) => DecisionSubject::Client(ip),
        },
        (None, None) | (Some(_), Some(_)) => {
            return Err(Refusal::malformed("expected either `session` or `client`"));
        }
    };
    let filter = DecisionFilter { of, last };
    let _permit = explain_turn(&request).await?;
    let explained = request.ask(|reply| Call::Explain(filter, reply)).await?;
    let silent = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
    explained.map(LongJson).map_err(silent)
}

/// Each explanation takes time of all workers: one is made after the other.
async fn explain_turn(request: &ApiRequest) -> Result<OwnedSemaphorePermit, Refusal> {
    let turns = &request.context.explanations;
    request.turn(turns, "too many ask for explanations").await
}

pub(in crate::admin) async fn explain_dry_run(
    request: ApiRequest,
    Query(query): Query<DryRunQuery>,
) -> LongAnswer<DryRunStatus> {
    let (ip, port) = client_address(&query.client).map_err(Refusal::malformed)?;
    let is_one_line = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        !text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if !is_one_line(&query.sni) || !is_one_line(&query.url) {
        return Err(Refusal::malformed("sni, url: expected no spaces"));
    }
    let spoken = query.spoken().map_err(Refusal::malformed)?;
    let (pool, listener) = match (query.pool, query.listener) {
        (Some(pool), None) => (pool_or_refusal(&request, pool).await?, None),
        (Some(_), Some(_)) => {
            return Err(Refusal::malformed("expected either `pool` or `listener`"));
        }
        (None, listener) => {
            let listener = match listener {
                Some(listener) => listener,
                None => only_listener(&request).await?,
            };
            let choice = choice(&request, &listener, Some(ip), spoken.clone()).await?;
            match choice.pool.clone() {
                Some(pool) => (pool, Some(listener)),
                None => return Ok(LongJson(DryRunStatus::no_route(ip.to_string(), choice))),
            }
        }
    };
    let question = PreviewQuestion {
        pool,
        listener,
        client: (ip, port.unwrap_or(0)).into(),
        host: query.sni.or(query.http_host),
        target: query.url.or(query.http_path),
        spoken,
    };
    let _permit = explain_turn(&request).await?;
    let told = request.ask(|reply| Call::DryRun(question, reply)).await?;
    let silent = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
    told.map(LongJson).map_err(silent)
}

/// A pool that is there.
async fn pool_or_refusal(request: &ApiRequest, pool: String) -> Result<String, Refusal> {
    let which = Which::Named(pool.clone());
    let pools = request.ask(|reply| Call::Pools(which, reply)).await?;
    let Err(unknown) = found("pool", &pool, &pools, |pool| &pool.name) else {
        return Ok(pool);
    };
    let listeners = request.ask(Call::Listeners).await?;
    Err(match listeners.iter().any(|its| its.name == pool) {
        true => Refusal::no_pool_but_listener(&pool),
        false => unknown,
    })
}

/// The listener, where there is one only.
async fn only_listener(request: &ApiRequest) -> Result<String, Refusal> {
    let mut listeners = request.ask(Call::Listeners).await?;
    match (listeners.pop(), listeners.len()) {
        (Some(only), 0) => Ok(only.name),
        _ => Err(Refusal::malformed("expected `pool` or `listener`")),
    }
}
