//! The file of the configuration: how it is read again, and watched.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::admin::Tokens;
use crate::config::{AccessLog, Config, ConfigError, TokenFiles};
use crate::control::access_log::Sink;
use crate::control::file_watch::{FileVersion, FileWatch, Look};
use crate::control::{access_lists, aside, bans, capacity, preflight, tls};

/// The file that the configuration came from.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The file.
    pub path: PathBuf,
    /// The digest of the text that is in force.
    pub digest: u128,
    /// What was seen of the file before it was read.
    pub seen: Seen,
    /// Reads the file again, and answers with the digest of its text too. May take long.
    pub read: fn(&Path) -> Result<(Config, u128), ConfigError>,
}

/// What was seen of a file at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen(FileVersion);

impl Seen {
    /// Looks now. Asks the file system, which may block.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self(Look::at(path).version)
    }
}

impl Reread {
    /// Reads the file and the tokens, and opens the log. All of it may block on a file system that
    /// does not answer.
    pub(super) fn read(&self, in_use: &InUse) -> Result<Box<Read>, String> {
        let (config, digest) = (self.read)(&self.path).map_err(|error| error.to_string())?;
        // What the next start would refuse.
        capacity::memory_of(&config).map_err(|error| error.to_string())?;
        let unfit = preflight::certificates(&config, &in_use.certificates);
        if let Some(error) = unfit.first() {
            return Err(error.to_string());
        }
        let access_files = access_lists::read_files(&config, &in_use.access_files);
        let access_files = access_files.map_err(|error| error.to_string())?;
        let tls_files = tls::read_files(&config);
        let tls_files = tls_files.map_err(|error| error.to_string())?;
        let ban_files = bans::read_import(&config, &in_use.ban_files);
        let ban_files = ban_files.map_err(|error| error.to_string())?;
        let tokens: Result<_, _> = in_use.tokens.iter().map(Tokens::read).collect();
        let tokens = tokens.map_err(|error| error.to_string())?;
        let open = |log: &AccessLog| Sink::open(log).map_err(|error| error.to_string());
        let log = if config.access_log == in_use.log {
            None
        } else {
            Some(config.access_log.as_ref().map(open).transpose()?)
        };
        Ok(Box::new(Read {
            config,
            digest,
            access_files,
            tls_files,
            ban_files,
            log,
            tokens,
        }))
    }
}

/// What is in use when a reading begins. It stays in use if the file names it again.
pub(super) struct InUse {
    pub(super) log: Option<AccessLog>,
    /// Where the tokens of each server are.
    pub(super) tokens: Vec<TokenFiles>,
    /// Files of certificates.
    pub(super) certificates: HashSet<PathBuf>,
    /// Files of access lists.
    pub(super) access_files: access_lists::KnownPrefixes,
    /// The file of imported bans.
    pub(super) ban_files: bans::KnownBans,
}

/// What was read, and what was opened for it.
pub(in crate::control) struct Read {
    pub(super) config: Config,
    pub(super) digest: u128,
    /// The files of access lists that were not followed before, or have changed.
    pub(super) access_files: Vec<access_lists::PrefixesRead>,
    /// The files of listeners' TLS.
    pub(super) tls_files: tls::TlsRead,
    /// The file of imported bans, likewise.
    pub(super) ban_files: Vec<bans::BansRead>,
    /// The new access log, if it is another one than before; `Some(None)`: none.
    pub(super) log: Option<Option<Sink>>,
    /// The new tokens of each server over HTTP.
    pub(super) tokens: Vec<Tokens>,
}

/// Watches the file by a look each second, where `reload_on_change` is set.
#[derive(Debug)]
pub(in crate::control) struct ConfigWatch {
    pub(super) file: RefCell<FileWatch>,
    /// Changes are to be noticed.
    pub(super) enabled: Cell<bool>,
    pub(super) changed: Notify,
}

impl ConfigWatch {
    /// Begins with what was seen before the file was read at the start. To be called inside the
    /// control thread's runtime.
    pub(in crate::control) fn begin(reread: &Reread) -> Rc<Self> {
        let mut file = FileWatch::new(reread.path.clone());
        file.mark_read(reread.seen.0);
        let watch = Rc::new(Self {
            file: RefCell::new(file),
            enabled: Cell::new(false),
            changed: Notify::new(),
        });
        tokio_uring::spawn(Rc::clone(&watch).run());
        watch
    }

    async fn run(self: Rc<Self>) {
        let path = self.file.borrow().path().to_owned();
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.enabled.get() {
                continue;
            }
            let its = path.clone();
            let look = aside::look(&path, move || Look::at(&its)).await;
            // A reading may have begun meanwhile.
            if let Ok(look) = look
                && self.enabled.get()
                && self.file.borrow_mut().consider(look).is_some()
            {
                self.changed.notify_one();
            }
        }
    }

    /// Waits for a change.
    pub(in crate::control) async fn changed(watch: Option<Rc<Self>>) {
        match watch {
            Some(watch) => watch.changed.notified().await,
            None => pending().await,
        }
    }
}

/// From one look at the file to the next.
const LOOK: Duration = Duration::from_secs(1);
