//! The endpoints by which a balancer leaves and joins again.

use axum::http::StatusCode;

use super::Call;
use super::endpoints::ApiRequest;
use super::exchange::{Json, Query};
use super::model::{LeaveQuery, Readiness, Stage};
use super::refusal::Refusal;

type Answer = Result<Json<Readiness>, Refusal>;

pub(super) async fn leave(request: ApiRequest, Query(query): Query<LeaveQuery>) -> Answer {
    let wait = query.wait().map_err(Refusal::malformed)?;
    let author = request.author()?;
    let stage = request
        .ask(|reply| Call::Leave(wait, author, reply))
        .await?;
    moved(stage)
}

pub(super) async fn join(request: ApiRequest, (): ()) -> Answer {
    let author = request.author()?;
    moved(request.ask(|reply| Call::Join(author, reply)).await?)
}

fn moved(stage: Result<Stage, String>) -> Answer {
    let stopping = |why| Refusal::new(StatusCode::CONFLICT, why);
    stage
        .map(|stage| {
            Json(Readiness {
                stage,
                still_here: Vec::new(),
            })
        })
        .map_err(stopping)
}
