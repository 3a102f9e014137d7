//! `mahoraga sessions`: lists what is open, or closes it.

use super::args::SessionsArgs;
use super::client::{Client, ClientError, path, query};
use super::show;
use super::table::{Align, Paint, Table};
use super::units::{bytes, plural, span};
use crate::admin::model::{Killed, SessionStatus};

pub(super) async fn sessions(args: &SessionsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.asked)?;
    let filter = [
        ("listener", args.listener.clone()),
        ("pool", args.pool.clone()),
        ("backend", args.backend.clone()),
        ("client", args.client.map(|client| client.to_string())),
        ("limit", args.limit.map(|limit| limit.to_string())),
        ("all", args.all.then(|| "true".to_owned())),
    ];
    let filter = query(&filter);
    let of = path(&["sessions"]) + &filter;
    let killed = match args.kill.as_deref() {
        None => {
            let sessions: Vec<SessionStatus> = client.get(&of).await?;
            show(&args.asked, &sessions, |sessions, paint| {
                table(sessions, paint)
            });
            return Ok(());
        }
        Some([]) if filter.is_empty() => {
            let why = "--kill: which ones? Give ids, --listener, --pool, --backend or --client, \
                       or --all";
            return Err(ClientError::Usage(why.to_owned()));
        }
        Some([]) => client.delete(&of).await?,
        Some(_) if !filter.is_empty() => {
            let why = "--kill: give ids or what else they have in common, not both";
            return Err(ClientError::Usage(why.to_owned()));
        }
        Some(ids) => {
            let mut killed = Killed::default();
            for id in ids {
                let one: Killed = client.delete(&path(&["sessions", id])).await?;
                killed.sessions += one.sessions;
            }
            killed
        }
    };
    show(&args.asked, &killed, |killed, _| {
        format!("{} closed\n", plural(killed.sessions, "session"))
    });
    Ok(())
}

fn table(sessions: &[SessionStatus], paint: Paint) -> String {
    if sessions.is_empty() {
        return "no session\n".to_owned();
    }
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("client", Align::Left),
        ("listener", Align::Left),
        ("pool", Align::Left),
        ("backend", Align::Left),
        ("state", Align::Left),
        ("age", Align::Right),
        ("idle", Align::Right),
        ("up", Align::Right),
        ("down", Align::Right),
    ]);
    for one in sessions {
        table.row([
            one.id.as_str().into(),
            one.client.clone().unwrap_or_default().into(),
            one.listener.as_str().into(),
            one.pool.as_str().into(),
            one.backend.clone().unwrap_or_default().into(),
            one.state.as_str().into(),
            span(one.age_s).into(),
            span(one.idle_s).into(),
            bytes(one.bytes_up as f64).into(),
            bytes(one.bytes_down as f64).into(),
        ]);
    }
    table.text(paint)
}
