//! What a client's first bytes say, asked field by field.

use std::cell::OnceCell;

use crate::hash;
use crate::tls::ClientIdentity;

use super::mqtt::MqttConnect;
use super::postgres::{PostgresStart, PostgresStartup};
use super::proxy_protocol::{CheckedTlvs, TlvName};
use super::{BYTES_MAX, ClientHello, Field, Miss, Name, Peeked, Protocol, client_hello, http, rdp};

/// All bytes that a client has sent so far. What routes ask for is parsed once, however many of
/// them there are.
#[derive(Debug)]
pub struct FirstBytes<'a> {
    bytes: &'a [u8],
    is_whole: bool,
    /// What the client sends is not asked.
    is_unknown: bool,
    /// What a proxy's header before them says.
    tlvs: CheckedTlvs<'a>,
    /// A request of PostgreSQL for TLS stood before them.
    follows_postgres: bool,
    /// The TLS that they came in, where that ends here.
    around: Option<EndedTls<'a>>,
    hello: OnceCell<Result<ClientHello, Miss>>,
    protocol: OnceCell<Result<Protocol, Miss>>,
    http_host: OnceCell<Result<Name, Miss>>,
    http_path: OnceCell<Result<&'a [u8], Miss>>,
}

/// TLS that ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTls<'a> {
    /// The client's hello.
    pub hello: &'a [u8],
    /// The application protocol that was agreed on.
    pub protocol: Option<&'a [u8]>,
    /// Who the client is, where it has shown a certificate.
    pub client: Option<&'a ClientIdentity>,
}

impl<'a> FirstBytes<'a> {
    /// These bytes, of which those past [`BYTES_MAX`] are ignored; with that many nothing is
    /// [`Miss::Incomplete`]. `last`: no more will be looked at, so that nothing is either.
    #[must_use]
    pub fn new(bytes: &'a [u8], last: bool) -> Self {
        let bytes = bytes.get(..BYTES_MAX).unwrap_or(bytes);
        Self {
            bytes,
            is_whole: last || bytes.len() >= BYTES_MAX,
            is_unknown: false,
            tlvs: CheckedTlvs::NONE,
            follows_postgres: false,
            around: None,
            hello: OnceCell::new(),
            protocol: OnceCell::new(),
            http_host: OnceCell::new(),
            http_path: OnceCell::new(),
        }
    }

    /// The same behind a request of PostgreSQL for TLS, where there was one.
    #[must_use]
    pub fn behind_postgres(self, was_asked: bool) -> Self {
        Self {
            follows_postgres: was_asked,
            ..self
        }
    }

    /// The same inside of TLS that ends here: what it says of names and protocols is known before
    /// the first byte.
    #[must_use]
    pub fn inside(self, around: Option<EndedTls<'a>>) -> Self {
        Self { around, ..self }
    }

    /// Whether they came in TLS that ends here.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.around.is_some()
    }

    /// No bytes: nothing is known but that none will be looked at.
    #[must_use]
    pub fn none() -> Self {
        Self {
            is_unknown: true,
            ..Self::new(&[], true)
        }
    }

    /// Whether some have come.
    #[must_use]
    pub fn have_come(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The same behind a proxy's header with these TLVs.
    #[must_use]
    pub fn behind(self, tlvs: CheckedTlvs<'a>) -> Self {
        Self { tlvs, ..self }
    }

    /// The value of a TLV of the proxy's header. It is there before the first byte, or never.
    pub fn proxy_tlv(&self, name: TlvName) -> Result<&'a [u8], Miss> {
        name.of(self.tlvs).ok_or(Miss::Absent)
    }

    /// The server name of a TLS hello.
    pub fn server_name(&self) -> Result<&Name, Miss> {
        self.hello()?.server_name.as_ref().ok_or(Miss::Absent)
    }

    /// The same where it was asked for before: nothing is parsed.
    #[must_use]
    pub fn known_server_name(&self) -> Option<&Name> {
        let hello = self.hello.get()?.as_ref().ok()?;
        hello.server_name.as_ref()
    }

    /// Each application protocol that a TLS hello offers (ALPN); of TLS that ends here the one that
    /// was agreed on. The hello is walked again: ask once.
    pub fn each_offer(&self, mut found: impl FnMut(&[u8])) -> Result<(), Miss> {
        if let Some(around) = &self.around {
            around.protocol.into_iter().for_each(found);
            return Ok(());
        }
        self.hello()?;
        self.settled(client_hello::each_offer(self.bytes, &mut found))
    }

    /// The protocol; [`Miss::Absent`]: the client's bytes are not looked at.
    pub fn protocol(&self) -> Result<Protocol, Miss> {
        let parse = || match self.settled(Protocol::of(self.bytes)) {
            Err(Miss::Absent) if self.is_unknown => Err(Miss::Absent),
            Err(Miss::Absent) if self.bytes.is_empty() => Ok(Protocol::ServerFirst),
            Err(Miss::Absent) => Ok(Protocol::Other),
            told => told,
        };
        *self.protocol.get_or_init(parse)
    }

    /// Whether they came behind a request of PostgreSQL for TLS: what follows it is both.
    #[must_use]
    pub fn follow_postgres(&self) -> bool {
        self.follows_postgres
    }

    /// The host of an HTTP/1 request.
    pub fn http_host(&self) -> Result<&Name, Miss> {
        let parse = || self.settled(http::host(self.bytes));
        self.http_host
            .get_or_init(parse)
            .as_ref()
            .map_err(|miss| *miss)
    }

    /// The path of an HTTP/1 request.
    pub fn http_path(&self) -> Result<&'a [u8], Miss> {
        let parse = || self.settled(http::path(self.bytes));
        *self.http_path.get_or_init(parse)
    }

    /// The hash of a field.
    #[must_use]
    pub fn key(&self, field: &Field) -> Peeked {
        match self.value(field) {
            Ok(hash) => Peeked::Found(hash),
            Err(Miss::Incomplete) => Peeked::Incomplete,
            Err(Miss::Absent) => Peeked::Absent,
        }
    }

    fn value(&self, field: &Field) -> Result<u64, Miss> {
        match field {
            Field::Sni => Ok(hash::of(self.server_name()?.as_bytes())),
            Field::TlsSessionId => match self.hello()?.session_id.as_bytes() {
                [] => Err(Miss::Absent),
                id => Ok(hash::of(id)),
            },
            Field::HttpPath => self.http_path().map(hash::of),
            Field::HttpHost => self.http_host().map(|name| hash::of(name.as_bytes())),
            Field::HttpCookie(name) => {
                let cookie = http::cookie(self.bytes, name.as_bytes());
                self.settled(cookie).map(hash::of)
            }
            Field::RdpCookie => self.settled(rdp::cookie(self.bytes)).map(hash::of),
            Field::MqttClientId => match self.settled(MqttConnect::parse(self.bytes))?.client_id {
                "" => Err(Miss::Absent),
                id => Ok(hash::of(id.as_bytes())),
            },
            Field::PostgresUser => self.start().map(|start| hash::of(start.user)),
            Field::PostgresDatabase => self.start().map(|start| hash::of(start.database)),
            Field::TlsClientCn => {
                let name = self.tls_client()?.common_name.as_deref();
                Ok(hash::of(name.ok_or(Miss::Absent)?.as_bytes()))
            }
            // One that is only asked about may have none.
            Field::TlsClientFingerprint => match &*self.tls_client()?.fingerprint {
                "" => Err(Miss::Absent),
                digits => Ok(hash::of(digits.as_bytes())),
            },
            Field::ProxyTlv(name) => match self.proxy_tlv(*name)? {
                [] => Err(Miss::Absent),
                host if *name == TlvName::AUTHORITY => {
                    let host = Name::read(host.iter().copied()).ok_or(Miss::Absent)?;
                    Ok(hash::of(host.as_bytes()))
                }
                value => Ok(hash::of(value)),
            },
        }
    }

    /// Whom the client's certificate names. It is known once the handshake is done, before the
    /// first byte inside.
    pub fn tls_client(&self) -> Result<&'a ClientIdentity, Miss> {
        match &self.around {
            Some(around) => around.client.ok_or(Miss::Absent),
            None if self.bytes.is_empty() && !self.is_whole => Err(Miss::Incomplete),
            None => Err(Miss::Absent),
        }
    }

    /// The parameters of a PostgreSQL session that starts; servers refuse one without a role.
    fn start(&self) -> Result<PostgresStartup<'a>, Miss> {
        match self.settled(PostgresStart::parse(self.bytes))? {
            PostgresStart::Startup(startup) if !startup.user.is_empty() => Ok(startup),
            PostgresStart::Startup(_)
            | PostgresStart::SslRequest
            | PostgresStart::GssRequest
            | PostgresStart::Cancel { .. } => Err(Miss::Absent),
        }
    }

    fn hello(&self) -> Result<&ClientHello, Miss> {
        let parse = || match self.around {
            Some(around) => ClientHello::parse(around.hello).map_err(|_| Miss::Absent),
            None => self.settled(ClientHello::parse(self.bytes)),
        };
        self.hello.get_or_init(parse).as_ref().map_err(|miss| *miss)
    }

    /// More bytes would help, but there will be none.
    fn settled<T>(&self, value: Result<T, Miss>) -> Result<T, Miss> {
        value.map_err(|miss| if self.is_whole { Miss::Absent } else { miss })
    }
}
