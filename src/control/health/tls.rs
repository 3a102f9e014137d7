//! TLS of probes, by rustls over the nonblocking stream.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::Notify;

use crate::address::Address;
use crate::config::{CheckTls, Verify};
use crate::control::aside;
use crate::sys;

use super::failure::{Closed, Failure};
use super::stream::Stream;
use super::tls_failure;

/// What every probe of a check makes its connections of, loaded when first wanted.
#[derive(Debug)]
pub(super) struct Client {
    settings: CheckTls,
    // Shared by the tasks of a check's targets; never borrowed over a wait.
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    loaded: RefCell<Option<Loaded>>,
    /// The file may have changed since.
    stale: Cell<bool>,
    /// It is being loaded, or looked at: by one thread at a time, as files may hang.
    loading: Cell<bool>,
    /// That has ended.
    ended: Notify,
}

#[derive(Clone, Debug)]
struct Loaded {
    made: Result<Arc<ClientConfig>, Failure>,
    /// When it was made, in ns of the workers' clock.
    at: u64,
    /// Of the file that it was made from.
    version: Option<Version>,
}

/// By what a file is known to be another: its length and when it was written.
type Version = (u64, Option<SystemTime>);

impl Client {
    pub(super) fn new(settings: &CheckTls) -> Self {
        Self {
            settings: settings.clone(),
            shared: Rc::default(),
        }
    }

    /// A failure is not looked into again for a while: probing must cost no more when it fails.
    async fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let shared = &self.shared;
        loop {
            let old = shared.loaded.borrow().clone();
            let recent = |its: &Loaded| sys::monotonic().saturating_sub(its.at) < RETRY;
            let old = old.filter(|its| its.made.is_ok() || recent(its));
            match old {
                Some(old) if !shared.stale.get() => return old.made,
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

    /// Loads it on another thread, if it is not the same still.
    fn load(&self) {
        if self.shared.loading.replace(true) {
            return;
        }
        self.shared.stale.set(false);
        let settings = self.settings.clone();
        let old = self.shared.loaded.borrow().clone();
        let old = old.filter(|its| its.made.is_ok()).map(|its| its.version);
        let path = match &settings.verify {
            Verify::File(path) => Some(path.clone()),
            Verify::Off | Verify::System => None,
        };
        let load = move || {
            let version = version(&settings);
            (old != Some(version)).then(|| (config(&settings), version))
        };
        let shared = Rc::clone(&self.shared);
        tokio_uring::spawn(async move {
            let loaded = match path {
                Some(path) => aside::look(&path, load).await.ok(),
                None => aside::read(load).await.ok(),
            };
            let no_thread = || {
                let why = "no thread can be made to read certificates";
                Some((Err(Failure::Lacking(why.to_owned())), None))
            };
            if let Some((made, version)) = loaded.unwrap_or_else(no_thread) {
                let at = sys::monotonic();
                shared.loaded.replace(Some(Loaded { made, at, version }));
            }
            shared.loading.set(false);
            shared.ended.notify_waiters();
        });
    }

    /// What was loaded from a file that has changed since is to be forgotten.
    pub(super) fn refresh(&self) {
        self.shared.stale.set(true);
    }

    /// Shakes hands.
    pub(super) async fn secure(
        &self,
        stream: Stream,
        to: &Address,
        host: Option<&str>,
    ) -> Result<Secured, Failure> {
        let name = self.server_name(to, host)?;
        let connection = ClientConnection::new(self.config().await?, name)
            .map_err(|error| tls_failure::failure(&error))?;
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

    /// Whom the certificate must be for.
    fn server_name(
        &self,
        to: &Address,
        host: Option<&str>,
    ) -> Result<ServerName<'static>, Failure> {
        // A host name may be none that a certificate can have.
        let host = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
        if let Some(host) = host.filter(|_| self.settings.sni.is_none()) {
            return Ok(host);
        }
        match (&self.settings.sni, to, &self.settings.verify) {
            (Some(name), _, _) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Unfit(format!("invalid sni `{name}`: expected a host name"))),
            (None, Address::Tcp(address), _) => Ok(address.ip().into()),
            // It is neither sent nor looked at.
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
    stream: Stream,
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
                // The end without the notice of it (RFC 8446, section 6.1).
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other.map_err(|error| Failure::broken(&error)),
            }
            // What rustls has to say in between, such as an answer to a key update.
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

    /// Takes what has come. 0: the end.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let connection = &mut self.connection;
        let received = self
            .stream
            .receive(|mut socket| connection.read_tls(&mut socket));
        let length = received.await.map_err(|error| Failure::broken(&error))?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert, as far as there is room for it: the probe has failed by now.
            let sent =
                self.stream
                    .send(|mut socket| match self.connection.write_tls(&mut socket) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                        other => other,
                    });
            let _ = sent.await;
            return Err(tls_failure::failure(&error));
        }
        Ok(length)
    }
}

fn version(settings: &CheckTls) -> Option<Version> {
    match &settings.verify {
        Verify::Off | Verify::System => None,
        Verify::File(path) => {
            let found = fs::metadata(path).ok()?;
            Some((found.len(), found.modified().ok()))
        }
    }
}

fn config(settings: &CheckTls) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_failure::failure(&error))?;
    let builder = match &settings.verify {
        Verify::Off => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        Verify::System => builder.with_root_certificates(system()?),
        Verify::File(path) => builder.with_root_certificates(file(path)?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|protocol| protocol.clone().into_bytes())
        .collect();
    config.enable_sni = settings.sni.is_some();
    // Each probe is to be like any new client.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What the machine trusts.
fn system() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some of a machine's certificates may be unfit.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first();
        let why = why.map_or_else(String::new, |error| format!(": {error}"));
        return Err(Failure::Unfit(format!(
            "this machine trusts no certificate{why}; name a file in `verify`"
        )));
    }
    Ok(roots)
}

/// Whether a file holds certificates that probes can use, or why not.
pub(in crate::control) fn can_use(path: &Path) -> Result<(), String> {
    let found = file(path).map(drop);
    found.map_err(|failure| failure.to_string())
}

/// The certificates of a PEM file (RFC 7468).
fn file(path: &Path) -> Result<RootCertStore, Failure> {
    let unfit = |why: &str| Failure::Unfit(format!("cannot use {}: {why}", path.display()));
    let said = |error: io::Error| match Failure::broken(&error) {
        // No descriptor or memory is left: that tells nothing of the backend.
        lack if !lack.is_telling() => lack,
        _ => unfit(&error.to_string()),
    };
    let mut text = Vec::new();
    let file = sys::open_regular(path).map_err(said)?;
    file.take(PEM_MAX).read_to_end(&mut text).map_err(said)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unfit(&error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| unfit(&error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unfit("it holds no certificate"));
    }
    Ok(roots)
}

/// Takes any certificate: the handshake alone is probed.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// What is handed to rustls at a time.
const PART: usize = 16 * 1024;
/// Of a file of certificates; what is beyond is not read.
const PEM_MAX: u64 = 4 << 20;
/// From one attempt to load certificates to the next, in ns.
const RETRY: u64 = 10_000_000_000;
/// How long probes wait to see whether a file has changed: then they use what was loaded before.
const LOOK_TIME: Duration = Duration::from_millis(500);
