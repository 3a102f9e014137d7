//! TLS as a transform of bytes between a socket and its session: records go in and the bytes of the
//! peer come out, and the other way round. Pure: it has no socket and no file, and no clock but
//! that which tells whether certificates, and what is stapled to them, have expired.
//!
//! [`Records`] is what a worker asks, one of each TLS end of a session; the simulation has one of
//! its own, whose every step is decided by a seed. [`TlsServer`] makes the real ones of clients,
//! and [`TlsClient`] those of backends, by rustls.

#![forbid(unsafe_code)]

mod certificates;
mod ciphers;
mod client;
mod counts;
mod failure;
mod identity;
mod postgres;
mod rustls_records;
mod server;
mod trust;
mod words;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::address::Address;
use crate::guard::Example;

pub use certificates::{Certificates, SelectBy, Served, Staple};
pub(crate) use ciphers::openssl_name;
pub use client::{ClientSettings, FreshTls, TlsClient};
pub use counts::TlsCounts;
pub use failure::{FailureKind, TlsFailure};
pub use identity::ClientIdentity;
pub(crate) use identity::{sha256, subject_text};
pub(crate) use postgres::granted;
pub use postgres::{AskingRecords, PostgresRecords};
pub use server::{Policy, ServerSettings, TlsServer, provider};
pub use trust::{Authorities, ClientTrust, ServerTrust, list_fault};
pub(crate) use words::server_fault;

/// What begins TLS, by the names of those that it is of.
#[derive(Debug, Default)]
pub struct TlsByOwner {
    /// Of listeners that end it.
    pub listeners: BTreeMap<String, Arc<Terminator>>,
    /// Of pools whose backends speak it.
    pub pools: BTreeMap<String, Arc<Originator>>,
}

impl TlsByOwner {
    /// Whether all of it is the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        fn is_same<T>(one: &BTreeMap<String, Arc<T>>, other: &BTreeMap<String, Arc<T>>) -> bool {
            let mut both = one.iter().zip(other);
            one.len() == other.len()
                && both.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
        }
        is_same(&self.listeners, &other.listeners) && is_same(&self.pools, &other.pools)
    }
}

/// The TLS of a listener's clients.
#[derive(Debug)]
pub struct Terminator {
    /// Begins it.
    pub begins: Arc<dyn Terminate>,
    /// What all workers count of it.
    pub counts: Arc<TlsCounts>,
}

/// The TLS of a pool's backends.
#[derive(Debug)]
pub struct Originator {
    /// Begins it.
    pub begins: Arc<dyn Originate>,
    /// What all workers count of it.
    pub counts: Arc<TlsCounts>,
    /// A backend whose handshake failed, for the report.
    pub refused: Arc<Example>,
}

impl Originator {
    /// That of a pool whose files were not read: nothing may be said to its backends in the clear.
    #[must_use]
    pub fn unread() -> Self {
        Self {
            begins: Arc::new(Unread),
            counts: Arc::default(),
            refused: Arc::default(),
        }
    }
}

impl Originator {
    /// TLS with a backend, of this name, has failed.
    pub fn on_failed(&self, backend: (&str, &Address), failure: &TlsFailure) {
        self.counts.on_failed(failure.kind);
        self.refused.note(|| {
            let (name, address) = backend;
            format!("backend `{name}` at {address}: {failure}")
        });
    }
}

#[derive(Debug)]
struct Unread;

impl Originate for Unread {
    fn begin(&self, _: ServerAt<'_>) -> Result<Box<dyn Records>, TlsFailure> {
        Err(TlsFailure::new(FailureKind::Protocol, UNREAD))
    }
}

/// Begins TLS with backends of a pool.
pub trait Originate: Debug + Send + Sync {
    /// The TLS of a connection that was just made. Its first look, at nothing, has our hello as the
    /// reply.
    ///
    /// # Errors
    /// The server has no name that its certificate could have.
    fn begin(&self, server: ServerAt<'_>) -> Result<Box<dyn Records>, TlsFailure>;
}

/// A server that TLS is begun with.
#[derive(Clone, Copy, Debug)]
pub struct ServerAt<'a> {
    /// Its host name, if it has one.
    pub host: Option<&'a str>,
    /// Its address.
    pub address: &'a Address,
}

/// Begins TLS with clients of a listener.
pub trait Terminate: Debug + Send + Sync {
    /// The TLS of a connection that was just accepted.
    fn begin(&self) -> Box<dyn Records>;

    /// What it agrees on with a client that is only asked about.
    ///
    /// # Errors
    /// The handshake of such a client fails.
    fn foresee(&self, hello: &HelloAsked<'_>) -> Result<Foreseen, TlsFailure>;
}

/// What a client asks for in its handshake. It can speak what the listener speaks, and a
/// certificate that it shows is one of the listener's authorities.
#[derive(Clone, Copy, Debug)]
pub struct HelloAsked<'a> {
    /// The server name.
    pub server_name: Option<&'a str>,
    /// The application protocols that it offers (ALPN).
    pub protocols: &'a [String],
    /// Whether it shows a certificate if it is asked for one.
    pub shows_certificate: bool,
}

/// What a handshake would agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// The application protocol.
    pub protocol: Option<String>,
    /// Whether the client is asked for a certificate.
    pub asks_for_certificate: bool,
}

/// The records of one connection, in both directions.
pub trait Records: Debug {
    /// Takes the whole records at the front of `incoming`, which are decrypted in place: their
    /// bytes go behind `plain`, and what the peer is to be sent goes behind `reply`.
    fn open(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>, reply: &mut Vec<u8>) -> Taken;

    /// Whether what comes `next`, behind all that [`Records::open`] has used, are records: a client
    /// may have to ask for TLS before them.
    fn are_records(&self, _next: &[u8]) -> bool {
        true
    }

    /// Makes records of some bytes, at most [`PLAIN_MAX`] of them, behind `sealed`. `incoming` is
    /// what [`Records::open`] has left.
    ///
    /// # Errors
    /// Nothing can be sent any more: the keys are used up.
    fn seal(
        &mut self,
        plain: &[u8],
        incoming: &mut [u8],
        sealed: &mut Vec<u8>,
    ) -> Result<(), TlsFailure>;

    /// Makes the alert that no more comes (`close_notify`; RFC 8446, section 6.1), behind `sealed`.
    fn close(&mut self, incoming: &mut [u8], sealed: &mut Vec<u8>);

    /// What the handshake has agreed on, once it is done.
    fn agreed(&self) -> Agreed<'_>;

    /// The certificate of the peer, in DER, once the handshake is done. It was verified, in this
    /// handshake or in that of the session which was resumed.
    fn peer_certificate(&self) -> Option<&[u8]> {
        None
    }
}

/// What came of looking at incoming records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many bytes at the front are used up.
    pub used: usize,
    /// How the connection stands now.
    pub standing: Result<TlsStanding, TlsFailure>,
}

/// How a TLS connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStanding {
    /// The handshake goes on.
    Handshake,
    /// Bytes may go both ways.
    Open,
    /// The peer has said that it sends no more.
    Ended,
}

/// What a handshake has agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed<'a> {
    /// The version, as `1.3`.
    pub version: Option<&'static str>,
    /// The cipher suite, by its name at IANA.
    pub cipher: Option<&'static str>,
    /// The application protocol (ALPN; RFC 7301).
    pub protocol: Option<&'a [u8]>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// Why there is no TLS with the backends of a pool whose files were not read.
pub(crate) const UNREAD: &str = "its certificates were not read: reload the configuration";
/// The most bytes that one record carries (RFC 8446, section 5.1).
pub const PLAIN_MAX: usize = 1 << 14;
/// The most bytes that wait for the rest of their record, or of a message of the handshake, which
/// rustls bounds at 64 KiB.
pub const INCOMING_MAX: usize = 80 * 1024;
