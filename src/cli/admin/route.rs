//! `mahoraga route`: where a client of a listener would go.

use super::args::RouteArgs;
use super::client::{Client, ClientError, path, query};
use super::show;
use super::units::plain;
use crate::admin::model::{RouteChoice, RouteQuestion};

pub(super) async fn route(args: &RouteArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let question = RouteQuestion {
        client: args.client,
        sni: args.sni.clone(),
        alpn: (!args.alpn.is_empty()).then(|| args.alpn.join(",")),
        protocol: args.protocol.clone(),
        http_host: args.http_host.clone(),
        http_path: args.http_path.clone(),
    };
    let of = path(&["listeners", &args.listener, "route"]) + &query(&question);
    let choice: RouteChoice = client.get(&of).await?;
    show(&args.options, &choice, |choice, _| text(choice));
    Ok(())
}

fn text(choice: &RouteChoice) -> String {
    let goes = match &choice.pool {
        Some(pool) => format!("would go to pool {}", plain(pool)),
        None => "would be refused".to_owned(),
    };
    format!("The client {goes}: {}.\n", plain(&choice.says))
}
