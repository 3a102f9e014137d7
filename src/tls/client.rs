//! TLS with backends, by rustls' interface without buffers of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConfig, ClientConnection, ResolvesClientCert, Resumption, UnbufferedClientConnection,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme};

use super::postgres::AskingRecords;
use super::rustls_records::RustlsRecords;
use super::words::Progress;
use super::{FailureKind, Originate, Policy, Records, ServerAt, ServerTrust, TlsFailure, provider};
use crate::address::Address;

/// What the TLS of a pool's backends is made from.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The name that backends are asked for, and that their certificates must have; `None`: the
    /// host name of each, or its address.
    pub name: Option<String>,
    /// Which versions and ciphers are spoken.
    pub policy: Policy,
    /// The application protocols that are offered (ALPN; RFC 7301).
    pub protocols: Vec<String>,
    /// Which of their certificates are accepted; `None`: they are not verified.
    pub trust: Option<ServerTrust>,
    /// The certificate that is shown to backends that ask for one.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Backends are asked for TLS first, by PostgreSQL's request.
    pub asks_as_postgres: bool,
}

impl ClientSettings {
    /// The settings of rustls. Nothing is resumed by them.
    ///
    /// # Errors
    /// The settings don't fit together.
    pub fn config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(self.policy.versions())?;
        let builder = match &self.trust {
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
            Some(trust) => builder.with_webpki_verifier(trust.verifier()),
        };
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(key) => {
                let own = SingleCertAndKey::from(Arc::clone(key));
                builder.with_client_cert_resolver(Arc::new(own))
            }
        };
        let protocols = self.protocols.iter();
        config.alpn_protocols = protocols.map(|its| its.clone().into_bytes()).collect();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The TLS of a pool's backends.
#[derive(Debug)]
pub struct TlsClient(RwLock<Configs>);

/// TLS of a probe.
#[derive(Debug)]
pub struct FreshTls {
    /// Its connection.
    pub connection: ClientConnection,
    /// The server is asked for TLS first, by PostgreSQL's request.
    pub asks_as_postgres: bool,
    asked: Arc<AtomicBool>,
}

impl FreshTls {
    /// Whether the server may refuse the client's certificate, or that there is none, after the
    /// handshake: TLS 1.3 verifies it then (RFC 8446, section 4.4.2.4).
    #[must_use]
    pub fn may_be_refused(&self) -> bool {
        let version = self.connection.protocol_version();
        version == Some(ProtocolVersion::TLSv1_3) && self.asked.load(Ordering::Relaxed)
    }
}

/// Shows the certificate of another resolver, and notes that the server asked for one.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn ResolvesClientCert>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Noting {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(issuers, schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

#[derive(Debug)]
struct Configs {
    name: Option<String>,
    /// What those of all backends are made from. Nothing is resumed by it.
    config: Arc<ClientConfig>,
    is_verified: bool,
    asks_as_postgres: bool,
    /// Each backend has tickets of its own: another one may not know them.
    by_address: HashMap<Address, Arc<ClientConfig>>,
}

impl TlsClient {
    /// The TLS of backends with these settings.
    ///
    /// # Errors
    /// The settings don't fit together.
    pub fn new(settings: &ClientSettings) -> Result<Self, Error> {
        Ok(Self(RwLock::new(Configs::new(settings)?)))
    }

    /// Has other settings take the place of those before, for connections that begin later.
    ///
    /// # Errors
    /// The settings don't fit together. Those before stay.
    pub fn replace(&self, settings: &ClientSettings) -> Result<(), Error> {
        *self.0.write() = Configs::new(settings)?;
        Ok(())
    }

    /// The TLS of a probe: it asks a backend for the same name by the same settings as connections
    /// do. Nothing is resumed, as a backend shows its certificate in full handshakes alone.
    ///
    /// # Errors
    /// The backend has no name that its certificate could have.
    pub fn probe(&self, server: ServerAt<'_>) -> Result<FreshTls, TlsFailure> {
        let (config, name, asks_as_postgres) = {
            let configs = self.0.read();
            let name = configs.server_name(server)?;
            (Arc::clone(&configs.config), name, configs.asks_as_postgres)
        };
        let mut config = Arc::unwrap_or_clone(config);
        let asked = Arc::new(AtomicBool::new(false));
        config.client_auth_cert_resolver = Arc::new(Noting {
            inner: config.client_auth_cert_resolver,
            asked: Arc::clone(&asked),
        });
        let connection = ClientConnection::new(Arc::new(config), name);
        let connection =
            connection.map_err(|error| TlsFailure::of_server(&error, Progress::Nothing))?;
        Ok(FreshTls {
            connection,
            asks_as_postgres,
            asked,
        })
    }

    /// What a backend is asked for, and with which settings: those of one moment.
    fn of(
        &self,
        server: ServerAt<'_>,
    ) -> Result<(ServerName<'static>, Arc<ClientConfig>), TlsFailure> {
        let configs = self.0.read();
        if let Some(known) = configs.by_address.get(server.address) {
            return Ok((configs.server_name(server)?, Arc::clone(known)));
        }
        drop(configs);
        let mut configs = self.0.write();
        let name = configs.server_name(server)?;
        if configs.by_address.len() >= ADDRESSES_MAX {
            configs.by_address.clear();
        }
        let mut config = ClientConfig::clone(&configs.config);
        config.resumption = Resumption::in_memory_sessions(NAMES_MAX);
        let config = Arc::new(config);
        let known = configs.by_address.entry(server.address.clone());
        Ok((name, Arc::clone(known.or_insert(config))))
    }
}

impl Configs {
    fn new(settings: &ClientSettings) -> Result<Self, Error> {
        Ok(Self {
            name: settings.name.clone(),
            config: Arc::new(settings.config()?),
            is_verified: settings.trust.is_some(),
            asks_as_postgres: settings.asks_as_postgres,
            by_address: HashMap::new(),
        })
    }

    /// The name that a backend is asked for.
    fn server_name(&self, server: ServerAt<'_>) -> Result<ServerName<'static>, TlsFailure> {
        // Where nothing is verified, a host name that no certificate can have is none to ask for.
        let can_be_asked = |host: &&str| self.is_verified || ServerName::try_from(*host).is_ok();
        let host = server.host.filter(can_be_asked);
        if let Some(name) = self.name.as_deref().or(host) {
            let unfit = |_| {
                let why = format!("`{name}` is no name that a certificate can have: set `sni`");
                TlsFailure::new(FailureKind::BadBackendCertificate, why)
            };
            return ServerName::try_from(name.to_owned()).map_err(unfit);
        }
        match server.address {
            Address::Tcp(address) => Ok(address.ip().into()),
            // The name is neither sent nor verified.
            Address::Unix(_) if !self.is_verified => Ok(std::net::Ipv4Addr::LOCALHOST.into()),
            Address::Unix(_) => {
                let why = "a Unix socket has no name to verify a certificate for: set `sni`";
                Err(TlsFailure::new(FailureKind::BadBackendCertificate, why))
            }
        }
    }
}

impl Originate for TlsClient {
    fn begin(&self, server: ServerAt<'_>) -> Result<Box<dyn Records>, TlsFailure> {
        let (name, config) = self.of(server)?;
        let connection = UnbufferedClientConnection::new(config, name);
        let connection =
            connection.map_err(|error| TlsFailure::of_server(&error, Progress::Nothing))?;
        let records = Box::new(RustlsRecords::new(connection));
        match self.0.read().asks_as_postgres {
            true => Ok(Box::new(AskingRecords::new(records))),
            false => Ok(records),
        }
    }
}

/// Accepts any certificate.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Backends whose tickets are kept at a time.
const ADDRESSES_MAX: usize = 4_096;
/// Names of one backend whose tickets are kept: its connections ask for one.
const NAMES_MAX: usize = 1;
