//! The repository's own rules. Each test lists everything that breaks its rule.

#[path = "tidy/lexer.rs"]
mod lexer;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mahoraga::session::CloseReason;

/// A source file by its path from the repository's root.
struct Source {
    path: String,
    text: String,
}

#[test]
fn lines_fit_in_100_columns() {
    let wide = lines(&["src", "tests", "benches"], |line| {
        line.chars().count() > COLUMNS
    });
    assert_none(&wide, "wider than 100 columns");
}

#[test]
fn nothing_is_left_for_later() {
    // Cut in two, or this file would find itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("db", "g!"),
        concat!("to", "do!"),
    ];
    let left = lines(&["src", "tests", "benches"], |line| {
        marks.iter().any(|mark| line.contains(mark))
    });
    assert_none(&left, "left for later");
}

#[test]
fn only_the_ring_and_the_system_calls_are_unsafe() {
    let found: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|source| !UNSAFE.iter().any(|room| source.path.starts_with(room)))
        .filter(|source| lexer::has_word(&lexer::code(&source.text), "unsafe"))
        .map(|source| source.path)
        .collect();
    assert_none(&found, "unsafe outside of src/ring and src/sys");
}

#[test]
fn files_are_short() {
    let long: Vec<_> = sources(&["src"])
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(length, _)| *length > FILE_LINES)
        .map(|(length, path)| format!("{path}: {length}"))
        .collect();
    assert_none(&long, "longer than 600 lines");
}

#[test]
fn every_file_begins_with_its_purpose() {
    let mute: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_none(&mute, "without a module doc in the first line");
}

#[test]
fn every_number_is_in_the_gauge_line() {
    let shown = gauge_line();
    let missing: Vec<_> = declared_numbers()
        .into_iter()
        .filter(|name| !shown.contains(name))
        .collect();
    assert_none(&missing, "counted, but not in the gauge line of SIGUSR1");
}

#[test]
fn every_close_reason_and_number_is_documented() {
    let spans: BTreeSet<String> = ["ARCHITECTURE.md", "README.md"]
        .into_iter()
        .flat_map(|path| code_spans(&read(path)))
        .collect();
    let reasons = CloseReason::ALL.map(|reason| reason.as_str().to_owned());
    let missing: Vec<_> = gauge_line()
        .into_iter()
        .chain(reasons)
        .filter(|name| !spans.contains(name) && !spans.contains(&format!("closed.{name}")))
        .map(|name| format!("`{name}`"))
        .collect();
    assert_none(&missing, "neither in ARCHITECTURE.md nor in README.md");
}

/// The names in the gauge line, as its source gives them: `("name", &stats.name)`.
fn gauge_line() -> Vec<String> {
    let source = read("src/control/status.rs");
    let names: Vec<_> = source
        .lines()
        .filter(|line| line.contains("&stats."))
        .filter_map(|line| Some(line.split_once("(\"")?.1.split_once('"')?.0.to_owned()))
        .collect();
    assert!(names.len() > 1, "the gauge line is not where it was");
    names
}

/// The gauges and counters of a worker: `pub name: Number`.
fn declared_numbers() -> Vec<String> {
    let source = read("src/worker/metrics.rs");
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(": Number,"))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 1, "the numbers are not where they were");
    names
}

/// What stands between backticks in a text. A name in prose may be just a word, and one in a
/// block of code just a sample.
fn code_spans(markdown: &str) -> Vec<String> {
    let mut fenced = false;
    let prose = markdown.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let spans = prose.flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.map(str::to_owned).collect()
}

#[test]
fn only_code_spans_document() {
    let markdown = "one `two` three `closed.four`\n```\n`five`\n```\n`six`";
    assert_eq!(code_spans(markdown), ["two", "closed.four", "six"]);
}

/// The lines of which something is true, by file and number.
fn lines(directories: &[&str], is_found: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources(directories) {
        for (number, line) in (1..).zip(source.text.lines()) {
            if is_found(line) {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    found
}

fn sources(directories: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for directory in directories {
        collect(Path::new(directory), &mut paths);
    }
    assert!(!paths.is_empty(), "no source in {directories:?}");
    paths.sort();
    paths
        .into_iter()
        .map(|path| Source {
            text: read(&path),
            path,
        })
        .collect()
}

fn collect(directory: &Path, into: &mut Vec<String>) {
    let entries = fs::read_dir(Path::new(ROOT).join(directory))
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let path = directory.join(entry.file_name());
        if entry.file_type().expect("a file's type").is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path.display().to_string());
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path))
        .unwrap_or_else(|error| panic!("{path} can't be read: {error}"))
}

fn assert_none(found: &[String], what: &str) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const COLUMNS: usize = 100;
const FILE_LINES: usize = 600;
const UNSAFE: [&str; 2] = ["src/ring/", "src/sys/"];
