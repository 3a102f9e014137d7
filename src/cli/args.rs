//! The arguments, as clap reads them.

use std::ffi::OsString;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::builder::{StyledStr, Styles};
use clap::{Args, Parser, Subcommand};

use super::admin::ClientCommand;
use crate::address::Address;
use crate::config::values::{self, ValueError};
use crate::config::{Backend, Check, Key, LogFormat, Strategy};
use crate::simulate::Scenario;

/// The program's arguments.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mahoraga",
    version,
    about = "A TCP load balancer on io_uring",
    help_template = help_template(),
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Balance as a configuration file says.
    #[command(after_help = "Examples:
  mahoraga run
  mahoraga run /etc/mahoraga/config.ron
  generate-config | mahoraga run -

SIGHUP, or mahoraga reload, reads the file again: all but workers and admin
applies while it runs. What is wrong is told, and changes nothing.
mahoraga --help tells the other signals.")]
    Run {
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Validate a configuration file, and look at the files that a start would open.
    #[command(
        alias = "validate",
        after_help = "Examples:
  mahoraga check
  mahoraga check /etc/mahoraga/config.ron --deny-warnings"
    )]
    Check {
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
        /// Exit with code 2 on warnings too.
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Balance without a configuration file.
    #[command(after_help = "Examples:
  mahoraga proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002
  mahoraga proxy --from '[::]:5432' --to db-1:5432 --to db-2:5432 --idle-timeout 1h
  mahoraga proxy --from unix:/run/app.sock --to unix:/run/app-1.sock --access-log -
  mahoraga proxy --from '[::]:80' --to app-1:80,weight=2 --to app-2:80 --to app-3:80,backup
  mahoraga proxy --from '[::]:80' --to app-1:80 --to app-2:80 --strategy hash --key http_path

Which strategy, when: docs/strategies.md; mahoraga simulate shows what each does.")]
    Proxy(Box<ProxyArgs>),
    /// Start three small HTTP backends and the balancer in front of them.
    #[command(after_help = "Example:
  mahoraga demo")]
    Demo,
    /// Try strategies on a simulated fleet: seconds instead of days.
    #[command(
        after_help = super::simulate::AFTER_HELP,
        after_long_help = super::simulate::long_help()
    )]
    Simulate(SimulateArgs),
    /// What a running balancer is asked.
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the version, as --version does.
    #[command(hide = true)]
    Version,
    /// Say how the balancer is stopped.
    #[command(hide = true)]
    Stop(Rest),
    /// Say which commands show something.
    #[command(hide = true)]
    Show(Rest),
}

/// Arguments of a command that only gives a tip.
#[derive(Args, Clone, Debug)]
pub struct Rest {
    /// Whatever they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<OsString>,
}

/// The configuration file of a command.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The configuration; - is standard input [default: config.ron].
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The same as FILE.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigFile {
    /// Its path; `-` is standard input.
    #[must_use]
    pub fn path(&self) -> &Path {
        let path = self.file.as_deref().or(self.config.as_deref());
        path.unwrap_or_else(|| Path::new("config.ron"))
    }
}

/// What `mahoraga proxy` takes. Its defaults are those of `config.ron`, but for the access log,
/// which is off.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// Where to listen.
    #[arg(
        long,
        value_name = "ADDR",
        required = true,
        help = "Where to listen: host:port, [IPv6]:port or unix:/path; may be given again"
    )]
    pub from: Vec<Address>,
    /// A backend.
    #[arg(
        long,
        value_name = "ADDR",
        required = true,
        value_parser = values::backend,
        help = "A backend, written as --from is, and behind it ,weight=N ,max_connections=N and \
                ,backup as wanted; may be given again"
    )]
    pub to: Vec<Backend>,
    /// How a backend is selected.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "round_robin",
        value_parser = values::strategy,
        help = format!(
            "How a backend is selected: {}; two_tier's groups, and settings such as decay and \
             horizon, need a configuration file",
            names(&Strategy::all())
        )
    )]
    pub strategy: Strategy,
    /// What hash and two_tier select by, and sticky_round_robin knows clients again by.
    #[arg(
        long,
        value_name = "KEY",
        help = format!(
            "What hash and two_tier select by, and sticky_round_robin knows clients again by: {}; \
             source_ip(24, 56) for networks of IPv4 and IPv6 [default: source_ip]",
            names(&Key::all()).replace("http_cookie", "http_cookie(NAME)")
        )
    )]
    pub key: Option<Key>,
    /// With hash, no backend takes more than N times the average load, or off [default: off].
    #[arg(long, value_name = "N|off")]
    pub max_load: Option<MaxLoad>,
    /// Send a client with the same KEY back to the backend it had [default: off].
    #[arg(long, value_name = "KEY", value_parser = values::persist_key)]
    pub persist: Option<Key>,
    /// How long a client is remembered after its last connection ends [default: 30m].
    #[arg(long, value_name = "DUR", value_parser = persist_ttl)]
    pub persist_ttl: Option<Duration>,
    /// Probe the backends: tcp, tls, http, or in full as a file has it; or off.
    #[arg(long, value_name = "CHECK|off", default_value = "off")]
    pub check: Probing,
    /// Worker threads; auto: one for each CPU that the process may use.
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = workers)]
    pub workers: Count,
    /// Client connections at a time, in all; auto: what the descriptor limit allows.
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = connections)]
    pub max_connections: Count,
    /// Connect attempts of a session, each on another backend while there is one. Backends that
    /// refuse at once are passed over beyond this number, unless it is 1; 16 attempts in all.
    #[arg(long, value_name = "N", default_value = "3", value_parser = attempts)]
    pub attempts: u32,
    /// How long one connect attempt may take.
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = connect_timeout)]
    pub connect_timeout: Duration,
    /// How long a session may be silent, or off.
    #[arg(long, value_name = "DUR|off", default_value = "10m")]
    pub idle_timeout: Deadline,
    /// How long a session of which one direction has ended may be silent.
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = half_closed_timeout)]
    pub half_closed_timeout: Duration,
    /// How long a session may last, or off.
    #[arg(long, value_name = "DUR|off", default_value = "off")]
    pub session_timeout: Deadline,
    /// How long a client's first bytes are waited for, where a key is in them.
    #[arg(long, value_name = "DUR", default_value = "3s", value_parser = peek_timeout)]
    pub peek_timeout: Duration,
    /// How long sessions may go on after SIGTERM.
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = shutdown_grace)]
    pub shutdown_grace: Duration,
    /// Write a line for each session to standard output (-) or to a file [default: off].
    #[arg(long, value_name = "-|FILE")]
    pub access_log: Option<PathBuf>,
    /// How a line of the access log looks.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "key_value",
        requires = "access_log",
        value_parser = values::log_format,
        help = format!("How a line of the access log looks: {}", names(&LogFormat::ALL))
    )]
    pub log_format: LogFormat,
    /// The file that SIGUSR1 appends histograms to.
    #[arg(long, value_name = "FILE", default_value = "mahoraga.hlog")]
    pub histogram_log: PathBuf,
    /// The Unix socket of the admin API, or off [default: mahoraga.sock, if that can be made].
    #[arg(long, value_name = "PATH|off")]
    pub admin: Option<AdminSocket>,
}

/// What `mahoraga simulate` takes.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// The configuration whose pool is simulated; without it, ten equal backends.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which of its pools; not needed when there is one.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub pool: Option<String>,
    /// A scenario; may be given again [default: all].
    #[arg(long, value_name = "NAME", value_parser = super::simulate::scenario)]
    pub scenario: Vec<Scenario>,
    /// Replay the sessions of this access log instead; `-` is standard input.
    #[arg(long, value_name = "FILE|-", conflicts_with = "scenario")]
    pub trace: Option<PathBuf>,
    /// A strategy; may be given again [default: all].
    #[arg(long, value_name = "NAME", value_parser = values::strategy)]
    pub strategy: Vec<Strategy>,
    /// What chance begins with: the same seed has the same outcome.
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// Workers of the simulated balancer.
    #[arg(long, value_name = "N", default_value = "2", value_parser = simulated_workers)]
    pub workers: u32,
    /// Write JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Draw a chart into this file too.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// A duration, or none where `off` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Option<Duration>);

impl FromStr for Deadline {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        values::duration_or_off(text, values::DEADLINE).map(Self)
    }
}

/// A load relative to the average in percent, or none where `off` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxLoad(pub Option<u16>);

impl FromStr for MaxLoad {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        values::max_load(text).map(Self)
    }
}

/// How backends are probed, or none where `off` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probing(pub Option<Check>);

impl FromStr for Probing {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        values::check_of(text).map(Self)
    }
}

/// The path of a Unix socket, or none where `off` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket(pub Option<PathBuf>);

impl FromStr for AdminSocket {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        values::admin_socket(text).map(Self)
    }
}

/// A number, or none where `auto` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub Option<NonZeroU32>);

/// The help with its commands in two lists: clap has but one.
fn help_template() -> StyledStr {
    let clients = ClientCommand::augment_subcommands(clap::Command::new(""));
    let all = Command::augment_subcommands(clap::Command::new(""));
    let is_client = |name: &str| clients.get_subcommands().any(|one| one.get_name() == name);
    let (clients, own): (Vec<_>, Vec<_>) = all
        .get_subcommands()
        .filter(|one| !one.is_hide_set())
        .partition(|one| is_client(one.get_name()));
    let styles = Styles::styled();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (head, commands) in [
        ("Balancer", own),
        ("Commands to a running balancer", clients),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{header}{head}:{header:#}");
        for command in commands {
            let (name, about) = (command.get_name(), command.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<10}{literal:#}  {about}");
        }
    }
    let _ = write!(
        text,
        "\n{header}Options:{header:#}\n{{options}}{{after-help}}"
    );
    text.into()
}

/// The names of a setting, as help lists them.
fn names<T>(all: &[(&'static str, T)]) -> String {
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn workers(text: &str) -> Result<Count, ValueError> {
    values::number_or_auto(text, values::WORKERS).map(Count)
}

fn simulated_workers(text: &str) -> Result<u32, ValueError> {
    values::number(text, values::WORKERS)
}

fn connections(text: &str) -> Result<Count, ValueError> {
    values::number_or_auto(text, values::CONNECTIONS).map(Count)
}

fn attempts(text: &str) -> Result<u32, ValueError> {
    values::number(text, values::ATTEMPTS)
}

fn connect_timeout(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::CONNECT)
}

fn half_closed_timeout(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::DEADLINE)
}

fn peek_timeout(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::PEEK)
}

fn persist_ttl(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::TTL)
}

fn shutdown_grace(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::GRACE)
}

const AFTER_HELP: &str = "Examples:
  mahoraga demo
      Three small backends and the balancer in front of them, to try
  mahoraga proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002
      Balance one address over two backends, without a file
  mahoraga check && mahoraga run
      Judge config.ron, then balance as it says
  mahoraga simulate --config config.ron --scenario slow_backend
      See what each strategy would do
  mahoraga drain app-1 --wait=10m
      Take a backend out of a running balancer, and wait for its sessions

Environment:
  MAHORAGA_ADMIN   Where a running balancer is asked, as --admin says
                   [default: mahoraga.sock, or else /run/mahoraga/mahoraga.sock]
  MAHORAGA_TOKEN_FILE
                   The file of the token that http:// wants
  MAHORAGA_LOG     What standard error is told: off, error, warn, info or debug,
                   each with all before it [default: info; demo: warn]
  MAHORAGA_SEED    A number that chance begins with, for tests that are to be
                   repeated [default: another one in each process]

Signals:
  SIGTERM, SIGINT, SIGQUIT
                   Stop: accept no more clients, let sessions end; a
                   second one ends the process at once
  SIGUSR1          Write histograms to standard error and the histogram log
  SIGHUP           Reopen the files of the logs, after they were moved away;
                   run: read the configuration again
  SIGUSR2          Nothing yet: reserved for upgrades of the program

Exit codes:
  0                Done, or stopped by a signal as it should
  1                Could not start, such as for an address in use; or the
                   running balancer can't be asked, or refuses
  2                A mistake in arguments, configuration or environment
  3                io_uring is not to be had
  128+signal       Ended at once, by the second signal";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }
}
