//! The history of figures and events.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::codec::{duration, memory, spelled};
use super::reader::{At, Reader};
use super::table::{Shape, defaults, settings};
use super::values;

settings! {
    /// The history of all figures and events.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct HistorySettings: Shape {
        /// The file that keeps it, with mode 0600: "memory" keeps the last hour, without a file.
        /// Auto: history.db in the state directory that the service manager gives, else memory.
        pub path: HistoryPlace = HistoryPlace::Auto => spelled(
            "\"auto\", \"memory\" or the path of a file",
            values::history_place,
            |place| match place {
                HistoryPlace::Auto => "auto".to_owned(),
                HistoryPlace::Memory => "memory".to_owned(),
                HistoryPlace::File(path) => path.display().to_string(),
            },
        );
        /// The most bytes of the file. The oldest goes first.
        pub max_size: u64 = 256 << 20 => memory();
        /// How long each second is kept.
        pub seconds: Duration = Duration::from_secs(15 * 60) => duration(values::SECONDS_KEPT);
        /// How long each minute is kept.
        pub minutes: Duration = Duration::from_secs(48 * 3_600) => duration(values::HISTORY_KEPT);
        /// How long each hour is kept, and each event.
        pub hours: Duration = Duration::from_secs(400 * 86_400) => duration(values::HISTORY_KEPT);
    }
}

impl Shape for HistorySettings {
    const SHORT: Option<&'static str> = Some("path");

    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        if self.seconds > self.minutes {
            reader.wrong(at, "minutes", "expected at least the time of `seconds`");
        } else if self.minutes > self.hours {
            reader.wrong(at, "hours", "expected at least the time of `minutes`");
        }
    }
}

defaults!(HistorySettings);

/// Where the history is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryPlace {
    /// In the state directory of the service manager, or in memory.
    Auto,
    /// In memory.
    Memory,
    /// In a file.
    File(PathBuf),
}

impl HistorySettings {
    /// The file that keeps it; `None`: it is in memory only.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match &self.path {
            HistoryPlace::Memory => None,
            HistoryPlace::File(path) => Some(path.clone()),
            HistoryPlace::Auto => {
                // Of several, with colons, the first.
                let given = env::var(STATE_DIRECTORY).ok()?;
                let first = given.split(':').next().filter(|first| !first.is_empty())?;
                Some(Path::new(first).join(FILE))
            }
        }
    }
}

/// The variable of systemd.exec(5) with the directory of `StateDirectory=`.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";
/// The name of the file there.
const FILE: &str = "history.db";
