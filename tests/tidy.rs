//! The repository's own rules. Each test lists everything that breaks its rule.

#[path = "tidy/lexer.rs"]
mod lexer;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use mahoraga::config;
use mahoraga::session::CloseReason;

/// A source file by its path from the repository's root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn at(path: String) -> Self {
        let text = read(&path);
        Self { path, text }
    }
}

#[test]
fn lines_fit_in_100_columns() {
    // A row of a table can't be broken.
    let is_row = |path: &str, line: &str| path.ends_with(".md") && line.starts_with('|');
    let wide = lines(&texts(), |path, line| {
        line.chars().count() > COLUMNS && !is_row(path, line)
    });
    assert_none(&wide, "wider than 100 columns");
}

#[test]
fn nothing_is_left_for_later() {
    // The word is cut in two, or this file would find itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("db", "g!"),
        concat!("to", "do!"),
    ];
    let left = lines(&texts(), |_, line| {
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

/// Some files run elsewhere what may wait for a file system: on threads of their own, or before
/// the control thread has a loop.
#[test]
fn the_control_thread_calls_nothing_that_waits() {
    let calls = [
        "fs::metadata(",
        ".metadata()",
        "open_regular(",
        "open_to_append(",
        "can_append_to(",
        "can_listen_at(",
        "listen_all(",
        "listen_path(",
        "listen_again(",
        ".is_at(",
        "SocketFile::claim(",
        "SocketTarget::of(",
        "thread::sleep(",
        "File::open(",
        "fs::read",
    ];
    let elsewhere = [
        "access_log.rs",
        "admin_listeners.rs",
        "audit.rs",
        "bans/file.rs",
        "remote/files.rs",
        "file_watch.rs",
        "health/tls.rs",
        "histograms.rs",
        "history/keeper.rs",
        "list_files/lines.rs",
        "listening.rs",
        "preflight.rs",
        "socket_paths.rs",
        "track_file.rs",
        "unix_sockets.rs",
    ];
    let mut sources = sources(&["src/control"]);
    sources.retain(|its| !its.path.ends_with("tests.rs"));
    let waits = lines(&sources, |path, line| {
        let is_call = |call: &str| line.contains(call) && !line.trim_start().starts_with("//");
        calls.iter().any(|call| is_call(call)) && !elsewhere.iter().any(|its| path.ends_with(its))
    });
    assert_none(
        &waits,
        "calls on the control thread that may wait for a file system",
    );
}

/// Other code has its times from [`mahoraga::time`].
#[test]
fn units_of_time_are_converted_in_one_place() {
    let conversions = [
        "1_000_000_000",
        "1000000000",
        "1e9",
        "from_nanos(",
        "as_nanos(",
        "const MS:",
        "const US:",
    ];
    let elsewhere = ["src/time.rs", "tests/tidy.rs"];
    let mut sources = sources(&["src", "tests", "benches"]);
    sources.retain(|its| !elsewhere.contains(&its.path.as_str()));
    let found = lines(&sources, |_, line| {
        conversions.iter().any(|its| line.contains(its))
    });
    assert_none(&found, "conversions of time outside of src/time.rs");
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

/// The first table explains the reasons. The second one maps them to HAProxy's codes, so that an
/// outdated name is found.
#[test]
fn the_document_of_the_access_log_has_every_close_reason() {
    let known = CloseReason::ALL.map(|reason| reason.as_str().to_owned());
    let (explained, codes) = close_reasons(&read("docs/access-log.md"));
    assert_eq!(explained, known, "the table of reasons, in its order");
    let compared: BTreeSet<_> = codes.into_iter().collect();
    assert_eq!(
        compared,
        BTreeSet::from(known),
        "the table of HAProxy's codes"
    );
}

/// Each example of the documents that is a configuration, or settings of its top, is marked so, and
/// can be pasted.
#[test]
fn examples_of_documents_are_valid() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in files(&["docs"], &["md"])
        .into_iter()
        .chain(["README.md".to_owned()])
    {
        let text = read(&path);
        // Odd ones are in fences.
        for fenced in text.split("\n```").skip(1).step_by(2) {
            let (mark, example) = fenced.split_once('\n').unwrap_or_default();
            let mut lines = example.lines().map(str::trim);
            let first = lines.find(|line| !line.is_empty() && !line.starts_with("//"));
            let first = first.unwrap_or_default();
            let is_settings = first == "(" || first.contains(": [(") || first.contains(": (");
            if mark != "ron" {
                if is_settings && mark.is_empty() && !first.starts_with("config.ron:") {
                    wrong.push(format!("{path}: `{first}` needs the mark `ron`"));
                }
                continue;
            }
            count += 1;
            let file = completed(example);
            if let Err(error) = config::parse(path.clone(), file.into()) {
                wrong.push(error.to_string());
            }
        }
    }
    assert!(
        count > 5,
        "the documents have another form than this test reads"
    );
    assert_none(&wrong, "examples that are no configuration");
}

/// A file of settings of its top: with a listener and a pool, where it has none.
fn completed(example: &str) -> String {
    if example.trim_start().starts_with('(') {
        return example.to_owned();
    }
    // The example may end with a comment.
    let mut file = format!("({example}\n");
    for (list, text) in [
        (
            "listeners: [",
            "listeners: [(bind: \"127.0.0.1:8080\", pool: \"web\")],",
        ),
        (
            "pools: [",
            "pools: [(name: \"web\", backends: [\"127.0.0.1:9001\"])],",
        ),
    ] {
        if !example.contains(list) {
            file += text;
        }
    }
    file + ")"
}

/// The reference and the JSON schema describe a setting by the table of its group.
#[test]
fn every_setting_is_documented() {
    let example = read("config.ron");
    let reference = config::reference(config::all_settings());
    let lines: Vec<_> = reference.lines().collect();
    let settings: Vec<_> = lines
        .chunks_exact(3)
        .map(|rows| (rows[0], rows[1].trim()))
        .collect();
    let name = |path: &'_ str| path.rsplit('.').next().map(str::to_owned);
    let names: BTreeSet<_> = settings.iter().filter_map(|(path, _)| name(path)).collect();
    assert!(
        names.len() > 50,
        "the reference has another form than this test reads"
    );
    let is_word = |span: &String| span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut wrong = Vec::new();
    for (path, sentence) in settings {
        if !sentence.ends_with(['.', ')']) {
            wrong.push(format!("{path} has no sentence: `{sentence}`"));
        }
        let unknown = code_spans(sentence)
            .into_iter()
            .filter(is_word)
            .filter(|span| !names.contains(span));
        wrong.extend(unknown.map(|span| format!("{path} names `{span}`, which is no setting")));
        if !name(path).is_some_and(|name| lexer::has_word(&example, &name)) {
            wrong.push(format!("{path} is not in config.ron"));
        }
    }
    assert_none(&wrong, "settings that are not documented");
}

/// Two types of one name make a reader ask which is meant. The types of [`TWICE`] wait for a better
/// name: the list only shrinks.
#[test]
fn public_types_have_names_of_their_own() {
    let mut homes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources(&["src"]) {
        for name in lexer::public_types(&lexer::code(&source.text)) {
            homes.entry(name).or_default().insert(source.path.clone());
        }
    }
    let twice = homes.iter().filter(|(_, paths)| paths.len() > 1);
    let twice: BTreeSet<&str> = twice.map(|(name, _)| name.as_str()).collect();
    let known = BTreeSet::from(TWICE);
    let more = twice.difference(&known);
    let more: Vec<_> = more
        .map(|name| format!("{name}: {:?}", homes[*name]))
        .collect();
    assert_none(&more, "public types with one name");
    let fewer: Vec<_> = known.difference(&twice).map(|&name| name.into()).collect();
    assert_none(&fewer, "in TWICE, but declared once: remove from it");
}

/// Within a room the types that several of its files see have names of their own too.
#[test]
fn types_of_a_room_have_names_of_their_own() {
    let mut homes: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    let mut sources = sources(&["src"]);
    sources.retain(|source| !source.path.contains("tests"));
    for source in sources {
        let room = source.path.split('/').nth(1).unwrap_or_default().to_owned();
        for name in lexer::shared_types(&lexer::code(&source.text)) {
            let home = homes.entry((room.clone(), name)).or_default();
            home.insert(source.path.clone());
        }
    }
    let twice = homes.iter().filter(|(_, paths)| paths.len() > 1);
    let twice = twice.map(|((_, name), paths)| format!("{name}: {paths:?}"));
    assert_none(
        &twice.collect::<Vec<_>>(),
        "types of one room with one name",
    );
}

/// `area: verb object`, at most 72 characters, for every commit since this rule. Skipped where git
/// or the history is missing, as in an archive of the source or a shallow clone.
#[test]
fn commit_subjects_name_area_and_change() {
    let Some(log) = commits_since(LAST_COMMIT_WITHOUT_RULE, "%s") else {
        return;
    };
    let is_right = |subject: &&str| {
        let area = subject.split_once(": ").map_or("", |(area, _)| area);
        let in_area =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/.,+-".contains(c);
        subject.chars().count() <= SUBJECT && !area.is_empty() && area.chars().all(in_area)
    };
    let wrong: Vec<_> = log.lines().filter(|line| !is_right(line)).collect();
    let wrong: Vec<_> = wrong.into_iter().map(str::to_owned).collect();
    assert_none(&wrong, "not `area: verb object` in 72 characters");
}

/// A reader of the history asks why, and the subject says what.
#[test]
fn commits_say_why() {
    let Some(log) = commits_since(LAST_COMMIT_WITHOUT_BODY, "%x1e%s%x1f%b") else {
        return;
    };
    let commits = log
        .split('\u{1e}')
        .filter_map(|one| one.split_once('\u{1f}'));
    let silent = commits.filter(|(_, body)| body.trim().is_empty());
    let silent: Vec<_> = silent.map(|(subject, _)| subject.to_owned()).collect();
    assert_none(&silent, "a commit without a reason in its body");
}

/// `None` where the history is missing, as in an archive of the source or a shallow clone.
fn commits_since(last: &str, format: &str) -> Option<String> {
    let log = Command::new("git")
        .args(["log", "--no-merges", &format!("--format={format}")])
        .arg(format!("{last}..HEAD"))
        .current_dir(ROOT)
        .output()
        .ok()
        .filter(|log| log.status.success());
    let Some(log) = log else {
        println!("SKIPPED: there is no git history since {last}");
        return None;
    };
    Some(String::from_utf8_lossy(&log.stdout).into_owned())
}

/// cargo-deny checks the same, where it is installed.
#[test]
fn dependencies_are_not_below_their_floors() {
    let (denied, lock) = (read("deny.toml"), read("Cargo.lock"));
    let numbers = |version: &str| -> Vec<u64> {
        let parts = version.split(['.', '-', '+']);
        parts.map_while(|part| part.parse().ok()).collect()
    };
    let floors: Vec<_> = denied
        .lines()
        .filter_map(|line| line.split_once("crate = \"")?.1.split_once("@<"))
        .filter_map(|(name, rest)| Some((name, rest.split_once('"')?.0)))
        .collect();
    assert!(floors.len() > 5, "deny.toml has another shape: {floors:?}");
    let locked = |name: &str| {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let found = lock
            .split(&entry)
            .skip(1)
            .map(|rest| rest.split('"').next());
        found.flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let below = floors.iter().flat_map(|(name, floor)| {
        let found = locked(name).into_iter();
        let found = found.filter(|version| numbers(version) < numbers(floor));
        found.map(move |version| format!("{name} {version}, below {floor}"))
    });
    let below: Vec<_> = below.collect();
    assert_none(&below, "dependencies below their version floors");
    let gone = floors.iter().filter(|(name, _)| locked(name).is_empty());
    let gone: Vec<_> = gone.map(|(name, _)| (*name).to_owned()).collect();
    assert_none(&gone, "version floors of crates that are not used");
}

/// The tests of the program leave an empty file for each figure of `/metrics`, and for each number
/// of a worker, that was not 0 when they looked or ended. Run this after them, as `.ci/run` does:
/// `cargo test --test tidy -- --ignored`.
#[test]
#[ignore = "needs what the tests of tests/proxy leave"]
fn every_figure_is_moved_by_a_test() {
    let moved = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moved");
    let page = read("docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("- `"));
    let figures: Vec<_> = rows
        .filter_map(|row| row.split('`').next())
        .filter(|name| name.starts_with("mahoraga_"))
        .collect();
    assert!(figures.len() > 80, "the page has another form: {figures:?}");
    // SIGUSR1 shows numbers of workers where no client asks.
    let of_worker = |figure: &str| {
        let name = figure.strip_prefix("mahoraga_worker_")?;
        Some(name.strip_suffix("_total").unwrap_or(name).to_owned())
    };
    let still: Vec<_> = figures
        .into_iter()
        .filter(|name| !of_worker(name).is_some_and(|name| moved.join(name).exists()))
        .map(str::to_owned)
        .chain(CloseReason::ALL.map(|reason| format!("closed.{}", reason.as_str())))
        .filter(|name| !ELSEWHERE.contains(&name.as_str()))
        .filter(|name| !moved.join(name).exists())
        .collect();
    assert_none(&still, "shown, but 0 in every test of tests/proxy");
}

/// The names in the first column of the table of close reasons, and those in the second column of
/// the table of HAProxy's codes.
fn close_reasons(document: &str) -> (Vec<String>, Vec<String>) {
    let (mut explained, mut compared) = (Vec::new(), Vec::new());
    let mut heading = "";
    for line in document.lines() {
        if line.starts_with("## ") {
            heading = line;
        }
        let mut cells = line.split('|').skip(1);
        if heading == "## Reasons" {
            explained.extend(cells.next().into_iter().flat_map(code_spans));
        } else if heading.contains("HAProxy") {
            compared.extend(cells.nth(1).into_iter().flat_map(code_spans));
        }
    }
    explained.retain(|name| name != "reason");
    (explained, compared)
}

/// The text between backticks. A name in prose may be just a word, and one in a block of code just
/// a sample.
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

/// The lines that match a condition, by file and number.
fn lines(sources: &[Source], is_found: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (number, line) in (1..).zip(source.text.lines()) {
            if is_found(&source.path, line) {
                found.push(format!("{}:{number}", source.path));
            }
        }
    }
    found
}

/// All text that people write and read: code, scripts, documents, the example.
fn texts() -> Vec<Source> {
    let directories = ["src", "tests", "benches", "docs", "loadtest", "scripts"];
    let mut paths = files(&directories, &["rs", "md", "ron", "sh", "py", "service"]);
    paths.extend(ROOT_FILES.map(str::to_owned));
    paths.into_iter().map(Source::at).collect()
}

fn sources(directories: &[&str]) -> Vec<Source> {
    let paths = files(directories, &["rs"]);
    paths.into_iter().map(Source::at).collect()
}

/// The files in some directories whose names have one of these extensions.
fn files(directories: &[&str], extensions: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    for directory in directories {
        collect(Path::new(directory), extensions, &mut paths);
    }
    assert!(!paths.is_empty(), "no file in {directories:?}");
    paths.sort();
    paths
}

fn collect(directory: &Path, extensions: &[&str], into: &mut Vec<String>) {
    let entries = fs::read_dir(Path::new(ROOT).join(directory))
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let path = directory.join(entry.file_name());
        let extension = path.extension().and_then(OsStr::to_str);
        if entry.file_type().expect("a file's type").is_dir() {
            collect(&path, extensions, into);
        } else if extension.is_some_and(|extension| extensions.contains(&extension)) {
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
const ROOT_FILES: [&str; 5] = [
    ".ci/run",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "config.ron",
];
const COLUMNS: usize = 100;
const FILE_LINES: usize = 600;
const UNSAFE: [&str; 2] = ["src/ring/", "src/sys/"];
/// The last commit whose subject had another form.
const LAST_COMMIT_WITHOUT_RULE: &str = "b32e3fc";
/// The last commit that needed no body.
const LAST_COMMIT_WITHOUT_BODY: &str = "23bf394";
const SUBJECT: usize = 72;
/// Figures that the real program shows too late or for moments only, or that need a machine too
/// busy, thousands of clients, tries for seconds, or a fault which a test cannot cause. Tests of
/// their rooms move most of them.
const ELSEWHERE: [&str; 12] = [
    "mahoraga_backend_streamed_seconds_total",
    "mahoraga_history_dropped_total",
    "mahoraga_peer_refused_total",
    "mahoraga_peer_resyncs_total",
    "mahoraga_sources_overflowed_total",
    "mahoraga_webhook_failures_total",
    "mahoraga_worker_arriving",
    "mahoraga_worker_listeners_lost_total",
    "mahoraga_worker_pipes",
    "closed.no_resources",
    "closed.session_timeout",
    "closed.shutdown",
];
const TWICE: [&str; 2] = ["Backend", "Pool"];
