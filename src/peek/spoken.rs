//! First bytes of a client that is only asked about.

use super::proxy_protocol::{CheckedTlvs, TlvName};
use super::{EndedTls, FirstBytes, Protocol};
use crate::tls::{ClientIdentity, Foreseen, HelloAsked, Terminate, TlsFailure};

/// What a client would say. Parts that it would not say are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// The server name that it asks for in TLS.
    pub server_name: String,
    /// The application protocols that it offers in TLS.
    pub alpn: Vec<String>,
    /// Whom the certificate names that it shows in TLS.
    pub identity: Option<ClientIdentity>,
    /// The protocol; inside of TLS where that ends at the listener.
    pub protocol: Option<Protocol>,
    /// The host of its HTTP request.
    pub host: String,
    /// The path of that request.
    pub path: String,
    /// What its proxy's header says.
    pub tlvs: Vec<(TlvName, Vec<u8>)>,
}

/// The same as it comes over a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpokenBytes {
    tlvs: Vec<u8>,
    /// Where TLS passes through. None: no client says all of that there.
    passing: Option<Vec<u8>>,
    /// A request of PostgreSQL for TLS stands before them.
    follow_postgres: bool,
    /// Where TLS ends.
    ended: Box<EndedBytes>,
}

/// What a client says to a listener that ends TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct EndedBytes {
    server_name: String,
    alpn: Vec<String>,
    identity: Option<ClientIdentity>,
    hello: Vec<u8>,
    inside: Vec<u8>,
    /// It sends a request of HTTP inside.
    is_http: bool,
}

/// What a listener hears of it.
#[derive(Debug)]
pub struct Heard<'a> {
    spoken: &'a SpokenBytes,
    first: &'a [u8],
    /// Behind a request of PostgreSQL for TLS, which the listener answers.
    follows_postgres: bool,
    /// What TLS agrees on, where it ends there.
    tls: Option<Foreseen>,
}

/// Why a listener hears nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// No client says all of that where TLS passes through: it has parts of TLS, and others.
    Unsaid,
    /// Its handshake fails.
    Tls(TlsFailure),
}

impl SpokenBytes {
    /// What a client says where TLS passes through, and where TLS ends; `None`: neither does any
    /// client say.
    #[must_use]
    pub fn new(passing: &Spoken, ending: &Spoken) -> Option<Self> {
        Some(Self {
            tlvs: TlvName::written(&passing.tlvs)?,
            passing: passing.first_bytes(),
            follow_postgres: passing.asks_postgres_for_tls(),
            ended: Box::new(ending.ended_bytes()?),
        })
    }

    /// What a listener hears, which ends TLS by this where it ends it. No more will come. One that
    /// answers requests of PostgreSQL for TLS (`answers_postgres`) looks at what follows them,
    /// others at the request alone.
    ///
    /// # Errors
    /// It comes to no first byte.
    pub fn heard(
        &self,
        tls: Option<&dyn Terminate>,
        answers_postgres: bool,
    ) -> Result<Heard<'_>, Unheard> {
        let Some(tls) = tls else {
            let first = self.passing.as_deref().ok_or(Unheard::Unsaid)?;
            let asks_only = self.follow_postgres && !answers_postgres;
            return Ok(Heard {
                spoken: self,
                first: if asks_only { SSL_REQUEST } else { first },
                follows_postgres: self.follow_postgres && answers_postgres,
                tls: None,
            });
        };
        let ended = &self.ended;
        let foreseen = tls.foresee(&HelloAsked {
            server_name: Some(&*ended.server_name).filter(|name| !name.is_empty()),
            protocols: &ended.alpn,
            shows_certificate: ended.identity.is_some(),
        });
        let foreseen = foreseen.map_err(Unheard::Tls)?;
        let is_http2 = ended.is_http && foreseen.protocol.as_deref() == Some(HTTP2);
        Ok(Heard {
            spoken: self,
            first: if is_http2 { PREFACE } else { &ended.inside },
            follows_postgres: false,
            tls: Some(foreseen),
        })
    }

    /// What its proxy's header says.
    #[must_use]
    pub fn tlvs(&self) -> CheckedTlvs<'_> {
        CheckedTlvs::of_checked(&self.tlvs)
    }
}

impl Heard<'_> {
    /// The same as routes and keys ask it.
    #[must_use]
    pub fn first_bytes(&self) -> FirstBytes<'_> {
        let ended = &self.spoken.ended;
        let around = self.tls.as_ref().map(|tls| EndedTls {
            hello: &ended.hello,
            protocol: tls.protocol.as_deref().map(str::as_bytes),
            client: ended.identity.as_ref().filter(|_| tls.asks_for_certificate),
        });
        FirstBytes::new(self.first, true)
            .inside(around)
            .behind_postgres(self.follows_postgres)
            .behind(self.spoken.tlvs())
    }

    /// Whether its request can't be read, as TLS agrees on HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.first == PREFACE
    }
}

impl Spoken {
    /// What a client asks for by this name in TLS, and nothing else.
    #[must_use]
    pub fn of_name(server_name: &str) -> Self {
        Self {
            server_name: server_name.to_owned(),
            ..Self::default()
        }
    }

    /// All that such a client sends first. `None`: no client says all of that.
    #[must_use]
    pub fn bytes(&self) -> Option<SpokenBytes> {
        SpokenBytes::new(self, self)
    }

    /// All that it says to a listener that ends TLS.
    fn ended_bytes(&self) -> Option<EndedBytes> {
        let inside = Self {
            protocol: self.protocol.filter(|its| *its != Protocol::Tls),
            host: self.host.clone(),
            path: self.path.clone(),
            ..Self::default()
        };
        Some(EndedBytes {
            server_name: self.server_name.clone(),
            alpn: self.alpn.clone(),
            identity: self.identity.clone(),
            hello: self.hello()?,
            inside: inside.first_bytes()?,
            is_http: inside.is_http() || inside.protocol == Some(Protocol::Http),
        })
    }

    fn is_http(&self) -> bool {
        !self.host.is_empty() || !self.path.is_empty()
    }

    fn is_tls(&self) -> bool {
        !self.server_name.is_empty() || !self.alpn.is_empty()
    }

    /// Whether its hello comes behind a request of PostgreSQL for TLS.
    fn asks_postgres_for_tls(&self) -> bool {
        self.protocol == Some(Protocol::Postgres) && self.is_tls()
    }

    /// The bytes that such a client begins with, those of a request of PostgreSQL for TLS aside;
    /// none where it says nothing. `None`: no client says all of that.
    #[must_use]
    pub fn first_bytes(&self) -> Option<Vec<u8>> {
        let implied = match (self.is_tls(), self.is_http()) {
            (true, true) => return None,
            (true, false) => Some(Protocol::Tls),
            (false, true) => Some(Protocol::Http),
            (false, false) => self.protocol,
        };
        let may_be = [None, implied].contains(&self.protocol) || self.asks_postgres_for_tls();
        if !may_be {
            return None;
        }
        Some(match implied {
            None | Some(Protocol::ServerFirst) => Vec::new(),
            Some(Protocol::Tls) => self.hello()?,
            Some(Protocol::Http) => self.request()?,
            Some(Protocol::Ssh) => b"SSH-2.0-client\r\n".to_vec(),
            Some(Protocol::Postgres) => SSL_REQUEST.to_vec(),
            Some(Protocol::Rdp) => b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0".to_vec(),
            Some(Protocol::Other) => b"EHLO client\r\n".to_vec(),
            Some(Protocol::Mqtt) => b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0".to_vec(),
        })
    }

    fn request(&self) -> Option<Vec<u8>> {
        let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_word(&self.host) || !is_word(&self.path) {
            return None;
        }
        let path = if self.path.is_empty() {
            "/"
        } else {
            &self.path
        };
        let lines = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        Some(lines.into_bytes())
    }

    /// A ClientHello (RFC 8446, section 4.1.2) with no more than it needs.
    fn hello(&self) -> Option<Vec<u8>> {
        let mut extensions = Vec::new();
        if !self.server_name.is_empty() {
            let name = [&[0], &*vector16(self.server_name.as_bytes())?].concat();
            extensions.extend([0, 0]);
            extensions.extend(vector16(&vector16(&name)?)?);
        }
        if !self.alpn.is_empty() {
            let mut names = Vec::new();
            for name in &self.alpn {
                names.push(u8::try_from(name.len()).ok()?);
                names.extend_from_slice(name.as_bytes());
            }
            extensions.extend([0, 16]);
            extensions.extend(vector16(&vector16(&names)?)?);
        }
        let version_and_random = [&[3, 3][..], &[0; 32]].concat();
        let suites_and_compression = [0, 0, 2, 0x13, 1, 1, 0];
        let extensions = vector16(&extensions)?;
        let body = [&*version_and_random, &suites_and_compression, &extensions].concat();
        let message = [&[1, 0], &*vector16(&body)?].concat();
        Some([&[22, 3, 1], &*vector16(&message)?].concat())
    }
}

/// A request of PostgreSQL for TLS (PostgreSQL's documentation, "Message Formats").
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// HTTP/2 over TLS (RFC 9113, section 3.2).
const HTTP2: &str = "h2";

/// Bytes after their length, which is in two bytes.
fn vector16(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(bytes.len()).ok()?;
    Some([&length.to_be_bytes(), bytes].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peek::{FirstBytes, Miss};

    fn spoken(server_name: &str, alpn: &[&str], host: &str, path: &str) -> Spoken {
        Spoken {
            server_name: server_name.to_owned(),
            alpn: alpn.iter().map(ToString::to_string).collect(),
            host: host.to_owned(),
            path: path.to_owned(),
            ..Spoken::default()
        }
    }

    #[test]
    fn what_is_spoken_is_read_again() {
        let bytes = spoken("A.example", &["h2", "x"], "", "")
            .first_bytes()
            .unwrap();
        let first = FirstBytes::new(&bytes, false);
        assert_eq!(first.server_name().unwrap().as_bytes(), b"a.example");
        assert_eq!(first.protocol(), Ok(Protocol::Tls));
        let mut offers = Vec::new();
        first.each_offer(|name| offers.push(name.to_vec())).unwrap();
        assert_eq!(offers, [&b"h2"[..], b"x"]);
        let bytes = spoken("", &["h2"], "", "").first_bytes().unwrap();
        assert_eq!(
            FirstBytes::new(&bytes, false).server_name(),
            Err(Miss::Absent)
        );
        let bytes = spoken("", &[], "a.example", "").first_bytes().unwrap();
        let first = FirstBytes::new(&bytes, false);
        assert_eq!(first.http_host().unwrap().as_bytes(), b"a.example");
        assert_eq!(first.http_path(), Ok(&b"/"[..]));
        for (_, protocol) in Protocol::ALL {
            let spoken = Spoken {
                protocol: Some(protocol),
                ..Spoken::default()
            };
            let bytes = spoken.first_bytes().unwrap();
            let first = FirstBytes::new(&bytes, bytes.is_empty());
            assert_eq!(first.protocol(), Ok(protocol));
        }
        assert_eq!(Spoken::default().first_bytes(), Some(Vec::new()));
        let tlvs = ["authority", "ssl_cn", "0xE0", "ssl_version"];
        let tlvs = tlvs.map(|name| (name.parse().unwrap(), name.as_bytes().to_vec()));
        let behind = Spoken {
            tlvs: tlvs.to_vec(),
            ..Spoken::of_name("a.example")
        };
        let bytes = behind.bytes().unwrap();
        for (name, value) in &tlvs {
            let heard = bytes.heard(None, false).unwrap();
            assert_eq!(heard.first_bytes().proxy_tlv(*name), Ok(&value[..]));
        }
        let behind = Spoken {
            protocol: Some(Protocol::Postgres),
            ..Spoken::of_name("a.example")
        };
        let bytes = behind.bytes().unwrap();
        let answered = bytes.heard(None, true).unwrap();
        let answered = answered.first_bytes();
        assert_eq!(answered.server_name().unwrap().as_bytes(), b"a.example");
        assert!(answered.follow_postgres());
        let passed = bytes.heard(None, false).unwrap();
        let passed = passed.first_bytes();
        assert_eq!(passed.server_name(), Err(Miss::Absent));
        assert_eq!(passed.protocol(), Ok(Protocol::Postgres));
    }

    #[test]
    fn no_client_says_what_excludes_itself() {
        let ssh = Spoken {
            protocol: Some(Protocol::Ssh),
            ..spoken("a.example", &[], "", "")
        };
        for spoken in [
            spoken("a.example", &[], "a.example", ""),
            spoken("", &[], "a.example\r\n", ""),
            spoken("", &[&"a".repeat(256)], "", ""),
            ssh,
        ] {
            assert_eq!(spoken.first_bytes(), None, "{spoken:?}");
        }
    }
}
