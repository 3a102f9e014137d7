//! What the endpoints do: each asks the control thread.

mod explain;

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::{Event as Message, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;

use super::endpoints::ApiRequest;
use super::exchange::{Changes, Json, LongJson, NewBackend, Query, WrittenJson};
use super::exposition::{Format, Scrape};
use super::model::{
    AccessListDetail, AccessListStatus, AccessQuestion, BANS_MAX, BackendStatus, BanFilter,
    BanStatus, Banned, BannedBy, CallerStatus, Changed, ConfigText, HistogramStatus, HistoryAnswer,
    HistoryEvent, HistoryEventQuery, HistoryQuery, Killed, Lifted, LiftedBans, Limits,
    ListenerStatus, PoolStatus, Readiness, Reloaded, Removal, Reopened, SESSIONS_MAX,
    SessionFilter, SessionStatus, Stage, Status, UnbanFilter, Watching,
};
use super::openapi;
use super::refusal::Refusal;
use super::{Call, Role, UnbanError, Which};
use crate::config::{
    self, AccessEdits, Backend, Change, ChangeError, Config, Listener, NewBan, Pool, values,
};
use crate::control::HistoryRefusal;
use crate::control::events::{EventWatch, Since};
use crate::history::AskError;
pub(super) use explain::{explain, explain_dry_run, route};

pub(super) mod routes;

type Answer<T> = Result<Json<T>, Refusal>;
/// Of any length.
type LongAnswer<T> = Result<LongJson<T>, Refusal>;

pub(super) async fn healthz(request: ApiRequest, (): ()) -> Answer<Readiness> {
    let status = request.ask(Call::Status).await?;
    Ok(Json(Readiness {
        stage: status.stage,
        still_here: status.still_here,
    }))
}

pub(super) async fn readyz(request: ApiRequest, (): ()) -> Answer<Readiness> {
    let Status {
        stage, not_ready, ..
    } = request.ask(Call::Status).await?;
    let not = |why: &str| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
    if let (Stage::Ready, Some(why)) = (stage, not_ready) {
        return not(&why);
    }
    match stage {
        Stage::Starting => not("starting: not every backend was probed yet"),
        Stage::Ready => Ok(Json(Readiness {
            stage,
            still_here: Vec::new(),
        })),
        Stage::Leaving => not("leaving"),
        Stage::Left => not("left"),
        Stage::Stopping => not("stopping"),
    }
}

pub(super) async fn describe(_: ApiRequest, (): ()) -> Result<WrittenJson, Refusal> {
    Ok(WrittenJson(openapi::document()))
}

pub(super) async fn status(request: ApiRequest, (): ()) -> Answer<Status> {
    let mut status = request.ask(Call::Status).await?;
    if request.role() < Some(Role::Write) {
        let error = status.reloads.last_error.as_mut();
        error
            .into_iter()
            .for_each(|error| *error = config::outline(error));
    }
    Ok(Json(status))
}

pub(super) async fn caller(request: ApiRequest, (): ()) -> Answer<CallerStatus> {
    let role = request.role();
    Ok(Json(CallerStatus { role }))
}

pub(super) async fn metrics(request: ApiRequest, (): ()) -> Result<Scrape, Refusal> {
    let scrapes = &request.context.scrapes;
    let permit = request.turn(scrapes, "too many read metrics").await?;
    Ok(Scrape {
        _permit: Some(permit),
        format: Format::of(&request.headers),
        status: request.ask(Call::Status).await?,
        listeners: request.ask(Call::Listeners).await?,
        pools: request.ask(|reply| Call::Pools(Which::All, reply)).await?,
        latencies: request.ask(Call::Latencies).await?,
    })
}

pub(super) async fn listeners(request: ApiRequest, (): ()) -> LongAnswer<Vec<ListenerStatus>> {
    request.ask(Call::Listeners).await.map(LongJson)
}

pub(super) async fn set_listener(
    request: ApiRequest,
    Changes(patch): Changes<Listener>,
) -> Answer<Changed> {
    let listener = request.param("listener");
    apply(&request, Change::SetListener { listener, patch }).await
}

pub(super) async fn access_lists(request: ApiRequest, (): ()) -> Answer<Vec<AccessListStatus>> {
    request.ask(Call::AccessLists).await.map(Json)
}

pub(super) async fn access_list(
    request: ApiRequest,
    Query(question): Query<AccessQuestion>,
) -> LongAnswer<AccessListDetail> {
    let name = request.param("list");
    let list = request.ask(|reply| Call::AccessList(name.clone(), question.client, reply));
    let unknown = |known: Vec<String>| {
        Refusal::unknown("access list", &name, known.iter().map(String::as_str))
    };
    list.await?.map(LongJson).map_err(unknown)
}

pub(super) async fn edit_access_list(
    request: ApiRequest,
    Changes(patch): Changes<AccessEdits>,
) -> Answer<Changed> {
    let list = request.param("list");
    let edits = patch.values().checked().map_err(ChangeError::Invalid)?;
    apply(&request, Change::EditAccessList { list, edits }).await
}

pub(super) async fn bans(
    request: ApiRequest,
    Query(filter): Query<BanFilter>,
) -> LongAnswer<Vec<BanStatus>> {
    if filter.limit.is_some_and(|limit| limit > BANS_MAX) {
        let why = format!("limit: {BANS_MAX} bans at most");
        return Err(Refusal::malformed(why));
    }
    let bans = request.ask(|reply| Call::Bans(filter, reply));
    bans.await.map(LongJson)
}

pub(super) async fn ban(request: ApiRequest, Changes(ban): Changes<NewBan>) -> Answer<Banned> {
    let author = request.author()?;
    if ban.get("prefix").is_none() {
        return Err(Refusal::malformed("expected a `prefix`"));
    }
    let banned = request.ask(|reply| Call::Ban(ban, author, reply)).await?;
    let refused = |why| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    banned.map(Json).map_err(refused)
}

pub(super) async fn unban(request: ApiRequest, (): ()) -> Answer<Lifted> {
    let author = request.author()?;
    let text = request.param("prefix");
    let prefix = values::prefix(&text);
    let prefix = prefix.map_err(|error| Refusal::malformed(error.about("prefix", &text)))?;
    let lifted = request.ask(|reply| Call::Unban(prefix, author, reply));
    lifted.await?.map(Json).map_err(|error| match error {
        UnbanError::NotBanned(why) => Refusal::new(StatusCode::NOT_FOUND, why),
        UnbanError::Refused(why) => Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why),
    })
}

pub(super) async fn unban_those(
    request: ApiRequest,
    Query(filter): Query<UnbanFilter>,
) -> Answer<LiftedBans> {
    let author = request.author()?;
    let has_others = filter.within.is_some() || filter.by.is_some();
    let why = match (filter.all, has_others) {
        _ if filter.by == Some(BannedBy::File) => Some("by: bans of the file end with its lines"),
        _ if filter.by == Some(BannedBy::Fleet) => Some("by: bans of the fleet end with its keys"),
        _ if filter.by == Some(BannedBy::Peer) => Some("by: lift bans of peers by their networks"),
        (true, false) | (false, true) => None,
        (false, false) => Some("expected `within` or `by`, or `all=true` for every ban"),
        (true, true) => Some("`all=true` goes with no other filter"),
    };
    if let Some(why) = why {
        return Err(Refusal::malformed(why));
    }
    let lifted = request.ask(|reply| Call::UnbanAll(filter, author, reply));
    lifted.await.map(Json)
}

pub(super) async fn limits(request: ApiRequest, (): ()) -> Answer<Limits> {
    let status = request.ask(Call::Status).await?;
    Ok(Json(Limits {
        connections: status.connections,
        max_connections: status.max_connections,
    }))
}

pub(super) async fn set_global(
    request: ApiRequest,
    Changes(patch): Changes<Config>,
) -> Answer<Changed> {
    apply(&request, Change::SetGlobal { patch }).await
}

pub(super) async fn pools(request: ApiRequest, (): ()) -> LongAnswer<Vec<PoolStatus>> {
    let pools = request.ask(|reply| Call::Pools(Which::All, reply));
    pools.await.map(LongJson)
}

pub(super) async fn pool(request: ApiRequest, (): ()) -> LongAnswer<PoolStatus> {
    pool_of(&request).await.map(LongJson)
}

pub(super) async fn set_pool(
    request: ApiRequest,
    Changes(patch): Changes<Pool>,
) -> Answer<Changed> {
    let pool = request.param("pool");
    apply(&request, Change::SetPool { pool, patch }).await
}

pub(super) async fn backends(request: ApiRequest, (): ()) -> LongAnswer<Vec<BackendStatus>> {
    Ok(LongJson(pool_of(&request).await?.backends))
}

pub(super) async fn add_backend(
    request: ApiRequest,
    NewBackend(backend): NewBackend,
) -> Answer<Changed> {
    let backend = Box::new(backend);
    let pool = request.param("pool");
    apply(&request, Change::AddBackend { pool, backend }).await
}

pub(super) async fn backend(request: ApiRequest, (): ()) -> Answer<BackendStatus> {
    let name = request.param("backend");
    let mut pool = pool_of(&request).await?;
    // A backend that is being removed may have a successor of the same name, which comes first.
    let place = place_of("backend", &name, &pool.backends, |backend| &backend.name)?;
    Ok(Json(pool.backends.swap_remove(place)))
}

pub(super) async fn set_backend(
    request: ApiRequest,
    Changes(patch): Changes<Backend>,
) -> Answer<Changed> {
    let change = Change::SetBackend {
        pool: request.param("pool"),
        backend: request.param("backend"),
        patch,
    };
    apply(&request, change).await
}

pub(super) async fn remove_backend(
    request: ApiRequest,
    Query(_): Query<Removal>,
) -> Answer<Changed> {
    let change = Change::RemoveBackend {
        pool: request.param("pool"),
        backend: request.param("backend"),
    };
    apply(&request, change).await
}

pub(super) async fn sessions(
    request: ApiRequest,
    Query(filter): Query<SessionFilter>,
) -> LongAnswer<Vec<SessionStatus>> {
    if filter.limit.is_some_and(|limit| limit > SESSIONS_MAX) {
        return Err(Refusal::malformed(format!(
            "limit: {SESSIONS_MAX} sessions at most"
        )));
    }
    if filter.all {
        let why = "`all` closes sessions: a list has every session without it";
        return Err(Refusal::malformed(why));
    }
    filter_is_known(&request, &filter).await?;
    sessions_of(&request, filter).await.map(LongJson)
}

pub(super) async fn kill_sessions(
    request: ApiRequest,
    Query(filter): Query<SessionFilter>,
) -> Answer<Killed> {
    refuse_unclear_kill(&filter)?;
    filter_is_known(&request, &filter).await?;
    kill_those(&request, filter).await.map(Json)
}

pub(super) async fn kill_session(request: ApiRequest, (): ()) -> Answer<Killed> {
    let id = request.param("id");
    let unknown = || Refusal::unknown("session", &id, std::iter::empty());
    let filter = SessionFilter {
        id: Some(id.parse().map_err(|_| unknown())?),
        ..SessionFilter::default()
    };
    let killed = kill_those(&request, filter).await?;
    if killed.sessions == 0 {
        return Err(unknown());
    }
    Ok(Json(killed))
}

pub(super) async fn histograms(request: ApiRequest, (): ()) -> Answer<Vec<HistogramStatus>> {
    request.ask(Call::Histograms).await.map(Json)
}

pub(super) async fn config(request: ApiRequest, (): ()) -> LongAnswer<ConfigText> {
    request.ask(Call::Config).await.map(LongJson)
}

pub(super) async fn reload(request: ApiRequest, (): ()) -> Answer<Reloaded> {
    let author = request.author()?;
    let reloaded = request.ask(|reply| Call::Reload(author, reply)).await?;
    let refused = |error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error);
    reloaded.map(Json).map_err(refused)
}

pub(super) async fn reopen(request: ApiRequest, (): ()) -> Answer<Reopened> {
    let reopened = request.ask(Call::Reopen).await?;
    let refused = |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    let files = reopened.map_err(refused)?;
    Ok(Json(Reopened { files }))
}

pub(super) async fn history(
    request: ApiRequest,
    Query(query): Query<HistoryQuery>,
) -> LongAnswer<HistoryAnswer> {
    let history = request.context.handle.history();
    past(&request, history.history(query)).await
}

pub(super) async fn history_events(
    request: ApiRequest,
    Query(query): Query<HistoryEventQuery>,
) -> LongAnswer<Vec<HistoryEvent>> {
    let history = request.context.handle.history();
    past(&request, history.events(query)).await
}

/// Waits for an answer from the history: a thread of its own gives it.
async fn past<T>(
    request: &ApiRequest,
    answer: impl Future<Output = Result<T, HistoryRefusal>>,
) -> LongAnswer<T> {
    let answer = tokio::time::timeout(request.context.deadlines.answer, answer).await;
    let late = |_| {
        let why = "the history takes too long: ask for less, or its disk does not answer";
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, why)
    };
    answer
        .map_err(late)?
        .map(LongJson)
        .map_err(|why| match why {
            HistoryRefusal::Busy => {
                let why = "too many ask for the history: try again in a moment";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
            }
            HistoryRefusal::Refused(AskError::Wrong(why)) => Refusal::malformed(why),
            HistoryRefusal::Refused(error @ AskError::Store(_)) => {
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        })
}

/// A stream of server-sent events (HTML standard, section 9.2).
pub(super) async fn events(
    request: ApiRequest,
    Query(wanted): Query<Watching>,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, Refusal> {
    let ApiRequest {
        context,
        headers,
        slot,
        ..
    } = request;
    let permit = Arc::clone(&context.watchers).try_acquire_owned();
    let full = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many watch the events");
    let permit = permit.map_err(|_| full())?;
    let events = context.handle.events().clone();
    let since = match headers.get("last-event-id") {
        Some(id) => events.since(id.to_str().unwrap_or_default()),
        None => Since::Recent(wanted.recent),
    };
    let watch: EventWatch = events.watch(since);
    let gone = async move {
        match slot {
            Some(slot) => slot.client_gone().await,
            None => pending().await,
        }
    };
    let first = (watch, context.stop, Box::pin(gone), permit);
    let stream = unfold(first, move |mut state| {
        let events = events.clone();
        async move {
            let event = tokio::select! {
                event = state.0.next() => event?,
                _ = state.1.changed() => return None,
                () = &mut state.2 => return None,
            };
            let message = Message::default().id(events.id(&event));
            // Strings and numbers are always valid JSON, and JSON has no line break.
            let message = message.json_data(&event).ok()?;
            Some((Ok(message), state))
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn apply(request: &ApiRequest, change: Change) -> Answer<Changed> {
    let author = request.author()?;
    let changed = request.ask(|reply| Call::Change {
        change,
        author,
        reply,
    });
    Ok(Json(changed.await??))
}

async fn kill_those(request: &ApiRequest, filter: SessionFilter) -> Result<Killed, Refusal> {
    let author = request.author()?;
    let closed = request
        .ask(|reply| Call::Kill(filter, author, reply))
        .await?;
    let refused = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let sessions = closed.map_err(refused)?;
    Ok(Killed { sessions })
}

async fn sessions_of(
    request: &ApiRequest,
    filter: SessionFilter,
) -> Result<Vec<SessionStatus>, Refusal> {
    let sessions = request.ask(|reply| Call::Sessions(filter, reply)).await?;
    sessions.map_err(|why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why))
}

/// Closing all sessions takes an explicit `all=true`.
fn refuse_unclear_kill(filter: &SessionFilter) -> Result<(), Refusal> {
    let others = SessionFilter {
        all: false,
        ..filter.clone()
    };
    let why = match (filter.all, others == SessionFilter::default()) {
        _ if filter.limit.is_some() => "`limit` goes with a list only",
        (true, true) | (false, false) => return Ok(()),
        (false, true) => "expected a filter, or `all=true` for every session",
        (true, false) => "`all=true` goes with no other filter",
    };
    Err(Refusal::malformed(why))
}

/// Refuses a filter with an unknown name. A pool or backend that was removed is known while it has
/// sessions.
async fn filter_is_known(request: &ApiRequest, filter: &SessionFilter) -> Result<(), Refusal> {
    let Err(refusal) = names_are_known(request, filter).await else {
        return Ok(());
    };
    let one = SessionFilter {
        limit: Some(1),
        ..filter.clone()
    };
    let left = sessions_of(request, one).await?;
    if left.is_empty() {
        Err(refusal)
    } else {
        Ok(())
    }
}

async fn names_are_known(request: &ApiRequest, filter: &SessionFilter) -> Result<(), Refusal> {
    if let Some(name) = &filter.listener {
        let listeners = request.ask(Call::Listeners).await?;
        found("listener", name, &listeners, |listener| &listener.name)?;
    }
    if filter.pool.is_none() && filter.backend.is_none() {
        return Ok(());
    }
    let which = filter.pool.clone().map_or(Which::All, Which::Named);
    let pools = request.ask(|reply| Call::Pools(which, reply)).await?;
    let of = match &filter.pool {
        Some(name) => std::slice::from_ref(found("pool", name, &pools, |pool| &pool.name)?),
        None => &pools[..],
    };
    if let Some(name) = &filter.backend {
        let backends: Vec<_> = of.iter().flat_map(|pool| &pool.backends).collect();
        found("backend", name, &backends, |backend| &backend.name)?;
    }
    Ok(())
}

/// The pool of the path.
async fn pool_of(request: &ApiRequest) -> Result<PoolStatus, Refusal> {
    let name = request.param("pool");
    let which = Which::Named(name.clone());
    let mut pools = request.ask(|reply| Call::Pools(which, reply)).await?;
    let place = place_of("pool", &name, &pools, |pool| &pool.name)?;
    Ok(pools.swap_remove(place))
}

/// The first one of this name; the error suggests a similar name.
fn found<'a, T>(
    what: &'static str,
    name: &str,
    all: &'a [T],
    name_of: impl Fn(&'a T) -> &'a str,
) -> Result<&'a T, Refusal> {
    place_of(what, name, all, name_of).map(|place| &all[place])
}

/// The index of the first one of this name; the error suggests a similar name.
fn place_of<'a, T>(
    what: &'static str,
    name: &str,
    all: &'a [T],
    name_of: impl Fn(&'a T) -> &'a str,
) -> Result<usize, Refusal> {
    let place = all.iter().position(|one| name_of(one) == name);
    place.ok_or_else(|| Refusal::unknown(what, name, all.iter().map(name_of)))
}

/// Short enough that no proxy or client gives up on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
