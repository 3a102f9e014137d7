//! Commands about bans.

use std::fs;
use std::io;
use std::path::Path;

use hyper::Method;
use serde::Serialize;
use serde_json::json;

use super::args::{BanArgs, BansArgs, ClientOptions, UnbanArgs};
use super::client::{Client, ClientError, path, query};
use super::table::{Align, Paint, Table};
use super::units::{count, plain, span};
use super::{print, show};
use crate::admin::model::{
    BANS, BANS_MAX, BanFilter, BanStatus, Banned, Lifted, LiftedBans, UnbanFilter,
};
use crate::config::values::{self, ValueError, written};
use crate::prefix::Prefix;
use crate::wording::plural;

pub(super) async fn bans(args: &BansArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let filter = BanFilter {
        client: args.client,
        within: args.within,
        by: args.by,
        sort: args.sort.unwrap_or_default(),
        limit: args.limit.or_else(|| args.export.then_some(BANS_MAX)),
    };
    let bans: Vec<BanStatus> = client.get(&(path(&["bans"]) + &query(&filter))).await?;
    let limit = args.limit.unwrap_or(BANS) as usize;
    if args.export {
        let lines = bans.iter().map(|ban| match &ban.reason {
            Some(reason) => format!("{} # {}\n", ban.prefix, plain(reason)),
            None => format!("{}\n", ban.prefix),
        });
        // A reader that closed standard output does not need the rest.
        let _ = print(&lines.collect::<String>());
        return Ok(());
    }
    show(&args.options, &bans, |bans, paint| {
        let mut text = table(bans, paint);
        if bans.len() >= limit {
            text += &format!("only the first {limit} are shown: see --limit\n");
        }
        text
    });
    Ok(())
}

pub(super) async fn ban(args: &BanArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    let mut prefixes = args.prefixes.clone();
    if let Some(path) = &args.from {
        prefixes.extend(read(path).map_err(ClientError::Usage)?);
    }
    let mut refused = Refused::default();
    for prefix in &prefixes {
        let mut body = json!({ "prefix": prefix });
        if let Some(time) = args.time {
            body["for"] = written(time).into();
        }
        if let Some(reason) = &args.reason {
            body["reason"] = reason.as_str().into();
        }
        if args.force {
            body["force"] = true.into();
        }
        let banned = client.send(Method::POST, &path(&["bans"]), &body).await;
        let Some(banned) = refused.pass::<Banned>(banned)? else {
            continue;
        };
        let until = match &banned.ban.until {
            Some(until) => format!("until {until}"),
            None => "until it is lifted".to_owned(),
        };
        let again = if banned.replaced {
            ", as a new ban"
        } else {
            ""
        };
        report(
            &args.options,
            &banned,
            &format!("{prefix} banned {until}{again}"),
        );
        warn(&args.options, &banned.notes);
    }
    refused.end("banned", prefixes.len())
}

/// What the balancer refused of a list: the rest is done all the same.
#[derive(Default)]
struct Refused {
    count: usize,
    /// The last reason.
    why: String,
}

impl Refused {
    /// An answer; `None`: it is a refusal.
    fn pass<T>(&mut self, answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(ClientError::Refused(why)) => {
                self.count += 1;
                let before = std::mem::replace(&mut self.why, why);
                if self.count > 1 {
                    crate::cli::say(&format_args!("error: {}", plain(&before)));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The last refusal is the error of the command.
    fn end(self, done: &str, all: usize) -> Result<(), ClientError> {
        let Self { count, why } = self;
        match count {
            0 => Ok(()),
            _ if all == 1 => Err(ClientError::Refused(why)),
            _ => Err(ClientError::Refused(format!(
                "{why}\nerror: {count} of {all} are not {done}"
            ))),
        }
    }
}

pub(super) async fn unban(args: &UnbanArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.options)?;
    if args.prefixes.is_empty() {
        return unban_those(args, &client).await;
    }
    let mut failed = Refused::default();
    for prefix in &args.prefixes {
        let of = path(&["bans", &prefix.to_string()]);
        let Some(lifted) = failed.pass::<Lifted>(client.delete(&of).await)? else {
            continue;
        };
        let refused = plural(lifted.ban.hits, "client");
        report(
            &args.options,
            &lifted,
            &format!("{prefix} unbanned; {refused} refused"),
        );
        warn(&args.options, &lifted.notes);
    }
    failed.end("unbanned", args.prefixes.len())
}

/// Lifts the bans that the flags select.
async fn unban_those(args: &UnbanArgs, client: &Client) -> Result<(), ClientError> {
    let filter = UnbanFilter {
        within: args.within,
        by: args.by,
        all: args.all,
    };
    let of = path(&["bans"]) + &query(&filter);
    let lifted: LiftedBans = client.delete(&of).await?;
    let count = plural(lifted.bans, "ban");
    report(&args.options, &lifted, &format!("{count} lifted"));
    warn(&args.options, &lifted.notes);
    Ok(())
}

/// The prefixes of a file: all of them, before the first is banned.
fn read(path: &Path) -> Result<Vec<Prefix>, String> {
    let shown = path.display();
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    };
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut prefixes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split(['#', ';']).next().unwrap_or("").trim();
        if !line.is_empty() {
            let prefix = values::prefix(line);
            let about = |error: ValueError| error.about("prefix", line);
            let wrong = |error| format!("{shown}: line {number}: {}", about(error));
            prefixes.push(prefix.map_err(wrong)?);
        }
    }
    Ok(prefixes)
}

/// Shows what an order does not do; in JSON the answer has it.
fn warn(options: &ClientOptions, notes: &[String]) {
    for note in notes.iter().filter(|_| !options.json) {
        crate::cli::say(&format_args!("warning: {}", plain(note)));
    }
}

/// Prints the outcome for one network, on a line.
fn report(options: &ClientOptions, answer: &impl Serialize, what: &str) {
    let line = match options.json {
        true => serde_json::to_string(answer).expect("the model has text for keys alone"),
        false => plain(what),
    };
    // A reader that closed standard output does not need the rest.
    let _ = print(&(line + "\n"));
}

fn table(bans: &[BanStatus], paint: Paint) -> String {
    let mut table = Table::new(&[
        ("banned", Align::Left),
        ("by", Align::Left),
        ("since", Align::Left),
        ("ends in", Align::Right),
        ("refused", Align::Right),
        ("reason", Align::Left),
    ]);
    for ban in bans {
        table.row([
            ban.prefix.to_string().into(),
            ban.by.as_str().into(),
            ban.since.as_str().into(),
            ban.left_s.map_or_else(|| "never".to_owned(), span).into(),
            count(ban.hits).into(),
            ban.reason.as_deref().unwrap_or("").into(),
        ]);
    }
    table.text(paint)
}
