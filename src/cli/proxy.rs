//! The flags of `mahoraga proxy`: each is a setting of a file, under a name of its own.

use std::collections::HashMap;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use thiserror::Error;

use super::args::{ProxyArgs, RouteFlag, names};
use crate::address::Address;
use crate::config::values::{self, written};
use crate::config::{
    self, Admin, AdminHttp, Backend, Config, FlagSetting, Key, LogFormat, ProxySource, SettingInfo,
    Strategy, Warning,
};
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
    /// A certificate without its key, or the other way round.
    #[error("--tls-cert: expected as many as --tls-key: each certificate has its key")]
    UnequalCertificates,
    /// Some backends of a pool speak TLS, others do not.
    #[error("--to: expected tls: before each backend or none: a pool speaks TLS with all of them")]
    UnequalBackends,
    /// A setting of TLS with backends, where none speaks it.
    #[error("--{0} has no effect without a backend that speaks TLS: write --to tls:HOST:PORT")]
    NoTlsBackend(&'static str),
}

/// A flag, the path of its setting, and what stands for its value in help.
type Flag = (&'static str, &'static str, &'static str);

const FLAGS: [Flag; 26] = [
    ("strategy", "pools.strategy.name", "NAME"),
    ("key", "pools.strategy.key", "KEY"),
    ("max-load", "pools.strategy.max_load", "N|off"),
    ("persist", "pools.persist.key", "KEY"),
    ("persist-ttl", "pools.persist.ttl", "DUR"),
    ("check", "pools.check", "CHECK|off"),
    ("send-proxy", "pools.send_proxy", "v1|v2|GROUP|off"),
    ("source", SOURCE, "client|ADDRESS"),
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
    (
        "server-first-timeout",
        "listeners.timeouts.server_first",
        "DUR",
    ),
    ("shutdown-grace", "shutdown_grace", "DUR"),
    ("access-log", "access_log.to", "-|FILE|SERVER"),
    ("access-log-format", "access_log.format", "FORMAT"),
    ("histogram-log", "histogram_log", "FILE"),
    ("admin", "admin", "PATH|off"),
    ("metrics", "metrics", "ADDRESS|off"),
    ("history", "history.path", "FILE"),
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
            names(&Key::all())
                .replace("http_cookie", "http_cookie(NAME)")
                .replace("proxy_tlv", "proxy_tlv(NAME)")
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
        "send-proxy" => "Begin connections to backends with a PROXY header, which tells them the \
                         client's address: v1 (text), v2 (binary), off, or a group as in a \
                         configuration file, such as (version: \"v2\", tlvs: [\"authority\"]) \
                         [default: off]"
            .to_owned(),
        "source-rate" => "New connections of a client in a second, and at once, or off; an IPv6 \
                          client is a /64 [default: off]"
            .to_owned(),
        "source-connections" => "Connections of a client at a time, or off; an IPv6 client is a \
                                 /64 [default: off]"
            .to_owned(),
        "source" => "Begin connections to backends at the address of their client, or at this one \
                     of this machine [default: the kernel chooses]"
            .to_owned(),
        "access-log" => "Write a line for each session to standard output (-), a file, syslog or \
                         journald [default: off]"
            .to_owned(),
        "access-log-format" => format!(
            "The format of the access log: {} [default: key_value]",
            names(&LogFormat::ALL)
        ),
        "admin" => "The Unix socket of the admin API, or off [default: mahoraga.sock, if it is \
                    free]"
            .to_owned(),
        "metrics" => "Serve /metrics, /healthz and /readyz on this address too; beyond loopback \
                      as a group with who may read, such as (bind: \"0.0.0.0:9100\", allow: \
                      [\"10.0.0.0/8\"]) [default: off]"
            .to_owned(),
        "history" => "The file that keeps the history of all figures and events; without it the \
                      last hour is kept in memory"
            .to_owned(),
        _ => return None,
    })
}

/// The values of flags.
#[derive(Clone, Debug)]
pub struct ProxyFlags(Vec<(Flag, String)>);

impl ProxyFlags {
    fn value(&self, flag: &str) -> Option<&str> {
        let mut given = self.0.iter();
        given.find_map(|((name, ..), value)| (*name == flag).then_some(&**value))
    }
}

impl Args for ProxyFlags {
    fn augment_args(command: Command) -> Command {
        let rows = config::all_settings();
        let flags = FLAGS.map(|(name, path, value)| {
            let row = rows.iter().find(|row| row.path == path);
            let row = row.expect("each flag has its setting");
            let read = match path {
                // The flag names one of what a file may list.
                SOURCE => Arc::new(values::source),
                _ => Arc::clone(&row.read),
            };
            let flag = Arg::new(name)
                .long(name)
                .value_name(value)
                .help(help(name).unwrap_or_else(|| description(row)))
                .value_parser(move |text: &str| read(text).map(|()| text.to_owned()));
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
    let settings = settings(args)?;
    let config = config::from_flags(&settings).map_err(|(flag, sentence)| {
        // The flag stands for the name of its setting.
        let name = sentence.split_once(": ");
        let name =
            name.filter(|(name, _)| [&*flag.replace('-', "_"), "access_list"].contains(name));
        let sentence = name.map_or(&*sentence, |(_, rest)| rest).to_owned();
        let flag = flag.to_owned();
        ProxyError::Rule { flag, sentence }
    })?;
    let Some(bind) = args.admin_http else {
        return Ok(config);
    };
    let nowhere = Admin {
        socket: None,
        ..Admin::default()
    };
    let admin = Some(Admin {
        http: Some(AdminHttp::with_made_tokens(bind)),
        ..config.admin.unwrap_or(nowhere)
    });
    Ok(Config { admin, ..config })
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

/// The settings of the flags, in the order of a file.
fn settings(args: &ProxyArgs) -> Result<Vec<FlagSetting>, ProxyError> {
    let flags = placed(&args.flags)?;
    let list = lists(args).next().map(|(flag, _)| flag);
    let routes = routes(args);
    let mut equal = HashMap::new();
    let mut all = Given(Vec::new());
    for (place, bind) in args.from.iter().enumerate() {
        let at = format!("listeners.{place}");
        all.set("from", format!("{at}.bind"), bind);
        all.set("from", format!("{at}.pool"), NAME);
        // Equal addresses are possible with port 0.
        let count = equal.entry(bind).or_insert(0);
        *count += 1;
        if *count > 1 {
            all.set("from", format!("{at}.name"), format!("{bind}#{count}"));
        }
        if let Some(flag) = list {
            all.set(flag, format!("{at}.access_list"), NAME);
        }
        if let Some((after, within)) = args.ban_after {
            all.set("ban-after", format!("{at}.ban.after"), after);
            all.set("ban-after", format!("{at}.ban.within"), written(within));
        }
        if let Some(time) = args.ban_for {
            all.set("ban-for", format!("{at}.ban.for"), written(time));
        }
        let proxies = proxies(&args.accept_proxy, bind).into_iter();
        for (place, proxy) in proxies.enumerate() {
            let path = format!("{at}.accept_proxy.{place}");
            all.set("accept-proxy", path, proxy);
        }
        tls(args, &at, &mut all)?;
        all.group(&flags, "listeners.", &format!("{at}."));
        for (place, route) in routes.iter().enumerate() {
            let at = format!("{at}.routes.{place}");
            all.set("route", format!("{at}.{}.0", route.kind), route.name);
            all.set("route", format!("{at}.pool"), &route.pool);
        }
    }
    let own = args.to.iter().map(|to| &to.backend).collect();
    let own = ("to", NAME, own);
    let routed = routes.iter().filter(|route| !route.backends.is_empty());
    let routed = routed.map(|route| ("route", &*route.pool, route.backends.clone()));
    for (place, (flag, name, backends)) in std::iter::once(own).chain(routed).enumerate() {
        all.pool(flag, place, (name, backends), &flags);
        if place == 0 {
            backend_tls(args, &mut all)?;
        }
    }
    if let Some(flag) = list {
        all.set(flag, "access_lists.0.name", NAME);
    }
    for (flag, prefixes) in lists(args) {
        all.list(flag, &format!("access_lists.0.{flag}"), prefixes);
    }
    // Both do not say what holds for all others: `others_warning` reports it.
    if lists(args).count() > 1 {
        all.set("deny", "access_lists.0.others", "allow");
    }
    all.list("trusted", "trusted", &args.trusted);
    if flags.value("access-log").is_none() {
        all.set("access-log", "access_log", "off");
    }
    let is_whole = |path: &str| !path.starts_with("listeners.") && !path.starts_with("pools.");
    for ((flag, path, _), value) in flags.0.iter().filter(|((_, path, _), _)| is_whole(path)) {
        all.set(flag, *path, value);
    }
    Ok(all.0)
}

/// The TLS of a listener.
fn tls(args: &ProxyArgs, at: &str, all: &mut Given) -> Result<(), ProxyError> {
    if args.tls_cert.len() != args.tls_key.len() {
        return Err(ProxyError::UnequalCertificates);
    }
    for (place, (certificate, key)) in args.tls_cert.iter().zip(&args.tls_key).enumerate() {
        let at = format!("{at}.tls.certificates.{place}");
        let files = [
            ("tls-cert", "certificate", certificate),
            ("tls-key", "key", key),
        ];
        for (flag, setting, path) in files {
            all.set(flag, format!("{at}.{setting}"), path.display());
        }
    }
    if let Some(ca) = &args.tls_client_ca {
        all.set(
            "tls-client-ca",
            format!("{at}.tls.clients.ca"),
            ca.display(),
        );
    }
    Ok(())
}

/// The TLS of the backends of the first pool.
fn backend_tls(args: &ProxyArgs, all: &mut Given) -> Result<(), ProxyError> {
    let secured = args.to.iter().filter(|to| to.speaks_tls).count();
    let ca = args.backend_ca.as_deref();
    if secured == 0 {
        return match (ca, &args.backend_name) {
            (Some(_), _) => Err(ProxyError::NoTlsBackend("backend-ca")),
            (None, Some(_)) => Err(ProxyError::NoTlsBackend("backend-name")),
            (None, None) => Ok(()),
        };
    }
    if secured < args.to.len() {
        return Err(ProxyError::UnequalBackends);
    }
    all.set("backend-ca", "pools.0.tls.verify", ca.unwrap_or("system"));
    if let Some(name) = &args.backend_name {
        all.set("backend-name", "pools.0.tls.sni", name);
    }
    Ok(())
}

/// The flags, with the paths that their settings have beside the others.
fn placed(flags: &ProxyFlags) -> Result<ProxyFlags, ProxyError> {
    let mut flags = flags.clone();
    let is_sticky = flags.value("strategy") == Some("sticky_round_robin");
    if flags.value("persist").is_none() && flags.value("persist-ttl").is_some() && !is_sticky {
        return Err(ProxyError::NothingPersists);
    }
    // Off is no limit, which is no group.
    let limits = ["source-rate", "source-connections"].map(|flag| flags.value(flag));
    if limits.iter().flatten().all(|value| *value == "off") {
        flags
            .0
            .retain(|((flag, ..), _)| !flag.starts_with("source-"));
    }
    for ((flag, path, _), value) in &mut flags.0 {
        match *flag {
            "persist-ttl" if is_sticky => *path = "pools.strategy.ttl",
            "source" if value != "client" => *path = "pools.source.0",
            _ => {}
        }
    }
    Ok(flags)
}

/// The proxies of a listener: those that can connect to it. Where none can, a rule says so.
fn proxies<'a>(all: &'a [ProxySource], bind: &Address) -> Vec<&'a ProxySource> {
    let is_unix = matches!(bind, Address::Unix(_));
    let fits = |one: &&ProxySource| (**one == ProxySource::Unix) == is_unix;
    let own: Vec<_> = all.iter().filter(fits).collect();
    match own.is_empty() {
        true => all.iter().collect(),
        false => own,
    }
}

/// Settings that flags give.
struct Given(Vec<FlagSetting>);

impl Given {
    fn set(&mut self, flag: &'static str, path: impl Into<String>, text: impl ToString) {
        self.0.push(FlagSetting {
            flag,
            path: path.into(),
            text: text.to_string(),
        });
    }

    /// A pool with the settings of all pools.
    fn pool(
        &mut self,
        flag: &'static str,
        place: usize,
        (name, backends): (&str, Vec<&Backend>),
        flags: &ProxyFlags,
    ) {
        let at = format!("pools.{place}");
        self.set(flag, format!("{at}.name"), name);
        if flags.value("strategy").is_none() {
            let default = Strategy::default();
            self.set("strategy", format!("{at}.strategy.name"), default);
        }
        self.group(flags, "pools.", &format!("{at}."));
        for (place, backend) in backends.into_iter().enumerate() {
            for (name, text) in backend.words() {
                self.set(flag, format!("{at}.backends.{place}.{name}"), text);
            }
        }
    }

    fn list(&mut self, flag: &'static str, path: &str, prefixes: &[Prefix]) {
        for (place, prefix) in prefixes.iter().enumerate() {
            self.set(flag, format!("{path}.{place}"), prefix);
        }
    }

    /// The settings of a group, which is at this place.
    fn group(&mut self, flags: &ProxyFlags, group: &str, at: &str) {
        for ((flag, path, _), value) in &flags.0 {
            if let Some(name) = path.strip_prefix(group) {
                self.set(flag, format!("{at}{name}"), value);
            }
        }
    }
}

/// Clients of all listeners that go to a pool of their own; without backends: that are refused.
struct RouteGroup<'a> {
    kind: &'static str,
    name: &'a str,
    pool: String,
    backends: Vec<&'a Backend>,
}

/// The routes: those of the same clients are one, with several backends.
fn routes(args: &ProxyArgs) -> Vec<RouteGroup<'_>> {
    let mut all: Vec<RouteGroup<'_>> = Vec::new();
    for RouteFlag {
        kind,
        name,
        backend,
    } in &args.route
    {
        let is_same = |its: &&mut RouteGroup<'_>| {
            let refused = its.backends.is_empty();
            its.kind == *kind && its.name == name && refused == backend.is_none()
        };
        if let Some(same) = all.iter_mut().find(is_same) {
            same.backends.extend(backend);
            continue;
        }
        let pool = format!("{kind}:{name}");
        let fits = values::is_name(&pool);
        all.push(RouteGroup {
            kind,
            name,
            pool: match backend {
                None => config::REFUSE.to_owned(),
                Some(_) if fits => pool,
                Some(_) => format!("route {}", all.len() + 1),
            },
            backends: backend.iter().collect(),
        });
    }
    all
}

/// The prefixes of the access list of all listeners, by the flag and the setting that has them.
fn lists(args: &ProxyArgs) -> impl Iterator<Item = (&'static str, &[Prefix])> {
    let all = [("allow", &args.allow), ("deny", &args.deny)].into_iter();
    let given = all.filter(|(_, prefixes)| !prefixes.is_empty());
    given.map(|(flag, prefixes)| (flag, &**prefixes))
}

/// The setting of `--source`.
const SOURCE: &str = "pools.source";
/// The name of the only pool, and of the only access list.
const NAME: &str = "default";

#[cfg(test)]
mod tests;
