//! From a file to a validated [`Config`].

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::path::Path;

use super::error::{ConfigError, Mistake};
use super::foreign;
use super::reader::{Around, Reader};
use super::rules;
use super::source::Source;
use super::strategy_file::StrategyFile;
use super::syntax;
use super::table::Settings;
use super::tree::{Kind, Value};
use super::values::ValueError;
use super::{Config, Strategy};
use crate::sys;

/// The path that stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// The name of a configuration file in messages.
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

/// Reads and validates a configuration file, or standard input if the path is `-`.
///
/// The [`Source`] gives [`warnings`](super::warnings) the place of each setting. Host names of
/// listeners are resolved; those of backends are not.
///
/// # Errors
///
/// The file can't be read, is longer than 16 MiB, or holds mistakes.
pub fn load(path: &Path) -> Result<(Config, Source), ConfigError> {
    if path == Path::new(STANDARD_INPUT) {
        return load_from(path, "", |_| {
            Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
        });
    }
    load_from(path, ": create it, or name another one", |path| {
        File::open(path)
    })
}

/// Reads and validates a configuration file for a running balancer: only a regular file, because a
/// FIFO blocks until another process writes to it.
///
/// # Errors
///
/// As of [`load`].
pub fn load_again(path: &Path) -> Result<(Config, Source), ConfigError> {
    load_from(path, "", sys::open_regular)
}

/// `remedy` says what to do if there is no such file.
fn load_from(
    path: &Path,
    remedy: &str,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> Result<(Config, Source), ConfigError> {
    let file = name_of(path);
    match read(path, remedy, open) {
        Ok(bytes) => parse(file, bytes),
        Err(why) => Err(ConfigError::Unreadable { file, why }),
    }
}

/// Validates the bytes of a configuration file; `file` is its name in messages.
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
    // Some editors write this mark at the start of UTF-8.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    let parsed = Source::new(file.clone(), text.clone()).parsed();
    let is_group = |source: &Source| matches!(source.root().kind, Kind::Group(_));
    if !parsed.as_ref().is_ok_and(is_group)
        && let Some((span, sentence)) = foreign::recognised(&text)
    {
        let source = Source::new(file, text);
        return Err(mistake(Mistake::new(&source, &span, &sentence)));
    }
    let source = parsed.map_err(mistake)?;
    if !is_group(&source) {
        let (span, sentence) = (&source.root().span, syntax::whole_group());
        return Err(mistake(Mistake::new(&source, span, &sentence)));
    }
    let config = config(&source).map_err(ConfigError::Mistakes)?;
    Ok((config, source))
}

/// Reads, completes and validates a whole configuration. The mistakes are in source order.
pub(super) fn config(source: &Source) -> Result<Config, Vec<Mistake>> {
    let root = source.root();
    let pools = root.field("pools").map_or(&[][..], Value::items);
    let name = |pool: &Value| match pool.field("name").map(|name| &name.kind) {
        Some(Kind::Text(name)) => name.clone(),
        _ => String::new(),
    };
    let around = Around {
        pools: pools.iter().map(name).collect(),
        ..Around::default()
    };
    let mut reader = Reader::new(source, around);
    let at = reader.at(root, "");
    let config = reader.group(at, &Config::base());
    let mut config = config.unwrap_or_else(Config::base);
    config
        .access_lists
        .iter_mut()
        .for_each(|list| list.complete());
    if !reader.is_misshapen() {
        reader.add_findings(rules::of_config(&config));
    }
    let mistakes = reader.into_mistakes();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(mistakes)
    }
}

/// Reads a strategy as a pool of a file may have it: a bare name, or in RON
/// `(name: "hash", key: "sni")`. The groups that it needs are validated with the pool.
///
/// # Errors
/// The text is no strategy, or sets how clients persist, which only a file can.
pub fn strategy_of(text: &str) -> Result<Strategy, ValueError> {
    let text = text.trim();
    // A word needs no quotes.
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    let text = if is_word {
        format!("{text:?}")
    } else {
        text.to_owned()
    };
    if !text.starts_with(['(', '"']) {
        let expected = "a name or a group such as (name: \"hash\", key: \"sni\")";
        let meant = with_settings(&text).map(|group| format!(": write {group}"));
        let sentence = format!("{expected}{}", meant.unwrap_or_default());
        return Err(ValueError::Unexpected(sentence));
    }
    let source = Source::new(String::new(), text).parsed()?;
    let mut reader = Reader::new(&source, Around::default());
    let at = reader.at(source.root(), "");
    let file = reader.group(at, &StrategyFile::base());
    let strategy = file.map(|file| file.strategy).unwrap_or_default();
    let settings = ["key", "ttl", "clients_max"];
    if let Strategy::StickyRoundRobin(_) = strategy
        && let Some(setting) = settings.iter().find_map(|name| at.value.field(name))
    {
        let sentence = "only a file can say how clients of `sticky_round_robin` persist";
        reader.mistake(&setting.span, sentence.to_owned());
    }
    reader.finish(strategy)
}

/// The group that a strategy with options after commas means, as `--to` has them for a backend.
fn with_settings(text: &str) -> Option<String> {
    let (name, settings) = text.split_once(',')?;
    let mut group = format!("(name: {name:?}");
    for setting in settings.split(',') {
        let (key, value) = setting.split_once(['=', ':'])?;
        let (key, value) = (key.trim(), value.trim());
        let is_number = !value.is_empty() && value.bytes().all(|b| b".0123456789".contains(&b));
        let value = match is_number {
            true => value.to_owned(),
            false => format!("{:?}", value.trim_matches('"')),
        };
        group += &format!(", {key}: {value}");
    }
    group.push(')');
    // What is refused is not proposed.
    strategy_of(&group).is_ok().then_some(group)
}

fn read(
    path: &Path,
    remedy: &str,
    open: impl FnOnce(&Path) -> io::Result<File>,
) -> Result<Vec<u8>, String> {
    let say = |error: io::Error| {
        if error.kind() == ErrorKind::NotFound {
            format!("there is no such file{remedy}")
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
