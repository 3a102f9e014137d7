//! From the flags of `mahoraga proxy` to a [`Config`].

use std::collections::HashSet;
use std::num::NonZeroU32;

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
/// An address is given twice, or a path is none.
pub fn proxy_config(args: &ProxyArgs) -> Result<Config, ProxyError> {
    once("--from", &args.from)?;
    once("--to", &args.to)?;
    let file = |flag| move |error| ProxyError::File { flag, error };
    let access_log = args.access_log.as_deref().map(values::log_sink);
    let access_log = access_log
        .transpose()
        .map_err(file("--access-log"))?
        .flatten();
    let histogram_log = values::file(&args.histogram_log).map_err(file("--histogram-log"))?;
    Ok(Config {
        workers: args.workers.and_then(NonZeroU32::new),
        max_connections: args.max_connections.and_then(NonZeroU32::new),
        shutdown_grace: args.shutdown_grace,
        access_log: access_log.map(|to| AccessLog {
            to,
            format: args.log_format,
        }),
        histogram_log: histogram_log.to_owned(),
        listeners: listeners(args),
        pools: vec![Pool {
            name: POOL.to_owned(),
            strategy: args.strategy,
            backends: args.to.iter().map(backend).collect(),
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
    };
    let listener = |bind: &Address| Listener {
        name: bind.to_string(),
        bind: bind.clone(),
        pool: 0,
        max_connections: None,
        attempts: u8::try_from(args.attempts).unwrap_or(ATTEMPTS),
        timeouts,
    };
    args.from.iter().map(listener).collect()
}

fn backend(address: &Address) -> Backend {
    Backend {
        name: address.to_string(),
        address: address.clone(),
        weight: 1,
    }
}

fn once(flag: &'static str, addresses: &[Address]) -> Result<(), ProxyError> {
    let mut seen = HashSet::new();
    match addresses.iter().find(|address| !seen.insert(*address)) {
        Some(address) => Err(ProxyError::Twice {
            flag,
            address: address.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
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
        };
        let listener = |bind: &str| Listener {
            name: bind.to_owned(),
            bind: bind.parse().unwrap(),
            pool: 0,
            max_connections: None,
            attempts: 1,
            timeouts,
        };
        let backends = ["unix:/b", "127.0.0.1:81"].map(|to| backend(&to.parse().unwrap()));
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
                backends: backends.into(),
            }],
        };
        assert_eq!(got, want);
    }

    #[test]
    fn an_address_is_given_once() {
        let error = config("--from unix:/a --to unix:/b --to unix:/b").unwrap_err();
        assert_eq!(error.to_string(), "--to unix:/b is given twice");
        let error = config("--from unix:/a --to unix:/b --access-log a/").unwrap_err();
        assert_eq!(error.to_string(), "--access-log: `a/` is no path of a file");
    }
}
