//! Follows one list file.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::aside;
use crate::control::file_watch::{FileVersion, FileWatch, Version};

use super::lines::{ReadError, read};
use super::{ListFile, about};

/// Looks at a file again and again.
pub(in crate::control) struct Follower<F> {
    watch: FileWatch,
    /// The next look is due now.
    is_due: bool,
    /// The error that was reported last, unless a list was read since.
    reported: Option<String>,
    kind: PhantomData<fn() -> F>,
}

impl<F: ListFile> Follower<F> {
    /// A file that was not read yet.
    pub(in crate::control) fn new(path: PathBuf) -> Self {
        Self {
            watch: FileWatch::new(path),
            is_due: true,
            reported: None,
            kind: PhantomData,
        }
    }

    /// A file of which this version was read.
    pub(in crate::control) fn after(path: PathBuf, version: Version) -> Self {
        let mut follower = Self::new(path);
        follower.watch.mark_read(Ok(version));
        follower.is_due = false;
        follower
    }

    /// Looks now, and reports what the file has, changed or not.
    pub(in crate::control) fn look_again(&mut self) {
        *self = Self::new(self.watch.path().to_owned());
    }

    /// Waits until the file has another list, or another error, which comes with its path. It looks
    /// after each of these pauses. While the file system does not answer, it waits. The future can
    /// be dropped without loss.
    pub(in crate::control) async fn changed(
        &mut self,
        pause: Duration,
    ) -> Result<(Version, F::List), String> {
        loop {
            if !std::mem::take(&mut self.is_due) {
                tokio::time::sleep(pause).await;
            }
            let path = self.watch.path().to_owned();
            // A look that is given up changes a copy.
            let mut watch = self.watch.clone();
            let look = aside::look(&path, move || {
                let outcome = look(&mut watch, |path, seen| read::<F>(path, Some(seen)));
                (watch, outcome)
            });
            let error = match look.await {
                Ok((watch, outcome)) => {
                    self.watch = watch;
                    match outcome {
                        Some(Ok(read)) => {
                            self.reported = None;
                            return Ok(read);
                        }
                        Some(Err(error)) => about(&path, &error),
                        None => continue,
                    }
                }
                Err(error) => about(&path, &error),
            };
            if self.reported.as_ref() != Some(&error) {
                self.reported = Some(error.clone());
                return Err(error);
            }
        }
    }
}

/// What reading a file says, if it has changed since it was last read, or could not be read then.
pub(super) fn look<T>(
    watch: &mut FileWatch,
    read: impl FnOnce(&Path, FileVersion) -> Result<T, ReadError>,
) -> Option<Result<T, ReadError>> {
    let seen = watch.look()?;
    let outcome = read(watch.path(), seen);
    match outcome {
        Err(ReadError::Changed) => return None,
        Ok(_) | Err(ReadError::Mistake(_)) => watch.set_read(seen),
        Err(ReadError::Unread(_)) => watch.set_unread(),
    }
    Some(outcome)
}
