//! What files hold that rotate: they are read again before each use. While a tool replaces them,
//! they may be missing or half written, and what they held before is used.

use std::path::PathBuf;
use std::time::Duration;

use super::{RemoteError, files};
use crate::control::aside;

/// The last good one that was read.
pub(super) struct LastGood<T> {
    good: Option<T>,
    /// What was said of a read that failed: it is said once.
    told: Option<String>,
}

impl<T: Clone> LastGood<T> {
    pub(super) const fn new() -> Self {
        Self {
            good: None,
            told: None,
        }
    }

    /// Takes in what was read now, and answers with what is to be used.
    pub(super) fn take(&mut self, read: Result<T, String>) -> Result<T, RemoteError> {
        match (read, &self.good) {
            (Ok(read), _) => {
                self.told = None;
                self.good = Some(read.clone());
                Ok(read)
            }
            (Err(why), Some(before)) => {
                if self.told.as_ref() != Some(&why) {
                    log::warn!("{why}; using what was read before");
                    self.told = Some(why);
                }
                Ok(before.clone())
            }
            (Err(why), None) => Err(RemoteError::File(why)),
        }
    }
}

/// A password or a token in a file.
pub(in crate::control) struct Secret {
    path: PathBuf,
    read: LastGood<String>,
}

impl Secret {
    pub(in crate::control) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: LastGood::new(),
        }
    }

    /// Reads it, for so long at most.
    pub(in crate::control) async fn read(&mut self, time: Duration) -> Result<String, RemoteError> {
        let path = self.path.clone();
        let read = aside::look(&self.path, move || files::secret(&path));
        let read = tokio::time::timeout(time, read).await;
        let read = read.map_err(|_| RemoteError::Late(time))?;
        let read = read.map_err(|error| error.to_string()).flatten();
        self.read.take(read)
    }
}
