//! Files of words, one on each line.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::follower::look;
use super::lines::{ReadError, parse};
use super::*;
use crate::control::file_watch::FileWatch;

#[derive(Default)]
struct Words(Vec<String>);

impl ListFile for Words {
    type List = Vec<String>;
    const BYTES_MAX: u64 = 1 << 20;
    const LINE_MAX: u64 = 64;
    const COMMENTS: &[u8] = b"#";

    fn take(&mut self, line: &str, _comment: &[u8]) -> Result<(), String> {
        if line.contains(' ') {
            return Err(format!("invalid word `{line}`"));
        }
        self.0.push(line.to_owned());
        Ok(())
    }

    fn finish(self) -> Result<Vec<String>, String> {
        match self.0.is_empty() {
            true => Err("expected a word".to_owned()),
            false => Ok(self.0),
        }
    }

    fn may_replace(list: &Vec<String>, before: &Vec<String>) -> Result<(), String> {
        match list.len() < before.len() {
            true => Err(format!("expected {} words", before.len())),
            false => Ok(()),
        }
    }
}

/// A fresh directory for one test.
fn directory(test: &str) -> PathBuf {
    let name = format!("mahoraga-list-files-{test}-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap().block_on(future)
}

/// What a look says, if anything.
fn look_at(watch: &mut FileWatch) -> Option<Result<Vec<String>, String>> {
    let outcome = look(watch, |path, seen| read::<Words>(path, Some(seen)))?;
    let outcome = outcome.map(|(_, words)| words);
    Some(outcome.map_err(|error| error.to_string()))
}

fn words(words: &[&str]) -> Option<Result<Vec<String>, String>> {
    Some(Ok(words.iter().map(ToString::to_string).collect()))
}

const PAUSE: Duration = Duration::from_millis(5);

#[test]
fn a_change_is_read_once_it_has_settled() {
    let directory = directory("settled");
    let path = directory.join("words");
    let mut watch = FileWatch::new(path.clone());
    assert_eq!(look_at(&mut watch), None);
    let error = look_at(&mut watch).unwrap().unwrap_err();
    assert!(error.contains("No such file"), "{error}");

    fs::write(&path, "one\n").unwrap();
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["one"]));
    assert_eq!(look_at(&mut watch), None);

    // As long as the other, and renamed over it.
    fs::write(directory.join("new"), "two\n").unwrap();
    fs::rename(directory.join("new"), &path).unwrap();
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["two"]));

    // What goes on changing is waited for.
    fs::write(&path, "two\nth").unwrap();
    assert_eq!(look_at(&mut watch), None);
    fs::write(&path, "two\nthree\n").unwrap();
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["two", "three"]));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_read_that_fails_is_tried_again_and_a_mistake_is_not() {
    let directory = directory("fails");
    let path = directory.join("words");
    fs::write(&path, "one\n").unwrap();
    let mut watch = FileWatch::new(path.clone());
    assert_eq!(look_at(&mut watch), None);
    let fails = |watch: &mut FileWatch| {
        let failed = |_: &Path, _| Err::<(), _>(io::Error::from_raw_os_error(libc::EIO).into());
        look(watch, failed).is_some_and(|outcome| outcome.is_err())
    };
    assert!(fails(&mut watch));
    assert!(fails(&mut watch));
    assert_eq!(look_at(&mut watch), words(&["one"]), "nothing has changed");
    let reads = Cell::new(0);
    let mut mistaken = FileWatch::new(path);
    for _ in 0..4 {
        look(&mut mistaken, |_, _| {
            reads.set(reads.get() + 1);
            Err::<(), _>(ReadError::Mistake("it is odd".to_owned()))
        });
    }
    assert_eq!(reads.get(), 1);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let directory = directory("changes");
    let path = directory.join("words");
    fs::write(&path, "one\n").unwrap();
    let mut watch = FileWatch::new(path.clone());
    assert_eq!(look_at(&mut watch), None);
    // Its writer is faster than the reader.
    let outcome = look(&mut watch, |path, seen| {
        fs::write(path, "one\ntwo three\n").unwrap();
        read::<Words>(path, Some(seen))
    });
    assert!(outcome.is_none(), "a mistake in half of a change");
    fs::write(&path, "one\ntwo\n").unwrap();
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["one", "two"]));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_truncated_read_is_no_mistake() {
    for (text, size) in [("one\ntwo th", 12), ("one\n", 12), ("", 1)] {
        let error = parse::<Words>(text.as_bytes(), size).unwrap_err();
        assert!(matches!(error, ReadError::Unread(_)), "{error}");
        let expected = format!("it ends after {} of {size} bytes", text.len());
        assert_eq!(error.to_string(), expected);
    }
    let text = "a b\nmore\n";
    let error = parse::<Words>(text.as_bytes(), text.len() as u64).unwrap_err();
    assert_eq!(error.to_string(), "line 1: invalid word `a b`");
}

#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    let directory = directory("link");
    let path = directory.join("words");
    fs::write(directory.join("a"), "one\n").unwrap();
    fs::write(directory.join("b"), "two\n").unwrap();
    std::os::unix::fs::symlink("a", &path).unwrap();
    let mut watch = FileWatch::new(path.clone());
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["one"]));
    std::os::unix::fs::symlink("b", directory.join("next")).unwrap();
    fs::rename(directory.join("next"), &path).unwrap();
    assert_eq!(look_at(&mut watch), None);
    assert_eq!(look_at(&mut watch), words(&["two"]));
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_is_no_list_is_refused() {
    let directory = directory("none");
    let mut watch = FileWatch::new(directory.clone());
    let mut looks = std::iter::repeat_with(|| look_at(&mut watch));
    let error = looks.find_map(|look| look).unwrap().unwrap_err();
    assert!(error.contains("directory"), "{error}");
    let path = directory.join("large");
    fs::write(&path, "# x\n".repeat(300_000)).unwrap();
    let error = read::<Words>(&path, None).unwrap_err();
    assert_eq!(error.to_string(), "it is larger than 1 MiB");
    fs::write(&path, " ".repeat(2 << 20)).unwrap();
    let error = read::<Words>(&path, None).unwrap_err();
    assert_eq!(error.to_string(), "line 1: it is longer than 64 bytes");
    fs::write(&path, b"a\n\xff\n").unwrap();
    let error = read::<Words>(&path, None).unwrap_err();
    assert_eq!(error.to_string(), "line 2: it is not UTF-8");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_follower_reports_each_error_once() {
    let directory = directory("once");
    let path = directory.join("words");
    run(async {
        let mut file = Follower::<Words>::new(path.clone());
        let error = file.changed(PAUSE).await.unwrap_err();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("No such file"), "{error}");
        let again = tokio::time::timeout(20 * PAUSE, file.changed(PAUSE)).await;
        assert!(again.is_err(), "it is as before");
        file.look_again();
        assert!(file.changed(PAUSE).await.is_err(), "it was asked for");
        fs::write(&path, "one\n").unwrap();
        assert_eq!(file.changed(PAUSE).await.unwrap().1, ["one"]);
        file.look_again();
        assert_eq!(file.changed(PAUSE).await.unwrap().1, ["one"]);
    });
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_last_good_list_stays() {
    let directory = directory("good");
    let path = directory.join("words");
    run(async {
        let read = |known: &Known<_>| read_all::<Words>([&path], known);
        let mut files = ListFiles::<Words>::at_pace(PAUSE);
        assert!(read(&files.known()).is_err(), "there is no file");
        fs::write(&path, "one\ntwo\n").unwrap();
        let first = read(&files.known()).unwrap();
        assert!(files.follow(first, []).is_empty());
        assert!(read(&files.known()).unwrap().is_empty(), "it is as before");
        for bad in ["one two\n", "one\n"] {
            fs::write(&path, bad).unwrap();
            assert!(read(&files.known()).is_err());
            let news = files.changed().await;
            let taken = files.take(news).unwrap();
            assert!(taken.replaced.is_none() && taken.file.error.is_some());
            assert_eq!(**taken.file.list, ["one", "two"]);
        }
        fs::write(&path, "three\nfour\nfive\n").unwrap();
        let news = files.changed().await;
        let taken = files.take(news).unwrap();
        assert_eq!(**taken.replaced.as_ref().unwrap(), ["one", "two"]);
        assert_eq!((taken.file.list.len(), &taken.file.error), (3, &None));
        // News of a file that is no longer followed are out of date.
        fs::write(&path, "a\nb\nc\nd\n").unwrap();
        let news = files.changed().await;
        assert_eq!(files.follow(Vec::new(), []).len(), 1);
        assert!(files.take(news).is_none());
    });
    fs::remove_dir_all(&directory).unwrap();
}
