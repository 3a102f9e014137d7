//! TLS that a check has of its own: its certificates are read once, and again when they may have
//! changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::sync::Notify;

use crate::config::BackendTls;
use crate::control::aside;
use crate::control::file_watch::{FileVersion, Look};
use crate::control::tls::client_settings;
use crate::sys;
use crate::time::SECOND;
use crate::tls::TlsClient;

use super::failure::Failure;

/// The TLS client of all probes of a check with TLS of its own. It loads certificates when it is
/// first used.
#[derive(Debug)]
pub(super) struct OwnTls {
    settings: BackendTls,
    // Shared by the tasks of the check's targets; never borrowed across an await.
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    loaded: RefCell<Option<Loaded>>,
    /// The file may have changed since it was loaded.
    stale: Cell<bool>,
    /// A thread loads the certificates, or looks whether their file has changed: one at a time, as
    /// files may hang.
    loading: Cell<bool>,
    /// Why the file is not used as it is now, while what it held before is.
    refused: RefCell<Option<Failure>>,
    /// Notified when that thread has ended.
    ended: Notify,
}

#[derive(Clone, Debug)]
struct Loaded {
    made: Made,
    /// When it was made, in ns of the workers' clock.
    at: u64,
    /// The versions of the files that it was made from.
    versions: Vec<FileVersion>,
}

type Made = Result<Arc<TlsClient>, Failure>;

impl OwnTls {
    pub(super) fn new(settings: &BackendTls) -> Self {
        Self {
            settings: settings.clone(),
            shared: Rc::default(),
        }
    }

    /// The client. After a failure it is not loaded again for a while, so that
    /// probes cost no more when they fail.
    ///
    /// A file that was good stays in use as it was: while a tool replaces it, it may be away or
    /// half written, which says nothing about the backends.
    pub(super) async fn client(&self) -> Result<Arc<TlsClient>, Failure> {
        let shared = &self.shared;
        loop {
            let old = shared.loaded.borrow().clone();
            let recent = |its: &Loaded| sys::monotonic().saturating_sub(its.at) < RETRY;
            let again = shared.refused.borrow().is_some() && !old.as_ref().is_some_and(recent);
            let is_stale = shared.stale.get() || again;
            let old = old.filter(|its| its.made.is_ok() || recent(its));
            match old {
                Some(old) if !is_stale => return old.made,
                Some(old) if old.made.is_ok() => {
                    self.load();
                    let ended = tokio::time::timeout(LOOK_TIME, shared.ended.notified()).await;
                    if ended.is_err() {
                        return old.made;
                    }
                }
                Some(_) | None => {
                    self.load();
                    shared.ended.notified().await;
                }
            }
        }
    }

    /// Behaves as while a thread reads a file that hangs.
    #[cfg(test)]
    pub(super) fn hang(&self) {
        self.shared.loading.set(true);
    }

    /// Loads it on another thread, if the file has changed.
    fn load(&self) {
        if self.shared.loading.replace(true) {
            return;
        }
        self.shared.stale.set(false);
        let settings = self.settings.clone();
        let old = self.shared.loaded.borrow().clone();
        let old = old.filter(|its| its.made.is_ok()).map(|its| its.versions);
        let path = settings.files().next().cloned();
        let load = move || {
            let versions = versions(&settings);
            (old.as_ref() != Some(&versions)).then(|| (client(&settings), versions))
        };
        let shared = Rc::clone(&self.shared);
        tokio_uring::spawn(async move {
            let loaded = match path {
                Some(path) => aside::look(&path, load).await.ok(),
                None => aside::read(load).await.ok(),
            };
            let no_thread = || {
                let why = "cannot read certificates: no thread can be created";
                Some((Err(Failure::Lacking(why.to_owned())), Vec::new()))
            };
            shared.take_in(loaded.unwrap_or_else(no_thread));
            shared.loading.set(false);
            shared.ended.notify_waiters();
        });
    }

    /// Has the certificates loaded again if their file has changed.
    pub(super) fn refresh(&self) {
        self.shared.stale.set(true);
    }
}

impl Shared {
    /// Takes over what was loaded; `None`: the file is as it was.
    fn take_in(&self, loaded: Option<(Made, Vec<FileVersion>)>) {
        let mut kept = self.loaded.borrow_mut();
        let good = kept.as_mut().filter(|its| its.made.is_ok());
        let at = sys::monotonic();
        match (loaded, good) {
            (Some((Err(failure), _)), Some(good)) => {
                good.at = at;
                if self.refused.replace(Some(failure.clone())).as_ref() != Some(&failure) {
                    let why = failure.reason();
                    log::warn!("{why}; probes go on with the certificates that it held before");
                }
                return;
            }
            (Some((made, versions)), _) => *kept = Some(Loaded { made, at, versions }),
            (None, _) => {}
        }
        self.refused.take();
    }
}

/// What tells the versions of its files from others.
fn versions(settings: &BackendTls) -> Vec<FileVersion> {
    let paths = settings.files();
    paths.map(|path| Look::at(path).version).collect()
}

/// May take long.
fn client(settings: &BackendTls) -> Made {
    // That certificates can't be read says nothing about the backend.
    let settings = client_settings(settings).map_err(Failure::Lacking)?;
    let client = TlsClient::new(&settings);
    client
        .map(Arc::new)
        .map_err(|error| Failure::Lacking(error.to_string()))
}

/// The certificates that this machine trusts.
pub(in crate::control) fn system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some of a machine's certificates may be unusable.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first();
        let why = why.map_or_else(String::new, |error| format!(": {error}"));
        return Err(format!(
            "cannot verify certificates: this machine trusts none{why}; name a file in `verify`"
        ));
    }
    Ok(roots)
}

/// Checks whether the files of probes hold what they are to hold. May take long.
pub(in crate::control) fn can_use(settings: &BackendTls) -> Result<(), String> {
    client_settings(settings).map(drop)
}

/// From one attempt to load certificates to the next.
const RETRY: u64 = 10 * SECOND;
/// How long probes wait for the look whether a file has changed. Then they use what was loaded
/// before.
const LOOK_TIME: Duration = Duration::from_millis(500);
