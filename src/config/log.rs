//! The access log, and how the operational log looks.

use std::path::PathBuf;

use super::codec::{named, spelled};
use super::reader::{At, Reader};
use super::table::{Shape, settings, words};
use super::values;

settings! {
    /// Where and how sessions are logged.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AccessLog: Shape {
        /// Where lines go: "-" is standard output, "off" is nowhere, anything else is a file.
        pub to: LogSink = LogSink::Stdout => spelled(
            "\"-\", \"off\" or the path of a file",
            values::log_sink,
            |sink| match sink {
                LogSink::Stdout => "-".to_owned(),
                LogSink::File(path) => path.display().to_string(),
            },
        );
        /// The shape of a line.
        pub format: LogFormat = LogFormat::KeyValue => named("log format", &LogFormat::ALL);
    }
}

impl Shape for AccessLog {
    const SHORT: Option<&'static str> = Some("to");

    fn is_off(at: At<'_>, _: &mut Reader<'_>) -> bool {
        at.says("to", "off")
    }
}

super::table::defaults!(AccessLog);

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, which is created if absent; lines are appended.
    File(PathBuf),
}

words! {
    /// The shape of an access log line.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum LogFormat {
        /// `key=value` pairs.
        #[default]
        KeyValue = "key_value",
        /// One JSON object.
        Json = "json",
    }
}

words! {
    /// The shape of a record of the operational log.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum RecordFormat {
        /// A line of text.
        #[default]
        Text = "text",
        /// One JSON object.
        Json = "json",
    }
}
