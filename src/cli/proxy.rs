//! Turns the flags of `mahoraga proxy` into a [`Config`].

use std::collections::HashMap;

use thiserror::Error;

use super::args::ProxyArgs;
use crate::address::Address;
use crate::config::values::{self, ValueError};
use crate::config::{
    self, ATTEMPTS, AccessList, AccessLog, Admin, Config, FirstTier, HalfClose, Listener, Persist,
    Pool, Strategy, Timeouts, TwoTier,
};
use crate::shared::Shared;

/// Why the flags are refused, beyond what the parser of arguments checks.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// A rule of files that flags follow too.
    #[error("{flag}: {sentence}")]
    Rule {
        /// The flag of the setting.
        flag: &'static str,
        /// The rule, in a sentence.
        sentence: String,
    },
    /// A time for persistence, without persistence.
    #[error("--persist-ttl has no effect alone: add --persist, or --strategy sticky_round_robin")]
    NothingPersists,
    /// A setting that does not go with the strategy.
    #[error("{flag}: {error}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        error: ValueError,
    },
}

/// Turns the flags of `mahoraga proxy` into a configuration with one pool for all listeners.
///
/// # Errors
///
/// A rule of files is broken, or flags do not go with the strategy.
pub fn proxy_config(args: &ProxyArgs) -> Result<Config, ProxyError> {
    let (strategy, persist) = strategy(args)?;
    let access_lists = access_lists(args);
    let config = Config {
        workers: args.workers,
        max_connections: args.max_connections,
        shutdown_grace: args.shutdown_grace,
        access_log: args.access_log.clone().flatten().map(|to| AccessLog {
            to,
            format: args.log_format,
        }),
        histogram_log: args.histogram_log.clone(),
        admin: match &args.admin {
            None => Some(Admin::default()),
            Some(socket) => socket.clone().map(|socket| Admin {
                socket: Some(socket),
                required: true,
                ..Admin::default()
            }),
        },
        ..Config::of(
            listeners(args, &access_lists),
            vec![Pool {
                strategy,
                persist,
                check: args.check.clone(),
                ..Pool::of(POOL, args.to.clone())
            }],
        )
    };
    let config = Config {
        access_lists: access_lists.into_iter().map(Shared::from).collect(),
        ..config
    };
    match config::broken_rule(&config) {
        None => Ok(config),
        Some((path, sentence)) => {
            let known = FLAGS.iter().find(|(setting, _)| path.starts_with(setting));
            let flag = known.map_or("proxy", |(_, flag)| flag);
            Err(ProxyError::Rule { flag, sentence })
        }
    }
}

/// The flags of the settings that have rules.
const FLAGS: [(&str, &str); 6] = [
    ("access_lists[0].allow", "--allow"),
    ("access_lists[0].deny", "--deny"),
    ("listeners", "--from"),
    ("pools[0].backends", "--to"),
    ("pools[0].strategy", "--strategy"),
    ("pools[0].check", "--check"),
];

/// The name of the only pool.
const POOL: &str = "default";

/// The access list of all listeners, if prefixes are given.
fn access_lists(args: &ProxyArgs) -> Vec<AccessList> {
    let list = AccessList {
        name: ACCESS_LIST.to_owned(),
        allow: args.allow.clone(),
        deny: args.deny.clone(),
        file: None,
        others: None,
    };
    let is_given = !list.allow.is_empty() || !list.deny.is_empty();
    is_given.then_some(list).into_iter().collect()
}

/// The name of the only access list.
const ACCESS_LIST: &str = "default";

/// The strategy with its settings, and the persistence.
fn strategy(args: &ProxyArgs) -> Result<(Strategy, Option<Persist>), ProxyError> {
    let mut strategy = args.strategy.clone();
    let settings = [
        ("--key", "key", args.key.is_some()),
        ("--max-load", "max_load", args.max_load.is_some()),
    ];
    for (flag, setting, _) in settings.into_iter().filter(|(_, _, given)| *given) {
        values::setting_of(&strategy, setting).map_err(value_of(flag))?;
    }
    let mut persist = args.persist.clone();
    let key = args.key.clone().unwrap_or_default();
    if let Strategy::Hash(hash) = &mut strategy {
        hash.key = key;
        hash.max_load = args.max_load.map_or(hash.max_load, |load| load);
    } else if let Strategy::TwoTier(TwoTier { first, .. }) = &mut strategy {
        if let FirstTier::Hash { key: selects, .. } = first {
            *selects = key;
        }
    } else if strategy == Strategy::StickyRoundRobin {
        if persist.is_some() {
            return Err(value_of("--persist")(values::persists_already()));
        }
        persist = Some(values::lasting(key).map_err(value_of("--key"))?);
    }
    if persist.is_none() && args.persist_ttl.is_some() {
        return Err(ProxyError::NothingPersists);
    }
    let default = Persist::default();
    let persist = persist.map(|key| Persist {
        key,
        ttl: args.persist_ttl.unwrap_or(default.ttl),
        clients_max: default.clients_max,
    });
    Ok((strategy, persist))
}

/// Adds the flag to the error of its value.
fn value_of(flag: &'static str) -> impl Fn(ValueError) -> ProxyError {
    move |error| ProxyError::Value { flag, error }
}

fn listeners(args: &ProxyArgs, access_lists: &[AccessList]) -> Vec<Listener> {
    let timeouts = Timeouts {
        connect: args.connect_timeout,
        idle: args.idle_timeout,
        half_closed: args.half_closed_timeout,
        session: args.session_timeout,
        peek: args.peek_timeout,
    };
    let access_list = access_lists.first().map(|list| list.name.clone());
    let mut equal = HashMap::new();
    let listener = |bind: &Address| {
        let count = equal.entry(bind.clone()).or_insert(0);
        *count += 1;
        Listener {
            // Equal addresses are possible with port 0.
            name: match *count {
                1 => bind.to_string(),
                count => format!("{bind}#{count}"),
            },
            bind: bind.clone(),
            pool: 0,
            max_connections: None,
            access_list: access_list.clone(),
            attempts: u8::try_from(args.attempts).unwrap_or(ATTEMPTS),
            half_close: HalfClose::Relay,
            timeouts,
        }
    };
    args.from.iter().map(listener).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::{Backend, Hash, Key, LogFormat, LogSink, SHUTDOWN_GRACE};
    use crate::peek::Field;

    fn config(flags: &str) -> Result<Config, ProxyError> {
        let arguments = ["mahoraga", "proxy"]
            .into_iter()
            .chain(flags.split_whitespace());
        let Command::Proxy(args) = Cli::try_parse_from(arguments).unwrap().command else {
            panic!("another subcommand than proxy");
        };
        proxy_config(&args)
    }

    #[test]
    fn the_defaults_are_those_of_the_file() {
        let flags = config("--from 127.0.0.1:8080 --to 127.0.0.1:9001").unwrap();
        let auto = config(
            "--from 127.0.0.1:8080 --to 127.0.0.1:9001 --workers auto --max-connections auto",
        );
        assert_eq!(auto.as_ref(), Ok(&flags));
        let text = "(listeners: [(bind: \"127.0.0.1:8080\", pool: \"default\")], \
                    pools: [(name: \"default\", backends: [\"127.0.0.1:9001\"])], \
                    access_log: \"off\")";
        let (file, _) = config::parse("f".to_owned(), text.into()).unwrap();
        assert_eq!(flags, file);
        assert_eq!(flags.shutdown_grace, SHUTDOWN_GRACE);
    }

    #[test]
    fn every_flag_arrives() {
        let got = config(
            "--from [::1]:80 --from unix:/a --to unix:/b,weight=2,max_connections=5 \
             --to localhost:81,backup --strategy hash --key sni --max-load 1.25 \
             --persist http_cookie(a) --persist-ttl 1h --peek-timeout 1m \
             --workers 2 --max-connections 7 --attempts 1 --connect-timeout 1s --idle-timeout off \
             --half-closed-timeout 2s --session-timeout 1h --shutdown-grace 0s --access-log a.log \
             --log-format json --histogram-log b.hlog --check http --admin unix:/run/a.sock",
        )
        .unwrap();
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            idle: None,
            half_closed: Duration::from_secs(2),
            session: Some(Duration::from_secs(3600)),
            peek: Duration::from_secs(60),
        };
        let listener = |bind: &str| Listener {
            name: bind.to_owned(),
            bind: bind.parse().unwrap(),
            pool: 0,
            max_connections: None,
            access_list: None,
            attempts: 1,
            half_close: HalfClose::Relay,
            timeouts,
        };
        let [first, second] = ["unix:/b", "localhost:81"].map(|to| to.parse().unwrap());
        let first = Backend {
            weight: 2,
            max_connections: NonZeroU32::new(5),
            ..Backend::written(first)
        };
        let second = Backend {
            backup: true,
            ..Backend::written(second)
        };
        let strategy = Strategy::Hash(Hash {
            key: Key::Peeked(Field::Sni),
            max_load: Some(125),
        });
        let persist = Persist {
            key: Key::Peeked(Field::HttpCookie("a".to_owned())),
            ttl: Duration::from_secs(3600),
            clients_max: Persist::default().clients_max,
        };
        let want = Config {
            workers: NonZeroU32::new(2),
            max_connections: NonZeroU32::new(7),
            shutdown_grace: Duration::ZERO,
            access_log: Some(AccessLog {
                to: LogSink::File("a.log".into()),
                format: LogFormat::Json,
            }),
            histogram_log: "b.hlog".into(),
            admin: Some(Admin {
                socket: Some("/run/a.sock".into()),
                required: true,
                ..Admin::default()
            }),
            ..Config::of(
                vec![listener("[::1]:80"), listener("unix:/a")],
                vec![Pool {
                    strategy,
                    persist: Some(persist),
                    check: values::check_of("http").unwrap(),
                    ..Pool::of(POOL, vec![first, second])
                }],
            )
        };
        assert_eq!(got, want);
    }

    fn pool(flags: &str) -> Result<Pool, ProxyError> {
        let flags = format!("--from unix:/a --to unix:/b {flags}");
        config(&flags).map(|mut config| config.pools.remove(0).into_owned())
    }

    #[test]
    fn every_strategy_has_its_defaults() {
        for (name, default) in Strategy::all() {
            let flags = pool(&format!("--strategy {name}")).unwrap();
            let text = format!(
                "(listeners: [(bind: \"unix:/a\", pool: \"default\")], pools: \
                 [(name: \"default\", strategy: \"{name}\", backends: [\"unix:/b\"])])"
            );
            let (file, _) = config::parse("f".to_owned(), text.into()).unwrap();
            assert_eq!(flags, *file.pools[0]);
            assert_eq!(flags.strategy, default);
        }
    }

    #[test]
    fn keys_go_where_the_strategy_has_them() {
        let key = Key::Peeked(Field::RdpCookie);
        let tiers = pool("--strategy two_tier --key rdp_cookie").unwrap();
        assert_eq!(tiers.strategy.key(), Some(&key));
        let hash = pool("--strategy hash --max-load off").unwrap();
        assert_eq!(hash.strategy.key(), Some(&Key::default()));
        let sticky = pool("--strategy sticky_round_robin --key rdp_cookie --persist-ttl 1s");
        let persist = Persist {
            key,
            ttl: Duration::from_secs(1),
            ..Persist::default()
        };
        assert_eq!(sticky.unwrap().persist, Some(persist));
        let persist = pool("--persist source_ip").unwrap().persist;
        assert_eq!(persist, Some(Persist::default()));
    }

    #[test]
    fn flags_that_do_not_go_together() {
        let error = |flags: &str| pool(flags).unwrap_err().to_string();
        assert_eq!(
            error("--strategy random --key sni"),
            "--key: the strategy `random` has no such setting: \
             it belongs to `sticky_round_robin`, `hash` and `two_tier`"
        );
        assert_eq!(
            error("--max-load 1.25"),
            "--max-load: the strategy `round_robin` has no such setting: it belongs to `hash`"
        );
        assert_eq!(
            error("--strategy sticky_round_robin --persist sni"),
            "--persist: `sticky_round_robin` persists already: use `round_robin` with persist"
        );
        assert_eq!(
            error("--strategy sticky_round_robin --key source_ip_port"),
            "--key: `source_ip_port` is another with each connection: \
             no client would be known again"
        );
        assert_eq!(
            error("--persist-ttl 1h"),
            "--persist-ttl has no effect alone: add --persist, or --strategy sticky_round_robin"
        );
    }

    #[test]
    fn any_port_is_given_as_often_as_wanted() {
        let config = config("--from 127.0.0.1:0 --from 127.0.0.1:0 --to unix:/b").unwrap();
        let names: Vec<_> = config.listeners.iter().map(|found| &found.name).collect();
        assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:0#2"]);
    }
}
