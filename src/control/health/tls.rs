//! TLS of probes: rustls over a nonblocking stream.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::{ClientConfig, ClientConnection};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::sync::Notify;

use crate::address::Address;
use crate::config::{CheckTls, Verify};
use crate::control::aside;
use crate::control::file_watch::{FileVersion, Look};
use crate::control::tls::certified;
use crate::sys;
use crate::time::SECOND;
use crate::tls::{ClientSettings, server_fault};

use super::failure::{Closed, Failure};
use super::stream::ProbeStream;

/// The TLS client of all probes of a check. It loads certificates when it is first used.
#[derive(Debug)]
pub(super) struct ProbeTls {
    settings: CheckTls,
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

type Made = Result<Arc<ClientConfig>, Failure>;

impl ProbeTls {
    pub(super) fn new(settings: &CheckTls) -> Self {
        Self {
            settings: settings.clone(),
            shared: Rc::default(),
        }
    }

    /// The client's configuration. After a failure it is not loaded again for a while, so that
    /// probes cost no more when they fail.
    ///
    /// A file that was good stays in use as it was: while a tool replaces it, it may be away or
    /// half written, which says nothing about the backends.
    async fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
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

    /// Loads what is needed before a probe begins. A file may hang: that says nothing about the
    /// backend, and no probe is made until the file has been read.
    pub(super) async fn prepare(&self, within: Duration) -> Result<(), Failure> {
        match tokio::time::timeout(within, self.config()).await {
            Ok(config) => config.map(drop),
            Err(_) => Err(Failure::Lacking(
                "its certificates are still being read".to_owned(),
            )),
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
            (old.as_ref() != Some(&versions)).then(|| (config(&settings), versions))
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

    /// Does the TLS handshake.
    pub(super) async fn secure(
        &self,
        stream: ProbeStream,
        to: &Address,
        host: Option<&str>,
    ) -> Result<Secured, Failure> {
        let name = self.server_name(to, host)?;
        let connection =
            ClientConnection::new(self.config().await?, name).map_err(|error| failure(&error))?;
        let mut secured = Secured {
            stream,
            connection: Box::new(connection),
        };
        while secured.connection.is_handshaking() {
            secured.flush().await?;
            if secured.connection.is_handshaking() && secured.receive().await? == 0 {
                return Err(Failure::Closed(Closed::Handshake));
            }
        }
        secured.flush().await?;
        if !self.settings.alpn.is_empty() && secured.connection.alpn_protocol().is_none() {
            return Err(Failure::Alpn);
        }
        Ok(secured)
    }

    /// The name that the certificate must have.
    fn server_name(
        &self,
        to: &Address,
        host: Option<&str>,
    ) -> Result<ServerName<'static>, Failure> {
        // Not every host name can be in a certificate.
        let host = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
        if let Some(host) = host.filter(|_| self.settings.sni.is_none()) {
            return Ok(host);
        }
        match (&self.settings.sni, to, &self.settings.verify) {
            (Some(name), _, _) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Unfit(format!("invalid sni `{name}`: expected a host name"))),
            (None, Address::Tcp(address), _) => Ok(address.ip().into()),
            // The name is neither sent nor verified.
            (None, Address::Unix(_), Verify::Off) => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
            (None, Address::Unix(_), Verify::System | Verify::File(_)) => Err(Failure::Unfit(
                "a Unix socket has no name to verify a certificate for: set `sni`".to_owned(),
            )),
        }
    }
}

/// A TLS connection.
#[derive(Debug)]
pub(super) struct Secured {
    stream: ProbeStream,
    connection: Box<ClientConnection>,
}

impl Secured {
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.chunks(PART) {
            // rustls takes no more than its buffer of 64 KiB holds, which is empty here.
            io::Write::write_all(&mut self.connection.writer(), part)
                .map_err(|error| Failure::broken(&error))?;
            self.flush().await?;
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.connection.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The end without close_notify (RFC 8446, section 6.1).
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other.map_err(|error| Failure::broken(&error)),
            }
            // rustls may have something to send, such as an answer to a key update.
            self.flush().await?;
            self.receive().await?;
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        while self.connection.wants_write() {
            let connection = &mut self.connection;
            let sent = self
                .stream
                .send(|mut socket| connection.write_tls(&mut socket));
            sent.await.map_err(|error| Failure::broken(&error))?;
        }
        Ok(())
    }

    /// Receives. 0: the end.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let connection = &mut self.connection;
        let received = self
            .stream
            .receive(|mut socket| connection.read_tls(&mut socket));
        let length = received.await.map_err(|error| Failure::broken(&error))?;
        if let Err(error) = self.connection.process_new_packets() {
            // Sends the alert if there is room for it: the probe has failed anyway.
            let sent =
                self.stream
                    .send(|mut socket| match self.connection.write_tls(&mut socket) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                        other => other,
                    });
            let _ = sent.await;
            return Err(failure(&error));
        }
        Ok(length)
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

/// Why the handshake of a probe, or what followed it, failed.
fn failure(error: &rustls::Error) -> Failure {
    match server_fault(error) {
        Some(why) => Failure::Tls(why),
        None => Failure::Alpn,
    }
}

/// What tells the versions of its files from others.
fn versions(settings: &CheckTls) -> Vec<FileVersion> {
    let paths = settings.files();
    paths.map(|path| Look::at(path).version).collect()
}

fn config(settings: &CheckTls) -> Result<Arc<ClientConfig>, Failure> {
    let authorities = match &settings.verify {
        Verify::Off => None,
        // That certificates can't be read says nothing about the backend.
        Verify::System => Some(system().map_err(Failure::Lacking)?),
        Verify::File(path) => Some(file(path).map_err(Failure::Lacking)?),
    };
    let certificate = settings.certificate.as_ref().map(certified);
    let certificate = certificate.map(|read| read.map(|(key, _)| key));
    let settings_of_tls = ClientSettings {
        name: settings.sni.clone(),
        policy: settings.policy.policy(),
        protocols: settings.alpn.clone(),
        authorities,
        certificate: certificate.transpose().map_err(Failure::Lacking)?,
    };
    // Nothing is resumed: each probe is to be like any new client.
    let config = settings_of_tls.config();
    let mut config = config.map_err(|error| failure(&error))?;
    config.enable_sni = settings.sni.is_some();
    Ok(Arc::new(config))
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
pub(in crate::control) fn can_use(settings: &CheckTls) -> Result<(), String> {
    if let Verify::File(path) = &settings.verify {
        file(path)?;
    }
    let own = settings.certificate.as_ref();
    own.map_or(Ok(()), |own| certified(own).map(drop))
}

/// The certificates of a PEM file (RFC 7468).
fn file(path: &Path) -> Result<RootCertStore, String> {
    let unfit = |why: String| format!("cannot use {}: {why}", path.display());
    let mut text = Vec::new();
    let opened = sys::open_regular(path);
    let read = opened.and_then(|file| file.take(PEM_MAX).read_to_end(&mut text));
    read.map_err(|error| unfit(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| unfit(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unfit("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// Bytes that rustls gets at a time.
const PART: usize = 16 * 1024;
/// Bytes of a certificate file that are read; the rest is ignored.
const PEM_MAX: u64 = 4 << 20;
/// From one attempt to load certificates to the next.
const RETRY: u64 = 10 * SECOND;
/// How long probes wait for the look whether a file has changed. Then they use what was loaded
/// before.
const LOOK_TIME: Duration = Duration::from_millis(500);
