//! `mahoraga leave` and `mahoraga join`.

use std::time::Duration;

use super::args::{ClientOptions, LeaveArgs};
use super::client::{Client, ClientError, path, query};
use super::show;
use crate::admin::model::{LeaveQuery, Readiness, Stage};

/// Ends once the balancer has left. It fails where that does not come about: a restart that waits
/// for it would cut off clients.
pub(super) async fn leave(args: &LeaveArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let wait_s = Some(args.wait.as_secs_f64());
    let to = path(&["leave"]) + &query(&LeaveQuery { wait_s });
    let mut readiness: Readiness = client.post(&to).await?;
    if readiness.stage == Stage::Left {
        readiness = client.get("/healthz").await?;
    }
    while readiness.stage == Stage::Leaving {
        tokio::time::sleep(POLL).await;
        readiness = client.get("/healthz").await?;
    }
    if let (Stage::Left, Some(ip)) = (readiness.stage, readiness.still_here.first()) {
        return Err(ClientError::Refused(format!(
            "left, but {ip} is still on this machine, and new clients that come to it are refused: \
             move it away, or take them again by `mahoraga join`"
        )));
    }
    let why = match readiness.stage {
        Stage::Left => {
            show_stage(&args.options, &readiness);
            return Ok(());
        }
        Stage::Starting | Stage::Ready | Stage::Leaving => "joined meanwhile",
        Stage::Stopping => "the balancer is stopping",
    };
    Err(ClientError::Refused(format!("cannot leave: {why}")))
}

pub(super) async fn join(options: &ClientOptions) -> Result<(), ClientError> {
    let client = Client::new(options)?;
    let readiness: Readiness = client.post(&path(&["join"])).await?;
    show_stage(options, &readiness);
    Ok(())
}

fn show_stage(options: &ClientOptions, readiness: &Readiness) {
    show(options, readiness, |readiness, _| {
        let sentence = match readiness.stage {
            Stage::Starting => "joined: not ready yet, as not every backend was probed",
            Stage::Ready => "joined: new clients are taken",
            Stage::Leaving => "leaving: new clients are still taken",
            Stage::Left => "left: no new clients are taken, and sessions may go on",
            Stage::Stopping => "the balancer is stopping",
        };
        format!("{sentence}\n")
    });
}

/// How often to look whether the balancer has left.
const POLL: Duration = Duration::from_millis(100);
