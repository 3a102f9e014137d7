//! Commands about bans.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

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
        let lines = bans.iter().map(exported);
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
    let mut listed: Vec<_> = args.prefixes.iter().copied().map(Listed::bare).collect();
    if let Some(path) = &args.from {
        listed.extend(read(path).map_err(ClientError::Usage)?);
    }
    let mut refused = Refused::default();
    for one in &listed {
        let prefix = one.prefix;
        let mut body = json!({ "prefix": prefix });
        if let Some(time) = args.time {
            body["for"] = written(time).into();
        } else if let Some(until) = one.until {
            let Some(left) = left(until) else {
                let until = humantime::format_rfc3339_seconds(until);
                let past = format!("{prefix} is not banned: its ban ended at {until}");
                warn(&args.options, &[past]);
                continue;
            };
            body["for"] = written(left).into();
        }
        if let Some(reason) = args.reason.as_ref().or(one.reason.as_ref()) {
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
            ", in place of its earlier ban"
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
    refused.end("banned", listed.len())
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
                "{why}\nerror: {count} of {all} could not be {done}"
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

/// A ban as a line of a list.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    prefix: Prefix,
    until: Option<SystemTime>,
    reason: Option<String>,
}

impl Listed {
    fn bare(prefix: Prefix) -> Self {
        Self {
            prefix,
            until: None,
            reason: None,
        }
    }

    /// Reads a prefix and a comment: what [`exported`] wrote, or the reason as others write it.
    fn new(prefix: Prefix, comment: &str) -> Self {
        let (until, reason) = end_and_reason(comment.trim());
        let reason = Some(values::shown_reason(reason)).filter(|reason| !reason.is_empty());
        Self {
            prefix,
            until,
            reason,
        }
    }
}

/// `PREFIX # until TIME reason`, without what the ban has not.
fn exported(ban: &BanStatus) -> String {
    let until = ban.until.as_ref().map(|until| format!("{UNTIL}{until}"));
    let reason = ban.reason.as_deref().map(plain);
    let comment: Vec<_> = until.into_iter().chain(reason).collect();
    match comment.is_empty() {
        true => format!("{}\n", ban.prefix),
        false => format!("{} # {}\n", ban.prefix, comment.join(" ")),
    }
}

/// The end of a ban that a comment begins with, if it does, and the rest.
fn end_and_reason(comment: &str) -> (Option<SystemTime>, &str) {
    let parts = || {
        let after = comment.strip_prefix(UNTIL)?;
        let (time, rest) = after.split_once(' ').unwrap_or((after, ""));
        Some((humantime::parse_rfc3339(time).ok()?, rest))
    };
    parts().map_or((None, comment), |(until, rest)| (Some(until), rest))
}

/// Whole seconds until a time; `None`: it is over.
fn left(until: SystemTime) -> Option<Duration> {
    let left = until.duration_since(SystemTime::now()).ok()?;
    Some(Duration::from_secs(left.as_secs() + 1))
}

/// What begins the comment of a ban that ends.
const UNTIL: &str = "until ";

/// The bans of a file: all of them, before the first takes effect.
fn read(path: &Path) -> Result<Vec<Listed>, String> {
    let shown = path.display();
    let text = match path.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(path),
    };
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut listed = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (line, comment) = line.split_once(['#', ';']).unwrap_or((line, ""));
        let line = line.trim();
        if !line.is_empty() {
            let prefix = values::prefix(line);
            let about = |error: ValueError| error.about("prefix", line);
            let wrong = |error| format!("{shown}: line {number}: {}", about(error));
            listed.push(Listed::new(prefix.map_err(wrong)?, comment));
        }
    }
    Ok(listed)
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

pub(super) fn table(bans: &[BanStatus], paint: Paint) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_read_again() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
        for (until, reason) in [
            (None, None),
            (None, Some("a b")),
            (Some(until), None),
            (Some(until), Some("until it stops; # and more")),
        ] {
            let shown = |at| humantime::format_rfc3339_seconds(at).to_string();
            let ban = BanStatus {
                prefix: "192.0.2.0/24".parse().unwrap(),
                by: crate::admin::model::BannedBy::Rule,
                reason: reason.map(str::to_owned),
                since: String::new(),
                until: until.map(shown),
                left_s: None,
                hits: 0,
            };
            let line = exported(&ban);
            let comment = line.split_once('#').map_or("", |(_, comment)| comment);
            let reason = reason.map(str::to_owned);
            let prefix = ban.prefix;
            let again = Listed {
                prefix,
                until,
                reason,
            };
            assert_eq!(Listed::new(prefix, comment), again, "{line}");
        }
        // Others may write what they like.
        let (until, rest) = end_and_reason("until tomorrow");
        assert_eq!((until, rest), (None, "until tomorrow"));
        let left = left(SystemTime::now() + Duration::from_millis(10));
        assert_eq!(left, Some(Duration::from_secs(1)));
    }
}
