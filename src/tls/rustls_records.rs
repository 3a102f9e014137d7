//! The records of a connection by rustls' interface without buffers of its own, for either end.

use std::fmt;
use std::ops::{Deref, DerefMut};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion};

use super::ciphers::iana_name;
use super::words::Progress;
use super::{Agreed, FailureKind, PLAIN_MAX, Records, Taken, TlsFailure, TlsStanding};

/// The records of a connection.
pub(super) struct RustlsRecords<Own> {
    connection: Own,
    /// Why it failed.
    failure: Option<TlsFailure>,
    /// The peer has said that it sends no more.
    ended: bool,
}

/// Our end of a connection.
pub(super) trait OwnEnd: Deref<Target: Deref<Target = CommonState>> + DerefMut {
    /// What rustls knows beside what both ends have.
    type Data;

    /// What to do next (see rustls' own documentation of this method).
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Why a connection failed, which came so far.
    fn failure(error: &Error, progress: Progress) -> TlsFailure;
}

impl OwnEnd for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn failure(error: &Error, progress: Progress) -> TlsFailure {
        TlsFailure::of_client(error, progress)
    }
}

impl OwnEnd for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn failure(error: &Error, progress: Progress) -> TlsFailure {
        TlsFailure::of_server(error, progress)
    }
}

impl<Own> RustlsRecords<Own> {
    /// The records of a connection that begins.
    pub(super) fn new(connection: Own) -> Self {
        Self {
            connection,
            failure: None,
            ended: false,
        }
    }
}

impl<Own: OwnEnd> fmt::Debug for RustlsRecords<Own> {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RustlsRecords")
            .field("agreed", &self.agreed())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl<Own: OwnEnd> RustlsRecords<Own> {
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
            let UnbufferedStatus { mut discard, state } = self.connection.process(left);
            let standing = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        discard += record.discard;
                        opened.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    write(out, ROOM, |into| match data.encode(into) {
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
                    let failure = Own::failure(&error, self.progress());
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

impl<Own: OwnEnd> RustlsRecords<Own> {
    fn progress(&self) -> Progress {
        let connection = &self.connection;
        match connection.protocol_version() {
            _ if !connection.is_handshaking() => Progress::Done,
            Some(_) => Progress::Hello,
            None => Progress::Nothing,
        }
    }

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
            let status = self.connection.process(left);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else {
                break;
            };
            write(out, ROOM, |into| match data.encode(into) {
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
        let room = match self {
            Self::Seal(plain) => plain.len() + RECORD_MORE,
            Self::Nothing | Self::Close => ROOM,
        };
        write(out, room, |into| {
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

/// Appends what `make` writes, at first to so much room. It is asked again where it says that it
/// needs more. All of that room is overwritten twice, so that it should be no more than enough.
fn write(
    out: &mut Vec<u8>,
    mut room: usize,
    mut make: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) {
    let at = out.len();
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

impl<Own: OwnEnd> Records for RustlsRecords<Own> {
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
            cipher: suite.and_then(|its| iana_name(its.suite())),
            protocol: connection.alpn_protocol(),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    fn peer_certificate(&self) -> Option<&[u8]> {
        let chain = self.connection.peer_certificates()?;
        chain.first().map(|certificate| &**certificate)
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
/// What a record adds to its bytes, at most: 5 of its header and 25 of the cipher (RFC 5246,
/// section 6.2.3.3; RFC 8446, section 5.2), and some.
const RECORD_MORE: usize = 64;
/// The alert for a name that there is no certificate for (RFC 6066, section 3): fatal, 112.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
