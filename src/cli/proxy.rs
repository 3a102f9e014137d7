//! From the flags of `mahoraga proxy` to a [`Config`].

use std::collections::HashSet;

use thiserror::Error;

use super::args::ProxyArgs;
use crate::address::Address;
use crate::config::values::{self, ValueError};
use crate::config::{ATTEMPTS, AccessLog, Backend, Config, Listener, Pool, Timeouts};

/// Why flags make no configuration, beyond what the parser of arguments refuses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProxyError {
    /// The same address twice.
    #[error("{flag} {address} is given twice")]
    Twice {
        /// `--from` or `--to`.
        flag: &'static str,
        /// The address.
        address: Address,
    },
    /// One address to listen on includes another.
    #[error("--from {wide} includes --from {narrow}: leave one of them out")]
    Overlap {
        /// The one that is more.
        wide: Address,
        /// The one that it includes.
        narrow: Address,
    },
    /// A file that can't be.
    #[error("{flag}: {error}")]
    File {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value.
        error: ValueError,
    },
}

/// Turns the flags of `mahoraga proxy` into a configuration: every listener has the one pool.
///
/// # Errors
///
/// An address is given twice or includes another one, or a path is none.
pub fn proxy_config(args: &ProxyArgs) -> Result<Config, ProxyError> {
    apart(&args.from)?;
    once(&args.to)?;
    let file = |flag| move |error| ProxyError::File { flag, error };
    let access_log = args.access_log.as_deref().map(values::log_sink);
    let access_log = access_log
        .transpose()
        .map_err(file("--access-log"))?
        .flatten();
    let histogram_log = values::file(&args.histogram_log).map_err(file("--histogram-log"))?;
    Ok(Config {
        workers: args.workers.0,
        max_connections: args.max_connections.0,
        shutdown_grace: args.shutdown_grace,
        access_log: access_log.map(|to| AccessLog {
            to,
            format: args.log_format,
        }),
        histogram_log: histogram_log.to_owned(),
        listeners: listeners(args),
        pools: vec![Pool {
            name: POOL.to_owned(),
            strategy: args.strategy.clone(),
            persist: None,
            backends: args.to.iter().cloned().map(Backend::at).collect(),
        }],
    })
}

/// The name of the only pool.
const POOL: &str = "default";

fn listeners(args: &ProxyArgs) -> Vec<Listener> {
    let timeouts = Timeouts {
        connect: args.connect_timeout,
        idle: args.idle_timeout.0,
        half_closed: args.half_closed_timeout,
        session: args.session_timeout.0,
        peek: Timeouts::default().peek,
    };
    let listener = |(i, bind): (usize, &Address)| Listener {
        name: name(bind, &args.from[..i]),
        bind: bind.clone(),
        pool: 0,
        max_connections: None,
        attempts: u8::try_from(args.attempts).unwrap_or(ATTEMPTS),
        timeouts,
    };
    args.from.iter().enumerate().map(listener).collect()
}

/// The address; of equal ones, which port 0 allows, the second has a `#2` behind it.
fn name(bind: &Address, earlier: &[Address]) -> String {
    match earlier.iter().filter(|other| *other == bind).count() {
        0 => bind.to_string(),
        equal => format!("{bind}#{}", equal + 1),
    }
}

/// Whether all of it can be listened on.
fn apart(from: &[Address]) -> Result<(), ProxyError> {
    for (i, second) in from.iter().enumerate() {
        let overlap = from[..i].iter().find_map(|first| first.overlap(second));
        match overlap {
            None => {}
            Some((wide, narrow)) if wide == narrow => return Err(twice("--from", narrow)),
            Some((wide, narrow)) => {
                return Err(ProxyError::Overlap {
                    wide: wide.clone(),
                    narrow: narrow.clone(),
                });
            }
        }
    }
    Ok(())
}

fn once(to: &[Address]) -> Result<(), ProxyError> {
    let mut seen = HashSet::new();
    match to.iter().find(|address| !seen.insert(*address)) {
        Some(address) => Err(twice("--to", address)),
        None => Ok(()),
    }
}

fn twice(flag: &'static str, address: &Address) -> ProxyError {
    ProxyError::Twice {
        flag,
        address: address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::config::{LogFormat, LogSink, SHUTDOWN_GRACE, Strategy};

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
        let (file, _) = crate::config::parse("f".to_owned(), text.into()).unwrap();
        assert_eq!(flags, file);
        assert_eq!(flags.shutdown_grace, SHUTDOWN_GRACE);
    }

    #[test]
    fn every_flag_arrives() {
        let got = config(
            "--from [::1]:80 --from unix:/a --to unix:/b --to localhost:81 --strategy round_robin \
             --workers 2 --max-connections 7 --attempts 1 --connect-timeout 1s --idle-timeout off \
             --half-closed-timeout 2s --session-timeout 1h --shutdown-grace 0s --access-log a.log \
             --log-format json --histogram-log b.hlog",
        )
        .unwrap();
        let timeouts = Timeouts {
            connect: Duration::from_secs(1),
            idle: None,
            half_closed: Duration::from_secs(2),
            session: Some(Duration::from_secs(3600)),
            peek: Timeouts::default().peek,
        };
        let listener = |bind: &str| Listener {
            name: bind.to_owned(),
            bind: bind.parse().unwrap(),
            pool: 0,
            max_connections: None,
            attempts: 1,
            timeouts,
        };
        let backends = ["unix:/b", "127.0.0.1:81"].map(|to| Backend::at(to.parse().unwrap()));
        let strategy = Strategy::RoundRobin;
        let want = Config {
            workers: NonZeroU32::new(2),
            max_connections: NonZeroU32::new(7),
            shutdown_grace: Duration::ZERO,
            access_log: Some(AccessLog {
                to: LogSink::File("a.log".into()),
                format: LogFormat::Json,
            }),
            histogram_log: "b.hlog".into(),
            listeners: vec![listener("[::1]:80"), listener("unix:/a")],
            pools: vec![Pool {
                name: POOL.to_owned(),
                strategy,
                persist: None,
                backends: backends.into(),
            }],
        };
        assert_eq!(got, want);
    }

    #[test]
    fn an_address_is_given_once() {
        let error = config("--from unix:/a --to unix:/b --to unix:/b").unwrap_err();
        assert_eq!(error.to_string(), "--to unix:/b is given twice");
        let error = config("--from [::]:1 --from [::]:1 --to unix:/b").unwrap_err();
        assert_eq!(error.to_string(), "--from [::]:1 is given twice");
        let error = config("--from 127.0.0.1:1 --from [::]:1 --to unix:/b").unwrap_err();
        let want = "--from [::]:1 includes --from 127.0.0.1:1: leave one of them out";
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn any_port_is_given_as_often_as_wanted() {
        let config = config("--from 127.0.0.1:0 --from 127.0.0.1:0 --to unix:/b").unwrap();
        let names: Vec<_> = config.listeners.iter().map(|found| &found.name).collect();
        assert_eq!(names, ["127.0.0.1:0", "127.0.0.1:0#2"]);
    }

    #[test]
    fn a_path_is_that_of_a_file() {
        let error = config("--from unix:/a --to unix:/b --access-log a/").unwrap_err();
        assert_eq!(error.to_string(), "--access-log: `a/` is no path of a file");
    }
}
