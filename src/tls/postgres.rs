//! TLS of PostgreSQL, whose clients ask for it before their hello (PostgreSQL 18, "SSL Session
//! Encryption"): it ends here, or begins here.
//!
//! What came in the clear never counts as decrypted: bytes that stand right behind the request, as
//! somebody between both ends may put them there, are refused (CVE-2021-23214). Only a request to
//! cancel a query may come without TLS, as servers take it and libpq sends it: it holds no more
//! than a key.

use crate::peek::Miss;
use crate::peek::postgres::{self, PostgresStart, REQUEST_BYTES, SSL_REQUEST};

use super::{Agreed, FailureKind, Records, Taken, TlsFailure, TlsStanding};

/// The records of a client that may ask for TLS first, or begins with its hello (direct TLS).
#[derive(Debug)]
pub struct PostgresRecords {
    inner: Box<dyn Records>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is to ask, or to begin.
    First,
    /// It asked for encryption by GSSAPI, and was refused that.
    GssRefused,
    /// Its records come.
    Tls,
    /// It has sent a request to cancel a query, and has nothing more to say.
    Canceling,
}

impl PostgresRecords {
    /// Those of a connection that was just accepted; `inner` are those of its TLS.
    #[must_use]
    pub fn new(inner: Box<dyn Records>) -> Self {
        Self {
            inner,
            stage: Stage::First,
        }
    }

    /// Takes what stands before the first record.
    fn take_request(
        &mut self,
        incoming: &[u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<usize, TlsFailure> {
        let (answer, next) = match postgres::request(incoming) {
            Err(Miss::Incomplete) => return Ok(0),
            Ok(PostgresStart::SslRequest) => (b'S', Stage::Tls),
            Ok(PostgresStart::GssRequest) if self.stage == Stage::First => {
                (b'N', Stage::GssRefused)
            }
            Ok(PostgresStart::Cancel { .. }) => {
                let length = incoming.first_chunk().copied().map(u32::from_be_bytes);
                let whole = length.and_then(|length| incoming.get(..length as usize));
                let whole = whole.unwrap_or(incoming);
                plain.extend_from_slice(whole);
                self.stage = Stage::Canceling;
                return Ok(incoming.len());
            }
            Ok(PostgresStart::GssRequest | PostgresStart::Startup(_)) | Err(Miss::Absent) => {
                return Err(match postgres::is_start(incoming) {
                    Ok(()) => {
                        reply.extend_from_slice(&TLS_REQUIRED);
                        TlsFailure::new(FailureKind::NotTls, "the client has not asked for TLS")
                    }
                    Err(_) => TlsFailure::new(FailureKind::NotTls, "the client does not speak TLS"),
                });
            }
        };
        if incoming.len() > REQUEST_BYTES {
            let why = "bytes came in the clear behind the client's request for TLS";
            return Err(TlsFailure::new(FailureKind::EarlyBytes, why));
        }
        reply.push(answer);
        self.stage = next;
        Ok(REQUEST_BYTES)
    }
}

impl Records for PostgresRecords {
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Taken {
        if self.stage == Stage::Canceling {
            // A server reads nothing more, and nothing more goes there without TLS.
            let (used, standing) = (incoming.len(), Ok(TlsStanding::Open));
            return Taken { used, standing };
        }
        if self.are_records(incoming) && !incoming.is_empty() {
            self.stage = Stage::Tls;
        }
        if self.stage == Stage::Tls {
            return self.inner.open(incoming, plain, reply);
        }
        let taken = self.take_request(incoming, plain, reply);
        let standing = match self.stage {
            Stage::Canceling => TlsStanding::Open,
            Stage::First | Stage::GssRefused | Stage::Tls => TlsStanding::Handshake,
        };
        match taken {
            Ok(used) => Taken {
                used,
                standing: Ok(standing),
            },
            Err(failure) => Taken {
                used: incoming.len(),
                standing: Err(failure),
            },
        }
    }

    fn are_records(&self, next: &[u8]) -> bool {
        match self.stage {
            // The first byte of a message's length is always zero, and a record's never.
            Stage::First | Stage::GssRefused => next.first().is_some_and(|first| *first != 0),
            Stage::Tls => true,
            Stage::Canceling => false,
        }
    }

    fn seal(
        &mut self,
        plain: &[u8],
        incoming: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        if self.stage == Stage::Canceling {
            sealed.extend_from_slice(plain);
            return Ok(());
        }
        self.inner.seal(plain, incoming, sealed)
    }

    fn close(&mut self, incoming: &mut [u8], sealed: &mut Vec<u8>) {
        if self.stage == Stage::Tls {
            self.inner.close(incoming, sealed);
        }
    }

    fn agreed(&self) -> Agreed<'_> {
        self.inner.agreed()
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        self.inner.peer_certificate()
    }
}

/// The records of a server that is asked for TLS first.
#[derive(Debug)]
pub struct AskingRecords {
    inner: Box<dyn Records>,
    asks: Asks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// The request is the first reply.
    First,
    /// The server's answer is awaited.
    Asked,
    /// It has granted it.
    Granted,
}

impl AskingRecords {
    /// Those of a connection that was just made; `inner` are those of its TLS.
    #[must_use]
    pub fn new(inner: Box<dyn Records>) -> Self {
        Self {
            inner,
            asks: Asks::First,
        }
    }
}

impl Records for AskingRecords {
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Taken {
        if self.asks == Asks::Granted {
            return self.inner.open(incoming, plain, reply);
        }
        let used = incoming.len();
        let standing = Ok(TlsStanding::Handshake);
        if self.asks == Asks::First {
            reply.extend_from_slice(&SSL_REQUEST);
            self.asks = Asks::Asked;
        }
        if incoming.is_empty() {
            return Taken { used, standing };
        }
        match granted(incoming) {
            Ok(()) => {
                self.asks = Asks::Granted;
                let Taken { standing, .. } = self.inner.open(&mut [], plain, reply);
                Taken { used, standing }
            }
            Err(failure) => Taken {
                used,
                standing: Err(failure),
            },
        }
    }

    fn seal(
        &mut self,
        plain: &[u8],
        incoming: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        self.inner.seal(plain, incoming, sealed)
    }

    fn close(&mut self, incoming: &mut [u8], sealed: &mut Vec<u8>) {
        if self.asks == Asks::Granted {
            self.inner.close(incoming, sealed);
        }
    }

    fn agreed(&self) -> Agreed<'_> {
        self.inner.agreed()
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        self.inner.peer_certificate()
    }
}

/// Whether a server's answer to the request grants TLS.
///
/// # Errors
/// It does not, or more came than the answer, which somebody between both ends may have put there
/// (CVE-2021-23222).
pub(crate) fn granted(answer: &[u8]) -> Result<(), TlsFailure> {
    let (kind, why) = match answer {
        b"S" => return Ok(()),
        [b'S', ..] => {
            let why = "bytes came in the clear behind the server's answer to the request for TLS";
            (FailureKind::EarlyBytes, why.to_owned())
        }
        b"N" => {
            let why = "the server has no TLS: it answered `N` to PostgreSQL's request for it";
            (FailureKind::NotTls, why.to_owned())
        }
        other => {
            let shown = other.get(..SHOWN).unwrap_or(other).escape_ascii();
            let why = format!("the server answered `{shown}` to PostgreSQL's request for TLS");
            (FailureKind::NotTls, why)
        }
    };
    Err(TlsFailure::new(kind, why))
}

/// Bytes of an answer that are shown.
const SHOWN: usize = 64;
/// What a client hears that starts its session without TLS (PostgreSQL 18, "Message Formats",
/// `ErrorResponse`). The code is that of a server whose rules ask for TLS.
const TLS_REQUIRED: [u8; 62] =
    *b"E\0\0\0\x3dSFATAL\0VFATAL\0C28000\0MTLS is required here: set sslmode\0\0";

#[cfg(test)]
mod tests;
