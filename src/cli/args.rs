//! The arguments, as clap reads them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{StyledStr, Styles};
use clap::{Args, Parser, Subcommand};

use super::admin::ClientCommand;
use super::plan::PlanArgs;
use super::proxy::ProxyFlags;
use crate::address::Address;
use crate::config::REFUSE;
use crate::config::values::{self, ValueError};
use crate::config::{Backend, ProxySource, Strategy, is_condition};
use crate::prefix::Prefix;
use crate::simulate::Scenario;

/// The program's arguments.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mahoraga",
    version = super::VERSION,
    about = "A TCP load balancer on io_uring",
    help_template = help_template(),
    after_help = AFTER_HELP
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Task,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Run the balancer with a configuration file.
    #[command(after_help = RUN_HELP)]
    Run {
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
        /// Whether it gives up privileges.
        #[command(flatten)]
        sandbox: SandboxFlag,
        /// End the helper process after the start: a reload can then listen on no other port below
        /// 1024 (docs/privileges.md).
        #[arg(long, conflicts_with = "no_sandbox")]
        no_helper: bool,
    },
    /// Validate a configuration file, and look at the files that a start would open.
    #[command(
        visible_alias = "validate",
        after_help = "Examples:
  mahoraga check
  mahoraga check /etc/mahoraga/config.ron --deny-warnings
  mahoraga check && mahoraga reload
  mahoraga check --json | jq -r '.[].message'

Exit codes: 0 for a valid file, 2 for one with mistakes, 1 if only this machine
refuses a start. All lines go to standard error: mistakes, warnings, and for a
valid file that it is valid, and what only a start can find out. With --quiet
only mistakes and warnings do."
    )]
    Check {
        /// The configuration.
        #[command(flatten)]
        config: ConfigFile,
        /// Exit with code 2 on warnings too.
        #[arg(long)]
        deny_warnings: bool,
        /// Print mistakes and warnings only.
        #[arg(short, long)]
        quiet: bool,
        /// Print a list of {file, line, column, severity, message} in JSON to standard output
        /// instead
        #[arg(long)]
        json: bool,
    },
    /// Run the balancer with flags, without a configuration file.
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
    Demo(SandboxFlag),
    /// Simulate strategies, limits under abuse, or several balancers.
    #[command(
        after_help = super::simulate::AFTER_HELP,
        after_long_help = super::simulate::long_help()
    )]
    Simulate(SimulateArgs),
    /// Say how many cores and machines a load takes, and which limit binds first.
    #[command(after_help = super::plan::AFTER_HELP)]
    Plan(PlanArgs),
    /// Commands to a running balancer.
    #[command(flatten)]
    Client(ClientCommand),
    /// Print the version, as --version does.
    #[command(hide = true)]
    Version,
}

/// The configuration file of a command.
#[derive(Args, Clone, Debug)]
pub struct ConfigFile {
    /// The configuration; - is standard input [default: config.ron].
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// The same as FILE.
    #[arg(short, long, short_alias = 'f', value_name = "FILE")]
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

/// Whether a balancer gives up privileges.
#[derive(Args, Clone, Copy, Debug)]
pub struct SandboxFlag {
    /// Keep all privileges of the user that starts it (docs/privileges.md).
    #[arg(long)]
    pub no_sandbox: bool,
}

/// The flags of `mahoraga proxy`. Their defaults are those of `config.ron`, except for the access
/// log, which is off.
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
        value_parser = to,
        help = "A backend: an address as for --from, then any of ,weight=N ,max_connections=N and \
                ,backup; tls: before it for a backend that speaks TLS; may be given again"
    )]
    pub to: Vec<ToFlag>,
    /// The authorities of backends' certificates.
    #[arg(
        long,
        value_name = "FILE|system|off",
        value_parser = verify,
        help = "Verify the certificates of tls: backends by the authorities in this file, in PEM, \
                by those that this machine trusts (system), or not at all (off) [default: system]"
    )]
    pub backend_ca: Option<String>,
    /// The name that backends' certificates must have.
    #[arg(
        long,
        value_name = "NAME",
        help = "Ask tls: backends for this name, which their certificates must have [default: the \
                host name of each, or its address]"
    )]
    pub backend_name: Option<String>,
    /// Clients that go to another backend.
    #[arg(
        long,
        value_name = "KIND:NAME=ADDR",
        value_parser = route,
        help = "Send clients elsewhere: sni:NAME=ADDR, alpn:NAME=ADDR or protocol:NAME=ADDR, with \
                an address as for --to without tls:, or refuse in its place; a protocol is tls, \
                http, ssh, postgres, rdp, mqtt, other or server_first; the first route that a \
                client fits counts; may be given again"
    )]
    pub route: Vec<RouteFlag>,
    /// Let clients of this address or prefix connect; with --allow alone, refuse all others.
    #[arg(
        long,
        value_name = "CIDR",
        value_parser = values::prefix,
        help = "Let clients of this address or prefix connect: the longest prefix counts, and with \
                --allow alone all others are refused; may be given again"
    )]
    pub allow: Vec<Prefix>,
    /// Refuse clients of this address or prefix.
    #[arg(
        long,
        value_name = "CIDR",
        value_parser = values::prefix,
        help = "Refuse clients of this address or prefix; with --allow too, those in none of the \
                prefixes may connect, unless you add --deny 0.0.0.0/0 --deny ::/0; may be given \
                again"
    )]
    pub deny: Vec<Prefix>,
    /// Proxies that connect for clients.
    #[arg(
        long,
        value_name = "CIDR",
        help = "Let proxies of this address or prefix name their clients: each connection must \
                begin with a PROXY header, and all others are refused; unix for a Unix socket; may \
                be given again"
    )]
    pub accept_proxy: Vec<ProxySource>,
    /// The certificates of TLS that ends here.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        help = "End TLS here, with this certificate in PEM, followed by those between it and its \
                authority; may be given again, each time with a --tls-key"
    )]
    pub tls_cert: Vec<PathBuf>,
    /// Their keys.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        help = "The private key of the --tls-cert at the same place, in PEM"
    )]
    pub tls_key: Vec<PathBuf>,
    /// The authorities of clients' certificates.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        help = "Let in only clients with a certificate of these authorities, in PEM"
    )]
    pub tls_client_ca: Option<PathBuf>,
    /// Where the admin API and the dashboard answer over HTTP.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = values::loopback,
        help = "The admin API and the dashboard over HTTP, on a loopback address; the file with \
                the tokens is beside the admin socket, and the start names it [default: off]"
    )]
    pub admin_http: Option<SocketAddr>,
    /// Never ban clients of this address or prefix.
    #[arg(
        long,
        value_name = "CIDR",
        value_parser = values::prefix,
        help = "Never ban clients of this address or prefix; may be given again"
    )]
    pub trusted: Vec<Prefix>,
    /// Ban clients that are refused so often in this time.
    #[arg(
        long,
        value_name = "N/DURATION",
        value_parser = ban_after,
        help = "Ban a client that is refused N times in this time, such as 10/10s; an IPv6 client \
                is a /64 [default: never]"
    )]
    pub ban_after: Option<(u32, Duration)>,
    /// How long the first ban lasts.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = ban_time,
        requires = "ban_after",
        help = "How long --ban-after bans; each further ban of a client lasts twice as long, up \
                to 1h [default: 1m]"
    )]
    pub ban_for: Option<Duration>,
    /// Settings of the configuration.
    #[command(flatten)]
    pub flags: ProxyFlags,
    /// Whether it gives up privileges.
    #[command(flatten)]
    pub sandbox: SandboxFlag,
}

/// A backend of the pool of all clients.
#[derive(Clone, Debug)]
pub struct ToFlag {
    /// Where it is.
    pub backend: Backend,
    /// Whether it speaks TLS.
    pub speaks_tls: bool,
}

/// What `--route` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFlag {
    /// The setting of a route that has the name.
    pub kind: &'static str,
    /// What clients are compared with.
    pub name: String,
    /// Where they go; `None`: they are refused.
    pub backend: Option<Backend>,
}

/// The flags of `mahoraga simulate`.
#[derive(Args, Clone, Debug)]
pub struct SimulateArgs {
    /// The configuration whose pool is simulated, or its limits in `abuse`; without it, ten equal
    /// backends.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which of its pools; not needed when there is one.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub pool: Option<String>,
    /// A scenario; may be given again [default: all of strategies].
    #[arg(long, value_name = "NAME", value_parser = super::simulate::scenario)]
    pub scenario: Vec<Simulated>,
    /// Replay the sessions of this access log instead; `-` is standard input.
    #[arg(long, value_name = "FILE|-", conflicts_with = "scenario")]
    pub trace: Option<PathBuf>,
    /// A strategy; may be given again [default: all].
    #[arg(long, value_name = "NAME", value_parser = values::strategy)]
    pub strategy: Vec<Strategy>,
    /// The seed of random numbers: the same seed gives the same outcome.
    #[arg(long, value_name = "N", default_value = "1", value_parser = seed)]
    pub seed: u64,
    /// Workers of the simulated balancer.
    #[arg(long, value_name = "N", default_value = "2", value_parser = simulated_workers)]
    pub workers: u32,
    /// The size of the scenario `fleet`.
    #[command(flatten)]
    pub fleet: FleetSize,
    /// Write JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Draw a chart into this file too.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// The size of the scenario `fleet`.
#[derive(Args, Clone, Copy, Debug)]
pub struct FleetSize {
    /// Balancers of the scenario `fleet`.
    #[arg(long, value_name = "N", default_value = "3", value_parser = balancers)]
    pub balancers: u32,
    /// Backends of its pool, where no configuration has one.
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        conflicts_with = "config"
    )]
    #[arg(value_parser = backends)]
    pub backends: u16,
    /// Its clients, all connected most of the time [default: 200 for each backend and balancer].
    #[arg(long, value_name = "N", value_parser = clients)]
    pub clients: Option<u32>,
}

/// What `--scenario` names.
#[derive(Clone, Debug)]
pub enum Simulated {
    /// Strategies on a fleet.
    Strategies(Box<Scenario>),
    /// Limits under abuse.
    Abuse,
    /// Several balancers before one pool.
    Fleet,
}

/// A value, or none where `off` or `auto` is written. An [`Option`] is a flag that may be left out.
pub type Maybe<T> = Option<T>;

/// The help with its commands in two lists: clap has one list only.
fn help_template() -> StyledStr {
    let clients = ClientCommand::augment_subcommands(clap::Command::new(""));
    let all = Task::augment_subcommands(clap::Command::new(""));
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
            let aliases: Vec<_> = command.get_visible_aliases().collect();
            let about = match &aliases[..] {
                [] => about,
                aliases => format!("{about} [also: {}]", aliases.join(", ")),
            };
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
pub(super) fn names<T>(all: &[(&'static str, T)]) -> String {
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn simulated_workers(text: &str) -> Result<u32, ValueError> {
    values::number(text, values::WORKERS)
}

fn balancers(text: &str) -> Result<u32, ValueError> {
    values::number(text, 2..=1_000)
}

fn backends(text: &str) -> Result<u16, ValueError> {
    let number = values::number(text, 1..=16_384)?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

fn clients(text: &str) -> Result<u32, ValueError> {
    values::number(text, 1..=1_000_000)
}

fn seed(text: &str) -> Result<u64, ValueError> {
    values::seed(text.as_ref())
}

/// A backend, with `tls:` before it where it speaks TLS.
fn to(text: &str) -> Result<ToFlag, ValueError> {
    let address = text.strip_prefix("tls:");
    // A host may have that name, with a port behind it.
    let address = address.filter(|rest| rest.parse::<u16>().is_err());
    Ok(ToFlag {
        backend: values::backend(address.unwrap_or(text))?,
        speaks_tls: address.is_some(),
    })
}

/// How certificates are verified, as a file has it.
fn verify(text: &str) -> Result<String, ValueError> {
    let known = values::verify(text).map(|_| text.to_owned());
    known.ok_or_else(|| ValueError::Unexpected("a file, system or off".to_owned()))
}

/// What is wrong with a route to a backend that speaks TLS.
const ROUTE_TO_TLS: &str = "`tls:` is for --to alone: write a configuration file, where the pool \
                            of the route has `tls`, or leave it out";

/// Reads `--route`; the name is read with the configuration.
fn route(text: &str) -> Result<RouteFlag, String> {
    let expected = || {
        "expected sni:NAME=ADDR, alpn:NAME=ADDR or protocol:NAME=ADDR, such as \
         sni:a.example=10.0.0.1:443 or protocol:ssh=refuse"
            .to_owned()
    };
    let (kind, rest) = text.split_once(':').ok_or_else(expected)?;
    let kinds = ["sni", "alpn", "protocol"];
    let known = kinds.into_iter().find(|known| *known == kind);
    let kind = known.ok_or_else(|| match is_condition(kind) {
        true => format!(
            "the condition `{kind}` needs a configuration file: {}",
            expected()
        ),
        false => expected(),
    })?;
    // A regular expression may have a `=`, and so may the options of an address.
    let mut error = expected();
    for (place, _) in rest.rmatch_indices('=') {
        let (name, address) = (&rest[..place], &rest[place + 1..]);
        let backend = match address {
            REFUSE => Ok(None),
            // A host may have that name, with a port behind it.
            _ if to(address).is_ok_and(|to| to.speaks_tls) => return Err(ROUTE_TO_TLS.to_owned()),
            address => values::backend(address).map(Some),
        };
        match backend {
            Ok(backend) => {
                let name = name.to_owned();
                return Ok(RouteFlag {
                    kind,
                    name,
                    backend,
                });
            }
            Err(why) => error = why.to_string(),
        }
    }
    Err(error)
}

/// A number and a time, such as `10/10s`.
fn ban_after(text: &str) -> Result<(u32, Duration), ValueError> {
    let expected = || ValueError::Unexpected("N/DURATION, such as 10/10s".to_owned());
    let (count, time) = text.split_once('/').ok_or_else(expected)?;
    let count = values::number(count, values::OFFENCES).map_err(|_| expected())?;
    let time = values::duration(time, values::BAN).map_err(|_| expected())?;
    Ok((count, time))
}

/// The time of a ban.
pub(super) fn ban_time(text: &str) -> Result<Duration, ValueError> {
    values::duration(text, values::BAN)
}

/// A deadline, or `off`.
pub(super) fn deadline(text: &str) -> Result<Maybe<Duration>, ValueError> {
    values::duration_or_off(text, values::DEADLINE)
}

/// A constant: a start should not build the tables of settings for a text that few read.
const RUN_HELP: &str = "Examples:
  mahoraga run
  mahoraga run /etc/mahoraga/config.ron
  generate-config | mahoraga run -

SIGHUP, or mahoraga reload, reads the file again. Changes of workers,
memory, source_table, history, user, admin and metrics take effect at the
next start, all others at once. A mistake leaves the old configuration in
force. mahoraga --help lists the other signals.";

const AFTER_HELP: &str = "Examples:
  mahoraga demo
      Three small backends and the balancer in front of them, to try
  mahoraga proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002
      Balance one address over two backends, without a file
  mahoraga check && mahoraga run
      Validate config.ron, then run with it
  mahoraga simulate --config config.ron --scenario slow_backend
      See what each strategy would do
  mahoraga drain app-1 --wait=10m
      Take a backend out of a running balancer, and wait for its sessions

Environment:
  MAHORAGA_ADMIN   The running balancer, as for --admin, which may stand
                   before or behind a command
                   [default: mahoraga.sock, or else /run/mahoraga/mahoraga.sock]
  MAHORAGA_TOKEN_FILE
                   The file with the token for http://
  MAHORAGA_LOG     The level of the operational log on standard error: off,
                   error, warn, info or debug [default: info; demo: warn]
  MAHORAGA_LOG_FORMAT
                   Its format, text or json [default: log_format of the file]
  MAHORAGA_LOG_STYLE
                   Its colours: auto, always or never [default: auto]
  MAHORAGA_SEED    The seed of random numbers, to repeat a test [default: a
                   new one in each process]

Signals:
  SIGTERM, SIGINT, SIGQUIT
                   Stop: accept no more clients, let sessions end; a
                   second one ends the process at once
  SIGUSR1          Write histograms to standard error and the histogram log
  SIGHUP           Open the log files again, after they were moved away;
                   run: read the configuration again
  SIGUSR2          Does nothing: reserved for upgrades of the program

Exit codes:
  0                Done, or stopped by a signal
  1                The machine refuses the start (an address in use, ...); or
                   the running balancer can't be reached, or refuses
  2                A mistake in arguments, configuration or environment
  3                io_uring is not available
  128+signal       Ended at once by a second signal";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::waits_for_a_start;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_what_waits_for_a_start() {
        let words: Vec<_> = RUN_HELP.split_whitespace().collect();
        let waiting = format!("Changes of {} take", waits_for_a_start());
        assert!(words.join(" ").contains(&waiting), "{waiting}");
        assert!(RUN_HELP.lines().all(|line| line.len() <= 76), "{RUN_HELP}");
    }
}
