//! From a file to a validated [`Config`].

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::{ConfigError, Mistake};
use super::judge::Judge;
use super::raw::{RawCheck, RawConfig, RawQueue, RawStrategy, Short};
use super::source::Source;
use super::spans::Node;
use super::values::ValueError;
use crate::sys;

use super::{Check, Config, Queue, Strategy, syntax, validate};

/// The path that stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// What messages call a configuration file.
#[must_use]
pub fn name_of(path: &Path) -> String {
    if path == Path::new(STANDARD_INPUT) {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads and judges a configuration file, or standard input where the path is `-`.
///
/// The [`Source`] tells [`warnings`](super::warnings) where each setting stands. Host names of
/// listeners are resolved; those of backends are not.
///
/// # Errors
///
/// The file can't be read, is longer than 16 MiB, or holds mistakes.
pub fn load(path: &Path) -> Result<(Config, Source), ConfigError> {
    if path == Path::new(STANDARD_INPUT) {
        return load_from(path, |_| {
            Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
        });
    }
    load_from(path, |path| File::open(path))
}

/// The same of a running balancer: only a regular file is read, as another process may never
/// write to a FIFO.
///
/// # Errors
///
/// As of [`load`].
pub fn load_again(path: &Path) -> Result<(Config, Source), ConfigError> {
    load_from(path, sys::open_regular)
}

fn load_from(
    path: &Path,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> Result<(Config, Source), ConfigError> {
    let file = name_of(path);
    match read(path, open) {
        Ok(bytes) => parse(file, bytes),
        Err(why) => Err(ConfigError::Unreadable { file, why }),
    }
}

/// Judges the bytes of a configuration file; `file` is what messages call it.
///
/// # Errors
///
/// The bytes hold mistakes.
pub fn parse(file: String, bytes: Vec<u8>) -> Result<(Config, Source), ConfigError> {
    let mistake = |mistake: Mistake| ConfigError::Mistakes(vec![mistake]);
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let lossy = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let sentence = "this is not UTF-8: save the file in that encoding";
        mistake(Mistake::new(
            &Source::new(file.clone(), lossy),
            &(at..at + 1),
            sentence,
        ))
    })?;
    // Some editors mark UTF-8 so.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    let mut source = Source::new(file, text);
    let raw: RawConfig = shape(&mut source).map_err(mistake)?;
    let config = validate::config(&raw, &source).map_err(ConfigError::Mistakes)?;
    Ok((config, source))
}

/// Reads a strategy as a pool of a file may have it: a bare name, or in RON
/// `(name: "hash", key: "sni")`. What it takes of the pool's groups is judged with the pool.
///
/// # Errors
/// It is none, or says how clients persist: only a file can.
pub fn strategy_of(text: &str) -> Result<Strategy, ValueError> {
    alone(("strategy", text), |judge, raw: &Short<RawStrategy>, at| {
        let (strategy, _) = judge.strategy(&raw.0, at, None);
        let settings = ["key", "ttl", "clients_max"];
        if strategy == Strategy::StickyRoundRobin
            && let Some(setting) = settings.into_iter().find_map(|name| at.find(name))
        {
            let sentence = "only a file can say how clients of `sticky_round_robin` persist";
            judge.mistake(&setting.span, sentence.to_owned());
        }
        strategy
    })
}

/// Reads a queue as a pool of a file may have it: `off`, a number, or in RON
/// `(max: 100, timeout: "1s")`.
///
/// # Errors
/// It is none.
pub fn queue_of(text: &str) -> Result<Queue, ValueError> {
    alone(("queue", text), |judge, raw: &Short<RawQueue>, at| {
        judge.queue(&raw.0, at)
    })
}

/// Reads a check as a pool of a file may have it: a bare name such as `http`, or in RON
/// `(type: "http", path: "/healthz")`.
///
/// # Errors
/// It is none.
pub fn check_of(text: &str) -> Result<Option<Check>, ValueError> {
    alone(("check", text), |judge, raw: &Short<RawCheck>, at| {
        judge.check(&raw.0, at)
    })
}

/// Reads the value of a field as it may stand in a file. A word needs no quotes.
fn alone<T: DeserializeOwned, R>(
    (name, text): (&str, &str),
    read: impl for<'a> FnOnce(&mut Judge<'a>, &'a T, &'a Node) -> R,
) -> Result<R, ValueError> {
    let text = text.trim();
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    let text = if is_word {
        format!("{text:?}")
    } else {
        text.to_owned()
    };
    let prefix = format!("{name}: ");
    let refused = |mistake: Mistake| {
        // Who asks for one value knows its name.
        let sentence = mistake.sentence.strip_prefix(&prefix);
        ValueError::Refused(sentence.unwrap_or(&mistake.sentence).to_owned())
    };
    let mut source = Source::new(String::new(), text);
    let raw: T = shape(&mut source).map_err(refused)?;
    let at = source.root().clone().called(name);
    let mut judge = Judge::new(&source);
    let value = read(&mut judge, &raw, &at);
    match judge.into_mistakes().into_iter().next() {
        Some(mistake) => Err(refused(mistake)),
        None => Ok(value),
    }
}

/// What RON makes of a text, which is then known place by place.
fn shape<T: DeserializeOwned>(source: &mut Source) -> Result<T, Mistake> {
    let options =
        ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let raw = options
        .from_str(source.text())
        .map_err(|error| syntax::mistake(source, &error))?;
    source.scan();
    Ok(raw)
}

fn read(path: &Path, open: impl FnOnce(&Path) -> io::Result<File>) -> Result<Vec<u8>, String> {
    let say = |error: io::Error| {
        if error.kind() == ErrorKind::NotFound {
            "there is no such file: name another with --config".to_owned()
        } else if error.kind() == ErrorKind::IsADirectory {
            "this is a directory, not a file".to_owned()
        } else if error.kind() == ErrorKind::InvalidInput {
            error.to_string()
        } else {
            format!("the file can't be read: {error}")
        }
    };
    let mut bytes = Vec::new();
    let file = open(path).map_err(say)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(say)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("the file is longer than 16 MiB".to_owned());
    }
    Ok(bytes)
}
