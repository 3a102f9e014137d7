//! `mahoraga sessions`: lists open sessions, or closes them.

use super::args::SessionsArgs;
use super::client::{Client, ClientError, path, query};
use super::find::find_serving;
use super::show;
use super::table::{Align, Paint, Table};
use super::units::{bytes, span};
use crate::admin::model::{
    Killed, Limits, SESSIONS, SessionFilter, SessionStatus, TlsClientStatus,
};
use crate::wording::plural;

pub(super) async fn sessions(args: &SessionsArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let killed = match args.kill.as_deref() {
        None => {
            let sessions: Vec<SessionStatus> = client.get(&target(&client, args).await?).await?;
            let limit = args.filter.limit.unwrap_or(SESSIONS);
            let is_cut = sessions.len() >= limit as usize && !args.options.json;
            let filter = SessionFilter {
                limit: None,
                ..args.filter.filter()
            };
            let all = if is_cut && filter == SessionFilter::default() {
                // The sessions are here: not to know their number is no reason to fail.
                client.get::<Limits>(&path(&["limits"])).await.ok()
            } else {
                None
            };
            show(&args.options, &sessions, |sessions, paint| {
                let mut text = table(sessions, paint);
                text += &match all.map(|limits| limits.connections) {
                    Some(all) if all > limit.into() => {
                        format!("{limit} of {all} sessions: --limit shows more\n")
                    }
                    None if is_cut => format!("the first {limit}: --limit shows more\n"),
                    Some(_) | None => String::new(),
                };
                text
            });
            return Ok(());
        }
        Some([]) if !is_filtered(args) => {
            let why = "--kill: expected ids, --listener, --pool, --backend, --client or --all";
            return Err(ClientError::Usage(why.to_owned()));
        }
        Some([]) => client.delete(&target(&client, args).await?).await?,
        Some(_) if is_filtered(args) => {
            let why = "--kill: expected ids or other flags, not both";
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
    show(&args.options, &killed, |killed, _| {
        format!("{} closed\n", plural(killed.sessions, "session"))
    });
    Ok(())
}

fn is_filtered(args: &SessionsArgs) -> bool {
    args.filter.filter() != SessionFilter::default()
}

/// The path of the API for the sessions that the flags select.
async fn target(client: &Client, args: &SessionsArgs) -> Result<String, ClientError> {
    let mut filter = args.filter.filter();
    if let Some(text) = &args.filter.backend {
        let found = find_serving(client, filter.pool.as_deref(), text).await?;
        filter.pool = Some(found.pool);
        filter.backend = Some(found.backend);
    }
    Ok(path(&["sessions"]) + &query(&filter))
}

/// The shortest text that says who a client is by its certificate.
fn tls_client(client: &TlsClientStatus) -> String {
    let name = client.common_name.as_ref();
    let name = name.or_else(|| client.names.first());
    name.unwrap_or(&client.fingerprint).clone()
}

pub(super) fn table(sessions: &[SessionStatus], paint: Paint) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new(&[
        ("id", Align::Left),
        ("client", Align::Left),
        ("proxy", Align::Left),
        ("listener", Align::Left),
        ("pool", Align::Left),
        ("backend", Align::Left),
        ("tls client", Align::Left),
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
            one.proxy.clone().unwrap_or_default().into(),
            one.listener.as_str().into(),
            one.pool.as_str().into(),
            one.backend.clone().unwrap_or_default().into(),
            one.tls_client
                .as_ref()
                .map(tls_client)
                .unwrap_or_default()
                .into(),
            one.state.as_str().into(),
            span(one.age_s).into(),
            span(one.idle_s).into(),
            bytes(one.bytes_up as f64).into(),
            bytes(one.bytes_down as f64).into(),
        ]);
    }
    table.text(paint)
}
