//! Commands about access lists.

use std::fmt::Write;

use hyper::Method;
use serde_json::json;

use super::args::{AccessArgs, EditArgs};
use super::change::report;
use super::client::{Client, ClientError, path, query};
use super::show;
use super::show::denied;
use super::table::{Align, Paint, Table, Tone};
use super::units::{count, plain};
use crate::admin::model::{
    AccessDecision, AccessListDetail, AccessListStatus, AccessQuestion, ListenerStatus,
};
use crate::config::values::known;
use crate::guard::Access;

pub(super) async fn access(args: &AccessArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    if args.list.is_none() && args.client.is_none() {
        let lists: Vec<AccessListStatus> = client.get(&path(&["access_lists"])).await?;
        let listeners = listeners(&client, args).await?;
        show(&args.options, &lists, |lists, paint| {
            lists_text(lists, &listeners, paint)
        });
        return Ok(());
    }
    let list = list_of(&client, args.list.as_deref()).await?;
    let question = AccessQuestion {
        client: args.client,
    };
    let of = path(&["access_lists", &list]) + &query(&question);
    let list: AccessListDetail = client.get(&of).await?;
    let listeners = match list.client {
        None => listeners(&client, args).await?,
        Some(_) => Vec::new(),
    };
    show(&args.options, &list, |list, paint| {
        detail_text(list, &listeners, paint)
    });
    Ok(())
}

/// The listeners, which tell where a list refused clients. JSON shows each thing by itself.
async fn listeners(client: &Client, args: &AccessArgs) -> Result<Vec<ListenerStatus>, ClientError> {
    if args.options.json {
        return Ok(Vec::new());
    }
    client.get(&path(&["listeners"])).await
}

/// Adds prefixes to a list, or removes them: `to` is the field of the request.
pub(super) async fn edit(args: &EditArgs, to: &'static str) -> Result<(), ClientError> {
    let client = Client::new(&args.how.options)?;
    let list = list_of(&client, args.list.as_deref()).await?;
    let prefixes: Vec<_> = args.prefixes.iter().map(ToString::to_string).collect();
    let of = path(&["access_lists", &list]);
    let body = json!({ to: prefixes });
    let changed = client.send(Method::PATCH, &of, &body).await?;
    let what = format!("{}: {to} {}", plain(&list), prefixes.join(", "));
    report(&args.how, &changed, &what);
    Ok(())
}

/// The list of a name, or the only one.
async fn list_of(client: &Client, name: Option<&str>) -> Result<String, ClientError> {
    if let Some(name) = name {
        return Ok(name.to_owned());
    }
    let lists: Vec<AccessListStatus> = client.get(&path(&["access_lists"])).await?;
    if let [only] = &lists[..] {
        return Ok(only.name.clone());
    }
    if lists.is_empty() {
        let why = "there is no access list: add one to `access_lists` of the configuration, and \
                   name it as the `access_list` of a listener";
        return Err(ClientError::Refused(why.to_owned()));
    }
    let names = lists.iter().map(|list| &*list.name);
    let why = format!(
        "--list: there are {} access lists{}",
        lists.len(),
        known("", names)
    );
    Err(ClientError::Usage(why))
}

fn lists_text(lists: &[AccessListStatus], listeners: &[ListenerStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("access list", Align::Left),
        ("prefixes", Align::Right),
        ("others", Align::Left),
        ("refused", Align::Right),
        ("dry run", Align::Right),
        ("by listener", Align::Left),
        ("file", Align::Left),
    ]);
    for list in lists {
        let (refused, would_refuse) = match list.dry_run {
            true => (String::new(), count(list.refused)),
            false => (count(list.refused), String::new()),
        };
        table.row([
            list.name.as_str().into(),
            list.prefixes.to_string().into(),
            list.others.as_str().into(),
            refused.into(),
            would_refuse.into(),
            by_listener(list, listeners).into(),
            list.file.as_deref().unwrap_or("").into(),
        ]);
    }
    let mut text = table.text(paint);
    for list in lists {
        text += &error_line(list, paint);
    }
    text
}

/// The listeners that use a list, each with how many clients it refused there, or would have.
fn by_listener(list: &AccessListStatus, listeners: &[ListenerStatus]) -> String {
    let using = listeners.iter();
    let using = using.filter(|one| one.access_list.as_ref() == Some(&list.name));
    let refused = |one| count(denied(one, list.dry_run));
    let using = using.map(|one| format!("{} {}", one.name, refused(one)));
    using.collect::<Vec<_>>().join(", ")
}

fn error_line(list: &AccessListStatus, paint: Paint) -> String {
    let Some(error) = &list.error else {
        return String::new();
    };
    let error = format!("{}: the last good file is in force: {error}", list.name);
    format!("{}\n", paint.toned(&plain(&error), Tone::Bad))
}

fn detail_text(detail: &AccessListDetail, listeners: &[ListenerStatus], paint: Paint) -> String {
    if let Some(decision) = &detail.client {
        return decision_text(&detail.list, decision);
    }
    let mut text = lists_text(std::slice::from_ref(&detail.list), listeners, paint);
    let both = [("allow", &detail.allow), ("deny", &detail.deny)];
    for (access, prefixes) in both {
        for prefix in prefixes {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{access:<6} {}", plain(prefix));
        }
    }
    let shown = (detail.allow.len() + detail.deny.len()) as u64;
    let more = detail.list.prefixes.saturating_sub(shown);
    if let Some(file) = detail.list.file.as_ref().filter(|_| more > 0) {
        let _ = writeln!(text, "{more} more in {}", plain(file));
    }
    text
}

/// Such as `192.0.2.7: deny, by 192.0.2.0/24 of feed.txt`.
fn decision_text(list: &AccessListStatus, decision: &AccessDecision) -> String {
    let by = match (&decision.prefix, &list.file) {
        (None, _) => "it is in none of the prefixes".to_owned(),
        (Some(prefix), Some(file)) if decision.in_file => format!("by {prefix} of {file}"),
        (Some(prefix), _) => format!("by {prefix}"),
    };
    let AccessDecision { client, access, .. } = decision;
    let is_let_in = list.dry_run && access == Access::Deny.as_str();
    let dry_run = if is_let_in { " (dry run)" } else { "" };
    format!("{}\n", plain(&format!("{client}: {access}{dry_run}, {by}")))
}
