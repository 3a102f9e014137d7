//! The access log, and how the operational log looks.

use std::path::{Path, PathBuf};

use super::codec::{Codec, Via, named, spelled};
use super::table::{Shape, settings};
use super::values;

/// Where and how sessions are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// The sink.
    pub to: LogSink,
    /// The shape of a line.
    pub format: LogFormat,
}

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    #[default]
    Stdout,
    /// Appended to a file, made when absent.
    File(PathBuf),
}

/// The shape of an access log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    #[default]
    KeyValue,
    /// One JSON object.
    Json,
}

impl LogFormat {
    /// Every format with the name that configuration and command line know it by.
    pub const ALL: [(&'static str, Self); 2] =
        [("key_value", Self::KeyValue), ("json", Self::Json)];
}

/// The shape of a record of the operational log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl RecordFormat {
    /// Every format with the name that configuration and environment know it by.
    pub const ALL: [(&'static str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

settings! {
    /// The access log in a file.
    #[derive(Clone, PartialEq)]
    struct AccessLogFile {
        /// Where lines go: "-" is standard output, "off" nowhere, all else a file.
        to: Option<LogSink> = Some(LogSink::Stdout) => spelled(
            "\"-\", \"off\" or the path of a file",
            |text| values::log_sink(Path::new(text)),
            |sink| match sink {
                None => "off".to_owned(),
                Some(LogSink::Stdout) => "-".to_owned(),
                Some(LogSink::File(path)) => path.display().to_string(),
            },
        );
        /// The shape of a line.
        format: LogFormat = LogFormat::KeyValue => named("log format", &LogFormat::ALL);
    }
}

impl Shape for AccessLogFile {
    const SHORT: Option<&'static str> = Some("to");
}

/// An access log, or none.
pub(super) fn access_log() -> impl Codec<Value = Option<AccessLog>> {
    Via {
        expected: "\"off\", a sink or a group such as (to: \"FILE\", format: \"json\")",
        from: |AccessLogFile { to, format }, _| Some(to.map(|to| AccessLog { to, format })),
        to: |log| AccessLogFile {
            to: log.as_ref().map(|log| log.to.clone()),
            format: log.as_ref().map_or(LogFormat::KeyValue, |log| log.format),
        },
    }
}
