//! TLS of probes: rustls over a nonblocking stream.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::config::ProbeTls;
use crate::peek::postgres::SSL_REQUEST;
use crate::tls::{FreshTls, ServerAt, TlsClient, UNREAD, granted, server_fault};

use super::failure::{Closed, Failure};
use super::own_tls::OwnTls;
use super::stream::ProbeStream;

/// The TLS of all probes of a check.
#[derive(Debug)]
pub(super) enum ProbeClient {
    /// That of the pool's connections, as [`Self::follow`] was told last; `None`: the pool's files
    /// were not read.
    OfPool(RefCell<Option<Arc<TlsClient>>>),
    /// The check's own.
    Own {
        client: OwnTls,
        /// The backend must take one of the protocols that it is offered.
        agrees: bool,
    },
}

impl ProbeClient {
    /// `None`: probes speak no TLS.
    pub(super) fn of(tls: &ProbeTls) -> Option<Self> {
        match tls {
            ProbeTls::Plain => None,
            ProbeTls::OfPool(_) => Some(Self::OfPool(RefCell::default())),
            ProbeTls::Own(settings) => Some(Self::Own {
                client: OwnTls::new(settings),
                agrees: !settings.alpn.is_empty(),
            }),
        }
    }

    /// The pool's connections begin by this client from now on.
    pub(super) fn follow(&self, pools: Option<Arc<TlsClient>>) {
        match self {
            Self::OfPool(client) => *client.borrow_mut() = pools,
            Self::Own { .. } => {}
        }
    }

    /// Has certificates read again that may have changed. Those of a pool are read with it.
    pub(super) fn refresh(&self) {
        match self {
            Self::OfPool(_) => {}
            Self::Own { client, .. } => client.refresh(),
        }
    }

    async fn client(&self) -> Result<Arc<TlsClient>, Failure> {
        match self {
            Self::OfPool(client) => {
                let client = client.borrow().clone();
                client.ok_or_else(|| Failure::Lacking(UNREAD.to_owned()))
            }
            Self::Own { client, .. } => client.client().await,
        }
    }

    /// Loads what is needed before a probe begins. A file may hang: that says nothing about the
    /// backend, and no probe is made until the file has been read.
    pub(super) async fn prepare(&self, within: Duration) -> Result<(), Failure> {
        match tokio::time::timeout(within, self.client()).await {
            Ok(client) => client.map(drop),
            Err(_) => Err(Failure::Lacking(
                "its certificates are still being read".to_owned(),
            )),
        }
    }

    /// Does the TLS handshake, as a connection to this server does.
    pub(super) async fn secure(
        &self,
        stream: ProbeStream,
        server: ServerAt<'_>,
    ) -> Result<Secured, Failure> {
        let tls = self.client().await?.probe(server);
        let tls = tls.map_err(|failure| Failure::Tls(failure.why))?;
        let mut secured = Secured {
            stream,
            tls: Box::new(tls),
        };
        if secured.tls.asks_as_postgres {
            secured.ask_as_postgres().await?;
        }
        while secured.tls.connection.is_handshaking() {
            secured.flush().await?;
            if secured.tls.connection.is_handshaking() && secured.receive().await? == 0 {
                return Err(Failure::Closed(Closed::Handshake));
            }
        }
        secured.flush().await?;
        let agrees = matches!(self, Self::Own { agrees: true, .. });
        if agrees && secured.tls.connection.alpn_protocol().is_none() {
            return Err(Failure::Alpn);
        }
        Ok(secured)
    }
}

/// A TLS connection.
#[derive(Debug)]
pub(super) struct Secured {
    stream: ProbeStream,
    tls: Box<FreshTls>,
}

impl Secured {
    /// Asks for TLS by PostgreSQL's request, and awaits its answer.
    async fn ask_as_postgres(&mut self) -> Result<(), Failure> {
        let asked = self.stream.write_all(&SSL_REQUEST).await;
        asked.map_err(|error| Failure::broken(&error))?;
        // Longer than the answer: nothing may stand behind it.
        let mut answer = [0; 64];
        let length = self.stream.read(&mut answer).await;
        match length.map_err(|error| Failure::broken(&error))? {
            0 => Err(Failure::Closed(Closed::Handshake)),
            length => {
                let answer = answer.get(..length).unwrap_or(&answer);
                granted(answer).map_err(|failure| Failure::Tls(failure.why))
            }
        }
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.chunks(PART) {
            // rustls takes no more than its buffer of 64 KiB holds, which is empty here.
            io::Write::write_all(&mut self.tls.connection.writer(), part)
                .map_err(|error| Failure::broken(&error))?;
            self.flush().await?;
        }
        Ok(())
    }

    pub(super) async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.tls.connection.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The end without close_notify (RFC 8446, section 6.1).
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other.map_err(|error| Failure::broken(&error)),
            }
            // rustls may have something to send, such as an answer to a key update.
            self.flush().await?;
            self.receive().await?;
        }
    }

    /// Waits whether the server refuses our certificate, or that there is none, where it has asked
    /// for one and may do so after the handshake. It accepts by any record, such as a ticket, or by
    /// silence: this long.
    pub(super) async fn await_refusal(&mut self, silence: Duration) -> Result<(), Failure> {
        if !self.tls.may_be_refused() {
            return Ok(());
        }
        match tokio::time::timeout(silence, self.receive()).await {
            Ok(Ok(0)) => Err(Failure::Closed(Closed::Handshake)),
            Ok(received) => received.map(drop),
            Err(_) => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        while self.tls.connection.wants_write() {
            let connection = &mut self.tls.connection;
            let sent = self
                .stream
                .send(|mut socket| connection.write_tls(&mut socket));
            sent.await.map_err(|error| Failure::broken(&error))?;
        }
        Ok(())
    }

    /// Receives. 0: the end.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let connection = &mut self.tls.connection;
        let received = self
            .stream
            .receive(|mut socket| connection.read_tls(&mut socket));
        let length = received.await.map_err(|error| Failure::broken(&error))?;
        if let Err(error) = self.tls.connection.process_new_packets() {
            // Sends the alert if there is room for it: the probe has failed anyway.
            let sent =
                self.stream.send(
                    |mut socket| match self.tls.connection.write_tls(&mut socket) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                        other => other,
                    },
                );
            let _ = sent.await;
            let has_hello = self.tls.connection.protocol_version().is_some();
            return Err(failure(&error, has_hello));
        }
        Ok(length)
    }
}

/// Why the handshake of a probe, or what followed it, failed.
fn failure(error: &rustls::Error, has_hello: bool) -> Failure {
    match server_fault(error, has_hello) {
        Some(why) => Failure::Tls(why),
        None => Failure::Alpn,
    }
}

/// Bytes that rustls gets at a time.
const PART: usize = 16 * 1024;
