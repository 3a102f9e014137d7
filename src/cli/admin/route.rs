//! `mahoraga route`: where a client of a listener would go.

use super::args::RouteArgs;
use super::client::{Client, ClientError, path, query};
use super::show;
use super::units::plain;
use crate::admin::model::RouteChoice;

pub(super) async fn route(args: &RouteArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let of = path(&["listeners", &args.listener, "route"]) + &query(&args.asked.question());
    let choice: RouteChoice = client.get(&of).await?;
    show(&args.options, &choice, |choice, _| text(choice));
    Ok(())
}

fn text(choice: &RouteChoice) -> String {
    let share = choice.share.map(|share| format!(" ({share} %)"));
    let goes = match &choice.pool {
        Some(pool) => format!(
            "would go to pool {}{}",
            plain(pool),
            share.unwrap_or_default()
        ),
        None => "would be refused".to_owned(),
    };
    format!("The client {goes}: {}.\n", plain(&choice.says))
}
