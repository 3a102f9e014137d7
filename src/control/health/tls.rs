//! TLS of probes, by rustls over the nonblocking stream.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::address::Address;
use crate::config::{CheckTls, Verify};
use crate::sys;

use super::failure::{Closed, Failure};
use super::stream::Stream;

/// What every probe of a check makes its connections of, loaded when first wanted.
#[derive(Debug)]
pub(super) struct Client {
    settings: CheckTls,
    // Shared by the tasks of a check's targets; never borrowed over a wait.
    loaded: RefCell<Option<Loaded>>,
}

#[derive(Debug)]
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
            loaded: RefCell::new(None),
        }
    }

    /// A failure is not looked into again for a while: probing must cost no more when it fails.
    fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let now = sys::monotonic();
        let mut loaded = self.loaded.borrow_mut();
        if let Some(old) = &*loaded
            && (old.made.is_ok() || now.saturating_sub(old.at) < RETRY)
        {
            return old.made.clone();
        }
        let made = config(&self.settings);
        *loaded = Some(Loaded {
            made: made.clone(),
            at: now,
            version: self.version(),
        });
        made
    }

    /// Forgets what was loaded from a file that has changed since.
    pub(super) fn refresh(&self) {
        let mut loaded = self.loaded.borrow_mut();
        if loaded
            .as_ref()
            .is_some_and(|loaded| loaded.version != self.version())
        {
            *loaded = None;
        }
    }

    fn version(&self) -> Option<Version> {
        match &self.settings.verify {
            Verify::Off | Verify::System => None,
            Verify::File(path) => {
                let found = fs::metadata(path).ok()?;
                Some((found.len(), found.modified().ok()))
            }
        }
    }

    /// Shakes hands.
    pub(super) async fn secure(&self, stream: Stream, to: &Address) -> Result<Secured, Failure> {
        let name = self.server_name(to)?;
        let connection = ClientConnection::new(self.config()?, name).map_err(misdone)?;
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
    fn server_name(&self, to: &Address) -> Result<ServerName<'static>, Failure> {
        match (&self.settings.sni, to, &self.settings.verify) {
            (Some(name), _, _) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Unfit(format!("`{name}` is no server name"))),
            (None, Address::Tcp(address), _) => Ok(address.ip().into()),
            // It is neither sent nor looked at.
            (None, Address::Unix(_), Verify::Off) => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
            (None, Address::Unix(_), Verify::System | Verify::File(_)) => Err(Failure::Unfit(
                "a Unix socket has no name to verify a certificate for".to_owned(),
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
            return Err(misdone(error));
        }
        Ok(length)
    }
}

fn misdone(error: rustls::Error) -> Failure {
    Failure::Tls(error.to_string())
}

fn config(settings: &CheckTls) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(misdone)?;
    let builder =
        match &settings.verify {
            Verify::Off => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
            Verify::System => builder.with_root_certificates(system()?),
            Verify::File(path) => builder.with_root_certificates(file(path).map_err(|why| {
                Failure::Unfit(format!("{} can't be used: {why}", path.display()))
            })?),
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
            "this machine trusts no certificate{why}"
        )));
    }
    Ok(roots)
}

/// The certificates of a PEM file (RFC 7468).
fn file(path: &Path) -> Result<RootCertStore, String> {
    let said = |error: io::Error| error.to_string();
    // A pipe would have this thread wait.
    if !fs::metadata(path).map_err(said)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(said)?;
    file.take(PEM_MAX).read_to_end(&mut text).map_err(said)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
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
