//! Orders in sentences.

use super::EndedOrder;
use crate::config::{AccessEdits, AdminState, Backend, Change, Changeable, Patch, RouteRef, Topic};
use crate::guard::Access;
use crate::wording::plural;

/// An order that ended, with the reason and the command that gives it again.
pub(super) fn ended(order: Change, why: &str, may_return: bool) -> EndedOrder {
    let mut sentence = format!("{} {}: {why}", order.topic(), no_longer(&order));
    if let Some((command, what)) = again(&order).filter(|_| may_return) {
        sentence += &format!("; run `mahoraga {command}` to {what} again");
    }
    EndedOrder { order, sentence }
}

/// The subject of an order and what it changes.
pub(super) fn words(order: &Change) -> String {
    let words = match order {
        Change::AddBackend { .. } => "added".to_owned(),
        Change::RemoveBackend { .. } => "removed".to_owned(),
        Change::SetBackend { patch, .. } => match only_state(patch) {
            Some(state) => state.as_str().to_owned(),
            None => patch.to_string(),
        },
        Change::SetPool { patch, .. } => patch.to_string(),
        Change::SetListener { patch, .. } => patch.to_string(),
        Change::SetRoutes { routes, .. } => match routes.len() {
            0 => "no routes".to_owned(),
            count => plural(count as u64, "route"),
        },
        Change::WeighRoute { route, weights, .. } => format!("{route}: {weights}"),
        Change::EditAccessList { edits, .. } => edits.to_string(),
        Change::SetGlobal { patch } => patch.to_string(),
    };
    format!("{}: {words}", order.topic())
}

/// A sentence about these orders, if there are any. `ends`: the end of the sentence for one order,
/// and for more.
pub(super) fn list(orders: &[&Change], ends: [&str; 2]) -> Option<String> {
    let shown = orders.iter().take(SHOWN_MAX).map(|order| words(order));
    let mut shown = shown.collect::<Vec<_>>().join("; ");
    if let Some(more) = orders.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        shown += &format!("; and {more} more");
    }
    match (orders.len(), ends) {
        (0, _) => None,
        (1, [end, _]) => Some(format!("1 change by command {end}: {shown}")),
        (count, [_, end]) => Some(format!("{count} changes by command {end}: {shown}")),
    }
}

fn no_longer(order: &Change) -> String {
    match order {
        Change::AddBackend { .. } => "is no longer added by a command".to_owned(),
        Change::RemoveBackend { .. } => "is no longer removed".to_owned(),
        Change::SetBackend { patch, .. } => match only_state(patch) {
            Some(AdminState::Ready) => "is no longer kept ready".to_owned(),
            Some(AdminState::Drain) => "is no longer drained".to_owned(),
            Some(AdminState::Maint) => "is no longer in maintenance".to_owned(),
            None => format!("no longer has {patch}"),
        },
        Change::SetPool { patch, .. } => format!("no longer has {patch}"),
        Change::SetListener { patch, .. } => format!("no longer has {patch}"),
        Change::SetRoutes { .. } => "no longer has the routes of a command".to_owned(),
        Change::WeighRoute { route, weights, .. } => {
            format!("no longer has the weights {weights} in {route}")
        }
        Change::EditAccessList { edits, .. } => format!("no longer has the change {edits}"),
        Change::SetGlobal { patch } => format!("no longer has {patch}"),
    }
}

/// The command that gives the order again, and what it does.
fn again(order: &Change) -> Option<(String, &'static str)> {
    let subject = subject(order.topic());
    Some(match order {
        Change::AddBackend { .. } | Change::SetRoutes { .. } => return None,
        Change::WeighRoute {
            listener,
            route: RouteRef::Named(route),
            weights,
            ..
        } => {
            let mut command = format!("set route {} {}", quoted(listener), quoted(route));
            for (pool, weight) in weights.iter() {
                command += &format!(" {}={weight}", quoted(pool));
            }
            (command, "set them")
        }
        // Another route may have its number by now.
        Change::WeighRoute { .. } => return None,
        Change::RemoveBackend { .. } => (format!("remove {subject}"), "remove it"),
        Change::SetBackend { patch, .. } => match only_state(patch) {
            Some(state) => {
                let what = match state {
                    AdminState::Ready => "make it ready",
                    AdminState::Drain => "drain it",
                    AdminState::Maint => "take it out",
                };
                (format!("{} {subject}", state.as_str()), what)
            }
            None => set(&format!("backend {subject}"), patch),
        },
        Change::SetPool { patch, .. } => set(&subject, patch),
        Change::SetListener { patch, .. } => set(&subject, patch),
        Change::EditAccessList { edits, .. } => (commands(edits, &subject)?, "make it"),
        Change::SetGlobal { patch } => set(&subject, patch),
    })
}

/// The command that makes edits of an access list, if it is one command and not too long.
fn commands(edits: &AccessEdits, subject: &str) -> Option<String> {
    let verb = |access: Option<Access>| access.map_or("unlist", Access::as_str);
    let mut verbs = edits.iter().map(|(_, access)| verb(access));
    let first = verbs.next()?;
    let is_short = verbs.all(|verb| verb == first) && edits.iter().count() <= SHOWN_MAX;
    let prefixes = edits.iter().map(|(prefix, _)| format!(" {prefix}"));
    let prefixes: String = prefixes.take(SHOWN_MAX).collect();
    is_short.then(|| format!("{first}{prefixes} {subject}"))
}

fn set<G: Changeable>(subject: &str, patch: &Patch<G>) -> (String, &'static str) {
    let mut command = format!("set {subject}");
    for (name, value) in patch.words() {
        let flag = name.replace('_', "-");
        command += &format!(" --{flag} {}", quoted(&value));
    }
    (command, "set it")
}

/// The subject of an order, as a shell reads it.
fn subject(topic: Topic<'_>) -> String {
    match topic {
        Topic::Backend(..) => quoted(&topic.to_string()),
        Topic::Pool(pool) => format!("pool {}", quoted(pool)),
        Topic::Listener(listener) => format!("listener {}", quoted(listener)),
        Topic::AccessList(list) => format!("--list {}", quoted(list)),
        Topic::Global => topic.to_string(),
    }
}

/// A word that a shell reads as this text.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The state, if a patch sets nothing else.
fn only_state(patch: &Patch<Backend>) -> Option<AdminState> {
    let is_alone = patch.words().count() == 1;
    patch.get("state").filter(|_| is_alone).map(|its| its.state)
}

/// Orders that a sentence names.
const SHOWN_MAX: usize = 10;
