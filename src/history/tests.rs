//! Stores in memory and in files, with what happens to files.

mod asked;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use super::*;

const KEEP: Keep = Keep {
    seconds: 900,
    minutes: 172_800,
    hours: 400 * 86_400,
    bytes: 64 << 20,
};
/// The beginning of an hour.
const BEGIN: u64 = 1_800_000_000;

fn figure(name: &str, kind: Kind) -> FigureOf {
    FigureOf {
        of: Of::Backend,
        name: name.to_owned(),
        kind,
        unit: None,
        is_part: false,
    }
}

fn backend(name: &str) -> Subject {
    Subject {
        of: Of::Backend,
        pool: "web".to_owned(),
        name: name.to_owned(),
    }
}

/// A backend opened so many connections, has as many now, and answered each within `step`.
fn batch(name: &str, count: u64, step: u16) -> Batch {
    let points = vec![
        (figure("opened", Kind::Counter), Point::Counter(count)),
        (figure("connections", Kind::Gauge), Point::gauge(count)),
        (
            figure("connect", Kind::Histogram),
            Point::Times([(step, count)].into()),
        ),
    ];
    vec![(backend(name), points)]
}

fn memory() -> Store {
    Store::in_memory(KEEP).unwrap()
}

/// What all stores together answer, the first one first.
fn ask(stores: &[&Store], query: &HistoryQuery, now: u64) -> Result<HistoryAnswer, AskError> {
    let now = UNIX_EPOCH + Duration::from_secs(now);
    let spans: Vec<_> = stores.iter().map(|store| store.span().unwrap()).collect();
    let mut asked = Asked::new(Question::new(query, now)?, &spans)?;
    let mut from = 0;
    for store in stores {
        let until = store.last().map_or(from, |last| last + 1);
        asked.take(store, from, until)?;
        from = until.max(from);
    }
    Ok(asked.history())
}

fn since(since: u64, step: &str) -> HistoryQuery {
    HistoryQuery {
        since: Some(since.to_string()),
        step: Some(step.to_owned()),
        ..HistoryQuery::default()
    }
}

/// The increase of a counter in each interval.
fn sums(history: &HistoryAnswer, figure: &str) -> Vec<Option<u64>> {
    let Some(FigureHistory::Counter { sum, .. }) = history.subjects[0].figures.get(figure) else {
        panic!("no counter {figure}: {history:?}");
    };
    let whole = |value: &Measured| match value {
        Measured::Whole(whole) => *whole,
        Measured::Part(part) => panic!("{part}"),
    };
    sum.iter().map(|value| value.as_ref().map(whole)).collect()
}

fn total(store: &Store, from: u64, now: u64) -> u64 {
    let history = ask(&[store], &since(from, "1d"), now).unwrap();
    sums(&history, "opened").into_iter().flatten().sum()
}

#[test]
fn seconds_become_minutes_and_hours_and_nothing_is_lost() {
    let mut store = memory();
    // Three hours and some minutes, a sample each 10 s.
    let count = 3 * 360 + 50;
    for nth in 0..count {
        store
            .write(BEGIN + nth * 10, &batch("a", 2, 5), &[])
            .unwrap();
    }
    let now = BEGIN + count * 10;
    assert_eq!(total(&store, BEGIN, now), 2 * count);
    let history = ask(&[&store], &since(BEGIN, "1h"), now).unwrap();
    assert_eq!((history.since, history.step), (BEGIN, 3_600));
    assert_eq!(
        sums(&history, "opened"),
        [Some(720), Some(720), Some(720), Some(100)]
    );
    let figures = &history.subjects[0].figures;
    let Some(FigureHistory::Gauge { mean, max, .. }) = figures.get("connections") else {
        panic!("{figures:?}");
    };
    assert_eq!((mean[0], max[0]), (Some(2.0), Some(Measured::Whole(2))));
    let Some(FigureHistory::Histogram { count, p99, .. }) = figures.get("connect") else {
        panic!("{figures:?}");
    };
    assert_eq!((count[2], p99[2]), (Some(720), Some(5.0 / 1e6)));
    // Seconds are gone by now, so that intervals of the first hour are minutes at least.
    let old = ask(&[&store], &since(BEGIN, "10s"), now).unwrap();
    assert_eq!((old.step, sums(&old, "opened")[0]), (60, Some(12)));
    let young = ask(&[&store], &since(now - 300, "10s"), now).unwrap();
    assert_eq!(young.step, 10);
    assert!(
        sums(&young, "opened")[..29]
            .iter()
            .all(|sum| *sum == Some(2))
    );
}

#[test]
fn a_store_that_copies_another_one_has_the_same() {
    let (mut from, mut to) = (memory(), memory());
    // The other one has numbers of its own.
    to.write(BEGIN - 7_200, &batch("z", 1, 1), &[]).unwrap();
    let mut copied = (Some(BEGIN - 1), 0);
    for nth in 0..200 {
        let name = if nth % 2 == 0 { "a" } else { "b" };
        let event = PastEvent {
            at_ms: (BEGIN + nth) * 1_000,
            kind: format!("k{nth}"),
            ..PastEvent::default()
        };
        from.write(BEGIN + nth, &batch(name, nth, 3), &[event])
            .unwrap();
        if nth % 7 == 0 {
            let rows = from.rows_after(copied, 9_000, false).unwrap();
            to.add(&rows).unwrap();
            copied = (rows.last, rows.last_event);
        }
    }
    while let rows @ NewRows { .. } = from.rows_after(copied, 9_000, true).unwrap()
        && !rows.is_empty()
    {
        to.add(&rows).unwrap();
        copied = (rows.last, rows.last_event);
    }
    let asked = since(BEGIN, "1s");
    let now = BEGIN + 200;
    let [own, other] = [&from, &to].map(|store| ask(&[store], &asked, now).unwrap());
    assert_eq!(own, other);
    let all = EventQuestion::new(&HistoryEventQuery::default(), at(now)).unwrap();
    assert_eq!(from.events(&all).unwrap(), to.events(&all).unwrap());
    assert_eq!(to.events(&all).unwrap()[0].kind, "k199");
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn a_copy_after_a_long_failure_has_minutes_in_place_of_seconds() {
    let keep = Keep {
        seconds: 120,
        ..KEEP
    };
    let (mut from, mut to) = (Store::in_memory(keep).unwrap(), memory());
    let mut copied = (Some(BEGIN - 1), 0);
    for nth in 0..1_200 {
        from.write(BEGIN + nth, &batch("a", 1, 3), &[]).unwrap();
        if nth == 89 {
            let rows = from.rows_after(copied, 1 << 20, true).unwrap();
            to.add(&rows).unwrap();
            copied = (rows.last, rows.last_event);
        }
    }
    for _ in 0..3 {
        let rows = from.rows_after(copied, 1 << 20, true).unwrap();
        to.add(&rows).unwrap();
        copied = (rows.last, rows.last_event);
    }
    assert_eq!(total(&to, BEGIN, BEGIN + 1_200), 1_200);
    let history = ask(&[&to], &since(BEGIN, "1m"), BEGIN + 1_199).unwrap();
    assert_eq!(sums(&history, "opened"), [Some(60); 20]);
}

#[test]
fn a_file_and_memory_together_count_nothing_twice() {
    let (mut past, mut present) = (memory(), memory());
    for nth in 0..400 {
        if nth < 250 {
            past.write(BEGIN + nth, &batch("a", 1, 3), &[]).unwrap();
        }
        if nth >= 130 {
            present.write(BEGIN + nth, &batch("a", 1, 3), &[]).unwrap();
        }
    }
    for step in ["1s", "10s", "1m", "1h"] {
        let history = ask(&[&past, &present], &since(BEGIN, step), BEGIN + 400).unwrap();
        let sum: u64 = sums(&history, "opened").into_iter().flatten().sum();
        assert_eq!(sum, 400, "{step}");
    }
}

#[test]
fn a_clock_that_is_set_back_harms_nothing() {
    let mut store = memory();
    for nth in (0..300).chain(100..200) {
        store.write(BEGIN + nth, &batch("a", 1, 3), &[]).unwrap();
    }
    assert_eq!(total(&store, BEGIN, BEGIN + 300), 400);
    store.forget_after(BEGIN + 150).unwrap();
    assert_eq!(store.last(), Some(BEGIN + 150));
    store.write(BEGIN + 151, &batch("a", 1, 3), &[]).unwrap();
    assert!(total(&store, BEGIN, BEGIN + 300) > 150);
}

#[test]
fn the_bound_in_bytes_holds_and_the_oldest_goes_first() {
    let keep = Keep {
        bytes: 512 << 10,
        ..KEEP
    };
    let mut store = Store::in_memory(keep).unwrap();
    for nth in 0..500 {
        let many = (0..40).flat_map(|of| batch(&format!("b{of}"), 1_000 + nth, 400));
        let many = many.collect();
        // Each minute has one second.
        let at = BEGIN + 60 * nth;
        if let Err(error) = store.write(at, &many, &[]) {
            assert!(matches!(error, StoreError::Bound), "{error}");
            store.write(at, &many, &[]).unwrap();
        }
        assert!(store.bytes().unwrap() <= keep.bytes, "{nth}");
    }
    assert_eq!(store.last(), Some(BEGIN + 60 * 499));
    assert!(store.oldest(Resolution::Minutes).unwrap() > Some(BEGIN));
    let hours = store.oldest(Resolution::Hours).unwrap();
    assert!(
        hours.is_some_and(|first| first < BEGIN + 4 * 3_600),
        "{hours:?}"
    );
}

#[test]
fn questions_that_ask_for_too_much_are_refused() {
    let now = at(BEGIN);
    let refused = |query: &HistoryQuery| match Question::new(query, now) {
        Err(error) => error.to_string(),
        Ok(question) => Asked::new(question, &[]).unwrap_err().to_string(),
    };
    let query = HistoryQuery::default;
    let wrong = [
        (
            HistoryQuery {
                since: Some("soon".to_owned()),
                ..query()
            },
            "invalid since `soon`: expected how long ago, such as 1h, a time such as \
             2026-01-31T12:00:00Z, a date, or seconds since 1970",
        ),
        (
            HistoryQuery {
                until: Some("2h".to_owned()),
                since: Some("1h".to_owned()),
                ..query()
            },
            "invalid since: expected a time before `until`, and before now",
        ),
        (
            HistoryQuery {
                of: Some("process,pol".to_owned()),
                ..query()
            },
            "invalid of `pol`: expected some of process, listener, pool and backend",
        ),
        (
            HistoryQuery {
                step: Some("0s".to_owned()),
                ..query()
            },
            "invalid step `0s`: expected 1s to 400d, such as 1m",
        ),
        (
            HistoryQuery {
                step: Some("1s".to_owned()),
                ..query()
            },
            "invalid step: expected 1500 intervals at most: a step of 3s or more, or a later \
             `since`",
        ),
    ];
    for (query, why) in wrong {
        assert_eq!(refused(&query), why);
    }
}

#[test]
fn a_question_names_what_it_is_about() {
    let all = [
        (Of::Process, "", ""),
        (Of::Listener, "", "front"),
        (Of::Pool, "web", ""),
        (Of::Backend, "web", "a"),
        (Of::Backend, "api", "a"),
    ];
    let matching = |query: HistoryQuery| {
        let question = Question::new(&query, at(BEGIN)).unwrap();
        let all = all.iter().enumerate().filter(|(_, (of, pool, name))| {
            let (pool, name) = ((*pool).to_owned(), (*name).to_owned());
            question.matches(&Subject {
                of: *of,
                pool,
                name,
            })
        });
        all.map(|(nth, _)| nth).collect::<Vec<_>>()
    };
    let named = |pool: &str, backend: &str, listener: &str, of: &str| {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        matching(HistoryQuery {
            pool: given(pool),
            backend: given(backend),
            listener: given(listener),
            of: given(of),
            ..HistoryQuery::default()
        })
    };
    assert_eq!(named("", "", "", ""), [0, 1, 2, 3, 4]);
    assert_eq!(named("web", "", "", ""), [2, 3]);
    assert_eq!(named("", "a", "", ""), [3, 4]);
    assert_eq!(named("web", "a", "", ""), [3]);
    assert_eq!(named("", "", "front", ""), [1]);
    assert_eq!(named("web", "", "front", ""), [1, 2, 3]);
    assert_eq!(named("", "", "", "process, pool"), [0, 2]);
}

/// A directory that is removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        let name = format!(
            "mahoraga-history-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        );
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("history.db")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open_new(path: &Path) -> Store {
    let Opened { store, set_aside } = open(path, KEEP).unwrap();
    assert_eq!(set_aside, None);
    store
}

#[test]
fn a_file_goes_on_where_it_was_left_and_is_of_its_user_alone() {
    let dir = Temporary::new();
    let mut store = open_new(&dir.file());
    store.write(BEGIN + 30, &batch("a", 3, 3), &[]).unwrap();
    for file in fs::read_dir(&dir.0).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
    // This process reads it meanwhile, another one can't.
    assert_eq!(
        total(&open_beside(&dir.file()).unwrap(), BEGIN, BEGIN + 90),
        3
    );
    drop(store);
    fs::set_permissions(dir.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let mut store = open_new(&dir.file());
    let mode = fs::metadata(dir.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.write(BEGIN + 61, &batch("a", 4, 3), &[]).unwrap();
    let minutes = ask(&[&store], &since(BEGIN, "1m"), BEGIN + 90).unwrap();
    assert_eq!(sums(&minutes, "opened"), [Some(3), Some(4)]);
    drop(store);
    assert_eq!(
        total(&open_to_read(&dir.file()).unwrap(), BEGIN, BEGIN + 90),
        7
    );
}

#[test]
fn links_and_files_of_others_are_refused() {
    let dir = Temporary::new();
    let real = dir.0.join("real");
    drop(open_new(&real));
    symlink(&real, dir.file()).unwrap();
    let why = open(&dir.file(), KEEP).unwrap_err().to_string();
    assert_eq!(
        why,
        "this is a symbolic link: name the file that it leads to"
    );
    // A link to the directory is its operator's business.
    let linked = dir.0.join("linked");
    symlink(&dir.0, &linked).unwrap();
    drop(open_new(&linked.join("real")));
    let other = dir.0.join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection
        .execute_batch("CREATE TABLE precious (x)")
        .unwrap();
    drop(connection);
    let before = fs::read(&other).unwrap();
    assert!(matches!(
        open(&other, KEEP).unwrap_err(),
        StoreError::Foreign
    ));
    assert_eq!(fs::read(&other).unwrap(), before);
    let connection = rusqlite::Connection::open(&real).unwrap();
    connection.execute_batch("PRAGMA user_version = 9").unwrap();
    drop(connection);
    assert!(matches!(open(&real, KEEP).unwrap_err(), StoreError::Later));
    let missing = open(&dir.0.join("missing/history.db"), KEEP).unwrap_err();
    assert!(matches!(missing, StoreError::Io(_)), "{missing}");
}

#[test]
fn a_file_that_another_process_uses_is_left_alone() {
    let dir = Temporary::new();
    drop(open_new(&dir.file()));
    // The locks of another process: those of this one would be its own.
    let mut other = Command::new(env::current_exe().unwrap());
    let other = other.args(["--exact", "--ignored", "--nocapture", CHILD]);
    let mut other = other
        .env(CHILD_FILE, dir.file())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().contains(WROTE) {}
    assert!(matches!(
        open(&dir.file(), KEEP).unwrap_err(),
        StoreError::Busy
    ));
    let read = open_to_read(&dir.file()).unwrap_err();
    assert!(matches!(read, StoreError::Busy), "{read}");
    other.kill().unwrap();
    other.wait().unwrap();
    drop(open_new(&dir.file()));
}

#[test]
fn a_process_that_is_killed_loses_no_batch_that_it_wrote() {
    let dir = Temporary::new();
    let mut child = Command::new(env::current_exe().unwrap());
    let child = child.args(["--exact", "--ignored", "--nocapture", CHILD]);
    let mut child = child
        .env(CHILD_FILE, dir.file())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut written = 0;
    for line in lines {
        let line = line.unwrap();
        let Some((_, number)) = line.split_once(WROTE) else {
            continue;
        };
        written = number.parse().unwrap();
        if written == 150 {
            // It is writing the next ones.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(written >= 150);
    let read = total(
        &open_to_read(&dir.file()).unwrap(),
        BEGIN,
        BEGIN + 1_000_000,
    );
    assert!(
        (written..=written + 1).contains(&read),
        "{read} of {written}"
    );
    let store = open_new(&dir.file());
    assert_eq!(total(&store, BEGIN, BEGIN + 1_000_000), read);
}

/// Writes until it is killed: what the child of the tests before does.
#[test]
#[ignore = "it is run by other tests"]
fn writes_until_it_is_killed() {
    let Some(file) = env::var_os(CHILD_FILE) else {
        return;
    };
    let mut store = open_new(Path::new(&file));
    for nth in 0..100_000 {
        store.write(BEGIN + nth, &batch("a", 1, 3), &[]).unwrap();
        println!("{WROTE}{}", nth + 1);
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_next_batch_finds_room() {
    let dir = Temporary::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&dir.0)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: only root may mount a small disk");
        return;
    }
    let mut store = open_new(&dir.file());
    fs::write(dir.0.join("filler"), vec![0; 700 << 10]).unwrap();
    let mut written = 0;
    let mut write = |store: &mut Store, nth: u64| {
        let many = (0..20)
            .flat_map(|of| batch(&format!("b{of}"), 1, 3))
            .collect();
        store
            .write(BEGIN + nth, &many, &[])
            .inspect(|()| written += 20)
    };
    let full = (0..2_000).find_map(|nth| write(&mut store, nth).err().map(|error| (nth, error)));
    let (nth, error) = full.unwrap();
    assert!(matches!(error, StoreError::Full), "{error}");
    assert!(matches!(
        write(&mut store, nth).unwrap_err(),
        StoreError::Full
    ));
    fs::remove_file(dir.0.join("filler")).unwrap();
    write(&mut store, nth).unwrap();
    let read = ask(&[&store], &since(BEGIN, "1d"), BEGIN + 3_000).unwrap();
    let sum: u64 = read.subjects.len() as u64 * sums(&read, "opened")[0].unwrap();
    assert_eq!(sum, written);
    drop(store);
    let unmounted = Command::new("umount").arg(&dir.0).status().unwrap();
    assert!(unmounted.success());
}

mod harm;

/// The test that is the child of others.
const CHILD: &str = "history::tests::writes_until_it_is_killed";
const CHILD_FILE: &str = "MAHORAGA_TEST_HISTORY";
/// What the child says after each batch, before its number.
const WROTE: &str = "wrote ";
