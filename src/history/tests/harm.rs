//! What a damaged file, a wrong clock and a greedy question may not do.

use rusqlite::{Connection, params};

use super::*;

const DAY: u64 = 86_400;

/// A store that has these rows: a table, a time and a sample.
fn planted(rows: &[(&str, u64, &[u8])]) -> Result<Store, StoreError> {
    let connection = Connection::open_in_memory().unwrap();
    Store::make(&connection).unwrap();
    connection
        .execute_batch(
            "INSERT INTO figures VALUES (1, 3, 'opened', 1, 0, 0), (2, 3, 'connections', 0, 0, 0),
                 (3, 3, 'connect', 2, 2, 0);
             INSERT INTO subjects VALUES (1, 3, 'web', 'a', 1);
             INSERT INTO events VALUES (1, 9223372036854775807, 'x', NULL, NULL, '')",
        )
        .unwrap();
    for (table, at, sample) in rows {
        let sql = format!("INSERT INTO {table} VALUES (?, 1, ?)");
        let at = i64::try_from(*at).unwrap();
        connection.execute(&sql, params![at, sample]).unwrap();
    }
    Store::on(connection, KEEP)
}

fn opened(count: u64) -> Vec<u8> {
    let mut sample = SubjectSample::default();
    sample.put(1, Point::Counter(count));
    sample.to_bytes()
}

#[test]
fn a_time_beyond_all_years_is_damage() {
    for table in ["seconds", "minutes", "hours"] {
        for at in [1 << 61, i64::MAX as u64, 253_402_300_800] {
            let error = planted(&[(table, at, &opened(1))]).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
        }
    }
    // The last one that there is.
    let mut store = planted(&[("seconds", 253_402_300_799, &opened(1))]).unwrap();
    store.write(BEGIN, &batch("a", 1, 3), &[]).unwrap();
    store.write(BEGIN + 60, &batch("a", 1, 3), &[]).unwrap();
}

#[test]
fn no_sample_of_a_file_makes_an_answer_panic() {
    let mut chance = fastrand::Rng::with_seed(7);
    for seed in 0..100 {
        let mut samples = Vec::new();
        for _ in 0..20 {
            let mut number = || (1 << 63) >> chance.u32(0..64);
            let mut sample = SubjectSample::default();
            sample.put(1, Point::Counter(number()));
            let (count, sum, max) = (number(), number(), number());
            sample.put(2, Point::Gauge { count, sum, max });
            let steps = [
                (0, number()),
                (463, number()),
                (464, number()),
                (9, 1 << 63),
            ];
            sample.put(3, Point::Times(steps.into()));
            let mut bytes = sample.to_bytes();
            if seed % 2 == 0 {
                bytes.truncate(chance.usize(..=bytes.len()));
                if let Some(byte) = chance.choice(&mut bytes) {
                    *byte = 0xff;
                }
            }
            samples.push(bytes);
        }
        let rows: Vec<_> = (0..)
            .zip(&samples)
            .map(|(nth, bytes)| ("seconds", BEGIN + nth, &bytes[..]))
            .collect();
        let mut store = planted(&rows).unwrap();
        for step in ["1s", "1m", "1d"] {
            let mut query = since(BEGIN, step);
            query.until = Some((BEGIN + 90).to_string());
            ask(&[&store], &query, BEGIN + 100).unwrap();
        }
        // What can't be read is an error when it is summed up, and nothing worse.
        let _ = store.write(BEGIN + 7_200, &batch("a", 1 << 63, 3), &[]);
        let _ = store.prune_after(Duration::from_secs(u64::MAX));
        let _ = ask(&[&store], &since(BEGIN, "1h"), BEGIN + 7_300);
    }
}

#[test]
fn an_unreadable_sample_is_left_out_and_told() {
    let rows: [(_, _, &[u8]); 3] = [
        ("seconds", BEGIN, &opened(3)),
        ("seconds", BEGIN + 1, &[0xff; 11]),
        ("seconds", BEGIN + 2, &opened(4)),
    ];
    let store = planted(&rows).unwrap();
    let answer = ask(&[&store], &since(BEGIN, "1s"), BEGIN + 2).unwrap();
    assert_eq!(sums(&answer, "opened"), [Some(3), None, Some(4)]);
    assert_eq!(
        answer.notes,
        ["without 1 samples, which are damaged and can't be read"]
    );
}

#[test]
fn a_clock_that_is_far_ahead_costs_little() {
    let hours: Vec<_> = (0..400 * 24).map(|nth| BEGIN + nth * 3_600).collect();
    let sample = opened(1);
    let last = BEGIN + 400 * DAY;
    // It was ahead before, too.
    for future in [None, Some(last + 600 * DAY)] {
        let mut rows: Vec<_> = hours.iter().map(|at| ("hours", *at, &sample[..])).collect();
        rows.extend((0..2_880).map(|nth| ("minutes", last + nth * 60, &sample[..])));
        rows.extend(future.map(|at| ("seconds", at, &sample[..])));
        let mut store = planted(&rows).unwrap();
        let now = last + 2 * DAY;
        let ahead = now + 500 * DAY;
        for nth in 0..3 {
            let name = if nth == 0 { "b" } else { "a" };
            store
                .write(ahead + nth * 60, &batch(name, 1, 3), &[])
                .unwrap();
        }
        assert_eq!(store.oldest(Resolution::Hours).unwrap(), Some(BEGIN));
        store.write(now, &batch("a", 1, 3), &[]).unwrap();
        assert!(total(&store, BEGIN, now) > 400 * 24, "{future:?}");
        // What is too old goes as time passes, and all that is has its subject.
        store.write(now + 60, &batch("a", 1, 3), &[]).unwrap();
        store.prune_after(Duration::from_secs(DAY)).unwrap();
        let first = store.oldest(Resolution::Hours).unwrap();
        let left = first.is_some_and(|first| (BEGIN + DAY..=BEGIN + 3 * DAY).contains(&first));
        assert!(left, "{first:?}");
    }
}

#[test]
fn a_file_with_other_tables_is_set_aside() {
    for harm in [
        "DROP TABLE subjects",
        "DROP TABLE figures",
        "DROP TABLE events",
        "DROP TABLE hours",
        "ALTER TABLE seconds RENAME COLUMN sample TO x",
        "INSERT INTO figures VALUES (-1, 3, 'x', 1, 0, 0)",
        "INSERT INTO figures VALUES (9, 'x', 'x', 1, 0, 0)",
        "INSERT INTO subjects VALUES (1, 3, x'ff', 'a', 1)",
        "INSERT INTO seconds VALUES ('soon', 1, x'00')",
    ] {
        let dir = Temporary::new();
        drop(open_new(&dir.file()));
        let connection = Connection::open(dir.file()).unwrap();
        connection.execute_batch(harm).unwrap();
        drop(connection);
        let opened = open(&dir.file(), KEEP).unwrap();
        assert!(opened.set_aside.is_some(), "{harm}");
    }
}

#[test]
fn an_answer_has_a_bound_with_what_is_absent() {
    let mut store = memory();
    let many = |nth: u64| -> Batch {
        let one = |of: u64| {
            let gauges = (0..25).map(|n| (figure(&format!("g{n}"), Kind::Gauge), Point::gauge(of)));
            let count = (figure("opened", Kind::Counter), Point::Counter(nth));
            (backend(&format!("b{of}")), gauges.chain([count]).collect())
        };
        (0..200).map(one).collect()
    };
    // One sample in each 10 minutes: nearly all that is answered is absent.
    for nth in 0..6 {
        store.write(BEGIN + nth * 600, &many(nth + 1), &[]).unwrap();
    }
    let now = BEGIN + 3_600;
    let refused = ask(&[&store], &since(BEGIN, "1m"), now);
    let refused = refused.map(drop).unwrap_err();
    assert!(refused.to_string().contains("500000 values"), "{refused}");
    let default = HistoryQuery {
        step: None,
        ..since(BEGIN, "")
    };
    let answer = ask(&[&store], &default, now).unwrap();
    let places = answer.at.len();
    assert!((30..=120).contains(&places), "{places}");
    assert_eq!(answer.subjects.len(), 200);
    assert!(places * 200 * 51 <= 500_000, "{places}");
    let all: u64 = sums(&answer, "opened").into_iter().flatten().sum();
    assert_eq!(all, 1 + 2 + 3 + 4 + 5 + 6);
    assert_eq!(answer.at[places - 1] + answer.step, answer.until);
}

#[test]
fn memory_that_is_full_gives_up_seconds_before_minutes() {
    let keep = Keep {
        seconds: 900,
        minutes: 3_600,
        hours: 3_600,
        bytes: 128 << 10,
    };
    let mut store = Store::in_memory(keep).unwrap();
    let count = 1_500;
    for nth in 0..count {
        let many = (0..16).flat_map(|of| batch(&format!("b{of}"), 1_000 + nth, 400));
        let many = many.collect();
        store.write(BEGIN + nth, &many, &[]).unwrap();
    }
    let seconds = store.oldest(Resolution::Seconds).unwrap().unwrap();
    let kept = BEGIN + count - seconds;
    assert!((90..900).contains(&kept), "{kept}");
    assert_eq!(store.oldest(Resolution::Minutes).unwrap(), Some(BEGIN));
}

#[test]
fn a_damaged_file_is_set_aside_and_begun_again() {
    let dir = Temporary::new();
    for garbage in [[0; 20], [0xff; 20]] {
        let garbage = [&b"SQLite format 3\0"[..], &garbage, &[0xff; 70_000]].concat();
        fs::write(dir.file(), &garbage).unwrap();
        let opened = open(&dir.file(), KEEP).unwrap();
        let (aside, _) = opened.set_aside.unwrap();
        assert_eq!(fs::read(&aside).unwrap(), garbage);
        drop(opened.store);
    }
    // What never was a history stays, such as a file that was named by mistake.
    let key = dir.0.join("key.pem");
    fs::write(&key, "precious").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = open(&key, KEEP).unwrap_err();
    assert!(matches!(error, StoreError::Foreign), "{error}");
    assert_eq!(fs::read(&key).unwrap(), b"precious");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o640
    );
    // What only has a name like it stays, even where the next one would have its name.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let kept = [".corrupt-mine".to_owned(), format!(".corrupt-{now}")];
    let kept = kept.map(|end| dir.0.join(format!("history.db{end}")));
    fs::write(&kept[0], "precious").unwrap();
    let _ = fs::remove_file(&kept[1]);
    fs::create_dir_all(&kept[1]).unwrap();
    fs::write(dir.file(), b"SQLite format 3\0").unwrap();
    let opened = open(&dir.file(), KEEP).unwrap();
    assert!(opened.set_aside.is_some());
    drop(opened.store);
    assert_eq!(fs::read(&kept[0]).unwrap(), b"precious");
    fs::remove_file(&kept[0]).unwrap();
    fs::remove_dir(&kept[1]).unwrap();
    // One of them at most is there.
    let names = fs::read_dir(&dir.0).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".corrupt-")).count(), 1);
    // Damage within a file that was right.
    let mut store = open_new(&dir.file());
    for nth in 0..300 {
        store.write(BEGIN + nth, &batch("a", 3, 3), &[]).unwrap();
    }
    drop(store);
    let mut bytes = fs::read(dir.file()).unwrap();
    bytes[4_096..].fill(0x55);
    fs::write(dir.file(), bytes).unwrap();
    let opened = open(&dir.file(), KEEP).unwrap();
    assert!(opened.set_aside.is_some());
    assert_eq!(opened.store.last(), None);
}
