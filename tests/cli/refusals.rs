//! Balancers that do not answer or refuse, readers that leave, and the help.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::super::fake::{Fake, answer, over_tcp};
use super::super::{directory, mahoraga, run, stderr, stdout};
use super::{failed, stream, succeeded};

#[test]
fn balancers_that_can_not_be_reached() {
    let empty = directory("client_nobody");
    let run = |arguments: &[&str]| {
        let mut command = mahoraga();
        command
            .args(arguments)
            .current_dir(&empty)
            .output()
            .unwrap()
    };
    let want = "no balancer answers at mahoraga.sock: is `mahoraga run` or \
                `mahoraga proxy` running here? Name its socket with --admin";
    assert_eq!(failed(&run(&["status"]), 1), want);
    let there = "no balancer answers at other.sock: is `mahoraga run` or \
                 `mahoraga proxy` running there?";
    assert_eq!(failed(&run(&["status", "--admin", "other.sock"]), 1), there);
    // A killed balancer left it behind.
    drop(UnixListener::bind(empty.join("mahoraga.sock")).unwrap());
    assert_eq!(failed(&run(&["status"]), 1), want);
    let listener = UnixListener::bind(empty.join("silent.sock")).unwrap();
    assert_eq!(
        failed(&run(&["status", "--admin", "silent.sock"]), 1),
        "no answer from silent.sock within 5 s"
    );
    drop(listener);
    let output = run(&["status", "--admin", "http://192.0.2.1:80"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("is not on loopback: a token would cross the network"));
}

#[test]
fn answers_that_are_none() {
    let unknown = r#"{"error":"there is no pool called `wbe`, did you mean `web`?"}"#;
    let answers = [
        answer("404 Not Found", unknown),
        answer("404 Not Found", "<html>"),
        answer("200 OK", "{}"),
        "SSH-2.0-OpenSSH_9.6\r\n".to_owned(),
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_owned(),
        answer("403 Forbidden", r#"{"error":"this token may only look"}"#),
    ];
    let fake = Fake::answering("client_answers", answers.into());
    let gone = "the balancer at mahoraga.sock closed the connection before it answered";
    for want in [
        "there is no pool called `wbe`, did you mean `web`?",
        "mahoraga.sock answers GET /v1/pools/wbe with 404 Not Found: \
         is it a balancer of this version?",
        "mahoraga.sock answers GET /v1/pools/wbe with missing field `name` at line 1 column 2: \
         is it a balancer of this version?",
        "another program answers at mahoraga.sock, not a balancer",
        gone,
        gone,
        "this token may only look",
    ] {
        assert_eq!(failed(&fake.run(&["pools", "wbe"]), 1), want);
    }
}

#[test]
fn a_token_goes_over_http() {
    let directory = directory("client_token");
    fs::write(directory.join("token"), "s3cret\n").unwrap();
    fs::write(directory.join("empty"), "\n").unwrap();
    let run = |url: &str, more: &[&str]| {
        let mut command = mahoraga();
        command.args(["listeners", "--admin", url]).args(more);
        command.current_dir(&directory).output().unwrap()
    };
    let (url, head) = over_tcp(answer("200 OK", "[]"));
    succeeded(&run(&url, &["--token-file", "token"]));
    let head = head.join().unwrap();
    assert!(
        head.contains("\r\nauthorization: bearer s3cret\r\n"),
        "{head}"
    );
    let host = url.strip_prefix("http://").unwrap();
    assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");

    let (url, head) = over_tcp(answer("401 Unauthorized", ""));
    let want = format!("{url} requires a token: name its file with --token-file");
    assert_eq!(failed(&run(&url, &[]), 1), want);
    assert!(!head.join().unwrap().contains("authorization"));
    let output = run(&url, &["--token-file", "absent"]);
    let want = "cannot use the token file absent: No such file or directory (os error 2)";
    assert_eq!(failed(&output, 2), want);
    let output = run(&url, &["--token-file", "empty"]);
    assert_eq!(
        failed(&output, 2),
        "cannot use the token file empty: expected one word in it"
    );

    let (url, head) = over_tcp(answer("200 OK", "[]"));
    let mut command = mahoraga();
    let command = command.arg("listeners").current_dir(&directory);
    let command = command
        .env("MAHORAGA_ADMIN", url)
        .env("MAHORAGA_TOKEN_FILE", "token");
    succeeded(&command.output().unwrap());
    assert!(head.join().unwrap().contains("bearer s3cret"));
    let mut command = mahoraga();
    let command = command.arg("status").env("MAHORAGA_ADMIN", "https://a");
    let output = command.output().unwrap();
    let want = "MAHORAGA_ADMIN: invalid admin API `https://a`: \
                expected the path of a socket, or http://HOST:PORT";
    assert_eq!(failed(&output, 2), want);
}

#[test]
fn what_the_balancer_would_refuse_is_refused_before_it_is_asked() {
    for (command, range) in [
        ("set pool web --queue-timeout 2h", "20ms to 1h"),
        ("set pool web --queue-timeout 1ms", "20ms to 1h"),
        ("top --interval 2h", "100ms to 1h"),
        ("sessions --limit 10001", "1 to 10000"),
    ] {
        let output = run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(stderr(&output).contains(range), "{}", stderr(&output));
    }
}

#[test]
fn errors_are_json_where_answers_are() {
    let refused = r#"{"error":"config.ron:1:1: a mistake\nthe old configuration stays in force"}"#;
    let mistakes = vec![answer("422 Unprocessable Entity", refused)];
    let fake = Fake::answering("client_json_errors", mistakes);
    let check = |output: &std::process::Output, code: i32, want: &str| {
        assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
        assert_eq!(stdout(output), "");
        let error: serde_json::Value = serde_json::from_str(stderr(output)).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(error.starts_with(want), "{error}");
    };
    check(
        &fake.run(&["reload", "--json"]),
        1,
        "config.ron:1:1: a mistake\nthe old",
    );
    let absent = run(&["status", "--admin", "absent.sock", "--json"]);
    check(&absent, 1, "no balancer answers at absent.sock");
    let unknown = run(&["drain", "--json"]);
    check(
        &unknown,
        2,
        "the following required arguments were not provided",
    );
    let simulated = run(&["simulate", "--json", "--config", "absent.ron"]);
    check(&simulated, 2, "absent.ron: there is no such file");
    let limit = run(&["sessions", "--limit", "10001", "--json"]);
    check(&limit, 2, "invalid value '10001' for '--limit <N>'");
}

#[test]
fn a_reader_that_leaves_ends_a_command() {
    let fake = Fake::answering("client_reader", vec![answer("200 OK", "[]"), stream()]);
    for command in [&["listeners"][..], &["events", "--follow"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = mahoraga();
        let child = child.args(command).current_dir(&fake.directory);
        let output = child
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    }
}

#[test]
fn the_help_has_two_lists() {
    let output = run(&["--help"]);
    let help = succeeded(&output);
    let (head, _) = help.split_once("\nExamples:").unwrap();
    assert_eq!(head, HELP);
    let (_, clients) = head
        .split_once("Commands to a running balancer:\n")
        .unwrap();
    let clients = clients.lines().take_while(|line| !line.is_empty());
    for line in clients {
        let command = line.split_whitespace().next().unwrap();
        let output = run(&[command, "--help"]);
        assert!(
            succeeded(&output).contains(&format!("Usage: mahoraga {command}")),
            "{command}"
        );
        let has_flag = succeeded(&output).contains("--admin <PATH|URL>");
        assert!(
            has_flag || ["set", "config"].contains(&command),
            "{command}"
        );
    }
    assert_eq!(succeeded(&run(&["drain", "--help"])), DRAIN);
}

const HELP: &str = "\
A TCP load balancer on io_uring

Usage: mahoraga <COMMAND>

Balancer:
  run         Run the balancer with a configuration file
  check       Validate a configuration file, and look at the files that a start would open \
[also: validate]
  proxy       Run the balancer with flags, without a configuration file
  demo        Start three small HTTP backends and the balancer in front of them
  simulate    Simulate strategies, limits under abuse, or several balancers
  plan        Say how many cores and machines a load takes, and which limit binds first

Commands to a running balancer:
  status      Show overall status
  listeners   Show the listeners and their limits
  pools       Show the pools: strategy, connections, queue
  backends    Show the backends: state, weight, connections, answer times
  sessions    List sessions, or close them
  explain     Explain where sessions went and why, or where a client would go
  route       Say which route of a listener would take a client
  routes      Show the routes of a listener, as a file has them
  add         Add a backend to a pool
  remove      Remove a backend, and let its sessions end by themselves
  weight      Set the weight of a backend
  drain       Send a backend no new sessions, and keep those it has
  ready       Return a backend to service after drain or maint [also: enable, undrain]
  maint       Take a backend out of service: no new sessions, no probes [also: disable]
  set         Set strategy, queue, weight, limits or routes of a pool, a backend, a listener
  access      Show the access lists, one with its prefixes, or what it says of a client
  allow       Let clients of addresses or prefixes connect, by an access list
  deny        Refuse clients of addresses or prefixes, by an access list
  unlist      Remove addresses or prefixes from an access list
  bans        Show the bans: networks whose clients are refused
  ban         Ban clients: refuse them at every listener, and close their sessions
  unban       Lift bans
  reload      Read the configuration file again
  leave       Send clients to another balancer: refuse readiness, and then new clients
  join        Take new clients again after a leave
  reopen      Open the log files again, after they were moved away
  config      Show the configuration in force, or all settings
  histograms  Show histograms: times and bytes of sessions
  events      Show recent events, and follow new ones
  top         Show everything live, refreshed each second
  history     Show what figures were, by second, minute or hour, or past events

Options:
  -h, --help     Print help
  -V, --version  Print version
";

const DRAIN: &str = "\
Send a backend no new sessions, and keep those it has

Usage: mahoraga drain [OPTIONS] <BACKEND>...

Arguments:
  <BACKEND>...  Backends: names, or POOL/BACKEND

Options:
      --wait[=<DUR|off>]   Wait until it has no connection; --wait=10m: at most this long
      --admin <PATH|URL>   The balancer's admin socket, or http://HOST:PORT on loopback [env:
                           MAHORAGA_ADMIN] [default: mahoraga.sock, or else
                           /run/mahoraga/mahoraga.sock]
      --token-file <FILE>  The file with the token for http:// [env: MAHORAGA_TOKEN_FILE]
      --json               Print JSON; an error is {\"error\": \"...\"} on standard error
  -h, --help               Print help

Examples:
  mahoraga drain app-1 app-2
  mahoraga drain web/app-1 --wait=10m && ssh app-1 reboot

Sessions end by themselves; `mahoraga sessions --kill --backend app-1` ends them now.
";
