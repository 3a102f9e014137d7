//! Files that list things, one on each line, such as prefixes and backends. They are followed while
//! the balancer runs.
//!
//! Another thread looks at each file every second, and reads it once it has changed and is the same
//! at two looks, as its writer may not be done. A read that fails is tried again at each look. A
//! mistake in the text waits for a change. Each is reported once, and the last good list stays.
//!
//! A new kind of file implements [`ListFile`]. [`ListFiles`] keeps the lists of all its files for
//! the control thread; [`read_all`] reads those that a configuration names before it takes effect.
//! [`Follower`] is for a task that keeps what was read elsewhere.

mod follower;
mod lines;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::file_watch::{Look, Version};

pub(super) use follower::Follower;
use lines::{ReadError, read};

/// What the lines of a kind of file mean. One value is made for each reading.
pub(super) trait ListFile: Default + Send + 'static {
    /// What all lines make.
    type List: Send + Sync + 'static;
    /// Bytes of a file, whole MiB. Beyond: the file is refused.
    const BYTES_MAX: u64;
    /// Bytes of a line before its comment. Beyond: the file is refused.
    const LINE_MAX: u64;
    /// Bytes that begin a comment.
    const COMMENTS: &[u8];

    /// Takes a line that has more than a comment, without that and the spaces around it. Of the
    /// comment it gets what fits into `LINE_MAX`.
    ///
    /// # Errors
    /// What is wrong with the line; its number is added.
    fn take(&mut self, line: &str, comment: &[u8]) -> Result<(), String>;

    /// Makes the list, after the last line.
    ///
    /// # Errors
    /// What is wrong with the file as a whole.
    fn finish(self) -> Result<Self::List, String>;

    /// Whether a list may replace the last good one.
    ///
    /// # Errors
    /// Why not.
    fn may_replace(_list: &Self::List, _before: &Self::List) -> Result<(), String> {
        Ok(())
    }
}

/// The files of one kind that are followed, with their last good lists.
pub(super) struct ListFiles<F: ListFile> {
    by_path: BTreeMap<PathBuf, Followed<F::List>>,
    /// How often a file began to be followed.
    begun: u64,
    /// From one look at a file to the next.
    pause: Duration,
    sender: mpsc::Sender<News<F::List>>,
    news: mpsc::Receiver<News<F::List>>,
}

/// A file that is followed.
pub(super) struct Followed<T> {
    /// The number of its task: news of earlier ones are out of date.
    number: u64,
    /// What it has, or had when it last was good.
    pub(super) list: Arc<T>,
    /// The version that the list was read from.
    version: Version,
    /// What was wrong with it at the last look, with its path.
    pub(super) error: Option<String>,
    task: AbortHandle,
}

impl<T> Drop for Followed<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A file that was read to be followed.
pub(super) struct FileRead<T> {
    pub(super) path: PathBuf,
    version: Version,
    pub(super) list: Arc<T>,
}

/// The last good list of each followed file, with the version that it was read from.
pub(super) type Known<T> = BTreeMap<PathBuf, (Version, Arc<T>)>;

/// What a task has read, or what is wrong with its file.
pub(super) struct News<T> {
    path: PathBuf,
    number: u64,
    outcome: Result<(Version, T), String>,
}

/// Reads those of these files that are not known, or have changed. May take long.
///
/// # Errors
/// A file and what is wrong with it.
pub(super) fn read_all<'a, F: ListFile>(
    files: impl IntoIterator<Item = &'a PathBuf>,
    known: &Known<F::List>,
) -> Result<Vec<FileRead<F::List>>, String> {
    let mut all = Vec::new();
    for path in files {
        let before = known.get(path);
        if before.is_some_and(|(version, _)| Look::at(path).version == Ok(*version)) {
            continue;
        }
        let (version, list) = read::<F>(path, None).map_err(|error| about(path, &error))?;
        if let Some((_, before)) = before {
            F::may_replace(&list, before).map_err(|why| about(path, &why))?;
        }
        all.push(FileRead {
            path: path.clone(),
            version,
            list: Arc::new(list),
        });
    }
    Ok(all)
}

/// What is wrong with a file called so, in a sentence, if anything. May take long.
pub(super) fn mistake_in<F: ListFile>(path: &Path, name: &str) -> Option<String> {
    let at = path.display();
    Some(match read::<F>(path, None).err()? {
        ReadError::Unread(error) if is_missing(&error) => format!("{name}, `{at}`, does not exist"),
        ReadError::Unread(error) => format!("cannot read {name}, `{at}`: {error}"),
        error @ (ReadError::Changed | ReadError::Mistake(_)) => format!("{name}, `{at}`: {error}"),
    })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

impl<F: ListFile> ListFiles<F> {
    /// Follows nothing yet.
    pub(super) fn new() -> Self {
        Self::at_pace(LOOK)
    }

    fn at_pace(pause: Duration) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        Self {
            by_path: BTreeMap::new(),
            begun: 0,
            pause,
            sender,
            news,
        }
    }

    /// A file that is followed.
    pub(super) fn get(&self, path: &Path) -> Option<&Followed<F::List>> {
        self.by_path.get(path)
    }

    /// All files that are followed.
    pub(super) fn all(&self) -> impl Iterator<Item = &Followed<F::List>> {
        self.by_path.values()
    }

    /// What [`read_all`] need not read again.
    pub(super) fn known(&self) -> Known<F::List> {
        let files = self.by_path.iter();
        let known = files.map(|(path, its)| (path.clone(), (its.version, Arc::clone(&its.list))));
        known.collect()
    }

    /// Follows these files and no others: those that were read for this, and those of `paths` that
    /// are followed already. Answers with the lists that are no longer used. To be called inside
    /// the control thread's runtime.
    pub(super) fn follow(
        &mut self,
        read: Vec<FileRead<F::List>>,
        paths: impl IntoIterator<Item = PathBuf>,
    ) -> Vec<Arc<F::List>> {
        let mut before = std::mem::take(&mut self.by_path);
        for FileRead {
            path,
            version,
            list,
        } in read
        {
            self.begun += 1;
            let file = Follower::after(path.clone(), version);
            let news = (path.clone(), self.begun, self.sender.clone());
            let task = send_news::<F>(file, self.pause, news);
            let followed = Followed {
                number: self.begun,
                list,
                version,
                error: None,
                task: tokio::spawn(task).abort_handle(),
            };
            self.by_path.insert(path, followed);
        }
        for path in paths {
            if !self.by_path.contains_key(&path)
                && let Some(followed) = before.remove(&path)
            {
                self.by_path.insert(path, followed);
            }
        }
        let left = before.into_values().map(|its| Arc::clone(&its.list));
        left.collect()
    }

    /// Waits until a file has changed. The future can be dropped without loss.
    pub(super) async fn changed(&mut self) -> News<F::List> {
        let news = self.news.recv().await;
        news.expect("a sender is kept here, so the channel stays open")
    }

    /// Takes in what was read. Answers with the file and the list that is replaced, or with the
    /// file that has an error now; `None`: it is no longer followed.
    pub(super) fn take(&mut self, news: News<F::List>) -> Option<Taken<'_, F::List>> {
        let file = self.by_path.get_mut(&news.path)?;
        if file.number != news.number {
            return None;
        }
        let outcome = news.outcome.and_then(|(version, list)| {
            let refused = F::may_replace(&list, &file.list);
            refused.map_err(|why| about(&news.path, &why))?;
            Ok((version, list))
        });
        let replaced = match outcome {
            Ok((version, list)) => {
                (file.error, file.version) = (None, version);
                Some(std::mem::replace(&mut file.list, Arc::new(list)))
            }
            Err(error) => {
                file.error = Some(error);
                None
            }
        };
        Some(Taken {
            path: news.path,
            file,
            replaced,
        })
    }
}

/// A file whose news were taken in.
pub(super) struct Taken<'a, T> {
    pub(super) path: PathBuf,
    pub(super) file: &'a Followed<T>,
    /// The list before; `None`: it stays, and the file has an error.
    pub(super) replaced: Option<Arc<T>>,
}

async fn send_news<F: ListFile>(
    mut file: Follower<F>,
    pause: Duration,
    (path, number, sender): (PathBuf, u64, mpsc::Sender<News<F::List>>),
) {
    loop {
        let news = News {
            path: path.clone(),
            number,
            outcome: file.changed(pause).await,
        };
        // Without a receiver the balancer is ending, and this task with it.
        let _ = sender.send(news).await;
    }
}

fn about(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}

/// The list of a text.
pub(super) fn parse_text<F: ListFile>(text: impl io::Read) -> Result<F::List, String> {
    lines::parse::<F>(text, 0).map_err(|error| error.to_string())
}

/// News that wait to be taken in; tasks wait with more.
const NEWS: usize = 4;
/// From one look at a file to the next.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
