//! Lines of the audit log, and where they go.

use std::fs::{self, OpenOptions};
use std::io::Read as _;

use super::*;
use crate::admin::Role;
use crate::writer::RECORDS_MAX;

/// A path of this test's own, where nothing is.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("mahoraga-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn entry(target: &str) -> Entry<'_> {
    Entry {
        author: Author::Token(Role::Write),
        action: "set_backend",
        target,
        old: Some(json!({ "weight": 1 })),
        new: Some(json!({ "weight": 9 })),
        outcome: Ok(7),
    }
}

#[test]
fn a_line_has_author_change_old_and_new_value() {
    let done = line(&entry("main/alpha"), SystemTime::UNIX_EPOCH);
    let fields: Value = serde_json::from_str(&done).unwrap();
    let want = json!({
        "time": "1970-01-01T00:00:00.000Z",
        "author": "write",
        "action": "set_backend",
        "target": "main/alpha",
        "old": { "weight": 1 },
        "new": { "weight": 9 },
        "outcome": "done",
        "snapshot": 7,
    });
    assert_eq!(fields, want);
    let refused = Entry {
        author: Author::Socket,
        old: None,
        outcome: Err("no \"pool\"".to_owned()),
        ..entry("main")
    };
    let refused: Value = serde_json::from_str(&line(&refused, SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(refused["author"], "socket");
    assert_eq!(refused["old"], Value::Null);
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["error"], "no \"pool\"");
    assert_eq!(refused.get("snapshot"), None);
}

#[test]
fn nothing_in_a_line_misleads_its_reader() {
    let nasty =
        "a\n\r\t\0\x1b[2J\x7f\u{85}\u{9b}\u{200e}\u{202e}\u{2066}\u{2028}\u{feff}\"\\ é 漢 🦀";
    let written = line(&entry(nasty), SystemTime::UNIX_EPOCH);
    assert!(!written.chars().any(is_misleading), "{written}");
    assert!(written.contains("\\u001b[2J\\u007f\\u0085\\u009b\\u200e\\u202e\\u2066\\u2028\\ufeff"));
    assert!(written.contains("é 漢 🦀"));
    let fields: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(fields["target"], nasty);
}

#[test]
fn a_file_is_appended_to_and_opened_again() {
    let path = temporary("audit.log");
    fs::write(&path, "before\n").unwrap();
    let audit = Audit::open(Some(&path), None).unwrap();
    audit.record(&entry("one"));
    audit.record(&entry("two"));
    drop(audit);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("\"one\"") && lines[2].contains("\"two\""));
    let audit = Audit::open(Some(&path), None).unwrap();
    let rotated = path.with_extension("1");
    fs::rename(&path, &rotated).unwrap();
    audit.record(&entry("three"));
    drop(audit.reopen());
    audit.record(&entry("four"));
    drop(audit);
    assert!(fs::read_to_string(&rotated).unwrap().contains("\"three\""));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("\"four\""));
}

#[test]
fn a_file_that_cannot_be_opened_is_reported_at_once() {
    Audit::open(Some(Path::new("/no/such/place")), None).unwrap_err();
}

/// A pipe without a reader delays neither a change nor the end.
#[test]
fn a_stuck_pipe_delays_nothing() {
    let path = temporary("audit-pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    // Open for both, a pipe is opened without waiting for the other end.
    let both = OpenOptions::new().read(true).write(true).open(&path);
    let mut reader = both.unwrap();
    let audit = Audit::open(Some(&path), None).unwrap();
    let long = "x".repeat(4_000);
    for _ in 0..2 * RECORDS_MAX {
        audit.record(&entry(&long));
    }
    drop(audit);
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{");
}
