//! Tips for commands and flags that other programs have, or that were meant otherwise.

use std::path::Path;

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds a tip to the error of an unknown command or flag.
pub(super) fn with_tip(mut error: Error) -> Error {
    // A value that is refused has its flag as a context too.
    let is_unknown = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
    if !is_unknown.contains(&error.kind()) {
        return error;
    }
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word),
        _ => None,
    };
    let (command, argument) = (
        of(ContextKind::InvalidSubcommand),
        of(ContextKind::InvalidArg),
    );
    let Some(word) = command.or(argument) else {
        return error;
    };
    let suggests_hidden = matches!(
        error.get(ContextKind::SuggestedArg),
        Some(ContextValue::String(flag)) if flag == HIDDEN
    );
    let tip = tip(word).or_else(|| command.and_then(|word| file(word)));
    if suggests_hidden || tip.is_some() {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::Suggested);
    }
    if let Some(tip) = tip {
        let tip = vec![StyledStr::from(tip)];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tip));
    }
    error
}

fn tip(word: &str) -> Option<String> {
    let flag = word.split(['=', ' ']).next().unwrap_or_default();
    let known = TIPS.iter().find(|(words, _)| words.contains(&flag));
    known.map(|(_, tip)| (*tip).to_owned())
}

/// A word in the place of a command that names a configuration.
fn file(word: &str) -> Option<String> {
    let is_file = word.ends_with(".ron") || Path::new(word).is_file();
    is_file.then(|| format!("mahoraga run {word}, or mahoraga check {word}"))
}

/// A flag that does nothing, which clap suggests all the same.
const HIDDEN: &str = "--keep";

const TIPS: [(&[&str], &str); 10] = [
    (
        &["stop", "quit", "shutdown"],
        "send SIGTERM to the process: systemctl stop mahoraga, or kill PID; mahoraga status shows \
         the PID",
    ),
    (
        &["restart"],
        "mahoraga reload takes over a changed file; systemctl restart mahoraga ends the sessions",
    ),
    (&["start"], "mahoraga run FILE, or systemctl start mahoraga"),
    (
        &["test", "configtest", "-t"],
        "mahoraga check FILE validates a configuration",
    ),
    (
        &["show"],
        "each thing has a command of its own: mahoraga status, listeners, pools, backends, \
         sessions, events, histograms, top, config show",
    ),
    (&["info", "stat", "stats"], "mahoraga status"),
    (
        &["server", "servers", "backend"],
        "mahoraga backends shows them; add, remove, drain, ready, maint and weight change one",
    ),
    (
        &["--listen", "--bind", "--frontend"],
        "--from ADDR says where to listen",
    ),
    (
        &["--backend", "--server", "--upstream"],
        "--to ADDR names a backend",
    ),
    (
        &["--key", "--max-load"],
        "a strategy is set with its settings: --strategy '(name: \"hash\", key: \"sni\")'",
    ),
];
