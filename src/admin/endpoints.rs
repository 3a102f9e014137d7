//! The table of endpoints. The router, the check of roles and the OpenAPI description are all made
//! from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::SchemaGenerator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::access::Caller;
use super::exchange::{Gives, Input, Needs, Output, read_body, read_input};
use super::handlers as h;
use super::membership;
use super::refusal::Refusal;
use super::slots::{Busy, ConnectionSlot};
use super::{Author, Call, Handle, Reply, Role};

/// Every endpoint.
pub(super) fn endpoints() -> Vec<Endpoint> {
    let parts = [
        of_process(),
        of_listeners(),
        of_pools(),
        of_sessions(),
        of_operation(),
        of_bans(),
    ];
    parts.into_iter().flatten().collect()
}

/// Clients and networks that are banned.
fn of_bans() -> Vec<Endpoint> {
    vec![
        Endpoint::read(BANS, "bans", h::bans).says("Clients and networks that are banned."),
        Endpoint::write(Method::POST, BANS, "ban", h::ban)
            .says("Bans a client or a network, and closes its sessions.")
            .refuses(&[INVALID]),
        Endpoint::write(Method::DELETE, BANS, "unban_those", h::unban_those)
            .says("Lifts the bans that match."),
        Endpoint::write(Method::DELETE, BAN, "unban", h::unban)
            .says("Lifts the ban of a client or a network.")
            .refuses(&[INVALID]),
    ]
}

/// The state of the process.
fn of_process() -> Vec<Endpoint> {
    vec![
        Endpoint::open("/healthz", "healthz", h::healthz)
            .says("Answers while the control thread does.")
            .for_machines(),
        Endpoint::open("/readyz", "readyz", h::readyz)
            .says("200 while connections are taken, else 503.")
            .for_machines(),
        Endpoint::read("/v1/openapi.json", "describe", h::describe)
            .says("This description.")
            .without_control(),
        Endpoint::read("/metrics", "metrics", h::metrics)
            .says("All figures, for Prometheus: as OpenMetrics text where `Accept` names it.")
            .for_machines(),
        Endpoint::read("/v1/status", "status", h::status).says("Shows overall status."),
        Endpoint::open("/v1/caller", "caller", h::caller)
            .says("What the caller may do.")
            .without_control(),
    ]
}

/// Listeners, and who may connect to them.
fn of_listeners() -> Vec<Endpoint> {
    vec![
        Endpoint::read("/v1/listeners", "listeners", h::listeners).says("All listeners."),
        Endpoint::write(Method::PATCH, LISTENER, "set_listener", h::set_listener)
            .says("Changes the limit or the access list of a listener.")
            .refuses(&[INVALID]),
        Endpoint::read(ROUTES, "routes", h::routes::routes)
            .says("The routes of a listener, and their version."),
        Endpoint::write(Method::PUT, ROUTES, "set_routes", h::routes::set_routes)
            .says("Gives a listener other routes; its sessions go on.")
            .refuses(&[StatusCode::CONFLICT, INVALID]),
        Endpoint::write(Method::PATCH, A_ROUTE, "set_route", h::routes::set_route)
            .says("Changes weights of the pools of a route; others stay.")
            .refuses(&[StatusCode::CONFLICT, INVALID]),
        Endpoint::read(ROUTE, "route", h::route)
            .says("Which route of a listener would take a client, and where it would go."),
        Endpoint::read("/v1/access_lists", "access_lists", h::access_lists)
            .says("All access lists."),
        Endpoint::read(ACCESS_LIST, "access_list", h::access_list)
            .says("An access list with its prefixes, and what it says of a client."),
        Endpoint::write(
            Method::PATCH,
            ACCESS_LIST,
            "edit_access_list",
            h::edit_access_list,
        )
        .says("Adds prefixes to an access list, or removes them.")
        .refuses(&[INVALID]),
        Endpoint::read(LIMITS, "limits", h::limits).says("The limit of all client connections."),
        Endpoint::write(Method::PATCH, LIMITS, "set_global", h::set_global)
            .says("Changes the limit of all client connections.")
            .refuses(&[INVALID]),
    ]
}

/// Pools and backends.
fn of_pools() -> Vec<Endpoint> {
    vec![
        Endpoint::read("/v1/pools", "pools", h::pools).says("All pools with their backends."),
        Endpoint::read(POOL, "pool", h::pool).says("A pool with its backends."),
        Endpoint::write(Method::PATCH, POOL, "set_pool", h::set_pool)
            .says("Changes a pool.")
            .refuses(&[INVALID]),
        Endpoint::read(BACKENDS, "backends", h::backends).says("The backends of a pool."),
        Endpoint::write(Method::POST, BACKENDS, "add_backend", h::add_backend)
            .says("Adds a backend to a pool.")
            .refuses(&[StatusCode::CONFLICT, INVALID])
            .creates(),
        Endpoint::read(BACKEND, "backend", h::backend).says("A backend."),
        Endpoint::write(Method::PATCH, BACKEND, "set_backend", h::set_backend)
            .says("Changes a backend.")
            .refuses(&[INVALID]),
        Endpoint::write(Method::DELETE, BACKEND, "remove_backend", h::remove_backend)
            .says("Removes a backend; its sessions go on.")
            .refuses(&[INVALID]),
    ]
}

/// Sessions.
fn of_sessions() -> Vec<Endpoint> {
    vec![
        Endpoint::read(SESSIONS, "sessions", h::sessions)
            .says("Sessions that are open.")
            .refuses(&[StatusCode::NOT_FOUND]),
        Endpoint::write(Method::DELETE, SESSIONS, "kill_sessions", h::kill_sessions)
            .says("Closes sessions.")
            .refuses(&[StatusCode::NOT_FOUND]),
        Endpoint::write(Method::DELETE, SESSION, "kill_session", h::kill_session)
            .says("Closes a session."),
        Endpoint::read("/v1/explain", "explain", h::explain)
            .says("Where the last sessions of a client, or one session, went, and why."),
        Endpoint::read("/v1/explain/dry_run", "explain_dry_run", h::explain_dry_run)
            .says("Where a client would go now, and why, or which listeners would refuse it.")
            .refuses(&[StatusCode::NOT_FOUND]),
    ]
}

/// What operators read and do.
fn of_operation() -> Vec<Endpoint> {
    vec![
        Endpoint::read("/v1/histograms", "histograms", h::histograms)
            .says("The workers' histograms since the start."),
        // Addresses of webhooks and what probes send may be secrets.
        Endpoint::write(Method::GET, "/v1/config", "config", h::config)
            .says("The effective configuration."),
        Endpoint::write(Method::POST, "/v1/reload", "reload", h::reload)
            .says("Reads the configuration's file again.")
            .refuses(&[INVALID]),
        Endpoint::write(Method::POST, "/v1/leave", "leave", membership::leave)
            .says("Leaves: refuses readiness, and new clients once they go to another balancer.")
            .refuses(&[StatusCode::CONFLICT]),
        Endpoint::write(Method::POST, "/v1/join", "join", membership::join)
            .says("Takes part again after a leave.")
            .refuses(&[StatusCode::CONFLICT]),
        Endpoint::write(Method::POST, "/v1/reopen", "reopen", h::reopen)
            .says("Opens the files of the logs again, after they were moved away.")
            .refuses(&[StatusCode::INTERNAL_SERVER_ERROR]),
        Endpoint::read("/v1/history", "history", h::history)
            .says("What figures were: by second, minute or hour.")
            .without_control()
            .refuses(&ASIDE),
        Endpoint::read("/v1/history/events", "history_events", h::history_events)
            .says("What happened, the newest first: past events, and who changed something.")
            .without_control()
            .refuses(&ASIDE),
        Endpoint::read("/v1/events", "events", h::events)
            .says("What happens, as a stream of events (JSON in each `data`).")
            .without_control()
            .refuses(&[StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

const LISTENER: &str = "/v1/listeners/{listener}";
const ROUTE: &str = "/v1/listeners/{listener}/route";
const ROUTES: &str = "/v1/listeners/{listener}/routes";
const A_ROUTE: &str = "/v1/listeners/{listener}/routes/{route}";
const ACCESS_LIST: &str = "/v1/access_lists/{list}";
const BANS: &str = "/v1/bans";
const BAN: &str = "/v1/bans/{prefix}";
const LIMITS: &str = "/v1/limits";
const POOL: &str = "/v1/pools/{pool}";
const BACKENDS: &str = "/v1/pools/{pool}/backends";
const BACKEND: &str = "/v1/pools/{pool}/backends/{backend}";
const SESSIONS: &str = "/v1/sessions";
const SESSION: &str = "/v1/sessions/{id}";
/// Too many ask, or a disk does not answer.
const ASIDE: [StatusCode; 2] = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
/// The change would make the configuration invalid.
const INVALID: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// A row of the table.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// With its parameters in braces, as axum and OpenAPI both write them.
    pub(super) path: &'static str,
    /// Its name in the description (`operationId`).
    pub(super) id: &'static str,
    /// The role that a caller needs; `None`: no role.
    pub(super) role: Option<Role>,
    pub(super) summary: &'static str,
    pub(super) success: StatusCode,
    /// Whether it asks the control thread.
    asks_control: bool,
    /// The statuses that only this endpoint refuses with, beside those that its columns imply.
    refuses: &'static [StatusCode],
    takes_body: bool,
    /// Whether the listener for metrics has it too.
    pub(super) is_for_machines: bool,
    pub(super) needs: fn(&mut SchemaGenerator) -> Needs,
    pub(super) gives: fn(&mut SchemaGenerator) -> Gives,
    act: Action,
}

type Action = Arc<dyn Fn(ApiRequest, Uri, Bytes) -> Acting + Send + Sync>;
type Acting = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send>>;

impl Endpoint {
    fn open<I: Input, O: Output, F>(
        path: &'static str,
        id: &'static str,
        act: fn(ApiRequest, I) -> F,
    ) -> Self
    where
        F: Future<Output = Result<O, Refusal>> + Send + 'static,
    {
        Self {
            method: Method::GET,
            path,
            id,
            role: None,
            summary: "",
            success: StatusCode::OK,
            asks_control: true,
            refuses: &[],
            takes_body: I::TAKES_BODY,
            is_for_machines: false,
            needs: I::describe,
            gives: O::describe,
            act: Arc::new(move |request, uri, body| {
                Box::pin(async move {
                    let input = read_input(&request, uri, body).await?;
                    let output = act(request, input).await?;
                    Ok(output.respond().await)
                })
            }),
        }
    }

    fn read<I: Input, O: Output, F>(
        path: &'static str,
        id: &'static str,
        act: fn(ApiRequest, I) -> F,
    ) -> Self
    where
        F: Future<Output = Result<O, Refusal>> + Send + 'static,
    {
        Self {
            role: Some(Role::Read),
            ..Self::open(path, id, act)
        }
    }

    fn write<I: Input, O: Output, F>(
        method: Method,
        path: &'static str,
        id: &'static str,
        act: fn(ApiRequest, I) -> F,
    ) -> Self
    where
        F: Future<Output = Result<O, Refusal>> + Send + 'static,
    {
        Self {
            method,
            role: Some(Role::Write),
            ..Self::open(path, id, act)
        }
    }

    fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    fn without_control(self) -> Self {
        let asks_control = false;
        Self {
            asks_control,
            ..self
        }
    }

    fn for_machines(self) -> Self {
        let is_for_machines = true;
        Self {
            is_for_machines,
            ..self
        }
    }

    fn refuses(self, refuses: &'static [StatusCode]) -> Self {
        Self { refuses, ..self }
    }

    fn creates(self) -> Self {
        let success = StatusCode::CREATED;
        Self { success, ..self }
    }

    /// All statuses that it may refuse with.
    pub(super) fn refusals(&self, has_body: bool) -> BTreeSet<StatusCode> {
        // A malformed request; a page of another site.
        let mut all = BTreeSet::from([StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN]);
        all.extend(self.role.map(|_| StatusCode::UNAUTHORIZED));
        all.extend(self.parameters().next().map(|_| StatusCode::NOT_FOUND));
        if has_body {
            all.insert(StatusCode::REQUEST_TIMEOUT);
            all.insert(StatusCode::PAYLOAD_TOO_LARGE);
            all.insert(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if self.asks_control {
            all.insert(StatusCode::SERVICE_UNAVAILABLE);
            all.insert(StatusCode::GATEWAY_TIMEOUT);
        }
        all.extend(self.refuses);
        all
    }

    /// The names of its path's parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &'static str> {
        let braced = self.path.split('{').skip(1);
        braced.filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
    }

    /// Its route.
    pub(super) fn route(&self) -> MethodRouter<ServerContext> {
        let filter = MethodFilter::try_from(self.method.clone());
        let filter = filter.expect("the methods of the table are those that axum knows");
        let endpoint = self.clone();
        on(
            filter,
            async move |State(context), params, request: Request| {
                let answer = endpoint.answer(context, params, request).await;
                answer.unwrap_or_else(Refusal::into_response)
            },
        )
    }

    async fn answer(
        self,
        context: ServerContext,
        params: Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
        request: Request,
    ) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get().copied().unwrap_or(Caller::Anonymous);
        // First of all: a caller without the role learns nothing about the request.
        caller.check(self.role)?;
        let params = params.map_err(|error| Refusal::malformed(error.body_text()))?;
        let params = params.iter();
        let time = context.deadlines.body;
        let body = read_body(&parts.headers, body, self.takes_body, time).await?;
        // From here on the client waits for the balancer: its connection is not idle.
        let slot = parts
            .extensions
            .get::<Arc<ConnectionSlot>>()
            .map(ConnectionSlot::keep);
        let request = ApiRequest {
            context,
            slot,
            params: params
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            caller,
            headers: parts.headers,
        };
        let mut response = (self.act)(request, parts.uri, body).await?;
        *response.status_mut() = self.success;
        Ok(response)
    }
}

/// What all requests of a server share.
#[derive(Clone, Debug)]
pub(super) struct ServerContext {
    pub(super) handle: Handle,
    /// Changes when the server ends.
    pub(super) stop: watch::Receiver<()>,
    /// Permits to follow events. Such connections last, and must leave room for others.
    pub(super) watchers: Arc<Semaphore>,
    /// Permits to write metrics, which takes long: what scrapers ask for takes no thread from the
    /// answers to others.
    pub(super) scrapes: Arc<Semaphore>,
    /// Permits to ask workers for explanations.
    pub(super) explanations: Arc<Semaphore>,
    /// Permits to read requests that take long to read: what waits is bounded.
    pub(super) readings: Arc<Semaphore>,
    pub(super) deadlines: Deadlines,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For a request's head, counted from the end of the previous request. So it is also how long
    /// a connection may be idle.
    pub(super) head: Duration,
    /// For a request's body.
    pub(super) body: Duration,
    /// For an answer of the control thread: a health probe that waits longer is of no use.
    pub(super) answer: Duration,
    /// How long a client may accept no byte of an answer.
    pub(super) write: Duration,
    /// For requests that are being answered when the server ends.
    pub(super) end: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            answer: Duration::from_secs(5),
            write: Duration::from_secs(20),
            end: Duration::from_secs(1),
        }
    }
}

/// A request whose caller has the role for it.
pub(super) struct ApiRequest {
    pub(super) context: ServerContext,
    params: BTreeMap<String, String>,
    caller: Caller,
    pub(super) headers: HeaderMap,
    /// Keeps its connection from being evicted.
    pub(super) slot: Option<Busy>,
}

impl ApiRequest {
    /// A parameter of the path.
    pub(super) fn param(&self, name: &str) -> String {
        self.params.get(name).cloned().unwrap_or_default()
    }

    /// Who changes something.
    pub(super) fn author(&self) -> Result<Author, Refusal> {
        match self.caller {
            Caller::Known(author) => Ok(author),
            Caller::Anonymous | Caller::UnknownToken | Caller::Reader => {
                Err(Refusal::unknown_caller(false))
            }
        }
    }

    /// What the caller may do.
    pub(super) fn role(&self) -> Option<Role> {
        self.caller.role()
    }

    /// Waits for its turn, for as long as it would for an answer.
    pub(super) async fn turn(
        &self,
        turns: &Arc<Semaphore>,
        busy: &str,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = Arc::clone(turns).acquire_owned();
        let turn = tokio::time::timeout(self.context.deadlines.answer, turn).await;
        let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, busy);
        turn.ok().and_then(Result::ok).ok_or_else(busy)
    }

    /// Asks the control thread.
    pub(super) async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Refusal> {
        let deadline = self.context.deadlines.answer;
        let answer = tokio::time::timeout(deadline, self.context.handle.ask(call)).await;
        let late = || {
            let error = "the control thread is busy: what was asked may still happen";
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, error)
        };
        Ok(answer.map_err(|_| late())??)
    }
}
