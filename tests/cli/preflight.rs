//! `check` reports every error that a start would report, in the same words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::{directory, mahoraga, stderr};

/// Writes a file of this mode.
fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The last line on standard error, and the exit code.
fn outcome(directory: &Path, command: &str, config: &str) -> (String, Option<i32>) {
    fs::write(directory.join("config.ron"), config).unwrap();
    let mut command_line = mahoraga();
    let command_line = command_line.arg(command).current_dir(directory);
    let output = command_line.env("MAHORAGA_LOG", "off").output().unwrap();
    let last = stderr(&output).lines().last().unwrap_or_default();
    (last.to_owned(), output.status.code())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn check_refuses_what_run_refuses() {
    let directory = directory("preflight");
    write(&directory.join("open"), "a-token-for-everybody", 0o644);
    write(&directory.join("short"), "short", 0o600);
    write(&directory.join("text"), "text", 0o600);
    symlink("absent/a.log", directory.join("dangling")).unwrap();
    symlink("text", directory.join("locked.sock.lock")).unwrap();
    let http =
        |token: &str| format!("admin: (http: (bind: \"127.0.0.1:0\", read_token: \"{token}\"))");
    let rest = "listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")]";
    let pools = "pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])]";
    for (wrong, message) in [
        (http("absent"), "token file absent"),
        (http("open"), "is open to every user"),
        (http("short"), "invalid token in short"),
        (
            "access_log: (to: \"absent/a.log\")".to_owned(),
            "access log absent/a.log",
        ),
        (
            "access_log: (to: \"text/a.log\")".to_owned(),
            "access log text/a.log",
        ),
        (
            "access_log: (to: \"syslog:text/log\")".to_owned(),
            "access log syslog:text/log",
        ),
        (
            "admin: (audit_log: \"absent/a.log\")".to_owned(),
            "absent/a.log",
        ),
        (
            "bans: (file: \"absent/bans\")".to_owned(),
            "cannot keep bans in absent/bans",
        ),
        (
            "bans: (file: \"text/bans\")".to_owned(),
            "cannot keep bans in text/bans",
        ),
        (
            "bans: (import: \"absent\")".to_owned(),
            "imported bans: absent",
        ),
        (
            "bans: (import: \"text\")".to_owned(),
            "imported bans: text: line 1: invalid prefix `text`",
        ),
        (
            "admin: (socket: \"absent/a.sock\")".to_owned(),
            "absent/a.sock",
        ),
        (
            "access_log: (to: \"dangling\")".to_owned(),
            "access log dangling",
        ),
        (
            "workers: 2, memory: \"4MiB\"".to_owned(),
            "invalid memory: expected at least 8MiB for 2 workers",
        ),
        (
            "admin: (socket: \"text\")".to_owned(),
            "another file is there",
        ),
        (
            "admin: (socket: \"locked.sock\")".to_owned(),
            "cannot lock locked.sock.lock",
        ),
    ] {
        let config = format!("({wrong}, {rest}, {pools})");
        let (checked, code) = outcome(&directory, "check", &config);
        assert!(checked.contains(message), "{wrong}: {checked}");
        assert_eq!(code, Some(2), "{wrong}");
        let (started, code) = outcome(&directory, "run", &config);
        assert_eq!(code, Some(2), "{wrong}");
        // The error of `run` names the file that it could not make.
        let reason = |line: &str| line.rsplit(": ").next().unwrap_or_default().to_owned();
        assert_eq!(reason(&checked), reason(&started), "{wrong}");
    }
    let config = format!("(listeners: [(bind: \"unix:text\", pool: \"web\")], {pools})");
    for command in ["check", "run"] {
        let (message, found) = outcome(&directory, command, &config);
        assert!(
            message.ends_with("address in use: another file is there"),
            "{message}"
        );
        assert_eq!(found, Some(2));
    }
}

/// A balancer that stays root opens files by their permissions, and so does the look of `check`.
#[test]
fn check_and_run_agree_about_files_that_root_may_open_by_a_privilege_only() {
    if mahoraga::sys::user_id() != 0 {
        return;
    }
    let directory = directory("preflight_root");
    let log = directory.join("a.log");
    write(&log, "", 0o600);
    chown(&log, Some(DAEMON), Some(DAEMON)).unwrap();
    let pools = "pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])]";
    let listeners = "listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")]";
    let config = format!("(user: \"root\", access_log: (to: \"a.log\"), {listeners}, {pools})");
    for command in ["check", "run"] {
        let (message, code) = outcome(&directory, command, &config);
        assert!(message.contains("access log a.log"), "{message}");
        assert!(message.contains("`chown root` it"), "{message}");
        assert_eq!(code, Some(2));
    }
    // The user that it becomes is named.
    let config = format!("(user: \"daemon\", admin: \"off\", {listeners}, {pools})");
    write(&directory.join("config.ron"), &config, 0o600);
    for command in ["check", "run"] {
        let (message, code) = outcome(&directory, command, &config);
        let named = "cannot open config.ron as user `daemon`: ";
        assert!(message.contains(named), "{command}: {message}");
        assert_eq!(code, Some(2));
    }
}

const DAEMON: u32 = 1;

#[test]
fn certificates_of_checks_are_looked_at() {
    let directory = directory("preflight_certificates");
    write(&directory.join("empty"), "", 0o600);
    fs::create_dir_all(directory.join("dir")).unwrap();
    for (file, why) in [
        ("empty", "it holds no certificate"),
        ("dir", "directory"),
        ("absent", "No such file"),
    ] {
        let config = format!(
            "(listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")],
            pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"],
                check: (type: \"tls\", tls: (sni: \"a.test\", verify: \"./{file}\")))])"
        );
        for command in ["check", "run"] {
            let (message, found) = outcome(&directory, command, &config);
            assert!(
                message.starts_with("error: pool `web`: check: "),
                "{message}"
            );
            assert!(message.contains(why), "{message}");
            assert_eq!(found, Some(2));
        }
    }
}

#[test]
fn what_the_machine_lacks_is_no_mistake() {
    let directory = directory("preflight_machine");
    let config = "(listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")],
        pools: [(name: \"web\", source: [\"192.0.2.1\"], backends: [\"127.0.0.1:9001\"])])";
    for command in ["check", "run"] {
        let (message, found) = outcome(&directory, command, config);
        assert!(message.contains("192.0.2.1"), "{message}");
        assert_eq!(found, Some(1));
    }
}

#[test]
fn check_says_that_names_were_not_looked_up() {
    let directory = directory("preflight_names");
    let config = "(listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")],
        pools: [(name: \"web\", backends: [\"db.test:9001\"])])";
    fs::write(directory.join("config.ron"), config).unwrap();
    let mut command = mahoraga();
    let output = command.arg("check").current_dir(&directory).output();
    let output = output.unwrap();
    let seen = stderr(&output);
    assert!(seen.contains(" names resolve, backends answer"), "{seen}");
}

#[test]
fn check_makes_no_file() {
    let directory = directory("preflight_makes_nothing");
    write(&directory.join("token"), "a-token-of-this-test", 0o600);
    let config = "(access_log: (to: \"a.log\"),
        admin: (socket: \"a.sock\", audit_log: \"audit.log\",
                http: (bind: \"127.0.0.1:1\", read_token: \"token\")),
        metrics: \"127.0.0.1:2\",
        listeners: [(bind: \"unix:b.sock\", pool: \"web\")],
        pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])";
    fs::write(directory.join("config.ron"), config).unwrap();
    let mut command = mahoraga();
    let output = command.arg("check").current_dir(&directory).output();
    let output = output.unwrap();
    let seen = stderr(&output);
    let message = "not checked: whether unix:b.sock, 127.0.0.1:1, 127.0.0.1:2 can be listened on";
    assert!(seen.contains(message), "{seen}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
}

#[test]
fn check_refuses_a_level_that_there_is_not() {
    let directory = directory("preflight_level");
    fs::write(directory.join("config.ron"), super::SMALLEST).unwrap();
    let mut command = mahoraga();
    let command = command.arg("check").current_dir(&directory);
    let output = command.env("MAHORAGA_LOG", "loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: MAHORAGA_LOG: "));
}

#[test]
fn check_reads_the_files_that_list_backends() {
    let directory = directory("preflight_discovery");
    write(&directory.join("bad"), "127.0.0.1:1\nlocalhost:2\n", 0o600);
    write(&directory.join("good"), "127.0.0.1:1\n", 0o600);
    for (file, why) in [
        ("bad", Some("`bad`: line 2: invalid address `localhost:2`")),
        ("absent", Some("`absent`, does not exist")),
        (".", Some("cannot read the file of the backends, `.`")),
        ("good", None),
    ] {
        let config = format!(
            "(listeners: [(bind: \"127.0.0.1:0\", pool: \"web\")],
            pools: [(name: \"web\", discover: (file: \"{file}\"))])"
        );
        fs::write(directory.join("config.ron"), config).unwrap();
        for (flags, code) in [(&["-q"][..], 0), (&["-q", "--deny-warnings"][..], 2)] {
            let mut command = mahoraga();
            let command = command.arg("check").args(flags).current_dir(&directory);
            let output = command.output().unwrap();
            let said = stderr(&output);
            let code = if why.is_some() { code } else { 0 };
            assert_eq!(output.status.code(), Some(code), "{file} {flags:?}: {said}");
            match why {
                Some(why) => assert!(said.contains(why), "{file}: {said}"),
                None => assert_eq!(said, ""),
            }
        }
    }
}

#[test]
fn check_reports_every_file_of_access_lists() {
    let directory = directory("preflight_access");
    let config = "(access_lists: [(name: \"a\", file: \"one\", others: \"allow\"),
                    (name: \"b\", file: \"two\", others: \"allow\")],
        listeners: [(bind: \"127.0.0.1:0\", pool: \"web\", access_list: \"a\"),
                    (bind: \"127.0.0.2:0\", pool: \"web\", access_list: \"b\")],
        pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])])";
    fs::write(directory.join("config.ron"), config).unwrap();
    let mut command = mahoraga();
    let output = command.arg("check").current_dir(&directory).output();
    let output = output.unwrap();
    let said = stderr(&output);
    assert_eq!(said.matches("error: access list file").count(), 2, "{said}");
}

/// Findings about files of TLS have the places of the settings that name them.
#[test]
fn check_tells_what_is_wrong_with_certificates_and_where() {
    let directory = directory("certificates");
    for (name, year) in [("old", 2020), ("good", 4000)] {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        write(
            &directory.join(format!("{name}.pem")),
            &certificate.pem(),
            0o644,
        );
        write(
            &directory.join(format!("{name}.key")),
            &key.serialize_pem(),
            0o600,
        );
    }
    let findings = |pair: (&str, &str)| {
        let (certificate, key) = pair;
        let config = format!(
            "(\n\tlisteners: [(bind: \"127.0.0.1:0\", pool: \"p\", tls: (certificates: [(\n\t\t\
             certificate: \"{certificate}\",\n\t\tkey: \"{key}\",\n\t)]))],\n\tpools: [(name: \
             \"p\", backends: [\"127.0.0.1:9001\"])],\n)"
        );
        write(&directory.join("config.ron"), &config, 0o600);
        let mut check = mahoraga();
        let check = check.args(["check", "--json"]).current_dir(&directory);
        let output = check.output().unwrap();
        let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        let found = found.into_iter().find(|one| one["line"].is_u64()).unwrap();
        let message = found["message"].as_str().unwrap().to_owned();
        (found["severity"].clone(), found["line"].clone(), message)
    };
    let told = "the certificate in old.pem has expired".to_owned();
    assert_eq!(
        findings(("old.pem", "old.key")),
        ("warning".into(), 3.into(), told)
    );
    let told = "listener `127.0.0.1:0`: tls: cannot use old.key: it is not the key of the \
                certificate in good.pem";
    let found = findings(("good.pem", "old.key"));
    assert_eq!(found, ("error".into(), 4.into(), told.to_owned()));
}
