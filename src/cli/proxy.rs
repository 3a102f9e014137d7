//! The flags of `mahoraga proxy`: each is a setting of a file, under a name of its own.
//!
//! The flags are written as the text of a file, which is read as any file is: they follow the same
//! rules.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use thiserror::Error;

use super::args::{ProxyArgs, names};
use crate::config::values::written;
use crate::config::{self, Config, ConfigError, Key, LogFormat, SettingInfo, Strategy, Warning};
use crate::prefix::Prefix;

/// Why the flags are refused, beyond what the parser of arguments checks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// A rule of files that flags follow too.
    #[error("--{flag}: {sentence}")]
    Rule {
        /// The flag of the setting.
        flag: String,
        /// The rule, in a sentence.
        sentence: String,
    },
    /// A time for persistence, without persistence.
    #[error("--persist-ttl has no effect alone: add --persist, or --strategy sticky_round_robin")]
    NothingPersists,
}

/// A flag, the path of its setting, and what stands for its value in help.
type Flag = (&'static str, &'static str, &'static str);

const FLAGS: [Flag; 21] = [
    ("strategy", "pools.strategy.name", "NAME"),
    ("key", "pools.strategy.key", "KEY"),
    ("max-load", "pools.strategy.max_load", "N|off"),
    ("persist", "pools.persist.key", "KEY"),
    ("persist-ttl", "pools.persist.ttl", "DUR"),
    ("check", "pools.check", "CHECK|off"),
    ("workers", "workers", "N|auto"),
    ("max-connections", "max_connections", "N|auto"),
    ("source-rate", "listeners.source_limits.rate", "N|off"),
    (
        "source-connections",
        "listeners.source_limits.connections",
        "N|off",
    ),
    ("attempts", "listeners.attempts", "N"),
    ("connect-timeout", "listeners.timeouts.connect", "DUR"),
    ("idle-timeout", "listeners.timeouts.idle", "DUR|off"),
    (
        "half-closed-timeout",
        "listeners.timeouts.half_closed",
        "DUR",
    ),
    ("session-timeout", "listeners.timeouts.session", "DUR|off"),
    ("peek-timeout", "listeners.timeouts.peek", "DUR"),
    ("shutdown-grace", "shutdown_grace", "DUR"),
    ("access-log", "access_log.to", "-|FILE"),
    ("access-log-format", "access_log.format", "FORMAT"),
    ("histogram-log", "histogram_log", "FILE"),
    ("admin", "admin", "PATH|off"),
];

/// The help of a flag, where the description of its setting does not say what the flag does.
fn help(flag: &str) -> Option<String> {
    Some(match flag {
        "strategy" => format!(
            "The strategy that selects backends: {}; two_tier's groups, and settings such as decay \
             and horizon, need a configuration file [default: round_robin]",
            names(&Strategy::all())
        ),
        "key" => format!(
            "What hash and two_tier select by, and sticky_round_robin recognises clients by: {}; \
             source_ip(24, 56) for networks of IPv4 and IPv6 [default: source_ip]",
            names(&Key::all()).replace("http_cookie", "http_cookie(NAME)")
        ),
        "max-load" => "With hash, no backend takes more than N times the average load, or off \
                       [default: off]"
            .to_owned(),
        "persist" => {
            "Send a client with the same KEY back to the backend it had [default: off]".to_owned()
        }
        "check" => "Probe the backends: tcp, tls, http, a group as in a configuration file, or \
                    off [default: off]"
            .to_owned(),
        "source-rate" => "New connections of a client in a second, and at once, or off; an IPv6 \
                          client is a /64 [default: off]"
            .to_owned(),
        "source-connections" => "Connections of a client at a time, or off; an IPv6 client is a \
                                 /64 [default: off]"
            .to_owned(),
        "access-log" => "Write a line for each session to standard output (-) or to a file \
                         [default: off]"
            .to_owned(),
        "access-log-format" => format!(
            "The format of the access log: {} [default: key_value]",
            names(&LogFormat::ALL)
        ),
        "admin" => "The Unix socket of the admin API, or off [default: mahoraga.sock, if it is \
                    free]"
            .to_owned(),
        _ => return None,
    })
}

/// Values of settings by their flags, as a file has them.
#[derive(Clone, Debug)]
pub struct ProxyFlags(Vec<(Flag, String)>);

impl ProxyFlags {
    fn value(&self, flag: &str) -> Option<&str> {
        let mut given = self.0.iter();
        given.find_map(|((name, ..), value)| (*name == flag).then_some(&**value))
    }

    /// The fields of a group that flags give, a line for each, with the flag in a comment.
    fn fields(&self, group: &str) -> String {
        let fields = self.0.iter().filter_map(|((flag, path, _), value)| {
            let name = path
                .strip_prefix(group)
                .filter(|name| !name.contains('.'))?;
            Some(format!("{name}: {value}, // --{flag}\n"))
        });
        fields.collect()
    }
}

impl Args for ProxyFlags {
    fn augment_args(command: Command) -> Command {
        let rows = config::all_settings();
        let flags = FLAGS.map(|(name, path, value)| {
            let row = rows.iter().find(|row| row.path == path);
            let row = row.expect("each flag has its setting");
            let read = Arc::clone(&row.read);
            let flag = Arg::new(name)
                .long(name)
                .value_name(value)
                .help(help(name).unwrap_or_else(|| description(row)))
                .value_parser(move |text: &str| read(text));
            match name {
                "access-log-format" => flag.alias("log-format").requires("access-log"),
                _ => flag,
            }
        });
        command.args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ProxyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FLAGS.into_iter();
        let given = given.filter_map(|flag| Some((flag, matches.get_one(flag.0).cloned()?)));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn description(row: &SettingInfo) -> String {
    let about = row.about.trim_end_matches('.');
    match &row.default {
        None => about.to_owned(),
        Some(default) => format!("{about} [default: {}]", default.trim_matches('"')),
    }
}

/// Turns the flags of `mahoraga proxy` into a configuration with one pool for all listeners.
///
/// # Errors
///
/// A rule of files is broken, or flags do not go with the strategy.
pub fn proxy_config(args: &ProxyArgs) -> Result<Config, ProxyError> {
    let text = file_of(args)?;
    let mistakes = match config::parse(String::new(), text.clone().into()) {
        Ok((config, _)) => return Ok(config),
        Err(ConfigError::Mistakes(mistakes)) => mistakes,
        Err(ConfigError::Unreadable { .. }) => Vec::new(),
    };
    let mistake = mistakes.first();
    let line = mistake.map_or(1, |mistake| mistake.place.line);
    let mut lines = text.lines().skip(line - 1);
    let flag = lines.find_map(|line| Some(line.rsplit_once(" // --")?.1));
    let flag = flag.unwrap_or("from").to_owned();
    // Places in that text, and names of its fields, mean nothing to a caller.
    let sentence = mistake.map_or("", |mistake| &*mistake.sentence);
    let sentence = sentence
        .split("; the first is at ")
        .next()
        .unwrap_or(sentence);
    let name = sentence.split_once(": ");
    let name = name.filter(|(name, _)| [&*flag.replace('-', "_"), "access_list"].contains(name));
    let sentence = name.map_or(sentence, |(_, rest)| rest).to_owned();
    Err(ProxyError::Rule { flag, sentence })
}

/// The warning about prefixes that leave it open what holds for all others.
pub(super) fn others_warning(args: &ProxyArgs) -> Option<Warning> {
    if args.allow.is_empty() || args.deny.is_empty() {
        return None;
    }
    let all = || args.allow.iter().chain(&args.deny);
    let missing = ["0.0.0.0/0", "::/0"].map(|whole| {
        let is_listed = all().any(|prefix| prefix.to_string() == whole);
        (!is_listed).then(|| format!("--deny {whole}"))
    });
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    let sentence = format!(
        "clients in none of the prefixes may connect: add {} to let in only those of --allow",
        missing.join(" ")
    );
    (!missing.is_empty()).then_some(Warning {
        place: None,
        sentence,
    })
}

/// The file with the settings of the flags.
fn file_of(args: &ProxyArgs) -> Result<String, ProxyError> {
    let flags = &args.flags;
    let is_sticky = flags.value("strategy") == Some("\"sticky_round_robin\"");
    let (key, ttl) = (flags.value("persist"), flags.value("persist-ttl"));
    if key.is_none() && ttl.is_some() && !is_sticky {
        return Err(ProxyError::NothingPersists);
    }
    let ttl = ttl.map_or_else(String::new, |ttl| format!("ttl: {ttl}, // --persist-ttl\n"));
    let (of_strategy, of_persist) = if is_sticky { (&*ttl, "") } else { ("", &*ttl) };
    let persist = key.map_or_else(String::new, |key| {
        format!("persist: (key: {key}, // --persist\n{of_persist}),\n")
    });
    let name = match flags.value("strategy") {
        None => "name: \"round_robin\",\n",
        Some(_) => "",
    };
    let access_log = match flags.value("access-log") {
        None => "\"off\"".to_owned(),
        Some(_) => format!("(\n{})", flags.fields("access_log.")),
    };
    let backends = args.to.iter();
    let backends = backends.map(|backend| format!("{}, // --to\n", backend.ron()));
    Ok(format!(
        "({}trusted: [\n{}],\naccess_log: {access_log},\n{}pools: [(name: {NAME:?},\n\
         strategy: (\n{name}{}{of_strategy}),\n{persist}{}backends: [\n{}])])",
        flags.fields(""),
        listed(&args.trusted, "trusted"),
        listeners(args),
        flags.fields("pools.strategy."),
        flags.fields("pools."),
        backends.collect::<String>(),
    ))
}

/// When clients are banned.
fn ban(args: &ProxyArgs) -> String {
    let Some((after, within)) = args.ban_after else {
        return String::new();
    };
    let within = written(within);
    let time = args.ban_for.map(written);
    let time = time.map(|time| format!("for: {time:?}, // --ban-for\n"));
    let time = time.unwrap_or_default();
    format!("ban: (after: {after}, within: {within:?}, // --ban-after\n{time}),\n")
}

/// Prefixes of a flag, a line for each.
fn listed(prefixes: &[Prefix], flag: &str) -> String {
    let prefixes = prefixes.iter();
    let lines = prefixes.map(|prefix| format!("\"{prefix}\", // --{flag}\n"));
    lines.collect()
}

/// The listeners, and the access list of all of them, if prefixes are given.
fn listeners(args: &ProxyArgs) -> String {
    let (own, timeouts) = ("listeners.", "listeners.timeouts.");
    let [own, timeouts] = [own, timeouts].map(|group| args.flags.fields(group));
    let limits = args.flags.fields("listeners.source_limits.");
    // Off is no limit, which is no group.
    let has_limits = limits.lines().any(|line| !line.contains("\"off\""));
    let limits = match has_limits {
        true => format!("source_limits: (\n{limits}),\n"),
        false => String::new(),
    };
    let ban = ban(args);
    let has_list = !args.allow.is_empty() || !args.deny.is_empty();
    let flag = if args.allow.is_empty() {
        "deny"
    } else {
        "allow"
    };
    let access_list = has_list.then(|| format!("access_list: {NAME:?}, // --{flag}\n"));
    let access_list = access_list.unwrap_or_default();
    let mut equal = HashMap::new();
    let listeners = args.from.iter().map(|bind| {
        let count = equal.entry(bind).or_insert(0);
        *count += 1;
        // Equal addresses are possible with port 0.
        let name = match *count {
            1 => String::new(),
            count => format!("name: \"{bind}#{count}\", "),
        };
        let bind = bind.to_string();
        format!(
            "({name}bind: {bind:?}, pool: {NAME:?}, // --from\n\
             {own}{access_list}{limits}{ban}timeouts: (\n{timeouts})),\n"
        )
    });
    let listeners: String = listeners.collect();
    let (allow, deny) = (listed(&args.allow, "allow"), listed(&args.deny, "deny"));
    // With both, they do not say what holds for all others: `others_warning` reports it.
    let others = match (args.allow.is_empty(), args.deny.is_empty()) {
        (false, false) => ", others: \"allow\"",
        _ => "",
    };
    let lists = format!(
        "access_lists: [(name: {NAME:?}, allow: [\n{allow}], deny: [\n{deny}]{others})],\n"
    );
    let lists = if has_list { lists } else { String::new() };
    format!("listeners: [\n{listeners}],\n{lists}")
}

/// The name of the only pool, and of the only access list.
const NAME: &str = "default";

#[cfg(test)]
mod tests;
