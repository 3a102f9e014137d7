//! Inputs and outputs of handlers: how queries and bodies are read and described, and how answers
//! are sent and described.

use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response, Sse};
use http_body_util::BodyExt as _;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::endpoints::ApiRequest;
use super::exposition::Scrape;
use super::pace::Pace;
use super::refusal::Refusal;
use crate::config::{
    Backend, Changeable, Patch, RouteList, backend_schema, patch_schema, routes_schema,
};
use crate::control::aside;

/// What an endpoint takes beside its path.
pub(super) enum Needs {
    Nothing,
    Query(Schema),
    Body(Schema),
}

/// What an endpoint answers with: a media type, and the schema of the body.
pub(super) struct Gives(pub(super) &'static str, pub(super) Schema);

/// Reads a body, which must be JSON if there is one: the whole, or its first piece if the endpoint
/// takes none.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    takes_body: bool,
    time: Duration,
) -> Result<Bytes, Refusal> {
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long");
    let read = tokio::time::timeout(time, read_pieces(body, takes_body)).await;
    let body = read.map_err(|_| late())??;
    if body.is_empty() || is_json(headers) {
        Ok(body)
    } else {
        let error = "invalid body: expected JSON, with `Content-Type: application/json`";
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
    }
}

/// A client may send a body in chunks of one byte, and each is a piece.
async fn read_pieces(mut body: Body, takes_body: bool) -> Result<Bytes, Refusal> {
    let (mut whole, mut pace) = (Vec::new(), Pace::new(PIECES_AT_ONCE));
    while let Some(piece) = body.frame().await {
        let failed = |error| Refusal::malformed(format!("cannot read the body: {error}"));
        // Trailers are ignored.
        let data = piece.map_err(failed)?.into_data().unwrap_or_default();
        if whole.len() + data.len() > BODY_MAX {
            let error = "the body is too large: expected 1 MiB at most";
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        whole.extend_from_slice(&data);
        if !takes_body && !whole.is_empty() {
            break;
        }
        pace.step().await;
    }
    Ok(whole.into())
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type
        .and_then(|value| value.to_str().ok()?.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

/// What a handler takes beside the path.
pub(super) trait Input: Sized + Send + 'static {
    /// Of an endpoint that takes no body only the beginning of one is read.
    const TAKES_BODY: bool = false;
    /// What may take long to read is read on another thread than the control thread.
    const READ_ASIDE: bool = false;

    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal>;
    fn describe(schemas: &mut SchemaGenerator) -> Needs;
}

/// Parameters behind the `?`.
pub(super) struct Query<T>(pub(super) T);

impl Input for () {
    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal> {
        no_query(uri)?;
        no_body(body)
    }

    fn describe(_: &mut SchemaGenerator) -> Needs {
        Needs::Nothing
    }
}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Input for Query<T> {
    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal> {
        no_body(body)?;
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| {
                // The error's own text is about axum; the cause says what is wrong.
                let cause = error.source().map(ToString::to_string);
                let cause = cause.unwrap_or_else(|| error.body_text());
                Refusal::malformed(format!("cannot read the query: {cause}"))
            })
    }

    fn describe(schemas: &mut SchemaGenerator) -> Needs {
        Needs::Query(T::json_schema(schemas))
    }
}

/// JSON, as an answer.
pub(super) struct Json<T>(pub(super) T);

/// New settings of something, as a request's body.
pub(super) struct Changes<G>(pub(super) Patch<G>);

impl<G: Changeable + Send> Input for Changes<G> {
    const TAKES_BODY: bool = true;

    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal> {
        no_query(uri)?;
        Ok(Self(Patch::read(body)?))
    }

    fn describe(schemas: &mut SchemaGenerator) -> Needs {
        Needs::Body(defined(G::SCHEMA, patch_schema::<G>(), schemas))
    }
}

/// A backend, as a request's body.
pub(super) struct NewBackend(pub(super) Backend);

impl Input for NewBackend {
    const TAKES_BODY: bool = true;

    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal> {
        no_query(uri)?;
        Ok(Self(Backend::read(body)?))
    }

    fn describe(schemas: &mut SchemaGenerator) -> Needs {
        Needs::Body(defined("NewBackend", backend_schema(), schemas))
    }
}

/// Routes of a listener and the version that they replace, as a request's body.
pub(super) struct NewRoutes(pub(super) RouteList, pub(super) Option<String>);

impl Input for NewRoutes {
    const TAKES_BODY: bool = true;
    /// Regular expressions are compiled.
    const READ_ASIDE: bool = true;

    fn read(uri: &Uri, body: &[u8]) -> Result<Self, Refusal> {
        no_query(uri)?;
        let (routes, version) = RouteList::read(body)?;
        Ok(Self(routes, version))
    }

    fn describe(schemas: &mut SchemaGenerator) -> Needs {
        Needs::Body(defined("NewRoutes", routes_schema(), schemas))
    }
}

/// A reference to a schema, which gets this name in the description.
fn defined(name: &str, schema: Value, schemas: &mut SchemaGenerator) -> Schema {
    let definitions = schemas.definitions_mut();
    definitions.entry(name).or_insert(schema);
    Schema::new_ref(format!("#/components/schemas/{name}"))
}

fn no_query(uri: &Uri) -> Result<(), Refusal> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => Err(Refusal::malformed("this endpoint takes no query")),
    }
}

fn no_body(body: &[u8]) -> Result<(), Refusal> {
    if body.is_empty() {
        Ok(())
    } else {
        Err(Refusal::malformed("this endpoint takes no body"))
    }
}

/// What a handler answers with.
pub(super) trait Output: Send + 'static {
    fn respond(self) -> impl Future<Output = Response> + Send;
    fn describe(schemas: &mut SchemaGenerator) -> Gives;
}

impl<T: Serialize + JsonSchema + Send + 'static> Output for Json<T> {
    async fn respond(self) -> Response {
        axum::Json(self.0).into_response()
    }

    fn describe(schemas: &mut SchemaGenerator) -> Gives {
        Gives("application/json", schemas.subschema_for::<T>())
    }
}

/// JSON of any length, which is written on another thread than the control thread.
pub(super) struct LongJson<T>(pub(super) T);

impl<T: Serialize + JsonSchema + Send + 'static> Output for LongJson<T> {
    async fn respond(self) -> Response {
        written_aside(|| axum::Json(self.0).into_response()).await
    }

    fn describe(schemas: &mut SchemaGenerator) -> Gives {
        Gives("application/json", schemas.subschema_for::<T>())
    }
}

/// Reads what a request has for its endpoint.
pub(super) async fn read_input<I: Input>(
    request: &ApiRequest,
    uri: Uri,
    body: Bytes,
) -> Result<I, Refusal> {
    if !I::READ_ASIDE {
        return I::read(&uri, &body);
    }
    let turns = &request.context.readings;
    let turn = request.turn(turns, "too many send routes").await?;
    let read = aside::read_request(move || {
        // It ends with the reading, even if the client is gone before.
        let _turn = turn;
        I::read(&uri, &body)
    });
    let error = "cannot read the body: no thread can be created";
    let no_thread = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error);
    read.await.map_err(no_thread)?
}

/// An answer of any length, which is made on another thread than the control thread.
async fn written_aside(write: impl FnOnce() -> Response + Send + 'static) -> Response {
    let no_thread = |_| {
        let error = "cannot write the answer: no thread can be created";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).into_response()
    };
    aside::compute(write).await.unwrap_or_else(no_thread)
}

impl Output for Scrape {
    async fn respond(self) -> Response {
        let media_type = [(header::CONTENT_TYPE, self.format.media_type())];
        written_aside(move || (media_type, self.text()).into_response()).await
    }

    fn describe(schemas: &mut SchemaGenerator) -> Gives {
        Gives("text/plain", schemas.subschema_for::<String>())
    }
}

/// JSON that is the same in every answer.
pub(super) struct WrittenJson(pub(super) &'static [u8]);

impl Output for WrittenJson {
    async fn respond(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }

    fn describe(schemas: &mut SchemaGenerator) -> Gives {
        Gives("application/json", schemas.subschema_for::<Value>())
    }
}

impl<S: Send + 'static> Output for Sse<S>
where
    Self: IntoResponse,
{
    async fn respond(self) -> Response {
        self.into_response()
    }

    fn describe(schemas: &mut SchemaGenerator) -> Gives {
        Gives("text/event-stream", schemas.subschema_for::<String>())
    }
}

/// Bytes of a body.
const BODY_MAX: usize = 1 << 20;
/// Pieces of a body that are read before everything else has its turn.
const PIECES_AT_ONCE: u32 = 8;
