//! The history of the real program: in memory, in its file, and where that can't be written.

use std::fs;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use crate::api::{ask, look};
use crate::balancer::{Balancer, Launch};
use crate::peers::{Backend, ping};
use crate::watchdog::{eventually, watched};

/// The sum of a counter over all intervals, of the first subject of a kind.
fn sum(history: &Value, kind: &str, figure: &str) -> u64 {
    let subjects = history["subjects"].as_array().unwrap();
    let subject = subjects.iter().find(|its| its["kind"] == kind);
    let values = subject.and_then(|its| its["figures"][figure]["sum"].as_array());
    let values = values.into_iter().flatten();
    values.filter_map(Value::as_u64).sum()
}

fn file_of(name: &str, backend: &Backend) -> String {
    format!(
        "(workers: 1, admin: (socket: \"mahoraga.sock\"), history: \"{name}\",\n\
         listeners: [(name: \"front\", bind: \"127.0.0.1:0\", pool: \"p\")],\n\
         pools: [(name: \"p\", backends: [(name: \"b\", address: \"{}\")])])",
        backend.address
    )
}

/// Some clients come, talk and go.
fn load(balancer: &Balancer) {
    let mut clients: Vec<_> = (0..7).map(|_| balancer.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| ping(client, b"history"));
    drop(clients);
    eventually("sessions end", || balancer.number("sessions") == 0);
}

/// Ends a balancer. Of a file that is open SQLite keeps descriptors to use them again, so what it
/// has is not compared with what it had.
fn end(balancer: &mut Balancer) {
    balancer.process.signal(libc::SIGTERM);
    assert_eq!(balancer.wait().code(), Some(0), "{}", balancer.log().all());
}

fn assert_has_load(history: &Value) {
    for (kind, figure, right) in [
        ("process", "worker_accepted", 7),
        ("process", "worker_closed.client_closed", 7),
        ("listener", "traffic.up", 7 * 7),
        ("pool", "traffic.down", 7 * 7),
        ("backend", "opened", 7),
        ("backend", "answered", 7),
    ] {
        assert_eq!(
            sum(history, kind, figure),
            right,
            "{kind} {figure}: {history}"
        );
    }
    let process = &history["subjects"][0]["figures"];
    let counts = process["worker_connect"]["count"].as_array().unwrap();
    assert_eq!(counts.iter().filter_map(Value::as_u64).sum::<u64>(), 7);
}

#[test]
fn the_file_has_what_the_api_tells() {
    watched(|| {
        let backend = Backend::echo();
        let mut balancer = Launch::with_config(&file_of("h.db", &backend), 1).start();
        load(&balancer);
        let history = || look(&balancer, "/v1/history?since=10m");
        eventually("the history has the load", || {
            sum(&history(), "process", "worker_accepted") == 7
                && sum(&history(), "listener", "traffic.up") == 49
        });
        assert_has_load(&history());
        let backends = look(&balancer, "/v1/history?since=10m&backend=b&figures=opened");
        assert_eq!(backends["subjects"].as_array().unwrap().len(), 1);
        assert_eq!(sum(&backends, "backend", "opened"), 7);
        eventually("the file has it", || {
            look(&balancer, "/v1/status")["history"]["bytes"].as_u64() > Some(0)
        });
        let (status, refused) = ask(&balancer, "GET", "/v1/history?since=soon", "");
        assert_eq!(status, 400, "{refused}");
        let (status, _) = ask(
            &balancer,
            "PATCH",
            "/v1/pools/p/backends/b",
            "{\"weight\": 3}",
        );
        assert_eq!(status, 200);
        eventually("the history has the change", || {
            let events = look(&balancer, "/v1/history/events").to_string();
            events.contains("\"audit\"") && events.contains("changed over the admin socket")
        });
        end(&mut balancer);
        // Nothing of it is lost at the end, and a table shows it.
        let read = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mahoraga"));
            let file = balancer.dir().join("h.db");
            let output = command
                .args(["history", "--file"])
                .arg(file)
                .args(arguments);
            let output = output.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_has_load(&serde_json::from_str(&read(&["--json"])).unwrap());
        assert!(read(&[]).contains("FIRST BYTE"));
        assert!(read(&["--csv"]).contains(",backend,,p,b,opened,sum,7\n"));
        assert!(read(&["--events"]).contains("  audit  "));
    });
}

#[test]
fn a_file_that_cannot_be_written_harms_nothing() {
    watched(|| {
        let backend = Backend::echo();
        let file = file_of("missing/h.db", &backend);
        let balancer = Launch::with_config(&file, 1).start();
        load(&balancer);
        eventually("an alert says so", || {
            let alerts = look(&balancer, "/v1/status")["alerts"].to_string();
            alerts.contains("cannot keep the history in missing/h.db: No such file")
        });
        eventually("memory has the load", || {
            let history = look(&balancer, "/v1/history");
            sum(&history, "process", "worker_accepted") == 7
        });
        assert!(fs::metadata(balancer.dir().join("missing")).is_err());
        assert_eq!(balancer.log().count("cannot keep the history"), 1);
        balancer.finish();
    });
}

/// The kinds of what happened, as the history has them.
fn kinds(balancer: &Balancer) -> String {
    look(balancer, "/v1/history/events").to_string()
}

#[test]
fn a_file_that_another_process_locks_is_written_once_it_is_free() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::with_config(&file_of("h.db", &backend), 1);
        let other = Connection::open(launch.dir().join("h.db")).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let mut balancer = launch.start();
        eventually("an alert says so", || {
            let alerts = look(&balancer, "/v1/status")["alerts"].to_string();
            alerts.contains("h.db: another process uses it")
        });
        load(&balancer);
        eventually("memory has the load", || {
            let history = look(&balancer, "/v1/history");
            sum(&history, "process", "worker_accepted") == 7
        });
        drop(other);
        eventually("the file is written", || {
            kinds(&balancer).contains("\"history_restored\"")
        });
        assert_eq!(
            look(&balancer, "/v1/status")["alerts"].to_string(),
            "[]",
            "{}",
            balancer.log().all()
        );
        end(&mut balancer);
    });
}

#[test]
fn a_file_that_is_damaged_or_removed_is_begun_again() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::with_config(&file_of("h.db", &backend), 1);
        let dir = launch.dir().to_owned();
        let damaged = [&b"SQLite format 3\0"[..], &[b'x'; 9_000]].concat();
        fs::write(dir.join("h.db"), &damaged).unwrap();
        let mut balancer = launch.start();
        load(&balancer);
        eventually("it is told", || {
            kinds(&balancer).contains("\"history_damaged\"")
        });
        let there = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
        let aside: Vec<_> = there
            .filter(|path| path.to_string_lossy().contains(".corrupt-"))
            .collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(fs::read(&aside[0]).unwrap(), damaged);
        fs::remove_file(dir.join("h.db")).unwrap();
        eventually("that is told too", || {
            kinds(&balancer).contains("its file was removed")
        });
        load(&balancer);
        eventually("nothing is lost", || {
            let history = look(&balancer, "/v1/history");
            sum(&history, "process", "worker_accepted") == 14
        });
        eventually("the file is there again", || dir.join("h.db").exists());
        end(&mut balancer);
    });
}
