//! The command line as a user meets it: texts, exit codes, silence.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use mahoraga::config::{Key, Strategy};

#[path = "cli/asked.rs"]
mod asked;
#[path = "cli/client.rs"]
mod client;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/live.rs"]
mod live;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/preflight.rs"]
mod preflight;
#[path = "cli/strategies.rs"]
mod strategies;

fn mahoraga() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mahoraga"));
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    mahoraga().args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// An empty directory for one test.
fn directory(test: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Runs `check` on a `config.ron` in a directory of its own.
fn check(test: &str, text: &[u8], arguments: &[&str]) -> Output {
    let directory = directory(test);
    fs::write(directory.join("config.ron"), text).unwrap();
    mahoraga()
        .arg("check")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

const SMALLEST: &str = "\
(
    listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")],
    pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])],
)
";

#[test]
fn a_script_is_told_what_was_not_checked_unless_it_asks_for_quiet() {
    let told = "config.ron is valid\nnot checked: whether 127.0.0.1:8080 can be listened on, \
                backends answer, and io_uring is allowed\n";
    for (flags, said) in [(&[][..], told), (&["-q"][..], ""), (&["--quiet"][..], "")] {
        let output = check("smallest", SMALLEST.as_bytes(), flags);
        assert_eq!((stdout(&output), stderr(&output)), ("", said));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn the_example_passes() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.ron");
    let output = run(&["check", "-q", "--deny-warnings", "--config", example]);
    assert_eq!((stdout(&output), stderr(&output)), ("", ""));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_recipes_of_the_documents_pass() {
    for name in ["README.md", "docs/primary-and-replica.md"] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(path).unwrap();
        let recipes: Vec<_> = text.split("```ron\n").skip(1).collect();
        assert!(!recipes.is_empty(), "{name}");
        for (number, recipe) in recipes.iter().enumerate() {
            let recipe = recipe.split("```").next().unwrap();
            let flags = ["-q", "--deny-warnings"];
            let output = check("recipe", recipe.as_bytes(), &flags);
            assert_eq!(stderr(&output), "", "{name}, recipe {number}");
            assert_eq!(output.status.code(), Some(0));
        }
    }
}

#[test]
fn files_that_are_no_text() {
    let output = check("not_utf8", b"(\n  workers: \xff,\n)", &[]);
    let want = "config.ron:2:12: this is not UTF-8: save the file in that encoding
  |   workers: \u{fffd},
  |            ^
";
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), want));

    let directory = directory("files");
    let check = |path: &str| {
        let arguments = ["check", "--config", path];
        let output = mahoraga()
            .args(arguments)
            .current_dir(&directory)
            .output()
            .unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
        stderr(&output).to_owned()
    };
    let want = "absent.ron: there is no such file: create it, or name another one\n";
    assert_eq!(check("absent.ron"), want);
    assert_eq!(check("."), ".: this is a directory, not a file\n");
    fs::write(directory.join("long.ron"), " ".repeat((16 << 20) + 1)).unwrap();
    assert_eq!(
        check("long.ron"),
        "long.ron: the file is longer than 16 MiB\n"
    );
    assert_eq!(
        check("/dev/zero"),
        "/dev/zero: the file is longer than 16 MiB\n"
    );
    fs::write(directory.join("full.ron"), " ".repeat(16 << 20)).unwrap();
    assert!(check("full.ron").starts_with("full.ron:1:1"));
}

#[test]
fn warnings_are_printed_and_may_be_denied() {
    let text = SMALLEST.replace("(bind", "(timeouts: (idle: \"off\"), bind");
    let want = "config.ron:2:35: warning: without an idle timeout, \
a peer that vanishes holds its session
  |     listeners: [(timeouts: (idle: \"off\"), bind: \"127.0.0.1:8080\", pool: \"web\")],
  |                                   ^^^^^
";
    let output = check("warnings", text.as_bytes(), &["--quiet"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), want));
    let output = check("warnings", text.as_bytes(), &["--deny-warnings"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), want));
    assert_eq!(stdout(&output), "");
}

#[test]
fn legal_settings_that_are_likely_to_hurt_get_a_warning() {
    let text = SMALLEST.replacen(
        '(',
        "(
    workers: 1024,
    access_log: (to: \"logs/access.log\"),
    histogram_log: \"/nowhere/mahoraga.hlog\",
    defaults: (timeouts: (idle: \"2h\")),",
        1,
    );
    let cpus = match std::thread::available_parallelism().unwrap().get() {
        1 => "1 CPU".to_owned(),
        cpus => format!("{cpus} CPUs"),
    };
    let want = format!(
        "config.ron:2:14: warning: workers: 1024 would take turns: the process may use {cpus}
  |     workers: 1024,
  |              ^^^^
config.ron:4:20: warning: the directory of the histogram log, `/nowhere`, does not exist
  |     histogram_log: \"/nowhere/mahoraga.hlog\",
  |                    ^^^^^^^^^^^^^^^^^^^^^^^^
config.ron:5:33: warning: a peer that vanishes holds its session for 2h: \
the default idle timeout is 10m
  |     defaults: (timeouts: (idle: \"2h\")),
  |                                 ^^^^
"
    );
    let output = check("likely_to_hurt", text.as_bytes(), &[]);
    // A start fails when the directory does not exist.
    let error = "error: cannot open the access log logs/access.log: \
                 No such file or directory (os error 2); create the directory first\n";
    assert_eq!(stderr(&output), want + error);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
}

#[test]
fn the_descriptor_limit_of_the_process_counts() {
    let directory = directory("descriptors");
    let text = SMALLEST.replacen('(', "( workers: 1, max_connections: 500,", 1);
    fs::write(directory.join("config.ron"), text).unwrap();
    let script = "ulimit -n 1255 && exec \"$0\" check -q";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_mahoraga")])
        .current_dir(directory)
        .output()
        .unwrap();
    let want = "config.ron:1:32: warning: max_connections: 500 connections need 1256 descriptors \
for each worker, and the hard limit (ulimit -Hn) is 1255
  | ( workers: 1, max_connections: 500,
  |                                ^^^
";
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), want));
}

#[test]
fn run_refuses_what_check_refuses() {
    let directory = directory("run");
    fs::write(directory.join("config.ron"), "()").unwrap();
    let output = mahoraga()
        .arg("run")
        .current_dir(&directory)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("config.ron:1:1: listeners: expected at least one\n"));
}

/// Ends the balancer however a test ends.
struct Running(Child);

impl Running {
    /// Sends a signal by the shell's own `kill`.
    fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.0.id());
        let status = Command::new("sh").args(["-c", &script]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reload_warns_as_the_start_does() {
    let directory = directory("reload_warns");
    let right = SMALLEST.replace(":8080", ":0");
    fs::write(directory.join("config.ron"), &right).unwrap();
    let mut child = mahoraga()
        .args(["run", "--config", "config.ron"])
        .current_dir(&directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut balancer = Running(child);
    // The thread ends with the balancer at the latest.
    let mut logged = |what: &str| {
        log.find(|line| line.as_ref().unwrap().contains(what))
            .unwrap()
    };
    logged("accepting clients").unwrap();
    let risky = right.replace("(bind", "(timeouts: (idle: \"off\"), bind");
    fs::write(directory.join("config.ron"), risky).unwrap();
    balancer.signal("HUP");
    let warned = logged("warning: ").unwrap();
    let want = " config.ron:2:35: warning: without an idle timeout, \
                a peer that vanishes holds its session";
    assert!(
        warned.ends_with(want) && warned.contains("WARN"),
        "{warned}"
    );
    logged("reload: snapshot ").unwrap();
    balancer.signal("TERM");
    assert_eq!(balancer.0.wait().unwrap().code(), Some(0));
}

/// The command line is refused, with this as its first line.
#[track_caller]
fn misused(arguments: &[&str], want: &str) {
    let output = run(arguments);
    assert_eq!(stderr(&output).lines().next(), Some(want));
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
}

/// A valid command line with further arguments.
fn proxy(more: &[&'static str]) -> Vec<&'static str> {
    let right = "proxy --from 127.0.0.1:8080 --to 127.0.0.1:9001";
    right.split(' ').chain(more.iter().copied()).collect()
}

#[test]
fn flags_are_refused_in_one_sentence() {
    misused(
        &proxy(&["--strategy", "roundrobin"]),
        "error: invalid value 'roundrobin' for '--strategy <NAME>': \
         invalid strategy `roundrobin`, did you mean `round_robin`?",
    );
    misused(
        &proxy(&["--connect-timeout", "5"]),
        "error: invalid value '5' for '--connect-timeout <DUR>': \
         expected a duration, 1ms to 1h: write 5ms, 5s or 5m",
    );
    misused(
        &proxy(&["--idle-timeout", "0s"]),
        "error: invalid value '0s' for '--idle-timeout <DUR|off>': \
         expected a duration, 1ms to 30d, or off",
    );
    misused(
        &proxy(&["--to", "127.0.0.1"]),
        "error: invalid value '127.0.0.1' for '--to <ADDR>': \
         `127.0.0.1` has no port: write host:port, [IPv6]:port or unix:/path",
    );
    misused(
        &proxy(&["--workers", "0"]),
        "error: invalid value '0' for '--workers <N|auto>': \
         expected a whole number, 1 to 1024, or auto",
    );
    misused(
        &proxy(&["--max-connections", "many"]),
        "error: invalid value 'many' for '--max-connections <N|auto>': \
         expected a whole number, 1 to 16777216, or auto",
    );
    misused(
        &proxy(&["--access-log", "a/"]),
        "error: invalid value 'a/' for '--access-log <-|FILE|SERVER>': \
         expected -, off, syslog, journald or the path of a file",
    );
    misused(
        &proxy(&["--attempts", "17"]),
        "error: invalid value '17' for '--attempts <N>': \
         expected a whole number, 1 to 16",
    );
    misused(
        &proxy(&["--from", "0.0.0.0:8080"]),
        "error: --from: two listeners share the address `127.0.0.1:8080`, \
         which `0.0.0.0:8080` includes: leave one out",
    );
    misused(
        &proxy(&["--to", "127.0.0.1:9001"]),
        "error: --to: the address `127.0.0.1:9001` is listed twice in the pool: leave one out",
    );
    misused(
        &proxy(&["--worker", "1"]),
        "error: unexpected argument '--worker' found",
    );
    misused(
        &["proxy", "--from", "127.0.0.1:8080"],
        "error: the following required arguments were not provided:",
    );
    misused(&["prxy"], "error: unrecognized subcommand 'prxy'");
    assert!(stderr(&run(&["prxy"])).contains("a similar subcommand exists: 'proxy'"));
    assert!(stderr(&run(&proxy(&["--worker", "1"]))).contains("'--workers'"));
}

#[test]
fn flags_of_strategies_are_refused_in_one_sentence() {
    misused(
        &proxy(&["--to", "127.0.0.1:9002,wieght=2"]),
        "error: invalid value '127.0.0.1:9002,wieght=2' for '--to <ADDR>': \
         invalid option `wieght`, did you mean `weight`?",
    );
    misused(
        &proxy(&["--strategy", "hash", "--key", "http_cookie"]),
        "error: invalid value 'http_cookie' for '--key <KEY>': invalid key \
         `http_cookie`: expected http_cookie(NAME), a name of up to 128 letters, \
         digits and !#$%&'*+-.^_`|~",
    );
    misused(
        &proxy(&["--key", "sni"]),
        "error: --key: the strategy `round_robin` has no such setting: \
         it belongs to `sticky_round_robin`, `hash` and `two_tier`",
    );
    misused(
        &proxy(&["--strategy", "hash", "--max-load", "0.99"]),
        "error: invalid value '0.99' for '--max-load <N|off>': \
         expected a number with at most two decimals, 1.01 to 10, or off",
    );
    // The flag is there: it needs no tip where else its setting stands.
    let output = run(&proxy(&["--max-load", "x"]));
    assert!(!stderr(&output).contains("tip:"), "{}", stderr(&output));
    misused(
        &proxy(&["--persist", "source_ip_port"]),
        "error: invalid value 'source_ip_port' for '--persist <KEY>': \
         `source_ip_port` is another with each connection: no client would be known again",
    );
    misused(
        &proxy(&["--persist", "sni", "--persist-ttl", "1ms"]),
        "error: invalid value '1ms' for '--persist-ttl <DUR>': \
         expected a duration, 1s to 30d",
    );
    misused(
        &proxy(&["--persist-ttl", "1h"]),
        "error: --persist-ttl has no effect alone: \
         add --persist, or --strategy sticky_round_robin",
    );
    misused(
        &proxy(&["--peek-timeout", "2m"]),
        "error: invalid value '2m' for '--peek-timeout <DUR>': \
         expected a duration, 1ms to 1m",
    );
}

#[test]
fn a_wrong_log_level_is_refused() {
    let flags = ["--from", "127.0.0.1:0", "--to", "127.0.0.1:9001"];
    let output = mahoraga()
        .arg("proxy")
        .args(flags)
        .env("MAHORAGA_LOG", "inof")
        .output()
        .unwrap();
    let want = "error: MAHORAGA_LOG: invalid level `inof`, did you mean `info`?\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), want));
    assert_eq!(stdout(&output), "");
}

#[test]
fn arguments_may_be_no_text() {
    let odd = OsStr::from_bytes(b"\xff.ron");
    let output = mahoraga()
        .args(["check", "--config"])
        .arg(odd)
        .output()
        .unwrap();
    let want = "\u{fffd}.ron: there is no such file: create it, or name another one\n";
    assert_eq!((output.status.code(), stderr(&output)), (Some(2), want));
    for arguments in [&["proxy", "--from"][..], &["demo"], &[]] {
        let output = mahoraga().args(arguments).arg(odd).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).starts_with("error: "));
    }
}

#[test]
fn help_and_version() {
    let output = run(&["--version"]);
    let want = concat!("mahoraga ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), want));
    for subcommand in ["run", "check", "proxy", "demo"] {
        let output = run(&[subcommand, "--help"]);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        assert!(stdout(&output).contains(&format!("Usage: mahoraga {subcommand}")));
        assert!(stdout(&output).contains(&format!("\n  mahoraga {subcommand}")));
    }
    let output = run(&["proxy", "--help"]);
    let flags = stdout(&output);
    let words: Vec<_> = flags
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    for (strategy, _) in Strategy::all() {
        assert!(words.contains(&strategy), "{strategy}");
    }
    for (key, _) in Key::all() {
        assert!(words.contains(&key), "{key}");
    }
    // The help wraps its lines at the terminal's width.
    let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in ["source_ip", "30m", "3s"] {
        let default = format!("[default: {default}]");
        assert!(flags.contains(&default), "{default}");
    }
    for text in [
        "two_tier's groups, and settings such as decay and horizon, need a configuration file",
        "no backend takes more than N times the average load, or off [default: off]",
        "Send a client with the same KEY back to the backend it had [default: off]",
        "How long a client is remembered after its last connection [default: 30m]",
        "Which strategy, when: docs/strategies.md",
    ] {
        assert!(flags.contains(text), "{text}");
    }
    assert!(flags.contains("--from '[::]:5432'"));
    let output = run(&["run", "--help"]);
    assert!(stdout(&output).contains("\nSIGHUP, or mahoraga reload, reads the file again"));
    let output = run(&["--help"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(stdout(&output).contains("\n  mahoraga proxy --from 127.0.0.1:8080 --to"));
    let expected = [
        "MAHORAGA_LOG ",
        "SIGTERM, SIGINT, SIGQUIT",
        "SIGUSR1 ",
        "SIGHUP ",
        "run: read the configuration again",
        "Exit codes:\n  0 ",
        "\n  1 ",
        "\n  2 ",
        "\n  3 ",
        "\n  128+signal ",
    ];
    for line in expected {
        assert!(stdout(&output).contains(line), "{line}");
    }
    let output = run(&[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""));
    assert!(stderr(&output).contains("Usage: mahoraga"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let closed = writer.try_clone().unwrap();
    let status = mahoraga()
        .arg("--help")
        .stdout(closed)
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(0));
    let directory = directory("broken_pipe");
    fs::write(directory.join("config.ron"), "()").unwrap();
    let status = mahoraga()
        .arg("check")
        .current_dir(directory)
        .stderr(writer)
        .status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn the_first_line_is_enough() {
    let mut child = mahoraga()
        .arg("--help")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "A TCP load balancer on io_uring\n");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_pipe_is_a_file_too() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(SMALLEST.as_bytes()).unwrap();
    drop(writer);
    let arguments = ["check", "-q", "--config", "/dev/stdin"];
    let output = mahoraga().args(arguments).stdin(reader).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}
