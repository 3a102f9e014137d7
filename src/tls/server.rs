//! TLS with clients, by rustls' interface without buffers of its own.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, version};

use super::{Agreed, Certificates, FailureKind, PLAIN_MAX, Records, Taken, TlsStanding};
use super::{Terminate, TlsFailure};

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
    /// The authorities of clients' certificates, and whether each client needs one; `None`: clients
    /// are not asked.
    pub clients: Option<(RootCertStore, bool)>,
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

/// The TLS of a listener.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// The TLS of a listener with these settings. `tickets` are those of the same listener before,
    /// so that its clients may resume; they are never shared by listeners, as a ticket of one must
    /// not open another that asks for certificates (CVE-2025-23419).
    ///
    /// # Errors
    /// The settings don't fit together, or the system has no random bytes.
    pub fn new(
        settings: &ServerSettings,
        tickets: Option<Arc<dyn ProducesTickets>>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let versions = match settings.policy {
            Policy::Modern => &[&version::TLS13][..],
            Policy::Intermediate => &[&version::TLS13, &version::TLS12][..],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions)?;
        let builder = match &settings.clients {
            None => builder.with_no_client_auth(),
            Some((roots, required)) => {
                let roots = Arc::new(roots.clone());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let verifier = verifier.build();
                let verifier = verifier.map_err(|why| rustls::Error::General(why.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
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
        config.ticketer = match tickets {
            Some(same) => same,
            None => ring::Ticketer::new()?,
        };
        config.send_tls13_tickets = TICKETS;
        let config = Arc::new(config);
        UnbufferedServerConnection::new(Arc::clone(&config))?;
        Ok(Self { config })
    }

    /// The keys of its tickets, for the settings that follow these.
    #[must_use]
    pub fn tickets(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.config.ticketer)
    }
}

impl Terminate for TlsServer {
    fn begin(&self) -> Box<dyn Records> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config));
        Box::new(ServerRecords {
            connection: connection.expect("the same was made when the settings were read"),
            failure: None,
            ended: false,
        })
    }
}

/// What cryptography is done by: ring builds with a C compiler alone.
#[must_use]
pub fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// The records of a client's connection.
struct ServerRecords {
    connection: UnbufferedServerConnection,
    /// Why it failed.
    failure: Option<TlsFailure>,
    /// The peer has said that it sends no more.
    ended: bool,
}

impl fmt::Debug for ServerRecords {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRecords")
            .field("agreed", &self.agreed())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl ServerRecords {
    /// Takes in what it can, and hands over what it has to say, until it waits for the peer or all
    /// that is wished has been made into records.
    fn advance(
        &mut self,
        incoming: &mut [u8],
        (opened, out): (&mut Vec<u8>, &mut Vec<u8>),
        mut wish: Wish<'_>,
    ) -> Taken {
        let mut used = 0;
        if let Some(failure) = self.failure.clone() {
            let standing = Err(failure);
            return Taken { used, standing };
        }
        loop {
            let left = &mut incoming[used..];
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(left);
            let standing = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        opened.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    write(out, |into| match data.encode(into) {
                        Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
                        written => Ok(written.unwrap_or(0)),
                    });
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => match std::mem::take(&mut wish) {
                    Wish::Nothing => Some(Ok(TlsStanding::Open)),
                    wish @ (Wish::Seal(_) | Wish::Close) => wish.grant(traffic, out).err().map(Err),
                },
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Ok(TlsStanding::Handshake)),
                Ok(ConnectionState::Closed) => Some(Ok(TlsStanding::Ended)),
                Ok(_) => Some(Err(early_data())),
                Err(error) => {
                    let failure = TlsFailure::from(&error);
                    self.failure = Some(failure.clone());
                    used += discard;
                    return self.fail(failure, (incoming, used), out);
                }
            };
            used += discard;
            match standing {
                None => {}
                Some(Ok(TlsStanding::Open)) if self.ended => {
                    let standing = Ok(TlsStanding::Ended);
                    return Taken { used, standing };
                }
                Some(standing) => return Taken { used, standing },
            }
        }
    }
}

impl ServerRecords {
    /// Hands over the alert that a failure is answered by. Nothing is taken in any more: rustls
    /// would fail again, and panic for a second alert.
    fn fail(
        &mut self,
        failure: TlsFailure,
        (incoming, used): (&mut [u8], usize),
        out: &mut Vec<u8>,
    ) -> Taken {
        while self.connection.wants_write() {
            let left = &mut incoming[used..];
            let status = self.connection.process_tls_records(left);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else {
                break;
            };
            write(out, |into| match data.encode(into) {
                Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
                written => Ok(written.unwrap_or(0)),
            });
        }
        let standing = Err(failure);
        Taken { used, standing }
    }
}

/// What is to be written once bytes may go.
#[derive(Debug, Default)]
enum Wish<'a> {
    #[default]
    Nothing,
    Seal(&'a [u8]),
    Close,
}

impl Wish<'_> {
    fn grant<T>(
        self,
        mut traffic: WriteTraffic<'_, T>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        let mut is_used_up = false;
        write(out, |into| {
            let written = match self {
                Self::Nothing => Ok(0),
                Self::Seal(plain) => traffic.encrypt(plain, into),
                Self::Close => traffic.queue_close_notify(into),
            };
            written.or_else(|error| match error {
                EncryptError::InsufficientSize(size) => Err(size.required_size),
                EncryptError::EncryptExhausted => {
                    is_used_up = true;
                    Ok(0)
                }
            })
        });
        match is_used_up {
            true => Err(TlsFailure::new(
                FailureKind::KeysUsedUp,
                "the keys of the connection are used up",
            )),
            false => Ok(()),
        }
    }
}

/// Appends what `make` writes. It is asked again where it says that it needs more room.
fn write(out: &mut Vec<u8>, mut make: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let at = out.len();
    let mut room = out.capacity().saturating_sub(at).max(ROOM);
    loop {
        out.resize(at + room, 0);
        match make(&mut out[at..]) {
            Ok(written) => return out.truncate(at + written),
            Err(required) => room = required.max(room + 1),
        }
    }
}

fn early_data() -> TlsFailure {
    let why = "early data came, which was not offered";
    TlsFailure::new(FailureKind::Protocol, why)
}

impl Records for ServerRecords {
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Taken {
        let before = reply.len();
        let taken = self.advance(incoming, (plain, reply), Wish::Nothing);
        let failed = taken.standing.as_ref().err();
        if failed.is_some_and(|failure| failure.kind == FailureKind::UnknownName) {
            reply.truncate(before);
            reply.extend_from_slice(&UNRECOGNIZED_NAME);
        }
        taken
    }

    fn seal(
        &mut self,
        plain: &[u8],
        incoming: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        debug_assert!(plain.len() <= PLAIN_MAX, "one record takes it");
        let taken = self.advance(incoming, (&mut Vec::new(), sealed), Wish::Seal(plain));
        taken.standing.map(|_| ())
    }

    fn close(&mut self, incoming: &mut [u8], sealed: &mut Vec<u8>) {
        self.advance(incoming, (&mut Vec::new(), sealed), Wish::Close);
    }

    fn agreed(&self) -> Agreed<'_> {
        let connection = &self.connection;
        let suite = connection.negotiated_cipher_suite();
        Agreed {
            version: connection.protocol_version().and_then(version_of),
            cipher: suite.and_then(|its| its.suite().as_str()),
            protocol: connection.alpn_protocol(),
            server_name: None,
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other version is spoken")]
fn version_of(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// Room for what most messages of a handshake need.
const ROOM: usize = 512;
/// Tickets that each client of TLS 1.3 gets: one resumes, and browsers open two at once.
const TICKETS: usize = 2;
/// The alert for a name that there is no certificate for (RFC 6066, section 3): fatal, 112.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
