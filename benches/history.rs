//! The history of 50 backends: what a sample of all figures costs, how large 30 days are, and how
//! long a question about 24 hours takes (200 ms at most are promised).

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use divan::{Bencher, black_box};
use fastrand::Rng;
use mahoraga::history::{
    Asked, Batch, FigureOf, HistoryQuery, Keep, Of, Point, Question, Store, Subject, open,
    open_beside,
};
use mahoraga::metric::Kind;

fn main() {
    let path = path();
    let made = build();
    println!("30 days of {BACKENDS} backends: {} MiB", made >> 20);
    assert!(made < BOUND, "30 days must fit into {} MiB", BOUND >> 20);
    divan::main();
    let _ = fs::remove_dir_all(path.parent().expect("a file in a directory"));
}

/// What a busy interval of so many seconds gives: each subject has about the figures that it really
/// has.
fn batch(chance: &mut Rng, seconds: u64) -> Batch {
    let subject = |of, pool: &str, name: String| Subject {
        of,
        pool: pool.to_owned(),
        name,
    };
    let mut all = vec![(subject(Of::Process, "", String::new()), 25, 25)];
    all.extend((0..3).map(|nth| (subject(Of::Listener, "", format!("l{nth}")), 3, 6)));
    all.extend((0..5).map(|nth| (subject(Of::Pool, &format!("p{nth}"), String::new()), 6, 2)));
    all.extend((0..BACKENDS).map(|nth| {
        let (pool, name) = (format!("p{}", nth % 5), format!("backend-{nth}"));
        (subject(Of::Backend, &pool, name), 8, 8)
    }));
    let figure = |of, nth: u32, kind| FigureOf {
        of,
        name: format!("figure_{nth}"),
        kind,
        unit: None,
        is_part: false,
    };
    let points = all.into_iter().map(|(subject, gauges, counters)| {
        let of = subject.of;
        let gauges = (0..gauges).map(|nth| {
            // Most gauges are limits, weights and the like, which stay.
            let varies = nth % 3 == 0;
            let max = if varies { chance.u64(1..2_000) } else { 100 };
            let sum = if varies {
                chance.u64(..max * seconds)
            } else {
                max * seconds
            };
            let point = Point::Gauge {
                count: seconds,
                sum,
                max,
            };
            (figure(of, nth, Kind::Gauge), point)
        });
        let mut points: Vec<_> = gauges.collect();
        points.extend((100..100 + counters).map(|nth| {
            // Bytes, connections, and what seldom happens.
            let value = match nth % 4 {
                0 => chance.u64(..2_000_000 * seconds),
                1 => chance.u64(..300 * seconds),
                _ => 0,
            };
            (figure(of, nth, Kind::Counter), Point::Counter(value))
        }));
        if of == Of::Process {
            points.extend((200..203).map(|nth| {
                let count = if seconds == 1 { 40 } else { 400 };
                let steps = (0..count).map(|_| (chance.u16(100..260), chance.u64(..50 * seconds)));
                (
                    figure(of, nth, Kind::Histogram),
                    Point::Times(steps.collect()),
                )
            }));
        }
        (subject, points)
    });
    points.collect()
}

/// Makes the file once: hours and minutes as 30 days leave them, and seconds of the end.
fn build() -> u64 {
    let path = path();
    fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
    let mut store = open(&path, KEEP).expect("a new file").store;
    let mut chance = Rng::with_seed(1);
    // A sample stands for all that it is summed up to, and is as large as that.
    let hours = (0..28 * 24).map(|hour| (hour * 3_600, 3_600));
    let minutes = (0..48 * 60 - 15).map(|minute| (28 * 86_400 + minute * 60, 60));
    let seconds = (0..900).map(|second| (DAYS - 900 + second, 1));
    for (at, length) in hours.chain(minutes).chain(seconds) {
        let batch = batch(&mut chance, length);
        store.write(BEGIN + at, &batch, &[]).expect("room");
    }
    store.bytes().expect("a readable file")
}

#[divan::bench]
fn a_sample_of_all_figures(bencher: Bencher<'_, '_>) {
    let mut store = Store::in_memory(KEEP).expect("memory");
    let mut chance = Rng::with_seed(2);
    let mut at = BEGIN;
    bencher
        .with_inputs(|| batch(&mut chance, 1))
        .bench_local_values(|batch| {
            at += 1;
            store.write(at, &batch, &[])
        });
}

/// All figures of a backend, in 288 intervals.
#[divan::bench]
fn a_backend_over_24_hours() -> Vec<u8> {
    ask(&HistoryQuery {
        since: Some("24h".to_owned()),
        backend: Some("backend-7".to_owned()),
        ..HistoryQuery::default()
    })
}

/// A figure of each backend, in 288 intervals.
#[divan::bench]
fn a_figure_of_all_backends_over_24_hours() -> Vec<u8> {
    ask(&HistoryQuery {
        since: Some("24h".to_owned()),
        of: Some("backend".to_owned()),
        figures: Some("figure_0".to_owned()),
        ..HistoryQuery::default()
    })
}

/// All figures of everything: near the most that an answer may have.
#[divan::bench]
fn all_figures_over_24_hours() -> Vec<u8> {
    ask(&HistoryQuery {
        since: Some("24h".to_owned()),
        ..HistoryQuery::default()
    })
}

#[divan::bench]
fn the_process_over_30_days() -> Vec<u8> {
    ask(&HistoryQuery {
        since: Some("30d".to_owned()),
        of: Some("process".to_owned()),
        ..HistoryQuery::default()
    })
}

/// As the API does: the file is opened for each question, and the answer is JSON.
fn ask(query: &HistoryQuery) -> Vec<u8> {
    let store = open_beside(&path()).expect("the file");
    let now = UNIX_EPOCH + Duration::from_secs(BEGIN + DAYS);
    let question = Question::new(black_box(query), now).expect("a right question");
    let span = store.span().expect("a readable file");
    let mut asked = Asked::new(question, &[span]).expect("a right question");
    asked.take(&store, 0, u64::MAX).expect("an answer");
    serde_json::to_vec(&asked.history()).expect("text for keys alone")
}

fn path() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        let name = format!("mahoraga-bench-{}", std::process::id());
        std::env::temp_dir().join(name).join("history.db")
    });
    PATH.clone()
}

const BACKENDS: usize = 50;
const DAYS: u64 = 30 * 86_400;
/// The beginning of a day.
const BEGIN: u64 = 1_800_057_600;
const BOUND: u64 = 256 << 20;
const KEEP: Keep = Keep {
    seconds: 900,
    minutes: 172_800,
    hours: 400 * 86_400,
    bytes: BOUND,
};
