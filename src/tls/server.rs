//! TLS with clients, by rustls' interface without buffers of its own.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::{Error, ServerConfig, SupportedProtocolVersion, version};

use super::failure::NO_CERTIFICATE;
use super::rustls_records::RustlsRecords;
use super::words::Progress;
use super::{Certificates, ClientTrust, Foreseen, HelloAsked, Records, Terminate, TlsFailure};

/// What a listener's TLS is made from.
#[derive(Debug)]
pub struct ServerSettings {
    /// The certificates.
    pub certificates: Arc<Certificates>,
    /// Which versions and ciphers are spoken.
    pub policy: Policy,
    /// The application protocols, the preferred one first (ALPN; RFC 7301). Empty: none is agreed
    /// on.
    pub protocols: Vec<String>,
    /// What clients have to show; `None`: they are asked for nothing.
    pub clients: Option<ClientTrust>,
}

/// Versions and cipher suites by name, as Mozilla's recommendations have them
/// (wiki.mozilla.org/Security/Server_Side_TLS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// TLS 1.3 alone.
    Modern,
    /// TLS 1.2 and 1.3, with forward secrecy and authenticated encryption only.
    #[default]
    Intermediate,
}

impl Policy {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Modern => &MODERN,
            Self::Intermediate => &INTERMEDIATE,
        }
    }
}

/// The TLS of a listener.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    clients: Option<ClientTrust>,
}

impl TlsServer {
    /// The TLS of a listener with these settings. `before` is that of the same listener, so that
    /// its clients may resume; tickets are never shared by listeners, as a ticket of one must not
    /// open another that asks for certificates (CVE-2025-23419). For the same reason none outlives
    /// what clients had to show for it: a client that resumes is not verified again.
    ///
    /// # Errors
    /// The settings don't fit together, or the system has no random bytes.
    pub fn new(settings: &ServerSettings, before: Option<&Self>) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(settings.policy.versions())?;
        let builder = match &settings.clients {
            None => builder.with_no_client_auth(),
            Some(trust) => builder.with_client_cert_verifier(trust.verifier()),
        };
        let certificates = Arc::clone(&settings.certificates);
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = settings
            .protocols
            .iter()
            .map(|its| its.clone().into())
            .collect();
        // Tickets hold the session, so that workers share nothing but their keys.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before.filter(|before| before.clients == settings.clients) {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => ring::Ticketer::new()?,
        };
        config.send_tls13_tickets = TICKETS;
        let config = Arc::new(config);
        UnbufferedServerConnection::new(Arc::clone(&config))?;
        Ok(Self {
            config,
            certificates: Arc::clone(&settings.certificates),
            clients: settings.clients.clone(),
        })
    }
}

impl Terminate for TlsServer {
    fn begin(&self) -> Box<dyn Records> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config));
        let connection = connection.expect("the same was made when the settings were read");
        Box::new(RustlsRecords::new(connection))
    }

    fn foresee(&self, hello: &HelloAsked<'_>) -> Result<Foreseen, TlsFailure> {
        let fails = |error: Error| Err(TlsFailure::of_client(&error, Progress::Hello));
        // rustls takes an address for no name (RFC 6066, section 3, allows none there).
        let is_name = |name: &&str| name.parse::<IpAddr>().is_err();
        if !self.certificates.has(hello.server_name.filter(is_name)) {
            return fails(Error::General(NO_CERTIFICATE.to_owned()));
        }
        let own = &self.config.alpn_protocols;
        let mut shared = own.iter().filter_map(|own| {
            let mut offers = hello.protocols.iter();
            offers.find(|offer| offer.as_bytes() == own)
        });
        let protocol = shared.next().cloned();
        if protocol.is_none() && !own.is_empty() && !hello.protocols.is_empty() {
            return fails(Error::NoApplicationProtocol);
        }
        let is_required = self.clients.as_ref().is_some_and(ClientTrust::is_required);
        if is_required && !hello.shows_certificate {
            return fails(Error::NoCertificatesPresented);
        }
        Ok(Foreseen {
            protocol,
            asks_for_certificate: self.clients.is_some(),
        })
    }
}

/// What cryptography is done by: ring builds with a C compiler alone.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

static MODERN: [&SupportedProtocolVersion; 1] = [&version::TLS13];
static INTERMEDIATE: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
/// Tickets that each client of TLS 1.3 gets: one resumes, and browsers open two at once.
const TICKETS: usize = 2;
