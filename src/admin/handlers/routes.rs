//! What the endpoints of routes do.

use super::{Answer, LongAnswer, apply};
use crate::admin::Call;
use crate::admin::endpoints::ApiRequest;
use crate::admin::exchange::{Changes, LongJson, NewRoutes};
use crate::admin::model::{Changed, ListenerRoutes};
use crate::admin::refusal::Refusal;
use crate::config::{Change, ChangeError, NewWeights};

pub(in crate::admin) async fn routes(request: ApiRequest, (): ()) -> LongAnswer<ListenerRoutes> {
    let name = request.param("listener");
    let routes = request.ask(|reply| Call::Routes(name.clone(), reply));
    let unknown =
        |known: Vec<String>| Refusal::unknown("listener", &name, known.iter().map(String::as_str));
    routes.await?.map(LongJson).map_err(unknown)
}

pub(in crate::admin) async fn set_routes(
    request: ApiRequest,
    NewRoutes(routes, version): NewRoutes,
) -> Answer<Changed> {
    let listener = request.param("listener");
    let change = Change::SetRoutes {
        listener,
        routes,
        version,
    };
    apply(&request, change).await
}

pub(in crate::admin) async fn set_route(
    request: ApiRequest,
    Changes(patch): Changes<NewWeights>,
) -> Answer<Changed> {
    let route = request.param("route").parse().map_err(Refusal::malformed)?;
    let new = patch.values().checked();
    let (weights, version) = new.map_err(ChangeError::Invalid)?;
    let change = Change::WeighRoute {
        listener: request.param("listener"),
        route,
        weights,
        version,
    };
    apply(&request, change).await
}
