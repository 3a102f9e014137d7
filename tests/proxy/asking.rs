//! Runs the program as a client of the balancer under test, and asks the two endpoints that have no
//! command.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::{fs, thread};

use serde_json::Value;

use crate::balancer::Balancer;
use crate::watchdog::{eventually, patience};

impl Balancer {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mahoraga"));
        command.args(arguments).current_dir(self.dir());
        for variable in ["MAHORAGA_ADMIN", "MAHORAGA_TOKEN_FILE", "MAHORAGA_LOG"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The output of a command.
    #[track_caller]
    pub(crate) fn words(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        if SHOWS_FIGURES.contains(&arguments[0]) {
            self.note_figures();
        }
        String::from_utf8(output.stdout).unwrap()
    }

    /// The output of a command with `--json`.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let words = self.words(&[arguments, &["--json"]].concat());
        serde_json::from_str(&words).unwrap_or_else(|error| panic!("{error}: {words}"))
    }

    /// Waits until every worker has applied a change: until then an answer of the API shows the
    /// control thread alone.
    pub(crate) fn until_adopted(&self) {
        eventually("every worker has the change", || {
            self.ask(&["status"])["publish_us"].is_number()
        });
    }

    /// A command that is refused: its exit code, and its error.
    #[track_caller]
    pub(crate) fn refusal(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), message)
    }

    /// The backend of this name in the pool `default`; prefers one that is not leaving.
    pub(crate) fn backend(&self, name: &str) -> Value {
        let backend = self.find_backend(name);
        backend.unwrap_or_else(|| panic!("no backend {name}"))
    }

    /// The same, or `None` when it is gone.
    pub(crate) fn find_backend(&self, name: &str) -> Option<Value> {
        let backends = self.ask(&["backends", "--pool", "default"]);
        let mut backends = backends.as_array().unwrap().iter();
        backends.find(|its| its["name"] == name).cloned()
    }

    /// Waits until a field of a backend of the pool `default` has this value.
    #[track_caller]
    pub(crate) fn until(&self, backend: &str, field: &str, value: impl Into<Value>) {
        let value = value.into();
        eventually(&format!("{field} of {backend} is {value}"), || {
            self.backend(backend)[field] == value
        });
    }

    /// Waits until the log contains a text.
    #[track_caller]
    pub(crate) fn until_logged(&self, what: &str) {
        eventually(what, || self.log().count_unaudited(what) > 0);
    }

    /// The status that an endpoint answers with over the admin socket.
    pub(crate) fn http_status(&self, path: &str) -> u16 {
        let mut stream = UnixStream::connect(self.dir().join("mahoraga.sock")).unwrap();
        let wait = Some(patience());
        stream.set_read_timeout(wait).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Rewrites the configuration: the new text is made from the old.
    pub(crate) fn edit(&self, change: impl FnOnce(&str) -> String) {
        let path = self.dir().join("config.ron");
        let before = fs::read_to_string(&path).unwrap();
        let after = change(&before);
        assert_ne!(before, after);
        // Renames a new file into place, as editors do: no reader sees half of it.
        let new = self.dir().join("config.ron.new");
        fs::write(&new, after).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Follows the events from now on.
    pub(crate) fn follow(&self) -> Followed {
        let arguments = ["events", "--follow", "--recent", "256", "--json"];
        let mut command = self.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        });
        Followed { child, lines }
    }

    /// The stored events of a kind, oldest first.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let lines = self.words(&["events", "--recent", "256", "--json"]);
        let events = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["kind"] == kind)
            .collect()
    }
}

/// `mahoraga events --follow`.
pub(crate) struct Followed {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Followed {
    /// The next event of a kind.
    #[track_caller]
    pub(crate) fn next(&self, kind: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(patience());
            let line = line.unwrap_or_else(|error| panic!("no event {kind}: {error}"));
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["kind"] == kind {
                return event;
            }
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // The process may have ended with its balancer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Commands that a test looks at figures by.
const SHOWS_FIGURES: [&str; 4] = ["backends", "listeners", "pools", "status"];
