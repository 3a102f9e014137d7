//! The routes of a listener: as a file has them, and changes of them.

use std::path::Path;
use std::{fs, io};

use hyper::Method;
use serde_json::json;

use super::args::{RoutesArgs, SetRouteArgs, SetRoutesArgs};
use super::change::report;
use super::client::{Client, ClientError, path};
use super::show;
use super::units::plain;
use crate::admin::model::{Changed, ListenerRoutes};
use crate::config::{RouteList, STANDARD_INPUT, name_of};
use crate::wording::plural;

pub(super) async fn routes(args: &RoutesArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let of = path(&["listeners", &args.listener, "routes"]);
    let answer: ListenerRoutes = client.get(&of).await?;
    let routes = read_list(&answer)?;
    show(&args.options, &answer, |answer, _| {
        let (listener, version) = (plain(&args.listener), plain(&answer.version));
        format!(
            "// routes of {listener}, version {version}\n{}",
            routes.ron()
        )
    });
    Ok(())
}

/// Replaces all routes of a listener.
pub(super) async fn replace(args: &SetRoutesArgs) -> Result<(), ClientError> {
    let routes = read(&args.from)?;
    let client = Client::new(&args.how.options)?;
    let body = json!({ "routes": routes.json(), "version": args.expected.if_version });
    let to = path(&["listeners", &args.listener, "routes"]);
    let changed: Changed = client.send(Method::PUT, &to, &body).await?;
    let count = match routes.len() {
        0 => "no routes".to_owned(),
        count => plural(count as u64, "route"),
    };
    report(
        &args.how,
        &changed,
        &format!("{} has {count}", args.listener),
    );
    Ok(())
}

/// Changes weights of a route.
pub(super) async fn weigh(args: &SetRouteArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let pools = args.pools.iter();
    let pools = pools.map(|pool| json!({ "name": pool.name, "weight": pool.weight }));
    let body = json!({
        "pools": pools.collect::<Vec<_>>(),
        "version": args.expected.if_version,
    });
    let to = path(&["listeners", &args.listener, "routes", &args.route]);
    let changed: Changed = client.send(Method::PATCH, &to, &body).await?;
    let (route, listener) = (&args.route, &args.listener);
    // An answer in JSON has no words.
    let weights = match args.how.options.json {
        true => String::new(),
        false => weights(&client, listener, route).await?,
    };
    let what = format!("route {route} of {listener} has {weights}");
    report(&args.how, &changed, &what);
    Ok(())
}

/// All weights of a route by now, with the share of each: those that were not named matter too.
async fn weights(client: &Client, listener: &str, route: &str) -> Result<String, ClientError> {
    let of = path(&["listeners", listener, "routes"]);
    let answer: ListenerRoutes = client.get(&of).await?;
    let list = read_list(&answer)?;
    let all = list.weights(route);
    let sum: u64 = all.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let each = all.iter().map(|(pool, weight)| {
        let percent = 100.0 * f64::from(*weight) / sum.max(1) as f64;
        let percent = match percent {
            few if *weight > 0 && few < 1.0 => format!("{few:.1}"),
            more => format!("{more:.0}"),
        };
        format!("{} {weight} ({percent} %)", plain(pool))
    });
    Ok(each.collect::<Vec<_>>().join(", "))
}

fn read_list(answer: &ListenerRoutes) -> Result<RouteList, ClientError> {
    let read = json!(answer).to_string();
    let read = RouteList::read(read.as_bytes());
    let read = read.map(|(routes, _)| routes);
    read.map_err(|error| ClientError::Refused(format!("cannot read the answer: {error}")))
}

fn read(from: &Path) -> Result<RouteList, ClientError> {
    let text = match from == Path::new(STANDARD_INPUT) {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(from),
    };
    let file = name_of(from);
    let text = text.map_err(|error| ClientError::Usage(format!("cannot read {file}: {error}")))?;
    RouteList::parse(file, text).map_err(|error| ClientError::Usage(error.to_string()))
}
