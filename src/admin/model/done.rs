//! What a request that changes something has done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A change is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The number of the snapshot in force now.
    pub snapshot: u64,
    /// Whether the change changed anything.
    #[serde(default)]
    pub changed: bool,
    /// The number of a backend that was added to a pool with `sni_member`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<u32>,
    /// Warnings about the result, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The file was read again and is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// The number of the snapshot in force now.
    pub snapshot: u64,
    /// Whether it differs from the snapshot before.
    #[serde(default)]
    pub changed: bool,
    /// What of the file waits for the next start, and which changes it has ended: a sentence for
    /// each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The changes by command that still hold, and those that the file contains now: a sentence
    /// for each of the two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

impl Reloaded {
    /// The result in a sentence, for the log and the command line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let snapshot = self.snapshot;
        let news = if self.changed {
            ""
        } else {
            "nothing has changed: "
        };
        let sentence = format!("{news}snapshot {snapshot} is in force");
        let changes = self.changes.iter();
        changes.fold(sentence, |sentence, change| format!("{sentence}\n{change}"))
    }
}

/// The files of the logs were opened again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reopened {
    /// The names of those files.
    pub files: Vec<String>,
}

/// Sessions are being closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Killed {
    /// The number of sessions that were closed.
    pub sessions: u64,
}
