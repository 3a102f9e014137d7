//! From a file to a validated [`Config`].

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::error::{ConfigError, Mistake};
use super::raw::RawConfig;
use super::source::Source;
use super::{Config, syntax, validate};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads and judges a configuration file.
///
/// The [`Source`] tells [`warnings`](super::warnings) where each setting stands. Host names in the
/// file are resolved.
///
/// # Errors
///
/// The file can't be read, is longer than 16 MiB, or holds mistakes.
pub fn load(path: &Path) -> Result<(Config, Source), ConfigError> {
    let file = path.display().to_string();
    match read(path) {
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
    let options =
        ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    let raw: RawConfig = options
        .from_str(source.text())
        .map_err(|error| mistake(syntax::mistake(&source, &error)))?;
    source.scan();
    let config = validate::config(&raw, &source).map_err(ConfigError::Mistakes)?;
    Ok((config, source))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let say = |error: std::io::Error| {
        if error.kind() == ErrorKind::NotFound {
            "there is no such file: name another with --config".to_owned()
        } else if error.kind() == ErrorKind::IsADirectory {
            "this is a directory, not a file".to_owned()
        } else {
            format!("the file can't be read: {error}")
        }
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(say)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(say)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("the file is longer than 16 MiB".to_owned());
    }
    Ok(bytes)
}
